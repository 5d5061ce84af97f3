"""One daemon, as `muster up` runs it: `python -m bench.machine HOME`.

With $BENCH_PROFILE naming a file, cProfile runs from SIGUSR1 to SIGUSR2 and is written there.
With $BENCH_SECRET an agent is allowed to send, as the attempt of a task would allow it.
"""

import asyncio
import cProfile
import os
import signal
import sys
from pathlib import Path

import uvloop

from muster.fleet.capability import Capability, make_capability
from muster.node.call.authorize import Authorizer
from muster.node.daemon import Daemon
from muster.node.host.home import Home
from muster.node.installation import Installation
from muster.node.parts import PARTS
from muster.verbs.table import VERBS

UNTIL_MS = 2**52


def send_capability(secret: bytes) -> tuple[str, Capability]:
    """The token of an agent that may send, and what its daemon knows of it."""
    return make_capability(secret, task="t", agent="agent", verbs=("send",), until_ms=UNTIL_MS)


async def serve(home: str) -> None:
    daemon = Daemon(Installation(Home(home), PARTS), VERBS)
    secret = os.environ.get("BENCH_SECRET", "")
    if secret:
        daemon.core.part(Authorizer).allow_agent(send_capability(bytes.fromhex(secret))[1])
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, daemon.stop)
    await daemon.run(lambda: print("ready", flush=True))
    if daemon.why_stopped:
        print("stopped:", daemon.why_stopped, flush=True)


def main() -> None:
    target = os.environ.get("BENCH_PROFILE", "")
    if target:
        profile = cProfile.Profile()

        def dump() -> None:
            profile.disable()
            profile.dump_stats(f"{target}.{Path(sys.argv[1]).name}")

        async def profiled() -> None:
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGUSR1, profile.enable)
            loop.add_signal_handler(signal.SIGUSR2, dump)
            await serve(sys.argv[1])

        uvloop.run(profiled())
    else:
        uvloop.run(serve(sys.argv[1]))


if __name__ == "__main__":
    main()
