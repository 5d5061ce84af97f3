"""The door of a listening machine: who waits there without having proved who it is.

Rule 1: a connection counts here from the moment the kernel hands it over until it proved a machine
        of the fleet, or ends. There are few of these, each for a short time, whatever it says or
        does not say.
Rule 2: one more is let in wherever it can be: the address with the most connections loses one,
        of those that got least far, by chance. So whoever floods competes with itself; a machine
        at another address never waits for it; behind the same address it gets in by trying again.
Rule 3: the last descriptors are not for strangers. A new descriptor gets the smallest free number,
        so its number says how many are in use.
Rule 4: accepting never ends. What the kernel refuses for want of descriptors or memory passes.
"""

import asyncio
import contextlib
import errno
import ipaddress
import random
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from muster import limits

if sys.platform != "win32":
    import resource

ACCEPT_AGAIN_S: Final = 0.1
# How far a connection came: nothing said, TLS spoken, a link that proved no machine.
SILENT, SPEAKING, LINKED = 0, 1, 2

_CHANCE: Final = random.SystemRandom()

Draw = Callable[[int], int]


@dataclass(slots=True, eq=False)
class UnprovenPeer:
    """One connection at the door; `end` cuts it."""

    address: str
    end: Callable[[], None]
    stage: int = SILENT


class UnprovenPeers:
    """Who is let in, and who goes for it. `draw(n)` gives a number below n."""

    def __init__(
        self, visitors_max: int = limits.DOOR_CONNECTIONS_MAX, draw: Draw = _CHANCE.randrange
    ) -> None:
        self.turned_away = 0
        self._max = visitors_max
        self._draw = draw
        self._visitors: dict[str, list[UnprovenPeer]] = {}
        # What an address may still do at once, and when that was reckoned.
        self._patience: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._visitors.values()))

    def knock(self, address: str, end: Callable[[], None], now_s: float) -> UnprovenPeer | None:
        """Let a connection in, at the cost of another where there is no place; None: turn it away.

        An address that knocks faster than any honest machine is turned away unheard.
        """
        group = group_of(address)
        if len(self._patience) >= limits.DOOR_ADDRESSES_MAX:
            # Whoever comes from so many addresses gains a first burst with each, and no more.
            self._patience = {g: p for g, p in self._patience.items() if g in self._visitors}
        left, at = self._patience.get(group, (float(limits.DOOR_KNOCKS_BURST), now_s))
        left = min(limits.DOOR_KNOCKS_BURST, left + max(0.0, now_s - at) * limits.DOOR_KNOCKS_PER_S)
        self._patience[group] = (left - 1 if left >= 1 else left, now_s)
        if left < 1:
            self.turned_away += 1
            return None
        if len(self) >= self._max:
            self.make_place()
        visitor = UnprovenPeer(group, end)
        self._visitors.setdefault(group, []).append(visitor)
        return visitor

    def leave(self, visitor: UnprovenPeer, *, proved: bool = False) -> None:
        """It ended, or proved a machine, and then its knock cost nothing. Idempotent."""
        group = self._visitors.get(visitor.address, [])
        if visitor not in group:
            return
        group.remove(visitor)
        if not group:
            del self._visitors[visitor.address]
        if proved and visitor.address in self._patience:
            left, at = self._patience[visitor.address]
            self._patience[visitor.address] = (min(left + 1, limits.DOOR_KNOCKS_BURST), at)

    def make_place(self, stage: int | None = None, places: int = 1) -> None:
        """Cut one of those that wait, of a stage or of any, where all places are taken: rule 2."""
        groups = [
            [v for v in group if stage in (None, v.stage)] for group in self._visitors.values()
        ]
        if sum(map(len, groups)) < places:
            return
        most = max(map(len, groups))
        fullest = [group for group in groups if len(group) == most]
        group = fullest[self._draw(len(fullest))]
        least = min(v.stage for v in group)
        first = [v for v in group if v.stage == least]
        visitor = first[self._draw(len(first))]
        self.turned_away += 1
        self.leave(visitor)
        visitor.end()

    def end(self) -> None:
        """Cut everybody who waits."""
        for visitor in [v for group in self._visitors.values() for v in group]:
            self.leave(visitor)
            visitor.end()


def group_of(address: str) -> str:
    """What counts as one address: of IPv6 the network, of which one user has all of 2^64."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


def is_spare(descriptor: int, kept: int = limits.DESCRIPTORS_KEPT) -> bool:
    """Whether a new descriptor leaves enough of them for this machine's own work."""
    if sys.platform == "win32":
        return True
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft == resource.RLIM_INFINITY or descriptor < soft - min(kept, soft // 2)


def raise_descriptors(wanted: int) -> None:
    """Let this process open more files, as far as its user may."""
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ceiling = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < ceiling:
        # Some systems refuse what they announce; then it stays as it was.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, hard))


def hang_up(connected: socket.socket) -> None:
    """End a connection without a word, and without waiting for the far end."""
    # It has hung up already, which is what is wanted.
    with contextlib.suppress(OSError):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    # It has hung up already, or was never whole.
    with contextlib.suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


async def accept(
    listening: socket.socket, door: UnprovenPeers, take: Callable[[socket.socket, str], None]
) -> None:
    """Hand each new connection to `take`; runs until it is cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            connected, address = await loop.sock_accept(listening)
        except OSError:
            # Nothing left for it in the kernel, or the far end is gone already.
            door.make_place()
            await asyncio.sleep(ACCEPT_AGAIN_S)
            continue
        if is_spare(connected.fileno()):
            take(connected, str(address[0]))
        else:
            door.turned_away += 1
            door.make_place()
            hang_up(connected)
            connected.close()


# Where a place is, as the system's resolver says it.
Found = Sequence[tuple[int, int, int, str, tuple[Any, ...]]]


async def where(host: str, port: int) -> Found:
    """What to give `listen` for a host; a name is looked up beside the loop. Raises: OSError."""
    find, how = asyncio.get_running_loop().getaddrinfo, socket.AI_PASSIVE
    return await find(host or None, port, type=socket.SOCK_STREAM, flags=how)


def listen(host: str | None, port: int, found: Found | None = None) -> list[socket.socket]:
    """Sockets that listen at an address, not blocking. Raises: OSError.

    Where `found` does not say where that is, a name is looked up here, for as long as that takes.
    """
    if found is None:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                listening = socket.socket(family, kind, protocol)
            except OSError:
                # This kernel does without the family.
                continue
            sockets.append(listening)
            if sys.platform != "win32":
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # Without a port of our choice the second family listens where the first does.
            chosen = port or (sockets[0].getsockname()[1] if len(sockets) > 1 else 0)
            listening.bind((address[0], chosen, *address[2:]))
            listening.listen(socket.SOMAXCONN)
            listening.setblocking(False)
    except OSError:
        for each in sockets:
            each.close()
        raise
    if not sockets:
        raise OSError(errno.EAFNOSUPPORT, "no way to listen at such an address")
    return sockets


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
