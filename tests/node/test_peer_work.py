"""Work between two fleets: asked once, within a grant, told of, and taken back."""

import dataclasses

import msgspec
import pytest
from tests.node.cores import attempt_ended
from tests.node.delegating import Forged
from tests.node.peer_worlds import HOUR_MS, SPEC, Two, spec
from tests.promise import proves

from muster.channel.frame import Type
from muster.errors import Refused
from muster.fleet.grant import sign_take
from muster.fleet.peer import peer_args
from muster.fleet.peer_work import Cancel, Report, Task, sign_work, work_of
from muster.log import canon
from muster.node import event as ev
from muster.node.call.guests import REFUSED
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.services.peer_asks import PeerAsks
from muster.node.services.peer_work import PeerWork
from muster.node.tasks.asked_work import AskedWork
from muster.node.tasks.delegations import Delegations
from muster.node.tasks.runs import RunService
from muster.task.delegation_fold import DELEGATION
from muster.task.fold import RUN
from muster.task.peer_work import HEARD, PeerHear
from muster.task.spec import parse
from muster.verbs import awaited

DAY_MS = 24 * HOUR_MS


@pytest.fixture
def two() -> Two:
    return Two()


def granted(**bounds):
    two = Two()
    two.grant(two.acme, "yard", two.ours, **bounds)
    return two


def hostile(two, text=SPEC, at="hub", **changed):
    """What a fleet that keeps no rule shows of a task: document and record."""
    one = two.ours[at]
    core, yard = one.core, two.acme["yard"]
    task = Task(
        fleet=two.acme.fleet, by=one.id, door=yard.id, issued_ms=core.now.wall_ms,
        nonce=core.draw(16).hex(), of=two.ours.fleet, to="yard", spec=text,
    )  # fmt: skip
    made = msgspec.structs.replace(task, **changed)
    raw = sign_work(core.membership.signer("statement"), made)
    return {"letter": raw.decode(), "record": one.record.decode()}


@proves("peer.task-by-grant")
def test_a_task_is_done_over_there_and_what_came_of_it_comes_back():
    two = granted()
    task = two.asked()
    assert two.state(task) == "waiting"
    two.carry()
    assert two.state(task) == "open"
    assert len(two.started()) == 1
    run = two.started()[0].open.run
    (seen,) = two.acme["shed"].call("runs", {"more": True})["value"]
    assert (seen["run"], seen["by"]) == (run, "hub.ours")
    there = two.acme["yard"].call("runs", {"run": run})["value"]["handed_on"]
    assert (there["by"], there["person"]) == ("hub.ours", "alice")
    two.done()
    two.carry()
    for at in ("hub", "studio"):
        seen = two.ours[at].call("runs", {"run": task})["value"]
        assert (seen["owner"], seen["name"], seen["state"]) == ("yard.acme", "tidy", "done")
    # Nobody of the fleet that did it gets a message about it.
    assert not two.acme["yard"].entries("message.send")
    two.carry()
    assert two.ours["hub"].call("peers", {})["value"][0]["waiting"] == 0
    assert two.acme["yard"].call("peers", {})["value"][0]["waiting"] == 0


@proves("peer.task-speaks-to-nobody")
@pytest.mark.parametrize("at", ["yard", "shed"])
def test_the_machine_that_does_it_knows_that_another_fleet_asked(at):
    two = Two()
    two.grant(two.acme, at, two.ours)
    two.asked(f"{at}.acme", text=spec(needs=f"{{machine: {at}}}"))
    two.carry()
    two.done(at)
    args = {"base": "", "repo": "", "spec": spec(needs=f"{{machine: {at}}}"), "values": {}}
    assert two.acme["yard"].order("run", "tidy", args)["ok"]
    two.pass_ms(3_000)
    assert [start.foreign for start in two.started(at)] == [True, False]


@proves("peer.task-by-grant")
def test_a_task_for_a_machine_behind_the_door_is_done_there_and_a_failure_is_told():
    two = Two()
    two.grant(two.acme, "shed", two.ours)
    task = two.asked("shed.acme", text=spec(needs="{machine: shed}"))
    two.carry()
    (start,) = two.started("shed")
    ended = (start.assign.task, start.assign.epoch, "failed", "the roof leaks")
    two.acme["shed"].step(attempt_ended(*ended))
    two.pass_ms(2_000)
    two.carry()
    assert two.state(task) == "failed"
    assert two.why(task) == "it was begun, and ended without what was asked"
    assert two.acme["yard"].core.counters["peer-work-taken"] == 1


