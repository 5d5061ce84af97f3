"""What the vendors' programs print in their headless JSON modes, in the words of ACP.

Rule 1: what a program prints is data: an event, a field or a reason that is new to us is passed
over, and nothing here raises, whatever kind a field has.
Rule 2: a dialect changes words only. Each gives the updates of an ACP session, which transcript.py
joins, masks and bounds as those of a program that speaks the protocol.
Nothing is cut here, for a secret that is cut is not found any more; but for what is only compared.
Rule 3: only the standard library, because the shim imports this file on every start.

A dialect is a function `(turn, event) -> updates`; `turn` remembers what is known of the turn so
far. An empty update ends the message that was being said. Another program is another function, its
row in DIALECTS and an entry of the catalogue.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from muster.agent.transcript import COUNT_MAX, DOLLARS_MAX, MODELS_MAX, mapping, mappings, paths

Update = Mapping[str, Any]
Dialect = Callable[["Turn", Update], Iterator[Update]]

END: Final[Update] = {}
# The kinds of ACP, by the names that the programs give their tools.
KINDS: Final = {
    name: kind
    for kind, names in {
        "edit": "Write Edit MultiEdit NotebookEdit write_file replace write edit create "
        "str_replace_editor apply_patch patch notebook_edit",
        "execute": "Bash bash shell run_shell_command exec_command shell_command",
        "read": "Read read_file read_many_files read view list_directory list LS",
        "search": "Grep Glob grep glob rg grep_search search_file_content ToolSearch tool_search",
        "fetch": "WebFetch WebSearch web_fetch webfetch web_search websearch google_web_search",
        "think": "TodoWrite todowrite Task task update_plan",
    }.items()
    for name in names.split()
}
TOKENS: Final = {
    "input_tokens": "inputTokens",
    "output_tokens": "outputTokens",
    "total_tokens": "totalTokens",
    "cache_read_input_tokens": "cachedReadTokens",
    "cache_creation_input_tokens": "cachedWriteTokens",
    "cached_input_tokens": "cachedReadTokens",
    "cache_write_input_tokens": "cachedWriteTokens",
    "reasoning_output_tokens": "thoughtTokens",
    "cached": "cachedReadTokens",
    # opencode's, which counts a turn step by step.
    "input": "inputTokens",
    "output": "outputTokens",
    "reasoning": "thoughtTokens",
    "total": "totalTokens",
    "read": "cachedReadTokens",
    "write": "cachedWriteTokens",
}
# What tells one message from the next; all known names are shorter.
MESSAGE_CHARS_MAX: Final = 200


class Turn:
    """What is known of a turn. `stop` is "ok", or why it ended otherwise; "" while it goes on.

    `error` is what the program complained of last, `acted` whether it used a tool, `cost` in US
    dollars, `models` those that answered, `session` the name that the program gave its session.
    """

    def __init__(self) -> None:
        self.stop = ""
        self.error = ""
        self.acted = False
        self.tokens: dict[str, int] = {}
        self.cost: float | None = None
        self.models: list[str] = []
        self.session = ""
        # The message whose tokens were counted last, and the tokens before it.
        self._message, self._before = "", dict[str, int]()

    def begin(self, call: Any, name: Any, arguments: Any) -> Update:
        """A tool is used."""
        self.acted = True
        given = mapping(arguments)
        command, named = given.get("command"), paths({"rawInput": given})
        shown = command if isinstance(command, str) else f"{name} {named[0]}" if named else name
        return {
            "sessionUpdate": "tool_call",
            "toolCallId": str(call),
            "title": str(shown),
            "kind": KINDS.get(name, "other") if isinstance(name, str) else "other",
            "status": "in_progress",
            "rawInput": dict(given),
        }

    def end(self, call: Any, output: Any, *, failed: bool) -> Update:
        """The tool has ended."""
        return {
            "sessionUpdate": "tool_call_update",
            "toolCallId": str(call),
            "status": "failed" if failed else "completed",
            "rawOutput": output if isinstance(output, str) else _flat(output),
        }

    def count(self, counts: Any, names: str, *, add: bool = False) -> None:
        """Take the tokens that go by these names."""
        said = mapping(counts)
        for name in names.split():
            value = said.get(name)
            if type(value) is int and 0 <= value <= COUNT_MAX:
                to = TOKENS[name]
                value += self.tokens.get(to, 0) if add else 0
                self.tokens[to] = min(value, COUNT_MAX)

    def count_message(self, message: Any, counts: Any, names: str) -> None:
        """Take the tokens of one message of the turn, which may be said with each part of it."""
        name = str(message)[:MESSAGE_CHARS_MAX]
        if name != self._message:
            self._message, self._before = name, dict(self.tokens)
        self.tokens = dict(self._before)
        self.count(counts, names, add=True)

    def open(self, session: Any) -> None:
        """The program names its session; the first name counts."""
        if not self.session and isinstance(session, str):
            self.session = session

    def use(self, model: Any) -> None:
        """A model answered."""
        if isinstance(model, str) and model not in self.models and len(self.models) < MODELS_MAX:
            self.models.append(model)

    def spend(self, dollars: Any, *, add: bool = False) -> None:
        """Take what it cost."""
        known = isinstance(dollars, int | float) and not isinstance(dollars, bool)
        if known and 0 <= dollars <= DOLLARS_MAX:
            whole = float(dollars) + ((self.cost or 0.0) if add else 0.0)
            self.cost = min(whole, DOLLARS_MAX)

    def fail(self, message: Any) -> None:
        """Remember a complaint."""
        text = _complaint(message)
        self.error = text or self.error


def claude(turn: Turn, event: Update) -> Iterator[Update]:
    """Claude Code's `stream-json`, and Qwen Code's."""
    message = mapping(event.get("message"))
    turn.open(event.get("session_id"))
    content = message.get("content")
    match event.get("type"):
        case "assistant" if event.get("is_api_error_message"):
            turn.fail(_flat(content))
        case "assistant":
            turn.use(message.get("model"))
            turn.count_message(message.get("id"), message.get("usage"), _ANTHROPIC)
            for block in mappings(content):
                match block.get("type"):
                    case "text":
                        yield _said(block.get("text"))
                        yield END
                    case "thinking":
                        yield _said(block.get("thinking"), "agent_thought_chunk")
                        yield END
                    case "tool_use":
                        yield turn.begin(block.get("id"), block.get("name"), block.get("input"))
        case "user":
            for block in mappings(content):
                if block.get("type") == "tool_result":
                    failed = block.get("is_error") is True
                    yield turn.end(block.get("tool_use_id"), block.get("content"), failed=failed)
        case "system" if event.get("subtype") == "api_retry":
            turn.fail(f"{event.get('error')} (HTTP {event.get('error_status')})")
        case "result":
            turn.count(event.get("usage"), _ANTHROPIC)
            turn.spend(event.get("total_cost_usd"))
            turn.stop = _claude_stop(event)
            if turn.stop == "error":
                turn.fail(event.get("error") or event.get("result"))


def codex(turn: Turn, event: Update) -> Iterator[Update]:
    """`codex exec --json`: items that are begun, changed and completed."""
    what, item = event.get("type"), mapping(event.get("item"))
    turn.open(event.get("thread_id"))
    match what:
        case "turn.completed":
            turn.count(event.get("usage"), _OPENAI)
            turn.stop = "ok"
        case "turn.failed" | "error":
            turn.fail(event.get("error") or event.get("message"))
            turn.stop = "error" if what == "turn.failed" else turn.stop
    match item.get("type"):
        case "agent_message" if what == "item.completed":
            yield _said(item.get("text"))
            yield END
        case "reasoning" if what == "item.completed":
            yield _said(item.get("text"), "agent_thought_chunk")
            yield END
        case "error":
            turn.fail(item.get("message"))
        case "todo_list":
            entries = [
                {"content": each.get("text"), "status": _done(each.get("completed"))}
                for each in mappings(item.get("items"))
            ]
            yield {"sessionUpdate": "plan", "entries": entries}
        case "command_execution" | "file_change" | "mcp_tool_call" | "web_search":
            yield from _codex_tool(turn, item, ended=what == "item.completed")


def gemini(turn: Turn, event: Update) -> Iterator[Update]:
    """Gemini CLI's `stream-json`: its own names, text in pieces."""
    turn.open(event.get("session_id"))
    match event.get("type"):
        case "message" if event.get("role") == "assistant":
            yield _said(event.get("content"))
            if not event.get("delta"):
                yield END
        case "tool_use":
            call, arguments = event.get("tool_id"), event.get("parameters")
            yield turn.begin(call, event.get("tool_name"), arguments)
        case "tool_result":
            told = event.get("output") or mapping(event.get("error")).get("message")
            failed = event.get("status") != "success"
            yield turn.end(event.get("tool_id"), told, failed=failed)
        case "error":
            turn.fail(event.get("message"))
        case "result":
            stats = mapping(event.get("stats"))
            turn.count(stats, "input_tokens output_tokens total_tokens cached")
            for model in mapping(stats.get("models")):
                turn.use(model)
            turn.fail(event.get("error"))
            turn.stop = "ok" if event.get("status") == "success" else "error"


