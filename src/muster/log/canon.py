"""Canonical JSON: one value, one spelling.

Rule 1: whatever is signed or hashed as JSON is written by `encode` and read by `decode`.
Rule 2: size and depth are checked on the bytes, before any parser sees them.
Rule 3: text that is not already canonical is refused, never repaired.

The profile is a restriction of RFC 8785: object keys are ASCII and sorted, numbers are
integers with an absolute value below 2^53, there is no white space, and strings use the
shortest escapes. Inside this profile msgspec's sorted encoder writes what RFC 8785 asks
for (compared on 30,000 fuzzed documents), at a fiftieth of the price of a pure-Python one.

Canonical form is a property of the bytes and not of the type they are read into: so a
Struct may gain a field with a default, and old bodies stay readable.
"""

import re
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from muster.errors import Malformed
from muster.limits import INT_ABS_MAX, JSON_DEPTH_MAX

T = TypeVar("T")

_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder()
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}

# Without this only brackets are left, and taking out pairs that touch lowers them by a level.
# Brackets inside strings do not nest. A string always matches, even one that never ends, and
# never gives a character back: the search stays linear on hostile input.
_NO_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+"?)++', re.DOTALL)
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_OPENS = ord("[")
# Numbers follow these characters in text without spaces. A hit may still lie inside a string.
_SUSPECT_NUMBER = re.compile(rb"[:,\[]-?(?:[0-9]{16}|[0-9]+[.eE])")
# The same for whole numbers, twenty times as quick: sixteen digits behind such a character.
_DIGITS = bytes.maketrans(b"0123456789:,[-", b"0000000000::::")
_LONG_NUMBER = b":" + 16 * b"0"
# Every string of a text that is JSON, and the colon behind it where it is a key.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"(:?)', re.DOTALL)


def encode(value: Any) -> bytes:
    """Return the canonical JSON of `value`: builtins or msgspec Structs.

    Raises: Malformed when the value has no canonical form (a float, a huge integer, a key
    that is not ASCII text, nesting deeper than JSON_DEPTH_MAX).
    """
    try:
        raw = _encoder.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, UnicodeError) as error:
        raise Malformed(f"This value has no canonical JSON form: {error}.") from error
    _check_depth(raw, "The value to encode")
    # msgspec spells NaN and the infinities as null, so only a null can hide one of them.
    if b"null" in raw:
        _check_profile(value, "The value to encode")
    if _is_suspect(raw):
        _check_profile(_decoder.decode(raw), "The value to encode")
    return raw


def decode(raw: bytes, what: str, *, size_max: int) -> Any:
    """Return the value of canonical JSON bytes; `what` names them in errors.

    Raises: Malformed on anything that `encode` would not have written byte for byte.
    """
    _check_size(raw, what, size_max)
    try:
        value = _decoder.decode(raw)
        again = _encoder.encode(value)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise Malformed(f"{what} is not JSON: {error}.") from error
    if again != raw:
        raise Malformed(f"{what} is JSON but not in canonical form.")
    if _is_suspect(raw):
        _check_profile(value, what)
    return value


def learn(type_: Any) -> msgspec.json.Decoder[Any]:
    """What reads this type, once and for all: before there are threads that read it.

    msgspec 0.22 crashes where one thread reads a Struct of whose fields another is still learning.
    """
    decoder = _decoders[type_] = msgspec.json.Decoder(type_, float_hook=_no_float)
    return decoder


def decode_as(raw: bytes, type_: type[T], what: str, *, size_max: int, lenient: bool = False) -> T:
    """Like `decode`, into a msgspec Struct (or a union of tagged ones).

    Unknown fields are malformed, unless `lenient` says that the Struct reads over them.
    """
    decoder = _decoders.get(type_)
    if decoder is None:
        # A field nobody reads is a field nobody checks: our own Structs let one pass only where
        # they are meant to.
        config = getattr(type_, "__struct_config__", None)
        strict = config is None or config.forbid_unknown_fields
        assert strict != lenient, f"{type_} and its reader differ about unknown fields"
        decoder = learn(type_)
    # What is written again byte for byte is canonical, and within the profile where it holds no
    # float (the decoder raises), no long number and no key outside ASCII. All else goes the long
    # way, by builtins, which costs four times as much and has the words for what is wrong.
    if len(raw) > size_max or raw.count(b"[") + raw.count(b"{") > JSON_DEPTH_MAX:
        _check_size(raw, what, size_max)
    if _LONG_NUMBER not in raw.translate(_DIGITS) and (raw.isascii() or not _has_odd_key(raw)):
        try:
            found: T = decoder.decode(raw)
            if _encoder.encode(found) == raw:
                return found
        except (ValueError, TypeError, OverflowError, RecursionError):
            # The slow way below says what is wrong, in a sentence.
            pass
    decode(raw, what, size_max=size_max)
    try:
        found = decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed(f"{what} does not have the fields it should: {error}.") from error
    return found


def _no_float(text: str) -> None:
    raise ValueError(f"the float {text}")


def _check_size(raw: bytes, what: str, size_max: int) -> None:
    if len(raw) > size_max:
        raise Malformed(f"{what} has {len(raw)} bytes; the limit is {size_max}.")
    _check_depth(raw, what)


def _check_depth(raw: bytes, what: str) -> None:
    # Counting brackets is a cheap upper bound that nearly every honest text satisfies.
    if raw.count(b"[") + raw.count(b"{") <= JSON_DEPTH_MAX:
        return
    left = brackets = _NO_BRACKET.sub(b"", raw).translate(_ONE_KIND)
    for _ in range(JSON_DEPTH_MAX):
        left = left.replace(b"[]", b"")
    # Too deep, or no JSON at all: look where.
    depth = 0
    for bracket in brackets if left else b"":
        depth += 1 if bracket == _OPENS else -1
        if depth > JSON_DEPTH_MAX:
            raise Malformed(f"{what} nests deeper than {JSON_DEPTH_MAX} levels.")


def _is_suspect(raw: bytes) -> bool:
    """Whether walking the value is needed to know that it stays within the profile."""
    if raw[:1] not in {b"[", b"{"} or _SUSPECT_NUMBER.search(raw) is not None:
        return True
    # A seal has an em dash; only in a key such a character matters.
    return not raw.isascii() and _has_odd_key(raw)


def _has_odd_key(raw: bytes) -> bool:
    return any(found[1] and not found[0].isascii() for found in _STRING.finditer(raw))


def _check_profile(value: Any, what: str) -> None:
    """Refuse floats, integers that other readers round, and keys outside ASCII."""
    if isinstance(value, float):
        raise Malformed(f"{what} holds the float {value!r}; the format has integers only.")
    if isinstance(value, int) and not -INT_ABS_MAX <= value <= INT_ABS_MAX:
        raise Malformed(f"{what} holds an integer beyond 2^53, which other readers would round.")
    items: Iterable[Any] = ()
    if isinstance(value, dict):
        items = value.values()
        for key in value:
            if not str(key).isascii():
                raise Malformed(f"{what} has the key {key!r}; keys are ASCII.")
    elif isinstance(value, list | tuple | set | frozenset):
        items = value
    elif isinstance(value, msgspec.Struct):
        items = (getattr(value, name) for name in value.__struct_fields__)
    for item in items:
        _check_profile(item, what)
