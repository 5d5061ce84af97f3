"""The entries of the last moments, in memory: what was just written is sent right away.

Rule: it is a cache of what the database holds or is about to hold, bounded in bytes.
"""

from muster.limits import RECENT_BYTES_MAX
from muster.log.entry import Entry
from muster.log.segment import weight


class EntryCache:
    """Entries by their row number, the oldest dropped first."""

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        self._bytes = 0

    def put(self, first_row: int, entries: list[Entry]) -> None:
        """Keep consecutive entries."""
        for row, entry in enumerate(entries, first_row):
            self.entries[row] = entry
            self._bytes += weight(entry)
        while self._bytes > RECENT_BYTES_MAX:
            oldest = next(iter(self.entries))
            self._bytes -= weight(self.entries.pop(oldest))

    def drop(self, row: int) -> None:
        """Forget one entry."""
        entry = self.entries.pop(row, None)
        if entry is not None:
            self._bytes -= weight(entry)

    def clear(self) -> None:
        """Forget everything."""
        self.entries.clear()
        self._bytes = 0
