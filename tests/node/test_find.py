"""Which task or run a person means by what was typed."""

from typing import Any

import pytest
from tests.node.cores import Cores, One
from tests.node.test_runs import SLOW, end, hand_in, know, state
from tests.promise import proves

from muster.task.fold import TASK
from muster.verbs import find

RACE = """\
muster: 1
name: race
phases:
  build: {agent: shell, do: "true", check: "true", race: 2}
"""


@pytest.fixture
def hub() -> One:
    world = Cores("hub")
    know(world["hub"])
    return world["hub"]


def asked(machine: One, verb: str, task: str) -> Any:
    return machine.call(verb, {"task": task})


def phase_of(machine: One, text: str) -> str:
    return str(asked(machine, "why", text)["value"]["task"]["phase"])


@proves("cli.ids-anywhere")
def test_a_phase_of_a_run_is_a_task_by_the_runs_id_or_by_its_name(hub):
    run = hand_in(hub, SLOW)
    end(hub)
    for text in (f"{run}/second", f"{run[:6]}/second", "chain/second"):
        assert phase_of(hub, text) == "second"
    assert asked(hub, "result", "chain/first")["value"]["state"] == "done"
    hub.world.pass_ms(100)
    newer = hand_in(hub, SLOW + "# again\n")
    assert asked(hub, "why", "chain/first")["value"]["task"]["run"] == newer
    assert hub.call("runs", {"run": "chain"})["value"]["run"] == newer


@proves("cli.ids-anywhere")
def test_a_run_of_one_task_is_that_task_and_of_several_the_choices_are_said(hub):
    run = hand_in(hub, SLOW)
    assert phase_of(hub, run[:8]) == "first"
    end(hub)
    error = asked(hub, "why", run[:8])["error"]
    assert error["kind"] == "Refused"
    assert f"{run[:12]}/first, {run[:12]}/second" in error["text"]


@proves("cli.ids-anywhere")
def test_an_instance_is_named_in_brackets(hub):
    run = hand_in(hub, RACE, name="race")
    error = asked(hub, "why", "race/build")["error"]["text"]
    assert f"{run[:12]}/build[1], {run[:12]}/build[2]" in error
    assert asked(hub, "why", "race/build[2]")["value"]["task"]["instance"] == "2"


@proves("cli.ids-anywhere")
@pytest.mark.parametrize("text", ["chain/third", "chain/first[9]", "chain/a/b", "nope/first"])
def test_a_place_that_a_run_does_not_have_is_not_found(hub, text):
    hand_in(hub, SLOW)
    for verb, key in (("why", "task"), ("runs", "run")):
        assert hub.call(verb, {key: text})["error"]["kind"] == "NotFound"


@proves("cli.ids-anywhere")
def test_a_task_is_understood_where_a_run_is_asked(hub):
    run = hand_in(hub, SLOW)
    task = asked(hub, "why", run)["value"]["task"]["task"]
    assert hub.call("runs", {"run": task[:8]})["value"]["run"] == run
    assert hub.call("runs", {"run": "chain/first"})["value"]["run"] == run


@proves("cli.ids-anywhere")
def test_a_run_is_cancelled_by_its_name_and_a_phase_by_its_place(hub):
    run = hand_in(hub, SLOW)
    done = hub.order("cancel", "chain/first", {"what": "chain/first"})
    assert done["value"]["task"] == asked(hub, "why", "chain/first")["value"]["task"]["task"]
    hub.world.pass_ms(100)
    again = hand_in(hub, SLOW + "# again\n")
    assert again != run
    assert hub.order("cancel", "chain", {"what": "chain"})["value"] == {
        "run": again,
        "cancelled": True,
    }


@proves("cli.ids-anywhere")
def test_an_order_by_name_is_signed_for_what_was_the_newest_then(hub):
    run = hand_in(hub, SLOW)
    task = asked(hub, "why", "chain/first")["value"]["task"]["task"]
    for text, meant in (("chain/first", task), (f"{run[:6]}/first", task), ("chain", run)):
        asks = {"verb": "cancel", "object": text}
        assert hub.call("target", asks)["value"]["object"] == meant
    assert hub.call("target", {"verb": "cancel", "object": run[:8]})["value"]["object"] == ""


