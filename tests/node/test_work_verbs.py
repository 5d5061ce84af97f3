"""What the verbs about work promise, on one core."""

from typing import Any

import pytest
from tests.node.cores import Cores, attempt_ended
from tests.promise import proves

from muster.errors import Malformed
from muster.log import canon
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.tasks.attempt_body import AttemptEnded, AttemptEvent
from muster.node.tasks.followers import Followers
from muster.node.tasks.worker import WorkerService
from muster.store.sqlite import Database
from muster.task.instruction import StartAttempt
from muster.task.kinds import AttemptFinish
from muster.verbs.task import moment

NOW_MS = 1_795_000_000_000


@proves("cli.a-moment-is-ago-or-a-date")
@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("10m", NOW_MS - 600_000),
        ("1h30m", NOW_MS - 5_400_000),
        ("2026-11-18T07:06:40", 1_794_985_600_000),
        ("2026-11-18T08:06:40+01:00", 1_794_985_600_000),
    ],
)
def test_a_past_moment_is_so_long_ago_or_a_date(text, at_ms):
    assert moment(text, NOW_MS) == at_ms


@proves("cli.a-moment-is-ago-or-a-date")
@pytest.mark.parametrize("text", ["", "soon", "10", "m10", "2026-13-01"])
def test_what_is_no_moment_is_refused(text):
    with pytest.raises(Malformed, match="is no time"):
        moment(text, NOW_MS)


@proves("cli.what-is-settled-is-a-conflict")
@pytest.mark.parametrize(
    ("verb", "args"),
    [
        ("cancel", {"what": "{}"}),
        ("retry", {"task": "{}"}),
        ("decide", {"task": "{}", "answer": "yes"}),
    ],
)
def test_what_is_settled_already_is_a_conflict_and_what_never_was_is_not_found(verb, args):
    world = Cores("hub", "studio")
    hub = world["hub"]
    task = hub.submit()
    world.pass_ms(5_000)
    assert hub.task(task).state == "done"
    error = hub.order(verb, task, {k: v.format(task) for k, v in args.items()})["error"]
    assert (error["kind"], error["exit"]) == ("Conflict", 6)
    assert "is done already" in error["text"]
    error = hub.order(verb, "f" * 8, {k: v.format("f" * 8) for k, v in args.items()})["error"]
    assert (error["kind"], error["exit"]) == ("NotFound", 5)
    assert hub.task(task).state == "done"


@proves("cli.what-is-settled-is-a-conflict")
def test_a_task_of_another_owner_is_not_found_here_and_the_sentence_names_the_owner():
    world = Cores("hub", "studio")
    task = world["studio"].submit(needs={"label": "nowhere"})
    world.link("hub", "studio")
    world.pass_ms(2_000)
    hub = world["hub"]
    error = hub.order("cancel", task, {"what": task})["error"]
    assert error["exit"] == 5
    assert "--on studio" in error["text"]
    assert hub.task(task).state == "queued"


@proves("node.journals-stay-with-their-user")
def test_a_journal_is_shown_to_its_own_user_and_to_nobody_elsewhere_without_an_order():
    world = Cores("hub", "studio")
    studio = world["studio"]
    task = studio.submit()
    world.pass_ms(2_000)
    with_start = studio.call("journal.where", {"task": task})["value"]["machines"]
    assert [(each["name"], each["here"]) for each in with_start] == [("studio", True)]
    assert studio.call("journal", {"task": task})["value"] == {"end": True, "task": task}
    world.link("hub", "studio")
    before = studio.sizes()
    passed_on = world["hub"].call("journal", {"task": task}, on="studio")["error"]
    assert passed_on["kind"] == "Denied"
    stranger = studio.call("journal", {"task": task}, link=world.stranger("studio"))["error"]
    assert stranger["kind"] == "Denied"
    assert studio.sizes() == before


