"""Devices: a key of its own, terms that an operator signed, and every way in which it counts not."""

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.fleet.world import (
    ALICE,
    AUTHORITY,
    BUILD,
    FLEET_ID,
    HOUR,
    LAPTOP,
    LAPTOP_RECORD,
    MALLORY,
    NONCE,
    NOW,
    STUDIO,
    World,
    give,
    revocation,
    small_fleet,
    stream,
    take,
)
from tests.promise import proves

from muster.errors import Denied, Malformed, Refused
from muster.fleet import kinds
from muster.fleet.device import (
    _DEVICE,
    NEVER,
    Binding,
    Right,
    Terms,
    open_device,
    read_string,
    sign_device,
    sign_terms,
    write_string,
)
from muster.fleet.document import document_id
from muster.fleet.grant import Grant
from muster.fleet.machine import Operator
from muster.fleet.record import sign_revocation
from muster.fleet.statement import open_statement, sign_statement
from muster.log.keys import Signer
from muster.log.stream import MachineId

TICKET = Signer(b"ticket".ljust(32))
KEY = Signer(b"laptop's device key".ljust(32))
OTHER_KEY = Signer(b"whoever copied the string".ljust(32))
LIFE = 600_000


def terms(**changed: Any) -> Terms:
    found = Terms(
        life_ms=LIFE, machine=LAPTOP.machine, open_ms=NOW + HOUR,
        rights=(Right("cancel", "*"), Right("run", "nightly")),
        ticket=TICKET.public.hex(), until_ms=NOW + 24 * HOUR,
    )  # fmt: skip
    return msgspec.structs.replace(found, **changed)


def signed(which: Terms, by: Operator = ALICE) -> str:
    return sign_terms(by.statement, FLEET_ID, which, nonce=NONCE, issued_ms=NOW).decode()


def recorded(
    key: Signer = KEY, which: Terms | None = None, by: Operator = ALICE
) -> kinds.DeviceRecorded:
    which = which or terms()
    binding = sign_device(TICKET, key, FLEET_ID, MachineId(which.machine)).decode()
    return kinds.DeviceRecorded(binding, signed(which, by), which)


def with_device(body: kinds.DeviceRecorded | None = None) -> World:
    world = small_fleet()
    world.write(LAPTOP, kinds.DEVICE_RECORD, body or recorded())
    return world


def order(verb: str, object: str, *, key: Signer = KEY, life_ms: int = 300_000) -> Any:
    raw = sign_statement(
        key, fleet=FLEET_ID, verb=verb, object=object, target="fleet", args={}, nonce=NONCE,
        issued_ms=NOW, until_ms=NOW + life_ms,
    )  # fmt: skip
    return open_statement(raw, FLEET_ID)


def may(world: World, verb: str = "run", object: str = "nightly", at_ms: int = NOW) -> bool:
    try:
        world.roster.permit(order(verb, object), at_ms)
    except Denied:
        return False
    return True


@proves("fleet.device-rights")
def test_a_device_orders_what_its_terms_name_and_nothing_else():
    world = with_device()
    assert world.skipped == []
    assert may(world)
    assert may(world, "cancel", "anything")
    assert not may(world, "run", "another")
    assert not may(world, "revoke", "laptop")
    assert world.roster.speaker(KEY.public.hex()) == "alice.laptop"
    cited = world.roster.permit(order("run", "nightly"), NOW)
    assert cited == document_id(signed(terms()).encode())


@proves("fleet.device-rights")
def test_a_devices_time_ends_and_then_it_orders_nothing():
    world = with_device()
    assert may(world, at_ms=NOW + 24 * HOUR)
    assert not may(world, at_ms=NOW + 24 * HOUR + 1)


@proves("fleet.device-order-life")
def test_an_order_of_a_device_that_may_be_shown_for_too_long_counts_for_nothing():
    world = with_device()
    world.roster.permit(order("run", "nightly", life_ms=LIFE), NOW)
    with pytest.raises(Denied, match="ends within 600 s"):
        world.roster.permit(order("run", "nightly", life_ms=LIFE + 1), NOW)


