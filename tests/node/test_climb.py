"""When which channel to a machine is dialled, which link is used, and which may end."""

import asyncio
import errno
import json
from itertools import pairwise

import pytest
from tests.loop_clock import LoopClock
from tests.node.climbing import HANGS_S, A, B, C, Half, Speaking, now_s
from tests.promise import proves

from muster import channel as channels
from muster.channel import CHANNELS, FIRST, Spec
from muster.channel import frame as frames
from muster.channel.frame import Type
from muster.fleet.facts import Way
from muster.log.session import Session
from muster.log.stream import MachineId
from muster.node.link import Link, best, cost
from muster.node.links import climb as climbs
from muster.node.links.addresses import NEXT_S
from muster.node.links.climb import BETTER_AT_FIRST_S, BETTER_LATER_S, BETTER_S, IDLE_S
from muster.node.links.health import TRIES_MAX
from muster.node.links.paths import DIALS_MAX

PEER = MachineId("b" * 64)
MIDDLE = "m" * 64


@pytest.fixture
def half(monkeypatch):
    return Half(monkeypatch, A, C)


# --- which is best ----------------------------------------------------------------------------


@proves("node.best-link", "log.sync-one-session")
@pytest.mark.parametrize(
    ("paths", "found"),
    [
        ([("http", ""), ("memory", "")], 1),
        ([("memory", ""), ("http", "")], 2),
        ([("memory", ""), ("memory", "")], 2),
        ([("http", ""), ("http", ""), ("memory", "")], 2),
        ([("unheard-of", ""), ("memory", "")], 2),
        ([("memory", ""), ("unheard-of", "")], 1),
        ([("memory", ""), ("http", MIDDLE)], 1),
        ([("relay", MIDDLE), ("relay", MIDDLE)], 2),
    ],
)
def test_of_several_links_the_cheapest_is_used_and_of_these_the_newest(monkeypatch, paths, found):
    monkeypatch.setattr(channels, "CHANNELS", (*CHANNELS, Spec("memory", "link", "")))
    links, session = {}, Session(1, PEER)
    for number, (channel, through) in enumerate(paths, 1):
        price = cost(channel, through)
        links[number] = Link(number, PEER, False, channel, 0, through=through, cost=price)
        session.paths[number], session.costs[number] = through, price
    assert best(links, PEER, session.proofs, direct=False) == found
    assert session.best() == found


# --- who is dialled ---------------------------------------------------------------------------


@proves("node.climbs")
def test_a_first_choice_that_says_nothing_costs_a_second(half):
    half.http.silent, half.memory.there = {"a:1"}, {"c"}

    async def scenario() -> None:
        await asyncio.sleep(NEXT_S)
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        assert (half.served, half.served_s) == (["memory"], [NEXT_S])
        await asyncio.sleep(HANGS_S - NEXT_S)
        assert half.http.ended[0] == "failed", "it was left its time"
        assert half.up == ["memory"]

    half.run(scenario)


@proves("node.climbs")
def test_a_better_channel_that_answers_late_is_used_and_the_worse_link_ends(half):
    half.http.slow, half.http.there, half.memory.there = {"a:1": 3.0}, {"a:1"}, {"c"}

    async def scenario() -> None:
        await asyncio.sleep(3.1)
        assert half.up == ["memory", FIRST]
        await asyncio.sleep(IDLE_S + 2)
        assert half.up == [FIRST]
        assert len(half.tried) == 2

    half.run(scenario)


@proves("node.climbs")
def test_a_worse_channel_that_answers_late_is_not_used(half):
    half.http.slow, half.memory.slow = {"a:1": 2.0}, {"c": 4.0}
    half.http.there, half.memory.there = {"a:1"}, {"c"}

    async def scenario() -> None:
        await asyncio.sleep(6)
        assert (half.up, half.served) == ([FIRST], [FIRST])
        assert half.memory.ended == ["stands"]

    half.run(scenario)


@proves("node.climbs", "node.channels-in-turn")
def test_where_nobody_answers_each_channel_is_dialled_less_and_less(half):
    half.http.silent, half.memory.silent = {"a:1"}, {"c"}

    async def scenario() -> None:
        await asyncio.sleep(1_000)
        for channel in (half.http, half.memory):
            pauses = [b - a for a, b in pairwise(channel.began_s)]
            assert pauses[0] == pytest.approx(HANGS_S + 0.5, abs=2)
            assert all(each >= HANGS_S + 28 for each in pauses[8:])

    half.run(scenario)


