"""Conversations with the official Python SDK.

From stdin: one line of JSON each, which conversation, where the Messages API is, and where the shop is if its tools are to
run here. To stdout: a line each, what the conversation came to, without ids that a server draws. Whoever started this
compares two such lines: one of a conversation straight with the model, one through the gateway.
"""

import json
import sys
import traceback
import urllib.error
import urllib.request

import anthropic
from anthropic import Anthropic, beta_tool

MODEL = "claude-sonnet-5-5"
ORDINARY = {"model": MODEL, "max_tokens": 1024}


@beta_tool
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return str(a + b)


def shop_tools(shop):
    """The shop's tools, as a program without Fanout would have them: requests of its own."""

    def ask(path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(shop + path, data, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            raise RuntimeError("the shop refuses") from error

    @beta_tool
    def get_order(order_id: str) -> str:
        """Look up an order."""
        return ask(f"/orders/{order_id}")

    @beta_tool
    def get_stock(sku: str) -> str:
        """How many units of a product are in stock."""
        return ask(f"/inventory/{sku}")

    @beta_tool
    def reserve_stock(sku: str, n: int) -> str:
        """Take n units of a product out of stock."""
        return ask(f"/inventory/{sku}/reserve", {"n": n})

    return [get_order, get_stock, reserve_stock]


def seen(message):
    """What of a message is the same whoever sent it."""
    return {"content": [block.model_dump(exclude_none=True) for block in message.content], "stop": message.stop_reason}


def told(messages):
    """What the person at the other end is told and pays, in however many messages it came."""
    blocks = [block for message in messages for block in message.content]
    return {
        "text": "".join(block.text for block in blocks if block.type == "text"),
        "stop": messages[-1].stop_reason,
        "input_tokens": sum(message.usage.input_tokens for message in messages),
        "output_tokens": sum(message.usage.output_tokens for message in messages),
    }


def create(client, shop):
    message = client.messages.create(**ORDINARY, messages=[{"role": "user", "content": "Hello"}])
    return [seen(message), told([message])]


def stream(client, shop):
    with client.messages.stream(**ORDINARY, messages=[{"role": "user", "content": "Hello"}]) as events:
        text = "".join(events.text_stream)
        message = events.get_final_message()
    return [text, seen(message), told([message])]


def run(client, **more):
    return client.beta.messages.tool_runner(
        **ORDINARY, tools=[add], messages=[{"role": "user", "content": "Add them up"}], **more
    )


def runner(client, shop):
    return [seen(message) for message in run(client)]


def runner_without_threads(client, shop):
    return [seen(message) for message in run(client, thread=False)]


def runner_streaming(client, shop):
    return [seen(events.get_final_message()) for events in run(client, stream=True)]


def runner_streaming_without_threads(client, shop):
    return [seen(events.get_final_message()) for events in run(client, stream=True, thread=False)]


def runner_eager(client, shop):
    return [seen(events.get_final_message()) for events in run(client, stream=True, run_tools_eagerly=True)]


def chat(tools, say):
    """Three messages of a person, and a loop over the tools that run here. `say` sends what is new."""
    runnable = {tool.name: tool for tool in tools}
    answers = []
    for content in ["First", "And then?", "Thanks"]:
        answers.append([])
        while content:
            message = say({"role": "user", "content": content})
            answers[-1].append(message)
            calls = [block for block in message.content if block.type == "tool_use"]
            content = [result(runnable[call.name], call) for call in calls]
    return answers


def definitions(tools):
    return {"tools": [tool.to_dict() for tool in tools]} if tools else {}


def remembering(tools, ask):
    """Sends the whole history each time."""
    history = []

    def say(new):
        history.append(new)
        message = ask(messages=history, **ORDINARY, **definitions(tools))
        history.append({"role": "assistant", "content": message.content})
        return message

    return say


def threaded(client, tools):
    """Has the server remember."""
    thread = client.beta.messages.thread(**ORDINARY, **definitions(tools))
    return thread.send


def result(tool, call):
    answer = {"type": "tool_result", "tool_use_id": call.id}
    try:
        return {**answer, "content": tool.call(call.input)}
    except RuntimeError as error:
        return {**answer, "content": str(error), "is_error": True}


def streamed(client):
    def ask(**request):
        with client.messages.stream(**request) as events:
            return events.get_final_message()

    return ask


def thoughts_with(ask):
    return [[seen(message) for message in turn] for turn in chat([add], remembering([add], ask))]


def thoughts(client, shop):
    return thoughts_with(client.messages.create)


def thoughts_streaming(client, shop):
    return thoughts_with(streamed(client))


def shopping_with(tools, say):
    return [told(turn) for turn in chat(tools, say)]


def shopping(client, shop):
    tools = shop_tools(shop) if shop else []
    return shopping_with(tools, remembering(tools, client.messages.create))


def shopping_streaming(client, shop):
    tools = shop_tools(shop) if shop else []
    return shopping_with(tools, remembering(tools, streamed(client)))


def shopping_in_a_thread(client, shop):
    tools = shop_tools(shop) if shop else []
    return shopping_with(tools, threaded(client, tools))


def mixed_with(client, shop, **more):
    tools = [add, *(shop_tools(shop) if shop else [])]
    prompt = [{"role": "user", "content": "The shelf and a sum"}]
    return [told(list(client.beta.messages.tool_runner(**ORDINARY, tools=tools, messages=prompt, **more)))]


def mixed(client, shop):
    return mixed_with(client, shop)


def mixed_without_threads(client, shop):
    return mixed_with(client, shop, thread=False)


def refused(client, shop):
    try:
        client.messages.create(**ORDINARY, messages=[{"role": "user", "content": "Hello"}])
    except anthropic.BadRequestError as error:
        return [error.status_code, error.body["error"]["type"], error.body["error"]["message"]]
    raise SystemExit("the model refused, and the client was not told")


def overloaded(client, shop):
    return create(client, shop)


def broken(client, shop):
    try:
        stream(client, shop)
    except anthropic.APIStatusError as error:
        return [error.body["error"]["type"], error.body["error"]["message"]]
    raise SystemExit("the stream broke, and the client was not told")


CONVERSATIONS = [
    create,
    stream,
    runner,
    runner_without_threads,
    runner_streaming,
    runner_streaming_without_threads,
    runner_eager,
    thoughts,
    thoughts_streaming,
    shopping,
    shopping_streaming,
    shopping_in_a_thread,
    mixed,
    mixed_without_threads,
    refused,
    overloaded,
    broken,
]


def hold(wanted):
    name, shop = wanted["conversation"], wanted.get("shop")
    conversation = next(known for known in CONVERSATIONS if known.__name__ == name)
    client = Anthropic(base_url=wanted["base_url"], api_key="a key of nobody")
    return conversation(client, shop)


def main():
    for line in sys.stdin:
        try:
            answer = {"answers": hold(json.loads(line))}
        except Exception:
            answer = {"failed": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


main()
