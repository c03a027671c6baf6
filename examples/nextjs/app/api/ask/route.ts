// The SDK as ever; only the base URL is another. Fanout runs its tools, in parallel, and one message comes back.
import Anthropic from "@anthropic-ai/sdk";

const claude = new Anthropic({ baseURL: process.env.FANOUT_URL });

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
