"""Calls: from a command, an agent or another machine to a verb, and back.

Rule 1: only what the table of verbs names can be called; the table says what authority each needs,
and it is checked here, once, by the machine that acts, before the handler sees anything.
Rule 2: a call for another machine is passed on as it is, for members and local programs only.
Passing on adds no authority: the statement inside names its target, and what a link proves counts
for calls that were not passed on.
Rule 3: a link that proved no live machine of the fleet gets enrolment; of another, see guests.py.
Rule 4: a refused call changes nothing. Whatever its handler wrote before it refused is taken back,
the taking of its order too; what stays is the record that it was refused. So it is with a handler
that fails by our own mistake: whoever asked is told, and the machine goes on.
Rule 5: what an answer costs is divided into turns: a handler that yields goes on in a step of its
own, behind what has come meanwhile. It writes in its last turn only.
"""

import itertools
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

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
from muster.fleet.statement import SALT, veiled
from muster.limits import CALL_BYTES_MAX, CALL_HOPS_MAX, LINK_CALLS_OPEN_MAX, STRANGER_CALLS_MAX
from muster.log import canon
from muster.node import event as ev
from muster.node.call import arguments
from muster.node.call.answers import Answers, Call, Request
from muster.node.call.authorize import Authorizer, check_enclosed
from muster.node.call.guests import REFUSED, Guests
from muster.node.counter import DECLARED, labelled
from muster.node.guard import OURS
from muster.node.link import Answer, Link, Said, accepts, failure
from muster.node.part import Part
from muster.node.verb import LATER, Turns, Verb

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "strangers-cut": "A link that proved no machine called too often and was cut.",
    "call-<error>": "A call was answered with an error.",
}

# Who is obeyed, or comes in, is written down.
_WRITING: Final = ("order", "agent", "nothing", "foreign")


