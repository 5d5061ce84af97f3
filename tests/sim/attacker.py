"""A hostile member: a machine with a valid key that says whatever may harm the others.

It runs the product like everybody else, and besides sends what this file makes. What it writes
with its own key is told to the checker, as another branch; nothing else it sends may be believed.
"""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from muster.channel import frame as frames
from muster.channel.frame import Type
from muster.errors import MusterError
from muster.limits import BODY_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX
from muster.log import canon, wire
from muster.log import segment as segments
from muster.log.clock import Stamp
from muster.log.entry import Entry, EntryId, compose
from muster.log.fork import Branch, make_fork
from muster.log.seal import make_cosign, make_seal
from muster.log.segment import Segment
from muster.log.stream import FLEET, StreamName, scope_to
from muster.log.tree import Range, consistency_proof
from muster.node.core import Core
from muster.node.tasks.owner import OwnerService
from muster.task import kinds
from muster.task.fold import RUN, TASK
from muster.task.kinds import TaskAssign, TaskOpen
from muster.task.open_task import Submission
from tests.fuzz.shapes import Shapes
from tests.fuzz.siege import BODIES

if TYPE_CHECKING:
    from tests.sim.machine import Machine
    from tests.sim.network import Wire
    from tests.sim.world import World

ATTACKS = (
    "forge", "mutate", "flip", "replay", "equivocate", "split", "task", "poison", "cosign", "proof",
    "garbage", "heads", "shaped", "called",
)  # fmt: skip
# What only a profile says that they do: worlds that drew from the others draw as they did.
NAMED = ("adopt",)


