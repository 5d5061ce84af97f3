"""Where this machine stands: who it is, who the others are, which streams are its own.

Rule 1: the roster is combined anew from rows whenever an entry about the fleet was folded, and
at no other time; nothing here is believed because somebody said it on a link.
Rule 2: an incarnation is chosen in one place, `renewed`, and every stream of ours carries it.
"""

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, Final

from muster.errors import Refused
from muster.fleet.assembly import assemble
from muster.fleet.facts import Facts
from muster.fleet.folds import (
    FACTS,
    GROUP,
    LOGINS,
    MACHINE,
    MEMBER,
    OPERATOR,
    REACH,
    REVOKED,
    WAKE,
    MemberRow,
)
from muster.fleet.kinds import MACHINE_OPEN, MachineOpen
from muster.fleet.machine import Identity
from muster.fleet.record import open_record
from muster.fleet.roster import Roster
from muster.limits import (
    GROUP_BYTES_OF_KEEPER_MAX,
    GROUP_ROWS_OF_KEEPER_MAX,
    NAMES_REMEMBERED_MAX,
    NOOP_SLOTS,
    STREAMS_READ_WHOLE_MAX,
)
from muster.log.entry import Entry
from muster.log.fold import R, Skip, Table, body_as
from muster.log.keys import Signer
from muster.log.stream import FLEET, FleetId, Incarnation, MachineId, Scope, StreamName
from muster.store.store import Store
from muster.store.table_reader import EVERY_ROW
from muster.task.route import NOOP, Machine

# What a machine may keep much of, in which order the newest of it comes first, and what is large.
_NEWEST: Final[dict[Table[Any], tuple[tuple[str, ...], str]]] = {
    GROUP: (("t_ms",), "name"),
    MEMBER: (("t_ms", "t_n"), "cuts"),
}

# Documents of which the newest for each key counts.
_ONE_COUNTS: Final[tuple[Table[Any], ...]] = (
    MACHINE, FACTS, LOGINS, REACH, WAKE, REVOKED, OPERATOR,
)  # fmt: skip

_STAMP: Final = attrgetter("t_ms", "t_n")


