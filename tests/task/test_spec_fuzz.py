"""A short turn of the fuzzer with every test run; `python -m tests.task.fuzz_spec 600` is a long one."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.promise import proves
from tests.task.fuzz_spec import EXAMPLES, PIECES, mutated, probe


@proves("spec.hostile-text")
@pytest.mark.parametrize("seed", range(8))
def test_a_mutated_spec_is_a_spec_or_a_list_of_problems(seed):
    rng = random.Random(seed)
    raws = [mutated(rng.choice(EXAMPLES).read_bytes(), rng) for _ in range(40)]
    assert any(not probe(raw) for raw in raws)


@proves("spec.hostile-text")
@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=8), max_size=40))
def test_any_pieces_put_together_are_a_spec_or_a_list_of_problems(pieces):
    probe(b"muster: 1\nname: x\nphases:\n  test:\n    do: " + b"".join(pieces))
