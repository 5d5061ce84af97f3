"""Whose a task or run is, when a member lies in its own stream about those of others."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from muster.channel.frame import Type
from muster.fleet import kinds as fleet_kinds
from muster.log import canon
from muster.log.stream import scope_to
from muster.node import event as ev
from muster.task import kinds
from muster.task.evidence import run_args
from muster.task.fold import ATTEMPT
from muster.task.identity import run_id, task_id
from muster.task.spec import parse
from muster.task.template import phase_order
from tests.fleet.world import BUILD, LAPTOP, LAPTOP_RECORD, STUDIO
from tests.promise import proves
from tests.security.peer import Peer
from tests.security.target import LOCAL, MEMBER, Target

SPEC = "muster: 1\nname: hello\nphases:\n  one:\n    agent: noop\n    do: '{}'\n    check: 'true'\n"
# It waits for a person.
SLOW = "muster: 1\nname: hello\nphases:\n  one:\n    by: human\n    do: look at it\n"
BLOB = "blob:" + "ab" * 32 + ":12:report.txt"
LATER_MS = 7_200_000


class World:
    """A hub (the target), an honest owner (laptop), and a member that went bad (build)."""

    def __init__(self) -> None:
        self.target = Target()
        self.honest, self.bad = Peer(LAPTOP, LAPTOP_RECORD), Peer()
        for peer in (self.honest, self.bad):
            self.target.frame(MEMBER, Type.SEGMENT, peer.segment(0))

    def ask(self, verb: str, /, **args: Any) -> Any:
        answers = self.target.call(LOCAL, verb, args)
        notes = [a["value"]["note"] for a in answers[:-1] if "note" in a["value"]]
        answer = answers[-1]
        return answer["value"] if answer["ok"] and not notes else (answer, notes)

    def error(self, verb: str, **args: Any) -> dict[str, Any]:
        found: dict[str, Any] = self.target.call(LOCAL, verb, args)[-1]["error"]
        return found

    def run(self, spec: str = SPEC) -> str:
        """A run of the hub itself."""
        args = {"base": "", "repo": "", "spec": spec, "values": {}}
        statement = self.target.order("run", "hello", args)
        answer = self.target.call(LOCAL, "run", args, statement=statement)[-1]
        self.target.step(ev.Tick())
        return str(answer["value"]["run"])

    def send(self, peer: Peer, start: int) -> None:
        self.target.frame(MEMBER, Type.SEGMENT, peer.segment(start))
        self.target.step(ev.Tick())

    def statement(self, machine: str, repo: str = "") -> str:
        """A genuine order of a run to this machine, in hex."""
        args = run_args(kinds.RunOpen(run="r", name="hello", spec=SPEC, statement="", repo=repo))
        return self.target.order("run", "hello", args, target=machine).encode().hex()

    def own(
        self, peer: Peer, statement: str, run: str, task: str, *, summary: str = "", repo: str = ""
    ) -> None:
        """The peer opens a run and its task, and settles the task as done."""
        peer.now_ms = self.target.now.wall_ms
        start = peer.store.log.size(peer.stream())
        fields = {"name": "hello", "run": run, "spec": SPEC, "statement": statement}
        fields |= {"repo": repo} if repo else {}
        opened_run = peer.write("run.open", canon.encode(fields))
        body = kinds.TaskOpen(task=task, template={"do": "{}"}, run=run, phase="one")
        opened = peer.write("task.open", kinds.body_bytes(body), cause=(opened_run.id,))
        assign = kinds.TaskAssign(task, (1, 1), peer.identity.machine, "noop", 60_000)
        given = peer.write("task.assign", kinds.body_bytes(assign), cause=(opened.id,))
        end = kinds.TaskSettle(task, "done", (1, 1), summary=summary)
        peer.write("task.settle", kinds.body_bytes(end), cause=(given.id,))
        self.send(peer, start)

    def lie(self, task: str, run: str = "") -> None:
        """The member tells its own story of a task, without any order, an hour later than all."""
        bad = self.bad
        bad.now_ms = self.target.now.wall_ms + LATER_MS
        start = bad.store.log.size(bad.stream())
        body = kinds.TaskOpen(task=task, template={"do": "{}"}, run=run, phase="one")
        opened = bad.write("task.open", kinds.body_bytes(body))
        epoch = (9_999_999_999_999, 1)
        assign = kinds.TaskAssign(task, epoch, BUILD.machine, "noop", 60_000)
        given = bad.write("task.assign", kinds.body_bytes(assign), cause=(opened.id,))
        begun = kinds.AttemptStart(task, epoch, "noop")
        bad.write("attempt.start", kinds.body_bytes(begun), cause=(given.id,))
        ended = kinds.AttemptFinish(task, epoch, "done", summary="x", artefacts=[BLOB])
        end = bad.write("attempt.finish", kinds.body_bytes(ended), cause=(given.id,))
        settle = kinds.TaskSettle(
            task, "done", epoch, summary="FORGED", values={"output": "FORGED"}, artefacts=[BLOB]
        )
        bad.write("task.settle", kinds.body_bytes(settle), cause=(given.id, end.id))
        self.send(bad, start)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.target.store.close()


@proves("task.only-the-owner-speaks", "task.claims-are-claims", "task.attempts-were-given")
def test_nothing_that_a_member_writes_under_our_id_is_shown_as_ours(world: World) -> None:
    run = world.run()
    (task,) = (each["task"] for each in world.ask("tasks", run=run))
    verbs = ("why", "result", "artefacts", "explain", "journal.where")
    before = {verb: world.ask(verb, task=task) for verb in verbs}
    before |= {"tasks": world.ask("tasks", all=True), "runs": world.ask("runs", run=run)}
    world.lie(task, run)
    after = {verb: world.ask(verb, task=task) for verb in verbs}
    after |= {"tasks": world.ask("tasks", all=True), "runs": world.ask("runs", run=run)}
    claims = [{"machine": "build", "state": "done"}]
    assert after["why"].pop("claims") == claims
    assert after["explain"].pop("claims") == claims
    for verb in ("why", "explain"):
        assert before[verb].pop("claims") == []
    assert after == before
    assert "FORGED" not in json.dumps(after)


@proves("task.ids-name-their-owner")
@pytest.mark.parametrize("first", ["honest", "bad"])
def test_an_owner_is_known_by_the_id_whoever_is_heard_first(world: World, first: str) -> None:
    statement = world.statement(LAPTOP.machine)
    run = run_id(LAPTOP.machine, statement)
    task = task_id(run, "one", "")
    genuine = world.statement(BUILD.machine)

    def honest() -> None:
        world.own(world.honest, statement, run, task, summary="true")

    def bad() -> None:
        # The member was ordered a run, too; it calls it by the other one's id.
        world.own(world.bad, genuine, run, task, summary="FORGED")

    for tell in (honest, bad) if first == "honest" else (bad, honest):
        tell()
    assert world.ask("result", task=task)["summary"] == "true"
    assert world.ask("runs", run=run)["owner"] == "laptop"
    assert [t["owner"] for t in world.ask("tasks", all=True)] == ["laptop"]
    claims = world.ask("why", task=task)["claims"]
    assert claims == [{"machine": "build", "state": "done"}]


@proves("task.ids-name-their-owner")
def test_of_an_older_machines_random_id_the_owner_is_who_was_ordered_and_heard_first(
    world: World,
) -> None:
    run, task = "a" * 32, "b" * 32
    world.own(world.honest, world.statement(LAPTOP.machine), run, task, summary="true")
    world.own(world.bad, world.statement(BUILD.machine), run, task, summary="FORGED")
    assert world.ask("result", task=task)["summary"] == "true"
    # An order to another machine makes nobody an owner.
    stolen, other = world.statement(LAPTOP.machine), "c" * 32
    world.own(world.bad, stolen, other, "d" * 32)
    assert world.error("runs", run=other)["kind"] == "NotFound"


@proves("task.nobodys-is-not-listed", "task.claims-are-claims")
def test_what_nobody_ordered_is_in_no_list_and_who_claims_it_is_named(world: World) -> None:
    world.lie("c" * 32)
    assert world.ask("tasks", all=True) == []
    for verb in ("why", "result", "artefacts", "explain", "journal.where"):
        error = world.error(verb, task="c" * 32)
        assert (error["kind"], error["exit"]) == ("NotFound", 5)
        assert "build claims" in error["text"]


@proves("task.only-the-owner-speaks")
def test_nobody_puts_a_task_into_another_machines_run(world: World) -> None:
    run = world.run(SLOW)
    own = [each["task"] for each in world.ask("tasks", run=run)]
    # With an order of its own, and a run of its own of the same name.
    world.own(world.bad, world.statement(BUILD.machine), run, "e" * 32, summary="FORGED")
    assert [each["task"] for each in world.ask("tasks", run=run)] == own
    assert [each["task"] for each in world.ask("runs", run=run)["tasks"]] == own
    assert world.error("why", task="e" * 32)["kind"] == "NotFound"


@proves("task.ids-name-their-owner")
@pytest.mark.parametrize("known", [True, False])
def test_a_worker_does_nothing_for_who_calls_its_task_by_anothers_id(
    world: World, known: bool
) -> None:
    """Else the owner would be told that another's task of that name runs there already."""
    ordered, target = world.statement(LAPTOP.machine), world.target
    run = run_id(LAPTOP.machine, ordered)
    task = task_id(run, "one", "")
    if known:
        world.own(world.honest, ordered, run, task)
    bad = world.bad
    bad.now_ms = target.now.wall_ms
    start = bad.store.log.size(bad.stream())
    fields = {"name": "hello", "run": run, "spec": SPEC}
    statement = world.statement(BUILD.machine)
    opened_run = bad.write("run.open", canon.encode({**fields, "statement": statement}))
    template = phase_order(parse(SPEC.encode()), "one")
    body = kinds.TaskOpen(task=task, template=template, run=run, phase="one")
    opened = bad.write("task.open", kinds.body_bytes(body), cause=(opened_run.id,))
    assign = kinds.TaskAssign(task, (1, 1), STUDIO.machine, "noop", 60_000)
    bad.write("task.assign", kinds.body_bytes(assign), cause=(opened.id,))
    world.send(bad, start)
    store = target.core.store
    said = [row.reason for row in store.tables.rows(ATTEMPT, writer=STUDIO.machine, task=task)]
    assert said == (["other-owner"] if known else []), said


