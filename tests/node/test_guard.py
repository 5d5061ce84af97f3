"""Faults in the middle of a step, caused on purpose: one unit ends, everything else goes on.

A mistake of ours is what nobody thought of, so it is put into the running parts: each test replaces
one function by one that raises, for one task, run, entry or call, and looks at all the others.
"""

import json
from typing import Any

import msgspec
import pytest
from tests.node.cores import LOCAL, Cores, One, attempt_ended
from tests.node.test_runs import CHAIN, SLOW, end, hand_in, state, wanted
from tests.promise import proves

from muster.errors import Broken, Refused
from muster.limits import FAILURES_PER_HOUR_MAX, STEP_REACTIONS_MAX
from muster.log import canon
from muster.log.fold import Skip
from muster.node import event as ev
from muster.node.call.router import Router
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.tasks.owner import OwnerService
from muster.node.tasks.runs import RunService
from muster.node.tasks.worker import WorkerService
from muster.task import kinds
from muster.task.fold import RUN, TASK
from muster.task.instruction import StartAttempt, StopAttempt
from muster.task.ledger import Ledger
from muster.verbs.message import Send

MISTAKES = [
    KeyError("x"),
    IndexError("x"),
    ValueError("x"),
    AssertionError(),
    RuntimeError("dictionary changed size during iteration"),
    NameError("x"),
    Refused("no"),
    Skip("x"),
]


def incidents(machine: One) -> list[dict[str, Any]]:
    return [json.loads(e.body) for e in machine.entries("incident.open")]


def alive(machine: One) -> bool:
    answer = machine.call("status", {})
    return bool(answer and answer["ok"])


@proves("node.one-failure-is-one-unit")
@pytest.mark.parametrize("mistake", [*MISTAKES, msgspec.EncodeError("x")])
def test_a_reaction_that_fails_takes_back_what_it_wrote_and_nothing_else(mistake):
    hub = Cores("hub")["hub"]
    seen: list[str] = []

    def fails(stream: Any, entry: Any) -> None:
        hub.core.append("note.half", b"{}")
        raise mistake

    hub.core.on("machine.facts", fails)
    hub.core.on("machine.facts", lambda _s, e: seen.append(e.header.kind))
    hub.step(FactsChanged(hub.facts(cpus=7)))
    assert seen == ["machine.facts"], "the reactions after it were heard"
    assert hub.entries("note.half") == []
    assert hub.core.roster.facts[hub.id].cpus == 7
    assert hub.core.counters["failed-machine.facts"] == 1
    assert len(incidents(hub)) == 1
    assert alive(hub)


@proves("node.one-failure-is-one-unit")
def test_a_disk_that_fails_is_no_unit_and_ends_the_step():
    hub = Cores("hub")["hub"]

    def fails(stream: Any, entry: Any) -> None:
        hub.core.store._database.broken = "the disk is gone"
        hub.core.store.remember("x", "y")

    hub.core.on("machine.facts", fails)
    with pytest.raises(Broken):
        hub.step(FactsChanged(hub.facts(cpus=7)))


@proves("node.one-failure-is-one-unit")
def test_what_this_machine_cannot_do_for_somebody_is_answered_and_ends_nothing(monkeypatch):
    hub = Cores("hub")["hub"]

    def cannot(core: Any, call: Any, ask: Send) -> None:
        raise Broken("the agent catalogue is not usable")

    monkeypatch.setattr("muster.verbs.message.send", cannot)
    answer = hub.order("send", "all", {"text": ["hi"], "to": "all"})
    assert answer["error"]["exit"] == 8
    hub.core.on("machine.facts", lambda _s, _e: cannot(None, None, None))
    hub.step(FactsChanged(hub.facts(cpus=7)))
    hub.core.on("machine.facts", lambda _s, _e: cannot(None, None))
    hub.step(FactsChanged(hub.facts(cpus=7)))
    assert hub.core.counters["failed-machine.facts"] == 1
    assert alive(hub)


