"""How folds read bodies."""

from typing import Any, Literal, NamedTuple, NewType

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.log.material import entry
from tests.promise import proves

from muster.errors import Malformed
from muster.limits import BODIES_REMEMBERED_MAX
from muster.log import canon, fold
from muster.log.fold import Skip, Table, body_as
from muster.log.stream import MachineId, StreamName


class Text(msgspec.Struct, forbid_unknown_fields=True):
    text: str


@proves("log.fold-body")
def test_a_body_is_read_into_its_type():
    assert body_as(entry(body=b'{"text":"hello"}'), Text) == Text("hello")


@proves("log.fold-body")
def test_an_erased_body_is_skipped_as_missing():
    with pytest.raises(Skip) as skip:
        body_as(entry().without_body(), Text)
    assert skip.value.reason == "no-body"


@proves("log.fold-body")
@pytest.mark.parametrize(
    "body",
    [b"", b"nonsense", b'{"text":1}', b'{"text": "spaced"}', b'{"more":1,"text":"x"}', b"\xff"],
)
def test_an_unreadable_body_is_skipped_as_bad(body):
    with pytest.raises(Skip) as skip:
        body_as(entry(body=body), Text)
    assert skip.value.reason == "bad-body"


class Flat(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    many: list[str] = []
    number: int | None = None
    small: bool = False


class Deep(msgspec.Struct, forbid_unknown_fields=True):
    flat: Flat
    anything: Any = None


def by_the_long_way(body, body_type):
    try:
        canon.decode(body, "x", size_max=1 << 16)
        return msgspec.json.decode(body, type=body_type)
    except (Malformed, msgspec.DecodeError):
        return None


PIECES = st.sampled_from(
    [
        b"{",
        b"}",
        b'"text":',
        b'"x"',
        b",",
        b'"number":',
        b"1",
        b"9007199254740993",
        b"-9007199254740991",
        b"1.0",
        b"null",
        b" ",
        b'"many":',
        b"[]",
        b'["a"]',
        b'"small":',
        b"true",
        b'"flat":',
        b"[[1]]",
        b'"\\ud800"',
        b'"\\u00e9"',
        '"é"'.encode(),
        b"\xff",
        b'"anything":',
        b'{"text":"x"}',
        '{"é":'.encode(),
        b'{"a":1e5}',
        b'{"a":-9007199254740993}',
        b"[0.5]",
        b'{"b":1,"a":2}',
    ]
)
VALUES = st.builds(
    lambda text, many, number, small, drop: canon.encode(
        {
            key: value
            for key, value in {"text": text, "many": many, "number": number, "small": small}.items()
            if key not in drop
        }
    ),
    st.text(max_size=5).filter(lambda t: "\0" not in t),
    st.lists(st.sampled_from(["", "é", "0123456789abcdef" * 2]), max_size=2),
    st.one_of(st.none(), st.integers(-(2**53) + 1, 2**53 - 1)),
    st.booleans(),
    st.sets(st.sampled_from(["text", "many", "number", "small"]), max_size=2),
)


@proves("log.fold-body")
@given(st.one_of(VALUES, st.lists(PIECES, max_size=10).map(b"".join)))
def test_the_short_way_of_reading_a_body_decides_like_the_long_way(body):
    for body_type in (Flat, Deep):
        expected = by_the_long_way(body, body_type)
        try:
            found = body_as(entry(body=body), body_type)
        except Skip:
            found = None
        assert found == expected


@proves("log.body-once")
def test_a_body_is_read_once_while_it_is_worked_on_and_a_large_one_is_not_kept(monkeypatch):
    """A task's order was read eight times on the machine that owns it."""
    small, large = entry(body=b'{"text":"x"}'), entry(body=b'{"text":"%s"}' % (b"x" * 5_000))
    assert body_as(small, Text) is body_as(small, Text)
    assert body_as(large, Text) is not body_as(large, Text)
    # Erased, nothing is left of it, and read as another type it is another value.
    with pytest.raises(Skip, match="no-body"):
        body_as(small.without_body(), Text)
    assert isinstance(body_as(small, Flat), Flat)
    monkeypatch.setattr(fold, "_read", kept := {})
    for number in range(BODIES_REMEMBERED_MAX + 1):
        body_as(entry(body=b'{"text":"%d"}' % number), Text)
    assert len(kept) == 1


@proves("log.fold-body")
def test_a_number_that_other_readers_round_is_skipped():
    body = b'{"many":[],"number":9007199254740993,"small":false,"text":""}'
    with pytest.raises(Skip):
        body_as(entry(body=body), Flat)
    fine = body.replace(b"993", b"991")
    assert body_as(entry(body=fine), Flat).number == 2**53 - 1


Name = NewType("Name", MachineId)


class Row(NamedTuple):
    stream: StreamName
    id: Name
    state: Literal["open", "done"]
    times: int
    entry: bytes


@proves("log.fold-rows")
def test_the_columns_of_a_table_are_those_of_its_row():
    table = Table("thing", Row, key=2)
    assert table.columns == (("id", "text"), ("state", "text"), ("times", "int"), ("entry", "blob"))
    assert ("stream", *(name for name, _ in table.columns)) == Row._fields


@proves("log.fold-rows")
@pytest.mark.parametrize(
    "sort", [float, bool, int | None, list[str], Literal["open", 1], NewType("Number", float), Any]
)
def test_what_no_column_can_hold_is_refused(sort):
    class BadRow(NamedTuple):
        stream: StreamName
        key: str
        bad: sort

    with pytest.raises(ValueError, match="the column bad of the table thing cannot hold"):
        Table("thing", BadRow).columns  # noqa: B018 - it raises


@proves("log.fold-rows")
def test_a_row_begins_with_the_stream_that_it_is_of():
    class BadRow(NamedTuple):
        key: str
        stream: StreamName

    with pytest.raises(ValueError, match="begins with something else"):
        Table("thing", BadRow).columns  # noqa: B018 - it raises
