"""An ACP agent out of the standard library that follows the script in its prompt.

It is for what does not need a real program: planning, and questions to a person. Steps are those
of fake_model.py, and `{"ask": KIND, "title": …}` asks for a permission and says what came of it.
A prompt without a script is answered by the one in the file that AGENT_SCRIPT names, whose `when`
is looked for in the whole prompt; `{"hold": FILE}` makes the file and waits for good, unless it is
there already; `{"verdict": {…}, "holds": [FILE, TEXT]}` is what a reviewer says where the file that
it judges holds the text.
"""

import json
import os
import sys
import time
from typing import Any

from tests.e2e.fake_model import MARK, read_script


def send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def receive() -> dict[str, Any]:
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    message: dict[str, Any] = json.loads(line)
    return message


def say(text: str) -> None:
    content = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}}
    send({"method": "session/update", "params": {"sessionId": "s1", "update": content}})


def ask(step: dict[str, Any]) -> None:
    call = {"toolCallId": "c1", "title": step["title"], "kind": step["ask"], "status": "pending"}
    options = [{"optionId": o, "name": o, "kind": o} for o in ("allow_once", "reject_once")]
    params = {"sessionId": "s1", "toolCall": call, "options": options}
    send({"id": 900, "method": "session/request_permission", "params": params})
    outcome = receive()["result"]["outcome"]
    say(f"the person said {outcome.get('optionId') or outcome['outcome']}")


def prompt(request: dict[str, Any]) -> str:
    text = "".join(part.get("text", "") for part in request["params"]["prompt"])
    for step in read_script(text) if MARK in text else standing_script(text):
        if "ask" in step:
            ask(step)
        elif "hold" in step:
            hold(step["hold"])
        elif "verdict" in step:
            with open(place_of_verdict(text), "w", encoding="utf-8") as file:
                json.dump(step["verdict"], file)
        elif "write" in step:
            os.makedirs(os.path.dirname(step["write"]) or ".", exist_ok=True)
            with open(step["write"], "w", encoding="utf-8") as file:
                file.write(step["content"])
        else:
            say(step["text"])
            break
    return "end_turn"


def standing_script(text: str) -> list[dict[str, Any]]:
    if "AGENT_SCRIPT" not in os.environ:
        return [{"text": "There is no script."}]
    with open(os.environ["AGENT_SCRIPT"], encoding="utf-8") as file:
        steps: list[dict[str, Any]] = json.load(file)
    counting = [step for step in steps if step.get("when", "") in text]
    counting = [s for s in counting if s.get("unless") is None or s["unless"] not in text]
    judges = bool(place_of_verdict(text))
    return [s for s in counting if "verdict" not in s or (judges and holds(*s["holds"]))]


def place_of_verdict(text: str) -> str:
    """Where a reviewer's prompt says that the verdict goes; "" of any other prompt."""
    _, found, after = text.rpartition("Write your verdict into the file ")
    return after.partition(" as JSON")[0] if found else ""


def holds(path: str, text: str) -> bool:
    with open(path, encoding="utf-8") as file:
        return text in file.read()


def hold(mark: str) -> None:
    try:
        os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    while True:
        time.sleep(60)


def main() -> None:
    answers: dict[str, dict[str, Any]] = {
        "initialize": {"protocolVersion": 1, "agentCapabilities": {}},
        "session/new": {"sessionId": "s1"},
    }
    while True:
        request = receive()
        method = request.get("method", "")
        if method == "session/prompt":
            answer: dict[str, Any] = {"stopReason": prompt(request)}
        else:
            answer = answers.get(method, {})
        if "id" in request:
            send({"id": request["id"], "result": answer})


if __name__ == "__main__":
    main()
