"""Blobs: whole, checked, and never outside their folder."""

import hashlib
import os

import pytest
from tests.promise import proves

from muster import atomic_file
from muster.errors import Broken, Exhausted, Forged, Malformed, NotFound
from muster.store.blobs import Blobs

DATA = b"a large artefact"
NAME = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def blobs(tmp_path):
    return Blobs(tmp_path / "blobs")


@proves("store.blob")
def test_a_blob_is_kept_under_its_hash(blobs):
    assert blobs.put(DATA) == NAME
    assert blobs.put(DATA) == NAME
    assert (blobs.get(NAME), blobs.has(NAME), list(blobs)) == (DATA, True, [NAME])
    blobs.drop(NAME)
    blobs.drop(NAME)
    assert not blobs.has(NAME)
    with pytest.raises(NotFound):
        blobs.get(NAME)


@proves("store.blob")
def test_a_write_that_fails_leaves_nothing(blobs, tmp_path, monkeypatch):
    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_file, "sync_handle", full)
    with pytest.raises(Exhausted, match="No space left"):
        blobs.put(DATA)
    assert not blobs.has(NAME)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@proves("store.blob-rot")
def test_a_blob_that_came_as_other_bytes_is_refused(blobs):
    with blobs.incoming() as arriving, pytest.raises(Forged):
        arriving.write(b"other")
        arriving.keep(NAME)
    assert list(blobs) == []


@proves("store.blob-rot")
def test_a_blob_that_rotted_is_refused_and_healed_by_putting_it_again(blobs, tmp_path):
    blobs.put(DATA)
    (path,) = (tmp_path / "blobs").glob("??/*")
    path.write_bytes(DATA[:-1] + b"?")
    with pytest.raises(Broken, match="rotted"):
        blobs.get(NAME)
    blobs.put(DATA)
    assert blobs.get(NAME) == DATA


@proves("store.blob-name")
@pytest.mark.parametrize("name", ["", "../x", "a" * 63, "A" * 64, "/" * 64, "a" * 64 + "\n"])
def test_a_name_that_is_no_hash_is_refused(blobs, name):
    for act in (blobs.get, blobs.has, blobs.drop):
        with pytest.raises(Malformed):
            act(name)


@proves("store.blob-incoming")
def test_a_blob_that_comes_in_pieces_is_kept_once_it_is_whole(blobs, tmp_path):
    with blobs.incoming() as incoming:
        for at in range(0, len(DATA), 5):
            incoming.write(DATA[at : at + 5])
        assert not blobs.has(NAME)
        assert incoming.keep(NAME, len(DATA)) == NAME
    assert b"".join(blobs.read(NAME)) == DATA
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [NAME[2:]]


@proves("store.blob-incoming")
@pytest.mark.parametrize(
    ("size_max", "sha256", "size", "error"),
    [(3, NAME, 3, Malformed), (99, "0" * 64, len(DATA), Forged), (99, NAME, 3, Forged)],
)
def test_pieces_that_are_not_what_was_announced_leave_nothing(
    blobs, tmp_path, size_max, sha256, size, error
):
    with pytest.raises(error), blobs.incoming(size_max) as incoming:
        incoming.write(DATA)
        incoming.keep(sha256, size)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


@proves("store.blob-incoming")
def test_a_disk_that_fails_while_a_blob_comes_in_leaves_nothing(blobs, tmp_path, monkeypatch):
    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("muster.store.blobs.sync_handle", full)
    with pytest.raises(Exhausted, match="No space left"), blobs.incoming() as incoming:
        incoming.write(DATA)
        incoming.keep()
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


@proves("store.blob-claims")
def test_claims_are_kept_beside_a_blob_and_go_with_it(blobs, tmp_path):
    blobs.put(DATA)
    for claim in ("entry one", "entry two", "entry one"):
        blobs.claim(NAME, claim)
    assert (blobs.claims(NAME), list(blobs)) == (("entry one", "entry two"), [NAME])
    blobs.drop(NAME)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    assert blobs.claims(NAME) == ()


@proves("store.blob-claims")
def test_a_sweep_keeps_what_a_claim_confirms_and_removes_the_rest(blobs, tmp_path):
    other = blobs.put(b"other")
    blobs.put(DATA)
    blobs.claim(NAME, "no")
    blobs.claim(NAME, "yes")
    blobs.claim(other, "no")
    (tmp_path / "blobs/.tmp-half").write_bytes(b"half")
    (tmp_path / "blobs" / NAME[:2] / ".tmp-claims").write_bytes(b"half")
    assert blobs.sweep(lambda _name, claim: claim == "yes") == 1
    assert (list(blobs), blobs.claims(NAME)) == ([NAME], ("yes",))
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == 2


@proves("store.blob-claims")
@pytest.mark.parametrize("raw", [b"", b"{", b'{"a": 1}', b"\xff"])
def test_claims_that_cannot_be_read_are_none(blobs, tmp_path, raw):
    blobs.put(DATA)
    (tmp_path / "blobs" / NAME[:2] / f"{NAME[2:]}.claims").write_bytes(raw)
    assert blobs.claims(NAME) == ()


@proves("store.blob-claims")
def test_of_too_many_claims_the_first_and_the_newest_are_kept(blobs, monkeypatch):
    monkeypatch.setattr("muster.store.blobs.BLOB_CLAIMS_MAX", 4)
    blobs.put(DATA)
    for number in range(9):
        blobs.claim(NAME, f"entry {number}")
    assert blobs.claims(NAME) == ("entry 0", "entry 6", "entry 7", "entry 8")


@proves("store.blob-incoming")
def test_of_what_came_in_part_the_newest_stay_and_what_is_gone_on_with(blobs, tmp_path):
    claims = [f"entry {number:064x}" for number in range(9)]
    with blobs.resume(NAME, claims[0], 99) as first:
        first.write(b"a")
        for at, claim in enumerate(claims[1:]):
            with blobs.resume(NAME, claim, 99) as part:
                part.write(b"b")
            (path,) = (tmp_path / "blobs").glob(f".part-*{at + 1:064x}")
            os.utime(path, ns=(at, at))
    left = sorted(p.name[-1] for p in (tmp_path / "blobs").iterdir())
    # The last one was under way when it was looked.
    assert left == ["0", "4", "5", "6", "7", "8"]


@proves("store.blob-incoming")
def test_what_is_gone_on_with_is_bounded_and_leads_nowhere_else(blobs, tmp_path):
    claim = "entry " + "0" * 64
    with blobs.resume(NAME, claim, 99) as part:
        part.write(DATA[:5])
    with blobs.resume(NAME, claim, 4) as part:
        part.go_on()
        assert part.size == 0
    with blobs.resume(NAME, claim, 99) as part:
        part.write(DATA)
        with pytest.raises(Malformed):
            part.write(b"x" * 99)
    assert list((tmp_path / "blobs").iterdir()) == []
    for name, odd in ((NAME, "entry ../x"), ("../x", claim), (NAME, "attempt a 1-1")):
        with pytest.raises(Malformed):
            blobs.resume(name, odd, 99)
