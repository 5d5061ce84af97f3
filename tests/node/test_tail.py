"""Following what a machine takes in: what is told, what is never lost, and what it may cost."""

import asyncio
import json
from typing import Any

import pytest
from tests.node import serving
from tests.node.cores import LOCAL, Cores, One
from tests.node.test_full_disk import fill
from tests.promise import proves

from muster.channel.frame import Type
from muster.errors import Exhausted
from muster.limits import STREAM_NEWS_MAX, TAIL_ENTRIES_MAX
from muster.log import canon
from muster.node import event as ev
from muster.node.services.tail import Arrival, Tail


@pytest.fixture
def world() -> Cores:
    made = Cores("hub", "studio", "laptop")
    made.link("hub", "studio")
    made.pass_ms(1_000)
    return made


def follow(machine: One, channel: int = 9, **args: Any) -> list[Any]:
    """What the followers of this machine were told so far; a list that grows."""
    machine.raw(canon.encode({"args": args, "verb": "tail"}), channel=channel)
    return machine.answers


def send(machine: One, text: str, channel: int = 0) -> ev.Arrived:
    """The order to send a message to all; nobody waits for its answer."""
    args = {"text": [text], "to": "all"}
    statement = machine.world.sign("send", "all", machine, args)
    call = canon.encode({"args": args, "statement": statement, "verb": "send"})
    return ev.Arrived(LOCAL, Type.CALL, channel, call)


def say(machine: One, text: str = "hi") -> None:
    machine.step(send(machine, text))
    machine.world.drain()


def values(answers: list[Any]) -> list[Any]:
    assert all(each["ok"] for each in answers), answers
    return [each["value"] for each in answers]


def came(answers: list[Any]) -> list[Any]:
    return [row for value in values(answers) for row in value["came"]]


def everything(machine: One) -> list[tuple[str, str]]:
    """Kind and id of all that a machine took in, in that order, by its database alone."""
    store = machine.core.store
    found = [
        (store.log.admitted(s, e.header.seq), e.header.kind, e.id.hex())
        for s in store.log.streams()
        for e in (store.log.entry_at(s, seq) for seq in range(store.log.size(s)))
    ]
    return [(kind, id) for _, kind, id in sorted(found)]


def pairs(answers: list[Any]) -> list[tuple[str, str]]:
    return [(row["kind"], row["id"]) for row in came(answers)]


@proves("node.tail-tells-what-is-committed")
def test_each_commit_is_told_with_who_wrote_what_when_and_never_a_body(world):
    hub, studio = world["hub"], world["studio"]
    before = everything(hub)
    told = follow(hub)
    number = hub.core.part(Tail).number
    assert values(told) == [{"came": [], "number": number}]
    say(hub, "the secret")
    say(studio, "the other secret")
    rows = came(told)
    assert pairs(told) == everything(hub)[len(before) :]
    assert {(row["kind"], row["machine"]) for row in rows} >= {
        ("message.send", "hub"),
        ("message.send", "studio"),
    }
    entries = {e.id.hex(): e for e in hub.entries("message.send")}
    for row in rows:
        assert set(row) == {"kind", "id", "machine", "t_ms"}
        if row["kind"] == "message.send":
            assert row["t_ms"] == entries[row["id"]].header.t[0]
    assert "secret" not in json.dumps(told)
    assert values(told)[-1]["number"] == hub.core.part(Tail).number == number + len(rows)


@proves("node.tail-tells-what-is-committed")
def test_what_found_no_room_is_told_when_it_is_committed_and_not_before(world):
    hub = world["hub"]
    told = follow(hub)
    full = fill(hub.core)
    with pytest.raises(Exhausted):
        hub.core.step([send(hub, "hello")], world.now())
    assert hub.core.log.admissions > hub.core.part(Tail).number, "it is there, and may go again"
    late = canon.encode({"args": {"since": 0}, "verb": "tail"})
    for number, raw in ((11, late), (13, canon.encode({"args": {}, "verb": "tail"}))):
        arrived = ev.Arrived(LOCAL, Type.CALL, number, raw)
        world.carry_out(hub, hub.core.questions([arrived], world.now()))
    assert "message.send" not in {row["kind"] for row in came(told)}
    before = len(told)
    full.full = False
    world.carry_out(hub, hub.core.resume(world.now()))
    sent = [row for row in came(told[before:]) if row["kind"] == "message.send"]
    assert len(sent) == 3, "each follower is told, once"


