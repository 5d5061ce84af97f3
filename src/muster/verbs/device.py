"""Verbs about devices: a second machine that orders with a key of its own; see fleet/device.py.

Rule 1: no secret is copied. The string that `add` prints names a ticket, which orders nothing; the
key is made by `join`, on the machine that it is for.
Rule 2: what a device may is said when it is added, and each verb must be one that it can use.
Rule 3: to revoke is an operator's word over the terms, whether the string was used or not.
"""

import secrets
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from muster.errors import Conflict, Denied, Malformed, NotFound, Refused
from muster.fleet import folds, kinds
from muster.fleet.device import (
    NEVER,
    Device,
    Right,
    Terms,
    adds,
    device_of,
    open_device,
    read_string,
    sign_device,
    write_string,
)
from muster.fleet.device_fold import DEVICE, DEVICE_OFFER
from muster.fleet.grant import ANYTHING, takes
from muster.fleet.meant import meant
from muster.fleet.statement import open_statement
from muster.limits import DEVICE_ORDER_LIFE_MS, INVITE_HOURS_MAX
from muster.log import canon
from muster.log.keys import Signer
from muster.log.stream import FleetId, MachineId
from muster.node.call import Call
from muster.node.core import Core
from muster.node.home import SEED_BYTES, Home
from muster.store.replica import EVERY_ROW
from muster.verbs.client import Door
from muster.verbs.grant import check_right

SEED: Final = "device.seed"
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
DAYS: Final = 365
DAYS_MAX: Final = 3_650
HOURS: Final = 24
# The command signs orders that live five minutes; a day is a schedule, not a person's order.
MINUTES_MIN: Final = 5
MINUTES_MAX: Final = 24 * 60
# What a person does all day; whoever wants a device to do more names it.
DAILY: Final = (
    "run", "task", "cancel", "retry", "decide", "question.answer", "journal", "send", "reply",
    "ack", "thread",
)  # fmt: skip


# --- inside the command --------------------------------------------------------------------------


def device(door: Door, args: Mapping[str, Any]) -> Any:
    """`muster device ACTION`."""
    action, what = str(args["action"]), str(args.get("what") or "")
    if action == "list":
        return {"devices": door.ask("devices", {})}
    if action == "join":
        return _join(door, what)
    if action == "revoke":
        # What would be refused is nothing to ask a person about.
        door.ask("device.taken", {"device": what})
        door.confirm(f"the device {what} orders nothing any more; its machine stays a member")
        return door.ask("device.revoke", {"device": what}, on=door.on)
    return _add(door, what, args)


