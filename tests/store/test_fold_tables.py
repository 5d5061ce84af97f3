"""Where rows lie: what a commit writes of a table is what changed, not how large the table is."""

import random
from typing import NamedTuple

import apsw
from tests.promise import proves

from muster.log.fold import Table
from muster.log.stream import FLEET, Incarnation, MachineId, StreamName
from muster.log.tree import Range
from muster.store.fold_tables import FoldTable
from muster.store.sqlite import Database
from muster.store.streams import Head

ROWS, CHANGED = 8_000, 50
STREAM = StreamName(MachineId("a" * 64), Incarnation("0" * 32), FLEET)


class Row(NamedTuple):
    stream: StreamName
    id: str
    state: str
    text: str


def pages_of_a_commit(path, *, ids):
    """Pages that the commit writes in which the newest of many rows change."""
    database, draw = Database(path), random.Random(7)
    heads = {1: Head(1, STREAM, 0, 0, Range(), None)}
    table = FoldTable(database, heads, Table("job", Row, ids=ids))
    table.create()
    keys = [(1, draw.randbytes(16).hex()) for _ in range(ROWS)]
    database.begin()
    for number, key in enumerate(keys):
        table.put(key, Row(STREAM, key[1], "open", "x" * 200), number, 0)
    table.flush()
    database.commit()
    database.begin()
    for number, key in enumerate(keys[-CHANGED:], ROWS):
        table.put(key, Row(STREAM, key[1], "done", "x" * 200), number, 0)
    table.flush()
    connection = database._connection
    before = connection.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE)[0]
    database.commit()
    written = connection.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE)[0] - before
    database.close()
    return written


@proves("store.tables.rows-as-they-came")
def test_rows_keyed_by_ids_are_written_beside_what_came_with_them(tmp_path):
    """A task wrote thirteen pages of four kilobytes once there were many; half of that is enough."""
    together = pages_of_a_commit(tmp_path / "together.db", ids=True)
    apart = pages_of_a_commit(tmp_path / "apart.db", ids=False)
    assert together < CHANGED // 2 < CHANGED < apart
