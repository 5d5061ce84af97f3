"""Messages as a person asks for them: to whom, under which key, and a page at a time."""

from typing import Any

import pytest
from tests.node.cores import LOCAL, Cores, One
from tests.promise import proves

from muster.channel.frame import Type
from muster.errors import Refused
from muster.log import canon
from muster.log.stream import FLEET, Incarnation, scope_group, scope_to
from muster.message import kinds
from muster.message.fold import MESSAGE
from muster.node import event as ev
from muster.node.services import mailbox, messages
from muster.node.services.mailbox import Mailbox
from muster.store.store import Draft
from muster.verbs import inbox, thread


@pytest.fixture
def world() -> Cores:
    world = Cores("hub", "studio", "laptop")
    world.link("hub", "studio")
    world.link("hub", "laptop")
    world.pass_ms(1_000)
    return world


def send(one: One, to: str, text: str = "hi", **more: Any) -> dict[str, Any]:
    answer = one.order("send", to, {"text": text, "to": to, **more})
    assert answer is not None
    return answer


def refused(answer: dict[str, Any], one: One, before: int) -> tuple[str, str]:
    assert not answer["ok"], answer
    assert len(one.entries("message.send")) == before, "nothing was written"
    return answer["error"]["kind"], answer["error"]["text"]


def written(one: One, texts: list[str], *, to: str = "all", scope: str = FLEET) -> None:
    """Messages, as a burst brings them."""
    bodies = [canon.encode(kinds.MessageSend([to], text)) for text in texts]
    with one.core.store.transaction():
        one.core.append_all(scope, [Draft("message.send", "op:alice", (), b) for b in bodies])  # type: ignore[arg-type]
        one.core._sign()
    one.world.carry_out(one, one.core._released())
    one.world.drain()
    one.world.pass_ms(1_000)


def texts(one: One, **args: Any) -> list[str]:
    answer = one.call("inbox", args)
    assert answer["ok"], answer
    return [m["text"] for m in answer["value"]]


def unread(one: One) -> int:
    return int(one.call("status", {})["value"]["unread"])


# --- whom ---------------------------------------------------------------------------------------


@proves("message.nobody-is-refused")
@pytest.mark.parametrize(
    ("to", "kind", "says"),
    [
        ("role:mobile", "NotFound", "no other machine has the role mobile"),
        ("role:hub", "NotFound", "no other machine has the role hub"),
        ("role:nonsense", "NotFound", "is no role"),
        ("claude@studio", "NotFound", "no agent 'claude' is on studio (agents there: noop, shell)"),
        ("nobody", "NotFound", "No machine is named"),
        ("studio@claude", "NotFound", "the agent stands first: claude@studio"),
        ("workstation", "NotFound", "whoever has the role is role:workstation"),
        ("alice", "NotFound", "alice is a person, who reads the inbox of a machine"),
        ("op:alice", "NotFound", "alice is a person"),
        ("thread:plans", "NotFound", "in no thread"),
    ],
)
def test_a_message_to_nobody_is_refused_and_not_written(world, to, kind, says):
    hub = world["hub"]
    found, text = refused(send(hub, to), hub, 0)
    assert (found, says in text) == (kind, True), text


@proves("message.nobody-is-refused")
def test_a_message_to_all_of_a_fleet_of_one_and_to_an_empty_thread_is_refused():
    hub = Cores("hub")["hub"]
    assert "alone in its fleet" in refused(send(hub, "all"), hub, 0)[1]
    assert hub.order("thread", "plans", {"name": "plans"})["ok"]
    assert "nobody else is in thread plans" in refused(send(hub, "thread:plans"), hub, 0)[1]


@proves("message.nobody-is-refused")
def test_an_answer_to_a_machine_that_was_revoked_is_refused(world):
    hub, studio = world["hub"], world["studio"]
    sent = send(studio, "hub")["value"]["message"]
    world.pass_ms(1_000)
    assert hub.order("revoke", "studio", {"name": "studio"})["ok"]
    before = len(hub.entries("message.send"))
    answer = hub.order("reply", sent, {"message": sent, "text": "ok"})
    assert "studio is not in the fleet any more" in refused(answer, hub, before)[1]


