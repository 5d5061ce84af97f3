"""Specs of any shape with reviews, played with any outcomes: a run ends, and is planned the same
after a restart at any moment."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.promise import proves
from tests.task.specs import text

from muster.errors import Malformed
from muster.task.check import check
from muster.task.graph import Fact, Progress, Slot, plan
from muster.task.spec import Spec, parse
from muster.task.state import LIVE

REPO = "repo: main"
WORK = "agent: claude\ndo: build\ndeliver: x"
REVIEW = "review: feature\nagent: codex\ndo: look"
# A phase outlives no more rounds than these, of no more phases than are drawn.
STEPS_MAX = 300


def after(names) -> str:
    return f"\nafter: [{', '.join(names)}]" if names else ""


def drawn(rng) -> Spec:
    """Work and reviews of it, each after some of those before it: also after a fellow's word."""
    kinds, phases = {}, {}
    for number in range(rng.randint(2, 6)):
        name = f"p{number}"
        work = [each for each, kind in kinds.items() if kind == "work"]
        if work and rng.random() < 0.5:
            judged = rng.choice(work)
            before = [each for each in work if each != judged and rng.random() < 0.15]
            rounds = rng.randint(1, 3)
            phases[name] = f"review: {judged}\nagent: codex\ndo: x\nrounds: {rounds}{after(before)}"
            kinds[name] = "review"
        else:
            phases[name] = WORK + after([each for each in kinds if rng.random() < 0.4])
            kinds[name] = "work"
    return parse(text(phases, REPO))


def outcome(rng, spec: Spec, slot: Slot, place: int) -> Fact:
    state = "done" if rng.random() < 0.8 else rng.choice(["failed", "lost", "cancelled"])
    judges = spec.phases[slot.phase].review is not None
    rejects = "codex@build: no" if judges and state == "done" and rng.random() < 0.5 else ""
    return Fact(state, place, "build", rejects, "w")


@proves("spec.review-bounded", "spec.review-any-order")
@settings(max_examples=400, deadline=None)
@given(st.randoms(use_true_random=False))
def test_told_step_by_step_it_is_what_a_fresh_plan_says_and_every_run_ends(rng):
    spec, facts = drawn(rng), dict[Slot, Fact]()
    try:
        progress = Progress(spec)
    except Malformed:
        # Somebody waits for a reviewer that waits for it: `check` refuses it.
        return
    for place in range(STEPS_MAX):
        found = progress.plan()
        begun = {slot: Fact("queued", place) for slot in found.start}
        begun |= {s: Fact("cancelled", place) for s, _ in found.cancel if facts[s].state in LIVE}
        for slot, fact in begun.items():
            facts[slot] = fact
            progress.tell(slot, fact)
        fresh = plan(spec, facts)
        assert fresh.phases == progress.phases
        if found.settled:
            assert fresh.settled == found.settled
            return
        live = sorted(slot for slot, fact in facts.items() if fact.state in LIVE)
        assert live, "nothing runs, and it is not settled"
        slot = rng.choice(live)
        facts[slot] = outcome(rng, spec, slot, place)
        progress.tell(slot, facts[slot])
    raise AssertionError("it never ended")


THREE = {
    "feature": WORK,
    "tools": WORK.replace("x", "z"),
    "r1": f"{REVIEW}\nafter: tools",
    "r2": f"{REVIEW}\nafter: tools",
    "r3": REVIEW,
}
ENDED = {"feature": Fact("done", 1), "r3": Fact("done", 2), "tools": Fact("failed", 3)}


@proves("spec.review-bounded")
@pytest.mark.parametrize("order", [("feature", "r3", "tools"), ("tools", "feature", "r3")])
@pytest.mark.parametrize("live", [True, False])
def test_a_review_does_not_wait_for_a_fellow_that_never_begins(order, live):
    progress = Progress(parse(text(THREE, REPO)))
    for name in order:
        progress.tell(Slot(name), ENDED[name])
        if live:
            progress.plan()
    found = progress.plan()
    assert found.settled == "failed"
    assert found.phases["r3"].reason == "r1 is skipped"


def sentences(phases) -> list[str]:
    return [problem.sentence for problem in check(text(phases, REPO)).problems]


@proves("spec.review-refused")
def test_a_reviewer_behind_what_waits_for_its_fellow_is_a_cycle_that_is_named():
    first = {"feature": WORK, "first": REVIEW, "bench": "after: first\n" + WORK.replace("x", "b")}
    (said,) = sentences({**first, "second": f"{REVIEW}\nafter: bench"})
    assert said == (
        "phases.bench.after closes a cycle: bench waits for second waits for bench; take one "
        "`after` away"
    )
    assert sentences({**first, "second": REVIEW}) == []


@proves("spec.review-refused")
def test_a_reviewer_behind_its_fellow_is_told_so_and_not_of_a_cycle():
    (said,) = sentences({"feature": WORK, "first": REVIEW, "second": f"{REVIEW}\nafter: first"})
    assert "names first, which judges the same; reviewers of one phase work at once" in said
