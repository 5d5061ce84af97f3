"""What goes wrong with a context folder's disk: nothing is lost, and nobody works in vain."""

import errno
import os
import subprocess
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tests.node.shared_folders import PLACE, SharedFolders, aged
from tests.promise import proves

from muster.context.kinds import ContextPut
from muster.errors import Broken
from muster.limits import CONTEXT_ASK_BYTES
from muster.node.folders import disk as disks
from muster.node.folders import onestep, reader, writer
from muster.node.folders.basis import Basis, open_basis
from muster.node.folders.disk import Disk
from muster.node.folders.holders import Holders
from muster.node.folders.mapping import Mapped
from muster.node.folders.opening import opened_disk
from muster.node.folders.pauses import AGAIN_MS_MAX
from muster.node.folders.reader import FRESH_MS, Reader, Soon
from muster.node.folders.way import NotThisFolder
from muster.node.services.context import WriteRoot

KEY = "ghp_" + "a1" * 18


@pytest.fixture
def two(tmp_path):
    return SharedFolders(tmp_path, "hub", "studio")


# --- other disks --------------------------------------------------------------------------------


@pytest.fixture
def mounted():
    """Mount something there; skips where this machine lets nobody."""
    at: list[Path] = []

    def mount(path: Path, *how: str) -> None:
        done = subprocess.run(["mount", *how, str(path)], check=False, capture_output=True)
        if done.returncode:
            pytest.skip(f"nobody may mount here: {done.stderr.decode()}")
        at.append(path)

    yield mount
    for path in at:
        subprocess.run(["umount", str(path)], check=True)


@proves("context.no-way-out")
@pytest.mark.parametrize("how", [("-t", "tmpfs", "none"), ("--bind",)], ids=["disk", "bind"])
def test_what_is_mounted_over_a_folder_of_files_deletes_none_and_is_not_read(
    two, mounted, tmp_path, how
):
    two.edit("hub", "sub/n.md", "one")
    other = tmp_path / "other"
    other.mkdir()
    mounted(two["studio"].top / "sub", *how, *([str(other)] if how[0] == "--bind" else []))
    two["studio"].put("sub/private.md", "of the other disk")
    two["studio"].folder.rescan(everything=True)
    two["studio"].look("", "sub", "sub/n.md", "sub/private.md")
    two.edit("hub", "sub/n.md", "two")
    assert two["hub"].files() == {"sub/n.md": "two"}
    assert [p.name for p in (two["studio"].top / "sub").iterdir()] == ["private.md"]
    assert "mounted" in two["studio"].folder.left["sub/n.md"]


@proves("context.no-way-out")
def test_without_the_system_s_call_another_disk_is_told_by_its_number(monkeypatch, tmp_path):
    (tmp_path / "sub").mkdir()
    monkeypatch.setattr(onestep, "_by_call", lambda *_: None)
    real, numbers = os.fstat, count(1)

    class Other:
        def __init__(self, file: int) -> None:
            self._found = real(file)
            self.st_dev = next(numbers)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._found, name)

    folder = os.open(tmp_path, onestep.FOLDER)
    os.close(onestep.step_into("sub", folder))
    with monkeypatch.context() as patch, pytest.raises(onestep.InTheWay, match="another disk"):
        patch.setattr(onestep.os, "fstat", Other)
        onestep.step_into("sub", folder)
    os.close(folder)


@proves("context.no-way-out")
def test_a_folder_of_the_same_number_on_another_disk_is_another_folder(tmp_path):
    """The first folders of two fresh disks have the same inode."""
    (tmp_path / "n.md").write_text("one")
    found = tmp_path.stat()
    assert Disk(tmp_path, found.st_ino, found.st_dev).read("n.md", 9) == b"one"
    with pytest.raises(NotThisFolder):
        Disk(tmp_path, found.st_ino, found.st_dev + 1).read("n.md", 9)


