"""Parcels: whose word they are, for whom, and what is read of them."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from tests.fleet.world import BUILD, FLEET_ID, LAPTOP, NOW, OTHER_AUTHORITY, STUDIO
from tests.promise import proves

from muster.errors import Denied, Forged, Malformed, Refused
from muster.fleet.life import NOBODY
from muster.fleet.machine import Identity
from muster.fleet.parcel import FRAME, Heard, Item, read_parcel, write_parcel
from muster.limits import INT_ABS_MAX, PARCEL_ITEMS_MAX
from muster.log.stream import FleetId

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "parcel.json").read_text(encoding="utf-8")
)
MINE, HEARD = Heard("1" * 32, 7), Heard("2" * 32, 3)
ITEMS = [Item(FRAME, b"one"), Item(FRAME, b""), Item(200, b"of a later version")]
MEMBERS = {STUDIO.machine, BUILD.machine}


def written(writer=BUILD, to=STUDIO.machine, fleet=FLEET_ID, items=ITEMS) -> bytes:
    return write_parcel(writer, fleet, to, MINE, HEARD, NOW, items)


def read(raw: bytes, me=STUDIO.machine):
    return read_parcel(raw, FLEET_ID, me, MEMBERS.__contains__)


@proves("fleet.parcel-items", "fleet.parcel-proven")
def test_what_a_member_wrote_for_us_is_read():
    parcel, items = read(written())
    assert items == ITEMS
    assert (parcel.machine, parcel.life, parcel.number) == (BUILD.machine, *MINE)
    assert (parcel.heard_life, parcel.heard_number, parcel.sent_ms) == (*HEARD, NOW)
    assert read(written(items=[]))[1] == []


@proves("fleet.parcel-proven")
def test_what_is_not_a_members_word_for_us_is_refused():
    with pytest.raises(Denied):
        read(written(to=LAPTOP.machine))
    with pytest.raises(Denied):
        read(written(writer=LAPTOP))
    with pytest.raises(Denied):
        read(written(writer=STUDIO))
    with pytest.raises(Forged):
        read(written(fleet=OTHER_AUTHORITY.fleet))
    # A member in the name of another one.
    raw = written(writer=LAPTOP).replace(LAPTOP.machine.encode(), BUILD.machine.encode())
    with pytest.raises(Forged):
        read(raw)


@proves("fleet.parcel-proven")
def test_a_changed_byte_or_a_cut_is_refused_wherever_it_is():
    raw, rng = written(), random.Random(1)
    for at in range(len(raw)):
        changed = raw[:at] + bytes([raw[at] ^ 1 << rng.randrange(8)]) + raw[at + 1 :]
        with pytest.raises(Refused):
            read(changed)
        with pytest.raises(Refused):
            read(raw[:at])
    with pytest.raises(Forged):
        read(raw + b"x")


@proves("fleet.parcel-proven")
def test_nothing_of_the_contents_is_read_before_they_are_proven(monkeypatch):
    read_items = []
    monkeypatch.setattr("muster.fleet.parcel._items", read_items.append)
    for raw in (written(to=LAPTOP.machine), written(writer=LAPTOP), written()[:-1], b"\n" * 5000):
        with pytest.raises(Refused):
            read(raw)
    assert read_items == []


def signed(body: bytes) -> bytes:
    """A parcel of a member that signs whatever it likes."""
    raw = written(items=[])
    from muster.fleet.parcel import _PARCEL, Parcel

    head = _PARCEL.read(raw, FLEET_ID).value
    found = {f: getattr(head, f) for f in Parcel.__struct_fields__}
    found |= {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    return _PARCEL.write(Parcel(**found), BUILD.root) + body


@proves("fleet.parcel-items")
@pytest.mark.parametrize(
    "body",
    [
        b"\0",
        b"\0\0\0\2\1x",
        b"\xff\xff\xff\xff\1" + b"x" * 100,
        b"\0\0\0\0\1" * (PARCEL_ITEMS_MAX + 1),
        b"\0\0\0\1\1x\0\0\0\0",
    ],
)
def test_items_that_are_cut_or_too_many_are_refused(body: bytes):
    with pytest.raises(Malformed):
        read(signed(body))
    assert len(read(signed(b"\0\0\0\0\1" * PARCEL_ITEMS_MAX))[1]) == PARCEL_ITEMS_MAX


@proves("fleet.parcel-proven")
def test_numbers_beyond_what_can_be_counted_are_refused():
    for number in (-1, INT_ABS_MAX + 1, 2**63, 10**30):
        raw = written().replace(b'"number":7', b'"number":%d' % number)
        with pytest.raises(Malformed):
            read(raw)


@proves("fleet.parcel-vectors")
def test_frozen_parcels_are_read_and_written_again():
    writer = Identity(bytes.fromhex(VECTORS["seed"]))
    fleet = FleetId(VECTORS["fleet"])
    for each in VECTORS["parcels"]:
        raw = bytes.fromhex(each["raw"])
        parcel, items = read_parcel(raw, fleet, VECTORS["to"], {VECTORS["machine"]}.__contains__)
        assert [[item.type, item.body.hex()] for item in items] == each["items"]
        said, heard = (
            Heard(parcel.life, parcel.number),
            Heard(parcel.heard_life, parcel.heard_number),
        )
        about = (writer, fleet, VECTORS["to"], said, heard, parcel.sent_ms)
        assert write_parcel(*about, items) == raw
    assert VECTORS["parcels"][0]["heard_life"] == NOBODY
    for each in VECTORS["refuse"]:
        with pytest.raises(Refused):
            raw = bytes.fromhex(each["raw"])
            read_parcel(raw, fleet, VECTORS["to"], {VECTORS["machine"]}.__contains__)