@proves("node.climbs")
def test_what_failed_and_need_not_rest_leaves_the_others_their_turn(monkeypatch, half):
    monkeypatch.setattr("muster.node.links.climb.Backoff.failed", lambda _self: 0)
    half.http.slow, half.memory.slow = {"a:1": 0.01}, {"c": 0.01}

    async def scenario() -> None:
        await asyncio.sleep(0.1)

    half.run(scenario)
    assert half.tried[:6] == [(FIRST, "a:1"), ("memory", "c")] * 3


@proves("node.climbs")
def test_a_better_channel_that_works_again_is_used_within_ten_seconds_and_nothing_is_sent_twice(
    monkeypatch,
):
    half = Speaking(monkeypatch, A, C)
    half.http.there = set()

    def segments() -> list[int]:
        return [n for n, raw in half.sent if frames.decode(raw).type is Type.SEGMENT]

    async def scenario() -> None:
        await half.pass_s(60)
        assert half.up == ["memory"]
        half.world["hub"].order("send", "studio", {"text": ["one"], "to": "studio"})
        await half.pass_s(1)
        assert half.texts() == ["one"]
        half.sent.clear()
        half.http.there, back_s = {"a:1"}, now_s()
        while FIRST not in half.up:
            await half.pass_s(0.1)
        assert now_s() - back_s <= BETTER_S + 0.2
        (memory, http) = half.links
        await half.pass_s(1)
        half.world["hub"].order("send", "studio", {"text": ["two"], "to": "studio"})
        await half.pass_s(1)
        assert half.texts() == ["one", "two"]
        assert set(segments()) == {http}
        assert len(segments()) <= 2, "the message, and what was written about it"
        half.busy = {memory}
        await half.pass_s(60)
        assert half.up == ["memory", FIRST], "something goes over it still"
        half.busy = set()
        await half.pass_s(IDLE_S + 2)
        assert half.up == [FIRST]
        half.world["hub"].order("send", "studio", {"text": ["three"], "to": "studio"})
        await half.pass_s(1)
        assert half.texts() == ["one", "two", "three"]

    half.run(scenario)


@proves("node.climbs")
def test_a_better_channel_that_stays_away_is_tried_less_after_a_while(half):
    half.memory.there = {"c"}

    async def scenario() -> None:
        await asyncio.sleep(BETTER_AT_FIRST_S)
        tries = half.http.began_s
        pauses = [b - a for a, b in pairwise(tries)]
        assert max(pauses) <= BETTER_S + 0.01
        await asyncio.sleep(60)
        half.http.began_s.clear()
        await asyncio.sleep(1_000)
        assert len(half.http.began_s) <= 1_000 / BETTER_LATER_S + 1

    half.run(scenario)


@proves("node.climbs")
def test_a_new_address_of_a_better_channel_is_tried_at_once(half):
    half.memory.there, half.http.there = {"c"}, {"b:1"}

    async def scenario() -> None:
        await asyncio.sleep(BETTER_AT_FIRST_S + 60)
        half.ways = {half.peer: [A, B, C]}
        half.cascade.stir()
        await asyncio.sleep(0.01)
        assert half.up == ["memory", FIRST]

    half.run(scenario)


@proves("node.climbs", "node.quiet-is-cheap")
def test_while_the_best_channel_carries_nobody_is_dialled(half):
    half.http.there, half.memory.there = {"a:1"}, {"c"}

    async def scenario() -> None:
        await asyncio.sleep(3_600)
        assert half.tried == [(FIRST, "a:1")]

    half.run(scenario)


@proves("node.climbs")
def test_a_link_that_ends_in_use_is_replaced_at_once(half):
    half.http.there, half.memory.there = {"a:1"}, {"c"}

    async def scenario() -> None:
        await asyncio.sleep(100)
        half.http.there = set()
        (link,) = half.links.values()
        await link.close("lost")
        await asyncio.sleep(0.01)
        assert half.up == ["memory"]

    half.run(scenario)


