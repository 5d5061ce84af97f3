"""One simulated computer: a disk, clocks, and the product's `Core` while its process runs.

Rule 1: the disk is what the last modelled fsync left: an image of the database, and beside it, in
another folder, the high-water mark. An image is only taken when a crash or a snapshot wants one.
Rule 2: a disk may be full for a while: the step waits as it is, as in the daemon (node/services/full_disk.py), what
arrives waits behind it, and a crash forgets it.
Rule 3: what a step wants done happens after its fsync, as in the daemon; a crash may come before
the write, before the fsync, or between the fsync and the first byte that leaves.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from muster import __version__
from muster.errors import Exhausted
from muster.fleet.facts import Facts
from muster.fleet.machine import Identity
from muster.fleet.record import sign_binding, sign_record
from muster.log.stream import Incarnation
from muster.node import event as ev
from muster.node.core import Core
from muster.node.incarnations.doubt import Doubt
from muster.node.incarnations.own_incarnation import FactsChanged, FreshCertificates
from muster.node.installation import resume_incarnation
from muster.node.part import all_folds
from muster.node.parts import PARTS
from muster.node.services.chat import BridgeKept
from muster.node.services.chat_posts import BridgeShow
from muster.node.services.context import FilesAnswered, FilesChanged
from muster.node.services.erasure import BodyErased
from muster.node.services.full_disk import put_off
from muster.node.services.letters import LettersWait
from muster.node.services.mending import MendAsked, PoorWay
from muster.node.services.pager import Page
from muster.node.services.parcels import AsideCame, LookAt, ParcelTaken
from muster.node.services.peer_files import TakePiece
from muster.node.services.schedules import AskRegister, MoveRegister
from muster.node.services.sleepers import WakeUp
from muster.node.tasks.elections import Campaign
from muster.node.tasks.keepers import KeepMirror, PullMirror
from muster.store.mark import Mark
from muster.store.store import Store
from muster.task.instruction import Now
from muster.verbs.table import VERBS
from tests.sim.money import DEAR
from tests.sim.tally import Tally

if TYPE_CHECKING:
    from tests.sim.world import World

WALL_MS = 1_790_000_000_000
LOCAL = 1
# Links with higher numbers are those of strangers.
STRANGERS = 1 << 30
MARK_MS = 1_000
# How often a machine that stands still looks for room.
ROOM_MS = 500
CRASHES = ("before-write", "before-fsync", "before-ack")


@dataclass
class Disk:
    """What survives: the database, the mark beside it, and the id of the (virtual) hardware."""

    image: bytes | None = None
    mark: Mark | None = None


class Machine:
    """See the top of this file. `place` names the computer; clones share `name` and identity."""

    def __init__(self, world: "World", name: str, index: int, place: str = "") -> None:
        self.world = world
        self.name = name
        self.place = place or name
        self.index = index
        self.identity = identity_of(world.seed, name)
        roles: list[Any] = ["hub", "workstation"] if index == 0 else ["workstation"]
        binding = sign_binding(self.identity, world.fleet, name)
        self.record = sign_record(
            world.authority, binding, roles=roles, serial=1, issued_ms=WALL_MS
        )
        self.core: Core | None = None
        self.disk = Disk()
        self.generation = 0
        self.skew_ms = 0
        self.asleep = False
        self.starts = 0
        self.inbox: list[ev.Event] = []
        self.dues: list[Callable[[], None]] = []
        self.woken = False
        self.hostile = False
        self.fresh_mark_ms = 0
        self.next_channel = 0
        self.booted_ms = 0
        self.attempts: dict[tuple[str, tuple[int, int]], bool] = {}
        self.started_ms = 0
        self.settled_ms = -1
        self.wrote_as = ""
        self.tally: Counter[str] = Counter()
        # Why this machine may, through no fault of the product, have forgotten or forked.
        self.set_back_ms: int | None = None
        self.blind_ms: int | None = None
        self.cloned = False
        self.retired = False
        # Whether it is dead, and is not started again until it is back (succession.py).
        self.gone = False
        # Until then no commit finds room; and what the disk held before the step that waits.
        self.no_room_until_ms = 0
        self.before_waiting: bytes | None = None

    @property
    def id(self) -> str:
        return self.identity.machine

    @property
    def awake(self) -> bool:
        return self.core is not None and not self.asleep

    def now(self) -> Now:
        return Now(self.world.ms - self.booted_ms, WALL_MS + self.world.ms + self.skew_ms)

    # --- life ----------------------------------------------------------------------------

    def boot(self) -> None:
        """Start a process from what the disk holds."""
        world = self.world
        self.starts += 1
        self.asleep = False
        self.dues.clear()
        self.inbox.clear()
        self.attempts.clear()
        self.booted_ms = world.ms - 10_000
        self.started_ms = world.ms
        rng = random.Random(f"{world.seed}/{self.place}/{self.starts}")
        store = Store(
            ":memory:",
            fleet=world.fleet,
            machine=self.identity.machine,
            rng=rng.randbytes,
            folds=(*all_folds(world.fleet, PARTS), Tally()),
            image=self.disk.image,
        )
        self.before_waiting = None
        # Whoever starts it again has made room first.
        self.no_room_until_ms = 0
        self._may_be_full(store)
        self.wrote_as = ""
        going, why = resume_incarnation(store, self.disk.mark, "installation", str(self.generation))
        if self.disk.image is not None and going is None:
            world.reached["new-incarnation-on-doubt"] += 1
        self.core = Core(
            store=store,
            identity=self.identity,
            fleet=world.fleet,
            incarnation=going or Incarnation(rng.randbytes(16).hex()),
            rng=rng.randbytes,
            parts=PARTS,
            verbs=VERBS,
            authority=world.authority if self.index == 0 else None,
            settings=self._settings(),
            now=self.now(),
        )
        self.core.sync.near_max = world.faults.near or self.core.sync.near_max
        self.core.part(Doubt).reasons = why
        if self.disk.mark is not None:
            self.core.part(Doubt).awaited = dict(self.disk.mark.sizes)
        self.handlers = ev.handlers(self.core.wants, self, world.outside(self))
        world.trace("boot", f"{self.place} {'goes on' if going else 'anew'}")
        effects = self.core.start(self.now())
        world.checker.booted(self)
        self.perform(effects)
        self.arrive(FactsChanged(self.facts()))
        self.arrive(ev.LinkUp(LOCAL, "", True, "ipc"))
        world.network.dial_all(self)
        world.places.open(self)
        self._tick_later(self.starts)

    def _settings(self) -> dict[str, Any]:
        world = self.world
        return {
            "record": self.record.decode(),
            "operators": [world.operator_record.decode()],
            "machines": [m.record.decode() for m in world.founders if m.name != self.name],
            "ca": "",
            "dials": True,
            "version": "sim",
            "lease_ms": world.faults.lease_ms,
            "money": world.money.terms() if world.faults.money else None,
        }

    def _may_be_full(self, store: Store) -> None:
        commit = store._database.commit

        def bounded() -> None:
            if self.world.ms < self.no_room_until_ms:
                self.world.reached["full-disk"] += 1
                raise Exhausted("the disk is full")
            commit()

        store._database.commit = bounded  # type: ignore[method-assign]

    @property
    def waits(self) -> bool:
        """Whether a step waits for room."""
        return self.core is not None and self.core.store.waits

    def facts(self) -> Mapping[str, Any]:
        facts = Facts(
            "linux",
            "x86_64",
            cpus=2,
            memory_mib=4096,
            agents={"noop": "1", "shell": "1", **({DEAR: "1"} if self.world.faults.money else {})},
            slots=64,
            tools={"git": "2.40"},
            repositories=("app",),
            muster=__version__,
        )
        found: Mapping[str, Any] = msgspec.to_builtins(facts)
        return found

    def crash(self, image: bytes | None = None) -> None:
        """The process is gone; `image` is what its disk holds, else what it holds now."""
        core = self.core
        if core is None:
            return
        self.count()
        self.disk.image = self.image() if image is None else image
        self.core = None
        core.store.close()
        self.inbox.clear()
        self.world.network.died(self)
        self.world.crashed(self)

    def image(self) -> bytes:
        """What the disk holds."""
        assert self.core is not None
        if self.before_waiting is not None:
            return self.before_waiting
        return self.core.store.image()

    def retire(self) -> None:
        """Switched off, for good."""
        if self.core is not None:
            self.retired = True
            self.crash()

    def count(self) -> None:
        """Keep what the core counted: the paths of the product that were reached."""
        if self.core is not None:
            counted = self.core.counters.items()
            self.tally.update({f"core-{name}": times for name, times in counted})

    def fall_asleep(self, span_ms: int) -> None:
        """Suspended: nothing runs, time passes; what is sent here waits or is given up."""
        world, start = self.world, self.starts
        self.asleep = True

        def wake() -> None:
            if self.asleep and self.starts == start and self.core is not None:
                self.wake()

        def given_up() -> None:
            if self.asleep and self.starts == start:
                for wire in world.network.of(self):
                    world.network.down(wire, "asleep")

        world.later(span_ms, wake)
        world.later(10_000, given_up)

    def wake(self) -> None:
        """It goes on where it was; everything that came meanwhile comes at once."""
        self.asleep = False
        self.world.trace("wake", self.place)
        dues, self.dues = self.dues, []
        # What had become due runs before the process looks at its clock.
        for due in dues:
            due()
        self._wake()
        self.arrive(ev.Tick())
        self.world.network.dial_all(self)

    def when_awake(self, start: int, due: Callable[[], None]) -> None:
        """Do it now, or as soon as the machine wakes; never in another process."""
        if self.starts != start or self.core is None:
            return
        if self.asleep:
            self.dues.append(due)
        else:
            due()

    def act(self, write: Callable[[Core], object]) -> None:
        """The machine's own program writes something, outside of any event (the attacker does)."""
        core = self.core
        if core is None or not core.settled or self.world.ms < self.no_room_until_ms:
            return
        if core.store.waits:
            return
        core.now = self.now()
        try:
            with core.store.transaction():
                write(core)
                core._settle_down()
                core._sign()
        except Exception as error:
            raise self.world.checker.died(self, error) from error
        effects = core._released()
        self.world.checker.stepped(self)
        self.perform(effects)

    # --- steps ---------------------------------------------------------------------------

    def arrive(self, event: ev.Event) -> None:
        """The event is handled with all others of this moment, in one step."""
        self.inbox.append(event)
        if not self.woken:
            self.woken = True
            self.world.at(self.world.ms, self._wake)

    def _wake(self) -> None:
        self.woken = False
        if not self.awake or not self.inbox or self.waits:
            return
        events, self.inbox = self.inbox, []
        self.step(events)

    def _tick_later(self, start: int) -> None:
        def tick() -> None:
            if self.starts == start and self.core is not None:
                if not self.asleep:
                    self.arrive(ev.Tick())
                self._tick_later(start)

        self.world.later(self.world.tick_ms(), tick)

    def step(self, events: list[ev.Event]) -> None:
        """One batch through the core, its fsync, and then its effects; a crash anywhere between."""
        world, core = self.world, self.core
        assert core is not None
        world.counts["steps"] += 1
        crash = world.draw_crash(self)
        if crash == "before-write":
            self.crash()
            return
        full = world.ms < self.no_room_until_ms
        image = core.store.image() if crash == "before-fsync" or full else None
        try:
            effects = core.step(events, self.now())
        except Exhausted as error:
            self.before_waiting = image
            held, told = put_off(core.effects, error)
            core.effects = held
            self.perform(told)
            self._go_on_later()
            return
        except Exception as error:
            raise world.checker.died(self, error) from error
        world.trace("step", f"{self.place} {len(events)} {len(effects)}")
        if image is not None and crash == "before-fsync":
            self.lost(effects)
            self.crash(image)
            return
        world.checker.stepped(self)
        self._note_mark()
        if crash is not None:
            self.crash()
            return
        self.perform(effects)

    def _go_on_later(self) -> None:
        start = self.starts
        self.world.later(ROOM_MS, lambda: self.when_awake(start, self._go_on))

    def _go_on(self) -> None:
        core = self.core
        assert core is not None
        try:
            effects = core.resume(self.now())
        except Exhausted:
            self._go_on_later()
            return
        self.before_waiting = None
        self.world.reached["room-again"] += 1
        self.world.checker.stepped(self)
        self.perform(effects)
        self._wake()

    def lost(self, effects: list[ev.Effect]) -> None:
        """The fsync never came back, so nothing of this step may leave; removals let it."""

    def _note_mark(self) -> None:
        core = self.core
        assert core is not None
        if self.world.ms < self.fresh_mark_ms:
            return
        self.fresh_mark_ms = self.world.ms + MARK_MS
        incarnation = core.membership.incarnation
        sizes = {
            str(s): core.log.size(s)
            for s in core.log.streams()
            if s.machine == self.id and s.incarnation == incarnation
        }
        self.disk.mark = Mark(
            incarnation, sizes, "installation", str(self.starts), str(self.generation)
        )

    # --- effects ---------------------------------------------------------------------------

    def perform(self, effects: list[ev.Effect]) -> None:
        self.world.network.batch(self, effects)
        for effect in effects:
            self.handlers[type(effect)](effect)

    @ev.effect(ev.Send)
    def _send(self, effect: ev.Send) -> None:
        world, link, frame = self.world, effect.link, effect.frame
        if link == LOCAL:
            world.workload.answered(self, frame)
        elif link > STRANGERS:
            world.checker.told_a_stranger(self, frame)
        elif link < 0:
            world.places.say(self, link, frame)
        else:
            if world.attacker is not None and world.attacker.machine is self:
                world.attacker.heard = [*world.attacker.heard[-50:], frame]
            world.checker.sent(self, frame)
            world.network.send(self, link, frame)

    @ev.effect(ParcelTaken)
    def _taken(self, effect: ParcelTaken) -> None:
        self.world.places.forget(self, effect)

    @ev.effect(LookAt)
    def _look_at(self, effect: LookAt) -> None:
        self.world.places.look_at(self, effect)

    @ev.effect(ev.Cut)
    def _cut(self, effect: ev.Cut) -> None:
        wire = self.world.network.wires.get(effect.link)
        if wire is not None:
            self.world.network.down(wire, effect.reason)
        elif effect.link > STRANGERS:
            self.arrive(ev.LinkDown(effect.link))

    @ev.effect(ev.Again)
    def _again(self, _effect: ev.Again) -> None:
        self.arrive(ev.Turn())

    @ev.effect(ev.Note)
    def _note(self, effect: ev.Note) -> None:
        self.world.trace("note", f"{self.place} {effect.text}")
        self.world.checker.noted(self, effect.text)

    @ev.effect(ev.Seek)
    def _seek(self, effect: ev.Seek) -> None:
        self.world.reached["seek"] += 1
        self.world.network.seek(self, effect.link)

    @ev.effect(
        ev.Perform,
        ev.Stray,
        ev.Told,
        ev.Join,
        FreshCertificates,
        ev.ReachedAt,
        AsideCame,
        Campaign,
        PoorWay,
        WakeUp,
        KeepMirror,
        LettersWait,
        PullMirror,
        TakePiece,
        MendAsked,
        BodyErased,
        FilesAnswered,
        FilesChanged,
        Page,
        AskRegister,
        MoveRegister,
        BridgeKept,
        BridgeShow,
    )
    def _beyond(self, effect: ev.Effect) -> None:
        """What waits for input and output belongs to the daemon, which is not here."""
        self.world.reached[type(effect).__name__.lower()] += 1


def identity_of(seed: object, name: str) -> Identity:
    return Identity(random.Random(f"{seed}/{name}").randbytes(32))
