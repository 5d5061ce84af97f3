"""Who waits until other machines hold so much of a stream of ours.

Rule: receipts alone count, those that are here and those that come; whoever waits is told once.
"""

from collections.abc import Callable
from typing import NamedTuple

from muster.log.seal import Cosign
from muster.log.stream import MachineId, StreamName
from muster.store.store import Store


class _Waiting(NamedTuple):
    size: int
    machines: set[MachineId]
    then: Callable[[], None]


class Awaited:
    """See the top of this file."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[StreamName, list[_Waiting]] = {}

    def when_held(
        self, stream: StreamName, size: int, machines: set[MachineId], then: Callable[[], None]
    ) -> None:
        """Call `then` once, when all of `machines` have receipted `size` entries of `stream`."""
        for cosign in self._store.cosigns(stream):
            if cosign.strength == "held" and cosign.size >= size:
                machines.discard(cosign.machine)
        if machines:
            self._waiting.setdefault(stream, []).append(_Waiting(size, machines, then))
        else:
            then()

    def settle(self, cosign: Cosign) -> None:
        """A receipt came."""
        waiting = self._waiting.get(cosign.stream)
        if not waiting or cosign.strength != "held":
            return
        left = []
        for each in waiting:
            if each.size <= cosign.size:
                each.machines.discard(cosign.machine)
            if each.machines:
                left.append(each)
            else:
                each.then()
        if left:
            self._waiting[cosign.stream] = left
        else:
            del self._waiting[cosign.stream]
