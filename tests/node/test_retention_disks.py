"""Whose disk needs a version yet: what is named a moment later, and who has the folder again."""

from types import SimpleNamespace

import pytest
from tests.node.shared_folders import PLACE, SharedFolders, write
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

from muster.context.fold import PASSED, VERSION
from muster.context.kinds import ContextPut
from muster.log.stream import FLEET
from muster.node import event as ev
from muster.node.folders import holders
from muster.node.folders.folders import Folders
from muster.node.folders.holders import MOMENT_MS
from muster.node.folders.mapping import FolderMap, Mapped
from muster.node.folders.passed import Passed
from muster.node.host.home import Home
from muster.node.services.context import Place, WriteRoot
from muster.node.services.ended import FoldersKept
from muster.node.services.retention import WritePassed


@pytest.fixture
def two(tmp_path):
    return SharedFolders(tmp_path, "hub", "studio")


@pytest.fixture
def boot(monkeypatch):
    """The clock of the folders: it goes when it is told to."""
    now = [1_000_000]
    monkeypatch.setattr(holders.clock, "boot_ms", lambda: now[0])
    return now


def long(n: int) -> str:
    return text(n) * 20


def ended(world: SharedFolders, name: str) -> list[int]:
    """What a machine said last of its folder, in each of its streams."""
    core = world.cores[name].core
    return [r.ended for r in core.tables.rows(PASSED) if r.stream.machine == core.machine]


def hub_goes_on(world: SharedFolders) -> None:
    """The hub changes the file often, and then looks all of it through, a month later."""
    over = heads(world, "hub")[0]
    for n in range(MANY):
        (over,) = write(world, "hub", ContextPut("notes", "n.md", [over.hex()], text(100 + n)))
    world["hub"].folder.settle(["n.md"])
    for _ in range(2):
        world["hub"].look_at_old()
    disks_say(world, "hub")
    later(world)
    look_through(world, "hub")


@proves("context.let-go-when-nobody-needs-it")
def test_what_a_copy_may_name_yet_is_needed_by_the_disk_that_it_just_left(two, boot):
    """The copy is made minutes after that was said, and heard of by others months later."""
    two.edit("hub", "n.md", long(0))
    two.edit("hub", "n.md", long(1))
    two.second_later()
    (named,) = heads(two, "hub")
    two.edit("studio", "n.md", long(2))
    two.second_later()
    boot[0] += MOMENT_MS - 2
    disks_say(two)
    two.cut()
    boot[0] += 1
    two["studio"].put("r.md", long(1))
    two["studio"].look("r.md")
    (row,) = two.cores["studio"].core.tables.rows(VERSION, path="r.md")
    assert row.same == named
    hub_goes_on(two)
    assert named not in let_go(two, "hub")
    two.connect()
    two.settle()
    assert two.texts("r.md") == [long(1)] * 2
    # From now on it stays for the copy's sake.
    boot[0] += MOMENT_MS
    disks_say(two)
    later(two)
    look_through(two)
    assert named not in let_go(two, "hub")


@proves("context.let-go-when-nobody-needs-it")
def test_what_no_copy_may_name_any_more_goes(two, boot):
    two.edit("hub", "n.md", long(0))
    two.edit("hub", "n.md", long(1))
    two.second_later()
    (named,) = heads(two, "hub")
    two.edit("studio", "n.md", long(2))
    two.second_later()
    boot[0] += MOMENT_MS
    disks_say(two)
    hub_goes_on(two)
    assert named in let_go(two, "hub")


def test_more_than_can_be_said_to_be_needed_is_said_when_it_is_needed_no_more(
    two, boot, monkeypatch
):
    monkeypatch.setattr("muster.node.folders.passed.CONTEXT_KEPT_MAX", 0)
    studio = two["studio"]
    two.edit("hub", "n.md", long(0))
    two.second_later()
    studio.one.step(WriteRoot(PLACE, studio.folder.root))
    two.edit("hub", "n.md", long(1))
    two.second_later()
    passed = Passed(lambda make: studio._ask(make(1)), studio.one.step)
    passed.tell_root(studio.folder)
    for said in ([], [0]):
        assert passed.due(boot[0], boot[0] + 30_000) == ["notes"]
        assert passed.due(boot[0], boot[0]) == [], "it is tried again later"
        assert passed.say(studio.folder)
        assert ended(two, "studio") == said
        boot[0] = passed.due_ms.get("notes", boot[0])
    assert not passed.due_ms, "all is said"


