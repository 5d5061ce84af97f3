"""Handlers that yield: what takes long goes on in steps of its own."""

import pytest
from tests.node.cores import LOCAL, Cores
from tests.promise import proves

from muster.channel.frame import Type
from muster.errors import Conflict
from muster.limits import LINK_CALLS_OPEN_MAX
from muster.log import canon
from muster.node import event as ev
from muster.node.call.router import Router
from muster.node.verb import Arg, Verb
from muster.verbs.declaration import Request

TURNS = 4


class Slowly(Request, frozen=True):
    ends: str = "well"


def slowly(core, call, ask: Slowly) -> list[int]:
    done = []
    for number in range(TURNS):
        done.append(number)
        yield
        if ask.ends == "refused":
            raise Conflict("it is refused")
        if ask.ends == "broken":
            raise KeyError(number)
    return done


@pytest.fixture
def hub():
    world = Cores("hub")
    hub = world["hub"]
    row = Verb("slowly", "", "local", "step", f"{__name__}:slowly", (Arg("ends", ""),))
    router = hub.core.part(Router)
    router.verbs = {**router.verbs, "slowly": row}
    return hub


def asked(hub, channel, ends="well", link=LOCAL):
    call = canon.encode({"args": {"ends": ends}, "verb": "slowly"})
    hub.answers.clear()
    hub.step(ev.Arrived(link, Type.CALL, channel, call))


def turns(hub):
    return hub.core.part(Router)._turns


@proves("node.turns")
def test_who_asks_meanwhile_is_answered_first(hub):
    asked(hub, 8)
    assert hub.answers == []
    hub.step(ev.Arrived(LOCAL, Type.CALL, 9, canon.encode({"args": {}, "verb": "threads"})))
    assert [answer["ok"] for answer in hub.answers] == [True]
    hub.answers.clear()
    for number in range(TURNS):
        assert hub.answers == [], number
        hub.step(ev.Turn())
    assert hub.answers == [{"ok": True, "value": list(range(TURNS))}]


@proves("node.turns")
def test_those_that_go_on_have_their_turns_in_order_and_ask_for_the_next_each_time(hub):
    for channel in (8, 9, 10):
        asked(hub, channel)
    for _ in range(3 * TURNS):
        assert len(turns(hub)) > 0
        effects = hub.core.step([ev.Turn()], hub.world.now())
        assert any(isinstance(each, ev.Again) for each in effects) == bool(turns(hub))
    assert not turns(hub)


@proves("node.turns")
@pytest.mark.parametrize(("ends", "kind"), [("refused", "Conflict"), ("broken", "Broken")])
def test_what_fails_in_a_later_turn_is_answered_and_the_machine_goes_on(hub, ends, kind):
    asked(hub, 8, ends)
    hub.step(ev.Turn())
    assert [answer["error"]["kind"] for answer in hub.answers] == [kind]
    assert not turns(hub)
    assert hub.call("slowly", {})["value"] == list(range(TURNS))


@proves("node.turns")
@pytest.mark.parametrize(
    "gone", [ev.Arrived(LOCAL, Type.CLOSE, 8, b""), ev.LinkDown(LOCAL)], ids=["channel", "link"]
)
def test_whoever_hangs_up_is_worked_for_no_more(hub, gone):
    asked(hub, 8)
    hub.step(gone)
    hub.step(ev.Turn())
    assert not turns(hub)
    assert hub.answers == []


@proves("node.turns")
def test_one_link_has_so_many_under_way_and_a_turn_that_was_lost_comes_with_a_tick(hub):
    for channel in range(LINK_CALLS_OPEN_MAX):
        asked(hub, channel + 10)
    assert hub.answers == []
    asked(hub, 9)
    assert hub.answers[0]["error"]["kind"] == "Conflict"
    effects = hub.core.step([ev.Tick()], hub.world.now())
    assert any(isinstance(each, ev.Again) for each in effects)


@proves("node.turns")
def test_a_step_has_one_turn_however_many_ticks_and_callers_asked_for_one(hub, monkeypatch):
    """Each tick between the turns added one more turn to every step after it."""
    monkeypatch.setitem(globals(), "TURNS", 30)
    effects, done = [], []
    for channel in (8, 9, 10):
        call = canon.encode({"args": {"ends": "well"}, "verb": "slowly"})
        effects += hub.core.step([ev.Arrived(LOCAL, Type.CALL, channel, call)], hub.world.now())
    steps = 0
    while turns(hub):
        asked_for = [ev.Turn() for each in effects if isinstance(each, ev.Again)]
        before = [id(work) for _, _, work in turns(hub)]
        effects = hub.core.step([ev.Tick(), *asked_for, ev.Tick()], hub.world.now())
        after = [id(work) for _, _, work in turns(hub)]
        steps += 1
        done += [each for each in effects if isinstance(each, ev.Send)]
        assert before[1:] == after[: len(before) - 1], "the next one had its turn, and no other"
    assert len(done) == 3
    assert steps == 3 * TURNS


@proves("node.disk-full")
def test_what_takes_turns_is_answered_while_a_turn_is_held_back_for_want_of_room(hub):
    call = canon.encode({"args": {"ends": "well"}, "verb": "slowly"})
    held = hub.core.step([ev.Arrived(LOCAL, Type.CALL, 8, call)], hub.world.now())
    # The disk is full: this step waits with what it wants done, and no tick comes meanwhile.
    assert any(isinstance(each, ev.Again) for each in held)
    hub.core.step([ev.Turn()], hub.world.now())
    effects = hub.core.questions([ev.Arrived(LOCAL, Type.CALL, 9, call)], hub.world.now())
    for _ in range(3 * TURNS):
        events = [ev.Turn() for each in effects if isinstance(each, ev.Again)]
        if not events:
            break
        effects = hub.core.questions(events, hub.world.now())
        hub.world.carry_out(hub, [each for each in effects if isinstance(each, ev.Send)])
    assert [answer["value"] for answer in hub.answers] == 2 * [list(range(TURNS))]
