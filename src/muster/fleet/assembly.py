"""From the rows of every stream to the roster.

Rule 1: a roster is made from rows and nothing else, in whatever order they come: two machines with
equal rows have equal rosters.
Rule 2: what needs more than one stream is combined here: the newest record, who was revoked, which
grant was taken, which key took a device's place.
Rule 3: anybody can sign grants, takings and terms, as many as he likes. Only the rows of those
whose signature can count are asked for: the others cost nothing here.
"""

import contextlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, Protocol

import msgspec

from muster.errors import Malformed
from muster.fleet import folds
from muster.fleet.chat import CHAT, Chat, capped, links_of
from muster.fleet.device import Device, Terms
from muster.fleet.device_fold import DEVICE
from muster.fleet.facts import Card, Facts, Logins, Way
from muster.fleet.grant import GRANT, Bounds, Given, Grant, effective, root_grant
from muster.fleet.operator_end import ended, took
from muster.fleet.peer import PeerFleet, read_card
from muster.fleet.peer_fold import PEER
from muster.fleet.record import MachineRecord, open_operator, open_record, open_revocation
from muster.fleet.roster import Roster
from muster.limits import GROUP_ROWS_OF_KEEPER_MAX, PEERS_MAX
from muster.log.fold import R, Table
from muster.log.stream import FleetId, MachineId, Scope, StreamName, scope_group


class RowsOf(Protocol):
    """The rows of a table whose columns have these values, of every stream."""

    def __call__(self, table: Table[R], /, **equals: str) -> Iterable[R]: ...


class Distinct(Protocol):
    """What some columns of such rows hold, each once: many streams may say the same."""

    def __call__(
        self, table: Table[Any], columns: tuple[str, ...], /, **equals: str
    ) -> Iterable[tuple[Any, ...]]: ...


# As many documents as a large fleet has; opening one costs several signatures.
_OPENED_MAX: Final = 4096
_record = lru_cache(maxsize=_OPENED_MAX)(open_record)
_operator = lru_cache(maxsize=_OPENED_MAX)(open_operator)
_revocation = lru_cache(maxsize=_OPENED_MAX)(open_revocation)
_card = lru_cache(maxsize=PEERS_MAX)(read_card)


def assemble(fleet: FleetId, rows: RowsOf, distinct: Distinct) -> Roster:
    """The roster that these rows amount to."""
    revoked = {key: _revocation(raw, fleet) for key, raw in _newest(rows(folds.REVOKED)).items()}
    enrolled = list(rows(folds.MACHINE))
    known = {MachineId(m): _record(raw, fleet) for m, raw in _newest(enrolled).items()}
    machines = {m: record for m, record in known.items() if m not in revoked}
    signed = {key: _operator(raw, fleet) for key, raw in _newest(rows(folds.OPERATOR)).items()}
    dead = frozenset(
        key for m, record in known.items() if m in revoked for key in record.keys.values()
    )
    operators = {key: record for key, record in signed.items() if key not in revoked}
    documents = (raw.encode() for (raw,) in distinct(folds.ENDED, ("document",)))
    ends = ended(documents, fleet, revoked)
    roots = tuple(root_grant(key, operators[key].raw) for key in sorted(operators))
    shut = dead | frozenset(revoked)
    giving = _giving(distinct, frozenset(signed))
    givers = sorted({each.giver for each in giving} | signed.keys())
    # Per grant (and per terms of a device), whoever signed that it is taken.
    takers: dict[str, set[str]] = {}
    for key in givers:
        for (id_,) in distinct(folds.TAKEN, ("id",), taker=key):
            if took(ends, key, id_):
                takers.setdefault(id_, set()).add(key)
    ever = _devices(distinct, signed)
    devices = {
        key: device
        for key, device in ever.items()
        if device.operator in operators
        and device.terms.machine in machines
        and not {key, device.terms.ticket} & shut
        # What an operator took stays taken after the operator was revoked.
        and not takers.get(device.id, set()) & signed.keys()
    }
    # Whatever else was given to a device, its orders live no longer than its terms say.
    given = [
        each._replace(life_ms=devices[each.grant.to].terms.life_ms)
        if each.grant.to in devices
        else each
        for each in sorted(giving, key=lambda each: each.id)
        # What an operator took stays taken after the operator was revoked.
        if each.giver not in shut and not takers.get(each.id, set()) & {*signed, each.giver}
    ]
    given += [each for key in sorted(devices) for each in devices[key].given()]
    links = links_of(
        _chats(distinct, operators),
        lambda chat: chat.machine in machines and not takers.get(chat.id, set()) & signed.keys(),
    )
    given = [each for each in (capped(each, links) for each in given) if each is not None]
    chats = {key: found[0] for key, found in sorted(links.standing.items())}
    given += [each for link in chats.values() for each in link.given()]
    return Roster(
        fleet=fleet,
        machines=machines,
        known=known,
        former=_former(enrolled, fleet, known),
        operators=operators,
        operators_ever=frozenset(signed),
        ended=ends,
        revoked=revoked,
        devices=devices,
        devices_ever=ever,
        grants=effective(roots, given),
        facts=_facts(rows),
        groups=_groups(rows),
        dead=dead,
        peers=_peers(distinct, operators, frozenset(signed)),
        chats=chats,
        links=links,
    )


