"""The interface of the fleet's own mesh: made, told who its peers are, looked at, taken away.

Rule 1: nothing is touched but the interface with our own name (`muster-` and the beginning of the
machine's id), and what goes away with it: its address and its route.
Rule 2: a secret goes to `wg` through its standard input, never in an argument, and what `wg` prints
of one stays here.
Rule 3: the kernel's WireGuard, or `wireguard-go` where the kernel has none.
"""

import contextlib
import ipaddress
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from muster.address import join_address, split_address
from muster.channel.listening import own_ip
from muster.errors import Broken, MusterError, NotFound
from muster.fleet import mesh
from muster.node.host import clock, exposure, program

_CAP_NET_ADMIN: Final = 12
_STATUS: Final = Path("/proc/self/status")


def allowed() -> bool:
    """Whether this process may change interfaces (CAP_NET_ADMIN)."""
    if sys.platform != "linux":
        return False
    lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    found = next((line for line in lines if line.startswith("CapEff:")), "CapEff: 0")
    return bool(int(found.split()[1], 16) >> _CAP_NET_ADMIN & 1)


def check_programs() -> None:
    """Raises: NotFound where what is needed is not installed."""
    if sys.platform != "linux":
        raise NotFound(
            "a mesh of our own is made on Linux alone so far: Tailscale, or WireGuard by hand, is "
            "used where it runs (`muster mesh status`)"
        )
    for name, package in (("wg", "wireguard-tools"), ("ip", "iproute2")):
        if not program.there(name):
            raise NotFound(f"`{name}` is not installed: `apt install {package}`, then say it again")


def is_there(interface: str) -> bool:
    """Whether this computer has that interface."""
    return any(name == interface for _, name in socket.if_nameindex())


def others(interface: str) -> list[exposure.Near]:
    """The addresses of this computer in meshes that are not this one."""
    return [row for row in exposure.near() if row.whom == "mesh" and row.interface != interface]


def place(port: int, fleet: str) -> str:
    """Where packets of the mesh reach this machine, as it looks from here; "" for nowhere."""
    inside = mesh.network(fleet)
    rows = [row for row in exposure.near() if row.whom in ("private", "public")]
    found = [mesh.endpoint(join_address(row.host, port), inside) for row in rows]
    places = [text for text in found if text]
    leads = own_ip()
    places.sort(key=lambda text: (text != join_address(leads, port), text.startswith("[")))
    return places[0] if places else ""


def _is_open(endpoint: str) -> bool:
    """Whether this place of ours is a public one, so that no router has to remember us."""
    return bool(endpoint) and ipaddress.ip_address(split_address(endpoint)[0]).is_global


def make(
    interface: str,
    *,
    fleet: str,
    machine: str,
    secret: bytes,
    place: mesh.Place,
    peers: Sequence[mesh.Peer],
) -> bool:
    """Have the interface, up, with these peers; whether it was made now. Raises: Broken, NotFound.

    What was made is gone again where a step after it failed.
    """
    fresh = not is_there(interface)
    if fresh:
        _add(interface)
    own, network = mesh.address(fleet, machine), mesh.network(fleet)
    try:
        tell_peers(interface, secret, place, peers)
        _do("ip", "-6", "address", "replace", f"{own}/128", "dev", interface)
        _do("ip", "link", "set", interface, "up")
        _do("ip", "-6", "route", "replace", str(network), "dev", interface)
    except MusterError:
        if fresh:
            # Why it failed is what is said, and not that this does, too.
            with contextlib.suppress(MusterError):
                remove(interface)
        raise
    return fresh


def _add(interface: str) -> None:
    answer = program.ask(["ip", "link", "add", interface, "type", "wireguard"])
    if answer.returncode == 0:
        return
    if not program.there("wireguard-go"):
        raise NotFound(
            f"this kernel makes no WireGuard interface ({program.said(answer)}): `apt install "
            "wireguard-go`, which needs none, then say it again"
        )
    # With a level it would log to our pipes for ever.
    _do("env", "-u", "LOG_LEVEL", "wireguard-go", interface)


def tell_peers(
    interface: str, secret: bytes, place: mesh.Place, peers: Sequence[mesh.Peer]
) -> None:
    """Have exactly these peers; sessions with those that stay go on. Raises: Broken."""
    heard = mesh.heard(seen(interface), clock.read().wall_ms // 1000)
    text = mesh.configuration(
        secret, place.port, peers, keeps=heard, is_open=_is_open(place.endpoint)
    )
    _do("wg", "syncconf", interface, "/dev/stdin", text=text)


def seen(interface: str) -> list[mesh.Seen]:
    """Its peers. Raises: Broken."""
    return mesh.read_dump(_do("wg", "show", interface, "dump"))


def remove(interface: str) -> None:
    """Take it away, and with it all that was made. Raises: Broken."""
    _do("ip", "link", "delete", interface)


def _do(*argv: str, text: str = "") -> str:
    answer = program.ask(list(argv), text=text)
    if answer.returncode:
        # None of our argument lists holds a secret.
        raise Broken(f"`{' '.join(argv)}` failed: {program.said(answer)}")
    return answer.stdout
