"""Where a machine listens and is reached, as people write it: `host:port`, `[v6 address]:port`.

Rule: an address may come from anybody. What `check_address` lets through names one host and one
port and nothing else, whatever opens it.
"""

import re
from typing import Final

from muster.errors import Malformed

PORT_MAX: Final = 65_535
# To listen: wherever it is safe at the moment (node/host/exposure.py).
AUTO: Final = "auto"
_ADDRESS: Final = re.compile(r"^(\[[0-9a-f:.]{2,45}\]|[a-z0-9]([a-z0-9.-]{0,252})):([0-9]{1,5})\Z")


def check_address(address: str) -> str:
    """`address` in lower case, when it can be dialled; raises Malformed otherwise."""
    # The sign of the kelvin, in lower case, is a k: what was checked would not be what is dialled.
    match = _ADDRESS.match(address.lower()) if address.isascii() else None
    if match is None:
        raise Malformed(f"{address[:80]!r} is not an address: write host:port or [ipv6]:port.")
    if not 0 < int(match[3]) <= PORT_MAX:
        raise Malformed(
            f"{address[:80]!r} is not an address: the port of host:port is from 1 to {PORT_MAX}."
        )
    return address.lower()


def split_address(address: str) -> tuple[str, int]:
    """Host, without brackets, and port; to listen, `:port` is every host. Raises Malformed."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit():
        raise Malformed(f"address {address!r} is not host:port; write it like 192.0.2.7:7447")
    if len(port) > 5 or int(port) > PORT_MAX:
        raise Malformed(f"address {address[:80]!r}: the port of host:port is from 1 to {PORT_MAX}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def join_address(host: str, port: int) -> str:
    """The address that `split_address` takes apart."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
