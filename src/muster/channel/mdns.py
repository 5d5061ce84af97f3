"""A name and an address on the local network, and who else says one there: mDNS (RFC 6762, 6763).

Rule 1: this is the one file that imports `zeroconf`; its errors end here, and its log goes nowhere:
        whoever is on the network chooses what would stand in it.
Rule 2: it speaks at one address, and says that one and its port, and nothing of the machine.
Rule 3: what is heard is what somebody said, and proves nothing.

No name is asked for before it is used (RFC 6762, 8.1): who says our name first would keep us from
saying it, and two machines never make the same one.
"""

import contextlib
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

from zeroconf import Error, IPVersion, ServiceStateChange
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from muster.errors import Unreachable

# How long somebody who was heard is asked for his address.
ASK_MS: Final = 1500
# The library keeps ten thousand records of up to nine thousand bytes; so many names are enough.
NAMES_MAX: Final = 1024

logging.getLogger("zeroconf").propagate = False


class Mdns:
    """One name said at one address, and what others say under some types of service."""

    def __init__(self, zeroconf: AsyncZeroconf) -> None:
        self._zeroconf = zeroconf

    @classmethod
    async def open(
        cls,
        at: tuple[str, int],
        service: str,
        instance: str,
        services: Sequence[str],
        heard: Callable[[str], None],
    ) -> "Mdns":
        """Say this name from now on, "" for none; `heard` gets those of others.

        Raises: Unreachable.
        """

        def on_change(name: str, state_change: ServiceStateChange, **_: Any) -> None:
            if state_change is not ServiceStateChange.Removed:
                heard(name.lower())

        host, port = at
        opened, stands = None, False
        try:
            opened = cls(AsyncZeroconf(interfaces=[host], ip_version=IPVersion.V4Only))
            inner = opened._zeroconf
            if instance:
                info = AsyncServiceInfo(
                    service,
                    f"{instance}.{service}",
                    port=port,
                    addresses=[socket.inet_aton(host)],
                    server=f"{instance}.local.",
                )
                await inner.async_register_service(info, cooperating_responders=True)
            AsyncServiceBrowser(inner.zeroconf, list(services), handlers=[on_change])
            stands = True
        except (Error, OSError) as error:
            why = str(error) or type(error).__name__
            raise Unreachable(f"nothing can be announced at {host}: {why}") from error
        finally:
            if opened is not None and not stands:
                await opened.close()
        return opened

    async def where(self, service: str, name: str) -> list[tuple[str, int]]:
        """What is said to be the address of a name; [] where nobody says one."""
        info = AsyncServiceInfo(service, name)
        try:
            await info.async_request(self._zeroconf.zeroconf, ASK_MS)
            found = info.parsed_addresses(IPVersion.V4Only)
        except (Error, OSError):
            return []
        return [(host, info.port) for host in found if info.port]

    @property
    def crowded(self) -> bool:
        """Whether more is said on this network than is worth keeping."""
        return len(self._zeroconf.zeroconf.cache.names()) > NAMES_MAX

    async def close(self) -> None:
        """Say that the name is gone, and hear nothing more."""
        # Nothing can be said where the address is gone.
        with contextlib.suppress(Error, OSError):
            await self._zeroconf.async_close()
