"""Messages with a priority and an end, marked by id, and those that wait for too long."""

from typing import Any

import pytest
from tests.node.cores import Cores, One
from tests.node.test_messages import send, texts, written
from tests.promise import proves

from muster.log.entry import Entry
from muster.log.stream import scope_to
from muster.message.kinds import MessageSend, MessageTerms
from muster.node.services.undelivered import Undelivered
from muster.verbs import inbox

HOUR_MS = 3_600_000


@pytest.fixture
def world() -> Cores:
    world = Cores("hub", "studio", "laptop")
    world.link("hub", "studio")
    world.link("hub", "laptop")
    world.link("laptop", "studio")
    world.pass_ms(1_000)
    return world


def sleep(world: Cores, ms: int) -> None:
    """Time passes at once, and then a tick."""
    world.ms += ms
    world.pass_ms(1_000)


def say(one: One, to: One, body: MessageSend | MessageTerms) -> Entry:
    """Whatever a member writes to another machine, without the checks of the verbs."""
    with one.core.store.transaction():
        entry = one.core.append_body(body, scope=scope_to(to.id))
        one.core._sign()
    one.world.carry_out(one, one.core._released())
    one.world.pass_ms(2_000)
    return entry


def late(one: One) -> list[str]:
    return [each["title"] for each in one.call("incidents", {})["value"] if each.get("open", True)]


def states(one: One) -> dict[str, list[str]]:
    return {s["text"]: [to["state"] for to in s["to"]] for s in one.call("sent", {})["value"]}


@proves("message.terms")
def test_what_matters_more_is_read_first_and_what_matters_less_last(world):
    hub, studio = world["hub"], world["studio"]
    for text, more in {"low": {"priority": "low"}, "one": {}, "now": {"priority": "high"}}.items():
        assert send(hub, "studio", text, **more)["ok"]
        world.pass_ms(1_000)
    assert texts(studio) == ["now", "one", "low"]
    item = studio.call("inbox", {})["value"][0]
    assert (item["priority"], item["trust"]) == ("high", "person")
    world.restart("studio")
    assert texts(world["studio"]) == ["now", "one", "low"]


@proves("message.terms")
def test_what_has_expired_is_unread_no_more_and_says_so_to_its_sender(world):
    hub, studio = world["hub"], world["studio"]
    assert send(hub, "studio", "lunch", expires="1h")["ok"]
    assert send(hub, "studio", "stays")["ok"]
    world.pass_ms(1_000)
    assert texts(studio) == ["lunch", "stays"]
    sleep(world, HOUR_MS)
    assert texts(studio) == ["stays"]
    assert studio.call("status", {})["value"]["unread"] == 1
    assert texts(studio, all=True) == ["lunch", "stays"], "it is not lost"
    assert states(hub) == {"lunch": ["expired"], "stays": ["stored"]}


@proves("message.terms")
@pytest.mark.parametrize("priority", ["", "high"])
def test_terms_that_come_after_their_message_was_looked_at_count_as_if_they_had_come_with_it(
    world, priority
):
    laptop, studio = world["laptop"], world["studio"]
    sent = say(laptop, studio, MessageSend([f"claude@{studio.id}"], "lunch"))
    assert texts(studio, agent="claude") == ["lunch"]
    assert texts(studio) == ["lunch"]
    say(laptop, studio, MessageTerms(sent.id.hex(), priority, "1h", to_session="shop-3fa9"))
    assert studio.call("status", {})["value"]["unread"] == 1
    assert texts(studio, agent="claude#shop-3fa9") == ["lunch"]
    sleep(world, HOUR_MS)
    assert texts(studio) == texts(studio, agent="claude#shop-3fa9") == []


@proves("message.terms")
def test_what_was_read_in_time_stays_read(world):
    hub, studio = world["hub"], world["studio"]
    assert send(hub, "studio", "lunch", expires="1h")["ok"]
    world.pass_ms(1_000)
    assert texts(studio, mark=True) == ["lunch"]
    sleep(world, HOUR_MS)
    assert states(hub) == {"lunch": ["read"]}


@proves("message.terms")
@pytest.mark.parametrize("more", [{"expires": "soon"}, {"alarm": "0s"}, {"expires": "999d"}])
def test_terms_that_nobody_can_keep_are_refused_before_anything_is_written(world, more):
    hub = world["hub"]
    answer = send(hub, "studio", "x", **more)
    assert answer["error"]["kind"] == "Malformed"
    assert not hub.entries("message.send")


