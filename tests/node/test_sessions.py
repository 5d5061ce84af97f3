"""Live sessions: what they are called, what reaches them, and what their tokens are for."""

from typing import Any

import pytest
from tests.node.cores import Cores, One
from tests.promise import proves

from muster.limits import SESSION_GONE_MS, SESSION_TOKENS_MAX
from muster.message.session import session_name
from muster.node import event as ev
from muster.node.services.sessions import Sessions


@pytest.fixture
def world() -> Cores:
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(1_000)
    for one in world.machines.values():
        one.step(ev.Tick())
    return world


def opened(one: One, own: str = "0a1b", **more: Any) -> dict[str, Any]:
    args = {"agent": "noop", "own": own, "project": "/home/ann/Shop", "branch": "main", **more}
    answer = one.call("session.open", args)
    assert answer["ok"], answer
    return answer["value"]


def said(one: One, verb: str, token: str, **args: Any) -> dict[str, Any]:
    """What an agent asks with the token of its session."""
    answer = one.call(verb, args, capability=token)
    one.world.pass_ms(500)
    return answer


def inbox(one: One, agent: str, **args: Any) -> list[str]:
    answer = one.call("inbox", {"agent": agent, **args})
    assert answer["ok"], answer
    return [each["text"] for each in answer["value"]]


def listed(one: One) -> dict[str, dict[str, Any]]:
    return {each["session"]: each for each in one.call("sessions", {})["value"]}


# --- what it is called ------------------------------------------------------------------------


@proves("session.keeps-its-address")
def test_a_session_is_called_by_its_folder_and_is_the_same_when_it_is_resumed(world):
    studio = world["studio"]
    first = opened(studio)
    assert first["session"].startswith("shop-")
    assert first["address"] == f"noop@studio#{first['session']}"
    other = opened(studio, own="ffff")
    assert other["session"] != first["session"]
    entries = len(studio.entries("session.state"))
    again = opened(studio)
    assert (again["session"], again["token"] != first["token"]) == (first["session"], True)
    assert len(studio.entries("session.state")) == entries, "nothing new is written down"
    studio.call("session.close", {"session": first["session"]})
    world.restart("studio")
    world.link("hub", "studio")
    world.pass_ms(1_000)
    assert listed(studio)[first["session"]]["state"] == "ended"
    assert opened(studio)["session"] == first["session"]
    assert listed(studio)[first["session"]]["state"] == "open"


@proves("session.keeps-its-address")
def test_two_sessions_whose_digits_are_alike_have_two_names():
    taken = {session_name("noop", "a", "/w/Shop", lambda _: False)}
    longer = session_name("noop", "a", "/w/Shop", taken.__contains__)
    assert longer not in taken
    assert longer.startswith(taken.pop())
    assert session_name("noop", "a", "/", lambda _: False).startswith("noop-")
    assert session_name("noop", "a", "/w/名前", lambda _: False).startswith("noop-")


@proves("hook.odd-input")
@pytest.mark.parametrize(
    "wrong",
    [{"agent": "No"}, {"own": ""}, {"own": "a\n"}, {"own": "x" * 201}, {"project": "x" * 2_000}],
)
def test_what_can_be_no_session_is_refused_and_nothing_is_written(world, wrong):
    studio = world["studio"]
    args = {"agent": "noop", "own": "1", **wrong}
    answer = studio.call("session.open", args)
    assert (answer["ok"], answer["error"]["kind"]) == (False, "Malformed")
    assert studio.entries("session.state") == []


@proves("session.private")
def test_a_session_is_known_on_its_own_machine_alone(world):
    opened(world["studio"])
    world.pass_ms(2_000)
    assert world["hub"].entries("session.state") == []
    assert listed(world["hub"]) == {}


# --- what reaches it --------------------------------------------------------------------------


@proves("session.answers-return")
def test_an_answer_reaches_the_session_that_asked_and_no_other_also_after_a_restart(world):
    hub, studio = world["hub"], world["studio"]
    mine, other = opened(studio), opened(studio, own="ffff")
    said(studio, "send", mine["token"], to="hub", text="is the port free?")
    (asked,) = hub.call("inbox", {})["value"]
    assert (asked["from"], asked["session"]) == ("noop@studio", mine["session"])
    world.restart("studio")
    world.link("hub", "studio")
    answer = hub.order("reply", asked["message"], {"message": asked["message"], "text": "yes"})
    assert answer["ok"], answer
    world.pass_ms(2_000)
    assert inbox(studio, f"noop#{other['session']}") == []
    again = opened(studio)
    assert inbox(studio, f"noop#{again['session']}") == ["yes"]
    assert inbox(studio, f"noop#{again['session']}", all=True) == ["yes"]
    (shown,) = studio.call("inbox", {"agent": "noop"})["value"]
    assert (shown["for_session"], shown["trust"]) == (mine["session"], "person")
    assert inbox(studio, f"noop#{again['session']}", mark=True) == ["yes"]
    assert inbox(studio, f"noop#{again['session']}") == []
    world.pass_ms(1_000)
    (sent,) = hub.call("sent", {})["value"]
    assert [each["state"] for each in sent["to"]] == ["read"]