@proves("message.thread-members-only")
def test_a_message_in_a_thread_waits_for_its_members_and_for_nobody_else(world):
    hub = world["hub"]
    assert hub.order("thread", "plans", {"name": "plans", "add": ["studio"]})["ok"]
    world.pass_ms(1_000)
    answer = send(hub, "thread:plans", wait=True)
    assert (answer["ok"], answer["value"]["state"]) == (True, "stored")
    (shown,) = hub.call("sent", {})["value"]
    assert [(to["machine"], to["state"]) for to in shown["to"]] == [("studio", "stored")]


@proves("message.thread-members-only")
def test_an_answer_in_a_thread_is_for_everybody_in_it(world):
    hub, studio, laptop = world["hub"], world["studio"], world["laptop"]
    assert hub.order("thread", "plans", {"name": "plans", "add": ["studio", "laptop"]})["ok"]
    world.pass_ms(1_000)
    sent = send(hub, "thread:plans", "when?")["value"]["message"]
    world.pass_ms(1_000)
    assert studio.order("reply", sent, {"message": sent, "text": "at noon"})["ok"]
    world.pass_ms(1_000)
    assert texts(hub) == ["at noon"]
    assert texts(laptop) == ["when?", "at noon"]


# --- who acts on it -----------------------------------------------------------------------------


@proves("message.readings-are-the-readers")
@pytest.mark.parametrize(("to", "went"), [("hub", "hub"), ("all", "hub and laptop")])
def test_only_a_machine_that_got_a_message_says_that_it_acted_on_it(world, to, went):
    hub, studio = world["hub"], world["studio"]
    sent = send(studio, to)["value"]["message"]
    world.pass_ms(1_000)
    answer = studio.order("ack", sent, {"message": sent})
    assert answer["error"]["kind"] == "Refused"
    assert f"it went to {went}: `muster ack {sent[:12]} --on hub`" in answer["error"]["text"]
    assert not studio.entries("message.act"), "nothing was written"
    assert hub.order("ack", sent, {"message": sent})["ok"]
    world.pass_ms(1_000)
    (shown,) = studio.call("sent", {})["value"]
    assert ("hub", "acted") in [(to["machine"], to["state"]) for to in shown["to"]]


# --- under which key ----------------------------------------------------------------------------


@proves("message.key-conflict")
@pytest.mark.parametrize("other", [{"text": "no"}, {"to": "all"}])
def test_a_key_that_was_used_for_another_message_is_a_conflict(world, other):
    hub = world["hub"]
    first = send(hub, "role:workstation", "yes", key="k")["value"]
    again = send(hub, "role:workstation", "yes", key="k")["value"]
    assert (again["message"], again["fresh"]) == (first["message"], False)
    to = other.get("to", "role:workstation")
    answer = send(hub, to, other.get("text", "yes"), key="k")
    assert refused(answer, hub, 1)[0] == "Conflict"


@proves("message.key-conflict")
def test_the_same_message_sent_again_is_waited_for_as_the_first_time(world):
    hub = world["hub"]
    send(hub, "studio", "yes", key="k")
    answer = send(hub, "studio", "yes", key="k", wait=True)
    assert (answer["value"]["fresh"], answer["value"]["state"]) == (False, "stored")


@proves("message.key-conflict")
def test_a_machine_that_was_set_back_knows_under_which_keys_it_had_sent(world):
    """What it accepted came back from others, in the stream that it had before."""
    studio = world["studio"]
    world.pass_ms(5_000)
    image = studio.core.store.image()
    first = send(studio, "hub", "yes", key="k")["value"]
    world.pass_ms(500)
    world.cut("studio")
    studio.incarnation = Incarnation("5" * 32)
    world.restart("studio", image)
    world.link("hub", "studio")
    # Until then it obeys nothing: laptop might know more of its past.
    world.link("laptop", "studio")
    world.pass_ms(10_000)
    again = send(studio, "hub", "yes", key="k", wait=True)["value"]
    assert (again["message"], again["fresh"], again["state"]) == (first["message"], False, "stored")
    assert send(studio, "hub", "no", key="k")["error"]["kind"] == "Conflict"
    # To somebody else it is another message, as it was before.
    assert send(studio, "laptop", "yes", key="k")["value"]["fresh"]
    world.pass_ms(1_000)
    assert [m["text"] for m in world["hub"].call("inbox", {})["value"]] == ["yes"]


