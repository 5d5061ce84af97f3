"""Verbs about machines and who may what."""

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final

import msgspec

from muster.errors import Conflict, Denied, Malformed, Refused
from muster.fleet import join as joining
from muster.fleet import kinds
from muster.fleet.invite import OpenInvite, check_address, open_invite, write_invite
from muster.fleet.name import check_name
from muster.limits import INVITE_HOURS_MAX
from muster.log import canon
from muster.log.stream import MachineId, StreamName
from muster.node import event as ev
from muster.node.call import Call
from muster.node.core import Core
from muster.node.presence import heard_ms_ago, presence
from muster.task.spec import check_nameable
from muster.verbs.revoke import authority_of
from muster.verbs.role import become_hub, roles_of

if TYPE_CHECKING:
    from muster.node.daemon import Daemon

HOUR_MS: Final = 3_600_000
# The answer must be written to its link before the links are closed.
STOP_DELAY_S: Final = 0.05


def invite(core: Core, call: Call) -> Any:
    """One string that lets one machine of this name join, once."""
    authority_of(core)
    name, args = str(call.args["name"]), call.args
    given = str(args.get("address") or core.settings.get("address") or "")
    if not given:
        raise Refused(
            f"{core.name} says of no address that it can be reached there: set `listen` in its "
            "config.toml (host:port), restart it, or name the hub's with --address"
        )
    address = check_address(given)
    roles = roles_of(str(args.get("roles", "workstation")))
    if "hub" in roles and call.operator in core.roster.devices:
        raise Denied(
            "a device invites no hub, whose word others take about repositories and who joins: "
            "invite it with the operator's key, or give the role later"
        )
    if any(m.name == name for m in core.roster.machines.values()):
        raise Conflict(f"a machine named {name} is in the fleet already; choose another name")
    check_nameable(check_name(name, "The machine name"), "The machine name")
    token = core.draw(16)
    hours = int(args.get("hours", 24))
    if not 1 <= hours <= INVITE_HOURS_MAX:
        raise Malformed(f"an invitation counts for 1 to {INVITE_HOURS_MAX} hours, not for {hours}")
    life_ms = hours * HOUR_MS
    body = open_invite(token, name, roles, core.now.wall_ms, life_ms)
    # Where the first hub was lost, whoever holds the authority now takes its place: a newcomer
    # shows its token to a hub only.
    fresh = become_hub(core, call)
    _append(core, call, kinds.INVITE_OPEN, body)
    text = write_invite(core.standing.fleet, token, address)
    # The name travels with it, so that `join` needs nothing else; the hub compares it.
    return {
        "invitation": f"{text}#{name}",
        "name": name,
        "until_ms": body.until_ms,
        "became_hub": core.name if fresh else "",
        "also_operator": any(o.name == name for o in core.roster.operators.values()),
    }


def enrol(core: Core, call: Call) -> Any:
    """Take a machine in: proof of possession, then the token, both in this one transaction."""
    authority = authority_of(core)
    core.doubt.check_once("nobody joins through it")
    join = joining.open_join(str(call.args.get("request", "")).encode(), core.standing.fleet)
    enrolment = joining.enrol(
        authority,
        core.roster,
        join,
        _open_invite(core, join.sha256),
        hub=core.roster.machine(core.machine),
        address=_own_address(core),
        now_ms=core.now.wall_ms,
    )
    for kind, body in enrolment.entries:
        core.append(kind, canon.encode(msgspec.to_builtins(body)))
    return enrolment.answer.decode()


def _own_address(core: Core) -> str:
    return str(core.settings.get("address") or core.settings.get("listen") or "")


def _open_invite(core: Core, sha256: str) -> OpenInvite | None:
    for row in core.store.rows("fleet_invite", sha256=sha256):
        if str(row["stream"]).startswith(core.machine):
            stream = StreamName.parse(str(row["stream"]))
            if core.doubt.floor_ms and _opened_ms(core, stream, sha256) <= core.doubt.floor_ms:
                raise Denied(
                    "the invitation was made before its hub lost a part of its log, and whether it "
                    "was used then cannot be known: ask for a new one"
                )
            return OpenInvite(
                str(row["name"]),
                str(row["roles"]),
                int(str(row["until_ms"])),
                str(row["machine"] or ""),
            )
    return None


