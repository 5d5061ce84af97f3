"""The verb that shuts somebody out, for good.

Rule 1: nobody is shut out by mistake: a word that could mean two is refused, the last operator only
goes where `last` says so, and a machine does not shut out itself.
Rule 2: every machine can be shut out, whatever it did: see `fitting_cuts`. What then counts of a
stream that found no room is nothing, and the answer says of how many streams that is so.
Rule 3: what an operator took back, or decided about a fork, stays so; see `fleet/ended.py`.
"""

from typing import Any

import msgspec

from muster.errors import Malformed, NotFound, Refused
from muster.fleet import kinds
from muster.fleet.machine import Authority
from muster.fleet.meant import SORTS, Named, Sort, meant
from muster.fleet.record import fitting_cuts, sign_revocation
from muster.limits import REVOCATION_REASON_CHARS_MAX
from muster.log import canon
from muster.node import last_word
from muster.node.call import Call
from muster.node.core import Core


def revoke(core: Core, call: Call) -> Any:
    """Shut a machine (or an operator's key) out: what we hold of its streams still counts."""
    authority = authority_of(core)
    who = meant(core.roster, str(call.args["name"]), _sort(call))
    _check(core, who, last=bool(call.args.get("last")))
    reason = str(call.args.get("reason") or "no reason given")
    if len(reason) > REVOCATION_REASON_CHARS_MAX:
        raise Malformed(f"a reason has at most {REVOCATION_REASON_CHARS_MAX} characters")
    streams = [s for s in core.store.streams() if s.machine == who.key and core.store.size(s)]
    what: dict[str, Any] = {
        "of": who.sort,
        "key": who.key,
        "name": who.name,
        "reason": reason,
        "issued_ms": core.now.wall_ms,
    }
    cuts = fitting_cuts(authority, ((s, core.store.size(s)) for s in streams), **what)
    raw = sign_revocation(authority, cuts=cuts, **what)
    body = canon.encode(msgspec.to_builtins(kinds.MachineRevoke(raw.decode())))
    core.append(kinds.MACHINE_REVOKE, body, cause=call.cites, actor=call.actor)
    if who.sort == "operator":
        last_word.end(core, authority, who.key)
    return {
        "revoked": who.name,
        "sort": who.sort,
        "key": who.key,
        "streams": len(streams),
        "streams_dropped": len(streams) - len(cuts),
        "hub_left": any(hub.machine != who.key for hub in core.roster.hubs()),
    }


def check(core: Core, call: Call) -> Any:
    """Who is meant. Raises what `revoke` would raise, before a person is asked about it."""
    who = meant(core.roster, str(call.args["name"]), _sort(call))
    # The order goes to the authority's machine: that one cannot revoke itself, this one can.
    if who.key != core.machine or core.authority is not None:
        _check(core, who, last=bool(call.args.get("last")))
    return {"sort": who.sort, "name": who.name, "key": who.key}


def authority_of(core: Core) -> Authority:
    """The fleet's authority. Raises: NotFound where this machine does not hold it."""
    if core.authority is None:
        raise NotFound(
            f"{core.name} does not hold the fleet's authority: order it on the machine where init "
            "ran, or put the kept copy of authority.seed into this home (mode 0600), then "
            "`muster down` and `muster up`"
        )
    return core.authority


def _sort(call: Call) -> Sort | None:
    said = [sort for sort in SORTS if call.args.get(sort)]
    if len(said) > 1:
        raise Malformed("say either --machine or --operator, not both")
    return said[0] if said else None


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
