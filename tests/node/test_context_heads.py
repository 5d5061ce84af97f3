"""What counts of files that were changed often, by many, or by those who may not."""

import random

import pytest
from tests.node.shared_folders import PLACE, SharedFolders, write
from tests.promise import proves

from muster.context.kinds import ContextPut
from muster.context.path import folded
from muster.context.state import files
from muster.errors import Refused
from muster.limits import (
    CONTEXT_HEADS_MAX,
    CONTEXT_SPELLINGS_MAX,
    CONTEXT_STEP_ROWS,
    CONTEXT_VERSIONS_READ_MAX,
)
from muster.log.entry import EntryId
from muster.node.services.context import Contexts, FilesChanged
from muster.node.services.heads import Heads

# What the questions call the tables of versions.
NAMES = ("top", "over", "version", "context_top", "context_over", "context_version")
MANY = CONTEXT_VERSIONS_READ_MAX + 50


@pytest.fixture
def two(tmp_path):
    return SharedFolders(tmp_path, "hub", "studio")


def often(world: SharedFolders, name: str, path: str, over: EntryId, times: int) -> EntryId:
    """A machine changes a file so often, each time over the last."""
    core = world.cores[name].core
    with core.store.transaction():
        for n in range(times):
            over = core.append_body(ContextPut("notes", path, [over.hex()], f"{name} {n}")).id
        core.store.seal_dirty(core.membership.signer("seal"))
    core.sync.grew(core.membership.own(PLACE.scope))
    world.cores.drain()
    world.cores.pass_ms(200)
    return over


def part_of(world: SharedFolders, name: str = "hub") -> Contexts:
    return world.cores[name].core.part(Contexts)


@proves("context.replaced-by-who-had-it")
def test_what_was_replaced_stays_so_however_often_the_file_is_changed_after(two):
    """Of each machine the newest 200 were read: then the first one of the other stood again."""
    (first,) = write(two, "studio", ContextPut("notes", "n.md", text="first"))
    last = often(two, "hub", "n.md", first, MANY)
    for name in two.machines:
        file = part_of(two, name).file(PLACE, "n.md")
        assert file is not None
        assert [head.id for head in file.heads] == [last]
    two.settle()
    assert two["studio"].folder.conflicts == set()


@proves("context.replaced-by-who-had-it")
def test_what_was_deleted_stays_so_however_often_the_file_is_changed_after(two):
    (first,) = write(two, "studio", ContextPut("notes", "n.md", text="first"))
    last = often(two, "hub", "n.md", first, MANY)
    write(two, "hub", ContextPut("notes", "n.md", [last.hex()], gone=1))
    two.settle()
    assert two.texts("n.md") == [None, None]
    write(two, "hub", *(ContextPut("notes", "n.md", [f"{n:064x}"], gone=1) for n in range(MANY)))
    two.settle()
    assert two.texts("n.md") == [None, None]


@proves("context.conflicts-are-kept-and-shown")
def test_what_nobody_replaced_counts_however_often_the_others_change_the_file(two):
    (first,) = write(two, "studio", ContextPut("notes", "n.md", text="first"))
    (other,) = write(two, "hub", ContextPut("notes", "n.md", text="other"))
    last = often(two, "hub", "n.md", other, MANY)
    file = part_of(two).file(PLACE, "n.md")
    assert file is not None
    assert {head.id for head in file.heads} == {first, last}


@proves("context.one-state-everywhere")
def test_what_counts_by_the_tables_is_what_counts_of_all_versions(tmp_path):
    for seed in range(6):
        draw = random.Random(seed)
        world = SharedFolders(tmp_path / str(seed), "hub", "studio", "laptop")
        for _ in range(60):
            name, path = draw.choice(list(world.machines)), draw.choice(("a", "b", "B"))
            known = [row.id for row in part_of(world, name).versions(PLACE, path)]
            over = draw.sample(known, min(len(known), draw.choice((0, 1, 1, 1, 2))))
            gone = int(draw.random() < 0.2)
            text = "" if gone else draw.choice(("one", "two", "three"))
            body = ContextPut("notes", path, [each.hex() for each in over], text, gone=gone)
            if draw.random() < 0.3:
                world.cut()
            write(world, name, body)
            if draw.random() < 0.3:
                world.connect()
        world.connect()
        part = part_of(world)
        for path in ("a", "b", "B"):
            rows = part.versions(PLACE, path)
            wanted = files(map(part.version, rows)).get(path)
            found = part.file(PLACE, path)
            assert (found and found.heads) == (wanted and wanted.heads), (seed, path)
            if wanted is not None:
                assert part.heads(PLACE).first(path) == wanted.since


