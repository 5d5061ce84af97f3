"""A link is believed when it is proven: until then it takes nothing from one that carries."""

import asyncio

import pytest
from tests.channel.memory import pair
from tests.node.climbing import HANGS_S, A, B, C, Half, Speaking, now_s
from tests.node.cores import Cores
from tests.promise import proves

from muster.channel import FIRST
from muster.channel import frame as frames
from muster.channel.frame import Type
from muster.errors import Unreachable
from muster.fleet.facts import Way
from muster.limits import PROOF_MS, PROOF_MS_MAX
from muster.node import event as ev
from muster.node.call.router import Router
from muster.node.links.addresses import NEXT_S
from muster.node.links.climb import BETTER_S, IDLE_S, SECOND_DIALLER_S
from muster.node.links.turns import Turns

MIDDLE = "m" * 64


@pytest.fixture
def half(monkeypatch):
    return Half(monkeypatch, A, C)


@pytest.fixture
def speaking(monkeypatch):
    """The worse channel carries, and the better one comes later."""
    half = Speaking(monkeypatch, A, C)
    half.http.there = set()
    return half


# --- a better link that swallows ------------------------------------------------------------------


@proves("node.proven-first")
def test_a_better_channel_whose_links_swallow_everything_takes_nothing_from_the_worse_one(speaking):
    async def scenario() -> None:
        await speaking.pass_s(30)
        speaking.black, speaking.http.there = {FIRST}, {"a:1"}
        worse = next(iter(speaking.links))
        for number in range(20):
            speaking.world["hub"].order("send", "studio", {"text": [str(number)], "to": "studio"})
            await speaking.pass_s(0.2)
            assert speaking.texts()[-1] == str(number), "at once"
            await speaking.pass_s(6.8)
            assert worse in speaking.links, "it carries, and the other one does not"
        assert speaking.served.count(FIRST) >= 3

    speaking.run(scenario)


@proves("node.proven-first")
def test_in_a_quiet_fleet_calls_go_over_the_link_that_carries(speaking):
    async def scenario() -> None:
        await speaking.pass_s(30)
        speaking.black, speaking.http.there = {FIRST}, {"a:1"}
        (worse,) = speaking.links
        for _ in range(600):
            await speaking.pass_s(0.1)
            assert speaking.core.link_to(speaking.peer) == worse
        assert speaking.up.count(FIRST) == 1 or speaking.served.count(FIRST) > 1

    speaking.run(scenario)


@proves("node.proven-first")
def test_a_better_channel_that_carries_again_is_used_within_ten_seconds(speaking):
    async def scenario() -> None:
        await speaking.pass_s(30)
        speaking.black, speaking.http.there = {FIRST}, {"a:1"}
        await speaking.pass_s(60)
        speaking.black, back_s = set(), now_s()
        speaking.carry_again()
        sessions = speaking.core.sync.paths.by_link
        while not any(
            link.channel == FIRST and number in sessions and sessions[number].link == number
            for number, link in speaking.links.items()
        ):
            await speaking.pass_s(0.1)
            assert now_s() - back_s < 10
        await speaking.pass_s(IDLE_S + 2)
        assert set(speaking.up) == {FIRST}

    speaking.run(scenario)


@proves("node.proven-first")
def test_a_link_that_carries_one_way_does_not_end_the_other(speaking):
    """What the studio says over the better link is lost; the hub, which dialled, is heard."""

    async def scenario() -> None:
        await speaking.pass_s(30)
        speaking.http.there = {"a:1"}
        while len(speaking.up) < 2:
            await speaking.pass_s(0.1)
        _, better = speaking.links
        speaking.http.there = set()
        speaking.world._links.pop(("studio", speaking.far[better]))
        for number in range(20):
            text = {"text": [str(number)], "to": "hub"}
            speaking.world["studio"].order("send", "hub", text)
            await speaking.pass_s(1)
        told = speaking.world["hub"].call("inbox", {})["value"]
        assert len(told) == 20
        assert speaking.up == ["memory", FIRST]

    speaking.run(scenario)


@proves("node.proven-first", "node.climbs")
def test_a_link_that_swallows_from_the_beginning_is_no_link_even_where_nothing_is_said(monkeypatch):
    half = Speaking(monkeypatch, A, C)
    half.black = {FIRST}

    async def scenario() -> None:
        await half.pass_s(PROOF_MS / 1000 + 1)
        assert half.up == [FIRST, "memory"]
        (_, memory) = half.links
        assert half.core.link_to(half.peer) == memory

    half.run(scenario)


@proves("node.proven-first", "node.climbs")
@pytest.mark.parametrize("carries", [True, False])
def test_a_channel_whose_link_is_in_doubt_is_dialled_once_more(monkeypatch, carries):
    """The way may work where one connection over it is dead."""
    half = Speaking(monkeypatch, A)

    async def scenario() -> None:
        await half.pass_s(30)
        (dead,) = half.links
        half.swallow(dead)
        half.black = set() if carries else {FIRST}
        half.world["hub"].order("send", "studio", {"text": ["hi"], "to": "studio"})
        await half.pass_s(14)
        assert half.texts() == ["hi"] * carries
        assert dead in half.links
        await half.pass_s(5)
        assert len(half.tried) == 2
        assert len(half.links) == 2

    half.run(scenario)


