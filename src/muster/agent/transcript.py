"""What an ACP session says, as journal events: joined, bounded and without floats.

Rule 1: the agent's words are data; nothing here acts on them. Whatever kind a field has, or
whether it is there at all, an update gives events or nothing, and never raises.
Rule 2: chunks of a message are joined to paragraphs, so that a journal entry can be read; and
paragraphs that come at once are one event, so that many small ones are not as many entries.
Rule 3: what an event repeats about a tool call is the merged state of all its updates, because
an update names only what changed.
Rule 4: secrets are replaced before anything is cut (mask.py); the state of a tool call keeps what
was said, because permissions are decided on it; but for names and titles, which are cut on arrival.
Rule 5: what is kept of all calls is bounded in bytes, and the oldest goes first.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from muster.agent.driver import Event
from muster.agent.lines import Tail, cut
from muster.agent.mask import Secrets, Stream
from muster.limits import VALUE_BYTES_MAX

TEXT_BYTES_MAX: Final = 8 * 1024
# The input of a tool is the reason of a decision; its output is evidence, less often read.
INPUT_BYTES_MAX: Final = 4 * 1024
OUTPUT_BYTES_MAX: Final = 4 * 1024
# What is looked through for the last paragraph of a message.
MESSAGE_BYTES_MAX: Final = 16 * 1024
TITLE_BYTES_MAX: Final = 300
PATHS_SHOWN_MAX: Final = 20
PATH_BYTES_MAX: Final = 300
PLAN_ENTRIES_MAX: Final = 50
TOOLS_MAX: Final = 10_000
# What the states of all calls hold together. The one that was told last stays in any case, for a
# permission may be asked for it; a message is bounded as well.
TOOLS_BYTES_MAX: Final = 16 * 1024 * 1024
# What is kept beside the state of a call that goes on: what was shown of it, the end of its output.
BESIDE_BYTES: Final = 16 * 1024
# JSON of other languages is exact to here, and an entry holds no more.
COUNT_MAX: Final = 2**53 - 1
# Where agents name files in the raw input of their tools.
PATH_KEYS: Final = (
    *("file_path", "filePath", "path", "notebook_path", "abs_path", "absolute_path"),
    *("cwd", "workdir", "directory", "dir_path"),
    *("source", "destination", "old_path", "new_path"),
)
SHOWN: Final = ("title", "kind", "status")
FINAL: Final = frozenset({"completed", "failed"})
NAMES: Final = frozenset({*SHOWN, "toolCallId"})
KEPT: Final = (*SHOWN, "toolCallId", "locations", "content", "rawInput", "rawOutput")
# More than any turn costs; a number that is none is as little believed.
DOLLARS_MAX: Final = 1_000_000
TOKENS: Final = {
    "totalTokens": "total_tokens",
    "inputTokens": "input_tokens",
    "outputTokens": "output_tokens",
    "thoughtTokens": "thought_tokens",
    "cachedReadTokens": "cached_read_tokens",
    "cachedWriteTokens": "cached_write_tokens",
}
# The same as Gemini CLI says them.
TOKENS_BESIDE: Final = {"input_tokens": "inputTokens", "output_tokens": "outputTokens"}

# What is repeated of the models that a session used: their names, and so many of them.
MODELS_MAX: Final = 20
# A total is told in millionths, for signed entries hold no floats.
DOLLAR: Final = "USD"

_BREAK: Final = b"\n\n"
# What ends a message: text after it is a new one.
_TURNS: Final = frozenset({"tool_call", "plan"})
_JOINED: Final = {"agent_message_chunk": "agent.output", "agent_thought_chunk": "agent.thought"}


class Transcript:
    """The state of one session; each update gives the events that it completes."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        # One for each kind of message: its pieces are one text.
        self._streams = {kind: Stream(secrets) for kind in _JOINED.values()}
        self._kind = ""
        self._text = ""
        self._message = ""
        self._tools: dict[str, dict[str, Any]] = {}
        self._shown: dict[str, dict[str, Any]] = {}
        self._inputs: dict[str, str] = {}
        self._sizes: dict[str, int] = {}
        self._held = 0
        self._terminals: dict[str, tuple[Stream, Tail]] = {}
        self._usage_shown: dict[str, Any] = {}
        self.tail = Tail(VALUE_BYTES_MAX)
        self.usage: dict[str, int] = {}
        self.models: list[str] = []
        # What a program counts request by request, before it says a sum.
        self._counted: dict[str, int] = {}

    def update(self, update: Mapping[str, Any]) -> list[Event]:
        """Take one `session/update`; unknown kinds give nothing."""
        what = str(update.get("sessionUpdate"))
        if what in _JOINED:
            events = self._chunk(_JOINED[what], mapping(update.get("content")))
            return events + self._add_up(mapping(mapping(update.get("_meta")).get("usage")))
        events = self.end() if what in _TURNS else self.flush()
        if what in {"tool_call", "tool_call_update"}:
            events += self._tool(update)
        elif what == "plan":
            entries = mappings(self._secrets.fields(update.get("entries")))[:PLAN_ENTRIES_MAX]
            names = ("content", "priority", "status")
            plan = [{name: _title(entry.get(name, "")) for name in names} for entry in entries]
            events.append(("agent.plan", {"entries": plan}))
        elif what == "usage_update":
            said = self._secrets.fields(update)
            counts = {"context_used": "used", "context_size": "size"}
            usage: dict[str, Any] = {
                shown: said[name] for shown, name in counts.items() if _is_count(said.get(name))
            }
            cost = mapping(said.get("cost"))
            amount = cost.get("amount") or 0
            if cost and isinstance(amount, int | float) and abs(amount) <= COUNT_MAX:
                # A decimal text: signed entries hold no floats.
                usage["cost"] = f"{float(amount):.6f}"
                usage["currency"] = _title(cost.get("currency"))
                if usage["currency"] == DOLLAR and 0 < amount <= DOLLARS_MAX:
                    self.usage["usd_millionths"] = round(amount * 1_000_000)
            usage |= self._fresh([mapping(said.get("_meta")).get("_claude/model")])
            if usage != self._usage_shown:
                self._usage_shown = usage
                events.append(("agent.usage", usage))
        elif what == "current_mode_update":
            mode = self._secrets.fields(update.get("currentModeId"))
            events.append(("agent.mode", {"mode": _title(mode)}))
        return events

    @property
    def last_message(self) -> str:
        """The last paragraph of what the agent said last."""
        return self._message.strip().rpartition("\n\n")[2].strip("\n")

    def flush(self) -> list[Event]:
        """The text that waits for the end of its paragraph."""
        text, self._text = self._text, ""
        return [self._say(text)] if text.strip() else []

    def end(self) -> list[Event]:
        """The message is over: what was held back of it, too."""
        if self._kind:
            self._add(self._streams[self._kind].rest())
        events = self.flush()
        self._kind = ""
        return events

    def tool(self, update: Mapping[str, Any]) -> dict[str, Any]:
        """The merged state of the call that `update` is about; never grows beyond its bound."""
        call = self._name(update.get("toolCallId", ""))
        state = self._tools.setdefault(call, {})
        for name in KEPT:
            if (value := update.get(name)) is not None:
                state[name] = self._name(value) if name in NAMES else value
        self._weigh(call, state)
        return state

    def _name(self, value: Any) -> str:
        """What a call or a title is called: as it was said where it is short."""
        if isinstance(value, str) and len(value.encode("utf-8", "replace")) <= TITLE_BYTES_MAX:
            return value
        return _title(self._secrets.fields(value))

    def _weigh(self, call: str, state: Mapping[str, Any]) -> None:
        """Keep within the bounds of all calls; this one stays."""
        beside = 0 if str(state.get("status")) in FINAL else BESIDE_BYTES
        size = _size(state) + beside
        self._held += size - self._sizes.get(call, 0)
        self._sizes[call] = size
        while len(self._tools) > 1 and (
            len(self._tools) > TOOLS_MAX or self._held > TOOLS_BYTES_MAX
        ):
            oldest = next(each for each in self._tools if each != call)
            self._held -= self._sizes.pop(oldest)
            del self._tools[oldest]
            for known in (self._shown, self._inputs, self._terminals):
                known.pop(oldest, None)

    def count(self, usage: Mapping[str, Any], models: Iterable[Any] = ()) -> list[Event]:
        """The tokens of a turn so far, and the models that it used, as the program reports them."""
        counted = {to: usage[name] for name, to in TOKENS.items() if _is_count(usage.get(name))}
        self.usage.update(counted)
        told = {**counted, **self._fresh(models)}
        return [("agent.usage", told)] if told else []

    def answered(self, response: Mapping[str, Any]) -> list[Event]:
        """What the answer to a prompt says of the turn: in its usage, or beside the protocol."""
        quota = mapping(mapping(response.get("_meta")).get("quota"))
        beside = mapping(quota.get("token_count"))
        renamed = {name: beside.get(theirs) for theirs, name in TOKENS_BESIDE.items()}
        models = [each.get("model") for each in mappings(quota.get("model_usage"))]
        return self.count(mapping(response.get("usage")) or renamed, models)

    def _add_up(self, usage: Mapping[str, Any]) -> list[Event]:
        """The tokens of one request of the turn (Qwen Code says them with a message)."""
        if not usage:
            return []
        for name in TOKENS:
            if _is_count(usage.get(name)):
                total = self._counted.get(name, 0) + usage[name]
                self._counted[name] = min(total, COUNT_MAX)
        return self.count(self._counted)

    def _fresh(self, models: Iterable[Any]) -> dict[str, Any]:
        """The models that are known by now, where there is one more."""
        known = len(self.models)
        for model in models:
            name = _title(self._secrets.text(model)) if isinstance(model, str) else ""
            if name and name not in self.models and len(self.models) < MODELS_MAX:
                self.models.append(name)
        return {"models": list(self.models)} if len(self.models) > known else {}

    def _chunk(self, kind: str, content: Mapping[str, Any]) -> list[Event]:
        events = self.end() if kind != self._kind else []
        if kind != self._kind and kind == "agent.output":
            if self._message and not self._message.endswith("\n"):
                self.tail.feed(b"\n")
            self._message = ""
        self._kind = kind
        what = _title(self._secrets.fields(content.get("type")))
        piece = str(content.get("text", "")) if what == "text" else f"[{what}]" if what else ""
        self._add(self._streams[kind].feed(piece.encode("utf-8", "replace")))
        whole, _, self._text = self._text.rpartition("\n\n")
        events += [self._say(part) for part in packed(whole) if part.strip()]
        if len(self._text.encode("utf-8", "replace")) > TEXT_BYTES_MAX:
            events += self.flush()
        return events

    def _add(self, raw: bytes) -> None:
        piece = raw.decode("utf-8", "replace")
        self._text += piece
        if self._kind == "agent.output":
            # Kept exactly as it was said: later phases use it, blank lines and all.
            self.tail.feed(piece.encode("utf-8", "replace"))
            self._message = (self._message + piece)[-MESSAGE_BYTES_MAX:]

    def _say(self, text: str) -> Event:
        text = cut(text.strip("\n"), TEXT_BYTES_MAX)
        if self._kind == "agent.thought":
            return "agent.thought", {"text": text}
        return "agent.output", {"stream": "message", "text": text}

    def _tool(self, update: Mapping[str, Any]) -> list[Event]:
        call = self._name(update.get("toolCallId", ""))
        if str(self._tools.get(call, {}).get("status")) in FINAL:
            return []  # It was reported as ended; agents send remarks about it later.
        state = self.tool(update)
        # Codex reports what a command printed beside the protocol, piece by piece.
        meta = mapping(update.get("_meta"))
        for name in ("terminal_output_delta", "terminal_output"):
            if piece := mapping(meta.get(name)).get("data"):
                fresh = (Stream(self._secrets), Tail(OUTPUT_BYTES_MAX))
                stream, tail = self._terminals.setdefault(call, fresh)
                tail.feed(stream.feed(str(piece).encode("utf-8", "replace")))
        said = self._secrets.fields(state)
        shown: dict[str, Any] = {name: _title(said[name]) for name in SHOWN if name in said}
        shown["paths"] = shown_paths(paths(said))
        if self._shown.get(call) == shown:
            return []  # Only content that streams; its end is shown with the final status.
        self._shown[call] = shown
        fields = {"call": _title(self._secrets.text(call)), **shown}
        given = _as_text(said.get("rawInput") or None, INPUT_BYTES_MAX)
        if given and given != self._inputs.get(call):
            self._inputs[call] = fields["input"] = given
        if shown.get("status") in FINAL:
            contents = mappings(said.get("content"))
            diffs = [content for content in contents if content.get("type") == "diff"]
            fields["diffs"] = [
                {
                    "path": cut(str(diff.get("path", "")), PATH_BYTES_MAX),
                    "lines_before": len(str(diff.get("oldText") or "").splitlines()),
                    "lines_after": len(str(diff.get("newText") or "").splitlines()),
                }
                for diff in diffs[:PATHS_SHOWN_MAX]
            ]
            inner = [mapping(content.get("content")) for content in contents]
            texts = [str(each["text"]) for each in inner if "text" in each]
            told = "\n".join(texts) if texts else said.get("rawOutput")
            fields["output"] = _as_text(told, OUTPUT_BYTES_MAX)
            if call in self._terminals:
                stream, tail = self._terminals.pop(call)
                tail.feed(stream.rest())
                fields["output"] = tail.text()
            # A session may make thousands of calls; of a finished one only the name is kept.
            ended: dict[str, Any] = {name: state[name] for name in SHOWN if name in state}
            self._tools[call] = ended
            for known in (self._shown, self._inputs):
                known.pop(call, None)
            self._weigh(call, ended)
        return [("agent.tool", fields)]


