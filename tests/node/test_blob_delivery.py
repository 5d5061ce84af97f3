"""From an agent's folder to blobs and back: what it made, not what it points at."""

import contextlib
import io
import os
import socket
import tarfile

import pytest
from tests.promise import proves

from muster import limits
from muster.errors import Broken, Conflict, Malformed, Refused
from muster.node.attempts import deliverables
from muster.node.attempts.deliverables import Target, collect
from muster.store.blobs import Blobs
from muster.task.artefact import Artefact


@pytest.fixture
def blobs(tmp_path):
    return Blobs(tmp_path / "blobs")


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "work"
    (made / "out/deep").mkdir(parents=True)
    (made / "out/empty").mkdir()
    (made / "out/deep/b").write_text("two")
    (made / "out/a").write_text("one")
    (made / "tool").write_text("#!/bin/sh\n")
    (made / "tool").chmod(0o755)
    (made / "plain.txt").write_text("plain")
    return made


def tree(folder):
    return {
        str(p.relative_to(folder)): (
            p.read_bytes() if p.is_file() else None,
            p.stat().st_mode & 0o100,
        )
        for p in folder.rglob("*")
    }


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


# --- in ------------------------------------------------------------------------------------------


@proves("node.blob-delivery-round")
def test_what_was_delivered_is_placed_as_it_was(folder, blobs, tmp_path):
    found = collect(folder, ["out/", "tool", "plain.txt"], blobs)
    assert [(a.path, a.shape) for a in found] == [
        ("out", "folder"), ("plain.txt", "file"), ("tool", "program"),
    ]  # fmt: skip
    target = Target(tmp_path / "there")
    for each in found:
        target.place(each, blobs)
    assert tree(tmp_path / "there") == tree(folder)


@proves("node.blob-delivery-round")
def test_a_folder_is_the_same_blob_whenever_and_wherever_it_was_made(folder, blobs, tmp_path):
    (first,) = collect(folder, ["out"], blobs)
    os.utime(folder / "out/a", (1, 1))
    (folder / "out/a").rename(folder / "out/x")
    (folder / "out/x").rename(folder / "out/a")
    (folder / "out/a").chmod(0o600)
    assert collect(folder, ["out"], Blobs(tmp_path / "other")) == [first]


@proves("node.blob-delivery-round")
def test_what_lies_in_a_delivered_folder_travels_once(folder, blobs):
    assert [a.path for a in collect(folder, ["out/a", "out", "out"], blobs)] == ["out"]


@proves("node.blob-delivery-no-links")
@pytest.mark.parametrize("path", ["link", "door/secret", "out", "pipe", "socket"])
def test_a_link_or_a_pipe_is_not_delivered(folder, blobs, tmp_path, path):
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "secret").write_text("seed")
    (folder / "link").symlink_to(secrets / "secret")
    (folder / "door").symlink_to(secrets)
    (folder / "out/link").symlink_to(secrets / "secret")
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listening, contextlib.chdir(folder):
        listening.bind("socket")
        why = r"neither a file nor a folder" if path in {"pipe", "socket"} else "link"
        with pytest.raises(Refused, match=why):
            collect(folder, [path], blobs)
    assert files(tmp_path / "blobs") == []


@proves("node.blob-delivery-bounds")
def test_more_than_may_travel_is_refused_and_nothing_is_kept(folder, blobs, tmp_path, monkeypatch):
    monkeypatch.setattr("muster.store.blobs.BLOB_BYTES_MAX", 4)
    monkeypatch.setattr(Blobs.incoming, "__defaults__", (4,))
    with pytest.raises(Refused, match=r"plain\.txt is more than"):
        collect(folder, ["plain.txt"], blobs)
    with pytest.raises(Refused, match="out is more than"):
        collect(folder, ["out"], blobs)
    assert files(tmp_path / "blobs") == []


@proves("node.blob-delivery-bounds")
def test_too_many_files_or_too_long_names_are_refused(folder, blobs, monkeypatch):
    monkeypatch.setattr(limits, "BLOB_FOLDER_ENTRIES_MAX", 2)
    with pytest.raises(Refused, match="more than 2 entries"):
        collect(folder, ["out"], blobs)
    monkeypatch.setattr(limits, "ARTEFACT_NAMES_BYTES_MAX", 100)
    with pytest.raises(Refused, match="too long names"):
        collect(folder, ["plain.txt", "tool"], blobs)


