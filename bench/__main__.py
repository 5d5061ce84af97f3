"""All promised figures in one table: `python -m bench [--short] [--only NAME]`.

A figure passes or misses; nothing here fails a build. Every figure is a ratio to a peer that runs
in turn with ours, or a bound on this machine. A ratio counts from a quiet moment only: each bench
waits for one, and says so where there was none, for what runs more code is preempted more often.
"""

import argparse
import time
from collections.abc import Awaitable, Callable

import uvloop

from bench import (
    append,
    audit,
    channels,
    context,
    crowd,
    depth,
    egress,
    enclosure,
    erase,
    history,
    links,
    message,
    multifleet,
    recall,
    start,
    tasks,
)
from bench.figure import Figure
from bench.quiet import quiet

BENCHES: dict[str, Callable[..., Awaitable[list[Figure]]]] = {
    "append": append.run,
    "message": message.run,
    "tasks": tasks.run,
    "depth": depth.run,
    "history": history.run,
    "recall": recall.run,
    "context": context.run,
    "audit": audit.run,
    "erase": erase.run,
    "start": start.run,
    "enclosure": enclosure.run,
    "crowd": crowd.run,
    "channels": channels.run,
    "links": links.run,
    "multifleet": multifleet.run,
    "egress": egress.run,
}


async def measure(names: list[str], *, short: bool) -> None:
    lines = []
    for name in names:
        print(f"# {name} … {quiet(10 if short else 120)}", flush=True)
        began = time.monotonic()
        for figure in await BENCHES[name](short=short):
            lines.append(figure.line())
            print(lines[-1], flush=True)
        print(f"# {name} took {time.monotonic() - began:.0f} s", flush=True)
    print("\n" + "\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--short", action="store_true", help="less than two minutes in all")
    parser.add_argument("--only", action="append", choices=sorted(BENCHES), help="only this")
    given = parser.parse_args()
    uvloop.run(measure(given.only or list(BENCHES), short=given.short))


if __name__ == "__main__":
    main()
