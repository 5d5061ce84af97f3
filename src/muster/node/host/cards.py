"""The network cards of this machine: where they are, and whether a packet wakes it.

Rule 1: the kernel says of each card whether a packet may wake the computer
(`/sys/class/net/*/device/power/wakeup`). Of one that says nothing nobody can know: `wake = true` in
config.toml says it, for a machine that its owner, or what it runs in, wakes by such a packet. It
says nothing of a bridge that no card is in: that joins what runs on this machine (`docker0`).
Rule 2: a card without a network of its own, that of this machine alone or of two machines, wakes
nobody: no neighbour could say anything to it.
"""

import ipaddress
from pathlib import Path
from typing import Final

from muster.fleet.facts import Card
from muster.limits import CARD_SUBNETS_MAX, CARDS_MAX
from muster.node.host.facts import Interface, interfaces

_NET: Final = Path("/sys/class/net")
_NOBODY: Final = "00:00:00:00:00:00"
# A network of two has no word for all.
_PREFIX_MAX: Final = 30


def cards(*, wake: bool) -> tuple[Card, ...]:
    """Those that others may see, in the order of their addresses."""
    found: dict[str, Card] = {}
    for each in interfaces():
        if card := _card(each, wake=wake):
            found.setdefault(card.mac, card)
    return tuple(found[mac] for mac in sorted(found))[:CARDS_MAX]


def _card(interface: Interface, *, wake: bool) -> Card | None:
    mac = interface.mac.lower().replace("-", ":")
    subnets = [str(net) for net in map(network, interface.addresses) if net is not None]
    if mac in ("", _NOBODY) or not subnets:
        return None
    wakes = _wakes(interface.name) or (wake and not _is_inside(interface.name))
    return Card(mac, tuple(sorted(set(subnets)))[:CARD_SUBNETS_MAX], wakes)


def network(address: str) -> ipaddress.IPv4Network | None:
    """The network of an address with its mask, `10.0.0.5/255.255.255.0`; None where it has none."""
    try:
        found = ipaddress.IPv4Interface(address)
    except ValueError:
        return None
    if found.is_loopback or found.is_link_local or found.network.prefixlen > _PREFIX_MAX:
        return None
    return found.network


def source_in(subnet: str) -> str:
    """Our own address in this network, "" where we are not in it."""
    for interface in interfaces():
        for address in interface.addresses:
            net = network(address)
            if net is not None and str(net) == subnet:
                return address.partition("/")[0]
    return ""


def _wakes(name: str) -> bool:
    try:
        said = (_NET / name / "device" / "power" / "wakeup").read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return False
    return said.strip() == "enabled"


def _is_inside(name: str) -> bool:
    """Whether it is a bridge whose ports all are of this machine: no card, nothing over a card."""
    try:
        ports = [_NET / port.name for port in (_NET / name / "brif").iterdir()]
        return not any((port / "device").exists() or any(port.glob("lower_*")) for port in ports)
    except OSError:
        return False
