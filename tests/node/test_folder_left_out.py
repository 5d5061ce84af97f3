"""What a folder leaves out leaves the machine by no way, also where it was synced before."""

from pathlib import Path

import pytest
from tests.node.shared_folders import Shared, SharedFolders, aged
from tests.promise import proves

from muster.context import ignore
from muster.context.ignore import IGNORE_FILE
from muster.errors import Unreachable
from muster.limits import CONTEXT_IGNORE_LINES_MAX
from muster.node.folders.disk import Disk
from muster.node.folders.leftout import LeftOut


@pytest.fixture
def two(tmp_path):
    return SharedFolders(tmp_path, "hub", "studio")


def leave_out(two: SharedFolders, lines: str) -> None:
    """The list is this on every machine, and nobody has written it for a moment."""
    two.edit("hub", IGNORE_FILE, lines)
    for each in two.machines.values():
        aged(each.top / IGNORE_FILE)
        each.look(IGNORE_FILE)
    two.settle()


def look_at_everything(each: Shared) -> None:
    each.folder.rescan(everything=False)
    each.folder.rescan(everything=True)
    each.look("", "n.draft", "sub")
    each.settle_news()


@proves("context.left-out-stays-here")
def test_what_was_synced_before_it_was_left_out_is_not_read_any_more(two):
    two.edit("hub", "n.draft", "public")
    leave_out(two, "*.draft\n")
    for each in two.machines.values():
        each.put("n.draft", "private words")
        look_at_everything(each)
    two.settle()
    assert two.histories("n.draft") == {"public"}
    assert two.texts("n.draft") == ["private words"] * 2
    # Gone is a change too.
    (two["hub"].top / "n.draft").unlink()
    look_at_everything(two["hub"])
    two.settle()
    assert two.histories("n.draft") == {"public"}
    assert two["studio"].text("n.draft") == "private words"


@proves("context.left-out-stays-here")
def test_what_every_machine_leaves_out_from_now_on_is_not_read_any_more(two, monkeypatch):
    two.edit("hub", "n.draft", "public")
    monkeypatch.setattr(ignore, "_ANY_LOCKED", ignore._any_of(["n.draft"]))
    two["hub"].put("n.draft", "private words")
    two["hub"].begin()
    look_at_everything(two["hub"])
    two.settle()
    assert two.histories("n.draft") == {"public"}


def test_what_is_left_out_is_no_part_of_what_lies_on_a_disk(two):
    two.edit("hub", "n.md", "one")
    leave_out(two, "*.draft\n")
    before = two["hub"].folder.root
    leave_out(two, "")
    two.edit("hub", "n.draft", "public")
    leave_out(two, "*.draft\n")
    assert [each.folder.root for each in two.machines.values()] == [before] * 2


def test_what_is_left_out_no_more_is_over_what_it_was_made_of(two):
    two.edit("hub", "n.draft", "public")
    leave_out(two, "*.draft\n")
    two.edit("hub", "n.draft", "of the time between")
    assert two["studio"].text("n.draft") == "public"
    leave_out(two, "")
    assert two.texts("n.draft") == ["of the time between"] * 2
    assert two["hub"].history("n.draft") == ["public", "of the time between"]
    assert not two["hub"].folder.conflicts


# --- a machine that joins -----------------------------------------------------------------------


@proves("context.left-out-stays-here")
def test_a_machine_that_joins_records_nothing_that_the_fleet_leaves_out(two, tmp_path):
    leave_out(two, "*.draft\nprivate\n")
    joined = Shared(two["studio"].one, tmp_path / "empty")
    joined.top = tmp_path / "new" / "notes"
    joined.put(".a.draft", "private words")
    joined.put("private/n.md", "private words")
    joined.put("n.md", "public")
    joined.home = tmp_path / "new"
    joined.begin()
    joined.wait()
    assert joined.history(".a.draft") == joined.history("private/n.md") == []
    assert joined.history("n.md") == ["public"]
    assert joined.text(IGNORE_FILE) == "*.draft\nprivate\n"
    assert joined.text("private/n.md") == "private words"


@proves("context.left-out-stays-here")
def test_what_a_list_that_comes_leaves_out_is_not_recorded_beside_it(two):
    studio = two["studio"]
    two.cut()
    two.edit("hub", IGNORE_FILE, "*.draft\n", settle=False)
    two.cores.link("hub", "studio")
    two.cores.drain()
    studio.put(".a.draft", "private words")
    studio.folder.rescan(everything=True)
    assert studio.history(".a.draft") == []
    assert studio.text(".a.draft") == "private words"


def a_list_whose_bytes_are_late(two: SharedFolders, tmp_path: Path) -> Shared:
    """The fleet's list is a blob, and a machine that joins has not got it."""
    two.edit("hub", IGNORE_FILE, "*.draft\n" + "# why, at length\n" * 4_000)
    joined = Shared(two["studio"].one, tmp_path / "empty")
    joined.top, joined.home = tmp_path / "new" / "notes", tmp_path / "new"
    joined.bytes_at = lambda *_: None  # type: ignore[method-assign]
    joined.put("n.draft", "private words")
    joined.put("n.md", "public")
    return joined


