"""The mailboxes of real cores over a real folder: what waits, what is dropped, what is given up."""

import asyncio
import contextlib
import hashlib
import os
import re
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tests.node.cores import Cores
from tests.node.mailbox_runs import Runs, play, run, until
from tests.promise import proves

from muster.channel import CHANNELS, sealed
from muster.channel.backoff import Backoff
from muster.channel.base import Packet, PostOptions
from muster.errors import Broken, Refused, Unreachable
from muster.extra import bring
from muster.fleet.parcel import (
    FRAME,
    ITEM_HEAD_BYTES,
    PING,
    PONG,
    Heard,
    Item,
    read_parcel,
    write_parcel,
)
from muster.limits import (
    LANE_BYTES_MAX,
    MAILBOX_BYTES_MAX,
    PACKET_BYTES_MAX,
    PARCEL_ANSWERS_PER_MINUTE_MAX,
    PARCEL_ASIDES_MAX,
    PARCEL_BYTES_MAX,
)
from muster.node.links import asides, posts
from muster.node.links.paces import PACES
from muster.node.links.parcel_box import ParcelBox
from muster.node.links.parcel_names import SAID
from muster.node.links.place import Place as Mailbox
from muster.node.services.parcels import Parcels

pytest.importorskip("pyrage", reason="pip install 'muster-fleet[sealed]'")


@proves("node.channels-are-shown")
def test_what_was_left_for_a_machine_and_its_answer_are_among_what_was_tried(tmp_path, monkeypatch):
    async def scenario(place: Path, hub: Runs, studio: Runs) -> None:
        def outcomes(to: str) -> list[tuple[str, str]]:
            return [(each.channel, each.outcome) for each in hub.core.tries_of(to)]

        hub.send("studio", "one")
        await until(lambda: ("drop", "answers") in outcomes(studio.one.id))
        assert ("drop", "left") in outcomes(studio.one.id)
        soon = Backoff(lambda: 0.0)
        await hub.mailboxes._places["drop"]._rest("", Unreachable("it is away"), soon)
        why = [(each.outcome, each.why) for each in hub.core.tries_of(studio.one.id)]
        assert ("failed", "it is away") in why

    play(tmp_path, monkeypatch, scenario)


@proves("node.mailboxes-full-disk")
def test_while_the_disk_is_full_parcels_wait_where_they_are(tmp_path, monkeypatch):
    async def scenario(place: Path, hub: Runs, studio: Runs) -> None:
        hub.send("studio", "one")
        await until(lambda: studio.texts() == ["one"])
        studio.there.clear()
        hub.send("studio", "two")
        await until(lambda: list(studio.inbox.glob("*.mp")))
        await asyncio.sleep(0.3)
        assert studio.texts() == ["one"]
        assert list(studio.inbox.glob("*.mp"))
        studio.there.set()
        await until(lambda: studio.texts() == ["one", "two"])
        await until(lambda: not list(studio.inbox.glob("*.mp")))

    play(tmp_path, monkeypatch, scenario)


@proves("node.mailboxes-bounded")
def test_what_is_no_parcel_is_counted_and_gone(tmp_path, monkeypatch):
    async def scenario(place: Path, hub: Runs, studio: Runs) -> None:
        await until(studio.inbox.is_dir)
        for number in range(200):
            raw = b"age-encryption.org/v1\n" * number
            (studio.inbox / f"{hashlib.sha256(raw).hexdigest()}.mp").write_bytes(raw)
        hub.send("studio", "hi")
        await until(lambda: studio.texts() == ["hi"])
        await until(lambda: not list(studio.inbox.glob("*.mp")))
        assert studio.core.counters["parcels-refused-malformed"] == 200

    play(tmp_path, monkeypatch, scenario)


