"""Asks Claude through Fanout: the official SDK, with another base URL. The tools of fanout.toml run on the way."""

import os
import sys

from anthropic import Anthropic

client = Anthropic(
    base_url=os.environ.get("FANOUT_URL", "http://127.0.0.1:8787"),
    # Goes on to Claude. Where the gateway demands keys, this is one of its own.
    api_key=os.environ.get("ANTHROPIC_API_KEY", "any"),
)

prompt = " ".join(sys.argv[1:]) or "Which of the orders 7, 8 and 9 are late? Note it on those."
message = client.messages.create(
    model="claude-sonnet-5-5",
    max_tokens=4096,
    messages=[{"role": "user", "content": prompt}],
)
print("".join(block.text for block in message.content if block.type == "text"))
