"""A run that was handed in, followed to its end.

Rule 1: the run belongs to its owner; whoever follows it may leave and come back at any time.
Rule 2: the exit code is 0 only when the run is done.
Rule 3: a terminal gets one table that moves, everything else (also a terminal that cannot move
anything) a line per change; `rich` is imported for the table alone.
"""

import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final

from muster.cli import show
from muster.cli.course import Course
from muster.cli.door import Door
from muster.cli.show.run import handed_in
from muster.cli.show.task import phase
from muster.cli.text import clean, obeys, short
from muster.errors import MusterError, Unreachable

NOT_DONE_EXIT: Final = 1
# A run on its way never waits so long; a person who waits wants to know after that.
LOOK_S: Final = 3.0


def follow(door: Door, begun: Mapping[str, Any]) -> int:
    """Show a run as it goes, then its graph. Ctrl-C leaves it running."""
    name, owner = str(begun["run"]), str(begun["owner"])
    if not begun["fresh"]:
        door.say(f"this is run {short(name)}: {handed_in(begun)}")
    on = _elsewhere(door, owner)
    changes = door.stream("watch", {"run": name}, on=on)
    settled = ""
    try:
        with Watchman(door, name, on):
            settled = _watch(door, changes)
    except KeyboardInterrupt:
        door.say(f"\nrun {short(name)} goes on; `muster runs {short(name)}` shows it, "
                 f"`muster cancel {short(name)}` stops it")  # fmt: skip
        raise
    except Unreachable as error:
        raise Unreachable(
            f"lost sight of run {short(name)} ({error}); it goes on without us, "
            f"`muster runs {short(name)}` shows it"
        ) from error
    door.show(door.ask("runs", {"run": name}, on=on))
    return 0 if settled == "done" else NOT_DONE_EXIT


class Watchman:
    """Says, while a run is followed, of which task no machine wants to know: once for each."""

    def __init__(self, door: Door, run: str, on: str) -> None:
        self._door, self._run, self._on = door, run, on
        self._told = set[str]()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._walk, daemon=True)

    def __enter__(self) -> None:
        if not self._door.json:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _walk(self) -> None:
        while not self._over.wait(LOOK_S):
            try:
                self.look()
            except MusterError:
                # Whoever follows the run hears of it there.
                continue

    def look(self) -> None:
        """One round over the tasks that wait for a machine."""
        for task in self._door.ask("tasks", {"run": self._run}):
            if task["state"] != "queued" or task["task"] in self._told:
                continue
            now = self._door.ask("why", {"task": task["task"]}, on=self._on).get("now") or {}
            found = now.get("candidates") or ()
            if self._on:
                # To ask another machine is an order, which stands in its log: once is enough.
                self._told.add(task["task"])
            if not found or self._over.is_set():
                continue
            if any(each["fits"] for each in found):
                # What happened to it before is told as it happens; this keeps it waiting now.
                what = clean(now.get("reason"), 200)
                if not what or now["reason"] == task.get("reason"):
                    continue
                waits = f"waits: {what}"
            else:
                no = ", ".join(f"{each['machine']}: {'; '.join(each['reasons'])}" for each in found)
                waits = f"waits for a machine that fits ({clean(no, 200)})"
            self._told.add(task["task"])
            self._door.say(
                f"{phase(task)} {waits}; `muster why {short(task['task'])}` says more, "
                "Ctrl-C leaves the run as it is"
            )


def _elsewhere(door: Door, owner: str) -> str:
    """The owner for `--on`, "" when it is this machine: then nothing needs to be signed."""
    here = door.ask("status", {})["name"]
    return "" if owner == here else owner


def _watch(door: Door, changes: Iterator[Any]) -> str:
    """How the run ended."""
    if not door.json and obeys():
        return _table(changes)
    course = Course()
    for change in changes:
        if "settled" in change:
            return str(change["settled"])
        if door.json:
            show.put_json(change)
        else:
            print(course.line(course.heard(change)), flush=True)
    return ""


def _table(changes: Iterator[Any]) -> str:
    # On a terminal only: rich costs 60 ms, and a script has no use for it.
    from rich.live import Live  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    course = Course()

    def picture() -> Table:
        table = Table("phase", "state", "machine", "time", "summary", box=None, pad_edge=False)
        for slot in list(course.tasks):
            table.add_row(*(Text.from_ansi(cell) for cell in course.cells(slot)))
        return table

    # Drawn anew each second, because what runs has a time that grows.
    with Live(get_renderable=picture, refresh_per_second=1, transient=True) as live:
        for change in changes:
            if "settled" in change:
                return str(change["settled"])
            course.heard(change)
            live.refresh()
    return ""