@proves("peer.task-default-deny")
def test_without_a_grant_of_tasks_a_fleet_is_refused_and_told_nothing(two):
    two.grant(two.acme, "shed", two.ours)
    for to in ("yard", "nobody"):
        answer = two.show(two.ours["hub"], hostile(two, to=to))
        assert answer == {"ok": False, "error": {"kind": "Denied", "text": REFUSED, "exit": 4}}
    yard = two.acme["yard"]
    assert not yard.entries("peer.hear")
    assert not yard.entries("delegation.open")
    assert len(yard.entries("order.deny")) == yard.core.counters["peer-work-refused"] == 2
    two.asked()
    two.carry()
    assert not two.started()


@proves("peer.task-default-deny")
def test_what_a_grant_does_not_name_nobody_asks_for(two):
    two.grant(two.acme, "yard", two.ours, repos=("shop",), timeout_ms=600_000)
    for text, more, why in (
        (spec(agent="codex", timeout="5m"), {}, "it may ask claude"),
        (spec(timeout="5m"), {"repo": "house"}, "may work in shop"),
        (spec(timeout="20m"), {}, "longer than 600 s"),
        (spec(timeout="5m", needs="{machine: shed}"), {}, "is not bound to"),
    ):
        before = len(two.acme["yard"].entries("peer.say"))
        assert two.show(two.ours["hub"], hostile(two, text, **more))["ok"]
        assert not two.acme["yard"].entries("delegation.open")
        (report,) = [
            work_of(msgspec.json.decode(e.body)["document"].encode(), two.ours.fleet)
            for e in two.acme["yard"].entries("peer.say")[before:]
        ]
        assert report.state == "refused"
        assert why in report.summary, report.summary


@proves("peer.task-default-deny")
def test_a_grant_that_names_no_agent_and_no_repository_lets_nobody_ask_any(two):
    two.grant(two.acme, "yard", two.ours, agents=())
    two.show(two.ours["hub"], hostile(two))
    two.grant(two.acme, "yard", two.ours)
    two.show(two.ours["hub"], hostile(two, repo="house"))
    assert not two.acme["yard"].entries("delegation.open")
    yard = two.acme["yard"]
    assert yard.core.counters["peer-work-refused"] == 2
    asked = {"to": "fleet:ours", "verb": "task", "object": "yard"}
    assert "--agent NAME" in yard.call("grant.check", asked)["error"]["text"]
    found = yard.call("grant.check", {**asked, "agent": ["claude"]})["value"]
    assert found["bounds"]["agents"] == ["claude"]
    deep = yard.call("grant.check", {**asked, "agent": ["claude"], "depth": 2})
    assert "leave --depth out" in deep["error"]["text"]
    # A key that is granted tasks has no such bounds, and a grant of them without any is none.
    assert (
        "has none"
        in yard.call("grant.check", {"to": "a" * 64, "verb": "task", "agent": ["claude"]})["error"][
            "text"
        ]
    )


_RAISING = {
    "env": '{PATH: "/tmp"}',
    "mode": "bypassPermissions",
    "mcp": "[shell]",
    "check": '"curl example.org"',
    "agent": "shell",
    "priority": "9",
    "may": "{delegate: {}}",
    "memory": "{read: [fleet]}",
}


@proves("peer.task-raises-nothing")
@pytest.mark.parametrize("name", [*_RAISING, "by"])
def test_a_spec_that_would_raise_what_it_may_do_is_refused_at_either_end(two, name):
    two.grant(two.acme, "yard", two.ours, agents=("claude",))
    text = spec(**{name: _RAISING.get(name)})
    if name == "by":
        text = spec() + '  sign:\n    by: human\n    do: "ok?"\n    after: [work]\n'
    answer = two.ask(text=text)
    # Whom it may ask says the other fleet alone.
    if name not in ("agent", "check"):
        assert "nobody lets" in answer["error"]["text"], answer
    assert two.show(two.ours["hub"], hostile(two, text))["ok"]
    yard = two.acme["yard"]
    assert not yard.entries("delegation.open")
    assert len(yard.entries("peer.say")) == 1
    two.pass_ms(3_000)
    assert not two.started()


_NOBODY = {
    "a phase": spec(agent=None),
    "a race": spec(agent=None, race="2"),
    "a review": spec() + "  look:\n    review: work\n    same: true\n    needs: {machine: yard}\n",
}


