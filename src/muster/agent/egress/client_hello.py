"""The first words of a TLS client (RFC 8446, 4.1.2): which server it asks for.

Rule 1: only what a server would read in the same way counts: records of a handshake one after the
        other, one message in them, each field as long as it says, no extension twice.
Rule 2: a name must be there, and must be the one that was allowed. A hello whose true name is
        encrypted is refused, made up or not: that name could be any.
Rule 3: a server may ask for a second hello (4.1.4), and would go by the name in that. So what
        follows the first is watched until no hello can come any more.
Rule 4: all is bounded, and a hello in single bytes costs no more than one at once.

    opening = Opening(lambda name: check(name))
    opening.feed(data)      # raises Malformed, or what the check raises
    opening.whole           # then all that was fed may go on
"""

from collections.abc import Callable, Iterator
from typing import Final

from muster.errors import Malformed

# A hello with every key share that there is has four thousand; a ticket may be as long again.
HELLO_BYTES_MAX: Final = 16 * 1024
# Of the first hello, and of what is watched behind it: some cut one into a few, nobody into crumbs.
RECORDS_MAX: Final = 256
# A record holds at most 2^14 bytes, and some more where they are encrypted (5.2).
_RECORD_BYTES_MAX: Final = 2**14 + 2048
_CHANGE_CIPHER, _ALERT, _HANDSHAKE, _DATA = 20, 21, 22, 23
_CLIENT_HELLO: Final = 1
_SERVER_NAME, _EARLY_DATA = 0, 42
# Encrypted names: as they were published (RFC 9849), and the drafts of before.
_ENCRYPTED_NAMES: Final = frozenset({0xFFCE, *range(0xFE08, 0xFE0E)})
_HEAD: Final = 5


class Hello:
    """A whole ClientHello: its server name, and whether data comes before the server's answer."""

    def __init__(self, message: bytes) -> None:
        """Raises: Malformed."""
        try:
            extensions = dict(_extensions(message))
            if len(extensions) != sum(1 for _ in _extensions(message)):
                raise Malformed("the TLS hello says one thing twice")
            if extensions.keys() & _ENCRYPTED_NAMES:
                raise Malformed(
                    "the TLS hello hides its server name (ECH); switch that off in the program"
                )
            self.early = _EARLY_DATA in extensions
            self.name = _host(extensions[_SERVER_NAME]) if _SERVER_NAME in extensions else ""
        except (ValueError, IndexError) as error:
            raise Malformed("the TLS hello is not in its form") from error
        if not self.name:
            raise Malformed("the TLS hello names no server")


class Opening:
    """What a client says first, as it comes. `check` is told each server name, and may raise."""

    def __init__(self, check: Callable[[str], None]) -> None:
        self.whole = False
        """Whether the first hello was read, and all of it may go on to the server."""
        self.over = False
        """Whether nothing that comes needs to be looked at any more."""
        self._check = check
        self._records = 0
        self._record = bytearray()
        self._message = bytearray()
        self._skip = 0
        self._early = False

    def feed(self, data: bytes) -> None:
        """Raises: Malformed, and what the check raises; nothing that was fed may then go on."""
        at = 0
        while at < len(data) and not self.over:
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
                at += step
                continue
            at += self._fill(data, at)

    def _fill(self, data: bytes, at: int) -> int:
        """Take what the record still lacks, and judge it when it is whole."""
        record = self._record
        lacks = _HEAD - len(record) if len(record) < _HEAD else self._end() - len(record)
        part = data[at : at + lacks]
        record += part
        if len(record) <= _HEAD:
            self._check_head()
        if len(record) >= _HEAD and len(record) == self._end():
            kind, body = record[0], bytes(record[_HEAD:])
            record.clear()
            if kind == _HANDSHAKE:
                self._handshake(body)
        return len(part)

    def _end(self) -> int:
        return _HEAD + int.from_bytes(self._record[3:5], "big")

    def _check_head(self) -> None:
        """As much as there is of the head of a record; what needs not be read is skipped."""
        record = self._record
        kind = record[0]
        later = self.whole and kind in {_CHANGE_CIPHER, _ALERT, _DATA}
        if (kind != _HANDSHAKE and not later) or (len(record) > 1 and record[1] != 3):
            raise Malformed("it is not TLS" if not self.whole else "it is TLS no more")
        if len(record) < _HEAD:
            return
        self._records += 1
        if self._records > RECORDS_MAX:
            raise Malformed("the TLS hello comes in pieces that nobody makes")
        size = self._end() - _HEAD
        if not size or size > _RECORD_BYTES_MAX:
            raise Malformed("a TLS record has a length that none has")
        if later:
            self.over = kind == _DATA and not self._early
            self._skip = size
            record.clear()

    def _handshake(self, body: bytes) -> None:
        if self.whole and not self._message:
            # A client of an older TLS goes on with other messages here, or, where it resumes, with
            # one that is encrypted, which begins as it likes and has some forty bytes.
            if len(body) < 4:
                raise Malformed("the TLS hello comes in pieces that nobody makes")
            if body[0] != _CLIENT_HELLO or int.from_bytes(body[1:4], "big") > HELLO_BYTES_MAX:
                self.over = True
                return
        self._message += body
        message = self._message
        if message[0] != _CLIENT_HELLO:
            raise Malformed("it begins with no TLS hello")
        if len(message) < 4:
            return
        size = 4 + int.from_bytes(message[1:4], "big")
        if size > HELLO_BYTES_MAX or len(message) > size:
            raise Malformed("the TLS hello is not as long as it says, or too long")
        if len(message) < size:
            return
        hello = Hello(bytes(message))
        self._check(hello.name)
        self.over = self.whole
        self.whole, self._early = True, hello.early
        message.clear()


def _extensions(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Raises: ValueError, IndexError."""
    # Version and random; then session, ciphers and compressions, each behind its size.
    at = 4 + 2 + 32
    for width in (1, 2, 1):
        _, at = _field(message, at, width)
    if at == len(message):
        return
    extensions, end = _field(message, at, 2)
    if end != len(message):
        raise ValueError("more than it says")
    at = 0
    while at < len(extensions):
        kind = int.from_bytes(extensions[at : at + 2], "big")
        body, at = _field(extensions, at + 2, 2)
        yield kind, body


def _host(body: bytes) -> str:
    """The one name of RFC 6066, 3. Raises: ValueError, IndexError."""
    names, end = _field(body, 0, 2)
    host, last = _field(names, 1, 2)
    if end != len(body) or last != len(names) or names[0]:
        raise ValueError("not one host")
    return host.decode("ascii")


def _field(raw: bytes, at: int, width: int) -> tuple[bytes, int]:
    """What stands behind its size, and where it ends. Raises: ValueError."""
    begin = at + width
    end = begin + int.from_bytes(raw[at:begin], "big")
    if begin > len(raw) or end > len(raw):
        raise ValueError("cut short")
    return raw[begin:end], end
