"""Facts: what a machine says it is and has. Data only; the node measures them.

Rule: facts are claims of one machine about itself. They steer routing; they grant nothing, and
no text in them ever meets a template, a shell or a path.
"""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from muster import limits
from muster.fleet.name import Size

Short = Annotated[str, Meta(max_length=200)]
Versions = Annotated[dict[Short, Short], Meta(max_length=limits.FLEET_LIST_MAX)]
Texts = Annotated[tuple[Short, ...], Meta(max_length=limits.FLEET_LIST_MAX)]

UNKNOWN: Final = ""


class Facts(Struct, frozen=True, forbid_unknown_fields=True):
    """One machine's account of itself; versions are the text the tool itself prints.

    `os` is `linux`, `darwin` or `windows`; `arch` as the platform names it; `labels` are what
    its owner calls it; `agents` and `tools` map a name to a version, `""` when it tells none.
    `logins` says of agents whether they look logged in (`LOGGED_IN` or `LOGGED_OUT`); of an agent
    that is not in it nothing is known. `address` is where it listens, `""` where nobody can dial
    it; who answers there still has to prove that it is this machine.
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


LOGGED_IN: Final = "yes"
LOGGED_OUT: Final = "no"


def is_logged_out(facts: Facts, agent: str) -> bool:
    """Whether the machine says that this agent has no account there."""
    return facts.logins.get(agent) == LOGGED_OUT