# --- a page at a time ---------------------------------------------------------------------------


@proves("message.inbox-pages")
def test_an_inbox_shows_the_oldest_unread_first_and_goes_on_as_they_are_marked(world, monkeypatch):
    monkeypatch.setattr(thread, "SHOWN_MAX", 10)
    hub, studio = world["hub"], world["studio"]
    every = [f"m{n}" for n in range(25)]
    written(hub, every)
    assert texts(studio) == every[:10]
    assert unread(studio) == 25
    assert texts(studio, mark=True) == every[:10]
    assert texts(studio, mark=True) == every[10:20]
    assert unread(studio) == 5
    assert texts(studio, mark=True) == every[20:]
    assert texts(studio, mark=True) == []
    assert len(studio.entries("message.read")) == 25


@proves("message.inbox-pages")
def test_all_messages_are_shown_newest_first_page_by_page(world, monkeypatch):
    monkeypatch.setattr(thread, "SHOWN_MAX", 10)
    hub, studio = world["hub"], world["studio"]
    every = [f"m{n}" for n in range(25)]
    written(hub, every)
    seen: list[str] = []
    before = ""
    for _ in range(4):
        page = studio.call("inbox", {"all": True, "before": before})["value"]
        seen = [m["text"] for m in page] + seen
        before = page[0]["message"] if page else before
    assert sorted(seen, key=lambda t: int(t[1:])) == every
    assert len(seen) == 25


@proves("message.inbox-pages")
def test_marking_costs_as_many_rows_as_it_shows_however_many_there_are(world, monkeypatch):
    hub, studio = world["hub"], world["studio"]
    written(hub, [f"m{n}" for n in range(700)])
    texts(studio)
    asked: list[int] = []
    plain = type(studio.core.tables).rows

    def rows(self: Any, table: str, **more: Any) -> Any:
        found = plain(self, table, **more)
        asked.append(len(found))
        return found

    monkeypatch.setattr(type(studio.core.tables), "rows", rows)
    assert len(texts(studio, mark=True, limit=500)) == 500
    assert sum(asked) <= 1_000


@proves("message.unread-index")
def test_what_is_unread_is_the_same_by_the_index_as_by_looking_at_everything(world):
    hub, studio, laptop = world["hub"], world["studio"], world["laptop"]
    written(hub, ["to all", "to all again"])
    written(hub, ["to a role"], to="role:workstation")
    written(hub, ["to another"], to=laptop.id, scope=scope_to(laptop.id))
    written(hub, ["to the machine"], to=studio.id, scope=scope_to(studio.id))
    written(hub, ["to its agent"], to=f"shell@{studio.id}", scope=scope_to(studio.id))
    written(studio, ["mine"])
    both = ["to all", "to all again", "to a role", "to the machine"]
    assert texts(studio) == [*both, "to its agent"]
    assert texts(studio, agent="shell") == [*both, "to its agent"]
    assert texts(studio, agent="noop") == both
    # What the agent read is read for whoever sits there; the other way round it is not.
    texts(studio, agent="shell", mark=True)
    assert texts(studio) == []
    assert texts(studio, agent="noop") == both
    written(hub, ["later"])
    assert texts(studio) == ["later"]
    studio.world.restart("studio")
    assert texts(studio) == ["later"]
    assert texts(studio, agent="noop") == [*both, "later"]


@proves("message.inbox-pages")
def test_a_message_is_found_by_the_beginning_of_its_id_and_never_by_less_than_one_says(world):
    hub, studio = world["hub"], world["studio"]
    written(hub, ["one", "two"])
    page = studio.call("inbox", {})["value"]
    for each in page:
        found = messages.find(studio.core, each["message"][:13])
        assert found.text == each["text"]
    for bad in ("", "xyz", "%", each["message"] + "0", "ä"):
        answer = studio.order("ack", "*" if not bad.isascii() or not bad else bad, {"message": bad})
        assert answer["error"]["kind"] in {"NotFound", "Denied"}


