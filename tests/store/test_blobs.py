"""Blobs: whole, checked, and never outside their folder."""

import hashlib

import pytest
from tests.promise import proves

from muster.errors import Broken, Forged, Malformed, NotFound
from muster.store import durable
from muster.store.blobs import Blobs

DATA = b"a large artefact"
NAME = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def blobs(tmp_path):
    return Blobs(tmp_path / "blobs")


@proves("store.blob")
def test_a_blob_is_kept_under_its_hash(blobs):
    assert blobs.put(DATA) == NAME
    assert blobs.put(DATA, NAME) == NAME
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

    monkeypatch.setattr(durable, "sync_handle", full)
    with pytest.raises(Broken, match="No space left"):
        blobs.put(DATA)
    assert not blobs.has(NAME)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@proves("store.blob-rot")
def test_a_blob_that_came_as_other_bytes_is_refused(blobs):
    with pytest.raises(Forged):
        blobs.put(b"other", NAME)
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
