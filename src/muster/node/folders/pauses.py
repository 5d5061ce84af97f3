"""How often something happened to a path: when it is tried again, and when it is left alone."""

from collections import deque
from collections.abc import Iterable
from typing import Final

from muster.node.folders.reader import FRESH_MS
from muster.node.host import clock

# So often within a minute a file may get back what was just replaced.
FLIPS_MAX: Final = 4
FLIPS_MS: Final = 60_000
# So often in a row a path is tried again at once; then each pause is twice the last.
QUICK_TRIES: Final = 8
AGAIN_MS_MAX: Final = 60_000


class Flips:
    """What was replaced last, by path, and when it came back."""

    def __init__(self) -> None:
        self._replaced: dict[str, bytes] = {}
        self._times: dict[str, deque[int]] = {}

    def replaces(self, path: str, digest: bytes) -> None:
        """These bytes are about to be replaced."""
        self._replaced[path] = digest

    def is_one(self, path: str, digest: bytes) -> bool:
        """Whether a file got back what was replaced there, once too often."""
        if not digest or self._replaced.get(path) != digest:
            return False
        now_ms = clock.read().boot_ms
        times = self._times.setdefault(path, deque(maxlen=FLIPS_MAX))
        times.append(now_ms)
        return len(times) >= FLIPS_MAX and now_ms - times[0] <= FLIPS_MS


class Pauses:
    """How often paths were put off since they were quiet."""

    def __init__(self) -> None:
        self._tries: dict[str, int] = {}

    def next(self, paths: Iterable[str]) -> dict[int, set[str]]:
        """These are put off once more: by how many milliseconds it is to be."""
        found: dict[int, set[str]] = {}
        for path in paths:
            tries = self._tries[path] = self._tries.get(path, 0) + 1
            # No number grows without end.
            shift = min(max(0, tries - QUICK_TRIES), 16)
            found.setdefault(min(FRESH_MS << shift, AGAIN_MS_MAX), set()).add(path)
        return found

    def end(self, paths: Iterable[str]) -> None:
        """These are quiet."""
        for path in paths:
            self._tries.pop(path, None)
