"""What is wrong with a machine for a while: found, told once, and over."""

import json
from typing import Any

import pytest
from tests.node.cores import Cores, task_args
from tests.promise import proves

from muster import limits
from muster.fleet.folds import INCIDENT
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.incidents import Noticed
from muster.node.services import conditions
from muster.node.services.conditions import Condition, Measured, Waiting, found
from muster.node.tasks.worker import WorkerService
from muster.task.kinds import TaskOpen

GIB, MIB, MIN = 2**30, 2**20, 60_000
CASES: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    ("all is well", {"measured": Measured(50 * GIB, 60), "skews": {"a": 29_000}}, {}),
    ("nothing is known yet", {}, {}),
    ("a disk fills", {"measured": Measured(900 * MIB)}, {"disk:me": "notice"}),
    ("a disk is full", {"measured": Measured(100 * MIB, 50)}, {"disk:me": "critical"}),
    ("many small files", {"measured": Measured(50 * GIB, 4)}, {"inodes:me": "warning"}),
    ("a clock is off", {"skews": {"a": 31_000, "b": 0}}, {"clock-skew:a": "warning"}),
    ("a clock is wrong", {"skews": {"a": -301_000, "b": 0}}, {"clock-skew:a": "critical"}),
    ("the only peer differs", {"skews": {"a": 40_000}}, {"clock-skew:a": "warning"}),
    ("ours is off", {"skews": {"a": 40_000, "b": 41_000, "c": 39_000}}, {"clock-skew:me": "warning"}),
    (
        "two are off, each its own way", {"skews": {"a": 40_000, "b": -400_000}},
        {"clock-skew:a": "warning", "clock-skew:b": "critical"},
    ),
    ("a task waits", {"waiting": Waiting("t" * 32, 9 * MIN, "a")}, {}),
    (
        "a task waits beside a free machine", {"waiting": Waiting("t" * 32, 10 * MIN, "a")},
        {"backlog:" + "t" * 16: "warning"},
    ),
]  # fmt: skip


@proves("health.conditions")
@pytest.mark.parametrize(("seen", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_what_is_wrong_is_known_by_its_kind_and_what_it_is_about(seen, expected):
    given = {"measured": None, "skews": {}, "waiting": None, **seen}
    wrong = found("me", **given)
    assert {key: each.severity for key, each in wrong.items()} == expected
    assert all(len(key) <= 64 and isinstance(each, Condition) for key, each in wrong.items())


def told(world: Cores) -> list[tuple[str, str, int]]:
    hub = world["hub"].core
    rows = hub.tables.rows(INCIDENT, writer=hub.machine, begins={"key": "disk:"})
    return [(row.key, row.severity, row.open) for row in rows]


@proves("health.conditions")
def test_an_incident_is_told_once_again_when_it_is_worse_and_closed_when_it_is_over():
    world = Cores("hub")
    look = limits.CONDITIONS_LOOK_MS

    def free(size: int, looks: int) -> None:
        world["hub"].step(Measured(size))
        for _ in range(looks):
            world.pass_ms(look)

    free(900 * MIB, 1)
    assert told(world) == [], "what passes by itself calls nobody"
    free(900 * MIB, 4)
    assert told(world) == [("disk:hub", "notice", 1)]
    times = len(world["hub"].entries("incident.open"))
    free(890 * MIB, 4)
    assert len(world["hub"].entries("incident.open")) == times
    free(100 * MIB, 3)
    assert told(world) == [("disk:hub", "critical", 1)]
    world.restart("hub")
    free(100 * MIB, 3)
    assert len(world["hub"].entries("incident.open")) == times + 1
    free(50 * GIB, 3)
    assert [each[2] for each in told(world)] == [0]


@proves("health.conditions")
@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((100 * MIB, 900 * MIB), ["notice"]),
        ((127 * MIB, 127 * MIB, 129 * MIB, 129 * MIB), ["notice", "critical"]),
        ((1023 * MIB, 1023 * MIB, 1025 * MIB, 1025 * MIB, 1025 * MIB), ["notice"]),
        ((1023 * MIB, 1025 * MIB), []),
    ],
)
def test_what_sways_around_a_bound_is_told_once_for_each_severity(sizes, expected):
    world = Cores("hub")
    hub = world["hub"]
    hub.step(Measured(900 * MIB if expected else 50 * GIB))
    world.pass_ms(2 * limits.CONDITIONS_LOOK_MS)
    for size in sizes * 4:
        hub.step(Measured(size))
        world.pass_ms(limits.CONDITIONS_LOOK_MS)
    kinds = [json.loads(entry.body)["severity"] for entry in hub.entries("incident.open")]
    assert (kinds, hub.entries("incident.close")) == (expected, [])


