"""One daemon, as `muster up` runs it: `python -m bench.machine HOME`.

With $BENCH_PROFILE naming a file, the daemon runs under cProfile and writes there when it stops.
"""

import asyncio
import cProfile
import os
import sys

import uvloop

from muster.node.daemon import Daemon
from muster.node.home import Home
from muster.node.installation import Installation
from muster.verbs.table import VERBS


async def serve(home: str) -> None:
    daemon = Daemon(Installation(Home(home)), VERBS)
    await daemon.run(lambda: print("ready", flush=True))
    if daemon.why_stopped:
        print("stopped:", daemon.why_stopped, flush=True)


def main() -> None:
    target = os.environ.get("BENCH_PROFILE", "")
    if not target:
        uvloop.run(serve(sys.argv[1]))
        return
    profile = cProfile.Profile()
    profile.enable()
    try:
        asyncio.run(serve(sys.argv[1])) if os.environ.get("BENCH_ASYNCIO") else uvloop.run(serve(sys.argv[1]))
    finally:
        profile.disable()
        profile.dump_stats(target + "." + os.path.basename(sys.argv[1]))


if __name__ == "__main__":
    main()
