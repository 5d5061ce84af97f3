"""What counts of what is known: drawn cases, and any history in any order."""

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from tests.memory.world import ALICE, BOB, CAROL, Stream, current, known, proof_of, state_of
from tests.promise import proves

from muster.log.entry import EntryId
from muster.log.fold import NO_ENTRY
from muster.log.stream import FLEET, JOURNAL, MachineId, Scope
from muster.memory import state
from muster.memory.fold import ERASED, ErasedRow, VersionRow
from muster.memory.kinds import PERSON
from muster.memory.print import text_print
from muster.memory.state import (
    TARGET,
    UNPROVEN,
    WHOLE,
    Proof,
    Record,
    RecordName,
    Version,
    reaches,
    records,
)

GROUP = Scope(f"g.{ALICE}.plans")


@proves("memory.replaced-by-who-read-it")
def test_a_version_replaces_what_its_writer_had_read_and_nothing_else():
    a, b = Stream(ALICE), Stream(BOB)
    first = a.put("port", "7447")
    second = b.put("port", "7450", [first], at_ms=500)
    assert state_of("port", a, b) == ("active", [second]), "its clock is behind, and no matter"
    third = a.put("port", "8443", [first], at_ms=2000)
    assert state_of("port", a, b) == ("conflict", [third, second])
    last = b.put("port", "8443", [second, third])
    assert state_of("port", a, b) == ("active", [last])


def test_several_who_write_the_same_text_are_no_conflict():
    a, b = Stream(ALICE), Stream(BOB)
    one, two = a.put("port", "It is 7447.", at_ms=1), b.put("port", "it is 7447", at_ms=2)
    assert state_of("port", a, b) == ("active", [two, one])


@proves("memory.agents-object-and-never-replace")
def test_an_agent_objects_to_a_persons_rule_and_never_replaces_or_refutes_it():
    a = Stream(ALICE)
    rule = a.put("merge", "never force-push", who="person")
    other = a.put("merge", "force-push is fine", [rule])
    assert state_of("merge", a) == ("conflict", [rule, other])
    b = Stream(BOB)
    b.refute("merge", [rule])
    assert state_of("merge", Stream(ALICE), b)[0] == "refuted", "of what is not known here"
    a = Stream(ALICE)
    rule = a.put("merge", "never force-push", who="person")
    b = Stream(BOB)
    b.refute("merge", [rule])
    assert state_of("merge", a, b) == ("disputed", [rule])


@proves("memory.agents-object-and-never-replace")
def test_what_came_from_outside_replaces_nothing_that_a_machine_of_the_fleet_wrote():
    a = Stream(ALICE)
    first = a.put("port", "7447")
    other = a.put("port", "1", [first], who="outside")
    assert state_of("port", a) == ("conflict", [first, other])


@proves("memory.refuted-stays-refuted")
def test_a_refuted_text_is_refuted_under_every_key_until_its_writer_cites_the_refutation():
    a, b = Stream(ALICE), Stream(BOB)
    first = a.put("build", "pass --no-lto")
    objection = a.refute("build", [first])
    assert state_of("build", a) == ("refuted", [objection])
    b.put("other/key", "Pass  --no-LTO.")
    assert state_of("other/key", a, b)[0] == "refuted"
    b.put("build", "pass --no-lto", who="outside")
    assert state_of("build", a, b)[0] == "refuted"
    back = b.put("build", "pass --no-lto", [objection])
    assert state_of("build", a, b)[1][0] == back
    assert state_of("build", a, b)[0] == "active"


@proves("memory.refuted-stays-refuted")
def test_a_persons_word_stands_against_an_agents_refutation():
    a, b = Stream(ALICE), Stream(BOB)
    first = b.put("build", "pass --no-lto")
    b.refute("build", [first])
    rule = a.put("build/rule", "pass --no-lto", who="person")
    assert state_of("build/rule", a, b) == ("active", [rule])


