"""Several links to one peer: one session, and what becomes of it when a link goes."""

import pytest
from tests.log.drawn import ATTIC, OTHERS, SECRET, THEIRS, Talk, head
from tests.log.material import BUILD, STREAM, stream
from tests.promise import proves

from muster.log import wire
from muster.log.seal import Cosign
from muster.log.stream import FLEET, MachineId
from muster.log.sync import GOSSIP_MS, REFRESH_MS, RETRY_MS

PROCESS = "0" * 32


@pytest.fixture
def talk():
    """Studio has two links to one process of build, 1 and 2, and speaks over the newer."""
    talk = Talk()
    talk.greet(1)
    talk.sync.process_named(1, PROCESS, talk.now)
    path(talk, 2)
    talk.sync.outbox.clear()
    return talk


def path(talk, link, process=PROCESS, through=""):
    talk.sync.open(link, BUILD, talk.now, through)
    talk.sync.process_named(link, process, talk.now)


def links(talk):
    """Over which links something went, and how many segments."""
    out, talk.sync.outbox = talk.sync.outbox, []
    return {each.link for each in out}, sum(each.bulk for each in out)


@proves("log.sync-one-session")
@pytest.mark.parametrize("count", [1, 3, 7])
def test_over_however_many_links_what_grew_goes_once(count):
    talk = Talk()
    talk.greet(1)
    talk.sync.process_named(1, PROCESS, talk.now)
    for link in range(2, count + 1):
        path(talk, link)
    talk.sync.outbox.clear()
    talk.grow()
    assert links(talk) == ({count}, 1)
    talk.sync.heard_cosign(1, Cosign(BUILD, "held", STREAM, 5, b"", 0, b""), talk.now)
    talk.wait(RETRY_MS)
    assert links(talk) == (set(), 0)


@proves("log.sync-one-session", "log.sync-tells-writers")
def test_over_a_further_link_to_the_same_process_both_tell_once_more_what_they_hold():
    """A machine that was set back as it ran, by a snapshot, holds less than it did."""
    talk = Talk()
    talk.held.sizes = {OTHERS: 3, THEIRS: 4}
    talk.greet(1)
    talk.sync.process_named(1, PROCESS, talk.now)
    talk.offer(1, [head(OTHERS, 3)])
    path(talk, 2)
    told = [(h.stream, h.size) for offer in talk.said(2) for h in offer.heads]
    assert told == [(str(OTHERS), 3), (str(THEIRS), 4)]
    assert len(talk.sync.sessions) == 1
    lane = talk.sync.sessions[1].lane(OTHERS)
    assert lane.has == 3
    talk.offer(2, [head(OTHERS, 1)], whole=True)
    assert lane.has == 1
    talk.offer(2, [head(OTHERS, 0)])
    assert lane.has == 1, "what is said late lowers nothing"


@proves("log.sync-one-session")
def test_another_machine_that_names_the_same_process_has_a_session_of_its_own(talk):
    talk.greet(3, ATTIC)
    talk.sync.process_named(3, PROCESS, talk.now)
    assert len(talk.sync.sessions) == 2
    talk.grow(SECRET)
    assert links(talk) == ({2}, 1)


@proves("log.sync-one-session")
def test_what_was_under_way_on_a_link_that_is_gone_comes_over_the_other(talk):
    talk.grow()
    assert links(talk) == ({2}, 1)
    talk.sync.close(2, talk.now)
    assert links(talk) == ({1}, 1)
    talk.sync.close(1, talk.now)
    assert talk.sync.sessions == {}
    assert talk.offer(1, [head(THEIRS, 9)]) == []
    assert links(talk) == (set(), 0)


@proves("log.sync-one-session")
def test_a_link_that_is_not_spoken_over_may_go_without_a_word(talk):
    talk.grow()
    links(talk)
    talk.sync.close(1, talk.now)
    assert links(talk) == (set(), 0)
    talk.grow(size=6)
    assert links(talk) == ({2}, 1)


