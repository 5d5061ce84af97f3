"""python -m tests.fuzz SECONDS [SEED]: knock at every door in turn until the time is over.

A mistake is printed with its seed, its door and its bytes, so that it can become a test; the exit
code is then 1. Bounds: no message may take longer than `SLOW_S`, and memory may not grow by more
than `GROWTH_MIB` over the whole run.
"""

import random
import resource
import sys
import time
import traceback
from collections import Counter

from tests.fuzz.doors import all_doors, knock

SLOW_S = 3.0
GROWTH_MIB = 400
KNOCKS = 20


def memory_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def fuzz(seconds: float, seed: int, only: str = "") -> tuple[Counter[str], list[str]]:
    """How often each door was tried, and what went wrong there."""
    rng = random.Random(seed)
    doors = [door for door in all_doors() if only in door.name]
    tried: Counter[str] = Counter()
    wrong: list[str] = []
    failed: set[str] = set()
    before, end = memory_mib(), time.perf_counter() + seconds
    while time.perf_counter() < end and len(failed) < len(doors):
        for door in doors:
            if door.name in failed:
                continue
            try:
                for _ in range(KNOCKS):
                    began = time.process_time()
                    knock(door, rng)
                    tried[door.name] += 1
                    assert time.process_time() - began < SLOW_S, "too slow"
            except Exception:  # noqa: BLE001 - the fuzzer's whole purpose is to see what is raised
                failed.add(door.name)
                wrong.append(f"--- {door.name}, seed {seed}\n{traceback.format_exc()}")
    grown = memory_mib() - before
    if grown > GROWTH_MIB:
        wrong.append(f"--- memory grew by {grown} MiB")
    return tried, wrong


if __name__ == "__main__":
    limit = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    chosen = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(10**9)
    counts, mistakes = fuzz(limit, chosen, sys.argv[3] if len(sys.argv) > 3 else "")
    for name, count in sorted(counts.items()):
        print(f"{count:8d}  {name}")
    print(f"seed {chosen}: {sum(counts.values())} messages, {len(mistakes)} mistakes")
    for mistake in mistakes:
        print(mistake, file=sys.stderr)
    sys.exit(1 if mistakes else 0)