@proves("task.squatted-beginnings")
def test_a_beginning_finds_what_is_meant_although_a_member_has_ids_like_it(world: World) -> None:
    run = world.run()
    (task,) = (each["task"] for each in world.ask("tasks", run=run))
    for number in range(12):
        world.lie(task[:12] + f"{number:020x}")
    # Also where the member was ordered a run, and chose the ids of its tasks.
    world.own(world.bad, world.statement(BUILD.machine), run[:12] + "0" * 20, task[:12] + "f" * 20)
    assert world.ask("why", task=task[:12])["task"]["task"] == task
    assert world.ask("runs", run=run[:12])["run"] == run
    assert world.ask("target", verb="cancel", object=task[:12], on="")["name"] == "studio"


@proves("task.squatted-beginnings")
def test_a_beginning_of_another_owners_id_is_not_squatted_either(world: World) -> None:
    statement = world.statement(LAPTOP.machine)
    run = run_id(LAPTOP.machine, statement)
    task = task_id(run, "one", "")
    # The member was ordered runs of its own, and chose all ids like those of the honest owner.
    for digit in "0f":
        like = (run[:12] + digit * 20, task[:12] + digit * 20)
        world.own(world.bad, world.statement(BUILD.machine), *like)
    world.own(world.honest, statement, run, task, summary="true")
    assert world.ask("result", task=task[:12])["summary"] == "true"
    assert world.ask("runs", run=run[:12])["owner"] == "laptop"


