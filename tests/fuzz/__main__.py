"""python -m tests.fuzz SECONDS [SEED]: knock at every door in turn until the time is over.

    python -m tests.fuzz siege ROUNDS [SEED]

plays that many rounds of `siege`, a new machine every thousand, and says how long the slowest step
took. Both print what went wrong with its seed.

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
from tests.fuzz.siege import Siege

SLOW_S = 3.0
STEP_S_MAX = 1.0
GROWTH_MIB = 400
KNOCKS = 20
SIEGE_ROUNDS = 1_000


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


def besiege(rounds: int, seed: int) -> list[str]:
    """Play rounds; returns what was found, each with the seed and round that shows it again."""
    wrong: list[str] = []
    slowest, before = 0.0, memory_mib()
    for start in range(0, rounds, SIEGE_ROUNDS):
        siege = Siege(seed + start)
        try:
            for _ in range(min(SIEGE_ROUNDS, rounds - start)):
                siege.round()
            siege.restart()
        except Exception:  # noqa: BLE001 - as above
            number = sum(siege.counts.values())
            wrong.append(
                f"--- siege of seed {seed + start}, round {number}\n{traceback.format_exc()}"
            )
        slowest = max(slowest, siege.slowest[0])
        if siege.slowest[0] > STEP_S_MAX:
            wrong.append(f"--- siege of seed {seed + start}: too slow: {siege.slowest}")
    grown = memory_mib() - before
    if grown > GROWTH_MIB:
        wrong.append(f"--- memory grew by {grown} MiB")
    print(f"{rounds} rounds, slowest step {slowest * 1000:.0f} ms, memory grew by {grown} MiB")
    return wrong


def main(words: list[str]) -> int:
    siege = words[:1] == ["siege"]
    numbers = words[1:] if siege else words
    count = float(numbers[0]) if numbers else 60.0
    chosen = int(numbers[1]) if len(numbers) > 1 else random.SystemRandom().randrange(10**9)
    if siege:
        mistakes = besiege(int(count), chosen)
        print(f"seed {chosen}: {len(mistakes)} mistakes")
    else:
        counts, mistakes = fuzz(count, chosen, numbers[2] if len(numbers) > 2 else "")
        for name, number in sorted(counts.items()):
            print(f"{number:8d}  {name}")
        print(f"seed {chosen}: {sum(counts.values())} messages, {len(mistakes)} mistakes")
    for mistake in mistakes:
        print(mistake, file=sys.stderr)
    return 1 if mistakes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
