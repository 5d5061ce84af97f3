"""Whether an attempt still gets anywhere: what it told and how busy it is in, verdicts out.

Rule 1: nothing here reads a clock or a process: whoever watches an attempt looks at it and says
        what is seen. Time is the time between two looks, and no more of it than twice the pause:
        a machine that slept, or a daemon that was stopped, makes no agent silent.
Rule 2: a verdict is a deed: the agent is told so, or its attempt is ended. Nothing is only noted.
Rule 3: nobody is judged by what cannot be seen. A person who is asked is waited for; where nobody
        can tell whether a model is asked, or how busy a process is, more time passes, or none of
        it counts. While a person is asked nothing is said or done: that would take the question
        back.
Rule 4: what an agent said is compared, and never obeyed; what is kept of it is bounded.

| detector | sign | deed |
|---|---|---|
| `stall` | the model said nothing, was hung up on and asked again, and said nothing again | lost |
| `silent` | no event, no open tool, no request of a model, no work of a processor | told, lost |
| `tool` | a tool is open beyond its time, and as for `silent` | lost |
| `loop` | the same call with the same answer | told, failed |
| `loop` | errors of whatever calls, and no change between | told, once |
| `burn` | tokens without a change of the work, of the plan, or a tool that is new | told, once |
"""

import json
from collections import deque
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final, Literal, NamedTuple

import msgspec

from muster import limits
from muster.task.tool_calls import EqualCalls, ToolCall, allowed_s

Name = Literal["stall", "silent", "tool", "loop", "burn"]
Deed = Literal["tell", "lose", "fail"]

