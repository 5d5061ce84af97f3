"""One daemon of a test fleet, as a process: `python -m tests.e2e.machine HOME`.

It is the daemon that `muster up` runs. MUSTER_TEST_CLOCK_MS sets its wall clock so far off,
MUSTER_TEST_CLOCK_FILE names a file that says so at each moment, MUSTER_TEST_NIGHT one that moves both
of its clocks (night/clock.py), and
MUSTER_TEST_FILE_BYTES lets no file of it grow larger, which is how a full disk looks from inside.
MUSTER_TEST_STUMBLES makes a step that brings a call with this text fail by a mistake that no guard
knows, MUSTER_TEST_STUMBLES_TIMES times.
"""

import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from muster.errors import MusterError
from muster.node.core import Core
from muster.node.event import Arrived
from muster.node.host import clock
from muster.node.host.home import Home
from muster.task.instruction import Now
from muster.verbs import daemon
from tests.e2e.night import clock as night


def main() -> int:
    if bytes_max := int(os.environ.get("MUSTER_TEST_FILE_BYTES", "0")):
        # Without this the kernel ends the process; with it a write fails, as on a full disk.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, bytes_max))
    if file := os.environ.get(night.FILE, ""):
        night.move(file)
    if off_ms := int(os.environ.get("MUSTER_TEST_CLOCK_MS", "0")):
        read = clock.read

        def wrong() -> Now:
            now = read()
            return Now(now.boot_ms, now.wall_ms + off_ms)

        clock.read = wrong
    if text := os.environ.get("MUSTER_TEST_STUMBLES", ""):
        _stumble(text.encode(), int(os.environ.get("MUSTER_TEST_STUMBLES_TIMES", "1")))
    if path := os.environ.get("MUSTER_TEST_CLOCK_FILE", ""):
        true = clock.read

        def moved() -> Now:
            now = true()
            return Now(now.boot_ms, now.wall_ms + int(Path(path).read_text() or "0"))

        clock.read = moved
    try:
        daemon._serve(Home(sys.argv[1]), lambda text: print(text, file=sys.stderr, flush=True))
    except MusterError as error:
        print(f"muster: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def _stumble(text: bytes, times: int) -> None:
    step, left = Core.step, times

    def stumbles(self: Core, events: Any, now: Now) -> Any:
        nonlocal left
        found = list(events)
        if left and any(text in e.payload for e in found if isinstance(e, Arrived)):
            left -= 1
            raise BufferError("a mistake of a kind that nobody thought of")
        return step(self, found, now)

    Core.step = stumbles  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.exit(main())
