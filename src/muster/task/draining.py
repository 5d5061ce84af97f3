"""Whether a machine that gave work away drains, as it says in the end of the attempt.

Rule: that costs its task nothing, so it is believed of a machine whose facts say so, for then it
gets no work; of one that takes work all the same only some times for each task, for its facts may
be late.
"""

from collections.abc import Mapping

from muster import limits
from muster.task.open_task import Live
from muster.task.pause import PAUSED, pause_of
from muster.task.route import Machine


def believed(task: Live, machines: Mapping[str, Machine]) -> bool:
    """Whether it costs the task nothing that its machine gave it away; counts how often."""
    known = machines.get(task.machine)
    pause = pause_of(known.facts.tools.get(PAUSED)) if known is not None else None
    if pause is not None and pause.drains:
        return True
    task.drained += 1
    return task.drained <= limits.LOSSES_MAX
