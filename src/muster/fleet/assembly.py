"""From the rows of every stream to the roster.

Rule 1: a roster is made from rows and nothing else, in whatever order they come: two machines with
equal rows have equal rosters.
Rule 2: what needs more than one stream is combined here: the newest record, who was revoked, which
grant was taken, which key took a device's place.

Rule 3: anybody can sign grants, takings and terms, as many as he likes. Only the rows of those
whose signature can count are asked for: the others cost nothing here.

Rows are mappings from column to value of the tables in folds.py, with `stream` the writer's.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, Protocol

import msgspec

from muster.fleet import folds
from muster.fleet.device import Device, Terms
from muster.fleet.device_fold import DEVICE
from muster.fleet.facts import Facts, Way
from muster.fleet.grant import GRANT, Given, Grant, effective, root_grant
from muster.fleet.operator_end import ended, took
from muster.fleet.record import open_operator, open_record, open_revocation
from muster.fleet.roster import Member, Roster
from muster.limits import GROUP_ROWS_OF_KEEPER_MAX
from muster.log.stream import FleetId, MachineId, Scope, StreamName, scope_group

Row = Mapping[str, Any]


class RowsOf(Protocol):
    """The rows of a table whose columns have these values."""

    def __call__(self, table: str, /, **equals: str) -> Iterable[Row]: ...


# As many documents as a large fleet has; opening one costs several signatures.
_OPENED_MAX: Final = 4096
_record = lru_cache(maxsize=_OPENED_MAX)(open_record)
_operator = lru_cache(maxsize=_OPENED_MAX)(open_operator)
_revocation = lru_cache(maxsize=_OPENED_MAX)(open_revocation)


def assemble(fleet: FleetId, rows: RowsOf) -> Roster:
    """The roster that these rows amount to; `rows` yields those of every stream."""
    revoked = {
        key: _revocation(raw, fleet)
        for key, raw in _newest(rows(folds.REVOKED.name), "key", "issued_ms", "revocation").items()
    }
    known = {
        MachineId(machine): _record(raw, fleet)
        for machine, raw in _newest(rows(folds.MACHINE.name), "machine", "serial", "record").items()
    }
    machines = {m: record for m, record in known.items() if m not in revoked}
    signed = {
        key: _operator(raw, fleet)
        for key, raw in _newest(
            rows(folds.OPERATOR.name), "operator", "issued_ms", "record"
        ).items()
    }
    dead = frozenset(
        key for m, record in known.items() if m in revoked for key in record.keys.values()
    )
    operators = {key: record for key, record in signed.items() if key not in revoked}
    ends = ended((row["document"].encode() for row in rows(folds.ENDED.name)), fleet, revoked)
    roots = tuple(root_grant(key, operators[key].raw) for key in sorted(operators))
    shut = dead | frozenset(revoked)
    giving = _giving(rows, frozenset(signed))
    givers = sorted({row["giver"] for row in giving} | signed.keys())
    # Per grant (and per terms of a device), whoever signed that it is taken.
    takers: dict[str, set[str]] = {}
    for key in givers:
        for row in rows(folds.TAKEN.name, taker=key):
            if took(ends, key, row["id"]):
                takers.setdefault(row["id"], set()).add(row["taker"])
    ever = _devices(row for key in sorted(signed) for row in rows(DEVICE.name, operator=key))
    devices = {
        key: device
        for key, device in ever.items()
        if device.operator in operators
        and device.terms.machine in machines
        and not {key, device.terms.ticket} & shut
        # What an operator took stays taken after the operator was revoked.
        and not takers.get(device.id, set()) & signed.keys()
    }
    given = [*_given(giving, takers, frozenset(signed), shut)]
    # Whatever else was given to a device, its orders live no longer than its terms say.
    given = [
        each._replace(life_ms=devices[each.grant.to].terms.life_ms)
        if each.grant.to in devices
        else each
        for each in given
    ]
    given += [each for key in sorted(devices) for each in devices[key].given()]
    return Roster(
        fleet=fleet,
        machines=machines,
        known=known,
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
    )


def _newest(rows: Iterable[Row], key: str, number: str, text: str) -> dict[str, bytes]:
    """Per key, the document of the highest number; of equal numbers the greater text."""
    newest: dict[str, tuple[int, str]] = {}
    for row in rows:
        candidate = (row[number], row[text])
        newest[row[key]] = max(newest.get(row[key], candidate), candidate)
    return {each: raw.encode() for each, (_, raw) in newest.items()}


def _devices(rows: Iterable[Row]) -> dict[str, Device]:
    """Per key the device that an operator made of it, where its ticket showed no other key."""
    found: dict[str, list[Device]] = {}
    keys: dict[str, set[str]] = {}
    for row in rows:
        terms = msgspec.json.decode(row["terms"], type=Terms)
        device = Device(row["key"], row["operator"], row["id"], terms)
        keys.setdefault(terms.ticket, set()).add(device.key)
        found.setdefault(device.key, []).append(device)
    # A key that took the place of several tickets is the device of none of them.
    return {
        key: made[0]
        for key, made in found.items()
        if len({each.id for each in made}) == 1 and len(keys[made[0].terms.ticket]) == 1
    }


def _giving(rows: RowsOf, operators: frozenset[str]) -> list[Row]:
    """The grants of everybody who may give: the operators, and whom they gave the right to."""
    direct = [row for key in sorted(operators) for row in rows(folds.GRANT.name, giver=key)]
    to = {str(row["grantee"]) for row in direct if row["verb"] == GRANT}
    return direct + [
        row for key in sorted(to - operators) for row in rows(folds.GRANT.name, giver=key)
    ]


def _given(
    giving: Iterable[Row],
    takers: Mapping[str, set[str]],
    operators: frozenset[str],
    dead: frozenset[str],
) -> tuple[Given, ...]:
    """Every grant that a live key gave and nobody entitled to has taken, by id."""
    given: dict[str, Given] = {}
    for row in giving:
        id_, giver = row["id"], row["giver"]
        # What an operator took stays taken after the operator was revoked.
        taken = bool(takers.get(id_, set()) & (operators | {giver}))
        if giver not in dead and not taken:
            grant = Grant(
                object=row["object"], to=row["grantee"], until_ms=row["until_ms"], verb=row["verb"]
            )
            given[id_] = Given(id_, giver, grant)
    return tuple(given[id_] for id_ in sorted(given))


def _facts(rows: RowsOf) -> dict[MachineId, Facts]:
    """What machines say of themselves, with what those that are new enough say beside it."""
    logins = _newest(rows(folds.LOGINS.name), "machine", "t_ms", "logins")
    reach = _newest(rows(folds.REACH.name), "machine", "t_ms", "reach")
    found: dict[MachineId, Facts] = {}
    for machine, raw in _newest(rows(folds.FACTS.name), "machine", "t_ms", "facts").items():
        facts = msgspec.json.decode(raw, type=Facts)
        if machine in logins:
            told = msgspec.json.decode(logins[machine], type=dict[str, str])
            facts = msgspec.structs.replace(facts, logins=told)
        if machine in reach:
            ways = msgspec.json.decode(reach[machine], type=tuple[Way, ...])
            facts = msgspec.structs.replace(facts, reach=ways)
        found[MachineId(machine)] = facts
    return found


def _groups(rows: RowsOf) -> dict[Scope, dict[MachineId, Member]]:
    """The members of every group; the owner's later stamp counts, across its incarnations."""
    latest: dict[tuple[Scope, str], tuple[int, int, bool, str]] = {}
    groups: dict[Scope, dict[MachineId, Member]] = {}
    for row in rows(folds.GROUP.name):
        scope, owner = _group(str(row["stream"]), row["name"])
        groups[scope] = {owner: Member({})}
    for row in rows(folds.MEMBER.name):
        scope, owner = _group(str(row["stream"]), row["name"])
        groups.setdefault(scope, {owner: Member({})})
        cuts = row["cuts"] if row["since"] == "now" else "{}"
        # At the same stamp a removal counts.
        candidate = (row["t_ms"], row["t_n"], not row["member"], cuts)
        key = (scope, row["machine"])
        latest[key] = max(latest.get(key, candidate), candidate)
    for (scope, machine), (_, _, removed, cuts) in latest.items():
        if not removed and machine not in groups[scope]:
            member = Member(msgspec.json.decode(cuts, type=dict[str, int]))
            groups[scope][MachineId(machine)] = member
    return groups


@lru_cache(maxsize=2 * GROUP_ROWS_OF_KEEPER_MAX)
def _group(stream: str, name: str) -> tuple[Scope, MachineId]:
    owner = StreamName.parse(stream).machine
    return scope_group(owner, name), owner
