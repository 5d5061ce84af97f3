"""When a person need not be asked: the rule, the lines of a patch, and what check says."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.promise import proves
from tests.task.specs import text
from tests.task.world import World, of, order

from muster.task import kinds
from muster.task.check import check
from muster.task.instruction import AskPerson, Settled
from muster.task.spec import Unless, parse
from muster.task.template import phase_order
from muster.task.waiver import decide, lines_of

RULE = Unless(lines=50, passed=5)
PHASES = {
    "feature": "agent: claude\ndo: build\ndeliver: src/",
    "sign-off": "by: human\ndo: look\nafter: feature\nunless: {lines: 50, passed: 5}",
}


@proves("task.waiver-rule")
@pytest.mark.parametrize(
    ("lines", "streaks", "waived", "sentence"),
    [
        (12, {"claude@studio": 7}, True, "not asked: 12 lines, 7 passed in a row"),
        (50, {"claude@studio": 5}, True, "not asked: 50 lines, 5 passed in a row"),
        (1, {"a@x": 9, "b@y": 6}, True, "not asked: 1 line, 6 passed in a row of b@y"),
        (
            51,
            {"claude@studio": 9},
            False,
            "asked: more than 50 lines, 9 passed in a row of claude@studio",
        ),
        (12, {"claude@studio": 4}, False, "asked: 12 lines, 4 passed in a row of claude@studio"),
        (12, {"a@x": 9, "b@y": 0}, False, "asked: 12 lines, 0 passed in a row of b@y"),
        (None, {"claude@studio": 9}, False, "asked: out of reach"),
        (12, {}, False, "asked: "),
    ],
)
def test_the_rule_holds_for_the_whole_change_and_each_of_its_authors(
    lines, streaks, waived, sentence
):
    found = decide(RULE, lines, streaks.items(), "out of reach" if lines is None else "")
    assert found.waived == waived
    assert found.sentence.startswith(sentence)
    assert found.sentence.endswith("(rule: at most 50 lines, 5 passed in a row)")


@proves("task.waiver-lines")
@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_whatever_a_patch_holds_it_is_counted_or_not(patch):
    found = lines_of(b"diff --git a/x b/x\n@@ -0,0 +1,3 @@\n" + patch, 1_000)
    assert found is None or 0 <= found <= 3 + patch.count(b"\n") + 1


@proves("task.waiver-recorded")
def test_a_person_who_is_not_asked_leaves_the_reason_in_the_entry_that_settles_the_task():
    world = World()
    said = "not asked: 12 lines, 7 passed in a row (rule: at most 50 lines, 5 passed in a row)"
    template = {"by": "human", "do": "look"}
    out = world.submit(order("q", template=template)._replace(waived=said))
    assert of(out, AskPerson) == []
    (settle,) = of(out, kinds.TaskSettle)
    assert (settle.outcome, settle.summary, settle.reason) == ("done", said, said)
    assert [each.outcome for each in of(out, Settled)] == ["done"]
    assert world.stream.task("q").state == "done"
    # Nobody is spared the question by anything else.
    assert len(of(world.submit(order("r", template=template)), AskPerson)) == 1


@proves("task.waiver-rule")
def test_the_rule_is_part_of_what_the_operator_signed():
    spec = parse(text(PHASES, "repo: main"))
    assert phase_order(spec, "sign-off")["unless"] == {"lines": 50, "passed": 5}
    assert "unless" not in phase_order(spec, "feature")


@proves("task.waiver-rule")
@pytest.mark.parametrize(
    ("changed", "head", "sentence"),
    [
        ({}, "", "the spec names no repository"),
        ({"sign-off": PHASES["sign-off"].replace("after: feature\n", "")}, "repo: main", "there is none"),
        ({"feature": PHASES["feature"] + "\nunless: {lines: 5, passed: 1}"}, "repo: main", "goes with by: human only"),
        ({"sign-off": PHASES["sign-off"].replace("50", "0")}, "repo: main", "must be from 1"),
        ({"sign-off": PHASES["sign-off"].replace("lines: 50, ", "")}, "repo: main", "has no lines"),
    ],
)  # fmt: skip
def test_a_rule_that_makes_no_sense_is_refused(changed, head, sentence):
    found = [p.sentence for p in check(text({**PHASES, **changed}, head)).problems]
    assert any(sentence in each for each in found), found
    assert [p.sentence for p in check(text(PHASES, "repo: main")).problems] == []


@proves("task.waiver-lines")
def test_lines_that_end_in_a_carriage_return_are_lines():
    head = b"diff --git a/x b/x\n@@ -0,0 +1,2 @@\n"
    assert lines_of(head + b"+" + b"x=1\r" * 500 + b"\n+a\r\n", 1_000) == 501


@proves("task.waiver-lines")
@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([b"+a\n", b"-b\n", b"+\r\n", b"+a\rb\n", b"+" + b"x" * 401 + b"\n"]))
)
def test_a_bound_changes_no_number_up_to_it_and_passes_for_more_above_it(lines):
    patch = b"diff --git a/x b/x\n@@ -0,0 +1,%d @@\n" % len(lines) + b"".join(lines)
    exact = lines_of(patch, 1_000_000)
    for most in (0, 1, 5, 20):
        found = lines_of(patch, most)
        assert (found == exact) if exact <= most else (found > most)


@proves("task.waiver-lines")
@pytest.mark.parametrize("most", [50, 10_000_000])
def test_a_large_patch_is_counted_where_it_lies(most):
    count = 200_000
    patch = b"diff --git a/x b/x\n@@ -0,0 +1,%d @@\n" % count + b"+\n" * count
    tracemalloc.start()
    found = lines_of(patch, most)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == (count if most > count else most + 1)
    assert peak < 100_000


@proves("task.waiver-rule")
def test_two_authors_of_one_name_are_two_and_the_worse_one_decides():
    # A machine was removed, and another one has its name.
    for streaks in (
        [("claude@build", 0), ("claude@build", 9)],
        [("claude@build", 9), ("claude@build", 0)],
    ):
        found = decide(RULE, 3, streaks)
        assert (found.waived, found.sentence.partition(" (")[0]) == (
            False,
            "asked: 3 lines, 0 passed in a row of claude@build",
        )
