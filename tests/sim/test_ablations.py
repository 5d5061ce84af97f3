"""Each safeguard, taken away, is missed: the simulation notices, and for the right reason."""

import pytest

from tests.promise import proves
from tests.sim.ablations import REMOVALS
from tests.sim.faults import PROFILES
from tests.sim.sweep import play

SEEDS_MAX = 200
# Where the rare ones were missed last, which is looked at first. What changes the worlds makes this
# out of date, and the test slow: `python -m tests.sim --ablations` says where it is now.
LAST = {"adoption-epoch": 5, "cursor-in-the-transaction": 5, "fence": 30, "mistakes-are-seen": 39}
# Which invariants may break first.
BROKEN = {
    "adoption-ground": ("I18",),
    "approval-binding": ("I21",),
    "adoption-epoch": ("I7", "I18"),
    "climb": ("I17",),
    "proven-first": ("I17",),
    "incarnation-guard": ("I6",),
    "own-head-first": ("I6",),
    # A row that names an entry that is not there is met by whoever reads it first.
    "cursor-in-the-transaction": ("I3", "I4", "I12", "I15"),
    "seal-check": ("I5",),
    "signer-check": ("I5",),
    "middle-seal": ("I5",),
    "middle-signer": ("I5",),
    "middle-body": ("I5",),
    "asked-again": ("liveness",),
    "relay-withholds": ("I17",),
    "evidence-check": ("I10",),
    "fence": ("I7",),
    "fork-gossip": ("I1", "liveness"),
    "offered-again": ("liveness",),
    "money-reserved": ("I20",),
    "orders-last": ("I13",),
    "poison-is-skipped": ("I12",),
    # What leaves before its commit may be an answer as well: its message is lost with the crash.
    "witness-persists": ("I2", "I5", "I9"),
    "mistakes-are-seen": ("I15",),
    "receipt-rule": ("liveness",),
    "parcel-signature": ("I19",),
    "parcel-receiver": ("I19",),
    "told-anew": ("liveness",),
    "heads-at-an-engine": ("liveness",),
    "heads-exchange": ("liveness",),
    "reviews": ("I16",),
    "step-waits-for-room": ("I2", "I6", "I12", "liveness"),
}


# Two hundred worlds take minutes, and a machine that is busy with others takes its time.
@pytest.mark.timeout(900)
@proves("sim.removals-are-caught")
@pytest.mark.parametrize("safeguard", sorted(REMOVALS))
def test_a_safeguard_that_is_removed_is_missed_within_two_hundred_seeds(safeguard):
    assert safeguard in PROFILES
    for seed in (LAST.get(safeguard, 0), *range(SEEDS_MAX)):
        violation = play(seed, safeguard, safeguard).violation
        if violation:
            assert violation.partition(":")[0] in BROKEN[safeguard]
            # The very same world holds with the safeguard in place.
            assert play(seed, safeguard).violation == ""
            return
    pytest.fail(f"{SEEDS_MAX} seeds did not miss {safeguard}")
