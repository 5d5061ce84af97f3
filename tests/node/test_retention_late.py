"""What was let go is known as old to whoever comes later, and no word about it hides what counts."""

import shutil

import pytest
from tests.node.shared_folders import PLACE, WALL_MS, SharedFolders, write
from tests.node.test_retention import (
    MANY,
    OLD,
    disks_say,
    heads,
    later,
    let_go,
    look_through,
    often,
    text,
)
from tests.promise import proves

from muster.context.kinds import ContextPut, ContextReplaced
from muster.limits import CONTEXT_KEPT_MS
from muster.node.services.heads import WRITE
from muster.node.services.retention import WritePassed

DAY_MS = 86_400_000


@pytest.fixture
def three(tmp_path):
    """The third has no link until somebody gives it one."""
    world = SharedFolders(tmp_path, "hub", "studio", "late")
    world.cut()
    world.cores.link("hub", "studio")
    return world


def with_a_copy(world: SharedFolders, name: str, path: str, copy: str) -> None:
    """The folder of a machine is mapped now, and has a copy of long ago in it."""
    shared = world[name]
    shutil.rmtree(shared.home)
    shared.top.mkdir(parents=True)
    shared.put(path, copy)
    shared.begin()
    world.settle()
    world.cores.pass_ms(2_000)
    world.settle()


@proves("context.let-go-changes-nothing-that-counts")
def test_an_old_copy_on_a_machine_that_joins_later_is_known_as_an_old_version(three):
    """It was a new version over nothing there, and on every disk."""
    often(three, "hub", "studio")
    disks_say(three, "hub", "studio")
    later(three)
    look_through(three, "hub", "studio")
    look_through(three, "hub", "studio")
    assert len(let_go(three, "hub")) == OLD - 1
    three.cores.link("hub", "late")
    three.cores.pass_ms(3_000)
    with_a_copy(three, "late", "n.md", text(4))
    assert three.texts("n.md") == [text(MANY - 1)] * 3
    assert [m.folder.conflicts for m in three.machines.values()] == [set()] * 3
    assert len(heads(three, "hub")) == 1


@proves("context.let-go-changes-nothing-that-counts")
def test_an_old_copy_whose_version_had_the_bytes_of_one_that_is_gone_is_known(three):
    ids = often(three, "hub")
    (over,) = write(three, "hub", ContextPut("notes", "copy.md", same=ids[3].hex()))
    for n in range(MANY):
        body = ContextPut("notes", "copy.md", [over.hex()], text(1_000 + n))
        (over,) = write(three, "studio", body)
    three.settle()
    disks_say(three, "hub", "studio")
    later(three)
    look_through(three, "hub", "studio")
    assert ids[3] in let_go(three, "hub")
    three.cores.link("hub", "late")
    three.cores.pass_ms(3_000)
    with_a_copy(three, "late", "copy.md", text(3))
    assert three["hub"].text("copy.md") == three["late"].text("copy.md") == text(1_000 + MANY - 1)
    assert heads(three, "hub", "copy.md") == [over]


@proves("context.let-go-changes-nothing-that-counts")
def test_to_say_again_of_a_head_leaves_no_file_without_one(tmp_path):
    """It was a deletion that no list shows, by one entry of a machine that may write."""
    world = SharedFolders(tmp_path, "hub", "studio", "late")
    world.edit("hub", "n.md", text(1))
    (head,) = heads(world, "hub")
    write(world, "studio", ContextReplaced("notes", "n.md", [head.hex()]))
    world.settle()
    assert [heads(world, name) for name in world.machines] == [[head]] * 3
    # It is what counts, however old, and keeps its bytes.
    (world["late"].top / "n.md").unlink()
    world["late"].look("n.md")
    world.settle()
    assert world.texts("n.md") == [None] * 3
    world.edit("studio", "n.md", text(2))
    assert world.texts("n.md") == [text(2)] * 3


@proves("context.let-go-when-nobody-needs-it")
def test_what_counts_keeps_its_bytes_whatever_is_said_to_be_over_it(tmp_path):
    world = SharedFolders(tmp_path, "hub", "studio")
    ids = write(world, "hub", *(ContextPut("notes", "n.md", [], text(n)) for n in range(3)))
    every = [id.hex() for id in ids]
    write(world, "hub", ContextPut("notes", "n.md", [every[0], every[2]], text(1)))
    over = heads(world, "hub")
    assert ids[1] in over
    (other,) = set(over) - {ids[1]}
    for _ in range(MANY):
        body = ContextPut("notes", "n.md", [other.hex()], text(1))
        (other,) = write(world, "hub", body)
    write(world, "studio", ContextReplaced("notes", "n.md", [other.hex(), ids[1].hex()]))
    world.settle()
    assert set(heads(world, "hub")) == {other, ids[1]}
    disks_say(world)
    # No disk is made of it any more.
    for one in world.cores.machines.values():
        one.step(WritePassed(PLACE, {}, ended=True))
    later(world)
    look_through(world)
    assert let_go(world, "hub")
    assert not set(let_go(world, "hub")) & {other, ids[1]}


@proves("context.let-go-when-nobody-needs-it")
def test_the_newest_version_of_each_machine_keeps_its_bytes(tmp_path):
    """Where another's grant ends by its date, it counts again: and whoever maps the folder has it."""
    world = SharedFolders(tmp_path, "hub", "studio", "late", writers=["hub"])
    world.grant("studio", WRITE, until_ms=WALL_MS + world.cores.ms + CONTEXT_KEPT_MS + 3 * DAY_MS)
    world.cores.pass_ms(500)
    world.edit("hub", "n.md", text(0))
    world.edit("hub", "n.md", text(1))
    (newest,) = heads(world, "hub")
    over = newest
    for n in range(MANY):
        body = ContextPut("notes", "n.md", [over.hex()], text(100 + n))
        (over,) = write(world, "studio", body)
    world.settle()
    world["studio"].folder.settle(["n.md"])
    world.second_later()
    disks_say(world)
    later(world)
    look_through(world)
    look_through(world)
    assert let_go(world, "hub")
    later(world, 4 * DAY_MS)
    for each in world.machines.values():
        each.folder.rescan(everything=True)
    world.settle()
    # What the disks have of the other's is over it, by one that may write.
    assert newest not in let_go(world, "hub")
    (head,) = heads(world, "hub")
    late = world["late"]
    shutil.rmtree(late.home)
    late.top.mkdir(parents=True)
    late.begin()
    world.settle()
    assert late.files() == world["hub"].files() != {}
    assert heads(world, "late") == [head]