class Membership:
    """Our identity and the roster; `changed` after each entry about the fleet."""

    def __init__(
        self, fleet: FleetId, identity: Identity, store: Store, incarnation: Incarnation
    ) -> None:
        self.fleet = fleet
        self.identity = identity
        self.machine: MachineId = identity.machine
        self.incarnation = incarnation
        self._store = store
        self._roster: Roster | None = None
        # What the listeners were told last.
        self._told: Roster | None = None
        self._signers: dict[str, Signer] = {}
        self._own: dict[Scope, StreamName] = {}
        self._keys: dict[tuple[MachineId, str], bytes | None] = {}
        # By keeper: thread, machine, and the removal as a row.
        self._left_out: dict[MachineId, dict[tuple[str, str], MemberRow]] = {}
        self._holders: dict[tuple[StreamName, MachineId], bool] = {}
        self.on_change: list[Callable[[Roster, Roster | None], object]] = []

    @property
    def roster(self) -> Roster:
        if self._roster is None:
            self._roster = assemble(self.fleet, self._rows, self._store.tables.distinct)
        return self._roster

    def _rows(self, table: Table[R], /, **equals: Any) -> Iterable[R]:
        """The folded rows, and of memberships the removals beyond the ends of forked streams.

        All that count: cut anywhere, whoever writes much would take back what others shut out. A
        document counts once, in however many streams a machine says it again.
        """
        many = self._store.log.stream_count > STREAMS_READ_WHOLE_MAX
        if table in _NEWEST and not equals:
            found = self._newest_of_each(table)
        elif many and table in _ONE_COUNTS:
            found = self._store.tables.newest(table)
        else:
            found = self._store.tables.rows(table, limit=EVERY_ROW, **equals)
        if table is MEMBER:
            removed: list[Any] = [row for of in self._left_out.values() for row in of.values()]
            found += removed
        return found

    def _newest_of_each(self, table: Table[R]) -> list[R]:
        """Of each keeper so many rows, the newest: all that are older are of nobody who is in.

        For of a thread and a machine the newest row counts: where it is cut off, so are the others.
        """
        store, most, bytes_max = self._store, GROUP_ROWS_OF_KEEPER_MAX, GROUP_BYTES_OF_KEEPER_MAX
        order, column = _NEWEST[table]
        count, size = store.tables.weight(table, column)
        if count <= most and size <= bytes_max:
            return store.tables.rows(table, limit=most)
        keepers = sorted({stream.machine for stream in store.log.streams()})
        return [
            row
            for keeper in keepers
            for row in store.tables.newest_within(
                table, keeper, by=order, limit=most, column=column, most=bytes_max
            )
        ]

    def left_out(self, stream: StreamName, rows: Sequence[MemberRow]) -> None:
        """Whom the keeper of threads removed beyond the end of its stream: the newest.

        It counts from the next `stale` or `changed` on: of many streams that end the roster is
        combined once.
        """
        if not rows:
            return
        kept = self._left_out.get(stream.machine, {})
        for row in rows:
            key = (row.name, row.machine)
            kept[key] = max(kept.get(key, row), row, key=_STAMP)
        if len(kept) > GROUP_ROWS_OF_KEEPER_MAX:
            newest = sorted(kept.items(), key=lambda each: _STAMP(each[1]), reverse=True)
            kept = dict(newest[:GROUP_ROWS_OF_KEEPER_MAX])
        self._left_out[stream.machine] = kept

    def left_out_ms(self, keeper: str, thread: str, machine: str) -> list[int]:
        """When that was, where a machine is among them; at most one time."""
        rows = self._left_out.get(MachineId(keeper), {})
        row = rows.get((thread, machine))
        return [] if row is None else [row.t_ms]

    def stale(self) -> None:
        """Rows about the fleet changed; whoever asks from now on gets what they say now."""
        self._roster = None
        self._keys.clear()
        self._holders.clear()

    def tell(self) -> None:
        """Tell whoever listens, if anything went stale since they were told."""
        if self._roster is None or self._roster is not self._told:
            before, self._told = self._told, self.roster
            for listener in self.on_change:
                listener(self.roster, before)

    def changed(self) -> None:
        """Rows about the fleet changed: combine them anew and tell whoever listens."""
        self.stale()
        self.tell()

    def renewed(self, incarnation: Incarnation) -> None:
        """From here on we write streams of another incarnation."""
        self.incarnation = incarnation
        self._own.clear()

    def own(self, scope: Scope) -> StreamName:
        """Our stream of a scope, in the present incarnation."""
        found = self._own.get(scope)
        if found is None:
            found = self._own[scope] = StreamName(self.machine, self.incarnation, scope)
        return found

    def signer(self, purpose: str) -> Signer:
        found = self._signers.get(purpose)
        if found is None:
            found = self._signers[purpose] = self.identity.signer(purpose)
        return found

    def key_of(self, machine: MachineId, purpose: str) -> bytes | None:
        """A machine's public sub-key; None for a machine nobody vouched for."""
        key = (machine, purpose)
        if key not in self._keys:
            # Names of machines that are none come from anybody.
            if len(self._keys) >= NAMES_REMEMBERED_MAX:
                self._keys.clear()
            if machine == self.machine:
                self._keys[key] = self.signer(purpose).public
            else:
                record = self.roster.known.get(machine)
                self._keys[key] = None if record is None else record.key(purpose)
        return self._keys[key]

    def introduced(self, stream: StreamName, first: Entry) -> bytes | None:
        """The seal key in the CA-signed record with which an unknown machine opens its stream.

        Raises: Refused where the record is not of that machine.
        """
        if first.header.kind != MACHINE_OPEN or stream.scope != FLEET:
            return None
        try:
            body = body_as(first, MachineOpen)
        except Skip as skip:
            raise Refused(f"{stream} opens with an entry that names no machine") from skip
        record = open_record(body.record.encode(), self.fleet)
        if record.machine != stream.machine:
            raise Refused(f"{stream} opens with the record of another machine")
        return record.key("seal")

    def may_hold(self, stream: StreamName, machine: MachineId) -> bool:
        found = self._holders.get((stream, machine))
        if found is None:
            if len(self._holders) >= NAMES_REMEMBERED_MAX:
                self._holders.clear()
            found = self._holders[stream, machine] = self.roster.may_hold(stream, machine)
        return found

    def candidate(self, machine: MachineId) -> Machine:
        """A machine as the routing reads it; one that said nothing yet fits nothing."""
        facts = self.roster.facts.get(machine, Facts("", ""))
        slots = {"": facts.slots, NOOP: NOOP_SLOTS}
        return Machine(machine, self.name_of(machine), facts, slots)

    def revocation(self, key: str) -> str:
        """The document that shuts a key out, "" when there is none here."""
        for row in self._store.tables.rows(REVOKED, key=key, limit=1):
            return row.revocation
        return ""

    def name_of(self, machine: str) -> str:
        """What people call a machine; its short id where nobody named it."""
        record = self.roster.known.get(MachineId(machine))
        return machine[:12] if record is None else record.name
