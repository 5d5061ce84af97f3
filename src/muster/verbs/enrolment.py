"""Verbs about becoming a member: an invitation, taking a machine in, and its certificates."""

from typing import Annotated, Final

from msgspec import Struct

from muster.address import check_address
from muster.errors import Conflict, Denied, Refused
from muster.fleet import folds, kinds
from muster.fleet import join as joining
from muster.fleet.invite import open_invite, write_invite
from muster.fleet.name import check_name
from muster.limits import INVITE_HOURS_MAX
from muster.log.stream import StreamName
from muster.node.incarnations.doubt import Doubt
from muster.node.verb import Line
from muster.task.spec import check_nameable
from muster.verbs.declaration import Call, Core, Request, data, opt, pos, verb
from muster.verbs.revoke import authority_of
from muster.verbs.role import become_hub, roles_of

HOUR_MS: Final = 3_600_000


class Invite(Request, frozen=True):
    name: Annotated[str, pos("the name the machine will have")]
    address: Annotated[
        str, opt("host:port under which it reaches the hub (default: as configured)")
    ] = ""
    hours: Annotated[int, opt("how long the invitation counts", ge=1, le=INVITE_HOURS_MAX)] = 24
    roles: Annotated[str, opt("workstation, mobile, edge or hub, several with commas")] = (
        "workstation"
    )


class Invitation(Struct, frozen=True):
    invitation: str
    name: str
    until_ms: int
    became_hub: str
    also_operator: bool


@verb(
    "invite", auth="order", group="The fleet", object="name", naming=True, target="authority",
    says=(
        Line("On {name}, run this once ({until_ms:ago} it is void):\n"),
        Line("  muster join {invitation}"),
        Line("\n{became_hub} is a hub from now on.", "became_hub"),
        Line("\nAn operator is called {name}, too: where both could be meant, --machine or "
             "--operator says which.", "also_operator"),
    ),
)  # fmt: skip
def invite(core: Core, call: Call, ask: Invite) -> Invitation:
    """Print one string that lets one machine join.

    muster invite build
    muster invite nas --address nas.local:7447 --roles hub
    """
    authority_of(core)
    given, name = ask.address or str(core.settings.get("address") or ""), ask.name
    if not given:
        raise Refused(
            f"{core.name} says of no address that it can be reached there: set `listen` in its "
            "config.toml (host:port), restart it, or name the hub's with --address"
        )
    address = check_address(given)
    roles = roles_of(ask.roles)
    if "hub" in roles and call.operator in core.roster.devices:
        raise Denied(
            "a device invites no hub, whose word others take about repositories and who joins: "
            "invite it with the operator's key, or give the role later"
        )
    if any(m.name == name for m in core.roster.machines.values()):
        raise Conflict(f"a machine named {name} is in the fleet already; choose another name")
    check_nameable(check_name(name, "The machine name"), "The machine name")
    token = core.draw(16)
    body = open_invite(token, name, roles, core.now.wall_ms, ask.hours * HOUR_MS)
    # Where the first hub was lost, whoever holds the authority now takes its place: a newcomer
    # shows its token to a hub only.
    fresh = become_hub(core, call)
    call.write(body)
    text = write_invite(core.membership.fleet, token, address)
    # The name travels with it, so that `join` needs nothing else; the hub compares it.
    return Invitation(
        f"{text}#{name}",
        name,
        body.until_ms,
        core.name if fresh else "",
        any(o.name == name for o in core.roster.operators.values()),
    )


class Enrol(Request, frozen=True, forbid_unknown_fields=False):
    """A signed request; a newcomer of another version may say more."""

    request: Annotated[str, data()] = ""


@verb("enrol", auth="nothing")
def enrol(core: Core, call: Call, ask: Enrol) -> str:
    """Take a joining machine in.

    Proof of possession, then the token, both in this one transaction.
    """
    authority = authority_of(core)
    core.part(Doubt).check_once("nobody joins through it")
    join = joining.open_join(ask.request.encode(), core.membership.fleet)
    found = core.tables.rows(folds.INVITE, writer=core.machine, sha256=join.sha256, limit=1)
    floor_ms = core.part(Doubt).floor_ms
    if found and floor_ms and _opened_ms(core, found[0].stream, join.sha256) <= floor_ms:
        raise Denied(
            "the invitation was made before its hub lost a part of its log, and whether it "
            "was used then cannot be known: ask for a new one"
        )
    enrolment = joining.enrol(
        authority,
        core.roster,
        join,
        found[0] if found else None,
        hub=core.roster.machine(core.machine),
        address=_own_address(core),
        now_ms=core.now.wall_ms,
    )
    return _written(core, enrolment)


def _written(core: Core, enrolment: joining.Enrolment) -> str:
    for _, body in enrolment.entries:
        core.append_body(body)
    return enrolment.answer.decode()


def _own_address(core: Core) -> str:
    here = [each.address for each in core.exposed()] or [core.settings.get("listen") or ""]
    return str(core.settings.get("address") or here[0])


def _opened_ms(core: Core, stream: StreamName, sha256: str) -> int:
    """When an invitation was made. It is looked for only while whoever asks has its token."""
    size, start = core.log.size(stream), 0
    while start < size:
        entries = core.log.slice(stream, start)
        for entry in entries:
            if entry.header.kind == kinds.INVITE_OPEN and sha256.encode() in (entry.body or b""):
                return entry.header.t[0]
        start += len(entries)
    return 0


@verb("renew", auth="peer", writes=True)
def renew(core: Core, call: Call, ask: Enrol) -> str:
    """Issue fresh certificates for a member.

    Also after weeks asleep.
    """
    core.part(Doubt).check_once("nobody's certificates are renewed")
    enrolment = joining.renew(
        authority_of(core),
        core.roster,
        ask.request.encode(),
        hub=core.roster.machine(core.machine),
        address=_own_address(core),
        now_ms=core.now.wall_ms,
    )
    return _written(core, enrolment)
