"""Verbs about devices: a second machine that orders with a key of its own; see fleet/device.py.

Rule 1: no secret is copied. The string that `add` prints names a ticket, which orders nothing; the
key is made by `join`, on the machine that it is for.
Rule 2: what a device may is said when it is added, and each verb must be one that it can use.
Rule 3: to revoke is an operator's word over the terms, whether the string was used or not.
"""

import secrets
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from muster import limits
from muster.errors import Conflict, Denied, Malformed, NotFound, Refused
from muster.fleet import kinds
from muster.fleet.device import (
    NEVER,
    Right,
    Terms,
    adds,
    device_of,
    open_device,
    read_string,
    sign_device,
    write_string,
)
from muster.fleet.device_fold import DEVICE
from muster.fleet.grant import ANYTHING, takes
from muster.fleet.name import Hex32
from muster.fleet.named import meant
from muster.fleet.statement import open_statement
from muster.log.keys import Signer
from muster.log.stream import FleetId, MachineId
from muster.node.host.home import SEED_BYTES
from muster.node.incarnations.doubt import Doubt
from muster.node.tasks import devices
from muster.node.verb import Column, Line, Loss
from muster.verbs.declaration import (
    Call,
    Context,
    Core,
    Nothing,
    Request,
    Words,
    data,
    opt,
    pos,
    verb,
)
from muster.verbs.grant import check_right
from muster.verbs.table import VERBS

SEED: Final = "device.seed"
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
# What a person does all day, single tasks too; whoever wants a device to do more names it.
DAILY: Final = ("task", *(each.name for each in VERBS.values() if each.daily))

Days = Annotated[int, Meta(ge=1, le=limits.DEVICE_DAYS_MAX)]
Minutes = Annotated[int, Meta(ge=limits.DEVICE_MINUTES_MIN, le=limits.DEVICE_MINUTES_MAX)]
Hours = Annotated[int, Meta(ge=1, le=limits.INVITE_HOURS_MAX)]
_DAYS: Final = 365
_MINUTES: Final = limits.DEVICE_ORDER_LIFE_MS // MINUTE_MS
_HOURS: Final = 24


# --- inside the command --------------------------------------------------------------------------

_ADD: Final = ("add",)
_WHAT: Final = ("add", "join", "revoke")


class Action(Request, frozen=True):
    action: Annotated[
        Literal["add", "join", "list", "revoke"],
        pos("add MACHINE prints a string; join STRING uses it there; list; revoke MACHINE"),
    ]
    what: Annotated[
        str, pos("the machine, or the string", kind="machine", actions=_WHAT, needed=_WHAT)
    ] = ""
    may: Annotated[
        Words,
        opt(
            "VERB or VERB:OBJECT that it may order (default: what a person does all day); give it "
            "several times",
            actions=_ADD,
        ),
    ] = DAILY
    days: Annotated[Days, opt("how long it may order", actions=_ADD)] = _DAYS
    minutes: Annotated[Minutes, opt("how long one order of it may live", actions=_ADD)] = _MINUTES
    hours: Annotated[Hours, opt("how long the string counts", actions=_ADD)] = _HOURS


@verb(
    "device", names="device", auth="local", runs="client", group="The fleet", rows="devices",
    columns=(
        Column("device", form="bold"), Column("state", form="state"),
        Column("operator", "of", rank=1), Column("rights", "may", "words", least=16),
        # What was taken back has no end to come.
        Column("until_ms", "until", "ago", when="!state=revoked"),
    ),
    nothing="No device orders: `muster device add MACHINE` lets one.",
    says=(
        Line("On {device}, run this once ({open_ms:ago} it is void):\n", "string"),
        Line("  muster device join {string}\n", "string"),
        Line("It may then: {rights:words}.", "string"),
        Line("{device} orders for {operator} with a key of its own now.", "key"),
        Line("That ends {until_ms:ago}; `muster device revoke` ends it at once.", "key"),
        Line("It may: {rights:words}.", "key"),
        Line("{device} orders nothing any more.", "!string !key"),
    ),
    destroys=(
        Loss("the device {what} orders nothing any more; its machine stays a member",
             when="action=revoke", asks="device.taken device=what", urgent=True),
    ),
)  # fmt: skip
def device(context: Context, ask: Action) -> Any:
    """Let another machine order with a key of its own: add, join, list, revoke.

    muster device add laptop    # where operator.seed lies: prints the next line
    muster device join muster-device1.…    # on laptop
    """
    if ask.action == "list":
        return {"devices": context.ask("devices", {})}
    if ask.action == "join":
        return _join(context, ask.what)
    if ask.action == "add":
        return _add(context, ask)
    return context.ask("device.revoke", {"device": ask.what}, on=context.on)


