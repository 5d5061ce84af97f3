"""The proxy through which this machine itself reaches the network, where it has one.

Rule 1: it is what the daemon's own environment says, in the form that curl and others read:
        `https_proxy`, `http_proxy`, `all_proxy`, `no_proxy`, in small letters first.
Rule 2: its password is in what is sent to it, and in nothing that is shown, told or raised.
Rule 3: who looks the name up is that proxy. Where this machine can look it up as well, what leads
        to no address that may be reached is refused all the same.
"""

import base64
import ipaddress
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

from muster.errors import Malformed

_PROXY: Final = re.compile(
    r"(?:http://)?(?:([^@/]*)@)?(\[[0-9A-Fa-f:.]+\]|[^:/@\[\]]+)(?::([0-9]{1,5}))?/?"
)
# What curl takes where no port is said.
_PORT: Final = 1080


class Upstream:
    """One proxy of http, and the header that opens it."""

    def __init__(self, text: str) -> None:
        """Raises: Malformed, which quotes nothing of it."""
        found = _PROXY.fullmatch(text)
        if found is None or not 0 < int(found[3] or _PORT) < 2**16:
            raise Malformed(
                "the proxy in this machine's environment is none that can be gone through:"
                " it is written http://host:port"
            )
        self.host, self.port = found[2].strip("[]"), int(found[3] or _PORT)
        login = base64.b64encode(unquote(found[1]).encode()) if found[1] else b""
        self.opens = b"Proxy-Authorization: Basic %s\r\n" % login if login else b""

    def __repr__(self) -> str:
        return f"Upstream({self.host}:{self.port})"


class Upstreams:
    """Which connections go through which proxy."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Raises: Malformed."""

        def said(name: str) -> str:
            return (environment.get(name) or environment.get(name.upper()) or "").strip()

        every = said("all_proxy")
        self._secure, self._plain = (
            Upstream(text) if text else None
            for text in (said("https_proxy") or every, said("http_proxy") or every)
        )
        self._direct = [each.lower() for each in re.split(r"[,\s]+", said("no_proxy")) if each]

    def of(self, host: str, *, tunnel: bool) -> Upstream | None:
        """The proxy for a host, None where it is connected to directly."""
        found = self._secure if tunnel else self._plain
        return None if found is None or any(_is_named(host, e) for e in self._direct) else found

    def is_direct(self, address: str) -> bool:
        """Whether an address is among those that no proxy is asked for."""
        ip = ipaddress.ip_address(address)
        return any(ip in network for network in map(_network, self._direct) if network is not None)


def _is_named(host: str, pattern: str) -> bool:
    """Each name stands for all that are below it, with a dot or a star before it or not."""
    name = pattern.removeprefix("*").removeprefix(".").partition(":")[0]
    return pattern == "*" or (bool(name) and (host == name or host.endswith(f".{name}")))


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
