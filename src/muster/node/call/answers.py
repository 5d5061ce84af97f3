"""A call as it comes and as its handler sees it, and the answers to it.

Rule: a call carries canonical JSON of bounded size; its statement is signed over its arguments. An
answer is JSON behind one byte: `+` a part of one, `*` one of several, `.` the last.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Struct

from muster.channel.frame import Type
from muster.errors import Conflict
from muster.limits import CALL_HOPS_MAX, LINK_CALLS_OPEN_MAX, REPLY_PART_BYTES
from muster.log.entry import Entry, EntryId
from muster.log.stream import FLEET, Scope
from muster.node import event as ev
from muster.node.link import Answer
from muster.node.part import Part

if TYPE_CHECKING:
    from muster.node.core import Core


class Request(Struct, frozen=True, forbid_unknown_fields=True):
    """What a CALL frame holds. `on` names the machine that is to act, "" the one called.

    `args` are what a statement signs; `options` change how, never what.
    """

    verb: str
    args: dict[str, Any] = {}
    on: str = ""
    statement: str = ""
    capability: str = ""
    options: dict[str, Any] = {}
    # Never negative: a call must not go round for ever.
    hops: Annotated[int, msgspec.Meta(ge=0, le=CALL_HOPS_MAX)] = 0


@dataclass(slots=True)
class Call:
    """One call as its handler sees it: who asks, by what authority, and how to answer."""

    core: "Core"
    verb: str
    args: Mapping[str, Any]
    link: int
    channel: int
    peer: str
    local: bool
    actor: str = "muster"
    cites: tuple[EntryId, ...] = ()
    statement: str = ""
    operator: str = ""
    object: str = ""
    # Of an agent: the task that it works on, or the session of a program beside any.
    task: str = ""
    session: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    # The machine of another fleet whose link it is, "" elsewhere.
    foreign: str = ""

    def write(self, body: Struct, scope: Scope = FLEET, cause: Sequence[EntryId] = ()) -> Entry:
        """An entry that says this, by whoever asks and because of its order."""
        causes = (*cause, *self.cites)
        return self.core.append_body(body, scope=scope, cause=causes, actor=self.actor)

    def more(self, value: Any) -> None:
        """One of several answers."""
        answer = {"ok": True, "value": value}
        self.core.part(Answers).answer(self.link, self.channel, answer, last=False)

    def end(self, value: Any) -> None:
        """The last answer of a handler that returned LATER."""
        self.core.part(Answers).answer(self.link, self.channel, {"ok": True, "value": value})

    def check_streaming(self) -> None:
        """Before it waits (`Answers.open`). Raises: Conflict where it follows too much already."""
        there = self.core.part(Answers).open
        if (self.link, self.channel) in there:
            raise Conflict("this channel already streams")
        if sum(key[0] == self.link for key in there) >= LINK_CALLS_OPEN_MAX:
            raise Conflict("this link follows too much at once; close something first")


class Answers(Part):
    """What is answered to calls, and who is told what comes later."""

    name = "answers"

    def __init__(self, core: "Core") -> None:
        self.core = core
        # What is to be done when the caller hangs up, by link and channel.
        self.open: dict[tuple[int, int], Callable[[], None]] = {}
        core.on(ev.LinkDown, self._link_down)

    def answer(self, link: int, channel: int, answer: Answer, *, last: bool = True) -> None:
        """Send an answer, in as many parts as it takes. To a link that is gone: nothing."""
        if link not in self.core.links:
            return
        raw = msgspec.json.encode(answer)
        while len(raw) > REPLY_PART_BYTES:
            self.core.send(link, Type.REPLY, channel, b"+" + raw[:REPLY_PART_BYTES])
            raw = raw[REPLY_PART_BYTES:]
        self.core.send(link, Type.REPLY, channel, (b"." if last else b"*") + raw)

    def _link_down(self, event: ev.LinkDown) -> None:
        for key in [k for k in self.open if k[0] == event.link]:
            self.core.guard.run("hang-up", "", self.open.pop(key))