@proves("session.answers-return")
def test_what_is_for_a_session_that_is_gone_is_its_agents(world):
    hub, studio = world["hub"], world["studio"]
    gone, other = opened(studio), opened(studio, own="ffff")

    def send(to: str, text: str) -> None:
        answer = hub.order("send", to, {"to": to, "text": text})
        assert answer["ok"], answer
        world.pass_ms(1_000)

    send(gone["address"], "one")
    send("noop@studio#never-0000", "two")
    assert inbox(studio, f"noop#{other['session']}") == ["two"], "no such session was ever here"
    studio.call("session.close", {"session": gone["session"], "gone": True})
    assert inbox(studio, f"noop#{other['session']}") == ["one", "two"]
    assert inbox(studio, f"noop#{gone['session']}") == ["one", "two"]


@proves("session.answers-return")
def test_a_session_is_gone_when_nobody_went_on_with_it_for_a_day(world):
    studio = world["studio"]
    row = studio.core.part(Sessions).find(opened(studio)["session"])
    world.ms += SESSION_GONE_MS - 10_000
    studio.step(ev.Tick())
    assert not studio.core.part(Sessions).is_gone(row)
    world.ms += 20_000
    studio.step(ev.Tick())
    assert studio.core.part(Sessions).is_gone(row)
    assert listed(studio) == {}
    opened(studio)
    assert not studio.core.part(Sessions).is_gone(row)


@proves("session.answers-return")
@pytest.mark.parametrize(
    ("to", "kind"),
    [("studio#shop-0000", "Malformed"), ("noop@studio#Shop", "Malformed"),
     ("noop@hub#shop-0000", "NotFound"), ("shell@hub#{}", "NotFound")],
)  # fmt: skip
def test_an_address_of_a_session_that_cannot_be_is_refused(world, to, kind):
    hub = world["hub"]
    to = to.format(opened(hub)["session"])
    answer = hub.order("send", to, {"to": to, "text": "x"})
    assert (answer["ok"], answer["error"]["kind"]) == (False, kind)
    assert hub.entries("message.send") == []


# --- what may come into it --------------------------------------------------------------------


@proves("session.modes")
def test_the_mode_of_a_session_lasts_until_it_is_changed(world):
    studio = world["studio"]
    session = opened(studio)["session"]
    changed = studio.call("session", {"session": session, "mode": "focus"})
    assert (changed["ok"], changed["value"]["mode"]) == (True, "focus")
    world.restart("studio")
    world.link("hub", "studio")
    world.pass_ms(1_000)
    token = opened(studio)["token"]
    assert studio.call("session.who", {"token": token})["value"]["mode"] == "focus"
    assert not studio.call("session", {"session": session, "mode": "loud"})["ok"]


# --- its token --------------------------------------------------------------------------------


@proves("session.tokens")
def test_a_token_says_who_asks_until_its_session_is_closed_or_the_daemon_ends(world):
    studio = world["studio"]
    mine = opened(studio)
    who = studio.call("session.who", {"token": mine["token"]})["value"]
    assert (who["address"], who["own"], who["agent"]) == (mine["address"], "0a1b", "noop")
    studio.call("session.close", {"session": mine["session"]})
    refused = studio.call("session.who", {"token": mine["token"]})
    assert (refused["ok"], refused["error"]["kind"]) == (False, "Denied")
    assert not said(studio, "send", mine["token"], to="hub", text="x")["ok"]
    later = opened(studio)["token"]
    world.restart("studio")
    world.link("hub", "studio")
    world.pass_ms(1_000)
    assert not studio.call("session.who", {"token": later})["ok"]
    assert studio.entries("message.send") == []


@proves("session.tokens")
def test_a_token_orders_nothing_but_what_the_agent_of_any_task_may(world):
    studio = world["studio"]
    token = opened(studio)["token"]
    assert said(studio, "send", token, to="hub", text="hello")["ok"]
    denied = said(studio, "thread", token, name="team")
    assert (denied["ok"], denied["error"]["kind"]) == (False, "Denied")


@proves("session.tokens")
def test_of_many_tokens_of_a_session_the_newest_count(world):
    studio = world["studio"]
    tokens = [opened(studio)["token"] for _ in range(SESSION_TOKENS_MAX + 2)]
    count = [studio.call("session.who", {"token": each})["ok"] for each in tokens]
    assert count == [False, False, *[True] * SESSION_TOKENS_MAX]


@proves("session.tokens")
def test_no_token_stands_in_an_entry_or_a_list(world):
    studio = world["studio"]
    secret = opened(studio)["token"].rpartition(".")[2]
    assert secret not in str(listed(studio))
    bodies = [e.body for s in studio.core.log.streams() for e in studio.core.log.slice(s, 0, 999)]
    assert not any(secret.encode() in body for body in bodies if body)
