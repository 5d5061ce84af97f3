"""Which machine failed at what, and for how long it is put last for it.

Rule 1: a fault is a machine's, of one part of it: an agent that is absent or not logged in, its
        copy of a repository, or the machine as a whole. It is no task's fault and costs no retry.
        A missing login costs nothing at all: the task waits until one is there.
Rule 2: whoever failed comes after everybody who did not, however busy they are: a machine that
        fails at once would else take every task. Where nobody else fits it is asked all the same.
Rule 3: it is forgotten with the first success at that part, when the machine starts anew, when a
        person says "now", and by time: each fault in a row doubles the time.

Kept in memory alone: what an owner forgets by a restart costs one attempt that fails at once.
"""

from typing import Final, NamedTuple

from muster import limits

MACHINE: Final = "machine"
# The codes of refusals that a worker gives for a fault of its own, and what it is about.
CODES: Final = {
    "fault-agent": "agent", "fault-login": "agent", "fault-repo": "repo", "fault-machine": MACHINE,
}  # fmt: skip
# Of an agent that has no account there.
LOGIN: Final = "login"
# What passes by itself, or by a login: whoever refused is asked again, after so long at first. It
# is not avoided, and nothing of it is held against the task.
PASSES_MS: Final = {
    "busy": limits.BUSY_DELAY_MS, "fault-login": limits.LOGIN_DELAY_MS,
    "unpaid": limits.UNPAID_DELAY_MS,
}  # fmt: skip
# Nothing was reserved for an attempt of which somebody has to say what it may use up.
UNPAID: Final = "unpaid"
# Why a machine that is about to leave the fleet refuses a task.
LEAVING: Final = "leaving"
# Of an order that can begin nowhere, such as prerequisites that conflict: nobody's fault.
NO_START: Final = "no-start"


def code_of(part: str) -> str:
    """The refusal's code for `agent`, `LOGIN`, `repo` or `machine`, or for `NO_START`."""
    return NO_START if part == NO_START else f"fault-{part}"


def part_of(code: str, agent: str, repo: str) -> str:
    """What failed, as a key of what is held against it; "" where the refusal is none."""
    kind = CODES.get(code, "")
    return {"agent": f"agent:{agent}", "repo": f"repo:{repo}"}.get(kind, kind)


def parts(agent: str, repo: str) -> tuple[str, ...]:
    """What an attempt needs of its machine; what it succeeded with when it is done."""
    return (f"agent:{agent}", *([f"repo:{repo}"] if repo else []), MACHINE)


class Fault(NamedTuple):
    """How often in a row, and what was said last.

    `lifted`: it does not count any more, but makes the next fault count longer.
    """

    times: int
    reason: str
    lifted: bool = False

    def __str__(self) -> str:
        again = "" if self.times == 1 else f" ({self.times} times in a row)"
        return f"{self.reason}{again}"
