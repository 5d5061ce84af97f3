"""Entries about work that agents hand on become rows: what was asked, and what was answered.

Rule 1: a row of `delegation` is the asker's word in the asker's stream. Whether a run of it counts,
its owner and every worker find out by themselves (evidence.py).
Rule 2: what is counted (how many of an attempt, how many in a day) is counted in the asker's
stream alone: it has one writer, so everybody counts the same.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from muster.log.entry import Entry, EntryId
from muster.log.fold import Rows, Skip, Table, body_as
from muster.log.stream import StreamName
from muster.task.delegation_kinds import DelegationOpen, DelegationRefuse, DelegationWithdraw
from muster.task.identity import run_id


class DelegationRow(NamedTuple):
    stream: StreamName
    run: str
    owner: str
    # What lets the agent: the id of a grant, or of the assignment of its attempt.
    source: str
    actor: str
    session: str
    key: str
    at_ms: int
    seq: int
    entry: EntryId
    # 1 when whoever asked wants it no more.
    withdrawn: int


class RefusedRow(NamedTuple):
    stream: StreamName
    run: str
    reason: str
    at_ms: int
    entry: EntryId


DELEGATION: Final = Table(
    "delegation", DelegationRow, indexes=(("source", "at_ms"), ("owner", "at_ms"), ("at_ms",)),
    ids=True,
)  # fmt: skip
REFUSED: Final = Table("delegation_refused", RefusedRow, ids=True)


class DelegationFold:
    """The stream of a machine that hands on work for its agents."""

    name = "delegation"
    version = 2
    tables = (DELEGATION,)
    kinds = frozenset({"delegation.open", "delegation.withdraw"})

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        if entry.header.kind == "delegation.withdraw":
            known = rows.get(DELEGATION, body_as(entry, DelegationWithdraw).run)
            if known is None:
                raise Skip("no-such-delegation")
            return (known._replace(withdrawn=1),)
        body = body_as(entry, DelegationOpen)
        if body.run != run_id(body.owner, body.statement):
            # Another run's id, which is anybody's to write down: no order of this gives it.
            raise Skip("delegation-other-run")
        if rows.get(DELEGATION, body.run) is not None:
            raise Skip("delegation-exists")
        source = body.grant or (entry.header.cause[0] if entry.header.cause else "")
        return (
            DelegationRow(
                rows.stream, body.run, body.owner, source, entry.header.actor, body.session,
                body.key, entry.header.t[0], entry.header.seq, entry.id, 0,
            ),
        )  # fmt: skip


class RefusalFold:
    """The stream of an owner that was asked and does not begin the run."""

    name = "delegation-refusal"
    tables = (REFUSED,)
    kinds = frozenset({"delegation.refuse"})

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        body = body_as(entry, DelegationRefuse)
        if rows.get(REFUSED, body.run) is not None:
            raise Skip("refused-before")
        return (RefusedRow(rows.stream, body.run, body.reason, entry.header.t[0], entry.id),)
