"""The strands of one stream: what a far program is told, what it says, and how it ended.

Rule 1: nothing heavy is imported; the command line reads this before anything else.
Rule 2: a piece is bounded, and what is no piece ends the stream.

    offset  0       1              5
            strand  length, u32    so many bytes, at most 64 KiB

INPUT with nothing in it ends the program's input. At most INPUT_BYTES_MAX of it, heads and all, are
on their way: TAKEN, a u32, says how many more the program took, so a signal never waits behind what
it does not read. SIGNAL is one byte, the number of a signal; SIZE
of a terminal is two u16, rows and columns; END is JSON: {"code": 0}. Integers are big-endian;
docs/spec/remote.md is normative.
"""

import struct
from collections.abc import Iterator
from typing import Final

from muster.errors import Malformed

INPUT: Final = 0
OUTPUT: Final = 1
ERRORS: Final = 2
SIGNAL: Final = 3
END: Final = 4
SIZE: Final = 5
TAKEN: Final = 6

PIECE_BYTES_MAX: Final = 64 * 1024
# Less than the window of a stream, so there is always room for what is no input.
INPUT_BYTES_MAX: Final = 512 * 1024
_HEAD: Final = struct.Struct(">BI")
_SIZE: Final = struct.Struct(">HH")
HEAD_BYTES: Final = _HEAD.size


def pack(strand: int, data: bytes) -> bytes:
    """A piece of a strand as it goes over the stream."""
    return _HEAD.pack(strand, len(data)) + data


def size(rows: int, columns: int) -> bytes:
    """The piece that says how large the terminal is; what no terminal can have is cut."""
    most = (1 << 16) - 1
    return pack(SIZE, _SIZE.pack(min(max(rows, 1), most), min(max(columns, 1), most)))


def size_in(piece: bytes) -> tuple[int, int]:
    """The rows and columns in such a piece. Raises: Malformed."""
    if len(piece) != _SIZE.size:
        raise Malformed("what came over the stream of a terminal is no size")
    rows, columns = _SIZE.unpack(piece)
    return rows, columns


def taken(count: int) -> bytes:
    """What says that the program took so many more bytes of INPUT, heads and all."""
    return count.to_bytes(4, "big")


def taken_in(piece: bytes, most: int) -> int:
    """The count in it, at most what is on its way. Raises: Malformed."""
    count = int.from_bytes(piece, "big")
    if len(piece) != 4 or not 0 < count <= most:
        raise Malformed("a far program took more than was typed for it")
    return count


class Splitter:
    """The pieces in the bytes that come."""

    def __init__(self) -> None:
        self._left = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The pieces that are whole now. Raises: Malformed."""
        self._left += data
        while len(self._left) >= HEAD_BYTES:
            strand, size = _HEAD.unpack_from(self._left)
            if strand > TAKEN or size > PIECE_BYTES_MAX:
                raise Malformed("what came over the stream of a far program is no piece of it")
            if len(self._left) < HEAD_BYTES + size:
                return
            piece = bytes(self._left[HEAD_BYTES : HEAD_BYTES + size])
            del self._left[: HEAD_BYTES + size]
            yield strand, piece
