"""Heartbeats: what worker and owner tell each other about leases. Frames, never entries."""

from typing import Any

from muster.errors import Malformed
from muster.limits import INT_ABS_MAX, KEY_CHARS_MAX, OPEN_TASKS_MAX
from muster.node.call import Call
from muster.node.core import Core
from muster.node.verb import LATER
from muster.task.live import Beat


def beat(core: Core, call: Call) -> Any:
    """A worker lives, and holds these leases of ours."""
    holds = call.args.get("holds", [])
    if not isinstance(holds, list) or len(holds) > OPEN_TASKS_MAX:
        raise Malformed("a beat names more leases than there can be")
    try:
        beats = [_held(*each) for each in holds]
    except TypeError as error:
        raise Malformed("a beat's leases cannot be read") from error
    core.work.beat(call.peer, str(call.args.get("mark", ""))[:100], beats)
    return LATER


def _held(task: Any, order: Any, count: Any, progress: Any) -> Beat:
    """One lease that a worker says it holds. It goes back to the worker, so it must be sayable."""
    words = isinstance(task, str) and len(task) <= KEY_CHARS_MAX and isinstance(progress, str)
    numbers = type(order) is type(count) is int and min(order, count) >= 0
    if not words or not numbers or max(order, count) > INT_ABS_MAX:
        raise Malformed("a beat names a lease by a task and an epoch of two numbers")
    return Beat(task, (order, count), progress[:500])


def hold(core: Core, call: Call) -> Any:
    """An owner's answer to our beat."""
    _to_worker(core, call, "hold")
    return LATER


def release(core: Core, call: Call) -> Any:
    """An owner wants an attempt of ours to end."""
    _to_worker(core, call, "release")
    return LATER


def _to_worker(core: Core, call: Call, verb: str) -> None:
    try:
        core.work.working.on_owner(call.peer, verb, call.args)
    except (KeyError, TypeError, ValueError) as error:
        raise Malformed(f"a {verb} call cannot be read") from error
