"""The rules of a step: one transaction, nothing before it, and no event harms another."""

from typing import Any

import pytest
from tests.node.cores import LOCAL, Cores
from tests.promise import proves

from muster.channel import frame as frames
from muster.channel.frame import Type
from muster.errors import Broken
from muster.fleet import kinds
from muster.fleet.assembly import assemble
from muster.fleet.chat import CHAT_ACKNOWLEDGE
from muster.fleet.folds import fleet_folds
from muster.limits import LINK_FAULTS_MAX
from muster.log import canon
from muster.node import event as ev
from muster.node.incarnations.own_incarnation import FLEET_KINDS
from muster.node.incidents import Noticed

PAYLOAD = canon.encode({"args": {}, "verb": "status"})


@proves("node.step-is-one-transaction")
def test_nothing_leaves_a_step_whose_commit_failed(monkeypatch):
    hub = Cores("hub")["hub"]
    args = {"text": ["hi"], "to": "hub"}
    call = {"args": args, "statement": hub.world.sign("send", "hub", hub, args), "verb": "send"}
    event = ev.Arrived(LOCAL, Type.CALL, 3, canon.encode(call))
    before = hub.sizes()

    def fails() -> None:
        raise Broken("the disk is full")

    monkeypatch.setattr(hub.core.store._database, "commit", fails)
    with pytest.raises(Broken):
        hub.core.step([event], hub.world.now())
    monkeypatch.undo()
    hub.world.restart("hub")
    assert hub.sizes().items() >= before.items()
    assert hub.entries("message.send") == hub.entries("order.take") == []
    assert hub.raw(canon.encode(call))["ok"], "the order was not spent"


@proves("node.step-is-one-transaction")
def test_a_batch_is_one_commit_whatever_it_holds(monkeypatch):
    hub = Cores("hub")["hub"]
    commits = []
    commit = hub.core.store._database.commit
    monkeypatch.setattr(hub.core.store._database, "commit", lambda: (commits.append(1), commit()))
    texts = [{"text": [str(n)], "to": "hub"} for n in range(50)]
    calls = [
        canon.encode(
            {"args": a, "statement": hub.world.sign("send", "hub", hub, a), "verb": "send"}
        )
        for a in texts
    ]
    hub.step(*[ev.Arrived(LOCAL, Type.CALL, n + 1, c) for n, c in enumerate(calls)])
    assert len(commits) == 1
    assert len(hub.answers) == len(hub.entries("message.send")) == 50


@proves("node.events-are-apart")
def test_a_hostile_frame_in_a_batch_harms_none_of_the_others():
    world = Cores("hub", "studio")
    here, _ = world.link("hub", "studio")
    hub = world["hub"]
    bad = [
        ev.Arrived(here, kind, 5, raw)
        for kind in Type
        for raw in (b"", b"\xff" * 40, b"{}", b'{"verb":1}', b"." + b"[" * 2000, b"null")
    ]
    hub.answers.clear()
    hub.step(*bad, ev.Arrived(LOCAL, Type.CALL, 9, PAYLOAD), *bad)
    assert [a["ok"] for a in hub.answers if a["ok"]] == [True]
    assert hub.core.counters.total() > 0


@proves("node.events-are-apart")
def test_a_frame_on_a_link_that_is_gone_or_never_was_changes_nothing():
    hub = Cores("hub")["hub"]
    before = hub.sizes()
    hub.step(*[ev.Arrived(77, kind, 1, PAYLOAD) for kind in Type], ev.LinkDown(77))
    assert hub.sizes() == before


@proves("node.bad-links-are-cut")
def test_a_link_that_brings_too_much_that_is_refused_is_cut():
    world = Cores("hub", "studio")
    here, _ = world.link("hub", "studio")
    hub = world["hub"]
    hub.effects.clear()
    bad = ev.Arrived(here, Type.SEGMENT, 0, b"\0\0\0\2{}")
    hub.step(*[bad] * LINK_FAULTS_MAX)
    assert not any(isinstance(e, ev.Cut) for e in hub.effects)
    hub.step(bad)
    assert ev.Cut(here, "too many frames were refused") in hub.effects


@proves("node.bad-links-are-cut")
def test_who_proved_no_machine_may_not_speak_of_streams():
    hub = Cores("hub")["hub"]
    link = hub.world.stranger("hub")
    before = hub.sizes()
    hub.step(*[ev.Arrived(link, t, 0, b"{}") for t in (Type.OFFER, Type.SEGMENT, Type.COSIGN)])
    assert hub.sizes() == before
    assert sum("refused from a peer" in e.text for e in hub.effects if isinstance(e, ev.Note)) == 3


@proves("node.bad-links-are-cut")
def test_a_link_to_a_machine_that_is_not_in_the_fleet_is_cut_at_once():
    hub = Cores("hub")["hub"]
    hub.step(ev.LinkUp(55, "ab" * 32, False, "http"))
    assert any(isinstance(e, ev.Cut) and e.link == 55 for e in hub.effects)
    assert 55 not in hub.core.sync.sessions


@proves("node.own-work-at-once")
def test_what_an_owner_gives_itself_begins_in_the_same_step():
    hub = Cores("hub")["hub"]
    hub.world.pass_ms(300)
    task = hub.submit()
    assert hub.task(task).state == "done"


