"use client";
import { useState } from "react";

export default function Page() {
  const [answer, setAnswer] = useState("");
  async function ask(form: FormData) {
    setAnswer("…");
    const reply = await fetch("/api/ask", { method: "POST", body: JSON.stringify({ prompt: form.get("prompt") }) });
    setAnswer(reply.ok ? (await reply.json()).answer : await reply.text());
  }
  return (
    <form action={ask}>
      <input name="prompt" size={60} defaultValue="Which orders of customer 7 are still open?" />
      <button>Ask</button>
      <p>{answer}</p>
    </form>
  );
}
