"""Who of several is elected: by what the servers say, and whose clock says what."""

import random

from tests.promise import proves

from muster.limits import ELECTION_HELD_MS, ELECTION_TTL_MS
from muster.task.election import Candidate, Seen, Write

ONE, TWO, STRANGER = "1" * 64, "2" * 64, "9" * 64
NAMED = (ONE, TWO)
MOST = 10**15


def candidate(me: str = ONE, place: int = 100, now_ms: int = 0) -> Candidate:
    made = Candidate(me, NAMED, now_ms)
    made.place = place
    return made


def see(one: Candidate, now_ms: int, *written: Seen, most: int = MOST) -> None:
    """What is there, of one each."""
    one.saw(max((each.revision for each in written), default=0), written, now_ms, most)


@proves("adopt.elected")
def test_a_lease_that_nobody_has_is_taken_renewed_and_lost():
    one = candidate()
    assert one.due(0) is None, "nothing was seen yet"
    see(one, 0)
    write = one.due(0)
    assert write == Write(0, 100)
    one.wrote(write, 7, 5, 50)
    # It counts from when it was asked for, and not from the answer.
    assert one.held_until_ms(60) == 5 + ELECTION_HELD_MS
    assert one.held_place == 100
    assert one.due(4_000) == Write(7, 100)
    one.wrote(Write(7, 100), 8, 4_000, 4_001)
    assert one.held_until_ms(4_002) == 4_000 + ELECTION_HELD_MS
    assert one.held_until_ms(4_000 + ELECTION_HELD_MS) == 0, "it stops by itself"
    # Another one wrote since.
    one.wrote(Write(8, 100), 9, 20_000, 20_001)
    see(one, 20_002, Seen(10, TWO, 500))
    assert one.held_until_ms(20_003) == 0
    assert one.due(20_003) is None


@proves("adopt.elected")
def test_a_holder_whose_revision_does_not_rise_is_followed_by_one_of_a_higher_place():
    two = candidate(TWO)
    see(two, 1_000, Seen(7, ONE, 400))
    assert two.due(1_000 + ELECTION_TTL_MS - 1) is None
    # It was renewed.
    see(two, 10_000, Seen(8, ONE, 400))
    assert two.living_ms == 10_000
    see(two, 20_000, Seen(8, ONE, 400))
    assert two.living_ms == 10_000
    assert two.due(10_000 + ELECTION_TTL_MS - 1) is None
    assert two.due(10_000 + ELECTION_TTL_MS) == Write(8, 401)


@proves("adopt.elected")
def test_a_place_that_no_machine_comes_to_and_a_revision_that_does_not_rise_are_nothing():
    one = candidate()
    see(one, 20, Seen(8, TWO, MOST))
    assert one.due(20 + ELECTION_TTL_MS) == Write(8, 100)
    one.wrote(Write(8, 100), 8, 30, 31)
    assert one.held_until_ms(32) == 0


@proves("adopt.elected")
def test_where_nobody_else_ever_wrote_what_nobody_who_was_named_wrote_is_written_over():
    one = candidate()
    see(one, 0)
    see(one, 10, Seen(7, STRANGER, 9_999))
    assert one.living_ms == 0
    assert one.due(10) == Write(7, 100)


@proves("adopt.unnamed-moves-nothing")
def test_what_nobody_who_was_named_wrote_neither_ends_a_lease_nor_hides_its_place():
    one, two = candidate(ONE), candidate(TWO, place=50)
    see(one, 0)
    one.wrote(Write(0, 400), 7, 0, 1)
    # It is above all that the one wrote, and the one has its lease still.
    there = Seen(7, ONE, 400), Seen(9, STRANGER, 9_999)
    see(one, 4_000, *there)
    assert one.held_until_ms(4_001) == ELECTION_HELD_MS
    assert one.due(4_001) == Write(9, 400)
    # The other one waits as if nobody had, however often that is.
    see(two, 4_000, *there)
    for late_ms in range(0, ELECTION_TTL_MS, 1_000):
        see(two, 4_000 + late_ms, Seen(7, ONE, 400), Seen(10 + late_ms, STRANGER, 0))
        assert two.due(4_000 + late_ms) is None
    assert two.living_ms == 0
    assert two.due(4_000 + ELECTION_TTL_MS) == Write(14_010, 401)


@proves("adopt.unnamed-moves-nothing")
def test_the_highest_place_of_all_who_were_named_counts_and_is_remembered():
    two = candidate(TWO, place=50)
    see(two, 0, Seen(3, ONE, 400), Seen(7, TWO, 200))
    assert two.due(0) == Write(7, 401)
    # The servers lost all of it.
    see(two, 10)
    assert two.due(10) == Write(0, 401)


@proves("adopt.elected")
def test_its_own_lease_of_before_a_start_is_its_own_and_a_higher_place_is_said_at_once():
    one = candidate(place=300)
    see(one, 0, Seen(7, ONE, 200))
    assert one.due(0) == Write(7, 300)
    one.wrote(Write(7, 300), 8, 0, 1)
    one.place = 900
    assert one.due(2) == Write(8, 900)


@proves("adopt.elected", "adopt.unnamed-moves-nothing")
def test_no_two_hold_it_at_once_and_each_holder_has_a_higher_place_than_the_one_before():
    """Machines look when they like, answers are lost or late, servers lose their quorum, and one
    who was not named writes there.
    """
    changes = 0
    for seed in range(300):
        rng = random.Random(seed)
        store: dict[str, Seen] = {}
        newest = 0
        clocks = {ONE: rng.randint(0, 10**6), TWO: rng.randint(0, 10**6)}
        every = {m: candidate(m, rng.randint(1, 500), at) for m, at in clocks.items()}
        places: dict[str, int] = {}
        held: list[tuple[int, str]] = []
        # In most of them somebody writes there who was not named, what it likes.
        often = rng.choice((0.0, 0.05, 0.3, 0.8))
        for now in range(0, 200_000, 500):
            quorum = (now // 30_000 + seed) % 4 != 0
            for me, each in every.items():
                # Each has a clock of its own, which began elsewhere.
                mine = clocks[me] + now
                asked = mine - rng.randint(0, 400)
                if rng.random() < 0.3 and not (me == ONE and 60_000 < now < 120_000):
                    each.saw(newest, store.values(), mine, MOST)
                    write = each.due(mine)
                    # Also between what another one reads and what it writes.
                    if quorum and rng.random() < often:
                        newest += rng.randint(1, 3)
                        store[STRANGER] = Seen(newest, STRANGER, rng.randint(0, 2_000))
                    if write is not None and quorum and write.above == newest:
                        newest += rng.randint(1, 3)
                        store[me] = Seen(newest, me, write.place)
                        if rng.random() < 0.8:
                            each.wrote(write, newest, asked, mine)
                        if not held or held[-1][1] != me:
                            held.append((write.place, me))
                places[me] = each.held_until_ms(mine)
            assert min(places.values()) == 0, f"two hold it at {now} of {seed}"
        assert [place for place, _ in held] == sorted({place for place, _ in held})
        changes += len(held) - 1
    assert changes > 200