def opencode(turn: Turn, event: Update) -> Iterator[Update]:
    """`opencode run --format json`: parts of messages, a tool call when it has ended."""
    part = mapping(event.get("part"))
    turn.open(event.get("sessionID"))
    match event.get("type"):
        case "text":
            yield _said(part.get("text"))
            yield END
        case "reasoning":
            yield _said(part.get("text"), "agent_thought_chunk")
            yield END
        case "tool_use":
            state, call = mapping(part.get("state")), part.get("callID")
            yield turn.begin(call, part.get("tool"), state.get("input"))
            failed = state.get("status") == "error"
            yield turn.end(call, state.get("error" if failed else "output"), failed=failed)
        case "step_finish":
            tokens = mapping(part.get("tokens"))
            turn.count(tokens, "input output reasoning total", add=True)
            turn.count(tokens.get("cache"), "read write", add=True)
            turn.spend(part.get("cost"), add=True)
            why = str(part.get("reason"))
            turn.stop = {"stop": "ok", "tool-calls": ""}.get(why, why)
        case "error":
            said = mapping(event.get("error"))
            turn.fail(mapping(said.get("data")) or said)
            turn.stop = "error"


def copilot(turn: Turn, event: Update) -> Iterator[Update]:
    """GitHub Copilot CLI's session events; what it marks as passing is repeated later."""
    data = mapping(event.get("data"))
    match event.get("type"):
        case "assistant.message":
            turn.use(data.get("model"))
            yield _said(data.get("content"))
            yield END
        case "assistant.reasoning":
            yield _said(data.get("content"), "agent_thought_chunk")
            yield END
        case "tool.execution_start":
            call, name = data.get("toolCallId"), data.get("toolName")
            yield turn.begin(call, name, data.get("arguments"))
        case "tool.execution_complete":
            failed = data.get("success") is not True
            told = mapping(data.get("error" if failed else "result"))
            text = told.get("message" if failed else "content")
            yield turn.end(data.get("toolCallId"), text, failed=failed)
        case "session.error":
            turn.fail(data)
        case "result":
            turn.stop = "ok" if event.get("exitCode") == 0 else "error"


