"""What keeps the queued tasks of a run that somebody follows waiting."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from muster.verbs.declaration import Core
from muster.verbs.task import waits_for

# A task on its way never waits so long; whoever follows it wants to know after that.
LOOK_S: Final = 3.0
LOOK_S_MAX: Final = 60.0


class Waits:
    """What keeps the queued tasks of a run waiting: told once for each, when it takes too long."""

    def __init__(self, core: Core, told: Iterable[Mapping[str, Any]] | None) -> None:
        self._core, self._off = core, told is None
        # Of each queued task: its newest change, when it is looked at, and the pause before.
        self._queued: dict[str, tuple[Mapping[str, Any], float, float]] = {}
        for change in told or ():
            self.heard(change)

    def heard(self, change: Mapping[str, Any] | None) -> None:
        if self._off or change is None or not change.get("task") or "state" not in change:
            return
        self._queued.pop(change["task"], None)
        if change["state"] == "queued":
            self._queued[change["task"]] = change, _now_s() + LOOK_S, LOOK_S

    def in_s(self) -> float | None:
        """When something is to be looked at, None for never."""
        due = min((at for _, at, _ in self._queued.values()), default=None)
        return None if due is None else max(0.0, due - _now_s())

    def look(self) -> Iterator[dict[str, Any]]:
        """What keeps those that are due; where that is their turn, they are looked at later."""
        for task, (change, at, pause_s) in list(self._queued.items()):
            if at > _now_s():
                continue
            text, fits = waits_for(self._core, task)
            # What happened to it before was told as it happened; this keeps it waiting now.
            if text and text != change["reason"]:
                del self._queued[task]
                about = {name: change[name] for name in ("phase", "instance", "task")}
                yield {**about, "waits": text, "fits": fits}
            else:
                longer_s = min(2 * pause_s, LOOK_S_MAX)
                self._queued[task] = change, _now_s() + longer_s, longer_s


def _now_s() -> float:
    return asyncio.get_running_loop().time()
