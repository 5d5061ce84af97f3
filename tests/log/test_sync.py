"""How streams spread: messages in, messages out; no channel, no clock, no store (tests/log/drawn.py)."""

import pytest
from tests.log.drawn import ATTIC, SECRET, THEIRS, Talk, head
from tests.log.material import BUILD, STREAM, entries, root
from tests.promise import proves

from muster.limits import STREAM_ASKS_MAX, STREAMS_CLAIMED_MAX
from muster.log import tree, wire
from muster.log.seal import Cosign
from muster.log.segment import Segment
from muster.log.stream import FLEET, StreamName, scope_to
from muster.log.sync import ASK_MS, GOSSIP_MS, REFRESH_MS, RETRY_MS


@pytest.fixture
def talk():
    return Talk()


@proves("log.sync-push")
def test_a_writer_pushes_what_grew_once(talk):
    talk.play("""
        build links
        studio 5              | build: studio[0:5]
        wait 0
    """)


@proves("log.sync-push")
def test_nothing_is_pushed_before_the_peer_told_what_it_holds(talk):
    talk.held.sizes[STREAM] = 5
    talk.sync.open(1, BUILD, 0)
    assert all(isinstance(m, wire.Offer) for m in talk.said())
    talk.offer(1, [head(STREAM, 3)], whole=True)
    (sent,) = talk.said()
    assert (sent.start, sent.end) == (3, 5)


@proves("log.sync-confirms")
def test_what_no_receipt_confirms_is_offered_again(talk):
    talk.play("""
        build links
        studio 5              | build: studio[0:5]
        wait RETRY-1
        wait 1                | build: studio=5
        build holds studio 5
        wait RETRY
    """)


@proves("log.sync-confirms")
def test_a_receipt_by_another_machine_confirms_nothing(talk):
    talk.greet()
    talk.grow()
    talk.sync.heard_cosign(1, Cosign(ATTIC, "held", STREAM, 5, b"", 0, b""), talk.now)
    talk.sync.heard_cosign(1, Cosign(BUILD, "seen", STREAM, 5, b"", 0, b""), talk.now)
    assert talk.sync.unconfirmed() == 5


@proves("log.sync-pull")
def test_what_a_peer_holds_more_of_is_asked_for_from_where_we_are(talk):
    talk.play("""
        build links
        build gives build 2
        build offers build 9  | build: build?2
    """)


@proves("log.sync-pull")
def test_it_is_asked_of_one_peer_and_of_the_next_when_nothing_comes(talk):
    talk.greet(1, BUILD)
    talk.greet(2, ATTIC)
    talk.offer(1, [head(THEIRS, 9)])
    talk.offer(2, [head(THEIRS, 9)])
    assert talk.said(1) == [wire.Want(str(THEIRS), 0)]
    talk.sync.outbox.clear()
    asked = set()
    for _ in range(4):
        talk.wait(max(RETRY_MS, ASK_MS))
        asked |= {out.link for out in talk.sync.outbox if b'"want"' in out.raw}
        talk.sync.outbox.clear()
        talk.sync.close(1, talk.now)
    assert 2 in asked


@proves("log.sync-one-way")
def test_what_its_writer_pushes_is_asked_of_nobody_else_unless_it_does_not_come(talk):
    talk.play("""
        build links
        attic links
        build gives build 3
        attic offers build 9  | attic: build!
        wait RETRY            | attic: build?3
    """)


@proves("log.sync-one-way")
def test_without_its_writer_a_stream_is_asked_of_whoever_offers_it(talk):
    talk.play("""
        build links
        attic links
        build gives build 3
        build leaves
        attic offers build 9  | attic: build?3
    """)


@proves("log.sync-one-way")
def test_whoever_sends_what_its_writer_pushes_is_told_once_to_stop(talk):
    talk.play("""
        build links
        attic links
        build gives build 3
        build repeats build
        attic repeats build   | attic: build!
        attic repeats build
    """)


