"""Values between phases, whatever their number and size, through real cores."""

import json
from typing import Any

import pytest
from tests.node.cores import Cores, One, attempt_ended
from tests.node.test_runs import end, hand_in, know, state, wanted
from tests.promise import proves

from muster.limits import BODY_BYTES_MAX, VALUE_BYTES_MAX
from muster.log.fold import body_as
from muster.node.tasks import results as yields
from muster.node.tasks.runs import RunService
from muster.task import kinds, values
from muster.task.instruction import Fenced, MoveBranch, Promoted, RaiseFence, StartAttempt
from muster.task.large_value import Large

BLOB = "a" * 64


def spec(count: int, last: str, *, more: str = "", every: str = "", head: str = "") -> str:
    lines = ["muster: 1", "name: chain", *([head] if head else []), "phases:"]
    for number in range(count):
        lines += [f"  p{number}:", "    agent: shell", "    do: x", "    check: 'true'"]
        lines += [f"    {every}"] if every else []
    names = ", ".join(f"p{n}" for n in range(count))
    lines += ["  all:", f"    after: [{names}]", f"    do: |\n      {last}"]
    lines += [more or "    agent: shell\n    check: 'true'"]
    return "\n".join(lines) + "\n"


@pytest.fixture
def hub() -> One:
    world = Cores("hub")
    know(world["hub"])
    return world["hub"]


def finish(machine: One, status: str = "done", **more: Any) -> int:
    """End every attempt that was started; how many."""
    count = 0
    while starts := wanted(machine, StartAttempt):
        for start in starts:
            if start.open.phase == "all":
                machine.effects.append(start)
                return count
            count += 1
            task, epoch = start.assign.task, start.assign.epoch
            machine.step(attempt_ended(task, epoch, status, **more))
    return count


def opening(machine: One) -> kinds.TaskOpen:
    found = [body_as(e, kinds.TaskOpen) for e in machine.entries("task.open")]
    (body,) = [each for each in found if each.phase == "all"]
    return body


def whole(machine: One, body: kinds.TaskOpen) -> dict[str, dict[str, str]]:
    """What a worker reads of it, as far as it stands in the log."""
    if not yields.results_of(body):
        return body.values
    store = machine.core.store
    found = yields.gathered(store, machine.core.machine, body.run, yields.phases_of(body))
    assert yields.digest(found) == yields.results_of(body)
    texts = [str(body.template["do"])]
    used = yields.used(yields.pieces(store, found), values.uses(texts))
    return {n: {v: yields.joined(p) for v, p in known.items()} for n, known in used.items()}


@proves("node.values-whole")
def test_small_values_stand_in_the_opening_and_only_those_that_are_used(hub):
    hand_in(hub, spec(3, "echo $MUSTER_P1_OUTPUT"))
    finish(hub, values={"output": "said", "machine": "hub"}, summary="short")
    body = opening(hub)
    assert yields.results_of(body) == ""
    assert body.values["p1"] == {
        "commit": "",
        "output": "said",
        "status": "done",
        "summary": "short",
    }
    assert "output" not in body.values["p0"]


@proves("node.values-whole")
@pytest.mark.parametrize("text", ["x" * 4_000, '"' * 4_000, "\n\\" * 2_000, "é" * 3_900])
def test_many_values_are_left_in_the_log_where_they_do_not_fit_into_the_opening(hub, text):
    names = " ".join(f"$MUSTER_P{n}_OUTPUT" for n in range(20))
    run = hand_in(hub, spec(20, f"echo {names}"))
    assert finish(hub, values={"output": text}) == 20
    body = opening(hub)
    assert len(kinds.body_bytes(body)) <= BODY_BYTES_MAX
    given = whole(hub, body)
    assert [given[f"p{n}"]["output"] for n in range(20)] == [text] * 20
    end(hub)
    assert state(hub, run) == "done"


@proves("node.values-whole")
def test_a_large_value_is_named_with_who_has_it_and_under_which_entry(hub):
    hand_in(hub, spec(1, "cat $MUSTER_P0_OUTPUT_FILE"))
    told = str(Large(500_000, BLOB))
    finish(hub, values={"output": "the end"}, large={"output": told})
    body = opening(hub)
    assert yields.results_of(body)
    assert body.values["p0"] == {"commit": ""}
    found = yields.gathered(hub.core.store, hub.core.machine, body.run, ["p0"])
    piece = yields.pieces(hub.core.store, found)["p0"]["output"][0]
    (finished,) = hub.entries("attempt.finish")
    assert piece == ("the end", Large(500_000, BLOB), finished.id, hub.core.machine)


@proves("node.values-whole")
@pytest.mark.parametrize("uses", ["$MUSTER_P0_OUTPUT", "$MUSTER_P0_OUTPUT_FILE"])
def test_a_value_beyond_the_bound_fails_the_phase_that_names_it_before_it_starts(hub, uses):
    run = hand_in(hub, spec(1, f"echo {uses}"))
    finish(hub, values={"output": "end"}, large={"output": str(Large(VALUE_BYTES_MAX + 1))})
    assert state(hub, run) == "failed"
    reason = json.loads(hub.entries("run.settle")[0].body)["summary"]
    assert "phase all failed: ${p0.output} has 1048577 bytes, and 1048576 is the most" in reason
    assert len(hub.entries("task.open")) == 1