@proves("peer.task-raises-nothing")
@pytest.mark.parametrize("text", _NOBODY.values(), ids=_NOBODY)
@pytest.mark.parametrize("refuses", ["peer.say", "delegation.refuse", "attempt.refuse"])
def test_what_says_nobody_to_do_it_is_done_by_no_shell(two, text, refuses, monkeypatch):
    """The door refuses it; the owner, where the door did not look; else the worker."""
    if refuses != "peer.say":
        monkeypatch.setattr(PeerWork, "_refusal", lambda *_: "")
    if refuses == "attempt.refuse":
        monkeypatch.setattr("muster.node.tasks.asked_work.check_handed_on", lambda *_, **__: None)
    two.grant(two.acme, "yard", two.ours)
    assert two.show(two.ours["hub"], hostile(two, text))["ok"]
    two.pass_ms(8_000)
    assert not two.started()
    yard = two.acme["yard"]
    assert bool(yard.entries("run.open")) == (refuses == "attempt.refuse")
    assert "says nobody to do it" in str([e.body for e in yard.entries(refuses)])
    assert "says nobody to do it" in two.ask(text=text)["error"]["text"]


@proves("peer.task-raises-nothing")
def test_who_may_ask_the_shell_still_sets_no_variables(two):
    two.grant(two.acme, "yard", two.ours, agents=("shell",))
    text = spec(agent="shell", env="{A: b}")
    assert "sets variables" in two.ask(text=text)["error"]["text"]
    two.show(two.ours["hub"], hostile(two, text))
    assert not two.acme["yard"].entries("delegation.open")
    task = two.asked(text=spec(agent="shell"))
    two.carry()
    assert two.state(task) == "open"


@proves("peer.task-once")
def test_a_task_that_is_shown_again_and_after_restarts_begins_once():
    two = granted()
    task = two.asked()
    hub, yard = two.ours["hub"], two.acme["yard"]
    ((_, args),) = two.shown(hub)
    first = two.show(hub, args)
    assert two.show(hub, args) == first
    links = [two.link(yard, hub) for _ in range(2)]
    call = canon.encode({"args": args, "verb": "peer.work"})
    yard.step(*(ev.Arrived(link, Type.CALL, 7, call) for link in links))
    for world, name, other in ((two.acme, "yard", "shed"), (two.ours, "hub", "studio")):
        world.restart(name)
        world.link(name, other)
    two.pass_ms(8_000)
    yard = two.acme["yard"]
    assert two.show(two.ours["hub"], args) == first
    two.carry()
    assert two.state(task) == "open"
    assert len(yard.entries("delegation.open")) == len(yard.entries("peer.hear")) == 1
    assert len(yard.call("runs", {})["value"]) == 1


@proves("peer.task-once")
def test_two_showings_in_one_step_are_one():
    two = granted()
    two.asked()
    hub, yard = two.ours["hub"], two.acme["yard"]
    ((_, args),) = two.shown(hub)
    links = [two.link(yard, hub) for _ in range(2)]
    call = canon.encode({"args": args, "verb": "peer.work"})
    yard.step(*(ev.Arrived(link, Type.CALL, 7, call) for link in links))
    assert len(yard.entries("delegation.open")) == 1


@proves("peer.task-once")
def test_one_key_is_one_task_and_another_content_a_conflict(two):
    assert two.asked(key="k") == two.asked(key="k")
    answer = two.ask(text=SPEC.replace("Tidy", "Wreck"), key="k")
    assert answer["error"]["kind"] == "Conflict"


@proves("peer.work-forged")
def test_only_the_own_word_of_the_machine_of_the_link_counts():
    two = granted()
    hub, yard = two.ours["hub"], two.acme["yard"]
    genuine = hostile(two)
    for args, who in (
        (genuine, "studio"),
        ({**genuine, "record": two.ours["studio"].record.decode()}, "hub"),
        ({**genuine, "letter": genuine["letter"].replace("Tidy", "Rob ")}, "hub"),
        (hostile(two, of=two.acme.fleet), "hub"),
        (hostile(two, door=two.acme["shed"].id), "hub"),
        (hostile(two, by=two.ours["studio"].id), "hub"),
        (hostile(two, issued_ms=hub.core.now.wall_ms - 8 * DAY_MS), "hub"),
        (hostile(two, issued_ms=hub.core.now.wall_ms + DAY_MS), "hub"),
        ({**genuine, "letter": "muster/peer-task/v1\n{}\n00\n"}, "hub"),
        ({**genuine, "letter": "x" * 100}, "hub"),
        ({**genuine, "record": yard.record.decode()}, "hub"),
    ):
        answer = two.show(two.ours[who], args)
        assert answer["error"]["text"] == REFUSED, args
    assert not yard.entries("peer.hear")
    assert not yard.entries("delegation.open")


