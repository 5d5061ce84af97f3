"""Cost per noop task when 100 are queued at once, and when 10,000 are: it must not grow.

Fleet and tasks are those of bench/tasks.py. Before anything is measured a thousand tasks have run,
so that neither size pays for what is done once.
"""

from bench.figure import Figure, p50
from bench.fleet import Fleet
from bench.tasks import prepared, submit


async def measure(*, few: int, many: int, rounds: int) -> list[Figure]:
    small: list[float] = []
    large: list[float] = []
    with Fleet(3) as fleet:
        caller = await fleet.caller()
        await submit(caller, prepared(caller, 1000))
        for _ in range(rounds):
            small += [await submit(caller, prepared(caller, few)) / few * 1000 for _ in range(5)]
            large.append(await submit(caller, prepared(caller, many)) / many * 1000)
        caller.close()
    return [
        Figure(
            f"cost per task, {many:,} queued / {few:,} queued",
            p50(large) / p50(small),
            1.3,
            f"{p50(small):.3f} ms each at {few:,}; {p50(large):.3f} ms each at {many:,}",
        )
    ]


async def run(*, short: bool) -> list[Figure]:
    return await measure(few=100, many=10_000, rounds=1 if short else 3)
