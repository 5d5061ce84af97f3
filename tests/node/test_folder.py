"""A context folder on several machines: what one writes the others have, and nothing is lost."""

import os
import random
from collections import Counter

import pytest
from tests.node.shared_folders import PLACE, SharedFolders, aged
from tests.promise import proves

from muster.limits import CONTEXT_INLINE_BYTES_MAX
from muster.node.folders import disk as disks
from muster.node.folders import folder as folders
from muster.node.folders import writer
from muster.node.folders.disk import Disk
from muster.node.services import context as service
from muster.node.services import heads


@pytest.fixture
def world(tmp_path):
    return SharedFolders(tmp_path, "hub", "studio", "laptop")


@pytest.fixture
def two(tmp_path):
    return SharedFolders(tmp_path, "hub", "studio")


# --- what one has the others have ---------------------------------------------------------------


@proves("context.same-on-every-disk")
def test_what_is_written_changed_and_deleted_on_one_machine_is_so_on_all(world):
    world.edit("hub", "a/b/n.md", "one\n")
    assert world.texts("a/b/n.md") == ["one\n"] * 3
    world.edit("studio", "a/b/n.md", "two\n")
    assert world.texts("a/b/n.md") == ["two\n"] * 3
    (world["laptop"].top / "a" / "b" / "n.md").unlink()
    world["laptop"].look("a/b/n.md")
    world.settle()
    assert world.texts("a/b/n.md") == [None] * 3
    world.second_later()
    assert not (world["hub"].top / "a").exists(), "a folder goes with its last file"
    world.edit("hub", "a/b/n.md", "three\n")
    assert world.texts("a/b/n.md") == ["three\n"] * 3


@proves("context.same-on-every-disk")
def test_any_bytes_and_the_executable_bit_arrive_as_they_are(world):
    odd = b"\xff\x00\r\n" + bytes(range(256)) * 100
    world["hub"].put("odd.bin", odd)
    world["hub"].put("empty", b"")
    world["hub"].put("run.sh", "echo\n", x=True)
    world["hub"].look("odd.bin", "empty", "run.sh")
    world.settle()
    for each in world.machines.values():
        assert (each.top / "odd.bin").read_bytes() == odd
        assert (each.top / "empty").read_bytes() == b""
        assert os.access(each.top / "run.sh", os.X_OK)
        assert not os.access(each.top / "empty", os.X_OK)


def test_a_folder_that_is_new_is_walked_and_one_that_is_gone_takes_its_files_along(two):
    for n in range(5):
        two["hub"].put(f"sub/{n}/n.md", f"{n}")
    two["hub"].look("sub")
    two.settle()
    assert two["studio"].text("sub/4/n.md") == "4"
    os.rename(two["hub"].top / "sub", two["hub"].top / "moved")
    two["hub"].look("sub", "moved")
    two.settle()
    assert sorted(two["studio"].files()) == [f"moved/{n}/n.md" for n in range(5)]


def test_a_renamed_file_costs_its_name_and_not_its_bytes(two):
    two.edit("hub", "long.md", "line\n" * 2_000)
    os.rename(two["hub"].top / "long.md", two["hub"].top / "other.md")
    two["hub"].look("long.md", "other.md")
    two.settle()
    assert two["studio"].text("other.md") == "line\n" * 2_000
    entries = two["hub"].one.entries("context.put")[-2:]
    assert all(len(each.body) < 400 for each in entries)
    two.edit("studio", "other.md", "short")
    assert two["hub"].text("other.md") == "short"


def test_a_file_replaced_by_a_folder_and_back(two):
    two.edit("hub", "a", "file")
    (two["hub"].top / "a").unlink()
    two["hub"].put("a/b", "inner")
    two["hub"].look("a")
    two.settle()
    assert two["studio"].files() == {"a/b": "inner"}
    (two["hub"].top / "a" / "b").unlink()
    (two["hub"].top / "a").rmdir()
    two["hub"].put("a", "file again")
    two["hub"].look("a", "a/b")
    two.settle()
    two.second_later()
    assert two["studio"].files() == {"a": "file again"}


def test_a_file_that_was_only_touched_is_no_version(two):
    two.edit("hub", "n.md", "one")
    aged(two["hub"].top / "n.md")
    two["hub"].look("n.md")
    assert two["hub"].history("n.md") == ["one"]


