"""Who speaks in a thread: its members, and whoever was one, of what came before that ended.

Rule 1: any machine can write into a stream of any thread's scope, and whoever holds that scope
keeps it. What counts there is decided here, and not by what was taken.
Rule 2: when an entry was written nobody can tell from its stamp. What was here before the keeper
put its writer out was said in the thread; what came later was not. Who became a member only later
got all of it at once, and goes by the stamps.
Rule 3: whoever was put out of a thread, or of the fleet, keeps what it has, and is shown none of
it: what a machine once held is no right to read.
"""

from typing import TYPE_CHECKING, Any

from muster.fleet.folds import MEMBER
from muster.log.stream import Scope, StreamName, group_name, group_owner, is_group

if TYPE_CHECKING:
    from muster.node.core import Core


class Speakers:
    """Who speaks where, for one question: what is found out about a writer is kept meanwhile."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        # When a machine was last put out of a thread, and when we were taken in.
        self._known: dict[tuple[Scope, str], tuple[int | None, int | None]] = {}

    def is_heard(self, stream: StreamName) -> bool:
        """Whether all of a stream was said: its writer is a member, or it belongs to no thread."""
        scope = stream.scope
        return not is_group(scope) or stream.machine in self._core.roster.groups.get(scope, {})

    def counts(self, stream: StreamName, seq: int) -> bool:
        """Whether what stands at this place was said there, and this machine reads it now."""
        return self.is_read(stream) and self.speaks(stream, seq)

    def is_read(self, stream: StreamName) -> bool:
        """Whether this machine reads a stream now: nothing of a thread that it has left, also not
        what it said there itself, and nothing at all where its key counts no more.
        """
        core, scope = self._core, stream.scope
        if not core.membership.may_hold(stream, core.machine):
            return False
        return not is_group(scope) or core.machine in core.roster.groups.get(scope, {})

    def speaks(self, stream: StreamName, seq: int) -> bool:
        """Whether what stands at this place was said by a member; all outside of threads was."""
        core, scope = self._core, stream.scope
        if self.is_heard(stream):
            return True
        times = self._known.get((scope, stream.machine))
        if times is None:
            left_ms = _changed_ms(core, scope, stream.machine, member=0)
            joined_ms = _changed_ms(core, scope, core.machine, member=1)
            times = self._known[scope, stream.machine] = (left_ms, joined_ms)
        left_ms, joined_ms = times
        came = None if left_ms is None else core.log.admitted(stream, seq)
        if left_ms is None or came is None:
            return False
        if joined_ms is not None and joined_ms > left_ms:
            return core.log.entry_at(stream, seq).stamp.ms <= left_ms
        return came[1] <= left_ms


def _changed_ms(core: "Core", scope: Scope, machine: str, *, member: int) -> int | None:
    """When the keeper of a thread last put a machine in or out; None where it never did."""
    owner = group_owner(scope)
    named: dict[str, Any] = {"name": group_name(scope), "machine": machine, "member": member}
    rows = core.tables.rows(MEMBER, writer=str(owner), order=("-t_ms",), limit=1, **named)
    found = [row.t_ms for row in rows]
    if not member:
        # A removal lasts, also beyond the end of the keeper's stream.
        found += core.membership.left_out_ms(str(owner), str(group_name(scope)), machine)
    return max(found, default=None)