@proves("cli.why-names-who-is-away")
def test_why_names_the_machines_that_are_not_asked_because_they_are_away():
    world = Cores("hub", "studio")
    hub = world["hub"]
    task = hub.submit(needs={"label": "nowhere"})
    world.pass_ms(1_000)
    found = {c["machine"]: c for c in hub.call("why", {"task": task})["value"]["now"]["candidates"]}
    assert found["studio"]["reasons"] == ["away"]
    assert not found["studio"]["fits"]
    world.link("hub", "studio")
    world.pass_ms(1_000)
    found = {c["machine"]: c for c in hub.call("why", {"task": task})["value"]["now"]["candidates"]}
    assert found["studio"]["reasons"] == ["no label nowhere"]


@proves("node.journal-of-one-task")
def test_a_journal_shows_no_line_of_another_task_that_only_speaks_of_this_one():
    world = Cores("hub", "studio")
    hub = world["hub"]
    one, other = hub.submit(agent=["shell"], do="sleep 9"), hub.submit(agent=["shell"], do="true")
    world.pass_ms(3_000)
    begun = {e.assign.task: e.assign.epoch for e in hub.effects if isinstance(e, StartAttempt)}
    for task, text in ((one, "mine"), (other, f"I looked at {one}"), (other, one)):
        hub.step(AttemptEvent(task, begun[task], "agent.output", {"text": text, "about": one}))
    hub.raw(canon.encode({"args": {"task": one}, "verb": "journal"}))
    lines = [each["value"] for each in hub.answers]
    assert [line["text"] for line in lines if "text" in line] == ["mine"]
    assert {line["task"] for line in lines} == {one}
    hub.raw(canon.encode({"args": {"task": ""}, "verb": "journal"}))
    assert not [a for a in hub.answers if a["ok"] and "text" in a["value"]], "no task is not all"


@proves("task.live-ones-first")
def test_a_live_task_is_listed_however_many_newer_ones_are_settled():
    world = Cores("hub")
    hub = world["hub"]
    world.pass_ms(3_000)
    waits = hub.submit(needs={"label": "nowhere"})
    done = [hub.submit() for _ in range(12)]
    world.pass_ms(5_000)
    assert [t["task"] for t in hub.call("tasks", {})["value"]] == [waits]
    answer = hub.call("tasks", {"all": True, "limit": 5})
    assert [t["state"] for t in answer["value"]] == ["queued", *["done"] * 4]
    assert answer["value"][0]["task"] == waits
    everything = hub.call("tasks", {"all": True})["value"]
    assert {t["task"] for t in everything} == {waits, *done}
    assert len(everything) == 13


def lost_and_done(world: Cores) -> str:
    """A task that was lost twice, then done; its id."""
    hub, lab = world["hub"], world["lab"]
    task = hub.submit(needs={"label": "lab"}, agent=["shell"])
    for _ in range(2):
        world.restart("lab")
        lab.step(FactsChanged(lab.facts(labels=["lab"])))
        world.link("hub", "lab")
        world.pass_ms(60_000)
    row = hub.task(task)
    lab.step(AttemptEnded(AttemptFinish(task, (row.epoch_order, row.epoch_count), "done")))
    world.pass_ms(1_000)
    assert hub.task(task).state == "done"
    return task


@proves("task.questions-cost-what-they-show", "task.why")
def test_why_tells_every_decision_on_a_task_and_reads_nothing_of_others(monkeypatch):
    world = Cores("hub", "lab")
    hub, lab = world["hub"], world["lab"]
    lab.step(FactsChanged(lab.facts(labels=["lab"])))
    world.link("hub", "lab")
    world.pass_ms(3_000)
    before = [hub.submit() for _ in range(40)]
    world.pass_ms(5_000)
    task = lost_and_done(world)
    for _ in range(40):
        hub.submit()
    world.pass_ms(5_000)
    read: list[object] = []
    query = Database.query

    def counted(self, sql, bindings=()):
        if "task_hist" in sql:
            read.extend(query(self, sql.replace('and "task" = ?', ""), bindings[:-1]))
        return query(self, sql, bindings)

    monkeypatch.setattr(Database, "query", counted)
    decisions = hub.call("why", {"task": task})["value"]["decisions"]
    assert [(d["machine"], bool(d["left"])) for d in decisions] == [
        ("lab", True),
        ("lab", True),
        ("lab", False),
    ]
    kinds = [e["kind"] for e in hub.call("explain", {"task": task})["value"]["entries"]]
    assert kinds.count("task.assign") == 3
    assert {row[1] for row in read} == {task}
    assert hub.call("result", {"task": before[0]})["value"]["state"] == "done"