def test_one_machine_writes_many_times_and_each_version_is_over_the_last(two):
    for n in range(6):
        two.edit("hub", "n.md", f"{n}")
    assert two["studio"].text("n.md") == "5"
    assert two["studio"].folder.conflicts == set()
    assert two["hub"].history("n.md") == [str(n) for n in range(6)]


# --- what two write at once ---------------------------------------------------------------------

BASE = "".join(f"line {n}\n" for n in range(9))


def apart(world: SharedFolders, path: str, one: str, other: str) -> None:
    """Both change a file while no link is up, and then hear of each other."""
    world.cut()
    world.edit("hub", path, one, settle=False)
    world.edit("studio", path, other, settle=False)
    world.connect()


@proves("context.merged-alike-everywhere")
def test_two_who_changed_other_lines_while_apart_have_both(world):
    world.edit("hub", "n.md", BASE)
    apart(world, "n.md", BASE.replace("line 1", "first"), BASE.replace("line 7", "last"))
    assert set(world.texts("n.md")) == {BASE.replace("line 1", "first").replace("line 7", "last")}
    assert [each.folder.conflicts for each in world.machines.values()] == [set()] * 3


@proves("context.conflicts-are-kept-and-shown")
def test_two_who_changed_one_line_while_apart_have_one_of_them_and_no_marker(world):
    world.edit("hub", "n.md", BASE)
    one, other = BASE.replace("line 1", "first"), BASE.replace("line 1", "erste")
    apart(world, "n.md", one, other)
    (text,) = set(world.texts("n.md"))
    assert text in (one, other)
    assert [each.folder.conflicts for each in world.machines.values()] == [{"n.md"}] * 3
    assert {one, other} <= world.histories("n.md")
    assert [sorted(each.files()) for each in world.machines.values()] == [["n.md"]] * 3
    # The next edit is over what the disk had, and no more.
    world.edit("laptop", "n.md", text + "more\n")
    assert set(world.texts("n.md")) == {text + "more\n"}
    assert world["hub"].folder.conflicts == {"n.md"}


@proves("context.conflicts-are-kept-and-shown")
def test_what_is_no_text_is_not_merged(two):
    two.edit("hub", "n.bin", "a\0b")
    apart(two, "n.bin", "a\0c", "a\0b\0d")
    assert len(set(two.texts("n.bin"))) == 1
    assert two["hub"].folder.conflicts == {"n.bin"}


def test_an_edit_beats_a_deletion(two):
    two.edit("hub", "n.md", "one")
    two.cut()
    two.edit("hub", "n.md", "two", settle=False)
    (two["studio"].top / "n.md").unlink()
    two["studio"].look("n.md")
    two.connect()
    assert two.texts("n.md") == ["two", "two"]
    assert two["hub"].folder.conflicts == set()


def test_both_who_added_lines_to_a_log_have_all_of_them(two):
    two.edit("hub", "notes.log.md", "a\n")
    apart(two, "notes.log.md", "a\nhub\n", "a\nstudio\n")
    (text,) = set(two.texts("notes.log.md"))
    assert sorted(text.splitlines()) == ["a", "hub", "studio"]


def test_one_who_changed_all_line_ends_keeps_them_and_the_others_edit(two):
    two.edit("hub", "n.md", BASE)
    apart(two, "n.md", BASE.replace("\n", "\r\n"), BASE.replace("line 7", "last"))
    assert (two["studio"].top / "n.md").read_bytes() == BASE.replace("line 7", "last").replace(
        "\n", "\r\n"
    ).encode()


def test_the_same_files_on_both_before_they_met_are_one_version_and_no_conflict(tmp_path):
    world = SharedFolders(tmp_path, "hub", "studio")
    world.edit("hub", "n.md", "same")
    world.cut()
    two = world["studio"]
    two.put("m.md", "same")
    world["hub"].put("m.md", "same")
    world["hub"].look("m.md")
    world.connect()
    two.folder.rescan(everything=True)
    assert [r.path for r in two.one.core.part(service.Contexts).versions(PLACE, "m.md")] == ["m.md"]
    assert two.folder.conflicts == set()


