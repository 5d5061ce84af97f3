"""Calls and answers: from a command, an agent or another machine to a verb, and back.

Rule 1: only what the table of verbs names can be called; the table says what authority each needs,
and it is checked here, once, by the machine that acts, before the handler sees anything.
Rule 2: a call carries canonical JSON of bounded size; its statement is signed over its arguments.
Rule 3: a call for another machine is passed on as it is, for members and local programs only.
Passing on adds no authority: the statement inside names its target, and what a link proves counts
for calls that were not passed on.
Rule 4: a link that proved no live machine of the fleet gets enrolment and nothing else.
Rule 5: a refused call changes nothing. Whatever its handler wrote before it refused is taken back,
the taking of its order too; what stays is the record that it was refused. So it is with a handler
that fails by our own mistake: whoever asked is told, and the machine goes on.

An answer is JSON behind one byte: `+` a part of one, `*` one of several, `.` the last.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
from msgspec import Struct

from muster.channel.frame import Type
from muster.errors import (
    Broken,
    Conflict,
    Denied,
    Malformed,
    MusterError,
    NotFound,
    Unreachable,
    Unsettled,
)
from muster.limits import (
    CALL_BYTES_MAX,
    CALL_HOPS_MAX,
    LINK_CALLS_OPEN_MAX,
    REPLY_PART_BYTES,
    STRANGER_CALLS_MAX,
)
from muster.log import canon
from muster.log.entry import Entry, EntryId
from muster.log.kind import kind_of
from muster.log.stream import FLEET, Scope
from muster.node import argument
from muster.node import event as ev
from muster.node.counter import DECLARED, labelled
from muster.node.guard import OURS
from muster.node.link import Answer, Link, accepts, failure
from muster.node.part import Part
from muster.node.verb import LATER, Verb
from muster.node.whole import Mark, Whole

DECLARED[__name__] = {
    "strangers-cut": "A link that proved no machine called too often and was cut.",
    "call-<error>": "A call was answered with an error.",
}


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

    core: Whole
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
    options: Mapping[str, Any] = field(default_factory=dict)

    def write(self, body: Struct, scope: Scope = FLEET, cause: Sequence[EntryId] = ()) -> Entry:
        """An entry that says this, by whoever asks and because of its order."""
        kind, raw, causes = kind_of(type(body)), canon.encode(body), (*cause, *self.cites)
        return self.core.append(kind, raw, scope=scope, cause=causes, actor=self.actor)

    def more(self, value: Any) -> None:
        """One of several answers."""
        self.core.router.answer(self.link, self.channel, {"ok": True, "value": value}, last=False)

    def end(self, value: Any) -> None:
        """The last answer of a handler that returned LATER."""
        self.core.router.answer(self.link, self.channel, {"ok": True, "value": value})


class Router(Part):
    """Finds the handler of a call, passes calls on, and brings answers back."""

    effects = (ev.Perform, ev.Join)

    def __init__(self, core: Whole, verbs: Mapping[str, Verb]) -> None:
        self.core = core
        self.verbs = verbs
        self.waiting: list[tuple[int, int, Request]] = []
        self._forwards: dict[tuple[int, int], tuple[int, int]] = {}
        self._asked: dict[tuple[int, int], Callable[[Answer], None]] = {}
        self._parts: dict[tuple[int, int], bytes] = {}
        self.open: dict[tuple[int, int], Callable[[], None]] = {}

    # --- calls in -----------------------------------------------------------------------

    def on_call(self, link: Link, channel: int, payload: bytes) -> None:
        if not link.local and not link.peer and self._is_guessing(link):
            return
        try:
            request: Request = canon.decode_as(payload, Request, "call", size_max=CALL_BYTES_MAX)
            self._check_caller(link, request)
            if self._writes(request):
                self.core.store.check_room()
            if not self.core.members.settled and self._writes(request):
                # Our own history is not confirmed yet: what would write waits a moment.
                self._wait(link, channel, request)
                return
        except MusterError as error:
            self._failed(link, channel, error)
            if not link.local and not link.peer:
                # A stranger that goes on asking is cut for it.
                raise
            return
        self._begin(link, channel, request)

    def _is_guessing(self, link: Link) -> bool:
        """Whether a stranger has called too often: it is cut, and heard no more."""
        link.calls += 1
        if link.calls == STRANGER_CALLS_MAX + 1:
            self.core.counters["strangers-cut"] += 1
            self.core.do(ev.Cut(link.id, "one call enrols; this link made too many"))
        return link.calls > STRANGER_CALLS_MAX

    def _check_caller(self, link: Link, request: Request) -> None:
        """Before anything is looked up: who is no live member may ask to be enrolled, here."""
        verb = self.verbs.get(request.verb)
        if link.local or (verb is not None and verb.auth == "nothing" and not request.on):
            return
        if not link.peer:
            raise Denied("only machines of the fleet are answered here; join first")
        self.core.roster.machine(link.peer)

    def _wait(self, link: Link, channel: int, request: Request) -> None:
        if sum(number == link.id for number, _, _ in self.waiting) < LINK_CALLS_OPEN_MAX:
            self.waiting.append((link.id, channel, request))
            return
        full = "this machine is starting, and enough calls wait for it; ask again soon"
        self._failed(link, channel, Conflict(full))

    def _failed(self, link: Link, channel: int, error: MusterError) -> None:
        self.core.counters[labelled("call", error)] += 1
        if channel:
            self.answer(link.id, channel, failure(error))

    def resume(self) -> None:
        """Our history is confirmed: do what waited for it."""
        waiting, self.waiting = self.waiting, []
        for number, channel, request in waiting:
            if (link := self.core.links.get(number)) is not None:
                self._begin(link, channel, request)

    def _writes(self, request: Request) -> bool:
        verb = self.verbs.get(request.verb)
        if verb is None or (request.on and not self._is_here(request.on)):
            return False
        return verb.auth in ("order", "agent", "nothing") or verb.writes

    def _begin(self, link: Link, channel: int, request: Request) -> None:
        mark, call, name = None, None, request.verb[:40]
        try:
            if request.on and not self._is_here(request.on):
                self._forward(link, channel, request)
                return
            verb = self.verbs.get(request.verb)
            if verb is None or verb.runs == "client":
                raise NotFound(f"there is no verb {name!r} to call; see `muster --help`")
            handler = verb.load()
            ask = argument.read(verb, handler, request.args, request.options)
            call = Call(
                self.core, request.verb, request.args, link.id, channel, link.peer, link.local
            )
            call.options = request.options
            before = self.core.mark()
            self._authorise(verb, call, request)
            mark = before
            if verb.runs in ("async", "stream"):
                who = (link.peer, call.actor, ask)
                self.core.do(ev.Perform(link.id, channel, request.verb, request.args, *who))
                return
            value = handler(self.core, call, ask)
            if value is not LATER and channel:
                self.answer(link.id, channel, {"ok": True, "value": value})
        except Unsettled:
            self._wait(link, channel, request)
        except MusterError as error:
            if self.core.store.broken is not None:
                raise
            if mark is not None and call is not None:
                self._take_back(call, mark, error)
            self._failed(link, channel, error)
        except OURS as mistake:
            self.core.guard.failed("verb", name, mistake)
            broken = Broken(
                f"this machine failed at {name}, and nothing of it was done; "
                "`muster incidents` and its daemon.log say how"
            )
            if mark is not None and call is not None:
                self._take_back(call, mark, broken)
            # What it changed in memory is not undone with the log.
            self.core.work.take_up()
            self._failed(link, channel, broken)

    def _take_back(self, call: Call, mark: Mark, error: MusterError) -> None:
        """Its handler refused: nothing of it stays but that, where somebody had ordered it."""
        self.core.undo(mark)
        if call.statement:
            # Without its text: whoever reads our log could show it again.
            self.core.orders.deny(call.operator, call.verb, call.object, error)

    def _is_here(self, on: str) -> bool:
        return on in (self.core.machine, self.core.name)

    def _authorise(self, verb: Verb, call: Call, request: Request) -> None:
        """Raises: Denied, Forged, Conflict where the call brings less than the verb needs."""
        if verb.auth == "nothing":
            return
        if verb.auth == "peer":
            if not call.peer:
                raise Denied(f"{call.verb} is for machines of the fleet only")
            if request.hops:
                # The link proves who passed it on, not who asks.
                raise Denied(
                    f"{call.verb} was passed on: it is for machines with a link of their own"
                )
            return
        if verb.auth == "local" and call.local:
            return
        if verb.auth == "agent" and request.capability and call.local:
            call.actor = self.core.orders.capability(request.capability, call.verb, request.args)
            return
        if not request.statement:
            raise Denied(
                f"{call.verb} needs an operator's signature: run it as the operator, on a machine "
                "that holds the operator's key"
            )
        if verb.operators_only:
            self.core.orders.check_operator(call.verb, request.statement)
        named = request.args.get(verb.object, "*") if verb.object else "*"
        object = None if verb.object == "statement" else str(named)[:200]
        order = self.core.orders.take(call.verb, object, request.args, request.statement)
        call.actor, call.cites, call.statement = order.actor, (order.entry,), request.statement
        call.operator, call.object = order.operator, order.object

    # --- passing on -----------------------------------------------------------------------

    def _forward(self, link: Link, channel: int, request: Request) -> None:
        record = self.core.roster.find(request.on)
        if request.hops >= CALL_HOPS_MAX:
            raise Unreachable(f"{record.name} is not to be reached: the call went round too often")
        target = self._way_to(record.machine, link.id)
        if target is None:
            raise Unreachable(
                f"{record.name} is away: nobody here has a link to it; try again later"
            )
        if sum(origin[0] == link.id for origin in self._forwards.values()) >= LINK_CALLS_OPEN_MAX:
            raise Conflict("too many calls of this link wait for other machines; ask again later")
        number = next(self.core.links[target].numbers)
        self._forwards[target, number] = (link.id, channel)
        passed = msgspec.structs.replace(request, hops=request.hops + 1, on=record.machine)
        self.core.send(target, Type.CALL, number, canon.encode(msgspec.to_builtins(passed)))

    def reaches(self, machine: str) -> bool:
        """Whether a call of our own would find a way to this machine."""
        return self._way_to(machine, -1) is not None

    def _way_to(self, machine: str, came_from: int) -> int | None:
        direct = self.core.link_to(machine)
        if direct is not None:
            return direct
        hubs = (self.core.link_to(hub.machine) for hub in self.core.roster.hubs())
        return next((link for link in hubs if link not in (None, came_from)), None)

    # --- calls out ------------------------------------------------------------------------

    def ask(
        self, machine: str, verb: str, args: Mapping[str, Any], then: Callable[[Answer], None]
    ) -> None:
        """Call a verb of another machine; `then` gets its one answer, or that it is away."""
        link = self.core.link_to(machine)
        if link is None:
            then(failure(Unreachable(f"{self.core.standing.name_of(machine)} is away")))
            return
        number = next(self.core.links[link].numbers)
        self._asked[link, number] = then
        self.core.send(link, Type.CALL, number, canon.encode({"args": dict(args), "verb": verb}))

    def expect(self, link: int, channel: int, then: Callable[[Answer], None]) -> None:
        """`then` gets the one answer that comes on this channel."""
        self._asked[link, channel] = then

    def on_reply(self, link: Link, channel: int, payload: bytes) -> None:
        key = (link.id, channel)
        origin = self._forwards.get(key)
        if origin is not None:
            if payload[:1] == b".":
                del self._forwards[key]
            if accepts(payload):
                self.core.do(ev.Join(*origin, *key))
            else:
                self.core.send(origin[0], Type.REPLY, origin[1], payload)
            return
        then = self._asked.get(key)
        if then is None:
            return
        raw = self._parts.pop(key, b"") + payload[1:]
        if len(raw) > CALL_BYTES_MAX:
            del self._asked[key]
            then(failure(Malformed("the answer of the other machine is longer than any can be")))
            raise Malformed("an answer is longer than any answer can be")
        if payload[:1] == b"+":
            self._parts[key] = raw
            return
        del self._asked[key]
        try:
            found = msgspec.json.decode(raw, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as error:
            broken = Malformed("the answer of the other machine is not a JSON object")
            then(failure(broken))
            raise broken from error
        then(found)

    def on_close(self, link: Link, channel: int) -> bool:
        """The caller wants no more answers; whether it was to get any from here."""
        if stop := self.open.pop((link.id, channel), None):
            stop()
        passed = [key for key, origin in self._forwards.items() if origin == (link.id, channel)]
        for key in passed:
            del self._forwards[key]
            self.core.send(key[0], Type.CLOSE, key[1], b"")
        return stop is not None or bool(passed)

    def link_down(self, link: int) -> None:
        self.waiting = [each for each in self.waiting if each[0] != link]
        gone = failure(Unreachable("the link was cut before the answer came; ask again"))
        for key in [k for k in self._asked if k[0] == link]:
            self._parts.pop(key, None)
            self.core.guard.run("answer", "", self._asked.pop(key), gone)
        for key, origin in list(self._forwards.items()):
            if key[0] == link:
                del self._forwards[key]
                self.answer(origin[0], origin[1], gone)
            elif origin[0] == link:
                del self._forwards[key]
                self.core.send(key[0], Type.CLOSE, key[1], b"")
        for key in [k for k in self.open if k[0] == link]:
            self.core.guard.run("hang-up", "", self.open.pop(key))

    # --- answers --------------------------------------------------------------------------

    def answer(self, link: int, channel: int, answer: Answer, *, last: bool = True) -> None:
        """Send an answer, in as many parts as it takes. To a link that is gone: nothing."""
        if link not in self.core.links:
            return
        raw = msgspec.json.encode(answer)
        while len(raw) > REPLY_PART_BYTES:
            self.core.send(link, Type.REPLY, channel, b"+" + raw[:REPLY_PART_BYTES])
            raw = raw[REPLY_PART_BYTES:]
        self.core.send(link, Type.REPLY, channel, (b"." if last else b"*") + raw)

    def streaming(self, call: Call, stop: Callable[[], None]) -> None:
        """Call `stop` when the caller hangs up."""
        self.check_streaming(call)
        self.open[call.link, call.channel] = stop

    def check_streaming(self, call: Call) -> None:
        """Raises: Conflict: the caller follows too much, or this channel streams already."""
        if (call.link, call.channel) in self.open:
            raise Conflict("this channel already streams")
        if sum(key[0] == call.link for key in self.open) >= LINK_CALLS_OPEN_MAX:
            raise Conflict("this link follows too much at once; close something first")