def _chats(distinct: Distinct, operators: Iterable[str]) -> Iterable[Chat]:
    """The accounts that an operator let in, as the machine with their bridge heard them."""
    columns = ("id", "machine", "service", "workspace", "account", "issued_ms", "until_ms")
    for operator in sorted(operators):
        for id_, machine, *rest in distinct(CHAT, columns, operator=operator):
            yield Chat(id_, operator, MachineId(machine), *rest)


def _peers(
    distinct: Distinct, operators: Iterable[str], ever: frozenset[str]
) -> dict[str, PeerFleet]:
    """The fleets that an operator took in, where no operator removed them since.

    What somebody said who is an operator no more lets nobody in, and still keeps out. Older
    versions took in cards that are none: such a fleet is let in by nobody.
    """
    newest: dict[str, tuple[int, bool, str, str]] = {}
    for operator in sorted(ever):
        columns = ("fleet", "issued_ms", "name", "card")
        for fleet, issued_ms, name, card in distinct(PEER, columns, operator=operator):
            if not name or operator in operators:
                # At the same time a removal counts.
                said = (issued_ms, not name, name, card)
                newest[fleet] = max(newest.get(fleet, said), said)
    found = {fleet: (name, card) for fleet, (_, _, name, card) in newest.items() if name}
    taken_in = {}
    for fleet, (name, card) in sorted(found.items()):
        # An older version took in what is no card: such a fleet is let in by nobody.
        with contextlib.suppress(Malformed):
            taken_in[fleet] = PeerFleet(name, _card(card))
    return taken_in


def _newest(rows: Iterable[tuple[StreamName, str, int, str]]) -> dict[str, bytes]:
    """Per key, the document of the highest number; of equal numbers the greater text."""
    newest: dict[str, tuple[int, str]] = {}
    for _, key, number, text in rows:
        newest[key] = max(newest.get(key, (number, text)), (number, text))
    return {each: raw.encode() for each, (_, raw) in newest.items()}


def _former(
    enrolled: Iterable[folds.MachineRow], fleet: FleetId, known: Mapping[MachineId, MachineRecord]
) -> dict[str, MachineId]:
    """Names that machines had in an older record which is still told, and that nobody has now."""
    now = {record.name for record in known.values()}
    older = {
        (row.serial, row.machine, row.record)
        for row in enrolled
        if row.serial < known[MachineId(row.machine)].serial
    }
    found = {_record(raw.encode(), fleet).name: MachineId(m) for _, m, raw in sorted(older)}
    return {name: machine for name, machine in found.items() if name not in now}


