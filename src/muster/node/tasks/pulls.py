"""When mirrors are pulled from the machines that keep the repositories.

Rule 1: one is pulled when it is wanted first, on each new link to its keeper, and whenever that
says that something moved; while it is pulled, and something moves, once more.
Rule 2: one that cannot be pulled is tried again, less and less often.
Rule 3: one at a time of a machine, and of the machines the one first that had no turn for longest.
Rule 4: a pull has little time at first, and twice as much each time that it failed. A machine of
which the last pull failed has its turns apart from the others: one that hangs keeps nobody waiting.
"""

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from muster.limits import GIT_ADD_MS_MAX
from muster.log.stream import MachineId
from muster.node.tasks.behind import Behind

if TYPE_CHECKING:
    from muster.node.core import Core

_RETRY_MS: Final = 2_000
_RETRY_MS_MAX: Final = 5 * 60_000
# A repository in use is pulled again and again: no more at once than the disk bears.
_PULLS_MAX: Final = 2
# So many beside, of machines of which the last one failed: what hangs costs the disk nothing.
_FAILING_MAX: Final = 4
# Most repositories, and what moved in any, come in seconds; the largest one at the ninth try.
_TIME_MS: Final = 2 * 60_000


class Mirror(NamedTuple):
    """A repository, and the machine that keeps it."""

    machine: str
    repo: str


class Pulls:
    """See the top of this file."""

    def __init__(self, core: "Core", behind: Behind) -> None:
        self._core, self._behind = core, behind
        # What is to be mirrored, and when of it the next pull is due.
        self._wanted: set[Mirror] = set()
        self._due_ms: dict[Mirror, int] = {}
        # By mirror that is pulled now whether the last pull of its machine had failed then.
        self._busy: dict[Mirror, bool] = {}
        self._failing: set[str] = set()
        # When each machine had its last turn, by number.
        self._turns: dict[str, int] = {}
        self._turn = 0
        self._tries: Counter[Mirror] = Counter()

    @property
    def needs_tick(self) -> bool:
        return bool(self._due_ms)

    @property
    def is_due(self) -> bool:
        """Whether something could be pulled now."""
        now_ms = self._core.now.boot_ms
        return any(due_ms <= now_ms for due_ms in self._due_ms.values())

    def want(self, wanted: set[Mirror]) -> None:
        """These are to be mirrored, and no others."""
        self._due_ms |= dict.fromkeys(wanted - self._wanted, self._core.now.boot_ms)
        self._wanted = wanted

    def came(self, machine: str) -> None:
        """There is a new link to a machine."""
        for each in self._wanted:
            if each.machine == machine:
                self._due_ms[each] = self._core.now.boot_ms
                self._behind.moved(each)

    def moved(self, each: Mirror) -> None:
        """Its keeper says that something moved."""
        if each not in self._wanted:
            return
        self._behind.moved(each)
        # While it fails it waits for its turn.
        if not self._tries[each]:
            self._due_ms[each] = self._core.now.boot_ms

    def begin(self) -> list[Mirror]:
        """What is to be pulled now."""
        now_ms, found = self._core.now.boot_ms, list[Mirror]()
        dues = sorted(self._due_ms.items(), key=lambda due: self._turns.get(due[0].machine, 0))
        for each, due_ms in dues:
            if each not in self._wanted:
                del self._due_ms[each]
            elif due_ms <= now_ms and self._may_pull(each):
                # Without a link nothing is tried: on the next one it is due.
                del self._due_ms[each]
                if self._core.link_to(MachineId(each.machine)) is not None:
                    self._busy[each] = each.machine in self._failing
                    self._turn += 1
                    self._turns[each.machine] = self._turn
                    self._behind.began(each)
                    found.append(each)
        return found

    def _may_pull(self, each: Mirror) -> bool:
        failing = each.machine in self._failing
        beside = sum(was_failing == failing for was_failing in self._busy.values())
        is_free = all(busy.machine != each.machine for busy in self._busy)
        return is_free and beside < (_FAILING_MAX if failing else _PULLS_MAX)

    def time_ms(self, each: Mirror) -> int:
        """How long a pull may take."""
        return min(_TIME_MS << min(self._tries[each], 16), GIT_ADD_MS_MAX)

    def ended(self, each: Mirror, *, whole: bool) -> None:
        """A pull ended."""
        self._busy.pop(each, None)
        self._behind.ended(each, whole=whole)
        if whole:
            self._tries.pop(each, None)
            self._failing.discard(each.machine)
            return
        self._failing.add(each.machine)
        wait_ms = min(_RETRY_MS << min(self._tries[each], 16), _RETRY_MS_MAX)
        self._tries[each] += 1
        self._due_ms[each] = self._core.now.boot_ms + wait_ms
