"""What is left in a mailbox, and when: the pure half, without places and parcels."""

import pytest
from tests.log.drawn import ATTIC, OTHERS, SECRET, THEIRS, Talk, head
from tests.log.material import BUILD, STREAM
from tests.promise import proves

from muster.limits import STREAM_ASKS_MAX
from muster.log import wire
from muster.log.pace import Pace
from muster.log.post import FIRST_MS, NEVER, UNPROVEN_MS
from muster.log.seal import Cosign
from muster.log.segment import Segment
from muster.log.sync import REFRESH_MS

PACE = Pace(retry_ms=5_000, retry_ms_max=40_000, refresh_ms=600_000, flight_bytes=8 << 20)


class Shelf(Talk):
    """Studio, and what it says to the mailbox of build: number -1."""

    def __init__(self, *peers, pace=PACE, receipts=(), **sizes) -> None:
        super().__init__()
        self.held.sizes = sizes.pop("holds", {})
        self.held.cosigned = lambda: receipts
        self.numbers = self.sync.posts.open("shelf", [*peers] or [BUILD], pace, 0)

    def look(self, ms=0, number=-1):
        """What is said after so long; it lies there at once."""
        self.now += ms
        self.sync.posts.look(self.now)
        said = self.said(number)
        if said:
            self.sync.posts.left(number, self.now)
            self.sync.posts.look(self.now)
        return said

    def due(self):
        return self.sync.posts.look(self.now)

    def receipt(self, size, stream=STREAM, machine=BUILD, strength="held", link=-1):
        cosign = Cosign(machine, strength, stream, size, b"", 0, b"a\n%d\nb" % size)
        if link:
            self.sync.heard_cosign(link, cosign, self.now)
            self.sync.posts.heard(link, self.now) if link < 0 else None
        self.sync.cosigned(cosign)

    def hears(self, *heads):
        self.offer(-1, [head(*each) for each in heads])
        self.sync.posts.heard(-1, self.now)


def sent(said):
    return [(each.stream, each.start, each.end) for each in said if isinstance(each, Segment)]


def offered(said):
    heads = [h for each in said if isinstance(each, wire.Offer) for h in each.heads]
    return {h.stream: h.size for h in heads}


def wanted(said):
    return [(each.stream, each.start) for each in said if isinstance(each, wire.Want)]


@proves("log.post-due", "log.post-receipt-alone")
def test_the_first_parcel_tells_of_every_stream_and_sends_what_was_not_receipted():
    receipts = [((STREAM, BUILD, "held"), 2, b"x\n2\ny")]
    shelf = Shelf(holds={STREAM: 5, OTHERS: 3, THEIRS: 4}, receipts=receipts)
    assert shelf.look() == []
    assert shelf.due() == FIRST_MS
    said = shelf.look(FIRST_MS)
    assert offered(said) == {str(STREAM): 5, str(OTHERS): 3, str(THEIRS): 4}
    assert not any(each.whole for each in said if isinstance(each, wire.Offer))
    assert sent(said) == [(STREAM, 2, 5)]


@proves("log.post-receipt-alone")
def test_after_a_restart_nothing_that_was_receipted_is_sent():
    receipts = [((STREAM, BUILD, "held"), 5, b"x\n5\ny")]
    shelf = Shelf(holds={STREAM: 5}, receipts=receipts)
    assert sent(shelf.look(FIRST_MS)) == []
    assert shelf.due() == FIRST_MS + PACE.refresh_ms
    shelf.grow(size=6)
    assert sent(shelf.look()) == [(STREAM, 5, 6)]


@proves("log.post-due")
def test_what_grows_is_left_at_once_and_what_grows_meanwhile_goes_together():
    shelf = Shelf()
    shelf.look(FIRST_MS)
    shelf.grow(size=5)
    shelf.sync.posts.look(shelf.now)
    assert sent(shelf.said(-1)) == [(STREAM, 0, 5)]
    for size in (6, 7, 8):
        shelf.grow(size=size)
        assert shelf.due() == NEVER
    assert shelf.said(-1) == []
    shelf.sync.posts.left(-1, shelf.now)
    assert sent(shelf.look()) == [(STREAM, 5, 8)]