@proves("context.left-out-stays-here")
def test_nothing_is_recorded_while_the_bytes_of_the_list_are_on_their_way(two, tmp_path):
    two.edit("hub", "old.md", "of the fleet")
    joined = a_list_whose_bytes_are_late(two, tmp_path)
    with pytest.raises(Unreachable, match="what the fleet leaves out"):
        joined.begin()
    assert joined.history("n.draft") == joined.history("n.md") == []
    hub = two["hub"]
    joined.bytes_at = lambda *given: Shared.bytes_at(hub, *given)  # type: ignore[method-assign]
    joined.begin()
    joined.wait()
    assert (joined.history("n.draft"), joined.history("n.md")) == ([], ["public"])
    assert joined.text("old.md") == "of the fleet"


@proves("context.left-out-stays-here")
def test_a_list_that_comes_later_keeps_what_is_changed_meanwhile_from_the_log_too(two, tmp_path):
    studio, hub = two["studio"], two["hub"]
    two.edit("hub", "n.draft", "public")
    studio.bytes_at = lambda *_: None  # type: ignore[method-assign]
    leave_out_on_hub = "*.draft\n" + "# why, at length\n" * 4_000
    two.edit("hub", IGNORE_FILE, leave_out_on_hub)
    studio.put("n.draft", "private words")
    with pytest.raises(Unreachable, match="what the fleet leaves out"):
        studio.look("n.draft")
    studio.bytes_at = lambda *given: Shared.bytes_at(hub, *given)  # type: ignore[method-assign]
    studio.folder.rescan(everything=True)
    assert studio.history("n.draft") == ["public"]
    # What the folder itself leaves out can be said meanwhile.
    assert studio.text(IGNORE_FILE) == leave_out_on_hub


# --- the very moment --------------------------------------------------------------------------------


@proves("context.left-out-stays-here")
def test_what_is_replaced_in_the_second_in_which_it_is_left_out_is_no_version(two):
    """Somebody has the file open, and goes on to write: that stays on the disk, and only there."""
    two.edit("hub", "n.draft", "public")
    studio = two["studio"]
    with (studio.top / "n.draft").open("r+") as file:
        two.edit("hub", "n.draft", "public, too")
        file.write("private words")
        file.flush()
        aged(Path(f"/proc/self/fd/{file.fileno()}"))
    leave_out(two, "*.draft\n")
    two.second_later()
    assert two.histories("n.draft") == {"public", "public, too"}
    assert studio.text("n.draft") == "private words"
    assert not list(studio.top.glob(".~muster-*"))


@proves("context.left-out-stays-here")
def test_whoever_is_killed_in_that_second_records_it_no_more(two):
    two.edit("hub", "n.draft", "public")
    studio = two["studio"]
    with (studio.top / "n.draft").open("r+") as file:
        two.edit("hub", "n.draft", "public, too")
        file.write("private words")
        file.flush()
        aged(Path(f"/proc/self/fd/{file.fileno()}"))
    leave_out(two, "*.draft\n")
    studio.begin()
    assert two.histories("n.draft") == {"public", "public, too"}
    assert studio.text("n.draft") == "private words"


@proves("context.left-out-stays-here")
def test_a_list_that_nobody_has_told_of_yet_holds_all_the_same(two):
    two.edit("hub", "n.draft", "public")
    hub = two["hub"]
    hub.put(IGNORE_FILE, "*.draft\n")
    hub.put("n.draft", "private words")
    hub.look("n.draft")
    two.edit("studio", "m.md", "one")
    hub.folder.settle(["n.draft", "m.md"])
    assert two.histories("n.draft") == {"public"}


# --- a list that is being written, or written by hand -------------------------------------------


class Nowhere(Disk):
    """A folder that is nowhere."""

    def signature(self, path: str) -> None:
        return None


class Written:
    """A list as somebody writes it, beside nothing."""

    def __init__(self) -> None:
        self.disk, self.said = Nowhere(Path("/home/a/notes"), 1), (list[str](), True)

    def lines(self, _path: str, _most: int, *, ours: bool) -> tuple[list[str], bool]:
        return self.said


@proves("context.left-out-stays-here")
def test_while_a_list_is_written_what_it_said_and_what_it_says_is_left_out():
    written = Written()
    left_out = LeftOut(written, ())  # type: ignore[arg-type]
    written.said = (["*.draft", "private"], True)
    assert left_out.read()
    for lines in (["a", "b"], ["a", "b", "!private"], ["a"], []):
        written.said = (lines, False)
        assert not left_out.read()
        assert left_out.leaves_out("private/n.md")
        assert left_out.leaves_out("n.draft")
        assert left_out.leaves_out("a"), "as soon as it is there"
    written.said = (["a", "b"], True)
    assert left_out.read()
    assert [left_out.leaves_out(each) for each in ("a", "b", "private/n.md")] == [True, True, False]


def test_lines_that_leave_nothing_out_are_told(two):
    leave_out(two, "# by hand\n*.log\n**/private\n../x\n")
    for each in two.machines.values():
        told = each.folder.doubtful[IGNORE_FILE]
        assert told.startswith("line 3 leaves out nothing: '**/private' is no pattern")
        assert told.endswith("and so do 1 more")
    leave_out(two, "".join(f"{n}.log\n" for n in range(CONTEXT_IGNORE_LINES_MAX + 2)))
    for each in two.machines.values():
        told = each.folder.doubtful[IGNORE_FILE]
        assert told.startswith(f"line {CONTEXT_IGNORE_LINES_MAX + 1} leaves out nothing")
        assert "patterns" in told
        assert told.endswith("and so do 1 more")
    leave_out(two, "*.log\n")
    assert [dict(each.folder.doubtful) for each in two.machines.values()] == [{}, {}]
