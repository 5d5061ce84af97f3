"""One machine as one synchronous state machine over its store.

Rule 1: `step` takes a batch of events, does all of them in ONE transaction, commits, and returns
the effects. Nothing leaves before the commit: what was sent, answered or begun is durable.
Rule 2: there is no clock, thread, socket or process here. The daemon and the simulator drive the
same code; randomness comes from the `rng` given.
Rule 3: one event cannot harm another: what breaks a rule is refused, counted by name, answered
where somebody waits for an answer, and the batch goes on. Every event, reaction and part of a tick
runs in a guard (guard.py): our own mistakes end one unit of work, too. A bad disk ends the machine.
Rule 4: everything kept in memory can be derived from the store again; `start` does it.

The parts: `Replication` moves streams, `Orders` decides who may, `Work` owns and works on tasks,
`Members` looks after incarnations and presence. Each reacts to entries by their kind, our own and
others' alike, in the transaction that brought them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from muster.channel import frame as frames
from muster.channel.flow import TYPES as STREAM_TYPES
from muster.channel.frame import Type
from muster.errors import Malformed, MusterError, Refused
from muster.fleet.kinds import ORDER_DENY
from muster.fleet.machine import Authority, Identity
from muster.fleet.roster import Roster
from muster.limits import NOTES_PER_MINUTE_MAX, STEP_REACTIONS_MAX, STEP_ROUNDS_MAX
from muster.log import canon
from muster.log.entry import Entry, EntryId
from muster.log.stream import FLEET, FleetId, Incarnation, MachineId, Scope, StreamName
from muster.log.sync import Sync
from muster.node import event as ev
from muster.node.call import Router
from muster.node.clock import Steady
from muster.node.counter import DECLARED, Counts, labelled
from muster.node.doubt import Doubt
from muster.node.guard import OURS, SURVIVED, Guard
from muster.node.health import HadNoRoom
from muster.node.incident import Incidents, Noticed
from muster.node.link import Link, Tried, best, sentence
from muster.node.lives import Lives
from muster.node.mailbox import Mailbox
from muster.node.member import FactsChanged, Members, ShutOut
from muster.node.order import Orders
from muster.node.part import Part
from muster.node.replication import Replication
from muster.node.republish import Republisher
from muster.node.standing import Standing
from muster.node.verb import Verb
from muster.node.whole import Mark, React
from muster.node.work import Work
from muster.store.store import Draft, Store
from muster.task.instruction import Now

DECLARED[__name__] = {
    "notes-unwritten": "A line of the daemon's log was one too many for its minute.",
    "steps-cut-short": "What followed from entries was left for the next step.",
}


class Core:
    """See the rules at the top of this file. `verbs` maps a name to what answers it."""

    def __init__(
        self,
        *,
        store: Store,
        identity: Identity,
        fleet: FleetId,
        incarnation: Incarnation,
        rng: Callable[[int], bytes],
        verbs: Mapping[str, Verb],
        authority: Authority | None = None,
        settings: Mapping[str, Any] | None = None,
        now: Now,
    ) -> None:
        self.store = store
        self.draw = rng
        self.clock, self.now = Steady(now), now
        self.authority = authority
        self.settings: Mapping[str, Any] = settings or {}
        self.counters = Counts()
        self.effects: list[ev.Effect] = []
        self.links: dict[int, Link] = {}
        # The ways to a machine and how they went: who dials (node/paths.py) puts itself here.
        self.ways_to: Callable[[str], list[Tried]] = lambda _machine: []
        self._fresh: deque[tuple[StreamName, Entry]] = deque()
        # How many more entries this step reacts to.
        self._reactions = STEP_REACTIONS_MAX
        self._reacts: dict[str, list[React]] = {}
        self._noted: deque[int] = deque()
        self.guard = Guard(self)
        self.standing = Standing(fleet, identity, store, incarnation)
        self.sync = Sync(
            identity.machine,
            store,
            self.standing.may_hold,
            lambda s, m: self.roster.held_from(s, m),  # noqa: PLW0108 - the roster is remade
            lambda: self.replication.forks.proofs().values(),
        )
        self.replication: Replication = Replication(
            store,
            self.standing,
            self.sync,
            self.counters,
            self._took,
            # The members do not exist yet: they need the sync, which needs the replication.
            lambda s, why: self.members.regressed(s, why),  # noqa: PLW0108
            lambda s, what: self.members.contradicted(s, what),  # noqa: PLW0108
            Republisher(self).publish,
        )
        self.doubt = Doubt(self)
        self.lives = Lives(self)
        self.orders = Orders(self)
        self.router = Router(self, verbs)
        self.members: Members = Members(self)
        self.incidents = Incidents(self)
        self.work = Work(self)
        self.mailbox = Mailbox(store, self.standing)
        work = self.work
        parts: tuple[Part, ...] = (
            self.router, self.members, work.owning, work.running.looking, work.branches,
            work.working, work.working.questions,
        )  # fmt: skip
        # What whoever drives this core must be able to carry out.
        self.wants = {ev.Send, ev.Cut, ev.Stray, ev.Told, ev.Note}.union(
            *(part.effects for part in parts)
        )

    # --- what everybody asks --------------------------------------------------------------

    @property
    def machine(self) -> MachineId:
        return self.standing.machine

    @property
    def roster(self) -> Roster:
        return self.standing.roster

    @property
    def name(self) -> str:
        return self.standing.name_of(self.machine)

    def on(self, kind: str, react: React) -> None:
        """Call `react` for every entry of this kind, in the transaction that brings it."""
        self._reacts.setdefault(kind, []).append(react)

    def link_to(self, machine: str, *, direct: bool = False) -> int | None:
        """The best live link whose peer proved to be `machine`; see `link.best`."""
        return best(self.links, machine, direct=direct)

    # --- writing ---------------------------------------------------------------------------

    def append(
        self,
        kind: str,
        body: bytes,
        *,
        scope: Scope = FLEET,
        cause: Sequence[EntryId] = (),
        actor: str = "muster",
    ) -> Entry:
        """One entry in our stream of `scope`; durable when this step returns."""
        return self.append_all(scope, (Draft(kind, actor, tuple(cause), body),))[0]

    def append_all(self, scope: Scope, drafts: Sequence[Draft]) -> list[Entry]:
        """Several entries at once, in order. Raises: Unsettled while our head is unconfirmed."""
        self.members.check_settled()
        stream = self.standing.own(scope)
        entries = self.store.append(stream, drafts, self.now.wall_ms)
        self.sync.grew(stream)
        self._fresh.extend((stream, e) for e in entries if e.header.kind in self._reacts)
        return entries

    def _took(self, stream: StreamName, entries: tuple[Entry, ...]) -> None:
        self._fresh.extend((stream, e) for e in entries if e.header.kind in self._reacts)
        self.guard.run("news", stream.machine[:12], self.members.advanced, stream, entries)

    # --- sending ---------------------------------------------------------------------------

    def send(self, link: int, type: Type, channel: int, payload: bytes) -> None:
        self.effects.append(ev.Send(link, frames.encode(type, channel, payload)))

    def do(self, effect: ev.Effect) -> None:
        self.effects.append(effect)

    # --- taking back -----------------------------------------------------------------------

    def mark(self) -> Mark:
        """This moment of the step, for `undo`; it costs next to nothing."""
        wanted, fresh = len(self.effects), len(self._fresh)
        return Mark(self.store.mark(), wanted, fresh, self.orders.mark())

    def undo(self, mark: Mark) -> None:
        """Take back what was written and wanted since `mark`, except that somebody was denied."""
        del self.effects[mark.effects :]
        if self.store.mark() == mark.store:
            return
        denied = self.orders.undo(mark.orders)
        self.store.undo(mark.store)
        while len(self._fresh) > mark.fresh:
            self._fresh.pop()
        self.standing.stale()
        for body in denied:
            self.append(ORDER_DENY, body)

    # --- one step -----------------------------------------------------------------------------

    def start(self, now: Now) -> list[ev.Effect]:
        """Take up what the store says was going on. Call once, before any `step`."""
        self.now = self.clock.read(now)
        self._reactions = STEP_REACTIONS_MAX
        with self.store.transaction(patient=True):
            self.members.start()
            self.guard.run("forks", "", self.replication.forks.start)
            self._settle_down()
            self.guard.run("work", "", self.work.start)
            self._settle_down()
            self._sign()
        return self._released()

    def step(self, events: Iterable[ev.Event], now: Now) -> list[ev.Effect]:
        """Do everything the events ask for; returns what is to be done now that it is durable.

        Raises: Broken when the disk fails: stop, send nothing. Exhausted when it is full: `resume`.
        """
        self.now = self.clock.read(now)
        self._reactions = STEP_REACTIONS_MAX
        self.orders.begin()
        with self.store.transaction(patient=True):
            for event in events:
                self._handle(event)
                if self._fresh:
                    self._react()
            self._settle_down()
            self._sign()
        return self._released()

    def resume(self, now: Now) -> list[ev.Effect]:
        """Commit the step that found no room, and release it. Raises: Exhausted, Broken."""
        self.now = self.clock.read(now)
        self.store.recommit()
        return self._released()

    def questions(self, events: Iterable[ev.Event], now: Now) -> list[ev.Effect]:
        """Do what writes nothing, while a step waits for room; whatever would write is refused."""
        held, self.effects, self.now = self.effects, [], self.clock.read(now)
        for event in events:
            self._handle(event)
        effects, self.effects = self.effects, held
        return effects

    def _handle(self, event: ev.Event) -> None:
        match event:
            case ev.Arrived():
                self._arrived(event)
            case ev.LinkUp():
                self.guard.run("link", event.peer[:12], self.members.link_up, event)
            case ev.LinkDown():
                self.guard.run("link", "", self.members.link_down, event)
            case ev.Tick():
                self._tick()
            case FactsChanged():
                self.guard.run("facts", "", self.members.facts_changed, event.facts)
            case HadNoRoom():
                self.guard.run("room", "", self.members.health.had_no_room, event)
            case ShutOut():
                self.guard.run("shut-out", "", self.members.shut_out, event.proof)
            case Noticed():
                self.guard.run("noticed", event.key, self.incidents.noticed, event)
            case _:
                self.work.on_event(event)

    def _tick(self) -> None:
        """Time passed. Each part of it is apart: one that fails takes no time from the others."""
        self.store.hurry()
        self.guard.run("members", "", self.members.tick)
        self.guard.run("sync", "", self.sync.tick, self.now.boot_ms)
        self.guard.run("forks", "", self.replication.forks.retry, *self.now)
        self.work.tick()
        self.guard.run("mailbox", "", self.mailbox.tick)

    def _arrived(self, event: ev.Arrived) -> None:
        link = self.links.get(event.link)
        if link is None:
            return
        link.heard_ms = self.now.boot_ms
        try:
            if event.type is Type.CALL:
                self.router.on_call(link, event.channel, event.payload)
            elif event.type is Type.REPLY:
                self.router.on_reply(link, event.channel, event.payload)
            elif event.type in STREAM_TYPES:
                if event.type is not Type.CLOSE or not self.router.on_close(link, event.channel):
                    self.do(ev.Stray(event.link, event.type, event.channel, event.payload))
            elif not link.peer:
                raise Refused("a frame about streams on a link that proved no machine")
            elif event.type is Type.SEGMENT:
                self.replication.on_segment(
                    event.link, event.payload, self.now.boot_ms, self.now.wall_ms
                )
            elif event.type in (Type.OFFER, Type.WANT, Type.COSIGN):
                self.replication.on_message(
                    event.link, event.payload, self.now.boot_ms, self.now.wall_ms
                )
            elif event.type is Type.HELLO:
                self.members.on_hello(link, event.payload)
            else:
                raise Malformed(f"a {event.type.name} frame has no place here")
        except Refused as error:
            self._fault(link, error)
            self.note(f"refused from {self._who(link)}: {error}")
        except MusterError as error:
            if self.store.broken is not None:
                raise
            self.counters[labelled("failed", error)] += 1
        except OURS as mistake:
            # Each part of a message was checked for itself, so what was kept of it stays.
            self.guard.failed("frame", self._who(link), mistake)
            self._fault(link, Malformed("this machine could not deal with it"))

    def _who(self, link: Link) -> str:
        return self.standing.name_of(link.peer) or "a peer"

    def _fault(self, link: Link, error: MusterError) -> None:
        if self.replication.fault(link.id, error):
            self.do(ev.Cut(link.id, "too many frames were refused"))

    def note(self, text: str) -> None:
        """A line in the daemon's log; whoever is refused all the time must not fill the disk."""
        minute_ago = self.now.boot_ms - 60_000
        while self._noted and self._noted[0] <= minute_ago:
            self._noted.popleft()
        if len(self._noted) >= NOTES_PER_MINUTE_MAX:
            self.counters["notes-unwritten"] += 1
            return
        self._noted.append(self.now.boot_ms)
        self.do(ev.Note(text if text.startswith("Traceback") else sentence(text)))

    def _react(self) -> None:
        """Let everybody see the new entries; what they append in answer is seen as well."""
        fresh, guard = self._fresh, self.guard
        while fresh and self._reactions:
            while fresh and self._reactions:
                self._reactions -= 1
                stream, entry = fresh.popleft()
                kind = entry.header.kind
                for react in self._reacts[kind]:
                    guard.run(kind, stream.machine[:12], react, stream, entry)
            guard.run("roster", "", self.standing.tell)

    def _settle_down(self) -> None:
        """Let everybody do what they still want, until nothing new comes of it.

        What never ends goes on in the next step: this one is bounded, and others are waiting.
        """
        for _ in range(1 + STEP_ROUNDS_MAX):
            self._react()
            self.work.flush()
            if not self._fresh or not self._reactions:
                break
        if self._fresh:
            self.counters["steps-cut-short"] += 1
        self.work.tell_changes()
        self.guard.report(self.now.boot_ms)

    def _sign(self) -> None:
        """One seal for each of our streams that grew, one receipt for each that came."""
        self.store.seal_dirty(self.standing.signer("seal"))
        self.replication.receipts(self.now.wall_ms)

    def _released(self) -> list[ev.Effect]:
        """After the commit: what this step wants done, and what the sync wants sent."""
        try:
            self.sync.after_commit(self.now.boot_ms)
        except SURVIVED as error:
            # What was committed is said again when the peers ask; the machine goes on.
            self.sync.outbox.clear()
            self.guard.failed("sync", "", error)
        effects, self.effects = self.effects, []
        for out in self.sync.outbox:
            type = Type.SEGMENT if out.bulk else Type.OFFER
            effects.append(ev.Send(out.link, frames.encode(type, 0, out.raw), out.bulk))
        self.sync.outbox.clear()
        return effects

    # --- for verbs ---------------------------------------------------------------------------

    def call(self, machine: str, verb: str, args: Mapping[str, Any]) -> bool:
        """A one-way call to another machine; False when there is no link to it."""
        link = self.link_to(machine)
        if link is None:
            return False
        self.send(link, Type.CALL, 0, canon.encode({"args": dict(args), "verb": verb}))
        return True
