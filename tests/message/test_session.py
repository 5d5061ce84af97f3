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
from muster.message.session import (
    SessionFold,
    SessionState,
    is_session_name,
    session_name,
    split_address,
)

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


# The folder of a session, and what stands before its digits.
FOLDERS = [
    ("/home/ann/shop", "shop"),
    ("/home/ann/Shop/", "shop"),
    ("/home/ann/my shop (2)", "my-shop-2"),
    ("/home/ann/..", "claude"),
    ("/", "claude"),
    ("", "claude"),
    ("/home/ann/世界", "claude"),
    ("/home/ann/-_-", "claude"),
    (f"/home/{'a' * 60}", "a" * 24),
    (f"/home/{'a' * 23}-b", "a" * 23),
    ("C:\\Users\\ann\\shop", "c-users-ann-shop"),
]


@proves("session.keeps-its-address")
def test_a_session_is_called_by_its_folder_and_has_a_name_that_is_no_other_ones():
    for folder, word in FOLDERS:
        name = session_name("claude", "0a1b", folder, lambda _: False)
        assert name.rpartition("-")[0] == word, folder
        assert len(name) == len(word) + 5
        assert is_session_name("claude", name)
        # Who comes back under its id is called the same, and another id otherwise.
        assert session_name("claude", "0a1b", folder, lambda _: False) == name
        assert session_name("claude", "0a1c", folder, lambda _: False) != name
        assert session_name("codex", "0a1b", folder, lambda _: False) != name
    taken = set[str]()
    for _ in range(29):
        name = session_name("claude", "0a1b", "/shop", taken.__contains__)
        assert name not in taken
        assert is_session_name("claude", name)
        taken.add(name)
    # More digits than these there are not.
    assert session_name("claude", "0a1b", "/shop", lambda _: True) == name == max(taken, key=len)
    for odd in ("shop", "shop-3fa", "shop-3FA9", f"{'a' * 25}-3fa9", "", "../x-3fa9", "a b-3fa9"):
        assert not is_session_name("claude", odd)
    # An agent's own name may be longer than any folder's word.
    long = "an-agent-with-a-very-long-name"
    assert is_session_name(long, session_name(long, "0a1b", "", lambda _: False))
    assert not is_session_name("claude", f"{long}-3fa9")


@proves("session.keeps-its-address")
def test_an_address_is_split_from_its_session():
    assert split_address("claude@studio#shop-3fa9") == ("claude@studio", "shop-3fa9")
    assert split_address("claude@studio") == ("claude@studio", "")
    assert split_address("#") == ("", "")
