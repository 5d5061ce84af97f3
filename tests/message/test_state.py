"""How far a message got, and what is in an inbox."""

import random

from tests.message.world import ALICE, BOB, CAROL, Stream
from tests.promise import proves

from muster.log.stream import MachineId
from muster.message.kinds import MessageAct, MessageRead, MessageSend
from muster.message.state import (
    Delivery,
    Peer,
    deliveries,
    inbox,
    recipients,
)

PEERS = [Peer(ALICE, ["hub"]), Peer(BOB, ["edge"]), Peer(CAROL, ["edge"])]


def nobody(machine: MachineId) -> int:
    return 0


def steps(message, held=nobody, readings=()):
    return [(d.machine, d.agent, d.step) for d in deliveries(message, PEERS, held, readings)]


def test_roles_and_all_mean_other_machines_and_names_mean_themselves():
    alice = Stream(ALICE)
    for to in (["all"], ["role:edge"], ["role:hub"], [f"claude@{BOB}", BOB, BOB], [ALICE]):
        alice.append(MessageSend(to, "x"))
    found = [recipients(m, PEERS) for m in alice.sent()]
    assert found == [
        [(BOB, ""), (CAROL, "")],
        [(BOB, ""), (CAROL, "")],
        [],
        [(BOB, ""), (BOB, "claude")],
        [(ALICE, "")],
    ]


@proves("message.steps-have-proofs")
def test_each_step_has_its_proof_and_nothing_else_counts():
    alice, bob = Stream(ALICE), Stream(BOB)
    alice.append(MessageSend([CAROL], "before"))
    sent = alice.append(MessageSend([BOB], "hello"))
    message = alice.sent()[1]
    assert steps(message) == [(BOB, "", "waiting")]
    assert steps(message, held=lambda m: 1) == [(BOB, "", "waiting")]
    stored = deliveries(message, PEERS, lambda m: 2, [])
    assert stored == [Delivery(BOB, "", "stored", 2)]
    read = bob.append(MessageRead(sent.id.hex()), at_ms=70)
    assert deliveries(message, PEERS, nobody, bob.readings()) == [
        Delivery(BOB, "", "read", read.id, 70)
    ]
    acted = bob.append(MessageAct(sent.id.hex()), at_ms=80)
    assert deliveries(message, PEERS, nobody, bob.readings()) == [
        Delivery(BOB, "", "acted", acted.id, 80)
    ]


@proves("message.readings-are-the-readers")
def test_a_receipt_of_somebody_else_proves_nothing():
    alice, carol, bob = Stream(ALICE), Stream(CAROL), Stream(BOB)
    sent = alice.append(MessageSend([f"claude@{BOB}"], "hello"))
    message = alice.sent()[0]
    carol.append(MessageAct(sent.id.hex()), actor="claude@bob")
    bob.append(MessageAct(sent.id.hex()), actor="codex@bob")
    both = [*carol.readings(), *bob.readings()]
    assert steps(message, readings=both) == [(BOB, "claude", "waiting")]
    bob.append(MessageRead(sent.id.hex()), actor="claude@bob")
    assert steps(message, readings=bob.readings()) == [(BOB, "claude", "read")]


@proves("message.inbox")
def test_an_inbox_holds_what_is_for_me_in_the_senders_order_whatever_came_first():
    alice, carol, bob = Stream(ALICE), Stream(CAROL), Stream(BOB)
    first = alice.append(MessageSend([BOB], "1"), at_ms=10, actor="op:ann")
    carol.append(MessageSend(["all"], "2"), at_ms=20, actor="claude@carol")
    alice.append(MessageSend([f"claude@{BOB}"], "3"), at_ms=30)
    alice.append(MessageSend([CAROL], "not mine"), at_ms=5)
    alice.append(MessageSend(["role:hub"], "not mine"), at_ms=5)
    everything = [*alice.sent(), *carol.sent()]
    for seed in range(5):
        random.Random(seed).shuffle(everything)
        items = inbox(PEERS[1], "", everything, bob.readings())
        assert [i.message.text for i in items] == ["1", "2", "3"]
        codex = inbox(PEERS[1], "codex", everything, [])
        assert [i.message.text for i in codex] == ["1", "2"]
    bob.append(MessageRead(first.id.hex()))
    left = inbox(PEERS[1], "", everything, bob.readings())
    assert [i.message.text for i in left if not i.read] == ["2", "3"]


@proves("message.inbox")
def test_what_one_agent_read_is_still_unread_for_another():
    alice, bob = Stream(ALICE), Stream(BOB)
    sent = alice.append(MessageSend([BOB], "1"))
    bob.append(MessageAct(sent.id.hex()), actor="claude@bob")
    claude = inbox(PEERS[1], "claude", alice.sent(), bob.readings())
    codex = inbox(PEERS[1], "codex", alice.sent(), bob.readings())
    assert [(i.read, i.acted) for i in claude + codex] == [(True, True), (False, False)]
