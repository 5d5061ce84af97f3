"""What must always hold, and how it is looked at; `Violation` names the invariant.

    I1   two replicas of a stream hold prefixes of one history, or both hold the proof of its fork
    I2   what was durable, and so what was acknowledged, is there after a crash
    I3   each fold meets each entry once, in order                             (tally.py)
    I4   equal streams give equal tables, and a rebuild gives the live ones
    I5   nothing is accepted that the stream's own key did not write
    I6   no key of an honest machine writes two entries at one place
    I7   at the repository epochs only rise, and each has one holder
    I8   after healing all replicas are equal, within bounded time, and then it is quiet
    I9   whatever one machine cosigned of one stream lies on one history
    I10  no attempt without an operator's order
    I11  what an intact replica holds reaches everybody
    I12  whatever was submitted settles, though entries are poisoned and streams frozen
    I13  a machine that knows of an order's effect does not obey the order again
    I14  a fork that an operator closed anywhere is closed for everybody
    I15  no guard has to catch a mistake of ours, whatever is said, and a stranger is told nothing
    I16  no machine judges its own work, and what waits for a review begins when all accepted
    I18  whose work it is, is the same for everybody: who was asked, or whom an operator let go on with
         it; and what its owner has done is begun by nobody who knows
    I17  a message is delivered in time beside a better link that swallows, and when all of them do
    I20  a pot of money is passed by no more than one call of each attempt that spends from it (money.py)
    I21  an agent is let do what a person was asked about, and once            (asking.py)
    I19  a parcel that is taken was left by its writer for whoever takes it, byte for byte

I1, I5, I6, I7, I10, I16, I19 and the sizes of I2 are looked at after every step, for what that step
changed; the rest once everything is quiet at the end.

The ground truth is `written`: for each place in each stream the entries that the holder of the key
made, by whoever of the honest and hostile made them. An honest machine that the world set back
without a trace (mark and hardware id restored, too) and that could reach nobody who knew more may
fork; that is excused, and then the fork must be proved and frozen everywhere.
"""

from base64 import b64decode
from collections import defaultdict
from contextlib import suppress
from hashlib import sha256
from itertools import count
from typing import TYPE_CHECKING, Any

import msgspec

from muster.channel import frame as frames
from muster.channel.frame import Type
from muster.errors import NotFound
from muster.fleet.acknowledgement import VERB as ACKNOWLEDGE
from muster.limits import COMPANY_MS, CONFIRM_MS
from muster.log.entry import Entry, EntryId
from muster.log.post import UNPROVEN_MS
from muster.log.stream import FLEET, JOURNAL, StreamName
from muster.log.sync import REFRESH_MS
from muster.log.tree import Range
from muster.node.tasks.ownership import Ownership
from muster.task.fold import RUN, TASK
from muster.task.kinds import AttemptStart, TaskAssign, read
from tests.digest import tables_digest
from tests.sim.network import DIAL_MS_MAX
from tests.sim.tally import KINDS, TALLY, TallyRow, chained

if TYPE_CHECKING:
    from tests.sim.machine import Machine
    from tests.sim.world import World

SETTLED = ("done", "failed", "cancelled", "lost")
QUIET_MS = 8_000


class Violation(Exception):
    """An invariant does not hold."""