@proves("context.merged-alike-everywhere")
@proves("context.conflicts-are-kept-and-shown")
def test_a_day_apart_with_two_hundred_edits_each_is_merged_or_shown_and_nothing_else(two):
    draw, names = random.Random(11), [f"{n}.md" for n in range(50)]
    for name in names:
        two["hub"].put(name, "".join(f"{n}: {name}\n" for n in range(30)))
    two["hub"].look("")
    two.settle()
    two.cut()
    for who in ("hub", "studio"):
        for edit in range(200):
            name, line = draw.choice(names), draw.randrange(30)
            lines = (two[who].text(name) or "").splitlines()
            lines[line] = f"{line}: {who} {edit}"
            two[who].put(name, "\n".join(lines) + "\n")
            two[who].look(name)
    theirs = {who: two[who].files() for who in ("hub", "studio")}
    two.connect()
    assert two["hub"].files() == two["studio"].files()
    assert sorted(two["hub"].files()) == sorted(names)
    assert two["hub"].folder.conflicts == two["studio"].folder.conflicts
    assert 0 < len(two["hub"].folder.conflicts) < len(names)
    for name, text in two["hub"].files().items():
        assert "<<<<<<<" not in text
        if name not in two["hub"].folder.conflicts:
            # Each line that one of them changed is as he had it.
            lines = zip(*(each[name].splitlines() for each in theirs.values()), strict=True)
            for now, (one, other) in zip(text.splitlines(), lines, strict=True):
                assert now == (other if one.endswith(name) else one)
        else:
            assert {theirs["hub"][name], theirs["studio"][name]} <= two.histories(name)


# --- nothing is lost: each of these is caught without its safeguard ------------------------------


def during_an_outage(world: SharedFolders) -> set[str]:
    world.edit("hub", "n.md", "one\n")
    world.cut()
    world.edit("hub", "n.md", "theirs\n", settle=False)
    # Studio hears of it, and its person has just saved, over what the disk had.
    studio = world["studio"]
    studio.put("n.md", "mine\n")
    world.connect()
    return world.histories("n.md")


@proves("context.nothing-is-lost")
def test_what_was_saved_just_before_something_came_is_a_version_over_what_the_disk_had(tmp_path):
    world = SharedFolders(tmp_path, "hub", "studio")
    assert {"theirs\n", "mine\n"} <= during_an_outage(world)
    assert world["hub"].folder.conflicts == {"n.md"}


def without_the_first_look(world: SharedFolders, monkeypatch) -> set[str]:
    world.edit("hub", "n.md", "one\n")
    world.edit("hub", "n.md", "theirs\n", settle=False)
    world["studio"].put("n.md", "mine\n")
    blind = {"_changes": lambda paths, settle: ([], list(paths)) if settle else ([], [])}
    for name, deed in blind.items():
        monkeypatch.setattr(world["studio"].folder, name, deed)
    world["studio"].settle_news()
    monkeypatch.delattr(world["studio"].folder, "_changes")
    world.settle()
    return world.histories("n.md")


def test_without_the_look_at_the_file_the_look_at_what_was_replaced_finds_it(two, monkeypatch):
    assert {"theirs\n", "mine\n"} <= without_the_first_look(two, monkeypatch)


def test_without_either_look_it_is_lost(two, monkeypatch):
    monkeypatch.setattr(writer.Writer, "_replaced", lambda *_: False)
    assert "mine\n" not in without_the_first_look(two, monkeypatch)


def saved_while_asking(world: SharedFolders) -> set[str]:
    """A person saves on studio between its look at the file and the writing of what came."""
    world.edit("hub", "n.md", "one\n")
    world["hub"].put("n.md", "theirs\n")
    world["hub"].look("n.md")
    studio = world["studio"]
    studio.meanwhile = lambda: studio.change("n.md", "mine\n")
    world.settle()
    studio.look_at_old()
    world.settle()
    return world.histories("n.md")


@proves("context.nothing-is-lost")
def test_what_was_saved_between_the_look_and_the_writing_is_found_in_what_was_replaced(two):
    assert {"theirs\n", "mine\n"} <= saved_while_asking(two)
    assert len(set(two.texts("n.md"))) == 1


def test_without_the_look_at_what_was_replaced_it_is_lost(two, monkeypatch):
    monkeypatch.setattr(writer.Writer, "_replaced", lambda *_: False)
    assert "mine\n" not in saved_while_asking(two)


def test_without_the_exchange_of_names_it_is_lost(two, monkeypatch):
    def replace(name: str, own: str, folder: int) -> bool:
        os.replace(name, own, src_dir_fd=folder, dst_dir_fd=folder)
        with open(name, "wb", opener=lambda p, f: os.open(p, f, dir_fd=folder)):
            pass
        os.utime(name, ns=(1, 1), dir_fd=folder)
        return True

    monkeypatch.setattr(disks, "exchange", replace)
    assert "mine\n" not in saved_while_asking(two)