@proves("context.written-by-whom")
def test_what_machines_wrote_that_may_not_is_not_even_read(tmp_path):
    world = SharedFolders(tmp_path, "hub", "studio", writers=["hub"])
    write(world, "hub", ContextPut("notes", "n.md", text="ours"))
    write(world, "studio", *(ContextPut("notes", "n.md", text=f"{n}") for n in range(400)))
    heads = part_of(world).heads(PLACE)
    assert [row.path for row in heads.of("n.md")] == ["n.md"]
    assert heads.read == 1
    # Nor do its spellings of a path make a question dear, or news of many paths.
    letters = [f"{n:09b}".replace("0", "o").replace("1", "O") for n in range(512)]
    hub = world.cores["hub"]
    hub.effects.clear()
    write(world, "studio", *(ContextPut("notes", each, text="x") for each in letters))
    news = [each.paths for each in hub.effects if isinstance(each, FilesChanged)]
    assert sum(map(len, news)) == len(letters)
    assert part_of(world).heads(PLACE).of(folded(letters[0])) == []


def test_one_machine_s_many_heads_and_spellings_crowd_out_only_its_own(two):
    write(two, "studio", ContextPut("notes", "n.md", text="studio"))
    write(two, "hub", *(ContextPut("notes", "n.md", text=f"{n}") for n in range(300)))
    rows = part_of(two).heads(PLACE).of("n.md")
    assert len(rows) == CONTEXT_HEADS_MAX + 1
    names = [f"{n:06b}".replace("0", "o").replace("1", "O") for n in range(64)]
    write(two, "hub", *(ContextPut("notes", each, text="x") for each in names))
    asked: list[str] = []
    first = Heads.first
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Heads, "first", lambda self, path: asked.append(path) or first(self, path))
        part_of(two).wanted(PLACE, {names[0]: frozenset()}, {})
    assert len(asked) <= 16


def test_what_a_question_costs_beyond_a_step_is_asked_again(two, monkeypatch):
    for n in range(12):
        write(two, "hub", *(ContextPut("notes", f"{n}.md", text=f"{k}") for k in range(200)))
    asked = {f"{n}.md": frozenset[EntryId]() for n in range(12)}
    found = part_of(two).wanted(PLACE, asked, {})
    assert CONTEXT_STEP_ROWS // 200 <= len(found) < 12
    every, _ = two["hub"].wanted(PLACE, asked, {})
    assert [each.path for each in every] == list(asked)


def test_only_what_this_machine_wrote_itself_is_what_it_forgot(two):
    """What another one wrote over the same was taken for one's own, and never shown."""
    (first,) = write(two, "hub", ContextPut("notes", "n.md", text="first"))
    write(two, "studio", ContextPut("notes", "n.md", [first.hex()], text="theirs"))
    (mine,) = write(two, "hub", ContextPut("notes", "n.md", [first.hex()], text="mine"))
    (wanted,) = part_of(two).wanted(PLACE, {"n.md": frozenset({first})}, {})
    assert list(wanted.known.values()) == [mine]


def test_what_its_own_fold_would_skip_is_refused_and_nobody_waits(two):
    with pytest.raises(Refused, match="leads out of the folder"):
        two["hub"].write(PLACE, [ContextPut("notes", "../x", text="evil")])
    assert two["hub"].one.entries("context.put") == []


