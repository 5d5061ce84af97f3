"""Two fleets of real daemons: one asks the other's machine for work, and takes it back."""

import contextlib
import json
from collections.abc import Iterator

import pytest

from tests.e2e.agents import muster
from tests.e2e.fleet import Fleet, Machine, until
from tests.e2e.test_peers import take_in
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SPEC = """\
muster: 1
name: tidy
phases:
  work:
    agent: shell
    do: |
      while [ ! -e "go.%s" ]; do sleep 0.1; done
      echo "the yard is tidy"
    check: "true"
"""


@pytest.fixture
def two() -> Iterator[tuple[Machine, Machine]]:
    with Fleet(["hub"]) as ours, Fleet(["yard", "shed"], dials={"shed": ["yard"]}) as acme:
        for fleet in (ours, acme):
            fleet.hub.home.put_seed("operator.seed", fleet.operator_seed)
            fleet.start()
        hub, yard = ours["hub"], acme["yard"]
        take_in(hub, yard.ask("peer.card")["card"], "acme")
        take_in(yard, hub.ask("peer.card")["card"], "ours")
        yield hub, yard


def says(machine: Machine, *words: str, code: int = 0) -> str:
    done = muster(machine.fleet, machine, *words)
    assert done.code == code, done
    return str(done.out + done.err)


def asks(hub: Machine, gate: str) -> str:
    """`muster run … --on yard.acme`; the id of the task."""
    path = hub.fleet.root / f"{gate}.yaml"
    path.write_text(SPEC % gate)
    done = muster(hub.fleet, hub, "run", str(path), "--on", "yard.acme", "--detach", "--json")
    assert done.code == 0, done
    return str(json.loads(done.out)["run"])


def state(hub: Machine, task: str) -> str:
    return str(hub.ask("runs", {"run": task})["state"])


def let_go(yard: Machine, gate: str) -> None:
    """Work of another fleet is enclosed: what it waits for is put into its folder."""
    for folder in (yard.home.path / "work").iterdir():
        if "." not in folder.name:
            with contextlib.suppress(OSError):
                (folder / f"go.{gate}").touch()


def there(yard: Machine) -> list[str]:
    return [run["state"] for run in yard.ask("runs")]


@proves("peer.task-by-grant", "peer.task-once", "peer.task-cancel", "peer.task-removed")
def test_a_task_is_asked_of_another_fleet_done_once_taken_back_and_ended_with_the_peering(two):
    """1. Without a grant nothing begins. 2. With one it does, once, though both daemons die and
    come back meanwhile; what its agent said comes back. 3. Another is taken back. 4. A third is
    under way when the fleet is removed: it ends there, and nothing more is begun.
    """
    hub, yard = two
    first = asks(hub, "first")
    until(lambda: "refuses" in hub.ask("peers")[0]["last"], "it is refused", within_s=60)
    assert (state(hub, first), there(yard)) == ("waiting", [])
    says(yard, "grant", "fleet:ours", "task", "--object", "yard", "--agent", "shell")
    until(lambda: state(hub, first) == "open", "it has begun over there", within_s=90)
    assert says(yard, "runs").count("hub.ours") == 1
    hub.kill()
    yard.kill()
    hub.start()
    yard.start()

    def is_done() -> bool:
        let_go(yard, "first")
        return state(hub, first) == "done"

    until(is_done, "it is done", within_s=120)
    assert there(yard) == ["done"]
    assert "the yard is tidy" in says(hub, "await", first)
    assert "yard.acme" in says(hub, "runs", "-o", "wide")
    second = asks(hub, "second")
    until(lambda: state(hub, second) == "open", "the second has begun", within_s=90)
    says(hub, "cancel", second[:12], "--reason", "no need")
    until(lambda: state(hub, second) == "cancelled", "it is taken back", within_s=90)
    assert sorted(there(yard)) == ["cancelled", "done"]
    third = asks(hub, "third")
    until(lambda: state(hub, third) == "open", "the third has begun", within_s=90)
    says(yard, "peer", "remove", "ours", "--yes")
    until(lambda: there(yard).count("cancelled") == 2, "it is ended there", within_s=60)
    for gate in ("second", "third"):
        let_go(yard, gate)
    assert sorted(there(yard)) == ["cancelled", "cancelled", "done"]
    assert {m["name"] for m in hub.ask("machines")} == {"hub"}
    says(hub, "peer", "remove", "acme", "--yes")
    assert state(hub, third) == "removed"
