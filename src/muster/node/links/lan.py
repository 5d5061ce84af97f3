"""Machines of the fleet on this machine's own network: how they are found where they are now.

A machine that listens at a private address says on that network by mDNS (channel/mdns.py):

    <instance>.<service>  is at  <its address>:<its port>
    service   "_" <15 letters of base32 of HMAC-SHA256(key, hour)> "._tcp.local."
    instance  base32 of HMAC-SHA256(key, hour ":" id of the machine)
    key       HMAC-SHA256("muster/lan/v1", id of the fleet)
    hour      whole hours of its clock since 1970

Rule 1: who does not know the fleet's id learns that something is at an address, and nothing else:
        no name, no id, no version; and an hour later it is another name under another type.
Rule 2: what is heard is one more address that is dialled, behind those that are known. Nothing of
        it is kept: who is there, TLS proves, and only then the address is remembered (paths.py).
Rule 3: only an address of the very network that it was heard on is dialled, and never our own.
Rule 4: whatever others say, so many addresses of a machine are kept, and so many new ones are
        dialled in a minute; where too much is said nothing is heard for a while.
Rule 5: a machine that only dials says nothing, and hears all the same: it is the one that has to
        know where the others are.
"""

import asyncio
import base64
import contextlib
import hmac
import importlib.util
import ipaddress
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from muster.address import join_address, split_address
from muster.channel import FIRST
from muster.channel.knock import HOUR_MS
from muster.channel.listening import own_ip
from muster.errors import Unreachable
from muster.fleet.facts import Way
from muster.node.counter import DECLARED, spend
from muster.node.exposed import Exposed
from muster.node.host.exposure import near
from muster.node.host.facts import Interface, interfaces
from muster.node.links.paths import Cascade
from muster.node.runtime import Runtime
from muster.node.supervisor import say

if TYPE_CHECKING:
    from muster.channel.mdns import Mdns

DECLARED[__name__] = {
    "lan-found": "An address of a machine was heard on the local network, and is dialled.",
    "lan-elsewhere": "An address heard on the local network is none of that network.",
    "lan-too-often": "More new addresses were heard on the local network than are dialled.",
    "lan-crowded": "So much was said on the local network that nothing is heard for a while.",
    "lan-unannounced": "This machine could not announce itself on the local network.",
}

# Where it listens is looked at again so often; it is what `listen = "auto"` takes.
LOOK_S: Final = 10.0
# What is heard in so short a time is looked at together.
TOGETHER_S: Final = 1.0
CROWDED_S: Final = 600.0
# Chosen arbitrarily: a machine has few addresses in one network, and moves seldom.
ADDRESSES_MAX: Final = 4
NEW_PER_MACHINE_MAX: Final = 4
NEW_MAX: Final = 30
_MINUTE_MS: Final = 60_000
# Of what a name is asked for at once.
_ASKED_MAX: Final = 16


class Place(NamedTuple):
    """Where this machine listens in its network; with port 0 it only hears there."""

    host: str
    port: int
    network: ipaddress.IPv4Network


class Name(NamedTuple):
    """A name of an hour, whose it is, and its type."""

    machine: str
    service: str


class Names:
    """What machines of one fleet call themselves."""

    def __init__(self, fleet: str) -> None:
        self._key = hmac.digest(b"muster/lan/v1", fleet.encode(), "sha256")
        self._all: tuple[int, frozenset[str]] = (-1, frozenset())
        self._whose: dict[str, Name] = {}

    def service(self, hour: int) -> str:
        """The type of service of this hour."""
        return f"_{self._word(str(hour))[:15]}._tcp.local."

    def instance(self, hour: int, machine: str) -> str:
        """What a machine calls itself in this hour."""
        return self._word(f"{hour}:{machine}")

    def services(self, hour: int) -> list[str]:
        """Of this hour and the ones beside it: clocks differ."""
        return [self.service(each) for each in _beside(hour)]

    def whose(self, hour: int, machines: Iterable[str]) -> Mapping[str, Name]:
        """Every whole name that one of these machines may have about now."""
        known = hour, frozenset(machines)
        if known != self._all:
            self._all = known
            self._whose = {
                f"{self.instance(each, machine)}.{service}": Name(machine, service)
                for each in _beside(hour)
                for service in (self.service(each),)
                for machine in known[1]
            }
        return self._whose

    def _word(self, said: str) -> str:
        digest = hmac.digest(self._key, said.encode(), "sha256")
        return base64.b32encode(digest).decode().rstrip("=").lower()