@proves("peer.work-forged")
def test_a_report_counts_only_from_the_door_that_was_asked_and_the_newest_alone():
    two = granted()
    task = two.asked()
    two.carry()
    assert two.state(task) == "open"

    def report(at, state, number, **changed):
        core = two.acme[at].core
        made = Report(
            fleet=two.ours.fleet, by=two.acme[at].id, door=two.ours["hub"].id,
            issued_ms=core.now.wall_ms, nonce=core.draw(16).hex(), of=two.acme.fleet, task=task,
            number=number, state=state,
        )  # fmt: skip
        raw = sign_work(
            core.membership.signer("statement"), msgspec.structs.replace(made, **changed)
        )
        args = {"letter": raw.decode(), "record": two.acme[at].record.decode()}
        return two.show(two.acme[at], args, two.ours["hub"])

    heard = len(two.ours["hub"].entries("peer.hear"))
    assert report("shed", "done", 9)["error"]["text"] == REFUSED
    assert report("yard", "done", 9, task="a" * 64)["error"]["text"] == REFUSED
    # An old one is taken, and changes nothing.
    assert report("yard", "failed", 1)["ok"]
    assert len(two.ours["hub"].entries("peer.hear")) == heard
    assert two.state(task) == "open"
    assert report("yard", "done", 2)["ok"]
    assert report("yard", "failed", 3)["ok"]
    assert two.state(task) == "done"


@proves("peer.work-bounded")
def test_a_spec_that_fits_into_no_entry_is_refused_before_it_is_written(two):
    long = '"' + "x" * 15_000 + '"'
    two_long = spec(do=long) + spec(do=long).partition("phases:\n")[2].replace("work", "more", 1)
    for text in (two_long, spec(do="'" + '"' * 16_000 + "'")):
        answer = two.ask(text=text)
        assert not answer["ok"], answer
        assert not two.ours["hub"].entries("peer.say")
    assert two.asked(text=spec(do=long))
    two.grant(two.acme, "yard", two.ours)
    two.carry()
    assert len(two.started()) == 1


@proves("peer.work-bounded")
def test_more_at_once_or_in_a_day_than_the_grant_says_is_refused_with_words():
    two = granted(at_once=1, per_day=2)
    first, second = two.asked(), two.asked()
    two.carry()
    states = {two.state(first), two.state(second)}
    assert states == {"open", "refused"}
    refused = second if two.state(second) == "refused" else first
    assert "1 at once are allowed" in two.why(refused)
    two.done()
    # What was refused is none of the day's.
    third = two.asked()
    two.carry()
    assert two.state(third) == "open"
    two.done()
    fourth = two.asked()
    two.carry()
    assert two.state(fourth) == "refused"
    assert "2 a day are allowed" in two.why(fourth)


@proves("peer.work-keeps-no-more")
@pytest.mark.parametrize("bounds", [{"per_day": 1}, {"at_once": 1}, {"agents": ("codex",)}])
def test_of_more_than_is_granted_nothing_is_kept_but_that_it_was_refused(bounds):
    two = granted(**bounds)
    hub, yard = two.ours["hub"], two.acme["yard"]
    long = spec(do='"' + "x" * 20_000 + '"')
    begun = 0 if "agents" in bounds else 1
    if begun:
        assert two.show(hub, hostile(two))["ok"]
        two.pass_ms(2_000)
    kinds = ("peer.hear", "delegation.open", "peer.say")
    before = [len(yard.entries(kind)) for kind in kinds]
    shown = [hostile(two, long) for _ in range(3)]
    for args in (*shown, *shown):
        assert two.show(hub, args)["value"]["state"] == "stored"
    assert [len(yard.entries(kind)) for kind in kinds] == [before[0], before[1], before[2] + 3]
    assert before[:2] == [begun, begun]
    said = yard.entries("peer.say")[before[2] :]
    assert max(len(each.body or b"") for each in said) < 2_000
    works = [
        work_of(msgspec.json.decode(each.body)["document"].encode(), two.ours.fleet)
        for each in said
    ]
    assert {each.state for each in works} == {"refused"}


@proves("peer.work-keeps-no-more")
def test_several_tasks_in_one_step_are_no_more_than_is_granted():
    two = granted(per_day=1)
    hub, yard = two.ours["hub"], two.acme["yard"]
    links = [two.link(yard, hub) for _ in range(2)]
    calls = [canon.encode({"args": hostile(two), "verb": "peer.work"}) for _ in links]
    yard.step(*(ev.Arrived(*of, 7, call) for *of, call in zip(
        links, [Type.CALL] * 2, calls, strict=True
    )))  # fmt: skip
    assert len(yard.entries("delegation.open")) == len(yard.entries("peer.hear")) == 1


@proves("peer.work-keeps-no-more")
def test_what_was_refused_counts_among_what_a_fleet_brings_in_a_day(monkeypatch):
    two = granted(agents=("codex",))
    monkeypatch.setattr("muster.node.services.peer_work.PEER_LETTERS_PER_DAY_MAX", 2)
    for _ in range(2):
        assert two.show(two.ours["hub"], hostile(two))["ok"]
    two.acme.restart("yard")
    two.acme.link("yard", "shed")
    two.pass_ms(3_000)
    assert two.show(two.ours["hub"], hostile(two))["error"]["text"] == REFUSED
    assert len(two.acme["yard"].entries("peer.say")) == 2


