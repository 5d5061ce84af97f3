"""The verb that shuts somebody out, for good.

Rule 1: nobody is shut out by mistake: a word that could mean two is refused, the last operator only
goes where `last` says so, and a machine does not shut out itself.
Rule 2: every machine can be shut out, whatever it did: see `fitting_cuts`. What then counts of a
stream that found no room is nothing, and the answer says of how many streams that is so.
Rule 3: what an operator took back, or decided about a fork, stays so; see `fleet/operator_end.py`.
"""

from typing import Annotated, Any, Final

from msgspec import Struct

from muster.errors import Malformed, NotFound, Refused
from muster.fleet import kinds
from muster.fleet.machine import Authority
from muster.fleet.named import Named, Sort, meant
from muster.fleet.record import fitting_cuts, sign_revocation
from muster.limits import REVOCATION_REASON_CHARS_MAX
from muster.node.services import operator_end
from muster.node.verb import Line, Loss
from muster.verbs.declaration import Call, Core, Request, data, opt, pos, verb


class Who(Request, frozen=True):
    name: Annotated[
        str, pos("the machine or operator, by name or id (its beginning is enough)", kind="machine")
    ]
    machine: Annotated[bool, opt("it is a machine, where an operator has the same name")] = False
    operator: Annotated[bool, opt("it is an operator, where a machine has the same name")] = False
    last: Annotated[bool, opt("also where it is the only operator")] = False


class Revoke(Who, frozen=True):
    reason: Annotated[str, opt("why, for the log", empty=True)] = ""
    # Commands before 0.4 send it; whoever asks first, or not, is the command itself.
    yes: Annotated[bool, data(unsigned=True)] = False


class Revoked(Struct, frozen=True):
    revoked: str
    sort: Sort
    key: str
    streams: int
    streams_dropped: int
    hub_left: bool


SHUT_OUT: Final = (
    Line("{sort} {revoked} is shut out, for good (key {key:id}…).", "revoked sort"),
    Line("machine {revoked} is shut out, for good (key {key:id}…).", "revoked !sort"),
    Line("It wrote {streams} streams, more than a revocation names: {streams_dropped} of them, "
         "those known last, count for nothing.", "revoked streams_dropped"),
    Line("No hub is left: `muster role NAME hub` makes one.", "hub_left=False"),
)  # fmt: skip


@verb(
    "revoke", auth="order", group="The fleet", object="name", target="authority",
    says=SHUT_OUT,
    destroys=(
        Loss("{sort} {name} is shut out everywhere, for good: its key never counts again",
             asks="revoke.check", urgent=True),
    ),
)  # fmt: skip
def revoke(core: Core, call: Call, ask: Revoke) -> Revoked:
    """Shut a machine or an operator out everywhere, at once and for good.

    What we hold of its streams still counts.

        muster revoke build --reason 'left in the train'
        muster revoke bob --operator
    """
    authority_of(core)
    who = _meant(core, ask)
    _check(core, who, last=ask.last)
    if len(ask.reason) > REVOCATION_REASON_CHARS_MAX:
        raise Malformed(f"a reason has at most {REVOCATION_REASON_CHARS_MAX} characters")
    return shut_out(core, call, who, reason=ask.reason or "no reason given")


def shut_out(core: Core, call: Call, who: Named, *, reason: str) -> Revoked:
    """Write the revocation of a key. Raises: Refused of this machine's own."""
    authority = authority_of(core)
    _check(core, who, last=True)
    streams = [s for s in core.log.streams() if s.machine == who.key and core.log.size(s)]
    what: dict[str, Any] = {
        "of": who.sort,
        "key": who.key,
        "name": who.name,
        "reason": reason,
        "issued_ms": core.now.wall_ms,
    }
    cuts = fitting_cuts(authority, ((s, core.log.size(s)) for s in streams), **what)
    call.write(kinds.MachineRevoke(sign_revocation(authority, cuts=cuts, **what).decode()))
    if who.sort == "operator":
        operator_end.end(core, authority, who.key)
    return Revoked(
        revoked=who.name,
        sort=who.sort,
        key=who.key,
        streams=len(streams),
        streams_dropped=len(streams) - len(cuts),
        hub_left=any(hub.machine != who.key for hub in core.roster.hubs()),
    )


class Meant(Struct, frozen=True):
    sort: Sort
    name: str
    key: str


@verb("revoke.check", auth="local")
def check(core: Core, call: Call, ask: Who) -> Meant:
    """Who is meant by a revocation, and whether it would be refused."""
    who = _meant(core, ask)
    # The order goes to the authority's machine: that one cannot revoke itself, this one can.
    if who.key != core.machine or core.authority is not None:
        _check(core, who, last=ask.last)
    return Meant(who.sort, who.name, who.key)


def authority_of(core: Core) -> Authority:
    """The fleet's authority. Raises: NotFound where this machine does not hold it."""
    if core.authority is None:
        raise NotFound(
            f"{core.name} does not hold the fleet's authority: order it on the machine where init "
            "ran, or put the kept copy of authority.seed into this home (mode 0600), then "
            "`muster down` and `muster up`"
        )
    return core.authority


def _meant(core: Core, ask: Who) -> Named:
    if ask.machine and ask.operator:
        raise Malformed("say either --machine or --operator, not both")
    sort: Sort | None = "machine" if ask.machine else "operator" if ask.operator else None
    return meant(core.roster, ask.name, sort)


def _check(core: Core, who: Named, *, last: bool) -> None:
    if who.key == core.machine:
        raise Refused(
            "a machine cannot revoke itself: bring authority.seed to another machine of the fleet "
            "and do it there"
        )
    if who.sort == "operator" and len(core.roster.operators) == 1 and not last:
        raise Refused(
            f"{who.name} is the only operator: without one nobody can order anything. Make another "
            "first: `muster operator key` where it will order, then here `muster operator add NAME "
            "--key KEY`. `--last` does it all the same; then move the old operator.seed away where "
            "authority.seed lies, and `muster operator add NAME --here` makes a new one there"
        )
