"""The hub is killed and never comes back: its work goes on elsewhere, by an operator's order or by
whoever an operator named beforehand."""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muster.git.fence import Epoch, attempt_ref, fence_ref
from muster.task.standin import standin_args
from tests.e2e.fleet import Fleet, Machine, until
from tests.git.repositories import refs, sh
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

LEASE_MS = 10_000
# No try of the second phase ends while the hub lives; where it is gone, the next one ends at once.
SPEC = """\
muster: 1
name: three
repo: main
phases:
  first:
    needs: {machine: laptop}
    agent: shell
    do: echo first >> "$E2E_NOTES"; echo one > one.txt
    deliver: one.txt
  second:
    after: first
    needs: {machine: laptop}
    agent: shell
    do: echo second >> "$E2E_NOTES"; test -e "$E2E_NOTES.gone" || sleep 300; cp one.txt two.txt
    deliver: two.txt
  third:
    after: second
    needs: {machine: studio}
    agent: shell
    do: cat two.txt > three.txt
    deliver: three.txt
"""


@contextlib.contextmanager
def made() -> Iterator[Fleet]:
    """A hub with a repository and two spokes, of which one dials the other as well."""
    dials = {"studio": ["hub"], "laptop": ["hub", "studio"]}
    with Fleet(["hub", "studio", "laptop"], dials=dials) as fleet:
        for machine in fleet.machines.values():
            config = machine.home.path / "config.toml"
            text = config.read_text()
            assert "lease_s = 30" in text
            config.write_text(text.replace("lease_s = 30", f"lease_s = {LEASE_MS // 1000}"))
        fleet.add_repository()
        yield fleet.start()


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with made() as fleet:
        yield fleet


def begin(fleet: Fleet, after_ms: int) -> str:
    """A run in the hub's repository, of which one phase is done and one is under way."""
    hub, studio = fleet.hub, fleet["studio"]
    order = standin_args(hub.id, studio.id, after_ms)
    assert hub.order("standin", hub.id, order)["by"] == "studio"
    until(lambda: mirror(fleet).is_dir(), "studio has a mirror")
    args: dict[str, Any] = {"base": "", "repo": "main", "spec": SPEC, "values": {}}
    run = str(hub.order("run", "three", args)["run"])
    until(lambda: "second" in notes(fleet), "the second phase runs", within_s=60)
    until(lambda: states(studio, run).get("second") == "leased", "studio knows of it")
    return run


def mirror(fleet: Fleet) -> Path:
    """What studio has of the hub's repository while the hub keeps it."""
    return Path(fleet["studio"].home.mirrors) / fleet.hub.id / "main.git"


def repository(machine: Machine) -> Path:
    return Path(machine.home.repos) / "main.git"


def notes(fleet: Fleet) -> list[str]:
    return fleet.notes.read_text().split() if fleet.notes.exists() else []


def states(machine: Machine, run: str) -> dict[str, str]:
    return {each["phase"]: each["state"] for each in machine.ask("runs", {"run": run})["tasks"]}


def kill(fleet: Fleet) -> list[str]:
    """Kill the hub; what had begun until then."""
    fleet.hub.kill()
    fleet.notes.with_name(f"{fleet.notes.name}.gone").touch()
    return notes(fleet)


def check_notes(fleet: Fleet, before: list[str]) -> None:
    """What had ended was not done again, and what was under way was."""
    found = notes(fleet)
    assert found[: len(before)] == before
    assert set(found[len(before) :]) == {"second"}


def ends(fleet: Fleet, run: str, began: float) -> float:
    """It is done, on both machines that are left; so many seconds after that moment."""
    studio, laptop = fleet["studio"], fleet["laptop"]

    def over() -> bool:
        return all(m.ask("runs", {"run": run})["state"] == "done" for m in (studio, laptop))

    until(over, lambda: str(studio.ask("runs", {"run": run})), within_s=90)
    took_s = time.monotonic() - began
    print(f"{took_s:.1f} s after the hub died, with leases of {LEASE_MS / 1000} s")
    return took_s


def push(machine: Machine, to: str, commit: str, ref: str) -> str:
    """What git says to a push of this machine that is refused."""
    env = machine.fleet.environment(machine) | {"MUSTER_SOCK": machine.home.socket}
    done = subprocess.run(
        ["git", "push", "-q", f"muster::{to}/main", f"+{commit}:{ref}"], check=False,
        cwd=repository(machine.fleet["studio"]), env=env, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode, ref
    return done.stderr


@proves("adopt.goes-on", "adopt.obeys", "adopt.waits-for-leases", "adopt.repositories")
def test_a_run_of_a_hub_that_never_comes_back_ends_where_an_operator_let_it_go_on(fleet):
    run, hub = begin(fleet, 3_600_000), fleet.hub
    studio, laptop = fleet["studio"], fleet["laptop"]
    (given,) = [t for t in hub.ask("runs", {"run": run})["tasks"] if t["phase"] == "second"]
    before, began = kill(fleet), time.monotonic()
    until(lambda: "hub" not in studio.linked(), "studio sees that the hub is gone")
    answer = studio.order("takeover", hub.id, {"machine": hub.id})
    assert (answer["runs"], answer["left"]) == ([run], [])
    ends(fleet, run, began)
    check_notes(fleet, before)
    assert laptop.ask("runs", {"run": run})["owner"] == "studio"
    kept = refs(repository(studio))
    assert {f"refs/heads/muster/{run}/{each}" for each in ("first", "second", "third")} < set(kept)

    # A hub that comes back obeys, and its repository follows.
    hub.start()
    until(lambda: hub.ask("runs", {"run": run})["state"] == "done", "the hub shows it as it is")
    after = notes(fleet)
    followed = lambda: kept.items() <= refs(repository(hub)).items()  # noqa: E731
    until(followed, "the hub has what is kept at studio")
    assert notes(fleet) == after
    assert hub.ask("runs", {"run": run})["owner"] == "studio"
    # What comes late moves nothing, whoever pushes it.
    commit, task = kept["refs/heads/main"], given["task"]
    old = attempt_ref(task, Epoch(*given["epoch"]))
    assert "stale" in push(laptop, "studio", commit, old)
    assert "only the owner" in push(hub, "studio", commit, f"refs/heads/muster/{run}/second")
    assert "only the owner" in push(hub, "studio", commit, fence_ref(task))
    assert "studio keeps repository main now" in push(laptop, "hub", commit, old)
    assert refs(repository(studio)) == kept
    until(lambda: not fleet.orphans(), "nothing is left running")


@proves("adopt.stands-in", "adopt.repositories")
def test_a_run_of_a_hub_that_never_comes_back_ends_at_its_stand_in_without_a_word(fleet):
    run = begin(fleet, LEASE_MS)
    studio, laptop = fleet["studio"], fleet["laptop"]
    before = kill(fleet)
    # As if the hub had died before studio pulled what it promoted last.
    at = mirror(fleet)
    late = [ref for ref in refs(at) if f"muster/{run}" in ref or "/attempt/" in ref]
    assert late
    for ref in late:
        sh(at, "update-ref", "-d", ref)
    ends(fleet, run, time.monotonic())
    check_notes(fleet, before)
    assert laptop.ask("runs", {"run": run})["owner"] == "studio"
    assert set(late) & {f"refs/heads/muster/{run}/first"} <= set(refs(repository(studio)))
    until(lambda: not fleet.orphans(), "nothing is left running")
