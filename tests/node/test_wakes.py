"""What wakes a live session that rests, and who waits for it."""

import itertools
import json
from typing import Any

import pytest
from tests.node import cores
from tests.node.cores import LOCAL, Cores, One
from tests.node.test_hooks import NAMES, context, hook, send, states
from tests.node.test_sessions import opened
from tests.promise import proves

from muster.agent.plugin import hook as plugin
from muster.limits import (
    HOOK_CONTINUED_MAX,
    HOOK_CONTINUED_MS,
    HOOK_HANDED_MS,
    HOOK_TAKEN_MS,
    SESSION_SILENT_MS,
    SESSION_WAITS_MAX,
)
from muster.log import canon
from muster.node import event as ev
from muster.node.host.clock import CLOCK_TRUST_MS
from muster.node.services.wakes import Wakes
from muster.verbs import hook as verb

_CHANNELS = itertools.count(1_000)
WOKEN = "<task-notification> Messages of your fleet"


@pytest.fixture
def world() -> Cores:
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(1_000)
    return world


def told(event: str, own: str) -> dict[str, Any]:
    said = {"session_id": own, "cwd": "/w/shop", "hook_event_name": NAMES[event]}
    return {"agent": "noop", "input": json.dumps(said).encode().hex()}


class Waiter:
    """The program that waits beside a session."""

    def __init__(self, one: One, event: str = "stop", own: str = "0a1b", pid: int = 7) -> None:
        self.one, self.told, self.channel = one, told(event, own), next(_CHANNELS)
        args = {**self.told, "pid": pid}
        one.raw(canon.encode({"args": args, "verb": "hook.wait"}), channel=self.channel)

    @property
    def answer(self) -> dict[str, Any] | None:
        self.one.world.drain()
        return next(iter(self.one.told.get(self.channel, ())), None)

    @property
    def waits(self) -> bool:
        return self.answer is None

    def text(self, *, prints: bool = True) -> str:
        """What it prints as it ends; "" where it goes in silence."""
        assert self.answer is not None
        assert self.answer["ok"], self.answer
        number, _, raw = self.answer["value"].partition(":")
        if raw and prints:
            self.one.call("hook.printed", {**self.told, "number": number})
            self.one.world.pass_ms(100)
        return bytes.fromhex(raw).decode()


def start(one: One, own: str = "0a1b", pid: int = 7) -> None:
    assert hook(one, "start", own, pid=pid) == ""


def rests(one: One, own: str = "0a1b", **more: Any) -> Waiter:
    """A session that is there and rests, and who waits beside it."""
    hook(one, "prompt", own, **more)
    waiter = Waiter(one, own=own)
    assert hook(one, "stop", own, **more) == ""
    assert waiter.waits
    return waiter


@proves("hook.wakes", "hook.shown-is-proven")
def test_a_session_that_rests_is_woken_by_what_is_for_it_and_its_next_event_proves_that(world):
    hub, studio = world["hub"], world["studio"]
    waiter = rests(studio)
    send(world, "wake up")
    text = waiter.text()
    assert "alice on hub (person): wake up" in text
    assert states(hub) == ["stored"]
    assert hook(studio, "prompt", prompt=WOKEN) == "", "it is not told twice"
    world.pass_ms(1_000)
    assert states(hub) == ["read"]


@proves("hook.wakes")
@pytest.mark.parametrize("first", ["hook", "waiter"])
def test_what_the_end_of_a_turn_shows_wakes_nobody_whichever_hook_comes_first(world, first):
    studio = world["studio"]
    hook(studio, "prompt")
    send(world, "one thing more")
    waiter = Waiter(studio) if first == "waiter" else None
    assert "one thing more" in hook(studio, "stop")
    waiter = waiter or Waiter(studio)
    assert waiter.waits
    assert hook(studio, "stop", stop_hook_active=True) == ""
    again = Waiter(studio)
    assert waiter.text() == "", "one waits, the one that came last"
    assert again.waits


