"""Live sessions become rows, of the machine whose private stream says so alone."""

from typing import NamedTuple

import pytest
from tests.promise import proves
from tests.task.world import MemoryRows

from muster.log import canon
from muster.log.clock import Stamp
from muster.log.entry import compose
from muster.log.fold import Skip
from muster.log.stream import FLEET, JOURNAL, Scope
from muster.message.session import SessionFold, SessionState

FINE = SessionState("shop-3fa9", "claude", "0a1b", "/home/ann/shop", "main")


def folded(body: object, scope: Scope = JOURNAL) -> list[NamedTuple]:
    rows = MemoryRows("a" * 64)
    rows.stream = rows.stream._replace(scope=scope)
    raw = canon.encode(body)
    entry = compose(rows.stream, 0, Stamp(7, 0), "session.state", "muster", [], raw, bytes(16))
    return list(SessionFold().apply(entry, rows))


def test_a_session_is_a_row_under_its_name():
    (row,) = folded(FINE)
    assert row[1:] == ("shop-3fa9", "claude", "0a1b", "/home/ann/shop", "main", "open", "open", 7)


@proves("session.private")
def test_a_session_in_a_stream_that_others_read_counts_for_nothing():
    with pytest.raises(Skip, match="wrong-scope"):
        folded(FINE, FLEET)


@proves("hook.odd-input")
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (SessionState("Shop", "claude", "1"), "bad-session"),
        (SessionState("shop-1", "", "1"), "bad-session"),
        (SessionState("shop-1", "claude", ""), "bad-session"),
        (SessionState("shop-1", "claude", "1", branch="b" * 201), "bad-session"),
        ({"session": "shop-1"}, "bad-body"),
        ({"session": "shop-1", "agent": "claude", "own": "1", "mode": "loud"}, "bad-body"),
    ],
)
def test_what_is_no_session_is_skipped(body, reason):
    with pytest.raises(Skip, match=reason):
        folded(body)
