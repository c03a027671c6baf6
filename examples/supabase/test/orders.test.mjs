// Two users of the built app, each with a token of their own: from the route to the rows.
//
// From FANOUT_URL: a gateway with this folder's `fanout.toml`, over a database of `schema.sql` and `seed.sql`, and before a Claude
// that looks an order up and repeats what it was told. From SUPABASE_JWT_SECRET: what their tokens are signed with.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";
import { after, before, test } from "node:test";

const gateway = process.env.FANOUT_URL;
const secret = process.env.SUPABASE_JWT_SECRET;

const alice = { id: "a11ce000-0000-4000-8000-000000000001", order: 1001, rows: ["Alice Adler", "packed", "desk-lamp", "oak-shelf", "129.00", "SW-1001-A"] };
const bob = { id: "b0b00000-0000-4000-8000-000000000002", order: 2001, rows: ["Bob Baum", "shipped", "wool-rug", "240.00", "HE-2001-B"] };

let app, url;

before(async () => {
  assert.ok(gateway && secret, "FANOUT_URL and SUPABASE_JWT_SECRET say where the gateway is and what it verifies by");
  const port = await freePort();
  url = `http://127.0.0.1:${port}`;
  const next = ["node_modules/next/dist/bin/next", "start", "-H", "127.0.0.1", "-p", String(port)];
  app = spawn(process.execPath, next, { env: { ...process.env, ANTHROPIC_API_KEY: "none" }, stdio: ["ignore", "pipe", "inherit"] });
  for await (const piece of app.stdout) if (String(piece).includes("Ready")) break;
  assert.equal(app.exitCode, null, "the app did not start");
});

after(async () => {
  if (app?.kill()) await once(app, "exit");
});

test("a user sees the whole of an order of theirs", async () => {
  for (const user of [alice, bob]) shows(await ask(user, user.order), user.rows);
});

test("a user sees nothing of somebody else's order", async () => {
  hides(await ask(alice, bob.order), bob.rows);
  hides(await ask(bob, alice.order), alice.rows);
});

test("many questions of both at once are not mixed up", async () => {
  const asked = Array.from({ length: 24 }, (_, at) => ({ user: at % 2 ? alice : bob, order: at % 3 ? 1001 : 2001 }));
  const answers = await Promise.all(asked.map(({ user, order }) => ask(user, order)));
  asked.forEach(({ user, order }, at) => {
    const [theirs, others] = user === alice ? [alice, bob] : [bob, alice];
    if (order === theirs.order) shows(answers[at], theirs.rows);
    else hides(answers[at], theirs.rows);
    hides(answers[at], others.rows);
  });
});

test("a user can put a note on an order of theirs, once for each version, and on no other", async () => {
  shows(await note(alice, alice.order, "ring twice"), ["ring twice"]);
  shows(await note(alice, alice.order, "ring once"), ["conflict"]);
  shows(await note(bob, alice.order, "mine now"), ["conflict"]);
  const order = await ask(alice, alice.order);
  shows(order, ["ring twice"]);
  hides(order, ["mine now"]);
});

test("without a token every tool is not permitted", async () => {
  const answer = await ask(undefined, alice.order);
  assert.equal(answer.match(/not_permitted/g)?.length, 4, answer);
  hides(answer, alice.rows);
});

test("a token that has expired, or that another key has signed, is 401", async () => {
  for (const token of [sign(alice.id, -3600), sign(alice.id, 3600, "somebody else's secret, just as long")]) {
    const { status, text } = await post(token, `Look up order ${alice.order}`);
    assert.equal(status, 401, text);
    assert.ok(!text.includes(token), text);
  }
});

const shows = (answer, rows) => rows.forEach((row) => assert.ok(answer.includes(row), `${row} is not in: ${answer}`));
const hides = (answer, rows) => rows.forEach((row) => assert.ok(!answer.includes(row), `${row} is in: ${answer}`));

const ask = (user, order) => answered(user, `Look up order ${order}`);
const note = (user, order, text) => answered(user, `Note on order ${order}: ${text}`);

async function answered(user, prompt) {
  const { status, text } = await post(user && sign(user.id, 3600), prompt);
  assert.equal(status, 200, text);
  return JSON.parse(text).answer;
}

async function post(token, prompt) {
  const headers = { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) };
  const answer = await fetch(`${url}/api/ask`, { method: "POST", headers, body: JSON.stringify({ prompt }) });
  return { status: answer.status, text: await answer.text() };
}

// A token as Supabase makes one for a signed-in user, with HS256.
function sign(user, seconds, key = secret) {
  const now = Math.floor(Date.now() / 1000);
  const claims = { sub: user, role: "authenticated", aud: "authenticated", iat: now, exp: now + seconds };
  const parts = [{ alg: "HS256", typ: "JWT" }, claims].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url"));
  return [...parts, createHmac("sha256", key).update(parts.join(".")).digest("base64url")].join(".");
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}
