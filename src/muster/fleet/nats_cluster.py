"""Which machines' NATS servers are one, and what they believe, as the fleet's authority says it.

Rule 1: whoever passes it on adds nothing: a hub without the authority cannot have a server believe
another operator, or take another machine's server for one of its own. So the word is of every byte
that is told with it.
"""

from typing import Final

from muster.errors import Forged
from muster.fleet.document import Contents, Form
from muster.fleet.machine import Authority
from muster.fleet.name import Hex32
from muster.log.stream import FleetId


class Servers(Contents, frozen=True):
    """`machines` are those of the cluster; `told` is the sha256 of all that is told with it."""

    machines: tuple[Hex32, ...]
    told: Hex32


_BYTES_MAX: Final = 2048
_SERVERS: Final = Form("muster/nats/v1", Servers, "The word of who serves NATS", _BYTES_MAX)


def sign_servers(authority: Authority, machines: tuple[str, ...], told: str) -> bytes:
    """The word that these machines' servers are one; `told` is the sha256 of what they are told."""
    value = Servers(fleet=authority.fleet, machines=tuple(sorted(machines)), told=told)
    return _SERVERS.write(value, authority.record)


def open_servers(raw: bytes, fleet: FleetId, told: str) -> tuple[str, ...]:
    """The machines, when the fleet's authority said so with what is told. Raises: Refused."""
    value = _SERVERS.read(raw, fleet).check(fleet)
    if value.told != told:
        raise Forged("The word of who serves NATS is not of what was told with it.")
    return value.machines


def servers_of(raw: bytes, fleet: FleetId) -> tuple[str, ...]:
    """The machines of a word that stands alone, without what was told. Raises: Refused."""
    return _SERVERS.read(raw, fleet).check(fleet).machines
