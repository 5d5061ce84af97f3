"""Heartbeats: what worker and owner tell each other about leases. Frames, never entries."""

from typing import Any

from muster.errors import Malformed
from muster.limits import OPEN_TASKS_MAX
from muster.node.call import LATER, Call
from muster.node.core import Core
from muster.task.live import Beat


def beat(core: Core, call: Call) -> Any:
    """A worker lives, and holds these leases of ours."""
    holds = call.args.get("holds", [])
    if not isinstance(holds, list) or len(holds) > OPEN_TASKS_MAX:
        raise Malformed("a beat names more leases than there can be")
    try:
        beats = [Beat(str(t), (int(a), int(b)), str(p)[:500]) for t, a, b, p in holds]
    except (TypeError, ValueError) as error:
        raise Malformed("a beat's leases cannot be read") from error
    core.work.beat(call.peer, str(call.args.get("mark", ""))[:100], beats)
    return LATER


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
