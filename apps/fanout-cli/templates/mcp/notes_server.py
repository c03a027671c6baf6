"""An MCP server of two tools over standard input and output: notes, kept as long as it runs."""

import json
import sys

NOTES = {"welcome": "This note is kept by notes_server.py."}
NAME = {"type": "string", "description": "What the note is called."}
TOOLS = [
    {
        "name": "read_note",
        "description": "Read a note.",
        "inputSchema": {"type": "object", "properties": {"name": NAME}, "required": ["name"]},
        "annotations": {"readOnlyHint": True},
    },
    {
        "name": "write_note",
        "description": "Write a note; what stood there is gone.",
        "inputSchema": {
            "type": "object",
            "properties": {"name": NAME, "text": {"type": "string"}},
            "required": ["name", "text"],
        },
    },
]


def call(name: str, given: dict) -> dict:
    if name == "write_note":
        NOTES[given["name"]] = given["text"]
        return said("written")
    if name == "read_note" and given["name"] in NOTES:
        return said(NOTES[given["name"]])
    return said(f"there is no note `{given.get('name')}`; there are {', '.join(NOTES)}", is_error=True)


def said(text: str, is_error: bool = False) -> dict:
    return {"content": [{"type": "text", "text": text}], "isError": is_error}


def answer(method: str, params: dict) -> dict | None:
    if method == "initialize":
        about = {"name": "notes", "version": "1.0.0"}
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": about}
    if method == "tools/list":
        return {"tools": TOOLS}
    if method == "tools/call":
        return call(params["name"], params.get("arguments") or {})
    return {} if method == "ping" else None


for line in sys.stdin:
    request = json.loads(line)
    if "id" not in request or "method" not in request:
        continue
    result = answer(request["method"], request.get("params") or {})
    reply = {"result": result} if result is not None else {"error": {"code": -32601, "message": "no such method"}}
    print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **reply}), flush=True)