def packed(text: str) -> Iterator[str]:
    """The paragraphs of a text, as many together as one event holds; one that is longer, alone."""
    raw, at = text.encode("utf-8", "replace"), 0
    while at < len(raw):
        end = len(raw) if len(raw) - at <= TEXT_BYTES_MAX else -1
        if end < 0:
            end = raw.rfind(_BREAK, at + 1, at + TEXT_BYTES_MAX + len(_BREAK))
        if end < 0:
            end = raw.find(_BREAK, at + 1)
        end = end if end >= 0 else len(raw)
        yield raw[at:end].decode("utf-8")
        at = end + len(_BREAK)


def paths(state: Mapping[str, Any]) -> list[str]:
    """Every file that a tool call names: its locations, its diffs, its raw input."""
    named: list[Any] = [each.get("path") for each in mappings(state.get("locations"))]
    named += [c.get("path") for c in mappings(state.get("content")) if c.get("type") == "diff"]
    raw = mapping(state.get("rawInput"))
    named += [raw.get(key) for key in PATH_KEYS]
    # Codex names the files of a patch as the keys of its changes.
    named += list(mapping(raw.get("changes")))
    found = [path for path in named if isinstance(path, str) and path]
    return list(dict.fromkeys(found))


def shown_paths(named: list[str]) -> list[str]:
    """The paths for an event; a decision takes all of them, the journal the first ones."""
    shown = [cut(path, PATH_BYTES_MAX) for path in named[:PATHS_SHOWN_MAX]]
    left_out = len(named) - len(shown)
    return [*shown, f"…[{left_out} more]"] if left_out else shown


def mapping(value: Any) -> Mapping[str, Any]:
    """The value where it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def mappings(value: Any) -> list[Mapping[str, Any]]:
    """The mappings in a list; empty where it is none."""
    items = value if isinstance(value, list) else []
    return [each for each in items if isinstance(each, Mapping)]


def _size(value: Any) -> int:
    """The bytes that a value takes in memory; it nests no deeper than a message may."""
    size = sys.getsizeof(value)
    if isinstance(value, Mapping):
        return size + sum(_size(key) + _size(each) for key, each in value.items())
    return size + sum(map(_size, value)) if isinstance(value, list | tuple) else size


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= COUNT_MAX


def _as_text(value: Any, bytes_max: int) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return cut(text, bytes_max)


def _title(value: Any) -> str:
    return cut(str(value or ""), TITLE_BYTES_MAX)