@proves("node.one-failure-is-one-unit")
def test_whoever_makes_things_fail_all_the_time_cannot_fill_the_log():
    hub = Cores("hub")["hub"]

    def fails(stream: Any, entry: Any) -> None:
        raise KeyError(entry.header.kind)

    names = [f"note.{a}{b}" for a in "abcdefghij" for b in "abcdefghij"]
    count = len(names)
    assert count > 2 * FAILURES_PER_HOUR_MAX
    for kind in names:
        hub.core.on(kind, fails)

    def floods(stream: Any, entry: Any) -> None:
        for kind in names:
            hub.core.append(kind, b"{}")

    hub.core.on("machine.facts", floods)
    hub.step(FactsChanged(hub.facts(cpus=3)))
    hub.step(FactsChanged(hub.facts(cpus=4)))
    assert 0 < len(incidents(hub)) <= FAILURES_PER_HOUR_MAX
    failed = [n for name, n in hub.core.counters.items() if name.startswith("failed-note")]
    assert sum(failed) == 2 * count, "every one of them is counted"


@proves("node.one-failure-is-one-unit")
def test_a_verb_that_fails_is_answered_and_taken_back(monkeypatch):
    hub = Cores("hub")["hub"]
    before = hub.sizes()

    def fails(core: Any, call: Any, ask: Send) -> None:
        core.append("note.half", b"{}")
        raise IndexError("list index out of range")

    monkeypatch.setattr("muster.verbs.message.send", fails)
    answer = hub.order("send", "all", {"text": ["hi"], "to": "all"})
    assert not answer["ok"]
    assert answer["error"]["exit"] == 8
    assert "failed at send" in answer["error"]["text"]
    assert "Traceback" not in answer["error"]["text"]
    assert hub.entries("note.half") == hub.entries("order.take") == []
    denied = sum(hub.sizes().values()) - sum(before.values())
    assert denied == 2, "what stays is the denial and the incident"
    assert alive(hub)


@proves("node.one-failure-is-one-unit")
def test_an_answer_that_cannot_be_dealt_with_harms_nobody():
    world = Cores("hub", "studio")
    here, _ = world.link("hub", "studio")
    hub = world["hub"]

    def fails(answer: Any) -> None:
        raise KeyError("value")

    hub.core.part(Router).asked[here, 99] = fails
    hub.core.part(Router).asked[here, 101] = fails
    hub.step(ev.LinkDown(here))
    assert hub.core.counters["failed-answer"] == 2
    assert alive(hub)


# --- tasks and runs ---------------------------------------------------------------------------------


def tasks(machine: One) -> dict[str, str]:
    return {r.task: r.state for r in machine.core.tables.rows(TASK)}


@proves("node.one-failure-is-one-unit")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_an_owner_that_fails_at_one_task_cancels_it_and_keeps_the_others(monkeypatch, mistake):
    hub = Cores("hub")["hub"]
    others = [hub.submit(agent=["shell"], do="sleep 1") for _ in range(2)]
    report = type(hub.core.part(OwnerService).owner).report
    bad = wanted(hub, StartAttempt)[0]

    def fails(self: Any, entry: Any, machine: str, body: Any, now: Any, **more: Any) -> None:
        if body.task == bad.assign.task and type(body).__name__ == "AttemptFinish":
            raise mistake
        report(self, entry, machine, body, now, **more)

    monkeypatch.setattr("muster.task.owner.Owner.report", fails)
    hub.step(attempt_ended(bad.assign.task, bad.assign.epoch, "done", summary="x"))
    hub.world.pass_ms(200)
    assert alive(hub)
    # It is not left to its lease, after which it would be done a second time.
    assert tasks(hub)[bad.assign.task] == "cancelled"
    left = next(t for t in others if t != bad.assign.task)
    assert tasks(hub)[left] == "leased"
    monkeypatch.undo()
    fresh = hub.submit()
    assert tasks(hub)[fresh] == "done"


@proves("node.one-failure-is-one-unit")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_task_whose_lease_cannot_be_ended_is_cancelled_and_said(monkeypatch, mistake):
    hub = Cores("hub")["hub"]
    bad, good = hub.submit(agent=["shell"], do="sleep 1"), hub.submit(agent=["shell"], do="sleep 1")
    lose = Ledger.lose

    def fails(self: Any, task: Any, *more: Any) -> None:
        if task.body.task == bad:
            raise mistake
        lose(self, task, *more)

    monkeypatch.setattr(Ledger, "lose", fails)
    monkeypatch.setattr("muster.task.worker.Worker.beats", lambda *_: None)
    hub.world.pass_ms(35_000)
    assert tasks(hub)[bad] == "cancelled"
    assert tasks(hub)[good] == "queued" or tasks(hub)[good] == "leased"
    reason = next(r.reason for r in hub.core.tables.rows(TASK) if r.task == bad)
    assert reason
    assert alive(hub)


