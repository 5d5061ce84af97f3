"""Which channels and addresses a machine is dialled at, and what is remembered of it."""

import asyncio
from collections.abc import Callable

import pytest
from tests.node.climbing import A, B, C, Half
from tests.promise import proves

from muster.channel import FIRST
from muster.errors import Denied, MusterError, NotFound
from muster.fleet.facts import Way
from muster.node.incarnations.own_incarnation import ShutOut


def keep(half: Half, enough: Callable[[], bool]) -> None:
    """Keep links that end as soon as they stand until it is so."""
    half.lasts = False

    async def scenario() -> None:
        async with asyncio.timeout(600):
            while not enough():  # noqa: ASYNC110 - nothing else tells it
                await asyncio.sleep(0.01)

    half.run(scenario)


@proves("node.channels-in-turn")
def test_what_fails_over_one_channel_is_tried_over_the_next_at_once(monkeypatch):
    half = Half(monkeypatch, C, A, B)
    half.memory.there = {"c"}
    monkeypatch.setattr("muster.node.links.climb.Backoff.failed", lambda _self: 60_000)
    keep(half, lambda: bool(half.served))
    assert half.tried == [(FIRST, "a:1"), (FIRST, "b:1"), ("memory", "c")]
    assert half.core.counters["dial-unreachable"] == 2
    states = [(row.channel, row.address, row.state) for row in half.core.ways_to(half.peer)]
    assert states == [(FIRST, "a:1", "failed"), (FIRST, "b:1", "failed"), ("memory", "c", "worked")]
    assert half.core.ways_to(half.peer)[0].error == "it is silent; try later"
    assert half.served_s == [0.0]


@proves("node.channels-in-turn")
def test_each_channel_rests_by_itself(monkeypatch):
    half = Half(monkeypatch, A, C)
    pauses = iter([60_000, *([10] * 1000)])
    monkeypatch.setattr("muster.node.links.climb.Backoff.failed", lambda _self: next(pauses))
    keep(half, lambda: len(half.tried) > 5)
    assert half.tried[0] == (FIRST, "a:1")
    assert set(half.tried[1:]) == {("memory", "c")}, "the first one rests for a minute"


@proves("node.lan-is-dialled")
def test_of_an_address_that_is_dialled_no_more_nothing_is_kept(monkeypatch):
    half = Half(monkeypatch, A)

    async def scenario() -> None:
        for number in range(9):
            half.cascade.near = {half.peer: (Way(FIRST, f"heard:{number}"),)}
            half.cascade.look()
            for way in (A, *half.cascade.near[half.peer]):
                with pytest.raises(MusterError):
                    await half.cascade.dial(half.peer, way)

    asyncio.run(scenario())
    assert set(half.cascade.path(half.peer, FIRST).failed) == {"a:1", "heard:8"}


@proves("node.channels-in-turn")
def test_where_a_machine_was_found_it_is_looked_for_first_and_that_is_remembered(monkeypatch):
    half = Half(monkeypatch, A, B)
    half.http.there = {"b:1"}
    monkeypatch.setattr("muster.node.links.climb.Backoff.failed", lambda _self: 10)
    keep(half, lambda: len(half.served) > 2)
    assert half.tried[:4] == [(FIRST, "a:1"), (FIRST, "b:1"), (FIRST, "b:1"), (FIRST, "b:1")]
    assert half.found == [], "it was given to us"
    half.machine.dials = lambda: {half.peer: [A]}
    half.core.roster.facts[half.peer] = half.core.roster.facts[half.core.machine]  # type: ignore[index]

    async def other() -> None:
        await half.cascade.adopt(await half.cascade.dial(half.peer, B), B.address)

    asyncio.run(other())
    assert half.found == [B]


@proves("node.channels-in-turn")
def test_a_link_that_ended_is_dialled_again_though_the_core_hears_of_the_end_later(monkeypatch):
    half = Half(monkeypatch, A)
    half.http.there = {"a:1"}
    # The core never hears of it.
    monkeypatch.setattr(half, "over", lambda _number: None)

    async def scenario() -> None:
        for _ in range(3):
            await asyncio.sleep(1)
            (link,) = half.links.values()
            await link.close("lost")
        await asyncio.sleep(1)

    half.run(scenario)
    assert len(half.served) > 2


@proves("node.quiet-is-cheap")
def test_a_link_that_is_there_is_looked_at_when_there_is_news(monkeypatch):
    half = Half(monkeypatch, A)
    half.http.there = {"a:1"}
    looked: list[int] = []
    best = half.cascade.climb(half.peer)._best
    monkeypatch.setattr(
        half.cascade.climb(half.peer), "_best", lambda: (looked.append(1), best())[1]
    )

    async def scenario() -> None:
        await asyncio.sleep(1)
        looked.clear()
        await asyncio.sleep(25)
        assert (looked, len(half.tried)) == ([], 1)
        half.cascade.stir()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (len(looked), len(half.tried)) == (1, 1)
        (link,) = half.links.values()
        await link.close("lost")
        await asyncio.sleep(1)
        assert len(half.tried) == 2

    half.run(scenario)


@proves("node.channels-in-turn", "node.revoked-learns-it")
def test_a_peer_that_shows_that_we_are_revoked_is_heard(monkeypatch):
    half = Half(monkeypatch, A)
    half.http.error = Denied("no", "a document")
    keep(half, lambda: bool(half.posted))
    assert half.posted[0] == ShutOut("a document")


@proves("node.channels-in-turn")
def test_a_person_names_a_channel_that_there_is_and_an_address_of_it(monkeypatch):
    half = Half(monkeypatch)
    assert half.cascade.way("memory", "x") == Way("memory", "x")
    with pytest.raises(
        NotFound, match="'pigeon' is no channel of this machine; it has http, memory"
    ):
        half.cascade.way("pigeon", "x")
    with pytest.raises(MusterError, match="host:port"):
        half.cascade.way(FIRST, "x")


@proves("channel.tls-renewal")
def test_fresh_certificates_are_shown_on_every_channel_and_on_relayed_links(monkeypatch):
    half, fresh = Half(monkeypatch), object()
    half.cascade.renew(fresh)  # type: ignore[arg-type]
    assert half.http.shown == half.memory.shown == half.relayed.shown == [fresh]
