"""What hostile or odd things lie in a context folder, and where nothing of it may lead."""

import errno
import os
import socket
from pathlib import Path

import pytest
from tests.node.shared_folders import PLACE, SharedFolders, aged, write
from tests.promise import proves

from muster.context.kinds import ContextPut
from muster.log.stream import Scope
from muster.node.folders import onestep
from muster.node.folders import reader as readers
from muster.node.folders.disk import Disk, temporary_name
from muster.node.folders.onestep import InTheWay
from muster.node.folders.reader import Reader
from muster.node.folders.way import NotThisFolder
from muster.node.services.context import Contexts


@pytest.fixture
def two(tmp_path):
    return SharedFolders(tmp_path, "hub", "studio")


def written(world: SharedFolders, name: str, body: ContextPut) -> None:
    """As a machine that checks nothing writes it into its log."""
    write(world, name, body)
    world.settle()


# --- no way out ---------------------------------------------------------------------------------

PATHS = [
    "../x", "/etc/x", "a/../../x", ".git/hooks/post-checkout", ".claude/settings.json", "CON", "x.",
    "a:b", "n" * 300, "a\0b", "e\u0301.md", "sub/.mcp.json", ".~muster-1", "hooks/pre.sh",
]  # fmt: skip


@proves("context.paths-stay-inside")
@pytest.mark.parametrize("path", PATHS, ids=range(len(PATHS)))
def test_a_path_that_a_hostile_machine_writes_is_written_nowhere(two, path):
    before = {str(p) for p in two["hub"].home.parent.rglob("*")}
    written(two, "studio", ContextPut("notes", path, text="evil"))
    after = {str(p) for p in two["hub"].home.parent.rglob("*")}
    assert {p for p in after - before if "context.db" not in p} == set()


@proves("context.no-way-out")
def test_a_link_in_the_place_of_a_folder_leads_nobody_out(two, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "n.md").write_text("mine")
    (two["hub"].top / "sub").symlink_to(outside)
    two.edit("studio", "sub/n.md", "evil")
    two.edit("studio", "sub/new.md", "evil")
    assert {p.name: p.read_text() for p in outside.iterdir()} == {"n.md": "mine"}
    assert "link" in two["hub"].folder.left["sub/n.md"]
    two["hub"].look("sub", "sub/n.md")
    assert two["hub"].history("sub/n.md") == ["evil"]


def test_without_the_flag_it_would(two, tmp_path, monkeypatch):
    outside = tmp_path / "outside"
    outside.mkdir()
    (two["hub"].top / "sub").symlink_to(outside)
    monkeypatch.setattr(onestep, "FOLDER", onestep.FOLDER & ~os.O_NOFOLLOW)
    monkeypatch.setattr(onestep, "_by_call", lambda *_: None)
    two.edit("studio", "sub/new.md", "evil")
    assert (outside / "new.md").read_text() == "evil"


@proves("context.no-way-out")
def test_a_folder_that_becomes_a_link_deletes_nothing_anywhere(two, tmp_path):
    two.edit("hub", "sub/n.md", "one")
    os.rename(two["hub"].top / "sub", tmp_path / "elsewhere")
    (two["hub"].top / "sub").symlink_to(tmp_path / "elsewhere")
    two["hub"].look("sub", "sub/n.md")
    two.settle()
    assert two["studio"].text("sub/n.md") == "one"
    assert two["hub"].history("sub/n.md") == ["one"]


@proves("context.no-way-out")
def test_a_link_that_comes_while_a_file_is_looked_at_leads_nobody_out(tmp_path):
    top, outside = tmp_path / "top", tmp_path / "outside"
    for folder, text in ((top / "sub", "mine"), (outside, "secret")):
        folder.mkdir(parents=True)
        (folder / "n.md").write_text(text)
    disk = Disk(top, top.stat().st_ino)
    with disk.near():
        was = disk.signature("sub/n.md")
        (top / "sub").rename(top / "moved")
        (top / "sub").symlink_to(outside)
        assert disk.read("sub/n.md", 100) == b"mine"
        assert disk.signature("sub/n.md") == was
        with pytest.raises(InTheWay):
            disk.signature("sub/deeper/n.md")
    with pytest.raises(InTheWay):
        disk.read("sub/n.md", 100)


