"""Verbs about operators: whose keys speak for a person, and how another one comes to be.

Rule 1: an operator's key is made where it is used; what is told to the fleet is its public half.
Rule 2: the authority alone makes an operator. Ordered by one that there is, through the daemon
that holds the authority; or, where none is left, by whoever holds `authority.seed` in this home.
Rule 3: machines and operators have one space of names, and no key has two meanings.
"""

import secrets
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from muster.errors import Conflict, Denied, Malformed, NotFound, Refused
from muster.fleet import kinds
from muster.fleet.machine import Authority, Operator
from muster.fleet.meant import taken
from muster.fleet.name import check_name, short
from muster.fleet.record import OperatorRecord, open_operator, sign_operator
from muster.limits import OPERATORS_MAX
from muster.log import canon
from muster.node import clock
from muster.node.call import Call
from muster.node.core import Core
from muster.node.home import SEED_BYTES, Home
from muster.verbs.client import Door
from muster.verbs.revoke import authority_of

SEED: Final = "operator.seed"


# --- inside the command --------------------------------------------------------------------------


def operator(door: Door, args: Mapping[str, Any]) -> Any:
    """`muster operator ACTION`."""
    action, name = str(args["action"]), str(args.get("name") or "")
    if action == "list":
        return {"operators": door.ask("operators", {})}
    if action == "key":
        return _key(door)
    if action == "add":
        return _add(door, name, args)
    wanted = {"name": name, "operator": True, "last": bool(args.get("last"))}
    name = str(door.ask("revoke.check", wanted)["name"])
    door.confirm(f"operator {name} is shut out everywhere, for good: the key never counts again")
    chosen = {k: args[k] for k in ("last", "reason") if args.get(k)}
    return door.ask("revoke", {"name": name, "operator": True, **chosen}, on=door.on)


def _key(door: Door) -> Any:
    """The public half of the key in this home, which is made where there is none."""
    door.home.require()
    key, fresh = _own_key(door.home)
    return {"key": key, "fresh": fresh, "file": str(door.home.path / SEED)}


def _own_key(home: Home) -> tuple[str, bool]:
    fresh = not home.has_seed(SEED)
    if fresh:
        home.put_seed(SEED, secrets.token_bytes(SEED_BYTES))
    return Operator.from_seed(home.seed(SEED)).key, fresh


def _add(door: Door, name: str, args: Mapping[str, Any]) -> Any:
    door.home.require()
    check_name(name, "The operator's name")
    key = str(args.get("key") or "")
    if bool(args.get("here")) == bool(key):
        raise Malformed(
            f"whose key is {name}'s? On the machine where {name} will order, `muster operator key` "
            f"prints it; then `muster operator add {name} --key KEY`. With --here it is the key of "
            "this home, which is made where there is none"
        )
    if key:
        return door.ask("operator.add", {"name": name, "key": key}, on=door.on)
    if not door.home.has_seed("authority.seed"):
        raise NotFound(
            f"{door.home.path} holds no authority.seed, which makes an operator; put the kept copy "
            "there (mode 0600), or do it where it lies"
        )
    authority = Authority.from_seed(door.home.seed("authority.seed"))
    # Asked first: a name that is taken must not leave a key behind.
    door.ask("operator.free", {"name": name})
    key, _ = _own_key(door.home)
    record = sign_operator(authority, key, name, clock.read().wall_ms)
    return door.ask("operator.record", {"record": record.decode()})


# --- in the daemon -------------------------------------------------------------------------------


def listing(core: Core, call: Call) -> list[dict[str, Any]]:
    """Every operator whose key counts, and those that count no more."""
    revoked = core.roster.revoked
    live = [
        {"name": o.name, "key": o.operator, "since_ms": o.issued_ms, "state": "orders"}
        for o in core.roster.operators.values()
    ]
    gone = [
        {"name": r.name, "key": key, "since_ms": r.issued_ms, "state": "revoked"}
        for key, r in revoked.items()
        if r.of == "operator"
    ]
    return sorted(live + gone, key=lambda o: (o["state"] != "orders", str(o["name"])))


def free(core: Core, call: Call) -> Any:
    """Whether a name can be an operator's. Raises: Conflict, Malformed."""
    name = check_name(str(call.args.get("name", "")), "The operator's name")
    _check_name_is_free(core, name, "")
    return {"name": name}


def add(core: Core, call: Call) -> Any:
    """Make another operator, as one that there is ordered it."""
    authority = authority_of(core)
    name, key = str(call.args["name"]), str(call.args["key"]).strip().lower()
    check_name(name, "The operator's name")
    try:
        raw = sign_operator(authority, key, name, core.now.wall_ms)
    except Malformed as error:
        raise Malformed(
            f"{key[:80]!r} is no operator's key: `muster operator key` prints it, 64 digits"
        ) from error
    return _write(core, call, open_operator(raw, core.standing.fleet))


def record(core: Core, call: Call) -> Any:
    """Take in a record that the authority signed; who brings it does not matter."""
    raw = str(call.args.get("record", "")).encode()
    return _write(core, call, open_operator(raw, core.standing.fleet))


def _write(core: Core, call: Call, record: OperatorRecord) -> Any:
    key, roster = record.operator, core.roster
    if roster.is_dead(key):
        raise Denied(
            f"key {short(key)} was revoked and never counts again: where it lies, move "
            f"{SEED} away, then `muster operator key` makes another"
        )
    for machine in roster.known.values():
        if key in (machine.machine, *machine.keys.values()):
            raise Denied(f"key {short(key)} is machine {machine.name}'s; an operator's is its own")
    known = roster.operators.get(key)
    if known is not None and known.name != record.name:
        raise Conflict(f"key {short(key)} is operator {known.name}'s already")
    _check_name_is_free(core, record.name, key)
    if known is None and len(roster.operators) >= OPERATORS_MAX:
        # One more, and nobody could join: every newcomer is told who orders.
        raise Refused(f"a fleet has at most {OPERATORS_MAX} operators: revoke one that is not used")
    if known is None:
        body = canon.encode(msgspec.to_builtins(kinds.OperatorRecorded(record.raw.decode())))
        core.append(kinds.OPERATOR_RECORD, body, cause=call.cites, actor=call.actor)
    return {"operator": record.name, "key": key, "fresh": known is None}


def _check_name_is_free(core: Core, name: str, key: str) -> None:
    other = taken(core.roster, name)
    if other is not None and other.key != key:
        raise Conflict(f"{other.sort} {name} has this name already: choose another name")
