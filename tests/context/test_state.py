"""What counts of the versions of files: drawn cases, and any history in any order."""

import random
from collections.abc import Callable, Iterable, Mapping

import pytest
from tests.context.world import ALICE, BOB, Stream, known
from tests.promise import proves

from muster.context import state
from muster.context.state import File, Version, files, merge_of, named, root_of
from muster.log.entry import EntryId
from muster.log.stream import MachineId


def by_id(every: Iterable[Version]) -> Callable[[EntryId], Version | None]:
    return {each.id: each for each in every}.get


@proves("context.replaced-by-who-had-it")
def test_a_version_replaces_what_its_file_was_made_of_and_nothing_else():
    a, b = Stream(ALICE), Stream(BOB)
    first = a.put("n.md", "one")
    second = b.put("n.md", "two", [first], at_ms=500)
    assert files(known(a, b))["n.md"].heads[0].id == second, "its clock is behind, and no matter"
    third = a.put("n.md", "three", [first], at_ms=2000)
    file = files(known(a, b))["n.md"]
    assert [head.id for head in file.heads] == [third, second]
    assert file.is_conflict
    last = b.put("n.md", "four", [second, third])
    assert [head.id for head in files(known(a, b))["n.md"].heads] == [last]


def test_a_version_of_another_path_replaces_nothing():
    a = Stream(ALICE)
    first = a.put("n.md", "one")
    a.put("m.md", "two", [first])
    assert files(known(a))["n.md"].winner.id == first


@proves("context.replaced-by-who-had-it")
def test_an_edit_beats_a_deletion_however_late_that_is():
    a, b = Stream(ALICE), Stream(BOB)
    first = a.put("n.md", "one")
    edit = a.put("n.md", "two", [first])
    b.put("n.md", "", [first], at_ms=9000, gone=1)
    file = files(known(a, b))["n.md"]
    assert file.winner.id == edit
    assert not file.is_conflict
    assert merge_of(file, by_id(known(a, b))) is None


def test_several_who_write_the_same_bytes_are_no_conflict_and_the_disk_is_made_of_both():
    a, b = Stream(ALICE), Stream(BOB)
    one, two = a.put("n.md", "same", at_ms=1), b.put("n.md", "same", at_ms=2)
    file = files(known(a, b))["n.md"]
    assert not file.is_conflict
    assert file.made_of == {one, two}


def test_the_executable_bit_is_content():
    a, b = Stream(ALICE), Stream(BOB)
    a.put("n.sh", "echo")
    b.put("n.sh", "echo", x=1)
    assert files(known(a, b))["n.sh"].is_conflict


@proves("context.merged-alike-everywhere")
def test_two_texts_of_one_origin_are_merged_in_the_order_of_their_ids():
    a, b = Stream(ALICE), Stream(BOB)
    first = a.put("n.md", "one")
    left, right = a.put("n.md", "two", [first]), b.put("n.md", "three", [first], at_ms=1)
    for every in (known(a, b), known(b, a)):
        merge = merge_of(files(every)["n.md"], by_id(every))
        assert merge is not None
        assert [merge.first.id, merge.second.id] == sorted([left, right])
        assert merge.base.id == first
    made = a.put("n.md", "both", [left, right])
    assert [head.id for head in files(known(a, b))["n.md"].heads] == [made]


def test_two_texts_of_no_origin_and_a_text_whose_bytes_nobody_has_are_not_merged():
    a, b = Stream(ALICE), Stream(BOB)
    a.put("n.md", "one")
    b.put("n.md", "two")
    assert merge_of(files(known(a, b))["n.md"], by_id(known(a, b))) is None
    first = a.put("m.md", "one")
    a.put("m.md", "two", [first])
    b.put("m.md", "", [first], same="9" * 64)
    assert merge_of(files(known(a, b))["m.md"], by_id(known(a, b))) is None


def test_three_contents_become_one_pair_by_pair():
    a, b, c = Stream(ALICE), Stream(BOB), Stream(MachineId("c" * 64))
    first = a.put("n.md", "0")
    heads = sorted(s.put("n.md", s.name.machine[0], [first]) for s in (a, b, c))
    every = known(a, b, c)
    merge = merge_of(files(every)["n.md"], by_id(every))
    assert merge is not None
    assert [merge.first.id, merge.second.id] == heads[:2]


def test_who_writes_many_heads_makes_no_question_dear():
    a = Stream(ALICE)
    first = a.put("n.md", "0")
    for n in range(300):
        a.put("n.md", f"{n}", [first])
    every, looked = known(a), []
    look = by_id(every)
    assert merge_of(files(every)["n.md"], lambda v: looked.append(v) or look(v)) is not None
    assert len(looked) <= 16


@proves("context.merged-alike-everywhere")
def test_two_who_went_on_apart_for_long_are_merged_and_for_too_long_they_stay_a_conflict(
    monkeypatch,
):
    a, b = Stream(ALICE), Stream(BOB)
    first = a.put("n.md", "0", at_ms=0)
    for stream in (a, b):
        over = [first]
        for n in range(400):
            over = [stream.put("n.md", f"{stream.name.machine[0]}{n}", over, at_ms=n + 1)]
    every = known(a, b)
    merge = merge_of(files(every)["n.md"], by_id(every))
    assert merge is not None
    assert merge.base.id == first
    monkeypatch.setattr(state, "CONTEXT_ANCESTORS_MAX", 700)
    assert merge_of(files(every)["n.md"], by_id(every)) is None


