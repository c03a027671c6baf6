// Conversations with the official TypeScript SDK.
//
// From stdin: one line of JSON each, which conversation, where the Messages API is, and where the shop is if its tools are to
// run here. To stdout: a line each, what the conversation came to, without ids that a server draws. Whoever started this
// compares two such lines: one of a conversation straight with the model, one through the gateway.

import { createInterface } from "node:readline";
import Anthropic from "@anthropic-ai/sdk";
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema";

const ordinary = { model: "claude-sonnet-5-5", max_tokens: 1024 };

const number = { type: "number" };
const string = { type: "string" };

const tool = (name, description, properties, run) =>
  betaTool({
    name,
    description,
    inputSchema: { type: "object", properties, required: Object.keys(properties), additionalProperties: false },
    run,
  });

const add = tool("add", "Add two numbers.", { a: number, b: number }, ({ a, b }) => String(a + b));

/** The shop's tools, as a program without Fanout would have them: requests of its own. */
function shopTools(shop) {
  const ask = async (path, body) => {
    const post = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
    const answer = await fetch(shop + path, body && post);
    if (!answer.ok) throw new Error("the shop refuses");
    return answer.text();
  };
  return [
    tool("get_order", "Look up an order.", { order_id: string }, ({ order_id }) => ask(`/orders/${order_id}`)),
    tool("get_stock", "How many are in stock.", { sku: string }, ({ sku }) => ask(`/inventory/${sku}`)),
    tool("reserve_stock", "Take n units out of stock.", { sku: string, n: number }, ({ sku, n }) =>
      ask(`/inventory/${sku}/reserve`, { n }),
    ),
  ];
}

/** What of a message is the same whoever sent it. */
const seen = ({ content, stop_reason: stop }) => ({ content: content.map(withoutNulls), stop });

const withoutNulls = (block) => Object.fromEntries(Object.entries(block).filter(([, value]) => value != null));

/** What the person at the other end is told and pays, in however many messages it came. */
function told(messages) {
  const blocks = messages.flatMap((message) => message.content);
  const sum = (field) => messages.reduce((sum, message) => sum + message.usage[field], 0);
  return {
    text: blocks.flatMap((block) => (block.type === "text" ? [block.text] : [])).join(""),
    stop: messages.at(-1).stop_reason,
    input_tokens: sum("input_tokens"),
    output_tokens: sum("output_tokens"),
  };
}

const hello = { ...ordinary, messages: [{ role: "user", content: "Hello" }] };

async function create(client) {
  const message = await client.messages.create(hello);
  return [seen(message), told([message])];
}

async function stream(client) {
  const events = client.messages.stream(hello);
  let text = "";
  events.on("text", (piece) => (text += piece));
  const message = await events.finalMessage();
  return [text, seen(message), told([message])];
}

async function all(runner) {
  const messages = [];
  for await (const item of runner) messages.push("finalMessage" in item ? await item.finalMessage() : item);
  return messages;
}

const sums = { ...ordinary, tools: [add], messages: [{ role: "user", content: "Add them up" }] };

const run = async (client, more) => (await all(client.beta.messages.toolRunner({ ...sums, ...more }))).map(seen);

/** Three messages of a person, and a loop over the tools that run here. `say` sends what is new. */
async function chat(tools, say) {
  const answers = [];
  for (let content of ["First", "And then?", "Thanks"]) {
    const answer = [];
    while (content.length) {
      const message = await say({ role: "user", content });
      answer.push(message);
      content = [];
      for (const block of message.content) if (block.type === "tool_use") content.push(await result(tools, block));
    }
    answers.push(answer);
  }
  return answers;
}

const definitions = (tools) => (tools.length ? { tools: tools.map(({ run, parse, close, ...definition }) => definition) } : {});

/** Sends the whole history each time. */
function remembering(tools, ask) {
  const messages = [];
  return async (message) => {
    messages.push(message);
    const answer = await ask({ ...ordinary, ...definitions(tools), messages });
    messages.push({ role: "assistant", content: answer.content });
    return answer;
  };
}

/** Has the server remember. */
function threaded(client, tools) {
  const thread = client.beta.messages.thread({ ...ordinary, ...definitions(tools) });
  return (message) => thread.send([message]);
}

async function result(tools, call) {
  const answer = { type: "tool_result", tool_use_id: call.id };
  try {
    return { ...answer, content: await tools.find(({ name }) => name === call.name).run(call.input) };
  } catch (error) {
    return { ...answer, content: error.message, is_error: true };
  }
}

const whole = (client) => (request) => client.messages.create(request);
const streamed = (client) => (request) => client.messages.stream(request).finalMessage();

const thoughts = async (ask) => (await chat([add], remembering([add], ask))).map((turn) => turn.map(seen));

async function shopping(shop, say) {
  const tools = shop ? shopTools(shop) : [];
  return (await chat(tools, say(tools))).map(told);
}

async function mixed(client, shop, more) {
  const tools = [add, ...(shop ? shopTools(shop) : [])];
  const messages = [{ role: "user", content: "The shelf and a sum" }];
  return [told(await all(client.beta.messages.toolRunner({ ...ordinary, tools, messages, ...more })))];
}

async function refused(client) {
  try {
    await client.messages.create(hello);
  } catch (error) {
    if (error instanceof Anthropic.BadRequestError) {
      return [error.status, error.error.error.type, error.error.error.message];
    }
    throw error;
  }
  throw new Error("the model refused, and the client was not told");
}

async function broken(client) {
  try {
    await stream(client);
  } catch (error) {
    if (error instanceof Anthropic.APIError) return [error.error.error.type, error.error.error.message];
    throw error;
  }
  throw new Error("the stream broke, and the client was not told");
}

const conversations = {
  create,
  stream,
  runner: (client) => run(client),
  runner_without_threads: (client) => run(client, { thread: false }),
  runner_streaming: (client) => run(client, { stream: true }),
  runner_streaming_without_threads: (client) => run(client, { stream: true, thread: false }),
  runner_eager: (client) => run(client, { stream: true, runToolsEagerly: true }),
  thoughts: (client) => thoughts(whole(client)),
  thoughts_streaming: (client) => thoughts(streamed(client)),
  shopping: (client, shop) => shopping(shop, (tools) => remembering(tools, whole(client))),
  shopping_streaming: (client, shop) => shopping(shop, (tools) => remembering(tools, streamed(client))),
  shopping_in_a_thread: (client, shop) => shopping(shop, (tools) => threaded(client, tools)),
  mixed: (client, shop) => mixed(client, shop),
  mixed_without_threads: (client, shop) => mixed(client, shop, { thread: false }),
  refused,
  overloaded: create,
  broken,
};

for await (const line of createInterface({ input: process.stdin })) {
  const { conversation, base_url: baseURL, shop } = JSON.parse(line);
  const client = new Anthropic({ baseURL, apiKey: "a key of nobody" });
  const answer = await conversations[conversation](client, shop).then(
    (answers) => ({ answers }),
    (error) => ({ failed: error.stack ?? String(error) }),
  );
  console.log(JSON.stringify(answer));
}