def _add(context: Context, ask: Action) -> Any:
    """Sign the terms of a fresh ticket; the string with its seed is shown once, here."""
    seed = secrets.token_bytes(SEED_BYTES)
    asked = {
        "days": ask.days,
        "hours": ask.hours,
        "machine": ask.what,
        "may": list(ask.may),
        "minutes": ask.minutes,
        "ticket": Signer(seed).public.hex(),
    }
    added = context.ask("device.add", asked, on=context.on)
    return {**added, "string": write_string(FleetId(str(added["fleet"])), seed)}


def _join(context: Context, text: str) -> Any:
    """Make the key of this device, and let the ticket say that it takes its place."""
    home = context.home
    home.require()
    fleet, ticket = read_string(text)
    offer = context.ask("device.offer", {"fleet": fleet, "ticket": ticket.public.hex()})
    if home.has_seed(SEED):
        # A key that stood in the log before is not used again; its file gets another name.
        key = Signer(home.seed(SEED)).public.hex()
        if key in offer["spent"]:
            path = home.path / SEED
            path.rename(path.with_name(f"device-{key[:16]}.seed"))
    if not home.has_seed(SEED):
        home.put_seed(SEED, secrets.token_bytes(SEED_BYTES))
    machine = MachineId(str(offer["machine"]))
    binding = sign_device(ticket, Signer(home.seed(SEED)), fleet, machine)
    return context.ask("device.record", {"binding": binding.decode(), "id": offer["id"]})


# --- in the daemon -------------------------------------------------------------------------------


class Wanted(Request, frozen=True):
    machine: Annotated[str, pos("the machine")]
    may: Annotated[Words, data()] = DAILY
    days: Annotated[Days, data()] = _DAYS
    minutes: Annotated[Minutes, data()] = _MINUTES
    hours: Annotated[Hours, data()] = _HOURS
    ticket: Annotated[str, data()] = ""


class Proposed(Struct, frozen=True):
    terms: Terms


@verb("device.terms", auth="local")
def terms_of(core: Core, call: Call, ask: Wanted) -> Proposed:
    """What a device would be allowed, to be signed."""
    machine = meant(core.roster, ask.machine, "machine").key
    rights = sorted({each.partition(":")[::2] for each in ask.may})
    for name, object in rights:
        if name in NEVER:
            raise Refused(f"no device may {name}: with it, it could give itself more")
        check_right(name, object or ANYTHING)
    now_ms = core.now.wall_ms
    terms = Terms(
        life_ms=ask.minutes * MINUTE_MS,
        machine=machine,
        open_ms=now_ms + ask.hours * HOUR_MS,
        rights=tuple(Right(name, object or ANYTHING) for name, object in rights),
        ticket=ask.ticket,
        until_ms=now_ms + ask.days * DAY_MS,
    )
    return Proposed(terms)


class Add(Wanted, frozen=True):
    terms: Annotated[Terms | None, data(unsigned=True)] = None
    statement: Annotated[str, data(unsigned=True)] = ""


class Added(Struct, frozen=True):
    device: str
    fleet: str
    open_ms: int
    rights: list[str]
    until_ms: int


@verb("device.add", auth="order", object="machine", target="hub", operators_only=True,
      signs="device_options")  # fmt: skip
def add(core: Core, call: Call, ask: Add) -> Added:
    """Write down the terms of a device; the string is the command's own affair."""
    if ask.terms is None:
        raise Malformed("a device has terms that an operator signed; use `muster device add`")
    signed, terms = open_statement(ask.statement.encode(), core.membership.fleet), ask.terms
    if signed.operator not in core.roster.operators:
        raise Denied("a device is added by an operator, not by whom one granted something")
    if not adds(signed, terms):
        raise Refused("the statement is about another device; use `muster device add`")
    machine = core.roster.machine(terms.machine)
    if any(each.state in {"orders", "waits"} for each in devices.known(core, machine.machine)):
        raise Conflict(
            f"{machine.name} is a device already, or has a string that waits: "
            f"`muster device revoke {machine.name}` first"
        )
    call.write(kinds.DeviceOpen(ask.statement, terms))
    return Added(
        machine.name, core.membership.fleet, terms.open_ms, devices.rights(terms), terms.until_ms
    )


class Ticket(Request, frozen=True):
    fleet: Annotated[str, data()] = ""
    ticket: Annotated[str, data()] = ""