@proves("context.one-name-on-every-disk")
def test_of_two_paths_that_a_disk_takes_for_one_the_earlier_has_the_name_until_it_is_gone():
    a, b = Stream(ALICE), Stream(BOB)
    one = a.put("Notes.md", "one", at_ms=1)
    b.put("notes.md", "two", at_ms=2)
    found = files(known(a, b)).values()
    assert (file := named(found)) is not None
    assert file.path == "Notes.md"
    edit = a.put("Notes.md", "later", [one], at_ms=9)
    assert (file := named(files(known(a, b)).values())) is not None
    assert file.path == "Notes.md", "an edit does not lose the name"
    a.put("Notes.md", "", [edit], gone=1)
    assert (file := named(files(known(a, b)).values())) is not None
    assert file.path == "notes.md"


def test_a_circle_that_nobody_can_write_ends_nothing():
    one, two = EntryId(b"1" * 32), EntryId(b"2" * 32)
    of = {"digest": b"d", "size": 1, "gone": False, "x": False, "stamp": (1, 0)}
    circle = [
        Version(one, "n.md", over=frozenset({two}), **of),  # type: ignore[arg-type]
        Version(two, "n.md", over=frozenset({one}), **of),  # type: ignore[arg-type]
    ]
    assert files(circle) == {}


def test_the_root_of_a_folder_is_its_paths_bytes_and_modes_in_any_order():
    one, two = {"a": (b"1" * 32, False), "b": (b"2" * 32, True)}, {}
    two = dict(reversed(one.items()))
    assert root_of(one) == root_of(two)
    roots = {root_of(one), root_of({}), root_of(one | {"b": (b"2" * 32, False)})}
    roots.add(root_of({"a": (b"2" * 32, False), "b": (b"1" * 32, True)}))
    assert len(roots) == 4


# --- any history -------------------------------------------------------------------------------

View = Callable[[Iterable[Version]], Mapping[str, File]]


class History:
    """Three machines that change files and hear of each other, drawn by a seed."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.streams = [Stream(MachineId(each * 64)) for each in "abc"]
        held = [[0] * 3 for _ in range(3)]
        skews = [self.draw.randint(0, 5_000) for _ in range(3)]
        by_seq: dict[EntryId, tuple[int, int]] = {}
        for step in range(self.draw.randint(10, 50)):
            me = self.draw.randrange(3)
            stream = self.streams[me]
            if self.draw.random() < 0.5:
                other = self.draw.randrange(3)
                held[me][other] = min(self.streams[other].size, held[me][other] + 3)
                continue
            mine = [v for v in known(*self.streams) if by_seq[v.id][1] < held[me][by_seq[v.id][0]]]
            path = self.draw.choice(("a", "b"))
            file = files(mine).get(path)
            text, gone = self.draw.choice((f"t{step}", "same", "")), 0
            if file is not None and not file.winner.gone and self.draw.random() < 0.2:
                text, gone = "", 1
            made_of = file.made_of if file is not None else ()
            at_ms = 10_000 + skews[me] + step * 10
            id = stream.put(path, text, made_of, at_ms, gone=gone)
            by_seq[id] = (me, stream.size - 1)
            held[me][me] = stream.size
        self.all = known(*self.streams)


def broken(history: History, view: View) -> str:
    """What does not hold of a history; "" where all does."""
    found, shuffled = view(history.all), list(history.all)
    history.draw.shuffle(shuffled)
    if view(shuffled) != found:
        return "another order gives another state"
    replaced = {target for each in history.all for target in each.over}
    shown = {head.id for file in found.values() for head in file.heads}
    if {v.id for v in history.all} - replaced - shown:
        return "what nobody had on the disk is lost"
    if shown & replaced:
        return "what was replaced is shown"
    for file in found.values():
        if file.winner.gone and any(not head.gone for head in file.heads):
            return "a deletion beats an edit"
    return ""


@proves("context.one-state-everywhere")
def test_any_history_has_one_state_in_any_order_and_loses_nothing():
    for seed in range(300):
        assert broken(History(seed), files) == "", seed


def last_writer_wins(every: Iterable[Version]) -> Mapping[str, File]:
    found = {}
    for each in sorted(every, key=lambda v: (v.stamp, v.id)):
        found[each.path] = File(each.path, (each,), (each.stamp, each.id))
    return found


def deletions_win(every: Iterable[Version]) -> Mapping[str, File]:
    def order(version: Version) -> tuple[bool, tuple[int, int], EntryId]:
        return version.gone, version.stamp, version.id

    return {
        path: file._replace(heads=tuple(sorted(file.heads, key=order, reverse=True)))
        for path, file in files(every).items()
    }


@pytest.mark.parametrize("view", [last_writer_wins, deletions_win])
def test_what_counts_by_another_rule_is_caught(view):
    assert any(broken(History(seed), view) for seed in range(100))
