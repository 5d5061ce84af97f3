"""Every device as this machine knows it: terms that an operator signed, and how they stand here."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
from msgspec import Struct

from muster.fleet import folds
from muster.fleet.device import Terms
from muster.fleet.device_fold import DEVICE, DEVICE_OFFER
from muster.store.table_reader import EVERY_ROW

if TYPE_CHECKING:
    from muster.node.core import Core

State = Literal["waits", "orders", "ended", "late", "void", "revoked"]


class Known(Struct, frozen=True):
    """A device or a string that waits, with what it may and how it stands."""

    id: str
    device: str
    operator: str
    state: State
    rights: list[str]
    until_ms: int
    open_ms: int
    life_ms: int
    key: str


class Offer(NamedTuple):
    """Terms that an operator signed, by the id of the statement."""

    id: str
    operator: str
    statement: str
    terms: Terms


def offers(core: "Core") -> Iterator[Offer]:
    """Every offer that is known, once, whoever passed it on."""
    seen = set[str]()
    # Anybody can sign terms; only an operator's are an offer.
    for key in sorted(core.roster.operators_ever):
        for row in core.tables.rows(DEVICE_OFFER, operator=key):
            if (id := row.id) not in seen:
                seen.add(id)
                terms = msgspec.json.decode(row.terms, type=Terms)
                yield Offer(id, key, row.statement, terms)


def known(core: "Core", machine: str = "") -> list[Known]:
    """Those of a machine, or all: how each stands."""
    found = []
    for each in offers(core):
        if machine not in {"", each.terms.machine}:
            continue
        operator = core.roster.operators.get(each.operator)
        keys = [d.key for d in core.roster.devices.values() if d.id == each.id]
        found.append(
            Known(
                id=each.id,
                device=core.membership.name_of(each.terms.machine),
                operator=operator.name if operator else each.operator[:12],
                state=state(core, each),
                rights=rights(each.terms),
                until_ms=each.terms.until_ms,
                open_ms=each.terms.open_ms,
                life_ms=each.terms.life_ms,
                key=keys[0] if keys else "",
            )
        )
    return found


def state(core: "Core", offer: Offer) -> State:
    id_, operator, _, terms = offer
    roster, now_ms = core.roster, core.now.wall_ms
    taken = core.tables.rows(folds.TAKEN, limit=EVERY_ROW, id=id_)
    takers = {r.taker for r in taken}
    if operator not in roster.operators or any(roster.took(taker, id_) for taker in takers):
        return "revoked"
    if terms.machine not in roster.machines or roster.is_dead(terms.ticket):
        return "revoked"
    keys = {r.key for r in core.tables.rows(DEVICE, id=id_)}
    if len(keys) > 1:
        return "void"
    if keys and any(roster.is_dead(key) for key in keys):
        return "revoked"
    if keys:
        return "orders" if now_ms <= terms.until_ms else "ended"
    return "waits" if now_ms <= terms.open_ms else "late"


def rights(terms: Terms) -> list[str]:
    return [r.verb if r.object == "*" else f"{r.verb}:{r.object}" for r in terms.rights]
