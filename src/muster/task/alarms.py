"""When something is due, by key: a heap whose old entries are dropped when they come up.

Moving an alarm later costs nothing until the old time comes; that is what a lease does with every
beat. One alarm per key.
"""

import heapq


class Alarms:
    """See the top of this file."""

    def __init__(self) -> None:
        self._due: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []

    def set(self, key: str, due_ms: int) -> None:
        """Ring for `key` at `due_ms`, instead of any earlier setting."""
        old = self._due.get(key)
        self._due[key] = due_ms
        # A later time keeps its place in the heap: it is moved when the old time comes up.
        if old is None or due_ms < old:
            heapq.heappush(self._heap, (due_ms, key))
            if len(self._heap) > 4 * len(self._due) + 64:
                self._heap = [(due, k) for k, due in self._due.items()]
                heapq.heapify(self._heap)

    def clear(self, key: str) -> None:
        """No alarm for `key`."""
        self._due.pop(key, None)

    def due(self, now_ms: int) -> list[str]:
        """The keys whose time has come, earliest first; each rings once."""
        rung: list[str] = []
        while self._heap and self._heap[0][0] <= now_ms:
            _, key = heapq.heappop(self._heap)
            due = self._due.get(key)
            if due is None:
                continue
            if due <= now_ms:
                del self._due[key]
                rung.append(key)
            else:
                heapq.heappush(self._heap, (due, key))
        return rung