@proves("context.no-way-out")
def test_a_file_that_becomes_a_link_is_neither_read_nor_written_through(two, tmp_path):
    two.edit("hub", "n.md", "one")
    (tmp_path / "secret").write_text("secret")
    (two["hub"].top / "n.md").unlink()
    (two["hub"].top / "n.md").symlink_to(tmp_path / "secret")
    two["hub"].look("n.md")
    two.edit("studio", "n.md", "two")
    assert (tmp_path / "secret").read_text() == "secret"
    assert "secret" not in two.histories("n.md")
    assert "link" in two["hub"].folder.left["n.md"]


@proves("context.no-way-out")
def test_pipes_sockets_and_links_are_left_alone_and_nobody_waits_for_them(two):
    top = two["hub"].top
    os.mkfifo(top / "pipe")
    (top / "nowhere").symlink_to("/nowhere")
    here = os.getcwd()
    os.chdir(top)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("door")
    os.chdir(here)
    two["hub"].put("n.md", "one")
    two["hub"].look("", "pipe", "door", "nowhere")
    two.settle()
    assert two["studio"].files() == {"n.md": "one"}
    assert {"pipe", "door", "nowhere"} <= two["hub"].folder.left.keys()


def test_a_folder_or_a_link_that_takes_the_place_at_the_last_moment_keeps_it(two, tmp_path):
    for put in (lambda at: at.mkdir(), lambda at: at.symlink_to(tmp_path)):
        two.edit("hub", "n.md", "one")
        two.settle()
        at = two["studio"].top / "n.md"

        def take(at: Path = at, put=put) -> None:
            at.unlink()
            put(at)

        two["hub"].put("n.md", "two")
        two["hub"].look("n.md")
        two["studio"].meanwhile = take
        two.cores.drain()
        two["studio"].settle_news()
        assert at.is_dir()
        assert not list(tmp_path.glob("notes~*"))
        at.unlink() if at.is_symlink() else at.rmdir()
        two["studio"].look("n.md")
        two.settle()
        two.second_later()


@proves("context.no-way-out")
def test_a_folder_that_is_gone_or_another_one_is_not_one_whose_files_were_deleted(two, tmp_path):
    two.edit("hub", "n.md", "one")
    studio = two["studio"]
    os.rename(studio.top, tmp_path / "unmounted")
    for again in (lambda: None, studio.top.mkdir):
        again()
        with pytest.raises(NotThisFolder):
            studio.folder.rescan(everything=True)
        with pytest.raises(NotThisFolder):
            studio.folder.look(["n.md"])
    studio.top.rmdir()
    os.rename(tmp_path / "unmounted", studio.top)
    studio.folder.rescan(everything=True)
    two.settle()
    assert two.texts("n.md") == ["one", "one"]
    assert two["hub"].history("n.md") == ["one"]


# --- names --------------------------------------------------------------------------------------


@proves("context.one-name-on-every-disk")
def test_of_two_names_equal_but_for_case_one_is_on_every_disk_and_the_other_on_none(two):
    two.cut()
    two.edit("hub", "Notes.md", "hub's", settle=False)
    two.edit("studio", "notes.md", "studio's", settle=False)
    two.connect()
    (name,) = {name for each in two.machines.values() for name in each.files()}
    assert [list(each.files()) for each in two.machines.values()] == [[name]] * 2
    other = {"Notes.md": "notes.md", "notes.md": "Notes.md"}[name]
    assert name in two["hub"].folder.left[other]
    assert two["hub"].history(other)
    # Made beside the one that is there, it stays what it is: nobody loses a file by a name.
    two["hub"].put("NOTES.md", "third")
    two["hub"].look("NOTES.md")
    two.settle()
    assert two["hub"].text("NOTES.md") == "third"
    assert "rename one of them" in two["hub"].folder.left["NOTES.md"]
    assert two["studio"].text("NOTES.md") is None
    (two["hub"].top / name).unlink()
    two["hub"].look(name)
    two.settle()
    two.second_later()
    assert two["studio"].text(other) is not None, "what waited for the name has it now"


