"""The verb that follows a run, as it goes.

Rule 1: whoever follows is told first where the run stands, then every change as it happens, and at
last its end. A reader of an older version is told tasks alone, in the form that it knows.
Rule 2: of another owner's run this machine tells what its copy of that owner's log says.
"""

from typing import Annotated, Any

from msgspec import Struct

from muster.node.tasks.followers import WATCHED, Followers, noted, waiting
from muster.node.tasks.runs import RunService
from muster.node.verb import at_once
from muster.task.fold import RunRow
from muster.verbs import history as past
from muster.verbs.declaration import Core, Daemon, Perform, Request, Stream, data, pos, verb
from muster.verbs.find import find_run
from muster.verbs.run import spec_of, tasks_of
from muster.verbs.waits import Waits


class Watch(Request, frozen=True):
    run: Annotated[str, pos("run: its id, a task of it, or the name of its spec", kind="run")]
    waits: Annotated[bool, data()] = False
    # Also phases without tasks, and signs of life; first of all what the run is.
    live: Annotated[bool, data()] = False


class RunEnd(Struct, frozen=True):
    run: str
    settled: str
    reason: str


@verb("watch", auth="local", runs="stream", group="Work", followed=True, steps=True,
      several="tells", own="run", harmless=True)  # fmt: skip
async def watch(daemon: Daemon, call: Perform, stream: Stream, ask: Watch) -> RunEnd:
    """Follow a run, or one of its tasks, to its end.

    Ctrl-C leaves it running. The exit code is 0 only where it is done. With --json every change is
    a line.

        muster watch 1ae7
        muster watch nightly/test
    """
    core = daemon.core
    row = find_run(core, ask.run).row
    run = row.run
    open_run, stop = core.part(RunService).runs.get(run), None
    told = _so_far(core, row, live=ask.live)
    if row.state == "open":

        def hear(change: dict[str, Any]) -> None:
            if ask.live or not ("taskless" in change or "stage" in change):
                stream.tell_later(change)

        stop = core.part(Followers).follow(run, hear)
        if open_run is not None:
            open_run.told |= core.part(RunService).taskless(open_run)
    try:
        for change in told:
            await stream.tell(change)
        if stop is None:
            return RunEnd(run, row.state, row.summary)
        waits = Waits(core, told if ask.waits else None)
        while True:
            change = await stream.hear(waits.in_s())
            if change is not None and "settled" in change:
                return RunEnd(**change)
            for each in [change] if change is not None else waits.look():
                await stream.tell(each)
            waits.heard(change)
    finally:
        if stop is not None:
            stop()


def _so_far(core: Core, row: RunRow, *, live: bool) -> list[dict[str, Any]]:
    """Where a run stands, as whoever begins to follow it is told."""
    tasks = at_once(tasks_of(core, row.run))
    told = [{name: getattr(view, name) for name in WATCHED} for view in tasks]
    if live:
        for each, task in zip(told, tasks, strict=True):
            if task.run != row.run:
                each["kept"] = task.run
            if each["tries"] or each["losses"]:
                each["past"] = past.reason_before(core, each["task"])
    open_run = core.part(RunService).runs.get(row.run)
    if open_run is None:
        return [*_head(core, row), *told] if live else told
    now_ms = core.now.wall_ms
    if open_run.note:
        told.insert(0, noted(next(iter(open_run.spec.phases)), open_run.note, now_ms))
    if not live:
        bases = core.part(RunService).bases.waiting(open_run).items()
        return told + [waiting(phase, reason, now_ms) for phase, reason in bases]
    taskless = core.part(RunService).taskless(open_run).items()
    told += [waiting(name, each.reason, now_ms, each.state) for name, each in taskless]
    signs = (core.part(Followers).sign(task.task) for task in tasks if task.state == "leased")
    return [*_head(core, row), *told, *(sign for sign in signs if sign)]


def _head(core: Core, row: RunRow) -> list[dict[str, Any]]:
    """What the run is: its phases in their order, and the owner's clock, for those who count."""
    document, phases = spec_of(core, row), dict[str, dict[str, Any]]()
    for name, phase in document.phases.items() if document is not None else ():
        many = "race" if phase.race is not None else "each" if phase.each is not None else ""
        phases[name] = {"after": list(phase.prerequisites), "many": many}
        if phase.review is not None:
            phases[name]["review"] = phase.review
    head = {"run": row.run, "name": row.name, "opened_ms": row.opened_ms}
    return [{**head, "now_ms": core.now.wall_ms, "phases": phases}]