@proves("node.tail-loses-nothing")
def test_who_comes_back_with_its_number_is_told_all_that_came_meanwhile_once(world):
    hub = world["hub"]
    told = list(follow(hub))
    since = values(told)[-1]["number"]
    hub.step(ev.Arrived(LOCAL, Type.CLOSE, 9, b""))
    assert hub.core.part(Tail).followers == []
    before = len(everything(hub))
    for number in range(3):
        say(hub, str(number))
    world.restart("hub")
    world.pass_ms(1_000)
    assert pairs(follow(hub, since=since)) == everything(hub)[before:]


@proves("node.tail-loses-nothing")
def test_from_the_beginning_all_is_told_in_pieces_and_others_have_their_turn(world, monkeypatch):
    hub = world["hub"]
    with hub.core.store.transaction():
        for each in range(20 * TAIL_ENTRIES_MAX):
            hub.core.append("note.put", canon.encode({"each": each}))
    hub.step(ev.Tick())
    turns, at = 0, list[int]()

    def others() -> None:
        nonlocal turns
        turns += 1
        if len(at) <= 20:
            serving._LOOP.call_soon(others)

    async def at_once(_link: int) -> None:
        """A reader that is never slow."""
        at.append(turns)

    serving._LOOP.call_soon(others)
    monkeypatch.setattr(hub.serving.streams, "drained", at_once)
    told = follow(hub, since=0)
    assert pairs(told) == everything(hub)
    assert max(len(each["came"]) for each in values(told)) == TAIL_ENTRIES_MAX
    assert len(set(at[:21])) >= 20, "a piece for each turn of the loop"


@proves("node.tail-loses-nothing")
def test_who_reads_slowly_costs_nothing_meanwhile_and_misses_nothing(world, monkeypatch):
    hub = world["hub"]
    gate = asyncio.Event()

    async def drained(_link: int) -> None:
        await gate.wait()

    monkeypatch.setattr(hub.serving.streams, "drained", drained)
    before = len(everything(hub))
    told = follow(hub)
    for number in range(50):
        say(hub, str(number))
    (served, _terms) = hub.serving.streams._open[LOCAL, 9]
    assert len(served._news) == 1, "that there is more; not what"
    assert len(values(told)) == 1
    gate.set()
    hub.serving.turn()
    assert pairs(told) == everything(hub)[before:]


@proves("node.tail-loses-nothing")
def test_who_slept_through_more_links_than_are_kept_is_told_so_and_goes_on(world, monkeypatch):
    hub = world["hub"]
    gate = asyncio.Event()

    async def drained(_link: int) -> None:
        await gate.wait()

    monkeypatch.setattr(hub.serving.streams, "drained", drained)
    told = follow(hub)
    part = hub.core.part(Tail)
    (served, _terms) = hub.serving.streams._open[LOCAL, 9]
    say(hub)
    for number in range(STREAM_NEWS_MAX + 10):
        served.told(Arrival("link.up", "", "studio", number))
    assert len(served._news) == STREAM_NEWS_MAX
    gate.set()
    while told[-1]["ok"]:
        hub.serving.turn()
    assert told[-1]["error"]["exit"] == 6
    assert "more happened than was read" in told[-1]["error"]["text"]
    assert part.followers == []
    number = values(told[:-1])[-1]["number"]
    assert "message.send" in {row["kind"] for row in came(told[:-1])}
    say(hub, "later")
    assert "message.send" in {row["kind"] for row in came(follow(hub, since=number))}


@proves("node.tail-loses-nothing")
@pytest.mark.parametrize("ahead", [1, 2**53 - 1])
def test_a_number_that_was_never_told_here_begins_nothing_and_is_refused(world, ahead):
    hub = world["hub"]
    number = hub.core.part(Tail).number
    (answer,) = follow(hub, since=min(number + ahead, 2**53 - 1))
    assert answer["error"]["exit"] == 6
    assert f"come to number {number} only" in answer["error"]["text"]
    assert hub.core.part(Tail).followers == []
    assert (hub.serving.tasks, hub.serving.streams._open) == (set(), {})


@proves("node.arguments-checked")
@pytest.mark.parametrize(
    "args",
    [{"since": -1}, {"since": 2**53}, {"since": 1.5}, {"since": True}, {"kind": "x" * 65},
     {"kind": 1}, {"since": [], "kind": "*"}, {"from": 1}],
)  # fmt: skip
def test_a_number_or_a_pattern_that_is_none_is_refused(world, args):
    hub = world["hub"]
    raw = json.dumps({"args": args, "verb": "tail"}, separators=(",", ":")).encode()
    assert hub.raw(raw, channel=9)["error"]["exit"] in (2, 3)
    assert hub.core.part(Tail).followers == []