@proves("task.lists-are-fair", "task.cut-lists-say-so")
def test_a_live_task_stays_in_the_list_whatever_comes_after_it(world: World) -> None:
    run = world.run(SLOW)
    (task,) = (each["task"] for each in world.ask("tasks", run=run))
    start = world.bad.store.log.size(world.bad.stream())
    for number in range(40):
        body = kinds.TaskOpen(task=f"{number:032x}", template={"do": "{}"})
        world.bad.now_ms = world.target.now.wall_ms + LATER_MS
        world.bad.write("task.open", kinds.body_bytes(body))
    world.send(world.bad, start)
    answer, notes = world.ask("tasks", limit=10)
    assert [each["task"] for each in answer["value"]] == [task]
    assert len(notes) == 1
    assert "--limit" in notes[0]
    assert [each["task"] for each in world.ask("tasks")] == [task]


@proves("task.lists-are-fair")
def test_settled_tasks_do_not_hide_a_live_one_that_is_older(world: World) -> None:
    run = world.run(SLOW)
    (task,) = (each["task"] for each in world.ask("tasks", run=run))
    for number in range(5):
        world.run(SPEC.replace("name: hello", f"name: hello  # {number}"))
    assert [each["task"] for each in world.ask("tasks", limit=2)] == [task]


@proves("task.only-the-owner-speaks")
def test_an_id_that_a_member_wrote_first_can_still_be_ordered_of_us(world: World) -> None:
    task, template = "f" * 32, {"v": 1, "agent": ["noop"], "do": "{}"}
    world.lie(task)
    args = {"base": "", "repo": "", "template": template}
    statement = world.target.order("task", task, args)
    item = {"task": task, "template": template, "statement": statement}
    (answer,) = world.target.call(LOCAL, "submit", {"tasks": [item]})
    assert answer["value"] == {"tasks": [{"task": task, "fresh": True}]}
    (again,) = world.target.call(LOCAL, "submit", {"tasks": [item]})
    assert again["error"]["kind"] == "Conflict"


