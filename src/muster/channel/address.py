"""Where a machine listens, as people write it: `host:port`, `[v6 address]:port`, `:port`."""

from muster.errors import Malformed


def split_address(address: str) -> tuple[str, int]:
    """Host, without brackets, and port. Raises Malformed."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise Malformed(f"address {address!r} is not host:port; write it like 192.0.2.7:7447")
    return host.removeprefix("[").removesuffix("]"), int(port)


def join_address(host: str, port: int) -> str:
    """The address that `split_address` takes apart."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
