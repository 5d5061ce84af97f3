"""Verbs about operators: whose keys speak for a person, and how another one comes to be.

Rule 1: an operator's key is made where it is used; what is told to the fleet is its public half.
Rule 2: the authority alone makes an operator. Ordered by one that there is, through the daemon
that holds the authority; or, where none is left, by whoever holds `authority.seed` in this home.
Rule 3: machines and operators have one space of names, and no key has two meanings.
"""

import secrets
from typing import Annotated, Any, Final, Literal

from msgspec import Struct

from muster.errors import Conflict, Denied, Malformed, NotFound, Refused
from muster.fleet import kinds
from muster.fleet.machine import Authority, Operator
from muster.fleet.name import check_name, short
from muster.fleet.named import taken
from muster.fleet.record import OperatorRecord, open_operator, sign_operator
from muster.limits import OPERATORS_MAX
from muster.node.host import clock
from muster.node.host.home import SEED_BYTES, Home
from muster.node.verb import Column, Line, Loss
from muster.verbs.declaration import Call, Context, Core, Nothing, Request, opt, pos, verb
from muster.verbs.revoke import SHUT_OUT, authority_of

SEED: Final = "operator.seed"


_ADD: Final = ("add",)
_REVOKE: Final = ("revoke",)


class Action(Request, frozen=True):
    action: Annotated[
        Literal["add", "list", "revoke", "key"],
        pos("add, list, revoke, or key: the public key of this home's operator"),
    ]
    name: Annotated[
        str,
        pos("the operator", kind="operator", actions=("add", "revoke"), needed=("add", "revoke")),
    ] = ""
    key: Annotated[
        str,
        opt("what `muster operator key` printed where the new operator will order", actions=_ADD),
    ] = ""
    here: Annotated[
        bool,
        opt("the key of this home, made where there is none; needs authority.seed", actions=_ADD),
    ] = False
    last: Annotated[bool, opt("revoke also the only one", actions=_REVOKE)] = False
    reason: Annotated[str, opt("why it is revoked, for the log", actions=_REVOKE, empty=True)] = ""


@verb(
    "operator", names="name", auth="local", runs="client", group="The fleet", rows="operators",
    columns=(
        Column("name", form="bold"), Column("state", form="state"),
        Column("since_ms", "since", "ago"),
        Column("key", form="id", rank=1),
    ),
    says=(
        Line("{key}", "file"),
        Line("{operator} is an operator of the fleet (key {key:id}…).", "operator"),
        *SHUT_OUT,
    ),
    destroys=(
        Loss("operator {name} is shut out everywhere, for good: the key never counts again",
             when="action=revoke", asks="revoke.check operator", urgent=True),
    ),
)  # fmt: skip
def operator(context: Context, ask: Action) -> Any:
    """Who orders in this fleet: list them, add one, shut one out.

    muster operator key    # where bob will order: prints a key
    muster operator add bob --key KEY    # where authority.seed lies
    """
    if ask.action == "list":
        return {"operators": context.ask("operators", {})}
    if ask.action == "key":
        context.home.require()
        key, fresh = _own_key(context.home)
        return {"key": key, "fresh": fresh, "file": str(context.home.path / SEED)}
    if ask.action == "add":
        return _add(context, ask)
    wanted = {"name": ask.name, "operator": True, "last": ask.last}
    name = str(context.ask("revoke.check", wanted)["name"])
    said = {"last": ask.last, "reason": ask.reason}
    chosen = {name: value for name, value in said.items() if value}
    return context.ask("revoke", {"name": name, "operator": True, **chosen}, on=context.on)


def _own_key(home: Home) -> tuple[str, bool]:
    fresh = not home.has_seed(SEED)
    if fresh:
        home.put_seed(SEED, secrets.token_bytes(SEED_BYTES))
    return Operator(home.seed(SEED)).key, fresh


def _add(context: Context, ask: Action) -> Any:
    context.home.require()
    check_name(ask.name, "The operator's name")
    if ask.here == bool(ask.key):
        raise Malformed(
            f"whose key is {ask.name}'s? On the machine where {ask.name} will order, `muster "
            f"operator key` prints it; then `muster operator add {ask.name} --key KEY`. With "
            "--here it is the key of this home, which is made where there is none"
        )
    if ask.key:
        return context.ask("operator.add", {"name": ask.name, "key": ask.key}, on=context.on)
    if not context.home.has_seed("authority.seed"):
        raise NotFound(
            f"{context.home.path} holds no authority.seed, which makes an operator; put the kept "
            "copy there (mode 0600), or do it where it lies"
        )
    authority = Authority(context.home.seed("authority.seed"))
    # Asked first: a name that is taken must not leave a key behind.
    context.ask("operator.free", {"name": ask.name})
    key, _ = _own_key(context.home)
    record = sign_operator(authority, key, ask.name, clock.read().wall_ms)
    return context.ask("operator.record", {"record": record.decode()})


class Known(Struct, frozen=True):
    name: str
    key: str
    since_ms: int
    state: Literal["orders", "revoked"]


@verb("operators", auth="local")
def listing(core: Core, call: Call, ask: Nothing) -> list[Known]:
    """Every operator, as the log has them: whose key counts, then whose counts no more."""
    live, gone = core.roster.operators.items(), core.roster.revoked.items()
    found = [Known(each.name, key, each.issued_ms, "orders") for key, each in live]
    found += [Known(r.name, key, r.issued_ms, "revoked") for key, r in gone if r.of == "operator"]
    return sorted(found, key=lambda each: (each.state, each.name))


class Name(Request, frozen=True):
    name: Annotated[str, pos("the name")]


class Free(Struct, frozen=True):
    name: str


@verb("operator.free", auth="local")
def free(core: Core, call: Call, ask: Name) -> Free:
    """Whether a name can be an operator's."""
    check_name(ask.name, "The operator's name")
    _check_name_is_free(core, ask.name, "")
    return Free(ask.name)


class Add(Request, frozen=True):
    name: Annotated[str, pos("the operator")]
    key: Annotated[str, pos("the public key")]


class Made(Struct, frozen=True):
    operator: str
    key: str
    fresh: bool


@verb("operator.add", auth="order", object="name", target="authority", operators_only=True)
def add(core: Core, call: Call, ask: Add) -> Made:
    """Make an operator of a key."""
    authority, key = authority_of(core), ask.key.strip().lower()
    check_name(ask.name, "The operator's name")
    try:
        raw = sign_operator(authority, key, ask.name, core.now.wall_ms)
    except Malformed as error:
        raise Malformed(
            f"{key[:80]!r} is no operator's key: `muster operator key` prints it, 64 digits"
        ) from error
    return _write(core, call, open_operator(raw, core.membership.fleet))


class Record(Request, frozen=True):
    record: Annotated[str, pos("the signed record")]


@verb("operator.record", auth="local", writes=True)
def record(core: Core, call: Call, ask: Record) -> Made:
    """Take in an operator that the authority signed; who brings it does not matter."""
    return _write(core, call, open_operator(ask.record.encode(), core.membership.fleet))


def _write(core: Core, call: Call, record: OperatorRecord) -> Made:
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
        call.write(kinds.OperatorRecorded(record.raw.decode()))
    return Made(record.name, key, known is None)


def _check_name_is_free(core: Core, name: str, key: str) -> None:
    other = taken(core.roster, name)
    if other is not None and other.key != key:
        raise Conflict(f"{other.sort} {name} has this name already: choose another name")
