"""What people and agents do in the simulated fleet: orders, messages, attempts."""

import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from muster.channel import frame as frames
from muster.channel.frame import Type
from muster.fleet.record import sign_binding
from muster.fleet.statement import sign_statement
from muster.log import canon
from muster.log.stream import MachineId
from muster.node import event as ev
from muster.task.evidence import task_args
from muster.task.kinds import TaskOpen
from tests.sim.machine import LOCAL, WALL_MS

if TYPE_CHECKING:
    from tests.sim.machine import Machine
    from tests.sim.world import World

# How long the program of a task takes; without one it is over at once.
DURATIONS_S: Final = (0, 0.4, 2.5, 4)
NOTHING: Final = {"agent": ["noop"], "do": "{}"}
Answered = Callable[[dict[str, Any]], None]
Sent = Callable[["Machine", str, dict[str, Any]], None]


class Workload:
    """See the top of this file."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.rng = random.Random(f"work/{world.seed}")
        self.stopped = False
        self._waiting: dict[tuple[str, int, int], Answered] = {}
        # Every task that an operator ordered: id -> the machine that answered for it.
        self.ordered: dict[str, str] = {}
        # What was acknowledged: task -> owner's place; message entry -> (place, recipient).
        self.tasks: dict[str, str] = {}
        self.messages: dict[str, tuple[str, str]] = {}
        # The names that a machine may have in the end, and who had one acknowledged.
        self.names: dict[MachineId, list[str]] = {}
        self.renamed: set[MachineId] = set()
        # Messages whose orders were obeyed, with the very orders, to be shown once more.
        self.obeyed: dict[str, tuple[Machine, Mapping[str, Any], bytes]] = {}

    def start(self) -> None:
        faults = self.world.faults
        for _ in range(faults.tasks):
            self._sometime(self.submit)
        for _ in range(faults.messages):
            self._sometime(self.send)
        for number in range(faults.renames):
            self._sometime(partial(self.rename, f"new-{number}"))

    def stop(self) -> None:
        self.stopped = True

    def _sometime(self, what: Callable[[], None]) -> None:
        span = max(1, self.world.faults.stormy_ms - self.world.ms - 500)
        self.world.later(self.rng.randrange(span), what)

    def _anyone(self) -> "Machine | None":
        up = [m for m in self.world.machines.values() if m.awake and not m.hostile]
        return self.rng.choice(up) if up else None

    def _owner(self) -> "Machine | None":
        """Who is asked to do something: mostly whoever will be gone, where somebody will."""
        first = self.world.founders[0]
        if self.world.faults.gone and first.awake and self.rng.random() < 0.7:
            return first
        return self._anyone()

    # --- calls -------------------------------------------------------------------------------

    def call(
        self,
        machine: "Machine",
        verb: str,
        args: Mapping[str, Any],
        then: Answered,
        statement: bytes = b"",
    ) -> None:
        """A command on this computer asks its daemon."""
        machine.next_channel += 1
        channel = machine.next_channel
        self._waiting[machine.place, machine.starts, channel] = then
        request: dict[str, Any] = {"args": dict(args), "verb": verb}
        if statement:
            request["statement"] = statement.decode()
        machine.arrive(ev.Arrived(LOCAL, Type.CALL, channel, canon.encode(request)))

    def answered(self, machine: "Machine", raw: bytes) -> None:
        frame = frames.decode(raw)
        if frame.type is Type.REPLY and frame.payload[:1] == b".":
            then = self._waiting.pop((machine.place, machine.starts, frame.channel), None)
            if then is not None:
                then(msgspec.json.decode(frame.payload[1:]))

    def order(self, machine: "Machine", verb: str, object: str, args: Any) -> bytes:
        """An operator's signature under one order."""
        at = WALL_MS + self.world.ms
        return sign_statement(
            self.world.operator.statement,
            fleet=self.world.fleet,
            verb=verb,
            object=object,
            target=machine.id,
            args=args,
            nonce=self.rng.randbytes(16),
            issued_ms=at - 3_600_000,
            until_ms=at + 3_600_000,
        )

    # --- names ---------------------------------------------------------------------------------

    def rename(self, name: str) -> None:
        """A machine gives its word for a name, and the authority writes it."""
        hub, machine = self.world.founders[0], self.rng.choice(self.world.founders)
        if not hub.awake:
            return
        binding = sign_binding(machine.identity, self.world.fleet, name)
        args = {"machine": machine.id, "binding": binding.decode()}
        statement = self.order(hub, "machine.rename", machine.id, args)
        asked = self.names.setdefault(machine.id, [])
        asked.append(name)

        def then(answer: dict[str, Any]) -> None:
            if answer["ok"]:
                self.world.reached["renamed"] += 1
                # Whatever was asked for before it counts no more.
                del asked[: asked.index(name)]
                self.renamed.add(machine.id)
            else:
                self.world.checker.surprise("rename", answer)

        self.call(hub, "machine.rename", args, then, statement)

    # --- tasks ---------------------------------------------------------------------------------

    def submit(self) -> None:
        """Somebody orders a task."""
        machine = self._owner()
        if machine is None:
            return
        takes_s = self.rng.choice(DURATIONS_S)
        work = {"agent": ["shell"], "do": f"sleep {takes_s}"} if takes_s else NOTHING
        repo = "app" if takes_s and self.rng.random() < self.world.faults.repository else ""
        body = TaskOpen(
            task=self.rng.randbytes(16).hex(),
            template={"v": 1, **work},
            repo=repo,
        )
        statement = self.order(machine, "task", body.task, task_args(body))
        self.ordered[body.task] = machine.place
        item = {
            "task": body.task,
            "template": body.template,
            "repo": repo,
            "statement": statement.decode(),
        }

        def then(answer: dict[str, Any]) -> None:
            self.world.trace("submitted", f"{body.task[:8]} {answer.get('ok')}")
            if answer["ok"]:
                self.tasks[body.task] = machine.place
            else:
                self.world.checker.surprise("submit", answer)

        self.call(machine, "submit", {"tasks": [item]}, then)

    # --- messages --------------------------------------------------------------------------------

    def send(self) -> None:
        """Somebody sends a message to another machine, or to all."""
        machine = self._anyone()
        if machine is None:
            return
        others = [m for m in self.world.founders if m.name != machine.name]
        to = self.rng.choice([*(m.name for m in others), "all"])
        text, wait = f"hello {self.rng.random()}", self.rng.random() < 0.5
        self.say(machine, to, text, wait=wait)

    def say(
        self, machine: "Machine", to: str, text: str, then_also: Sent | None = None, *, wait: bool
    ) -> None:
        """A machine sends a message; `then_also` hears the answer as well."""
        args = {"to": to, "text": [text], "wait": wait}
        statement = self.order(machine, "send", to, args)

        def then(answer: dict[str, Any]) -> None:
            self.world.trace("sent", f"{machine.place} {to} {answer.get('ok')}")
            if then_also is not None:
                then_also(machine, to, answer)
            if answer["ok"]:
                value = answer["value"]
                stored = to if value.get("state") == "stored" else ""
                self.messages[value["message"]] = (machine.place, stored)
                self.obeyed[value["message"]] = (machine, args, statement)
            else:
                self.world.checker.surprise("send", answer)

        self.call(machine, "send", args, then, statement)
