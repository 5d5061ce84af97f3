"""To wait for runs, tasks and messages: what ends it, and how it says how they ended."""

from typing import Any

import pytest
from tests.node.cores import Cores, One
from tests.node.test_ended_work import begin, revoke
from tests.node.test_ended_work import end as ended
from tests.node.test_runs import SLOW, end, hand_in, know
from tests.promise import proves

from muster.log import canon
from muster.node.tasks.followers import Followers
from muster.verbs import awaited
from muster.verbs.awaited import Await


@pytest.fixture
def hub() -> One:
    world = Cores("hub", "studio")
    know(world["hub"])
    return world["hub"]


def wait(machine: One, *what: str, **more: Any) -> None:
    asked = {"what": list(what), **more}
    machine.raw(canon.encode({"args": asked, "verb": "await.end"}), channel=14)


def answer(machine: One) -> dict[str, Any] | None:
    heard, machine.answers = machine.answers, []
    values = [each["value"] for each in heard if "ends" in (each.get("value") or ())]
    return values[-1] if values else None


def states(found: dict[str, Any] | None) -> list[tuple[str, str]]:
    assert found is not None
    return [(each["what"], each["state"]) for each in found["ends"]]


@proves("cli.await")
def test_a_run_and_a_task_of_it_are_waited_for_until_both_are_over(hub):
    run = hand_in(hub, SLOW)
    wait(hub, run[:8], "chain/first")
    end(hub)
    assert answer(hub) is None
    end(hub)
    found = answer(hub)
    assert found is not None
    assert found["in_time"]
    assert states(found) == [("run", "done"), ("task", "done")]
    assert hub.core.part(Followers).watchers == {}
    wait(hub, run)
    assert states(answer(hub)) == [("run", "done")], "of what is over it is said at once"


@proves("cli.await")
def test_the_first_that_is_over_is_enough_where_that_is_asked(hub):
    hand_in(hub, SLOW)
    wait(hub, "chain", "chain/first", any=True)
    end(hub, "failed", reason="3 tests fail")
    found = answer(hub)
    assert found is not None
    assert ("task", "failed") in states(found)


@proves("cli.await")
def test_when_the_time_is_over_it_says_so_and_nothing_is_touched(hub):
    run = hand_in(hub, SLOW)
    wait(hub, run, timeout="5s")
    hub.world.pass_ms(4_000)
    assert answer(hub) is None
    hub.world.pass_ms(2_000)
    found = answer(hub)
    assert found is not None
    assert not found["in_time"]
    assert states(found) == [("run", "open")]
    assert hub.core.part(Followers).watchers == {}


@proves("cli.await")
def test_a_message_is_waited_for_until_it_is_stored_where_it_goes(hub):
    world = hub.world
    text = {"to": "studio", "text": ["hi"]}
    sent = hub.order("send", "studio", text)["value"]["message"]
    wait(hub, sent[:10])
    world.pass_ms(1_000)
    assert answer(hub) is None
    world.link("hub", "studio")
    world.pass_ms(3_000)
    assert states(answer(hub)) == [("message", "stored")]


@proves("cli.await")
@pytest.mark.parametrize("args", [{"what": ["nope"]}, {"what": []}, {"what": ["chain"], "timeout": "x"}])  # fmt: skip
def test_what_nobody_knows_and_what_is_no_time_are_refused(hub, args):
    hand_in(hub, SLOW)
    assert hub.call("await.end", args)["ok"] is False


@proves("cli.await")
@pytest.mark.parametrize(
    ("ends", "in_time", "code"),
    [
        ([("done", True), ("stored", True)], True, 0),
        ([("done", True), ("failed", True)], True, 1),
        ([("done", True), ("queued", False)], True, 0),
        ([("done", True), ("queued", False)], False, 124),
    ],
)
def test_the_exit_code_says_how_it_ended(ends, in_time, code):
    class Door:
        on = ""

        def ask(self, verb: str, args: Any, **_: Any) -> Any:
            assert verb == "await.end"
            return {"in_time": in_time, "ends": [{"state": s, "over": over} for s, over in ends]}

    door: Any = Door()
    assert awaited.wait(door, Await(what=("1ae7",))).code == code


@proves("cli.await", "cli.live-view")
@pytest.mark.parametrize("how", ["revoked", "ended"])
def test_what_nobody_will_end_any_more_is_over_for_who_waits_and_who_follows(how):
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(3_000)
    run, task = begin(world)
    studio = world["studio"]
    wait(studio, run, task)
    live = {"args": {"live": True, "run": run}, "verb": "watch"}
    studio.raw(canon.encode(live), channel=15)
    assert "settled" not in studio.told[15][-1]["value"]
    if how == "revoked":
        revoke(world, "hub", studio)
    else:
        assert ended(world, studio, run, "burnt")["ok"]
    world.pass_ms(1_000)
    state = {"revoked": "lost", "ended": "cancelled"}[how]
    assert states(studio.told[14][-1]["value"]) == [("run", state), ("task", state)]
    assert studio.told[15][-1]["value"]["settled"] == state
    assert studio.core.part(Followers).watchers == {}