def _beside(hour: int) -> range:
    return range(max(0, hour - 1), hour + 2)


def place(rows: Iterable[Exposed], found: Iterable[Interface], leads: str) -> Place | None:
    """Where it is announced that this machine listens; None where that is in no private network.

    One place: the address that leads outside, where it is one of them. Another network of this
    machine (one of containers, say) is not told of it, nor what its address is there.
    """
    masks = {each.partition("/")[0]: each for one in found for each in one.addresses}
    at = [split_address(row.address) for row in rows if row.whom == "private" and not row.error]
    good = [(host, port) for host, port in at if host in masks]
    if not good:
        return None
    host, port = min(good, key=lambda each: (each[0] != leads, each[0].startswith("169.254.")))
    return Place(host, port, ipaddress.IPv4Interface(masks[host]).network)


def ear(rows: Iterable[Exposed], found: Sequence[Interface], leads: str) -> Place | None:
    """Where a machine that nobody else can dial hears of others: in the private network that leads
    outside, or in the first one where nothing does; None where there is none.
    """
    masks = {each.partition("/")[0]: each for one in found for each in one.addresses}
    inside = [row.host for row in near(found) if row.whom == "private" and row.host in masks]
    inside.sort(key=lambda host: host.startswith("169.254."))
    host = leads or next(iter(inside), "")
    if host not in inside or any(row.whom != "computer" for row in rows):
        return None
    return Place(host, 0, ipaddress.IPv4Interface(masks[host]).network)


class Heard:
    """The addresses that were heard of the machines of the fleet, as many as are dialled."""

    def __init__(self) -> None:
        # By machine, the address and when it was heard last; what is new is behind.
        self._at: dict[str, dict[str, int]] = {}
        self._new = defaultdict[str, deque[int]](deque)
        self._all_new = deque[int]()

    def note(self, machine: str, address: str, now_ms: int) -> bool | None:
        """Whether it is news; None where it is, and there was too much of that."""
        known = self._at.get(machine, {})
        if address in known:
            known[address] = now_ms
            return False
        if not spend(self._new[machine], NEW_PER_MACHINE_MAX, _MINUTE_MS, now_ms):
            return None
        if not spend(self._all_new, NEW_MAX, _MINUTE_MS, now_ms):
            return None
        if len(known) >= ADDRESSES_MAX:
            del known[min(known, key=lambda each: known[each])]
        self._at[machine] = {**known, address: now_ms}
        return True

    def forget(self, machines: Iterable[str], before_ms: int) -> bool:
        """Only these machines, and what was heard since then; whether anything was forgotten."""
        before, live = self.ways(), set(machines)
        kept = {
            machine: {address: ms for address, ms in known.items() if ms >= before_ms}
            for machine, known in self._at.items()
            if machine in live
        }
        self._at = {machine: known for machine, known in kept.items() if known}
        for gone in self._new.keys() - live:
            del self._new[gone]
        return self.ways() != before

    def ways(self) -> dict[str, tuple[Way, ...]]:
        """What is dialled, by machine."""
        return {m: tuple(Way(FIRST, each) for each in known) for m, known in self._at.items()}


def is_near(host: str, port: int, here: Place) -> bool:
    """Whether an address may be dialled that was heard there."""
    try:
        address = ipaddress.IPv4Address(host)
    except ValueError:
        return False
    edges = (here.network.network_address, here.network.broadcast_address)
    return (
        0 < port < 65536 and address in here.network and host != here.host and address not in edges
    )


