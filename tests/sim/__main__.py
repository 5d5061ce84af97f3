"""`python -m tests.sim --seeds 1000`: the whole fleet, many times; `--seed N --trace` replays one.

Each seed draws its own faults, unless `--profile` names them. A failing seed is printed with what
broke; put it into tests/sim/corpus.txt, so that it is never forgotten.
"""

import argparse
import sys
import time
from collections import Counter

from tests.sim.ablations import REMOVALS
from tests.sim.attacker import ATTACKS
from tests.sim.engine import MISDEEDS as ENGINE
from tests.sim.faults import PROFILES
from tests.sim.middle import DEEDS
from tests.sim.shelf import LOOKS, MISDEEDS
from tests.sim.sweep import Outcome, play, sweep

# What a thousand seeds must have met: every fault, and every way out of one.
SOMETIMES = (
    "loss", "duplication", "reorder", "partition", "one-way-loss", "kill", "sleep", "clock-jump",
    "crash-before-write", "crash-before-fsync", "crash-before-ack", "restore-mark",
    "restore-generation", "restore-blind", "clone-seen", "clone-blind", "revoked",
    "new-incarnation-on-doubt", "honest-fork-excused", "fork-frozen", "attempt-stopped",
    "push-of-a-stale-epoch-refused", "core-forks", "core-disputes", "core-incarnations",
    "core-refused-forged", "core-refused-malformed", "core-seal-contradicts-what-was-seen",
    "core-cosign-of-another-branch", "core-cosign-ahead-of-us", "core-streams-of-revoked-machines",
    "core-beyond-the-end-of-a-frozen-stream", "core-unproven-statement-missing",
    "run-values", "run-swarm", "run-race", "group-thread", "group-send", "stranger", "scarce", "matched",
    "full-disk", "room-again",
    *("attack-" + name for name in ATTACKS),
    *("place-" + name for name in MISDEEDS), *("place-shows-" + name for name in LOOKS),
    *("engine-" + name for name in ENGINE),
    "place-dies", "place-dies-amid", "engine-dies", "engine-dies-amid",
    "parcel-forged", "parcel-malformed", "parcel-denied",
    "torn", "lost", "silence", "relayed", "place-loses-tail", "place-loses-middle", "place-loses-all",
    "gone-dead", "gone-cut-off", "gone-cut-from-heir", "work-goes-on-elsewhere",
    *("middle-" + name for name in DEEDS),
)  # fmt: skip


def report(outcomes: list[Outcome], seconds: float, *, counts: bool) -> int:
    """Print what was found; 1 when anything broke."""
    failed = [o for o in outcomes if o.violation]
    reached: Counter[str] = Counter()
    for outcome in outcomes:
        reached.update({name: 1 for name, times in outcome.reached.items() if times})
    if counts:
        print("reached, in how many seeds:")
        for name, seeds in sorted(reached.items()):
            print(f"  {seeds:6d}  {name}")
    missing = [name for name in SOMETIMES if not reached[name]]
    if missing and len(outcomes) >= 1_000:
        print(f"NEVER REACHED: {', '.join(missing)}")
        failed_to_reach = 1
    else:
        failed_to_reach = 0
    steps = sum(o.steps for o in outcomes)
    rate = len(outcomes) / seconds
    print(f"{len(outcomes)} seeds, {steps} steps, {seconds:.1f} s: {rate:.1f} seeds/s")
    for outcome in failed:
        print(f"FAILED seed {outcome.seed}: {outcome.violation}")
    print(f"{len(failed)} failed; replay one with --seed N --trace" if failed else "all held")
    return 1 if failed else failed_to_reach


def ablations(seeds: int) -> int:
    """Remove each safeguard in turn; print the seed that noticed."""
    missed = 0
    for name in REMOVALS:
        started = time.perf_counter()
        for seed in range(seeds):
            found = play(seed, name, name).violation
            if found:
                break
        else:
            found, missed = "NOT CAUGHT", missed + 1
        print(f"{name:28s} seed {seed:3d} {time.perf_counter() - started:5.1f} s  {found}")
    return 1 if missed else 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--trace", action="store_true", help="print every event")
    parser.add_argument("--profile", default="", choices=["", *PROFILES], help="faults by name")
    parser.add_argument("--remove", default="", choices=["", *REMOVALS], help="a safeguard")
    parser.add_argument("--ablations", action="store_true", help="remove every safeguard in turn")
    parser.add_argument(
        "--profiles", action="store_true", help="the seeds of every profile in turn"
    )
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args()
    if chosen.ablations:
        return ablations(200)
    started = time.perf_counter()
    seeds = range(chosen.start, chosen.start + chosen.seeds)
    if chosen.profiles:
        outcomes = [o for name in PROFILES for o in sweep(seeds, name, "", chosen.processes)]
    elif chosen.seed is not None:
        outcomes = [play(chosen.seed, chosen.profile, chosen.remove, show=chosen.trace)]
        print(f"trace {outcomes[0].digest}")
    else:
        outcomes = sweep(seeds, chosen.profile, chosen.remove, chosen.processes)
    return report(outcomes, time.perf_counter() - started, counts=chosen.seed is None)


if __name__ == "__main__":
    sys.exit(main())