@proves("log.post-again")
def test_what_is_not_receipted_is_offered_again_after_waits_that_double_and_begin_anew():
    shelf = Shelf()
    shelf.look(FIRST_MS)
    shelf.sync.posts.heard(-1, shelf.now)
    shelf.grow(size=5)
    assert sent(shelf.look()) == [(STREAM, 0, 5)]
    for wait_ms in (5_000, 10_000, 20_000, 40_000, 40_000):
        assert shelf.look(wait_ms - 1) == []
        said = shelf.look(1)
        assert (offered(said), sent(said)) == ({str(STREAM): 5}, [])
    shelf.receipt(3)
    said = shelf.look(5_000)
    assert (offered(said), sent(said)) == ({str(STREAM): 5}, [])
    shelf.receipt(5)
    assert shelf.look(60_000) == []


@proves("log.post-receipt-alone")
def test_a_want_alone_lets_a_lane_go_back():
    shelf = Shelf(holds={STREAM: 5})
    shelf.look(FIRST_MS)
    shelf.receipt(5)
    shelf.hears((STREAM, 1))
    assert shelf.look() == []
    shelf.sync.on_want(-1, wire.Want(str(STREAM), 1), shelf.now)
    assert shelf.said(-1) == [], "it is filled as a whole, when it is its turn"
    shelf.sync.posts.heard(-1, shelf.now)
    assert sent(shelf.look()) == [(STREAM, 1, 5)]


