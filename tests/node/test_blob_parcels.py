"""Blobs over mailboxes: whole, in windows, gone on with, and to who may have them."""

import asyncio
import random
from pathlib import Path

import pytest
from tests.node.mailbox_runs import Runs, play, until
from tests.promise import proves

from muster.errors import Unreachable
from muster.fleet.parcel import BLOB_PART, BLOB_WANT, Heard, Item
from muster.limits import BLOB_PART_BYTES_MAX, BLOB_PARTS_AHEAD_MAX, BLOB_WANTS_PER_MINUTE_MAX
from muster.log.pace import Pace
from muster.log.stream import scope_to
from muster.node.attempts.blob_transfer import Source
from muster.node.links import blob_parcels
from muster.node.links import place as post_place
from muster.node.links.paces import PACES
from muster.node.services.parcels import ParcelCame, Parcels

pytest.importorskip("pyrage", reason="pip install 'muster-fleet[sealed]'")

DATA = random.Random(1).randbytes(5_000_000)
SMALL = 1_000


def paced(monkeypatch: pytest.MonkeyPatch, retry_ms: int) -> None:
    pace = Pace(retry_ms, 2 * retry_ms, 600_000, 8 * 1024 * 1024)
    monkeypatch.setattr(post_place, "pace_of", lambda *_: pace)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Parcels follow each other at once, and on a busy computer nothing is asked for twice."""
    paced(monkeypatch, 30_000)
    monkeypatch.setattr(post_place, "GAPS_S", {**post_place.GAPS_S, "drop": 0.01})


def small(monkeypatch: pytest.MonkeyPatch, size: int = SMALL) -> None:
    monkeypatch.setattr(blob_parcels, "BLOB_PART_BYTES_MAX", size)


def count(machine: Runs, kind: int = BLOB_PART) -> list[Item]:
    """What of this kind goes into parcels of a machine from now on."""
    desk, found = machine.mailboxes._places["drop"].desk, list[Item]()
    write = desk.write

    def counted(to, items):
        items = list(items)
        found.extend(item for item in items if item.type == kind)
        return write(to, items)

    desk.write = counted  # type: ignore[method-assign]
    return found


async def known(source: Source, *machines: Runs) -> None:
    """Everybody has the entry that names it, and has heard of everybody."""
    await until(lambda: all(each.core.log.entry(source.entry) for each in machines))
    for each in machines:
        others = [other.one.id for other in machines if other is not each]
        await until(
            lambda each=each, others=others: all(
                each.core.part(Parcels).heard(other).number for other in others
            )
        )


@proves("node.blob-mailbox")
def test_five_megabytes_come_by_a_folder_alone_and_not_twice(tmp_path, monkeypatch):
    async def scenario(place: Path, hub: Runs, studio: Runs) -> None:
        source = hub.deliver(DATA)
        await known(source, hub, studio)
        parts, told = count(hub), list[int]()
        await studio.bring(source, told=lambda _, got: told.append(got))
        assert studio.blobs.get(source.artefact.sha256) == DATA
        pieces = -(-len(DATA) // BLOB_PART_BYTES_MAX)
        assert len(parts) == pieces
        assert (len(told), told[-1]) == (pieces, len(DATA))
        await studio.bring(source)
        assert len(parts) == pieces
        await until(lambda: not list(studio.inbox.glob("*.mp")))

    play(tmp_path, monkeypatch, scenario)


@proves("node.blob-resumes")
def test_who_is_killed_in_the_middle_goes_on_there(tmp_path, monkeypatch):
    small(monkeypatch)

    async def scenario(place: Path, hub: Runs, studio: Runs) -> None:
        data = DATA[:20_500]
        source = hub.deliver(data)
        await known(source, hub, studio)
        parts, come = count(hub), asyncio.Event()
        bringing = asyncio.create_task(
            studio.bring(source, told=lambda _, got: come.set() if got >= 9_000 else None)
        )
        await come.wait()
        bringing.cancel()
        await asyncio.wait([bringing])
        (left,) = [each for each in studio.blobs._folder.iterdir() if each.is_file()]
        here = left.stat().st_size
        await until(lambda: not list(studio.inbox.glob("*.mp")))
        before = len(parts)
        wants = count(studio, BLOB_WANT)
        await studio.bring(source)
        assert studio.blobs.get(source.artefact.sha256) == data
        asked = {int.from_bytes(want.body[-8:]) for want in wants}
        assert 9_000 <= here == min(asked)
        assert len(parts) - before <= -(-(len(data) - here) // SMALL) + BLOB_PARTS_AHEAD_MAX

    play(tmp_path, monkeypatch, scenario)


@proves("node.blob-mailbox")
def test_what_lies_there_for_who_asked_and_left_is_one_window(tmp_path, monkeypatch):
    small(monkeypatch)

    async def scenario(place: Path, hub: Runs, studio: Runs) -> None:
        source = hub.deliver(DATA[:50_000])
        await known(source, hub, studio)
        parts, number = count(hub), studio.core.part(Parcels).number("drop", hub.one.id)
        want = blob_parcels._Want(source.entry, source.artefact.sha256, 0)
        studio.mailboxes.blobs._ask(number, want)
        await until(lambda: len(parts) == BLOB_PARTS_AHEAD_MAX)
        await until(lambda: studio.core.counters["blob-parts-unasked"] == BLOB_PARTS_AHEAD_MAX)
        await asyncio.sleep(0.3)
        assert len(parts) == BLOB_PARTS_AHEAD_MAX
        assert not hub.mailboxes.blobs._serving

    play(tmp_path, monkeypatch, scenario)


@proves("node.blob-hash-is-no-capability")
def test_who_may_not_have_it_gets_the_one_no_that_there_is(tmp_path, monkeypatch):
    async def scenario(place: Path, hub: Runs, studio: Runs) -> None:
        secret = hub.deliver(b"secret", scope=scope_to(hub.one.id))
        source = hub.deliver(b"for all", "cd" * 16)
        await known(source, hub, studio)
        # An entry of its own about a hash that it heard of.
        claimed = studio.finish(secret.artefact, "ef" * 16)
        await until(lambda: hub.core.log.entry(claimed.id))
        said = count(hub)
        for entry in (secret.entry, source.entry, claimed.id, bytes(32)):
            with pytest.raises(Unreachable, match="nobody whom this machine reaches gave it"):
                await studio.bring(Source(secret.artefact, entry, hub.core.machine))
        assert {item.body for item in said} == {bytes.fromhex(secret.artefact.sha256) + bytes(8)}
        assert len(said) == 4
        assert hub.core.counters["blob-denied"] == 3
        assert not list(studio.blobs)
        await studio.bring(source)
        assert studio.blobs.get(source.artefact.sha256) == b"for all"

    play(tmp_path, monkeypatch, scenario)


@proves("node.blob-mailbox")
def test_other_bytes_cost_who_gave_them_and_a_blob_that_rotted_is_not_given(tmp_path, monkeypatch):
    async def scenario(place: Path, hub: Runs, studio: Runs, nas: Runs) -> None:
        source = hub.deliver(DATA[:5_000])
        await known(source, hub, studio, nas)
        await nas.bring(source)
        piece = hub.blobs.piece
        hub.blobs.piece = lambda *where: b"?" * len(piece(*where))  # type: ignore[method-assign]
        await studio.bring(source)
        assert studio.blobs.get(source.artefact.sha256) == DATA[:5_000]
        assert studio.core.counters["blob-forged"] == 1
        studio.blobs.drop(source.artefact.sha256)
        hub.blobs._path(source.artefact.sha256).write_bytes(b"?" * 5_000)
        await studio.bring(source)
        assert studio.core.counters["blob-forged"] == 1
        assert studio.core.counters["blob-not-there"] == 1

    play(tmp_path, monkeypatch, scenario, "hub", "studio", "nas")


@proves("node.blob-mailbox")
def test_a_flood_of_questions_is_answered_so_often_and_what_is_none_is_counted(
    tmp_path, monkeypatch
):
    async def scenario(place: Path, hub: Runs, studio: Runs) -> None:
        source = hub.deliver(DATA[:5_000])
        await known(source, hub, studio)
        blobs, raw = hub.mailboxes.blobs, source.entry + bytes.fromhex(source.artefact.sha256)
        number = hub.core.part(Parcels).number("drop", studio.one.id)
        parts = count(hub)
        for body in (b"", raw, raw + b"\xff" * 8, raw + bytes(9)):
            blobs._asked(number, body)
        assert hub.core.counters["blob-wants-malformed"] == 4
        assert not blobs._serving
        for _ in range(BLOB_WANTS_PER_MINUTE_MAX + 5):
            blobs._asked(number, raw + bytes(8))
        assert hub.core.counters["blob-wants-too-often"] == 5
        # The newest counts, and those before it do not pile up.
        await until(lambda: parts and not blobs._serving)
        assert len(parts) == 1

    play(tmp_path, monkeypatch, scenario)


@proves("node.blob-mailbox")
def test_a_question_from_before_the_start_is_not_answered_and_neither_is_an_old_no_heard(
    tmp_path, monkeypatch
):
    async def scenario(place: Path, hub: Runs, studio: Runs) -> None:
        source = hub.deliver(DATA[:5_000])
        await known(source, hub, studio)
        number = studio.core.part(Parcels).number("drop", hub.one.id)
        want = source.entry + bytes.fromhex(source.artefact.sha256) + bytes(8)
        asks, serving = Item(BLOB_WANT, want), hub.mailboxes.blobs._serving
        lives = ("00" * 16, hub.core.part(Parcels).life)
        for at, life in enumerate(lives):
            said = Heard("ab" * 16, at)
            hub.step(ParcelCame("drop", f"{at}", studio.one.id, said, 0, life, (), (asks,)))
            assert bool(serving) is (at == 1)
        await until(lambda: not serving)
        coming = blob_parcels._Coming(source.artefact.sha256, 0, 5_000, 8_000)
        studio.mailboxes.blobs._coming[number] = coming
        no = Item(BLOB_PART, bytes.fromhex(source.artefact.sha256) + bytes(8))
        for newer in (False, True):
            studio.mailboxes.blobs.came(blob_parcels.AsideCame(number, no, newer))
            assert coming.refused is newer
        del studio.mailboxes.blobs._coming[number]

    play(tmp_path, monkeypatch, scenario)


@proves("node.blob-mailbox")
def test_of_who_never_comes_by_only_the_author_is_asked_and_not_for_long(tmp_path, monkeypatch):
    monkeypatch.setattr(blob_parcels, "ABSENT_S", 0.2)
    paced(monkeypatch, 300)

    async def scenario(place: Path, hub: Runs, studio: Runs, nas: Runs) -> None:
        source = hub.deliver(DATA[:5_000])
        await until(lambda: studio.core.log.entry(source.entry))
        studio.core.part(Parcels)._heard.clear()
        for each in (hub, nas):
            await each.mailboxes.close()
        wants = count(studio, BLOB_WANT)
        assert [machine for machine, _ in studio.mailboxes.blobs.boxes(hub.one.id)] == [hub.one.id]
        with pytest.raises(Unreachable, match=r"data\.bin is on hub"):
            await studio.bring(source)
        await until(lambda: wants)
        assert len(wants) <= 4
        assert not studio.mailboxes.blobs._coming

    play(tmp_path, monkeypatch, scenario, "hub", "studio", "nas")


@proves("node.blob-mailbox")
def test_pieces_in_any_order_make_the_blob_and_none_that_is_not_due_is_kept(monkeypatch):
    small(monkeypatch, 10)
    coming = blob_parcels._Coming("ab" * 32, 5, 48, 30)
    assert not any(
        coming.put(at, b"x" * size)
        for at, size in ((0, 10), (6, 10), (5, 9), (35, 10), (45, 3), (1 << 63, 10))
    )
    assert [coming.put(at, bytes([at]) * 10) for at in (25, 15, 15, 5)] == [True, True, False, True]
    found = []
    while (piece := coming.take()) is not None:
        found.append(piece[0])
    assert found == [5, 15, 25]
    assert coming.put(45, b"x" * 3)
    assert not coming.put(35, b"x" * 3)


@proves("node.blob-mailbox")
@pytest.mark.parametrize("place", ["git", "cloud"])
def test_less_lies_where_each_parcel_costs(place):
    pace = PACES[place]
    assert blob_parcels._ahead(pace) <= pace.flight_bytes
    assert blob_parcels._ahead(pace) == 4 * BLOB_PART_BYTES_MAX
