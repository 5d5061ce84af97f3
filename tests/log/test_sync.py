"""How streams spread: messages in, messages out; no channel, no clock, no store.

`Held` is a replica of a few streams; `Sync` of studio talks to build over link 1, to attic over 2.
"""

import pytest
from tests.log.material import BUILD, FLEET_ID, SEAL, STREAM, STUDIO, entries, nodes, root, stream
from tests.promise import proves

from muster.limits import STREAM_ASKS_MAX, STREAMS_CLAIMED_MAX
from muster.log import segment as segments
from muster.log import tree, wire
from muster.log.keys import Signer
from muster.log.seal import make_seal
from muster.log.segment import Segment
from muster.log.stream import FLEET, MachineId, StreamName, scope_to
from muster.log.sync import ASK_MS, GOSSIP_MS, NOT_NOW, REFRESH_MS, RETRY_MS, WITNESS_MS, Sync

ATTIC = MachineId(Signer(b"attic".ljust(32)).public.hex())
THEIRS = stream(FLEET, BUILD)
OTHERS = stream(FLEET, ATTIC)
SECRET = stream(scope_to(BUILD))


class Held:
    """A replica that holds the first so many entries of its streams."""

    def __init__(self, **sizes: int) -> None:
        self.sizes: dict[StreamName, int] = {}

    def streams(self):
        return list(self.sizes)

    def knows(self, name):
        return name in self.sizes

    def has_place(self, name):
        return name in self.sizes or len(self.sizes) < 100

    def size(self, name):
        return self.sizes.get(name, 0)

    def seal_of(self, name):
        items = entries(self.size(name), name)
        return make_seal(FLEET_ID, name, len(items), root(items), SEAL) if items else None

    latest_seal = seal_of

    def consistency(self, name, old, new):
        return tree.consistency_proof(nodes(entries(new, name)), old, new)

    def segment(self, name, start, bytes_max, bodies_from):
        items = entries(self.size(name), name)
        if start >= len(items):
            return None
        return Segment(name, start, tuple(items[start:]), self.seal_of(name), ())

    def cosigned(self):
        return ()


class Talk:
    """Studio's sync, and what it said on each link since it was last asked."""

    def __init__(self, **sizes: int) -> None:
        self.held = Held()
        self.now = 0
        self.sync = Sync(STUDIO, self.held, self.may_hold)

    def may_hold(self, name, machine):
        target = name.scope.removeprefix("to.")
        return machine == name.machine or name.scope == FLEET or machine == target

    def said(self, link=1):
        found = [
            segments.decode(out.raw) if out.bulk else wire.decode(out.raw)
            for out in self.sync.outbox
            if out.link == link
        ]
        self.sync.outbox.clear()
        return found

    def greet(self, link=1, peer=BUILD, through=""):
        self.sync.open(link, peer, self.now, through)
        self.offer(link, [], whole=True)
        self.said(link)

    def offer(self, link, heads, *, whole=False):
        return self.sync.on_offer(link, wire.Offer(heads, whole=whole), self.now)

    def grow(self, name=STREAM, size=5):
        self.held.sizes[name] = size
        self.sync.grew(name)
        self.sync.after_commit(self.now)

    def wait(self, ms):
        self.now += ms
        self.sync.tick(self.now)


@pytest.fixture
def talk():
    return Talk()


def head(name, size):
    return wire.Head(str(name), size)


@proves("log.sync-push")
def test_a_writer_pushes_what_grew_once(talk):
    talk.greet()
    talk.grow()
    (sent,) = [m for m in talk.said() if isinstance(m, Segment)]
    assert (sent.stream, sent.start, sent.end) == (STREAM, 0, 5)
    talk.sync.after_commit(talk.now)
    assert talk.said() == []


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
    talk.greet()
    talk.grow()
    talk.said()
    talk.wait(RETRY_MS - 1)
    assert talk.said() == []
    talk.wait(1)
    (offer,) = talk.said()
    assert [(h.stream, h.size) for h in offer.heads] == [(str(STREAM), 5)]
    talk.sync.heard_cosign(1, STREAM, BUILD, "held", 5, talk.now)
    assert talk.sync.unconfirmed() == 0
    talk.wait(RETRY_MS)
    assert talk.said() == []