def test_a_refutation_is_refuted_in_its_turn():
    a = Stream(ALICE)
    first = a.put("build", "pass --no-lto")
    objection = a.refute("build", [first])
    again = a.refute("build", [objection])
    assert state_of("build", a) == ("refuted", [again])
    back = a.put("build", "pass --no-lto", [again])
    assert state_of("build", a) == ("active", [back])


@proves("memory.erasure-revives-nothing")
def test_an_erased_correction_does_not_bring_back_what_it_corrected():
    a, b = Stream(ALICE), Stream(BOB)
    first = a.put("port", "7447")
    b.put("port", "7450 (password: x)", [first])
    (second,) = [v for v in known([a, b]) if v.stream == b.name]
    b.erase(second)
    for _ in ("its body is here yet", "its body is gone"):
        record = current(a, b)[RecordName(FLEET, "port")]
        assert (record.state, [h.id for h in record.heads]) == ("erased", [second.id])
        b.lose_body(0)


@proves("memory.erasure-revives-nothing")
def test_an_erased_text_that_was_refuted_stays_refuted():
    a, b = Stream(ALICE), Stream(BOB)
    a.put("build", "pass --no-lto")
    (first,) = known([a])
    a.refute("build", [first.id])
    a.erase(first)
    a.lose_body(0)
    b.put("again", "pass --no-lto")
    assert state_of("again", a, b)[0] == "refuted"


@proves("memory.erased-by-whom")
def test_only_its_own_machine_or_a_person_erases_a_version():
    a, b = Stream(ALICE), Stream(BOB)
    first = a.put("port", "7447")
    (version,) = known([a])
    b.erase(version, who="agent")
    assert state_of("port", a, b) == ("active", [first])
    c = Stream(CAROL)
    c.erase(version, who="person")
    assert state_of("port", a, b, c)[0] == "erased"


@proves("memory.agents-object-and-never-replace", "memory.erased-by-whom")
@pytest.mark.parametrize("order", ["none", "target", "another says no more"])
def test_what_an_erasure_restates_ends_a_persons_rule_only_where_the_person_ordered_that(order):
    a, b = Stream(ALICE), Stream(BOB)
    rule = a.put("rule", "never force-push", who="person")
    b.put("port", "7450", who="person")
    (version,) = [v for v in known([b]) if v.key == "port"]
    if order == "another says no more":
        a.erase(version)
    b.erase(version, who="agent" if order == "none" else "person", over=[rule.hex()])

    def proof(row: VersionRow | ErasedRow) -> Proof:
        if row.order == NO_ENTRY:
            return UNPROVEN
        return TARGET if isinstance(row, ErasedRow) and row.stream == b.name else WHOLE

    counts = records(known([a, b], proof))
    assert counts[RecordName(FLEET, "rule")].state == "active"
    assert counts[RecordName(FLEET, "port")].state == "erased"
    # A person who ordered just this ends it.
    assert order == "none" or current(a, b)[RecordName(FLEET, "port")].state == "erased"
    assert (RecordName(FLEET, "rule") in current(a, b)) == (order == "none")


@proves("memory.agents-object-and-never-replace", "memory.refuted-stays-refuted")
@pytest.mark.parametrize("proof", [UNPROVEN, TARGET, WHOLE])
def test_a_print_that_an_erasure_restates_bans_a_persons_rule_only_by_that_persons_word(proof):
    a, b = Stream(ALICE), Stream(BOB)
    rule = a.put("rule", "never force-push", who="person")
    b.put("x", "nonsense")
    (wrong,) = known([b])
    a.refute("x", [wrong.id], who="person")
    print_ = text_print("never force-push").hex()
    b.erase(wrong, who="person" if proof else "agent", print=print_)
    of_tombs = lambda row: proof if isinstance(row, ErasedRow) else proof_of(row)  # noqa: E731
    counts = records(known([a, b], of_tombs))
    record = counts[RecordName(FLEET, "rule")]
    assert (record.state, record.heads[0].id) == ("refuted" if proof == WHOLE else "active", rule)
    # An agent's text is banned by any machine's word.
    c = Stream(CAROL)
    c.put("y", "never force-push")
    assert records(known([a, b, c], of_tombs))[RecordName(FLEET, "y")].state == "refuted"


