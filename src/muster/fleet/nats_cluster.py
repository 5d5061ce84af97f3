"""Which machines' NATS servers are one, and what they believe, as the fleet's authority says it.

Rule 1: whoever passes it on adds nothing: a hub without the authority cannot have a server believe
another operator, or take another machine's server for one of its own. So the word is of every byte
that is told with it.
Rule 2: of two words the one with the smaller stamp is the older one, and says nothing any more of
whose servers are one.
"""

from typing import Annotated, Final

from msgspec import Meta

from muster.errors import Forged
from muster.fleet.document import Contents, Form
from muster.fleet.machine import Authority
from muster.fleet.name import Hex32
from muster.log.stream import FleetId

Stamp = Annotated[int, Meta(ge=0, lt=2**53)]


class Servers(Contents, frozen=True):
    """`machines` are those of the cluster; `told` is the sha256 of all that is told with it, of
    which `stamp` is the stamp.
    """

    machines: tuple[Hex32, ...]
    told: Hex32
    stamp: Stamp = 0

    def is_older(self, known: "Servers") -> bool:
        """Whether it says otherwise than a word that is known, and that one is the newer."""
        return self.machines != known.machines and self.stamp <= known.stamp


_BYTES_MAX: Final = 2048
_SERVERS: Final = Form("muster/nats/v1", Servers, "The word of who serves NATS", _BYTES_MAX)


def sign_servers(
    authority: Authority, machines: tuple[str, ...], told: str, stamp: int = 0
) -> bytes:
    """The word that these machines' servers are one; `told` is the sha256 of what they are told."""
    value = Servers(fleet=authority.fleet, machines=tuple(sorted(machines)), told=told, stamp=stamp)
    return _SERVERS.write(value, authority.record)


def open_servers(raw: bytes, fleet: FleetId, told: str) -> tuple[str, ...]:
    """The machines, when the fleet's authority said so with what is told. Raises: Refused."""
    value = _SERVERS.read(raw, fleet).check(fleet)
    if value.told != told:
        raise Forged("The word of who serves NATS is not of what was told with it.")
    return value.machines


def servers_of(raw: bytes, fleet: FleetId) -> Servers:
    """What a word says that stands alone, without what was told. Raises: Refused."""
    return _SERVERS.read(raw, fleet).check(fleet)