@proves("context.no-way-out")
def test_a_disk_that_got_another_number_is_known_by_a_file_that_is_as_it_was(two, tmp_path):
    two.edit("hub", "n.md", "one")
    hub, basis = two["hub"], Basis(two["hub"].home / "context.db")
    mapped = Mapped("notes", str(hub.top), hub.top.stat().st_ino)
    basis.lies_at("notes", mapped.path, mapped.inode)
    basis.save("notes", hub.folder.bases)
    assert opened_disk(basis, mapped).read("n.md", 9) == b"one"
    assert basis.device("notes") == hub.top.stat().st_dev
    basis.on_device("notes", 1)
    assert opened_disk(basis, mapped).read("n.md", 9) == b"one"
    basis.on_device("notes", 1)
    hub.put("n.md", "another folder's")
    with pytest.raises(NotThisFolder, match="muster context map notes"):
        opened_disk(basis, mapped)


# --- what was replaced and can be no version ----------------------------------------------------


def saved_while_asking(world: SharedFolders, text: str) -> None:
    """Somebody saves on studio at the moment when what came is written."""
    if world["hub"].text("n.md") is None:
        world.edit("hub", "n.md", "one\n")
    world["hub"].put("n.md", "theirs\n")
    world["hub"].look("n.md")
    studio = world["studio"]
    studio.meanwhile = lambda: studio.change("n.md", text)
    world.settle()


@proves("context.nothing-is-lost")
@pytest.mark.parametrize(
    "text", [f"mine {KEY}\n", "x" * (CONTEXT_ASK_BYTES + 1)], ids=["key", "large"]
)
def test_what_was_replaced_and_can_be_no_version_gets_its_place_back(two, text):
    saved_while_asking(two, text)
    two.second_later()
    assert two["studio"].text("n.md") == text
    assert "n.md" in two["studio"].folder.left
    assert two["hub"].text("n.md") == "theirs\n"
    assert KEY not in str(two.histories("n.md"))
    # And is a change of what was there before, when it can be one.
    two.edit("studio", "n.md", "mine without it\n")
    assert two["hub"].folder.conflicts == {"n.md"}
    assert not list(two["studio"].top.glob(".~muster-*"))


def test_without_that_it_is_lost(two, monkeypatch):
    monkeypatch.setattr(writer.Writer, "_give_back", lambda *_: False)
    saved_while_asking(two, f"mine {KEY}\n")
    two.second_later()
    assert two["studio"].text("n.md") == "theirs\n"


@proves("context.nothing-is-lost")
def test_a_key_that_a_program_writes_into_what_was_replaced_gets_its_place_back(two):
    two.edit("hub", "n.md", "one\n")
    studio = two["studio"]
    with (studio.top / "n.md").open("r+") as file:
        two.edit("hub", "n.md", "theirs\n")
        file.write(f"mine {KEY}\n")
        file.flush()
        os.utime(file.fileno(), ns=(5, 5))
        studio.look_at_old()
    two.settle()
    two.second_later()
    assert studio.text("n.md") == f"mine {KEY}\n"


@proves("context.nothing-is-lost")
def test_what_somebody_saved_in_the_place_since_stays_there(two):
    saved_while_asking(two, "x")
    studio = two["studio"]
    two.edit("hub", "m.md", "one\n")
    two["hub"].put("m.md", "theirs\n")
    two["hub"].look("m.md")
    studio.meanwhile = lambda: studio.change("m.md", f"mine {KEY}\n")
    give_back = Disk.give_back

    def late(self: Disk, path: str, *more: Any) -> bool:
        studio.change("m.md", "mine, later\n")
        return give_back(self, path, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Disk, "give_back", late)
        two.settle()
        two.second_later()
    studio.look("m.md")
    two.settle()
    assert set(two.texts("m.md")) == {"mine, later\n"}


class Killed(Exception):
    """As kill -9."""