@proves("peer.work-bounded")
def test_what_comes_through_several_doors_counts_together():
    two = granted(per_day=1, at_once=2)
    hub, shed = two.ours["hub"], two.acme["shed"]
    two.acme.cut("yard")
    assert two.show(hub, hostile(two))["ok"]
    two.pass_ms(2_000)
    # It does not know of the other one.
    assert two.show(hub, hostile(two, door=shed.id), shed)["ok"]
    two.acme.link("yard", "shed")
    two.pass_ms(5_000)
    assert len({start.open.run for start in two.started()}) == 1
    part = shed.core.part(Delegations)
    (row,) = shed.core.tables.rows(DELEGATION, writer=shed.id)
    assert "1 a day are allowed" in part.refused(row)


@proves("peer.work-bounded")
def test_a_fleet_brings_so_much_in_a_day_and_others_are_served(monkeypatch):
    two = granted()
    monkeypatch.setattr("muster.node.services.peer_work.PEER_LETTERS_PER_DAY_MAX", 2)
    for _ in range(2):
        assert two.show(two.ours["hub"], hostile(two))["ok"]
    two.acme.restart("yard")
    two.acme.link("yard", "shed")
    two.pass_ms(3_000)
    assert two.show(two.ours["hub"], hostile(two))["error"]["text"] == REFUSED
    assert len(two.acme["yard"].entries("peer.hear")) == 2


@proves("peer.task-chain")
def test_no_door_makes_more_or_other_of_a_document_than_it_says():
    two = granted(per_day=5)
    two.asked()
    two.carry()
    yard = two.acme["yard"]
    core = yard.core
    core.on(Forged, lambda event: event.work())
    part, spec_text = core.part(PeerWork), SPEC
    (heard,) = core.tables.rows(HEARD, what="task")
    entry = core.log.entry_at(heard.stream, heard.seq)
    body = msgspec.json.decode(entry.body, type=PeerHear)
    task = work_of(body.document.encode(), two.acme.fleet)
    (given,) = core.roster.asking(two.ours.fleet)
    for other in (task, msgspec.structs.replace(task, spec=spec_text.replace("Tidy", "Wreck"))):
        yard.step(Forged(lambda other=other: part._hand_on(
            other, parse(other.spec.encode()), given, yard.id, entry, heard.letter
        )))  # fmt: skip
        two.pass_ms(5_000)
    rows = core.tables.rows(DELEGATION, order=("seq",))
    delegations = core.part(Delegations)
    assert [delegations.state(row) for row in rows] == ["open", "refused", "refused"]
    assert "began a run by the same document before" in delegations.refused(rows[1])
    assert "another one than the other fleet asked for" in delegations.refused(rows[2])
    assert len({start.open.run for start in two.started()}) == 1


@proves("peer.task-cancel")
def test_a_task_is_taken_back_by_who_asked_and_its_run_ends():
    two = granted()
    task = two.asked()
    two.carry()
    hub = two.ours["hub"]
    assert hub.order("cancel", task, {"what": task, "reason": "no need"})["ok"]
    assert two.state(task) == "cancelling"
    two.carry()
    assert two.state(task) == "cancelled"
    (row,) = two.acme["yard"].call("runs", {})["value"]
    assert row["state"] == "cancelled"
    assert "hub.ours takes it back: no need" in row["summary"]
    again = hub.order("cancel", task, {"what": task})
    assert again["error"]["kind"] == "Conflict"


@proves("peer.task-cancel")
def test_what_was_taken_back_before_it_came_never_begins():
    two = granted()
    task = two.asked()
    hub = two.ours["hub"]
    ((_, args),) = two.shown(hub)
    assert hub.order("cancel", task, {"what": task})["ok"]
    two.carry()
    assert two.state(task) == "cancelled"
    assert two.show(hub, args)["error"]["text"] == REFUSED
    two.pass_ms(3_000)
    assert not two.started()


@proves("peer.task-cancel")
def test_another_machine_of_that_fleet_takes_nothing_back():
    two = granted()
    task = two.asked()
    two.carry()
    studio = two.ours["studio"]
    answer = studio.order("cancel", task, {"what": task})
    assert "--on hub" in answer["error"]["text"]
    core = studio.core
    cancel = Cancel(
        fleet=two.acme.fleet, by=studio.id, door=two.acme["yard"].id, issued_ms=core.now.wall_ms,
        nonce=core.draw(16).hex(), of=two.ours.fleet, task=task,
    )  # fmt: skip
    raw = sign_work(core.membership.signer("statement"), cancel).decode()
    args = {"letter": raw, "record": studio.record.decode()}
    assert two.show(studio, args)["error"]["text"] == REFUSED
    two.carry()
    assert two.state(task) == "open"