@proves("memory.scopes-do-not-leak")
def test_what_one_scope_says_changes_only_what_its_readers_know():
    fleet, group, own = Stream(ALICE), Stream(ALICE, GROUP), Stream(ALICE, JOURNAL)
    first = fleet.put("port", "7447")
    own.put("port", "mine", [first])
    own.refute("x", [first])
    assert state_of("port", fleet, group, own) == ("active", [first])
    wrong = fleet.put("no", "pass --no-lto")
    fleet.refute("no", [wrong])
    group.put("here", "pass --no-lto")
    assert state_of("here", fleet, group, own, scope=GROUP)[0] == "refuted"
    told = group.put("there", "secret plan")
    group.refute("there", [told])
    kept = fleet.put("there", "secret plan")
    assert state_of("there", fleet, group, own) == ("active", [kept])
    private = own.put("there", "secret plan")
    assert private
    assert state_of("there", fleet, group, own, scope=JOURNAL)[0] == "refuted"


def test_what_a_group_says_reaches_its_members_own_notes_and_no_other_group():
    fleet, group, own = Stream(ALICE).name, Stream(ALICE, GROUP).name, Stream(BOB, JOURNAL).name
    other, mine = Stream(BOB, Scope(f"g.{BOB}.plans")).name, Stream(ALICE, JOURNAL).name
    scopes = [fleet, group, own, other, mine]
    reached = [[reaches(writer, reader) for reader in scopes] for writer in scopes]
    assert reached == [
        [True, True, True, True, True],
        [False, True, True, False, True],
        [False, False, True, False, False],
        [False, False, True, True, True],
        [False, False, False, False, True],
    ]


# --- any history -------------------------------------------------------------------------------

View = Callable[[Iterable[Version]], Mapping[RecordName, Record]]
TEXTS = ("use pnpm", "use npm", "tests in tests/", "the port is 7447")
KEYS = ("a", "b", "c")