@proves("node.one-failure-is-one-unit")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_run_that_cannot_go_on_fails_with_the_reason_and_another_one_is_done(
    monkeypatch, mistake
):
    hub = Cores("hub")["hub"]
    order = hub.core.part(RunService)._order

    def fails(run: Any, slot: Any, *more: Any) -> Any:
        if run.spec.name == "bad" and slot.phase == "second":
            raise mistake
        return order(run, slot, *more)

    monkeypatch.setattr(hub.core.part(RunService), "_order", fails)
    bad = hand_in(hub, SLOW.replace("name: chain", "name: bad"), "bad")
    end(hub)
    good = hand_in(hub, CHAIN)
    hub.step(ev.Tick())
    assert state(hub, bad) == "failed"
    assert state(hub, good) == "done"
    assert next(r.summary for r in hub.core.tables.rows(RUN) if r.run == bad)
    assert bad not in hub.core.part(RunService).runs
    hub.world.restart("hub")
    hub.world.pass_ms(3_000)
    assert state(hub, bad) == "failed"
    assert hub.core.part(RunService).runs == {}


@proves("node.one-failure-is-one-unit")
def test_a_run_that_fails_ends_the_tasks_that_it_had(monkeypatch):
    hub = Cores("hub")["hub"]
    two = SLOW.replace("  second:\n    after: first", "  second:")
    run = hand_in(hub, two)
    assert len(wanted(hub, StartAttempt)) == 2
    monkeypatch.setattr(hub.core.part(RunService), "_advance", _raises)
    hub.core.part(RunService).moved(run)
    hub.step(ev.Tick())
    assert state(hub, run) == "failed"
    assert set(tasks(hub).values()) == {"cancelled"}
    assert len(wanted(hub, StopAttempt)) == 2


def _raises(*_: Any) -> None:
    raise KeyError("what nobody thought of")


@proves("node.one-failure-is-one-unit")
def test_an_entry_that_cannot_be_written_fails_its_task_and_no_other(monkeypatch):
    hub = Cores("hub")["hub"]
    append = hub.core.append_all

    def fails(scope: Any, drafts: Any) -> Any:
        if any(b"too-much" in d.body and d.kind == "task.settle" for d in drafts):
            raise Refused("the body has 70000 bytes")
        return append(scope, drafts)

    monkeypatch.setattr(hub.core, "append_all", fails)
    bad, good = hub.submit(agent=["shell"], do="sleep 1"), hub.submit(agent=["shell"], do="sleep 1")
    starts = wanted(hub, StartAttempt)
    ends = [
        attempt_ended(
            s.assign.task, s.assign.epoch, "done",
            summary="too-much" if s.assign.task == bad else "fine",
        )
        for s in starts
    ]  # fmt: skip
    hub.step(*ends)
    assert tasks(hub) == {bad: "cancelled", good: "done"}
    assert alive(hub)


@proves("node.one-failure-is-one-unit")
def test_an_attempt_whose_end_makes_no_entry_ends_as_failed():
    hub = Cores("hub")["hub"]
    task = hub.submit(agent=["shell"], do="sleep 1")
    (start,) = wanted(hub, StartAttempt)
    hub.core.part(WorkerService).worker.ended(
        kinds.AttemptFinish(task, start.assign.epoch, "done", artefacts=["x" * 700] * 100)
    )
    hub.step(ev.Tick())
    assert tasks(hub) == {task: "failed"}
    (finish,) = hub.entries("attempt.finish")
    assert "bytes" in json.loads(finish.body)["reason"]
    assert alive(hub)