class Offered(Struct, frozen=True):
    """The terms that a ticket is for, by their id; `spent` are keys of devices that were here."""

    id: str
    machine: str
    spent: list[str]


@verb("device.offer", auth="local")
def offer(core: Core, call: Call, ask: Ticket) -> Offered:
    """The terms that a ticket is for, while they can be used here."""
    core.part(Doubt).check_once("no device is made here")
    if ask.fleet != core.membership.fleet:
        raise Denied("the string is from another fleet than this machine's")
    found = next((o for o in devices.offers(core) if o.terms.ticket == ask.ticket), None)
    if found is None:
        raise NotFound(
            "this machine has not heard of the string yet: see with `muster status` that it is "
            "linked, then give the same command again"
        )
    _check_offer(core, found)
    spent = [row.key for row in core.tables.rows(DEVICE, writer=core.machine)]
    return Offered(found.id, core.machine, spent)


def _check_offer(core: Core, found: devices.Offer) -> None:
    name = core.membership.name_of(found.terms.machine)
    if found.terms.machine != core.machine:
        raise Denied(f"the string is for {name}: give this command there")
    state = devices.state(core, found)
    if state == "waits":
        return
    why = {
        "orders": "was used already",
        "revoked": "was revoked",
        "late": "was not used in time",
        "void": "was used with two keys and counts for nothing",
    }
    raise Denied(f"the string {why.get(state, state)}: ask for another with `muster device add`")


class Bound(Request, frozen=True):
    binding: Annotated[str, data()] = ""
    id: Annotated[str, data()] = ""


class Made(Struct, frozen=True):
    device: str
    key: str
    operator: str
    rights: list[str]
    until_ms: int
    life_ms: int


@verb("device.record", auth="local", writes=True)
def record(core: Core, call: Call, ask: Bound) -> Made:
    """Bind this machine's device key; it is written down with its whole chain."""
    core.part(Doubt).check_once("no device is made here")
    found = next((o for o in devices.offers(core) if o.id == ask.id), None)
    if found is None:
        raise NotFound("this machine knows no such offer of a device; give the string again")
    _check_offer(core, found)
    statement = open_statement(found.statement.encode(), core.membership.fleet)
    bound = open_device(ask.binding.encode(), core.membership.fleet)
    made = device_of(statement, found.statement, found.terms, bound)
    if made is None or bound.machine != core.machine:
        raise Refused("the binding is of another device; give the string again")
    if core.roster.is_dead(made.key):
        raise Denied(f"this key was revoked: move {SEED} away and give the string again")
    call.write(kinds.DeviceRecorded(ask.binding, found.statement, found.terms))
    return Made(
        device=core.name,
        key=made.key,
        operator=core.roster.operators[made.operator].name,
        rights=devices.rights(made.terms),
        until_ms=made.terms.until_ms,
        life_ms=made.terms.life_ms,
    )


@verb("devices", auth="local")
def listing(core: Core, call: Call, ask: Nothing) -> list[devices.Known]:
    """Every device and every string that waits, as the log has them."""
    return sorted(devices.known(core), key=lambda d: (d.device, d.state != "orders", d.id))


class Named(Request, frozen=True):
    device: Annotated[str, pos("the machine")]


class Revoke(Named, frozen=True):
    id: Annotated[Hex32 | None, data(unsigned=True)] = None
    statement: Annotated[str, data(unsigned=True)] = ""


class Revoked(Struct, frozen=True):
    device: str
    entry: str


@verb("device.revoke", auth="order", object="device", target="hub", operators_only=True,
      signs="device_taken")  # fmt: skip
def revoke(core: Core, call: Call, ask: Revoke) -> Revoked:
    """Take the terms of a device back; its own statement, which the command signed, does it."""
    signed = open_statement(ask.statement.encode(), core.membership.fleet)
    if signed.operator not in core.roster.operators:
        raise Denied("a device is revoked by an operator, not by whom one granted something")
    if ask.id is None or not takes(signed, ask.id):
        raise Refused("the statement is about another device; use `muster device revoke`")
    entry = call.write(kinds.GrantTake(ask.id, ask.statement))
    return Revoked(ask.device, entry.id.hex())


class Ids(Struct, frozen=True):
    ids: list[str]


@verb("device.taken", auth="local")
def terms_to_take(core: Core, call: Call, ask: Named) -> Ids:
    """The terms to take back of a device."""
    machine = meant(core.roster, ask.device, "machine")
    ids = [d.id for d in devices.known(core, machine.key) if d.state in {"orders", "waits", "void"}]
    if not ids:
        raise NotFound(f"{machine.name} is no device, and no string for it waits")
    return Ids(ids)