@proves("message.terms")
def test_terms_of_another_change_nothing_of_a_message(world):
    """A machine that gives its own terms to somebody else's message is not heard."""
    hub, laptop, studio = world["hub"], world["laptop"], world["studio"]
    assert send(hub, "studio", "x")["ok"]
    world.pass_ms(1_000)
    (sent,) = hub.entries("message.send")
    say(laptop, studio, MessageTerms(sent.id.hex(), "low", "1s"))
    sleep(world, HOUR_MS)
    assert texts(studio) == ["x"]


@proves("message.late-is-told")
@pytest.mark.parametrize(
    ("more", "after_ms"),
    [
        ({}, 24 * HOUR_MS),
        ({"priority": "high"}, HOUR_MS // 4),
        ({"alarm": "10m"}, HOUR_MS // 6),
        ({"alarm": "10m", "priority": "low"}, HOUR_MS // 6),
    ],
)
def test_a_message_that_waits_for_too_long_is_told_until_it_is_stored(world, more, after_ms):
    hub = world["hub"]
    world.cut("studio")
    assert send(hub, "studio", "when?", **more)["ok"]
    assert send(hub, "laptop", "and you?", **more)["ok"]
    sleep(world, after_ms - 120_000)
    assert not late(hub)
    sleep(world, 200_000)
    (title,) = late(hub)
    assert "to studio waits to be stored there" in title
    sleep(world, HOUR_MS)
    assert len(late(hub)) == 1
    world.link("hub", "studio")
    sleep(world, 61_000)
    assert not late(hub)


@proves("message.late-is-told")
@pytest.mark.parametrize("more", [{"priority": "low"}, {"expires": "1h"}])
def test_what_nobody_waits_for_is_no_incident(world, more):
    hub = world["hub"]
    world.cut("studio")
    assert send(hub, "studio", "by the way", **more)["ok"]
    sleep(world, 48 * HOUR_MS)
    assert not late(hub)


@proves("message.late-is-told")
def test_a_machine_that_left_is_waited_for_no_more(world):
    hub = world["hub"]
    world.cut("studio")
    assert send(hub, "studio", "when?")["ok"]
    sleep(world, 25 * HOUR_MS)
    assert len(late(hub)) == 1
    assert hub.order("revoke", "studio", {"name": "studio"})["ok"]
    sleep(world, 61_000)
    assert not [title for title in late(hub) if "waits to be stored" in title]


@proves("message.mark-by-id")
def test_those_messages_are_marked_and_no_others(world, monkeypatch):
    hub, studio = world["hub"], world["studio"]
    written(hub, ["one", "two", "three"], to=studio.id, scope=scope_to(studio.id))
    ids = {each["text"]: each["message"] for each in studio.call("inbox", {})["value"]}
    assert studio.call("mark", {"messages": [ids["one"][:16], ids["three"]]})["value"] == {
        "marked": 2, "before": 0,
    }  # fmt: skip
    assert texts(studio) == ["two"]
    again = studio.call("mark", {"messages": [ids["one"], ids["two"]]})
    assert again["value"] == {"marked": 1, "before": 1}
    assert texts(studio) == []
    assert len(studio.entries("message.read")) == 3


@proves("message.mark-by-id")
def test_a_message_of_another_is_not_marked_and_none_beside_it_is(world):
    hub, studio = world["hub"], world["studio"]
    written(hub, ["mine"], to=studio.id, scope=scope_to(studio.id))
    written(studio, ["theirs"], to=hub.id, scope=scope_to(hub.id))
    mine, theirs = (e for e in studio.entries("message.send"))
    if mine.header.author == studio.id:
        mine, theirs = theirs, mine
    answer = studio.call("mark", {"messages": [mine.id.hex(), theirs.id.hex()]})
    assert answer["error"]["kind"] == "Refused"
    assert texts(studio) == ["mine"]


@proves("message.mark-by-id")
def test_many_are_marked_in_turns_of_a_hundred(world, monkeypatch):
    hub, studio = world["hub"], world["studio"]
    written(hub, [f"m{n}" for n in range(30)], to=studio.id, scope=scope_to(studio.id))
    monkeypatch.setattr(inbox, "MESSAGES_MARKED_PER_TURN", 10)
    sizes: list[int] = []
    append_all = studio.core.append_all

    def counted(scope: Any, drafts: Any) -> Any:
        sizes.append(len(drafts))
        return append_all(scope, drafts)

    monkeypatch.setattr(studio.core, "append_all", counted)
    assert len(texts(studio, mark=True)) == 30
    assert sizes == [10, 10, 10]
    assert texts(studio) == []
    assert isinstance(studio.core.part(Undelivered), Undelivered)