@proves("node.one-failure-is-one-unit")
def test_assigning_that_fails_ends_the_task_that_was_next(monkeypatch):
    hub = Cores("hub")["hub"]
    place = Ledger.place

    def fails(self: Any, task: Any, *more: Any) -> None:
        if task.body.template["do"] == "bad":
            raise KeyError("bad")
        place(self, task, *more)

    monkeypatch.setattr(Ledger, "place", fails)
    bad = hub.submit(do="bad")
    good = hub.submit()
    assert tasks(hub) == {bad: "cancelled", good: "done"}


# --- starting ---------------------------------------------------------------------------------------


@proves("node.starts-whatever-it-holds")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_task_that_cannot_be_taken_up_is_ended_and_the_others_are_taken_up(monkeypatch, mistake):
    world = Cores("hub")
    hub = world["hub"]
    bad, good = (
        hub.submit(agent=["shell"], do="sleep 1"),
        hub.submit(agent=["shell"], needs={"label": "x"}),
    )
    admit = Ledger.admit

    def fails(self: Any, task: Any, *more: Any) -> None:
        if task.body.task == bad:
            raise mistake
        admit(self, task, *more)

    monkeypatch.setattr(Ledger, "admit", fails)
    world.restart("hub")
    world.pass_ms(3_000)
    assert tasks(hub) == {bad: "cancelled", good: "queued"}
    assert alive(hub)
    world.restart("hub")
    world.pass_ms(3_000)
    assert tasks(hub) == {bad: "cancelled", good: "queued"}


@proves("node.starts-whatever-it-holds")
def test_a_run_that_cannot_be_taken_up_is_settled_and_the_others_go_on(monkeypatch):
    world = Cores("hub")
    hub = world["hub"]
    bad = hand_in(hub, SLOW.replace("name: chain", "name: bad"), "bad")
    good = hand_in(hub, SLOW)
    parse = __import__("muster.node.tasks.opened_run", fromlist=["parse"]).parse

    def fails(raw: bytes) -> Any:
        if b"name: bad" in raw:
            raise KeyError("bad")
        return parse(raw)

    monkeypatch.setattr("muster.node.tasks.opened_run.parse", fails)
    world.restart("hub")
    world.pass_ms(3_000)
    assert state(hub, bad) == "failed"
    assert state(hub, good) == "open"
    assert list(hub.core.part(RunService).runs) == [good]


@proves("node.starts-whatever-it-holds")
def test_a_stream_that_opens_with_anything_stops_no_start():
    world = Cores("hub", "studio")
    studio = world["studio"]
    odd = [
        ("note.x", {"heads": {"no stream": {"root": "0" * 64, "size": 1}}, "record": "x"}),
        ("machine.open", {"heads": {"no/stream": {"root": "0" * 64, "size": 1}}, "record": "x"}),
        ("machine.open", {"heads": "none", "record": studio.record.decode()}),
    ]
    for number, (kind, body) in enumerate(odd):
        core = studio.core
        incarnation = type(core.membership.incarnation)(f"{number + 1:032x}")
        stream = core.membership.own("fleet")._replace(incarnation=incarnation)
        with core.store.transaction():
            core.store.append(stream, (_draft(kind, body),), world.now().wall_ms)
            core.store.seal_dirty(core.membership.signer("seal"))
    world.link("hub", "studio")
    world.pass_ms(1_000)
    hub = world["hub"]
    assert len(hub.entries("note.x")) == 1, "it was taken, as whatever a member writes"
    for _ in range(2):
        world.restart("hub")
        assert alive(hub)


def _draft(kind: str, body: Any) -> Any:
    from muster.store.store import Draft

    return Draft(kind, "muster", (), canon.encode(body))


@proves("node.steps-are-bounded")
def test_reactions_without_end_are_cut_short_and_the_machine_answers():
    hub = Cores("hub")["hub"]
    hub.core.on("note.again", lambda _s, _e: hub.core.append("note.again", b"{}"))
    hub.core.on("machine.facts", lambda _s, _e: hub.core.append("note.again", b"{}"))
    hub.step(FactsChanged(hub.facts(cpus=3)))
    size = len(hub.entries("note.again"))
    assert 0 < size <= STEP_REACTIONS_MAX + 1
    assert hub.core.counters["steps-cut-short"] == 1
    assert hub.raw(canon.encode({"args": {}, "verb": "version"}), LOCAL) is not None