@proves("context.nothing-is-lost")
def test_whoever_is_killed_before_looking_at_a_key_that_was_replaced_gives_it_back(two):
    two.edit("hub", "n.md", "one\n")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(writer.Writer, "_replaced", lambda *_: (_ for _ in ()).throw(Killed))
        saved_while_asking(two, f"mine {KEY}\n")
    two["studio"].begin()
    two.settle()
    assert two["studio"].text("n.md") == f"mine {KEY}\n"
    assert not list(two["studio"].top.glob(".~muster-*"))


# --- power cuts ---------------------------------------------------------------------------------


@proves("context.nothing-is-lost")
@pytest.mark.parametrize("many", [1, 20], ids=["one by one", "all at once"])
def test_a_change_of_names_outlasts_the_power_before_anybody_remembers_it(two, monkeypatch, many):
    for n in range(many):
        two["hub"].put(f"{n}.md", "one")
    two["hub"].look("")
    two.settle()
    for n in range(many):
        two["hub"].put(f"{n}.md", "two")
    two["hub"].look("")
    two.cores.drain()
    did: list[str] = []
    for name in ("swap", "sync"):
        deed = getattr(Disk, name)
        monkeypatch.setattr(
            Disk, name, lambda *a, _d=deed, _n=name, **k: (_d(*a, **k), did.append(_n))[0]
        )
    fsync, save = os.fsync, Basis.save
    monkeypatch.setattr(disks.os, "fsync", lambda file: (did.append("sync"), fsync(file))[1])
    monkeypatch.setattr(Basis, "save", lambda *a: (did.append("save"), save(*a))[1])
    two["studio"].settle_news()
    assert two["studio"].text("0.md") == "two"
    last = len(did) - did[::-1].index("swap")
    assert "sync" in did[did.index("swap") - 1 : did.index("save", last)]
    if many > 1:
        assert did[last : did.index("save", last)] == ["sync"]


@proves("context.nothing-is-lost")
@pytest.mark.parametrize("steps", [1, 2])
def test_where_names_change_in_three_steps_a_crash_between_them_loses_neither_file(
    two, monkeypatch, steps
):
    two.edit("hub", "n.md", "one\n")
    two["hub"].put("n.md", "theirs\n")
    two["hub"].look("n.md")
    studio = two["studio"]
    studio.meanwhile = lambda: studio.change("n.md", "mine\n")
    monkeypatch.setattr(onestep, "libc", None)
    rename, left = os.rename, iter(range(steps + 1))

    def some(*given: Any, **more: Any) -> None:
        if "dst_dir_fd" in more and next(left) == steps:
            raise Killed
        rename(*given, **more)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(onestep.os, "rename", some)
        # Who is killed does nothing any more.
        patch.setattr(writer.Writer, "_give_up", lambda *_: None)
        two.settle()
    studio.begin()
    two.settle()
    two.second_later()
    assert {"theirs\n", "mine\n"} <= two.histories("n.md")
    assert not list(studio.top.glob(".~muster-*"))


@proves("context.nothing-is-lost")
def test_what_a_crash_left_and_nobody_can_put_back_is_told(two, monkeypatch):
    two.edit("hub", "n.md", "one\n")
    two["hub"].put("n.md", "theirs\n")
    two["hub"].look("n.md")
    studio = two["studio"]
    monkeypatch.setattr(onestep, "libc", None)
    rename = os.rename

    def once(*given: Any, **more: Any) -> None:
        rename(*given, **more)
        if "dst_dir_fd" in more:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(onestep.os, "rename", once)
        patch.setattr(writer.Writer, "_give_up", lambda *_: None)
        two.settle()
    # Saved anew before the next start: now neither name is free for what was there before.
    studio.put("n.md", "mine\n")
    studio.begin()
    assert "look at it by hand" in studio.folder.left["n.md"]
    (aside,) = studio.top.glob(".~muster-*-aside")
    assert aside.read_text() == "one\n"


# --- what cannot be done ------------------------------------------------------------------------


