"""What is settled leaves memory: what the owner and the worker hold does not grow with it."""

from collections import deque
from typing import Any

from tests.promise import proves
from tests.task.test_worker import given, now, worker
from tests.task.world import BUILD, STUDIO, World, machine, order

from muster import limits
from muster.task import kinds


def held(thing: Any, seen: set[int] | None = None) -> int:
    """How many things the containers of an object hold, at any depth."""
    seen = set() if seen is None else seen
    if id(thing) in seen or callable(thing) or isinstance(thing, str | bytes | int | None):
        return 0
    seen.add(id(thing))
    if isinstance(thing, dict):
        below = [*thing.keys(), *thing.values()]
    elif isinstance(thing, list | tuple | set | frozenset | deque):
        below = list(thing)
    else:
        names = [n for cls in type(thing).__mro__ for n in getattr(cls, "__slots__", ())]
        below = [getattr(thing, name, None) for name in names] + list(vars_of(thing).values())
        return sum(held(each, seen) for each in below)
    return len(below) + sum(held(each, seen) for each in below)


def vars_of(thing: Any) -> dict[str, Any]:
    return getattr(thing, "__dict__", {})


@proves("task.settled-is-forgotten")
def test_an_owner_keeps_nothing_of_what_is_settled_however_it_ended():
    world = World(machine(BUILD), machine(STUDIO))

    def settle(numbers):
        for number in numbers:
            name, late = f"t{number}", world.now.wall_ms + 3_600_000
            world.submit(order(name, key=f"k{number}", deadline_ms=late))
            if number % 3 == 0:
                world.finish(name)
            elif number % 3 == 1:
                world.finish(name, "failed", reason="no")
            else:
                holder = world.stream.task(name).machine
                world.owner.cancel(name, "not wanted", (), world.now)
                world.flush()
                world.say(holder, kinds.AttemptFinish(name, (1, 1), "killed"))
        world.later(limits.LEASE_MS)
        world.tick()
        world.flush()

    settle(range(300))
    before = held(world.owner)
    settle(range(300, 3_000))
    assert world.owner.statistics() == {"open": 0, "queued": 0, "held": 0}
    # Cleared alarms are dropped once they are the most of their heap.
    assert held(world.owner) <= before + 300


@proves("task.settled-is-forgotten")
def test_a_worker_remembers_the_epochs_of_so_many_tasks(monkeypatch):
    monkeypatch.setattr(limits, "EPOCHS_REMEMBERED_MAX", 100)
    one = worker()
    for number in range(1_000):
        name = f"t{number}"
        one.accept(given(name=name), now(2_000))
        one.ended(kinds.AttemptFinish(name, (1, 1), "done"))
        one.flush()
    assert len(one._seen) == 100
    assert held(one) < 1_000
    one.accept(given(name="t999"), now(2_000))
    assert one.flush() == [], "what is remembered counts once"