def written_into_the_old_one(world: SharedFolders) -> set[str]:
    """A program opened the file before what came was written, and writes after it."""
    world.edit("hub", "n.md", "one\n")
    studio = world["studio"]
    with (studio.top / "n.md").open("r+") as file:
        world.edit("hub", "n.md", "theirs\n")
        file.write("mine!\n")
        file.flush()
        os.utime(file.fileno(), ns=(5, 5))
        studio.look_at_old()
    world.settle()
    world.second_later()
    return world.histories("n.md")


@proves("context.nothing-is-lost")
def test_what_a_program_writes_into_the_file_that_was_replaced_is_found_a_second_later(two):
    assert {"theirs\n", "mine!\n"} <= written_into_the_old_one(two)
    left = [path for each in two.machines.values() for path in each.top.rglob(".~muster-*")]
    assert left == []


def test_without_the_second_look_it_is_lost(two, monkeypatch):
    monkeypatch.setattr(writer.Writer, "look_at_old", lambda *_: False)
    assert "mine!\n" not in written_into_the_old_one(two)


@proves("context.nothing-is-lost")
def test_over_is_what_the_disk_was_made_of_and_not_what_the_machine_holds(two, monkeypatch):
    """An entry came, and the file was edited before it could be written."""
    two.edit("hub", "n.md", BASE)
    two["hub"].put("n.md", BASE.replace("line 1", "first"))
    two["hub"].look("n.md")
    two.cores.drain()
    two["studio"].put("n.md", BASE.replace("line 1", "erste"))
    two["studio"].look("n.md")
    two.settle()
    assert two["studio"].folder.conflicts == {"n.md"}
    part = two["studio"].one.core.part(service.Contexts)
    last = part.versions(PLACE, "n.md")[-1]
    first = part.versions(PLACE, "n.md")[0]
    assert last.targets == {first.id}


def test_over_is_remembered_across_a_restart(two):
    two.edit("hub", "n.md", "one\n")
    two.cut()
    two.edit("hub", "n.md", "theirs\n", settle=False)
    studio = two["studio"]
    studio.put("n.md", "mine\n")
    studio.begin()
    two.connect()
    assert two["hub"].folder.conflicts == {"n.md"}


def test_two_saves_in_one_batch_are_one_version_after_the_other_and_no_conflict(two):
    two.edit("hub", "n.md", "one")
    two["hub"].put("n.md", "two")
    two["hub"].folder.look(["n.md", "n.md", ""])
    two["hub"].put("n.md", "three")
    two["hub"].look("n.md", "")
    two.settle()
    assert two["studio"].text("n.md") == "three"
    assert two["studio"].folder.conflicts == set()


@proves("context.half-written-is-no-version")
def test_a_file_is_read_when_nobody_has_written_it_for_a_moment(two):
    hub = two["hub"]
    (hub.top / "n.md").write_text("half")
    hub.folder.look(["n.md"])
    assert hub.history("n.md") == []
    assert hub.waiting == {"n.md": False}
    (hub.top / "n.md").write_text("whole")
    aged(hub.top / "n.md")
    hub.wait()
    assert hub.history("n.md") == ["whole"]


@proves("context.half-written-is-no-version")
def test_a_file_that_changes_while_it_is_read_is_read_later(two, monkeypatch):
    hub, read = two["hub"], Disk.read
    hub.put("n.md", "half")

    def slow(self: Disk, path: str, most: int) -> bytes | None:
        found = read(self, path, most)
        if path == "n.md":
            monkeypatch.undo()
            hub.put("n.md", "more")
        return found

    monkeypatch.setattr(Disk, "read", slow)
    hub.folder.look(["n.md"])
    assert hub.history("n.md") == []
    hub.wait()
    assert hub.history("n.md") == ["more"]


def test_while_a_file_is_being_written_nothing_is_put_in_its_place(two):
    two.edit("hub", "n.md", "one\n")
    two.edit("hub", "n.md", "theirs\n", settle=False)
    (two["studio"].top / "n.md").write_text("being writ")
    two["studio"].folder.settle(["n.md"])
    assert two["studio"].text("n.md") == "being writ"
    two["studio"].put("n.md", "being written\n")
    two.settle()
    two["studio"].wait()
    two.settle()
    assert {"theirs\n", "being written\n"} <= two.histories("n.md")
    assert "being writ" not in two.histories("n.md")


# --- crashes ------------------------------------------------------------------------------------


class Killed(Exception):
    """As kill -9."""


