"""What is asked of the proxy has one meaning, or is refused."""

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.promise import proves

from muster.agent.egress.request import HEADERS_MAX, Body, Request, read
from muster.errors import Malformed

GET = b"GET http://a.test/x?q=1 HTTP/1.1\r\n"
POST = b"POST http://a.test/x HTTP/1.1\r\n"


def head(first: bytes, *lines: bytes) -> bytes:
    return first + b"".join(each + b"\r\n" for each in lines) + b"\r\n"


@proves("egress.one-meaning")
def test_a_tunnel_and_an_address_are_read():
    assert read(head(b"CONNECT A.test.:443 HTTP/1.1\r\n", b"Host: b.test")) == Request(
        "a.test", 443, tunnel=True
    )
    asked = read(head(b"GET HTTP://A.test:8080?q=1 HTTP/1.0\r\n"))
    assert (asked.host, asked.port, asked.path) == ("a.test", 8080, b"/?q=1")


@proves("egress.one-meaning")
def test_what_goes_on_is_written_anew_and_holds_nothing_for_the_proxy():
    given_ = head(
        GET, b"Host: evil.test", b"Proxy-Authorization: Basic x", b"proxy-connection: keep-alive",
        b"Connection: keep-alive, X-Hop", b"X-Hop: 1", b"Keep-Alive: 5", b"TE: trailers",
        b"Upgrade: h2c", b"Trailer: x", b"Accept: */*", b"Cookie:  a=b ",
    )  # fmt: skip
    assert read(given_).head() == (
        b"GET /x?q=1 HTTP/1.1\r\nHost: a.test\r\nAccept: */*\r\nCookie: a=b\r\nConnection: close\r\n\r\n"
    )
    body = read(head(POST, b"content-length: 3", b"Connection: content-length"))
    assert b"\r\nContent-Length: 3\r\n" in body.head()
    chunks = read(head(POST, b"Transfer-Encoding: Chunked"))
    assert b"\r\nTransfer-Encoding: chunked\r\n" in chunks.head()
    there = read(head(b"GET http://a.test:81/ HTTP/1.1\r\n")).head(b"X: y\r\n")
    assert (
        there
        == b"GET http://a.test:81/ HTTP/1.1\r\nHost: a.test:81\r\nX: y\r\nConnection: close\r\n\r\n"
    )


@proves("egress.one-meaning")
@pytest.mark.parametrize(
    "asked",
    [
        head(b"GET / HTTP/1.1\r\n", b"Host: 127.0.0.1"),
        head(b"GET * HTTP/1.1\r\n"),
        head(b"GET a.test/ HTTP/1.1\r\n"),
        head(b"GET https://a.test/ HTTP/1.1\r\n"),
        head(b"GET ftp://a.test/ HTTP/1.1\r\n"),
        head(b"GET http:/a.test/ HTTP/1.1\r\n"),
        head(b"GET http:///a.test/ HTTP/1.1\r\n"),
        head(b"GET http://a.test\\@evil.test/ HTTP/1.1\r\n"),
        head(b"GET http://evil.test@a.test/ HTTP/1.1\r\n"),
        head(b"GET http://a.test:80:80/ HTTP/1.1\r\n"),
        head(b"GET http://a.test/#f HTTP/1.1\r\n"),
        head(b"GET http://127.0.0.1/ HTTP/1.1\r\n"),
        head(b"GET http://[::1]/ HTTP/1.1\r\n"),
        head(b"GET http://a.test/\xc3\xa4 HTTP/1.1\r\n"),
        head(b"GET  http://a.test/ HTTP/1.1\r\n"),
        head(b"GET http://a.test/ HTTP/1.1 \r\n"),
        head(b"GET http://a.test/ HTTP/2.0\r\n"),
        head(b"GET http://a.test/\r\n"),
        head(b"get http://a.test/ HTTP/1.1\r\n"),
        head(b"GET\thttp://a.test/ HTTP/1.1\r\n"),
        head(b"\r\nGET http://a.test/ HTTP/1.1\r\n"),
        head(b"CONNECT a.test HTTP/1.1\r\n"),
        head(b"CONNECT http://a.test:443 HTTP/1.1\r\n"),
        head(b"CONNECT a.test:443 HTTP/1.1\r\n", b"Content-Length: 5"),
        head(b"CONNECT a.test:443 HTTP/1.1\r\n", b"Transfer-Encoding: chunked"),
        head(GET, b"X : y"),
        head(GET, b" X: y"),
        head(GET, b"X: y", b" folded"),
        head(GET, b"X: y\nHost: evil.test"),
        head(GET, b"X: y\rHost: evil.test"),
        head(GET, b"X: \0"),
        head(GET, b": y"),
        head(GET, b"X"),
        head(GET, b"X\x80: y"),
        head(GET, *[b"X: y"] * (HEADERS_MAX + 1)),
        head(POST, b"Content-Length: 5", b"Content-Length: 5"),
        head(POST, b"Content-Length: 5, 5"),
        head(POST, b"Content-Length: +5"),
        head(POST, b"Content-Length: 0x5"),
        head(POST, b"Content-Length: 5 5"),
        head(POST, b"Content-Length:"),
        head(POST, b"Content-Length: -1"),
        head(POST, b"Content-Length: 99999999999999999999"),
        head(POST, b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        head(POST, b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        head(POST, b"Transfer-Encoding: gzip, chunked"),
        head(POST, b"Transfer-Encoding: xchunked"),
        head(POST, b"Transfer-Encoding: chunked, identity"),
        head(POST, b"Transfer-Encoding: \x0bchunked"),
        head(b"POST http://a.test/ HTTP/1.0\r\n", b"Transfer-Encoding: chunked"),
        b"\r\n\r\n",
        b"",
    ],
)
def test_what_two_readers_could_take_differently_is_refused(asked):
    with pytest.raises(Malformed) as refused:
        read(asked)
    assert "evil" not in str(refused.value)


@proves("egress.one-meaning")
@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda b: GET + b + b"\r\n\r\n"))
def test_no_head_raises_anything_else_or_writes_a_line_of_its_own(asked):
    try:
        found = read(asked)
    except Malformed:
        return
    lines = found.head().removesuffix(b"\r\n\r\n").split(b"\r\n")
    assert not any(b"\r" in each or b"\n" in each for each in lines)
    assert sum(each.lower().startswith(b"host:") for each in lines) == 1


