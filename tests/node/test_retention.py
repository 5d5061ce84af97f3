"""Bytes of versions of files that nobody needs any more go; what they were over does not."""

import pytest
from tests.digest import tables_digest
from tests.node.shared_folders import PLACE, SharedFolders, write
from tests.promise import proves

from muster.context.fold import AT, OVER, PASSED, TOP, VERSION
from muster.context.kinds import ContextPut
from muster.limits import (
    CONTEXT_KEPT_MAX,
    CONTEXT_KEPT_MS,
    CONTEXT_KEPT_NEWEST,
    CONTEXT_LET_GO_IN_STEP_MAX,
)
from muster.log.entry import EntryId
from muster.node import event as ev
from muster.node.folders.passed import Passed, made_of
from muster.node.services.context import Contexts, WriteRoot
from muster.node.services.retention import EVERY_MS, Retention, WritePassed

# As many as go when the newest 50, and the first one, stay.
OLD = 8
MANY = CONTEXT_KEPT_NEWEST + 1 + OLD
NEVER = 2**62
LONG = "a line of a file that is long enough to be worth it\n" * 8


def text(n: int) -> str:
    return f"{n}\n{LONG}"


@pytest.fixture
def two(tmp_path):
    return SharedFolders(tmp_path, "hub", "studio")


def often(
    world: SharedFolders, *names: str, times: int = MANY, path: str = "n.md"
) -> list[EntryId]:
    """These change a file so often, in turn, each time over the last."""
    ids = list[EntryId]()
    for n in range(times):
        over = [ids[-1].hex()] if ids else []
        ids += write(world, names[n % len(names)], ContextPut("notes", path, over, text(n)))
    world.settle()
    return ids


def disks_say(world: SharedFolders, *names: str) -> None:
    """What a watch says once a day: what the disk has, and what it needs no more."""
    for name in names or world.machines:
        shared = world[name]
        shared.one.step(WriteRoot(PLACE, shared.folder.root))
        shared.one.world.pass_ms(100)
        passed = Passed(lambda make, shared=shared: shared._ask(make(1)), shared.one.step)
        assert passed.say(shared.folder)
        world.cores.drain()
    world.cores.pass_ms(200)


def later(world: SharedFolders, ms: int = CONTEXT_KEPT_MS + 1) -> None:
    for one in world.cores.machines.values():
        # None looks by itself: when and where is what is tested.
        one.core.part(Retention)._due_ms = NEVER
    world.cores.ms += ms
    world.cores.pass_ms(100)


def look_through(world: SharedFolders, *names: str) -> None:
    """The look of a day, on these machines."""
    for name in names or world.machines:
        part = world.cores[name].core.part(Retention)
        part._due_ms = 0
        world.cores[name].step(ev.Tick())
        world.cores.drain()
        assert part._walk is None, "it ends"
        part._due_ms = NEVER
    world.cores.pass_ms(200)


def let_go(world: SharedFolders, name: str, path: str = "n.md") -> list[EntryId]:
    """The versions that have their bytes no more, the oldest first."""
    core = world.cores[name].core
    rows = core.tables.rows(VERSION, folder="notes", path=path)
    gone = [row for row in rows if core.log.is_let_go(row.stream, row.seq)]
    assert all(core.log.entry(row.id).body is None for row in gone)
    return [row.id for row in sorted(gone, key=lambda row: (row.at_ms, row.at_n))]


def heads(world: SharedFolders, name: str, path: str = "n.md") -> list[EntryId]:
    file = world.cores[name].core.part(Contexts).file(PLACE, path)
    return [] if file is None else [head.id for head in file.heads]


@proves("context.let-go-when-nobody-needs-it")
def test_what_was_replaced_long_ago_and_often_loses_its_bytes_on_every_machine(two):
    ids = often(two, "hub", "studio")
    disks_say(two)
    later(two)
    look_through(two)
    look_through(two)
    # The first one of each machine stays.
    assert let_go(two, "hub") == let_go(two, "studio") == ids[2 : OLD + 1]
    assert heads(two, "hub") == heads(two, "studio") == [ids[-1]]
    assert two.texts("n.md") == [text(MANY - 1)] * 2
    two.edit("studio", "n.md", "and on it goes")
    assert two.texts("n.md") == ["and on it goes"] * 2


@proves("context.let-go-when-nobody-needs-it")
def test_what_is_young_or_one_of_the_newest_keeps_its_bytes(two):
    often(two, "hub")
    disks_say(two)
    later(two, CONTEXT_KEPT_MS - 60_000)
    look_through(two)
    assert let_go(two, "hub") == []
    often(two, "hub", times=CONTEXT_KEPT_NEWEST, path="few.md")
    disks_say(two)
    later(two)
    look_through(two)
    assert let_go(two, "hub", "few.md") == []
    assert len(let_go(two, "hub")) == OLD