@proves("node.blob-delivery-bounds")
@pytest.mark.parametrize("name", [b"a\nb", b"a:b", b"\xff", b".git"])
def test_a_name_that_not_every_system_takes_is_refused(folder, blobs, name):
    (folder / "out" / os.fsdecode(name)).write_text("x")
    with pytest.raises(Refused, match="in a delivered folder"):
        collect(folder, ["out"], blobs)


# --- out -----------------------------------------------------------------------------------------


def packed(blobs: Blobs, *members: tuple[tarfile.TarInfo, bytes]) -> Artefact:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return Artefact("got", blobs.put(raw.getvalue()), len(raw.getvalue()), "folder")


def member(name: str, type: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = type, link
    return info


@proves("node.blob-delivery-no-links")
@pytest.mark.parametrize(
    "info",
    [
        member("../up"), member("/etc/x"), member("a/../../up"), member("a//b"),
        member("link", tarfile.SYMTYPE, "/etc/passwd"), member("hard", tarfile.LNKTYPE, "../../up"),
        member("pipe", tarfile.FIFOTYPE), member("dev", tarfile.CHRTYPE), member(".git/config"),
        member("sparse", tarfile.GNUTYPE_SPARSE), member("a\nb"), member("C:\\x"),
    ],
)  # fmt: skip
def test_a_tar_that_reaches_out_of_its_folder_is_refused(blobs, tmp_path, info):
    target = Target(tmp_path / "there")
    with pytest.raises((Malformed, Refused)):
        target.place(packed(blobs, (info, b"")), blobs)
    assert files(tmp_path / "there") == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["blobs", "there"]


@proves("node.blob-delivery-no-links")
def test_bytes_that_are_no_tar_are_refused(blobs, tmp_path):
    artefact = Artefact("got", blobs.put(b"x" * 5000), 5000, "folder")
    with pytest.raises(Malformed, match="no tar"):
        Target(tmp_path / "there").place(artefact, blobs)


@proves("node.blob-delivery-no-links")
def test_a_file_is_not_placed_through_a_link(blobs, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "there/door").symlink_to(tmp_path / "elsewhere")
    artefact = Artefact("door/x", blobs.put(b"x"), 1)
    with pytest.raises(Refused, match="link"):
        Target(tmp_path / "there", force=True).place(artefact, blobs)
    assert files(tmp_path / "elsewhere") == []


@proves("node.blob-delivery-replaces-nothing")
def test_what_is_there_stays_unless_replacing_was_asked_for(blobs, tmp_path):
    artefact, there = Artefact("x", blobs.put(b"new"), 3), tmp_path / "there"
    there.mkdir()
    (there / "x").write_text("old")
    for act in (lambda t: t.check([artefact]), lambda t: t.place(artefact, blobs)):
        with pytest.raises(Conflict, match="is there already"):
            act(Target(there))
    assert (there / "x").read_text() == "old"
    Target(there, force=True).place(artefact, blobs)
    assert (files(there), (there / "x").read_text()) == (["x"], "new")


@proves("node.blob-delivery-replaces-nothing")
def test_a_link_that_is_replaced_is_replaced_itself(blobs, tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "there").mkdir()
    (tmp_path / "there/x").symlink_to(tmp_path / "mine")
    Target(tmp_path / "there", force=True).place(Artefact("x", blobs.put(b"new"), 3), blobs)
    assert (tmp_path / "mine").read_text() == "mine"


@proves("node.blob-delivery-replaces-nothing")
def test_a_rotten_blob_is_not_placed(blobs, tmp_path):
    artefact = Artefact("x", blobs.put(b"good"), 4)
    blobs._path(artefact.sha256).write_bytes(b"evil")
    with pytest.raises(Broken, match="rotted"):
        Target(tmp_path / "there").place(artefact, blobs)
    assert files(tmp_path / "there") == []


@proves("node.blob-delivery-round")
def test_what_was_promised_and_is_not_there_is_named(folder):
    assert deliverables.missing(folder, ["plain.txt", "out/", "no", "out/no"]) == ["no", "out/no"]
