"""Whom somebody means who typed where a message is to go, and what is said where that is nobody."""

from muster.errors import Malformed, NotFound
from muster.fleet.record import ROLES
from muster.log.stream import FLEET, Scope, scope_to
from muster.message import kinds
from muster.node.services.sessions import Sessions
from muster.node.services.threads import group_of
from muster.verbs.declaration import Core


def nobody(core: Core, address: str, scope: Scope) -> str:
    """Why a message is for nobody."""
    if address.startswith("role:"):
        role = address.removeprefix("role:")
        roles = {r for m, each in core.roster.machines.items() if m != core.machine
                 for r in each.roles}  # fmt: skip
        having = f"the others have {', '.join(sorted(roles))}" if roles else "it is alone"
        return f"no other machine has the role {role} ({having}); nothing was sent"
    if address != kinds.EVERYONE:
        name = core.membership.name_of(address.rpartition("@")[2])
        return f"{name} is not in the fleet any more; nothing was sent"
    if scope != FLEET:
        name = scope.rpartition(".")[2]
        return (
            f"nobody else is in thread {name}; `muster thread {name} --add MACHINE` adds a "
            "machine; nothing was sent"
        )
    return "this machine is alone in its fleet: nobody would read it; nothing was sent"


def place(core: Core, to: str) -> tuple[Scope, list[str]]:
    """The stream a message belongs into, and its addresses. Raises: NotFound."""
    if to == "all":
        return FLEET, ["all"]
    if to.startswith("role:"):
        if to.removeprefix("role:") not in ROLES:
            raise NotFound(f"{to} is no role; there are {', '.join(ROLES)}")
        return FLEET, [to]
    if to.startswith("thread:"):
        return group_of(core, to.removeprefix("thread:")), ["all"]
    agent, at, name = to.rpartition("@")
    try:
        machine = core.roster.find(name).machine
    except NotFound as error:
        raise NotFound(f"{str(error).rstrip('.')}{_instead(core, to)}") from error
    scope = scope_to(machine)
    facts = core.roster.facts.get(machine)
    if at and facts is not None and agent not in facts.agents:
        there = ", ".join(sorted(facts.agents)) or "none"
        raise NotFound(f"no agent {agent[:40]!r} is on {name} (agents there: {there})")
    return scope, [f"{agent}@{machine}" if at else machine]


def check_session(core: Core, to: str, session: str) -> None:
    """Raises: Malformed where no session can be meant; NotFound where there is none here."""
    agent, at, machine = to.rpartition("@")
    if not at or not kinds.is_session(session):
        raise Malformed(
            f"{session[:60]!r} behind the # is no session of an agent; an address of one is "
            "claude@studio#shop-3fa9, as `muster sessions --on studio` lists them"
        )
    # What is elsewhere is known there: where no such session is, it is for the agent.
    if machine == core.machine and core.part(Sessions).find(session).agent != agent:
        raise NotFound(f"the session {session} is none of {agent}'s; see `muster sessions`")


def _instead(core: Core, to: str) -> str:
    """What somebody may have meant who named no machine, to be said behind that."""
    agent, at, name = to.rpartition("@")
    names = {record.name for record in core.roster.machines.values()}
    people = {operator.name for operator in core.roster.operators.values()}
    if at and agent in names:
        return f"; the agent stands first: {name}@{agent}"
    if to in ROLES:
        return f"; whoever has the role is role:{to}"
    if to.removeprefix("op:") in people:
        return f"; {to.removeprefix('op:')} is a person, who reads the inbox of a machine"
    return ""