@proves("context.let-go-when-nobody-needs-it")
def test_the_time_counts_from_when_it_was_replaced(two):
    """A file that nobody touched for a year, and that is changed often today."""
    first = often(two, "hub", times=2)[1]
    later(two, 12 * CONTEXT_KEPT_MS)
    for n in range(MANY):
        (first,) = write(two, "hub", ContextPut("notes", "n.md", [first.hex()], text(n)))
    two.settle()
    disks_say(two)
    look_through(two)
    assert let_go(two, "hub") == []


@proves("context.let-go-changes-nothing-that-counts")
def test_tables_are_as_before_and_as_after_a_rebuild(two):
    often(two, "hub")
    disks_say(two)
    later(two)
    store = two.cores["hub"].core.store

    def rows():
        versions = (
            two.cores["hub"].core.tables.rows(VERSION),
            two.cores["hub"].core.tables.rows(TOP),
        )
        return *versions, heads(two, "hub")

    before = rows()
    look_through(two)
    assert len(let_go(two, "hub")) == OLD
    assert rows() == before
    digest = tables_digest(store)
    for _ in store.rebuild():
        pass
    assert rows() == before
    assert tables_digest(store) == digest


@proves("context.let-go-when-nobody-needs-it")
def test_a_machine_that_is_away_finds_what_its_files_were_made_of(two, monkeypatch):
    """Its own edit, over a version of long ago, is merged with all that was done meanwhile."""
    lines = [f"line {n} {'x' * 40}\n" for n in range(12)]
    two.edit("hub", "n.md", "first")
    two.edit("hub", "n.md", "".join(lines))
    disks_say(two)
    two.cut()
    base = heads(two, "hub")[0]
    over = base
    for n in range(MANY):
        body = "".join([f"{n}\n", *lines[1:]])
        (over,) = write(two, "hub", ContextPut("notes", "n.md", [over.hex()], body))
    two["hub"].folder.settle(["n.md"])
    disks_say(two, "hub")
    later(two)
    look_through(two, "hub")
    assert let_go(two, "hub") == []
    two["studio"].put("n.md", "".join([*lines[:-1], "the last line\n"]))
    two["studio"].look("n.md")
    two.connect()
    two.settle()
    merged = "".join([f"{MANY - 1}\n", *lines[1:-1], "the last line\n"])
    assert two.texts("n.md") == [merged] * 2
    # So long whoever had it open may write into what was replaced, and a copy name it.
    two.second_later()
    monkeypatch.setattr("muster.node.folders.holders.clock.boot_ms", lambda: NEVER)
    disks_say(two)
    later(two)
    look_through(two)
    assert base in let_go(two, "hub")


def test_what_was_replaced_a_moment_ago_is_what_the_disk_is_made_of_yet(two):
    """Whoever has it open may write into it, and that is a version over what it was made of."""
    two.edit("hub", "n.md", "one")
    (one,) = heads(two, "hub")
    two.edit("hub", "n.md", "two")
    assert one in made_of(two["studio"].folder)
    two.second_later()
    assert one not in made_of(two["studio"].folder)


@proves("context.let-go-when-nobody-needs-it")
def test_what_a_disk_is_made_of_yet_stays_though_it_holds_what_replaced_it(two):
    """Something lies in the way there: of that file it is as it was."""
    ids = often(two, "hub", times=3)
    path = two["studio"].top / "n.md"
    path.unlink()
    path.symlink_to("elsewhere")
    for n in range(3, MANY + 3):
        body = ContextPut("notes", "n.md", [ids[-1].hex()], text(n))
        ids += write(two, "hub", body)
    two.settle()
    assert "n.md" in two["studio"].folder.left
    disks_say(two)
    later(two)
    look_through(two)
    assert ids[1] in let_go(two, "hub")
    assert ids[2] not in let_go(two, "hub")


def test_a_disk_that_is_far_behind_says_nothing(two, monkeypatch):
    monkeypatch.setattr("muster.node.folders.passed.CONTEXT_KEPT_MAX", -1)
    assert CONTEXT_KEPT_MAX > 0
    often(two, "hub", times=2)
    disks_say(two, "studio")
    assert two.cores["hub"].core.tables.rows(PASSED) == []


