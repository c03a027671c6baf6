// The client that the MCP conformance suite tests: `fanout call` with one server, whose address is the last argument; where the
// server demands OAuth, after `fanout login`, with this program as the browser.
//
// From the suite: the address, and in MCP_CONFORMANCE_SCENARIO what it wants tried; in MCP_CONFORMANCE_CONTEXT what somebody
// would have registered before. From clients/src/conformance.rs: the binary, in FANOUT. To the suite, by the requests of the
// binary; it ends with this program's exit status.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { spawn, spawnSync } from "node:child_process";

// What a scenario has the client call. Of one that is not here, the tools are listed and nothing is called.
const CALLS = {
  tools_call: ["add_numbers", { a: 5, b: 3 }],
  "sse-retry": ["test_reconnection", {}],
  "elicitation-sep1034-client-defaults": ["test_client_elicitation_defaults", {}],
};

const scenario = process.env.MCP_CONFORMANCE_SCENARIO;
const known = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? "{}");
const isOwn = scenario?.startsWith("auth/client-credentials");
const oauth = known.client_id === undefined
  ? "true"
  : `{ client_id = ${JSON.stringify(known.client_id)}, client_secret = ${JSON.stringify(known.client_secret ?? "")}, client_credentials = ${isOwn} }`;
const lines = ["[mcp_servers.s]", `url = ${JSON.stringify(process.argv.at(-1))}`];
if (scenario?.startsWith("auth/")) lines.push(`oauth = ${oauth}`);
const folder = mkdtempSync(join(tmpdir(), "fanout-conformance-"));
writeFileSync(join(folder, "fanout.toml"), lines.join("\n"));

// Logs in: goes where the binary says, and from there back to it.
async function login() {
  const child = spawn(process.env.FANOUT, ["login", "s", "--json"], { cwd: folder, stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise((done) => child.on("close", done));
  for await (const line of createInterface({ input: child.stdout })) {
    const { url } = JSON.parse(line);
    if (url !== undefined) await fetch(url);
  }
  return ended;
}

function run() {
  const [tool, input] = CALLS[scenario] ?? (scenario?.startsWith("auth/") ? ["test-tool", {}] : []);
  const content = JSON.stringify([{ type: "tool_use", id: "toolu_1", name: `s__${tool}`, input }]);
  const [verb, given] = tool === undefined ? ["check", ""] : ["call", content];
  return spawnSync(process.env.FANOUT, [verb], { cwd: folder, input: given, stdio: ["pipe", "inherit", "inherit"] }).status;
}

const isLogin = scenario?.startsWith("auth/") && !isOwn;
const status = (isLogin ? await login() : 0) || run();
rmSync(folder, { recursive: true });
process.exit(status ?? 1);
