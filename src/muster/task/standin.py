"""Who goes on with a machine's work when that is gone: said by an operator, before it happens.

Rule 1: a `fleet.standin` holds the order as it was taken, and its writer is the machine that took
it: what it says is checked against the order here, and who may order by whoever reads the row.
Rule 2: an order names the one that it replaces, by its id, and that is signed with it. Of several
about one machine the one with the longest chain behind it counts (node/tasks/standins.py): no
clock has a part in it. `by` is "" where nobody is to go on with its work.
Rule 3: where `others` are named as well, whoever of them all is elected does it (election.py), and
goes on, too, with what another one of them went on with of that machine's work.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import Annotated, Final, NamedTuple

from msgspec import Meta

from muster.errors import MusterError
from muster.fleet.statement import Statement, check_order, open_statement
from muster.limits import (
    STANDIN_AFTER_MS,
    STANDIN_AFTER_MS_MAX,
    STANDIN_AFTER_MS_MIN,
    STANDINS_MAX,
)
from muster.log.entry import Entry, EntryId
from muster.log.fold import Rows, Skip, Table, body_as
from muster.log.kind import kind
from muster.log.stream import FleetId, MachineId, StreamName
from muster.task.kinds import Body, MachineWord

STANDIN: Final = "standin"
NOBODY: Final = "nobody"

After = Annotated[int, Meta(ge=STANDIN_AFTER_MS_MIN, le=STANDIN_AFTER_MS_MAX, multiple_of=1000)]


OrderWord = Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")]


@kind("fleet.standin")
class FleetStandin(Body, frozen=True):
    """`by`, or of `by` and `others` who is elected, goes on with the work of `machine` when nothing
    was heard of that for so long.
    """

    machine: MachineWord
    statement: str
    by: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""
    after_ms: After = STANDIN_AFTER_MS
    replaces: OrderWord = ""
    others: Annotated[tuple[MachineWord, ...], Meta(max_length=STANDINS_MAX)] = ()

    @property
    def named(self) -> tuple[str, ...]:
        """All who may go on with the work, the one first who does without a quorum."""
        return (self.by, *self.others) if self.by else ()


class StandinRow(NamedTuple):
    """An order about who stands in for a machine; `order` is its id, `replaces` that of another.

    `others` are the further ones that are named, with spaces between them.
    """

    stream: StreamName
    machine: str
    order: str
    replaces: str
    by: str
    after_ms: int
    operator: str
    entry: EntryId
    others: str

    @property
    def named(self) -> tuple[str, ...]:
        """As `FleetStandin.named`."""
        return (self.by, *self.others.split()) if self.by else ()


STANDINS: Final = Table("standin", StandinRow, key=2)


def standin_args(
    machine: str, by: str, after_ms: int, replaces: str = "", others: Iterable[str] = ()
) -> dict[str, str]:
    """What an operator signs as arguments of `standin`."""
    args = {"machine": machine, "by": by or NOBODY, "after": f"{after_ms // 1000}s"}
    args |= {"replaces": replaces} if replaces else {}
    return args | ({"others": ",".join(others)} if others else {})


def order_of(body: FleetStandin) -> str:
    """The id of an order, by which another one names it."""
    return sha256(body.statement.encode()).hexdigest()


def ordered(entry: Entry, body: FleetStandin, fleet: FleetId) -> Statement:
    """The order behind it. Raises: MusterError where it is none of just that, for its writer."""
    statement, author = open_statement(body.statement.encode(), fleet), entry.header.author
    check_order(
        statement, verb=STANDIN, object=body.machine, machine=MachineId(author),
        args=standin_args(body.machine, body.by, body.after_ms, body.replaces, body.others),
        now_ms=min(entry.header.t[0], statement.until_ms),
    )  # fmt: skip
    return statement


class StandinFold:
    """The stream of a machine that was ordered to write it down."""

    name = "standin"
    tables = (STANDINS,)
    kinds = frozenset({"fleet.standin"})

    def __init__(self, fleet: FleetId) -> None:
        self._fleet = fleet

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        body = body_as(entry, FleetStandin)
        try:
            statement = ordered(entry, body, self._fleet)
        except MusterError as error:
            raise Skip("standin-not-ordered") from error
        order = order_of(body)
        if rows.get(STANDINS, body.machine, order) is not None:
            raise Skip("standin-again")
        return (
            StandinRow(
                rows.stream, body.machine, order, body.replaces, body.by, body.after_ms,
                statement.operator, entry.id, " ".join(body.others),
            ),
        )  # fmt: skip
