"""How a task goes, as whoever follows its run reads it: where, since when, and what went before.

Rule 1: a machine that was lost and a try that failed are said: a task that is queued again looks
like one that never began.
Rule 2: where something went wrong the reason comes first, then what an agent said of it.
"""

from collections.abc import Mapping
from typing import Any

from muster.cli.show.task import outcome, phase
from muster.cli.text import clean, now_ms, short, span, state

Change = Mapping[str, Any]
Slot = tuple[str, str]


class TaskProgress:
    """The newest of each task of a run, and since when each has been with its machine."""

    def __init__(self) -> None:
        self.tasks: dict[Slot, Change] = {}
        self._began: dict[Slot, int] = {}

    def heard(self, change: Change) -> Slot:
        """A task changed; its place in the run."""
        slot = (str(change["phase"]), str(change.get("instance", "")))
        if change.get("task"):
            # Before it had tasks, the phase itself may have waited.
            self.tasks.pop((slot[0], ""), None)
        self.tasks[slot] = change
        if change["state"] == "leased":
            self._began[slot] = int(change.get("changed_ms") or 0)
        return slot

    def took_ms(self, slot: Slot, now_ms: int) -> int | None:
        """How long its machine has had it, or had it; None where nobody has."""
        change, began = self.tasks[slot], self._began.get(slot)
        if change["state"] == "leased":
            return max(0, now_ms - began) if began else None
        if change["state"] in ("queued", "waiting") or not change.get("changed_ms"):
            return None
        start = began or change.get("opened_ms")
        return max(0, int(change["changed_ms"]) - int(start)) if start else None

    def line(self, slot: Slot) -> str:
        """The newest change of a task as a line."""
        change = self.tasks[slot]
        where = f" on {clean(change['machine'])}" if change.get("machine") else ""
        word = state(change["state"])
        if change["state"] == "queued":
            where, word = "", f"{word} again" if before(change) else word
        ended = change["state"] not in ("leased", "queued", "waiting")
        took = self.took_ms(slot, now_ms()) if ended else None
        after = f" after {span(took)}" if took is not None else ""
        return f"{phase(change)}: {word}{where}{after}  {said(change)}".rstrip()

    def cells(self, slot: Slot) -> tuple[str, str, str, str, str]:
        """The newest change of a task as a row of the table that moves."""
        change, took = self.tasks[slot], self.took_ms(slot, now_ms())
        return (
            phase(change),
            state(change["state"]),
            clean(change.get("machine")) if change["state"] != "queued" else "",
            span(took) if took is not None else "",
            said(change),
        )


def said(change: Change) -> str:
    """What came of it; of a phase that waits for a person, how to read and to answer it."""
    if change["state"] == "waiting":
        task = short(change["task"])
        return f"read `muster why {task}`, answer `muster decide {task} yes|no`"
    text = clean(outcome(change), 80)
    past = before(change)
    return f"({past})  {text}".rstrip() if past else text


def before(change: Change) -> str:
    """What happened to the task before: machines that it was taken from, tries that failed."""
    losses, tries = int(change.get("losses") or 0), int(change.get("tries") or 0)
    if change["state"] == "failed" and tries:
        # The last one is why it failed.
        tries -= 1
    lost = f"taken from {losses} machine{'s' * (losses > 1)}" if losses else ""
    failed = f"{tries} tr{'ies' if tries > 1 else 'y'} failed" if tries else ""
    return ", ".join(part for part in (lost, failed) if part)