@proves("log.sync-confirms")
def test_a_receipt_by_another_machine_confirms_nothing(talk):
    talk.greet()
    talk.grow()
    talk.sync.heard_cosign(1, STREAM, ATTIC, "held", 5, talk.now)
    talk.sync.heard_cosign(1, STREAM, BUILD, "seen", 5, talk.now)
    assert talk.sync.unconfirmed() == 5


@proves("log.sync-pull")
def test_what_a_peer_holds_more_of_is_asked_for_from_where_we_are(talk):
    talk.held.sizes[THEIRS] = 2
    talk.greet()
    talk.offer(1, [head(THEIRS, 9)])
    assert talk.said() == [wire.Want(str(THEIRS), 2)]


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


def pushed(talk, size=3):
    """Both are linked, and of what Build writes that much came from Build itself."""
    talk.greet(1, BUILD)
    talk.greet(2, ATTIC)
    talk.held.sizes[THEIRS] = size
    talk.sync.took(1, THEIRS, size)
    talk.said()


@proves("log.sync-one-way")
def test_what_its_writer_pushes_is_asked_of_nobody_else_unless_it_does_not_come(talk):
    pushed(talk)
    talk.offer(2, [head(THEIRS, 9)])
    assert talk.said(2) == [wire.Want(str(THEIRS), NOT_NOW)]
    talk.wait(RETRY_MS)
    assert wire.Want(str(THEIRS), 3) in talk.said(2)


@proves("log.sync-one-way")
def test_without_its_writer_a_stream_is_asked_of_whoever_offers_it(talk):
    pushed(talk)
    talk.sync.close(1, talk.now)
    talk.offer(2, [head(THEIRS, 9)])
    assert talk.said(2) == [wire.Want(str(THEIRS), 3)]


@proves("log.sync-one-way")
def test_whoever_sends_what_its_writer_pushes_is_told_once_to_stop(talk):
    pushed(talk)
    talk.sync.again(1, THEIRS)
    assert talk.said(1) == []
    talk.sync.again(2, THEIRS)
    talk.sync.again(2, THEIRS)
    assert talk.said(2) == [wire.Want(str(THEIRS), NOT_NOW)]


@proves("log.sync-one-way")
def test_who_was_told_to_stop_sends_no_more_of_that_stream_until_it_is_asked(talk):
    talk.greet(1, BUILD)
    talk.held.sizes[OTHERS] = 2
    talk.sync.on_want(1, wire.Want(str(OTHERS), 0), talk.now)
    assert [(m.start, m.end) for m in talk.said() if isinstance(m, Segment)] == [(0, 2)]
    talk.grow(OTHERS, 4)
    assert [(m.start, m.end) for m in talk.said() if isinstance(m, Segment)] == [(2, 4)]
    talk.sync.on_want(1, wire.Want(str(OTHERS), NOT_NOW), talk.now)
    talk.grow(OTHERS, 6)
    talk.wait(GOSSIP_MS)
    assert [type(m) for m in talk.said()] == [wire.Offer]
    talk.sync.on_want(1, wire.Want(str(OTHERS), 4), talk.now)
    assert [(m.start, m.end) for m in talk.said() if isinstance(m, Segment)] == [(4, 6)]


@proves("log.sync-one-way")
def test_over_a_link_through_a_third_machine_goes_what_that_one_may_not_hold(talk):
    direct = SECRET
    talk.greet(1, BUILD, through=ATTIC)
    talk.grow(STREAM, 5)
    talk.wait(GOSSIP_MS)
    assert talk.said() == []
    talk.grow(direct, 2)
    (sent,) = [m for m in talk.said() if isinstance(m, Segment)]
    assert (sent.stream, sent.end) == (direct, 2)


@proves("log.sync-one-way")
def test_what_the_machine_in_the_middle_did_not_pass_on_is_asked_for_past_it(talk):
    talk.greet(1, BUILD, through=ATTIC)
    talk.offer(1, [head(THEIRS, 9)])
    assert talk.said() == []
    talk.wait(RETRY_MS)
    assert wire.Want(str(THEIRS), 0) in talk.said()


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
    talk.greet(1, BUILD, through=ATTIC)
    talk.held.sizes[STREAM] = 2
    talk.sync.on_want(1, wire.Want(str(STREAM), 0), talk.now)
    talk.said()
    talk.grow(STREAM, 4)
    assert [(m.start, m.end) for m in talk.said() if isinstance(m, Segment)] == [(2, 4)]
    talk.sync.on_want(1, wire.Want(str(STREAM), NOT_NOW), talk.now)
    talk.grow(STREAM, 6)
    assert [m for m in talk.said() if isinstance(m, Segment)] == []


