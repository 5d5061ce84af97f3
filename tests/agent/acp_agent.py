"""An ACP agent out of the standard library that behaves as badly as it is told.

usage: acp_agent.py BEHAVIOUR     -- the prompt is answered by the function of that name
"""

import json
import os
import signal
import subprocess
import sys
import time

REQUEST = {}


def send(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def receive():
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    return json.loads(line)


def reply(request, result):
    send({"id": request["id"], "result": result})


def update(**fields):
    send({"method": "session/update", "params": {"sessionId": "s1", "update": fields}})


def say(text, kind="agent_message_chunk"):
    update(sessionUpdate=kind, content={"type": "text", "text": text})


def ask(kind, path, options=("allow_once", "reject_once")):
    """Ask for a permission and say which option was chosen."""
    identity = "c1" if path else "c9"
    call = {"toolCallId": identity, "title": "a tool", "kind": kind, "status": "pending"}
    if path:
        call["locations"] = [{"path": path}]
    listed = [{"optionId": f"id-{o}", "name": o, "kind": o} for o in options]
    params = {"sessionId": "s1", "toolCall": call, "options": listed}
    send({"id": 900, "method": "session/request_permission", "params": params})
    outcome = receive()["result"]["outcome"]
    say(outcome.get("optionId") or outcome["outcome"])


def words():
    say("thinking", "agent_thought_chunk")
    for piece in ("First para", "graph.\n\nSecond ", "one."):
        say(piece)
    entries = [{"content": "do it", "priority": "high", "status": "pending"}]
    update(sessionUpdate="plan", entries=entries)
    cost = {"amount": 0.1 + 0.2, "currency": "USD"}
    update(sessionUpdate="usage_update", used=5, size=100, cost=cost)
    say("The end.")


def loads():
    say("".join(part["text"] for part in REQUEST["params"]["prompt"]))


resumes = forgets = loads


def stops_new():
    say("half of it")
    return "budget_reached"


def stops_without_word():
    say("half of it")


def stops_strangely():
    return {"why": ["no", 5]}


def updates_new():
    update(sessionUpdate="a_new_kind", content=[1, 2])
    update(sessionUpdate=["x"], content="y")
    update(sessionUpdate="tool_call", toolCallId={"a": 1}, content="x", locations=7, rawInput=[1])
    update(sessionUpdate="agent_message_chunk", content=None)
    send({"method": "session/update", "params": None})
    send({"method": "session/brand_new", "params": {"x": 1}})
    send({"id": 7, "method": "terminal/create", "params": {}})
    assert "error" in receive()
    send({"id": 8, "method": "session/request_permission", "params": {"options": 5}})
    # Asked of a person first, who never answers: the order of this test gives no time.
    assert receive()["result"]["outcome"]["outcome"] == "cancelled"
    say("went on")


def titles():
    sys.stdout.write("\x1b]0;agent: ready\x07")
    say("went on")


def floods_a_line():
    sys.stdout.write("x" * 70_000_000 + "\n")
    say("went on")


def answers_twice():
    say("went on")
    reply(REQUEST, {"stopReason": "end_turn"})


def leaves_quietly():
    say("half of it")
    os._exit(0)


def leaves_with_a_word():
    say("half of it")
    sys.stderr.write("starting\n\x1b[31mfatal: quota used up\x1b[0m\n\n")
    sys.stderr.flush()
    os._exit(3)


def leaves_a_child():
    """A child keeps our output open, and we end in the middle."""
    say("half of it")
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    os._exit(0)


def chatters():
    for n in range(60_000):
        say(f"line {n} {'.' * 200}\n\n")


def tells_a_secret():
    secret = os.environ["A_TOKEN"]
    for at in range(0, len(secret), 7):
        say(secret[at : at + 7])
    sys.stderr.write(secret)
    call = {"toolCallId": "c1", "title": "x" * 290 + secret, "kind": "read", "status": "completed"}
    update(sessionUpdate="tool_call", **call, rawInput={"command": secret})
    return "refusal"


def floods_stderr():
    sys.stderr.write("x" * 3_000_000)
    sys.stderr.flush()
    say("still here")


def speaks_long():
    say("y" * 300_000)


def prints_garbage():
    print("this is no JSON", flush=True)
    say("went on")


def dies():
    sys.stderr.write("out of memory\n")
    sys.stderr.flush()
    os._exit(7)


def is_killed_without_a_name():
    sys.stderr.write("out of memory\n")
    sys.stderr.flush()
    os.kill(os.getpid(), 40)


def refuses():
    return "refusal"


def needs_login():
    data = {"details": "run the login first"}
    error = {"code": -32000, "message": "Authentication required", "data": data}
    send({"id": REQUEST["id"], "error": error})
    time.sleep(60)


def works_and_fails():
    update(sessionUpdate="tool_call", toolCallId="1", title="edited", status="completed")
    error = {"code": -32000, "message": "overloaded"}
    send({"id": REQUEST["id"], "error": error})
    time.sleep(60)


def asks_and_fails():
    ask("edit", os.path.join(os.getcwd(), "file"))
    works_and_fails()


def says_and_fails():
    say("half of it")
    works_and_fails()


def asks_inside():
    ask("edit", os.path.join(os.getcwd(), "file"))


def asks_and_swaps():
    """What is to be done becomes another thing while a person is asked."""
    call = {"toolCallId": "c1", "title": "a tool", "kind": "edit", "rawInput": {"path": "a"}}
    listed = [{"optionId": o, "name": o, "kind": o} for o in ("allow_once", "reject_once")]
    params = {"sessionId": "s1", "toolCall": call, "options": listed}
    send({"id": 900, "method": "session/request_permission", "params": params})
    while not os.path.exists("asked"):
        time.sleep(0.02)
    update(sessionUpdate="tool_call_update", toolCallId="c1", rawInput={"path": "b"})
    say(receive()["result"]["outcome"]["optionId"])


def asks_outside():
    ask("edit", "/etc/passwd")


def asks_through_link():
    os.symlink("/etc", "link")
    ask("edit", os.path.join(os.getcwd(), "link", "passwd"))


def asks_for_many():
    """The one path that matters hides behind many harmless ones."""
    inside = [{"path": os.path.join(os.getcwd(), f"f{n}")} for n in range(500)]
    call = {"toolCallId": "c9", "title": "many", "kind": "edit", "status": "pending"}
    call["locations"] = [*inside, {"path": "/etc/passwd"}]
    update(sessionUpdate="tool_call", **call)
    ask("edit", None)


def asks_for_half_a_character():
    ask("edit", os.path.join(os.getcwd(), "\ud83d.txt"))


def offers_only_always():
    ask("read", None, ("allow_always", "reject_always"))


def ignores_cancel():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say("working\n\n")
    while True:
        time.sleep(60)


def obeys_cancel():
    say("working\n\n")
    while receive().get("method") != "session/cancel":
        pass
    with open("obeyed", "w", encoding="utf-8") as file:
        file.write("yes")
    return "cancelled"


def is_steered():
    """Cancelled, it is asked something else, and says what."""
    text = "".join(part["text"] for part in REQUEST["params"]["prompt"])
    if text == "go":
        return obeys_cancel()
    return say(f"was told: {text}")


def ends_before_it_is_steered():
    obeys_cancel()
    return "end_turn"


def note(request):
    """What its session was told, for the test."""
    with open("told", "w", encoding="utf-8") as file:
        json.dump(request["params"], file)


def main(behaviour):
    if behaviour == "silent":
        time.sleep(60)
    while True:
        request = receive()
        method = request.get("method")
        if method == "initialize":
            offered = request["params"].get("clientCapabilities", {})
            with open("offered", "w", encoding="utf-8") as file:
                json.dump(offered, file)
            able = {"loads": {"loadSession": True}, "forgets": {"loadSession": True}}
            able["resumes"] = {"sessionCapabilities": {"resume": {}}}
            reply(request, {"protocolVersion": 1, "agentCapabilities": able.get(behaviour, {})})
        elif method in ("session/load", "session/resume") and behaviour == "forgets":
            error = {"code": -32002, "message": "no such session"}
            send({"id": request["id"], "error": error})
        elif method in ("session/load", "session/resume"):
            note(request)
            if method == "session/load":
                say("what was said long ago")
            modes = [{"id": "careful", "name": "c"}, {"id": "wild", "name": "w"}]
            reply(request, {"modes": {"currentModeId": "wild", "availableModes": modes}})
        elif method == "session/new" and behaviour == "needs_a_licence":
            error = {"code": -32000, "message": "the licence has expired"}
            send({"id": request["id"], "error": error})
        elif method == "session/new":
            note(request)
            modes = [{"id": "careful", "name": "c"}, {"id": "wild", "name": "w"}]
            state = {"currentModeId": "wild", "availableModes": modes}
            reply(request, {"sessionId": "s1", "modes": state})
        elif method == "session/set_mode":
            with open("mode", "w", encoding="utf-8") as file:
                file.write(request["params"]["modeId"])
            reply(request, {})
        elif method == "session/prompt":
            REQUEST.update(request)
            stop = globals()[behaviour]() or "end_turn"
            if behaviour == "stops_without_word":
                reply(request, {})
                continue
            usage = {"totalTokens": 15, "inputTokens": 10, "outputTokens": 5}
            reply(request, {"stopReason": stop, "usage": usage})


if __name__ == "__main__":
    main(sys.argv[1])