@pytest.mark.parametrize(
    "moment", ["prepare", "swap", "take_away"], ids=["before", "after the swap", "taken away"]
)
@pytest.mark.parametrize("late", [False, True], ids=["", "and an edit before the start"])
@proves("context.nothing-is-lost")
def test_whoever_is_killed_at_the_writing_goes_on_and_makes_no_false_version(
    two, monkeypatch, moment, late
):
    two.edit("hub", "n.md", "one\n")
    if moment == "take_away":
        (two["hub"].top / "n.md").unlink()
    else:
        two["hub"].put("n.md", "theirs\n")
    two["hub"].look("n.md")
    two.cores.drain()
    done = getattr(Disk, moment)

    def killed(*given, **more):
        done(*given, **more)
        raise Killed

    monkeypatch.setattr(Disk, moment, killed)
    with pytest.raises(Killed):
        two["studio"].settle_news()
    monkeypatch.undo()
    if late:
        two["studio"].put("n.md", "mine\n")
    two["studio"].begin()
    two.settle()
    two.second_later()
    assert len(set(two.texts("n.md"))) == 1
    wanted = {None: 1, "theirs\n": 1}
    if late:
        assert "mine\n" in two.histories("n.md")
    else:
        assert two["studio"].text("n.md") in wanted
        assert Counter(two["studio"].history("n.md")) == Counter(two["hub"].history("n.md"))
        assert len(two["hub"].history("n.md")) == 2, "no version but those two people made"
    assert not list(two["studio"].top.rglob(".~muster-*"))


def test_whoever_is_killed_before_it_remembers_its_version_writes_no_second_one(two, monkeypatch):
    two.edit("hub", "n.md", "one\n")
    monkeypatch.setattr(folders.Folder, "_save", lambda *_: (_ for _ in ()).throw(Killed))
    two["hub"].put("n.md", "two\n")
    with pytest.raises(Killed):
        two["hub"].folder.look(["n.md"])
    monkeypatch.undo()
    two.edit("studio", "m.md", "x")
    two["hub"].begin()
    two.settle()
    assert two["hub"].history("n.md") == ["one\n", "two\n"]
    assert two.texts("n.md") == ["two\n"] * 2


# --- who may ------------------------------------------------------------------------------------


@proves("context.written-by-whom")
def test_what_a_machine_without_the_right_writes_is_kept_and_written_nowhere(tmp_path):
    world = SharedFolders(tmp_path, "hub", "studio", writers=["hub"])
    world.edit("hub", "skills/x.md", "ours\n")
    world.edit("studio", "skills/x.md", "obey me\n")
    world.edit("studio", "skills/new.sh", "rm -rf\n")
    assert world["hub"].files() == {"skills/x.md": "ours\n"}
    assert "obey me\n" in world["hub"].history("skills/x.md")
    assert "may write here" in world["hub"].folder.left["skills/new.sh"]
    assert world["studio"].text("skills/x.md") == "obey me\n", "its own disk stays until more comes"
    world.edit("hub", "skills/x.md", "newer\n")
    assert world.texts("skills/x.md") == ["newer\n"] * 2
    world.edit("studio", "skills/x.md", "obey me again\n")
    world.grant("studio", heads.WRITE)
    world.settle()
    assert world.texts("skills/x.md") == ["obey me again\n"] * 2
    assert world.texts("skills/new.sh") == ["rm -rf\n"] * 2


def test_without_the_question_whose_it_is_it_would_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(heads.Heads, "allows", lambda *_: True)
    world = SharedFolders(tmp_path, "hub", "studio", writers=["hub"])
    world.edit("studio", "skills/x.md", "obey me\n")
    assert world["hub"].files() == {"skills/x.md": "obey me\n"}


@proves("context.executed-by-whom")
def test_the_executable_bit_needs_a_right_of_its_own_and_editing_does_not_take_it_away(tmp_path):
    world = SharedFolders(tmp_path, "hub", "studio", writers=[])
    world.grant("hub", heads.WRITE)
    world.grant("studio", heads.WRITE)
    world.settle()
    world["hub"].put("run.sh", "echo 1\n", x=True)
    world["hub"].look("run.sh")
    world.settle()
    assert world["studio"].text("run.sh") == "echo 1\n"
    assert not os.access(world["studio"].top / "run.sh", os.X_OK)
    world.edit("studio", "run.sh", "echo 2\n")
    assert world["hub"].text("run.sh") == "echo 2\n"
    rows = world["hub"].one.core.part(service.Contexts).versions(PLACE, "run.sh")
    assert [row.x for row in rows] == [1, 1]
    world.grant("studio", heads.EXEC)
    world.settle()
    assert os.access(world["studio"].top / "run.sh", os.X_OK)


