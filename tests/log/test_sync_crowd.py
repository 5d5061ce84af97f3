"""What is said of a stream in a crowd: of many peers few are told at once, and none twice."""

from collections import Counter

import pytest
from tests.log.drawn import ATTIC, OTHERS, SECRET, THEIRS, Talk, head
from tests.log.material import BUILD, STREAM, STUDIO
from tests.promise import proves

from muster.log import wire
from muster.log.keys import Signer
from muster.log.seal import Cosign
from muster.log.stream import MachineId
from muster.log.sync import GOSSIP_MS, NEAR, NOT_NOW, REFRESH_MS, RETRY_MS, TELL_AGAIN, WITNESS_MS

CROWD = 20
PEERS = [MachineId(Signer(bytes([n + 1]) * 32).public.hex()) for n in range(CROWD)]
# The links to Build, and to each of the crowd.
WRITER, FIRST = 1, 10
NOTE = b"x\n3\ny\n"


class Crowd(Talk):
    """Studio, linked to Build and to twenty others."""

    def __init__(self) -> None:
        super().__init__()
        self.greet(WRITER, BUILD)
        for number, peer in enumerate(PEERS):
            self.greet(FIRST + number, peer)
        self.heard()

    def heard(self, what=wire.Message):
        """On which links something of that kind was said since it was last asked."""
        found = [out.link for out in self.sync.outbox if self._is(out, what)]
        self.sync.outbox.clear()
        return found

    @staticmethod
    def _is(out, what):
        return not out.bulk and isinstance(wire.decode(out.raw), what)

    def grow_and_tell(self, name, size):
        self.grow(name, size)
        self.wait(WITNESS_MS)
        return self.heard(wire.Offer)


@pytest.fixture
def crowd():
    return Crowd()


@proves("log.sync-crowd")
def test_of_many_witnesses_few_are_shown_a_seal_at_once_and_the_others_at_the_refresh(crowd):
    told = crowd.grow_and_tell(SECRET, 3)
    assert len(told) == NEAR
    crowd.wait(REFRESH_MS)
    assert {*told, *crowd.heard(wire.Offer)} == set(range(FIRST, FIRST + CROWD)) | {WRITER}


@proves("log.sync-crowd")
def test_the_same_ones_are_shown_each_seal_of_a_stream_and_others_those_of_another(crowd):
    first = crowd.grow_and_tell(SECRET, 3)
    assert set(crowd.grow_and_tell(SECRET, 5)) == set(first)
    others = {
        frozenset(crowd.sync.paths.near(s, NEAR, lambda _: True)) for s in (STREAM, THEIRS, OTHERS)
    }
    assert len(others) > 1


@proves("log.sync-crowd")
def test_who_declined_is_told_of_growth_at_the_refresh_only_unless_it_is_near(crowd):
    assert len(crowd.grow_and_tell(OTHERS, 3)) == CROWD + 1
    for link in (WRITER, *range(FIRST, FIRST + CROWD)):
        crowd.sync.on_want(link, wire.Want(str(OTHERS), NOT_NOW), crowd.now)
    assert len(crowd.grow_and_tell(OTHERS, 5)) == NEAR
    crowd.wait(REFRESH_MS)
    assert len(set(crowd.heard(wire.Offer))) == CROWD + 1


@proves("log.sync-crowd")
def test_who_wants_to_be_told_again_is_told_what_it_missed(crowd):
    crowd.grow_and_tell(OTHERS, 3)
    far = [
        n
        for n, p in enumerate(PEERS, FIRST)
        if p not in crowd.sync.paths.near(OTHERS, NEAR, lambda _: True)
    ]
    crowd.sync.on_want(far[0], wire.Want(str(OTHERS), NOT_NOW), crowd.now)
    crowd.grow_and_tell(OTHERS, 5)
    crowd.sync.on_want(far[0], wire.Want(str(OTHERS), TELL_AGAIN), crowd.now)
    crowd.wait(GOSSIP_MS)
    assert crowd.heard(wire.Offer) == [far[0]]


