"""Who was shown what becomes rows, and no row holds a word."""

import pytest
from tests.memory.world import ALICE
from tests.promise import proves
from tests.task.world import MemoryRows

from muster import limits
from muster.errors import Malformed
from muster.log import canon
from muster.log.clock import Stamp
from muster.log.entry import compose
from muster.log.fold import Skip
from muster.log.kind import kind_of
from muster.log.stream import FLEET, JOURNAL, Incarnation, Scope, StreamName
from muster.memory.kinds import MemoryRead, check_read
from muster.memory.showing import READ, SHOWN, MemoryReadFold

ONE, TWO, THREE = "1" * 64, "2" * 64, "3" * 64


def fold(body: MemoryRead, scope: Scope = JOURNAL) -> MemoryRows:
    rows = MemoryRows(ALICE)
    rows.stream = StreamName(ALICE, Incarnation("1" * 32), scope)
    raw = canon.encode(body)
    kind = kind_of(MemoryRead)
    entry = compose(rows.stream, 0, Stamp(1000, 0), kind, "claude@build", [], raw, b"s" * 16)
    rows.apply(MemoryReadFold().apply(entry, rows))
    return rows


@proves("memory.shown-is-written-down")
def test_a_showing_is_a_row_for_itself_and_one_for_each_thing_shown_in_its_order():
    body = MemoryRead(
        "start", [TWO], task="ab", epoch=(1, 7), shown=[ONE, TWO, THREE], outside=True
    )
    rows = fold(body)
    (row,) = rows.every(READ)
    assert (row.reader, row.why, row.actor, row.outside, row.at_ms) == (
        "ab/1-7", "start", "claude@build", 1, 1000,
    )  # fmt: skip
    shown = [(each.n, each.shown.hex(), each.reader) for each in rows.every(SHOWN)]
    assert shown == [(0, ONE, "ab/1-7"), (1, TWO, "ab/1-7"), (2, THREE, "ab/1-7")]


@proves("memory.shown-is-written-down")
def test_what_is_not_shown_in_an_order_of_its_own_is_shown_in_that_of_its_versions():
    rows = fold(MemoryRead("get", [TWO, ONE], session="s1"))
    assert [row.reader for row in rows.every(READ)] == ["session/s1"]
    assert [row.shown.hex() for row in rows.every(SHOWN)] == [TWO, ONE]


@proves("memory.bad-ones-are-skipped")
@pytest.mark.parametrize(
    "body",
    [
        MemoryRead("get", ["no id"]),
        MemoryRead("get", [ONE] * (limits.MEMORY_SHOWN_MAX + 1)),
        MemoryRead("get", shown=[ONE] * (limits.MEMORY_SHOWN_MAX + 1)),
        MemoryRead("get", query="q" * (limits.MEMORY_LINE_CHARS_MAX + 1)),
        MemoryRead("start", sha256="ab"),
        MemoryRead("start", parts=[-1]),
        MemoryRead("start", parts=[0] * 30),
    ],
)
def test_a_showing_that_cannot_be_used_is_skipped(body):
    with pytest.raises(Malformed):
        check_read(body)
    with pytest.raises(Skip) as skip:
        fold(body)
    assert skip.value.reason == "bad-memory"


@proves("memory.shown-is-written-down")
def test_a_showing_that_others_would_get_is_none():
    with pytest.raises(Skip) as skip:
        fold(MemoryRead("get", [ONE]), FLEET)
    assert skip.value.reason == "wrong-scope"