@proves("node.receipts")
def test_a_message_that_waits_is_answered_when_the_other_machine_has_stored_it():
    world = Cores("hub", "studio")
    hub = world["hub"]
    args = {"text": ["hi"], "to": "studio", "wait": True}
    said = hub.order("send", "studio", args)["value"]
    assert (said["state"], said["away"]) == ("waiting", [{"machine": "studio"}])
    world.link("hub", "studio")
    world.pass_ms(1_000)
    assert [a["value"]["state"] for a in hub.answers] == ["waiting", "stored"]
    assert world["studio"].call("inbox", {})["value"][0]["text"] == "hi"


@proves("node.receipts")
def test_a_message_for_a_machine_that_is_here_says_nothing_before_it_is_stored():
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(1_000)
    args = {"text": ["hi"], "to": "studio", "wait": True}
    assert world["hub"].order("send", "studio", args)["value"]["state"] == "stored"
    assert len(world["hub"].answers) == 1


@proves("message.steps-have-proofs")
@pytest.mark.parametrize(("to", "state"), [("hub", "stored"), ("studio", "waiting")])
def test_the_answer_to_send_and_the_list_of_what_was_sent_say_the_same_word(to, state):
    hub = Cores("hub", "studio")["hub"]
    assert hub.order("send", to, {"text": ["hi"], "to": to})["value"]["state"] == state
    (sent,) = hub.call("sent", {})["value"]
    assert [each["state"] for each in sent["to"]] == [state]


@proves("cli.status-is-for-people")
def test_the_status_names_who_is_away_what_runs_here_and_how_much_is_unread():
    world = Cores("hub", "studio")
    hub, studio = world["hub"], world["studio"]
    assert hub.call("status", {})["value"]["machines"]["away"] == ["studio"]
    world.link("hub", "studio")
    world.pass_ms(1_000)
    hub.order("send", "studio", {"text": ["hi"], "to": "studio"})
    task = hub.submit(agent=["shell"], do="sleep 60")
    world.pass_ms(1_000)
    here, there = hub.call("status", {})["value"], studio.call("status", {})["value"]
    assert (here["machines"]["away"], here["unread"], there["unread"]) == ([], 0, 1)
    assert [each["task"] for each in [*here["works"], *there["works"]]] == [task]
    studio.call("inbox", {"mark": True})
    assert studio.call("status", {})["value"]["unread"] == 0


@proves("cli.away-since", "fleet.presence")
def test_a_machine_that_is_away_shows_when_it_was_last_heard_of():
    world = Cores("hub", "studio")
    hub = world["hub"]
    assert "heard_ms_ago" not in hub.call("machines", {})["value"][1], "never heard of"
    world.link("hub", "studio")
    world.pass_ms(1_000)
    assert [each["state"] for each in hub.call("machines", {})["value"]] == ["here", "up"]
    world.cut("hub")
    world.pass_ms(60_000)
    away = hub.call("machines", {})["value"][1]
    assert (away["name"], away["state"]) == ("studio", "away")
    assert 59_000 <= away["heard_ms_ago"] <= 70_000


@proves("cli.away-since")
def test_a_machine_that_goes_was_heard_of_when_it_last_said_something_and_not_when_it_last_wrote():
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(300_000)
    world.cut("hub")
    world.pass_ms(4_000)
    away = world["hub"].call("machines", {})["value"][1]
    assert 4_000 <= away["heard_ms_ago"] <= 40_000


def test_frames_that_a_core_sends_are_frames():
    world = Cores("hub", "studio")
    here, _ = world.link("hub", "studio")
    effects = world["hub"].core.step([ev.Arrived(here, Type.CALL, 3, PAYLOAD)], world.now())
    sent = [e for e in effects if isinstance(e, ev.Send)]
    assert [frames.decode(e.frame).type for e in sent] == [Type.REPLY]


@proves("git.remains-are-told")
def test_what_cannot_be_removed_is_an_incident_until_it_is_gone():
    hub = Cores("hub")["hub"]
    for title in ("work/.gone-x cannot be removed", "work/.gone-y cannot be removed"):
        hub.step(Noticed("left-behind", title))
        found = [i for i in hub.call("incidents", {})["value"] if i["open"]]
        assert [i["title"] for i in found] == [title]
    hub.step(Noticed("left-behind"))
    assert [i for i in hub.call("incidents", {})["value"] if i["open"]] == []


@proves("fleet.roster-is-whole")
def test_the_roster_is_made_anew_after_every_kind_of_entry_that_it_is_made_from():
    core = Cores("hub")["hub"].core
    asked: set[Any] = set()

    def rows(table: Any, /, **equals: str) -> Any:
        asked.add(table)
        return core.membership._rows(table, **equals)

    def distinct(table: Any, columns: Any, /, **equals: str) -> Any:
        asked.add(table)
        return core.tables.distinct(table, columns, **equals)

    assemble(core.membership.fleet, rows, distinct)
    made_from = {
        kind
        for fold in fleet_folds(core.membership.fleet)
        for kind in fold.kinds
        if asked & {*fold.tables}
    }
    # What was ordered and refused, what a device was offered and which incident somebody looked at
    # stands beside what counts.
    beside = {kinds.ORDER_TAKE, kinds.ORDER_DENY, kinds.DEVICE_OPEN, CHAT_ACKNOWLEDGE}
    assert made_from - beside == set(FLEET_KINDS)
