"""Messages and readings become rows."""

import pytest
from tests.message.world import ALICE, BOB, Stream
from tests.promise import proves

from muster import limits
from muster.errors import Malformed
from muster.log.kind import bodies_of
from muster.message import kinds
from muster.message.fold import MESSAGE, READING, MessageFold, ReadingFold, message_of
from muster.message.kinds import (
    MessageAct,
    MessageRead,
    MessageSend,
    MessageTerms,
    check_send,
)

KINDS = bodies_of(kinds.__name__)


def skips(stream, body, reason, **changes):
    before = dict(stream.rows.held)
    stream.append(body, **changes)
    assert stream.skipped == [reason]
    assert stream.rows.held == before


def test_a_message_is_a_row_at_its_entrys_place_and_begins_a_thread():
    stream = Stream(ALICE)
    first = stream.append(MessageSend([BOB, f"claude@{BOB}"], "hello"))
    answer = stream.append(MessageSend([BOB], "more", reply_to=first.id.hex()))
    named = stream.append(MessageSend(["all"], "news", thread="release"))
    assert stream.rows.get(MESSAGE, 0)[2:6] == (first.id, f"{BOB}\nclaude@{BOB}", 1000, 0)
    said = message_of(first)
    assert (said.to, said.text, said.stream) == ([BOB, f"claude@{BOB}"], "hello", stream.name)
    threads = [message_of(each).thread for each in (first, answer, named)]
    assert threads == [first.id.hex(), first.id.hex(), "release"]


@proves("message.terms")
def test_the_terms_of_a_message_stand_right_behind_it_and_nowhere_else():
    stream = Stream(ALICE)
    first = stream.append(MessageSend([BOB], "lunch"), at_ms=1_000).id.hex()
    stream.append(MessageTerms(first, "high", "1h", "10m"))
    assert stream.rows.get(MESSAGE, 0)[5:] == (1, "", -1, 3_601_000, 600_000)
    skips(stream, MessageTerms(first, "low"), "not-its-message")
    stream.skipped.clear()
    second = stream.append(MessageSend([BOB], "more")).id.hex()
    skips(stream, MessageTerms(first, "low"), "not-its-message")
    stream.skipped.clear()
    skips(stream, MessageTerms(second, expires="400d"), "bad-terms")
    stream.skipped.clear()
    skips(stream, MessageTerms(second, alarm="soon"), "bad-terms")
    stream.skipped.clear()
    skips(stream, MessageTerms(second, to_session="Shop"), "bad-terms")
    stream.skipped.clear()
    skips(stream, MessageTerms(second, from_session="s" * 64), "bad-terms")


@proves("message.key-counts-once")
def test_the_same_message_sent_twice_by_key_counts_once():
    stream = Stream(ALICE)
    stream.append(MessageSend([BOB], "pay", key="invoice-7"))
    skips(stream, MessageSend([BOB], "pay", key="invoice-7"), "same-key")
    stream.skipped.clear()
    stream.append(MessageSend([BOB], "pay"))
    stream.append(MessageSend([BOB], "pay"))
    assert len(stream.rows.every(MESSAGE)) == 3


@proves("message.readings-are-the-readers")
def test_the_first_receipt_counts_and_acting_means_having_read():
    stream = Stream(BOB)
    message = "ab" * 32
    stream.append(MessageAct(message, "done", "merged"), at_ms=50)
    row = stream.rows.get(READING, bytes.fromhex(message), "muster")
    assert (row.read_ms, row.acted_ms, row.result, row.text) == (50, 50, "done", "merged")
    skips(stream, MessageRead(message), "read-already")
    stream.skipped.clear()
    skips(stream, MessageAct(message, "declined"), "acted-already")
    stream.skipped.clear()
    stream.append(MessageRead(message), actor=f"claude@{'b' * 8}")
    assert len(stream.rows.every(READING)) == 2


@proves("message.bad-ones-are-refused")
@pytest.mark.parametrize(
    "body",
    [
        MessageSend([], "x"),
        MessageSend(["bob"], "x"),
        MessageSend(["role:"], "x"),
        MessageSend([BOB + "\n"], "x"),
        MessageSend([f"../x@{BOB}"], "x"),
        MessageSend([BOB] * (limits.MESSAGE_RECIPIENTS_MAX + 1), "x"),
        MessageSend([BOB], "x" * (limits.MESSAGE_TEXT_BYTES_MAX + 1)),
        MessageSend([BOB], "x", reply_to="abc"),
        MessageSend([BOB], "x", thread="t" * 201),
    ],
)
def test_a_message_that_cannot_be_is_refused_before_it_is_sent_and_skipped_when_it_comes(body):
    with pytest.raises(Malformed):
        check_send(body)
    skips(Stream(ALICE), body, "bad-message")


@proves("message.bad-ones-are-refused")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("raw", [b"{}", b"[]", b"", b'{"message":1}', b'{"to":"all","text":"x"}'])
def test_a_body_that_is_none_is_skipped(kind, raw):
    stream = Stream(BOB)
    stream.append_raw(kind, raw)
    assert stream.skipped == ["bad-body"]
    assert stream.rows.held == {}


def test_a_receipt_for_what_is_no_id_is_skipped():
    skips(Stream(BOB), MessageRead("zz"), "bad-message-id")


def test_the_folds_know_every_kind():
    assert MessageFold.kinds | ReadingFold.kinds == set(KINDS)
