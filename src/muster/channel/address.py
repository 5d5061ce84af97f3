"""Where a machine listens, as people write it: `host:port`, `[v6 address]:port`, `:port`."""

import errno
from typing import Final

from muster.errors import Malformed

PORT_MAX: Final = 65_535


def split_address(address: str) -> tuple[str, int]:
    """Host, without brackets, and port. Raises Malformed."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit():
        raise Malformed(f"address {address!r} is not host:port; write it like 192.0.2.7:7447")
    if len(port) > 5 or int(port) > PORT_MAX:
        raise Malformed(f"address {address[:80]!r}: the port of host:port is from 1 to {PORT_MAX}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def join_address(host: str, port: int) -> str:
    """The address that `split_address` takes apart."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def why_nobody_listens(error: OSError) -> str:
    """Why nobody can listen there, and what to change."""
    if error.errno == errno.EADDRINUSE:
        return "another program listens there; take another port, `listen` in config.toml"
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            "this computer has no such address; `listen` in config.toml takes one of its own, or "
            "0.0.0.0 for all of them"
        )
    return f"{error.strerror or error}; `listen` in config.toml says where"