def named(two, name, at="hub"):
    """A run of our own whose spec is called so; its id."""
    text = spec(needs="{machine: hub}").replace("name: tidy", f'name: "{name}"')
    args = {"base": "", "repo": "", "spec": text, "values": {}}
    answer = two.ours[at].order("run", name, args)
    assert answer["ok"], answer
    two.pass_ms(2_000)
    return answer["value"]["run"]


@proves("peer.task-cancel")
@pytest.mark.parametrize("at", ["hub", "studio"])
def test_what_may_be_a_run_of_ours_or_a_task_of_theirs_is_not_taken_back(two, at):
    task = two.asked()
    own, hub = named(two, task[:4], at), two.ours["hub"]
    before = [len(hub.entries(kind)) for kind in ("peer.say", "run.settle", "task.cancel")]
    for answer in (
        hub.order("cancel", task[:4], {"what": task[:4]}),
        hub.call("runs", {"run": task[:4]}),
    ):
        assert answer["error"]["kind"] == "Refused", answer
        for each in (own[:12], task[:12], "yard.acme"):
            assert each in answer["error"]["text"]
    asked = {"verb": "cancel", "object": task[:4]}
    assert hub.call("target", asked)["value"]["object"] == ""
    assert [len(hub.entries(k)) for k in ("peer.say", "run.settle", "task.cancel")] == before
    with pytest.raises(Refused, match=own[:12]):
        awaited._look(hub.core, task[:4], None)  # type: ignore[arg-type]
    # What is said whole is meant.
    assert hub.call("runs", {"run": own})["value"]["run"] == own
    assert hub.call("runs", {"run": task[:30]})["value"]["run"] == task
    asked = {"verb": "cancel", "object": own}
    assert hub.call("target", asked)["value"]["name"] == at
    assert two.ours[at].order("cancel", own, {"what": own})["ok"]
    assert two.state(task) == "waiting"
    assert hub.order("cancel", task, {"what": task})["ok"]
    assert two.state(task) == "cancelling"


@proves("peer.task-cancel")
def test_a_run_of_ours_is_tried_again_whatever_was_asked_of_others(two):
    """Only who cancels may mean a task of theirs."""
    task = two.asked(at="hub")
    named(two, task[:4], "studio")
    asked = {"verb": "retry", "object": task[:4]}
    assert two.ours["hub"].call("target", asked)["value"]["name"] == "studio"


@proves("peer.task-removed")
def test_a_fleet_that_is_removed_has_its_work_ended_begun_or_not():
    two = granted(at_once=2)
    first = two.asked()
    two.carry()
    two.acme.cut("yard")
    two.grant(two.acme, "shed", two.ours)
    second = two.asked("shed.acme", text=spec(needs="{machine: shed}"))
    two.carry()
    two.remove(two.acme, two.ours)
    two.acme.link("yard", "shed")
    two.pass_ms(5_000)
    yard = two.acme["yard"]
    delegations = yard.core.part(Delegations)
    rows = yard.core.tables.rows(DELEGATION, order=("seq",))
    assert [delegations.state(row) for row in rows] == ["cancelled", "refused"]
    assert "was removed (`muster peer remove`)" in yard.call("runs", {})["value"][0]["summary"]
    assert not two.started("shed")
    # Nothing is told any more, to nobody.
    assert not list(yard.core.part(PeerAsks).waiting())
    assert {two.state(first), two.state(second)} <= {"open", "asked"}


@proves("peer.task-removed")
def test_what_we_asked_of_a_fleet_that_we_remove_is_shown_to_nobody_and_says_so():
    two = granted()
    task = two.asked()
    two.remove(two.ours, two.acme)
    assert two.state(task) == "removed"
    assert not list(two.ours["hub"].core.part(PeerAsks).waiting())
    assert two.ask()["error"]["kind"] == "NotFound"
    answer = two.ours["hub"].order("cancel", task, {"what": task})
    assert "is removed already" in answer["error"]["text"]


