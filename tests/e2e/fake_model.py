"""A scripted model on loopback, so that the real agents work without credentials.

    fake_model.py [LOG]      prints its port, then serves until it is killed

It speaks Anthropic Messages (`/v1/messages`), OpenAI Responses (`/v1/responses`) and Chat Completions
(`/v1/chat/completions`), and Gemini's (`:streamGenerateContent`), and keeps no state: the script is
in the prompt, and how far it has come is the number of tool results since.

    @@script [{"tool": "shell", "command": "…"}, {"tool": "write", "path": "…", "content": "…"},
              {"text": "All done."}]

One step answers one request: a tool call by the logical name (`shell`, `write`), mapped to what
the agent offers, or a text that ends the turn. A request without tools (agents ask for titles)
gets a text. Every request is appended to LOG, a JSON object a line, so that a test can look at
what the model was really sent. `{"fail": 500}` answers with that HTTP status. A step with `when`
or `unless` counts only if the prompt before the script has, or has not, these words. `{"hold":
FILE}` makes the file and leaves the agent without an answer; once the file is there it counts no
more. A step with the tool `mcp` calls the tool of that `name` of whichever server offers it, or
by the name `called`, for a client may know more tools than it tells its model of; one that is
`patient` is taken again while the client knows no such tool yet. `@@last:NAME` in it is what the
newest result says under that name.
"""

import json
import os
import re
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

MARK = "@@script"
# How clients say that a server is not there yet; how often, and how long, one waits for it.
ABSENT = re.compile(r"No such tool available|unsupported call")
PATIENCE = 40
PAUSE_S = 0.5
LAST = re.compile(r"@@last:(\w+)")
SHELLS = ("Bash", "exec_command", "shell_command", "shell", "run_shell_command", "bash")
# Tools that write a file: what they call its path and its text.
WRITERS = {
    "Write": ("file_path", "content"),
    "write_file": ("file_path", "content"),
    "write": ("filePath", "content"),
    "create": ("path", "file_text"),
}


class Turn(NamedTuple):
    """A request in words common to all protocols."""

    said: list[tuple[str, str]]
    """("user" | "result" | "other", text), oldest first."""
    tools: dict[str, dict[str, Any]]


class Call(NamedTuple):
    name: str
    arguments: dict[str, Any] | str
    """A text for a tool with free-form input."""


