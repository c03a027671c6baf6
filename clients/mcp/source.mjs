// The client that the MCP conformance suite tests: `fanout call` with one server, whose address is the last argument.
//
// From the suite: the address, and in MCP_CONFORMANCE_SCENARIO what it wants tried. From clients/src/conformance.rs: the
// binary, in FANOUT. To the suite, by the requests of the binary; it ends with this program's exit status.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { spawnSync } from "node:child_process";

// What a scenario has the client call. Of one that is not here, the tools are listed and nothing is called.
const CALLS = {
  tools_call: ["add_numbers", { a: 5, b: 3 }],
  "sse-retry": ["test_reconnection", {}],
  "elicitation-sep1034-client-defaults": ["test_client_elicitation_defaults", {}],
};

const folder = mkdtempSync(join(tmpdir(), "fanout-conformance-"));
writeFileSync(join(folder, "fanout.toml"), `[mcp_servers.s]\nurl = ${JSON.stringify(process.argv.at(-1))}\n`);
const [tool, input] = CALLS[process.env.MCP_CONFORMANCE_SCENARIO] ?? [];
const content = JSON.stringify([{ type: "tool_use", id: "toolu_1", name: `s__${tool}`, input }]);
const [verb, given] = tool === undefined ? ["check", ""] : ["call", content];
const ended = spawnSync(process.env.FANOUT, [verb], { cwd: folder, input: given, stdio: ["pipe", "inherit", "inherit"] });
rmSync(folder, { recursive: true });
process.exit(ended.status ?? 1);