@proves("context.nothing-is-lost")
def test_a_file_and_a_folder_of_one_name_are_told_and_nobody_works_in_vain(two, monkeypatch):
    two.cut()
    two.edit("hub", "a", "file", settle=False)
    two.edit("studio", "a/b", "inner", settle=False)
    prepared: list[str] = []
    prepare = Disk.prepare
    monkeypatch.setattr(
        Disk,
        "prepare",
        lambda self, path, *a, **k: (prepared.append(path), prepare(self, path, *a, **k))[1],
    )
    two.connect()
    for _ in range(10):
        for each in two.machines.values():
            each.wait()
    assert two["hub"].files() == {"a": "file"}
    assert two["studio"].files() == {"a/b": "inner"}
    assert two["hub"].waiting == two["studio"].waiting == {}
    assert "a/b" in two["hub"].folder.left
    assert "a folder lies" in two["studio"].folder.left["a"]
    assert len(prepared) <= 4
    # When one of them goes, the other has the place.
    (two["studio"].top / "a" / "b").unlink()
    (two["studio"].top / "a").rmdir()
    two["studio"].look("a/b", "a")
    two.settle()
    two["studio"].folder.rescan(everything=True)
    assert two["studio"].files() == {"a": "file"}


def test_what_somebody_writes_all_the_time_is_looked_at_ever_more_seldom(two, monkeypatch):
    hub = two["hub"]
    hub.put("n.md", "x")
    with monkeypatch.context() as patch:
        patch.setattr(Reader, "look", lambda *_: Soon.SOON)
        for _ in range(40):
            hub.folder.look(["n.md"])
    assert hub.waits_ms[0] == FRESH_MS
    assert hub.waits_ms[-1] == AGAIN_MS_MAX
    assert len(hub.waits_ms) == 40
    hub.wait()
    hub.waits_ms.clear()
    (hub.top / "n.md").write_text("y")
    hub.folder.look(["n.md"])
    assert hub.waits_ms in ([], [FRESH_MS])
    # What was put off now and then is never put off for long.
    hub.put("n.md", "z")
    hub.look("n.md")
    hub.waits_ms.clear()
    for n in range(30):
        with monkeypatch.context() as patch:
            patch.setattr(Reader, "look", lambda *_: Soon.SOON)
            hub.folder.settle(["n.md"])
        hub.put("n.md", f"{n}")
        hub.folder.settle(["n.md"])
    assert set(hub.waits_ms) == {FRESH_MS}


@proves("context.nothing-is-lost")
def test_one_file_that_cannot_be_read_or_written_keeps_no_other_one_waiting(two, monkeypatch):
    for name in ("bad.md", "good.md"):
        two["hub"].put(name, "one")
    read, prepare = Disk.read, Disk.prepare

    def refused(deed: Any) -> Any:
        def work(self: Disk, path: str, *more: Any, **kinds: Any) -> Any:
            if path == "bad.md":
                raise PermissionError(errno.EACCES, "Permission denied")
            return deed(self, path, *more, **kinds)

        return work

    with monkeypatch.context() as patch:
        patch.setattr(Disk, "read", refused(read))
        two["hub"].look("")
        two.settle()
        assert two["studio"].files() == {"good.md": "one"}
        assert "cannot be read" in two["hub"].folder.left["bad.md"]
    two["hub"].look("")
    two["hub"].put("good.md", "two")
    two["hub"].look("good.md")
    two.cores.drain()
    with monkeypatch.context() as patch:
        patch.setattr(Disk, "prepare", refused(prepare))
        two.settle()
        assert two["studio"].files() == {"good.md": "two"}
        assert "cannot be written" in two["studio"].folder.left["bad.md"]


