export default function Page() {
  return <p>POST a prompt, as JSON, to /api/ask, with the access token of a signed-in user.</p>;
}
