"""Real cores over real stores in memory, in one process: what the tests of node/ draw with.

    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(1000)

Frames reach the other core at once and in order. Effects that belong to the world outside (starting
an attempt, raising a fence) are only kept, in `effects`; tests answer them as they like.
"""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from tests.node.serving import Serving

from muster import __version__
from muster.channel import frame as frames
from muster.channel.frame import Type
from muster.fleet.facts import Facts
from muster.fleet.machine import Authority, Identity, Operator
from muster.fleet.record import sign_binding, sign_operator, sign_record
from muster.fleet.statement import sign_statement
from muster.log import canon
from muster.log.entry import Entry
from muster.log.stream import FLEET, Incarnation
from muster.node import event as ev
from muster.node.core import Core
from muster.node.incarnations.doubt import Doubt
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.part import Part, all_folds
from muster.node.parts import PARTS
from muster.node.tasks import attempt_body
from muster.store.sqlite import MEMORY
from muster.store.store import Store
from muster.task.evidence import task_args
from muster.task.fold import TASK, TaskRow
from muster.task.instruction import Now
from muster.task.kinds import TaskOpen
from muster.verbs.table import VERBS

WALL_MS = 1_790_000_000_000
TICK_MS = 100
LOCAL = 1


def attempt_ended(
    task: str,
    epoch: tuple[int, int],
    status: attempt_body.Status,
    *said: Any,
    fault: str = "",
    **more: Any,
) -> attempt_body.AttemptEnded:
    """How an attempt says that it ended; `fault` names the part of its machine that failed."""
    if fault:
        return attempt_body.AttemptEnded(
            attempt_body.refusal(task, epoch, fault, more.get("reason", ""))
        )
    return attempt_body.AttemptEnded(attempt_body.finish(task, epoch, status, *said, **more))