@proves("cli.following-is-told")
def test_who_follows_a_journal_is_told_every_line_as_it_is_written_and_the_end():
    hub = Cores("hub")["hub"]
    task, other = (hub.submit(agent=["shell"], do="sleep 9") for _ in range(2))
    hub.world.pass_ms(3_000)
    begun = {e.assign.task: e.assign.epoch for e in hub.effects if isinstance(e, StartAttempt)}

    def say(text: str, of: str = task) -> None:
        hub.step(AttemptEvent(of, begun[of], "agent.output", {"text": text}))

    def heard() -> list[Any]:
        answers, hub.answers = hub.answers, []
        return [a["value"].get("text", a["value"].get("end")) for a in answers]

    say("before")
    asked = {"args": {"task": task, "follow": True}, "verb": "journal"}
    hub.raw(canon.encode(asked))
    assert [each for each in heard() if each] == ["before"]
    say("one")
    say("not mine", other)
    say("two")
    assert heard() == ["one", "two"]
    hub.step(attempt_ended(task, begun[task], "done"))
    assert heard()[-1] is True
    assert (hub.serving.tasks, hub.core.part(WorkerService).followers.get(task)) == (set(), None)


@proves("cli.following-is-told")
def test_who_waits_for_a_task_to_begin_is_told_by_whichever_machine_begins_it():
    world = Cores("hub", "studio")
    hub, studio = world["hub"], world["studio"]
    world.link("hub", "studio")
    world.pass_ms(1_000)
    task = hub.submit(needs={"label": "far"})
    over = hub.submit(needs={"label": "never"})
    for channel, each in ((21, task), (22, over)):
        call = canon.encode({"args": {"task": each}, "verb": "journal.begun"})
        assert hub.raw(call, channel=channel) is None
    world.pass_ms(5_000)
    assert hub.answers == []
    studio.step(FactsChanged(studio.facts(labels=("far",))))
    world.pass_ms(3_000)
    (answer,) = hub.answers
    assert [m["name"] for m in answer["value"]["machines"]] == ["studio"]
    hub.order("cancel", over, {"what": over})

    told = [a["value"] for a in hub.answers if a["value"].get("state") == "cancelled"]
    assert [(a["task"], a["machines"]) for a in told] == [(over, [])]
    assert (hub.serving.tasks, hub.core.part(Followers).watchers) == (set(), {})


@proves("node.newest-by-index")
def test_no_question_looks_through_all_that_ever_was(monkeypatch):
    """A list of tasks read every row of every stream, and sorted them."""
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(1_000)
    hub = world["hub"]
    task = hub.submit()
    world.pass_ms(5_000)
    asked, query = {}, Database.query

    def seen(self, sql, bindings=()):
        asked[sql] = bindings
        return query(self, sql, bindings)

    monkeypatch.setattr(Database, "query", seen)
    for verb, args in (
        ("tasks", {"all": True}), ("tasks", {}), ("runs", {}), ("why", {"task": task}),
        ("why", {"task": task[:8]}), ("status", {}), ("inbox", {}), ("sent", {}),
    ):  # fmt: skip
        assert hub.call(verb, args)["ok"]
    monkeypatch.undo()
    growing = ("task", "run", "attempt", "reading", "message", "fleet_order", "entry", "admission")
    found = []
    for sql, bindings in asked.items():
        steps = [r[-1] for r in hub.core.tables.query(f"explain query plan {sql}", bindings)]
        scans = [step for step in steps if step.startswith("SCAN") and step.split()[1] in growing]
        whole = [step for step in steps if step.endswith("(stream=?)")]
        filtered = sql.count(" is ?") > 1  # What an index does not know is looked for in each row.
        if scans or (whole and (filtered or "USE TEMP B-TREE FOR ORDER BY" in steps)):
            found.append((sql, steps))
    assert found == []