@proves("log.sync-one-session")
def test_a_link_that_brings_no_answer_is_left_for_the_next_and_given_more_time_each_turn(talk):
    """What is under way is only offered there: over a slow link it would be sent again and again."""
    talk.grow()
    assert links(talk) == ({2}, 1)
    talk.wait(RETRY_MS)
    assert links(talk) == ({1}, 0)
    talk.wait(RETRY_MS)
    assert links(talk) == ({1}, 0)
    talk.wait(RETRY_MS)
    assert links(talk) == ({2}, 0)
    talk.sync.on_want(2, wire.Want(str(STREAM), 0), talk.now)
    assert links(talk) == ({2}, 1)
    talk.sync.heard_cosign(2, Cosign(BUILD, "held", STREAM, 5, b"", 0, b""), talk.now)
    assert talk.sync.sessions[1].patience_ms == RETRY_MS


@proves("log.sync-one-session")
@pytest.mark.parametrize("heals", [True, False])
def test_a_session_goes_back_to_its_best_link_when_that_is_heard_again_or_after_a_while(heals):
    talk = _speaking_over_the_relayed_one(proven=True)
    if heals:
        talk.now += RETRY_MS
        talk.offer(2, [])
    else:
        talk.wait(REFRESH_MS)
    assert talk.sync.sessions[1].link == 2


@proves("log.sync-proven-first")
@pytest.mark.parametrize("doubted", [True, False])
def test_a_session_does_not_go_back_to_a_link_that_is_not_proven_before_it_is(doubted):
    talk = _speaking_over_the_relayed_one(proven=doubted)
    if doubted:
        talk.sync.paths.proofs.doubt(2, talk.now)
    talk.now += RETRY_MS
    talk.offer(2, [])
    talk.wait(REFRESH_MS)
    assert talk.sync.sessions[1].link == 1
    talk.sync.proved(2, talk.now)
    assert talk.sync.sessions[1].link == 2


def _speaking_over_the_relayed_one(*, proven):
    """A link of our own, 2, brought no answer; one through a third machine, 1, did."""
    talk = Talk()
    talk.greet(1, through=ATTIC)
    talk.sync.process_named(1, PROCESS, talk.now)
    path(talk, 2)
    talk.offer(2, [], whole=True)
    if proven:
        talk.sync.proved(2, talk.now)
    talk.grow()
    links(talk)
    talk.wait(RETRY_MS)
    assert links(talk)[0] == {1}
    talk.sync.heard_cosign(1, Cosign(BUILD, "held", STREAM, 5, b"", 0, b""), talk.now)
    return talk


@proves("log.sync-one-session")
def test_a_peer_that_answers_slowly_keeps_its_link(talk):
    talk.grow()
    links(talk)
    talk.now += RETRY_MS - 1
    talk.offer(1, [])
    talk.wait(1)
    assert links(talk) == ({2}, 0)


@proves("log.sync-one-session")
@pytest.mark.parametrize("asks", [True, False])
def test_a_peer_that_speaks_and_answers_nothing_does_not_hear_us_over_this_link(talk, asks):
    """What it says comes over its own path: ours may carry nothing."""
    if asks:
        talk.held.sizes[THEIRS] = 2
        talk.offer(1, [head(THEIRS, 9)])
    else:
        talk.grow()
    spoken = links(talk)[0]
    for _ in range(5):
        talk.now += RETRY_MS - 10
        talk.offer(1, [])
        talk.wait(10)
        spoken |= links(talk)[0]
    assert spoken == {1, 2}


@proves("log.sync-one-session")
def test_what_was_asked_over_a_link_that_is_gone_is_asked_over_the_other(talk):
    talk.offer(2, [head(THEIRS, 9)])
    assert links(talk) == ({2}, 0)
    talk.sync.close(2, talk.now)
    links(talk)
    talk.wait(RETRY_MS)
    assert wire.Want(str(THEIRS), 0) in talk.said(1)