class One:
    """One machine: its core, what it answered on its socket, and what it wants of the world."""

    def __init__(self, world: "Cores", name: str, number: int) -> None:
        self.world = world
        self.name = name
        self.number = number
        self.identity = Identity(bytes([number + 1 + 64 * world.other]) * 32)
        self.id = self.identity.machine
        roles: Any = ["hub", "workstation"] if number == 0 else ["workstation"]
        binding = sign_binding(self.identity, world.fleet, name)
        self.record = sign_record(
            world.authority, binding, roles=roles, serial=1, issued_ms=WALL_MS
        )
        self.path = str(world.folder / f"{name}.db") if world.folder else ":memory:"
        self.incarnation = Incarnation(random.Random(name).randbytes(16).hex())
        self.answers: list[dict[str, Any]] = []
        # The same by the channel of the call, and never forgotten.
        self.told: dict[int, list[dict[str, Any]]] = {}
        # Of an answer that comes in several frames.
        self.parts = b""
        self.effects: list[ev.Effect] = []
        # What `Installation` found at the start: signs of a lost past, and what its mark remembers.
        self.doubts: tuple[tuple[str, ...], Mapping[str, int]] = ((), {})
        self.starts = 0
        self.dials = False

    def boot(self, image: bytes | None = None) -> None:
        world = self.world
        self.starts += 1
        rng = random.Random(f"{self.name}/{self.starts}")
        store = Store(
            self.path, fleet=world.fleet, machine=self.id, rng=rng.randbytes,
            folds=all_folds(world.fleet, world.parts), image=image,
        )  # fmt: skip
        settings = {
            "record": self.record.decode(),
            "operators": [world.operator_record.decode()],
            "machines": [one.record.decode() for one in world.introduced(self)],
            "index": self.path.removesuffix(".db") + ".index.db" if self.world.folder else MEMORY,
            "ca": "", "dials": self.dials, "version": "test", "address": "127.0.0.1:1",
        }  # fmt: skip
        self.core = Core(
            store=store, identity=self.identity, fleet=world.fleet, incarnation=self.incarnation,
            rng=rng.randbytes, parts=world.parts, verbs=VERBS, authority=world.authority if self.number == 0 else None,
            settings=settings, now=world.now(),
        )  # fmt: skip
        self.serving = Serving(
            self.core, lambda sent: world.carry_out(self, sent), lambda: world.ms / 1000
        )
        self.core.part(Doubt).reasons, self.core.part(Doubt).awaited = self.doubts
        world.carry_out(self, self.core.start(world.now()))
        self.step(FactsChanged(self.facts()), ev.LinkUp(LOCAL, "", True, "ipc"))

    def facts(self, **changed: Any) -> Mapping[str, Any]:
        facts = Facts(
            "linux", "x86_64", cpus=2, agents={"noop": "", "shell": ""}, slots=2, muster=__version__
        )
        found: Mapping[str, Any] = msgspec.to_builtins(msgspec.structs.replace(facts, **changed))
        return found

    def step(self, *events: ev.Event) -> None:
        self.world.carry_out(self, self.core.step(events, self.world.now()))

    # --- calls -----------------------------------------------------------------------------

    def raw(self, payload: bytes, link: int = LOCAL, channel: int = 7) -> dict[str, Any] | None:
        """The last answer to the bytes of a call, None when there is none yet."""
        self.answers.clear()
        self.step(ev.Arrived(link, Type.CALL, channel, payload))
        self.world.drain()
        return self.answers[-1] if self.answers else None

    def call(self, verb: str, args: Mapping[str, Any], link: int = LOCAL, **more: Any) -> Any:
        return self.raw(canon.encode({"args": dict(args), "verb": verb, **more}), link)

    def order(self, verb: str, object: str, args: Mapping[str, Any], **more: Any) -> Any:
        return self.call(verb, args, statement=self.world.sign(verb, object, self, args), **more)

    def submit(self, **template: Any) -> str:
        """One task of the do-nothing agent (or as given), owned here; its id."""
        shape = {"v": 1, "agent": ["noop"], "do": "{}", **template}
        task = self.core.draw(16).hex()
        args = task_args(TaskOpen(task=task, template=shape))
        item = {
            "task": task,
            "template": shape,
            "statement": self.world.sign("task", task, self, args),
        }
        answer = self.call("submit", {"tasks": [item]})
        assert answer["ok"], answer
        return task

    # --- questions -------------------------------------------------------------------------

    def entries(self, kind: str) -> list[Entry]:
        """Every entry of a kind that this machine holds."""
        store = self.core.store
        found = [e for s in store.log.streams() for e in store.log.slice(s, 0, 1 << 30)]
        return [e for e in found if e.header.kind == kind]

    def sizes(self) -> dict[str, int]:
        return {str(s): self.core.log.size(s) for s in self.core.log.streams()}

    def task(self, name: str) -> TaskRow:
        return max(self.core.tables.rows(TASK, task=name), key=lambda r: r.changed_ms)

    @property
    def notes(self) -> list[str]:
        """The lines of the daemon's log."""
        return [each.text for each in self.effects if isinstance(each, ev.Note)]

    @property
    def own_size(self) -> int:
        return self.core.log.size(self.core.membership.own(FLEET))