@proves("context.not-writers-cost-nothing")
def test_every_question_looks_up_whose_version_it_is_and_reads_nobody_elses(two, monkeypatch):
    """What a machine wrote that may not was read and thrown away, row by row, with each question."""
    (first,) = write(two, "studio", ContextPut("notes", "n.md", text="first"))
    core = two.cores["hub"].core
    asked, plain = list[str](), core.tables.query

    def query(sql, bound=()):
        if "context_" in sql:
            plan = [str(detail) for *_, detail in plain(f"explain query plan {sql}", bound)]
            # A version that is found by its id is one row; all others are many.
            asked.extend(f"{each} of {sql}" for each in plan if each.startswith(("SEARCH", "SCAN")))
        return plain(sql, bound)

    monkeypatch.setattr(core.tables, "query", query)
    heads = Heads(core, PLACE.scope, "notes")
    assert [row.id for row in heads.of("n.md")] == [first]
    heads.first("n.md")
    heads.forgotten("n.md", "")
    heads.with_bytes("n.md", b"x", x=False)
    heads.spelled(["n.md"])
    heads.read_ahead(["n.md"])
    assert [row.id for row in heads.of("n.md")] == [first]
    heads.paths(9)
    heads.is_known("n.md")
    ours = [
        each for each in asked if any(f" {name} " in each.partition(" of ")[0] for name in NAMES)
    ]
    assert len(ours) >= 8
    assert [each for each in ours if "stream=?" not in each.partition(" of ")[0]] == []


def test_what_is_read_of_many_names_at_once_is_what_each_of_them_says(two):
    draw, paths = random.Random(7), ["a.md", "A.md", "b/c.md", "B/c.md", "d.md", "none.md"]
    ids: dict[str, list[EntryId]] = {path: [] for path in paths}
    for turn in range(40):
        path, name = draw.choice(paths[:-1]), draw.choice(["hub", "studio"])
        # Of one there is more than is read at once; some are over what nobody has.
        over = [] if path == "d.md" else [each.hex() for each in ids[path] if draw.random() < 0.4]
        over += ["5" * 64] if draw.random() < 0.1 else []
        gone = draw.random() < 0.2
        body = ContextPut("notes", path, over, "" if gone else f"{turn}", gone=int(gone))
        ids[path] += write(two, name, body)
    core, names = two.cores["hub"].core, {folded(path) for path in paths}
    ahead, plain = (Heads(core, PLACE.scope, "notes") for _ in range(2))
    ahead.read_ahead(names)
    for name in names:
        assert sorted(ahead.of(name)) == sorted(plain.of(name))
        for path in paths:
            if folded(path) == name:
                for over in ("", *(id.hex() for id in ids[path])):
                    assert ahead.forgotten(path, over) == plain.forgotten(path, over)
    assert ahead.spelled(names) == set(paths[:-1])


def test_many_spellings_of_one_name_hide_no_other_name(two):
    spelled = [f"{n:010b}.md".replace("0", "o").replace("1", "O") for n in range(40)]
    write(two, "studio", *(ContextPut("notes", path, text=path) for path in [*spelled, "z.md"]))
    heads = Heads(two.cores["hub"].core, PLACE.scope, "notes")
    found = heads.spelled({folded(spelled[0]), "z.md"})
    assert "z.md" in found
    assert len(found) == CONTEXT_SPELLINGS_MAX + 1


def test_a_hundred_files_that_come_are_asked_for_in_as_many_questions_as_one(two, monkeypatch):
    core = two.cores["studio"].core
    asked, plain = list[str](), core.tables.query

    def query(sql, bound=()):
        asked.append(sql)
        return plain(sql, bound)

    monkeypatch.setattr(core.tables, "query", query)
    counts = []
    for first, last in ((0, 1), (1, 100)):
        bodies = [ContextPut("notes", f"{n}.md", text=f"{n}") for n in range(first, last)]
        asked.clear()
        write(two, "hub", *bodies)
        two.settle()
        counts.append(len(asked))
    assert len(two["studio"].files()) == 100
    assert counts[1] <= 2 * counts[0]
