"""A copy names a version that has its bytes only while that is on the disk, or was a moment ago."""

import pytest
from tests.promise import proves

from muster.log.entry import EntryId
from muster.node.folders import holders
from muster.node.folders.basis import Base
from muster.node.folders.disk import Signature
from muster.node.folders.holders import MOMENT_MS, Holders
from muster.node.host import clock

ONE, TWO = EntryId(b"1" * 32), EntryId(b"2" * 32)
THERE = Signature(1, 1, 1, 0)


def base(digest: bytes, holder: EntryId) -> Base:
    return Base(THERE, digest, said_x=False, over=frozenset(), holder=holder)


@pytest.fixture
def boot(monkeypatch):
    now = [1_000]
    monkeypatch.setattr(holders.clock, "boot_ms", lambda: now[0])
    assert clock.boot_ms() == 1_000
    return now


@proves("context.let-go-changes-nothing-that-counts")
def test_what_was_replaced_is_named_for_a_moment_and_then_no_more(boot):
    bases = {"n.md": base(b"a", ONE)}
    found = Holders(bases)
    assert found.of(b"a") == ONE
    bases["n.md"] = base(b"b", TWO)
    found.look("n.md")
    assert (found.of(b"a"), found.of(b"b")) == (ONE, TWO)
    boot[0] += MOMENT_MS
    assert (found.of(b"a"), found.of(b"b")) == (None, TWO)


def test_another_file_with_the_same_bytes_has_them_still(boot):
    bases = {"n.md": base(b"a", ONE), "m.md": base(b"a", TWO)}
    found = Holders(bases)
    del bases["n.md"]
    found.look("n.md")
    boot[0] += MOMENT_MS
    assert found.of(b"a") == TWO


def test_what_became_another_file_unheard_is_named_no_more(boot):
    """What got its place back is told to nobody."""
    bases = {"n.md": base(b"a", ONE)}
    found = Holders(bases)
    bases["n.md"] = base(b"b", TWO)
    assert found.of(b"a") is None
