"""What is handed on is within what a person signed: no wider, no deeper, no more and no oftener."""

import pytest
from tests.node.delegating import PARENT, Fleet, Forger, ask, asked, begun, refusal, whole, whys
from tests.promise import proves


@proves("delegation.never-wider")
@pytest.mark.parametrize(
    ("may", "changes", "why"),
    [
        ("{agent: codex}", {}, "asks claude"),
        ("{machine: hub}", {}, "is not bound to hub"),
        ("{machine: mac2}", {"machine": []}, "is not bound to mac2"),
        ("{label: gpu}", {}, "label gpu"),
        ("{timeout: 5m}", {"timeout": "6m"}, "longer than 300 s"),
        ("{}", {"agent": ["shell"]}, "asks shell"),
        ("{}", {"check": "rm -rf /"}, "has a check"),
        ("{}", {"timeout": "31m"}, "longer than 1800 s"),
    ],
)
def test_what_is_wider_than_its_spec_says_is_refused_and_writes_nothing(may, changes, why):
    world = Fleet()
    token = world.begin(may)
    before = world["mac1"].sizes()
    assert why in refusal(ask(world["mac1"], token, **changes))
    assert world["mac1"].sizes() == before


@proves("delegation.never-wider")
@pytest.mark.parametrize(
    ("most", "phase", "why"),
    [
        ({"depth": 2, "repos": ("main",)}, {"may": "{delegate: {repo: other}}"}, "in repositories"),
        ({}, {"env": "{PATH: /tmp}"}, "sets variables"),
        ({}, {"race": "8", "retries": "2"}, "16 tasks"),
        ({}, {"priority": "5"}, "takes no turn"),
        ({}, {"may": "{delegate: {}}"}, "may hand on work 1 times more, and none is allowed"),
        ({"depth": 2}, {"may": "{delegate: {depth: 2}}"}, "2 times more, and 1 is allowed"),
        ({"depth": 2}, {"may": "{delegate: {agent: shell}}"}, "may ask shell"),
        ({"depth": 2}, {"may": "{delegate: {timeout: 2h}}", "timeout": "5m"}, "takes longer"),
        (
            {"depth": 2, "agents": ("claude",)},
            {"may": "{delegate: {agent: codex}}"},
            "may ask codex",
        ),
    ],
)
def test_a_whole_spec_keeps_within_a_grant_and_hands_on_nothing_wider(most, phase, why):
    world = Fleet()
    world.grant("mac1", **{"timeout_ms": 1_800_000, **most})
    before = world["mac1"].sizes()
    assert why in refusal(ask(world["mac1"], **whole(**phase)))
    assert world["mac1"].sizes() == before


@proves("delegation.never-wider")
def test_an_agent_that_is_told_nothing_and_has_a_budget_hands_on_no_more_than_that():
    world = Fleet()
    more = "    memory: {read: [], write: []}\n    budget: {tokens: 9000}\n    do:"
    token = world.begin(text=(PARENT % "{runs: 3}").replace("    do:", more))
    here, needs = world["mac1"], "{machine: mac2}"
    assert "is told" in refusal(ask(here, token, **whole(needs=needs)))
    wrote = whole(needs=needs, memory="none")
    assert "more than 9000 tokens" in refusal(ask(here, token, **wrote))
    asked(here, token, **whole(needs=needs, memory="none", budget="{tokens: 9000}"))
    # A prompt says nothing of either, and keeps to both.
    run = asked(here, token, text=["and the other thing?"])
    world.pass_ms(3_000)
    start = world.started("mac2")
    assert start.open.run == run
    assert start.open.template["memory"] == {"read": [], "write": []}
    assert start.open.template["budget"] == {"tokens": 9000}


@proves("delegation.never-wider")
def test_a_grant_that_names_a_machine_is_for_that_machine_alone():
    world = Fleet()
    world.grant("mac1", "mac2")
    assert "is not bound to" in refusal(ask(world["mac1"], machine=["hub"]))
    asked(world["mac1"])


@proves("delegation.never-wider")
def test_with_a_step_more_what_was_handed_on_is_handed_on_once_more_and_then_no_further():
    world = Fleet()
    token = world.begin("{depth: 2, runs: 2}")
    needs = "{machine: mac2}"
    asked(world["mac1"], token, **whole(needs=needs, may="{delegate: {}}"))
    world.pass_ms(2_000)
    further = world.agent_of(world.started("mac2"), "mac2")
    run = asked(world["mac2"], further, machine=["hub"])
    world.pass_ms(2_000)
    assert world.started("hub").open.run == run
    last = world.agent_of(world.started("hub"), "hub")
    assert "may: {delegate" in refusal(ask(world["hub"], last))


@proves("delegation.budget")
def test_an_attempt_hands_on_so_many_runs_and_no_more_whatever_became_of_them():
    world = Fleet()
    token = world.begin("{runs: 2}")
    for number in range(2):
        asked(world["mac1"], token, text=[f"part {number}"])
        world.pass_ms(2_000)
        world.done("mac2")
    assert "2 runs by one attempt" in refusal(ask(world["mac1"], token, text=["part 3"]))


@proves("delegation.budget")
def test_a_grant_is_spent_by_the_day_and_by_what_is_open_at_once():
    world = Fleet()
    world.grant("mac1", per_day=3, at_once=2)
    asked(world["mac1"], text=["1"])
    second = asked(world["mac1"], text=["2"])
    world.pass_ms(2_000)
    assert "2 at once" in refusal(ask(world["mac1"], text=["3"]))
    answer = world["mac1"].call("withdraw", {"run": second})
    assert answer["ok"], answer
    world.pass_ms(2_000)
    asked(world["mac1"], text=["3"])
    world.pass_ms(2_000)
    world.done("mac2")
    assert "3 runs in a day" in refusal(ask(world["mac1"], text=["4"]))


@proves("delegation.budget")
def test_the_owner_refuses_more_at_once_than_the_grant_says_whatever_the_asker_thinks():
    world = Fleet()
    forger, id = Forger(world, "mac1"), world.grant("mac1", at_once=1)
    first, second = forger.asks("mac2", grant=id), forger.asks("mac2", grant=id)
    assert "1 at once" in whys(world, second)
    assert begun(world) == [first]
