"""Where this machine may be reached, and by whom.

Rule 1: what a person wrote as `listen` counts as it stands. `auto` is this computer itself, and the
addresses of a mesh where it is in one: whoever is there was let in by a key. Where there is no mesh
it is this computer and its private addresses. It is never an address of the internet. The fleet's
own mesh closes nothing: it stands on those addresses, and whoever is not in it yet comes by them.
Rule 2: what is not known to be closed counts as open: an address of a provider's own network
(100.64.0.0/10) is private on an interface of a mesh alone.
Rule 3: an address with a zone (`fe80::1%eth0`) is left out: nobody could be told of it.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from muster.address import AUTO, join_address, split_address
from muster.channel.base import LinkOptions
from muster.channel.listening import EVERY, auto_port, own_ip, places
from muster.fleet.mesh import PREFIX
from muster.node.exposed import Exposed, Whom
from muster.node.host.facts import Interface, interfaces

HOSTS_MAX: Final = 32

_NET: Final = Path("/sys/class/net")
_MESH_NAMES: Final = re.compile(r"wg|tailscale|muster-[0-9a-f]{8}\Z")
# Those of Tailscale, whose interface has any name where the system chooses it.
_TAILSCALE: Final = ipaddress.ip_network("fd7a:115c:a1e0::/48")
_SHARED: Final = ipaddress.ip_network("100.64.0.0/10")
_PRIVATE: Final = tuple(
    map(ipaddress.ip_network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7"))
)  # fmt: skip
_LINK_LOCAL: Final = ipaddress.ip_network("169.254.0.0/16")


class Near(NamedTuple):
    """An address of this machine: whom it is for, and the interface that has it."""

    host: str
    whom: Whom
    interface: str


def near(found: Iterable[Interface] | None = None) -> list[Near]:
    """The addresses of this machine, of interfaces that are up."""
    rows = []
    for each in interfaces() if found is None else found:
        is_mesh = _is_mesh(each.name)
        texts = [*(address.partition("/")[0] for address in each.addresses), *each.v6]
        rows += [
            Near(text, _whom(text, each.name, is_mesh=is_mesh), each.name)
            for text in texts
            if "%" not in text
        ]
    return rows


def _is_mesh(name: str) -> bool:
    """Whether an interface is one of WireGuard or Tailscale, by its name or as the kernel says."""
    if _MESH_NAMES.match(name):
        return True
    try:
        said = (_NET / name / "uevent").read_text(encoding="ascii")
    except (OSError, ValueError):
        # ValueError: what is said in no ASCII, and a name that is no name of a file.
        return False
    return "DEVTYPE=wireguard" in said.split()


def _whom(text: str, interface: str, *, is_mesh: bool) -> Whom:
    address = ipaddress.ip_address(text)
    if address.is_loopback:
        return "computer"
    private = any(address in net for net in _PRIVATE)
    tunnel = interface.startswith("utun") and address in _SHARED
    if (is_mesh and (private or address in _SHARED)) or tunnel or address in _TAILSCALE:
        return "mesh"
    return "private" if private else "public"


def hosts(found: Sequence[Near] | None = None) -> list[str]:
    """What `auto` listens at now."""
    rows = near() if found is None else found
    closed = any(row.whom == "mesh" and not _is_own(row) for row in rows)
    wanted = ("mesh",) if closed else ("private", "mesh")
    here = [row.host for row in rows if row.whom == "computer"]
    far = [row.host for whom in wanted for row in rows if row.whom == whom]
    return [*(here or ["127.0.0.1"]), *far][:HOSTS_MAX]


def reached_at(options: LinkOptions, found: Sequence[Near] | None = None) -> str:
    """Where others reach what these options open, "" for nowhere."""
    port = None if options.address or not options.listen else auto_port(options.listens_at)
    if port is None:
        return options.reached_at()
    if written := options.reached_at():
        return written
    rows = near() if found is None else found
    at = set(hosts(rows))
    far = [row for row in rows if row.host in at and row.whom != "computer" and not _is_own(row)]
    leads = own_ip()
    # Of a mesh any; else the one that leads outside before one of a bridge of this machine.
    far.sort(key=lambda row: (row.host != leads, ":" in row.host, _is_link_local(row.host)))
    return join_address(far[0].host, port) if far else ""


def reached_inside(
    options: LinkOptions, interface: str, found: Sequence[Near] | None = None
) -> str:
    """Where others reach what these options open by an interface of the fleet's own mesh."""
    written = places(options.listens_at) if options.listen else []
    port = next((port for host, port in written if host in (AUTO, "", "::")), 0)
    rows = near() if found is None else found
    hosts_ = [row.host for row in rows if row.interface == interface and row.whom == "mesh"]
    return join_address(hosts_[0], port) if port and hosts_ else ""


def _is_own(row: Near) -> bool:
    """Whether it is of a mesh that a fleet made (host/mesh.py)."""
    return row.whom == "mesh" and row.interface.startswith(PREFIX)


def _is_link_local(host: str) -> bool:
    return ipaddress.ip_address(host) in _LINK_LOCAL


def exposed(
    bound: Iterable[str], failed: Mapping[str, str], found: Sequence[Near] | None = None
) -> list[Exposed]:
    """Who can reach the addresses that are bound, and which are not bound and why."""
    rows = near() if found is None else found
    answer: dict[str, Exposed] = {}
    for address, error in (*((each, "") for each in bound), *failed.items()):
        host, port = split_address(address)
        if host in EVERY:
            every = [row for row in rows if host != "0.0.0.0" or ":" not in row.host]  # noqa: S104
            every = [row for row in every if host != "::" or ":" in row.host]
        else:
            every = [row for row in rows if row.host == host] or [Near(host, _of(host), "")]
        for row in every:
            at = join_address(row.host, port)
            answer.setdefault(at, Exposed(at, row.whom, row.interface, error))
    return list(answer.values())


def _of(host: str) -> Whom:
    """Whom an address is for that no interface has (any more)."""
    try:
        return _whom(host, "", is_mesh=False)
    except ValueError:
        return "computer" if host == "localhost" else "public"
