"""Counts the names at the top of a JSON object before it is decoded.

A few bytes make a name, and a name some hundred in memory. Counting them by hand would read all of
a request in Python; msgspec passes what is below them in C, and asks here about each name.
"""

import enum
import secrets
from typing import Final

import msgspec

# The APIs have some forty.
NAMES_MAX: Final = 300


class _TooMany(ValueError):
    pass


class _Heard:
    names = 0


class _Name(enum.StrEnum):
    """Every name is read as this one; that it cannot be guessed makes each of them asked about."""

    ANY = secrets.token_hex(16)

    @classmethod
    def _missing_(cls, value: object) -> "_Name":
        del value
        _Heard.names += 1
        if _Heard.names > NAMES_MAX:
            raise _TooMany
        return cls.ANY


_decoder: Final = msgspec.json.Decoder(dict[_Name, msgspec.Raw])


def too_many(raw: bytes | bytearray) -> bool:
    """Whether it has more names at its top than any request; of what is no JSON, False."""
    if raw.count(b":") <= NAMES_MAX:
        return False
    _Heard.names = 0
    try:
        _decoder.decode(raw)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return _Heard.names > NAMES_MAX
    return False
