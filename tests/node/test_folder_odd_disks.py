"""A disk with folders that nobody may read, and with numbers that no database holds."""

import errno
import os
from typing import Any

import pytest
from tests.node.shared_folders import PLACE, SharedFolders
from tests.promise import proves

from muster.context.fold import VERSION
from muster.context.kinds import ContextPut
from muster.node.folders import disk as disks
from muster.node.folders import onestep, way
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

    for module in (disks, way):
        monkeypatch.setattr(module, "step_into", step_into)
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


# --- a disk as FAT has it -------------------------------------------------------------------------


@pytest.fixture
def fat(monkeypatch):
    """No links, no modes, no change of names in one step, no name with a ?, all can be executed."""
    real_stat, real_fstat, real_open = os.stat, os.fstat, os.open

    class Found:
        def __init__(self, found: os.stat_result) -> None:
            self._found = found
            self.st_mode = found.st_mode | 0o111

        def __getattr__(self, name: str) -> Any:
            return getattr(self._found, name)

    def fails(*_given: Any, **_more: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    def opened(name: Any, *given: Any, **more: Any) -> int:
        if isinstance(name, str) and "?" in name:
            raise OSError(errno.EINVAL, "Invalid argument", name)
        return real_open(name, *given, **more)

    def no_sync(_file: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(onestep, "_renamed", lambda *_a, **_k: None)
    for name, what in (
        ("link", fails), ("fchmod", fails), ("open", opened), ("fsync", no_sync),
        ("stat", lambda *a, **k: Found(real_stat(*a, **k))), ("fstat", lambda f: Found(real_fstat(f))),
    ):  # fmt: skip
        monkeypatch.setattr(disks.os, name, what)


@proves("context.same-on-every-disk")
def test_a_disk_without_modes_links_and_some_names_has_what_others_have(tmp_path, fat):
    two = SharedFolders(tmp_path, "hub", "studio")
    two.edit("hub", "sub/n.md", "one")
    assert two.texts("sub/n.md") == ["one"] * 2
    two.edit("studio", "sub/n.md", "two")
    assert two.texts("sub/n.md") == ["two"] * 2
    two.second_later()
    (two["hub"].top / "sub" / "n.md").unlink()
    two["hub"].look("sub/n.md")
    two.settle()
    two.second_later()
    assert two.texts("sub/n.md") == [None] * 2
    # A name that it cannot have keeps no other one waiting.
    body = ContextPut("notes", "what?.md", text="of another disk")
    two["hub"].write(PLACE, [body, ContextPut("notes", "m.md", text="one")])
    two.settle()
    two["hub"].folder.rescan(everything=True)
    for each in two.machines.values():
        assert each.text("m.md") == "one"
        assert each.folder.left == {"what?.md": "it cannot be written (Invalid argument)"}
        assert not list(each.top.rglob(".~muster-*"))


@proves("context.executed-by-whom")
def test_what_such_a_disk_calls_executable_is_said_of_no_file_and_taken_from_none(tmp_path, fat):
    two = SharedFolders(tmp_path, "hub", "studio")
    two["hub"].write(PLACE, [ContextPut("notes", "run", text="one", x=1)])
    two.settle()
    two["hub"].folder.rescan(everything=True)
    two.edit("studio", "run", "two")
    two.edit("studio", "n.md", "one")
    rows = two["hub"].one.core.tables.rows(VERSION, folder="notes")
    assert {(row.path, row.x) for row in rows} == {("run", 1), ("n.md", 0)}
    assert len(rows) == 3
    for each in two.machines.values():
        before = (each.top / "n.md").stat().st_ino, (each.top / "run").stat().st_ino
        each.folder.rescan(everything=True)
        assert before == ((each.top / "n.md").stat().st_ino, (each.top / "run").stat().st_ino)
    assert two.texts("run") == ["two"] * 2
    assert len({each.folder.root for each in two.machines.values()}) == 1


def test_a_name_is_taken_only_where_nothing_is(tmp_path, fat):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    folder = os.open(tmp_path, onestep.FOLDER)
    assert not onestep.move("a", "b", folder)
    assert onestep.move("a", "c", folder)
    os.close(folder)
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {"b": "b", "c": "a"}


@proves("context.nothing-is-lost")
def test_whoever_is_killed_while_a_name_is_taken_leaves_no_empty_version(
    tmp_path, fat, monkeypatch
):
    two = SharedFolders(tmp_path, "hub", "studio")
    studio = two["studio"]
    two.edit("hub", "m.md", "one")

    class Killed(Exception):
        """As kill -9."""

    def killed(*_given: Any, **_more: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(disks.os, "rename", killed)
        patch.setattr(disks.os, "unlink", killed)
        two.edit("hub", "n.md", "one")
    assert studio.text("n.md") == ""
    studio.begin()
    two.settle()
    assert two.texts("n.md") == ["one"] * 2
    assert studio.history("n.md") == ["one"]