class Cores:
    """See the top of this file. The first machine is the hub and holds the authority."""

    def __init__(
        self,
        *names: str,
        folder: Path | None = None,
        parts: Sequence[type[Part]] = PARTS,
        other: int = 0,
    ) -> None:
        self.ms = 0
        self.parts = parts
        # Where the stores lie; none: in memory.
        self.folder = folder
        # Another number is another fleet, with nothing in common.
        self.other = other
        self.authority = Authority(bytes([ord("a") + other]) * 32)
        self.operator = Operator(bytes([ord("o") + other]) * 32)
        self.fleet = self.authority.fleet
        self.operator_record = sign_operator(self.authority, self.operator.key, "alice", WALL_MS)
        self._nonces = random.Random("nonces")
        self._links: dict[tuple[str, int], tuple[str, int]] = {}
        self._next = 10
        self._under_way: list[tuple[str, int, bytes]] = []
        # Machines that go on with something in a step of its own.
        self._turns: list[One] = []
        # Machines that stand still: their links are up, and nothing comes of what they are sent.
        self.frozen: set[str] = set()
        self.machines: dict[str, One] = {}
        for number, name in enumerate(names or ("hub", "studio")):
            self.machines[name] = One(self, name, number)
        for machine in self.machines.values():
            machine.boot()

    def __getitem__(self, name: str) -> One:
        return self.machines[name]

    def introduced(self, to: One) -> list[One]:
        """Whom a machine knows when it begins."""
        return [each for each in self.machines.values() if each is not to]

    def now(self) -> Now:
        return Now(self.ms + 1_000, WALL_MS + self.ms)

    def sign(
        self, verb: str, object: str, target: One, args: Any, *, signer: Any = None, **more: Any
    ) -> str:
        issued = WALL_MS + self.ms + more.pop("ahead_ms", 0)
        return sign_statement(
            signer or self.operator.statement, fleet=self.fleet, verb=verb, object=object,
            target=more.pop("to", target.id), args=args, nonce=self._nonces.randbytes(16),
            issued_ms=issued, until_ms=issued + more.pop("life_ms", 60_000),
        ).decode()  # fmt: skip

    # --- links -----------------------------------------------------------------------------

    def link(self, one: str, other: str) -> tuple[int, int]:
        """A proven link between two machines; its number on either side."""
        here, there = self.join(one, other)
        self[one].step(ev.LinkUp(here, self[other].id, False, "http"))
        self[other].step(ev.LinkUp(there, self[one].id, False, "http"))
        self.drain()
        return here, there

    def join(self, one: str, other: str) -> tuple[int, int]:
        """As `link`, of which neither machine knows yet."""
        here, there = self._next, self._next + 1
        self._next += 2
        self._links[one, here], self._links[other, there] = (other, there), (one, here)
        return here, there

    def stranger(self, name: str) -> int:
        """A link to a machine from somebody who proved nothing; answers come as if local."""
        self._next += 1
        self[name].step(ev.LinkUp(self._next, "", False, "http"))
        return self._next

    def cut(self, one: str) -> None:
        """All links of a machine are gone."""
        for (name, link), (other, far) in list(self._links.items()):
            if one == name:
                del self._links[name, link], self._links[other, far]
                self[other].step(ev.LinkDown(far))
                self[name].step(ev.LinkDown(link))

    def restart(self, name: str, image: bytes | None = None) -> None:
        """Kill a machine and start it from what it had committed."""
        image = self[name].core.store.image() if image is None else image
        for (one, link), (other, far) in list(self._links.items()):
            if one == name:
                del self._links[one, link], self._links[other, far]
                self[other].step(ev.LinkDown(far))
        self._under_way = [item for item in self._under_way if item[0] != name]
        self[name].effects.clear()
        self[name].boot(image)

    # --- time ------------------------------------------------------------------------------

    def carry_out(self, machine: One, effects: list[ev.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, ev.Again):
                self._turns.append(machine)
            elif not isinstance(effect, ev.Send):
                machine.effects.append(effect)
                machine.serving.carry_out(effect)
            elif (machine.name, effect.link) in self._links:
                self._under_way.append((*self._links[machine.name, effect.link], effect.frame))
            else:
                frame = frames.decode(effect.frame)
                if frame.type is Type.REPLY:
                    machine.parts += frame.payload[1:]
                    if frame.payload[:1] != b"+":
                        answer = json.loads(machine.parts)
                        machine.answers.append(answer)
                        machine.told.setdefault(frame.channel, []).append(answer)
                        machine.parts = b""
        machine.serving.turn()

    def drain(self) -> None:
        """Until nothing is under way."""
        for _ in range(10_000):
            while self._turns:
                self._turns.pop(0).step(ev.Turn())
            ready = [item[0] for item in self._under_way if item[0] not in self.frozen]
            if not ready:
                return
            self.deliver(ready[0])
        raise AssertionError("the machines never stop talking")

    def deliver(self, to: str) -> None:
        """The first frame that is under way to a machine."""
        item = next(item for item in self._under_way if item[0] == to)
        self._under_way.remove(item)
        _, link, raw = item
        frame = frames.decode(raw)
        self[to].step(ev.Arrived(link, frame.type, frame.channel, frame.payload))

    def pass_ms(self, ms: int) -> None:
        for _ in range(ms // TICK_MS):
            self.ms += TICK_MS
            for machine in self.machines.values():
                if machine.name not in self.frozen:
                    machine.step(ev.Tick())
            self.drain()
