"""Two fleets of real daemons, each of its own operator: letters, and all that must not pass."""

import asyncio
import secrets
from collections.abc import Iterator

import pytest

from muster.channel.frame import Type, decode, encode
from muster.channel.http import HttpChannel
from muster.channel.knock import Knock
from muster.channel.tls import Credentials
from muster.errors import Refused, Unreachable
from muster.fleet import certificate
from muster.fleet.grant import Grant, sign_give
from muster.fleet.machine import Authority, Identity
from muster.fleet.peer import peer_args, read_card
from muster.fleet.record import open_record, sign_binding, sign_record
from tests.e2e.fleet import Fleet, Machine, canonical, now_ms, until
from tests.promise import proves

HOUR_MS = 3_600_000


def take_in(here: Machine, card: str, name: str) -> None:
    fleet = read_card(card).fleet
    assert here.order("peer.add", fleet, peer_args(card, fleet, name))["added"] == name


def give(here: Machine, fleet: str, name: str) -> None:
    """Its machines may send letters to this machine."""
    grant = Grant(here.id, f"fleet:{fleet}", now_ms() + HOUR_MS, "send")
    raw = sign_give(
        here.fleet.operator.statement, here.fleet.fleet, grant,
        nonce=secrets.token_bytes(16), issued_ms=now_ms(),
    )  # fmt: skip
    said = {"object": grant.object, "to": grant.to, "until_ms": grant.until_ms, "verb": "send"}
    args = {"to": f"fleet:{name}", "verb": "send", "object": here.id}
    here.order("grant", "send", args, options={"grant": said, "statement": raw.decode()})


def send(here: Machine, to: str, text: str) -> str:
    answer = here.order("send", to, {"to": to, "text": [text]})
    assert answer["state"] == "waiting"
    return str(answer["message"])


def state(here: Machine, letter: str) -> str:
    (found,) = [each for each in here.ask("letters") if each["letter"] == letter]
    return str(found["state"])


def inbox(here: Machine) -> list[str]:
    return [item["text"] for item in here.ask("inbox", {"all": True})]


@pytest.fixture
def two() -> Iterator[tuple[Machine, Machine]]:
    with Fleet(["hub"]) as ours, Fleet(["yard"]) as acme:
        ours.start()
        acme.start()
        yield ours["hub"], acme["yard"]


@proves("peer.both-operators", "peer.letter-settles-by-receipt", "peer.taken-once")
def test_letters_between_two_fleets_wait_arrive_once_and_end_with_the_peering(two):
    """1. ours takes in acme, and sends: nothing arrives. 2. acme takes in ours: nothing arrives.
    3. A grant: it arrives, with the receipt. 4. The other end dies and comes back: what waited
    arrives once. 5. An answer goes the other way by its own grant. 6. Removed: nothing arrives.
    """
    hub, yard = two
    take_in(hub, yard.ask("peer.card")["card"], "acme")
    first = send(hub, "yard.acme", "one")
    until(lambda: hub.ask("peers")[0]["last"] != "untried", "it was tried")
    assert (state(hub, first), inbox(yard)) == ("waiting", [])
    take_in(yard, hub.ask("peer.card")["card"], "ours")
    give(yard, hub.fleet.fleet, "ours")
    until(lambda: state(hub, first) == "stored", "the first is stored", within_s=90)
    assert inbox(yard) == ["hub.ours (another fleet): one"]
    yard.kill()
    second = send(hub, "yard.acme", "two")
    hub.kill()
    hub.start()
    yard.start()
    until(lambda: state(hub, second) == "stored", "the second is stored", within_s=90)
    assert inbox(yard) == [f"hub.ours (another fleet): {text}" for text in ("one", "two")]
    give(hub, yard.fleet.fleet, "acme")
    back = send(yard, "hub.ours", "three")
    until(lambda: state(yard, back) == "stored", "the answer is stored", within_s=90)
    assert inbox(hub) == ["yard.acme (another fleet): three"]
    assert {m["name"] for m in hub.ask("machines")} == {"hub"}
    assert yard.order("peer.remove", hub.fleet.fleet, {"fleet": hub.fleet.fleet})
    late = send(hub, "yard.acme", "four")
    until(lambda: "worked" not in hub.ask("peers")[0]["last"], "it is not let in", within_s=90)
    assert (state(hub, late), len(inbox(yard))) == ("waiting", 2)


async def ask(machine: Machine, credentials: Credentials, verb: str) -> str:
    """What a machine of another fleet hears of a verb; how it is turned away, where it is."""
    channel = HttpChannel(credentials, lambda _: machine.id)
    channel.knock = Knock(str(machine.fleet.fleet), "", now_ms, lambda: False)
    try:
        link = await channel.dial(machine.fleet.place(machine.name))
        try:
            await link.send(encode(Type.CALL, 1, canonical({"args": {}, "verb": verb})))
            async with asyncio.timeout(60):
                return decode(await link.receive()).payload.decode()
        finally:
            await link.close("done")
    except (Refused, Unreachable) as error:
        return type(error).__name__


def shown(of: Machine, to: Machine, authority: Authority, named: Authority) -> Credentials:
    """What a machine shows whose certificate this authority signed; `named` signed its record."""
    identity = Identity(bytes(31) + b"z") if authority is not named else of.identity
    raw = sign_record(
        authority, sign_binding(identity, authority.fleet, "hub"), roles=(), serial=1,
        issued_ms=now_ms(),
    )  # fmt: skip
    chain = certificate.issue(authority, open_record(raw, authority.fleet), now_ms())
    cert, key, _ = certificate.tls_files(identity, chain)
    return Credentials(cert, key, to.home.facts()["ca"].encode())


@proves("peer.reaches-nothing-else", "peer.forged-refused")
def test_whom_tls_lets_in_and_what_it_hears(two):
    hub, yard = two
    genuine = shown(hub, yard, hub.fleet.authority, hub.fleet.authority)
    third = shown(hub, yard, Authority(b"t" * 32), hub.fleet.authority)
    assert asyncio.run(ask(yard, genuine, "peer.message")) in ("Unreachable", "Denied")
    take_in(yard, hub.ask("peer.card")["card"], "ours")
    until(
        lambda: "nothing here answers" in asyncio.run(ask(yard, genuine, "peer.message")),
        "its certificate counts",
    )
    for verb in ("machines", "status", "enrol", "renew", "beat", "relay"):
        assert "nothing here answers that" in asyncio.run(ask(yard, genuine, verb)), verb
    assert asyncio.run(ask(yard, third, "peer.message")) == "Unreachable"
    assert yard.order("peer.remove", hub.fleet.fleet, {"fleet": hub.fleet.fleet})
    until(
        lambda: asyncio.run(ask(yard, genuine, "peer.message")) in ("Unreachable", "Denied"),
        "it counts no more",
    )