# Under what name the end of an attempt says which detector ended it.
STALLED: Final = "stalled"
# Those that cost a machine's time, and no try of the task.
LOSING: Final = frozenset[str]({"stall", "silent", "tool"})
# Not stuck: its machine gave its work away, and it costs nothing.
DRAINS: Final = "drains"
_FINAL: Final = frozenset({"completed", "failed"})
_CHANGES: Final = frozenset({"edit", "delete", "move"})
# An agent that is asked whether it is there needs no longer for a word.
_ANSWER_S: Final = 60.0
# Of an agent's own counts: without what its model had in its cache.
_TOKENS: Final = ("input_tokens", "output_tokens", "thought_tokens", "cached_write_tokens")
_OPEN_MAX: Final = 1_000
_NAMES_MAX: Final = 1_000
# A busy agent idles at about half of that; 300 s of it are 3 s of work.
_IDLE_PERCENT: Final = 1
# The same call with other answers: so many times as many of them.
_OTHER_ANSWERS: Final = 4
# Who lets so much time pass between two equal calls that succeed is waiting for something.
_WAITS_S: Final = 30.0
_INPUT: Final = "with the same input"


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When each detector fires; 0 switches it off. Times are seconds."""

    stall: float = limits.MODEL_STALL_S
    silent: float = limits.AGENT_SILENT_S
    unseen: float = limits.AGENT_UNSEEN_S
    """In the place of `silent` where nobody can tell whether a model is asked."""
    tool: float = limits.TOOL_S
    repeats: int = limits.TOOL_REPEATS
    errors: int = limits.TOOL_ERRORS
    tokens: int = limits.TOKENS_WITHOUT_PROGRESS

    def __post_init__(self) -> None:
        if min(msgspec.structs.astuple(self)) < 0:
            raise ValueError("a threshold is 0 or more")

    @property
    def look_s(self) -> float:
        """How often an attempt is looked at."""
        times = [each for each in (self.stall, self.silent, self.unseen, self.tool) if each]
        return min([limits.ATTEMPT_LOOK_S, *(each / 4 for each in times)])


class Seen(NamedTuple):
    """What one look sees. `cpu_ms`: of all processes, since the start; None: nobody can tell.

    `asking`: whether a model is asked right now; None: nobody can tell.
    """

    cpu_ms: int | None = None
    asking: bool | None = None


class Verdict(NamedTuple):
    """What is to be done, and why in one sentence; for an agent that is told, it says so to it."""

    detector: Name
    deed: Deed
    why: str
    once_more: bool = False
    """Whether the attempt ends when the agent goes on so."""


class Detector:
    """One attempt's. `steers`: whether its agent can be told something in the middle."""

    def __init__(self, thresholds: Thresholds, *, steers: bool, budget: int = 0) -> None:
        self._limits = thresholds
        self._steers = steers
        tokens = thresholds.tokens
        self._tokens_max = min(tokens, budget // 4) if budget and tokens else tokens
        self._longest_s = max(thresholds.silent, thresholds.unseen, thresholds.tool)
        self._now_s = 0.0
        self._looked_s: float | None = None
        self._sign_s = 0.0
        # The processors' time at each look since the last sign, and before that as one would need.
        self._samples: deque[tuple[float, int]] = deque()
        self._open: dict[str, ToolCall] = {}
        self._asks: set[str] = set()
        # What it was told of, "errors" apart from what else is a loop.
        self._told: set[str] = set()
        self._asked_s: float | None = None
        self._stalled_s: float | None = None
        self._stalls = 0
        self._row = EqualCalls()
        self._ended: deque[bool] = deque(maxlen=limits.TOOL_ERRORS_OF)
        self._names: set[str] = set()
        self._plan = ""
        self._tokens = self._tokens_before = 0
        self._counted = 0
        self._due: list[Verdict] = []

    # --- what happens --------------------------------------------------------------------------

    def happened(self, kind: str, fields: Mapping[str, Any]) -> None:
        """The attempt told something."""
        self._sign_s = self._now_s
        self._asked_s = None
        if kind == "agent.tool":
            self._tool(fields)
        elif kind == "agent.plan":
            plan = _hash(fields.get("entries"))
            if plan != self._plan:
                self._plan = plan
                self.progressed()
        elif kind == "agent.usage":
            self._count(fields)
        elif kind == "agent.ask":
            self._asks.add(str(fields.get("ask")))
        elif kind == "agent.decision":
            self._asks.discard(str(fields.get("ask")))

    def call_ended(self, ending: str, ms: int, tokens: int) -> None:
        """A request of its model ended, as its gateway counted it."""
        self._sign_s = self._now_s
        self._tokens += tokens
        self._counted += tokens
        if ending == "answered":
            self._stalled_s, self._stalls = None, 0
        elif ending == "stalled" and self._limits.stall:
            began_s = self._now_s - ms / 1000
            # Requests beside each other are one stall; one that began later is the second.
            if self._stalled_s is None or began_s + self._limits.look_s >= self._stalled_s:
                self._stalls += 1
            self._stalled_s = self._now_s
            if self._stalls == 2:
                why = f"its model said nothing for {self._limits.stall:g} s, twice in a row"
                self._due.append(Verdict("stall", "lose", why))

    def progressed(self) -> None:
        """The work changed, or how it is to be done."""
        self._tokens_before = self._tokens
        self._ended.clear()
        self._told -= {"loop", "errors"}
        self._due = [each for each in self._due if each.detector != "loop"]

    @property
    def quiet_s(self) -> float:
        """How long nothing was heard of it, as far as it was looked at."""
        return self._now_s - self._sign_s

    @property
    def tokens(self) -> int:
        """What it used so far, without what was cached."""
        return self._tokens

    @property
    def state(self) -> Literal["works", "quiet", "told"]:
        """`told`: it was told that it is stuck, and did nothing yet that shows otherwise."""
        if self._told - {"burn"}:
            return "told"
        return "quiet" if self.quiet_s >= limits.AGENT_SILENT_S / 2 else "works"

    @property
    def is_quiet(self) -> bool:
        """Whether nothing was told since the last look: then it matters how busy it is."""
        return self._sign_s < self._now_s or self._looked_s is None

    @property
    def wants_change(self) -> bool:
        """Whether it matters now if something in the work folder changed since the last progress:
        whoever finds that says `progressed` before the next look.
        """
        return not self._asks and (self._spends or self._errs)

    @property
    def _spends(self) -> bool:
        spent = self._tokens - self._tokens_before
        return bool(self._tokens_max) and spent >= self._tokens_max and "burn" not in self._told

    @property
    def _errs(self) -> bool:
        most = self._limits.errors
        return bool(most) and self._ended.count(False) >= most and "errors" not in self._told

    def _tool(self, fields: Mapping[str, Any]) -> None:
        call, status = str(fields.get("call", "")), str(fields.get("status", ""))
        tool = self._open.get(call)
        if tool is None:
            tool = ToolCall(self._now_s)
            if status not in _FINAL and len(self._open) < _OPEN_MAX:
                self._open[call] = tool
        tool.what = str(fields.get("title") or tool.what)
        tool.kind = str(fields.get("kind") or tool.kind)
        if given := fields.get("input"):
            tool.input = str(given)
            tool.allowed_s = allowed_s(tool.input)
        name = f"{tool.kind} {tool.what.split(' ', 1)[0]}"
        if name not in self._names and len(self._names) < _NAMES_MAX:
            self._names.add(name)
            self._tokens_before = self._tokens
        if status in _FINAL:
            self._open.pop(call, None)
            self._told.discard("silent")
            self._closed(tool, status, _hash(fields.get("output")))

    def _closed(self, tool: ToolCall, status: str, output: str) -> None:
        self._ended.append(status == "completed")
        if status == "completed" and tool.kind in _CHANGES:
            self.progressed()
        row = self._row
        row.add(_hash([tool.kind, tool.what, tool.input]), output, self._now_s)
        most = self._limits.repeats
        waits = status == "completed" and self._now_s - row.began_s >= _WAITS_S * (row.times - 1)
        if most and row.same >= most and not (waits and row.times > 1):
            answer = "and the same answer"
            self._loops(f"called {_shown(tool.what)} {row.same} times in a row, {_INPUT} {answer}")
            return
        if most and row.times >= _OTHER_ANSWERS * most and not waits:
            self._loops(f"called {_shown(tool.what)} {row.times} times in a row, {_INPUT}")
            return
        if len(self._ended) == limits.TOOL_ERRORS_OF:
            # It did other things for so long: what comes now is another loop.
            self._told.discard("loop")

    def _loops(self, what: str) -> None:
        self._row = EqualCalls()
        if any(each.detector == "loop" for each in self._due):
            # It was not told yet.
            return
        deed: Deed = "fail" if "loop" in self._told else "tell"
        self._due.append(Verdict("loop", deed, f"the agent {what}", once_more=True))

    def _count(self, fields: Mapping[str, Any]) -> None:
        """What the agent says it used so far; a gateway knows better."""
        counts = [fields.get(name) for name in _TOKENS]
        total = sum(
            each for each in counts if type(each) is int and abs(each) <= limits.INT_ABS_MAX
        )
        cached = fields.get("cached_read_tokens")
        # Some count what was cached among what was read.
        if type(cached) is int and cached <= total:
            total -= cached
        if not self._counted:
            self._tokens = max(self._tokens, total)

    # --- what is seen --------------------------------------------------------------------------

    def look(self, at_s: float, seen: Seen) -> Verdict | None:
        """The attempt at this moment of a clock that never goes back; what is to be done now."""
        if self._looked_s is not None:
            self._now_s += max(0.0, min(at_s - self._looked_s, 2 * self._limits.look_s))
        self._looked_s = at_s
        if seen.cpu_ms is not None:
            self._samples.append((self._now_s, seen.cpu_ms))
            while len(self._samples) > 2 and self._samples[1][0] <= self._now_s - self._longest_s:
                self._samples.popleft()
        if seen.asking:
            self._sign_s = self._now_s
        if self._asks:
            return None
        if self._due:
            verdict, *self._due = self._due
            return self._said(verdict)
        found = self._quiet(seen) or self._fails() or self._burns()
        return self._said(found) if found is not None else None

    def _said(self, verdict: Verdict) -> Verdict:
        """A verdict, once what it means for the next ones is known."""
        if verdict.deed == "tell":
            erred = verdict.detector == "loop" and not verdict.once_more
            self._told.add("errors" if erred else verdict.detector)
            if verdict.detector == "loop":
                self._row = EqualCalls()
                self._ended.clear()
            if self._steers:
                # Its turn is cancelled for that, with all that it does.
                self._open.clear()
                self._sign_s = self._now_s
            if verdict.detector == "silent":
                self._asked_s = self._now_s
        return verdict

    def _fails(self) -> Verdict | None:
        if not self._errs:
            return None
        failed, of = self._ended.count(False), len(self._ended)
        why = f"the agent had {failed} errors in its last {of} calls, and changed nothing between"
        return Verdict("loop", "tell", why)

    def _burns(self) -> Verdict | None:
        if not self._spends:
            return None
        spent = self._tokens - self._tokens_before
        why = f"the agent used {spent} tokens, and nothing changed: no file, no plan, no new tool"
        return Verdict("burn", "tell", why)

    def _quiet(self, seen: Seen) -> Verdict | None:
        if seen.cpu_ms is None:
            return None
        after_s = self._limits.silent if seen.asking is not None else self._limits.unseen
        quiet_s = self._now_s - self._sign_s
        if self._open:
            return self._tool_hangs(min(after_s or self._limits.tool, self._limits.tool), quiet_s)
        if not after_s:
            return None
        if self._asked_s is not None:
            answer_s = min(after_s, _ANSWER_S)
            if quiet_s >= answer_s and self._idle(answer_s):
                why = (
                    f"the agent was asked whether it is there, and said nothing for {quiet_s:.0f} s"
                )
                return Verdict("silent", "lose", why)
            return None
        if quiet_s < after_s or not self._idle(after_s):
            return None
        why = f"the agent said and did nothing for {quiet_s:.0f} s"
        can = self._steers and "silent" not in self._told
        return Verdict("silent", "tell" if can else "lose", why)

    def _tool_hangs(self, after_s: float, quiet_s: float) -> Verdict | None:
        for tool in self._open.values():
            open_s = self._now_s - tool.at_s
            most_s = max(self._limits.tool, tool.allowed_s) if self._limits.tool else 0.0
            if most_s and open_s >= most_s and quiet_s >= after_s and self._idle(after_s):
                why = f"its tool {_shown(tool.what)} does nothing, and is open for {open_s:.0f} s"
                return Verdict("tool", "lose", why)
        return None

    def _idle(self, for_s: float) -> bool:
        """Whether its processes did next to nothing for so long."""
        until_s, used_ms = self._samples[-1]
        for since_s, was_ms in reversed(self._samples):
            if since_s <= until_s - for_s:
                return (used_ms - was_ms) * 100 < _IDLE_PERCENT * (until_s - since_s) * 1000
        return False


def words_of(verdict: Verdict) -> str:
    """What its agent is told."""
    what = verdict.why.removeprefix("the agent ")
    if verdict.detector == "silent":
        return "Are you there? Nothing was heard of you. Go on with your task, or end it."
    again = " If it goes on so, the attempt ends as failed." if verdict.once_more else ""
    return (
        f"You {what}. That leads nowhere: find out why, go another way, or say what keeps you from "
        f"your task and end.{again}"
    )


def _shown(what: str) -> str:
    return repr(" ".join(what.split())[:80])


def _hash(value: Any) -> str:
    raw = json.dumps(value, default=str, sort_keys=True).encode("utf-8", "replace")
    return sha256(raw).hexdigest()
