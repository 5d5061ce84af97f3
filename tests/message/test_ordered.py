"""What an operator's statement says is a person's word; whatever differs from it is not."""

import pytest
from tests.message.world import ALICE, BOB
from tests.promise import proves

from muster.fleet.statement import Statement, args_hash
from muster.log.stream import FLEET, scope_group, scope_to
from muster.message.kinds import MessageSend, MessageTerms
from muster.message.ordered import is_ordered

NAMES = {ALICE: "alice", BOB: "bob"}.__getitem__
TEAM, DIRECT, ANSWERED = scope_group(ALICE, "team"), scope_to(BOB), "ab" * 32


def signed(verb, object, **args):
    named = {"to" if verb == "send" else "message": object}
    return Statement(
        args=args_hash({**named, **args}), fleet="0" * 64, issued_ms=1, nonce="0" * 32, object=object,
        operator="0" * 64, target=ALICE, until_ms=2, verb=verb,
    )  # fmt: skip


@proves("message.person-is-proven")
@pytest.mark.parametrize(
    ("body", "scope", "statement"),
    [
        (MessageSend([BOB], "come here"), DIRECT, signed("send", "bob", text=["come", "here"])),
        (MessageSend([BOB], "come here"), DIRECT, signed("send", BOB, text="come here", wait=True)),
        (MessageSend([f"shell@{BOB}"], "x"), DIRECT, signed("send", "shell@bob", text=["x"])),
        (MessageSend([BOB], "x", key="k"), DIRECT, signed("send", "bob", text="x", key="k")),
        (MessageSend(["all"], "x"), FLEET, signed("send", "all", text="x")),
        (MessageSend(["role:hub"], "x"), FLEET, signed("send", "role:hub", text="x")),
        (MessageSend(["all"], "x"), TEAM, signed("send", "thread:team@alice", text="x")),
        (MessageSend([BOB], "x", reply_to=ANSWERED), DIRECT, signed("reply", "abab", text="x")),
    ],
)
def test_what_was_signed_is_a_persons_word(body, scope, statement):
    assert is_ordered(body, scope, statement, NAMES)


@proves("message.person-is-proven")
@pytest.mark.parametrize(
    ("body", "scope", "statement"),
    [
        (MessageSend([BOB], "no"), DIRECT, signed("send", "bob", text="yes")),
        (MessageSend([ALICE], "x"), DIRECT, signed("send", "bob", text="x")),
        (MessageSend([BOB, ALICE], "x"), FLEET, signed("send", "bob", text="x")),
        (MessageSend([f"noop@{BOB}"], "x"), DIRECT, signed("send", "shell@bob", text="x")),
        (MessageSend([BOB], "x"), FLEET, signed("send", "all", text="x")),
        (MessageSend(["role:edge"], "x"), FLEET, signed("send", "role:hub", text="x")),
        (MessageSend(["all"], "x"), FLEET, signed("send", "thread:team", text="x")),
        (MessageSend(["all"], "x"), TEAM, signed("send", "thread:other", text="x")),
        (MessageSend([BOB], "x", key="k"), DIRECT, signed("send", "bob", text="x")),
        (MessageSend([BOB], "x", reply_to=ANSWERED), DIRECT, signed("send", "bob", text="x")),
        (MessageSend([BOB], "x", reply_to=ANSWERED), DIRECT, signed("reply", "cd", text="x")),
        (MessageSend([BOB], "x"), DIRECT, signed("reply", "", text="x")),
        (MessageSend([BOB], "x"), DIRECT, signed("ack", "bob", text="x")),
    ],
)
def test_what_differs_from_what_was_signed_is_not(body, scope, statement):
    assert not is_ordered(body, scope, statement, NAMES)


@proves("message.person-is-proven", "message.terms")
@pytest.mark.parametrize(
    ("terms", "proven"),
    [
        (MessageTerms("", "high", "2h"), True),
        (None, False),
        (MessageTerms("", "high"), False),
        (MessageTerms("", "high", "3h"), False),
        (MessageTerms("", "high", "2h", "5m"), False),
    ],
)
def test_the_terms_of_a_message_are_the_persons_only_as_they_were_signed(terms, proven):
    statement = signed("send", "bob", text="x", priority="high", expires="2h")
    assert is_ordered(MessageSend([BOB], "x"), DIRECT, statement, NAMES, terms) == proven
