"""The shop's functions, each as a program: `python3 shop.py order 7` prints JSON."""

import json
import sys
from pathlib import Path

ORDERS = {
    "7": {"customer": "Ada", "due": "2026-11-20", "sent": True},
    "8": {"customer": "Grace", "due": "2026-11-21", "sent": False},
    "9": {"customer": "Ada", "due": "2026-12-24", "sent": False},
}
CUSTOMERS = {"Ada": {"city": "London"}, "Grace": {"city": "New York"}}
NOTES = Path(__file__).with_name("notes.jsonl")


def notes(order: str) -> list[str]:
    lines = NOTES.read_text().splitlines() if NOTES.exists() else []
    return [note["text"] for note in map(json.loads, lines) if note["order"] == order]


def order(number: str) -> dict:
    if number not in ORDERS:
        sys.exit(f"there is no order {number}; there are {', '.join(ORDERS)}")
    return {"order": number, **ORDERS[number], "notes": notes(number)}


def customer(name: str) -> dict:
    if name not in CUSTOMERS:
        sys.exit(f"there is no customer {name}; there are {', '.join(CUSTOMERS)}")
    return {"customer": name, **CUSTOMERS[name]}


def note(number: str) -> dict:
    text = sys.stdin.read()
    order(number)
    with NOTES.open("a") as file:
        file.write(json.dumps({"order": number, "text": text}) + "\n")
    return order(number)


if __name__ == "__main__":
    does = {"order": order, "customer": customer, "note": note}
    print(json.dumps(does[sys.argv[1]](sys.argv[2])))