@proves("log.post-due")
def test_while_a_link_brings_receipts_nothing_is_left_but_heads_at_the_refresh():
    shelf = Shelf(holds={STREAM: 5})
    shelf.greet(1)
    assert sent(shelf.look(FIRST_MS)) == []
    for size in range(6, 40):
        shelf.grow(size=size)
        shelf.receipt(size, link=1)
        assert shelf.look(UNPROVEN_MS // 2) == []
    assert shelf.now < PACE.refresh_ms
    said = shelf.look(PACE.refresh_ms)
    assert (offered(said), sent(said)) == ({str(STREAM): 39}, [])
    for wait_ms in (2 * PACE.refresh_ms, 4 * PACE.refresh_ms):
        assert shelf.look(wait_ms - 1) == []
        assert offered(shelf.look(1)) == {str(STREAM): 39}


@proves("log.post-falls-silent")
def test_a_place_where_nothing_happens_falls_silent_and_is_told_soon_again_where_something_does():
    shelf = Shelf(holds={STREAM: 5, THEIRS: 1})
    shelf.look(FIRST_MS)
    shelf.receipt(5)
    shelf.receipt(1, stream=THEIRS)
    day_ms, said = 24 * 3_600_000, 0
    for _ in range(24 * 6):
        said += bool(shelf.look(day_ms // (24 * 6)))
    assert said <= 10
    shelf.hears((THEIRS, 9))
    shelf.look()
    shelf.held.sizes[THEIRS] = 9
    assert not offered(shelf.look(PACE.refresh_ms - 1))
    assert offered(shelf.look(1))


@proves("log.post-falls-silent")
def test_who_never_leaves_anything_at_a_place_is_left_little_there():
    shelf = Shelf(holds={STREAM: 5})
    said = 0
    for _ in range(24 * 60):
        said += bool(shelf.look(60_000))
    assert 2 < said < 30, "it may use the place from tomorrow on"


@proves("log.post-due")
def test_a_link_that_brings_no_receipt_is_not_waited_for_and_one_that_goes_is_none():
    shelf = Shelf()
    shelf.look(FIRST_MS)
    shelf.greet(1)
    shelf.sync.posts.links_changed()
    shelf.grow(size=5)
    assert shelf.look() == []
    assert shelf.due() == FIRST_MS + UNPROVEN_MS
    assert sent(shelf.look(UNPROVEN_MS)) == [(STREAM, 0, 5)]
    shelf.receipt(5, link=1)
    shelf.grow(size=6)
    assert shelf.look(1_000) == []
    shelf.sync.close(1, shelf.now)
    shelf.sync.posts.links_changed()
    assert sent(shelf.look()) == [(STREAM, 5, 6)]


@proves("log.post-flight")
def test_so_much_lies_there_unreceipted_and_no_more():
    shelf = Shelf(pace=PACE._replace(flight_bytes=1))
    shelf.look(FIRST_MS)
    shelf.grow(size=5)
    assert sent(shelf.look()) == [(STREAM, 0, 5)]
    shelf.grow(size=9)
    shelf.grow(SECRET, size=2)
    assert sent(shelf.look(1)) == []
    said = shelf.look(10_000)
    assert sent(said) == []
    assert offered(said) == {str(STREAM): 9, str(SECRET): 2}
    shelf.receipt(5)
    assert sent(shelf.look()) == [(STREAM, 5, 9)]


@proves("log.post-again")
def test_what_the_peer_has_more_of_is_asked_for_and_given_up_in_the_end():
    shelf = Shelf(holds={OTHERS: 1})
    shelf.look(FIRST_MS)
    shelf.hears((THEIRS, 4))
    assert wanted(shelf.look()) == [(str(THEIRS), 0)]
    assert shelf.look(4_000) == []
    asked = 1
    for _ in range(100):
        asked += len(wanted(shelf.look(40_000)))
    assert asked == STREAM_ASKS_MAX
    shelf.hears((OTHERS, 3))
    assert wanted(shelf.look()) == [(str(OTHERS), 1)]
    shelf.held.sizes[OTHERS] = 3
    shelf.sync.took(-1, OTHERS, 3)
    assert wanted(shelf.look(60_000)) == []


@proves("log.post-due")
def test_what_the_writer_pushes_over_a_link_is_not_asked_for_before_it_had_the_time_to_come():
    shelf = Shelf(ATTIC, holds={THEIRS: 1})
    shelf.look(FIRST_MS)
    shelf.greet(1)
    shelf.offer(1, [head(THEIRS, 2)])
    shelf.said(1)
    shelf.hears((THEIRS, 4))
    assert wanted(shelf.look()) == []
    assert wanted(shelf.look(UNPROVEN_MS - 1)) == []
    assert wanted(shelf.look(1)) == [(str(THEIRS), 1)]


@proves("log.post-news")
def test_growth_of_others_is_told_at_once_unless_its_writer_comes_to_the_place():
    shelf = Shelf(BUILD, ATTIC)
    shelf.look(FIRST_MS)
    shelf.said(-2)
    for number in shelf.numbers:
        shelf.sync.posts.left(number, shelf.now)
    shelf.look()
    shelf.grow(OTHERS, size=3)
    assert offered(shelf.look()) == {str(OTHERS): 3}
    assert offered(shelf.look(5_000)) == {str(OTHERS): 3}, "it may be lost; it is told again"
    assert shelf.look(9_999) == []
    assert offered(shelf.look(1)) == {str(OTHERS): 3}
    shelf.receipt(3, OTHERS)
    assert shelf.look(60_000) == []
    shelf.sync.posts.heard(-2, shelf.now)
    shelf.grow(OTHERS, size=4)
    assert shelf.look() == []
    assert offered(shelf.look(PACE.refresh_ms))[str(OTHERS)] == 4


@proves("log.post-receipt-alone")
def test_a_receipt_that_came_another_way_settles_it_too_and_is_passed_on_to_the_writer():
    shelf = Shelf(BUILD, ATTIC)
    shelf.look(FIRST_MS)
    shelf.grow(size=5)
    shelf.look()
    shelf.receipt(5, link=0)
    assert shelf.look(60_000) == []
    shelf.receipt(3, THEIRS, ATTIC, link=0)
    (said,) = shelf.said(-1)
    assert said.notes == ["a\n3\nb"]
    shelf.receipt(3, THEIRS, ATTIC, link=0)
    assert shelf.said(-1) == []


@proves("log.post-no-session")
def test_nobody_takes_a_mailbox_for_a_session():
    shelf = Shelf(BUILD, holds={STREAM: 5, OTHERS: 2})
    shelf.look(FIRST_MS)
    shelf.hears((THEIRS, 4))
    shelf.look()
    shelf.receipt(5)
    assert not shelf.sync.sessions
    assert not shelf.sync.paths.is_spoken_with(BUILD)
    assert not shelf.sync.posts.boxes[-1].session.greeted
    assert shelf.sync.unconfirmed() == 0
    assert shelf.sync._near(STREAM) == frozenset()
    # Nothing is told over it as it happens, or as time passes.
    shelf.grow(size=6)
    shelf.wait(REFRESH_MS)
    assert shelf.said(-1) == []
    assert not shelf.sync.needs_tick
    # A link beside it greets as ever.
    shelf.sync.open(1, BUILD, shelf.now)
    assert [each.whole for each in shelf.said(1)][-1:] == [True]


@proves("log.post-no-session", "log.sync-cut-back")
def test_what_is_cut_back_forgotten_or_revoked_counts_no_more():
    shelf = Shelf(holds={STREAM: 5, OTHERS: 2})
    shelf.look(FIRST_MS)
    shelf.receipt(5)
    shelf.held.sizes[STREAM] = 3
    shelf.sync.cut_back(STREAM, 3)
    lane = shelf.sync.posts.boxes[-1].session.lane(STREAM)
    assert (lane.has, lane.sent) == (3, 3)
    shelf.hears((OTHERS, 9))
    del shelf.held.sizes[OTHERS]
    shelf.sync.forget(OTHERS)
    assert OTHERS not in shelf.sync.posts.boxes[-1].session.lanes
    assert wanted(shelf.look(60_000)) == []
    shelf.hears((THEIRS, 9))
    shelf.look()
    assert THEIRS in shelf.sync._asked
    shelf.sync.cut(BUILD)
    assert not shelf.sync._asked
    shelf.grow(size=7)
    assert shelf.look(60_000) == []
    shelf.sync.spread_fork(b"fork")
    assert shelf.said(-1) == []


@pytest.mark.parametrize("forked", [False, True])
@proves("log.post-no-session")
def test_a_fork_is_told_to_mailboxes_too(forked):
    shelf = Shelf()
    shelf.sync.forks = lambda: [b"fork"] if forked else []
    said = shelf.look(FIRST_MS)
    assert [each.forks for each in said] == ([["fork"]] if forked else [])
    shelf.sync.spread_fork(b"another")
    assert [each.forks for each in shelf.said(-1)] == [["another"]]


@proves("log.post-due")
def test_who_is_listened_for_leaves_signs_while_no_link_reaches_the_other():
    receipts = [((STREAM, BUILD, "held"), 5, b"x\n5\ny")]
    shelf, sign = Shelf(holds={STREAM: 5}, receipts=receipts), [wire.Offer([])]
    shelf.look(FIRST_MS)
    assert shelf.look(60_000) == []
    ask = shelf.sync.posts.signs.ask
    assert ask({BUILD: 15_000})
    assert not ask({BUILD: 15_000})
    shelf.sync.posts.links_changed()
    assert shelf.look() == sign
    assert shelf.look(14_999) == []
    assert shelf.look(1) == sign
    # What is said besides is a sign as well.
    shelf.look(10_000)
    shelf.grow(size=6)
    assert sent(shelf.look()) == [(STREAM, 5, 6)]
    shelf.receipt(6)
    assert shelf.look(14_999) == []
    assert shelf.look(1) == sign
    shelf.greet(1)
    assert shelf.look(60_000) == []
    shelf.sync.close(1, shelf.now)
    shelf.sync.posts.links_changed()
    assert shelf.look() == sign
    assert ask({})
    assert shelf.look(60_000) == []


@proves("log.post-due", "log.post-again")
def test_signs_are_left_no_more_often_than_a_place_bears_and_put_no_other_try_off():
    shelf = Shelf(pace=PACE._replace(sign_ms=7_000))
    shelf.look(FIRST_MS)
    shelf.sync.posts.signs.ask({BUILD: 1_000})
    shelf.grow(size=5)
    assert sent(shelf.look()) == [(STREAM, 0, 5)]
    tries, signs = 0, 0
    for _ in range(35):
        said = shelf.look(1_000)
        tries += any(each.heads for each in said)
        signs += said == [wire.Offer([])]
    # After 5, 15 and 35 seconds, and 7 after each where nothing is tried.
    assert (tries, signs) == (3, 3)
