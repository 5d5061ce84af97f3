"""How a connection is made for an enclosed program: looked up outside, checked, and opened.

Rule 1: what is connected to is the very address that was checked; nothing looks a name up twice.
Rule 2: an address of this machine itself is no public one, whatever its number: behind it is what
        listens here, with no firewall between.
Rule 3: few names are looked up at once, and one that hangs keeps its place until it is over: the
        threads that look names up are the daemon's.
Rule 4: where this machine goes through a proxy, so does the program (upstream.py).
"""

import asyncio
import ipaddress
import re
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from muster.agent.egress.rules import Rules
from muster.agent.egress.upstream import Upstream, Upstreams
from muster.errors import Denied, Silent, Unreachable

Ends = tuple[StreamReader, StreamWriter]
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
Connect = Callable[[str, int], Awaitable[Ends]]
READ_BYTES: Final = 64 * 1024
LOOKUPS_AT_ONCE: Final = 2
LOOKUP_S: Final = 10.0
# Of each address; a packet that is lost is sent again after one and after three seconds.
CONNECT_S: Final = 6.0
# Chosen arbitrarily: who is behind more of them answers at one of these.
ADDRESSES_MAX: Final = 4
# A resolver that did not answer is not asked again for as long, where a proxy knows the names.
BLIND_S: Final = 300.0
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")


class Way:
    """The ways of one attempt."""

    def __init__(
        self, rules: Rules, upstreams: Upstreams, resolve: Resolve, connect: Connect
    ) -> None:
        self._rules, self._upstreams = rules, upstreams
        self._resolve, self._connect = resolve, connect
        self._slots = asyncio.Semaphore(LOOKUPS_AT_ONCE)
        self._lookups: set[asyncio.Task[Sequence[str]]] = set()
        self._blind_until_s = 0.0

    async def open(self, host: str, port: int, *, tunnel: bool) -> tuple[Ends, Upstream | None]:
        """The two ends, and the proxy that they lead to where that is to be asked again.

        Raises: Denied, Unreachable.
        """
        self._rules.check(host, port)
        upstream = self._upstreams.of(host, tunnel=tunnel)
        found = await self._addresses(host, port, may_fail=upstream is not None)
        if upstream is not None and not any(map(self._upstreams.is_direct, found)):
            ends = await self._dial(upstream.host, upstream.port, "this machine's own proxy")
            if tunnel:
                await _through(ends, host, port, upstream)
                return ends, None
            return ends, upstream
        failed: Unreachable | None = None
        for address in found[:ADDRESSES_MAX]:
            try:
                return await self._dial(address, port, host), None
            except Unreachable as error:
                failed = failed or error
        raise failed or Unreachable(f"nobody knows where {host} is")

    async def close(self) -> None:
        """No lookup is waited for any more."""
        for each in self._lookups:
            each.cancel()
        if self._lookups:
            await asyncio.wait(self._lookups)

    async def _addresses(self, host: str, port: int, *, may_fail: bool) -> list[str]:
        """Those that may be connected to; none where only a proxy can look it up."""
        now_s = asyncio.get_running_loop().time()
        if may_fail and now_s < self._blind_until_s:
            return []
        try:
            found = await self._look_up(host, port)
        except Unreachable as error:
            if not may_fail:
                raise
            if isinstance(error, Silent):
                self._blind_until_s = now_s + BLIND_S
            return []
        good = self._rules.addresses(host, port, found)
        if not self._rules.is_local(host, port):
            good = [each for each in good if not is_own(each)]
        if not good:
            raise Denied(f"{host} leads to this machine itself, and may not")
        return good

    async def _look_up(self, host: str, port: int) -> Sequence[str]:
        try:
            async with asyncio.timeout(LOOKUP_S):
                await self._slots.acquire()
                lookup = asyncio.ensure_future(self._resolved(host, port))
                self._lookups.add(lookup)
                lookup.add_done_callback(self._looked_up)
                return await asyncio.shield(lookup)
        except TimeoutError as error:
            raise Silent(f"nobody said in time where {host} is") from error
        except (OSError, UnicodeError) as error:
            raise Unreachable(f"nobody knows where {host} is") from error

    async def _resolved(self, host: str, port: int) -> Sequence[str]:
        return await self._resolve(host, port)

    def _looked_up(self, lookup: "asyncio.Task[Sequence[str]]") -> None:
        self._lookups.discard(lookup)
        self._slots.release()
        if not lookup.cancelled():
            # Who waited for it may have given up: then nobody else asks how it ended.
            lookup.exception()

    async def _dial(self, address: str, port: int, name: str) -> Ends:
        try:
            async with asyncio.timeout(CONNECT_S):
                return await self._connect(address, port)
        except TimeoutError as error:
            raise Silent(f"{name} does not answer at port {port}") from error
        except OSError as error:
            raise Unreachable(f"{name} does not take a connection at port {port}") from error


async def resolve(host: str, port: int) -> list[str]:
    """By the resolver of this machine. Raises: OSError."""
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(info[4][0]) for info in infos]


async def connect(address: str, port: int) -> Ends:
    """To an address, or to the proxy of this machine by its name. Raises: OSError."""
    return await asyncio.open_connection(address, port, limit=READ_BYTES)


def is_own(address: str) -> bool:
    """Whether packets to it end in this machine: whether a socket could be bound to it."""
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    # Where a socket may be bound to any address, as on some routers, it says nothing: that one,
    # of documentation (RFC 5737, RFC 3849), is nobody's.
    nobodys = "2001:db8::1" if family == socket.AF_INET6 else "192.0.2.1"
    return _binds(family, address) and not _binds(family, nobodys)


def _binds(family: int, address: str) -> bool:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


async def _through(ends: Ends, host: str, port: int, upstream: Upstream) -> None:
    """Ask a proxy for a tunnel. Raises: Unreachable, which quotes nothing of what it said."""
    reader, writer = ends
    target = f"{host}:{port}".encode()
    code = b""
    try:
        async with asyncio.timeout(2 * CONNECT_S):
            asked = b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n" % (target, target)
            writer.write(asked + upstream.opens + b"\r\n")
            await writer.drain()
            said = _STATUS.match(await reader.readuntil(b"\r\n\r\n"))
            code = said[1] if said else b"nothing of http"
            if code.startswith(b"2"):
                return
        why = f"answered {code.decode()} for {host}:{port}"
    except TimeoutError:
        why = f"did not answer in time for {host}:{port}"
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        why = f"hung up on {host}:{port}"
    finally:
        if not code.startswith(b"2"):
            writer.transport.abort()
    raise Unreachable(f"this machine's own proxy {why}")
