"""Clocks that a test moves: both of a machine together, as if that time had passed.

What muster/node/host/clock.py reads is moved by what stands in a file, and nothing else: between two
jumps time is real, timers of a loop, sockets and processes have their own, and so has OpenSSL, which
is why a night begins as long ago as it lasts, and ends about now.
"""

import os
import time
from pathlib import Path
from typing import Any, Final

from muster.node.host import clock

# The variable that names the file to a daemon of tests (tests/e2e/machine.py).
FILE: Final = "MUSTER_TEST_NIGHT"
HOUR_MS: Final = 3_600_000
_NS: Final = 1_000_000


class Moved:
    """What `time` is to clock.py: the wall clock is set, and both are ahead by what has passed."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def time_ns(self) -> int:
        return time.time_ns() + sum(self._read_ms()) * _NS

    def monotonic_ns(self) -> int:
        return time.monotonic_ns() + self._read_ms()[1] * _NS

    def clock_gettime_ns(self, which: int) -> int:
        return time.clock_gettime_ns(which) + self._read_ms()[1] * _NS

    def _read_ms(self) -> tuple[int, int]:
        set_ms, passed_ms = self._file.read_text(encoding="ascii").split()
        return int(set_ms), int(passed_ms)


def move(file: str) -> None:
    """From now on this process goes by the clocks of the file."""
    clock.time = Moved(Path(file))  # type: ignore[assignment]


class Clocks:
    """The clocks of all machines, in the hands of the test; `zone` is where it is night."""

    def __init__(self, file: Path, minutes_before: int = 10) -> None:
        """It is so many minutes to ten in the evening."""
        self.file = file
        # Seven in the morning there is the last full hour here.
        self.morning_ms = time.time_ns() // _NS // HOUR_MS * HOUR_MS
        ahead = (7 - self.morning_ms // HOUR_MS) % 24
        self._ahead_ms = (ahead if ahead <= 12 else ahead - 24) * HOUR_MS
        # The signs of these zones are the other way round.
        self.zone = f"Etc/GMT{-self._ahead_ms // HOUR_MS:+d}"
        begin_ms = self.morning_ms - 9 * HOUR_MS - minutes_before * 60_000
        self._set_ms, self._passed_ms = begin_ms - time.time_ns() // _NS, 0
        self._write()

    @property
    def now_ms(self) -> int:
        return time.time_ns() // _NS + self._set_ms + self._passed_ms

    def at_ms(self, hour: int, minute: int = 0) -> int:
        """When it is so late in this night."""
        return self.morning_ms + ((hour - 7 - 24 * (hour >= 12)) * 60 + minute) * 60_000

    def jump(self, to_ms: int) -> None:
        """Let the time until then have passed; never back."""
        self._passed_ms += max(0, to_ms - self.now_ms)
        self._write()

    def shown(self, ms: int) -> str:
        """A moment, as the clock on the wall has it there."""
        seconds = (ms + self._ahead_ms) // 1000
        return f"{seconds // 3600 % 24:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"

    def _write(self) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(f"{self._set_ms} {self._passed_ms}", encoding="ascii")
        os.replace(new, self.file)
