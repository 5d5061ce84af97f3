"""Keepers under faults: no slot is fired twice, and an entry says what became of each."""

from collections import Counter

import pytest

from tests.promise import proves
from tests.sim.schedules import SAFEGUARDS, Violation, World, caught

SEEDS = 20


@proves("schedule.fired-once", "schedule.every-slot-has-an-entry")
@pytest.mark.parametrize("catch_up", ["latest", "all"])
def test_under_faults_no_slot_is_fired_twice_and_each_has_an_entry(catch_up):
    counts = Counter[str]()
    for seed in range(SEEDS):
        try:
            counts += World(seed, catch_up=catch_up).run()
        except Violation as violation:
            pytest.fail(f"seed {seed}: {violation}")
    # It was no idle world.
    assert min(counts[each] for each in ("fire", "crashes", "restores")) > 0


@proves("schedule.fired-once", "schedule.every-slot-has-an-entry", "sim.removals-are-caught")
@pytest.mark.parametrize("removed", SAFEGUARDS)
def test_a_safeguard_of_schedules_that_is_removed_is_missed(removed):
    assert caught(removed) is not None
