"""What an ACP session says, as journal events: joined, bounded and without floats.

Rule 1: the agent's words are data; nothing here acts on them.
Rule 2: chunks of a message are joined to paragraphs, so that a journal entry can be read.
Rule 3: what an event repeats about a tool call is the merged state of all its updates, because
an update names only what changed.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from muster.agent.lines import Tail, cut
from muster.agent.shell import Event

TEXT_BYTES_MAX: Final = 8 * 1024
# The input of a tool is the reason of a decision; its output is evidence, less often read.
INPUT_BYTES_MAX: Final = 4 * 1024
OUTPUT_BYTES_MAX: Final = 4 * 1024
# As much as a phase hands on of its output (task/values.py).
MESSAGE_BYTES_MAX: Final = 16 * 1024
TITLE_BYTES_MAX: Final = 300
PATHS_SHOWN_MAX: Final = 20
PATH_BYTES_MAX: Final = 300
PLAN_ENTRIES_MAX: Final = 50
TOOLS_MAX: Final = 10_000
# Where agents name files in the raw input of their tools.
PATH_KEYS: Final = (
    *("file_path", "filePath", "path", "notebook_path", "abs_path", "absolute_path"),
    *("cwd", "workdir", "directory", "dir_path"),
    *("source", "destination", "old_path", "new_path"),
)
SHOWN: Final = ("title", "kind", "status")
FINAL: Final = frozenset({"completed", "failed"})
KEPT: Final = (*SHOWN, "toolCallId", "locations", "content", "rawInput", "rawOutput")
TOKENS: Final = (
    "totalTokens",
    "inputTokens",
    "outputTokens",
    "thoughtTokens",
    "cachedReadTokens",
    "cachedWriteTokens",
)

# What ends a message: text after it is a new one.
_TURNS: Final = frozenset({"tool_call", "plan"})
_JOINED: Final = {"agent_message_chunk": "agent.output", "agent_thought_chunk": "agent.thought"}


class Transcript:
    """The state of one session; each update gives the events that it completes."""

    def __init__(self) -> None:
        self._kind = ""
        self._text = ""
        self._message = ""
        self._tools: dict[str, dict[str, Any]] = {}
        self._shown: dict[str, dict[str, Any]] = {}
        self._inputs: dict[str, Any] = {}
        self._terminals: dict[str, Tail] = {}
        self._usage_shown: dict[str, Any] = {}
        self.tail = Tail(MESSAGE_BYTES_MAX)
        self.usage: dict[str, int] = {}

    def update(self, update: Mapping[str, Any]) -> list[Event]:
        """Take one `session/update`; unknown kinds give nothing."""
        what = update.get("sessionUpdate")
        if what in _JOINED:
            return self._chunk(_JOINED[what], update.get("content") or {})
        events = self.flush()
        if what in _TURNS:
            self._kind = ""
        if what in {"tool_call", "tool_call_update"}:
            events += self._tool(update)
        elif what == "plan":
            events.append(("agent.plan", {"entries": _plan(update.get("entries") or [])}))
        elif what == "usage_update":
            usage = _context_usage(update)
            if usage != self._usage_shown:
                self._usage_shown = usage
                events.append(("agent.usage", usage))
        elif what == "current_mode_update":
            events.append(("agent.mode", {"mode": _title(update.get("currentModeId"))}))
        return events

    @property
    def last_message(self) -> str:
        """The last paragraph of what the agent said last."""
        return self._message.strip().rpartition("\n\n")[2].strip("\n")

    def flush(self) -> list[Event]:
        """The text that waits for the end of its paragraph."""
        text, self._text = self._text, ""
        return [self._say(text)] if text.strip() else []

    def tool(self, update: Mapping[str, Any]) -> dict[str, Any]:
        """The merged state of the call that `update` is about; never grows beyond its bound."""
        call = str(update.get("toolCallId", ""))
        state = self._tools.setdefault(call, {})
        state.update({name: update[name] for name in KEPT if update.get(name) is not None})
        if len(self._tools) > TOOLS_MAX:
            oldest = next(iter(self._tools))
            del self._tools[oldest]
            for known in (self._shown, self._inputs, self._terminals):
                known.pop(oldest, None)
        return state

    def count(self, usage: Mapping[str, Any]) -> list[Event]:
        """The tokens of a turn, as its response reports them."""
        counted = {_snake(n): usage[n] for n in TOKENS if isinstance(usage.get(n), int)}
        self.usage.update(counted)
        return [("agent.usage", dict(counted))] if counted else []

    def _chunk(self, kind: str, content: Mapping[str, Any]) -> list[Event]:
        events = self.flush() if kind != self._kind else []
        if kind != self._kind and kind == "agent.output":
            self._begin_message()
        self._kind = kind
        is_text = content.get("type") == "text"
        piece = str(content.get("text", "")) if is_text else f"[{content.get('type')}]"
        self._text += piece
        if kind == "agent.output":
            self._keep(piece)
        *whole, self._text = self._text.split("\n\n")
        events += [self._say(part) for part in whole if part.strip()]
        if len(self._text.encode("utf-8", "replace")) > TEXT_BYTES_MAX:
            events += self.flush()
        return events

    def _begin_message(self) -> None:
        if self._message and not self._message.endswith("\n"):
            self.tail.feed(b"\n")
        self._message = ""

    def _keep(self, piece: str) -> None:
        """Keep what was said exactly as it was said: later phases use it, blank lines and all."""
        self.tail.feed(piece.encode("utf-8", "replace"))
        self._message = (self._message + piece)[-MESSAGE_BYTES_MAX:]

    def _say(self, text: str) -> Event:
        text = cut(text.strip("\n"), TEXT_BYTES_MAX)
        if self._kind == "agent.thought":
            return "agent.thought", {"text": text}
        return "agent.output", {"stream": "message", "text": text}

    def _tool(self, update: Mapping[str, Any]) -> list[Event]:
        call = str(update.get("toolCallId", ""))
        if self._tools.get(call, {}).get("status") in FINAL:
            return []  # It was reported as ended; agents send remarks about it later.
        state = self.tool(update)
        self._watch_terminal(call, update.get("_meta"))
        shown: dict[str, Any] = {name: _title(state[name]) for name in SHOWN if name in state}
        shown["paths"] = shown_paths(paths(state))
        if self._shown.get(call) == shown:
            return []  # Only content that streams; its end is shown with the final status.
        self._shown[call] = shown
        fields = {"call": _title(call), **shown}
        if state.get("rawInput") and state["rawInput"] != self._inputs.get(call):
            self._inputs[call] = state["rawInput"]
            fields["input"] = _as_text(state["rawInput"], INPUT_BYTES_MAX)
        if shown.get("status") in FINAL:
            fields["diffs"] = _diffs(state)
            fields["output"] = _output(state)
            if call in self._terminals:
                fields["output"] = self._terminals.pop(call).text()
            # A session may make thousands of calls; of a finished one only the name is kept.
            self._tools[call] = {name: state[name] for name in SHOWN if name in state}
            self._inputs.pop(call, None)
        return [("agent.tool", fields)]

    def _watch_terminal(self, call: str, meta: Any) -> None:
        """Codex reports what a command printed beside the protocol, piece by piece."""
        for name in ("terminal_output_delta", "terminal_output"):
            piece = meta.get(name) if isinstance(meta, Mapping) else None
            if isinstance(piece, Mapping) and piece.get("data"):
                tail = self._terminals.setdefault(call, Tail(OUTPUT_BYTES_MAX))
                tail.feed(str(piece["data"]).encode("utf-8", "replace"))


def paths(state: Mapping[str, Any]) -> list[str]:
    """Every file that a tool call names: its locations, its diffs, its raw input."""
    named: list[Any] = [each.get("path") for each in state.get("locations") or []]
    named += [c.get("path") for c in state.get("content") or [] if c.get("type") == "diff"]
    raw = state.get("rawInput")
    if isinstance(raw, Mapping):
        named += [raw.get(key) for key in PATH_KEYS]
        # Codex names the files of a patch as the keys of its changes.
        changes = raw.get("changes")
        named += list(changes) if isinstance(changes, Mapping) else []
    found = [path for path in named if isinstance(path, str) and path]
    return list(dict.fromkeys(found))


def shown_paths(named: list[str]) -> list[str]:
    """The paths for an event; a decision takes all of them, the journal the first ones."""
    shown = [cut(path, PATH_BYTES_MAX) for path in named[:PATHS_SHOWN_MAX]]
    left_out = len(named) - len(shown)
    return [*shown, f"…[{left_out} more]"] if left_out else shown


def _plan(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    names = ("content", "priority", "status")
    listed = list(entries)[:PLAN_ENTRIES_MAX]
    return [{name: _title(entry.get(name, "")) for name in names} for entry in listed]


def _context_usage(update: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, shown in (("used", "context_used"), ("size", "context_size")):
        if isinstance(update.get(name), int):
            fields[shown] = update[name]
    cost = update.get("cost")
    if isinstance(cost, Mapping):
        # A decimal text: signed entries hold no floats.
        fields["cost"] = f"{float(cost.get('amount') or 0):.6f}"
        fields["currency"] = _title(cost.get("currency"))
    return fields


def _diffs(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    diffs = [c for c in state.get("content") or [] if c.get("type") == "diff"]
    return [
        {
            "path": cut(str(diff.get("path", "")), PATH_BYTES_MAX),
            "lines_before": len(str(diff.get("oldText") or "").splitlines()),
            "lines_after": len(str(diff.get("newText") or "").splitlines()),
        }
        for diff in diffs[:PATHS_SHOWN_MAX]
    ]


def _output(state: Mapping[str, Any]) -> str:
    contents = [c.get("content") or {} for c in state.get("content") or []]
    texts = [str(c["text"]) for c in contents if isinstance(c, Mapping) and "text" in c]
    if texts:
        return cut("\n".join(texts), OUTPUT_BYTES_MAX)
    return _as_text(state.get("rawOutput"), OUTPUT_BYTES_MAX)


def _as_text(value: Any, bytes_max: int) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return cut(text, bytes_max)


def _title(value: Any) -> str:
    return cut(str(value or ""), TITLE_BYTES_MAX)


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)
