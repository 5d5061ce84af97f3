"""Facts: what a machine says it is and has. Data only; the node measures them.

Rule: facts are claims of one machine about itself. They steer routing; they grant nothing, and
no text in them ever meets a template, a shell or a path.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct, to_builtins

from muster import limits
from muster.fleet.kinds import MACHINE_FACTS, MACHINE_LOGINS, MACHINE_REACH, MACHINE_WAKE
from muster.fleet.name import Size, Word
from muster.log.kind import kind

Short = Annotated[str, Meta(max_length=200)]
Versions = Annotated[dict[Short, Short], Meta(max_length=limits.FLEET_LIST_MAX)]
Texts = Annotated[tuple[Short, ...], Meta(max_length=limits.FLEET_LIST_MAX)]

UNKNOWN: Final = ""


class Way(Struct, frozen=True):
    """An address of a machine, and the name of the channel that opens it."""

    channel: Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,32}\Z")]
    address: Word


# As `10.0.0.0/24`.
Subnet = Annotated[str, Meta(pattern=r"^[0-9.]{7,15}/[0-9]{1,2}\Z")]
Ways = Annotated[tuple[Way, ...], Meta(max_length=limits.WAYS_MAX)]


class Card(Struct, frozen=True):
    """A network card: its address, the IPv4 networks it is in, and whether a packet wakes it."""

    mac: Annotated[str, Meta(pattern=r"^([0-9a-f]{2}:){5}[0-9a-f]{2}\Z")]
    subnets: Annotated[tuple[Subnet, ...], Meta(max_length=limits.CARD_SUBNETS_MAX)] = ()
    wakes: bool = False


Cards = Annotated[tuple[Card, ...], Meta(max_length=limits.CARDS_MAX)]


@kind(MACHINE_FACTS, unknown="ignore")
class Facts(Struct, frozen=True):
    """One machine's account of itself; versions are the text the tool itself prints.

    `os` is `linux`, `darwin` or `windows`; `arch` as the platform names it; `labels` are what
    its owner calls it; `agents` and `tools` map a name to a version, `""` when it tells none.
    `logins` says of agents whether they look logged in (`LOGGED_IN` or `LOGGED_OUT`); of an agent
    that is not in it nothing is known. `drivers` says of each how it is driven there (`acp`,
    `headless`). `reach` is where it listens, by channel, and `address` that
    part of it which a machine of before 0.2 understands; both are empty where nobody can dial it.
    Who answers there still has to prove that it is this machine.

    `logins`, `drivers`, `reach` and `cards` are told in entries of their own: a machine
    of before 0.2 could read nothing of facts with a field that it does not know.
    """

    os: Short
    arch: Short
    cpus: Annotated[int, Meta(ge=1, le=65536)] = 1
    memory_mib: Size = 0
    gpus: Texts = ()
    tools: Versions = {}
    power: Literal["mains", "battery"] = "mains"
    labels: Texts = ()
    agents: Versions = {}
    repositories: Texts = ()
    slots: Annotated[int, Meta(ge=0, le=4096)] = 2
    address: Short = UNKNOWN
    muster: Short = UNKNOWN
    logins: Versions = {}
    drivers: Versions = {}
    reach: Ways = ()
    cards: Cards = ()


@kind(MACHINE_LOGINS, unknown="ignore")
class Logins(Struct, frozen=True):
    """`machine.logins`: `Facts.logins` and `Facts.drivers`, in an entry beside the facts."""

    logins: Versions = {}
    drivers: Versions = {}


@kind(MACHINE_REACH, unknown="ignore")
class Reach(Struct, frozen=True):
    """`machine.reach`: what `Facts.reach` is, in an entry beside the facts."""

    reach: Ways = ()


@kind(MACHINE_WAKE, unknown="ignore")
class Wake(Struct, frozen=True):
    """`machine.wake`: what `Facts.cards` is, in an entry beside the facts."""

    cards: Cards = ()


LOGGED_IN: Final = "yes"
LOGGED_OUT: Final = "no"


def told(facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The bodies, by kind, that say these facts: older machines read the first of them."""
    if not facts:
        return {}
    rest: dict[str, Any] = {"logins": {}, "drivers": {}, "reach": [], "cards": []}
    rest |= to_builtins(facts)
    beside = {
        MACHINE_LOGINS: ("logins", "drivers"),
        MACHINE_REACH: ("reach",),
        MACHINE_WAKE: ("cards",),
    }
    bodies = {kind: {name: rest.pop(name) for name in names} for kind, names in beside.items()}
    return bodies | {MACHINE_FACTS: rest}
