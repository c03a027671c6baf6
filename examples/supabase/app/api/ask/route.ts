// What a signed-in user asks, answered from the rows that row-level security lets that user see. The route hands the user's
// Supabase token on and decides nothing by it: Fanout verifies it, and PostgreSQL decides.
import Anthropic from "@anthropic-ai/sdk";

const claude = new Anthropic({ baseURL: process.env.FANOUT_URL });

export async function POST(request: Request) {
  // `session.access_token` of supabase-js, sent along by the page. Without one, the tools answer `not_permitted`.
  const token = /^Bearer (\S+)$/i.exec(request.headers.get("authorization") ?? "")?.[1];
  const { prompt } = await request.json();
  try {
    const message = await claude.messages.create(
      { model: "claude-sonnet-5-5", max_tokens: 4096, messages: [{ role: "user", content: prompt }] },
      { headers: token ? { "fanout-user-token": token } : {} },
    );
    const answer = message.content.map((block) => (block.type === "text" ? block.text : "")).join("");
    return Response.json({ answer });
  } catch (error) {
    // The token has expired, or is none of this project's: the page refreshes the session and asks again.
    if (error instanceof Anthropic.AuthenticationError) return Response.json({ error: error.message }, { status: 401 });
    throw error;
  }
}
