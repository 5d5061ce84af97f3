"""What an enclosed program may reach: names and ports, and which addresses these may lead to.

Rule 1: what is let through is named in one spelling: labels of a-z, 0-9 and -, no dot at the end.
        What any resolver would take for an address, however it is written, is no name.
Rule 2: what is let through are hosts as specs and owners name them (task/host_rule.py). What no
        rule names is not let through; there is no "all".
Rule 3: a name leads to public addresses only. A rule of the machine's owner may say that it leads
        to private ones as well; never to those of a link (cloud metadata), of a group, or of none.
Rule 4: nothing here looks a name up, reads a clock or keeps a state.

    rules = Rules.read(["api.example.com", "*.example.org:8443"], local=["git.lan:3000"])
    host, port = split_target("API.example.com.:443")      # raises Malformed
    rules.check(host, port)                                 # raises Denied
    rules.addresses(host, port, ["10.0.0.7", "192.0.66.1"])   # what of it may be connected to
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Final

from muster.errors import Denied, Malformed
from muster.task.host_rule import HostRule, covers, host_refusal, host_rule

PORT_MAX: Final = 65_535
HOST_CHARS_MAX: Final = 253
_LABEL: Final = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# How a name ends that is read as an address: 127.0.0.1, 127.1, 2130706433, 0x7f000001 (the host
# parser of the WHATWG URL standard, "ends in a number"; inet_aton reads no more than that).
_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_COLONS: Final = re.compile("[0-9a-f]*:[0-9a-f.]*:[0-9a-f:.]*")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Rules:
    """All that one attempt may reach: hosts as task/host_rule.py has them. `local` are those that
    may lead to private addresses as well.
    """

    def __init__(self, public: Iterable[HostRule], local: Iterable[HostRule] = ()) -> None:
        self._local = tuple(local)
        self._rules = (*public, *self._local)

    @classmethod
    def read(cls, texts: Iterable[str], local: Iterable[str] = ()) -> "Rules":
        """Those that texts say. Raises: Malformed, with the nearest right form."""
        return cls([_read(text) for text in texts], [_read(text) for text in local])

    def __str__(self) -> str:
        return ", ".join(map(str, self._rules)) or "nothing"

    def check(self, host: str, port: int) -> None:
        """Raises: Denied where no rule lets it through."""
        if not _lets(self._rules, host, port):
            ports = sorted({str(r.port) for r in self._rules if covers(r, HostRule(host, r.port))})
            reached = f"; of this host port {', '.join(ports)} is" if ports else ""
            raise Denied(f"{host}:{port} is not among what this sandbox may reach{reached}")

    def addresses(self, host: str, port: int, found: Sequence[str]) -> list[str]:
        """Those that may be connected to, in their order. Raises: Denied where none may."""
        local = self.is_local(host, port)
        good = [each for each in dict.fromkeys(found) if _is_let(each, local=local)]
        if not good:
            raise Denied(f"{host} leads to no public address, and may lead to no other")
        return good

    def is_local(self, host: str, port: int) -> bool:
        """Whether it may lead into this machine and its own networks."""
        return _lets(self._local, host, port)


def _lets(rules: Iterable[HostRule], host: str, port: int) -> bool:
    return any(covers(each, HostRule(host, port)) for each in rules)


def _read(text: str) -> HostRule:
    if why := host_refusal(text):
        raise Malformed(f"{text[:80]!r} {why}")
    return host_rule(text)


# --- texts -------------------------------------------------------------------------------------


def split_target(text: str, default: int = 0) -> tuple[str, int]:
    """Host and port that a program asks for. Raises: Malformed.

    The host is in its one spelling: a name means the same in capitals and with a dot at its end.
    Without a `default` a port must be said.
    """
    host, colon, port = text.partition(":")
    if not colon and default:
        port = str(default)
    if not (_PORT.fullmatch(port) and int(port) <= PORT_MAX):
        if text.startswith("["):
            raise Malformed("an address is no name, and only names are reached from here")
        raise Malformed("what is asked for is no host:port")
    return host_name(host), int(port)


def host_name(text: str) -> str:
    """A host in its one spelling. Raises: Malformed."""
    # Other letters become ASCII in lower case, the sign of the kelvin a k.
    host = text.lower().removesuffix(".") if text.isascii() else text
    if why := _host_refusal(host):
        raise Malformed(f"what is asked for {why}")
    return host


def _host_refusal(host: str) -> str:
    if len(host) > HOST_CHARS_MAX:
        return f"is longer than the name of a host, which has at most {HOST_CHARS_MAX} characters"
    if _NUMBER.fullmatch(host) or _COLONS.fullmatch(host) or host.startswith("["):
        return "is an address, and only names are reached from here"
    if not _HOST.fullmatch(host):
        return "is no name of a host"
    return ""


# --- addresses ---------------------------------------------------------------------------------

# The registries of special addresses (IANA, RFC 6890), not `is_global`: that differs from one
# Python to the next, and takes groups for public.
_NOT_PUBLIC_4: Final = tuple(
    ipaddress.IPv4Network(each)
    for each in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    )
)
_PUBLIC_6: Final = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_6: Final = tuple(
    ipaddress.IPv6Network(each) for each in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
# An IPv4 address that a translator reaches (RFC 6052): as public as that one is.
_TRANSLATED: Final = ipaddress.IPv6Network("64:ff9b::/96")
# What is at home: loopback, private networks, and those between a carrier or mesh and its hosts.
_LOCAL: Final[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]] = (
    *map(ipaddress.IPv4Network, ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12")),
    ipaddress.IPv4Network("192.168.0.0/16"),
    *map(ipaddress.IPv6Network, ("::1/128", "fc00::/7")),
)


def is_public(address: Address) -> bool:
    """Whether it is one of the internet, wherever this machine is."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in each for each in _NOT_PUBLIC_4)
    if address in _TRANSLATED:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    return address in _PUBLIC_6 and not any(address in each for each in _NOT_PUBLIC_6)


def _is_let(text: str, *, local: bool) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        # With a scope behind a %, it is one of a link; anything else is none.
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id:
        return False
    at_home = any(each.version == address.version and address in each for each in _LOCAL)
    return is_public(address) or (local and at_home)