@proves("message.answers-are-bounded")
@pytest.mark.parametrize("verb", ["inbox", "sent", "threads"])
def test_no_answer_shows_more_messages_than_a_page_and_it_is_said(world, monkeypatch, verb):
    """Of each it is proven who said it: a few thousand held up every link and lease."""
    monkeypatch.setattr(thread, "MESSAGES_SHOWN_MAX", 4)
    monkeypatch.setattr(inbox, "MESSAGES_SHOWN_MAX", 4)
    one = world["hub"]
    if verb == "threads":
        assert one.order("thread", "plans", {"name": "plans"})["ok"]
        scope = scope_group(one.core.machine, "plans")
        written(one, [f"m{n}" for n in range(9)], scope=scope)
    else:
        written(world["studio" if verb == "inbox" else "hub"], [f"m{n}" for n in range(9)])
    looked = list[bytes]()
    said = thread.shown
    for module in (inbox, thread):
        monkeypatch.setattr(
            module, "shown", lambda core, at, row=None: looked.append(at) or said(core, at, row)
        )
    answer = one.call(verb, {"limit": 5000, **({"name": "plans"} if verb == "threads" else {})})
    rows = answer["value"][0]["messages"] if verb == "threads" else answer["value"]
    assert len(rows) == 4
    assert len(looked) <= 4
    notes = [a["value"]["note"] for a in one.answers if "note" in (a.get("value") or {})]
    assert "than the 4 shown" in notes[0]
    assert "--limit" not in notes[0], "a longer page is not to be had"


@proves("message.answers-are-bounded")
def test_who_looks_through_messages_of_others_reads_them_once(world, monkeypatch):
    one = world["hub"]
    asked = list[dict[str, Any]]()
    rows = one.core.tables.rows
    written(world["studio"], [f"m{n}" for n in range(30)], to=f"{world['laptop'].core.machine}")
    written(world["studio"], ["for us"])

    def count(table: Any, **named: Any) -> Any:
        asked.extend([named] if table is MESSAGE else [])
        return rows(table, **named)

    monkeypatch.setattr(one.core.tables, "rows", count)
    assert texts(one, all=True) == ["for us"]
    assert len(asked) == 1
    assert "text" not in MESSAGE.row._fields, "a text is read of what is shown only"


@proves("message.answers-are-bounded")
def test_a_thread_of_more_streams_than_can_be_named_is_not_opened_to_somebody_half(
    world, monkeypatch
):
    one, before = world["hub"], len(world["hub"].entries("group.add"))
    assert one.order("thread", "plans", {"name": "plans"})["ok"]
    written(one, ["secret"], scope=scope_group(one.core.machine, "plans"))
    monkeypatch.setattr(thread, "FLEET_LIST_MAX", 0)
    args = {"name": "plans", "add": ["studio"], "fresh": True}
    answer = one.order("thread", "plans", args)
    assert not answer["ok"]
    assert "open another thread" in answer["error"]["text"]
    assert len(one.entries("group.add")) == before, "nothing was written"
    monkeypatch.undo()
    assert one.order("thread", "plans", args)["ok"]


# --- the index of what is unread ----------------------------------------------------------------


def places(one: One) -> list[int]:
    """What the index holds without being asked to look at more."""
    views = one.core.part(Mailbox)._views
    return [place.seq for place in views[""].places()] if views else []


@proves("message.unread-index")
def test_a_burst_is_looked_at_a_page_with_each_tick_and_whole_where_somebody_asks(
    world, monkeypatch
):
    hub, studio = world["hub"], world["studio"]
    studio.step(ev.Tick())
    monkeypatch.setattr(mailbox, "_PAGE", 10)
    monkeypatch.setattr(Mailbox, "tick", lambda _: None)
    written(hub, [f"m{n}" for n in range(35)])
    assert places(studio) == []
    monkeypatch.undo()
    studio.step(ev.Tick())
    assert places(studio) == [], "what is little costs no tick anything"
    monkeypatch.setattr(mailbox, "_PAGE", 10)
    for looked in (10, 20):
        studio.step(ev.Tick())
        assert len(places(studio)) == looked
    assert unread(studio) == 35
    asked: list[str] = []
    query = studio.core.tables.query
    monkeypatch.setattr(
        studio.core.tables, "query", lambda sql, *more: asked.append(sql) or query(sql, *more)
    )
    assert unread(studio) == 35
    # What `status` says of incidents has its own questions.
    about = [sql for sql in asked if "message" in sql]
    assert len(about) == 1, "what was looked at is not looked at again"


