"""Machines that talk and work while their world falls apart, and an exact memory of what was said.

Rule 1: each sender has one message under way to each receiver, and says the next when its machine
        accepted that one: this is the order that the receiver must see.
Rule 2: who got no answer asks again under the same key, as a person would, until there is one.
"""

import random
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from muster.errors import Conflict, MusterError
from muster.task.evidence import task_args
from muster.task.kinds import TaskOpen
from tests.e2e.fleet import Client, Fleet, Machine
from tests.e2e.net.verdict import Message

STORED_S = 2.0
PATIENCE_S = 4.0
AGAIN_S = 0.2
LOOK_S = 0.25
PAUSE_S = (0.2, 0.6)
PAGE = 100
# What a machine whose world is whole again accepts within this, or it never will.
GIVE_UP_S = 180.0


class Pair(threading.Thread):
    """One sender and one receiver, until `over`."""

    def __init__(self, talk: "Talk", sender: Machine, receiver: Machine, seed: str) -> None:
        super().__init__(name=f"{sender.name} to {receiver.name}")
        self._talk, self._sender, self._receiver = talk, sender, receiver
        self._dice = random.Random(seed)

    def run(self) -> None:
        while not self._talk.over.is_set():
            try:
                self._say()
            except (MusterError, AssertionError) as error:
                self._talk.errors.append(f"{self.name}: {type(error).__name__}: {error}")
                return
            self._talk.over.wait(self._dice.uniform(*PAUSE_S))

    def _say(self) -> None:
        message = self._talk.next(self._sender.name, self._receiver.name)
        key = f"{self._talk.mark}/{message.text}"
        give_up_s = time.monotonic() + GIVE_UP_S
        wait = True
        while not message.accepted_s:
            args = {"key": key, "text": [message.text], "to": self._receiver.name, "wait": wait}
            try:
                with self._sender.client(STORED_S if wait else PATIENCE_S) as client:
                    answer = client.order("send", self._receiver.name, args)
            except MusterError:
                if time.monotonic() > give_up_s:
                    raise
                # Not stored in time, or not now at all: the next question waits for nobody.
                wait = False
                time.sleep(AGAIN_S)
                continue
            message.accepted_s = time.monotonic()
            if answer["state"] == "stored":
                message.stored_s = message.accepted_s


class Watcher(threading.Thread):
    """Looks into an inbox again and again, as a person does."""

    def __init__(self, talk: "Talk", machine: Machine) -> None:
        super().__init__(name=f"watches {machine.name}")
        self._talk, self._machine = talk, machine

    def run(self) -> None:
        while not self._talk.over.wait(LOOK_S):
            try:
                with self._machine.client(PATIENCE_S) as client:
                    page = client.call("inbox", {"all": True, "limit": PAGE})
            except MusterError:
                continue
            self._talk.saw(self._machine.name, [item["text"] for item in page])


class Tasks(threading.Thread):
    """Hands small work to the hub."""

    def __init__(self, talk: "Talk", seed: str) -> None:
        super().__init__(name="tasks")
        self._talk = talk
        self._dice = random.Random(seed)

    def run(self) -> None:
        while not self._talk.over.is_set():
            try:
                self._submit()
            except (MusterError, AssertionError) as error:
                self._talk.errors.append(f"{self.name}: {type(error).__name__}: {error}")
                return
            self._talk.over.wait(self._dice.uniform(0.5, 1.5))

    def _submit(self) -> None:
        fleet, hub = self._talk.fleet, self._talk.fleet.hub
        template = {"v": 1, "agent": ["noop"], "do": "{}", "retries": 5}
        opened = TaskOpen(task=secrets.token_hex(16), template=template, retries=5)
        give_up_s = time.monotonic() + GIVE_UP_S
        while True:
            statement = fleet.sign("task", opened.task, hub, task_args(opened))
            task = {
                "task": opened.task, "template": template, "statement": statement, "retries": 5,
            }  # fmt: skip
            try:
                with hub.client(PATIENCE_S) as client:
                    client.call("submit", {"tasks": [task]})
            except Conflict as error:
                # The answer was lost and the work was not: asking again says so.
                if opened.task[:8] not in str(error) and time.monotonic() < give_up_s:
                    time.sleep(AGAIN_S)
                    continue
            except MusterError:
                if time.monotonic() > give_up_s:
                    raise
                time.sleep(AGAIN_S)
                continue
            self._talk.tasks[opened.task] = time.monotonic()
            return


class Talk:
    """What was said and handed in since the beginning, by whoever talks now."""

    def __init__(self, fleet: Fleet, seed: str) -> None:
        self.fleet = fleet
        self.mark = secrets.token_hex(4)
        self.said: dict[str, Message] = {}
        self.tasks: dict[str, float] = {}
        """By its id, when the hub accepted it."""
        self.errors: list[str] = []
        self.over = threading.Event()
        self._seed = seed
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], int] = {}
        self._threads: list[threading.Thread] = []

    def next(self, sender: str, receiver: str) -> Message:
        """The message that is said next from one to the other, from now on."""
        with self._lock:
            number = self._counts.get((sender, receiver), 0) + 1
            self._counts[sender, receiver] = number
            message = Message(sender, receiver, number, begun_s=time.monotonic())
            self.said[message.text] = message
            return message

    def saw(self, receiver: str, texts: list[str]) -> None:
        """These texts are in somebody's inbox."""
        now_s = time.monotonic()
        for text in texts:
            message = self.said.get(text)
            if message is not None and message.receiver == receiver and not message.seen_s:
                message.seen_s = now_s

    def begin(self, number: int) -> None:
        """Everybody talks with everybody until `end`."""
        self.over.clear()
        machines = list(self.fleet.machines.values())
        pairs = [
            Pair(self, a, b, f"{self._seed}/{number}/{a.name}/{b.name}")
            for a in machines for b in machines if a is not b
        ]  # fmt: skip
        watchers = [Watcher(self, machine) for machine in machines]
        self._threads = [*pairs, *watchers, Tasks(self, f"{self._seed}/{number}/tasks")]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Returns when everybody has the answer to what was asked."""
        self.over.set()
        for thread in self._threads:
            thread.join()
        self._threads = []
        assert not self.errors, "; ".join(self.errors)


def inbox(machine: Machine, enough: Callable[[str], bool] = lambda text: False) -> list[str]:
    """The texts in a machine's inbox, oldest first: all, or back to one that is old enough."""
    found: list[str] = []
    with machine.client(timeout_s=30) as client:
        before = ""
        while page := _page(client, before):
            found = [item["text"] for item in page] + found
            before = page[0]["message"]
            if len(page) < PAGE or enough(found[0]):
                break
    return found


def _page(client: Client, before: str) -> list[Mapping[str, Any]]:
    older = {"before": before} if before else {}
    page: list[Mapping[str, Any]] = client.call("inbox", {"all": True, "limit": PAGE} | older)
    return page
