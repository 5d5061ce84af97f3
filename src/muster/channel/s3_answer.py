"""What an object store says, bounded before it is read: HTTP, and the XML in it.

Rule: what is longer, deeper or other than it may be is Malformed, and the rest of it is not read.
"""

import asyncio
import calendar
import re
import time
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import unquote_plus
from xml.parsers import expat

from muster.errors import Malformed

# Of one answer: what comes before its body, what a list or an error is at most, how deep it goes.
HEAD_BYTES_MAX: Final = 32 * 1024
XML_BYTES_MAX: Final = 2 * 1024 * 1024
XML_DEPTH_MAX: Final = 8
XML_FIELDS_MAX: Final = 20_000
# Heads that say no more than that another one comes.
_INTERIM_MAX: Final = 4
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*)?")
_CODE: Final = re.compile(r"[A-Za-z0-9.]{1,64}")


class Listed(NamedTuple):
    """An object, as a list says of it; `mark` changes when another one takes its place."""

    key: str
    size: int
    mark: str
    changed_s: int


class Listing(NamedTuple):
    objects: list[Listed]
    more: bool


class Rule(NamedTuple):
    """What a store does of itself with objects whose keys begin so."""

    id: str
    prefix: str
    status: str


class Answer(NamedTuple):
    status: int
    head: Mapping[str, str]
    body: bytes


class Connection:
    """One connection, and what is read of it at most."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def abort(self) -> None:
        self._writer.transport.abort()

    async def exchange(self, raw: bytes, most: int) -> tuple[Answer, bool]:
        """The answer, and whether the connection may be used again. Raises: Malformed, OSError."""
        # Not drained: a store may refuse before it has read all, and that is what is to be heard.
        self._writer.write(raw)
        status, head = await self._head()
        for _ in range(_INTERIM_MAX):
            if status >= 200:
                break
            status, head = await self._head()
        most = most if status == 200 else XML_BYTES_MAX
        keeps = "close" not in head.get("connection", "").lower()
        if status in (204, 304):
            return Answer(status, head, b""), keeps
        if "transfer-encoding" in head:
            return Answer(status, head, await self._chunks(most)), keeps
        said = head.get("content-length")
        if said is None:
            body = bytearray()
            while part := await self._reader.read(65_536):
                body += part
                _check(len(body), most)
            return Answer(status, head, bytes(body)), False
        if not re.fullmatch("[0-9]{1,15}", said):
            raise Malformed("the length of what it says is no number")
        _check(int(said), most)
        return Answer(status, head, await self._reader.readexactly(int(said))), keeps

    async def _head(self) -> tuple[int, dict[str, str]]:
        first, *lines = (await self._until(b"\r\n\r\n"))[:-4].split(b"\r\n")
        status = _STATUS.fullmatch(first)
        if status is None:
            raise Malformed("it speaks no HTTP")
        pairs = [line.decode("latin-1").partition(":") for line in lines]
        return int(status[1]), {name.strip().lower(): text.strip() for name, _, text in pairs}

    async def _chunks(self, most: int) -> bytes:
        body = bytearray()
        while True:
            size = (await self._until(b"\r\n")).split(b";")[0].strip()
            if not re.fullmatch(rb"[0-9a-fA-F]{1,8}", size):
                raise Malformed("the length of a piece is no number")
            if not int(size, 16):
                break
            _check(len(body) + int(size, 16), most)
            body += (await self._reader.readexactly(int(size, 16) + 2))[:-2]
        for _ in range(100):
            if await self._until(b"\r\n") == b"\r\n":
                return bytes(body)
        raise Malformed("what it says does not end")

    async def _until(self, end: bytes) -> bytes:
        try:
            return await self._reader.readuntil(end)
        except asyncio.LimitOverrunError as error:
            raise Malformed(f"a head has more than {HEAD_BYTES_MAX} bytes") from error


class TooMuch(Malformed):
    """More than was asked for; the rest is not read."""


def _check(size: int, most: int) -> None:
    if size > most:
        raise TooMuch(f"it has more than {most} bytes")


# --- what stores say -----------------------------------------------------------------------


class _Reader:
    """XML as fields, in the order of their ends: the names from the root on, and the text."""

    def __init__(self, raw: bytes) -> None:
        if len(raw) > XML_BYTES_MAX:
            raise Malformed(f"it says more than {XML_BYTES_MAX} bytes")
        self.fields: list[tuple[tuple[str, ...], str]] = []
        self._path: list[str] = []
        self._text = ""
        parser = expat.ParserCreate("utf-8")
        parser.buffer_text = True
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._more
        parser.StartDoctypeDeclHandler = _refuse_doctype
        try:
            parser.Parse(raw, True)
        except expat.ExpatError as error:
            raise Malformed("what it says is no XML") from error

    def _begin(self, name: str, _: Mapping[str, str]) -> None:
        self._path.append(name.rpartition(":")[2])
        if len(self._path) > XML_DEPTH_MAX or len(self.fields) > XML_FIELDS_MAX:
            raise Malformed("what it says is too deep, or too much")
        self._text = ""

    def _more(self, text: str) -> None:
        self._text += text

    def _end(self, _: str) -> None:
        self.fields.append((tuple(self._path), self._text))
        self._path.pop()
        self._text = ""


def _refuse_doctype(*_: object) -> None:
    raise Malformed("what it says has a document type")


def listing_of(raw: bytes, under: str) -> Listing:
    found: list[Listed] = []
    more, one = False, dict[str, str]()
    fields = _Reader(raw).fields
    # As forms write it, where it was told so: a space is a plus.
    is_url = (("ListBucketResult", "EncodingType"), "url") in fields
    for path, text in fields:
        if path[0] != "ListBucketResult":
            raise Malformed("what it says is no list")
        match path[1:]:
            case ("Contents", name):
                one[name] = text
            case ("Contents",):
                size, key = one.get("Size", ""), one.get("Key", "")
                key = unquote_plus(key) if is_url else key
                if re.fullmatch("[0-9]{1,15}", size) and key.startswith(under):
                    mark = f"{one.get('ETag', '')[:80]} {size} {one.get('LastModified', '')[:40]}"
                    found.append(Listed(key, int(size), mark, _seconds(one)))
                one = {}
            case ("IsTruncated",):
                more = text.strip().lower() == "true"
    return Listing(found, more and bool(found))


def rules_of(raw: bytes) -> list[Rule]:
    """What a store says of old objects; nothing where it speaks of something else."""
    found, one = list[Rule](), dict[str, str]()
    for path, text in _Reader(raw).fields:
        match path:
            case ("LifecycleConfiguration", "Rule"):
                found.append(Rule(one.get("ID", ""), one.get("Prefix", ""), one.get("Status", "")))
                one = {}
            case ("LifecycleConfiguration", "Rule", *_, name):
                one[name] = text
    return found


def _seconds(one: Mapping[str, str]) -> int:
    """When an object was put there, by the clock of the store; now and ever where it says none."""
    try:
        at = time.strptime(one.get("LastModified", "")[:19], "%Y-%m-%dT%H:%M:%S")
    except ValueError:
        return 2**62
    return calendar.timegm(at)


def code_of(raw: bytes) -> str:
    """What a store calls its refusal; "" where it says nothing of the kind."""
    try:
        said = dict(_Reader(raw).fields).get(("Error", "Code"), "") if raw else ""
    except Malformed:
        return ""
    return said if _CODE.fullmatch(said) else ""
