"""How long a run stands still when its hub is killed and never comes back: `make takeover TRIALS=`.

Each trial is a fleet of its own: a hub with a repository, killed in the middle of a run, and the
machine that an operator named beforehand, which goes on with it. What is measured is the time from
the kill until both machines that are left show the run as done; the last phase is an attempt of
its own, which counts as well. The load of the computer is printed, for it is part of the figure.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Final

from tests.e2e.test_takeover import (
    LEASE_MS,
    begin,
    check_notes,
    ends,
    kill,
    made,
    mirror,
    repository,
)
from tests.git.repositories import refs

# What the issue allows beyond a lease.
MORE_S: Final = 15.0


def trial() -> float:
    """One run that ends at the stand-in; how long it took from the kill, in seconds."""
    with made() as fleet:
        run = begin(fleet, LEASE_MS)
        before, had = kill(fleet), refs(mirror(fleet))
        began = time.monotonic()
        took_s = ends(fleet, run, began)
        check_notes(fleet, before)
        assert had.keys() <= refs(repository(fleet["studio"])).keys()
        return took_s


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.takeover", description=__doc__)
    parser.add_argument("--trials", type=int, default=10)
    options = parser.parse_args(words)
    found = []
    for number in range(1, options.trials + 1):
        found.append(trial())
        load = os.getloadavg()[0]
        print(f"trial {number}: {found[-1]:.1f} s, load {load:.1f}", flush=True)
    most_s = LEASE_MS / 1000 + MORE_S
    print(
        f"{len(found)} hubs killed for ever: their runs ended after {statistics.median(found):.1f} "
        f"s (median), {max(found):.1f} s at most; a lease of {LEASE_MS / 1000:.0f} s and "
        f"{MORE_S:.0f} s are {most_s:.0f} s"
    )
    return 0 if max(found) <= most_s else 1


if __name__ == "__main__":
    sys.exit(main())
