"""Following what a real daemon takes in: here, at another machine over the hub, and after a kill."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from muster.cli import call
from muster.errors import Conflict, Denied, Unreachable
from tests.e2e import checks
from tests.e2e.fleet import ROOT, Fleet, Machine, until
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Two machines that know the hub alone."""
    with Fleet(["hub", "studio", "laptop"]) as made:
        made.start()
        yield made


def taken_in(machine: Machine, since: int) -> list[str]:
    """The ids of all that a machine took in from a number on, by its database alone."""
    log, found = checks.Log(machine), []
    try:
        rows = log.rows("select * from admission where number >= ? order by number", since)
        for run in rows:
            hashes = log.rows(
                "select hash from entry where id >= ? and id < ? order by id",
                (run["stream"] << 40) + run["start"],
                (run["stream"] << 40) + run["start"] + run["entries"],
            )
            found += [row["hash"].hex() for row in hashes]
    finally:
        log.close()
    return found


def elsewhere(fleet: Fleet, reader: str, of: str, **args: Any) -> Iterator[Any]:
    """What a command on one machine is told of what another one takes in."""
    more = {"on": fleet[of].id, "statement": fleet.sign("tail", "*", fleet[of], args)}
    return call.stream(fleet[reader].home.socket, "tail", args, within_s=60, **more)


def first(asked: Callable[[], Iterator[Any]]) -> Any:
    """The first answer, asked for again where the way there changed meanwhile."""
    while True:
        try:
            return next(asked())
        except Unreachable:
            time.sleep(0.05)


class Follower:
    """Who goes on from its number whenever it is cut off, as every reader should."""

    def __init__(self, fleet: Fleet, reader: str, of: str) -> None:
        self.where = (fleet, reader, of)
        self.told: list[Any] = []
        self.cuts = 0
        self.answers = elsewhere(*self.where)
        self.until(lambda: self.told)

    @property
    def number(self) -> int:
        return int(self.told[-1]["number"])

    @property
    def ids(self) -> list[str]:
        return [row["id"] for each in self.told for row in each["came"] if row["id"]]

    def until(self, true: Callable[[], Any]) -> None:
        end = time.perf_counter() + 60
        while not true():
            assert time.perf_counter() < end, "it was never told"
            try:
                self.told.append(next(self.answers))
            except Unreachable:
                # Killed, started anew, or the way there is another one now.
                self.cuts += 1
                time.sleep(0.05)
                since = {"since": self.number} if self.told else {}
                self.answers = elsewhere(*self.where, **since)


def send(machine: Machine, text: str) -> str:
    return str(machine.order("send", "all", {"text": [text], "to": "all"})["message"])


@proves("node.tail-elsewhere-by-order", "node.tail-loses-nothing", "cli.tail")
def test_another_machine_is_followed_over_the_hub_and_nothing_is_missed_when_it_was_killed(fleet):
    laptop = fleet["laptop"]
    with pytest.raises(Denied):
        first(lambda: call.stream(fleet["studio"].home.socket, "tail", {}, on=laptop.id))
    follower = Follower(fleet, "studio", "laptop")
    since = follower.number
    for text in ("one", "two"):
        sent = send(fleet.hub, text)
        follower.until(lambda sent=sent: sent in follower.ids)
    cuts = follower.cuts
    laptop.kill()
    missed = send(fleet.hub, "three")
    laptop.start()
    follower.until(lambda: missed in follower.ids)
    last = send(laptop, "four")
    follower.until(lambda: last in follower.ids)
    follower.answers.close()
    assert follower.cuts > cuts
    ids = follower.ids
    assert ids == taken_in(laptop, since)[: len(ids)]
    with pytest.raises(Conflict, match="only"):
        first(lambda: elsewhere(fleet, "studio", "laptop", since=follower.number + 2**40))


@proves("cli.tail", "node.tail-tells-links")
def test_a_person_sees_a_line_for_each_entry_and_each_link_until_ctrl_c(fleet):
    hub, studio = fleet.hub, fleet["studio"]
    process = subprocess.Popen(
        [sys.executable, "-m", "muster", "tail"], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=fleet.environment(hub),
    )  # fmt: skip
    seen = ""

    def shows(*words: str) -> bool:
        nonlocal seen
        while select.select([process.stdout], [], [], 0)[0]:
            seen += os.read(process.stdout.fileno(), 65_536).decode()
        return any(all(word in line for word in words) for line in seen.splitlines())

    try:
        # It follows from when the daemon heard of it; a script reads the first answer.
        until(lambda: send(hub, "hello") and shows("hub", "message.send"), lambda: seen)
        sent = send(studio, "hello")
        until(lambda: shows("studio", "message.send", sent[:12]), lambda: seen)
        studio.kill()
        until(lambda: shows("studio", "link.down"), lambda: seen)
        studio.start()
        until(lambda: shows("studio", "link.up"), lambda: seen)
        assert "hello" not in seen
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said.strip()) == (130, "")


@proves("cli.tail")
def test_a_script_gets_a_line_of_json_with_the_number_to_go_on_from(fleet):
    sent = send(fleet.hub, "kept")
    process = subprocess.Popen(
        [sys.executable, "-m", "muster", "tail", "--json", "--since", "0", "--kind", "message.s*"],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, env=fleet.environment(fleet.hub),
    )  # fmt: skip
    try:
        told: list[Any] = []
        while sent not in {row["id"] for each in told for row in each["came"]}:
            told.append(json.loads(process.stdout.readline()))
        assert {row["kind"] for each in told for row in each["came"]} == {"message.send"}
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
