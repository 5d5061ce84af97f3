"""The daemon: the one loop around one core.

Rule 1: everything that happens becomes an event; `_flush` gives all that have gathered to the core
at once, which is what makes one commit, and one fsync, serve many.
Rule 2: effects are carried out after `step` returned, never before.
Rule 3: one writer per link. What must be quick (answers, offers, cosigns) overtakes segments.
Rule 4: the step runs in the loop. A commit costs a third of a millisecond here, a thread between
would cost as much again; while the disk stalls this machine could promise nothing anyway (ADR-4).
"""

import asyncio
import contextlib
import gc
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from muster.channel import frame as frames
from muster.channel.base import Link, Own
from muster.channel.frame import Type
from muster.channel.ipc import IpcChannel
from muster.channel.knock import Knock
from muster.channel.relay import RelayChannel
from muster.errors import Broken, Conflict, Denied, Exhausted, MusterError, Unreachable
from muster.fleet import certificate, peer
from muster.limits import (
    DISK_RESERVE_BYTES,
    LINK_CALLS_OPEN_MAX,
    LINKS_OF_MACHINE_MAX,
    OUTBOX_BYTES_MAX,
    OUTBOX_STRANGER_BYTES_MAX,
    REPLY_PART_BYTES,
)
from muster.node import event as ev
from muster.node.attempts import blob_transfer
from muster.node.attempts.effect_runner import EffectRunner
from muster.node.bridges import Bridges
from muster.node.call.streams import Served, Streams
from muster.node.core import Core
from muster.node.counter import DECLARED
from muster.node.doorway import Doorway
from muster.node.engine.elector import Elector
from muster.node.engine.passes import Passes
from muster.node.engine.server import Engine
from muster.node.event_queue import EventQueue
from muster.node.folders.folders import Folders
from muster.node.guard import SURVIVED
from muster.node.host import clock, daemon_log, disk
from muster.node.host.exposure import hosts
from muster.node.host.secret_value import leave_no_core
from muster.node.incarnations.own_incarnation import FactsChanged, FreshCertificates
from muster.node.incidents import Noticed
from muster.node.installation import Installation
from muster.node.link import failure, sentence
from muster.node.links.foreign import ForeignLinks
from muster.node.links.lan import Lan
from muster.node.links.mend import Mends
from muster.node.links.mesh import MeshKeeper
from muster.node.links.parcel_box import ParcelBox
from muster.node.links.paths import Cascade
from muster.node.links.peer_shelf import PeerShelf
from muster.node.links.posts import Mailboxes
from muster.node.links.relay import Relays
from muster.node.links.ssh import SshDoor
from muster.node.links.wakers import Wakers
from muster.node.services.conditions import Measured
from muster.node.services.full_disk import FullDisk
from muster.node.services.knocking import Knocking
from muster.node.services.notifier import Notifier
from muster.node.services.scrubbing import Scrubbing
from muster.node.services.search import Search
from muster.node.supervisor import Supervisor, say
from muster.node.verb import Verb

DECLARED[__name__] = {
    "frames-after-a-stream": "A frame came for a stream that has ended here.",
    "links-broken": "A link was cut that could not be written to.",
}

TICK_S: Final = 0.1
QUIET_TICK_S: Final = 0.5
FACTS_S: Final = 60.0
# Chosen arbitrarily: what is installed has answered by then, on all but the busiest machines.
FACTS_FIRST_S_MAX: Final = 8.0
UPKEEP_S: Final = 3600.0
OUTBOX_FRAMES_MAX: Final = 16
# A step makes thousands of short-lived objects and no cycles; chosen so that few steps pay.
GC_THRESHOLDS: Final = (20_000, 20, 50)
# So much is written at once: what is quick waits behind no more than this.
OUTBOX_BATCH_BYTES: Final = 64 * 1024


