"""One machine as one synchronous state machine over its store.

Rule 1: `step` takes a batch of events, does all of them in ONE transaction, commits, and returns
the effects. Nothing leaves before the commit: what was sent, answered or begun is durable.
Rule 2: there is no clock, thread, socket or process here. The daemon and the simulator drive the
same code; randomness comes from the `rng` given.
Rule 3: one event cannot harm another: what breaks a rule is refused, counted by name, answered
where somebody waits for an answer, and the batch goes on. Every event, reaction and part of a tick
runs in a guard (guard.py): our own mistakes end one unit of work, too. A bad disk ends the machine.
Rule 4: everything kept in memory can be derived from the store again; `start` does it.

The services of a machine are its parts (part.py, parts.py), each in one file. The core knows none
of them by name: a part finds another one by its type, and tells all of them something by an event.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, overload

from msgspec import Struct

from muster.channel import frame as frames
from muster.channel.frame import Type
from muster.errors import Unsettled
from muster.fleet.machine import Authority, Identity
from muster.fleet.roster import Roster
from muster.limits import NOTES_PER_MINUTE_MAX, STEP_REACTIONS_MAX, STEP_ROUNDS_MAX
from muster.log import canon
from muster.log.entry import Entry, EntryId
from muster.log.kind import kind_of
from muster.log.stream import FLEET, FleetId, Incarnation, MachineId, Scope, StreamName
from muster.log.sync import Sync
from muster.node import event as ev
from muster.node.counter import DECLARED, Counts, spend
from muster.node.exposed import Exposed
from muster.node.guard import SURVIVED, Guard, Mark
from muster.node.host.clock import Steady
from muster.node.incidents import Incidents
from muster.node.link import Link, Tried, Try, best, sentence
from muster.node.part import Part
from muster.node.replica.membership import Membership
from muster.node.replica.replication import Replication
from muster.node.verb import Verb
from muster.store.store import Draft, Store
from muster.task.instruction import Now

DECLARED[__name__] = {
    "notes-unwritten": "A line of the daemon's log was one too many for its minute.",
    "steps-cut-short": "What followed from entries was left for the next step.",
}

E = TypeVar("E", bound=ev.Event)
P = TypeVar("P", bound=Part)
React = Callable[[StreamName, Entry], None]
# What is done with a frame of a link: its channel and its payload.
OnFrame = Callable[[Link, int, bytes], None]


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
        parts: Iterable[type[Part]],
        authority: Authority | None = None,
        settings: Mapping[str, Any] | None = None,
        now: Now,
    ) -> None:
        self.store, self.log, self.tables = store, store.log, store.tables
        self.draw, self.machine = rng, identity.machine
        self.clock, self.now = Steady(now), now
        self.authority, self.verbs = authority, verbs
        self.settings: Mapping[str, Any] = settings or {}
        self.counters, self.effects = Counts(), list[ev.Effect]()
        self.links: dict[int, Link] = {}
        # Whether our own history is confirmed: before that we write nothing.
        self.settled = False
        self.leads: Callable[[], list[MachineId]] = list  # whom to ask first: see tasks/keepers.py
        # The ways to a machine and how they went: who dials (node/links/paths.py) puts itself here.
        self.ways_to: Callable[[str], list[Tried]] = lambda _machine: []
        self.tries_of: Callable[[str], list[Try]] = lambda _machine: []
        self.exposed: Callable[[], list[Exposed]] = list
        # What was written in this step, and is written again where the rest is taken back.
        self.surviving: list[Struct] = []
        # What parts remember of this step alone; it is taken back with what they wrote.
        self.of_step: dict[object, None] = {}
        # Each once: whatever makes us say it may come again and again until we may.
        self._put_off: dict[tuple[str, bytes], None] = {}
        self._fresh, self._told = deque[tuple[StreamName, Entry]](), deque[ev.Event]()
        self._when_done: dict[Callable[[], None], None] = {}
        # How many more entries this step reacts to.
        self._reactions = STEP_REACTIONS_MAX
        self._reacts: dict[str, list[React]] = {}
        self._hears: dict[type[ev.Event], list[tuple[str, Callable[[Any], None]]]] = {}
        self.frames: dict[Type, OnFrame] = {}
        self._noted: deque[int] = deque()
        self.membership = Membership(fleet, identity, store, incarnation)
        self.incidents = Incidents(store, self.membership, self.write)
        tell = self.incidents.open
        self.guard = Guard(store, self.counters, self.mark, self.undo, self.note, tell)
        self.sync = Sync(
            identity.machine,
            store.log,
            self.membership.may_hold,
            lambda s, m: self.roster.held_from(s, m),  # noqa: PLW0108 - the roster is remade
            lambda: self.replication.forks.proofs().values(),
        )
        self.replication: Replication = Replication(
            store, self.membership, self.sync, self.counters, self._took, self.tell
        )
        self.membership.on_change.append(lambda now, was: self.tell(ev.RosterChanged(now, was)))
        # Which part is being made: what it registers is told under its name when it fails.
        self._parts: dict[type[Part], Part] = {}
        for make in parts:
            self._making = make.name
            self._parts[make] = make(self)
        # Those that have something to do with time, and those that put something off.
        self._ticking, self._flushed = self._with("tick"), self._with("flush")

    def _with(self, method: str) -> list[Part]:
        """The parts that do something there."""
        nothing = getattr(Part, method)
        return [part for type, part in self._parts.items() if getattr(type, method) is not nothing]

    @property
    def needs_tick(self) -> bool:
        """Whether something waits for the next tick, and that is to come soon."""
        own = not self.settled or self.sync.needs_tick or self.store.needs_tick
        return own or any(part.needs_tick for part in self._ticking)

    @property
    def wants(self) -> set[type[ev.Effect]]:
        """What whoever drives this core must be able to carry out."""
        own: set[type[ev.Effect]] = {ev.Send, ev.Cut, ev.Stray, ev.Told, ev.Note}
        return own.union(*(part.effects for part in self._parts))

    # --- parts ----------------------------------------------------------------------------

    def part(self, type: type[P]) -> P:
        """One of our parts; in a constructor, one that comes before."""
        return self._parts[type]  # type: ignore[return-value]

    @overload
    def on(self, what: str, react: React) -> None: ...
    @overload
    def on(self, what: type[E], react: Callable[[E], object]) -> None: ...

    def on(self, what: str | type[ev.Event], react: Callable[..., Any]) -> None:
        """Call `react` for every event of a type; or for every entry of a kind, our own and others'
        alike, in the transaction that brings it.
        """
        if isinstance(what, str):
            self._reacts.setdefault(what, []).append(react)
            return
        self._hears.setdefault(what, []).append((self._making, react))

    def tell(self, event: ev.Event) -> None:
        """Tell the other parts at once; what fails in one of them fails here."""
        for _, hear in self._hears.get(type(event), ()):
            hear(event)

    def tell_later(self, event: ev.Event) -> None:
        """Tell them in this step, when this part is done."""
        self._told.append(event)

    def when_done(self, work: Callable[[], None]) -> None:
        """Call it once, when all else of this step is done."""
        self._when_done[work] = None

    # --- what everybody asks --------------------------------------------------------------

    @property
    def roster(self) -> Roster:
        return self.membership.roster

    @property
    def name(self) -> str:
        return self.membership.name_of(self.machine)

    def link_to(self, machine: str, *, direct: bool = False) -> int | None:
        """The best live link whose peer proved to be `machine`; see `link.best`."""
        return best(self.links, machine, self.sync.paths.proofs, direct=direct)

    # --- writing, sending, taking back ------------------------------------------------------

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

    def append_body(self, body: Struct, **about: Any) -> Entry:
        """As `append`, of the kind whose body this is."""
        return self.append(kind_of(type(body)), canon.encode(body), **about)

    def append_all(self, scope: Scope, drafts: Sequence[Draft]) -> list[Entry]:
        """Several entries at once, in order. Raises: Unsettled while our head is unconfirmed."""
        if not self.settled:
            raise Unsettled("this machine is still asking its peers how far its own log goes")
        stream = self.membership.own(scope)
        entries = self.store.append(stream, drafts, self.now.wall_ms)
        self.sync.grew(stream)
        self._fresh.extend((stream, e) for e in entries if e.header.kind in self._reacts)
        return entries

    def _took(self, stream: StreamName, entries: tuple[Entry, ...]) -> None:
        self._fresh.extend((stream, e) for e in entries if e.header.kind in self._reacts)
        self._hear(ev.EntriesCame(stream, entries), stream.machine)

    def write(self, kind: str, body: Any) -> None:
        """An entry in our fleet stream, as soon as we may write."""
        raw = canon.encode(body)
        if self.settled:
            self.append(kind, raw)
        else:
            self._put_off[kind, raw] = None

    def confirmed(self) -> None:
        """Our head is confirmed: do what waited for it."""
        self.settled = True
        put_off, self._put_off = self._put_off, {}
        for kind, body in put_off:
            self.append(kind, body)
        self.tell(ev.HeadConfirmed())

    def send(self, link: int, type: Type, channel: int, payload: bytes) -> None:
        self.effects.append(ev.Send(link, frames.encode(type, channel, payload)))

    def do(self, effect: ev.Effect) -> None:
        self.effects.append(effect)

    def mark(self) -> Mark:
        """This moment of the step, for `undo`; it costs next to nothing."""
        sizes = (len(self.effects), len(self._fresh), len(self.surviving), len(self.of_step))
        return Mark(self.store.mark(), *sizes)

    def undo(self, mark: Mark) -> None:
        """Take back what was written and wanted since `mark`, except what lasts."""
        del self.effects[mark.effects :]
        if self.store.mark() == mark.store:
            return
        self.store.undo(mark.store)
        while len(self._fresh) > mark.fresh:
            self._fresh.pop()
        while len(self.of_step) > mark.of_step:
            self.of_step.popitem()
        self.membership.stale()
        for body in self.surviving[mark.surviving :]:
            self.append_body(body)

    # --- one step -----------------------------------------------------------------------------

    def start(self, now: Now) -> list[ev.Effect]:
        """Take up what the store says was going on. Call once, before any `step`."""
        self.now = self.clock.read(now)
        self._reactions = STEP_REACTIONS_MAX
        with self.store.transaction(patient=True):
            for part in self._with("start"):
                if part.vital:
                    part.start()
                else:
                    self.guard.run(part.name, "", part.start)
                self._react()
            self._settle_down()
            self._sign()
        return self._released()

    def step(self, events: Iterable[ev.Event], now: Now) -> list[ev.Effect]:
        """Do everything the events ask for; returns what is to be done now that it is durable.

        Raises: Broken when the disk fails: stop, send nothing. Exhausted when it is full: `resume`.
        """
        self.now = self.clock.read(now)
        self._reactions = STEP_REACTIONS_MAX
        self.surviving.clear()
        self.of_step.clear()
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
        self.of_step.clear()
        for event in events:
            self._handle(event)
        effects, self.effects = self.effects, held
        return effects

    def _handle(self, event: ev.Event) -> None:
        self._hear(event, str(getattr(event, "peer", "") or getattr(event, "task", "")))
        if not isinstance(event, ev.Tick):
            return
        # Time passed. Each part of it is apart: one that fails takes no time from the others.
        self.store.flush_cosigns()
        self.guard.run("sync", "", self.sync.tick, self.now.boot_ms)
        self.guard.run("forks", "", self.replication.forks.retry, *self.now)
        for part in self._ticking if self.settled else ():
            self.guard.run(part.name, "", part.tick)

    def _hear(self, event: ev.Event, about: str = "") -> None:
        for unit, hear in self._hears[type(event)]:
            self.guard.run(unit, about[:12], hear, event)

    def note(self, text: str) -> None:
        """A line in the daemon's log; whoever is refused all the time must not fill the disk."""
        if not spend(self._noted, NOTES_PER_MINUTE_MAX, 60_000, self.now.boot_ms):
            self.counters["notes-unwritten"] += 1
            return
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
            guard.run("roster", "", self.membership.tell)

    def _settle_down(self) -> None:
        """Let everybody do what they still want, until nothing new comes of it.

        What never ends goes on in the next step: this one is bounded, and others are waiting.
        """
        for _ in range(STEP_ROUNDS_MAX):
            self._react()
            if not (self._flush() or self._fresh) or not self._reactions:
                break
        if self._fresh:
            self.counters["steps-cut-short"] += 1
        done, self._when_done = self._when_done, {}
        for work in done:
            self.guard.run("done", "", work)
        self.guard.report(self.now.boot_ms)

    def _flush(self) -> bool:
        """Let each part do what it put off, until none has anything; False where none had."""
        if not self.settled:
            return False
        for count in range(STEP_ROUNDS_MAX):
            dirty = [part for part in self._flushed if part.dirty]
            for part in dirty:
                part.dirty = False
                self.guard.run(part.name, "", part.flush)
            told, self._told = self._told, deque()
            for event in told:
                self._hear(event)
            if not dirty and not told:
                return count > 0
        self.counters["steps-cut-short"] += 1
        return True

    def _sign(self) -> None:
        """One seal for each of our streams that grew, one receipt for each that came."""
        self.store.seal_dirty(self.membership.signer("seal"))
        self.replication.receipts(self.now.wall_ms)

    def _released(self) -> list[ev.Effect]:
        """After the commit: what this step wants done, and what the sync wants sent."""
        try:
            self.sync.after_commit(self.now.boot_ms)
        except SURVIVED as error:
            # What was committed is said again when the peers ask; the machine goes on.
            self.sync.outbox.clear()
            self.guard.failed("sync", "", error)
        self._hear(ev.Committed())
        effects, self.effects = self.effects, []
        for out in self.sync.outbox:
            type = Type.SEGMENT if out.bulk else Type.OFFER
            effects.append(ev.Send(out.link, frames.encode(type, 0, out.raw), out.bulk))
        self.sync.outbox.clear()
        return effects
