"""What the daemon and the process of a bridge say to each other: one JSON object on a line.

Rule 1: a line has at most `LINE_BYTES_MAX`; a longer one, or one that is none of these, ends the
process that it came from.
Rule 2: the token comes in the first line, over the pipe: no argument, no environment and no file
that others could read has it.
Rule 3: each thing that was heard has a number, and the daemon says it back when it is durable. Each
post has one, too, and the process says it back when it is there.
"""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from muster.bridge.base import Heard, Post
from muster.errors import Malformed

LINE_BYTES_MAX: Final = 256 * 1024
_NUMBER = Annotated[int, Meta(ge=0, le=2**53)]
_WORD = Annotated[str, Meta(max_length=512)]
_SENTENCE = Annotated[str, Meta(max_length=2_000)]


# --- from the daemon -----------------------------------------------------------------------------


class Begin(Struct, frozen=True, tag="begin", forbid_unknown_fields=True):
    """The first line."""

    service: _WORD
    token: str
    options: dict[str, Any]
    cursor: str = ""


class Durable(Struct, frozen=True, tag="durable", forbid_unknown_fields=True):
    """What was heard under this number is kept."""

    number: _NUMBER


class Show(Struct, frozen=True, tag="show", forbid_unknown_fields=True):
    """Post it, or show it instead of `ref`. Each change has a `key` of its own."""

    number: _NUMBER
    key: _WORD
    post: Post
    ref: _WORD = ""


# --- from the process ----------------------------------------------------------------------------


class Heed(Struct, frozen=True, tag="heard", forbid_unknown_fields=True):
    """Somebody said or pressed something."""

    number: _NUMBER
    heard: Heard
    cursor: Annotated[str, Meta(max_length=16_384)] = ""


class Shown(Struct, frozen=True, tag="shown", forbid_unknown_fields=True):
    """The post of this number is there, or was not taken."""

    number: _NUMBER
    key: _WORD
    ref: _WORD = ""
    refused: _SENTENCE = ""


class Runs(Struct, frozen=True, tag="runs", forbid_unknown_fields=True):
    """What it listens to has answered: it works."""


class Ends(Struct, frozen=True, tag="ends", forbid_unknown_fields=True):
    """It ends, and why; `lasting` where beginning again does not help."""

    why: _SENTENCE
    lasting: bool = False


ToBridge = Begin | Durable | Show
ToDaemon = Heed | Shown | Runs | Ends
_TO_BRIDGE: Final = msgspec.json.Decoder(ToBridge)
_TO_DAEMON: Final = msgspec.json.Decoder(ToDaemon)


def line(message: ToBridge | ToDaemon) -> bytes:
    """The message as its line. Raises: Malformed where it has no room in one."""
    try:
        raw = msgspec.json.encode(message) + b"\n"
    except UnicodeEncodeError as error:
        raise Malformed("a line between daemon and bridge has half a letter") from error
    if len(raw) > LINE_BYTES_MAX:
        raise Malformed(f"a line between daemon and bridge has at most {LINE_BYTES_MAX} bytes")
    return raw


def read_order(raw: bytes) -> ToBridge:
    """What the daemon says in a line. Raises: Malformed."""
    found: ToBridge = _read(_TO_BRIDGE, raw)
    return found


def read_word(raw: bytes) -> ToDaemon:
    """What the process of a bridge says in a line. Raises: Malformed."""
    found: ToDaemon = _read(_TO_DAEMON, raw)
    return found


def _read(decoder: "msgspec.json.Decoder[Any]", raw: bytes) -> Any:
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed("a line between daemon and bridge is none that either knows") from error
