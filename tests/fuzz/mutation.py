"""Changes to valid messages: of bytes, and of the JSON inside them so that it stays JSON."""

import json
import random
from typing import Any

# What breaks readers elsewhere: borders of numbers, names that are paths, marks that move a cursor.
ODD: list[Any] = [
    None, True, 0, -1, 1, 2**31, 2**53 - 1, 2**53, -(2**63), 2**64, 10**400, "", "x", "\0", "\n\n", "../..",
    "\u202e", "\x1b[2J", "é" * 70, "9" * 5000, "0" * 64, "f" * 63, "-rf", [], [[]], {}, {"": {}}, ["x"] * 300,
    1.5, {"a": {"b": {"c": []}}},
]  # fmt: skip
PIECES = [
    b"\0",
    b"\n",
    b"\xff",
    b"\xed\xa0\x80",
    b"{",
    b"[",
    b'"',
    b"\\u0000",
    b"\xe2\x80\x94 ",
    b" ",
    b"9" * 30,
]


def mutated(raw: bytes, rng: random.Random) -> bytes:
    """A valid message, changed a little: half of the time inside its JSON."""
    if rng.random() < 0.5:
        changed = _inside(raw, rng)
        if changed is not None:
            return changed
    data = bytearray(raw)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0:
                del data[at : at + rng.randint(1, 20)]
            case 1:
                data[at:at] = rng.choice(PIECES) * rng.choice([1, 1, 2, 200])
            case 2 if data:
                data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
            case 3:
                start = rng.randrange(len(data) + 1)
                data[at:at] = data[start : start + rng.randint(1, 100)]
            case 4:
                del data[at:]
            case _:
                data[at : at + 4] = rng.choice([0, 1, 2**31, 2**32 - 1]).to_bytes(4, "big")
    return bytes(data)


def _inside(raw: bytes, rng: random.Random) -> bytes | None:
    """The first JSON object in a message, one value of it replaced, the rest kept."""
    start = raw.find(b"{")
    if start < 0:
        return None
    try:
        value, end = json.JSONDecoder().raw_decode(raw[start:].decode("utf-8", "surrogateescape"))
    except ValueError:
        return None
    text = json.dumps(
        _replaced(value, rng), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    tail = raw[start:].decode("utf-8", "surrogateescape")[end:]
    whole = raw[:start] + (text + tail).encode("utf-8", "surrogateescape")
    if start == 4 and raw[:1] == b"\0":
        # A length stands before it (segments, bundles): keep it true, so that more is reached.
        whole = len(text.encode("utf-8", "surrogateescape")).to_bytes(4, "big") + whole[4:]
    return whole


def _replaced(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        match rng.randrange(8):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                return {**value, rng.choice(["x", "", "é", key.upper()]): rng.choice(ODD)}
            case _:
                return {**value, key: _replaced(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return [*value[:at], _replaced(value[at], rng), *value[at + 1 :]]
    if isinstance(value, str) and value and rng.random() < 0.4:
        at = rng.randrange(len(value))
        return value[:at] + rng.choice(["0", "x", "\n", "/", "\u202e"]) + value[at + 1 :]
    if isinstance(value, int) and rng.random() < 0.5:
        return value + rng.choice([-1, 1, 2**20])
    return rng.choice(ODD)
