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


@proves("adopt.elected")
def test_a_lease_that_nobody_has_is_taken_renewed_and_lost():
    one = candidate()
    assert one.due(0, MOST) is None, "nothing was seen yet"
    one.saw(Seen(), 0)
    write = one.due(0, MOST)
    assert write == Write(0, 100)
    one.wrote(write, 7, 5, 50)
    # It counts from when it was asked for, and not from the answer.
    assert one.held_until_ms(60) == 5 + ELECTION_HELD_MS
    assert one.held_place == 100
    assert one.due(4_000, MOST) == Write(7, 100)
    one.wrote(Write(7, 100), 8, 4_000, 4_001)
    assert one.held_until_ms(4_002) == 4_000 + ELECTION_HELD_MS
    assert one.held_until_ms(4_000 + ELECTION_HELD_MS) == 0, "it stops by itself"
    # Another one wrote since.
    one.wrote(Write(8, 100), 9, 20_000, 20_001)
    one.saw(Seen(10, TWO, 500), 20_002)
    assert one.held_until_ms(20_003) == 0
    assert one.due(20_003, MOST) is None


@proves("adopt.elected")
def test_a_holder_whose_revision_does_not_rise_is_followed_by_one_of_a_higher_place():
    two = candidate(TWO)
    two.saw(Seen(7, ONE, 400), 1_000)
    assert two.due(1_000 + ELECTION_TTL_MS - 1, MOST) is None
    # It was renewed.
    two.saw(Seen(8, ONE, 400), 10_000)
    assert two.living_ms == 10_000
    two.saw(Seen(8, ONE, 400), 20_000)
    assert two.living_ms == 10_000
    assert two.due(10_000 + ELECTION_TTL_MS - 1, MOST) is None
    assert two.due(10_000 + ELECTION_TTL_MS, MOST) == Write(8, 401)


@proves("adopt.elected")
def test_what_nobody_who_was_named_wrote_is_written_over_and_its_place_is_nothing():
    one = candidate()
    one.saw(Seen(3, ONE, 0), 0)
    one.saw(Seen(7, STRANGER, 9_999), 10)
    assert one.living_ms == 0
    assert one.due(10, MOST) == Write(7, 100)
    # A place that no machine comes to is a lie, and keeps nobody out.
    one.saw(Seen(8, TWO, MOST), 20)
    assert one.due(20 + ELECTION_TTL_MS, MOST) == Write(8, 100)
    # What is acknowledged under no later revision is no lease.
    one.wrote(Write(8, 100), 8, 30, 31)
    assert one.held_until_ms(32) == 0


@proves("adopt.elected")
def test_its_own_lease_of_before_a_start_is_its_own_and_a_higher_place_is_said_at_once():
    one = candidate(place=300)
    one.saw(Seen(7, ONE, 200), 0)
    assert one.due(0, MOST) == Write(7, 300)
    one.wrote(Write(7, 300), 8, 0, 1)
    one.place = 900
    assert one.due(2, MOST) == Write(8, 900)


@proves("adopt.elected")
def test_no_two_hold_it_at_once_and_each_holder_has_a_higher_place_than_the_one_before():
    """Machines look when they like, answers are lost or late, servers lose their quorum."""
    changes = 0
    for seed in range(300):
        rng = random.Random(seed)
        store = Seen()
        clocks = {ONE: rng.randint(0, 10**6), TWO: rng.randint(0, 10**6)}
        every = {m: candidate(m, rng.randint(1, 500), at) for m, at in clocks.items()}
        places: dict[str, int] = {}
        held: list[tuple[int, str]] = []
        for now in range(0, 200_000, 500):
            quorum = (now // 30_000 + seed) % 4 != 0
            for me, each in every.items():
                # Each has a clock of its own, which began elsewhere.
                mine = clocks[me] + now
                asked = mine - rng.randint(0, 400)
                if rng.random() < 0.3 and not (me == ONE and 60_000 < now < 120_000):
                    each.saw(store, mine)
                    write = each.due(mine, MOST)
                    if write is not None and quorum and write.above == store.revision:
                        store = Seen(store.revision + rng.randint(1, 3), me, write.place)
                        if rng.random() < 0.8:
                            each.wrote(write, store.revision, asked, mine)
                        if not held or held[-1][1] != me:
                            held.append((write.place, me))
                places[me] = each.held_until_ms(mine)
            assert min(places.values()) == 0, f"two hold it at {now} of {seed}"
        assert [place for place, _ in held] == sorted({place for place, _ in held})
        changes += len(held) - 1
    assert changes > 200
