"""The packet that wakes a computer: six bytes of ones and sixteen times the address of its card.

It carries nothing and proves nothing, and nobody answers it: whether a machine woke is seen when it
speaks. So it is no channel of the list (channel/__init__.py).
"""

import ipaddress
import socket
from typing import Final

from muster.errors import Malformed, Unreachable

# The port of `discard`: the card looks at the bytes alone, and whoever is awake throws them away.
PORT: Final = 9
_MAC_BYTES: Final = 6


def packet(mac: str) -> bytes:
    """What wakes the card with this address, `aa:bb:cc:dd:ee:ff`. Raises: Malformed."""
    try:
        raw = bytes.fromhex(mac.replace(":", ""))
    except ValueError:
        raw = b""
    if len(raw) != _MAC_BYTES:
        raise Malformed(f"{mac[:40]!r} is no address of a network card")
    return b"\xff" * 6 + raw * 16


def send(mac: str, subnet: str, source: str) -> None:
    """Say it to all of this network, from our own address in it: so it leaves by that interface.

    Raises: Malformed, Unreachable.
    """
    to = str(ipaddress.IPv4Network(subnet).broadcast_address)
    raw = packet(mac)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.setblocking(False)
            sock.bind((source, 0))
            sock.sendto(raw, (to, PORT))
    except OSError as error:
        raise Unreachable(f"no packet leaves {source} for {to} ({error.strerror})") from error