@proves("context.let-go-when-nobody-needs-it")
def test_while_a_machine_of_an_older_muster_has_the_folder_all_stays(two):
    often(two, "hub")
    two["studio"].one.step(WriteRoot(PLACE, two["studio"].folder.root))
    disks_say(two, "hub")
    later(two)
    look_through(two)
    assert let_go(two, "hub") == []
    # It has the folder no more, and that is said by one that can.
    two.cores["studio"].step(WritePassed(PLACE, {}, ended=True))
    two.cores.drain()
    two.cores.pass_ms(200)
    look_through(two, "hub")
    assert len(let_go(two, "hub")) == OLD


@proves("context.let-go-when-nobody-needs-it")
def test_a_file_in_conflict_keeps_all_that_it_was(two):
    ids = often(two, "hub")
    (other,) = write(two, "studio", ContextPut("notes", "n.md", [ids[0].hex()], "another\n" + LONG))
    two.settle()
    assert sorted(heads(two, "hub")) == sorted([ids[-1], other])
    disks_say(two)
    later(two)
    look_through(two)
    assert let_go(two, "hub") == []
    write(two, "hub", ContextPut("notes", "n.md", [ids[-1].hex(), other.hex()], "one again"))
    two.settle()
    disks_say(two)
    later(two)
    look_through(two)
    assert other not in let_go(two, "hub")
    assert len(let_go(two, "hub")) == OLD + 2


@proves("context.let-go-when-nobody-needs-it")
def test_what_another_file_has_its_bytes_of_keeps_them(two):
    ids = often(two, "hub")
    write(two, "hub", ContextPut("notes", "copy.md", same=ids[3].hex()))
    two.settle()
    disks_say(two)
    later(two)
    look_through(two)
    assert let_go(two, "hub") == [*ids[1:3], *ids[4 : OLD + 1]]
    assert two["studio"].text("copy.md") == text(3)


@proves("context.let-go-changes-nothing-that-counts")
def test_who_joins_and_hears_from_two_that_let_go_apart_has_nothing_back(tmp_path):
    """The hub's bodies are gone, the studio's are not: each of these was replaced by one of those."""
    world = SharedFolders(tmp_path, "hub", "studio", "late")
    world.cut()
    world.cores.link("hub", "studio")
    ids = often(world, "hub", "studio")
    disks_say(world, "hub", "studio")
    later(world)
    look_through(world, "hub")
    gone = let_go(world, "hub")
    assert gone == [id for n, id in enumerate(ids[: OLD + 1]) if n and not n % 2]
    world.cores.link("hub", "late")
    world.cores.pass_ms(2_000)
    core = world.cores["late"].core
    assert all(core.log.entry(id).body is None for id in gone)
    assert heads(world, "late") == heads(world, "hub") == [ids[-1]]
    world.settle()
    assert world["late"].text("n.md") == text(MANY - 1)
    assert world["late"].folder.conflicts == set()
    # Since when there is that file decides whose a name is.
    since = [world.cores[n].core.part(Contexts).heads(PLACE).first("n.md") for n in world.machines]
    assert len(set(since)) == 1


@proves("context.let-go-in-small-steps")
def test_one_step_lets_go_so_many_however_many_there_are(two, monkeypatch):
    often(two, "hub", times=CONTEXT_KEPT_NEWEST + 1 + 4 * CONTEXT_LET_GO_IN_STEP_MAX)
    disks_say(two)
    later(two)
    core, part = two.cores["hub"].core, two.cores["hub"].core.part(Retention)
    of_steps = list[int]()
    work = core.store.let_go
    monkeypatch.setattr(
        core.store, "let_go", lambda *a: (of_steps.append(core.now.boot_ms), work(*a))
    )
    monkeypatch.setattr(two.cores, "carry_out", lambda *_: None)
    part._due_ms = 0
    two.cores["hub"].step(ev.Tick())
    most, steps = 0, 0
    while part._walk is not None:
        before = len(of_steps)
        two.cores["hub"].step(ev.Turn())
        most, steps = max(most, len(of_steps) - before), steps + 1
    assert len(of_steps) == 4 * CONTEXT_LET_GO_IN_STEP_MAX
    assert 0 < most <= 2 * CONTEXT_LET_GO_IN_STEP_MAX
    assert steps >= 4


def test_a_disk_says_the_same_only_once(two):
    often(two, "hub", times=2)
    disks_say(two)
    size = [
        core.core.log.size(core.core.membership.own(PLACE.scope))
        for core in two.cores.machines.values()
    ]
    disks_say(two)
    assert size == [
        core.core.log.size(core.core.membership.own(PLACE.scope))
        for core in two.cores.machines.values()
    ]
    assert len(two.cores["hub"].core.tables.rows(AT)) == len(
        two.cores["hub"].core.tables.rows(PASSED)
    )
    assert EVERY_MS == 86_400_000
    assert two.cores["hub"].core.tables.rows(OVER)