@proves("hook.wakes")
@pytest.mark.parametrize("first", ["hook", "waiter"])
def test_a_session_that_began_may_be_woken_before_its_first_prompt(world, first):
    studio = world["studio"]
    waiter = Waiter(studio, "start") if first == "waiter" else None
    send(world, "before it began")
    assert "before it began" in hook(studio, "start", pid=7)
    waiter = waiter or Waiter(studio, "start")
    assert waiter.waits
    send(world, "while it waits for its person")
    text = waiter.text()
    assert "while it waits for its person" in text
    assert "before it began" not in text


@proves("hook.wakes")
def test_a_session_that_works_is_told_by_its_next_event_and_not_woken(world):
    studio = world["studio"]
    waiter = rests(studio)
    hook(studio, "prompt")
    send(world, "hello")
    assert waiter.waits
    assert "hello" in hook(studio, "tool")
    assert hook(studio, "stop") == ""
    world.pass_ms(SESSION_SILENT_MS + 1_000)
    assert waiter.waits


@proves("hook.wakes")
def test_a_turn_that_its_person_stopped_is_taken_for_over_after_a_while(world):
    studio = world["studio"]
    waiter = rests(studio)
    hook(studio, "prompt")
    send(world, "hello")
    world.pass_ms(SESSION_SILENT_MS // 2)
    assert waiter.waits
    world.pass_ms(SESSION_SILENT_MS)
    assert "hello" in waiter.text()


@proves("hook.wakes", "hook.shown-is-proven")
def test_what_a_waiter_was_given_and_did_not_print_comes_with_the_next_event(world):
    studio = world["studio"]
    waiter = rests(studio)
    send(world, "hello")
    assert "hello" in waiter.text(prints=False)
    assert hook(studio, "prompt") == "", "it may print it at this moment"
    world.pass_ms(HOOK_HANDED_MS)
    assert "hello" in context(hook(studio, "tool"))


@proves("hook.wakes")
def test_only_one_session_of_an_agent_is_woken_the_one_heard_of_last(world):
    studio = world["studio"]
    first, second = rests(studio, "aa"), rests(studio, "bb")
    hook(studio, "prompt", "aa")
    hook(studio, "stop", "aa")
    send(world, "for any of you")
    assert "for any of you" in first.text()
    assert second.waits
    world.pass_ms(HOOK_TAKEN_MS // 2)
    assert second.waits
    send(world, "and more")
    assert "and more" in (text := second.text())
    assert "for any of you" not in text, "the other one has it"


@proves("hook.wakes", "hook.shown-is-proven")
@pytest.mark.parametrize("goes_on", [True, False])
def test_what_a_woken_session_never_showed_wakes_another_one_without_a_further_message(
    world, monkeypatch, goes_on
):
    monkeypatch.setattr(plugin, "NOTICED", frozenset({"noop"}))
    studio = world["studio"]
    lives, closed = rests(studio, "aa"), rests(studio, "bb")
    send(world, "please answer")
    assert closed.text() == plugin.NOTICE
    if goes_on:
        assert "please answer" in hook(studio, "prompt", "bb", prompt=plugin.NOTICE)
        hook(studio, "tool", "bb")
    world.pass_ms(HOOK_TAKEN_MS // 2)
    assert lives.waits
    world.pass_ms(HOOK_TAKEN_MS)
    assert lives.waits == goes_on
    if not goes_on:
        assert "please answer" in hook(studio, "prompt", "aa", prompt=plugin.NOTICE)


@proves("hook.wakes")
@pytest.mark.parametrize("event", ["prompt", "tool"])
def test_a_program_that_is_woken_by_a_prompt_is_not_taken_to_rest_because_it_thinks_for_long(
    world, monkeypatch, event
):
    monkeypatch.setattr(plugin, "NOTICED", frozenset({"noop"}))
    studio = world["studio"]
    waiter = rests(studio)
    hook(studio, event)
    world.pass_ms(SESSION_SILENT_MS + 1_000)
    send(world, "hello")
    world.pass_ms(20 * SESSION_SILENT_MS)
    assert waiter.waits
    assert "hello" in hook(studio, "stop"), "and the end of its turn shows it"


@proves("hook.wakes")
def test_a_context_that_was_made_shorter_in_a_turn_is_no_rest_and_shows_nothing_again(world):
    studio = world["studio"]
    waiter = rests(studio)
    hook(studio, "prompt")
    send(world, "at once")
    assert "at once" in hook(studio, "tool")
    assert hook(studio, "start", source="compact") == ""
    send(world, "meanwhile")
    assert waiter.waits
    assert "meanwhile" in hook(studio, "tool")
    hook(studio, "stop")
    assert hook(studio, "start", source="compact") == "", "its person may ask for it as well"
    send(world, "afterwards")
    assert "afterwards" in waiter.text()


@proves("hook.wakes", "hook.turns-end")
def test_a_context_that_was_made_shorter_is_no_persons_word(world):
    studio = world["studio"]
    hook(studio, "prompt")
    woken = 0
    for number in range(2 * HOOK_CONTINUED_MAX):
        waiter = Waiter(studio)
        hook(studio, "stop", stop_hook_active=False)
        send(world, f"answer {number}")
        if waiter.waits:
            break
        assert waiter.text()
        woken += 1
        hook(studio, "prompt", prompt=WOKEN)
        hook(studio, "start", source="compact")
    assert woken == HOOK_CONTINUED_MAX


@proves("hook.bounded")
def test_those_who_wait_look_for_what_is_for_their_agent_and_for_nothing_else(world, monkeypatch):
    studio, looked = world["studio"], list[str]()
    waiters = [rests(studio, own) for own in ("aa", "bb")]
    looks = verb._waking
    monkeypatch.setattr(
        verb, "_waking", lambda core, row, *more: looked.append(row.own) or looks(core, row, *more)
    )
    for to in ("all", "other@studio", "noop@hub"):
        world["hub"].order("send", to, {"to": to, "text": "much"})
        world.pass_ms(500)
    assert all(each.waits for each in waiters)
    assert looked == []
    send(world, "for you")
    assert [each.waits for each in waiters] == [True, False]
    assert sorted(looked) == ["aa", "bb"]


@proves("hook.wakes")
def test_a_clock_that_was_set_back_keeps_no_session_asleep(world, monkeypatch):
    studio = world["studio"]
    waiter = rests(studio)
    hook(studio, "prompt")
    monkeypatch.setattr(cores, "WALL_MS", cores.WALL_MS - 86_400_000)
    # A jump is believed when it has stayed.
    world.pass_ms(CLOCK_TRUST_MS + 1_000)
    send(world, "hello")
    world.pass_ms(SESSION_SILENT_MS)
    assert "hello" in waiter.text()


@proves("hook.wakes", "session.modes")
def test_nobody_is_woken_for_what_its_mode_keeps_out_or_is_for_everybody_or_matters_little(world):
    studio = world["studio"]
    session = opened(studio, project="/w/shop")
    name = session["session"]

    def mode(mode: str) -> None:
        assert studio.call("session", {"session": name, "mode": mode})["ok"]
        world.pass_ms(100)

    waiter = rests(studio)
    send(world, "lunch", "all")
    args = {"to": "noop@studio", "text": "some day", "priority": "low"}
    assert world["hub"].order("send", "noop@studio", args)["ok"]
    world.pass_ms(500)
    mode("do-not-disturb")
    send(world, "for this one", session["address"])
    send(world, "for any")
    assert waiter.waits
    mode("focus")
    text = waiter.text()
    assert ("for this one" in text, "for any" in text) == (True, False)
    waiter = Waiter(studio)
    assert waiter.waits
    mode("open")
    text = waiter.text()
    assert ("for any" in text, "lunch" in text, "some day" in text) == (True, False, False)


@proves("hook.wakes", "session.answers-return")
def test_what_is_for_one_session_wakes_no_other(world):
    studio = world["studio"]
    other = rests(studio, "ffff")
    own = rests(studio)
    (row,) = [s for s in studio.call("sessions", {})["value"] if s["state"] == "open"][:1]
    send(world, "for this one", row["address"])
    assert "for this one" in own.text()
    assert other.waits


@proves("hook.wakes", "hook.turns-end")
def test_two_sessions_that_wake_each_other_do_not_go_on_for_ever(world):
    studio = world["studio"]
    hook(studio, "prompt")

    def turn(number: int) -> str:
        """It is woken by an answer, works, and answers itself; its turn is over."""
        waiter = Waiter(studio)
        hook(studio, "stop", stop_hook_active=number > 0)
        send(world, f"answer {number}")
        if waiter.waits:
            return ""
        text = waiter.text()
        assert hook(studio, "prompt", prompt=WOKEN) == ""
        return text

    texts = [turn(number) for number in range(HOOK_CONTINUED_MAX)]
    assert all(f"answer {number}" in text for number, text in enumerate(texts))
    assert ["often enough" in text for text in texts] == [False] * 7 + [True]
    assert turn(100) == ""
    assert hook(studio, "stop", stop_hook_active=True) == "", "nor does its turn go on"
    # Its person's word, or a long time, and it may be woken again.
    assert "answer 100" in context(hook(studio, "prompt", prompt="what is new?"))
    assert "answer 101" in turn(101)
    for number in range(102, 102 + HOOK_CONTINUED_MAX - 1):
        assert turn(number)
    assert turn(200) == ""
    studio.world.ms += HOOK_CONTINUED_MS
    world.pass_ms(100)
    assert "answer 200" in hook(studio, "stop", stop_hook_active=True)


@proves("hook.wait-ends")
def test_who_waits_is_let_go_when_its_session_ends(world):
    studio = world["studio"]
    waiter = rests(studio)
    hook(studio, "end")
    assert waiter.text() == ""
    send(world, "too late")
    assert studio.core.part(Wakes)._waiting == {}


@proves("hook.wait-ends")
def test_nothing_is_kept_of_who_hung_up(world):
    studio = world["studio"]
    rests(studio)
    studio.step(ev.LinkDown(LOCAL))
    studio.serving.streams.link_down(LOCAL)
    studio.serving.turn()
    assert studio.core.part(Wakes)._waiting == {}
    studio.step(ev.LinkUp(LOCAL, "", True, "ipc"))
    send(world, "hello")
    assert "hello" in context(hook(studio, "prompt")), "and it is handed to nobody"


@proves("hook.wait-ends")
def test_so_many_wait_at_once_and_the_one_that_waited_longest_goes(world):
    studio = world["studio"]
    waiters = [Waiter(studio, own=f"s{number}") for number in range(SESSION_WAITS_MAX + 1)]
    assert waiters[0].text() == ""
    assert all(each.waits for each in waiters[1:])


@proves("hook.wait-ends")
@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"hook_event_name":"Stop"}'])
def test_what_no_hook_says_is_waited_for_by_nobody(world, raw):
    answer = world["studio"].call("hook.wait", {"agent": "noop", "input": raw.hex()})
    assert answer == {"ok": True, "value": "0:"}


@proves("hook.wakes")
def test_after_a_restart_those_who_come_back_are_told_when_their_session_is_silent(world):
    studio = world["studio"]
    rests(studio)
    world.restart("studio")
    world.link("hub", "studio")
    world.pass_ms(1_000)
    waiter = Waiter(studio)
    send(world, "hello")
    assert waiter.waits
    world.pass_ms(SESSION_SILENT_MS)
    assert "hello" in waiter.text()


@proves("hook.wakes", "hook.shown-is-proven", "hook.turns-end")
def test_a_program_that_is_woken_by_a_prompt_is_told_no_text_and_has_the_messages_with_it(
    world, monkeypatch
):
    monkeypatch.setattr(plugin, "NOTICED", frozenset({"noop"}))
    hub, studio = world["hub"], world["studio"]
    waiter, other = rests(studio), rests(studio, "ffff")
    hook(studio, "prompt")
    hook(studio, "stop")
    for number in range(HOOK_CONTINUED_MAX):
        send(world, f"answer {number}")
        assert waiter.text() == plugin.NOTICE
        assert other.waits, "one of them is woken"
        assert states(hub)[-1] == "stored"
        assert f"answer {number}" in context(hook(studio, "prompt", prompt=plugin.NOTICE))
        waiter = Waiter(studio)
        assert hook(studio, "stop", stop_hook_active=False) == ""
        world.pass_ms(500)
        assert states(hub)[-1] == "read"
    hook(studio, "end", "ffff")
    send(world, "answer 100")
    assert waiter.waits
    assert hook(studio, "stop", stop_hook_active=False) == ""
    assert "answer 100" in context(hook(studio, "prompt", prompt="what is new?"))
