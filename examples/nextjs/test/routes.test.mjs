// Both routes of the built app, against the demo of the gateway.
//
// From FANOUT_URL: a fresh `fanout serve --demo`. The app is started on 127.0.0.1, asked, and stopped.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { after, before, test } from "node:test";

const gateway = process.env.FANOUT_URL;
let app, url;

before(async () => {
  assert.ok(gateway, "FANOUT_URL names no gateway; start one: fanout serve --demo");
  const port = await freePort();
  url = `http://127.0.0.1:${port}`;
  const next = ["node_modules/next/dist/bin/next", "start", "-H", "127.0.0.1", "-p", String(port)];
  // The demo has a Claude of its own, behind the gateway, which takes any key.
  const env = { ...process.env, ANTHROPIC_BASE_URL: gateway, ANTHROPIC_API_KEY: "none" };
  app = spawn(process.execPath, next, { env, stdio: ["ignore", "pipe", "inherit"] });
  for await (const piece of app.stdout) if (String(piece).includes("Ready")) break;
  assert.equal(app.exitCode, null, "the app did not start");
});

after(async () => {
  if (app?.kill()) await once(app, "exit");
});

test("a route whose base URL alone changed gets what Fanout's tools found out", async () => {
  const { answer } = await ask("ask");
  assert.match(answer, /^I'll look up .*Order #123 is processed\. The desk-lamp units are reserved \(10 left, then 9 left\)/);
  assert.match(answer, /A note is on the order\./);
});

test("a loop that sends its calls to tool_calls gets the same answer", async () => {
  const { answer, batches } = await ask("loop");
  assert.match(answer, /^Order #123 is processed\. The desk-lamp units are reserved \(7 left, then 6 left\)/);
  assert.match(answer, /A note is on the order\./);
  assert.deepEqual(batches, [5, 5]);
});

async function ask(route) {
  const answer = await fetch(`${url}/api/${route}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ prompt: "Process order #123" }),
  });
  const text = await answer.text();
  assert.equal(answer.status, 200, text);
  return JSON.parse(text);
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}
