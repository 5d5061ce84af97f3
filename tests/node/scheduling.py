"""Registers of schedules in the time of a world, and schedules as an operator orders them."""

from typing import Any

from tests.node.cores import WALL_MS, Cores, One

from muster.fleet.statement import EVERY_MACHINE
from muster.node.services.schedules import AskRegister, MoveRegister, RegisterSaid
from muster.task.schedule import SET, set_args
from muster.task.slot_keeper import Value

MINUTE = 60_000
SPEC = (
    "muster: 1\nname: nightly\nphases:\n  only:\n    agent: noop\n    do: '{}'\n    check: 'true'\n"
)
FILE = """muster: 1
schedule: nightly
when: {every: 10m, from: 1970-01-01T00:00Z}
run: spec.yaml
keepers: [hub, studio]
late: 6m
fence: "repo:main"
"""
# The first slot behind the beginning of the world.
SLOT = (WALL_MS // (10 * MINUTE) + 1) * 10 * MINUTE


class Registers:
    """A register for each schedule. `away` machines do not reach them; `held` is not yet sent."""

    def __init__(self, world: Cores) -> None:
        self.world = world
        self.values: dict[str, tuple[str, Value]] = {}
        self.away: set[str] = set()
        self.asked = 0
        self.moved: list[Value] = []

    def until(self, wall_ms: int, step_ms: int = 10_000) -> None:
        """Let the world go on until that moment."""
        while WALL_MS + self.world.ms < wall_ms:
            self.world.ms += step_ms - 100
            self.world.pass_ms(100)
            self.answer()

    def answer(self) -> None:
        for _ in range(4):
            for name, machine in self.world.machines.items():
                if name not in self.world.frozen:
                    self._serve(machine)
            self.world.drain()

    def _serve(self, machine: One) -> None:
        kinds = (AskRegister, MoveRegister)
        wanted = [each for each in machine.effects if isinstance(each, kinds)]
        machine.effects = [each for each in machine.effects if not isinstance(each, kinds)]
        for effect in wanted:
            self.asked += 1
            if machine.name in self.away:
                machine.step(RegisterSaid(effect.schedule, reason="it is out of reach"))
                continue
            revision, value = self.values.get(effect.schedule, ("", Value()))
            if isinstance(effect, MoveRegister) and effect.revision == revision:
                assert effect.value.slot > value.slot
                revision, value = f"{revision}x", effect.value
                self.values[effect.schedule] = (revision, value)
                self.moved.append(value)
            moved = isinstance(effect, MoveRegister)
            machine.step(RegisterSaid(effect.schedule, revision, value, moved=moved))


def add(machine: One, file: str = FILE, spec: str = SPEC, **more: Any) -> Any:
    """The answer to `muster schedule add`."""
    made = machine.call("schedule.make", {"spec": spec, "text": file})
    if not made["ok"]:
        return made
    made = made["value"]
    statement = machine.world.sign(
        SET, made["name"], machine, set_args(made["text"]), to=EVERY_MACHINE,
        life_ms=more.pop("life_ms", 30 * 86_400_000), **more,
    )  # fmt: skip
    args = {"keepers": made["keepers"], "name": made["name"], "text": made["text"]}
    order = machine.world.sign(SET, made["name"], machine, args, signer=more.get("signer"))
    return machine.call(SET, args, statement=order, options={"statement": statement})


def stop(machine: One, what: str, **more: Any) -> Any:
    """The answer to `muster schedule pause`, `resume` or `remove`."""
    found = machine.call("schedule.check", {"what": "nightly"})["value"]
    args = {"name": "nightly", "schedule": found["schedule"], **more}
    return machine.order(f"schedule.{what}", "nightly", args)