def test_names_that_others_cannot_have_are_told_and_stay_here(two):
    for name in ("con.txt", "a:b", "trailing.", "e\u0301.md"):
        two["hub"].put(name, "x")
    with open(os.fsencode(two["hub"].top) + b"/\xff.md", "wb"):
        pass
    two["hub"].look("")
    two["hub"].wait()
    two.settle()
    assert two["studio"].files() == {}
    assert len(two["hub"].folder.left) >= 5


# --- what others say about bytes ----------------------------------------------------------------


def test_bytes_of_a_version_that_is_in_another_scope_gone_or_erased_are_written_nowhere(two):
    two.edit("hub", "n.md", "line\n" * 100)
    hub, studio = two["hub"], two["studio"]
    part = hub.one.core.part(Contexts)
    (row,) = part.versions(PLACE, "n.md")
    one = studio.one
    with one.core.store.transaction():
        private = one.core.append_body(
            ContextPut("notes", "p.md", text="private words"), scope=Scope(f"g.{one.id}.plans")
        )
        gone = one.core.append_body(ContextPut("notes", "g.md", gone=1))
        one.core.store.seal_dirty(one.core.membership.signer("seal"))
    for n, same in enumerate([private.id.hex(), gone.id.hex(), "9" * 64]):
        written(two, "studio", ContextPut("notes", f"copy{n}.md", same=same))
        assert hub.text(f"copy{n}.md") is None
        assert studio.text(f"copy{n}.md") is None
    written(two, "studio", ContextPut("notes", "good.md", same=row.id.hex()))
    assert hub.text("good.md") == "line\n" * 100


def test_bytes_that_are_named_before_they_come_are_written_when_they_do(two):
    """A version may name one of a third machine, whose entries come later."""
    two.edit("hub", "long.md", "line\n" * 100)
    row = two["hub"].one.core.part(Contexts).versions(PLACE, "long.md")[0]
    waits = two["studio"].one.core.part(Contexts)
    touched: list[object] = []
    two["studio"].one.core.do = touched.append  # type: ignore[method-assign]
    entry = two["studio"].one.core.log.entry(row.id)
    assert entry is not None
    with two["studio"].one.core.store.transaction():
        two["studio"].one.core.append_body(ContextPut("notes", "copy.md", same=row.id.hex()))
        waits._came(row.stream, entry)
        waits._tell()
    assert "copy.md" in str(touched)


# --- disks that refuse --------------------------------------------------------------------------


@proves("context.nothing-is-lost")
def test_a_disk_that_is_full_in_the_middle_leaves_nothing_half_and_goes_on_with_room(
    two, monkeypatch
):
    two.edit("hub", "n.md", "one")
    prepare = Disk.prepare

    def full(self, path, name, chunks, **more):
        def half():
            yield b"ha"
            raise OSError(errno.ENOSPC, "No space left on device")

        prepare(self, path, name, half(), **more)

    two["hub"].put("n.md", "two")
    two["hub"].look("n.md")
    two.cores.drain()
    monkeypatch.setattr(Disk, "prepare", full)
    with pytest.raises(OSError, match="No space left"):
        two["studio"].settle_news()
    assert two["studio"].text("n.md") == "one"
    assert list(two["studio"].top.iterdir()) == [two["studio"].top / "n.md"]
    monkeypatch.setattr(Disk, "prepare", prepare)
    two["studio"].folder.rescan(everything=True)
    assert two.texts("n.md") == ["two", "two"]


