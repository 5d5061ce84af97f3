"""A disk with folders that nobody may read, and with numbers that no database holds."""

import errno
import os
from typing import Any

import pytest
from tests.node.shared_folders import SharedFolders
from tests.promise import proves

from muster.node.folders import disk as disks
from muster.node.folders.basis import Aim, Base, Basis
from muster.node.folders.disk import Disk
from muster.node.folders.mapping import Mapped
from muster.node.folders.opening import opened_disk
from muster.node.folders.signature import Signature

DIGEST = b"d" * 32
# Beyond what SQLite holds: an inode of some network file systems, and a time after 2262.
LARGE_INODE = 2**63 + 5
YEAR_2300_NS = 10_413_792_000 * 1_000_000_000


@pytest.fixture
def two(tmp_path):
    return SharedFolders(tmp_path, "hub", "studio")


@pytest.fixture
def locked(monkeypatch):
    """Folders of these inodes can be entered by nobody from here on."""
    inodes, real = set[int](), disks.step_into

    def step_into(name: str, folder: int) -> int:
        if os.stat(name, dir_fd=folder, follow_symlinks=False).st_ino in inodes:
            raise PermissionError(errno.EACCES, "Permission denied", name)
        return real(name, folder)

    monkeypatch.setattr(disks, "step_into", step_into)
    return inodes


# --- folders that nobody may read -----------------------------------------------------------------


@proves("context.nothing-is-lost")
def test_a_folder_that_nobody_may_read_keeps_no_other_one_waiting(two, locked):
    two.edit("hub", "sub/n.md", "one")
    two.edit("hub", "n.md", "one")
    hub = two["hub"]
    locked.add((hub.top / "sub").stat().st_ino)
    hub.put("n.md", "two")
    hub.folder.rescan(everything=False)
    hub.folder.rescan(everything=True)
    hub.look("", "sub", "sub/n.md")
    two.settle()
    assert two.texts("n.md") == ["two", "two"]
    for path in ("sub", "sub/n.md"):
        assert hub.folder.left[path] == "it cannot be read (Permission denied)"
    assert hub.history("sub/n.md") == ["one"], "nobody deleted it"
    two.edit("studio", "sub/n.md", "three")
    two.edit("studio", "sub/new.md", "new")
    hub.begin()
    locked.clear()
    hub.folder.rescan(everything=True)
    two.settle()
    assert two.texts("sub/n.md") == ["three"] * 2
    assert two.texts("sub/new.md") == ["new"] * 2
    assert not hub.folder.left


def test_what_was_under_way_in_a_folder_that_nobody_may_read_is_taken_up_later(two, locked):
    two.edit("hub", "sub/n.md", "one")
    hub = two["hub"]
    (base,) = [base for path, base in hub.folder.bases.items() if path == "sub/n.md"]
    basis = Basis(hub.home / "context.db")
    aim = Aim(".~muster-x", "sub/n.md", DIGEST, said_x=False, made_of=base.over, over=base.over)
    basis.aim("notes", [aim])
    locked.add((hub.top / "sub").stat().st_ino)
    hub.begin()
    assert basis.aims("notes") == [aim]
    locked.clear()
    hub.begin()
    assert basis.aims("notes") == []
    assert two.texts("sub/n.md") == ["one"] * 2


def test_a_folder_is_known_by_any_file_that_can_be_looked_at(two, locked):
    two.edit("hub", "sub/n.md", "one")
    two.edit("hub", "z.md", "one")
    hub = two["hub"]
    inode = hub.top.stat().st_ino
    basis = Basis(hub.home / "context.db")
    mapped = Mapped("notes", str(hub.top), inode)
    opened_disk(basis, mapped)
    basis.on_device("notes", 1 << 20)
    locked.add((hub.top / "sub").stat().st_ino)
    assert opened_disk(basis, mapped).device == hub.top.stat().st_dev


# --- numbers -------------------------------------------------------------------------------------


def test_a_file_of_the_year_2300_is_synced_like_any_other(two):
    hub = two["hub"]
    hub.put("n.md", "one")
    os.utime(hub.top / "n.md", ns=(YEAR_2300_NS, YEAR_2300_NS))
    if (hub.top / "n.md").stat().st_mtime_ns != YEAR_2300_NS:
        pytest.skip("this disk knows no such time")
    hub.look("n.md")
    two.settle()
    assert two["studio"].text("n.md") == "one"
    hub.begin()
    hub.look("", "n.md")
    assert hub.history("n.md") == ["one"]


def test_an_inode_of_sixty_four_bits_is_remembered(tmp_path, monkeypatch):
    (tmp_path / "n.md").write_text("one")
    real = os.stat

    class Large:
        st_ino = LARGE_INODE

        def __init__(self, found: os.stat_result) -> None:
            self._found = found

        def __getattr__(self, name: str) -> Any:
            return getattr(self._found, name)

    disk = Disk(tmp_path, tmp_path.stat().st_ino)
    monkeypatch.setattr(os, "stat", lambda *given, **more: Large(real(*given, **more)))
    signature = disk.signature("n.md")
    monkeypatch.undo()
    base = Base(signature, DIGEST, said_x=False, over=frozenset())
    basis = Basis(tmp_path / "b.db")
    basis.lies_at("notes", "/a", LARGE_INODE)
    basis.save("notes", {"n.md": base})
    basis.lies_at("notes", "/a", LARGE_INODE)
    assert basis.bases("notes") == {"n.md": base}
    basis.lies_at("notes", "/a", LARGE_INODE + 1)
    assert basis.bases("notes") == {}
    assert isinstance(signature, Signature)
