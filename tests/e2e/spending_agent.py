"""An ACP agent out of the standard library that asks its model again and again, as a real one does.

Each answer of the model is a line in `calls.txt`. It ends when its model refuses, when it is told to
finish, or after the number of calls in its prompt (`@@calls 9`); alone in a file, so that it can lie
wherever a sandbox shows it.
"""

import json
import os
import queue
import re
import sys
import threading
import urllib.error
import urllib.request
from typing import Any

heard: "queue.Queue[dict[str, Any]]" = queue.Queue()


def send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    content = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}}
    send({"method": "session/update", "params": {"sessionId": "s1", "update": content}})


def listen() -> None:
    for line in sys.stdin:
        heard.put(json.loads(line))
    os._exit(0)


def call() -> str:
    """One call of the model; why it was refused, "" where it was not."""
    body = {
        "model": "claude-opus-5",
        "max_tokens": 1000,
        "messages": [{"role": "user", "content": "?"}],
    }
    request = urllib.request.Request(
        os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages",
        json.dumps(body).encode(),
        {"content-type": "application/json", "x-api-key": os.environ["ANTHROPIC_API_KEY"]},
    )
    try:
        with urllib.request.urlopen(request) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        return error.read().decode()
    with open("calls.txt", "a", encoding="utf-8") as file:
        file.write("one more\n")
    return ""


def prompt(text: str) -> str:
    if "Finish now" in text:
        with open("finished.txt", "w", encoding="utf-8") as file:
            file.write("as I was told\n")
        say("I finished.")
        return "end_turn"
    found = re.search(r"@@calls (\d+)", text)
    for _ in range(int(found[1]) if found else 1):
        if why := call():
            say(why)
            return "end_turn"
        if "@@deaf" not in text and any(m.get("method") == "session/cancel" for m in waiting()):
            return "cancelled"
    with open("finished.txt", "w", encoding="utf-8") as file:
        file.write("by myself\n")
    say("All is done.")
    return "end_turn"


def waiting() -> list[dict[str, Any]]:
    """What came meanwhile; a moment is left for it, as a tool would take."""
    found = []
    try:
        while True:
            found.append(heard.get(timeout=0.3))
    except queue.Empty:
        return found


def main() -> None:
    threading.Thread(target=listen, daemon=True).start()
    answers: dict[str, dict[str, Any]] = {
        "initialize": {"protocolVersion": 1, "agentCapabilities": {}},
        "session/new": {"sessionId": "s1"},
    }
    while True:
        request = heard.get()
        method = request.get("method", "")
        if method == "session/prompt":
            text = "".join(part.get("text", "") for part in request["params"]["prompt"])
            answer: dict[str, Any] = {"stopReason": prompt(text)}
        else:
            answer = answers.get(method, {})
        if "id" in request:
            send({"id": request["id"], "result": answer})


if __name__ == "__main__":
    main()