def test_a_folder_that_cannot_be_written_keeps_its_files_and_says_why(two, monkeypatch):
    def refused(*_given, **_more):
        raise OSError(errno.EROFS, "Read-only file system")

    two["hub"].put("n.md", "one")
    two["hub"].look("n.md")
    two.cores.drain()
    monkeypatch.setattr(Disk, "prepare", refused)
    with pytest.raises(OSError, match="Read-only"):
        two["studio"].settle_news()


def test_where_the_disk_cannot_exchange_names_a_file_is_replaced_all_the_same(two, monkeypatch):
    monkeypatch.setattr(onestep, "libc", None)
    two.edit("hub", "n.md", "one")
    two.edit("studio", "n.md", "two")
    assert two.texts("n.md") == ["two", "two"]
    (two["hub"].top / "n.md").unlink()
    two["hub"].look("n.md")
    two.settle()
    two.second_later()
    assert two.texts("n.md") == [None, None]


# --- others who write there ---------------------------------------------------------------------


@proves("context.one-master")
def test_a_file_that_something_writes_to_and_fro_is_left_alone_and_told(two):
    two.edit("hub", "n.md", "ours 0")
    studio = two["studio"]
    for n in range(1, 8):
        # Another program on studio puts back what was there before what came.
        before = studio.text("n.md")
        two.edit("hub", "n.md", f"ours {n}")
        studio.put("n.md", before or "")
        studio.look("n.md")
        two.settle()
    assert studio.folder.stopped == {"n.md"}
    assert "to and fro" in studio.folder.left["n.md"]
    count = len(studio.history("n.md"))
    two.edit("hub", "n.md", "last")
    studio.put("n.md", "not looked at")
    studio.look("n.md")
    assert len(studio.history("n.md")) == count + 1
    assert studio.text("n.md") == "not looked at"


def test_a_file_that_grows_without_end_is_measured_before_it_is_read(two):
    with (two["hub"].top / "big").open("wb") as file:
        file.truncate(1 << 30)
    aged(two["hub"].top / "big")
    two["hub"].look("big")
    assert "256 MiB" in two["hub"].folder.left["big"]


def test_a_file_that_changes_all_the_time_is_looked_at_and_nothing_else(two, monkeypatch):
    hub = two["hub"]
    read = []
    monkeypatch.setattr(Reader, "_content", lambda *given: read.append(given))
    # However long a busy machine takes from the writing to the look.
    monkeypatch.setattr(readers, "FRESH_MS", 600_000)
    for n in range(1000):
        (hub.top / "n.md").write_text(str(n))
        hub.folder.look(["n.md"])
    assert read == []
    assert hub.waiting == {"n.md": False}


def test_a_clock_that_was_set_back_makes_files_of_the_future_which_count(two):
    hub = two["hub"]
    hub.put("n.md", "one")
    os.utime(hub.top / "n.md", (4_000_000_000, 4_000_000_000))
    hub.look("n.md")
    two.settle()
    assert two["studio"].text("n.md") == "one"


def test_names_of_files_that_are_not_whole_yet_are_never_the_same(tmp_path):
    assert len({temporary_name() for _ in range(1000)}) == 1000
    disk = Disk(tmp_path, tmp_path.stat().st_ino)
    disk.prepare("n", "one", [b"x"], x=False, sync=True)
    with pytest.raises(FileExistsError):
        disk.prepare("n", "one", [b"y"], x=False, sync=False)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InTheWay):
        disk.prepare("file/n", "two", [b"y"], x=False, sync=False)
    disk.sync()


def test_many_files_at_once_arrive_in_few_questions(two):
    for n in range(250):
        two["hub"].put(f"d{n % 7}/{n}.md", f"text {n}")
    two["hub"].asked = two["studio"].asked = 0
    two["hub"].look("")
    two.settle()
    assert len(two["studio"].files()) == 250
    assert two["hub"].asked + two["studio"].asked < 30