@proves("context.let-go-when-nobody-needs-it")
@pytest.mark.parametrize("far_behind", [False, True])
def test_who_has_the_folder_again_is_waited_for_again(two, monkeypatch, far_behind):
    """Also a disk that needs more of what was replaced than it can say."""
    lines = [f"line {n} {'x' * 40}\n" for n in range(12)]
    two.edit("hub", "n.md", "first")
    two.edit("hub", "n.md", "".join(lines))
    two.second_later()
    disks_say(two)
    two.cores["studio"].step(WritePassed(PLACE, {}, ended=True))
    two.cores.pass_ms(200)
    assert ended(two, "studio") == [1]
    if far_behind:
        monkeypatch.setattr("muster.node.folders.passed.CONTEXT_KEPT_MAX", -1)
    disks_say(two, "studio")
    monkeypatch.undo()
    assert ended(two, "studio") == [0]
    two.cut()
    base = over = heads(two, "hub")[0]
    for n in range(MANY):
        body = "".join([f"{n}\n", *lines[1:]])
        (over,) = write(two, "hub", ContextPut("notes", "n.md", [over.hex()], body))
    hub_goes_on(two)
    assert base not in let_go(two, "hub")


@proves("context.let-go-when-nobody-needs-it")
def test_who_says_what_its_disk_has_after_it_had_none_needs_everything(two):
    """It did not come to say what it needs: it may be killed, or an older Muster by now."""
    often(two, "hub")
    disks_say(two)
    two.cores["studio"].step(WritePassed(PLACE, {}, ended=True))
    two.cores.pass_ms(200)
    two.cores["studio"].step(WriteRoot(PLACE, two["studio"].folder.root))
    two.cores.pass_ms(200)
    later(two)
    look_through(two)
    assert let_go(two, "hub") == []
    two.cores["studio"].step(WritePassed(PLACE, {}, ended=True))
    two.cores.pass_ms(200)
    look_through(two, "hub")
    assert len(let_go(two, "hub")) == OLD


def test_a_disk_that_needs_more_than_it_can_say_says_no_more_what_it_said(two, monkeypatch):
    """It may be another one than that which said it."""
    often(two, "hub", times=3)
    disks_say(two)

    def said() -> list[tuple[bool, int]]:
        core = two.cores["studio"].core
        rows = core.tables.rows(PASSED, stream=core.membership.own(FLEET))
        return [
            (bool(row.upto), len(two.cores["studio"].entries("context.passed"))) for row in rows
        ]

    ((_, count),) = said()
    monkeypatch.setattr("muster.node.folders.passed.CONTEXT_KEPT_MAX", -1)
    disks_say(two, "studio")
    disks_say(two, "studio")
    assert said() == [(False, count + 1)], "once"
    monkeypatch.undo()
    disks_say(two, "studio")
    assert said() == [(True, count + 2)]


@proves("context.let-go-when-nobody-needs-it")
def test_a_folder_that_was_taken_away_unsaid_is_said_to_be_gone_when_that_may_be_written(two):
    """While this machine asked how far its own log goes, or by an older Muster."""
    often(two, "hub", times=2)
    disks_say(two)
    one = two.cores["studio"]
    other = Place(FLEET, "other")
    one.step(WriteRoot(other, b"o" * 32))
    one.core.settled = False
    one.step(WritePassed(PLACE, {}, ended=True), FoldersKept(frozenset({other})))
    assert ended(two, "studio") == [0]
    with one.core.store.transaction():
        one.core.confirmed()
    assert ended(two, "studio") == [1], "and not of the other"
    entries = len(one.entries("context.passed"))
    one.step(FoldersKept(frozenset({other})))
    one.step(WritePassed(PLACE, {}, ended=True))
    assert len(one.entries("context.passed")) == entries, "once"
    # Nothing is known of the map until it was read.
    two.cores.restart("studio")
    two.cores.link("hub", "studio")
    two.cores.pass_ms(5_000)
    assert one.core.settled
    assert len(one.entries("context.passed")) == entries
    one.step(FoldersKept(frozenset()))
    assert sorted(ended(two, "studio")) == [1, 1]


def test_which_folders_a_machine_has_is_said_at_its_start_and_when_one_is_taken_away(
    tmp_path, monkeypatch
):
    home, posted = Home(tmp_path), list[ev.Event]()
    daemon = SimpleNamespace(home=home, post=posted.append)
    folders = Folders(daemon)  # type: ignore[arg-type]
    monkeypatch.setattr(folders, "add", lambda _: None)
    for name in ("notes", "other"):
        folders.map.put(Mapped(name, str(tmp_path / name), 1))
    folders.begin()
    folders.map.remove("notes")
    folders.drop("notes")
    other = Place(FLEET, "other")
    assert posted == [FoldersKept(frozenset({PLACE, other})), FoldersKept(frozenset({other}))]
    # Of a map that nobody can read no folder is gone.
    home.put_context_map(b"no map")
    folders.drop("other")
    assert len(posted) == 2
    assert FolderMap(home)
