"""What this machine knows of who may hand on work, for the chain of causes (task/evidence.py).

Rule 1: what lets an agent ask is looked at as it is now: what was revoked or taken back, or has
ended, begins nothing more. Whose a run is that was begun does not change by that.
Rule 2: what is counted is counted in the asker's own streams, which everybody has alike, in the
order in which they were written or came here: their dates are the asker's to choose.
"""

from bisect import bisect_left
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from muster.errors import MusterError
from muster.fleet import folds
from muster.fleet.assembly import grant_of
from muster.fleet.grant import DELEGATE, FLEET_GRANTEE, TASK, Given, Grant
from muster.fleet.statement import Statement
from muster.limits import DELEGATIONS_MAX
from muster.log.entry import Entry, EntryId
from muster.log.stream import MachineId, StreamName
from muster.node.call.shut_out import is_after, was_told
from muster.node.tasks.one_run import is_begun
from muster.node.tasks.slots import fires, is_removed
from muster.node.tasks.standins import replaced
from muster.task import kinds, template
from muster.task.causes import Lookup, Unproven
from muster.task.delegation_fold import DELEGATION, DelegationRow
from muster.task.evidence import asked_by
from muster.task.spec import parse
from muster.task.standin import STANDIN

if TYPE_CHECKING:
    from muster.node.core import Core


class Asking:
    """See the rules at the top of this file. `ever`: as it was when it was begun."""

    def __init__(self, core: "Core", *, ever: bool = False) -> None:
        self._core, self._ever = core, ever

    def machine_of(self, key: str) -> MachineId | None:
        found = self._core.roster.speaking_for(key)
        return found if self._ever or found in self._core.roster.machines else None

    def grant(self, id: str, machine: MachineId) -> Grant | None:
        roster = self._core.roster
        for each in (*roster.delegating(machine), *self._of_fleets(machine)):
            if each.id == id:
                return each.grant
        if not self._ever or machine not in roster.known:
            return None
        whom = {machine, *roster.known[machine].roles}
        for row in self._core.tables.rows(folds.GRANT, id=id, limit=1):
            fits = row.verb == DELEGATE and row.grantee in whom
            fits = fits or (row.verb == TASK and row.grantee.startswith(FLEET_GRANTEE))
            if fits and row.giver in roster.operators_ever:
                return grant_of(row.grantee, row.verb, row.object, row.until_ms, row.bounds)
        return None

    def _of_fleets(self, machine: MachineId) -> tuple[Given, ...]:
        """What other fleets may ask for, at whichever door of ours."""
        return self._core.roster.asking() if machine in self._core.roster.machines else ()

    def is_first(self, entry: Entry, key: str) -> bool:
        rows = self._core.tables.rows(DELEGATION, writer=entry.header.author, key=key)
        log = self._core.log
        came = [(log.admitted(row.stream, row.seq) or (0, 0), row.entry) for row in rows]
        return bool(came) and min(came)[1] == entry.id

    def is_counted(self, entry: Entry, run: str) -> bool:
        rows = self._core.tables.rows(DELEGATION, stream=entry.stream, run=run)
        return bool(rows) and rows[0].entry == entry.id

    def is_begun(self, opening: Entry, run: kinds.RunOpen) -> bool:
        return is_begun(self._core, opening, run)

    def before(self, entry: Entry, source: str, since_ms: int, most: int) -> int:
        tables, log, found = self._core.tables, self._core.log, 0
        for stream in log.streams():
            if stream.machine != entry.header.author:
                continue
            # Dates are their writer's own, and need not rise: what came before is known here.
            end = entry.header.seq if stream == entry.stream else self._had(stream, entry)
            rows = tables.rows(
                DELEGATION, stream=stream, source=source, order=("-at_ms", "-seq"),
                below={"seq": end}, limit=most,
            )  # fmt: skip
            found += sum(row.at_ms > since_ms for row in rows)
        return found

    def _had(self, stream: StreamName, entry: Entry) -> int:
        """How much of a stream was here when an entry of another one came."""
        log = self._core.log

        def number(of: StreamName, seq: int) -> int:
            return (log.admitted(of, seq) or (0, 0))[0]

        came = number(entry.stream, entry.header.seq)
        return bisect_left(range(log.size(stream)), came, key=partial(number, stream))

    def leads(self, statement: Statement, entry: Entry) -> bool:
        """Raises: Unproven where its key was shut out before this came here."""
        core, key = self._core, statement.operator
        if statement.verb == STANDIN and replaced(core, entry):
            return False
        if not self._ever:
            return key in core.roster.operators
        if is_after(core, entry, key) and not was_told(core, key):
            raise Unproven("key-shut-out", "its key was shut out before this came here")
        return key in core.roster.operators_ever

    def ids(self, name: str) -> str:
        try:
            return self._core.roster.find(name).machine
        except MusterError:
            return name

    def is_removed(self, schedule: str, at_ms: int) -> bool:
        # Whose it is that was begun does not change when its schedule goes.
        return not self._ever and is_removed(self._core, schedule, at_ms)

    def fires(self, schedule: str, slot: int, nonce: str) -> list[EntryId]:
        return fires(self._core, schedule, slot, nonce)

    @staticmethod
    def recompute(run: kinds.RunOpen, phase: str, instance: str) -> dict[str, Any]:
        return template.phase_order(parse(run.spec.encode()), phase, instance, run.values)


def asked_since(
    core: "Core", machine: str, source: str, since_ms: int, most: int = DELEGATIONS_MAX
) -> list[DelegationRow]:
    """What a machine ("" for any) handed on by one source since then, the newest first."""
    its: dict[str, Any] = {"writer": machine} if machine else {}
    rows = core.tables.rows(DELEGATION, source=source, order=("-at_ms", "-seq"), limit=most, **its)
    return [row for row in rows if row.at_ms > since_ms]


def asked_of(lookup: Lookup, opening: Entry) -> Entry | None:
    """The `delegation.open` that the opening of a run answers, None where a person ordered it.

    Anybody can write that it wants a run of this id: only what its owner cites was answered.
    """
    with suppress(Unproven):
        return asked_by(opening, lookup)
    return None


def is_handed_on(lookup: Lookup, opened: EntryId) -> bool:
    """Whether what this opens was handed on by an agent."""
    entry = lookup(opened)
    return entry is not None and asked_of(lookup, entry) is not None