@proves("peer.task-removed")
def test_a_grant_that_was_taken_back_begins_nothing_more():
    two = Two()
    id_ = two.grant(two.acme, "shed", two.ours)
    two.acme.cut("yard")
    task = two.asked("shed.acme", text=spec(needs="{machine: shed}"))
    two.carry()
    yard = two.acme["yard"]
    raw = sign_take(
        two.acme.operator.statement, two.acme.fleet, id_, nonce=bytes(16),
        issued_ms=yard.core.now.wall_ms,
    ).decode()  # fmt: skip
    args = {"to": "fleet:ours", "verb": "task", "take": True}
    assert yard.order("grant", "task", args, options={"id": id_, "statement": raw})["ok"]
    two.acme.link("yard", "shed")
    two.pass_ms(5_000)
    two.carry()
    assert not two.started("shed")
    assert two.state(task) == "refused"


@proves("peer.work-tells-nothing-else")
def test_nothing_of_the_fleet_that_does_it_is_among_what_it_reports():
    two = granted()
    task = two.asked()
    two.carry()
    run = two.started()[0].open.run
    two.done(summary="it is tidy")
    two.carry()
    assert two.state(task) == "done"
    heard = b"".join(e.body or b"" for e in two.ours["hub"].entries("peer.hear"))
    secret = [run, "shed", two.acme["shed"].id, "alice", two.started()[0].open.task, "muster/"]
    documents = [
        work_of(msgspec.json.decode(e.body)["document"].encode(), two.ours.fleet)
        for e in two.ours["hub"].entries("peer.hear")
    ]
    said = msgspec.json.encode(documents).decode()
    assert heard
    assert not [each for each in secret if each in said]
    settled = b"".join(e.body or b"" for e in two.ours["hub"].entries("peer.settle")).decode()
    assert two.acme["shed"].id not in settled
    # And of ours nothing but who asked, and what.
    came = b"".join(e.body or b"" for e in two.acme["yard"].entries("peer.hear")).decode()
    assert two.ours["studio"].id not in came


@proves("peer.work-tells-nothing-else")
def test_of_what_failed_or_was_refused_no_reason_of_a_machine_is_told():
    two = granted(repos=("shop",))
    task = two.asked()
    two.carry()
    start = two.started()[0]
    reason = "shop has no branch x; it has dev, main"
    ended = (start.assign.task, start.assign.epoch, "failed", reason)
    two.acme["yard"].step(attempt_ended(*ended, reason=reason, values={"output": reason}))
    two.pass_ms(2_000)
    two.carry()
    assert two.state(task) == "failed"
    assert reason in two.acme["yard"].call("runs", {})["value"][0]["summary"]
    (row,) = [r for r in two.ours["hub"].core.part(PeerAsks).asked() if r.letter == task]
    report = two.ours["hub"].core.part(PeerAsks).report(row)
    assert "branch" not in msgspec.json.encode(report).decode()
    assert [(each.phase, each.state) for each in report.came] == [("work", "failed")]


@proves("peer.report-always")
def test_an_agent_that_says_what_nobody_sees_has_its_end_told(monkeypatch):
    two = granted()
    task = two.asked()
    two.carry()
    # Of one agent; sixteen would need the whole of a document.
    monkeypatch.setattr("muster.fleet.peer_work._SIZE", 12_000)
    two.done(summary="\x01" * 400, values={"output": "\x02" * 5_000})
    two.carry()
    assert two.state(task) == "done"
    (row,) = two.ours["hub"].core.part(PeerAsks).asked()
    report = two.ours["hub"].core.part(PeerAsks).report(row)
    assert set(report.came[0].said) == set(report.summary) == {"\N{REPLACEMENT CHARACTER}"}
    assert len(report.came[0].said) == 2_000


@proves("peer.report-always")
def test_what_fits_into_no_report_is_left_out_of_it(monkeypatch):
    two = granted()
    task = two.asked()
    two.carry()
    monkeypatch.setattr("muster.fleet.peer_work._SIZE", 2_500)
    two.done(values={"output": "word " * 1_000})
    two.carry()
    assert two.state(task) == "done"
    (row,) = two.ours["hub"].core.part(PeerAsks).asked()
    report = two.ours["hub"].core.part(PeerAsks).report(row)
    assert (report.summary, report.came) == ("it is tidy", ())


@proves("peer.work-costs-nothing-idle")
def test_tasks_that_wait_are_looked_at_when_something_happens_and_else_not(monkeypatch):
    looked, follow = list[str](), PeerWork._follow
    monkeypatch.setattr(PeerWork, "_follow", lambda part, task: (
        looked.append(task), follow(part, task)))  # fmt: skip
    two = granted()
    task = two.asked()
    two.carry()
    assert looked
    looked.clear()
    two.pass_ms(130_000)
    assert not looked
    two.done()
    assert looked == [task]
    two.carry()
    assert two.state(task) == "done"