@proves("task.run-or-task")
def test_a_run_is_understood_where_a_task_is_asked_and_the_reverse(world: World) -> None:
    run = world.run()
    (task,) = (each["task"] for each in world.ask("tasks", run=run))
    assert world.ask("why", task=run[:12])["task"]["task"] == task
    assert world.ask("runs", run=task[:12])["run"] == run
    assert [each["task"] for each in world.ask("tasks", run=task[:12])] == [task]
    two = SPEC + "  two:\n    agent: noop\n    do: '{}'\n    check: 'true'\n"
    both = world.run(two)
    error = world.error("why", task=both[:12])
    assert error["kind"] == "Refused"
    assert f"{both[:12]}/one, {both[:12]}/two" in error["text"]


# --- who said it ------------------------------------------------------------------------------------


def _inbox(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.ask("inbox", all=True)[-1]
    return found


def _message(world: World, text: str, actor: str, cause: tuple[Any, ...] = ()) -> dict[str, Any]:
    scope = scope_to(STUDIO.machine)
    start = world.bad.store.log.size(world.bad.stream(scope))
    body = canon.encode({"text": text, "to": [STUDIO.machine]})
    if cause:
        # A daemon writes it in the step that took the order, as the next entry.
        world.bad.now_ms -= 1
    world.bad.write("message.send", body, scope=scope, actor=actor, cause=cause)
    world.target.frame(MEMBER, Type.SEGMENT, world.bad.segment(start, scope))
    return _inbox(world)


def _take(world: World, text: Any, *, target: str = BUILD.machine, to: str = "studio") -> Any:
    """The member takes an order to send this, as its daemon would."""
    start = world.bad.store.log.size(world.bad.stream())
    world.bad.now_ms = world.target.now.wall_ms
    statement = world.target.order("send", to, {"text": text, "to": to}, target=target)
    body = fleet_kinds.OrderTake("0" * 64, statement)
    entry = world.bad.write("order.take", canon.encode(body), actor="op:alice")
    world.send(world.bad, start)
    return entry


@proves("message.person-is-proven")
def test_a_message_that_only_says_it_is_a_persons_is_the_machines(world: World) -> None:
    item = _message(world, "merge it", "op:alice")
    assert (item["from"], item["trust"], item["claims"]) == ("build", "machine", "op:alice")


@proves("message.person-is-proven")
@pytest.mark.parametrize("typed", ["merge it", ["merge it"], ["merge", "it"]])
def test_a_message_that_the_persons_statement_was_signed_over_is_the_persons(
    world: World, typed: Any
) -> None:
    order = _take(world, typed)
    item = _message(world, "merge it", "op:alice", (order.id,))
    assert (item["from"], item["trust"]) == ("op:alice", "person")
    assert "claims" not in item


@proves("message.person-is-proven")
@pytest.mark.parametrize(
    "changed",
    [
        {"text": "something else"},
        {"to": "laptop"},
        {"target": LAPTOP.machine},
    ],
)
def test_an_order_for_another_text_recipient_or_machine_proves_nothing(
    world: World, changed: dict[str, Any]
) -> None:
    order = _take(world, **{"text": "merge it", **changed})
    item = _message(world, "merge it", "op:alice", (order.id,))
    assert (item["from"], item["trust"]) == ("build", "machine")


@proves("message.person-is-proven")
def test_an_order_that_another_machine_took_makes_a_member_speak_for_nobody(world: World) -> None:
    world.honest.now_ms = world.target.now.wall_ms
    start = world.honest.store.log.size(world.honest.stream())
    args = {"text": "merge it", "to": "studio"}
    statement = world.target.order("send", "studio", args, target="fleet")
    body = canon.encode(fleet_kinds.OrderTake("0" * 64, statement))
    taken = world.honest.write("order.take", body, actor="op:alice")
    world.send(world.honest, start)
    item = _message(world, "merge it", "op:alice", (taken.id,))
    assert (item["from"], item["trust"]) == ("build", "machine")


@proves("message.person-is-proven")
def test_the_order_must_be_of_the_operator_that_is_named(world: World) -> None:
    order = _take(world, "merge it")
    item = _message(world, "merge it", "op:bob", (order.id,))
    assert (item["trust"], item["claims"]) == ("machine", "op:bob")


@proves("message.person-is-proven")
def test_an_agent_is_of_the_machine_that_wrote_it(world: World) -> None:
    item = _message(world, "hello", "claude@laptop")
    assert (item["from"], item["trust"]) == ("claude@build", "agent")
    assert item["claims"] == "claude@laptop"
    item = _message(world, "hello again", "claude@build")
    assert (item["from"], item["trust"], "claims" in item) == ("claude@build", "agent", False)
