"""Where a model's server is, and which proxy stands before it; pure."""

import contextlib
import ipaddress
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from muster.errors import Broken


class Address(NamedTuple):
    """Where a server is."""

    tls: bool
    host: str
    port: int
    path: str = ""
    """What its paths begin with."""
    user: str = ""
    """`name:password`, of a proxy."""

    @property
    def authority(self) -> str:
        """As it stands in `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def address_of(url: str, what: str = "the address of the model") -> Address:
    """What an address says. Raises: Broken where it is none."""
    try:
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        host, port = parts.hostname or "", parts.port or (443 if tls else 80)
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise Broken(f"{what} is none: it has to be http(s)://host[:port][/path]")
    if not host.isascii() or not parts.path.isascii() or not parts.path.isprintable():
        raise Broken(f"{what} has letters that an address may not have")
    name = ":".join(unquote(each) for each in (parts.username or "", parts.password or ""))
    return Address(tls, host, port, parts.path.rstrip("/"), name if parts.username else "")


def proxy_of(address: Address, env: Mapping[str, str]) -> Address | None:
    """The proxy on the way, by the variables that everything else of this machine reads."""
    names = ("https_proxy", "all_proxy") if address.tls else ("http_proxy", "all_proxy")
    found = next((v for n in names for v in (env.get(n), env.get(n.upper())) if v), "")
    if not found or _is_past(address, env.get("no_proxy") or env.get("NO_PROXY") or ""):
        return None
    proxy = address_of(found if "://" in found else f"http://{found}", "the address of the proxy")
    if proxy.tls:
        raise Broken("a proxy is spoken to by http://, and this machine's is an https:// one")
    return proxy


def _is_past(address: Address, no_proxy: str) -> bool:
    """Whether NO_PROXY names it: `*`, a host, a domain with or without a dot, each with a port."""
    for each in no_proxy.replace(",", " ").split():
        name, _, port = each.rpartition(":") if each.count(":") == 1 else (each, "", "")
        if port and port != str(address.port):
            continue
        wanted = name.lower().strip("[]").removeprefix("*").lstrip(".")
        if name == "*" or address.host == wanted or address.host.endswith(f".{wanted}"):
            return True
        # A name, or a rule that is a name: neither lies in a network.
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(address.host) in ipaddress.ip_network(wanted, strict=False):
                return True
    return False
