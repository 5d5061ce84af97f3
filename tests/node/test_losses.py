"""What of a home is gone while its log goes on is told at once, and told to be back."""

import hashlib
from pathlib import Path

import pytest
from tests.node.cores import Cores, One
from tests.promise import proves

from muster.fleet.folds import INCIDENT
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.services.losses import blobs_gone
from muster.store.blobs import Blobs
from muster.task import kinds


def told(machine: One, key: str) -> list[str]:
    found = machine.call("incidents", {})["value"]
    return [i["title"] for i in found if i["open"] and i["key"].startswith(key)]


def keeps(machine: One, *names: str) -> None:
    machine.step(FactsChanged(machine.facts(repositories=list(names))))
    machine.world.pass_ms(1_000)


@proves("node.losses-are-said")
def test_a_repository_that_is_gone_is_an_incident_everywhere_until_it_is_back():
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(4_000)
    hub, studio = world["hub"], world["studio"]
    keeps(hub, "main", "docs")
    assert told(studio, "repository-") == []
    hub.incarnation = hub.core.membership.incarnation
    world.restart("hub")
    world.link("hub", "studio")
    world.pass_ms(4_000)
    keeps(hub, "docs")
    for machine in (hub, studio):
        (title,) = told(machine, "repository-main")
        assert "main, which hub kept, is gone" in title
    assert told(hub, "repository-docs") == []
    keeps(hub)
    keeps(hub, "other")
    (row,) = hub.core.tables.rows(INCIDENT, key="repository-main")
    assert row.times == 1, "it is said once"
    keeps(hub, "docs", "main", "other")
    assert told(hub, "repository-") == told(studio, "repository-") == []
    assert told(studio, "incarnation") == []


def attempt(machine: One, task: str, *data: bytes) -> None:
    names = [
        f"blob:{hashlib.sha256(each).hexdigest()}:{len(each)}:f{n}" for n, each in enumerate(data)
    ]
    body = kinds.AttemptFinish(task, (1, 1), "done", artefacts=names)
    core = machine.core
    core.now = machine.world.now()
    with core.store.transaction():
        core.append("attempt.finish", kinds.body_bytes(body))
        core.store.seal_dirty(core.membership.signer("seal"))


@proves("node.losses-are-said")
@pytest.mark.parametrize("lost", [(), ("one",), ("one", "two")])
def test_deliverables_that_are_gone_are_counted_and_one_is_named(tmp_path: Path, lost):
    hub = Cores("hub")["hub"]
    blobs = Blobs(tmp_path / "blobs")
    for task in ("one", "two"):
        attempt(hub, task, task.encode(), b"common")
        for data in (task.encode(), b"common"):
            blobs.put(data)
    assert blobs_gone(hub.core, blobs) == ""
    for task in lost:
        sha256 = hashlib.sha256(task.encode()).hexdigest()
        blobs._path(sha256).unlink()
    title = blobs_gone(hub.core, blobs)
    assert title.startswith(f"{len(lost)} of the deliverables") if lost else not title
    assert not lost or "f0 of task" in title