def _opened_ms(core: Core, stream: StreamName, sha256: str) -> int:
    """When an invitation was made. It is looked for only while whoever asks has its token."""
    size, start = core.store.size(stream), 0
    while start < size:
        entries = core.store.slice(stream, start)
        for entry in entries:
            if entry.header.kind == kinds.INVITE_OPEN and sha256.encode() in (entry.body or b""):
                return entry.header.t[0]
        start += len(entries)
    return 0


def renew(core: Core, call: Call) -> Any:
    """Fresh papers for a member, also after weeks asleep."""
    core.doubt.check_once("nobody's papers are renewed")
    enrolment = joining.renew(
        authority_of(core),
        core.roster,
        str(call.args.get("request", "")).encode(),
        hub=core.roster.machine(core.machine),
        address=_own_address(core),
        now_ms=core.now.wall_ms,
    )
    for kind, body in enrolment.entries:
        core.append(kind, canon.encode(msgspec.to_builtins(body)))
    return enrolment.answer.decode()


def target(core: Core, call: Call) -> Any:
    """The machine that should own new work: a hub when we reach one, else ourselves.

    The answer also names the key of `--on`, so that an order can be signed for its target.
    """
    wanted = str(call.args.get("on") or "")
    roster = core.roster
    if wanted:
        record = roster.find(wanted)
    else:
        hubs = [h for h in roster.hubs() if h.machine == core.machine or core.link_to(h.machine)]
        record = hubs[0] if hubs else roster.machine(core.machine)
    return {
        "machine": record.machine,
        "name": record.name,
        "here": record.machine == core.machine,
        "fleet": core.standing.fleet,
        "now_ms": core.now.wall_ms,
    }


def facts(core: Core, call: Call) -> Any:
    """What this machine says about itself."""
    found = core.roster.facts.get(core.machine)
    return None if found is None else msgspec.to_builtins(found)


def machines(core: Core, call: Call) -> Any:
    """Every machine of the fleet, live and revoked, as this machine sees it."""
    roster, answer = core.roster, []
    for machine in sorted(roster.known, key=lambda m: roster.known[m].name):
        record = roster.known[machine]
        found = roster.facts.get(machine)
        answer.append(
            {
                "name": record.name,
                "machine": machine,
                "roles": list(record.roles),
                "state": presence(core, machine),
                "facts": None if found is None else msgspec.to_builtins(found),
                "streams": _held(core, machine),
                **_link(core, machine),
            }
        )
    return answer


def _held(core: Core, machine: MachineId) -> dict[str, int]:
    """Our entries that this machine has receipted, per scope."""
    found = {}
    for stream in core.store.streams():
        if stream.machine == core.machine and stream.incarnation == core.standing.incarnation:
            for cosign in core.store.cosigns(stream):
                if cosign.machine == machine and cosign.strength == "held":
                    found[stream.scope.partition(".")[0]] = cosign.size
    return found


def _link(core: Core, machine: MachineId) -> dict[str, Any]:
    number = core.link_to(machine)
    if number is None:
        heard = heard_ms_ago(core, machine)
        return {} if heard is None else {"heard_ms_ago": heard}
    link = core.links[number]
    return {
        "channel": link.channel,
        "heard_ms_ago": core.now.boot_ms - link.heard_ms,
        "skew_ms": link.skew_ms,
        "muster": link.version,
        "features": sorted(link.features),
        **({"through": core.standing.name_of(link.through)} if link.through else {}),
    }


def _append(core: Core, call: Call, kind: str, body: Any) -> Any:
    raw = canon.encode(msgspec.to_builtins(body))
    return core.append(kind, raw, cause=call.cites, actor=call.actor)


async def stop(daemon: "Daemon", call: ev.Perform) -> Any:
    """End the daemon, a moment after this answer left."""
    asyncio.get_running_loop().call_later(STOP_DELAY_S, daemon.stop)
    return {"pid": os.getpid()}
