"""Links that come and go, addresses that become known late, and what counts as in use."""

import asyncio
import inspect
from collections import Counter
from types import SimpleNamespace

import pytest
from tests.node.climbing import HANGS_S, A, B, C, Half, now_s
from tests.node.cores import Cores
from tests.promise import proves

from muster.channel import FIRST
from muster.channel.frame import Type
from muster.log import canon
from muster.node import event as ev
from muster.node.call.answers import Answers
from muster.node.call.router import Router
from muster.node.links.climb import BETTER_LATER_S, IDLE_S
from muster.node.supervisor import Supervisor


@pytest.fixture
def half(monkeypatch):
    return Half(monkeypatch, A, C)


@proves("node.climbs")
def test_a_better_channel_whose_links_end_at_once_is_dialled_less_after_a_while(monkeypatch, half):
    half.http.there, half.memory.there = {"a:1"}, {"c"}
    serve, flaps = half.serve, []

    async def flapping(link):
        if link.channel != FIRST:
            await serve(link)
            return
        flaps.append(now_s())
        number = half.begun(link) + 1_000 * len(flaps)
        half.cascade.came(number, link)
        await asyncio.sleep(0.05)
        half.cascade.went(number, link, "lost")

    monkeypatch.setattr(half, "serve", flapping)
    half.core.links.clear()

    async def scenario() -> None:
        await asyncio.sleep(3_600)
        flaps.clear()
        await asyncio.sleep(3_600)
        assert 60 < len(flaps) <= 3_600 / BETTER_LATER_S + 1
        assert half.up == ["memory"]

    half.run(scenario)


@proves("node.climbs")
def test_an_address_that_becomes_known_during_a_dial_is_next_and_does_not_wait(monkeypatch):
    half = Half(monkeypatch, A)
    half.http.silent, half.http.there = {"a:1"}, {"b:1"}

    async def scenario() -> None:
        await asyncio.sleep(300)
        await asyncio.sleep(half.http.began_s[-1] + HANGS_S + 30 - now_s())
        before = len(half.tried) - 1
        await asyncio.sleep(1)
        half.ways = {half.peer: [A, B]}
        half.cascade.stir()
        await asyncio.sleep(9.2)
        assert half.up == [FIRST]
        assert half.tried[before:] == [(FIRST, "a:1"), (FIRST, "b:1")]

    half.run(scenario)


@proves("node.climbs")
def test_a_worse_link_over_which_the_peer_speaks_goes_on(half):
    half.memory.there = {"c"}

    async def scenario() -> None:
        await asyncio.sleep(30)
        (memory,) = half.links.values()
        half.http.there = {"a:1"}
        for _ in range(60):
            await asyncio.sleep(1)
            await memory._far.send_all([b"x"])
        assert half.up == ["memory", FIRST]
        await asyncio.sleep(IDLE_S + 2)
        assert half.up == [FIRST]

    half.run(scenario)


@proves("node.climbs")
def test_a_call_that_was_passed_on_is_under_way_over_both_of_its_links():
    world = Cores("hub", "studio")
    here, _ = world.link("hub", "studio")
    world.pass_ms(500)
    world.frozen.add("studio")
    hub = world["hub"]
    assert not hub.serving.streams.go_over(here)
    call = canon.encode({"verb": "status", "args": {}, "on": "studio"})
    hub.step(ev.Arrived(1, Type.CALL, 7, call))
    assert hub.serving.streams.go_over(here)
    assert hub.serving.streams.go_over(1)
    hub.step(ev.Arrived(1, Type.CLOSE, 7, b""))
    assert not hub.serving.streams.go_over(here)


@proves("node.climbs")
def test_a_call_that_waits_or_is_answered_bit_by_bit_is_under_way():
    core = Cores("hub")["hub"].core
    router, answers = core.part(Router), core.part(Answers)
    assert not any(map(router.goes_over, (5, 6, 7, 8)))
    answers.open[5, 1] = lambda: None
    router.waiting.append((6, 1, None))  # type: ignore[arg-type]
    router._turns.append((SimpleNamespace(link=7), None, None))  # type: ignore[arg-type]
    assert [router.goes_over(link) for link in (5, 6, 7, 8)] == [True, True, True, False]


@proves("node.climbs", "log.sync-says-unanswered")
def test_what_was_answered_in_the_step_in_which_it_was_said_to_be_silent_is_not_doubted():
    world = Cores("hub", "studio")
    here, _ = world.link("hub", "studio")
    world.pass_ms(5_000)
    hub, studio = world["hub"], world["studio"]
    for silent in (False, True):
        hub.effects.clear()
        hub.core.sync.unanswered[studio.id] = here
        hub.core.sync.paths.by_link[here].unanswered = silent
        hub.step(ev.Turn())
        sought = [each for each in hub.effects if isinstance(each, ev.Seek)]
        assert sought == [ev.Seek(studio.id, here)] * silent
        assert hub.core.sync.unanswered == {}


@proves("node.mistakes-end-one-thing")
def test_work_that_is_stopped_before_its_first_turn_leaves_nothing_behind():
    async def dial() -> None:
        raise AssertionError("it never begins")

    async def scenario() -> str:
        supervisor = Supervisor(Counter(), print, print)  # type: ignore[arg-type]
        work = dial()
        supervisor.run("dial", work)
        await supervisor.stop()
        return inspect.getcoroutinestate(work)

    assert asyncio.run(scenario()) == inspect.CORO_CLOSED
