"""Canonical JSON: one spelling, bounded, and nothing but Malformed on hostile bytes."""

import contextlib
import json
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.promise import proves
from tests.work import calls

from muster.errors import Malformed
from muster.limits import INT_ABS_MAX
from muster.log import canon

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
KEYS = st.text(st.characters(max_codepoint=127))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-INT_ABS_MAX, INT_ABS_MAX) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


class Body(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    to: str = "all"


def read(raw: bytes) -> object:
    return canon.decode(raw, "The test value", size_max=1 << 20)


def depth_of(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


@proves("log.canon-round-trip")
@given(VALUES)
def test_every_value_of_the_profile_comes_back_as_it_was(value):
    assert read(canon.encode(value)) == value


@proves("log.canon-is-rfc8785")
@given(VALUES)
def test_the_bytes_are_those_of_the_standard_librarys_sorted_compact_json(value):
    expected = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert canon.encode(value) == expected.encode()


@proves("log.canon-refuses-other-spellings")
@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":1,"a":1}',
        b'{"b":1,"a":1}',
        b'{ "a":1}',
        b'{"a":1}\n',
        b'"\\u0041"',
        b'"\\/"',
        b"01",
        b"-0",
        b"1e3",
        b"[1,]",
        b"",
        b"\xef\xbb\xbf{}",
        b'"\xff"',
        b'"\\ud800"',
        b"NaN",
        b"nul",
        b'{"a":1}{"a":1}',
    ],
)
def test_another_spelling_of_a_value_is_refused(raw):
    with pytest.raises(Malformed):
        read(raw)


@proves("log.canon-refuses-outside-profile")
@pytest.mark.parametrize(
    "raw",
    [
        b"1.5",
        b"[1.5]",
        b'{"a":1.0}',
        b'{"a":-0.5}',
        b'{"a":1e+100}',
        b"9007199254740992",
        b"[-9007199254740992]",
        b'{"a":123456789012345678901234567890}',
        '{"é":1}'.encode(),
        '{"a":[{"é":1}]}'.encode(),
        '{"a":"— \\" —","b":"\\\\","é":1}'.encode(),
        '{"a":"x\\":","b":["—",{"b\\"é":1}]}'.encode(),
    ],
)
def test_floats_huge_integers_and_foreign_keys_are_refused(raw):
    with pytest.raises(Malformed):
        read(raw)


@proves("log.canon-refuses-outside-profile")
@pytest.mark.parametrize(
    "value",
    [1.5, [1.0], {"a": float("nan")}, {"a": [float("inf")]}, 2**53, {"é": 1}, {1: 2.0}, "\ud800"],
)
def test_a_value_without_canonical_form_is_not_written(value):
    with pytest.raises(Malformed):
        canon.encode(value)


@proves("log.canon-refuses-outside-profile")
def test_numbers_inside_strings_are_only_text():
    value = {"a": ",1.5", "b": ':9007199254740992"', "c": "[1e5"}
    assert read(canon.encode(value)) == value


@proves("log.canon-bounds-first")
@pytest.mark.timeout(20)
def test_a_megabyte_of_brackets_is_refused_before_any_parser_sees_it(monkeypatch):
    class Parser:
        def decode(self, _raw):
            raise AssertionError("a parser was asked")

    monkeypatch.setattr(canon, "_decoder", Parser())

    def refuse(hostile):
        with pytest.raises(Malformed):
            canon.decode(hostile, "The bomb", size_max=2_000_000)

    for hostile in (b"[" * 1_000_000, b'{"a":' * 200_000):
        assert calls(lambda hostile=hostile: refuse(hostile)) < 200
    monkeypatch.undo()
    # Brackets within strings nest nothing: to see that takes one look at each byte.
    for hostile in (b'["\\"' * 250_000, b'"\\' * 500_000):
        assert calls(lambda hostile=hostile: refuse(hostile)) < 600_000


@proves("log.canon-bounds-first")
def test_the_size_is_checked_before_anything_else():
    with pytest.raises(Malformed, match="limit is 10"):
        canon.decode(b'"0123456789"', "The text", size_max=10)


@proves("log.canon-bounds-first")
def test_sixteen_levels_are_read_and_seventeen_are_refused():
    assert depth_of(read(b"[" * 16 + b"]" * 16)) == 16
    with pytest.raises(Malformed, match="deeper"):
        read(b"[" * 17 + b"]" * 17)


@proves("log.canon-bounds-first")
def test_brackets_in_strings_and_side_by_side_do_not_count_as_depth():
    value = [["[" * 40 + '\\"{'], *([[]] * 40)]
    assert read(canon.encode(value)) == value


@proves("log.canon-total")
@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_malformed(raw):
    try:
        value = read(raw)
    except Malformed:
        return
    assert canon.encode(value) == raw


@proves("log.canon-total")
@given(VALUES, st.integers(0, 400), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_is_another_value(value, place, change):
    raw = bytearray(canon.encode(value))
    raw[place % len(raw)] ^= change
    with contextlib.suppress(Malformed):
        assert read(bytes(raw)) != value


@proves("log.canon-typed")
def test_a_struct_is_read_with_its_defaults_and_without_unknown_fields():
    assert canon.decode_as(b'{"text":"hi"}', Body, "A body", size_max=99) == Body("hi")
    for wrong in (b'{"text":"hi","x":1}', b'{"to":"b"}', b'{"text":1}', b"[]"):
        with pytest.raises(Malformed):
            canon.decode_as(wrong, Body, "A body", size_max=99)


@proves("log.canon-typed")
def test_a_struct_that_lets_unknown_fields_pass_is_our_own_mistake():
    class Loose(msgspec.Struct):
        text: str

    with pytest.raises(AssertionError):
        canon.decode_as(b'{"text":"hi"}', Loose, "A body", size_max=99)


# In a process of its own, for what went wrong ended it. A field named in words is looked up in
# Python: there the others have their turn.
THREADS = """
import sys, threading
from typing import Annotated, Literal
import msgspec
from muster.log import canon

sys.setswitchinterval(1e-6)
RAW = b'{"a":1,"b":"y","c":"y","d":"z","e":{"d":"1","e":2},"f":"z"}'

def met_by_four(number):
    short = Annotated[str, msgspec.Meta(max_length=9)]
    strict = {"forbid_unknown_fields": True, "frozen": True}
    inner = msgspec.defstruct(f"Inner{number}", [("d", short), ("e", int)], **strict)
    words = [("a", "int"), ("b", "Literal['y']"), ("c", "str"), ("d", "str")]
    fields = [*words, ("e", inner), ("f", "str")]
    outer = msgspec.defstruct(f"Outer{number}", fields, module=__name__, **strict)
    together, found = threading.Barrier(4), []
    canon.learn(outer)

    def read():
        together.wait()
        found.append(canon.decode_as(RAW, outer, "it", size_max=1000).a)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert found == [1] * 4

for number in range(600):
    met_by_four(number)
"""


@proves("log.canon-threads")
def test_threads_read_a_type_that_was_learnt_before_there_were_any():
    """msgspec ended the whole command: `muster status --on all` in one of some dozens."""
    done = subprocess.run(
        [sys.executable, "-c", THREADS], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
