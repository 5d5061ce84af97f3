"""The verb that gives a machine its roles, by a new record over the same keys.

Rule 1: only the authority's holder gives a role; the machine itself need not be up.
Rule 2: a hub must be able to be reached: a machine that hears nobody becomes none.
"""

from collections.abc import Iterable
from typing import Annotated

from msgspec import Struct

from muster.address import check_address
from muster.errors import Malformed, Refused
from muster.fleet import kinds
from muster.fleet.named import meant
from muster.fleet.record import ROLES, MachineRecord, Role, binding_of, sign_record
from muster.node import event as ev
from muster.node.host.reach import said
from muster.node.verb import Line
from muster.verbs.declaration import Call, Core, Request, opt, pos, verb
from muster.verbs.revoke import authority_of


class Give(Request, frozen=True):
    name: Annotated[str, pos("the machine", kind="machine")]
    roles: Annotated[str, pos("its roles from now on, several with commas")]
    address: Annotated[
        str, opt("host:port under which others reach it, where it is this machine")
    ] = ""


class Given(Struct, frozen=True):
    """The roles of a machine, those it had, and whether a hub is left."""

    name: str
    roles: tuple[str, ...]
    was: tuple[str, ...]
    fresh: bool
    hub_left: bool


@verb(
    "role", auth="order", group="The fleet", object="name", target="authority",
    says=(
        Line("{name} is {roles} from now on.", "fresh"),
        Line("{name} is {roles} already.", "!fresh"),
        Line("No hub is left: nobody can be invited, and runs begin where they are typed.",
             "!hub_left"),
    ),
)  # fmt: skip
def role(core: Core, call: Call, ask: Give) -> Given:
    """Say what a machine is for: hub, workstation, mobile, edge.

    muster role build mobile
    muster role studio hub,workstation --address studio.local:7447    # typed on studio
    """
    record = core.roster.machine(meant(core.roster, ask.name, "machine").key)
    roles = roles_of(ask.roles)
    address = _address(core, record, ask.address)
    if "hub" in roles and "hub" not in record.roles:
        _check_hears(core, record)
    changed = write_roles(core, call, record, roles)
    if address:
        core.settings = {**core.settings, "address": address}
        core.do(ev.ReachedAt(address))
    left = [h for h in core.roster.hubs() if h.machine != record.machine]
    return Given(record.name, roles, record.roles, changed, "hub" in roles or bool(left))


def _address(core: Core, record: MachineRecord, text: str) -> str:
    """Where others are to reach this machine, "" where that stays. Raises: Refused, Malformed."""
    address = check_address(text) if text else ""
    if address and record.machine != core.machine:
        raise Refused(
            f"where {record.name} is reached, it says itself: write `address` into its config.toml "
            "and restart it; nothing was changed"
        )
    written = str(core.settings.get("address_written") or "")
    if address and written and address != written:
        raise Refused(
            f"config.toml says that others reach {record.name} at {written}: change `address` "
            "there and restart; nothing was changed"
        )
    return address


def roles_of(text: str) -> tuple[Role, ...]:
    """The roles in `hub,workstation`. Raises: Malformed."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise Malformed(f"name at least one role: {', '.join(ROLES)}")
    if unknown := [word for word in words if word not in ROLES]:
        raise Malformed(f"{unknown[0]!r} is not a role; there are {', '.join(ROLES)}")
    return tuple(role for role in ROLES if role in words)


def become_hub(core: Core, call: Call) -> bool:
    """Make this machine, which holds the authority, a hub; False where it is one."""
    record = core.roster.machine(core.machine)
    if "hub" in record.roles:
        return False
    _check_hears(core, record)
    return write_roles(core, call, record, roles_of(",".join(("hub", *record.roles))))


def write_roles(core: Core, call: Call, record: MachineRecord, roles: tuple[Role, ...]) -> bool:
    """A record with these roles; False where the machine has exactly these."""
    authority_of(core)
    if set(roles) == set(record.roles):
        return False
    write_record(core, call, record, binding_of(record), roles)
    return True


def write_record(
    core: Core, call: Call, record: MachineRecord, binding: bytes, roles: Iterable[str]
) -> None:
    """The next record of a machine. Raises: Refused where the authority is not here."""
    raw = sign_record(
        authority_of(core),
        binding,
        roles=[role for role in ROLES if role in roles],
        serial=record.serial + 1,
        issued_ms=core.now.wall_ms,
    )
    call.write(kinds.MachineRecorded(raw.decode()))
    # Another order of the same step would write this serial once more, and one of the two be lost.
    core.membership.stale()


def _check_hears(core: Core, record: MachineRecord) -> None:
    """Raises: Refused where nobody can dial the machine."""
    if record.machine == core.machine:
        heard = bool(core.settings.get("listen"))
    else:
        facts = core.roster.facts.get(record.machine)
        heard = facts is not None and bool(said(facts))
    if not heard:
        raise Refused(
            f"{record.name} listens nowhere, so nobody could reach it as a hub: set `listen` in "
            "its config.toml (host:port), restart it, and give the same command again"
        )
