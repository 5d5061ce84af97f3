"""Who goes on with a machine's work when that is gone, said beforehand by an operator."""

from typing import Annotated, Final, NamedTuple

from msgspec import Meta, Struct

from muster.duration import duration_of
from muster.errors import Conflict, Malformed
from muster.fleet.named import meant
from muster.limits import LEASE_MS, STANDIN_AFTER_MS_MAX, STANDIN_AFTER_MS_MIN, STANDINS_MAX
from muster.log.stream import MachineId
from muster.node.tasks.standins import newest
from muster.node.verb import Line
from muster.task.standin import NOBODY, FleetStandin, standin_args
from muster.verbs.declaration import Call, Core, Request, data, opt, pos, verb

# Names, or ids, of as many as may be named.
_OTHERS_CHARS_MAX: Final = 65 * STANDINS_MAX


class Standin(Request, frozen=True):
    machine: Annotated[str, pos("the machine whose work it is", kind="machine")]
    by: Annotated[str, pos("the machine that goes on with it, or `nobody`", kind="machine")]
    after: Annotated[str, opt("so long after it was heard last, and after a lease")] = "30s"
    others: Annotated[
        str,
        Meta(max_length=_OTHERS_CHARS_MAX),
        opt(
            "further machines, with commas between: who of all is elected at a NATS cluster goes on"
        ),
    ] = ""
    replaces: Annotated[str, Meta(max_length=64), data()] = ""


class Named(Struct, frozen=True):
    """Who stands in for whom; `args` are what is signed of it."""

    machine: str
    by: str
    after_s: int
    args: dict[str, str]
    others: tuple[str, ...] = ()


class Meant(NamedTuple):
    """The ids of whom an order names, and after how long."""

    machine: str
    by: str
    after_ms: int
    others: tuple[str, ...]


@verb(
    "standin", auth="order", group="The fleet", object="machine", operators_only=True, on="one",
    signs="standin_args",
    says=(
        Line("{by} goes on with the open work of {machine} when nothing was heard of it for "
             "{after_s} s.", "by"),
        Line("In its place whoever is elected at a NATS cluster of it and of {others}.", "others"),
        Line("Nobody goes on with the work of {machine} by itself any more.", "!by"),
    ),
)  # fmt: skip
def standin(core: Core, call: Call, ask: Standin) -> Named:
    """Say who goes on with the open work of a machine when nothing is heard of that any more.

    muster standin studio build
    muster standin studio build --after 5m
    muster standin studio build --others tower,nas
    muster standin studio nobody
    """
    named, meant_ = _named(core, ask)
    if ask.replaces != named.args.get("replaces", ""):
        raise Conflict(
            f"{core.name} knows another newest order about who stands in for {named.machine} than "
            "the one that this replaces: give it again, where both are known"
        )
    machine, by, after_ms, others = meant_
    call.write(FleetStandin(machine, call.statement, by, after_ms, ask.replaces, others))
    return named


@verb("standin.check", auth="local")
def check(core: Core, call: Call, ask: Standin) -> Named:
    """Who is meant, and whether it would be refused."""
    return _named(core, ask)[0]


def _named(core: Core, ask: Standin) -> tuple[Named, Meant]:
    """Raises: NotFound, Conflict, Malformed."""
    machine, by = meant(core.roster, ask.machine, "machine"), ""
    if ask.by != NOBODY:
        by = meant(core.roster, ask.by, "machine").key
    words = [word.strip() for word in ask.others.split(",")] if ask.others else []
    others = tuple(meant(core.roster, word, "machine").key for word in words)
    if machine.key in (by, *others):
        raise Conflict(f"{machine.name} cannot stand in for itself: name another machine")
    if len({by, *others}) <= len(others) or (others and not by) or len(others) > STANDINS_MAX:
        raise Malformed(
            f"`others` are further machines, each once, at most {STANDINS_MAX}, beside the one "
            "that stands in where nobody can be elected"
        )
    after_ms = duration_of(ask.after) or 0
    if not STANDIN_AFTER_MS_MIN <= after_ms <= STANDIN_AFTER_MS_MAX:
        raise Malformed(f"{ask.after[:40]!r} is no such time: write 30s, 5m or 1h, at most a day")
    shown = [core.membership.name_of(MachineId(each)) for each in (by, *others)]
    after_s = max(after_ms, int(core.settings.get("lease_ms") or LEASE_MS)) // 1000
    args = standin_args(machine.key, by, after_ms, newest(core, machine.key), others)
    named = Named(machine.name, shown[0] if by else "", after_s, args, tuple(shown[1:]))
    return named, Meant(machine.key, by, after_ms, others)
