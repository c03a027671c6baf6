// A loop of its own. Where `Promise.all(calls.map(run))` stood, one request has Fanout run the calls of a turn: in parallel,
// but for those that touch one thing, which keep their order.
import Anthropic from "@anthropic-ai/sdk";

// Claude itself, wherever ANTHROPIC_BASE_URL says that it is. The header matters only if that is a gateway of Fanout's too:
// the calls are to come here, and not to be run on the way.
const claude = new Anthropic({ defaultHeaders: { "fanout-tools": "none" } });

const fanout = (path: string, body?: string) =>
  fetch(`${process.env.FANOUT_URL}/fanout/v1/${path}`, {
    method: body ? "POST" : "GET",
    headers: { "content-type": "application/json" },
    body,
  }).then(async (answer) => (answer.ok ? answer.json() : Promise.reject(new Error(await answer.text()))));

export async function POST(request: Request) {
  const { prompt } = await request.json();
  const tools = await fanout("tools");
  const messages: Anthropic.MessageParam[] = [{ role: "user", content: prompt }];
  const batches: number[] = [];
  for (;;) {
    const message = await claude.messages.create({ model: "claude-sonnet-5-5", max_tokens: 4096, tools, messages });
    messages.push({ role: "assistant", content: message.content });
    if (message.stop_reason !== "tool_use") {
      const answer = message.content.map((block) => (block.type === "text" ? block.text : "")).join("");
      return Response.json({ answer, batches });
    }
    const { role, content, unhandled } = await fanout("tool_calls", JSON.stringify({ content: message.content }));
    if (unhandled.length > 0) throw new Error(`nobody runs ${unhandled}`); // an app with tools of its own runs them here
    messages.push({ role, content });
    batches.push(content.length);
  }
}