@proves("node.streams-end-with-the-caller")
def test_followers_that_hang_up_leave_nothing_behind(world):
    hub = world["hub"]
    for channel in range(20, 30):
        follow(hub, channel)
    part = hub.core.part(Tail)
    assert len(part.followers) == 10
    hub.step(*(ev.Arrived(LOCAL, Type.CLOSE, channel, b"") for channel in range(20, 25)))
    assert len(part.followers) == 5
    hub.serving.streams.link_down(LOCAL)
    hub.step(ev.LinkDown(LOCAL))
    assert part.followers == []
    assert (hub.serving.tasks, hub.serving.streams._open) == (set(), {})


@proves("node.tail-tells-links")
def test_each_link_that_comes_up_is_told_and_the_last_one_that_goes(world):
    hub, studio = world["hub"], world["studio"]
    told = follow(hub, kind="link.*")
    second, _ = world.link("hub", "studio")
    hub.step(ev.LinkUp(90, "", True, "ipc"), ev.LinkDown(90))
    assert came(told) == [
        {"kind": "link.up", "id": "", "machine": "studio", "t_ms": world.now().wall_ms}
    ]
    hub.step(ev.LinkDown(second))
    assert len(came(told)) == 1, "one is left"
    world.cut("studio")
    assert [row["kind"] for row in came(told)] == ["link.up", "link.down"]
    assert hub.core.link_to(studio.id) is None


@proves("node.tail-tells-links")
def test_a_machine_that_began_anew_and_is_here_is_not_told_as_gone(world):
    hub, studio = world["hub"], world["studio"]
    told = follow(hub, kind="link.*")
    # The old link is not known to be dead yet.
    number = next(n for n, link in hub.core.links.items() if link.peer == studio.id)
    hub.core.links[number].process = "before"
    world.link("hub", "studio")
    assert hub.core.link_to(studio.id) is not None
    assert [row["kind"] for row in came(told)] == ["link.up"]


@proves("node.tail-tells-what-is-committed")
def test_who_asks_for_some_kinds_is_told_of_these_alone(world):
    hub = world["hub"]
    told = follow(hub, kind="message.*")
    say(hub)
    world.cut("studio")
    assert {row["kind"] for row in came(told)} == {"message.send"}


@proves("node.tail-loses-nothing")
def test_who_asks_for_what_is_not_there_hears_how_far_it_is_read(world):
    hub = world["hub"]
    with hub.core.store.transaction():
        for each in range(3 * TAIL_ENTRIES_MAX):
            hub.core.append("note.put", canon.encode({"each": each}))
    hub.step(ev.Tick())
    told = values(follow(hub, kind="x[", since=0))
    numbers = [0, *(each * TAIL_ENTRIES_MAX for each in range(1, 4))]
    assert told == [{"came": [], "number": number} for number in numbers]


@proves("node.tail-tells-what-is-committed")
def test_a_step_that_takes_nothing_in_wakes_nobody(world):
    hub = world["hub"]
    told = follow(hub)
    hub.effects.clear()
    world.pass_ms(1_000)
    assert [each for each in hub.effects if isinstance(each, ev.Told)] == []
    assert len(told) == 1
    say(hub)
    assert ev.Told(LOCAL, 9, None) in hub.effects


@proves("node.tail-elsewhere-by-order")
def test_another_machine_is_followed_by_an_order_for_it_and_not_without(world):
    hub, studio = world["hub"], world["studio"]
    world.link("hub", "laptop")
    world.pass_ms(500)
    bare = {"args": {}, "on": world["laptop"].id, "verb": "tail"}
    assert studio.raw(canon.encode(bare), channel=9)["error"]["kind"] == "Denied"
    assert hub.core.part(Tail).followers == []
    signed = world.sign("tail", "*", world["laptop"], {})
    studio.raw(canon.encode({**bare, "statement": signed}), channel=11)
    told = studio.answers
    assert len(told) == 1
    say(world["laptop"])
    assert ("message.send", "laptop") in {(r["kind"], r["machine"]) for r in came(told)}
    assert len(world["laptop"].core.part(Tail).followers) == 1
    studio.step(ev.Arrived(LOCAL, Type.CLOSE, 11, b""))
    world.drain()
    assert world["laptop"].core.part(Tail).followers == []