@proves("log.sync-one-session")
def test_when_a_link_is_gone_all_that_is_held_is_told_over_the_next_and_nothing_is_asked_still(
    talk,
):
    """A third machine writes; build was asked for it over the link that went, and attic has it."""
    talk.greet(3, ATTIC)
    cellar = stream(FLEET, MachineId("c" * 64))
    talk.held.sizes[cellar] = 1
    talk.offer(2, [head(cellar, 9)])
    assert talk.said(2) == [wire.Want(str(cellar), 1)]
    talk.sync.close(2, talk.now)
    offers = [m for m in talk.said(1) if isinstance(m, wire.Offer)]
    assert str(cellar) in [h.stream for offer in offers for h in offer.heads]
    assert offers[-1].whole
    talk.offer(3, [head(cellar, 9)])
    assert talk.said(3) == [wire.Want(str(cellar), 1)]


@proves("log.sync-one-session")
def test_what_was_asked_for_and_came_is_an_answer(talk):
    talk.held.sizes[THEIRS] = 1
    talk.sync.sessions[1].patience_ms = REFRESH_MS
    talk.now = 100
    talk.offer(1, [head(THEIRS, 9)])
    talk.sync.took(1, THEIRS, 9)
    session = talk.sync.sessions[1]
    assert (session.patience_ms, session.answered_ms) == (RETRY_MS, 100)


@proves("log.sync-one-session")
def test_another_process_of_the_peer_is_pushed_nothing_before_it_told_what_it_holds(talk):
    """It was started again, perhaps from an old copy: what the one before held says nothing."""
    talk.grow()
    talk.sync.heard_cosign(2, Cosign(BUILD, "held", STREAM, 5, b"", 0, b""), talk.now)
    links(talk)
    path(talk, 3, process="1" * 32)
    assert links(talk) == ({3}, 0)
    talk.offer(3, [], whole=True)
    assert links(talk) == ({3}, 1)


@proves("log.sync-one-session")
def test_who_does_not_name_its_process_is_told_over_each_link():
    talk = Talk()
    for link in (1, 2):
        path(talk, link, process="")
        talk.offer(link, [], whole=True)
    talk.sync.outbox.clear()
    talk.grow()
    assert links(talk) == ({1, 2}, 2)


@proves("log.sync-one-session")
@pytest.mark.parametrize("first", [1, 2])
def test_in_whatever_order_the_words_of_two_links_come_they_are_one_session(first):
    talk = Talk()
    talk.greet(1)
    talk.sync.open(2, BUILD, talk.now)
    for link in (first, 3 - first):
        talk.sync.process_named(link, PROCESS, talk.now)
    talk.offer(2, [], whole=True)
    talk.sync.outbox.clear()
    talk.grow()
    assert len(talk.sync.sessions) == 1
    spoken, segments = links(talk)
    assert (len(spoken), segments) == (1, 1)


@proves("log.sync-one-session")
def test_a_link_whose_word_is_lost_is_used_all_the_same():
    talk = Talk()
    talk.greet(1)
    talk.sync.open(2, BUILD, talk.now)
    links(talk)
    talk.wait(RETRY_MS)
    assert 2 in links(talk)[0]
    talk.sync.open(3, BUILD, talk.now)
    talk.offer(3, [], whole=True)
    assert 3 in links(talk)[0]


@proves("log.sync-one-session", "log.sync-one-way")
def test_a_link_of_our_own_is_spoken_over_before_one_through_a_third_machine():
    """studio - attic - build: attic passes on what both may hold; then build is reached itself."""
    talk = Talk()
    talk.greet(3, ATTIC)
    talk.greet(1, BUILD, through=ATTIC)
    talk.sync.process_named(1, PROCESS, talk.now)
    talk.grow()
    assert links(talk) == ({3}, 1)
    path(talk, 2)
    assert links(talk) == ({2}, 0)
    talk.offer(2, [], whole=True)
    assert links(talk) == ({2}, 1)
    path(talk, 4, through=ATTIC)
    talk.sync.outbox.clear()
    talk.grow(size=6)
    talk.wait(GOSSIP_MS)
    assert links(talk) == ({2, 3}, 2)