def _add(door: Door, machine: str, args: Mapping[str, Any]) -> Any:
    """Sign the terms of a fresh ticket; the string with its seed is shown once, here."""
    seed = secrets.token_bytes(SEED_BYTES)
    asked = {
        "days": int(args.get("days", DAYS)),
        "hours": int(args.get("hours", HOURS)),
        "machine": machine,
        "may": [str(each) for each in args.get("may") or DAILY],
        "minutes": int(args.get("minutes", DEVICE_ORDER_LIFE_MS // MINUTE_MS)),
        "ticket": Signer(seed).public.hex(),
    }
    added = door.ask("device.add", asked, on=door.on)
    return {**added, "string": write_string(FleetId(str(added["fleet"])), seed)}


def _join(door: Door, text: str) -> Any:
    """Make the key of this device, and let the ticket say that it takes its place."""
    home = door.home
    home.require()
    fleet, ticket = read_string(text)
    offer = door.ask("device.offer", {"fleet": fleet, "ticket": ticket.public.hex()})
    _put_away(home, offer["spent"])
    if not home.has_seed(SEED):
        home.put_seed(SEED, secrets.token_bytes(SEED_BYTES))
    machine = MachineId(str(offer["machine"]))
    binding = sign_device(ticket, Signer(home.seed(SEED)), fleet, machine)
    return door.ask("device.record", {"binding": binding.decode(), "id": offer["id"]})


def _put_away(home: Home, spent: list[str]) -> None:
    """A key that stood in the log before is not used again; its file is kept under another name."""
    if not home.has_seed(SEED):
        return
    key = Signer(home.seed(SEED)).public.hex()
    if key in spent:
        path = home.path / SEED
        path.rename(path.with_name(f"device-{key[:16]}.seed"))


# --- in the daemon -------------------------------------------------------------------------------


def terms_of(core: Core, call: Call) -> Any:
    """The terms that a person asks for, to be signed. Raises what keeps a device from them."""
    args = call.args
    machine = meant(core.roster, str(args.get("machine", "")), "machine").key
    asked = args.get("may")
    words = [str(each) for each in asked] if isinstance(asked, list) else []
    rights = sorted({tuple(each.partition(":")[::2]) for each in words})
    for verb, object in rights:
        if verb in NEVER:
            raise Refused(f"no device may {verb}: with it, it could give itself more")
        check_right(verb, object or ANYTHING)
    now_ms = core.now.wall_ms
    bounds = (("days", DAYS_MAX), ("hours", INVITE_HOURS_MAX), ("minutes", MINUTES_MAX))
    for name, most in bounds:
        least = MINUTES_MIN if name == "minutes" else 1
        if not least <= int(args.get(name, 0)) <= most:
            raise Malformed(f"--{name} is a number from {least} to {most}")
    terms = Terms(
        life_ms=int(args["minutes"]) * MINUTE_MS,
        machine=machine,
        open_ms=now_ms + int(args["hours"]) * HOUR_MS,
        rights=tuple(Right(verb, object or ANYTHING) for verb, object in rights),
        ticket=str(args.get("ticket", "")),
        until_ms=now_ms + int(args["days"]) * DAY_MS,
    )
    return {"terms": msgspec.to_builtins(terms)}


def add(core: Core, call: Call) -> Any:
    """Write down the terms that the operator signed; the string is the command's own affair."""
    statement = str(call.options.get("statement", ""))
    try:
        terms = msgspec.convert(call.options.get("terms"), Terms)
    except msgspec.ValidationError as error:
        raise Malformed(f"the terms of a device cannot be read: {error}") from error
    signed = open_statement(statement.encode(), core.standing.fleet)
    if signed.operator not in core.roster.operators:
        raise Denied("a device is added by an operator, not by whom one granted something")
    if not adds(signed, terms):
        raise Refused("the statement is about another device; use `muster device add`")
    machine = core.roster.machine(terms.machine)
    for each in _known(core, machine.machine):
        if each["state"] in ("orders", "waits"):
            raise Conflict(
                f"{machine.name} is a device already, or has a string that waits: "
                f"`muster device revoke {machine.name}` first"
            )
    body = canon.encode(msgspec.to_builtins(kinds.DeviceOpen(statement, terms)))
    core.append(kinds.DEVICE_OPEN, body, cause=call.cites, actor=call.actor)
    return {
        "device": machine.name,
        "fleet": core.standing.fleet,
        "open_ms": terms.open_ms,
        "rights": _rights(terms),
        "until_ms": terms.until_ms,
    }


def offer(core: Core, call: Call) -> Any:
    """The terms that a ticket is for, while they can be used here. Raises: what keeps them."""
    core.doubt.check_once("no device is made here")
    if call.args.get("fleet") != core.standing.fleet:
        raise Denied("the string is from another fleet than this machine's")
    ticket = str(call.args.get("ticket", ""))
    found = next((o for o in _offers(core) if o["terms"].ticket == ticket), None)
    if found is None:
        raise NotFound(
            "this machine has not heard of the string yet: see with `muster status` that it is "
            "linked, then give the same command again"
        )
    _check_offer(core, found)
    spent = [str(row["key"]) for row in core.store.rows(DEVICE.name, writer=core.machine)]
    return {"id": found["id"], "machine": core.machine, "spent": spent}


def _check_offer(core: Core, found: Mapping[str, Any]) -> None:
    terms: Terms = found["terms"]
    name = core.standing.name_of(terms.machine)
    if terms.machine != core.machine:
        raise Denied(f"the string is for {name}: give this command there")
    state = _state(core, found["id"], found["operator"], terms)
    if state == "waits":
        return
    why = {
        "orders": "was used already",
        "revoked": "was revoked",
        "late": "was not used in time",
        "void": "was used with two keys and counts for nothing",
    }
    raise Denied(f"the string {why.get(state, state)}: ask for another with `muster device add`")


def record(core: Core, call: Call) -> Any:
    """This machine's device key, bound by the ticket: written down with its whole chain."""
    core.doubt.check_once("no device is made here")
    binding = str(call.args.get("binding", ""))
    found = next((o for o in _offers(core) if o["id"] == call.args.get("id")), None)
    if found is None:
        raise NotFound("this machine knows no such offer of a device; give the string again")
    _check_offer(core, found)
    statement = open_statement(found["statement"].encode(), core.standing.fleet)
    bound = open_device(binding.encode(), core.standing.fleet)
    made = device_of(statement, found["statement"], found["terms"], bound)
    if made is None or bound.machine != core.machine:
        raise Refused("the binding is of another device; give the string again")
    if core.roster.is_dead(made.key):
        raise Denied(f"this key was revoked: move {SEED} away and give the string again")
    body = kinds.DeviceRecorded(binding, found["statement"], found["terms"])
    raw = canon.encode(msgspec.to_builtins(body))
    core.append(kinds.DEVICE_RECORD, raw, cause=call.cites, actor=call.actor)
    return {
        "device": core.name,
        "key": made.key,
        "operator": core.roster.operators[made.operator].name,
        "rights": _rights(made.terms),
        "until_ms": made.terms.until_ms,
        "life_ms": made.terms.life_ms,
    }


def listing(core: Core, call: Call) -> list[dict[str, Any]]:
    """Every device and every string that waits, with what it may and how it stands."""
    return sorted(_known(core), key=lambda d: (d["device"], d["state"] != "orders", d["id"]))


def revoke(core: Core, call: Call) -> Any:
    """Take a device's terms back. Its own statement, which the command signed, is what does it."""
    id_, statement = str(call.options.get("id", "")), str(call.options.get("statement", ""))
    signed = open_statement(statement.encode(), core.standing.fleet)
    if signed.operator not in core.roster.operators:
        raise Denied("a device is revoked by an operator, not by whom one granted something")
    if not takes(signed, id_):
        raise Refused("the statement is about another device; use `muster device revoke`")
    body = canon.encode(msgspec.to_builtins(kinds.GrantTake(id_, statement)))
    entry = core.append(kinds.GRANT_TAKE, body, cause=call.cites, actor=call.actor)
    return {"device": str(call.args["device"]), "entry": entry.id.hex()}


def terms_to_take(core: Core, call: Call) -> Any:
    """The ids of the terms that a person means by a device. Raises: NotFound, Conflict."""
    machine = meant(core.roster, str(call.args["device"]), "machine")
    ids = [d["id"] for d in _known(core, machine.key) if d["state"] in ("orders", "waits", "void")]
    if not ids:
        raise NotFound(f"{machine.name} is no device, and no string for it waits")
    return {"ids": ids}


# --- how one stands ------------------------------------------------------------------------------


def _offers(core: Core) -> Iterator[dict[str, Any]]:
    """Every offer that is known, once, whoever passed it on."""
    seen = set()
    # Anybody can sign terms; only an operator's are an offer.
    for key in sorted(core.roster.operators_ever):
        for row in core.store.rows(DEVICE_OFFER.name, operator=key):
            if row["id"] not in seen:
                seen.add(row["id"])
                yield {**row, "terms": msgspec.json.decode(str(row["terms"]), type=Terms)}


def _known(core: Core, machine: str = "") -> list[dict[str, Any]]:
    found = []
    for each in _offers(core):
        terms: Terms = each["terms"]
        if machine in ("", terms.machine):
            operator = core.roster.operators.get(each["operator"])
            found.append(
                {
                    "id": each["id"],
                    "device": core.standing.name_of(terms.machine),
                    "operator": operator.name if operator else each["operator"][:12],
                    "state": _state(core, each["id"], each["operator"], terms),
                    "rights": _rights(terms),
                    "until_ms": terms.until_ms,
                    "open_ms": terms.open_ms,
                    "life_ms": terms.life_ms,
                    "key": next((d.key for d in _made(core, each["id"])), ""),
                }
            )
    return found


def _made(core: Core, id_: str) -> list[Device]:
    return [d for d in core.roster.devices.values() if d.id == id_]


def _state(core: Core, id_: str, operator: str, terms: Terms) -> str:
    """`waits`, `orders`, `ended`, `late`, `void`, `revoked`."""
    roster, now_ms = core.roster, core.now.wall_ms
    taken = core.store.rows(folds.TAKEN.name, limit=EVERY_ROW, id=id_)
    takers = {str(r["taker"]) for r in taken}
    if operator not in roster.operators or any(roster.took(taker, id_) for taker in takers):
        return "revoked"
    if terms.machine not in roster.machines or roster.is_dead(terms.ticket):
        return "revoked"
    keys = {str(r["key"]) for r in core.store.rows(DEVICE.name, id=id_)}
    if len(keys) > 1:
        return "void"
    if keys and any(roster.is_dead(key) for key in keys):
        return "revoked"
    if keys:
        return "orders" if now_ms <= terms.until_ms else "ended"
    return "waits" if now_ms <= terms.open_ms else "late"


def _rights(terms: Terms) -> list[str]:
    return [r.verb if r.object == "*" else f"{r.verb}:{r.object}" for r in terms.rights]
