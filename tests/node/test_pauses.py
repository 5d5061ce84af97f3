"""A machine that takes no work for now, among real cores."""

from typing import Any

from tests.node.cores import Cores, One
from tests.promise import proves

from muster.cli.show.machine import machines as machines_shown
from muster.cli.show.status import status as status_shown
from muster.limits import REFUSALS_MAX
from muster.node.tasks.pauses import Pauses
from muster.task.instruction import StartAttempt
from muster.task.pause import Pause

STUDIO = {"machine": "studio"}


def works(world: Cores, task: str) -> bool:
    found = [e for e in world["studio"].effects if isinstance(e, StartAttempt)]
    return task in [each.assign.task for each in found]


def why(world: Cores, task: str) -> str:
    return str(world["hub"].call("why", {"task": task})["value"])


def submitted(hub: One) -> str:
    return hub.submit(agent=["shell"], do="true", needs=STUDIO)


def both() -> Cores:
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(500)
    return world


def paused(world: Cores, **how: Any) -> None:
    assert world["studio"].call("pause.begin", how)["ok"]
    world.pass_ms(500)


@proves("health.paused")
def test_a_paused_machine_ends_what_runs_and_takes_nothing_new_until_it_is_resumed():
    world = both()
    first = submitted(world["hub"])
    world.pass_ms(500)
    paused(world, why="a talk")
    second = submitted(world["hub"])
    world.pass_ms(60_000)
    assert (works(world, first), works(world, second)) == (True, False)
    assert "is paused: a talk" in why(world, second)
    # Also after a restart, and however often the machine looks at itself.
    world.restart("studio")
    world.link("hub", "studio")
    world.pass_ms(60_000)
    assert not works(world, second)
    assert world["studio"].call("pause.end", {})["ok"]
    world.pass_ms(10_000)
    assert works(world, second)
    assert world["studio"].call("pause.end", {})["error"]["kind"] == "Conflict"


@proves("health.paused")
def test_a_pause_with_a_time_ends_by_itself():
    world = both()
    paused(world, for_ms=90_000)
    task = submitted(world["hub"])
    world.pass_ms(60_000)
    assert not works(world, task)
    world.pass_ms(60_000)
    assert works(world, task)


@proves("health.paused")
def test_who_gives_a_paused_machine_work_all_the_same_is_refused_and_nothing_counts():
    """What it says of itself has not come yet."""
    world = both()
    world["studio"].core.part(Pauses).now = Pause(0, "")
    task = submitted(world["hub"])
    for _ in range(2 * REFUSALS_MAX):
        world.pass_ms(60_000)
    assert not works(world, task)
    assert world["hub"].task(task).state == "queued"
    assert world["studio"].core.counters["assignments-while-paused"] > REFUSALS_MAX


@proves("health.paused-is-shown")
def test_machines_and_status_say_who_takes_no_work_until_when_and_why():
    world = both()
    hub, studio = world["hub"], world["studio"]

    def said(at: One) -> tuple[str, str]:
        listed, status = at.call("machines", {})["value"], at.call("status", {})["value"]
        return machines_shown(listed, {}), status_shown(status, {})

    def row(text: str) -> str:
        return next(line for line in text.splitlines() if line.startswith("studio"))

    for text in (*said(hub), *said(studio)):
        assert not any(word in text for word in ("paused", "drains", "resume", "no work"))
    for how, word, state in (
        ({"why": "a talk"}, "is paused: a talk", "paused"),
        (
            {"why": "a disk", "drains": True, "for_ms": 60_000},
            "takes no work: it drains until",
            "drains",
        ),
    ):
        paused(world, **how)
        for at in (hub, studio):
            shown, status = said(at)
            assert f", {state}" in row(shown)
            assert word in row(shown)
            if at is hub:
                assert "2 machines, no work for: studio" in status
                assert "resume" not in status
            else:
                assert f"It {word}" in status
                assert "no work for" not in status
            (rest,) = [each["rest"] for each in at.call("machines", {})["value"] if "rest" in each]
            assert (rest["drains"], rest["until_ms"] > 0) == (state == "drains",) * 2
    assert studio.call("status", {})["value"]["rest"] == rest
    assert "rest" not in hub.call("status", {})["value"]
    assert studio.call("pause.end", {})["ok"]
    world.pass_ms(500)
    assert "drains" not in said(hub)[0]
