"""How a graph of phases proceeds: tables, a walk, and every order of outcomes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.promise import proves
from tests.task.specs import graph

from muster.errors import Malformed
from muster.task.graph import SETTLED, Fact, Plan, Progress, Slot, plan, slots_of
from muster.task.precedence import in_order
from muster.task.spec import Spec
from muster.task.state import LIVE

Facts = dict[Slot, Fact]


def facts(drawing: str) -> Facts:
    """`a=done b/1=leased`: what became of each slot, in this order in the owner's log."""
    result = {}
    for order, part in enumerate(drawing.split()):
        name, _, state = part.partition("=")
        phase, _, instance = name.partition("/")
        result[Slot(phase, instance)] = Fact(state, order, f"m{order}")
    return result


def told(found: Plan) -> str:
    """The phases' states in a line."""
    return " ".join(f"{name}={state.state}" for name, state in sorted(found.phases.items()))


DIAMOND = "a ; b <- a ; c <- a ; d <- b c"


@proves("spec.start-after", "spec.run-settles")
@pytest.mark.parametrize(
    ("so_far", "states", "start", "settled"),
    [
        ("", "a=ready b=waiting c=waiting d=waiting", "a", ""),
        ("a=queued", "a=running b=waiting c=waiting d=waiting", "", ""),
        ("a=leased", "a=running b=waiting c=waiting d=waiting", "", ""),
        ("a=done", "a=done b=ready c=ready d=waiting", "b c", ""),
        ("a=done b=done", "a=done b=done c=ready d=waiting", "c", ""),
        ("a=done b=done c=leased", "a=done b=done c=running d=waiting", "", ""),
        ("a=done b=done c=done", "a=done b=done c=done d=ready", "d", ""),
        ("a=done b=done c=done d=done", "a=done b=done c=done d=done", "", "done"),
        ("a=failed", "a=failed b=skipped c=skipped d=skipped", "", "failed"),
        ("a=lost", "a=failed b=skipped c=skipped d=skipped", "", "failed"),
        ("a=cancelled", "a=cancelled b=skipped c=skipped d=skipped", "", "failed"),
        ("a=done b=failed", "a=done b=failed c=ready d=skipped", "c", ""),
        ("a=done b=failed c=leased", "a=done b=failed c=running d=skipped", "", ""),
        ("a=done b=failed c=done", "a=done b=failed c=done d=skipped", "", "failed"),
    ],
)
def test_a_diamond_proceeds(so_far, states, start, settled):
    found = plan(graph(DIAMOND), facts(so_far))
    assert told(found) == states
    assert [slot.phase for slot in found.start] == start.split()
    assert found.settled == settled
    assert found.cancel == ()


@proves("spec.run-settles")
def test_a_phase_that_can_never_start_says_why():
    found = plan(graph("a ; b <- a ; c <- b"), facts("a=failed"))
    assert found.phases["b"].reason == "a is failed: its task failed"
    assert found.phases["c"].reason == "b is skipped"
    assert found.reason == "phase a failed: its task failed"
    assert plan(graph("a"), facts("a=lost")).reason == "phase a failed: its task was lost"


@proves("spec.human")
def test_a_person_is_asked_and_the_run_goes_on_only_when_the_person_approves():
    spec = graph("a ; ok <- a ; b <- ok", ok="by: human\ndo: look")
    before = plan(spec, facts("a=done"))
    assert (before.ask, before.start) == ((Slot("ok"),), ())
    asked = plan(spec, facts("a=done ok=waiting"))
    assert (asked.ask, asked.start, asked.settled) == ((), (), "")
    assert plan(spec, facts("a=done ok=done")).start == (Slot("b"),)
    rejected = plan(spec, facts("a=done ok=failed"))
    assert (told(rejected), rejected.settled) == ("a=done b=skipped ok=failed", "failed")


@proves("spec.race")
def test_the_first_racer_that_passes_wins_and_the_others_learn_who_won():
    spec = graph("a ; b <- a", a="race: 3")
    assert plan(spec, {}).start == (Slot("a", "1"), Slot("a", "2"), Slot("a", "3"))
    assert plan(spec, facts("a/1=leased a/2=failed a/3=queued")).settled == ""
    won = plan(spec, facts("a/1=leased a/3=queued a/2=done"))
    assert won.phases["a"].winner == Slot("a", "2")
    why = "racer 2 on m2 passed first"
    assert won.cancel == ((Slot("a", "1"), why), (Slot("a", "3"), why))
    assert won.start == (Slot("b"),)


@proves("spec.race")
def test_of_two_racers_that_pass_the_first_in_the_log_wins():
    spec = graph("a", a="race: 2")
    assert plan(spec, facts("a/2=done a/1=done")).phases["a"].winner == Slot("a", "2")
    assert plan(spec, facts("a/1=done a/2=done")).phases["a"].winner == Slot("a", "1")