# --- the question ---------------------------------------------------------------------------------


@proves("node.proven-first")
def test_each_link_is_asked_over_until_it_answers_and_doubted_meanwhile(monkeypatch):
    world = Cores("hub", "studio")
    hub, studio = world["hub"], world["studio"]
    sent, carry = [], world.carry_out
    monkeypatch.setattr(world, "carry_out", lambda m, e: (sent.extend(e), carry(m, e)))
    here, there = world.join("hub", "studio")
    lost = dict(world._links)
    world._links.clear()
    hub.step(ev.LinkUp(here, studio.id, False, "http"))
    studio.step(ev.LinkUp(there, hub.id, False, "http"))
    proofs = hub.core.sync.paths.proofs
    assert not proofs.is_doubted(here)
    world.pass_ms(PROOF_MS + 200)
    assert proofs.is_doubted(here)
    assert sent.count(ev.Seek(studio.id, here)) == 1
    world.pass_ms(60_000)
    assert sent.count(ev.Seek(studio.id, here)) == 1
    frame = [frames.decode(e.frame) for e in sent if isinstance(e, ev.Send) and e.link == here]
    questions = [f for f in frame if f.type is Type.CALL and b"ping.answer" in f.payload]
    assert 60_000 / PROOF_MS_MAX <= len(questions) <= 60_000 / PROOF_MS_MAX + 3
    world._links.update(lost)
    world.pass_ms(PROOF_MS_MAX + 200)
    assert proofs.is_believed(here)
    sent.clear()
    world.pass_ms(300_000)
    asked = [e for e in sent if isinstance(e, ev.Send) and b"ping.answer" in e.frame]
    assert asked == [], "what answered is asked no more"


@proves("node.proven-first")
@pytest.mark.parametrize(
    "answer",
    [
        b'.{"ok":true,"value":true}',
        b'.{"ok":false,"error":{"kind":"NotFound","text":"no","exit":1}}',
    ],
)
def test_any_answer_proves_a_link_and_that_it_is_gone_is_none(answer):
    world = Cores("hub", "studio")
    hub, studio = world["hub"], world["studio"]
    proofs = hub.core.sync.paths.proofs
    for number in (101, 102):
        hub.step(ev.LinkUp(number, studio.id, False, "http"))
    channel = next(c for link, c in hub.core.part(Router).asked if link == 101)
    hub.step(ev.Arrived(101, Type.REPLY, channel, answer))
    assert proofs.is_believed(101)
    hub.step(ev.LinkDown(102))
    assert not proofs.is_believed(102)
    assert proofs.proven_ms(102) is None


@proves("node.proven-first")
def test_who_is_in_no_fleet_is_asked_nothing():
    world = Cores("hub", "studio")
    hub = world["hub"]
    hub.step(ev.LinkUp(101, "ab" * 32, False, "http"))
    hub.step(ev.LinkUp(102, "", False, "http"))
    assert hub.core.part(Router).asked == {}


# --- relayed links --------------------------------------------------------------------------------


def _relayed(half: Half, number: int):
    link, far = pair("", half.peer)
    link.channel = "relay"  # type: ignore[misc]
    half.links[number] = link
    half.cascade.came(number, link, MIDDLE)
    half.prove(ev.Prove(number))

    async def live() -> None:
        try:
            while True:
                await link.receive()
        except Unreachable:
            del half.links[number]
            half.cascade.went(number, link, "gone")

    half.supervisor.run("relayed", live())
    return link, far


@proves("node.relay-once", "node.proven-first")
@pytest.mark.parametrize("asked", [True, False])
def test_a_relayed_link_ends_when_nothing_goes_over_it_and_a_better_one_carries(half, asked):
    async def scenario() -> None:
        link, far = _relayed(half, 900)
        climb = half.cascade.climb(half.peer)
        with climb.ours(link) if asked else climb.ours(far):
            half.busy = {900}
            await asyncio.sleep(20)
            half.http.there = {"a:1"}
            await asyncio.sleep(BETTER_S + 60)
            assert half.up == ["relay", FIRST], "a stream goes over it"
            half.busy = set()
            await asyncio.sleep(IDLE_S + 3)
            assert half.up == ([FIRST] if asked else ["relay", FIRST])

    half.run(scenario)


@proves("node.relay-once", "node.proven-first")
def test_a_relayed_link_stays_while_the_better_one_is_in_doubt(half):
    async def scenario() -> None:
        link, _ = _relayed(half, 900)
        half.http.there, half.ways, half.busy = {"a:1"}, {half.peer: [A]}, {900}
        with half.cascade.climb(half.peer).ours(link):
            await asyncio.sleep(BETTER_S)
            half.prove = lambda _event: None  # type: ignore[method-assign]
            half.core.sync.paths.proofs.doubt(next(n for n in half.links if n != 900), 1 << 40)
            half.busy = set()
            await asyncio.sleep(120)
            assert half.up == ["relay", FIRST]

    half.run(scenario)


