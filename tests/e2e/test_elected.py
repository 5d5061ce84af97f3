"""The hub is killed, and of two that stand in for it the one that three NATS servers elect goes on;
then that one is killed as well, and the other goes on."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from muster.git.fence import fence_ref
from muster.node.host.config import config_text
from muster.task.standin import standin_args
from tests.channel.test_nats_lease import servers_of
from tests.e2e.fleet import Fleet, Machine, until
from tests.e2e.test_takeover import LEASE_MS, notes, push, repository, states
from tests.git.repositories import refs
from tests.promise import proves

pytest.importorskip("nats", reason="pip install 'muster-fleet[nats]'")
pytest.importorskip("pyrage", reason="pip install 'muster-fleet[nats]'")

from muster.channel import nats

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]

SPEC = """\
muster: 1
name: two
repo: main
phases:
  first:
    needs: {machine: tower}
    agent: shell
    do: echo first >> "$E2E_NOTES"; echo one > one.txt
    deliver: one.txt
  second:
    after: first
    needs: {machine: tower}
    agent: shell
    do: echo second >> "$E2E_NOTES"; test -e "$E2E_NOTES.gone" || sleep 300; cp one.txt two.txt
    deliver: two.txt
"""
WITHIN_S = 90.0


@contextlib.contextmanager
def made(place: str) -> Iterator[Fleet]:
    dials = {"studio": ["hub"], "laptop": ["hub", "studio"], "tower": ["hub", "studio", "laptop"]}
    with Fleet(["hub", "studio", "laptop", "tower"], dials=dials) as fleet:
        for machine in fleet.machines.values():
            config = machine.home.config()
            there = nats.Options(place=place, deadline_s=1)
            config = replace(
                config, channel={**config.channel, "nats": there}, lease_s=LEASE_MS // 1000
            )
            machine.home.put("config.toml", config_text(config))
        fleet.add_repository()
        yield fleet.start()


def mirror(machine: Machine, of: Machine) -> Path:
    return Path(machine.home.mirrors) / of.id / "main.git"


def owner(machine: Machine, run: str) -> str:
    return str(machine.ask("runs", {"run": run}).get("owner", ""))


def elected(machine: Machine) -> int:
    return int(machine.ask("status")["counters"].get("elected", 0))


def epoch(machine: Machine, run: str) -> list[int]:
    tasks = machine.ask("runs", {"run": run})["tasks"]
    (found,) = [each["epoch"] for each in tasks if each["phase"] == "second"]
    return list(found)


@proves("adopt.elected", "adopt.repositories", "adopt.obeys")
def test_one_is_elected_and_the_other_where_that_is_killed_and_each_one_before_obeys(
    tmp_path: Path,
):
    with servers_of(tmp_path, 3) as servers, made(",".join(s.url for s in servers)) as fleet:
        hub, studio, laptop, tower = (fleet[n] for n in ("hub", "studio", "laptop", "tower"))
        args = standin_args(hub.id, studio.id, LEASE_MS, others=(laptop.id,))
        assert hub.order("standin", hub.id, args)["others"] == ["laptop"]
        for each in (studio, laptop):
            until(mirror(each, hub).is_dir, f"{each.name} has a mirror", within_s=WITHIN_S)
        order: dict[str, Any] = {"base": "", "repo": "main", "spec": SPEC, "values": {}}
        run = str(hub.order("run", "two", order)["run"])
        until(lambda: "second" in notes(fleet), "the second phase runs", within_s=WITHIN_S)
        known = lambda: states(tower, run).get("second") == "leased"  # noqa: E731
        until(known, "tower knows of it")
        first_place = epoch(tower, run)

        # With the hub one of the three servers goes; the others have a quorum.
        hub.kill()
        servers[0].kill()
        until(lambda: owner(tower, run) in {"studio", "laptop"}, "one goes on", within_s=WITHIN_S)
        first = fleet[owner(tower, run)]
        (second,) = {studio, laptop} - {first}
        again = lambda: notes(fleet) == ["first", "second", "second"]  # noqa: E731
        until(again, "it gives the second phase again", within_s=WITHIN_S)
        until(mirror(second, first).is_dir, "its repository is mirrored", within_s=WITHIN_S)
        assert elected(first)
        assert not elected(second)
        second_place = epoch(tower, run)
        assert second_place > first_place

        first.kill()
        until(lambda: owner(tower, run) == second.name, "the other goes on", within_s=2 * WITHIN_S)
        fleet.notes.with_name(f"{fleet.notes.name}.gone").touch()
        over = lambda: tower.ask("runs", {"run": run})["state"] == "done"  # noqa: E731
        until(over, "it is done", within_s=2 * WITHIN_S)
        assert elected(second)
        assert epoch(tower, run) > second_place
        assert notes(fleet).count("first") == 1
        kept = refs(repository(second))
        assert {f"refs/heads/muster/{run}/{each}" for each in ("first", "second")} < set(kept)

        # Both that are back obey, and what they push late is refused.
        for each in (first, hub):
            each.start()
            until(lambda e=each: owner(e, run) == second.name, "it obeys", within_s=WITHIN_S)
        tasks = tower.ask("runs", {"run": run})["tasks"]
        (task,) = [each["task"] for each in tasks if each["phase"] == "second"]
        commit = kept["refs/heads/main"]
        for ref in (f"refs/heads/muster/{run}/second", fence_ref(task)):
            assert "only the owner" in push(first, second.name, commit, ref)
        assert refs(repository(second)) == kept