@proves("spec.race")
def test_a_racer_is_not_started_when_another_has_won_already():
    found = plan(graph("a", a="race: 3"), facts("a/2=done"))
    assert (found.start, found.settled) == ((), "done")


@proves("spec.race")
def test_a_race_that_nobody_wins_is_failed():
    found = plan(graph("a", a="race: 2"), facts("a/1=failed a/2=lost"))
    assert (told(found), found.settled) == ("a=failed", "failed")
    assert found.phases["a"].reason == "2 of 2 tasks failed, first 1"


@proves("spec.each")
def test_each_match_is_a_task_and_the_phase_is_done_when_all_are():
    spec = graph("a ; b <- a", a="each: s/*\ndeliver: '${each.path}/x'")
    assert plan(spec, {}).match == ("a",)
    matches = {"a": ["s/x", "s/y", "s/x"]}
    assert plan(spec, {}, matches).start == (Slot("a", "s/x"), Slot("a", "s/y"))
    half = plan(spec, facts("a/s/x=done"), matches)
    assert (half.start, told(half)) == ((Slot("a", "s/y"),), "a=running b=waiting")
    one_failed = plan(spec, facts("a/s/x=failed a/s/y=leased"), matches)
    assert (told(one_failed), one_failed.settled) == ("a=running b=waiting", "")
    both = plan(spec, facts("a/s/x=failed a/s/y=done"), matches)
    assert (told(both), both.settled) == ("a=failed b=skipped", "failed")
    assert both.phases["a"].reason == "1 of 2 tasks failed, first s/x"
    assert plan(spec, facts("a/s/x=done a/s/y=done"), matches).start == (Slot("b"),)


@proves("spec.each")
@pytest.mark.parametrize("count", [0, 257])
def test_matching_nothing_or_too_much_is_a_failure_that_says_so(count):
    spec = graph("a ; b <- a", a="each: s/*\ndeliver: '${each.path}/x'")
    found = plan(spec, {}, {"a": [f"s/{i}" for i in range(count)]})
    assert (told(found), found.settled, found.start) == ("a=failed b=skipped", "failed", ())
    assert "s/* matches" in found.reason


def test_a_glob_is_matched_only_when_its_phase_may_start():
    spec = graph("a ; b <- a", b="each: s/*\ndeliver: '${each.path}/x'")
    assert plan(spec, {}).match == ()
    assert plan(spec, facts("a=done")).match == ("b",)
    assert told(plan(spec, facts("a=failed"))) == "a=failed b=skipped"


@proves("spec.run-settles")
def test_a_cancelled_run_starts_nothing_and_settles_when_nothing_runs():
    spec = graph(DIAMOND)
    found = plan(spec, facts("a=done b=leased"), cancelled="by op:ann")
    assert (found.start, found.settled) == ((), "")
    assert found.cancel == ((Slot("b"), "the run was cancelled: by op:ann"),)
    assert told(found) == "a=done b=running c=skipped d=skipped"
    after = plan(spec, facts("a=done b=cancelled"), cancelled="by op:ann")
    assert (after.settled, after.reason, after.cancel) == ("cancelled", "by op:ann", ())


@proves("spec.run-settles")
def test_a_run_that_was_done_before_it_was_cancelled_is_done():
    assert plan(graph("a"), facts("a=done"), cancelled="late").settled == "done"


def test_a_half_opened_race_is_completed_after_a_crash():
    found = plan(graph("a", a="race: 3"), facts("a/1=leased"))
    assert found.start == (Slot("a", "2"), Slot("a", "3"))


def test_phases_that_wait_for_each_other_are_no_plan():
    with pytest.raises(Malformed, match=r"phase [ab] of trial waits for itself"):
        plan(graph("a <- b ; b <- a"), {})
    with pytest.raises(Malformed, match="waits for z, which is none"):
        plan(graph("a <- z"), {})


# --- any order of outcomes


@st.composite
def worlds(draw) -> tuple[Spec, dict[str, list[str]]]:
    names = [f"p{i}" for i in range(draw(st.integers(1, 7)))]
    parts, extra, matches = [], {}, {}
    for number, name in enumerate(names):
        before = draw(st.lists(st.sampled_from(names[:number]), unique=True)) if number else []
        parts.append(f"{name} <- {' '.join(before)}" if before else name)
        kind = draw(st.sampled_from(["", "", "race", "each", "human"]))
        if kind == "race":
            extra[name] = "race: 2"
        elif kind == "each":
            extra[name] = "each: s/*\ndeliver: '${each.path}/x'"
            matches[name] = [f"s/{i}" for i in range(draw(st.integers(0, 3)))]
        elif kind == "human":
            extra[name] = "by: human\ndo: look"
    return graph(" ; ".join(parts), **extra), matches