# --- bodies ------------------------------------------------------------------------------------


def sent(body: Body, *parts: bytes) -> bytes:
    return b"".join(body.feed(each) for each in parts)


@proves("egress.one-meaning")
def test_nothing_behind_a_body_of_a_length_goes_on():
    body = Body(5)
    assert sent(body, b"abc", b"deGET /hidden HTTP/1.1\r\n\r\n", b"more") == b"abcde"
    assert body.whole
    assert Body(0).whole
    assert Body(0).feed(b"GET") == b""


@proves("egress.one-meaning")
def test_chunks_are_written_anew_byte_by_byte_or_at_once():
    said = b"3;a=b\r\nabc\r\n0A \r\n0123456789\r\n000\r\nX: y\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n"
    written = b"3\r\nabc\r\na\r\n0123456789\r\n0\r\n\r\n"
    body = Body(None)
    assert sent(body, said) == written
    assert body.whole
    slow = Body(None)
    assert sent(slow, *[bytes([each]) for each in said]) == written


@proves("egress.one-meaning")
@pytest.mark.parametrize(
    "said",
    [
        *(b"3\nabc\r\n", b"\r\n", b"x\r\n", b"-1\r\n", b"+3\r\n", b"0x3\r\n", b" 3\r\n", b"3\r\r\n"),
        *(b"3\r\nabcd\r\n", b"3\r\nabc\n0\r\n\r\n", b"3\r\nabcXX0\r\n\r\n", b"FFFFFFFF\r\n"),
        *(b"100000003\r\nabc\r\n", b"3;" + b"a" * 300 + b"\r\n", b"0" * 300, b"0\r\n\n"),
        b"1\r\nx\r\n" * 1001,
        *(b"0\r\nX y\r\n\r\n", b"0\r\n" + b"X: y\r\n" * 200, b"3;a\nb\r\nabc\r\n", b"3;\0\r\nabc"),
    ],
)  # fmt: skip
def test_chunks_in_another_form_are_refused(said):
    with pytest.raises(Malformed):
        sent(Body(None), said)
    with pytest.raises(Malformed):
        sent(Body(None), *[bytes([each]) for each in said])


# Parts of bodies as they are, cut anywhere, and anything: bytes alone would hardly ever be a chunk.
PIECES = st.sampled_from(
    [b"3\r\nabc\r\n", b"1", b"a;x=y\r\n", b"0\r\n", b"\r\n", b"0\r\n\r\n", b"abc", b"X: y\r\n"]
)


@proves("egress.one-meaning")
@given(st.lists(PIECES | st.binary(max_size=30), max_size=12))
@example([b"1", b"\r\n"])
@example([b"3\r\nabc\r\n", b"0\r\n", b"X: y\r\n", b"\r\n", b"GET"])
def test_whatever_chunks_are_said_what_goes_on_reads_as_it_was_said_and_no_further(parts):
    body, out = Body(None), b""
    with contextlib.suppress(Malformed):
        for each in parts:
            out += body.feed(each)
    again = Body(None)
    assert again.feed(out) == out
    assert again.whole == body.whole
    # What comes behind a whole body is no part of it, however the server reads it.
    if body.whole:
        assert out.endswith(b"0\r\n\r\n")
        assert body.feed(b"GET") == again.feed(b"GET") == b""