@proves("cli.ids-anywhere")
def test_a_name_that_is_also_the_beginning_of_another_id_is_refused_with_both(hub):
    first = hand_in(hub, SLOW)
    task = asked(hub, "why", "chain/first")["value"]["task"]["task"]
    for text in (first[:5], task[:5]):
        hub.world.pass_ms(100)
        spec = SLOW.replace("name: chain", f'name: "{text}"')
        named = hand_in(hub, spec, text)
        error = hub.order("cancel", text, {"what": text})["error"]
        assert error["kind"] == "Refused"
        assert named[:12] in error["text"]
        assert {first[:12], task[:12]} & set(error["text"].replace(",", "").split())
    assert hub.call("runs", {"run": first})["value"]["run"] == first, "a whole id is one thing"
    for verb, key, text in (("runs", "run", first[:5]), ("why", "task", task[:5])):
        assert hub.call(verb, {key: text})["error"]["kind"] == "Refused"
    assert state(hub, first) == "open"


@proves("cli.ids-anywhere")
def test_what_may_be_a_run_or_a_task_is_ended_by_more_of_its_id_alone(hub, monkeypatch):
    run = hand_in(hub, SLOW)
    real = find._beginning
    task = asked(hub, "why", "chain/first")["value"]["task"]["task"]
    both = run[:3]

    def alike(core: Any, table: Any, text: str) -> Any:
        return real(core, table, task if table is TASK and text == both else text)

    monkeypatch.setattr(find, "_beginning", alike)
    error = hub.order("cancel", both, {"what": both})["error"]
    assert error["kind"] == "Refused"
    assert f"{run[:12]} (chain, open), {task[:12]} (first, leased)" in error["text"]


@proves("cli.ids-anywhere")
def test_the_journal_of_a_run_is_that_of_the_task_that_runs_else_of_the_one_that_failed(hub):
    run = hand_in(hub, SLOW)

    def where(text: str) -> tuple[str, str]:
        found = hub.call("journal.where", {"task": text})["value"]
        return found.get("chosen", ""), found["state"]

    assert where(run) == ("", "leased"), "there is but one"
    end(hub)
    assert where("chain") == (f"{run[:12]}/second", "leased")
    end(hub, "failed")
    assert where(run[:6]) == (f"{run[:12]}/second", "failed")
    assert where(f"{run}/first") == ("", "done")
    race = hand_in(hub, RACE, name="race")
    assert where("race/build")[0].startswith(f"{race[:12]}/build[")
    assert hub.call("journal.where", {"task": "nope"})["error"]["kind"] == "NotFound"


@proves("cli.ids-anywhere")
def test_a_run_is_meant_by_the_name_of_the_branch_that_checkout_makes_of_it(hub):
    first = hand_in(hub, SLOW)
    hub.world.pass_ms(100)
    assert hand_in(hub, SLOW + "# again\n") != first
    for name in (f"chain-{first[:8]}", f"chain-{first[:8]}/first"):
        assert hub.call("runs", {"run": name})["value"]["run"] == first
    for other in (f"chian-{first[:8]}", f"chain-{first[:7]}", f"-{first[:8]}"):
        assert hub.call("runs", {"run": other})["error"]["kind"] == "NotFound"


@proves("cli.ids-anywhere", "cli.run-on-several")
def test_a_name_at_a_machine_is_the_newest_run_that_this_machine_owns():
    world = Cores("hub", "studio")
    for name in ("hub", "studio"):
        know(world[name])
    world.link("hub", "studio")
    ours, theirs = hand_in(world["hub"], SLOW), hand_in(world["studio"], SLOW)
    world.pass_ms(2_000)
    for machine in (world["hub"], world["studio"]):
        for text, run in (("chain@hub", ours), ("chain@studio", theirs)):
            assert machine.call("runs", {"run": text})["value"]["run"] == run
            assert asked(machine, "why", f"{text}/first")["value"]["task"]["run"] == run
        assert machine.call("runs", {"run": "other@hub"})["error"]["kind"] == "NotFound"
        assert machine.call("runs", {"run": "chain@nobody"})["error"]["kind"] == "NotFound"
