"""What a server's answer is to the program that asked through the proxy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.promise import proves

from muster.agent.egress.answer import HEAD_BYTES_MAX, Answer


def told(*parts: bytes) -> bytes:
    answer = Answer()
    return b"".join(map(answer.feed, parts)) + answer.end()


@proves("egress.one-request")
@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nhi", b"HTTP/1.1 200 OK\r\nConnection: close\r\nA: b\r\n\r\nhi"),
        (
            b"HTTP/1.1 200 OK\r\nconnection : Keep-Alive\r\n\tx\r\nKeep-Alive: timeout=5\r\nA: Connection: b\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nA: Connection: b\r\n\r\n",
        ),
        # Only what stands in the head is one of its lines.
        (b"HTTP/1.0 404 x\n\nConnection: y\n\n", b"HTTP/1.0 404 x\nConnection: close\r\n\nConnection: y\n\n"),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 204 No\r\nConnection: close\r\n\r\n",
        ),
    ],
)  # fmt: skip
def test_an_answer_says_that_its_connection_ends_however_it_is_cut(said, expected):
    assert told(said) == expected
    assert told(*[bytes([each]) for each in said]) == expected


@proves("egress.one-request")
@pytest.mark.parametrize(
    "said", [b"SSH-2.0-x\r\n\r\nmore", b"", b"HTTP/1.1 200 OK\r\nA: b", b"HTTP/1.1 2000 x\r\n\r\n"]
)
def test_what_is_no_answer_goes_on_as_it_came(said):
    assert told(said) == said
    assert told(*[bytes([each]) for each in said]) == said


@proves("egress.bounded")
def test_a_head_without_an_end_is_not_held():
    answer = Answer()
    said = b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * HEAD_BYTES_MAX
    sent = b"".join(answer.feed(said[at : at + 4096]) for at in range(0, len(said), 4096))
    assert sent == said


@proves("egress.one-request")
@given(st.lists(st.binary(max_size=200), max_size=8))
def test_nothing_of_a_body_is_changed_or_held(parts):
    answer = Answer()
    answer.feed(b"HTTP/1.1 200 OK\r\n\r\n")
    assert [answer.feed(each) for each in parts] == parts