@proves("node.mailboxes-fair")
@pytest.mark.parametrize("kind", ["named", "of old", "forged"])
def test_a_heap_of_one_machine_or_of_nobody_keeps_no_message_of_another_waiting(
    tmp_path, monkeypatch, kind
):
    async def scenario(place: Path, hub: Runs, studio: Runs, nas: Runs) -> None:
        for each in (hub, nas):
            desk = each.mailboxes._places["drop"].desk
            await until(partial(desk.names.reads, studio.one.id))
        studio.there.clear()
        await studio.mailboxes.close()
        # What it was reading is counted by nobody: the core of the next life is the same one.
        await studio.supervisor.stop()
        rogue, heap = hub.mailboxes._places["drop"], 250
        for number in range(heap):
            raw = b"%d" % number
            if kind != "forged":
                raw = rogue.desk.write(studio.one.id, [Item(PONG, bytes(16))])
            sha256 = hashlib.sha256(raw).hexdigest()
            name = rogue.post._names.name(studio.one.id, sha256)  # type: ignore[attr-defined]
            assert name.startswith("of-")
            if kind == "forged":
                name = name.replace(name.split("-")[2], "0" * 16)
            (studio.inbox / (f"{sha256}.mp" if kind == "of old" else name)).write_bytes(raw)
        # What nas leaves is the last that comes.
        last = nas.mailboxes._places["drop"]
        await last.post.put(
            last.desk.write(studio.one.id, [Item(PING, bytes(16))]), to=studio.one.id
        )
        again = Runs(studio.one, place)
        ours = again.mailboxes._places["drop"]
        looks: list[set[str]] = []
        deal, core = ours._deal, again.core

        async def seen(packets: list[Packet], *args: Any) -> None:
            found = set()
            for each in packets:
                with contextlib.suppress(Refused):
                    found.add(ours.desk.open("drop", each).peer)
            looks.append(found)
            await deal(packets, *args)

        monkeypatch.setattr(ours, "_deal", seen)
        again.mailboxes.begin()
        try:
            await until(lambda: not list(again.inbox.glob("*.mp")))
        finally:
            await again.mailboxes.close()
            await again.supervisor.stop()
        assert len(looks) > 3
        assert nas.one.id in looks[0] | looks[1]
        # What was refused was counted once, and is gone.
        assert core.counters["parcels-refused-malformed"] == heap * (kind == "forged")

    play(tmp_path, monkeypatch, scenario, "hub", "studio", "nas")


@proves("node.mailboxes-fair")
def test_a_parcel_is_named_for_who_said_last_that_it_reads_names(tmp_path, monkeypatch):
    async def scenario(place: Path, hub: Runs, studio: Runs) -> None:
        await until(lambda: hub.core.part(Parcels).number("drop", studio.one.id))
        names = hub.mailboxes._places["drop"].desk.names
        parcel, _ = read_parcel(
            studio.mailboxes._places["drop"].desk.parcel(hub.one.id, []), hub.one.world.fleet,
            hub.one.id, lambda _: True,
        )  # fmt: skip
        said = [SAID]
        names._said.clear()
        assert not names.reads(studio.one.id)
        new = msgspec.structs.replace(parcel, sent_ms=parcel.sent_ms + 1)
        names.came(new, said)
        assert names.reads(studio.one.id)
        # It is an older version again; what it said before comes once more.
        names.came(msgspec.structs.replace(parcel, sent_ms=parcel.sent_ms + 2), [])
        names.came(new, said)
        assert not names.reads(studio.one.id)

    play(tmp_path, monkeypatch, scenario)


@proves("node.mailboxes-fair")
def test_two_machines_share_a_secret_that_no_third_has(tmp_path, monkeypatch):
    async def scenario(place: Path, hub: Runs, studio: Runs, nas: Runs) -> None:
        secrets = [each.mailboxes._places["drop"].desk.names.secrets() for each in (hub, studio)]
        shared = secrets[0][studio.one.id]
        assert len(shared) == 32
        assert shared == secrets[1][hub.one.id]
        assert shared != secrets[0][nas.one.id] != secrets[1][nas.one.id]
        assert set(secrets[0]) == {studio.one.id, nas.one.id}

    play(tmp_path, monkeypatch, scenario, "hub", "studio", "nas")