class Lan:
    """Says where this machine is, and hears where the others are. `mdns` opens the network."""

    def __init__(self, daemon: Runtime, paths: Cascade, mdns: "type[Mdns] | None" = None) -> None:
        self._daemon, self._core, self._paths = daemon, daemon.core, paths
        self._mdns = mdns
        self._names, self._heard = Names(daemon.machine.fleet), Heard()
        self._open: tuple[Mdns, Place, int] | None = None
        self._rests_until_s = 0.0
        self._news = asyncio.Event()
        # Names of members that were heard, and not looked at yet: no others are kept.
        self._fresh: dict[str, None] = {}
        # The last place, and since when it is that: what was heard elsewhere does not count.
        self._last: Place | None = None
        self._since_ms = 0
        self._said = ""

    def begin(self) -> None:
        """Begin where it is installed and wanted."""
        there = self._mdns is not None or importlib.util.find_spec("zeroconf") is not None
        if there and self._daemon.machine.config.lan:
            self._daemon.supervisor.keep("lan", self.keep)

    async def keep(self) -> None:
        """Look at where we are and at who was heard, for as long as the daemon runs."""
        try:
            while True:
                self._news.clear()
                async with self._daemon.supervisor.attempt("lan"):
                    await self._announce()
                    await self._take()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._news.wait()
                await asyncio.sleep(TOGETHER_S)
        finally:
            await self._close()

    async def _announce(self) -> None:
        """Be announced where we listen now, by the name of this hour, and hear there."""
        now_s = asyncio.get_running_loop().time()
        asked = self._paths.exposed(), interfaces(), own_ip("0.0.0.0")  # noqa: S104 - a question
        here = place(*asked) or ear(*asked)
        if self._open is not None and self._open[0].crowded:
            self._core.counters["lan-crowded"] += 1
            self._rests_until_s = now_s + CROWDED_S
        if now_s < self._rests_until_s:
            here = None
        if here is None:
            await self._close()
            return
        if self._open is not None and self._open[1:] == (here, self._hour):
            return
        await self._close()
        if here != self._last:
            self._last, self._since_ms = here, self._core.now.boot_ms
        if self._mdns is None:
            from muster.channel.mdns import Mdns  # noqa: PLC0415 - an extra, and 5 MB of memory

            self._mdns = Mdns
        hour, names = self._hour, self._names
        instance = names.instance(hour, self._core.machine) if here.port else ""
        try:
            opened = await self._mdns.open(
                here[:2], names.service(hour), instance, names.services(hour), self._on_name
            )
        except Unreachable as error:
            self._core.counters["lan-unannounced"] += 1
            if self._said != str(error):
                self._said = str(error)
                say(self._said)
            return
        self._open, self._said = (opened, here, hour), ""
        self._paths.announced = join_address(here.host, here.port) if here.port else ""

    @property
    def _hour(self) -> int:
        return self._core.now.wall_ms // HOUR_MS

    def _whose(self) -> Mapping[str, Name]:
        core = self._core
        return self._names.whose(self._hour, core.roster.machines.keys() - {core.machine})

    def _on_name(self, name: str) -> None:
        if name in self._whose():
            self._fresh[name] = None
            self._news.set()

    async def _take(self) -> None:
        """Let what was heard be dialled."""
        whose, roster = self._whose(), self._core.roster
        since_ms = max(self._since_ms, self._core.now.boot_ms - 2 * HOUR_MS)
        changed = self._heard.forget(roster.machines, since_ms)
        # The first that came; what was too much of late is behind those.
        asked = list(self._fresh)[:_ASKED_MAX] if self._open is not None else []
        self._fresh = {name: None for name in self._fresh if name in whose and name not in asked}
        found = await asyncio.gather(*(self._asked(each, whose) for each in asked))
        if any(found) or changed:
            self._paths.near = self._heard.ways()
            self._paths.look()

    async def _asked(self, name: str, whose: Mapping[str, Name]) -> bool:
        """Whether where it is said to be is news."""
        assert self._open is not None, "it is asked over it"
        mdns, here, _ = self._open
        if name not in whose:
            return False
        machine, service = whose[name]
        counters, is_news = self._core.counters, False
        for host, port in (await mdns.where(service, name))[:ADDRESSES_MAX]:
            if not is_near(host, port, here):
                counters["lan-elsewhere"] += 1
                continue
            news = self._heard.note(machine, join_address(host, port), self._core.now.boot_ms)
            if news:
                counters["lan-found"] += 1
                is_news = True
            elif news is None:
                # It may be the true one: it is looked at again.
                counters["lan-too-often"] += 1
                self._fresh[name] = None
        return is_news

    async def _close(self) -> None:
        opened, self._open = self._open, None
        self._paths.announced = ""
        self._fresh.clear()
        if opened is not None:
            await opened[0].close()
