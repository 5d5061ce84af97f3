"""What an enclosed program asks of the proxy (RFC 9110, RFC 9112), read so that it says one thing.

Rule 1: CONNECT host:port, or a method and an absolute http address. Nothing else is answered.
Rule 2: what two readers could take differently is refused, not mended: a line end that is not
        CRLF, a folded line, a blank before a colon, a length said twice, or beside chunks.
Rule 3: what goes on is written anew from what was read: our Host, our framing, one request. What
        is for the next hop alone (9110, 7.6.1) ends here, and so does every password for a proxy.
Rule 4: a path, a query and a header are never told to anybody but the server they are for.
"""

import re
from typing import Final, NamedTuple

from muster.agent.egress.rules import split_target
from muster.errors import Malformed

HEAD_BYTES_MAX: Final = 32 * 1024
# Chosen arbitrarily; a browser sends some thirty.
HEADERS_MAX: Final = 100
# A length line of a chunk, with an extension that nobody uses.
CHUNK_LINE_BYTES_MAX: Final = 256
CHUNK_BYTES_MAX: Final = 2**31
# Nobody cuts a body into crumbs but to keep the loop busy: after so many, so long on average.
CHUNKS_SMALL_MAX: Final = 1000
CHUNK_BYTES_MEAN: Final = 64
BODY_BYTES_MAX: Final = 2**53
HEAD_END: Final = b"\r\n\r\n"

_LINE: Final = re.compile(rb"([A-Z]{1,24}) ([!-~]+) HTTP/1\.([01])")
# No two parts of these can match the same byte: what is long costs no more than its length.
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(rb"[\t -~\x80-\xff]*")
_ADDRESS: Final = re.compile(r"http://([^/?#@\\]+)(/[^#]*|\?[^#]*)?", re.IGNORECASE)
_NUMBER: Final = re.compile(rb"[0-9]{1,16}")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[\t -~\x80-\xff]*)?")
# For this hop alone, or written anew.
_DROPPED: Final = frozenset(
    b"connection host keep-alive te trailer transfer-encoding upgrade content-length".split()
)
HTTP_PORT: Final = 80


class Request(NamedTuple):
    """One request: where to, and, unless it is a tunnel, what is said there."""

    host: str
    port: int
    tunnel: bool
    length: int | None = 0
    """Bytes of the body; None where it comes in chunks."""
    method: bytes = b""
    path: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def at(self) -> str:
        """As a server is named in Host."""
        return self.host if self.port == HTTP_PORT else f"{self.host}:{self.port}"

    def head(self, opens: bytes | None = None) -> bytes:
        """What is sent to the server, or, with what opens it, to a proxy that hands it on."""
        target = self.path if opens is None else b"http://" + self.at.encode() + self.path
        framing = b"Transfer-Encoding: chunked\r\n" if self.length is None else b""
        if self.length or (self.length == 0 and self.method not in {b"GET", b"HEAD"}):
            framing = b"Content-Length: %d\r\n" % self.length
        lines = b"".join(b"%s: %s\r\n" % each for each in self.headers)
        begin = b"%s %s HTTP/1.1\r\nHost: %s\r\n" % (self.method, target, self.at.encode())
        return begin + lines + framing + (opens or b"") + b"Connection: close\r\n\r\n"


def read(head: bytes) -> Request:
    """The request of a head that ends with an empty line. Raises: Malformed."""
    line, *lines = head.removesuffix(HEAD_END).split(b"\r\n")
    asked = _LINE.fullmatch(line)
    if asked is None:
        raise Malformed("what was asked begins with no request line")
    if len(lines) > HEADERS_MAX:
        raise Malformed(f"a request has at most {HEADERS_MAX} headers")
    headers = [_header(each) for each in lines]
    length = _length(headers, asked[3] == b"1")
    target = asked[2].decode("ascii")
    if asked[1] == b"CONNECT":
        if length != 0:
            raise Malformed("CONNECT has no body")
        return Request(*split_target(target), tunnel=True)
    return _plain(asked[1], target, length, headers)