@proves("message.unread-index")
def test_what_was_read_in_a_past_that_came_back_late_is_not_unread(world):
    hub, studio = world["hub"], world["studio"]
    world.cut("studio")
    written(hub, ["read before", "new"])
    first, _ = hub.entries("message.send")
    read = canon.encode(kinds.MessageRead(first.id.hex()))
    with studio.core.store.transaction():
        studio.core.append_all(FLEET, [Draft("message.read", "muster", (), read)])
        studio.core._sign()
    assert unread(studio) == 0
    world.link("hub", "studio")
    world.pass_ms(1_000)
    assert texts(studio) == ["new"]


@proves("message.unread-index")
def test_messages_beyond_the_end_of_a_stream_are_not_unread(world):
    hub, studio = world["hub"], world["studio"]
    written(hub, ["stays", "goes", "goes"], to=studio.id, scope=scope_to(studio.id))
    written(hub, ["elsewhere"])
    assert unread(studio) == 4
    stream = hub.core.membership.own(scope_to(studio.id))
    with studio.core.store.transaction():
        studio.core.store.freeze(stream, 1, b"", world.now().wall_ms)
    assert unread(studio) == 2
    assert texts(studio) == ["stays", "elsewhere"]


@proves("message.unread-index")
def test_a_receipt_that_is_taken_back_makes_its_message_unread_again(world):
    hub, studio = world["hub"], world["studio"]
    written(hub, ["one", "two"])
    assert texts(studio, mark=True) == ["one", "two"]
    own = studio.core.membership.own(FLEET)
    size = studio.core.log.size(own)
    assert unread(studio) == 0
    with studio.core.store.transaction():
        studio.core.store.freeze(own, size - 1, b"", world.now().wall_ms)
    assert unread(studio) == 1


@proves("message.unread-index")
def test_whoever_asks_for_many_agents_makes_the_daemon_keep_a_few_of_their_indexes(world):
    hub, studio = world["hub"], world["studio"]
    written(hub, ["to all"])
    for number in range(2 * mailbox.READERS_MAX):
        assert texts(studio, agent=f"a{number}") == ["to all"]
        studio.step(ev.Tick())
    assert len(studio.core.part(Mailbox)._views) == mailbox.READERS_MAX
    assert f"a{number}" in studio.core.part(Mailbox)._views


@proves("message.inbox-pages")
def test_too_many_entries_that_begin_alike_are_not_all_looked_at(world, monkeypatch):
    hub, studio = world["hub"], world["studio"]
    written(hub, ["one"])
    (message,) = studio.call("inbox", {})["value"]
    assert messages.find(studio.core, message["message"][:1]).text == "one"
    monkeypatch.setattr(messages, "_ALIKE_MAX", 1)
    written(hub, [f"m{n}" for n in range(40)])
    with pytest.raises(Refused, match="give more of its id"):
        messages.find(studio.core, message["message"][:1])
    assert messages.find(studio.core, message["message"][:16]).text == "one"


@proves("message.inbox-pages")
@pytest.mark.parametrize("readers", [mailbox.READERS_MAX, 3 * mailbox.READERS_MAX])
def test_many_readers_at_once_are_all_answered(world, monkeypatch, readers):
    """One more than are kept took the index of the next from it, which took that of the next."""
    hub, studio = world["hub"], world["studio"]
    written(hub, [f"m{number}" for number in range(10)])
    world.pass_ms(2_000)
    monkeypatch.setattr(mailbox, "_PAGE", 3)
    effects = []
    for number in range(readers):
        raw = canon.encode({"args": {"agent": f"a{number}"}, "verb": "inbox"})
        asked = ev.Arrived(LOCAL, Type.CALL, 100 + number, raw)
        effects += studio.core.step([asked], world.now())
    studio.answers.clear()
    for _ in range(40 * readers):
        world.carry_out(studio, [each for each in effects if isinstance(each, ev.Send)])
        if not any(isinstance(each, ev.Again) for each in effects):
            break
        effects = studio.core.step([ev.Turn()], world.now())
    assert len(studio.answers) == readers
    assert {len(answer["value"]) for answer in studio.answers} == {10}
    box = studio.core.part(Mailbox)
    assert (len(box._views) <= mailbox.READERS_MAX + 1, box._asking) == (True, {})