@proves("log.sync-crowd")
def test_what_its_writer_pushes_is_declined_once_and_heard_of_again_when_the_writer_is_gone(crowd):
    crowd.held.sizes[THEIRS] = 3
    crowd.sync.took(WRITER, THEIRS, 3)
    crowd.heard()
    for _ in range(2):
        crowd.offer(FIRST, [head(THEIRS, 3)])
    (said,) = crowd.said(FIRST)
    assert said == wire.Want(str(THEIRS), NOT_NOW)
    crowd.sync.close(WRITER, crowd.now)
    assert crowd.said(FIRST) == [wire.Want(str(THEIRS), TELL_AGAIN)]


@proves("log.sync-crowd")
def test_what_is_shown_to_compare_is_receipted_where_it_is_shown_again_or_by_the_writer(crowd):
    def asked(link, size, after_ms=0):
        crowd.wait(after_ms)
        crowd.offer(link, [head(THEIRS, size)])
        return crowd.sync.wants_receipt(link, THEIRS)

    crowd.held.sizes[THEIRS] = 5
    crowd.sync.took(WRITER, THEIRS, 5)
    assert asked(FIRST, 3), "it has not heard that it need not tell"
    assert [asked(FIRST, 4), asked(FIRST, 4, RETRY_MS)] == [False, True]
    assert [asked(FIRST, 5), asked(FIRST, 5, REFRESH_MS)] == [False, False]
    assert asked(WRITER, 5)
    assert asked(WRITER, 5, REFRESH_MS)


@proves("log.sync-crowd")
def test_who_declined_is_shown_what_grew_once_and_not_again_for_want_of_an_answer(crowd):
    far = range(FIRST, FIRST + CROWD)
    crowd.grow_and_tell(OTHERS, 3)
    for link in far:
        crowd.sync.on_want(link, wire.Want(str(OTHERS), NOT_NOW), crowd.now)
    assert len(crowd.grow_and_tell(OTHERS, 5)) == NEAR + 1
    for _ in range(3):
        crowd.wait(RETRY_MS)
    # The writer's link never heard of it from us before, and did not decline.
    assert set(crowd.heard(wire.Offer)) <= {WRITER}


@proves("log.sync-crowd")
def test_who_declined_is_shown_what_grows_without_end_twice_a_second(crowd):
    crowd.grow_and_tell(OTHERS, 3)
    for link in (WRITER, *range(FIRST, FIRST + CROWD)):
        crowd.sync.on_want(link, wire.Want(str(OTHERS), NOT_NOW), crowd.now)
    crowd.wait(REFRESH_MS)
    crowd.heard()
    for size in range(10, 30):
        crowd.grow(OTHERS, size)
        crowd.wait(GOSSIP_MS)
    assert len(crowd.heard(wire.Offer)) == NEAR * 20 * GOSSIP_MS // WITNESS_MS


@proves("log.sync-crowd")
def test_who_begins_anew_declines_anew_and_is_told_until_then(crowd):
    far = [
        n
        for n, p in enumerate(PEERS, FIRST)
        if p not in crowd.sync.paths.near(OTHERS, NEAR, lambda _: True)
    ]
    crowd.grow_and_tell(OTHERS, 3)
    crowd.sync.on_want(far[0], wire.Want(str(OTHERS), NOT_NOW), crowd.now)
    crowd.offer(far[0], [], whole=True)
    assert far[0] in crowd.grow_and_tell(OTHERS, 5)
    crowd.held.sizes[THEIRS] = 3
    crowd.sync.took(WRITER, THEIRS, 3)
    crowd.offer(FIRST, [head(THEIRS, 3)])
    crowd.sync.process_named(FIRST, "a process", crowd.now)
    crowd.sync.open(1_000, PEERS[0], crowd.now)
    crowd.sync.process_named(1_000, "a process", crowd.now)
    crowd.heard()
    crowd.offer(1_000, [head(THEIRS, 3)])
    assert [out for out in crowd.sync.outbox if b"1099511627776" in out.raw]


