"""The fleet's own mesh: who has which address in it, and what WireGuard is told. Data only.

Rule 1: nobody hands out addresses. The fleet's id gives the network, a unique local one of 48 bits
(RFC 4193), and a machine's id the 80 bits behind it: everybody computes the same.
Rule 2: the peers are the other machines of the roster, by the `wireguard` keys in their records,
which the authority signed. Whoever is not in it any more is no peer, from the next time on.
Rule 3: the place where a machine takes packets is its own claim. It names an address and a port and
nothing else, or is left out; a lie costs packets that go nowhere. Who is there proves its key.
"""

import hashlib
import ipaddress
from base64 import b64decode, b64encode
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

from msgspec import Struct, ValidationError, convert

from muster.address import PORT_MAX, join_address, split_address
from muster.errors import Malformed
from muster.fleet.roster import Roster

# As which channel a machine says its place, beside where it is dialled (`Facts.reach`).
WAY: Final = "wireguard"
# The sub-key of a machine that is for this alone (derive.py).
KEY: Final = "wireguard"
# UDP; the listener's number, so that a firewall opens one.
PORT: Final = 7447
# Of an interface that a fleet made; the rest is of the machine's id. A name has 15 letters.
PREFIX: Final = "muster-"
# Without a word for so long a session of WireGuard is over (its REJECT_AFTER_TIME).
HEARD_S: Final = 180
KEEPALIVE_S: Final = 25

_NETWORK: Final = b"muster/mesh-network/v1\n"
_ADDRESS: Final = b"muster/mesh-address/v1\n"


class Peer(Struct, frozen=True):
    """Another machine: its key and place as WireGuard writes them; `endpoint` may be ""."""

    machine: str
    name: str
    key: str
    address: str
    endpoint: str


class Place(Struct, frozen=True):
    """Where a machine takes packets: its UDP port, and what it tells the others, "" for nothing.

    `given`: a person said so; else it is how it looked from there.
    """

    port: int
    endpoint: str
    given: bool = False


class Seen(NamedTuple):
    """A peer as the interface has it; `heard_s` is when it last proved itself, 0 for never."""

    key: str
    endpoint: str
    allowed: str
    heard_s: int
    received: int
    sent: int


class Difference(NamedTuple):
    """The keys that the interface lacks or has otherwise, and those that it has too many."""

    missing: list[str]
    stale: list[str]


def network(fleet: str) -> ipaddress.IPv6Network:
    """The network of a fleet's mesh."""
    drawn = hashlib.sha256(_NETWORK + fleet.encode()).digest()
    return ipaddress.IPv6Network((b"\xfd" + drawn[:5] + bytes(10), 48))


def address(fleet: str, machine: str) -> ipaddress.IPv6Address:
    """The address of a machine in it."""
    drawn = hashlib.sha256(_ADDRESS + f"{fleet}\n{machine}".encode()).digest()
    return ipaddress.IPv6Address(network(fleet).network_address.packed[:6] + drawn[:10])


def interface(machine: str) -> str:
    """What the interface of a machine is called."""
    return PREFIX + machine[:8]


def key_text(public: bytes) -> str:
    """A key as WireGuard writes it."""
    return b64encode(public).decode()


def endpoint(text: str, mesh: ipaddress.IPv6Network) -> str:
    """A place as WireGuard is told it, "" for one that is none, or is inside of the mesh."""
    try:
        host, port = split_address(text)
        found = ipaddress.ip_address(host)
    except (Malformed, ValueError):
        # A name would be looked up by `wg`, for as long as nobody answers.
        return ""
    nobody = found.is_unspecified or found.is_loopback or found.is_multicast
    # Broadcast, and addresses of IPv4 in the clothes of IPv6, are reserved.
    nobody = nobody or found.is_link_local or found.is_reserved
    if nobody or not port or "%" in host or found in mesh:
        return ""
    return join_address(str(found), port)


def read_place(kept: object, fleet: str) -> Place | None:
    """What a home keeps of it; None for nothing, and for what no version of us wrote."""
    try:
        found = convert(kept, Place)
    except ValidationError:
        return None
    if not 0 < found.port <= PORT_MAX:
        return None
    return Place(found.port, endpoint(found.endpoint, network(fleet)), found.given)


def peers(roster: Roster, me: str) -> list[Peer]:
    """Whom a machine has as peers: nobody, where it is in the fleet no more."""
    if me not in roster.machines:
        return []
    mesh = network(roster.fleet)
    found = []
    for machine, record in sorted(roster.machines.items()):
        if machine == me:
            continue
        facts = roster.facts.get(machine)
        ways = facts.reach if facts is not None else ()
        place = next((way.address for way in ways if way.channel == WAY), "")
        found.append(
            Peer(
                machine, record.name, key_text(bytes.fromhex(record.keys[KEY])),
                str(address(roster.fleet, machine)), endpoint(place, mesh),
            )
        )  # fmt: skip
    return found


def check_peer(peer: Peer, fleet: str) -> None:
    """What goes to `wg` with root's right is a key, an address and a place. Raises: Malformed."""
    try:
        is_key = len(b64decode(peer.key, validate=True)) == 32 and "\n" not in peer.key
    except ValueError:
        is_key = False
    is_here = peer.address == str(address(fleet, peer.machine))
    if not is_key or not is_here or peer.endpoint != endpoint(peer.endpoint, network(fleet)):
        raise Malformed(f"{peer.name[:80]!r} is no peer of the mesh: its daemon says what is odd")


def configuration(
    secret: bytes, port: int, peers: Iterable[Peer], *, keeps: Collection[str] = (), is_open: bool
) -> str:
    """What `wg syncconf` reads; it holds a secret.

    Of the peers in `keeps` the place is left as it is: it was learned from their own packets.
    `is_open`: others reach us without our having said anything first.
    """
    lines = ["[Interface]", f"PrivateKey = {key_text(secret)}", f"ListenPort = {port}"]
    for peer in peers:
        lines += ["", "[Peer]", f"PublicKey = {peer.key}", f"AllowedIPs = {peer.address}/128"]
        if peer.endpoint and peer.key not in keeps:
            lines.append(f"Endpoint = {peer.endpoint}")
        # What a router on the way remembers of us is forgotten after half a minute of silence.
        if peer.endpoint and not is_open:
            lines.append(f"PersistentKeepalive = {KEEPALIVE_S}")
    return "\n".join(lines) + "\n"


def read_dump(text: str) -> list[Seen]:
    """The peers in what `wg show INTERFACE dump` prints; its first line holds our secret."""
    found = []
    for line in text.splitlines()[1:]:
        words = line.split("\t")
        if len(words) == 8:
            key, _, place, allowed, heard, received, sent, _ = words
            place = "" if place == "(none)" else place
            counts = [int(each) if each.isdecimal() else 0 for each in (heard, received, sent)]
            found.append(Seen(key, place, allowed, *counts))
    return found


def difference(wanted: Iterable[Peer], seen: Iterable[Seen]) -> Difference:
    """What another application would change of who is a peer."""
    there = {each.key: each.allowed for each in seen}
    named = {peer.key: f"{peer.address}/128" for peer in wanted}
    missing = [key for key, allowed in named.items() if there.get(key) != allowed]
    return Difference(missing, [key for key in there if key not in named])


def heard(seen: Iterable[Seen], now_s: int) -> set[str]:
    """The keys of those that proved themselves lately."""
    return {each.key for each in seen if each.heard_s and now_s - each.heard_s < HEARD_S}