@proves("node.relay-once", "node.climbs")
def test_a_machine_whose_only_link_is_in_doubt_is_asked_for_through_others(monkeypatch):
    half = Half(monkeypatch, A)
    half.http.there, asked = {"a:1"}, []

    async def keep(peer, _ours):
        asked.append((peer, now_s()))
        await asyncio.sleep(1_000)

    half.cascade._relays.middles = lambda _: [MIDDLE]  # type: ignore[method-assign]
    half.cascade._relays.keep = keep  # type: ignore[method-assign]

    async def scenario() -> None:
        half.supervisor.keep("relay", lambda: half.cascade._keep_relayed(half.peer))
        await asyncio.sleep(300)
        assert asked == []
        (number,) = half.links
        half.core.sync.paths.proofs.doubt(number, 1 << 40)
        half.cascade.seek(ev.Seek(half.peer, number))
        began_s = now_s()
        await asyncio.sleep(2)
        assert [(peer, at - began_s) for peer, at in asked] == [(half.peer, 1.0)]

    half.run(scenario)


# --- who dials, and in which order ----------------------------------------------------------------


@proves("node.climbs")
def test_of_two_that_doubt_at_once_one_leaves_the_dialling_to_the_other(half):
    half.http.there, half.memory.there = {"a:1"}, {"c"}
    dials = half.machine.dials

    async def scenario() -> None:
        await asyncio.sleep(30)
        ways = half.ways
        half.cascade._places = lambda: ways
        half.machine.dials = dict
        # Here we are the second of the two, whichever machine has the smaller id.
        half.core.machine, machine = "f" * 64, half.core.machine
        try:
            (number,) = half.links
            half.core.sync.paths.proofs.doubt(number, 1 << 40)
            half.tried.clear()
            half.cascade.seek(ev.Seek(half.peer, number))
            await asyncio.sleep(SECOND_DIALLER_S - 0.1)
            assert half.tried == []
            await asyncio.sleep(0.2)
            assert half.tried == [("memory", "c")]
        finally:
            half.core.machine, half.machine.dials = machine, dials

    half.run(scenario)


@proves("node.climbs")
def test_an_address_that_says_nothing_costs_a_second_and_what_it_brings_late_is_closed(monkeypatch):
    half = Half(monkeypatch, A, B)
    half.http.silent, half.http.there = {"a:1"}, {"a:1", "b:1"}

    async def scenario() -> None:
        await asyncio.sleep(NEXT_S + 0.01)
        assert (half.up, half.tried) == ([FIRST], [(FIRST, "a:1"), (FIRST, "b:1")])
        await asyncio.sleep(HANGS_S)
        assert (half.up, half.served, half.http.ended) == (
            [FIRST],
            [FIRST],
            ["stands", "cancelled"],
        )
        assert half.cascade.path(half.peer, FIRST).good == "b:1"

    half.run(scenario)


@proves("node.climbs")
def test_where_every_address_fails_each_was_tried_once(monkeypatch):
    half = Half(monkeypatch, A, B)
    half.http.slow = {"a:1": 0.3}

    async def scenario() -> None:
        await asyncio.sleep(0.4)
        assert half.tried == [(FIRST, "a:1"), (FIRST, "b:1")]
        assert half.core.counters["dial-unreachable"] == 2

    half.run(scenario)


@proves("node.climbs")
def test_who_has_just_lost_a_link_is_dialled_before_many_that_are_away(half):
    half.http.there = {"a:1"}
    others = {f"{n:064x}": [Way(FIRST, f"p{n}"), Way(FIRST, f"q{n}")] for n in range(200)}
    half.http.silent = {way.address for ways in others.values() for way in ways}

    async def scenario() -> None:
        await asyncio.sleep(60)
        for peer, ways in others.items():
            half.ways[peer] = ways
            half.supervisor.keep("dial", half.cascade.climb(peer).keep)
        await asyncio.sleep(0.5)
        (link,) = half.links.values()
        await link.close("lost")
        await asyncio.sleep(NEXT_S + 1.5)
        assert half.up == [FIRST]

    half.run(scenario)


@proves("node.climbs")
def test_turns_go_to_whoever_has_precedence_and_none_is_lost_with_who_left():
    async def scenario() -> None:
        turns, order = Turns(1), []

        async def take(name: str, *, first: bool = False) -> None:
            await turns.acquire(first=first)
            order.append(name)
            await asyncio.sleep(0)
            turns.release()

        await turns.acquire(first=False)
        waiting = [
            asyncio.create_task(take("a")),
            asyncio.create_task(take("b")),
            asyncio.create_task(take("c", first=True)),
            asyncio.create_task(take("d", first=True)),
        ]
        await asyncio.sleep(0)
        waiting[2].cancel()
        turns.release()
        waiting[3].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert order == ["a", "b"]
        await take("e")
        assert order == ["a", "b", "e"]

    asyncio.run(scenario())