@proves("peer.work-costs-nothing-idle")
def test_of_a_removed_fleet_nothing_is_followed_any_more_also_after_a_start():
    two = granted()
    two.asked()
    two.carry()
    part = two.acme["yard"].core.part(PeerWork)
    assert part._open
    two.remove(two.acme, two.ours)
    assert not part._open
    two.acme.restart("yard")
    two.pass_ms(3_000)
    assert not two.acme["yard"].core.part(PeerWork)._open


@proves("peer.work-costs-nothing-idle")
def test_what_came_of_it_is_told_when_a_fleet_is_taken_in_again():
    two = granted()
    task = two.asked()
    two.carry()
    two.remove(two.acme, two.ours)
    args = peer_args(two.card(two.ours), two.ours.fleet, "ours")
    assert two.acme["yard"].order("peer.add", two.ours.fleet, args)["ok"]
    two.pass_ms(2_000)
    two.carry()
    assert two.state(task) == "cancelled"


@proves("peer.task-removed")
@pytest.mark.parametrize("starts", [False, True])
def test_a_machine_whose_door_is_away_ends_what_it_began_for_a_removed_fleet(starts, monkeypatch):
    two = Two()
    two.grant(two.acme, "shed", two.ours)
    two.asked("shed.acme", text=spec(needs="{machine: shed}"))
    two.carry()
    assert len(two.started("shed")) == 1
    two.acme.cut("yard")
    shed = two.acme["shed"]
    with monkeypatch.context() as patch:
        if starts:
            # As where it ended right behind the removal.
            patch.setattr(AskedWork, "end_removed", lambda _part: None)
        assert shed.order("peer.remove", two.ours.fleet, {"fleet": two.ours.fleet})["ok"]
    if starts:
        two.acme.restart("shed")
    two.pass_ms(8_000)
    shed = two.acme["shed"]
    (row,) = shed.core.tables.rows(RUN, writer=shed.id)
    run = shed.core.part(RunService).runs.get(row.run)
    assert row.state == "cancelled" if run is None else run.progress.cancelled
    assert "was removed (`muster peer remove`)" in (run.progress.cancelled if run else row.summary)


@proves("peer.task-removed")
def test_what_agents_and_other_fleets_asked_goes_on_where_one_fleet_is_removed():
    two = granted()
    third = "ab" * 32
    two.asked()
    two.carry()
    yard = two.acme["yard"]
    before = yard.core.roster
    had = dataclasses.replace(before, peers={**before.peers, third: before.peers[two.ours.fleet]})
    yard.core.part(AskedWork)._changed(ev.RosterChanged(before, had))
    two.pass_ms(2_000)
    (row,) = yard.core.tables.rows(RUN, writer=yard.id)
    assert row.state == "open"
    assert not yard.core.part(RunService).runs[row.run].progress.cancelled


@proves("peer.late-once-known")
@pytest.mark.parametrize("answers", [False, True])
def test_nothing_is_late_before_its_owner_was_heard_of_since(answers, monkeypatch):
    two = Two()
    two.grant(two.acme, "shed", two.ours)
    two.acme.cut("yard")
    task = two.asked("shed.acme", text=spec(needs="{machine: shed}"))
    two.carry()
    for world in (two.ours, two.acme):
        world.ms += DAY_MS
    two.pass_ms(125_000)
    two.carry()
    assert two.state(task) == "asked"
    if not answers:
        monkeypatch.setattr(AskedWork, "_look", lambda _part, _entry: None)
    two.acme.link("yard", "shed")
    two.pass_ms(5_000)
    shed = two.acme["shed"]
    shed.step(FactsChanged(shed.facts(agents={"shell": ""})))
    two.acme.drain()
    two.pass_ms(70_000)
    two.carry()
    assert two.state(task) == ("refused" if answers else "late")


@proves("peer.task-is-a-persons")
def test_no_agent_asks_anything_of_another_fleet(two):
    answer = two.ours["hub"].call("peer.ask", {"to": "yard.acme", "spec": SPEC})
    assert answer["error"]["kind"] == "Denied"
    assert two.ask("claude@yard.acme")["error"]["kind"] == "Malformed"


@proves("peer.task-removed")
def test_a_machine_that_heard_of_the_removal_first_begins_nothing_for_the_door():
    two = Two()
    two.grant(two.acme, "shed", two.ours)
    two.acme.cut("yard")
    two.asked("shed.acme", text=spec(needs="{machine: shed}"))
    two.carry()
    shed = two.acme["shed"]
    assert shed.order("peer.remove", two.ours.fleet, {"fleet": two.ours.fleet})["ok"]
    two.acme.link("yard", "shed")
    two.pass_ms(5_000)
    assert not two.started("shed")
    (row,) = shed.core.tables.rows(DELEGATION)
    assert "no operator's grant lets" in shed.core.part(Delegations).refused(row)