@proves("node.values-whole")
def test_a_value_beyond_the_bound_concerns_nobody_who_does_not_name_it(hub):
    run = hand_in(hub, spec(1, "echo $MUSTER_P0_SUMMARY"))
    finish(hub, values={"output": "end"}, large={"output": str(Large(10**9))}, summary="s")
    assert opening(hub).values["p0"]["summary"] == "s"
    end(hub)
    assert state(hub, run) == "done"


@proves("node.values-whole")
def test_values_that_are_too_many_together_are_refused(hub):
    names = " ".join(f"$MUSTER_P{n}_OUTPUT" for n in range(20))
    run = hand_in(hub, spec(20, f"echo {names}"))
    finish(hub, values={"output": "e"}, large={"output": str(Large(VALUE_BYTES_MAX, BLOB))})
    assert state(hub, run) == "failed"
    assert b"20971600 bytes together, at most 16777216" in hub.entries("run.settle")[0].body


@proves("node.values-whole", "node.mistakes-end-one-thing")
@pytest.mark.parametrize("told", ["x", "blob:..:5", f"blob:{BLOB}:{10**9}", ""])
def test_a_worker_that_names_a_blob_badly_fails_the_phase_that_needs_it(hub, told):
    run = hand_in(hub, spec(1, "echo $MUSTER_P0_OUTPUT"))
    finish(hub, large={"output": told})
    assert state(hub, run) == "failed"


@proves("node.values-whole")
def test_a_person_is_asked_with_the_ends_of_what_is_too_long_to_show(hub):
    names = " ".join(f"${{p{n}.output}}" for n in range(20))
    hand_in(hub, spec(20, f"Read {names}", more="    by: human"))
    finish(hub, values={"output": "y" * 3_900 + "…"}, large={"output": str(Large(10**9))})
    body = opening(hub)
    asked = hub.call("why", {"task": body.task})["value"]["question"]
    assert asked.startswith("Read yyy")
    assert asked.count("…") == 20


@proves("node.values-whole")
def test_of_a_race_the_winner_yields_also_after_a_restart_in_which_it_was_opened_last(hub):
    """Both racers are done in one step, the second one first."""
    run = hand_in(
        hub, spec(1, "echo $MUSTER_P0_OUTPUT" + " " * 10, every="race: 2", head="repo: main")
    )
    for each in wanted(hub, RaiseFence):
        hub.step(Fenced(each.task, each.epoch))
    first, second = sorted(wanted(hub, StartAttempt), key=lambda s: s.open.instance)
    for start, said in ((first, "one"), (second, "two")):
        task, epoch = start.assign.task, start.assign.epoch
        values = {"output": said}
        hub.step(attempt_ended(task, epoch, "done", commit="c" * 40, values=values))
    moves = {m.task: m for m in wanted(hub, MoveBranch)}
    order = [moves[second.assign.task], moves[first.assign.task]]
    hub.step(*(Promoted(m.task, m.epoch, m.commit) for m in order))
    assert opening(hub).values["p0"]["output"] == "two"
    assert hub.core.part(RunService).progress(run)["p0"].winner == ("p0", "2")
    hub.world.restart("hub")
    know(hub)
    hub.world.pass_ms(5_000)
    assert hub.core.part(RunService).progress(run)["p0"].winner == ("p0", "2")
    found = yields.settlements(hub.core.store, hub.core.machine, run, "p0")
    assert [each.instance for each in found] == ["2"]


@proves("spec.values-yielded")
def test_what_a_phase_delivered_and_used_up_are_values_too(hub):
    hand_in(hub, spec(1, "echo $MUSTER_P0_ARTEFACTS $MUSTER_P0_USAGE"))
    blobs = (f"blob:{BLOB}:5:out/a.txt", f"blob:{BLOB}:5:tool*", f"blob:{BLOB}:5:dist/")
    finish(hub, artefacts=blobs, usage={"output_tokens": 2, "input_tokens": 1})
    given = opening(hub).values["p0"]
    assert given["artefacts"] == "out/a.txt\ntool\ndist"
    assert given["usage"] == "input_tokens 1, output_tokens 2"


@proves("node.agent-events-bounded")
@pytest.mark.parametrize("mark", ["\x01", '"', "\\", "\n", "é", "🙂", "\ud800", "x"])
def test_the_end_of_an_attempt_fits_into_its_entry_whatever_it_says(mark):
    long = mark * 100_000
    event = attempt_ended(
        "t" * 128, (2**52, 2**52), "done", long, long, "c" * 64,
        {f"{mark * 100}{n}": long for n in range(100)}, tuple(long[:300] for _ in range(1_000)),
        {f"{mark * 100}{n}": 2**52 for n in range(100)},
        {f"{mark * 100}{n}": "blob:" + long for n in range(100)},
    )  # fmt: skip
    body = event.body
    raw = kinds.body_bytes(body)
    assert len(raw) <= BODY_BYTES_MAX
    # What the owner makes of it has a byte more or less, and must fit as well.
    assert len(raw) < BODY_BYTES_MAX - 1024


def test_a_phase_with_a_repository_starts_from_the_winner_of_a_race_alone(hub):
    hand_in(hub, spec(1, "x", every="race: 2", head="repo: main"))
    for each in wanted(hub, RaiseFence):
        hub.step(Fenced(each.task, each.epoch))
    events = []
    for number, start in enumerate(wanted(hub, StartAttempt)):
        commit = str(number + 1) * 40
        hub.step(attempt_ended(start.assign.task, start.assign.epoch, "done", commit=commit))
    events = [Promoted(m.task, m.epoch, m.commit) for m in wanted(hub, MoveBranch)]
    hub.step(*events)
    assert opening(hub).base == events[0].commit
