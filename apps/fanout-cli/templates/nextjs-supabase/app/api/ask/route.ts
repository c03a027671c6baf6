// The SDK as ever; only the base URL is another. Fanout runs the tools of fanout.toml, in parallel, and one message comes back.
import Anthropic from "@anthropic-ai/sdk";

// The key goes on to Claude. Where the gateway demands keys, this is one of its own.
const claude = new Anthropic({
  baseURL: process.env.FANOUT_URL ?? "http://127.0.0.1:8787",
  apiKey: process.env.ANTHROPIC_API_KEY ?? "any",
});

export async function POST(request: Request) {
  const { prompt } = await request.json();
  const message = await claude.messages.create({
    model: "claude-sonnet-5-5",
    max_tokens: 4096,
    messages: [{ role: "user", content: prompt }],
  });
  const answer = message.content.map((block) => (block.type === "text" ? block.text : "")).join("");
  return Response.json({ answer });
}