class History:
    """Three machines that write, refute, erase and hear of each other, drawn by a seed."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.streams = [Stream(MachineId(each * 64)) for each in "abc"]
        # How much of each stream each machine holds.
        self.held = [[0] * 3 for _ in range(3)]
        skews = [self.draw.randint(0, 5_000) for _ in range(3)]
        self.read: dict[EntryId, set[EntryId]] = {}
        for step in range(self.draw.randint(10, 60)):
            me = self.draw.randrange(3)
            self.act(me, 10_000 + skews[me] + step * 10)
            self.held[me][me] = len(self.streams[me].entries)
        self.all = known(self.streams)

    def view(self, me: int) -> list[Version]:
        sizes = {s.name: self.held[me][n] for n, s in enumerate(self.streams)}
        return [v for v in known(self.streams) if self.seq[v.id] < sizes[v.stream]]

    @property
    def seq(self) -> dict[EntryId, int]:
        return {e.id: e.header.seq for s in self.streams for e in s.entries}

    def act(self, me: int, at_ms: int) -> None:
        stream, chance = self.streams[me], self.draw.random()
        who = self.draw.choice(("agent", "agent", "agent", "person", "outside"))
        key = self.draw.choice(KEYS)
        record = records(self.view(me)).get(RecordName(FLEET, key))
        heads = [head.id for head in record.heads] if record else []
        if chance < 0.45:
            text = self.draw.choice((*TEXTS, f"n{at_ms}"))
            over = self.draw.choice((heads, heads, heads, [], heads[:1]))
            stream.put(key, text, over, who=who, at_ms=at_ms)
        elif chance < 0.6 and heads:
            stream.refute(key, heads, "person" if who == "person" else "agent", at_ms)
        elif chance < 0.65 and record:
            stream.erase(self.draw.choice(record.heads))
        else:
            other = self.draw.randrange(3)
            ahead = self.held[me][other] + self.draw.randint(1, 4)
            self.held[me][other] = min(len(self.streams[other].entries), ahead)


def broken(history: History, view: View = records) -> str:
    """What does not hold of a history; "" where all does."""
    every = history.all
    found = view(every)
    shuffled = list(every)
    history.draw.shuffle(shuffled)
    if view(shuffled) != found:
        return "another order gives another state"
    by_id = {v.id: v for v in every}
    shown = {h.id for record in found.values() for h in record.heads}
    named = {
        target
        for v in every
        for target in v.over
        if target in by_id and v.rank >= by_id[target].rank
    }
    standing = [v for v in every if v.state == "refuted" and v.id not in named]
    wrong = {
        (by_id[target].print, v.rank, v.id)
        for v in standing
        for target in v.over
        if target in by_id and by_id[target].print
    }
    for v in every:
        banned = any(v.print == p and r >= v.rank and i not in v.over for p, r, i in wrong)
        if v.state == "active" and v.id not in named and not banned and v.id not in shown:
            return "what nobody had read is lost"
        if v.state == "active" and banned and found[RecordName(FLEET, v.key)].state != "refuted":
            record = found[RecordName(FLEET, v.key)]
            if v in record.heads:
                return "a refuted text is shown"
        by_person = any(v.id in w.over and w.rank == PERSON for w in every)
        ruled = v.rank == PERSON and v.state == "active" and not banned
        if ruled and v.id not in shown and not by_person:
            return "a person's word was replaced by no person"
    return ""


@proves("memory.one-state-everywhere")
def test_any_history_has_one_state_in_any_order_and_loses_and_revives_nothing():
    for seed in range(300):
        assert broken(History(seed)) == "", seed


def without_ranks(every: list[Version]) -> Mapping[RecordName, Record]:
    ranks = {each.id: each.rank for each in every}
    found = records([each._replace(rank=1) for each in every])
    return {
        name: Record(each.state, tuple(h._replace(rank=ranks[h.id]) for h in each.heads))
        for name, each in found.items()
    }


def last_writer_wins(every: Iterable[Version]) -> Mapping[RecordName, Record]:
    found: dict[RecordName, Version] = {}
    for each in sorted(every, key=lambda each: (each.stamp, each.id)):
        if each.key:
            found[RecordName(each.stream.scope, each.key)] = each
    return {name: Record(each.state, (each,)) for name, each in found.items()}


@pytest.mark.parametrize("view", [without_ranks, last_writer_wins])
def test_what_counts_by_another_rule_is_caught(view):
    assert any(broken(History(seed), view) for seed in range(200))


def test_what_counts_without_the_bans_is_caught(monkeypatch):
    monkeypatch.setattr(state, "_is_banned", lambda _version, _bans: False)
    assert any(broken(History(seed)) for seed in range(200))


def revived(seed: int, **forgotten: Any) -> bool:
    """Whether anything that did not count does so once some of a history is erased."""
    history = History(seed)
    before = live(records(history.all))
    targets = [v for v in history.all if v.state != "erased"]
    for target in history.draw.sample(targets, min(3, len(targets))):
        history.streams[0].erase(target, **forgotten)
    gone = {row.target for each in history.streams for row in each.rows.every(ERASED)}
    for stream in history.streams:
        for row in stream.versions():
            if row.id in gone:
                stream.lose_body(row.seq)
    return not live(records(known(history.streams))) <= before


@proves("memory.erasure-revives-nothing")
def test_erasing_anything_of_any_history_brings_nothing_back():
    assert [seed for seed in range(150) if revived(seed)] == []


@pytest.mark.parametrize("forgotten", [{"over": []}, {"print": ""}, {"rank": PERSON}])
def test_an_erasure_that_does_not_restate_what_its_target_was_is_caught(forgotten):
    assert any(revived(seed, **forgotten) for seed in range(200))


def live(found: Mapping[RecordName, Record]) -> set[EntryId]:
    """What is shown as true."""
    over = ("refuted", "erased")
    return {head.id for each in found.values() if each.state not in over for head in each.heads}