def _plain(
    method: bytes, target: str, length: int | None, headers: list[tuple[bytes, bytes]]
) -> Request:
    found = _ADDRESS.fullmatch(target)
    if found is None:
        if target[:8].lower() == "https://":
            raise Malformed("https goes through CONNECT host:port")
        raise Malformed("a proxy is asked with CONNECT host:port or an http://host/ address")
    host, port = split_target(found[1], HTTP_PORT)
    path = found[2] or "/"
    named = {
        each.strip().lower()
        for name, value in headers
        if name.lower() == b"connection"
        for each in value.split(b",")
    }
    kept = tuple(
        (name, value)
        for name, value in headers
        if name.lower() not in _DROPPED | named and not name.lower().startswith(b"proxy-")
    )
    path = path if path.startswith("/") else f"/{path}"
    return Request(host, port, False, length, method, path.encode("ascii"), kept)


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise Malformed("a header of the request is not in its form")
    return name, value.strip(b" \t")


def _length(headers: list[tuple[bytes, bytes]], has_chunks: bool) -> int | None:
    lengths = [value for name, value in headers if name.lower() == b"content-length"]
    coded = [value for name, value in headers if name.lower() == b"transfer-encoding"]
    if len(lengths) + len(coded) > 1:
        raise Malformed("the length of the body is said more than once")
    if coded:
        if coded[0].lower() != b"chunked" or not has_chunks:
            raise Malformed("a body comes with its length, or in chunks")
        return None
    if not lengths:
        return 0
    if not _NUMBER.fullmatch(lengths[0]) or int(lengths[0]) > BODY_BYTES_MAX:
        raise Malformed("the length of the body is no number")
    return int(lengths[0])


class Body:
    """The body of one request, as it is sent on; what comes behind it is not part of it.

    Chunks are written anew, without their extensions, and trailers are left out.
    """

    def __init__(self, length: int | None) -> None:
        self.whole = length == 0
        self._left = length or 0
        self._chunked = length is None
        self._line = bytearray()
        self._after_data = False
        self._trailing = 0
        self._chunks = self._chunked_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """What of it goes on. Raises: Malformed."""
        if not self._chunked:
            part = data[: self._left]
            self._left -= len(part)
            self.whole = not self._left
            return part
        sent, at = bytearray(), 0
        while at < len(data) and not self.whole:
            if self._left:
                part = data[at : at + self._left]
                at += len(part)
                self._left -= len(part)
                sent += part
                if not self._left:
                    sent += b"\r\n"
                    self._after_data = True
                continue
            end = data.find(b"\n", at) + 1
            self._line += data[at : end or len(data)]
            at = end or len(data)
            if len(self._line) > CHUNK_LINE_BYTES_MAX:
                raise Malformed("a chunk of the body begins with no length")
            if end:
                sent += self._next(bytes(self._line))
                self._line.clear()
        return bytes(sent)

    def _next(self, line: bytes) -> bytes:
        if not line.endswith(b"\r\n"):
            raise Malformed("a line of the body's chunks ends with no CRLF")
        text = line[:-2]
        if self._after_data:
            if text:
                raise Malformed("a chunk of the body is longer than it says")
            self._after_data = False
            return b""
        if self._trailing:
            self._trailing += 1
            if text:
                _header(text)
                if self._trailing > HEADERS_MAX:
                    raise Malformed(f"a body has at most {HEADERS_MAX} trailers")
                return b""
            self.whole = True
            return b"0\r\n\r\n"
        found = _CHUNK.fullmatch(text)
        if found is None or int(found[1], 16) > CHUNK_BYTES_MAX:
            raise Malformed("a chunk of the body begins with no length")
        self._left = int(found[1], 16)
        if not self._left:
            self._trailing = 1
            return b""
        self._chunks += 1
        self._chunked_bytes += self._left
        small = self._chunked_bytes < self._chunks * CHUNK_BYTES_MEAN
        if small and self._chunks > CHUNKS_SMALL_MAX:
            raise Malformed("the chunks of the body are too small")
        return b"%x\r\n" % self._left
