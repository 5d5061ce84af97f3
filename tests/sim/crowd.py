"""Who else talks in the simulated fleet: strangers that knock, and people with larger wishes.

A stranger has a link and no key. What people do beyond single tasks and messages: runs whose phases
hand values on, match files and race, and threads whose members change.
"""

import random
from functools import partial
from typing import TYPE_CHECKING, Any

from muster.channel.frame import Type
from muster.errors import MusterError
from muster.log import canon
from muster.node import event as ev
from tests.fuzz.shapes import Shapes
from tests.sim.machine import STRANGERS

if TYPE_CHECKING:
    from tests.sim.machine import Machine
    from tests.sim.world import World

# What a glob may find in a repository of the wild; some of it no instance can be named for.
NAMES = (
    "src/a",
    "src/b",
    "why?.txt",
    "a:b",
    "caf\udce9",
    "x\x01y",
    "trailing ",
    "é" * 90,
    "-rf",
    "a\nb",
    "con",
)
SPECS = (
    """\
muster: 1
name: values
inputs: {x: 'a'}
phases:
  one: {agent: shell, do: sleep 0.3, check: 'true'}
  two: {agent: noop, do: '{}', check: 'true'}
  all: {after: [one, two], agent: noop, do: '${one.summary}${two.summary}${inputs.x}', check: 'true'}
""",
    """\
muster: 1
name: swarm
repo: app
phases:
  list: {each: 'src/*', agent: noop, do: '{"path":"${each.path}"}', check: 'true'}
  end: {after: list, agent: noop, do: '{}', check: 'true'}
""",
    """\
muster: 1
name: race
phases:
  first: {race: 3, agent: shell, do: sleep 0.9, check: 'true', retries: 1}
  then: {after: first, agent: noop, do: '{}', check: 'true'}
""",
)

# Whoever writes `ship` waits for the review, which is on another machine than what it judges.
REVIEWED = """\
muster: 1
name: reviewed
repo: app
phases:
  work: {agent: shell, do: sleep 0.3, check: 'true', retries: 3}
  look: {review: work, agent: shell, do: sleep 0.2, retries: 3, rounds: 3}
  also: {review: work, agent: shell, do: sleep 0.1, retries: 3}
  ship: {after: work, agent: noop, do: '{}', check: 'true'}
"""


class Crowd:
    """See the top of this file."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.rng = random.Random(f"crowd/{world.seed}")
        self.shapes = Shapes(self.rng)
        # Every run that was acknowledged, and where.
        self.runs: dict[str, str] = {}
        self._link = STRANGERS

    def start(self) -> None:
        faults = self.world.faults
        for _ in range(faults.runs):
            self._sometime(self.run)
        for _ in range(faults.reviews):
            self._sometime(lambda: self._hand_in(REVIEWED, "app"))
        for spec in self.world.money.specs():
            self._sometime(partial(self._hand_in, spec))
        for _ in range(faults.groups):
            self._sometime(self.thread)
        if faults.strangers:
            self._knock()

    def _sometime(self, what: Any) -> None:
        span = max(1, self.world.faults.stormy_ms - self.world.ms - 500)
        self.world.later(self.rng.randrange(span), what)

    def _anyone(self) -> "Machine | None":
        up = [m for m in self.world.machines.values() if m.awake and not m.hostile]
        return self.rng.choice(up) if up else None

    def _owner(self) -> "Machine | None":
        """As in workload.py."""
        first = self.world.founders[0]
        if self.world.faults.gone and first.awake and self.rng.random() < 0.7:
            return first
        return self._anyone()

    # --- people ------------------------------------------------------------------------------

    def run(self) -> None:
        """Somebody hands in a run, with values as people type them and as they should not."""
        self._hand_in()

    def _hand_in(self, spec: str = "", repo: str = "") -> None:
        machine = self._owner()
        if machine is None:
            return
        spec = spec or self.rng.choice(SPECS)
        name = spec.split("name: ")[1].split("\n")[0]
        values = (
            {"x": self.shapes.text()[:2_000]}
            if name == "values" and self.rng.random() < 0.5
            else {}
        )
        repo = repo or ("app" if name == "swarm" else "")
        args = {"base": "", "repo": repo, "spec": spec, "values": values}
        try:
            statement = self.world.workload.order(machine, "run", name, args)
        except MusterError:
            return

        def then(answer: dict[str, Any]) -> None:
            self.world.trace("run", f"{machine.place} {answer.get('ok')}")
            if answer["ok"]:
                self.runs[answer["value"]["run"]] = machine.place
                self.world.reached[f"run-{name}"] += 1
            else:
                self.world.checker.surprise("run", answer)

        self.world.workload.call(machine, "run", args, then, statement)

    def thread(self) -> None:
        """A thread is opened, gets and loses members, and somebody writes into it."""
        machine = self._anyone()
        if machine is None:
            return
        name = self.rng.choice(("room", "den"))
        others = [m.name for m in self.world.founders if m.name != machine.name]
        for verb, args in (
            ("thread", {"name": name, "add": [self.rng.choice(others)]}),
            ("send", {"to": f"thread:{name}", "text": ["hello all"], "wait": False}),
            ("thread", {"name": name, "remove": [self.rng.choice(others)]}),
        ):
            statement = self.world.workload.order(
                machine, verb, str(args.get("to") or args["name"]), args
            )

            def then(answer: dict[str, Any], of: str = verb) -> None:
                if answer["ok"]:
                    self.world.reached[f"group-{of}"] += 1
                else:
                    self.world.checker.surprise(f"group-{of}", answer)

            self.world.workload.call(machine, verb, args, then, statement)

    # --- strangers ----------------------------------------------------------------------------

    def _knock(self) -> None:
        """A link that proves nothing says a few things, and goes or is cut."""
        world = self.world
        if world.healed:
            return
        machine = self._anyone()
        if machine is not None:
            self._link += 1
            machine.arrive(ev.LinkUp(self._link, "", False, "sim"))
            for number in range(self.rng.choice((0, 1, 20))):
                type_ = self.rng.choice(list(Type))
                raw = self.rng.choice((b"", b"{}", self.rng.randbytes(40), self._asked()))
                machine.arrive(ev.Arrived(self._link, type_, number, raw))
            machine.arrive(ev.LinkDown(self._link))
            world.reached["stranger"] += 1
        world.later(int(1_000 / world.faults.strangers), self._knock)

    def _asked(self) -> bytes:
        verb = self.rng.choice(("enrol", "status", "run", "beat", "renew", "git.serve"))
        try:
            return canon.encode({"args": {"request": self.shapes.text()[:3_000]}, "verb": verb})
        except MusterError:
            return b"{}"


def lists(rng: random.Random) -> tuple[str, ...]:
    """What a glob finds."""
    return tuple(rng.sample(NAMES, rng.choice((0, 1, 2, 4))))