class Router(Part):
    """Finds the handler of a call, passes calls on, and brings answers back."""

    name = "calls"
    effects = (ev.Perform, ev.Join, ev.Again)

    def __init__(self, core: "Core") -> None:
        self.core, self.verbs, self._orders = core, core.verbs, core.part(Authorizer)
        self._answers, self._guests = core.part(Answers), core.part(Guests)
        self.waiting: list[tuple[int, int, Request]] = []
        # Handlers that go on, the next one first.
        self._turns: list[tuple[Call, Request, Turns[Any]]] = []
        self._forwards: dict[tuple[int, int], tuple[int, int]] = {}
        # Who gets the one answer that comes on a channel of a link.
        self.asked: dict[tuple[int, int], Callable[[Answer], None]] = {}
        # Of an answer that comes in parts, what came.
        self._parts: dict[tuple[int, int], bytearray] = {}
        core.frames[Type.CALL] = self.on_call
        core.frames[Type.REPLY] = self.on_reply
        core.frames[Type.CLOSE] = self.on_close
        core.on(ev.LinkDown, self.link_down)
        core.on(ev.Turn, self._turn)
        for each in (ev.HeadConfirmed, ev.DoubtOver, ev.DoubtLasts):
            core.on(each, self.resume)

    # --- calls in -----------------------------------------------------------------------

    def on_call(self, link: Link, channel: int, payload: bytes) -> None:
        stranger = not link.local and not link.peer and not link.foreign
        if link.foreign and not self._guests.hears(link):
            return
        if stranger:
            link.calls += 1
            if link.calls == STRANGER_CALLS_MAX + 1:
                self.core.counters["strangers-cut"] += 1
                self.core.do(ev.Cut(link.id, "one call enrols; this link made too many"))
            if link.calls > STRANGER_CALLS_MAX:
                return
        try:
            request: Request = canon.decode_as(payload, Request, "call", size_max=CALL_BYTES_MAX)
            verb = self.verbs.get(request.verb)
            enrols = verb is not None and verb.auth == "nothing" and not request.on
            if link.foreign:
                self._guests.check(verb, request)
            elif link.attempt:
                check_enclosed(link.attempt, verb, request)
            elif not link.local and not enrols:
                # Before anything is looked up: who is no live member may ask to be enrolled, here.
                if stranger:
                    raise Denied("only machines of the fleet are answered here; join first")
                self.core.roster.machine(link.peer)
            here = verb is not None and (not request.on or self._is_here(request.on))
            if here and verb is not None and (verb.writes or verb.auth in _WRITING):
                self.core.store.check_room()
                if not self.core.settled:
                    # Our own history is not confirmed yet: what would write waits a moment.
                    self._wait(link, channel, request)
                    return
        except MusterError as error:
            self._failed(link, channel, error)
            if stranger:
                # One that goes on asking is cut for it.
                raise
            return
        self._begin(link, channel, request)

    def _wait(self, link: Link, channel: int, request: Request) -> None:
        if sum(number == link.id for number, _, _ in self.waiting) < LINK_CALLS_OPEN_MAX:
            self.waiting.append((link.id, channel, request))
            return
        full = "this machine is starting, and enough calls wait for it; ask again soon"
        self._failed(link, channel, Conflict(full))

    def _failed(self, link: Link, channel: int, error: MusterError) -> None:
        self.core.counters[labelled("call", error)] += 1
        if channel:
            told = failure(Denied(REFUSED) if link.foreign else error)
            self._answers.answer(link.id, channel, told)

    def resume(self, _event: ev.Event) -> None:
        """Our history is confirmed: do what waited for it."""
        waiting, self.waiting = self.waiting, []
        for number, channel, request in waiting:
            if (link := self.core.links.get(number)) is not None:
                self._begin(link, channel, request)

    def _turn(self, _event: ev.Turn) -> None:
        """Let the next handler go on, if its caller is still there; one in a step, however many."""
        if self._turns and ev.Turn not in self.core.of_step:
            self.core.of_step[ev.Turn] = None
            call, request, work = self._turns.pop(0)
            self.tick()
            if (link := self.core.links.get(call.link)) is not None:
                self._begin(link, call.channel, request, (call, work))

    def tick(self) -> None:
        """Go on; a step that failed may have taken back that somebody wants to."""
        if self._turns:
            self.core.do(ev.Again())

    def _begin(
        self, link: Link, channel: int, request: Request, on: tuple[Call, Turns[Any]] | None = None
    ) -> None:
        mark, call, name = None, None, request.verb[:40]
        try:
            if on is not None:
                mark, call = self.core.mark(), on[0]
                self._go_on(call, request, on[1])
                return
            if request.on and not self._is_here(request.on):
                self._forward(link, channel, request)
                return
            verb = self.verbs.get(request.verb)
            if verb is None or verb.runs == "client":
                raise NotFound(f"there is no verb {name!r} to call; see `muster --help`")
            handler = verb.load()
            ask = arguments.read(verb, handler, request.args, request.options)
            who = (link.id, channel, link.peer, link.local)
            call = Call(self.core, request.verb, request.args, *who, options=request.options)
            call.foreign = link.foreign
            before = self.core.mark()
            self._authorise(verb, call, request)
            mark = before
            if verb.runs in ("async", "stream"):
                what = (request.verb, request.args)
                by = (link.peer, ask, call.operator, call.cites)
                self.core.do(ev.Perform(link.id, channel, *what, *by))
                return
            value = handler(self.core, call, ask)
            if isinstance(value, Generator):
                self._go_on(call, request, value)
            elif value is not LATER and channel:
                call.end(value)
        except Unsettled:  # It is answered when the entries it needs are settled.
            self._wait(link, channel, request)
        except (MusterError, *OURS) as error:
            if isinstance(error, MusterError):
                if self.core.store.broken is not None:
                    raise
                failed, mistake = error, False
            else:
                self.core.guard.failed("verb", name, error)
                said = f"this machine failed at {name}, and nothing of it was done; "
                said += "`muster incidents` and its daemon.log say how"
                failed, mistake = Broken(said), True
            if mark is not None and call is not None:
                # Its handler refused: nothing of it stays but that, where somebody had ordered it.
                self.core.undo(mark)
                if call.statement:
                    # Without its text: whoever reads our log could show it again.
                    self._orders.deny(call.operator, call.verb, call.object, failed)
            if mistake:
                # What it changed in memory is not undone with the log.
                self.core.tell(ev.MemoryDoubtful())
            self._failed(link, channel, failed)

    def _go_on(self, call: Call, request: Request, work: Turns[Any]) -> None:
        """One turn of a handler; its answer after the last."""
        try:
            next(work)
        except StopIteration as done:
            if call.channel:
                call.end(done.value)
            return
        if sum(each.link == call.link for each, _, _ in self._turns) >= LINK_CALLS_OPEN_MAX:
            raise Conflict("enough calls of this link are under way; ask again when one has ended")
        self._turns.append((call, request, work))
        # Also where others wait: their turn may be held back with a step that found no room.
        self.tick()

    def _is_here(self, on: str) -> bool:
        return on in (self.core.machine, self.core.name)

    def _authorise(self, verb: Verb, call: Call, request: Request) -> None:
        """Raises: Denied, Forged, Conflict where the call brings less than the verb needs."""
        if (verb.auth == "foreign") != bool(call.foreign):
            raise Denied(f"{call.verb} is for machines of other fleets alone")
        if verb.auth in ("nothing", "foreign"):
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
        if verb.agents and request.capability and call.local:
            shown = (request.capability, call.verb, request.args)
            call.actor, call.task, call.session = self._orders.capability(*shown)
            return
        if verb.auth == "local" and call.local:
            return
        if not request.statement:
            raise Denied(
                f"{call.verb} needs an operator's signature: run it as the operator, on a machine "
                "that holds the operator's key"
            )
        named = request.args.get(verb.object, "*") if verb.object else "*"
        if verb.of_machine:
            asker = self.core.machine if call.local else call.peer
            arguments.check_ends(verb, request.args, here=self.core.machine, asker=asker)
        object = None if verb.object == "statement" else str(named)[:200]
        if object is not None and (salt := str(request.args.get(SALT, ""))):
            object = veiled(object, salt)
        what, only = (call.verb, object, request.args), verb.operators_only
        order = self._orders.take(*what, request.statement, operators_only=only)
        call.actor, call.cites, call.statement = order.actor, (order.entry,), request.statement
        call.operator, call.object = order.operator, order.object

    # --- passing on -----------------------------------------------------------------------

    def _forward(self, link: Link, channel: int, request: Request) -> None:
        record = self.core.roster.find(request.on)
        if request.hops >= CALL_HOPS_MAX:
            raise Unreachable(f"{record.name} is not to be reached: the call went round too often")
        verb = self.verbs.get(request.verb)
        if verb is not None and verb.of_machine:
            # A stream that we join is plain to us: only our own may go on, and to its end alone.
            target = self.core.link_to(record.machine) if link.local else None
            if target is None:
                raise arguments.none_between(record.name, request.verb)
        else:
            target = self._way_to(record.machine, link.id)
        if target is None:
            self.core.tell_later(ev.Missed(record.machine))
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
        if (direct := self.core.link_to(machine)) is not None:
            return direct
        leads = (self.core.link_to(machine) for machine in self.core.leads())
        return next((link for link in leads if link not in (None, came_from)), None)

    # --- calls out ------------------------------------------------------------------------

    def ask(
        self, machine: str, verb: str, args: Mapping[str, Any], then: Callable[[Answer], None]
    ) -> Callable[[], None]:
        """Call a verb of another machine; `then` gets its one answer, or that it is away.

        Returns what is called when nobody waits for it any more.
        """
        link = self.core.link_to(machine)
        if link is None:
            then(failure(Unreachable(f"{self.core.membership.name_of(machine)} is away")))
            return lambda: None
        number = next(self.core.links[link].numbers)
        self.asked[link, number] = then
        self.core.send(link, Type.CALL, number, canon.encode({"args": dict(args), "verb": verb}))
        return lambda: self.forget(link, number)

    def say(self, machine: str, verb: str, args: Mapping[str, Any]) -> None:
        """A call that nobody answers; it is lost when there is no link to that machine."""
        if (link := self.core.link_to(machine)) is not None:
            self.core.send(link, Type.CALL, 0, canon.encode({"args": dict(args), "verb": verb}))

    def forget(self, link: int, channel: int) -> None:
        """Nobody waits for this answer any more: nothing of it is kept."""
        self.asked.pop((link, channel), None)
        self._parts.pop((link, channel), None)

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
        then = self.asked.get(key)
        if then is None:
            return
        raw = self._parts.setdefault(key, bytearray())
        if len(raw) + len(payload) - 1 > CALL_BYTES_MAX:
            self.forget(*key)
            then(failure(Malformed("the answer of the other machine is longer than any can be")))
            raise Malformed("an answer is longer than any answer can be")
        raw += payload[1:]
        if payload[:1] == b"+":
            return
        self.forget(*key)
        try:
            found = msgspec.json.decode(raw, type=Said)
        except (msgspec.DecodeError, RecursionError) as error:
            broken = Malformed("the answer of the other machine is none")
            then(failure(broken))
            raise broken from error
        said = {"value": found.value} if found.ok else {"error": found.error}
        then({"ok": found.ok, **said})

    def on_close(self, link: Link, channel: int, payload: bytes) -> None:
        """The caller wants no more answers; or a stream ends that is none of ours."""
        self.waiting = [each for each in self.waiting if each[:2] != (link.id, channel)]
        self._turns = [t for t in self._turns if (t[0].link, t[0].channel) != (link.id, channel)]
        if stop := self._answers.open.pop((link.id, channel), None):
            stop()
        passed = [key for key, origin in self._forwards.items() if origin == (link.id, channel)]
        for key in passed:
            del self._forwards[key]
            self.core.send(key[0], Type.CLOSE, key[1], b"")
        if stop is None and not passed:
            self.core.do(ev.Stray(link.id, Type.CLOSE, channel, payload))

    def goes_over(self, link: int) -> bool:
        """Whether a call came over this link, or went, and was not answered to its end."""
        turns = (call.link for call, _, _ in self._turns)
        passed_on = ((key[0], origin[0]) for key, origin in self._forwards.items())
        waiting = (each[0] for each in self.waiting)
        tables = (each for each, _ in (*self.asked, *self._answers.open))
        return link in itertools.chain(tables, turns, waiting, *passed_on)

    def link_down(self, event: ev.LinkDown) -> None:
        link = event.link
        self.waiting = [each for each in self.waiting if each[0] != link]
        gone = failure(Unreachable("the link was cut before the answer came; ask again"))
        for key in [k for k in self.asked if k[0] == link]:
            self._parts.pop(key, None)
            self.core.guard.run("answer", "", self.asked.pop(key), gone)
        for key, origin in list(self._forwards.items()):
            if key[0] == link:
                del self._forwards[key]
                self._answers.answer(origin[0], origin[1], gone)
            elif origin[0] == link:
                del self._forwards[key]
                self.core.send(key[0], Type.CLOSE, key[1], b"")
