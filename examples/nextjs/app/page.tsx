export default function Page() {
  return <p>POST a prompt, as JSON, to /api/ask or to /api/loop.</p>;
}