@proves("fleet.device-order-life")
def test_a_grant_that_is_given_beside_the_terms_does_not_lengthen_an_order():
    world = with_device()
    grant = Grant(object="*", to=KEY.public.hex(), until_ms=NOW + HOUR, verb="send")
    world.write(STUDIO, kinds.GRANT_GIVE, give(grant))
    world.roster.permit(order("send", "all"), NOW)
    with pytest.raises(Denied, match="ends within"):
        world.roster.permit(order("send", "all", life_ms=LIFE + 1), NOW)


@proves("fleet.device-chain")
@pytest.mark.parametrize("verb", sorted(NEVER))
def test_terms_with_which_a_device_could_make_itself_more_are_void(verb: str):
    world = with_device(recorded(which=terms(rights=(Right(verb, "*"),))))
    assert world.skipped == ["other-terms"]
    assert not world.roster.devices


@proves("fleet.device-chain")
def test_a_chain_with_a_link_of_something_else_makes_no_device():
    good = recorded()
    elsewhere = sign_device(TICKET, KEY, FLEET_ID, BUILD.machine).decode()
    wider = terms(rights=(Right("run", "*"),))
    other_ticket = terms(ticket=OTHER_KEY.public.hex())
    replace = msgspec.structs.replace
    for body, reason in (
        (replace(good, terms=wider), "other-terms"),
        (replace(good, binding=elsewhere), "other-terms"),
        (kinds.DeviceRecorded(good.binding, signed(other_ticket), other_ticket), "other-terms"),
        (replace(good, statement=signed(wider)), "other-terms"),
        (replace(good, binding="nonsense"), "bad-record"),
        (replace(good, statement="nonsense"), "bad-statement"),
    ):
        world = with_device(body)
        assert world.skipped == [reason]
        assert not may(world)


@proves("fleet.device-chain")
def test_terms_by_who_is_no_operator_make_no_device():
    world = with_device(recorded(by=MALLORY))
    assert world.skipped == []
    assert not world.roster.devices
    assert not may(world)


@proves("fleet.device-chain")
def test_a_key_whose_holder_did_not_agree_is_not_bound():
    own = msgspec.json.decode(recorded().binding.splitlines()[1])
    stolen = Binding(**{**own, "key": ALICE.key})
    with pytest.raises(Refused, match="did not agree"):
        open_device(_DEVICE.write(stolen, TICKET), FLEET_ID)


@proves("fleet.device-string-once")
def test_a_string_is_for_one_machine():
    """Whoever copies the string and writes it into another stream gets nothing."""
    world = small_fleet()
    world.write(BUILD, kinds.DEVICE_RECORD, recorded())
    assert world.skipped == ["not-mine"]
    assert not world.roster.devices


@proves("fleet.device-string-once")
def test_a_ticket_that_shows_two_keys_counts_for_neither_in_whatever_order():
    for keys in ((KEY, OTHER_KEY), (OTHER_KEY, KEY)):
        world = small_fleet()
        for number, key in enumerate(keys):
            world.write(stream(LAPTOP, incarnation=number), kinds.DEVICE_RECORD, recorded(key))
        assert world.skipped == []
        assert not world.roster.devices
        assert not may(world)


@proves("fleet.device-revoked")
def test_what_an_operator_takes_back_counts_no_more_and_what_others_take_stays():
    id_ = document_id(signed(terms()).encode())
    for by, stays in ((MALLORY, True), (ALICE, False)):
        world = with_device()
        world.write(BUILD, kinds.GRANT_TAKE, take(id_, by))
        assert world.skipped == []
        assert may(world) is stays


@proves("fleet.device-revoked")
def test_terms_that_were_taken_before_they_were_used_never_make_a_device():
    world = small_fleet()
    id_ = document_id(signed(terms()).encode())
    world.write(STUDIO, kinds.DEVICE_OPEN, kinds.DeviceOpen(signed(terms()), terms()))
    world.write(STUDIO, kinds.GRANT_TAKE, take(id_))
    world.write(LAPTOP, kinds.DEVICE_RECORD, recorded())
    assert world.skipped == []
    assert not may(world)