class Outbox:
    """What is to be sent on one link: two queues and a bell.

    A peer that asks and does not read the answers is cut: `on_full` is called once.
    """

    def __init__(self, link: Link, bytes_max: int, on_full: Callable[[], None]) -> None:
        self.link = link
        self._room = bytes_max
        self._on_full: Callable[[], None] | None = on_full
        self.quick: deque[bytes] = deque()
        self.bulk: deque[bytes] = deque()
        self.bell = asyncio.Event()
        self.room = asyncio.Event()

    def put(self, frame: bytes, *, bulk: bool) -> None:
        self._room -= len(frame)
        if self._room < 0:
            if self._on_full is not None:
                self._on_full()
                self._on_full = None
            return
        (self.bulk if bulk else self.quick).append(frame)

    def release(self) -> None:
        """Send what was put: at once where the link is ready, else as it gets room.

        A turn of the loop more costs a message about a tenth of its way.
        """
        while self.quick or self.bulk:
            if not self.link.ready:
                self.bell.set()
                return
            self.link.send_all_nowait(self._next())
            self.room.set()

    def _next(self) -> list[bytes]:
        """What goes out in one write: together it arrives, and is committed, together."""
        batch: list[bytes] = []
        room = OUTBOX_BATCH_BYTES
        while room > 0 and (queue := self.quick or self.bulk):
            batch.append(queue.popleft())
            room -= len(batch[-1])
        self._room += sum(map(len, batch))
        return batch

    async def run(self) -> None:
        """Send until the link is gone."""
        # The link is gone, and whoever reads from it says why.
        with contextlib.suppress(Unreachable):
            while True:
                while self.quick or self.bulk:
                    await self.link.send_all(self._next())
                    self.room.set()
                self.bell.clear()
                await self.bell.wait()