@pytest.mark.parametrize("seen", [
    {"measured": Measured(1030 * MIB)}, {"measured": Measured(50 * GIB, 6)},
    {"skews": {"a": 29_000, "b": 0}}, {"skews": {"a": 29_000, "b": 28_000}},
])  # fmt: skip
@proves("health.conditions")
def test_what_was_told_is_over_only_well_beyond_its_bound(seen):
    given: Any = {"measured": None, "skews": {}, "waiting": None, **seen}
    keys = ("disk:me", "inodes:me", "clock-skew:a")
    assert found("me", **given) == {}
    assert len(found("me", **given, told=keys)) == 1
    assert found("me", Measured(2 * GIB, 9), {"a": 15_000}, None, keys) == {}


@proves("health.conditions")
def test_an_agent_that_burns_is_told_no_longer_than_it_runs_here():
    world = Cores("hub")
    hub = world["hub"]
    task = hub.submit(agent=["shell"], do="true")
    world.pass_ms(1_000)
    burns = {f"burn:{task[:16]}": "it runs", "burn:" + "0" * 16: "it ran before a restart"}
    hub.step(*(Noticed(key, title) for key, title in burns.items()))
    assert hub.core.part(WorkerService).worker.running() == [task]
    world.pass_ms(2 * limits.CONDITIONS_LOOK_MS)
    assert set(hub.core.incidents.own("burn:")) == {f"burn:{task[:16]}"}


@proves("health.conditions")
def test_a_task_that_nobody_takes_though_somebody_could_is_told_until_it_is_taken(monkeypatch):
    monkeypatch.setattr(limits, "BACKLOG_MS", 90_000)
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(1_000)
    hub = world["hub"]

    def waits() -> list[str]:
        rows = hub.core.tables.rows(INCIDENT, writer=hub.id, begins={"key": "backlog:"}, open=1)
        return [row.key for row in rows]

    # One that is older and fits nobody hides nobody.
    hub.submit(agent=["shell"], do="true", needs={"machine": "nobody"})
    studio = world["studio"]
    studio.step(FactsChanged(studio.facts(tools={"git": "git version 2.43.0"})))
    # Its repository answers nobody, so no epoch is ever given.
    shape = {"v": 1, "agent": ["shell"], "do": "true"}
    body = TaskOpen(task="ab" * 16, template=shape, repo="main")
    signed = world.sign("task", body.task, hub, task_args(body))
    item = {"task": body.task, "template": shape, "repo": "main", "statement": signed}
    assert hub.call("submit", {"tasks": [item]})["ok"]
    world.pass_ms(MIN)
    assert waits() == []
    world.pass_ms(MIN + MIN // 2)
    assert waits() == ["backlog:" + "ab" * 8]
    studio.step(FactsChanged(studio.facts()))
    world.pass_ms(MIN + MIN // 4)
    assert waits() == []


@proves("health.conditions")
def test_a_clock_that_was_set_right_is_measured_again_over_the_same_link(monkeypatch):
    monkeypatch.setattr(conditions, "_AGAIN_MS", limits.CONDITIONS_LOOK_MS)
    world = Cores("hub", "studio")
    numbers = world.link("hub", "studio")
    hub, studio = world["hub"].core, world["studio"].core
    # Its clock was six minutes behind when they greeted each other, and is not any more.
    hub.links[numbers[0]].skew_ms, studio.links[numbers[1]].skew_ms = -360_000, 360_000
    world.pass_ms(5 * limits.CONDITIONS_LOOK_MS)
    assert hub.links[numbers[0]].skew_ms == studio.links[numbers[1]].skew_ms == 0
    assert hub.incidents.own("clock-skew:") == studio.incidents.own("clock-skew:") == {}