def test_a_version_that_is_refused_keeps_no_other_one_from_the_log(two, monkeypatch):
    for name in ("bad.md", "good.md"):
        two["hub"].put(name, "one")
    body = Holders.body

    def bad(self: Any, place: Any, change: Any, over: Any) -> ContextPut:
        made = body(self, place, change, over)
        return ContextPut("notes", "../x") if change.path == "bad.md" else made

    monkeypatch.setattr(Holders, "body", bad)
    two["hub"].look("")
    assert two["hub"].history("good.md") == ["one"]
    assert "leads out" in two["hub"].folder.left["bad.md"]


def test_a_round_that_ends_in_the_middle_leaves_no_prepared_file(two, monkeypatch):
    for n in range(3):
        two["hub"].put(f"{n}.md", "one")
    two["hub"].look("")
    two.cores.drain()
    swap = Disk.swap

    def fails(self: Disk, path: str, *more: Any, **kinds: Any) -> Any:
        if path == "1.md":
            raise OSError(errno.EIO, "Input/output error")
        return swap(self, path, *more, **kinds)

    with monkeypatch.context() as patch:
        patch.setattr(Disk, "swap", fails)
        with pytest.raises(OSError, match="Input/output"):
            two["studio"].settle_news()
    assert not list(two["studio"].top.glob(".~muster-*"))
    two["studio"].folder.rescan(everything=True)
    assert len(two["studio"].files()) == 3