@proves("node.climbs")
def test_whoever_was_dialled_leaves_the_dialling_to_the_other_for_a_while(half):
    half.http.there = {"a:1"}

    async def scenario() -> None:
        half.ways = {}
        await asyncio.sleep(1)
        serving = asyncio.create_task(half.serve(await half.http.dial("a:1", peer=half.peer)))
        await asyncio.sleep(1)
        half.ways, half.tried[:] = {half.peer: [A]}, []
        half.cascade.stir()
        (link,) = half.links.values()
        await link.close("lost")
        await serving
        await asyncio.sleep(climbs.SECOND_DIALLER_S - 0.1)
        assert half.tried == []
        await asyncio.sleep(0.2)
        assert half.up == [FIRST]

    half.run(scenario)


@proves("node.climbs")
def test_of_many_machines_that_are_away_few_begin_to_be_dialled_at_once(half):
    half.ways = {f"{number:064x}": [Way(FIRST, f"p{number}")] for number in range(100)}
    half.http.silent = {way.address for (way,) in half.ways.values()}

    async def scenario() -> None:
        await asyncio.sleep(60)
        began = half.http.began_s
        assert {address for _, address in half.tried} == half.http.silent
        assert max(sum(s <= each < s + NEXT_S for each in began) for s in began) == DIALS_MAX

    half.run(scenario)


@proves("node.climbs", "node.revoked-learns-it")
def test_a_revoked_machine_is_not_dialled(monkeypatch, half):
    half.http.there = {"a:1"}
    monkeypatch.setattr(half.cascade, "shut_out", lambda _peer: True)

    async def scenario() -> None:
        await asyncio.sleep(600)
        assert half.tried == []

    half.run(scenario)


@proves("node.climbs")
def test_a_dial_that_ends_by_a_mistake_of_ours_is_not_tried_again_at_once(half):
    half.ways = {half.peer: [A]}
    half.http.slow, half.http.error = {"a:1": 0.01}, RuntimeError("a mistake")  # type: ignore[assignment]

    async def scenario() -> None:
        await asyncio.sleep(120)
        assert 4 <= half.core.counters.pop("background-dial-failed") == len(half.tried) <= 12

    half.run(scenario)


@proves("node.climbs")
def test_where_an_address_cannot_be_remembered_the_link_is_served_all_the_same(half):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    half.http.there, half.machine.found_at = {"a:1"}, full
    half.machine.dials, half.cascade._places = dict, lambda: half.ways

    async def scenario() -> None:
        await asyncio.sleep(600)
        assert (half.up, len(half.tried)) == ([FIRST], 1)
        assert half.core.counters["address-not-kept"] == 1

    half.run(scenario)


@proves("node.climbs")
def test_a_link_that_is_not_served_does_not_stand(monkeypatch, half):
    half.http.there = {"a:1"}

    async def no(_link: object) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(half, "serve", no)

    async def scenario() -> None:
        link = await half.http.dial("a:1", peer=half.peer)
        with pytest.raises(RuntimeError):
            await half.cascade.adopt(link, "a:1")
        assert link.ended is not None
        assert half.cascade.climb(half.peer)._ours == []

    LoopClock.run(scenario())


@proves("node.climbs", "node.quiet-is-cheap")
def test_one_link_that_comes_or_goes_wakes_nobody_who_waits_for_another_machine(half):
    half.ways |= {f"{number:064x}": [Way(FIRST, f"p{number}")] for number in range(40)}
    half.http.there, half.http.silent = {"a:1"}, {f"p{number}" for number in range(40)}
    looked: set[str] = set()
    places: list[int] = []

    async def scenario() -> None:
        await asyncio.sleep(100)
        for peer in half.ways:
            climb = half.cascade.climb(peer)
            climb._look = _noting(looked, peer, climb._look)  # type: ignore[method-assign]
        half.machine.dials = lambda: (places.append(1), half.ways)[1]
        (link,) = half.links.values()
        half.cascade.came(999, link)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert looked == {half.peer}
        half.cascade.went(999, link, "lost")
        assert places == []
        looked.clear()
        half.cascade.stir()
        for _ in range(5):
            await asyncio.sleep(0)
        assert (looked, places) == (set(half.ways), [1]), "what all of them ask is found once"

    half.run(scenario)


def _noting(looked, peer, look):
    return lambda now_s: (looked.add(peer), look(now_s))[1]