@proves("spec.run-settles", "spec.start-after")
@settings(max_examples=150, deadline=None)
@given(world=worlds(), data=st.data())
def test_any_order_of_outcomes_settles_and_starts_nothing_too_early(world, data):
    spec, globs = world
    known: Facts = {}
    matches: dict[str, list[str]] = {}
    cancelled, order, going = "", 0, Progress(spec)

    def tell(slot: Slot, fact: Fact) -> None:
        known[slot] = fact
        going.tell(slot, fact)

    for _ in range(200):
        found, fresh = going.plan(), plan(spec, known, matches, cancelled)
        assert found == fresh, "what follows does not depend on when it was told"
        if found.settled:
            break
        for slot in (*found.start, *found.ask):
            assert slot not in known
            assert not cancelled
            for before in spec.phases[slot.phase].prerequisites:
                assert found.phases[before].state == "done"
                _assert_done(spec, before, known, matches)
            tell(slot, Fact("waiting" if slot in found.ask else "leased"))
        for name in found.match:
            matches[name] = globs[name]
            going.match(name, globs[name])
        for slot, reason in found.cancel:
            assert reason
            tell(slot, Fact("cancelled", order := order + 1))
        live = [slot for slot, fact in known.items() if fact.state in LIVE]
        if live:
            slot = data.draw(st.sampled_from(live))
            outcome = data.draw(st.sampled_from(["done", "done", "failed", "lost"]))
            tell(slot, Fact(outcome, order := order + 1))
        if not cancelled and data.draw(st.integers(0, 30)) == 30:
            cancelled = "somebody said so"
            going.cancel(cancelled)
    else:
        raise AssertionError("the run does not settle")
    assert all(state.state in SETTLED for state in found.phases.values())
    assert not any(fact.state in LIVE for fact in known.values())
    assert all(s.reason for s in found.phases.values() if s.state != "done")
    assert (found.settled == "done") == all(s.state == "done" for s in found.phases.values())
    assert (found.start, found.ask, found.match, found.cancel) == ((), (), (), ())


def _assert_done(spec: Spec, name: str, known: Facts, matches: dict[str, list[str]]) -> None:
    """Independent of the plan: the tasks of the prerequisite themselves are done."""
    phase = spec.phases[name]
    slots = slots_of(name, phase, matches.get(name))
    assert slots
    done = [known[slot].state == "done" for slot in slots if slot in known]
    assert any(done) if phase.race else len(done) == len(slots) and all(done)


@settings(max_examples=50, deadline=None)
@given(worlds())
def test_the_order_of_phases_has_every_prerequisite_first(world):
    spec, _ = world
    order = in_order(spec)
    assert sorted(order) == sorted(spec.phases)
    for name, phase in spec.phases.items():
        assert all(order.index(before) < order.index(name) for before in phase.prerequisites)


@proves("spec.large-runs-are-planned-cheaply")
def test_one_task_of_a_large_run_looks_at_its_phase_and_at_those_behind_it_only(monkeypatch):
    chain = " ; ".join(["p0", *(f"p{i} <- p{i - 1}" for i in range(1, 200))])
    going = Progress(graph(f"{chain} ; alone"))
    assert going.plan().start == (Slot("p0"), Slot("alone"))
    looked = []
    state = Progress._state
    monkeypatch.setattr(Progress, "_state", lambda self, n: (looked.append(n), state(self, n))[1])
    going.tell(Slot("p0"), Fact("leased"))
    assert (going.plan().start, looked) == ((), ["p0", "p1"])
    looked.clear()
    going.tell(Slot("p0"), Fact("done"))
    assert (going.plan().start, looked) == ((Slot("p1"),), ["p0", "p1", "p2"])
    looked.clear()
    assert (going.plan().start, looked) == ((), [])
    going.tell(Slot("p1"), Fact("failed"))
    assert going.plan().phases["p199"].state == "skipped"
    assert "alone" not in looked


@proves("spec.each")
def test_a_glob_is_told_until_it_was_matched_and_everything_else_once():
    going = Progress(graph("a ; b", b="each: s/*\ndeliver: '${each.path}/x'"))
    first, second = going.plan(), going.plan()
    assert (first.start, first.match) == ((Slot("a"),), ("b",))
    assert (second.start, second.match) == ((), ("b",))
    going.match("b", ["s/1"])
    assert (going.plan().start, going.plan().match) == ((Slot("b", "s/1"),), ())


def test_what_is_known_of_slots_that_a_phase_has_not_changes_no_phase():
    spec = graph("a ; b <- a", a="race: 2")
    strangers = facts("a/3=done a=done z/1=failed")
    assert told(plan(spec, strangers)) == "a=ready b=waiting"
    assert plan(spec, facts("a/1=done b=done z=leased")).settled == "", "that one still runs"
