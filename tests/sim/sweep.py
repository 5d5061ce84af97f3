"""Playing seeds: one, or many on several processes."""

from functools import lru_cache
from multiprocessing import get_context
from typing import NamedTuple

from muster.log import keys
from tests.sim.ablations import removed
from tests.sim.faults import PROFILES, Faults, swarm
from tests.sim.invariants import Violation
from tests.sim.world import World

# Pure, and by far the most expensive thing a machine does: every machine checks the same ones.
keys.verify = lru_cache(maxsize=100_000)(keys.verify)


class Outcome(NamedTuple):
    """What became of one seed."""

    seed: int
    violation: str
    reached: dict[str, int]
    steps: int
    digest: str


def faults_of(seed: int, profile: str) -> Faults:
    """What goes wrong under this seed."""
    return PROFILES[profile] if profile else swarm(seed)


def play(seed: int, profile: str = "", removal: str = "", *, show: bool = False) -> Outcome:
    """Run one seed."""
    violation = ""
    with removed(removal):
        world = World(seed, faults_of(seed, profile), show=show)
        try:
            world.run()
        except Violation as found:
            violation = str(found)
            if show and found.__cause__ is not None:
                raise
        finally:
            world.close()
    reached = dict(world.reached)
    for machine in world.machines.values():
        reached.update(machine.tally)
    return Outcome(seed, violation, reached, world.counts["steps"], world.digest())


def _play(job: tuple[int, str, str]) -> Outcome:
    return play(*job)


def sweep(seeds: range, profile: str, removal: str, processes: int) -> list[Outcome]:
    """Run many seeds."""
    jobs = [(seed, profile, removal) for seed in seeds]
    if processes == 1:
        return [_play(job) for job in jobs]
    with get_context("spawn").Pool(processes) as pool:
        return list(pool.imap(_play, jobs, chunksize=4))
