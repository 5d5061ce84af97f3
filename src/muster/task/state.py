"""How a task lives.

Rule 1: whatever changes a task's state is in TRANSITIONS; docs/spec/task.md draws the same table.
Rule 2: only entries in the owner's stream change a state. A worker's entry is an input: the owner
        answers it with an entry of its own and cites it.
Rule 3: a settled task never changes. What comes later is `task.late`, which changes no state.
Rule 4: a loss of the infrastructure and a failure of the task have separate counters: a dying
        machine does not use up the task's retries, a failing task does not blame machines.

A task is queued (it wants a machine) or waiting (it wants a person). Assigned, it is leased: one
machine may try, under one epoch. The lease ends with a result, a refusal, or silence; then the
task is settled or queued again under a higher epoch.
"""

from typing import Final, Literal

State = Literal["", "queued", "waiting", "leased", "done", "failed", "lost", "cancelled"]

# (state, event) -> state; "" is a task that does not exist yet. An event is the entry's kind,
# with the outcome where one kind leads to several states.
TRANSITIONS: Final[dict[tuple[State, str], State]] = {
    ("", "task.open"): "queued",
    ("", "task.open:human"): "waiting",
    ("queued", "task.assign"): "leased",
    ("queued", "task.settle:failed"): "failed",
    ("queued", "task.cancel"): "cancelled",
    ("waiting", "task.settle:done"): "done",
    ("waiting", "task.settle:failed"): "failed",
    ("waiting", "task.cancel"): "cancelled",
    ("leased", "task.settle:done"): "done",
    ("leased", "task.settle:failed"): "failed",
    ("leased", "task.settle:lost"): "lost",
    ("leased", "task.retry"): "queued",
    ("leased", "task.expire"): "queued",
    ("leased", "task.cancel"): "cancelled",
}

LIVE: Final[frozenset[State]] = frozenset({"queued", "waiting", "leased"})
RUN_TRANSITIONS: Final[dict[tuple[str, str], str]] = {
    ("", "run.open"): "open",
    ("open", "run.settle:done"): "done",
    ("open", "run.settle:failed"): "failed",
    ("open", "run.settle:cancelled"): "cancelled",
}
# As much as is said of a task in the reason of its phase.
_WHY_CHARS_MAX: Final = 300


def why_of(state: State, reason: str, summary: str) -> str:
    """Why a task came to nothing, in one line; "" where it did not."""
    return " ".join((reason or summary).split())[:_WHY_CHARS_MAX] if state == "failed" else ""
