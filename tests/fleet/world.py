"""A small fleet for tests: an authority, two machines, two operators, and streams to write."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from muster.fleet import kinds
from muster.fleet.assembly import assemble
from muster.fleet.folds import fleet_folds
from muster.fleet.grant import Grant, sign_give, sign_take
from muster.fleet.machine import Authority, Identity, Operator
from muster.fleet.record import (
    MachineRecord,
    open_record,
    sign_binding,
    sign_operator,
    sign_record,
    sign_revocation,
)
from muster.fleet.roster import Roster
from muster.log import canon
from muster.log.clock import Stamp
from muster.log.entry import Entry, compose
from muster.log.fold import R, Skip, Table
from muster.log.stream import FLEET, Incarnation, MachineId, Scope, StreamName

NOW = 1_790_000_000_000
HOUR = 3_600_000
SALT = bytes(16)
NONCE = bytes(range(16))

AUTHORITY = Authority(b"authority".ljust(32))
OTHER_AUTHORITY = Authority(b"other authority".ljust(32))
STUDIO = Identity(b"studio".ljust(32))
BUILD = Identity(b"build".ljust(32))
LAPTOP = Identity(b"laptop".ljust(32))
ALICE = Operator(b"alice".ljust(32))
MALLORY = Operator(b"mallory".ljust(32))
FLEET_ID = AUTHORITY.fleet
ADDRESS = "hub.example:7433"


def record(
    identity: Identity,
    name: str,
    *,
    serial: int = 1,
    roles: tuple[Any, ...] = (),
    authority: Authority = AUTHORITY,
    issued_ms: int = NOW,
) -> MachineRecord:
    binding = sign_binding(identity, authority.fleet, name)
    raw = sign_record(authority, binding, roles=roles, serial=serial, issued_ms=issued_ms)
    return open_record(raw, authority.fleet)


STUDIO_RECORD = record(STUDIO, "studio", roles=("hub",))
BUILD_RECORD = record(BUILD, "build")
LAPTOP_RECORD = record(LAPTOP, "laptop", roles=("mobile",))


def operator(who: Operator, name: str, authority: Authority = AUTHORITY) -> bytes:
    return sign_operator(authority, who.key, name, NOW)


def revocation(
    identity: Identity,
    name: str = "laptop",
    cuts: dict[str, int] | None = None,
    authority: Authority = AUTHORITY,
    issued_ms: int = NOW,
) -> str:
    raw = sign_revocation(
        authority,
        of="machine",
        key=identity.machine,
        name=name,
        cuts=cuts or {},
        reason="lost on a train",
        issued_ms=issued_ms,
    )
    return raw.decode()


def stream(
    identity: Identity | MachineId, scope: Scope = FLEET, incarnation: int = 0
) -> StreamName:
    machine = identity.machine if isinstance(identity, Identity) else identity
    return StreamName(machine, Incarnation(f"{incarnation:032x}"), scope)


def give(
    grant: Grant, by: Operator | Identity = ALICE, nonce: bytes = NONCE, issued_ms: int = NOW
) -> kinds.GrantGive:
    signer = by.statement if isinstance(by, Operator) else by.signer("statement")
    raw = sign_give(signer, FLEET_ID, grant, nonce=nonce, issued_ms=issued_ms)
    return kinds.GrantGive(grant=grant, statement=raw.decode())


def take(grant_id: str, by: Operator = ALICE) -> kinds.GrantTake:
    raw = sign_take(by.statement, FLEET_ID, grant_id, nonce=NONCE, issued_ms=NOW)
    return kinds.GrantTake(id=grant_id, statement=raw.decode())


class _StreamRows:
    def __init__(self, rows: dict[tuple[Any, ...], NamedTuple], stream: StreamName) -> None:
        self.rows = rows
        self.stream = stream

    def get(self, table: Table[R], *key: Any) -> R | None:
        found: Any = self.rows.get((table.name, self.stream, *key))
        return found


class World:
    """The streams of a fleet and their rows, as a store keeps them, without a store."""

    def __init__(self) -> None:
        self.folds = fleet_folds(FLEET_ID)
        self.tables = {table.row: table for fold in self.folds for table in fold.tables}
        self.rows: dict[tuple[Any, ...], NamedTuple] = {}
        self.sizes: dict[StreamName, int] = {}
        self.skipped: list[str] = []

    def write(
        self,
        by: Identity | StreamName,
        kind: str,
        body: Any,
        *,
        now_ms: int = NOW,
        raw_body: bytes | None = None,
        erased: bool = False,
    ) -> Entry:
        name = by if isinstance(by, StreamName) else stream(by)
        seq = self.sizes.get(name, 0)
        self.sizes[name] = seq + 1
        raw = canon.encode(body) if raw_body is None else raw_body
        entry = compose(name, seq, Stamp(now_ms, seq), kind, "muster", [], raw, SALT)
        self.fold(entry.without_body() if erased else entry)
        return entry

    def fold(self, entry: Entry) -> None:
        for fold in self.folds:
            if entry.header.kind not in fold.kinds:
                continue
            try:
                rows = list(fold.apply(entry, _StreamRows(self.rows, entry.stream)))
            except Skip as skip:
                self.skipped.append(skip.reason)
                continue
            for row in rows:
                table = self.tables[type(row)]
                assert row[0] == entry.stream
                for (_, affinity), value in zip(table.columns, row[1:], strict=True):
                    assert type(value) is {"text": str, "int": int, "blob": bytes}[affinity]
                self.rows[table.name, *row[: 1 + table.key]] = row

    def select(self, table: Table[R], /, **equals: str) -> Iterable[R]:
        for row in self.rows.values():
            if isinstance(row, table.row) and equals.items() <= row._asdict().items():
                yield row

    def distinct(
        self, table: Table[Any], columns: tuple[str, ...], /, **equals: str
    ) -> Iterable[tuple[Any, ...]]:
        return dict.fromkeys(
            tuple(getattr(row, name) for name in columns) for row in self.select(table, **equals)
        )

    @property
    def roster(self) -> Roster:
        return assemble(FLEET_ID, self.select, self.distinct)

    def enrol(self, *records: MachineRecord) -> None:
        for each in records:
            body = kinds.MachineRecorded(record=each.raw.decode())
            self.write(STUDIO, kinds.MACHINE_RECORD, body)

    def operator(self, who: Operator, name: str) -> None:
        body = kinds.OperatorRecorded(record=operator(who, name).decode())
        self.write(STUDIO, kinds.OPERATOR_RECORD, body)


def small_fleet() -> World:
    """Studio (the hub), build and laptop are enrolled; Alice is the operator."""
    world = World()
    world.write(STUDIO, kinds.MACHINE_OPEN, kinds.MachineOpen(record=STUDIO_RECORD.raw.decode()))
    world.enrol(BUILD_RECORD, LAPTOP_RECORD)
    world.operator(ALICE, "alice")
    return world
