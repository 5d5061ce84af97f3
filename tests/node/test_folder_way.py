"""The folder of a file is held open for the next one, and what is moved meanwhile keeps all it has."""

import errno
import os
from pathlib import Path

import pytest
from tests.node.shared_folders import Shared, SharedFolders
from tests.promise import proves

from muster.node.folders import way
from muster.node.folders.basis import Base
from muster.node.folders.below import ASKED_MAX
from muster.node.folders.disk import Disk, Swapped
from muster.node.folders.reader import Change, Reader
from muster.store.blobs import Blobs


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    (tmp_path / "top" / "sub").mkdir(parents=True)
    for name in ("one.md", "two.md"):
        (tmp_path / "top" / "sub" / name).write_text(name)
    return Disk(tmp_path / "top", (tmp_path / "top").stat().st_ino)


@proves("context.no-way-out")
def test_whoever_takes_a_file_away_goes_the_whole_way_and_moved_folders_keep_theirs(disk, tmp_path):
    with disk.near():
        assert disk.signature("sub/one.md") is not None
        disk.prepare("sub/two.md", "new", [b"new"], x=False, sync=False)
        (disk.top / "sub").rename(tmp_path / "saved")
        assert disk.take_away("sub/one.md", "old") == Swapped(None)
        with pytest.raises(FileNotFoundError):
            disk.swap("sub/two.md", "new", expected=True)
    assert (tmp_path / "saved" / "one.md").read_text() == "one.md"
    assert (tmp_path / "saved" / "two.md").read_text() == "two.md"


def test_a_file_is_gone_only_where_the_whole_way_leads_to_none(disk, tmp_path):
    reader = Reader(disk, Blobs(tmp_path / "blobs"), large=False)
    base = Base(disk.signature("sub/one.md"), b"", said_x=False, over=frozenset())
    with disk.near():
        disk.signature("sub/two.md")
        (disk.top / "sub").rename(tmp_path / "saved")
        (tmp_path / "saved" / "one.md").rename(tmp_path / "elsewhere")
        (disk.top / "sub").mkdir()
        (tmp_path / "elsewhere").rename(disk.top / "sub" / "one.md")
        assert reader.look("sub/one.md", base) is None
        found = reader.look("sub/two.md", base)
    assert found == Change("sub/two.md", None, b"", said_x=False, size=0, fields={"gone": 1})


def test_each_folder_of_many_files_is_gone_to_once(disk, monkeypatch):
    gone, enter = list[str](), way.step_into

    def step_into(name: str, folder: int) -> int:
        gone.append(name)
        return enter(name, folder)

    monkeypatch.setattr(way, "step_into", step_into)
    files_open = len(os.listdir("/proc/self/fd"))
    with disk.near():
        for n in range(3):
            for name in ("sub", "more/sub"):
                disk.prepare(f"{name}/{n}.md", f"new{n}", [b"new"], x=False, sync=False)
    # What is not there is tried, made, and then entered.
    assert gone == ["sub", "more", "more", "sub", "sub"]
    assert len(os.listdir("/proc/self/fd")) == files_open


def test_no_more_folders_are_held_open_than_so_many(disk, monkeypatch):
    monkeypatch.setattr(way, "_HELD_MAX", 3)
    files_open = len(os.listdir("/proc/self/fd"))
    with disk.near():
        for n in range(9):
            disk.prepare(f"{n}/n.md", "new", [b"new"], x=False, sync=False)
            assert len(os.listdir("/proc/self/fd")) <= files_open + 4
            assert disk.read(f"{n}/new", 9) == b"new"


def test_a_folder_that_is_taken_away_while_it_is_written_into_is_made_again(disk):
    with disk.near():
        disk.prepare("new/one.md", "first", [b"one"], x=False, sync=False)
        disk.drop("new/one.md", "first")
        (disk.top / "new").rmdir()
        disk.prepare("new/one.md", "second", [b"one"], x=False, sync=False)
        assert disk.swap("new/one.md", "second", expected=False).new is not None
    assert (disk.top / "new" / "one.md").read_text() == "one"


@pytest.fixture
def hub(tmp_path: Path) -> Shared:
    return SharedFolders(tmp_path, "hub", "studio")["hub"]


def begun_when_read(hub: Shared, monkeypatch: pytest.MonkeyPatch, *, fails: str = "") -> list[int]:
    """Of each file that is read: how many batches were being written just then."""
    found, look = list[int](), Reader.look

    def looked(self: Reader, path: str, base: Base | None) -> object:
        found.append(hub.begun)
        if path == fails:
            raise OSError(errno.EIO, "Input/output error")
        return look(self, path, base)

    monkeypatch.setattr(Reader, "look", looked)
    return found


def test_others_have_the_first_files_of_many_before_the_last_are_read(hub, monkeypatch):
    for n in range(2 * ASKED_MAX + 1):
        hub.put(f"d{n % 3}/{n}.md", f"text {n}")
    begun = begun_when_read(hub, monkeypatch)
    hub.look("")
    assert begun == [0] * ASKED_MAX + [1] * (ASKED_MAX + 1)
    assert hub.begun == 0
    assert len(hub.folder.bases) == 2 * ASKED_MAX + 1


def test_what_was_being_written_when_a_disk_fails_is_remembered(hub, monkeypatch):
    for n in range(ASKED_MAX + 1):
        hub.put(f"{n:03}.md", f"text {n}")
    begun_when_read(hub, monkeypatch, fails=f"{ASKED_MAX:03}.md")
    with pytest.raises(OSError, match="Input"):
        hub.look("")
    assert hub.begun == 0
    assert len(hub.folder.bases) == ASKED_MAX


def test_a_name_that_is_just_being_written_is_taken_as_one_that_is_there(hub):
    for name in ("A.md", *(f"B{n}.md" for n in range(ASKED_MAX)), "a.md"):
        hub.put(name, name)
    hub.look("")
    assert "A.md" in hub.folder.left["a.md"]
    assert hub.history("a.md") == []