DIALECTS: Final[dict[str, Dialect]] = {
    "claude": claude,
    "codex": codex,
    "gemini": gemini,
    "opencode": opencode,
    "copilot": copilot,
}

_ANTHROPIC: Final = (
    "input_tokens output_tokens total_tokens cache_read_input_tokens cache_creation_input_tokens"
)
_OPENAI: Final = (
    "input_tokens output_tokens cached_input_tokens cache_write_input_tokens "
    "reasoning_output_tokens"
)


def _claude_stop(event: Update) -> str:
    if event.get("is_error"):
        return "error"
    if event.get("subtype") != "success":
        return str(event.get("subtype"))
    why = str(event.get("stop_reason"))
    return why if why in ("refusal", "max_tokens") else "ok"


def _codex_tool(turn: Turn, item: Update, *, ended: bool) -> Iterator[Update]:
    """A command, a patch, a search or a tool of a server."""
    call, what = item.get("id"), item.get("type")
    if what == "command_execution":
        begun = turn.begin(call, "shell", {"command": item.get("command")})
    elif what == "file_change":
        changed = [each.get("path") for each in mappings(item.get("changes"))]
        named = {path: "" for path in changed if isinstance(path, str)}
        begun = turn.begin(call, "apply_patch", {"changes": named})
    elif what == "web_search":
        begun = turn.begin(call, "web_search", {"query": item.get("query")})
    else:
        name = f"{item.get('server')}.{item.get('tool')}"
        begun = turn.begin(call, name, item.get("arguments"))
    yield begun
    if ended:
        told = item.get("aggregated_output") or item.get("error") or item.get("result")
        code = item.get("exit_code")
        failed = item.get("status") in ("failed", "declined") or code not in (None, 0)
        yield turn.end(call, told, failed=failed)


def _said(text: Any, what: str = "agent_message_chunk") -> Update:
    # A text that is none ends the one before, and says nothing.
    text = text if isinstance(text, str) else ""
    return {"sessionUpdate": what, "content": {"type": "text", "text": text}}


def _flat(value: Any) -> str:
    """The text of a result, which may be a list of blocks."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return _flat(value.get("text") or value.get("content") or value.get("message"))
    return "\n".join(_flat(each) for each in value) if isinstance(value, list) else ""


def _complaint(value: Any) -> str:
    """What a program complains of, with the status of HTTP where it says one."""
    said = mapping(value)
    status = said.get("statusCode")
    return _flat(value) + (f" (HTTP {status})" if type(status) is int else "")


def _done(value: Any) -> str:
    return "completed" if value is True else "pending"