# --- links that stand and carry nothing -------------------------------------------------------


@proves("node.climbs", "log.sync-says-unanswered")
def test_what_nobody_answers_goes_over_the_next_channel_while_the_silent_link_stands(monkeypatch):
    half = Speaking(monkeypatch, A, C)

    async def scenario() -> None:
        await half.pass_s(30)
        (http,) = half.links
        half.swallow(http)
        half.http.there = set()
        said_s = now_s()
        half.world["hub"].order("send", "studio", {"text": ["hi"], "to": "studio"})
        while "hi" not in half.texts():
            await half.pass_s(0.1)
            assert now_s() - said_s < 15
        assert half.up == [FIRST, "memory"], "whether it is dead its own keepalive tells"
        await half.pass_s(120)
        assert half.up == [FIRST, "memory"], "the one that carries is not ended for it"
        assert half.tried[:2] == [(FIRST, "a:1"), ("memory", "c")]
        assert set(half.tried[2:]) == {(FIRST, "a:1")}, "a new link may come where one is dead"

    half.run(scenario)


@proves("node.climbs", "log.sync-says-unanswered")
def test_a_link_that_answers_again_is_trusted_again_and_the_other_one_ends(monkeypatch):
    half = Speaking(monkeypatch, A, C)

    async def scenario() -> None:
        await half.pass_s(30)
        (http,) = half.links
        lost = dict(half.world._links)
        half.swallow(http)
        half.http.there = set()
        half.world["hub"].order("send", "studio", {"text": ["hi"], "to": "studio"})
        await half.pass_s(20)
        assert half.texts() == ["hi"]
        half.world._links.update(lost)
        for number in range(12):
            half.world["hub"].order("send", "studio", {"text": [str(number)], "to": "studio"})
            await half.pass_s(20)
        assert half.up == [FIRST]
        assert half.texts() == ["hi", *map(str, range(12))]

    half.run(scenario)


@proves("node.climbs")
def test_nothing_that_was_answered_makes_anybody_dial(monkeypatch):
    half = Speaking(monkeypatch, A, C)

    async def scenario() -> None:
        for number in range(20):
            half.world["hub"].order("send", "studio", {"text": [str(number)], "to": "studio"})
            await half.pass_s(5)
        assert half.tried == [(FIRST, "a:1")]
        assert json.dumps(half.texts()) == json.dumps([str(number) for number in range(20)])

    half.run(scenario)


# --- what is remembered of it -----------------------------------------------------------------


@proves("node.channels-are-shown")
def test_of_each_channel_it_is_known_how_it_is_what_was_tried_and_when_it_was_proven(monkeypatch):
    half = Speaking(monkeypatch, A, C)
    half.http.slow = {"a:1": 0.2}

    async def scenario() -> None:
        await half.pass_s(30)
        (http,) = half.links
        half.world["hub"].order("send", "studio", {"text": ["hi"], "to": "studio"})
        await half.pass_s(1)
        health = half.cascade.path(half.peer, FIRST).health
        proven_ms = half.core.sync.paths.proofs.proven_ms(http)
        assert proven_ms is not None
        assert health.dial_ms == 200
        half.swallow(http)
        half.http.there = set()
        half.world["hub"].order("send", "studio", {"text": ["lost?"], "to": "studio"})
        await half.pass_s(10)
        assert half.cascade.climb(half.peer).is_in_doubt(http)
        await half.links[http].close("silent")
        await half.pass_s(2)
        assert health.proven_ms == proven_ms
        assert half.cascade.rested(half.peer, FIRST)[0] in {"resting", "failed"}
        told = [(each.channel, each.outcome) for each in half.core.tries_of(half.peer)]
        assert told[-1] == (FIRST, "stands"), "the newest comes first"
        assert set(told[-3:-1]) == {("memory", "stands"), (FIRST, "answers nothing")}
        assert {(FIRST, "gone"), (FIRST, "failed")} <= set(told[:-3])

    half.run(scenario)


@proves("node.channels-are-shown")
def test_what_is_remembered_of_a_channel_has_a_bound(half):
    async def scenario() -> None:
        await asyncio.sleep(2_000)
        assert len(half.core.tries_of(half.peer)) == 2 * TRIES_MAX

    half.run(scenario)