class Attacker:
    """Lets one machine misbehave while the storm lasts."""

    def __init__(self, world: "World", machine: "Machine") -> None:
        self.world = world
        self.machine = machine
        self.rng = random.Random(f"attack/{world.seed}")
        self.heard: list[bytes] = []
        self.shapes = Shapes(self.rng)
        machine.hostile = True
        self._attacks: dict[str, Callable[[Core, Wire], None]] = {
            name: getattr(self, "_" + name) for name in (*ATTACKS, *NAMED)
        }

    def start(self) -> None:
        self._again()

    def _again(self) -> None:
        world = self.world
        if world.healed:
            return
        wires = world.network.of(self.machine)
        if self.machine.core is not None and self.machine.awake and wires:
            name = self.rng.choice(world.faults.attacks or ATTACKS)
            self._attacks[name](self.machine.core, self.rng.choice(wires))
            world.reached["attack-" + name] += 1
            world.trace("attack", name)
        world.later(int(1000 / world.faults.attack), self._again)

    # --- tools -------------------------------------------------------------------------------

    def _send(self, at: "Wire", type_: Type, raw: bytes) -> None:
        self.world.network.send(self.machine, at.number, frames.encode(type_, 0, raw))

    def _say(self, at: "Wire", message: wire.Message) -> None:
        self._send(at, Type.OFFER, wire.encode(message))

    def _victim_stream(self, core: Core) -> StreamName | None:
        found = [
            s
            for s in core.log.streams()
            if s.machine != self.machine.id and s.scope == FLEET and core.log.size(s)
        ]
        return self.rng.choice(found) if found else None

    def _fake(self, stream: StreamName, seq: int) -> Entry:
        stamp = Stamp(1_790_000_000_000 + self.world.ms, self.rng.randrange(100))
        body = b'{"text":"%d"}' % self.rng.randrange(1 << 30)
        return compose(stream, seq, stamp, "note.fake", "muster", (), body, self.rng.randbytes(16))

    def _tree(self, core: Core, stream: StreamName, size: int) -> Range:
        tree, at = Range(), 0
        while at < size:
            for entry in core.log.slice(stream, at):
                if at < size:
                    tree.append(entry.id)
                at += 1
        return tree

    def _branch(self, core: Core, stream: StreamName, at: int) -> tuple[Entry, Any]:
        """Another entry of ours at `at`, and a genuine seal over it."""
        entry = self._fake(stream, at)
        tree = self._tree(core, stream, at)
        tree.append(entry.id)
        signer = self.machine.identity.signer("seal")
        return entry, make_seal(self.world.fleet, stream, at + 1, tree.root(), signer)

    def _record(self, core: Core, stream: StreamName, entry: Entry) -> None:
        checker = self.world.checker
        prefix, at = [], 0
        while at < entry.header.seq:
            for each in core.log.slice(stream, at):
                prefix.append(each.id)
                at += 1
        checker.branches[stream].append([*prefix[: entry.header.seq], entry.id])
        checker.write(stream, entry, "attacker")

    # --- against others' streams -----------------------------------------------------------------

    def _forge(self, core: Core, at: "Wire") -> None:
        """An entry in another machine's stream, under a seal by our own key."""
        stream = self._victim_stream(core)
        if stream is None:
            return
        size = core.log.size(stream)
        entry = self._fake(stream, size)
        tree = self._tree(core, stream, size)
        tree.append(entry.id)
        seal = make_seal(
            self.world.fleet, stream, size + 1, tree.root(), self.machine.identity.signer("seal")
        )
        self._send(at, Type.SEGMENT, segments.encode(Segment(stream, size, (entry,), seal)))

    def _mutate(self, core: Core, at: "Wire") -> None:
        """A genuine seal of another machine, over other entries than it sealed."""
        stream = self._victim_stream(core)
        seal = core.log.seal_of(stream) if stream is not None else None
        if stream is None or seal is None:
            return
        # An attacker may know how far its victim has come.
        place = at.other(self.machine).place
        start = min(self.world.checker.sizes.get(place, {}).get(stream, 0), seal.size - 1)
        real = core.log.slice(stream, start)[: seal.size - start]
        fake = (*real[:-1], self._fake(stream, start + len(real) - 1))
        if start + len(fake) == seal.size:
            self._send(at, Type.SEGMENT, segments.encode(Segment(stream, start, fake, seal)))

    def _flip(self, core: Core, at: "Wire") -> None:
        """A genuine segment with a bit turned."""
        stream = self._victim_stream(core)
        found = core.log.segment(stream, 0) if stream is not None else None
        if found is not None:
            raw = bytearray(segments.encode(found))
            raw[self.rng.randrange(len(raw))] ^= 1 << self.rng.randrange(8)
            self._send(at, Type.SEGMENT, bytes(raw))

    def _replay(self, core: Core, at: "Wire") -> None:
        """What was heard before, again, to anybody."""
        if self.heard:
            self.world.network.send(self.machine, at.number, self.rng.choice(self.heard))

    def _cosign(self, core: Core, at: "Wire") -> None:
        """Our word that a victim's stream is longer than the victim says, or other than it is."""
        stream = self._victim_stream(core)
        if stream is None:
            return
        strength: Any = self.rng.choice(("seen", "held"))
        size = core.log.size(stream) + self.rng.choice((-1, 0, 1, 1_000))
        if size > 0:
            cosign = make_cosign(
                self.world.fleet, stream, size, self.rng.randbytes(32), core.machine, strength,
                self.machine.identity.signer(strength), 1_790_000_000,
            )  # fmt: skip
            self._say(at, wire.Cosigns([cosign.note.decode()]))

    def _proof(self, core: Core, at: "Wire") -> None:
        """A fork proof of an honest stream, made of what its writer did sign."""
        stream = self._victim_stream(core)
        seal = core.log.seal_of(stream) if stream is not None else None
        if stream is None or seal is None:
            return
        sides = []
        for seq in (0, min(1, seal.size - 1)):
            entry = core.log.slice(stream, seq)[0]
            path = [h.hex() for h in core.log.inclusion(stream, seq, seal.size)]
            sides.append(Branch(seal.note.decode(), entry.raw.decode(), path))
        raw = make_fork(stream, self.rng.choice((0, 1)), sides[0], sides[1])
        self._say(at, wire.Offer([], forks=[raw.decode()]))

    def _garbage(self, core: Core, at: "Wire") -> None:
        """Bytes."""
        kind = self.rng.choice((Type.OFFER, Type.SEGMENT, Type.CALL, Type.REPLY, Type.HELLO))
        size = self.rng.choice((0, 1, 7, 300))
        self._send(at, kind, self.rng.choice((b"", b"{", b'{"x":1}')) + self.rng.randbytes(size))

    def _heads(self, core: Core, at: "Wire") -> None:
        """Sizes and questions that make no sense."""
        stream = self._victim_stream(core)
        if stream is None:
            return
        text, seal = str(stream), core.log.seal_of(stream)
        note = seal.note.decode() if seal else ""
        mine = str(core.membership.own(FLEET))
        self._say(
            at,
            self.rng.choice(
                (
                    wire.Offer([wire.Head(text, 1 << 50, note)]),
                    wire.Offer([wire.Head(text, -5, "")]),
                    wire.Offer([wire.Head(text, 3, note, 2, ["zz"])]),
                    wire.Offer([wire.Head(mine, 3, note, 2, ["00"])], whole=True),
                    wire.Want(text, -1),
                    wire.Want(text, 1 << 50),
                    wire.Witnessed(text, 1 << 50),
                    wire.Witnessed(text, -3),
                    wire.Probe(text, -1),
                    wire.Prove(text, 1 << 50),
                    wire.Root(text, 1, "zz"),
                    wire.Leaf(text, 0, "{}"),
                )
            ),
        )

    # --- with our own key --------------------------------------------------------------------------

    def _equivocate(self, core: Core, at: "Wire") -> None:
        """One entry to this peer, another one at the same place to everybody else."""
        stream = core.membership.own(FLEET)
        if core.log.frozen_at(stream) is not None or not core.settled:
            return
        size = core.log.size(stream)
        entry, seal = self._branch(core, stream, size)
        self._record(core, stream, entry)
        self._send(at, Type.SEGMENT, segments.encode(Segment(stream, size, (entry,), seal)))
        self.machine.act(lambda core: core.append("note.real", b"{}"))

    def _split(self, core: Core, at: "Wire") -> None:
        """Two histories of a stream that the witness may not read, one after the other."""
        others = [m for m in self.world.founders if m is not at.other(self.machine)]
        target = self.rng.choice([m for m in others if m is not self.machine])
        scope = scope_to(target.identity.machine)
        stream = core.membership.own(scope)
        if core.log.frozen_at(stream) is not None or not core.settled:
            return
        size = core.log.size(stream)
        entry, seal = self._branch(core, stream, size)
        self._record(core, stream, entry)
        proof = [h.hex() for h in self._proof_to(core, stream, entry)]
        head = wire.Head(str(stream), size + 1, seal.note.decode(), size, proof)
        self._say(at, wire.Offer([head]))
        self.machine.act(lambda core: core.append("note.real", b"{}", scope=scope))

    def _proof_to(self, core: Core, stream: StreamName, entry: Entry) -> list[bytes]:
        """The proof that the other branch follows what its witness saw before."""
        size = entry.header.seq
        if size == 0:
            return []
        leaves: list[bytes] = []
        while len(leaves) < size:
            leaves += [e.id for e in core.log.slice(stream, len(leaves))]
        return consistency(leaves[:size], entry.id)

    def _task(self, core: Core, at: "Wire") -> None:
        """Work that no operator ordered, assigned to a victim."""
        victim = at.other(self.machine)
        task = self.rng.randbytes(16).hex()
        needs = {"machine": victim.name}
        template = {"v": 1, "agent": ["noop"], "do": "{}", "needs": needs}
        body = TaskOpen(task, template)
        # Its own owner, lease and all, or an assignment out of nothing.
        if self.rng.random() < 0.7:
            self.machine.act(
                lambda core: core.part(OwnerService).submit([Submission(body, "x", again=True)])
            )
            return
        epoch = (1_790_000_000_000, self.rng.randrange(1 << 20))

        def write(core: Core) -> None:
            opened = core.append("task.open", kinds.body_bytes(body))
            assign = TaskAssign(task, epoch, victim.id, "noop", 30_000)
            core.append("task.assign", kinds.body_bytes(assign), cause=(opened.id,))

        self.machine.act(write)

    def _adopt(self, core: Core, at: "Wire") -> None:
        """Work of another machine goes on here, says nobody else, and is done."""
        mine = self.machine.id
        rows = [row for row in core.tables.rows(RUN, state="open") if row.stream.machine != mine]
        if not rows:
            return
        row = self.rng.choice(rows)

        def write(core: Core) -> None:
            before = core.log.entry(row.opened)
            if before is None or core.tables.rows(RUN, writer=mine, run=row.run):
                return
            body = kinds.TaskAdopt(row.run, row.stream.machine, core.now.wall_ms + 1_000)
            adopt = core.append_body(body, cause=(row.opened,))
            opened = core.append(
                before.header.kind, before.body or b"", cause=(row.opened, adopt.id)
            )
            core.append_body(kinds.RunSettle(row.run, "done", "evil"), cause=(opened.id,))

        self.machine.act(write)

    def _poison(self, core: Core, at: "Wire") -> None:
        """Entries that are genuine and make no sense."""
        bodies = (b"{}", b"\xff\x00", b"[]", b'{"task":7}', b'{"record":"x"}', b"", b'"x"' * 900)
        kind = self.rng.choice(
            ("odd.kind", "task.open", "task.assign", "task.settle", "machine.open", "machine.record",
             "machine.revoke", "grant.give", "message.send", "attempt.finish", "order.take", "run.open")
        )  # fmt: skip
        body = self.rng.choice(bodies)

        def write(core: Core) -> None:
            try:
                core.append(kind, body)
            except MusterError:
                self.world.reached["poison-unwritable"] += 1

        self.machine.act(write)

    def _learn(self, core: Core) -> None:
        learn = self.shapes.learn
        for table in (TASK, RUN):
            learn(table.name, [row.id for row in core.tables.rows(table)[-20:]])
        learn("machine", [m.id for m in self.world.founders])
        learn("stream", [str(s) for s in core.log.streams()])
        learn("name", [m.name for m in self.world.founders])

    def _shaped(self, core: Core, at: "Wire") -> None:
        """Entries that every struct accepts, also about what was really assigned to us."""
        self._learn(core)
        kind = self.rng.choice(list(BODIES))
        body = self.shapes.of(BODIES[kind])
        leased = core.tables.rows(TASK, state="leased", machine=self.machine.id)
        cause: tuple[EntryId, ...] = ()
        if leased and self.rng.random() < 0.5:
            row = self.rng.choice(leased)
            kind = self.rng.choice(("attempt.finish", "attempt.refuse", "attempt.start"))
            drawn = self.shapes.of(BODIES[kind])
            epoch = [row.epoch_order, row.epoch_count]
            body = {
                **(drawn if isinstance(drawn, dict) else {}),
                "task": row.task,
                "epoch": epoch,
            }
            cause = (row.assigned,)
        try:
            raw = canon.encode(body)
        except MusterError:
            return
        if len(raw) > BODY_BYTES_MAX:
            return
        scope = self.rng.choice((FLEET, FLEET, scope_to(at.other(self.machine).identity.machine)))
        self.machine.act(lambda core: core.append(kind, raw, scope=scope, cause=cause))

    def _called(self, core: Core, at: "Wire") -> None:
        """What machines say among themselves, with arguments of the right shape."""
        self._learn(core)
        shapes, rng = self.shapes, self.rng
        task, epoch = shapes.any_known("task"), [rng.choice((0, 1)), rng.choice((0, 1, 2))]
        verb = rng.choice(("beat", "hold", "release", "renew", "blob.serve", "git.serve"))
        args: dict[str, Any] = {
            "beat": {"holds": [[task, *epoch, shapes.text()]], "mark": shapes.text()},
            "hold": {"held": [[task, *epoch]], "gone": [[task, *epoch]], "mark": shapes.text()},
            "release": {"task": task, "epoch": epoch, "reason": shapes.text()},
        }.get(verb, {"request": shapes.text(), "entry": shapes.text(), "sha256": "0" * 64})
        if rng.random() < 0.2:
            args[rng.choice(list(args))] = shapes.anything()
        try:
            raw = canon.encode({"args": args, "verb": verb})
        except MusterError:
            return
        if len(raw) <= FRAME_PAYLOAD_BYTES_MAX:
            self._send(at, Type.CALL, raw)


def consistency(leaves: list[bytes], last: bytes) -> list[bytes]:
    """The RFC 6962 proof from `leaves` to `leaves` and one more."""

    class Leaves:
        def __init__(self) -> None:
            self.all = [*leaves, last]

        def subtree(self, level: int, index: int) -> bytes:
            tree = Range()
            for leaf in self.all[index << level : (index + 1) << level]:
                tree.append(leaf)
            return tree.root()

    return consistency_proof(Leaves(), len(leaves), len(leaves) + 1)
