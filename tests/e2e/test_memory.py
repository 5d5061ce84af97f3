"""What is known, on real daemons: what is erased is on no disk, and who was apart agrees again."""

import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from muster.errors import Conflict
from tests.e2e.fleet import Fleet, Machine, until
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

CANARY = "sw0rdf1sh-of-the-canary"


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """A hub, and two that dial it."""
    with Fleet(["hub", "studio", "late"]) as made:
        yield made


def remember(machine: Machine, key: str, text: str, *over: str, scope: str = "") -> str:
    args = {"key": key, "text": text.split(" ")}
    args |= {"over": list(over)} if over else {}
    args |= {"scope": scope} if scope else {}
    return str(machine.order("remember", key, args)["version"])


def texts(machine: Machine, key: str) -> list[tuple[str, str]]:
    return [(each["text"], each["state"]) for each in machine.ask("memory", {"key": key})]


def known(machine: Machine) -> set[str]:
    return {each["key"] for each in machine.ask("memories")}


def on_disk(machines: Iterable[Machine], word: str = CANARY) -> list[Path]:
    """The files of these machines in which a word stands."""
    every = [path for each in machines for path in sorted(Path(each.home.path).rglob("*"))]
    return [path for path in every if path.is_file() and word.encode() in path.read_bytes()]


def verify(fleet: Fleet, machine: Machine) -> None:
    words = [sys.executable, "-m", "muster", "audit", "verify"]
    done = subprocess.run(words, env=fleet.environment(machine), capture_output=True, check=False)
    assert done.returncode == 0, done


def meet(*machines: Machine) -> None:
    for machine in machines:
        until(machine.linked, f"{machine.name} has a link")


@proves("memory.erased-everywhere")
def test_what_is_forgotten_is_on_no_disk_of_the_fleet_and_never_reaches_who_joins_later(fleet):
    hub, studio, late = fleet["hub"], fleet["studio"], fleet["late"]
    hub.start()
    studio.start()
    meet(studio)
    version = ""
    # Enough around it for its pages to be divided, more than once.
    for number in range(120):
        remember(hub, f"filler/{number}", f"text {number} " + "x" * 400)
        if number == 40:
            version = remember(studio, "main/login", f"the password is {CANARY}")
        if number % 3 == 0:
            studio.order("send", "hub", {"to": "hub", "text": ["y" * 300]})
    with pytest.raises(Conflict):
        remember(hub, "main/login", "it changed")
    until(lambda: "main/login" in known(hub), "the hub knows")
    assert {path.parent for path in on_disk([hub, studio])} == {
        Path(hub.home.path), Path(studio.home.path)
    }  # fmt: skip
    hub.kill()
    began = time.monotonic()
    answer = studio.order("forget", version, {"version": version, "reason": "a password"})
    assert (answer["erased"], answer["waiting"]) == ("studio", ["hub", "late"])
    until(lambda: not on_disk([studio]), "the word is gone from the studio's disk", within_s=5)
    print(f"gone from the disk here after {time.monotonic() - began:.2f} s")
    hub.start()
    meet(studio)
    began = time.monotonic()
    until(lambda: not on_disk([hub]), "the word is gone from the hub's disk", within_s=5)
    print(f"gone from the disk there {time.monotonic() - began:.2f} s after contact")
    late.start()
    meet(late)
    until(lambda: "filler/119" in known(late), "it has what the others know")
    assert on_disk([hub, studio, late]) == []
    for machine in (hub, studio, late):
        assert texts(machine, "main/login") == [("", "erased")]
        verify(fleet, machine)
    again = studio.order("forget", version, {"version": version})
    until(
        lambda: studio.order("forget", version, {"version": version})["waiting"] == [],
        lambda: f"nobody is waited for any more: {again}",
    )
    # Neither a restart nor what is written later brings it back.
    studio.kill()
    studio.start()
    for number in range(20):
        remember(studio, f"later/{number}", "z" * 500)
    studio.stop()
    hub.stop()
    assert on_disk([hub, studio, late]) == []


@proves("memory.erased-everywhere")
def test_a_daemon_that_was_killed_while_it_erased_goes_on_when_it_is_back(fleet):
    hub, studio = fleet["hub"], fleet["studio"]
    hub.start()
    studio.start()
    meet(studio)
    versions = [remember(hub, f"k/{n}", f"{CANARY} {n} " + "x" * 900) for n in range(30)]
    until(lambda: "k/29" in known(studio), "the studio knows all of them")
    for version in versions:
        hub.order("forget", version, {"version": version})
        if version == versions[10]:
            studio.kill()
    # Nothing of what is scrubbed was awaited.
    hub.kill()
    assert on_disk([studio])
    hub.start()
    studio.start()
    until(lambda: not on_disk([hub, studio]), "the word is on no disk", within_s=20)
