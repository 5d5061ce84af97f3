"""Where a listener waits, as people write it, and the sockets it waits at.

    7447 of one address     192.0.2.7:7447, [2001:db8::7]:7447, nas.local:7447
    of every address        :7447, 0.0.0.0:7447
    where it is safe        auto, auto:7447 (node/host/exposure.py says where that is now)

Rule 1: places that can change are looked at again every ten seconds; a socket that is given up
        takes no link with it, and one that stays is not touched.
Rule 2: a place that cannot be had now is tried again then, and `failed` says why. Whoever can have
        none of them at the start hears so.
"""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from muster.address import AUTO, join_address, split_address
from muster.channel.base import report
from muster.channel.unproven import (
    Found,
    UnprovenPeers,
    accept,
    listen,
    where,
    why_nobody_listens,
)
from muster.errors import Malformed

PORT: Final = 7447
LOOK_S: Final = 10.0
EVERY: Final = ("", "0.0.0.0", "::")  # noqa: S104 - compared with, not bound to

Place = tuple[str, int]
# The hosts that `auto` means at this moment.
Hosts = Callable[[], Sequence[str]]


def places(listen_: str) -> list[Place]:
    """Each place of a text with commas between. Raises: Malformed."""
    found = []
    for text in listen_.split(","):
        place = (AUTO, PORT) if text == AUTO else split_address(text)
        if any(letter.isspace() or not letter.isprintable() for letter in text):
            raise Malformed(f"address {text[:80]!r} is not host:port; write it like 192.0.2.7:7447")
        found.append(place)
    return found


def auto_port(listen_: str) -> int | None:
    """The port of `auto` where that is among the places, else None."""
    return next((port for host, port in places(listen_) if host == AUTO), None)


def told(listen_: str) -> str:
    """Where others reach the first written place that is not this computer alone; "" for nowhere.

    Where it is every address it is that of the interface that leads outside.
    """
    written = [place for place in places(listen_) if place[0] != AUTO]
    far = [place for place in written if not _is_here(place[0])] or written
    if not far:
        return ""
    host, port = far[0]
    if host in EVERY:
        # Whoever is in no network is reached nowhere, and says no address that means another.
        host = own_ip(host)
    return join_address(host, port) if host else ""


def _is_here(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _is_literal(host: str) -> bool:
    """Whether no name has to be looked up for it."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host in EVERY
    return True


def own_ip(host: str = "") -> str:
    """The address of the interface that leads outside, of those that `host` listens at.

    "" where none does. Nothing is sent to find it.
    """
    # Addresses of documentation (RFC 5737, RFC 3849): only the routing table is asked.
    ways = [(socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")]
    for family, outside in ways[:1] if host == "0.0.0.0" else ways:  # noqa: S104 - no binding
        # This family has no way out of here; the other one may have.
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((outside, 9))
            return str(probe.getsockname()[0])
    return ""


class Ports:
    """The sockets of one listener. Made in a running loop; raises OSError where none can be had."""

    def __init__(
        self,
        listen_: str,
        hosts: Hosts,
        door: UnprovenPeers,
        take: Callable[[socket.socket, str], None],
    ) -> None:
        self.failed: dict[str, str] = {}
        self._written, self._hosts = places(listen_), hosts
        self._door, self._take = door, take
        self._bound: dict[Place, list[tuple[socket.socket, asyncio.Task[None]]]] = {}
        # A port that the system chose is the same at every address of `auto`.
        self._chosen = 0
        why = self._bind(self._wanted())
        if not self._bound:
            raise why or OSError("no address of this computer is one that others may reach")
        self.address = self.bound[0]
        changes = why is not None or any(host == AUTO for host, _ in self._written)
        self._looking = asyncio.create_task(self._keep()) if changes else None
        if self._looking is not None:
            self._looking.add_done_callback(lambda end: report(end, "where to listen was lost"))

    @property
    def bound(self) -> list[str]:
        """Each address that a socket waits at."""
        every = (each for pairs in self._bound.values() for each, _ in pairs)
        return [join_address(*each.getsockname()[:2]) for each in every]

    @property
    def listens(self) -> bool:
        """Whether each socket is waited at, and each change is seen."""
        tasks = [task for pairs in self._bound.values() for _, task in pairs]
        tasks += [] if self._looking is None else [self._looking]
        return bool(self._bound) and not any(task.done() for task in tasks)

    def _wanted(self) -> list[Place]:
        return list(dict.fromkeys(self._each()))

    def _each(self) -> Iterator[Place]:
        for host, port in self._written:
            if host != AUTO:
                yield host, port
                continue
            for each in self._hosts():
                yield each, port

    def _bind(
        self, wanted: Sequence[Place], found: Mapping[Place, Found | OSError] | None = None
    ) -> OSError | None:
        """Bind what is not bound; why the first that failed did.

        `found` says where names are that were looked up, or why that failed.
        """
        self.failed.clear()
        first = None
        for host, port in wanted:
            if (host, port) in self._bound:
                continue
            try:
                there = found.get((host, port)) if found else None
                if isinstance(there, OSError):
                    raise there
                sockets = listen(host, port or self._chosen, there)
            except OSError as error:
                self.failed[join_address(host, port)] = why_nobody_listens(error)
                first = first or error
                continue
            self._chosen = self._chosen or sockets[0].getsockname()[1]
            self._bound[host, port] = [
                (each, asyncio.create_task(accept(each, self._door, self._take)))
                for each in sockets
            ]
        return first

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except OSError as error:
                # No addresses could be read now; what is bound stays, and the next look comes.
                self.failed[AUTO] = why_nobody_listens(error)

    async def look(self) -> None:
        """Wait where it is meant to be now, and nowhere else."""
        wanted = self._wanted()
        for place in self._bound.keys() - set(wanted):
            # Whoever closes us meanwhile finds it, and ends it as well.
            await _end(self._bound[place])
            del self._bound[place]
        found: dict[Place, Found | OSError] = {}
        for host, port in wanted:
            if (host, port) not in self._bound and not _is_literal(host):
                # A name that nobody answers for takes seconds, which are not the loop's.
                try:
                    found[host, port] = await where(host, port or self._chosen)
                except OSError as error:
                    found[host, port] = error
        self._bind(wanted, found)

    async def close(self) -> None:
        """Wait nowhere any more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        await _end([pair for pairs in self._bound.values() for pair in pairs])
        self._bound.clear()


async def _end(pairs: Sequence[tuple[socket.socket, asyncio.Task[None]]]) -> None:
    for _, task in pairs:
        task.cancel()
    if pairs:
        await asyncio.wait([task for _, task in pairs])
    for each, _ in pairs:
        each.close()