class Checker:
    """See the top of this file."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.written: dict[StreamName, list[dict[bytes, str]]] = defaultdict(list)
        # The full histories of hostile machines, for what was cosigned of them.
        self.branches: dict[StreamName, list[list[bytes]]] = defaultdict(list)
        self.forked: dict[StreamName, int] = {}
        self.sizes: dict[str, dict[StreamName, int]] = {}
        self.segments = 0
        self.unsure: set[str] = set()
        self._cosigned: dict[tuple[str, str], dict[int, bytes]] = defaultdict(dict)
        self._assigned: dict[tuple[str, tuple[int, int]], str] = {}
        self._pushed: dict[str, tuple[tuple[int, int], str]] = {}
        self._parcels: set[tuple[str, bytes]] = set()

    def fail(self, invariant: str, what: str) -> None:
        raise Violation(f"{invariant}: {what} (seed {self.world.seed}, {self.world.ms} ms)")

    def died(self, machine: "Machine", error: Exception) -> Violation:
        """No event may end a daemon."""
        world = self.world
        what = f"{machine.place} died of {type(error).__name__}: {error}"
        return Violation(f"I12: {what} (seed {world.seed}, {world.ms} ms)")

    def noted(self, machine: "Machine", text: str) -> None:
        """A line in a daemon's log: a traceback is a mistake that a guard caught. (I15)"""
        if text.startswith("Traceback") and not machine.hostile:
            self.fail("I15", f"{machine.place} had to catch a mistake of its own: {text}")

    def told_a_stranger(self, machine: "Machine", raw: bytes) -> None:
        """Whoever proved nothing gets refusals of its own questions, and no word more. (I15)"""
        frame = frames.decode(raw)
        if frame.type is not Type.REPLY or b'"ok":true' in frame.payload:
            self.fail("I15", f"{machine.place} told a stranger {frame.payload[:200]!r}")

    def surprise(self, what: str, answer: dict[str, Any]) -> None:
        """An order was refused: that may be, but not silently."""
        self.world.reached[f"{what}-refused-{answer['error']['kind'].lower()}"] += 1

    # --- after every step --------------------------------------------------------------------

    def booted(self, machine: "Machine") -> None:
        """A process started: is all there that was durable? (I2)"""
        assert machine.core is not None
        store, before = machine.core.store, self.sizes.get(machine.place)
        if before is not None:
            for stream, size in before.items():
                if store.log.size(stream) < size:
                    self.fail(
                        "I2", f"{machine.place} lost {stream} beyond {store.log.size(stream)}"
                    )
        self.stepped(machine)

    def set_back(self, machine: "Machine") -> None:
        """The world gave this disk an older state."""
        self.sizes.pop(machine.place, None)
        self.unsure.add(machine.id)

    def stepped(self, machine: "Machine") -> None:
        """Look at what the step changed in this machine's streams."""
        core = machine.core
        assert core is not None
        if core.settled and machine.settled_ms < machine.started_ms:
            machine.settled_ms = self.world.ms
        known = self.sizes.setdefault(machine.place, {})
        store = core.store
        for stream in store.log.streams():
            size, before = store.log.size(stream), known.get(stream, 0)
            if size == before:
                continue
            if size < before and store.log.frozen_at(stream) is None:
                self.fail("I2", f"{machine.place} holds {size} of {before} entries of {stream}")
            known[stream] = size
            at = before
            while at < size:
                for entry in store.log.slice(stream, at):
                    self._check(machine, stream, entry)
                    at += 1
        # A step may write, learn of a fork, and go on in another incarnation.
        machine.wrote_as = core.membership.incarnation

    def _check(self, machine: "Machine", stream: StreamName, entry: Entry) -> None:
        places = self.written[stream]
        seq = entry.header.seq
        if entry.body is not None and entry.header.body.sha256 != _digest(entry):
            self.fail("I5", f"{machine.place} accepted another body of entry {seq} of {stream}")
        if seq < len(places) and entry.id in places[seq]:
            return
        core = machine.core
        assert core is not None
        writes = (core.membership.incarnation, machine.wrote_as)
        if stream.machine != machine.id or stream.incarnation not in writes:
            self.fail("I5", f"{machine.place} accepted entry {seq} of {stream}, which is forged")
        self.write(stream, entry, machine.place)
        if len(places[seq]) > 1 and not machine.hostile:
            self.forked[stream] = min(seq, self.forked.get(stream, seq))
            if not self._is_excused(machine, stream, seq):
                self.fail("I6", f"{machine.place} wrote a second entry {seq} of {stream}")
            self.world.reached["honest-fork-excused"] += 1
        self._check_meaning(machine, entry)

    def write(self, stream: StreamName, entry: Entry, by: str) -> None:
        """The holder of the key made this entry."""
        places = self.written[stream]
        while len(places) <= entry.header.seq:
            places.append({})
        places[entry.header.seq][entry.id] = by
        if len(places[entry.header.seq]) > 1:
            self.forked[stream] = min(entry.header.seq, self.forked.get(stream, 1 << 40))

    def _is_excused(self, machine: "Machine", stream: StreamName, seq: int) -> bool:
        """Only a trace-less set-back that nobody within reach could reveal is no fault of ours."""
        if machine.blind_ms is None:
            return False
        if machine.cloned:
            return True
        started, network = machine.started_ms, self.world.network
        if machine.settled_ms - started >= CONFIRM_MS:
            return True
        for peer in self.world.machines.values():
            held = self.sizes.get(peer.place, {}).get(stream, 0)
            if peer.hostile or not peer.awake or peer.id == machine.id or held <= seq:
                continue
            middle = self.world.middle
            if middle.is_between(machine, peer) or middle.middle_of(machine, peer):
                # What the one knows the other may not hear.
                continue
            wires = network.between(machine, peer)
            if wires:
                near = any(
                    wire.since_ms <= started + COMPANY_MS and wire.number not in network.silent
                    for wire in wires
                )
            else:
                pending = self.world.ms < started + DIAL_MS_MAX and peer.started_ms <= started
                near = pending and frozenset((machine.place, peer.place)) not in network.parted
            if near:
                return False
        return True

    def _check_meaning(self, machine: "Machine", entry: Entry) -> None:
        kind, world = entry.header.kind, self.world
        if machine.hostile or entry.body is None:
            return
        if kind == "attempt.start":
            body = read(AttemptStart, entry.body)
            if body.task not in world.workload.ordered and not self._is_of_a_run(
                machine, body.task
            ):
                self.fail("I10", f"{machine.place} began {body.task}, which nobody ordered")
            self._check_again(machine, body.task, entry)
        elif kind == "task.assign":
            given = read(TaskAssign, entry.body)
            key = (given.task, given.epoch)
            holder = self._assigned.setdefault(key, given.machine)
            if holder != given.machine and machine.id not in self.unsure:
                self.fail("I7", f"epoch {given.epoch} of {given.task} has two holders")
            self._check_review(machine, given)

    def _check_again(self, machine: "Machine", task: str, start: Entry) -> None:
        """What its owner has done is begun by nobody who knows of it. (I18)"""
        if not self.world.faults.gone:
            return
        log, held = _core(machine).log, _core(machine).part(Ownership).held(TASK, task)
        end = log.entry(held.row.settled) if held is not None and held.row.state == "done" else None
        if held is None or end is None:
            return
        came = log.admitted(end.stream, end.header.seq)
        if came is not None and came < log.admitted(start.stream, start.header.seq):
            self.fail("I18", f"{machine.place} began {task[:8]}, which {held.owner[:8]} has done")

    def _check_owners(self) -> None:
        """Everybody says of the same machine that the work is its own, and an operator said so. (I18)"""
        world = self.world
        work: list[tuple[Any, str, str]] = [(RUN, *each) for each in world.crowd.runs.items()]
        work += [(TASK, *each) for each in world.workload.tasks.items()]
        for table, name, place in work if world.faults.gone else ():
            first = world.machines[place]
            if first.hostile or first.id in world.revoked or first.id in self.unsure:
                continue
            owners = {_core(m).part(Ownership).owner(table, name) for m in self.honest()}
            if len(owners) > 1:
                self.fail("I18", f"{table.name} {name[:8]} of {place} has the owners {owners}")
            heirs = {first.id} | (world.succession.heirs if first is world.founders[0] else set())
            if not owners <= heirs:
                self.fail("I18", f"{table.name} {name[:8]} of {place} is of {owners}")
            world.reached["work-goes-on-elsewhere"] += owners != {first.id}

    def _check_review(self, machine: "Machine", given: TaskAssign) -> None:
        """Who judges did not do it; and what waits for a review begins when all accepted. (I16)"""
        tables = _core(machine).store.tables
        mine = tables.rows(TASK, writer=machine.id, task=given.task)
        if not mine or mine[-1].phase not in ("look", "also", "ship"):
            return
        every = tables.rows(TASK, writer=machine.id, run=mine[-1].run)
        last = max(row.instance for row in every if row.phase == "work")
        if mine[-1].phase == "ship":
            judged = [r for r in every if r.phase in ("look", "also") and r.instance == last]
            said = [row.summary for row in judged if row.state == "done"]
            if said.count("accept") < 2:
                self.fail("I16", f"{machine.place} went on when reviewers had said {said}")
            self.world.reached["review-accepted-by-all"] += 1
        elif any(r.phase == "work" and r.instance == last and r.machine == given.machine
                 for r in every):  # fmt: skip
            self.fail("I16", f"{machine.place} has {given.task} judged by who did it")

    def _is_of_a_run(self, machine: "Machine", task: str) -> bool:
        """Whether an acknowledged run, or one whose answer a crash kept from us, opened it."""
        rows = _core(machine).store.tables.rows(TASK, task=task)
        runs = self.world.crowd.runs
        hostile = {m.id for m in self.world.machines.values() if m.hostile}
        return any(
            # Whoever is revoked is hostile from then on; what it was ordered before was ordered.
            r.run in runs or (r.run and r.stream.machine not in hostile)
            for r in rows
        )

    # --- the repository ------------------------------------------------------------------------

    def pushed(self, machine: "Machine", task: str, epoch: tuple[int, int], now: Any) -> None:
        """The repository took a worker's push; `now` is the highest epoch raised there."""
        last = self._pushed.get(task)
        if now is not None and epoch < now:
            self.fail("I7", f"{machine.place} pushed {task} under {epoch}, after {now} was raised")
        if last is not None and (epoch < last[0] or (epoch == last[0] and machine.id != last[1])):
            self.fail("I7", f"{machine.place} pushed {task} under {epoch}, after {last}")
        self._pushed[task] = (epoch, machine.id)

    # --- places --------------------------------------------------------------------------------

    def left(self, to: str, raw: bytes) -> None:
        """A machine wrote this parcel for another."""
        self._parcels.add((to, sha256(raw).digest()))

    def took(self, machine: "Machine", raw: bytes) -> None:
        """A machine believes a parcel. (I19)"""
        if (machine.id, sha256(raw).digest()) not in self._parcels:
            self.fail(
                "I19", f"{machine.place} took a parcel that nobody left for it: {raw[:700]!r}"
            )

    # --- cosigns ---------------------------------------------------------------------------------

    def sent(self, machine: "Machine", raw: bytes, *, counts: bool = True) -> None:
        """A frame leaves an honest machine: what does it vouch for? (I9)"""
        frame = frames.decode(raw)
        if frame.type is Type.SEGMENT:
            self.segments += counts
        if machine.hostile or frame.type is not Type.OFFER or b'"cosigns"' not in frame.payload:
            return
        mine = f"muster/{machine.id} ".encode()
        for text in msgspec.json.decode(frame.payload)["notes"]:
            note = text.encode()
            if mine not in note:
                continue
            claimed = note.split(b"\n", 3)
            key = (machine.id, claimed[0].decode())
            size, root = int(claimed[1]), claimed[2]
            known = self._cosigned[key]
            if known.setdefault(size, root) != root and machine.id not in self.unsure:
                self.fail("I9", f"{machine.place} cosigned two trees of {size} of {key[1]}")

    def _check_cosigns(self) -> None:
        """Different sizes, too, must lie on one history: looked at where a hostile writer forked."""
        for stream, branches in self.branches.items():
            origin = f"muster/{self.world.fleet}/{stream}"
            for (machine, text), known in self._cosigned.items():
                if text != origin or machine in self.unsure:
                    continue
                wanted = {size: b64decode(root) for size, root in known.items()}
                full = self._written_branch(stream)
                if not any(_lies_on(branch, wanted) for branch in [full, *branches]):
                    self.fail("I9", f"{machine[:8]} cosigned two histories of {stream}")

    def _written_branch(self, stream: StreamName) -> list[bytes]:
        """What the hostile machine's own log says; its other branches are made by hand."""
        full = []
        for place in self.written[stream]:
            leaf = next((leaf for leaf, by in place.items() if by != "attacker"), None)
            if leaf is None:
                break
            full.append(leaf)
        return full

    # --- at the end ------------------------------------------------------------------------------

    def honest(self) -> "list[Machine]":
        """The machines that must agree with each other."""
        return [
            m
            for m in self.world.machines.values()
            if not m.hostile and m.id not in self.world.revoked
        ]

    def settled(self) -> bool:
        return not self.unsettled()

    def unsettled(self) -> str:
        """What is still missing until everything is at rest; empty when nothing is. (I8, I11)"""
        machines = self.honest()
        heads: dict[StreamName, tuple[int, int | None, str]] = {}
        for machine in machines:
            if machine.core is None:
                return f"{machine.place} does not run"
            if not machine.core.settled:
                return f"{machine.place} is not settled"
        for stream in {s: None for m in machines for s in _core(m).store.log.streams()}:
            if stream.scope == JOURNAL or self._is_out_of_reach(stream):
                continue
            for machine in machines:
                core = _core(machine)
                if not core.membership.may_hold(stream, machine.id):
                    continue
                found = (core.log.size(stream), core.log.frozen_at(stream))
                if found == (0, 0):
                    # It heard that a stream it never saw was ended at nothing.
                    found = (0, None)
                first = heads.setdefault(stream, (*found, machine.place))
                if first[:2] != found:
                    return f"{stream}: {first[2]} has {first[:2]}, {machine.place} {found}"
        return self._unproved_fork() or self._unsettled_task()

    def _unproved_fork(self) -> str:
        """Two branches of one size, of which the peers have not told each other yet."""
        for stream in self.forked:
            if self._is_out_of_reach(stream):
                continue
            roots = {
                store.log.root_at(stream, store.log.size(stream))
                for store in (_core(machine).store for machine in self.honest())
                if store.log.frozen_at(stream) is None and store.log.size(stream)
            }
            if len(roots) > 1:
                return f"{stream}: two branches of it are held"
        return ""

    def _is_out_of_reach(self, stream: StreamName) -> bool:
        """A clone's twin lacks it, and the only other holder is no honest machine."""
        if stream.machine not in self.world.cloned or stream.scope == FLEET:
            return False
        membership = _core(self.honest()[0]).membership
        others = {m.identity.machine for m in self.honest()} - {stream.machine}
        return not any(membership.may_hold(stream, machine) for machine in others)

    def _unsettled_task(self) -> str:
        """A submitted task that has no outcome yet. (I12)"""
        world = self.world
        for task, place in world.workload.tasks.items():
            owner = world.machines[place]
            if owner.hostile or owner.id in world.revoked or owner.id in world.cloned:
                continue
            rows = _core(self.honest()[0]).store.tables.rows(TASK, task=task)
            if any(r.state in SETTLED for r in rows):
                continue
            if not rows and owner.id in self.unsure:
                continue
            return f"task {task[:8]} of {place} is {[r.state for r in rows]}"
        return self._unsettled_run()

    def _unsettled_run(self) -> str:
        """A run that was acknowledged and is still open. (I12)"""
        world = self.world
        for run, place in world.crowd.runs.items():
            owner = world.machines[place]
            if owner.hostile or owner.id in world.revoked or owner.id in self.unsure:
                continue
            rows = _core(self.honest()[0]).store.tables.rows(RUN, run=run)
            whose = owner.id
            if world.faults.gone:
                whose = _core(self.honest()[0]).part(Ownership).owner(RUN, run) or whose
            mine = [r for r in rows if r.stream.machine == whose]
            if not any(r.state != "open" for r in mine):
                return f"run {run[:8]} of {place} is {[r.state for r in mine]}"
        return ""

    def finally_(self) -> None:
        """Everything is at rest: look at all of it, and whether it stays quiet."""
        world = self.world
        self._check_forks()
        self._check_messages()
        self._check_names()
        self._check_cosigns()
        self._check_owners()
        # A hostile machine never rests: it is switched off, and what is on its way arrives.
        for machine in world.machines.values():
            if machine.hostile:
                machine.retire()
        world.run_until(world.ms + QUIET_MS // 2)
        entries = self._entries()
        # What no link brings a receipt for is left at a place after a while: a clone gives none.
        world.run_until(world.ms + UNPROVEN_MS * world.places.there)
        before = self.segments
        world.run_until(world.ms + QUIET_MS)
        # A lease may still run out and be written down; each new entry goes once over each link.
        news = (self._entries() - entries) * len(self.honest())
        if self.segments - before > news:
            self.fail("I8", f"{self.segments - before} segments were sent after all was at rest")
        # An entry written a moment ago may be under way; to a clone's twin until the next refresh,
        # since everybody believes that a writer has its own streams.
        if not world.run_until(world.ms + REFRESH_MS + QUIET_MS, self.settled):
            self.fail("I8", f"it did not stay at rest: {self.unsettled()}")
        self._check_tables()
        self._check_orders()
        self._check_closing()

    def _check_orders(self) -> None:
        """Every order that was obeyed is shown again, also where its stream was cut back. (I13)"""
        world, again = self.world, list[str]()
        own = {machine.place: self._own(machine) for machine in self.honest()}
        for message, (machine, args, statement) in world.workload.obeyed.items():
            mine = own.get(machine.place, {})
            entry = mine.get(bytes.fromhex(message))
            # One that was restored from a copy lost what nobody else had: that it obeyed, perhaps.
            if entry is None or not all(cause in mine for cause in entry.causes):
                continue

            def then(answer: dict[str, Any], of: str = message) -> None:
                world.reached["order-shown-again"] += 1
                if answer["ok"]:
                    again.append(of)

            world.workload.call(machine, "send", args, then, statement)
        world.run_until(world.ms + 1_000)
        if again:
            self.fail("I13", f"the order behind message {again[0][:12]} was obeyed twice")

    @staticmethod
    def _own(machine: "Machine") -> dict[bytes, Entry]:
        """All that a machine wrote and has, also what was cut back and is evidence only."""
        store, found = _core(machine).store, dict[bytes, Entry]()
        for stream in store.log.streams():
            if stream.machine == machine.id:
                with suppress(NotFound):
                    for seq in count():
                        entry = store.log.entry_at(stream, seq)
                        found[entry.id] = entry
        return found

    def _check_closing(self) -> None:
        """Somebody closes each fork, at one machine that can prove it. (I14)"""
        world, closed = self.world, set[str]()
        holders = {f: m for m in self.honest() for f in self._forks(m)}
        for fork, machine in holders.items():

            def then(answer: dict[str, Any], of: str = fork) -> None:
                if answer["ok"]:
                    world.reached["fork-closed"] += 1
                    closed.add(of)
                else:
                    self.surprise(ACKNOWLEDGE, answer)

            args = {"incident": fork, "note": "seen"}
            statement = world.workload.order(machine, ACKNOWLEDGE, fork, args)
            world.workload.call(machine, ACKNOWLEDGE, args, then, statement)
        world.run_until(world.ms + 1_000)

        def told() -> bool:
            return not any(closed & self._forks(m) for m in self.honest())

        if not world.run_until(world.ms + REFRESH_MS + QUIET_MS, told):
            self.fail("I14", "a fork that was closed is open somewhere")

    def _forks(self, machine: "Machine") -> set[str]:
        """The forks that nobody closed, as this machine sees it."""
        core = _core(machine)
        proved = core.replication.forks.proved().keys()
        return proved - core.incidents.acknowledged(proved, core.now.wall_ms).keys()

    def _entries(self) -> int:
        stores = [_core(m).store for m in self.honest()]
        return sum(store.log.size(s) for store in stores for s in store.log.streams())

    def _check_forks(self) -> None:
        """Every fork that two honest machines could see is proved, and frozen at its place. (I1)"""
        for stream, at in self.forked.items():
            if stream.machine in self.world.revoked or self._is_out_of_reach(stream):
                # It ends where the revocation says; or nobody honest but its writers holds any of it.
                continue
            for machine in self.honest():
                frozen = _core(machine).store.log.frozen_at(stream)
                size = _core(machine).store.log.size(stream)
                if frozen is not None and frozen < at:
                    self.fail("I1", f"{machine.place} froze {stream} at {frozen}, not {at}")
                if frozen is not None:
                    self.world.reached["fork-frozen"] += 1
                elif size > at and not self._is_alone(stream, at):
                    self.fail("I1", f"{machine.place} does not know that {stream} forked at {at}")

    def _is_alone(self, stream: StreamName, at: int) -> bool:
        """Whether all honest replicas hold the same branch, so that nobody saw two."""
        seen = set()
        for machine in self.honest():
            store = _core(machine).store
            if store.log.size(stream) > at:
                seen.add(store.log.slice(stream, at, 1)[0].id)
        return len(seen) <= 1

    def _check_messages(self) -> None:
        """An acknowledged message is in its sender's log, and where it was said to be. (I2)"""
        for name, (place, to) in self.world.workload.messages.items():
            sender = self.world.machines[place]
            if sender.id in self.unsure or sender.hostile or sender.id in self.world.revoked:
                continue
            entry = EntryId(bytes.fromhex(name))
            for machine in self.honest():
                if machine is not sender and machine.name != to:
                    continue
                if _core(machine).store.log.entry(entry) is None:
                    self.fail("I2", f"the message {name[:8]} of {place} is not on {machine.place}")

    def _check_names(self) -> None:
        """A name that was acknowledged is everywhere, or one that came after it. (I2)"""
        work = self.world.workload
        for id in work.renamed:
            for machine in self.honest():
                name = _core(machine).roster.known[id].name
                if name not in work.names[id]:
                    self.fail("I2", f"{machine.place} calls {name} who is {work.names[id]}")

    def _check_tables(self) -> None:
        """Equal streams give equal tables; a rebuild gives the same; the tally is right. (I3, I4)"""
        digests: dict[str, tuple[dict[str, str], str]] = {}
        for machine in self.honest():
            store = _core(machine).store
            fleet = [s for s in store.log.streams() if s.scope == "fleet"]
            live = tables_digest(store)
            self._check_tally(machine)
            shared = tables_digest(store, fleet)
            key = ",".join(sorted(str(s) for s in fleet))
            other = digests.setdefault(key, (shared, machine.place))
            if other[0] != shared:
                names = [t for t in shared if shared[t] != other[0][t]]
                self.fail("I4", f"{machine.place} and {other[1]} have different tables {names}")
            for _ in store.rebuild():
                pass
            if tables_digest(store) != live:
                again = tables_digest(store)
                names = [t for t in live if live[t] != again[t]]
                self.fail("I4", f"a rebuild on {machine.place} changes the tables {names}")

    def _check_tally(self, machine: "Machine") -> None:
        store = _core(machine).store
        rows = {r.stream: r for r in store.tables.rows(TALLY)}
        for stream in store.log.streams():
            seen, chain, at, size = 0, b"", 0, store.log.size(stream)
            while at < size:
                for entry in store.log.slice(stream, at):
                    at += 1
                    if entry.header.kind in KINDS:
                        seen, chain = seen + 1, chained(chain, entry)
            row = rows.get(stream, TallyRow(stream, 0, 0, 0, b""))
            if (row.seen, row.chain) != (seen, chain):
                self.fail("I3", f"{machine.place} folded {row.seen} of {seen} of {stream}")


def _core(machine: "Machine") -> Any:
    assert machine.core is not None
    return machine.core


def _digest(entry: Entry) -> str:
    return sha256(entry.salt + (entry.body or b"")).hexdigest()


def _lies_on(branch: list[bytes], wanted: dict[int, bytes]) -> bool:
    tree = Range()
    found = {0: tree.root()}
    for leaf in branch:
        tree.append(leaf)
        found[tree.size] = tree.root()
    return all(found.get(size) == root for size, root in wanted.items())