def _devices(distinct: Distinct, operators: Iterable[str]) -> dict[str, Device]:
    """Per key the device that an operator made of it, where its ticket showed no other key."""
    found: dict[str, list[Device]] = {}
    keys: dict[str, set[str]] = {}
    for operator in sorted(operators):
        for key, id_, raw in distinct(DEVICE, ("key", "id", "terms"), operator=operator):
            terms = msgspec.json.decode(raw, type=Terms)
            keys.setdefault(terms.ticket, set()).add(key)
            found.setdefault(key, []).append(Device(key, operator, id_, terms))
    # A key that took the place of several tickets is the device of none of them.
    return {
        key: made[0]
        for key, made in found.items()
        if len({each.id for each in made}) == 1 and len(keys[made[0].terms.ticket]) == 1
    }


def _giving(distinct: Distinct, operators: frozenset[str]) -> list[Given]:
    """The grants of everybody who may give: the operators, and whom they gave the right to."""

    def given_by(givers: Iterable[str]) -> list[Given]:
        columns = ("id", "issued_ms", "grantee", "verb", "object", "until_ms", "bounds")
        return [
            Given(id_, giver, grant_of(*columns_of), issued_ms=issued_ms)
            for giver in sorted(givers)
            for id_, issued_ms, *columns_of in distinct(folds.GRANT, columns, giver=giver)
        ]

    direct = given_by(operators)
    return direct + given_by({g.grant.to for g in direct if g.grant.verb == GRANT} - operators)


def grant_of(to: str, verb: str, object: str, until_ms: int, bounds: str) -> Grant:
    """The grant that stands in a row."""
    known = msgspec.json.decode(bounds, type=Bounds) if bounds else None
    return Grant(object=object, to=to, until_ms=until_ms, verb=verb, bounds=known)


def _facts(rows: RowsOf) -> dict[MachineId, Facts]:
    """What machines say of themselves, with what those that are new enough say beside it."""
    logins, reach = _newest(rows(folds.LOGINS)), _newest(rows(folds.REACH))
    cards = _newest(rows(folds.WAKE))
    found: dict[MachineId, Facts] = {}
    for machine, raw in _newest(rows(folds.FACTS)).items():
        facts = msgspec.json.decode(raw, type=Facts)
        if machine in logins:
            told = msgspec.json.decode(logins[machine], type=Logins)
            facts = msgspec.structs.replace(facts, logins=told.logins, drivers=told.drivers)
        if machine in reach:
            ways = msgspec.json.decode(reach[machine], type=tuple[Way, ...])
            facts = msgspec.structs.replace(facts, reach=ways)
        if machine in cards:
            own = msgspec.json.decode(cards[machine], type=tuple[Card, ...])
            facts = msgspec.structs.replace(facts, cards=own)
        found[MachineId(machine)] = facts
    return found


def _groups(rows: RowsOf) -> dict[Scope, dict[MachineId, dict[str, int]]]:
    """The members of every group; the owner's later stamp counts, across its incarnations."""
    latest: dict[tuple[Scope, str], tuple[int, int, bool, str]] = {}
    groups: dict[Scope, dict[MachineId, dict[str, int]]] = {}
    for group in rows(folds.GROUP):
        owner = group.stream.machine
        groups[_scope(owner, group.name)] = {owner: {}}
    for row in rows(folds.MEMBER):
        owner = row.stream.machine
        scope = _scope(owner, row.name)
        groups.setdefault(scope, {owner: {}})
        cuts = row.cuts if row.since == "now" else "{}"
        # At the same stamp a removal counts.
        candidate = (row.t_ms, row.t_n, not row.member, cuts)
        key = (scope, row.machine)
        latest[key] = max(latest.get(key, candidate), candidate)
    for (scope, machine), (_, _, removed, cuts) in latest.items():
        if not removed and machine not in groups[scope]:
            groups[scope][MachineId(machine)] = msgspec.json.decode(cuts, type=dict[str, int])
    return groups


_scope = lru_cache(maxsize=2 * GROUP_ROWS_OF_KEEPER_MAX)(scope_group)
