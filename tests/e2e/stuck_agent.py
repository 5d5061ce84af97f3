"""An ACP agent out of the standard library that gets stuck in the way its prompt names.

It runs as a single file, so that it can be put anywhere. `silent MARK` starts a child that nothing
ends, says nothing more and reads nothing; `loops MARK` makes the same call again and again, also
after it was told so. Whoever finds that MARK is there already does its work at once, which is how
a second machine succeeds. `asks` asks its model until that answers.
"""

import itertools
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

HANGS = "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (2, 15)]; time.sleep(999)"

NUMBERS = itertools.count()


def send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def receive() -> dict[str, Any]:
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    message: dict[str, Any] = json.loads(line)
    return message


def update(**fields: Any) -> None:
    send({"method": "session/update", "params": {"sessionId": "s1", "update": fields}})


def say(text: str) -> None:
    update(sessionUpdate="agent_message_chunk", content={"type": "text", "text": text})


def is_first(mark: str) -> bool:
    try:
        os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def loop() -> str:
    for _ in range(6):
        call = {"toolCallId": f"c{next(NUMBERS)}", "title": "Bash make", "kind": "execute"}
        call |= {"rawInput": {"command": "make"}, "rawOutput": "no rule", "status": "failed"}
        update(sessionUpdate="tool_call", **call)
    while receive().get("method") != "session/cancel":
        pass
    return "cancelled"


def ask_model() -> None:
    url = os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages"
    body = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}
    headers = {"content-type": "application/json", "x-api-key": os.environ["ANTHROPIC_API_KEY"]}
    while True:
        asked = urllib.request.Request(url, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(asked) as answer:
                say(json.load(answer)["content"][0]["text"])
                return
        except urllib.error.HTTPError:
            continue


def prompt(text: str) -> str:
    # What it was asked stands in a line of its own.
    asked = next((line for line in text.splitlines() if line.startswith("do: ")), "do: loops -")
    _, what, *mark = asked.split()
    if what == "asks":
        ask_model()
    elif what == "silent" and is_first(mark[0]):
        subprocess.Popen([sys.executable, "-c", HANGS], start_new_session=True)
        time.sleep(999)
    elif what == "loops" and (mark[0] == "-" or is_first(mark[0])):
        return loop()
    say("All done.")
    return "end_turn"


def main() -> None:
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write("1.0\n")
        return
    answers: dict[str, Any] = {
        "initialize": {"protocolVersion": 1, "agentCapabilities": {}},
        "session/new": {"sessionId": "s1"},
    }
    while True:
        request = receive()
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
