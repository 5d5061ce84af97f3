"""The fuzzer's short form for each build, and properties over any bytes and any JSON."""

import json
import random
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.errors import MusterError, Refused
from muster.fleet.statement import open_statement
from muster.log import canon
from tests.fleet.world import FLEET_ID
from tests.fuzz.doors import Door, all_doors, documents, formats, knock
from tests.promise import proves
from tests.work import calls

DOORS = all_doors()
PURE = [d for d in [*documents(), *formats()] if not d.name.startswith("spec")]
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=15,
)


@pytest.mark.parametrize("door", DOORS, ids=lambda d: d.name)
@proves("node.hostile-bytes")
def test_a_changed_message_is_taken_or_refused_after_bounded_work(door: Door) -> None:
    rng = random.Random(door.name)
    for _ in range(60):
        assert calls(lambda: knock(door, rng)) < 500_000


@pytest.mark.parametrize("door", PURE, ids=lambda d: d.name)
@proves("node.hostile-bytes")
def test_the_messages_that_fuzzing_starts_from_are_good(door: Door) -> None:
    """Else mutation would only ever meet the first check."""
    taken = 0
    for raw in door.good:
        try:
            door.read(raw)
            taken += 1
        except Refused:
            # Some doors hold messages of a neighbour, too.
            continue
    assert taken, door.name


@given(st.binary(max_size=400), st.integers(0, len(PURE) - 1))
@settings(max_examples=150, deadline=None)
@proves("node.hostile-bytes")
def test_any_bytes_raise_nothing_but_our_own_errors(raw: bytes, number: int) -> None:
    with suppress(MusterError):
        PURE[number].read(raw)


@given(JSON)
@settings(max_examples=150, deadline=None)
@proves("node.hostile-bytes")
def test_json_is_canonical_or_refused_and_never_repaired(value: Any) -> None:
    raw = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        data = raw.encode()
        found = canon.decode(data, "value", size_max=10_000)
    except (MusterError, UnicodeEncodeError):
        return
    assert canon.encode(found) == data


@given(st.integers(0, 600), st.integers(0, 255))
@settings(max_examples=150, deadline=None)
@proves("node.hostile-bytes")
def test_no_changed_byte_of_a_statement_is_overlooked(at: int, byte: int) -> None:
    (good, _) = next(d.good for d in documents() if d.name == "statement")
    changed = bytearray(good)
    changed[at % len(good)] = byte
    if bytes(changed) == good:
        open_statement(good, FLEET_ID)
        return
    with pytest.raises(Refused):
        open_statement(bytes(changed), FLEET_ID)
