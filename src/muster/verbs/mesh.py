"""`muster mesh`: a WireGuard mesh of the fleet's own machines, or the one that is there already.

Rule 1: interfaces are changed by the command, which needs the right to; the home and the daemon
are their owner's. Root asks another person's daemon as that person, and writes nothing there.
Rule 2: where this computer is in a mesh already, that is used and nothing is made, but for `--own`.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Annotated, Literal, TypeVar

from msgspec import Meta, Struct, ValidationError, convert, to_builtins
from msgspec.structs import replace

from muster.address import PORT_MAX
from muster.channel import FIRST
from muster.errors import Conflict, Denied, Malformed, Unreachable
from muster.fleet import mesh
from muster.fleet.machine import Identity
from muster.node.host import clock, owner, program
from muster.node.host import mesh as host
from muster.node.host.home import Home
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.verbs.client import Finding
from muster.verbs.declaration import (
    Context,
    Daemon,
    Nothing,
    Perform,
    Request,
    data,
    opt,
    pos,
    verb,
)

T = TypeVar("T")


class Action(Request, frozen=True):
    action: Annotated[
        Literal["up", "status", "down"],
        pos("up: make the mesh's interface, or follow the fleet; status; or down"),
    ]
    port: Annotated[
        int, opt("the UDP port (default: 7447)", ge=0, le=PORT_MAX, actions=("up",))
    ] = 0
    endpoint: Annotated[
        str, opt("where the others reach that port, as IP:PORT (default: found)", actions=("up",))
    ] = ""
    own: Annotated[bool, opt("also where there is another mesh", actions=("up",))] = False


class Other(Struct, frozen=True):
    """An address of this computer in another mesh."""

    address: str
    interface: str


class Neighbour(Struct, frozen=True):
    """A machine in the mesh: `up` (heard within three minutes), `silent`, or `missing` (the
    interface does not know it yet); `unknown` where only root can tell.
    """

    name: str
    address: str
    endpoint: str
    state: Literal["up", "silent", "missing", "unknown"]
    heard_s_ago: int | None = None
    received: int = 0
    sent: int = 0


class Mesh(Struct, frozen=True, kw_only=True):
    """The mesh as it is here; `stale` are peers of the interface that are in the fleet no more."""

    did: Literal["", "made", "updated", "removed", "nothing"] = ""
    interface: str
    up: bool
    address: str
    endpoint: str
    port: int
    follows: bool
    others: list[Other]
    peers: list[Neighbour] = []
    stale: list[str] = []
    to_do: str = ""


class Plan(Struct, frozen=True):
    """What the daemon knows of it; `gone` names the keys of machines that are members no more, and
    `listens` says whether others may dial this one anywhere.
    """

    machine: str
    fleet: str
    place: mesh.Place | None
    peers: list[mesh.Peer]
    gone: dict[str, str]
    follows: bool
    listens: bool = True


@verb("mesh", auth="local", runs="client", group="The fleet", on="none")
def mesh_(context: Context, ask: Action) -> Mesh | Finding:
    """Connect the machines of the fleet by a WireGuard mesh of their own, or use the one there is.

    Keys, addresses and peers follow from the machine records. `up` needs root (CAP_NET_ADMIN),
    `wg`, and a kernel with WireGuard or `wireguard-go`; said again, it follows the fleet. Where
    this computer is in a mesh already, that is used. Exit code 1 where `status` finds none.

        muster mesh up
        muster mesh up --port 51821 --endpoint 203.0.113.7:51821
        muster mesh status --json
        muster mesh down
    """
    home = context.home
    home.require()
    if ask.action == "down":
        return _down(context)
    plan = _asked(context, "mesh.plan", {})
    if ask.action == "up":
        return _up(context, plan, ask)
    found = _shown(plan)
    return found if found.up or found.others else Finding(found, 1)


def looked_at(context: Context) -> Mesh:
    """The mesh as it is here, for whoever only looks."""
    return _shown(_asked(context, "mesh.plan", {}))


def _up(context: Context, plan: Plan, ask: Action) -> Mesh:
    interface = mesh.interface(plan.machine)
    if host.others(interface) and not ask.own and not host.is_there(interface):
        return _shown(plan, "nothing")
    host.check_programs()
    _require_right(context.home, "mesh up")
    place = _place(plan, ask)
    secret = Identity(context.home.seed()).secret(mesh.KEY)
    fresh = host.make(
        interface, fleet=plan.fleet, machine=plan.machine, secret=secret, place=place,
        peers=plan.peers,
    )  # fmt: skip
    told = to_builtins(place)
    plan = _asked(context, "mesh.place", told)
    return _shown(plan, "made" if fresh else "updated")


def _place(plan: Plan, ask: Action) -> mesh.Place:
    """Where this machine takes packets: as was said now or before, else as it looks from here."""
    inside, before = mesh.network(plan.fleet), plan.place
    port = ask.port or (before.port if before else mesh.PORT)
    if ask.endpoint:
        given = mesh.endpoint(ask.endpoint, inside)
        if not given:
            raise Malformed(
                f"--endpoint {ask.endpoint[:80]!r} is no IP:PORT that others could send to; write "
                f"it like 203.0.113.7:{port}"
            )
        return mesh.Place(port, given, given=True)
    if before and before.given:
        return mesh.Place(port, before.endpoint, given=True)
    return mesh.Place(port, host.place(port, plan.fleet))


def _down(context: Context) -> Mesh:
    home = context.home
    try:
        plan = _asked(context, "mesh.plan", {})
    except Unreachable:
        # Without its interface the next daemon tells nobody of it.
        fleet = str(home.facts()["fleet"])
        plan = Plan(Identity(home.seed()).machine, fleet, None, [], {}, follows=False)
    interface = mesh.interface(plan.machine)
    there, told = host.is_there(interface), plan.place is not None
    if there:
        _require_right(home, "mesh down")
        host.remove(interface)
    if told:
        # The others hear of it with the facts; the address itself is gone already.
        plan = _asked(context, "mesh.place", {})
    return _shown(plan, "removed" if there or told else "nothing")


def _require_right(home: Home, words: str) -> None:
    """Raises: Denied with the one command that may."""
    if not host.allowed():
        raise Denied(
            "only root may change interfaces of this computer: "
            f"`sudo {owner.command(home.path, words)}`"
        )


def _asked(context: Context, name: str, args: dict[str, object]) -> Plan:
    """What the daemon of the home says; root acts on it, so it is checked like a stranger's word.

    Raises: Malformed.
    """
    said = _of_owner(context.home, lambda: context.ask(name, args))
    try:
        plan = convert(said, Plan)
    except ValidationError as error:
        raise Malformed(f"the daemon of this home says what is no mesh ({error})") from error
    if plan.machine != Identity(context.home.seed()).machine:
        raise Malformed("the daemon that answers for this home is that of another machine")
    for peer in plan.peers:
        mesh.check_peer(peer, plan.fleet)
    return replace(plan, place=mesh.read_place(to_builtins(plan.place), plan.fleet))


def _of_owner(home: Home, ask: Callable[[], T]) -> T:
    """Ask as whoever the home belongs to: their daemon answers nobody else."""
    theirs = owner.stranger(home.path)
    if theirs is None or os.geteuid() != 0:
        return ask()
    with _being(theirs, os.stat(home.path).st_gid):
        return ask()


@contextlib.contextmanager
def _being(uid: int, gid: int) -> Iterator[None]:
    groups, own = os.getgroups(), os.getresgid()
    os.setgroups([])
    os.setresgid(gid, gid, own[2])
    os.setresuid(uid, uid, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(*own)
        os.setgroups(groups)


def _shown(plan: Plan, did: Literal["", "made", "updated", "removed", "nothing"] = "") -> Mesh:
    interface = mesh.interface(plan.machine)
    up, place = host.is_there(interface), plan.place
    seen = host.seen(interface) if up and host.allowed() and program.there("wg") else None
    diff = mesh.difference(plan.peers, seen or ())
    to_do = ""
    if seen is not None and not plan.follows and (diff.missing or diff.stale):
        to_do = "`muster mesh up` follows the fleet"
    elif not up and place is not None:
        to_do = "the interface is gone (after a start of the computer): `muster mesh up` makes it"
    elif up and not plan.listens:
        to_do = (
            "it listens nowhere, so nobody dials it here: `muster channel http --set listen=auto "
            "--restart`"
        )
    return Mesh(
        did=did,
        interface=interface,
        up=up,
        address=str(mesh.address(plan.fleet, plan.machine)),
        endpoint=place.endpoint if place else "",
        port=place.port if place else 0,
        follows=plan.follows,
        others=[Other(row.host, row.interface) for row in host.others(interface)],
        peers=[_neighbour(peer, seen, diff) for peer in plan.peers] if up else [],
        stale=[plan.gone.get(key, key) for key in diff.stale],
        to_do=to_do,
    )


def _neighbour(peer: mesh.Peer, seen: list[mesh.Seen] | None, diff: mesh.Difference) -> Neighbour:
    if seen is None:
        return Neighbour(peer.name, peer.address, peer.endpoint, "unknown")
    row = next((each for each in seen if each.key == peer.key), None)
    if row is None or peer.key in diff.missing:
        return Neighbour(peer.name, peer.address, peer.endpoint, "missing")
    ago_s = max(0, clock.read().wall_ms // 1000 - row.heard_s) if row.heard_s else None
    state: Literal["up", "silent"] = "silent"
    if ago_s is not None and ago_s < mesh.HEARD_S:
        state = "up"
    place = row.endpoint or peer.endpoint
    return Neighbour(peer.name, peer.address, place, state, ago_s, row.received, row.sent)


@verb("mesh.plan", auth="local", runs="async")
async def plan(daemon: Daemon, call: Perform, ask: Nothing) -> Plan:
    """What this machine knows of the mesh: who its peers are, and where it takes packets."""
    return _plan(daemon)


class Telling(Request, frozen=True):
    port: Annotated[int, Meta(ge=0, le=PORT_MAX), data()] = 0
    endpoint: Annotated[str, Meta(max_length=80), data()] = ""
    given: Annotated[bool, data()] = False


@verb("mesh.place", auth="local", runs="async")
async def place(daemon: Daemon, call: Perform, ask: Telling) -> Plan:
    """Tell the fleet where this machine takes packets of the mesh; port 0: nowhere any more."""
    fleet = mesh.network(daemon.machine.fleet)
    if ask.endpoint and not mesh.endpoint(ask.endpoint, fleet):
        raise Conflict(f"{ask.endpoint!r} is no place of this machine outside of the mesh")
    told = mesh.Place(ask.port, ask.endpoint, ask.given) if ask.port else None
    daemon.machine.in_mesh(told)
    daemon.post(FactsChanged(await daemon.effects.facts()))
    return _plan(daemon)


def _plan(daemon: Daemon) -> Plan:
    core = daemon.core
    gone = {
        mesh.key_text(bytes.fromhex(record.keys[mesh.KEY])): record.name
        for machine, record in core.roster.known.items()
        if machine not in core.roster.machines
    }
    return Plan(
        core.machine, daemon.machine.fleet, daemon.machine.mesh_place(),
        mesh.peers(core.roster, core.machine), gone, host.allowed(),
        bool(daemon.machine.config.options(FIRST).listen),
    )  # fmt: skip