@proves("log.sync-one-session")
def test_a_revoked_peer_is_served_over_none_of_its_links(talk):
    talk.sync.open(3, BUILD, talk.now)
    assert sorted(talk.sync.cut(BUILD)) == [1, 2, 3]
    talk.grow()
    talk.sync.process_named(3, PROCESS, talk.now)
    talk.wait(RETRY_MS)
    assert links(talk) == (set(), 0)


# --- nobody answers -----------------------------------------------------------------------------


@proves("log.sync-says-unanswered")
@pytest.mark.parametrize("asks", [True, False])
def test_that_nothing_is_answered_is_said_though_there_is_one_link(asks):
    talk = Talk()
    talk.greet(1)
    if asks:
        talk.held.sizes[THEIRS] = 2
        talk.offer(1, [head(THEIRS, 9)])
    else:
        talk.grow()
    talk.wait(RETRY_MS - 1)
    assert talk.sync.unanswered == {}
    talk.wait(RETRY_MS + 1)
    assert talk.sync.unanswered == {BUILD: 1}


@proves("log.sync-says-unanswered")
def test_who_answers_or_has_nothing_to_answer_is_not_said_to_be_silent():
    talk = Talk()
    talk.greet(1)
    talk.wait(REFRESH_MS)
    talk.grow()
    talk.wait(RETRY_MS - 1)
    talk.sync.heard_cosign(1, Cosign(BUILD, "held", STREAM, 5, b"", 0, b""), talk.now)
    talk.wait(RETRY_MS)
    # Asked at this very moment: the answer is still under way.
    talk.offer(1, [head(THEIRS, 9)])
    talk.wait(1)
    assert talk.sync.unanswered == {}


@proves("log.sync-says-unanswered")
@pytest.mark.parametrize("answers", [True, False])
def test_a_costlier_link_is_spoken_over_at_once_where_the_other_is_in_doubt(answers):
    talk = Talk()
    talk.greet(1)
    talk.sync.process_named(1, PROCESS, talk.now)
    talk.grow()
    talk.wait(2 * RETRY_MS)
    talk.sync.paths.proofs.doubt(talk.sync.unanswered[BUILD], talk.now)
    if answers:
        talk.sync.heard_cosign(1, Cosign(BUILD, "held", STREAM, 5, b"", 0, b""), talk.now)
    talk.sync.open(2, BUILD, talk.now, cost=1)
    talk.sync.process_named(2, PROCESS, talk.now)
    assert talk.sync.sessions[1].link == (1 if answers else 2)


@proves("log.sync-says-unanswered", "log.sync-proven-first")
@pytest.mark.parametrize("over", [1, 2])
def test_an_answer_proves_the_link_that_was_spoken_over_where_it_came_by_the_same(talk, over):
    """One that comes by another path proves that we are heard, and not that we hear."""
    proven_ms = talk.sync.paths.proofs.proven_ms
    assert (proven_ms(1), proven_ms(2)) == (None, None)
    talk.grow()
    talk.wait(RETRY_MS - 1)
    talk.sync.heard_cosign(over, Cosign(BUILD, "held", STREAM, 5, b"", 0, b""), talk.now)
    assert (proven_ms(1), proven_ms(2)) == (None, RETRY_MS - 1 if over == 2 else None)
    talk.sync.close(2, talk.now)
    assert proven_ms(2) is None


@proves("log.sync-proven-first")
def test_a_cheaper_link_is_spoken_over_once_it_is_proven_and_beside_no_proven_one_at_once():
    for proven in (True, False):
        talk = Talk()
        talk.sync.open(1, BUILD, talk.now, cost=1)
        talk.sync.process_named(1, PROCESS, talk.now)
        if proven:
            talk.sync.proved(1, talk.now)
        talk.sync.open(2, BUILD, talk.now, cost=0)
        talk.sync.process_named(2, PROCESS, talk.now)
        assert talk.sync.sessions[1].link == (1 if proven else 2)
        talk.sync.proved(2, talk.now)
        assert talk.sync.sessions[1].link == 2