class Daemon:
    """One running machine. `run` returns when it was told to stop."""

    def __init__(self, machine: Installation, verbs: Mapping[str, Verb]) -> None:
        self.machine = machine
        self.home = machine.home
        self.verbs = verbs
        self.why_stopped = ""
        # It stopped for a mistake of ours: what the store holds is right, and a new one goes on.
        self.begins_anew = False
        # Told when it is to end, and whether that is wanted: the process does so within a bound.
        self.ends: Callable[[bool], None] = lambda _: None
        self._events = EventQueue()
        self._due = False
        # Something waits for the next tick.
        self._tick_wanted = asyncio.Event()
        self._outboxes: dict[int, Outbox] = {}
        # What has something to send since this turn began.
        self._filled: dict[int, Outbox | ParcelBox] = {}
        self._numbers = iter(range(1, 2**53))
        # How many calls of each link are under way outside of the core.
        self._performing: Counter[int] = Counter()
        self._stopping = asyncio.Event()
        self._told_to_stop = asyncio.Event()
        self.core: Core = machine.core(verbs)
        self.supervisor = Supervisor(self.core.counters, self.stop, self.begin_anew)
        self.streams = Streams(
            self.core, self.put, self.drained, self.answer, lambda link: link in self._outboxes
        )
        self.effects = EffectRunner(self)
        scrubbing = Scrubbing(self.core.store, self.core.part(Search).index, self.supervisor)
        self.folders = Folders(self)
        self.room = FullDisk(
            self.core, self.supervisor, self._perform, self.post, self.effects.relieve
        )
        self.ssh = SshDoor(self)
        shown = machine.credentials()
        me, closed = machine.identity.machine, self.core.part(Knocking)
        knock = Knock(
            machine.fleet, me, lambda: self.core.now.wall_ms, lambda: closed.closed,
            lambda: clock.read().wall_ms,
        )  # fmt: skip
        self.foreign, shelf = ForeignLinks(self), PeerShelf(self)
        more = (self.ssh.keys, hosts, knock, self.foreign.guests)
        own = Own(me, shown, self._identify, *more)
        self.ssh.opens(own)
        self.relays = Relays(self, RelayChannel(own.credentials, own.identify))
        self.paths = Cascade(self, own, self.relays)
        self.mailboxes = Mailboxes(self, self.room.there, blob_transfer.check)
        self.engine = Engine(self)
        self.mends = Mends(self, self.paths, self.mailboxes.leave_aside, self._tell_facts)
        self.wakers = Wakers(self)
        self.notifier = Notifier(self)
        self.bridges = Bridges(self)
        elector = Elector(self, self.mailboxes.post_of)
        hands = (
            self.effects, self.streams, scrubbing, self.folders,
            self.paths, self.mailboxes, self.mends, self.wakers, self.foreign, elector,
            shelf, self.notifier, self.bridges,
        )  # fmt: skip
        self._handlers = ev.handlers(self.core.wants, self, *hands)
        self.doorway = Doorway(self.home, self.core, self.post)

    # --- life ---------------------------------------------------------------------------------

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until stopped. Raises: Broken, Conflict when it cannot begin."""
        leave_no_core()
        os.environ["MUSTER_SOCK"] = self.home.socket_of_session
        socket = self.home.socket_of_session
        Path(socket).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        programs = await IpcChannel().listen(socket, partial(self.serve, local=True))
        try:
            await self.effects.prepare()
            if not self._step(lambda: self.core.start(clock.read())):
                return
            first = self.supervisor.run("facts", self._tell_facts())
            self.supervisor.keep("ticks", self._ticks)
            self.supervisor.keep("facts", self._facts)
            self.supervisor.keep("certificates", self._certificates)
            self.supervisor.keep("ssh", self.ssh.keep)
            if self.machine.visiting:
                self.supervisor.keep("visit", self.ssh.visit)
            else:
                # A program that hangs keeps nobody from us: what we are is told when it was asked.
                await asyncio.wait([first], timeout=FACTS_FIRST_S_MAX)
                await self._meet()
            # What a start made stays: looking through it again and again costs every busy step.
            gc.collect()
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)
            ready()
            await self._stopping.wait()
        finally:
            await programs.close()
            await self.paths.close()
            self.folders.close()
            await self.mailboxes.close()
            await self.effects.close()
            await self.supervisor.stop()
            self.machine.close()

    async def _meet(self) -> None:
        """Listen, dial, and look at what others left. Raises: Broken, Conflict."""
        await self.paths.listen()
        self.supervisor.keep("upkeep", self._upkeep)
        if self.machine.config.door:
            self.supervisor.keep("door", self.doorway.keep)
        self.paths.begin()
        Lan(self, self.paths).begin()
        self.engine.begin()
        Passes(self).begin()
        self.mailboxes.begin()
        self.foreign.begin()
        self.bridges.begin()
        self.supervisor.keep("mesh", MeshKeeper(self).keep)
        self.notifier.begin()
        self._begin_folders()

    def _begin_folders(self) -> None:
        # What is wrong with them keeps nothing else of this machine from its work.
        try:
            self.folders.begin()
        except MusterError as error:
            say(f"context folders: {error}")
            self.post(Noticed(_FOLDERS, str(error)))
        else:
            if self.core.incidents.is_open(_FOLDERS):
                self.post(Noticed(_FOLDERS))

    def stop(self, why: str = "") -> None:
        """End soon; `why` is what went wrong, "" for an ordinary end."""
        self.why_stopped = self.why_stopped or why
        if why:
            say(f"stopping: {why}")
        self.ends(not why)
        self._told_to_stop.set()
        self._stopping.set()

    def begin_anew(self, why: str) -> None:
        """End soon, for the next one to go on from the store."""
        self.begins_anew = True
        say(f"beginning anew: {why}")
        self._stopping.set()

    async def goes_on(self, pause_s: float) -> bool:
        """Whether another one is to begin, after a pause; False when it was told to stop."""
        if not self.begins_anew:
            return False
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._told_to_stop.wait(), pause_s)
        return not self._told_to_stop.is_set()

    # --- events ---------------------------------------------------------------------------------

    def post(self, event: ev.Event) -> None:
        """Something happened; the core hears of it in this turn of the loop, or soon after."""
        self._events.put(event)
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._due = False
        events = self._events.take()
        if not events or self._stopping.is_set():
            return
        if self._events:
            self._due = True
            asyncio.get_running_loop().call_soon(self._flush)
        if self.room.full:
            asked = self.room.sort(events)
            self._step(lambda: self.core.questions(asked, clock.read()))
            self.streams.heard(asked)
        elif self._step(lambda: self.core.step(events, clock.read())) and not self.room.full:
            self.streams.heard(events)
            self.supervisor.step(self.machine.note_heads)
            if self.supervisor.step(lambda: self.core.needs_tick):
                self._tick_wanted.set()

    def _step(self, work: Callable[[], list[ev.Effect]]) -> bool:
        """Carry out what a step wants; False when it failed and the daemon ends."""
        try:
            effects = self.supervisor.step(work)
        except Exhausted as error:
            self.room.is_full(error)
            return True
        if effects is None:
            return False
        self._perform(effects)
        return True

    def _perform(self, effects: list[ev.Effect]) -> None:
        for effect in effects:
            self._handlers[type(effect)](effect)
        filled, self._filled = self._filled, {}
        for link, outbox in filled.items():
            try:
                outbox.release()
            except (OSError, *SURVIVED) as error:
                # What was to be sent is lost: this link is at its end, and none of the others.
                self.core.counters["links-broken"] += 1
                self._cut(ev.Cut(link, sentence(f"nothing can be sent over it: {error}")))

    @ev.effect(ev.Send)
    def _send(self, effect: ev.Send) -> None:
        outbox = self._outboxes.get(effect.link) or self.mailboxes.box(effect.link)
        if outbox is not None:
            outbox.put(effect.frame, bulk=effect.bulk)
            self._filled[effect.link] = outbox

    @ev.effect(ev.Stray)
    def _stray(self, frame: ev.Stray) -> None:
        if not self.streams.feed_late(frame.link, frame.type, frame.channel, frame.payload):
            self.core.counters["frames-after-a-stream"] += 1

    @ev.effect(ev.Join)
    def _join(self, effect: ev.Join) -> None:
        answer: Mapping[str, Any] = {"ok": True, "value": {"channel": effect.channel}}
        try:
            self.supervisor.run("join", self.streams.join(effect))
        except MusterError as error:
            answer = failure(error)
            self.put(effect.target, Type.CLOSE, effect.number, b"")
        self.answer(effect, answer)

    @ev.effect(ev.Again)
    def _again(self, _effect: ev.Again) -> None:
        self.post(ev.Turn())

    @ev.effect(ev.Note)
    def _note(self, effect: ev.Note) -> None:
        say(effect.text)

    @ev.effect(ev.Perform)
    def _perform_call(self, call: ev.Perform) -> None:
        """Begin a verb that takes its time; one link has so many of them under way."""
        if self._performing[call.link] >= LINK_CALLS_OPEN_MAX:
            busy = Conflict("enough calls of this link are under way; ask again when one has ended")
            self.answer(call, failure(busy))
            return
        try:
            stream = self.streams.open(call) if self.verbs[call.verb].runs == "stream" else None
        except MusterError as error:
            self.answer(call, failure(error))
            return
        self._performing[call.link] += 1
        task = self.supervisor.run(call.verb, self._wait_for(call, stream))
        task.add_done_callback(lambda _: self._performed(call.link))
        if stream is not None:
            # Not before its first turn, which is due: what was never begun ends nothing.
            stream.on_hang_up = lambda: task.get_loop().call_soon(task.cancel)

    def _performed(self, link: int) -> None:
        self._performing[link] -= 1
        if not self._performing[link]:
            del self._performing[link]

    async def _wait_for(self, call: ev.Perform, stream: Served | None) -> None:
        """A verb that waits for input or output."""
        handler = self.verbs[call.verb].load()
        # Whoever asked hears an answer, also when the mistake is ours.
        answer: Mapping[str, Any] | None = failure(
            Broken(
                f"this machine failed at {call.verb}; its log says how (`muster status` names it)"
            )
        )
        try:
            if stream is None:
                answer = {"ok": True, "value": await handler(self, call, call.ask)}
            else:
                work = handler(self, call, stream, call.ask)
                value = await self.streams.serve(call, stream, work)
                # Nothing where the stream had its own answer.
                answer = None if value is None else {"ok": True, "value": value}
        except MusterError as error:
            answer = failure(error)
        except asyncio.CancelledError:
            answer = None
            raise
        finally:
            if answer is not None:
                self.answer(call, answer)

    def answer(
        self, call: ev.Perform | ev.Join, answer: Mapping[str, Any], *, last: bool = True
    ) -> None:
        raw = json.dumps(answer, separators=(",", ":"), default=msgspec.to_builtins).encode()
        head = b"." if last else b"*"
        while len(raw) > REPLY_PART_BYTES:
            self.put(call.link, Type.REPLY, call.channel, b"+" + raw[:REPLY_PART_BYTES])
            raw = raw[REPLY_PART_BYTES:]
        self.put(call.link, Type.REPLY, call.channel, head + raw)

    def put(self, link: int, type: Type, channel: int, payload: bytes) -> None:
        """Send a frame that is no effect of a step."""
        outbox = self._outboxes.get(link)
        if outbox is not None:
            outbox.put(frames.encode(type, channel, payload), bulk=type in _ORDERED)
            outbox.release()

    async def drained(self, link: int) -> None:
        """Returns when the link has not much to send, or is gone."""
        while (outbox := self._outboxes.get(link)) is not None:
            if len(outbox.quick) + len(outbox.bulk) <= OUTBOX_FRAMES_MAX:
                return
            outbox.room.clear()
            await outbox.room.wait()

    # --- links ------------------------------------------------------------------------------------

    async def serve(
        self,
        link: Link,
        *,
        local: bool = False,
        through: str = "",
        foreign: str = "",
        attempt: str = "",
    ) -> None:
        """The life of one link: read frames until it ends."""
        if (guest := peer.foreign(link.peer)) is not None:
            await self.foreign.serve(link, guest)
            return
        number = next(self._numbers)
        proven = local or bool(link.peer)
        outbox = self._outboxes[number] = Outbox(
            link,
            OUTBOX_BYTES_MAX if proven else OUTBOX_STRANGER_BYTES_MAX,
            lambda: self._cut(ev.Cut(number, "it asks faster than it reads the answers")),
        )
        self._make_place(number, link.peer)
        writer = self.supervisor.run("writer", outbox.run())
        self.post(ev.LinkUp(number, link.peer, local, link.channel, through, foreign, attempt))
        why = ""
        if link.peer:
            self.paths.came(number, link, through)
            self.mailboxes.came(link.peer)
        try:
            while True:
                raw = await link.receive()
                if not local:
                    await self.room.there.wait()
                await self._events.room()
                frame = frames.decode(raw)
                if not self.streams.feed(number, *frame):
                    self.post(ev.Arrived(number, frame.type, frame.channel, frame.payload))
        except Unreachable as error:
            # The ordinary end of a link.
            why = str(error)
        finally:
            del self._outboxes[number]
            outbox.room.set()
            writer.cancel()
            self.streams.link_down(number)
            self.post(ev.LinkDown(number))
            if link.peer:
                self.paths.went(number, link, why)

    def backlog(self, link: int) -> int:
        """How many bytes wait to be sent over this link."""
        outbox = self._outboxes.get(link)
        return 0 if outbox is None else sum(map(len, (*outbox.quick, *outbox.bulk)))

    def is_busy(self, link: int) -> bool:
        """Whether a call, a stream, or anything that was not sent yet, goes over this link."""
        under_way = link in self._performing or self.streams.go_over(link)
        return under_way or bool(self.backlog(link))

    def _make_place(self, number: int, peer: str) -> None:
        """A machine has so many links and no more; its newest count, for an old one may be dead."""
        same = [n for n, o in self._outboxes.items() if peer and o.link.peer == peer]
        for old in same[: max(0, len(same) - LINKS_OF_MACHINE_MAX)]:
            if old != number:
                self._cut(ev.Cut(old, "this machine has newer links"))

    @ev.effect(ev.Cut)
    def _cut(self, effect: ev.Cut) -> None:
        outbox = self._outboxes.get(effect.link)
        if outbox is not None:
            self.supervisor.run("cut", outbox.link.close(effect.reason))

    def _identify(self, der: bytes) -> str:
        """Which machine shows this certificate. Raises: Refused."""
        who = certificate.peer_of(der)
        membership = self.core.membership
        if who.fleet != membership.fleet:
            return self.foreign.identify(who, der)
        self.foreign.check_ours(der)
        try:
            record = membership.roster.machine(who.machine)
        except Denied as denied:
            raise Denied(str(denied), membership.revocation(who.machine)) from denied
        return certificate.check_peer(who, record)

    # --- time ---------------------------------------------------------------------------------

    async def _ticks(self) -> None:
        while True:
            # At rest nobody wants a tick: then this time is one.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(QUIET_TICK_S):
                    await self._tick_wanted.wait()
                await asyncio.sleep(TICK_S)
            self._tick_wanted.clear()
            self.core.store.low = disk.free_bytes(self.home.path) < DISK_RESERVE_BYTES
            if not self.room.full:
                self.post(ev.Tick())

    async def _facts(self) -> None:
        while True:
            await asyncio.sleep(FACTS_S)
            daemon_log.bound(self.home.daemon_log)
            path = self.home.path
            self.post(Measured(disk.free_bytes(path), disk.free_files_percent(path)))
            async with self.supervisor.attempt("facts"):
                await self._tell_facts()

    async def _tell_facts(self) -> None:
        self.post(FactsChanged(await self.effects.facts()))

    @ev.effect(ev.ReachedAt)
    def _moved(self, effect: ev.ReachedAt) -> None:
        """Others reach us elsewhere now: remember it, and tell them."""

        async def tell() -> None:
            self.machine.reached_at(effect.address)
            await self._tell_facts()

        self.supervisor.run("facts", tell())

    async def _upkeep(self) -> None:
        while True:
            await self.effects.upkeep()
            await asyncio.sleep(UPKEEP_S)

    @ev.effect(FreshCertificates)
    def _fresh_certificates(self, _effect: FreshCertificates) -> None:
        """Our roles changed.

        With the authority here the new certificates count before anybody is told of it: a newcomer
        dials at once, and looks for a hub.
        """
        record = self.core.roster.machines.get(self.core.machine)
        try:
            if record is not None and self.machine.renewed_here(record, self.core.now.wall_ms):
                self.show()
                return
        except (MusterError, OSError) as error:
            # It is tried again with the next look at the certificates.
            say(f"certificates: {error}")
            return
        self.supervisor.run("certificates", self._renew())

    async def _certificates(self) -> None:
        """Renew our TLS certificate at half of its life, also after weeks asleep."""
        self._tell_name()
        while True:
            await asyncio.sleep(5)
            async with self.supervisor.attempt("certificates"):
                record = self.core.roster.machines.get(self.core.machine)
                if self.machine.renewal_due(record, self.core.now.wall_ms):
                    await self._renew()

    async def _renew(self) -> None:
        """Fresh certificates, from our own authority or a hub: shown from the next handshake on."""
        wall_ms = self.core.now.wall_ms
        record = self.core.roster.machines.get(self.core.machine)
        if record is None:
            return
        if not self.machine.renewed_here(record, wall_ms):
            request = self.machine.renewal(record, wall_ms)
            for hub in self.core.roster.hubs():
                raw = await self.effects.ask(hub.machine, "renew", {"request": request})
                if raw is not None:
                    self.machine.take_renewal(str(raw))
                    break
            else:
                return
        self.show()

    def show(self) -> None:
        """What the machine has to show of itself, from the next handshake on."""
        self.paths.renew(self.machine.credentials())
        self.ssh.renew(self.machine.credentials())
        self._tell_name()

    def _tell_name(self) -> None:
        """Name what keeps a new name from `config.toml`; and, after a start, that it is over."""
        if self.machine.misnamed or self.core.incidents.is_open(_MISNAMED):
            self.post(Noticed(_MISNAMED, self.machine.misnamed))


# The incident about a name that is ours and stands not in `config.toml`.
_MISNAMED: Final = "name-in-config"
# And about the list of context folders, where it cannot be read.
_FOLDERS: Final = "context-folders"

# The end of a stream must not overtake its bytes.
_ORDERED: Final = frozenset({Type.DATA, Type.CLOSE})
