"""Work for a fleet that is being killed, and an exact memory of what was acknowledged.

Rule 1: only what a daemon answered `ok` to is remembered as acknowledged.
Rule 2: whoever got no answer asks again under the same key, as a person would: that is how
"exactly once" is put to the test.
"""

import random
import secrets
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from muster.errors import Conflict, MusterError, Refused, Unreachable
from muster.task.evidence import task_args
from muster.task.kinds import TaskOpen
from tests.e2e.fleet import NOTES, Client, Fleet, Machine

PATIENCE_S = 8.0
BATCH = 5

# Four attempts on three machines: two of them at once, and one that joins both.
SPEC = """\
muster: 1
name: {name}
repo: main
phases:
  seed:
    agent: shell
    do: |
      {note}; sleep {pause}; echo {name} > {name}.txt
    deliver: {name}.txt
    retries: 5
  left:
    after: seed
    needs: {{label: on-studio}}
    agent: shell
    do: |
      {note}; sleep {pause}; cat {name}.txt > {name}-left.txt
    deliver: {name}-left.txt
    retries: 5
  right:
    after: seed
    needs: {{label: on-laptop}}
    agent: shell
    do: |
      {note}; sleep {pause}; cat {name}.txt > {name}-right.txt
    deliver: {name}-right.txt
    retries: 5
  joined:
    after: [left, right]
    agent: shell
    do: |
      {note}; cat {name}-left.txt {name}-right.txt > {name}-joined.txt
    check: test "$(cat {name}-joined.txt | wc -l)" = 2
    deliver: {name}-joined.txt
    retries: 5
"""
PHASES = ("seed", "left", "right", "joined")
PROMISED = {
    "seed": "{name}.txt",
    "left": "{name}-left.txt",
    "right": "{name}-right.txt",
    "joined": "{name}-joined.txt",
}


class Message(NamedTuple):
    """A message that its sender's daemon acknowledged; `held` also for the receiver's."""

    id: str
    sender: str
    receiver: str
    key: str
    held: bool


class Acknowledged:
    """What the fleet must never lose."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.messages: dict[str, Message] = {}
        self.tasks: set[str] = set()
        self.runs: dict[str, str] = {}
        self.unanswered = 0

    def message(self, each: Message) -> None:
        with self.lock:
            known = self.messages.get(each.key)
            assert known is None or known.id == each.id, f"two messages for one key: {known} {each}"
            if known is None or not known.held:
                self.messages[each.key] = each

    def task(self, name: str) -> None:
        with self.lock:
            self.tasks.add(name)

    def run(self, id: str, name: str) -> None:
        with self.lock:
            self.runs[id] = name

    def missed(self) -> None:
        with self.lock:
            self.unanswered += 1


class Load:
    """Threads that keep a fleet busy until `stop`."""

    def __init__(self, fleet: Fleet, acknowledged: Acknowledged, seed: int) -> None:
        self.fleet = fleet
        self.acknowledged = acknowledged
        self.errors: list[str] = []
        self._over = threading.Event()
        random_ = random.Random(seed)
        works: list[Callable[[random.Random], None]] = [
            self._messages, self._messages, self._tasks,
        ]  # fmt: skip
        self._threads = [
            threading.Thread(target=self._work, args=(work, random.Random(random_.random())))
            for work in works
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Returns when everybody has the answer to what was asked, or knows there is none."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        assert not self.errors, self.errors[0]

    def _work(self, work: Callable[[random.Random], None], chance: random.Random) -> None:
        try:
            while not self._over.is_set():
                work(chance)
                # A person pauses; without it the load would starve two processors.
                self._over.wait(chance.uniform(0.0, 0.1))
        except (AssertionError, MusterError) as error:
            self.errors.append(f"{type(error).__name__}: {error}")

    def attempt(self, machine: Machine, ask: Callable[[Client], Any]) -> Any:
        """`ask` once; None when no answer came, which says nothing about whether it was done."""
        try:
            with machine.client(PATIENCE_S) as client:
                return ask(client)
        except Unreachable:
            self.acknowledged.missed()
            self._over.wait(0.1)
            return None

    def _messages(self, chance: random.Random) -> None:
        sender, receiver = chance.sample(list(self.fleet.machines.values()), 2)
        key = f"k{chance.getrandbits(60):x}"
        args = {"key": key, "text": [f"message {key}"], "to": receiver.name, "wait": True}
        for _ in range(3):
            found = self.attempt(sender, lambda c: c.order("send", receiver.name, args))
            if found is not None:
                held = found.get("state") == "stored"
                self.acknowledged.message(
                    Message(found["message"], sender.name, receiver.name, key, held)
                )
                return

    def _tasks(self, chance: random.Random) -> None:
        hub, items = self.fleet.hub, []
        for _ in range(BATCH):
            template = {"v": 1, "agent": ["noop"], "do": "{}", "retries": 5}
            if chance.random() < 0.2:
                template |= {"agent": ["shell"], "do": "sleep 0.02"}
            opened = TaskOpen(task=secrets.token_hex(16), template=template, retries=5)
            statement = self.fleet.sign("task", opened.task, hub, task_args(opened))
            items.append(
                {"task": opened.task, "template": template, "statement": statement, "retries": 5}
            )
        for _ in range(3):
            try:
                found = self.attempt(hub, lambda c: c.call("submit", {"tasks": items}))
            except Conflict:
                # The answer was lost, the work was not: asking again is refused and says so.
                found = {"tasks": items}
            if found is not None:
                for each in found["tasks"]:
                    self.acknowledged.task(each["task"])
                return
        self._over.wait(0.2)

    def run(self, name: str, pause_s: float) -> str:
        """Hand in one run and insist until there is an answer; its id."""
        note = f'echo "$MUSTER_TASK $MUSTER_EPOCH" >> "${NOTES}"'
        spec = SPEC.format(name=name, note=note, pause=f"{pause_s:.2f}")
        args = {"base": "", "repo": "main", "spec": spec, "values": {}}
        why = "no answer"
        for _ in range(40):
            try:
                found = self.attempt(self.fleet.hub, lambda c: c.order("run", name, args))
            except Refused as error:
                # Just started: it may not have heard from the machines that the spec needs.
                if "machine" not in str(error):
                    raise
                found, why = None, str(error)
                self._over.wait(0.3)
            if found is not None:
                self.acknowledged.run(found["run"], name)
                return str(found["run"])
        raise AssertionError(f"nobody took the run {name}: {why}")
