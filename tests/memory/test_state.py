"""What counts of what is known: drawn cases, and any history in any order."""

from collections import Counter

import pytest
from tests.memory.histories import FORGOTTEN, REACHED, VIEWS, History, broken, revived
from tests.memory.world import ALICE, BOB, CAROL, Stream, current, known, proof_of, state_of
from tests.promise import proves

from muster.log.entry import EntryId
from muster.log.fold import NO_ENTRY
from muster.log.stream import FLEET, JOURNAL, Scope
from muster.memory import state
from muster.memory.fold import ErasedRow, VersionRow
from muster.memory.print import text_print
from muster.memory.state import (
    TARGET,
    UNPROVEN,
    WHOLE,
    Proof,
    RecordName,
    Version,
    reaches,
    records,
    standing,
)
from muster.verbs.resolve import _ancestors, _base

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


@proves("memory.one-state-everywhere")
def test_a_circle_that_no_machine_can_build_ends_no_question():
    """Ids are hashes of what they name: yet nothing here goes round for ever where they are not."""
    one, two = EntryId(b"1" * 32), EntryId(b"2" * 32)
    name = Stream(ALICE).name
    circle = [
        Version(one, name, "k", "active", 1, (1, 0), b"p", frozenset({two, one})),
        Version(two, name, "k", "refuted", 1, (2, 0), b"", frozenset({one})),
    ]
    assert records(circle) == {}
    assert standing(circle, RecordName(FLEET, "k")) == []
    every = {each.id: each for each in circle}
    assert _ancestors(every, circle[0]) == {one, two}
    assert _base(every, circle) == circle[0]


@proves("memory.replaced-by-who-read-it")
def test_what_nobody_knows_is_named_without_harm_until_it_comes_and_then_is_replaced():
    a, b = Stream(ALICE), Stream(BOB)
    later = Stream(CAROL)
    first = later.put("port", "7447")
    strangers = [bytes([n]) * 32 for n in range(15)]
    # A task's id is an id as any other: what it names is no version.
    second = a.put("port", "7450", [first, *strangers], at_ms=5)
    assert state_of("port", a, b) == ("active", [second])
    assert state_of("port", a, b, later) == ("active", [second])
    assert b.put("port", "1", [bytes([9]) * 32]) in state_of("port", a, b, later)[1]


@proves("memory.replaced-by-who-read-it")
def test_a_clock_that_is_an_hour_ahead_wins_nothing_but_the_first_place():
    a, b = Stream(ALICE), Stream(BOB)
    hour = 3_600_000
    first = a.put("port", "7447", at_ms=1_000 + hour)
    other = b.put("port", "7450", at_ms=1_000)
    assert state_of("port", a, b) == ("conflict", [first, other])
    last = b.put("port", "8443", [first, other], at_ms=1_001)
    assert state_of("port", a, b) == ("active", [last]), "what was read is replaced all the same"
    b.refute("port", [last], at_ms=1_002)
    again = a.put("port", "8443", at_ms=9 * hour)
    assert again
    assert state_of("port", a, b)[0] == "refuted"


@proves("memory.erasure-revives-nothing")
def test_what_is_erased_twice_is_what_it_was_when_it_was_erased_once():
    a = Stream(ALICE)
    first = a.put("port", "7447")
    a.put("port", "7450", [first])
    (second,) = [v for v in known([a]) if v.id != first]
    a.erase(second)
    once = state_of("port", a)
    a.erase(second)
    a.lose_body(1)
    a.erase(second, who="agent")
    assert state_of("port", a) == once == ("erased", [second.id])


# --- any history (histories.py draws them; `python -m tests.memory.histories` in the long form) ---


@proves("memory.one-state-everywhere")
def test_any_history_has_one_state_in_any_order_and_loses_and_revives_nothing():
    reached = Counter[str]()
    for seed in range(250):
        history = History(seed)
        assert broken(history) == "", seed
        reached.update(history.reached)
    assert set(reached) >= set(REACHED)


@pytest.mark.parametrize("removal", sorted(VIEWS))
def test_what_counts_by_another_rule_is_caught(removal):
    assert any(broken(History(seed), VIEWS[removal]) for seed in range(200))


@proves("memory.replaced-by-who-read-it")
def test_replacing_what_a_machine_holds_and_not_what_was_read_is_caught():
    assert any(broken(History(seed, reads=False)) for seed in range(200))


def test_what_counts_without_the_bans_is_caught(monkeypatch):
    monkeypatch.setattr(state, "_is_banned", lambda _version, _bans: False)
    assert any(broken(History(seed)) for seed in range(200))


@proves("memory.erasure-revives-nothing")
def test_erasing_anything_of_any_history_brings_nothing_back():
    assert [seed for seed in range(100) if revived(seed)] == []


@pytest.mark.parametrize("forgotten", FORGOTTEN)
def test_an_erasure_that_does_not_restate_what_its_target_was_is_caught(forgotten):
    assert any(revived(seed, **forgotten) for seed in range(200))
