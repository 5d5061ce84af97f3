"""Who goes on with a machine's work when that is gone, said beforehand by an operator."""

from typing import Annotated

from msgspec import Meta, Struct

from muster.duration import duration_of
from muster.errors import Conflict, Malformed
from muster.fleet.named import meant
from muster.limits import LEASE_MS, STANDIN_AFTER_MS_MAX, STANDIN_AFTER_MS_MIN
from muster.log.stream import MachineId
from muster.node.tasks.standins import newest
from muster.node.verb import Line
from muster.task.standin import NOBODY, FleetStandin, standin_args
from muster.verbs.declaration import Call, Core, Request, data, opt, pos, verb


class Standin(Request, frozen=True):
    machine: Annotated[str, pos("the machine whose work it is", kind="machine")]
    by: Annotated[str, pos("the machine that goes on with it, or `nobody`", kind="machine")]
    after: Annotated[str, opt("so long after it was heard last, and after a lease")] = "30s"
    replaces: Annotated[str, Meta(max_length=64), data()] = ""


class Named(Struct, frozen=True):
    """Who stands in for whom; `args` are what is signed of it."""

    machine: str
    by: str
    after_s: int
    args: dict[str, str]


@verb(
    "standin", auth="order", group="The fleet", object="machine", operators_only=True, on="one",
    signs="standin_args",
    says=(
        Line("{by} goes on with the open work of {machine} when nothing was heard of it for "
             "{after_s} s.", "by"),
        Line("Nobody goes on with the work of {machine} by itself any more.", "!by"),
    ),
)  # fmt: skip
def standin(core: Core, call: Call, ask: Standin) -> Named:
    """Say who goes on with the open work of a machine when nothing is heard of that any more.

    muster standin studio build
    muster standin studio build --after 5m
    muster standin studio nobody
    """
    named, machine, by, after_ms = _named(core, ask)
    if ask.replaces != named.args.get("replaces", ""):
        raise Conflict(
            f"{core.name} knows another newest order about who stands in for {named.machine} than "
            "the one that this replaces: give it again, where both are known"
        )
    call.write(FleetStandin(machine, call.statement, by, after_ms, ask.replaces))
    return named


@verb("standin.check", auth="local")
def check(core: Core, call: Call, ask: Standin) -> Named:
    """Who is meant, and whether it would be refused."""
    return _named(core, ask)[0]


def _named(core: Core, ask: Standin) -> tuple[Named, str, str, int]:
    """Raises: NotFound, Conflict, Malformed."""
    machine, by = meant(core.roster, ask.machine, "machine"), ""
    if ask.by != NOBODY:
        by = meant(core.roster, ask.by, "machine").key
    if by == machine.key:
        raise Conflict(f"{machine.name} cannot stand in for itself: name another machine")
    after_ms = duration_of(ask.after) or 0
    if not STANDIN_AFTER_MS_MIN <= after_ms <= STANDIN_AFTER_MS_MAX:
        raise Malformed(f"{ask.after[:40]!r} is no such time: write 30s, 5m or 1h, at most a day")
    shown = core.membership.name_of(MachineId(by)) if by else ""
    after_s = max(after_ms, int(core.settings.get("lease_ms") or LEASE_MS)) // 1000
    args = standin_args(machine.key, by, after_ms, newest(core, machine.key))
    return Named(machine.name, shown, after_s, args), machine.key, by, after_ms