@proves("log.sync-proven-first")
def test_of_links_that_cost_the_same_the_newest_is_spoken_over_though_it_is_not_proven(talk):
    talk.sync.proved(1, talk.now)
    talk.sync.proved(2, talk.now)
    path(talk, 3)
    assert talk.sync.sessions[1].link == 3


@proves("log.sync-says-unanswered", "log.sync-proven-first")
def test_where_nothing_is_answered_a_proven_link_is_spoken_over_at_once(talk):
    talk.sync.proved(1, talk.now)
    talk.grow()
    links(talk)
    talk.now += RETRY_MS - 1
    # It speaks, and does not answer.
    talk.offer(2, [])
    talk.wait(1)
    assert talk.sync.sessions[1].link == 1
    assert links(talk) == ({1}, 0), "what is under way is offered there"


@proves("log.sync-says-unanswered")
def test_that_nothing_is_answered_is_noticed_however_often_something_is_said():
    talk = Talk()
    talk.greet(1)
    for size in range(5, 25):
        talk.grow(size=size)
        talk.wait(500)
        if talk.sync.unanswered:
            break
    assert talk.now <= 2 * RETRY_MS + 1_000
    talk.sync.heard_cosign(1, Cosign(BUILD, "held", STREAM, 5, b"", 0, b""), talk.now)
    talk.sync.unanswered.clear()
    # From here on each is answered, late.
    for size in range(25, 45):
        talk.grow(size=size)
        talk.wait(500)
        held = Cosign(BUILD, "held", STREAM, size - 2, b"", 0, b"")
        talk.sync.heard_cosign(1, held, talk.now)
    assert talk.sync.unanswered == {}


@proves("log.sync-one-session")
def test_what_is_under_way_is_not_sent_again_where_a_further_link_is_greeted_over(talk):
    talk.offer(1, [], whole=True)
    talk.grow()
    assert links(talk) == ({2}, 1)
    path(talk, 3)
    links(talk)
    talk.offer(3, [head(STREAM, 0)], whole=True)
    assert links(talk)[1] == 0, "it goes over one that stands"
    talk.sync.heard_cosign(2, Cosign(BUILD, "held", STREAM, 5, b"", 0, b""), talk.now)
    path(talk, 4)
    links(talk)
    talk.offer(4, [head(STREAM, 3)], whole=True)
    assert links(talk) == ({4}, 1), "it holds less than it did: it was set back"


@proves("log.sync-says-unanswered")
@pytest.mark.parametrize("asks", [True, False])
def test_what_is_never_answered_is_said_once_and_again_when_some_of_it_was_answered(asks):
    """A peer may have no place for a stream, or not what it says it has: its link is sound."""
    talk = Talk()
    talk.greet(1)
    if asks:
        talk.held.sizes[THEIRS] = 2
        talk.offer(1, [head(THEIRS, 9)])
    else:
        talk.grow()
    talk.wait(2 * RETRY_MS)
    assert talk.sync.unanswered == {BUILD: 1}
    talk.sync.unanswered.clear()
    for _ in range(100):
        talk.wait(RETRY_MS)
    assert talk.sync.unanswered == {}
    if asks:
        talk.held.sizes[THEIRS] = 3
    else:
        talk.sync.heard_cosign(1, Cosign(BUILD, "held", STREAM, 3, b"", 0, b""), talk.now)
    talk.wait(3 * RETRY_MS)
    assert talk.sync.unanswered == {BUILD: 1}


@proves("log.sync-one-session")
def test_a_further_link_that_comes_and_goes_sends_nothing_twice_over_the_one_that_stands():
    talk = Talk()
    talk.greet(1)
    talk.sync.process_named(1, PROCESS, talk.now)
    talk.sync.outbox.clear()
    talk.grow()
    assert links(talk) == ({1}, 1)
    for further in (2, 3, 4):
        path(talk, further)
        talk.sync.close(further, talk.now)
        assert links(talk)[1] == 0
    path(talk, 5)
    path(talk, 6)
    talk.sync.close(1, talk.now)
    assert links(talk)[1] == 0
    talk.sync.close(6, talk.now)
    assert links(talk) == ({5}, 1), "what was lost with its link is sent"