@proves("node.mailboxes-bounded")
def test_a_mailbox_that_is_full_holds_up_no_other_and_one_that_comes_back_goes_on(
    tmp_path, monkeypatch
):
    async def scenario(place: Path, hub: Runs, studio: Runs, nas: Runs) -> None:
        await until(nas.inbox.is_dir)
        await nas.mailboxes.close()
        full = [nas.inbox / f"{n:064x}.mp" for n in range(MAILBOX_BYTES_MAX // PACKET_BYTES_MAX)]
        for each in full:
            with each.open("wb") as file:
                file.truncate(PACKET_BYTES_MAX)
        hub.send("nas", "to nas")
        hub.send("studio", "to studio")
        await until(lambda: studio.texts() == ["to studio"])
        await until(lambda: hub.core.counters["post-exhausted"])
        assert "full" in hub.mailboxes.shown(nas.one.id)[0].error
        os.rename(place, tmp_path / "away")
        hub.send("studio", "meanwhile")
        await until(lambda: hub.core.counters["post-unreachable"])
        os.rename(tmp_path / "away", place)
        await until(lambda: studio.texts() == ["to studio", "meanwhile"])
        for each in full:
            each.unlink()
        await until(lambda: len(list(nas.inbox.glob("*.mp"))) > 0)

    play(tmp_path, monkeypatch, scenario, "hub", "studio", "nas")


@proves("node.mailboxes-bounded")
def test_a_parcel_that_lies_at_two_places_holds_up_neither(tmp_path, monkeypatch):
    async def scenario(place: Path, hub: Runs, studio: Runs) -> None:
        await until(lambda: hub.core.part(Parcels).number("drop", studio.one.id))
        left, ours = hub.mailboxes._places["drop"], studio.mailboxes
        raw = left.desk.write(studio.one.id, [Item(PONG, bytes(16))])
        packet = Packet(hashlib.sha256(raw).hexdigest(), raw)
        desk, post = ours._places["drop"].desk, ours._places["drop"].post
        specs = [each for each in CHANNELS if each.name in ("drop", "cloud")]
        both = [Mailbox(studio, each, PostOptions(), post, desk) for each in specs]  # type: ignore[arg-type]
        deals = [each._deal([packet], studio.there, ours._taken) for each in both]
        async with asyncio.timeout(20):
            await asyncio.gather(*deals)
        assert not ours._taken

    play(tmp_path, monkeypatch, scenario)


@proves("channel.git-event")
def test_a_repository_is_looked_at_when_a_link_to_the_machine_that_keeps_it_came_up(
    tmp_path, monkeypatch
):
    async def scenario(place: Path, hub: Runs, studio: Runs, nas: Runs) -> None:
        rung: list[str] = []
        post: Any = SimpleNamespace(ring=lambda: rung.append("rung"))
        mailboxes, (spec,) = studio.mailboxes, [each for each in CHANNELS if each.name == "git"]
        options, desk = PostOptions(place="muster::hub/main"), mailboxes._places["drop"].desk
        there = Mailbox(studio, spec, options, post, desk)  # type: ignore[arg-type]
        mailboxes._places["git"] = there
        mailboxes.came(nas.one.id)
        mailboxes.moved(nas.one.id, "main")
        mailboxes.moved(hub.one.id, "ain")
        assert not rung
        mailboxes.came(hub.one.id)
        mailboxes.moved(hub.one.id, "main")
        assert rung == ["rung", "rung"]
        del mailboxes._places["git"]

    play(tmp_path, monkeypatch, scenario, "hub", "studio", "nas")


@proves("node.mailboxes-bounded")
def test_nobody_waits_for_all_that_was_taken_to_be_opened(tmp_path, monkeypatch):
    async def scenario(place: Path, hub: Runs, studio: Runs) -> None:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        beside = asyncio.create_task(others())
        packets = [Packet(f"{number:064x}", b"x") for number in range(64)]
        ours = studio.mailboxes
        await ours._places["drop"]._deal(packets, studio.there, ours._taken)
        beside.cancel()
        assert turns >= 64

    play(tmp_path, monkeypatch, scenario)


@proves("node.parcels-no-way-back")
@pytest.mark.parametrize("lives", [("0" * 32, "f" * 32), ("f" * 32, "0" * 32)])
def test_of_two_lives_that_are_taken_together_the_later_is_heard_last(tmp_path, monkeypatch, lives):
    async def scenario(place: Path, hub: Runs, studio: Runs) -> None:
        await until(lambda: studio.core.part(Parcels).number("drop", hub.one.id))
        await hub.mailboxes.close()
        fleet, to = studio.one.world.fleet, studio.one.id
        said = [(lives[0], 7, 1_000), (lives[0], 8, 1_000), (lives[1], 1, 2_000)]
        packets = []
        for life, number, sent_ms in reversed(said):
            mine, nothing = Heard(life, number), Heard()
            raw = write_parcel(hub.one.identity, fleet, to, mine, nothing, sent_ms, [])
            public = bytes.fromhex(studio.one.identity.keys["age"])
            packets.append(Packet(f"{number}", sealed.seal(raw, public)))
        ours = studio.mailboxes
        await ours._places["drop"]._deal(packets, studio.there, ours._taken)
        assert studio.core.part(Parcels).heard(hub.one.id) == Heard(lives[1], 1)
        assert studio.core.counters["parcels-again"] == 0

    play(tmp_path, monkeypatch, scenario)


@proves("node.mailboxes-bounded")
def test_nothing_waits_for_a_machine_that_was_revoked(tmp_path, monkeypatch):
    async def scenario(place: Path, hub: Runs, studio: Runs) -> None:
        async def away(packet: bytes, *, to: str) -> None:
            raise Unreachable("the place is away")

        post = hub.mailboxes._places["drop"].post
        await until(lambda: hub.core.part(Parcels).number("drop", studio.one.id))
        number = hub.core.part(Parcels).number("drop", studio.one.id)
        assert number is not None
        box = hub.mailboxes.box(number)
        assert box is not None
        await until(lambda: not box.busy)
        monkeypatch.setattr(post, "put", away)
        box.put(b"x" * 500_000, bulk=True)
        box.put(b"x" * 600_000, bulk=True)
        box.release()
        await until(lambda: box.waiting == 600_000)
        assert hub.one.order("revoke", "studio", {"name": "studio", "reason": "lost"})["ok"]
        await until(lambda: not box.busy)
        assert not box
        assert box.waiting == 0

    play(tmp_path, monkeypatch, scenario)


@proves("channel.git-event")
def test_of_many_pushes_to_a_repository_all_are_told_once_and_once_more(tmp_path, monkeypatch):
    async def scenario(place: Path, hub: Runs, studio: Runs) -> None:
        told: list[tuple[str, str, dict[str, str]]] = []

        async def ask(machine: str, verb: str, args: dict[str, str]) -> None:
            told.append((machine, verb, args))

        hub.effects = SimpleNamespace(ask=ask)
        hub.one.world.link("hub", "studio")
        monkeypatch.setattr(posts, "TELLINGS_APART_S", 0.5)
        for _ in range(100):
            hub.mailboxes.left_in("main")
        one = [(studio.one.id, "git.moved", {"repo": "main"})]
        await until(lambda: len(told) > 1)
        await until(lambda: not hub.mailboxes._telling)
        assert told == one * 2
        hub.mailboxes.left_in("main")
        await until(lambda: len(told) == 3)

    play(tmp_path, monkeypatch, scenario)


@proves("node.mailboxes-bounded")
def test_what_waits_for_one_mailbox_is_bounded():
    counters, pace = Counter[str](), PACES["drop"]
    place: Any = SimpleNamespace(pace=pace, core=SimpleNamespace(counters=counters))
    box, frame = ParcelBox(place, -1, "studio"), b"x" * 200_000
    for _ in range(100):
        box.put(frame, bulk=True)
    # What is pumped begins while there is room, and ends a lane further.
    room = (pace.flight_bytes + LANE_BYTES_MAX) // len(frame)
    assert counters == {"parcels-without-room": 100 - room}
    box.put(b"a receipt", bulk=False)
    found: list[Item] = []
    while items := box.items():
        assert sum(len(item.body) + ITEM_HEAD_BYTES for item in items) <= PARCEL_BYTES_MAX
        found += items
    assert found[0].body == b"a receipt"
    assert len(found) == room + 1
    box.put(frame, bulk=False)
    assert len(box.items()) == 1


@proves("node.parcels-ping")
def test_who_comes_by_answers_and_who_does_not_is_not_there(tmp_path, monkeypatch):
    async def scenario(place: Path, hub: Runs, studio: Runs) -> None:
        await until(lambda: hub.core.part(Parcels).number("drop", studio.one.id))
        await hub.mailboxes.ping("drop", studio.one.id)
        again = (hub.mailboxes.ping("drop", studio.one.id) for _ in range(3))
        await asyncio.gather(*again)
        assert studio.core.counters["pings-too-often"] == 0
        assert hub.core.counters["pongs-unasked"] == 0
        await studio.mailboxes.close()
        monkeypatch.setattr(asides, "PING_S", 0.3)
        with pytest.raises(Unreachable, match="studio has answered no parcel") as refused:
            await hub.mailboxes.ping("drop", studio.one.id)
        assert refused.value.exit_code == 7
        with pytest.raises(Unreachable, match="no mailbox"):
            await hub.mailboxes.ping("drop", "0" * 64)

    play(tmp_path, monkeypatch, scenario)


@proves("node.parcels-ping")
def test_a_flood_of_pings_is_answered_so_often_and_what_a_place_gives_again_is_not(
    tmp_path, monkeypatch
):
    async def scenario(place: Path, hub: Runs, studio: Runs) -> None:
        await until(lambda: hub.mailboxes._boxes and studio.inbox.is_dir())
        desk = next(iter(hub.mailboxes._places.values())).desk
        found: list[bytes] = []
        for number in range(3 * PARCEL_ANSWERS_PER_MINUTE_MAX):
            found.append(desk.write(studio.one.id, [Item(PING, number.to_bytes(16))]))
            (studio.inbox / f"{hashlib.sha256(found[-1]).hexdigest()}.mp").write_bytes(found[-1])
            await until(lambda: not list(studio.inbox.glob("*.mp")))
        counters = studio.core.counters
        too_often = 2 * PARCEL_ANSWERS_PER_MINUTE_MAX
        assert counters["pings-too-often"] == too_often
        await until(lambda: hub.core.counters["pongs-unasked"])
        await until(lambda: not list(hub.inbox.glob("*.mp")))
        # Neither an old one, nor one that is none.
        spent = studio.mailboxes._asides._answered
        spent.clear()
        (studio.inbox / f"{hashlib.sha256(found[0]).hexdigest()}.mp").write_bytes(found[0])
        for type, body in ((PING, b"short"), (PONG, b"x" * 10_000)):
            raw = desk.write(studio.one.id, [Item(type, body)])
            (studio.inbox / f"{hashlib.sha256(raw).hexdigest()}.mp").write_bytes(raw)
        await until(lambda: counters["asides-malformed"] == 2)
        await until(lambda: not list(studio.inbox.glob("*.mp")))
        assert not any(spent.values())
        assert counters["pings-too-often"] == too_often
        # Many in one parcel are a few.
        raw = desk.write(studio.one.id, [Item(PING, n.to_bytes(16)) for n in range(4_000)])
        (studio.inbox / f"{hashlib.sha256(raw).hexdigest()}.mp").write_bytes(raw)
        await until(lambda: any(spent.values()))
        assert sum(map(len, spent.values())) == PARCEL_ASIDES_MAX

    play(tmp_path, monkeypatch, scenario)


@proves("node.parcels-ping")
def test_an_answer_goes_with_what_else_is_said_and_ends_no_turn_of_the_box():
    counters, left = Counter[str](), list[ParcelBox]()
    place: Any = SimpleNamespace(
        pace=PACES["drop"], core=SimpleNamespace(counters=counters), leave=left.append
    )
    box = ParcelBox(place, -1, "studio")
    for number in range(10):
        box.put_aside(Item(PONG, number.to_bytes(16)))
    box.put(b"a receipt", bulk=False)
    assert left == [box]
    types = [item.type for item in box.items()]
    assert types == [PONG] * PARCEL_ASIDES_MAX + [FRAME]
    assert not box


@proves("node.mailboxes-bounded")
def test_a_machine_that_is_to_use_a_place_and_cannot_seal_says_what_to_install(
    tmp_path, monkeypatch
):
    async def scenario() -> None:
        world = Cores("hub")
        monkeypatch.setitem(sys.modules, "pyrage", None)
        monkeypatch.delitem(sys.modules, "muster.channel.sealed", raising=False)
        with pytest.raises(Broken, match=re.escape(bring("drop"))):
            Runs(world["hub"], tmp_path)

    run(scenario())