@proves("context.written-by-whom")
def test_what_a_revoked_machine_wrote_beyond_its_end_is_taken_back(tmp_path):
    world = SharedFolders(tmp_path, "hub", "studio")
    world.edit("hub", "n.md", "one\n")
    studio = world["studio"].one
    cut = {
        str(s): studio.core.log.size(s) for s in studio.core.log.streams() if s.machine == studio.id
    }
    world.edit("studio", "n.md", "spoiled\n")
    assert world["hub"].text("n.md") == "spoiled\n"
    world.revoke("studio", cut)
    world["hub"].settle_news()
    assert world["hub"].text("n.md") == "one\n"


# --- what is left out ---------------------------------------------------------------------------


@proves("context.machine-configuration-stays-here")
def test_what_makes_a_machine_obey_is_neither_read_nor_written(two):
    for name in (".claude/settings.json", ".mcp.json", "hooks/x.sh", ".env", "node_modules/a.js"):
        two["hub"].put(name, "x")
    two["hub"].put(".musterignore", "!settings.json\n!.mcp.json\n!hooks\n")
    two["hub"].look("")
    two.settle()
    assert sorted(two["studio"].files()) == [".musterignore"]
    # A machine that writes it into the log all the same.
    body = service.ContextPut("notes", ".claude/settings.json", text="{}")
    two["studio"].write(PLACE, [body])
    two.settle()
    assert (two["hub"].top / ".claude" / "settings.json").read_text() == "x"


def test_what_a_file_in_the_folder_leaves_out_is_so_on_every_machine(two):
    two["hub"].put(".musterignore", "*.log\n")
    two["hub"].put("a.log", "x")
    two["hub"].look("")
    two.settle()
    two.edit("studio", "b.log", "y")
    assert sorted(two["studio"].files()) == [".musterignore", "b.log"]
    assert sorted(two["hub"].files()) == [".musterignore", "a.log"]
    two.edit("studio", ".musterignore", "*.tmp\n")
    two["studio"].look(".musterignore")
    two.settle()
    assert two.texts("a.log") == ["x", "x"]


@proves("context.keys-stay-here")
def test_a_file_with_a_key_in_it_is_no_version_and_the_key_is_told_nowhere(two):
    key = "ghp_" + "a1" * 18
    two.edit("hub", "n.md", f"first\n{key}\n")
    assert two["studio"].files() == {}
    assert two["hub"].history("n.md") == []
    told = two["hub"].folder.left["n.md"]
    assert "line 2 has a GitHub token" in told
    assert key not in told
    two.edit("hub", "n.md", "first\n")
    assert two["studio"].text("n.md") == "first\n"
    assert "n.md" not in two["hub"].folder.left


def test_what_is_large_is_synced_where_somebody_said_so(tmp_path):
    data = "x" * (1024 * 1024 + 1)
    world = SharedFolders(tmp_path / "a", "hub", "studio")
    world.edit("hub", "n.md", data)
    assert "--large" in world["hub"].folder.left["n.md"]
    assert world["hub"].history("n.md") == []
    world = SharedFolders(tmp_path / "b", "hub", "studio", large=True)
    world.edit("hub", "n.md", data)
    (row,) = world["studio"].one.core.part(service.Contexts).versions(PLACE, "n.md")
    assert (row.size, row.blob) == (len(data), 1)


def test_a_blob_is_written_when_its_bytes_are_here(two):
    data = "y" * (CONTEXT_INLINE_BYTES_MAX + 1)
    two.edit("hub", "n.md", data)
    assert two["studio"].text("n.md") is None
    assert two["studio"].folder.left["n.md"] == "its bytes are not here yet"
    two["studio"].blobs.put(data.encode())
    two["studio"].folder.settle(["n.md"])
    assert two["studio"].text("n.md") == data


def test_a_blob_that_rotted_is_not_written(two):
    data = "y" * (CONTEXT_INLINE_BYTES_MAX + 1)
    two.edit("hub", "n.md", data)
    name = two["studio"].blobs.put(data.encode())
    (two["studio"].home / "blobs" / name[:2] / name[2:]).write_text("rotten")
    two["studio"].folder.settle(["n.md"])
    assert two["studio"].text("n.md") is None
    assert "rotted" in two["studio"].folder.left["n.md"]
    assert not list(two["studio"].top.rglob("*muster*"))
