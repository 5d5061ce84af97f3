"""Whoever waits for a letter to another fleet is told how it stands, and waits no longer."""

from typing import Any

import pytest
from tests.node.cores import LOCAL, One
from tests.node.test_peers import HOUR_MS, Two, bring_back, carry, give, send
from tests.promise import proves

from muster.channel.frame import Type
from muster.limits import PEER_LETTER_LIFE_MS
from muster.log import canon
from muster.node import event as ev
from muster.node.call.answers import Answers
from muster.node.services.letter_waits import LetterRefused, LetterWaits
from muster.node.services.letters import Letters, LetterTaken


@pytest.fixture
def two() -> Two:
    made = Two().both()
    give(made.acme, made.acme["yard"].id, made.ours)
    return made


def letter_of(one: One) -> str:
    """The oldest letter that waits here."""
    return next(one.core.part(Letters).waiting()).letter


def left(one: One) -> int:
    """How many wait here still."""
    return len(one.core.part(Answers).open) + len(one.core.part(LetterWaits)._waits)


def error(one: One) -> Any:
    (answer,) = one.answers
    assert not answer["ok"]
    return answer["error"]


@proves("peer.wait-ends")
def test_who_waits_hears_that_the_letter_is_stored(two):
    hub = two.ours["hub"]
    assert send(two.ours, "hub", "yard.acme", wait=True) is None
    assert left(hub) == 2
    bring_back(hub, carry(two, two.acme["yard"], hub))
    (answer,) = hub.answers
    assert (answer["value"]["state"], answer["value"]["to"]) == ("stored", ["yard.acme"])
    assert left(hub) == 0


@proves("peer.wait-ends")
def test_who_waits_hears_that_the_letter_was_refused_and_it_is_shown_again(two):
    hub = two.ours["hub"]
    assert send(two.ours, "hub", "yard.acme", wait=True) is None
    letter = letter_of(hub)
    hub.step(LetterRefused("0" * 64))
    assert hub.answers == []
    hub.step(LetterRefused(letter))
    said = error(hub)
    assert (said["kind"], said["exit"]) == ("Denied", 4)
    assert "fleet acme refuses the letter" in said["text"]
    assert (left(hub), letter_of(hub)) == (0, letter)
    hub.step(LetterRefused(letter))
    assert len(hub.answers) == 1


@proves("peer.wait-ends")
@pytest.mark.parametrize(("taken", "kind"), [(False, "Unreachable"), (True, "Silent")])
def test_who_waits_hears_that_the_letter_expired(two, taken, kind):
    hub = two.ours["hub"]
    assert send(two.ours, "hub", "yard.acme", key="k", wait=True) is None
    if taken:
        hub.step(LetterTaken(letter_of(hub)))
    two.ours.ms += PEER_LETTER_LIFE_MS - HOUR_MS
    hub.step(ev.Tick())
    assert hub.answers == []
    two.ours.ms += 2 * HOUR_MS
    hub.step(ev.Tick())
    said = error(hub)
    assert (said["kind"], said["exit"]) == (kind, 7)
    assert "within a week" in said["text"]
    assert left(hub) == 0
    # Whoever waits for it from now on hears that at once.
    again = send(two.ours, "hub", "yard.acme", key="k", wait=True)
    assert (again["error"]["kind"], left(hub)) == (kind, 0)


@proves("peer.wait-ends")
def test_who_waits_hears_that_the_fleet_was_removed(two):
    hub = two.ours["hub"]
    assert send(two.ours, "hub", "yard.acme", wait=True) is None
    waits = dict(hub.core.part(Answers).open)
    args = {"fleet": two.acme.fleet}
    raw = two.ours.sign("peer.remove", two.acme.fleet, hub, args)
    call = canon.encode({"args": args, "verb": "peer.remove", "statement": raw})
    hub.raw(call, channel=9)
    said = hub.told[7][-1]["error"]
    assert (said["kind"], said["exit"]) == ("NotFound", 5)
    assert "was removed" in said["text"]
    assert waits
    assert left(hub) == 0


@proves("peer.wait-ends")
def test_who_hangs_up_leaves_nothing_behind_and_another_hears_still(two):
    hub = two.ours["hub"]
    assert send(two.ours, "hub", "yard.acme", key="k", wait=True) is None
    args = {"to": "yard.acme", "text": ["hello"], "key": "k", "wait": True}
    raw = two.ours.sign("send", "yard.acme", hub, args)
    hub.raw(canon.encode({"args": args, "verb": "send", "statement": raw}), channel=9)
    hub.step(ev.Arrived(LOCAL, Type.CLOSE, 7, b""))
    hub.step(LetterRefused(letter_of(hub)))
    assert 7 not in {channel for channel, told in hub.told.items() for t in told if not t["ok"]}
    assert hub.told[9][-1]["error"]["kind"] == "Denied"
    assert left(hub) == 0