@proves("log.sync-crowd")
def test_a_writer_that_is_reached_through_another_machine_only_is_heard_of_from_others(crowd):
    crowd.held.sizes[THEIRS] = 3
    crowd.sync.took(WRITER, THEIRS, 3)
    crowd.offer(FIRST, [head(THEIRS, 3)])
    crowd.sync.process_named(WRITER, "a process", crowd.now)
    crowd.sync.open(1_000, BUILD, crowd.now, PEERS[5])
    crowd.sync.process_named(1_000, "a process", crowd.now)
    crowd.heard()
    # The link of our own is there and brings no answer: the other one is spoken over.
    crowd.grow(STREAM, 3)
    for _ in range(8):
        crowd.wait(RETRY_MS)
    assert wire.Want(str(THEIRS), TELL_AGAIN) in crowd.said(FIRST)


@proves("log.sync-crowd")
def test_a_receipt_goes_to_the_writer_and_to_nobody_else(crowd):
    crowd.held.sizes[THEIRS] = 3
    crowd.sync.cosigned(Cosign(PEERS[0], "held", THEIRS, 3, b"", 0, NOTE))
    crowd.wait(GOSSIP_MS)
    assert crowd.heard(wire.Cosigns) == [WRITER]


@proves("log.sync-crowd")
def test_a_receipt_that_came_to_its_writer_goes_no_further(crowd):
    crowd.held.sizes[STREAM] = 3
    for peer in PEERS:
        crowd.sync.cosigned(Cosign(peer, "held", STREAM, 3, b"", 0, NOTE))
    crowd.wait(GOSSIP_MS)
    assert not crowd.heard(wire.Cosigns)


@proves("log.sync-crowd")
def test_a_receipt_whose_writer_is_not_linked_goes_to_those_near_and_not_back(crowd):
    crowd.held.sizes[OTHERS] = 3
    for _ in range(2):
        crowd.sync.cosigned(Cosign(PEERS[0], "held", OTHERS, 3, b"", 0, NOTE))
        crowd.wait(GOSSIP_MS)
    told = Counter(crowd.heard(wire.Cosigns))
    assert 0 < len(told) <= NEAR
    assert FIRST not in told
    assert set(told.values()) == {1}


@proves("log.sync-crowd")
def test_a_peer_is_greeted_with_what_we_vouch_for_and_what_is_said_of_its_own_streams():
    talk = Talk()
    talk.held.cosigned = lambda: [
        ((STREAM, BUILD, "held"), 3, b"of ours"),
        ((THEIRS, PEERS[0], "held"), 3, b"of its own"),
        ((OTHERS, STUDIO, "held"), 3, b"by us"),
        ((OTHERS, PEERS[0], "held"), 3, b"of others by others"),
    ]
    talk.sync.open(1, BUILD, 0)
    (notes,) = [m.notes for m in talk.said() if isinstance(m, wire.Cosigns)]
    assert notes == ["of its own", "by us"]


@proves("log.sync-crowd")
def test_at_a_greeting_a_receipt_is_given_where_it_may_reach_the_writer_and_nowhere_else(crowd):
    crowd.held.cosigned = lambda: [((OTHERS, STUDIO, "held"), 3, NOTE)]

    def given():
        """Who is given it, when each comes anew."""
        found = []
        for number, peer in enumerate(PEERS, FIRST):
            crowd.sync.close(number, crowd.now)
            crowd.sync.outbox.clear()
            crowd.sync.open(number, peer, crowd.now)
            found += crowd.heard(wire.Cosigns)
        return found

    near = crowd.sync.paths.near(OTHERS, NEAR, lambda _: True)
    assert {PEERS[link - FIRST] for link in given()} == near - {BUILD}
    crowd.sync.open(2, ATTIC, crowd.now)
    assert crowd.heard(wire.Cosigns) == [2]
    assert given() == []