def flatten(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(flatten(each) for each in content)
    if isinstance(content, dict):
        return flatten(content.get("text") or content.get("content") or "")
    return ""


# --- the protocols, read


def read_messages(body: dict[str, Any]) -> Turn:
    said = []
    for message in body.get("messages", []):
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for block in blocks:
            if block.get("type") == "tool_result":
                said.append(("result", flatten(block.get("content"))))
            elif block.get("type") == "text":
                role = "user" if message["role"] == "user" else "other"
                said.append((role, block["text"]))
    return Turn(said, {tool["name"]: tool for tool in body.get("tools") or []})


def read_responses(body: dict[str, Any]) -> Turn:
    said = []
    for item in body.get("input", []):
        kind = item.get("type", "message")
        if kind.endswith("_output"):
            said.append(("result", flatten(item.get("output"))))
        elif kind == "message":
            role = "user" if item.get("role") == "user" else "other"
            said.append((role, flatten(item.get("content"))))
    return Turn(said, {t.get("name") or t["type"]: t for t in body.get("tools") or []})


def read_chat(body: dict[str, Any]) -> Turn:
    roles = {"user": "user", "tool": "result"}
    messages = body.get("messages", [])
    said = [(roles.get(m["role"], "other"), flatten(m.get("content"))) for m in messages]
    functions = [tool["function"] for tool in body.get("tools") or []]
    return Turn(said, {function["name"]: function for function in functions})


def read_gemini(body: dict[str, Any]) -> Turn:
    said = []
    for message in body.get("contents", []):
        for part in message.get("parts", []):
            if "functionResponse" in part:
                said.append(("result", json.dumps(part["functionResponse"].get("response"))))
            elif "text" in part:
                said.append(("user" if message.get("role") == "user" else "other", part["text"]))
    offered = [f for t in body.get("tools") or [] for f in t.get("functionDeclarations") or []]
    return Turn(said, {function["name"]: function for function in offered})


# --- the script


def next_step(turn: Turn) -> dict[str, Any]:
    if not turn.tools:
        return {"text": "A title"}
    starts = [i for i, (who, text) in enumerate(turn.said) if who == "user" and MARK in text]
    if not starts:
        return {"text": "There is no script in the prompt."}
    text = turn.said[starts[-1]][1]
    steps = read_script(text)
    results = [said for who, said in turn.said[starts[-1] :] if who == "result"]
    if any(each.get("patient") for each in steps):
        absent = [each for each in results if ABSENT.search(each)][:PATIENCE]
        time.sleep(PAUSE_S if absent and ABSENT.search(results[-1]) else 0)
        results = results[len(absent) :]
    step = json.dumps(steps[min(len(results), len(steps) - 1)])
    for name in LAST.findall(step):
        there = re.search(rf'"{name}"\s*:\s*"([^"\\]*)"', results[-1] if results else "")
        step = step.replace(f"@@last:{name}", there[1] if there else "nothing")
    found: dict[str, Any] = json.loads(step)
    return found


def read_script(prompt: str) -> list[dict[str, Any]]:
    """The steps that count: `when` needs its words before the script, `unless` forbids them."""
    before, _, script = prompt.rpartition(MARK)
    steps, _ = json.JSONDecoder().raw_decode(script.lstrip())
    counting = [s for s in steps if s.get("when", "") in before]
    counting = [s for s in counting if s.get("unless") is None or s["unless"] not in before]
    return [s for s in counting if "hold" not in s or not os.path.exists(s["hold"])]


def tool_call(step: dict[str, Any], tools: dict[str, dict[str, Any]]) -> Call:
    if step["tool"] == "mcp":
        server = step.get("server", "muster")
        ends = tuple(f"{each}{step['name']}" for each in ("__", "_", "-"))
        ours = {name: tool for name, tool in tools.items() if "muster" in name or server in name}
        offered = (name for name in ours if name.endswith(ends))
        within = (name for name, tool in ours.items() if tool.get("type") == "namespace"
                  and step["name"] in [each.get("name") for each in tool["tools"]])  # fmt: skip
        known = next(within, None)
        fallback = step.get("called", f"mcp__{server}__{step['name']}")
        name = f"{known}/{step['name']}" if known else next(offered, fallback)
        return Call(name, step["arguments"])
    writer = next((name for name in WRITERS if name in tools), "")
    if step["tool"] == "write" and writer:
        path, content = WRITERS[writer]
        return Call(writer, {path: step["path"], content: step["content"]})
    if step["tool"] == "write":
        # Codex writes files by patches; where it has no tool for them it knows the command.
        added = "".join(f"+{line}\n" for line in step["content"].splitlines())
        patch = f"*** Begin Patch\n*** Add File: {step['path']}\n{added}*** End Patch\n"
        if "apply_patch" in tools:
            return Call("apply_patch", patch)
        step = {"tool": "shell", "command": f"apply_patch <<'PATCH'\n{patch}PATCH"}
    name = next(name for name in SHELLS if name in tools)
    key = "cmd" if name == "exec_command" else "command"
    command: Any = step["command"]
    arguments = {key: ["bash", "-lc", command] if name == "shell" else command}
    if '"description"' in json.dumps(list(_parameters(tools[name]))):
        arguments["description"] = "run a command"
    return Call(name, {**arguments, **step.get("arguments", {})})


def _parameters(tool: dict[str, Any]) -> list[str]:
    """The names of a tool's parameters, wherever its protocol puts them."""
    kinds = ("input_schema", "parameters", "parametersJsonSchema")
    schema = next((tool[kind] for kind in kinds if isinstance(tool.get(kind), dict)), {})
    return list(schema.get("properties", {}))


# --- the protocols, written


def write_messages(body: dict[str, Any], text: str, call: Call | None) -> list[dict[str, Any]]:
    usage = {"input_tokens": 10, "output_tokens": 5}
    message = {
        "id": f"msg_{uuid.uuid4().hex[:20]}",
        "type": "message",
        "role": "assistant",
        "model": body.get("model"),
        "stop_reason": None,
        "stop_sequence": None,
    }
    if call is None:
        start: dict[str, Any] = {"type": "text", "text": ""}
        delta = {"type": "text_delta", "text": text}
    else:
        identity = f"toolu_{uuid.uuid4().hex[:20]}"
        start = {"type": "tool_use", "id": identity, "name": call.name, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(call.arguments)}
    stop = "end_turn" if call is None else "tool_use"
    if not body.get("stream"):
        whole = start | ({"text": text} if call is None else {"input": call.arguments})
        return [message | {"content": [whole], "stop_reason": stop, "usage": usage}]
    return [
        {"type": "message_start", "message": message | {"content": [], "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": start},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": stop, "stop_sequence": None},
            "usage": {"output_tokens": 5},
        },
        {"type": "message_stop"},
    ]


def response_item(text: str, call: Call | None) -> dict[str, Any]:
    identity = uuid.uuid4().hex[:16]
    if call is None:
        content = [{"type": "output_text", "text": text, "annotations": []}]
        return {"type": "message", "id": f"msg_{identity}", "role": "assistant", "content": content}
    namespace, _, name = call.name.rpartition("/")
    item = {"id": f"fc_{identity}", "call_id": f"call_{identity}", "name": name}
    item |= {"namespace": namespace} if namespace else {}
    if isinstance(call.arguments, str):
        return {"type": "custom_tool_call", **item, "input": call.arguments}
    return {"type": "function_call", **item, "arguments": json.dumps(call.arguments)}


def write_responses(body: dict[str, Any], text: str, call: Call | None) -> list[dict[str, Any]]:
    item = response_item(text, call) | {"status": "completed"}
    tokens = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    details = {
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    response = {
        "id": f"resp_{uuid.uuid4().hex[:20]}",
        "object": "response",
        "created_at": 0,
        "status": "completed",
        "model": body.get("model"),
        "output": [item],
        "usage": tokens | details,
        "error": None,
        "incomplete_details": None,
    }
    if not body.get("stream"):
        return [response]
    begun = response | {"status": "in_progress", "output": [], "usage": None}
    where = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": begun}]
    opened = item | {"status": "in_progress"} | ({"content": []} if call is None else {})
    events.append({"type": "response.output_item.added", "output_index": 0, "item": opened})
    if call is None:
        events.append({"type": "response.output_text.delta", **where, "delta": text})
        events.append({"type": "response.output_text.done", **where, "text": text})
    events.append({"type": "response.output_item.done", "output_index": 0, "item": item})
    events.append({"type": "response.completed", "response": response})
    return [event | {"sequence_number": number} for number, event in enumerate(events)]


def write_chat(body: dict[str, Any], text: str, call: Call | None) -> list[dict[str, Any]]:
    base = {"id": f"chatcmpl-{uuid.uuid4().hex[:16]}", "created": 0, "model": body.get("model")}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    said: dict[str, Any] = {"role": "assistant", "content": text}
    if call is not None:
        function = {"name": call.name, "arguments": json.dumps(call.arguments)}
        identity = f"call_{uuid.uuid4().hex[:16]}"
        asked = {"index": 0, "id": identity, "type": "function", "function": function}
        said = {"role": "assistant", "content": None, "tool_calls": [asked]}
    end = "stop" if call is None else "tool_calls"
    if not body.get("stream"):
        choice = {"index": 0, "finish_reason": end, "message": said}
        return [{**base, "object": "chat.completion", "choices": [choice], "usage": usage}]
    piece = {**base, "object": "chat.completion.chunk"}
    return [
        {**piece, "choices": [{"index": 0, "delta": said, "finish_reason": None}]},
        {**piece, "choices": [{"index": 0, "delta": {}, "finish_reason": end}]},
        {**piece, "choices": [], "usage": usage},
    ]


def write_gemini(_body: dict[str, Any], text: str, call: Call | None) -> list[dict[str, Any]]:
    part: dict[str, Any] = {"text": text}
    if call is not None:
        identity = f"fc{uuid.uuid4().hex[:10]}"
        part = {"functionCall": {"id": identity, "name": call.name, "args": call.arguments}}
    content = {"role": "model", "parts": [part]}
    usage = {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}
    candidate = {"index": 0, "content": content, "finishReason": "STOP"}
    return [{"candidates": [candidate], "usageMetadata": usage, "modelVersion": "scripted"}]


PROTOCOLS = {
    "/messages": (read_messages, write_messages),
    "/responses": (read_responses, write_responses),
    "/chat/completions": (read_chat, write_chat),
    "enerateContent": (read_gemini, write_gemini),
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    log_path: str | None = None
    log_lock = threading.Lock()

    def do_HEAD(self) -> None:
        self._answer({})

    def do_GET(self) -> None:
        self._answer({"object": "list", "data": [], "models": []})

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        body = json.loads(self._body() or b"{}")
        if path.endswith("/count_tokens"):
            self._answer({"input_tokens": 100})
            return
        protocol = next((p for end, p in PROTOCOLS.items() if path.endswith(end)), None)
        if protocol is None:
            self._answer({"error": {"message": f"no such path: {path}"}}, 404)
            return
        read, write = protocol
        turn = read(body)
        step = next_step(turn)
        model = body.get("model") or path
        self._log(
            {
                "path": path,
                "model": model,
                "said": turn.said,
                "tools": sorted(turn.tools),
                "step": step,
            }
        )
        if "hold" in step:
            with open(step["hold"], "x", encoding="utf-8"):
                time.sleep(300)
            return
        if "fail" in step:
            kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
                step["fail"], "api_error"
            )
            error = {"type": kind, "message": "told to fail", "code": step["fail"]}
            self._answer({"type": "error", "error": error}, step["fail"])
            return
        call = tool_call(step, turn.tools) if "tool" in step else None
        events = write(body, step.get("text", ""), call)
        streams = body.get("stream") or ":stream" in path
        self._stream(events, done=write is write_chat) if streams else self._answer(events[0])

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        body = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, value: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _stream(self, events: list[dict[str, Any]], *, done: bool) -> None:
        lines = [
            f"{named}data: {json.dumps(event)}\n\n"
            for event in events
            for named in [f"event: {event['type']}\n" if "type" in event else ""]
        ]
        data = "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _log(self, record: dict[str, Any]) -> None:
        if self.log_path:
            with self.log_lock, open(self.log_path, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Silent; the log is LOG."""


class Model(ThreadingHTTPServer):
    """The server; an agent that is ended hangs up in the middle, which is nothing to tell of."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def main() -> None:
    Handler.log_path = sys.argv[1] if len(sys.argv) > 1 else None
    server = Model(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