@proves("log.sync-one-way")
def test_whoever_sends_past_the_middle_what_came_through_it_is_told_to_stop(talk):
    talk.greet(1, BUILD, through=ATTIC)
    talk.held.sizes[THEIRS] = 3
    talk.sync.again(1, THEIRS)
    assert talk.said(1) == [wire.Want(str(THEIRS), NOT_NOW)]


@proves("log.sync-one-way")
def test_two_machines_tell_each_other_of_the_stream_of_the_one_between_them(talk):
    talk.greet(1, BUILD, through=ATTIC)
    talk.grow(OTHERS, 4)
    talk.wait(GOSSIP_MS)
    (offer,) = talk.said()
    assert [h.stream for h in offer.heads] == [str(OTHERS)]


@proves("log.sync-pull")
def test_a_want_is_served_from_where_it_asks(talk):
    talk.held.sizes[THEIRS] = 6
    talk.greet(2, ATTIC)
    talk.sync.on_want(2, wire.Want(str(THEIRS), 4), talk.now)
    (sent,) = talk.said(2)
    assert (sent.start, sent.end) == (4, 6)


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
    talk.sync.on_witnessed(2, wire.Witnessed(str(SECRET), 3), talk.now)
    ((again,),) = [offer.heads for offer in talk.said(2)]
    path = [bytes.fromhex(text) for text in again.proof]
    old, new = root(entries(3, SECRET)), root(entries(4, SECRET))
    assert again.since == 3
    assert tree.verify_consistency(3, 4, old, new, path)


@proves("log.sync-witness")
def test_a_seal_that_no_witness_confirmed_is_shown_again(talk):
    talk.greet(2, ATTIC)
    talk.grow(SECRET, 4)
    talk.wait(GOSSIP_MS)
    talk.said(2)
    talk.wait(RETRY_MS + WITNESS_MS)
    assert [h.size for offer in talk.said(2) for h in offer.heads] == [4]
    talk.sync.heard_cosign(2, SECRET, ATTIC, "seen", 4, talk.now)
    talk.wait(RETRY_MS + WITNESS_MS)
    assert talk.said(2) == []


@proves("log.sync-tells-writers")
def test_the_writer_is_told_what_is_known_of_its_own_streams_with_the_last_word(talk):
    talk.held.sizes = {STREAM: 3, THEIRS: 7}
    talk.sync.open(1, BUILD, 0)
    last = talk.said()[-1]
    assert last.whole
    assert [(h.stream, h.size) for h in last.heads] == [(str(THEIRS), 7)]


@proves("log.sync-gossip")
def test_what_came_from_a_writer_is_offered_to_others_and_not_sent_back(talk):
    talk.greet(1, BUILD)
    talk.greet(2, ATTIC)
    talk.held.sizes[THEIRS] = 4
    talk.sync.took(1, THEIRS, 4)
    talk.now += GOSSIP_MS
    talk.sync.after_commit(talk.now)
    assert [out.link for out in talk.sync.outbox] == [2]
    (offer,) = talk.said(2)
    assert [(h.stream, h.size) for h in offer.heads] == [(str(THEIRS), 4)]


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
    talk.sync.on_witnessed(1, wire.Witnessed(str(SECRET), size), talk.now)
    assert all(isinstance(m, wire.Want | Segment) for m in talk.said())


@proves("log.sync-total")
def test_what_comes_over_a_link_that_is_gone_does_nothing(talk):
    talk.greet()
    talk.sync.close(1, talk.now)
    talk.held.sizes[STREAM] = 3
    talk.sync.on_want(1, wire.Want(str(STREAM), 0), 0)
    talk.sync.on_witnessed(1, wire.Witnessed(str(SECRET), 0), 0)
    talk.sync.heard_cosign(1, STREAM, BUILD, "held", 3, 0)
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
        talk.sync.on_witnessed(1, wire.Witnessed(str(claimed(n)), 7), talk.now)
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
    talk.sync.heard_cosign(1, STREAM, BUILD, "held", 5, talk.now)
    del talk.held.sizes[STREAM]
    talk.sync.forget(STREAM)
    session = talk.sync.sessions[1]
    assert (session.lanes, session.cosigns, talk.sync._grown) == ({}, {}, {})