@proves("log.sync-one-way")
def test_who_was_told_to_stop_sends_no_more_of_that_stream_until_it_is_asked(talk):
    talk.play("""
        build links
        attic 2
        wait GOSSIP           | build: attic=2
        build wants attic 0   | build: attic[0:2]
        attic 4               | build: attic[2:4]
        build wants attic never
        attic 6
        wait WITNESS          | build: attic=6
        build wants attic 4   | build: attic[4:6]
    """)


@proves("log.sync-one-way")
def test_over_a_link_through_a_third_machine_goes_what_that_one_may_not_hold(talk):
    talk.play("""
        build links through attic
        studio 5
        wait GOSSIP
        secret 2              | build: secret[0:2]
    """)


@proves("log.sync-one-way")
def test_what_the_machine_in_the_middle_did_not_pass_on_is_asked_for_past_it(talk):
    talk.play("""
        build links through attic
        build offers build 9
        wait RETRY            | build: build?0
    """)


@proves("log.sync-one-way")
def test_a_machine_that_offers_again_and_again_and_sends_nothing_keeps_no_other_from_being_asked(
    talk,
):
    talk.greet(1, BUILD, through=ATTIC)
    talk.greet(2, ATTIC)
    talk.offer(1, [head(THEIRS, 9)])
    talk.said()
    for _ in range(2 * ASK_MS // 500):
        talk.offer(2, [head(THEIRS, 9)])
        talk.wait(500)
    asked = [out.link for out in talk.sync.outbox if b'"want"' in out.raw]
    assert {1, 2} <= set(asked)


@proves("log.sync-one-way")
def test_what_was_asked_for_past_the_middle_goes_on_until_it_is_not_wanted_any_more(talk):
    talk.play("""
        build links through attic
        studio 2
        build wants studio 0  | build: studio[0:2]
        studio 4              | build: studio[2:4]
        build wants studio never
        studio 6
    """)


@proves("log.sync-one-way")
def test_whoever_sends_past_the_middle_what_came_through_it_is_told_to_stop(talk):
    talk.play("""
        build links through attic
        build gives build 3
        build repeats build   | build: build!
    """)


@proves("log.sync-one-way")
def test_two_machines_tell_each_other_of_the_stream_of_the_one_between_them(talk):
    talk.play("""
        build links through attic
        attic 4
        wait GOSSIP           | build: attic=4
    """)


@proves("log.sync-pull")
def test_a_want_is_served_from_where_it_asks(talk):
    talk.play("""
        attic links
        build gives build 6
        attic wants build 4   | attic: build[4:6]
    """)


@proves("log.sync-scope")
def test_a_machine_outside_the_scope_is_neither_offered_nor_served(talk):
    talk.held.sizes[SECRET] = 4
    talk.greet(2, ATTIC)
    talk.sync.on_want(2, wire.Want(str(SECRET), 0), talk.now)
    talk.grow(SECRET, 5)
    talk.wait(REFRESH_MS)
    for said in talk.said(2):
        assert not isinstance(said, Segment)
        assert "message.send" not in str(said)


@proves("log.sync-witness")
def test_a_machine_outside_the_scope_is_shown_seals_to_witness(talk):
    talk.greet(2, ATTIC)
    talk.grow(SECRET, 4)
    talk.wait(GOSSIP_MS)
    (offer,) = talk.said(2)
    (shown,) = offer.heads
    assert (shown.stream, shown.size, shown.since, shown.proof) == (str(SECRET), 4, 0, [])
    talk.sync.witnesses.saw(2, wire.Witnessed(str(SECRET), 3), talk.now)
    ((again,),) = [offer.heads for offer in talk.said(2)]
    path = [bytes.fromhex(text) for text in again.proof]
    old, new = root(entries(3, SECRET)), root(entries(4, SECRET))
    assert again.since == 3
    assert tree.verify_consistency(3, 4, old, new, path)


@proves("log.sync-witness")
def test_a_seal_that_no_witness_confirmed_is_shown_again(talk):
    talk.play("""
        attic links
        secret 4
        wait GOSSIP           | attic: secret=4
        wait RETRY+WITNESS    | attic: secret=4
        attic sees secret 4
        wait RETRY+WITNESS
    """)


@proves("log.sync-tells-writers")
def test_the_writer_is_told_what_is_known_of_its_own_streams_with_the_last_word(talk):
    talk.held.sizes = {STREAM: 3, THEIRS: 7}
    talk.sync.open(1, BUILD, 0)
    last = talk.said()[-1]
    assert last.whole
    assert [(h.stream, h.size) for h in last.heads] == [(str(THEIRS), 7)]


@proves("log.sync-greets")
def test_a_greeting_that_is_said_again_is_answered_with_ours_and_not_at_once_again(talk):
    """Where ours was lost the other side waited for it for ever, and a doubt with it."""

    def greets() -> int:
        talk.offer(1, [], whole=True)
        return sum(isinstance(each, wire.Offer) and each.whole for each in talk.said())

    talk.held.sizes[STREAM] = 3
    talk.greet()
    assert greets() == 0
    talk.now += RETRY_MS
    assert [greets(), greets()] == [1, 0]
    talk.now += RETRY_MS
    assert greets() == 1


@proves("log.sync-gossip")
def test_what_came_from_a_writer_is_offered_to_others_and_not_sent_back(talk):
    talk.play("""
        build links
        attic links
        build gives build 4
        wait GOSSIP           | attic: build=4
    """)


@proves("log.sync-cut-back")
def test_a_stream_that_was_cut_back_is_offered_at_its_new_end(talk):
    talk.greet(1, BUILD)
    talk.greet(2, ATTIC)
    talk.held.sizes[THEIRS] = 9
    talk.sync.took(1, THEIRS, 9)
    talk.wait(GOSSIP_MS)
    talk.said(2)
    talk.held.sizes[THEIRS] = 6
    talk.sync.cut_back(THEIRS, 6)
    talk.wait(GOSSIP_MS)
    assert [h.size for offer in talk.said(2) for h in offer.heads] == [6]


@proves("log.sync-total")
@pytest.mark.parametrize("size", [-5, 0, 1 << 50])
def test_senseless_sizes_ask_nothing_of_us_but_a_want(talk, size):
    talk.held.sizes[STREAM] = 3
    talk.greet()
    talk.offer(1, [head(STREAM, size), head(THEIRS, size)])
    talk.sync.on_want(1, wire.Want(str(STREAM), size), talk.now)
    talk.sync.witnesses.saw(1, wire.Witnessed(str(SECRET), size), talk.now)
    assert all(isinstance(m, wire.Want | Segment) for m in talk.said())


@proves("log.sync-total")
def test_what_comes_over_a_link_that_is_gone_does_nothing(talk):
    talk.greet()
    talk.sync.close(1, talk.now)
    talk.held.sizes[STREAM] = 3
    talk.sync.on_want(1, wire.Want(str(STREAM), 0), 0)
    talk.sync.witnesses.saw(1, wire.Witnessed(str(SECRET), 0), 0)
    talk.sync.heard_cosign(1, Cosign(BUILD, "held", STREAM, 3, b"", 0, b""), 0)
    assert talk.offer(1, [head(THEIRS, 9)]) == []
    assert talk.sync.outbox == []


def claimed(n, scope=FLEET):
    """A stream of build's that nobody has."""
    return StreamName(BUILD, f"{n:032x}", scope)


@proves("log.sync-bounded")
def test_streams_that_a_peer_only_claims_to_hold_are_so_many_and_are_given_up(talk):
    talk.greet()
    names = [claimed(n) for n in range(STREAMS_CLAIMED_MAX + 500)]
    talk.offer(1, [head(name, 5) for name in names])
    asked = [m.stream for m in talk.said() if isinstance(m, wire.Want)]
    assert asked == [str(name) for name in names[:STREAMS_CLAIMED_MAX]]
    session = talk.sync.sessions[1]
    assert len(session.lanes) == len(session.claims) == STREAMS_CLAIMED_MAX
    talk.offer(1, [head(name, 5) for name in names[STREAMS_CLAIMED_MAX:]])
    assert len(session.lanes) == STREAMS_CLAIMED_MAX
    assert talk.said() == []
    for _ in range(STREAM_ASKS_MAX + 1):
        talk.wait(RETRY_MS)
    assert (len(session.lanes), len(session.claims), len(talk.sync._asked)) == (0, 0, 0)
    talk.said()
    talk.wait(RETRY_MS)
    assert [m for m in talk.said() if isinstance(m, wire.Want)] == []
    # Whoever really has one of them is believed again.
    talk.offer(1, [head(names[-1], 5)])
    assert [m.stream for m in talk.said()] == [str(names[-1])]


@proves("log.sync-bounded")
def test_a_claim_that_is_made_good_is_none_any_more_and_makes_place(talk):
    talk.greet()
    names = [claimed(n) for n in range(STREAMS_CLAIMED_MAX + 1)]
    talk.offer(1, [head(name, 5) for name in names])
    talk.held.sizes[names[0]] = 5
    talk.sync.took(1, names[0], 5)
    talk.said()
    talk.offer(1, [head(names[-1], 5)])
    assert [m.stream for m in talk.said()] == [str(names[-1])]
    for _ in range(STREAM_ASKS_MAX + 1):
        talk.wait(RETRY_MS)
    assert set(talk.sync.sessions[1].lanes) == {names[0]}


@proves("log.sync-bounded")
def test_what_is_claimed_goes_with_the_link_and_costs_no_other_peer_its_own(talk):
    talk.greet()
    talk.offer(1, [head(claimed(n), 5) for n in range(STREAMS_CLAIMED_MAX)])
    talk.greet(2, ATTIC)
    talk.offer(2, [head(claimed(10**6), 5)])
    assert [m.stream for m in talk.said(2)] == [str(claimed(10**6))]
    talk.sync.close(1, talk.now)
    assert set(talk.sync._asked) == {claimed(10**6)}


@proves("log.sync-bounded")
def test_messages_about_streams_that_are_not_there_keep_nothing(talk):
    talk.greet()
    for n in range(100):
        talk.sync.on_want(1, wire.Want(str(claimed(n)), 0), talk.now)
        talk.sync.witnesses.saw(1, wire.Witnessed(str(claimed(n)), 7), talk.now)
        talk.offer(1, [head(claimed(n), 0)])
        talk.offer(1, [head(StreamName(BUILD, f"{n:032x}", scope_to(ATTIC)), 9)])
    assert talk.sync.sessions[1].lanes == {}
    assert talk.said() == []


@proves("log.sync-bounded")
def test_a_stream_without_a_place_is_not_asked_for(talk):
    talk.greet()
    talk.held.sizes = {claimed(n): 1 for n in range(100)}
    talk.offer(1, [head(claimed(500), 5)])
    assert talk.said() == []


@proves("log.sync-bounded")
def test_whoever_asks_for_much_gets_so_much_in_one_step_and_the_rest_after(talk, monkeypatch):
    monkeypatch.setattr("muster.log.sync.STEP_LINK_BYTES_MAX", 1)
    talk.greet()
    names = [claimed(n) for n in range(3)]
    talk.held.sizes = dict.fromkeys(names, 5)
    for name in names:
        talk.sync.on_want(1, wire.Want(str(name), 0), talk.now)
        talk.sync.on_want(1, wire.Want(str(name), 0), talk.now)
    sent = [m.stream for m in talk.said() if isinstance(m, Segment)]
    assert sent == names[:1]
    for _ in range(4):
        talk.sync.after_commit(talk.now)
        got = [m.stream for m in talk.said() if isinstance(m, Segment)]
        assert len(got) <= 1
        sent += got
    assert set(sent) == set(names)


@proves("log.sync-bounded")
def test_a_stream_that_is_forgotten_leaves_nothing(talk):
    talk.greet()
    talk.grow()
    talk.sync.heard_cosign(1, Cosign(BUILD, "held", STREAM, 5, b"", 0, b""), talk.now)
    del talk.held.sizes[STREAM]
    talk.sync.forget(STREAM)
    session = talk.sync.sessions[1]
    assert (session.lanes, session.cosigns, talk.sync._grown) == ({}, {}, {})
