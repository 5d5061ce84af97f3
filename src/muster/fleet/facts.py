"""Facts: what a machine says it is and has. Data only; the node measures them.

Rule: facts are claims of one machine about itself. They steer routing; they grant nothing, and
no text in them ever meets a template, a shell or a path.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct, to_builtins

from muster import limits
from muster.fleet.kinds import MACHINE_FACTS, MACHINE_LOGINS
from muster.fleet.name import Size
from muster.log.kind import kind

Short = Annotated[str, Meta(max_length=200)]
Versions = Annotated[dict[Short, Short], Meta(max_length=limits.FLEET_LIST_MAX)]
Texts = Annotated[tuple[Short, ...], Meta(max_length=limits.FLEET_LIST_MAX)]

UNKNOWN: Final = ""


@kind(MACHINE_FACTS, unknown="ignore")
class Facts(Struct, frozen=True):
    """One machine's account of itself; versions are the text the tool itself prints.

    `os` is `linux`, `darwin` or `windows`; `arch` as the platform names it; `labels` are what
    its owner calls it; `agents` and `tools` map a name to a version, `""` when it tells none.
    `logins` says of agents whether they look logged in (`LOGGED_IN` or `LOGGED_OUT`); of an agent
    that is not in it nothing is known. It is told in an entry of its own (`Logins`): a machine of
    before 0.2 could read nothing of facts with a field that it does not know. `address` is
    where it listens, `""` where nobody can dial it; who answers there still has to prove that it is
    this machine.
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


@kind(MACHINE_LOGINS, unknown="ignore")
class Logins(Struct, frozen=True):
    """`machine.logins`: what `Facts.logins` is, in an entry beside the facts."""

    logins: Versions = {}


LOGGED_IN: Final = "yes"
LOGGED_OUT: Final = "no"


def is_logged_out(facts: Facts, agent: str) -> bool:
    """Whether the machine says that this agent has no account there."""
    return facts.logins.get(agent) == LOGGED_OUT


def told(facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The bodies, by kind, that say these facts: older machines read the first of them."""
    if not facts:
        return {}
    rest: dict[str, Any] = {**to_builtins(facts)}
    logins = rest.pop("logins", {})
    return {MACHINE_FACTS: rest, MACHINE_LOGINS: {"logins": logins}}