@proves("fleet.device-revoked")
@pytest.mark.parametrize("whose", ["operator", "machine", "device key", "ticket"])
def test_a_device_ends_with_its_operator_its_machine_its_key_or_its_ticket(whose: str):
    world = with_device()
    if whose == "machine":
        raw = revocation(LAPTOP)
    else:
        keys = {
            "operator": ALICE.key, "device key": KEY.public.hex(), "ticket": TICKET.public.hex(),
        }  # fmt: skip
        raw = sign_revocation(
            AUTHORITY, of="operator", key=keys[whose], name="alice", cuts={}, reason="lost",
            issued_ms=NOW,
        ).decode()  # fmt: skip
    assert may(world)
    world.write(STUDIO, kinds.MACHINE_REVOKE, kinds.MachineRevoke(raw))
    assert not may(world)
    assert not world.roster.devices
    with pytest.raises(Denied, match=r"^the device laptop"):
        world.roster.permit(order("run", "nightly"), NOW)
    world.enrol(LAPTOP_RECORD)
    assert not may(world)


@proves("fleet.device-string-once")
def test_a_key_that_takes_the_place_of_two_tickets_is_no_device():
    """Else the terms that an operator took back could come back with a later ticket."""
    world = with_device()
    second = Signer(b"another ticket".ljust(32))
    which = terms(ticket=second.public.hex(), rights=(Right("send", "*"),))
    binding = sign_device(second, KEY, FLEET_ID, LAPTOP.machine).decode()
    body = kinds.DeviceRecorded(binding, signed(which), which)
    world.write(LAPTOP, kinds.DEVICE_RECORD, body)
    assert world.skipped == []
    assert not world.roster.devices


@proves("fleet.device-rights")
def test_what_a_device_ordered_while_it_counted_was_ordered_for_good():
    world = with_device()
    world.write(BUILD, kinds.GRANT_TAKE, take(document_id(signed(terms()).encode())))
    assert not may(world)
    assert world.roster.speaker(KEY.public.hex()) == "alice.laptop"
    world.roster.was_permitted(order("run", "nightly"), NOW)
    for never in (order("run", "another"), order("run", "nightly", life_ms=LIFE + 1)):
        with pytest.raises(Denied):
            world.roster.was_permitted(never, NOW)
    with pytest.raises(Denied):
        world.roster.was_permitted(order("run", "nightly", key=OTHER_KEY), NOW)
    with pytest.raises(Denied):
        world.roster.was_permitted(order("run", "nightly"), NOW + 25 * HOUR)


@proves("fleet.device-string-once")
def test_the_string_carries_fleet_and_ticket_and_one_that_is_damaged_is_known():
    text = write_string(FLEET_ID, b"ticket".ljust(32))
    fleet, ticket = read_string(f"  {text.upper()} \n")
    assert (fleet, ticket.public) == (FLEET_ID, TICKET.public)
    for bad in (text[:-1], text + "a", text[:40] + "a" + text[41:], "muster1." + text[15:], ""):
        if bad != text:
            with pytest.raises(Malformed):
                read_string(bad)


PATH = Path(__file__).parents[1] / "vectors" / "device.json"
# Whoever changes this line changes documents that were signed: see tests/vectors/README.md.
SHA256 = "27c20b0e1e97d7b68f08ccf8a24a06c947fbbf095c8359f96f083d56e0ce4303"


@proves("fleet.vectors")
def test_the_frozen_chain_of_a_device_is_still_the_one_that_is_made_and_taken():
    raw = PATH.read_bytes()
    assert hashlib.sha256(raw).hexdigest() == SHA256
    frozen = json.loads(raw)
    assert write_string(FLEET_ID, bytes.fromhex(frozen["ticket_seed"])) == frozen["string"]
    which = msgspec.convert(frozen["terms"], Terms)
    assert signed(which) == frozen["statement"]
    assert document_id(frozen["statement"].encode()) == frozen["id"]
    key = Signer(bytes.fromhex(frozen["key_seed"]))
    assert recorded(key, which).binding == frozen["binding"]
    assert open_device(frozen["binding"].encode(), FLEET_ID).key == frozen["key"]
