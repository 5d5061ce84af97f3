"""How a run goes, as whoever follows it reads it: where tasks are, since when, and what was before.

Rule 1: a machine that was lost and a try that failed are said with their reason: a task that is
queued again looks like one that never began.
Rule 2: where something went wrong the reason comes first, then what an agent said of it.
Rule 3: moments are those of the owner's clock; what is counted from them is counted by ours that
never jumps, from how far apart the two were when the owner first spoke.
"""

from collections.abc import Mapping
from typing import Any, Final

from muster.cli.show.task import WAITS_FOR_YOU, Slot, outcome, phase, round_rejected
from muster.cli.text import abbreviated, clean, now_ms, short, span, state
from muster.node.host.clock import boot_ms
from muster.task.state import LIVE

Change = Mapping[str, Any]
# How far an attempt is, where that is not just at work.
_STAGES: Final = ("fetching", "checking", "delivering")


class RunProgress:
    """The newest of each task of a run, and of each phase that has none."""

    def __init__(self) -> None:
        # What the run is, and how it ended; nothing before that is known.
        self.head: Change = {}
        self.end: Change = {}
        # What a person should know of how it began.
        self.note = ""
        self.tasks: dict[Slot, Change] = {}
        # Why a task left the machine before, and what keeps it from one now.
        self.left: dict[Slot, str] = {}
        self.waits: dict[Slot, str] = {}
        self._slots: dict[str, Slot] = {}
        self._began: dict[Slot, int] = {}
        self._signs: dict[Slot, tuple[str, int]] = {}
        # Until it speaks, its clock is taken for ours.
        self._ahead_ms = now_ms() - boot_ms()

    def hear(self, told: Change) -> Slot | None:
        """What was told; the place of a task that changed, None for everything else."""
        about = self._slots.get(str(told.get("task", "")))
        if "phases" in told:
            self.head, self._ahead_ms = told, int(told["now_ms"]) - boot_ms()
        elif "settled" in told:
            self.end = told
        elif "note" in told:
            self.note = str(told["note"])
        elif "waits" in told:
            what = clean(told["waits"], 200)
            if about is not None:
                self.waits[about] = what if told["fits"] else f"no machine fits ({what})"
        elif "stage" in told:
            if about is not None:
                self._signs[about] = (str(told["stage"]), int(told["heard_ms"]))
        else:
            return self._changed(told)
        return None

    def _changed(self, change: Change) -> Slot | None:
        slot = (str(change["phase"]), str(change.get("instance", "")))
        if change.get("task"):
            # Before it had tasks, the phase itself may have waited; a first round stays.
            if not self.tasks.get((slot[0], ""), {}).get("task"):
                self.tasks.pop((slot[0], ""), None)
            self._slots[str(change["task"])] = slot
        elif any(known == slot[0] and each.get("task") for (known, _), each in self.tasks.items()):
            return None
        if left := _left(change, self.tasks.get(slot)):
            self.left[slot] = left
        self.tasks[slot] = change
        self.waits.pop(slot, None)
        if change["state"] == "leased":
            self._began[slot] = int(change.get("changed_ms") or 0)
            self._signs[slot] = ("", self._began[slot])
        else:
            self._signs.pop(slot, None)
        return slot

    def elapsed_ms(self) -> int | None:
        """How long the run goes."""
        return self._since_ms(int(self.head["opened_ms"])) if self.head else None

    def _since_ms(self, then_ms: int) -> int:
        return max(0, boot_ms() + self._ahead_ms - then_ms)

    def took_ms(self, slot: Slot) -> int | None:
        """How long its machine has had it, or had it; None where nobody has."""
        change, began = self.tasks[slot], self._began.get(slot)
        if change["state"] == "leased":
            return self._since_ms(began) if began else None
        if change["state"] in LIVE or not change.get("changed_ms") or not change.get("task"):
            return None
        start = began or change.get("opened_ms")
        return max(0, int(change["changed_ms"]) - int(start)) if start else None

    def heard_ms_ago(self, slot: Slot) -> int | None:
        """How long ago the machine that has it was heard of."""
        sign = self._signs.get(slot)
        return None if sign is None else self._since_ms(sign[1])

    def word(self, slot: Slot) -> str:
        """How a task stands, as people say it."""
        change = self.tasks[slot]
        found = str(change["state"])
        if found == "leased":
            stage = self._signs.get(slot, ("", 0))[0]
            return stage if stage in _STAGES else "running"
        if found == "waiting" and change.get("task"):
            return WAITS_FOR_YOU
        if found == "queued" and change.get("task") and slot in self.left:
            return "taken over" if self.left[slot].startswith("taken over") else "retrying"
        return "rejected" if self.follows(slot) else clean(found)

    def follows(self, slot: Slot) -> str:
        """What follows on a round that reviewers rejected; "" of every other task."""
        return round_rejected(slot, self.tasks, self.head.get("phases", {}))

    def line(self, slot: Slot) -> str:
        """The newest change of a task as a line."""
        change = self.tasks[slot]
        where = f" on {clean(change['machine'])}" if change.get("machine") else ""
        word = state(change["state"])
        if change["state"] == "queued":
            where, word = "", f"{word} again" if before(change) else word
        took = self.took_ms(slot) if change["state"] not in LIVE else None
        after = f" after {span(took)}" if took is not None else ""
        return f"{phase(change)}: {word}{where}{after}  {said(change)}".rstrip()


def _left(change: Change, old: Change | None) -> str:
    """Why a task is queued again; "" where it is not."""
    if change.get("past"):
        taken = "taken over from" if int(change.get("losses") or 0) else "failed before on"
        return f"{taken} {clean(abbreviated(change['past']), 200)}"
    reason = clean(abbreviated(str(change.get("reason") or "")), 200)
    if change["state"] != "queued" or not change.get("task") or not reason:
        return ""
    machine, was = clean(change.get("machine")), old or {}
    if int(change.get("losses") or 0) > int(was.get("losses") or 0):
        return f"taken over from {machine}: {reason}"
    if (tries := int(change.get("tries") or 0)) > int(was.get("tries") or 0):
        return f"try {tries} failed on {machine}: {reason}"
    return f"{machine} would not: {reason}" if machine else ""


def said(change: Change) -> str:
    """What came of it; of a phase that waits for a person, how to read and to answer it."""
    if change["state"] == "waiting" and change.get("task"):
        task = short(change["task"])
        return f"read `muster why {task}`, answer {answer(change)}"
    text = clean(outcome(change), 80)
    if change.get("kept"):
        return f"kept from run {short(change['kept'])}: {text}"
    past = before(change)
    return f"({past})  {text}".rstrip() if past else text


def answer(change: Change, run: str = "") -> str:
    """What a person types to decide this task: by its place in a run, else by its id."""
    # Not by the run's name: that is the newest run's, and a yes is for the one that is shown.
    named = f"{short(run)}/{clean(change['phase'])}" if run and not change.get("instance") else ""
    return f"`muster decide {named or short(change['task'])} yes|no`"


def before(change: Change) -> str:
    """What happened to the task before: machines that it was taken from, tries that failed."""
    losses, tries = int(change.get("losses") or 0), int(change.get("tries") or 0)
    if change["state"] == "failed" and tries:
        # The last one is why it failed.
        tries -= 1
    lost = f"taken from {losses} machine{'s' * (losses > 1)}" if losses else ""
    failed = f"{tries} tr{'ies' if tries > 1 else 'y'} failed" if tries else ""
    return ", ".join(part for part in (lost, failed) if part)
