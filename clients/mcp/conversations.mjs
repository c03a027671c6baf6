// Conversations with the MCP SDK's own client, over either transport.
//
// From stdin: one line of JSON each: which conversation, where the tools' own server is, and how to reach the MCP server (`url`,
// or the command to `start`). To stdout: a line each, what the conversation came to. Nothing here waits for time to pass: the
// tools' server says what ran beside what, and holds its answers until it is told to let them go.

import assert from "node:assert/strict";
import { createInterface } from "node:readline";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

/** A client that has begun its session. Whatever the SDK finds wrong with the server's messages is in `wrong`. */
async function connect({ url, start }) {
  const client = new Client({ name: "fanout-clients", version: "1" });
  const wrong = [];
  client.onerror = (error) => wrong.push(String(error));
  const transport = url
    ? new StreamableHTTPClientTransport(new URL(url))
    : new StdioClientTransport({ ...start, stderr: "inherit" });
  await client.connect(transport);
  const close = async () => {
    assert.deepEqual(wrong, []);
    if (url) await transport.terminateSession();
    await client.close();
  };
  return { client, close };
}

const call = (client, name, args, options) => client.callTool({ name, arguments: args }, undefined, options);

/** The data of a result that is no error. */
function data({ isError, structuredContent, content }) {
  assert.ok(!isError, JSON.stringify(content));
  return structuredContent;
}

/** The tools' own server. */
const toolServer = (base) => {
  const ask = async (path, method = "GET") => {
    const answer = await fetch(base + path, { method });
    assert.ok(answer.ok, `${path}: ${answer.status}`);
    return answer;
  };
  return {
    ledger: async () => (await ask("/ledger")).json(),
    held: (id) => ask(`/held/${id}`),
    gone: (id) => ask(`/gone/${id}`),
    release: (id) => ask(`/release/${id}`, "POST"),
  };
};

const conversations = {
  /** The tools, and the hints by which clients decide what to run together and what to ask about. */
  async list({ client }) {
    const { tools } = await client.listTools();
    const hints = Object.fromEntries(
      tools.map(({ name, annotations: a }) => [name, [a.readOnlyHint, a.destructiveHint, a.idempotentHint, a.openWorldHint]]),
    );
    assert.equal(tools.length, 12);
    assert.deepEqual(hints.plan, [false, true, false, true], "it may do what any of the others may");
    assert.deepEqual(hints.echo, [true, false, true, true], "it is declared to write nothing");
    assert.deepEqual(hints.append, [false, true, false, true], "it is declared to write");
    assert.deepEqual(hints.undeclared, [false, true, false, true], "of a POST that says nothing, writes are assumed");
    assert.deepEqual(tools.find(({ name }) => name === "meet").inputSchema.required, ["party", "size"]);
    assert.equal(client.getServerVersion().name, "fanout");
    await client.ping();
    return hints;
  },

  /** A whole graph of calls in one: what the model wants to see of it comes back as one text. */
  async plan({ client }) {
    const calls = [
      { label: "first", tool: "echo", input: { text: "for the next one" } },
      { label: "next", tool: "echo", input: { text: { $ref: "first#/text" } } },
    ];
    const { isError, content } = await call(client, "plan", { calls, return: ["next#/text"] });
    assert.ok(!isError, JSON.stringify(content));
    const answer = JSON.parse(content[0].text);
    assert.equal(answer["next#/text"], "for the next one");
    return answer;
  },

  /** Calls that touch different things run at once: none is answered before all are there. */
  async together({ client, server }) {
    const size = 8;
    const calls = Array.from({ length: size }, () => call(client, "meet", { party: "all", size }));
    const results = await Promise.all(calls);
    const answers = results.map(data);
    const { running_max: together, running } = await server.ledger();
    assert.deepEqual({ together, running }, { together: size, running: 0 });
    return answers;
  },

  /** Calls that write one thing run one by one; calls beside them don't wait. */
  async in_order({ client, server }) {
    const lines = ["a", "b", "c", "d"];
    const held = call(client, "hold", { id: "beside" });
    await server.held("beside");
    const results = await Promise.all(lines.map((line) => call(client, "append", { page: "one", line })));
    const { running_max: together, pages } = await server.ledger();
    assert.equal(together, 2, "the one that is held, and one that writes");
    assert.equal(pages.one.length, lines.length, "none has lost what another wrote");
    assert.deepEqual(pages.one.toSorted(), lines);
    await server.release("beside");
    data(await held);
    return results.map((result) => data(result).lines.length).toSorted();
  },

  /** A tool that fails is a result; a tool that is not there is an error of the protocol. */
  async failure({ client }) {
    const failed = await call(client, "test_error_handling", {});
    assert.equal(failed.isError, true);
    const { error } = JSON.parse(failed.content[0].text);
    assert.equal(error.code, "upstream");
    assert.match(error.message, /This tool intentionally returns an error/);
    const wrong = await call(client, "meet", { party: 1 });
    assert.equal(wrong.isError, true);
    assert.equal(JSON.parse(wrong.content[0].text).error.code, "invalid_input");
    await assert.rejects(call(client, "nobody", {}), { code: -32602 });
    return [error.code, data(await call(client, "echo", { text: "still here" }))];
  },

  /** A call that is cancelled is stopped, down to the tool's own server, and no other. */
  async cancelled({ client, server }) {
    const kept = call(client, "hold", { id: "kept" });
    const cancel = new AbortController();
    const dropped = call(client, "hold", { id: "dropped" }, { signal: cancel.signal });
    await Promise.all([server.held("kept"), server.held("dropped")]);
    cancel.abort("not wanted any more");
    await assert.rejects(dropped);
    await server.gone("dropped");
    await server.release("kept");
    const answer = data(await kept);
    assert.deepEqual((await server.ledger()).gone, ["dropped"]);
    return [answer];
  },

  /** Who asks is told when its call starts, while it runs. */
  async progress({ client, server }) {
    const said = [];
    let started;
    const hasStarted = new Promise((resolve) => (started = resolve));
    const onprogress = ({ progress, total, message }) => {
      said.push([progress, total, message]);
      if (message === "started") started();
    };
    const held = call(client, "hold", { id: "told" }, { onprogress });
    await hasStarted;
    const before = [...said];
    assert.deepEqual(before, [[0, 2, "waiting"], [1, 2, "started"]]);
    await server.release("told");
    data(await held);
    return before;
  },

  /** Two clients at once are two sessions: their calls run together, and one that goes leaves the other's alone. */
  async two_clients({ client, server, over }) {
    const second = await connect(over);
    const both = [client, second.client].map((one) => call(one, "meet", { party: "two", size: 2 }));
    const met = await Promise.all(both);
    const kept = call(client, "hold", { id: "first" });
    await server.held("first");
    await second.close();
    await server.release("first");
    const answers = [...met, await kept].map(data);
    const { running_max: together, gone } = await server.ledger();
    assert.deepEqual({ together, gone }, { together: 2, gone: [] });
    return answers;
  },
};

async function hold({ conversation, tools, ...over }) {
  const { client, close } = await connect(over);
  const answers = await conversations[conversation]({ client, server: toolServer(tools), over });
  await close();
  return Array.isArray(answers) ? answers : [answers];
}

for await (const line of createInterface({ input: process.stdin })) {
  let said;
  try {
    said = { answers: await hold(JSON.parse(line)) };
  } catch (error) {
    said = { failed: error.stack ?? String(error) };
  }
  process.stdout.write(`${JSON.stringify(said)}\n`);
}
