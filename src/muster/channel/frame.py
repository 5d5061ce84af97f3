"""One frame: what two machines, or a command and its daemon, say at a time.

Rule 1: this file imports nothing heavy; the command line reads frames before anything else.
Rule 2: `decode` takes any bytes and raises nothing but Malformed.
Rule 3: a number that was once given to a type is never given to another.

    offset  0        1     2                6
            version  type  channel id, u32  payload, at most 256 KiB

All integers are big-endian. The channel id tells apart the conversations of one link; 0 is
the link itself. On a WebSocket one frame is one binary message. On a Unix socket a u32
length goes before each frame (`prefixed`); a length with its top bit set announces a last
word instead: the reason of the close, in UTF-8, and nothing follows it (`farewell`).
docs/spec/frames.md is the normative text.
"""

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from muster.errors import Malformed
from muster.limits import CLOSE_REASON_BYTES_MAX, FRAME_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX

VERSION: Final = 1
CHANNEL_ID_MAX: Final = 2**32 - 1
LENGTH_BYTES: Final = 4
FAREWELL: Final = 0x8000_0000

_HEAD: Final = struct.Struct(">BBI")
_LENGTH: Final = struct.Struct(">I")


class Type(IntEnum):
    """What a frame is about."""

    HELLO = 1
    OFFER = 2
    WANT = 3
    SEGMENT = 4
    COSIGN = 5
    CALL = 6
    REPLY = 7
    DATA = 8
    CREDIT = 9
    CLOSE = 10


class Frame(NamedTuple):
    """A decoded frame."""

    type: Type
    channel: int
    payload: bytes


def encode(type: Type, channel: int, payload: bytes) -> bytes:
    """The bytes of one frame. Raises Malformed for what no peer would accept."""
    if len(payload) > FRAME_PAYLOAD_BYTES_MAX:
        raise Malformed(
            f"a frame of {len(payload)} bytes is over the {FRAME_PAYLOAD_BYTES_MAX} allowed;"
            " split it into several"
        )
    if not 0 <= channel <= CHANNEL_ID_MAX:
        raise Malformed(f"channel id {channel} does not fit into 32 bits; choose a smaller one")
    return _HEAD.pack(VERSION, type, channel) + payload


def decode(frame: bytes) -> Frame:
    """Take a frame apart. Raises Malformed."""
    if not _HEAD.size <= len(frame) <= FRAME_BYTES_MAX:
        raise Malformed(
            f"a frame has {_HEAD.size} to {FRAME_BYTES_MAX} bytes, this one {len(frame)};"
            " the peer does not speak Muster"
        )
    version, number, channel = _HEAD.unpack_from(frame)
    if version != VERSION:
        raise Malformed(
            f"frame of version {version}, this machine speaks {VERSION}; update the older side"
        )
    try:
        kind = Type(number)
    except ValueError:
        raise Malformed(
            f"frame of unknown type {number}; the peer is newer or damaged, update this machine"
        ) from None
    return Frame(kind, channel, bytes(frame[_HEAD.size :]))


def prefixed(frame: bytes) -> bytes:
    """The frame as it goes onto a Unix socket."""
    return _LENGTH.pack(len(frame)) + frame


def farewell(reason: str) -> bytes:
    """The last word on a Unix socket."""
    text = short_reason(reason).encode()
    return _LENGTH.pack(FAREWELL | len(text)) + text


def read_length(head: bytes) -> tuple[int, bool]:
    """What four bytes announce: (size, whether it is the farewell). Raises Malformed."""
    (word,) = _LENGTH.unpack(head)
    size: int = word & ~FAREWELL
    last = bool(word & FAREWELL)
    size_max = CLOSE_REASON_BYTES_MAX if last else FRAME_BYTES_MAX
    if size > size_max:
        raise Malformed(f"a length of {size} bytes is over the {size_max} allowed; link cut")
    return size, last


def check_size(*frames: bytes) -> None:
    """Refuse what no peer would take, before a byte of it is sent. Raises Malformed."""
    size = max(map(len, frames), default=0)
    if size > FRAME_BYTES_MAX:
        raise Malformed(
            f"a frame of {size} bytes is over the {FRAME_BYTES_MAX} allowed; split it into several"
        )


def short_reason(reason: str) -> str:
    """The reason as it fits into every channel: 123 bytes of UTF-8, cut between characters."""
    return reason.encode(errors="replace")[:CLOSE_REASON_BYTES_MAX].decode(errors="ignore")
