"""Who speaks in a thread: its members, and whoever was one, of what came before that ended.

Rule 1: any machine can write into a stream of any thread's scope, and whoever holds that scope
keeps it. What counts there is decided here, and not by what was taken.
Rule 2: when an entry was written nobody can tell from its stamp. What was here before the keeper
put its writer out was said in the thread; what came later was not. Who became a member only later
got all of it at once, and goes by the stamps.
"""

from typing import Any

from muster.fleet.folds import MEMBER
from muster.log.stream import Scope, StreamName, group_name, group_owner, is_group
from muster.node.whole import Whole


def speaks(core: Whole, stream: StreamName, seq: int) -> bool:
    """Whether what stands at this place was said by a member; everything outside of threads was."""
    scope = stream.scope
    if not is_group(scope) or stream.machine in core.roster.groups.get(scope, {}):
        return True
    left_ms = _changed_ms(core, scope, stream.machine, member=0)
    came = core.store.admitted(stream, seq)
    if left_ms is None or came is None:
        return False
    joined_ms = _changed_ms(core, scope, core.machine, member=1)
    if joined_ms is not None and joined_ms > left_ms:
        return core.store.entry_at(stream, seq).stamp.ms <= left_ms
    return came[1] <= left_ms


def _changed_ms(core: Whole, scope: Scope, machine: str, *, member: int) -> int | None:
    """When the keeper of a thread last put a machine in or out; None where it never did."""
    owner = group_owner(scope)
    named: dict[str, Any] = {"name": group_name(scope), "machine": machine, "member": member}
    rows = core.store.rows(MEMBER.name, writer=str(owner), order=("-t_ms",), limit=1, **named)
    return int(str(rows[0]["t_ms"])) if rows else None