@proves("context.nothing-is-lost")
def test_what_was_replaced_when_the_disk_failed_is_not_taken_for_what_was_prepared(
    two, monkeypatch
):
    two.edit("hub", "n.md", "one\n")
    two["hub"].put("n.md", "theirs\n")
    two["hub"].look("n.md")
    studio = two["studio"]
    studio.meanwhile = lambda: studio.change("n.md", "mine\n")

    def fails(_file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(disks.os, "fsync", fails)
        with pytest.raises(OSError, match="Input/output"):
            two.settle()
    studio.begin()
    two.settle()
    two.second_later()
    assert {"theirs\n", "mine\n"} <= two.histories("n.md")


# --- what files are made of is forgotten --------------------------------------------------------


def forgetting(world: SharedFolders, name: str) -> None:
    """A machine starts whose `context.db` is gone."""
    shared = world[name]
    shared.folder._basis.close()
    for path in shared.home.glob("context.db*"):
        path.unlink()
    shared.begin()


@proves("context.one-state-everywhere")
def test_a_machine_that_forgot_what_its_files_are_made_of_brings_back_nothing_old(two):
    for name in ("stale.md", "deleted.md", "mine.md"):
        two.edit("hub", name, f"{name} one\n")
    two["studio"].one.step(service_root(two))
    two.cut()
    two.edit("hub", "stale.md", "newer\n", settle=False)
    (two["hub"].top / "deleted.md").unlink()
    two["hub"].look("deleted.md")
    two["studio"].put("mine.md", "mine, never seen\n")
    # All that came meanwhile is held, and nothing of it is on the disk yet.
    two.cores.link("hub", "studio")
    two.cores.drain()
    forgetting(two, "studio")
    two.settle()
    two.second_later()
    assert two.texts("stale.md") == ["newer\n"] * 2
    assert two.texts("deleted.md") == [None] * 2
    assert "mine, never seen\n" in two.histories("mine.md")
    assert two["hub"].folder.conflicts <= {"mine.md"}


def service_root(world: SharedFolders) -> Any:
    """As the thread says a second later what is on its disk."""
    return WriteRoot(PLACE, world["studio"].folder.root)


def test_what_lies_in_a_folder_that_is_new_here_is_deleted_by_nobody(tmp_path):
    world = SharedFolders(tmp_path, "hub", "studio")
    world.edit("hub", "n.md", "one\n")
    (world["hub"].top / "n.md").unlink()
    world["hub"].look("n.md")
    world.cores.drain()
    world["studio"].put("n.md", "one\n")
    forgetting(world, "studio")
    world.settle()
    assert world["studio"].text("n.md") == "one\n"


def test_what_is_remembered_begins_anew_where_it_is_damaged(tmp_path):
    path = tmp_path / "context.db"
    basis, why = open_basis(path)
    assert why == ""
    basis.lies_at("notes", "/a", 1)
    basis.close()
    path.write_bytes(b"no database" * 1000)
    basis, why = open_basis(path)
    assert "context.db.damaged" in why
    assert basis.is_whole
    assert basis.bases("notes") == {}
    basis.close()
    with pytest.raises(Broken):
        open_basis(tmp_path / "none" / "context.db")


def test_a_folder_of_another_scope_is_another_one(tmp_path):
    basis = Basis(tmp_path / "context.db")
    basis.lies_at("notes", "/a", 1)
    (tmp_path / "n.md").write_text("x")
    aged(tmp_path / "n.md")
    signature = Disk(tmp_path, tmp_path.stat().st_ino).signature("n.md")
    basis.save("notes", {"n.md": writer.Base(signature, b"d", said_x=False, over=frozenset())})
    basis.lies_at("notes", "/a", 1, "fleet")
    assert basis.bases("notes")
    basis.lies_at("notes", "/a", 1, "g.1.plans")
    assert basis.bases("notes") == {}


# --- what stays here ----------------------------------------------------------------------------


@proves("context.keys-stay-here")
def test_a_large_file_with_a_key_in_it_is_no_version_either(tmp_path):
    world = SharedFolders(tmp_path, "hub", "studio", large=True)
    text = "line\n" * 300_000 + f"{KEY}\n"
    world.edit("hub", "n.md", text)
    assert world["hub"].history("n.md") == []
    assert "line 300001 has a GitHub token" in world["hub"].folder.left["n.md"]
    assert not [p for p in (world["hub"].home / "blobs").rglob("*") if p.is_file()]


def test_who_may_read_a_file_stays_so_when_another_machine_changes_it(two):
    for name, mode in (("secret.md", 0o600), ("shared.md", 0o664), ("run.sh", 0o700)):
        two["hub"].put(name, "one")
        (two["hub"].top / name).chmod(mode)
        two["hub"].look(name)
    two.settle()
    two["studio"].put("run.sh", "two", x=True)
    two["studio"].look("run.sh")
    for name in ("secret.md", "shared.md"):
        two.edit("studio", name, "two")
    modes = {p.name: p.stat().st_mode & 0o777 for p in two["hub"].top.iterdir()}
    assert {n: m for n, m in modes.items() if not n.startswith(".")} == {
        "secret.md": 0o600, "shared.md": 0o664, "run.sh": 0o700,
    }  # fmt: skip
    assert set(two.texts("secret.md")) == {"two"}


@proves("context.machine-configuration-stays-here")
def test_a_list_of_what_is_left_out_that_is_half_written_leaves_out_no_less(two, monkeypatch):
    # However busy the machine is, the list was written just before it is looked at.
    monkeypatch.setattr(reader, "FRESH_MS", 1_000)
    hub = two["hub"]
    hub.put(".musterignore", "*.draft\nprivate\n")
    hub.look("")
    hub.put("private/n.md", "x")
    # An editor has just emptied it, to write it anew; then it has gone for a moment.
    (hub.top / ".musterignore").write_text("")
    hub.folder.look([".musterignore", ""])
    assert ".musterignore" in hub.waiting
    assert hub.history("private/n.md") == []
    (hub.top / ".musterignore").unlink()
    hub.folder.look([".musterignore", ""])
    assert hub.history("private/n.md") == []
    hub.put(".musterignore", "private\n")
    hub.wait()
    two.settle()
    assert "private/n.md" not in two["studio"].files()
    # What is too long counts as far as it goes.
    hub.put(".musterignore", "private\n" + "#" * 60_000 + "\n")
    hub.look(".musterignore", "")
    assert hub.history("private/n.md") == []
    hub.put(".musterignore", "other\n")
    hub.look(".musterignore", "")
    assert hub.history("private/n.md") == ["x"]
