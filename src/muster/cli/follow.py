"""A run that was handed in, followed to its end.

Rule 1: the run belongs to its owner; whoever follows it may leave and come back at any time.
Rule 2: the exit code is 0 only when the run is done.
Rule 3: a terminal gets one table that moves, everything else (also a terminal that cannot move
anything) a line per change; `rich` is imported for the table alone.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from muster.cli import show
from muster.cli.context import CommandContext
from muster.cli.show.run import handed_in
from muster.cli.show.task import phase
from muster.cli.task_progress import TaskProgress
from muster.cli.text import clean, obeys, short
from muster.errors import Unreachable

NOT_DONE_EXIT: Final = 1


def follow(context: CommandContext, begun: Mapping[str, Any]) -> int:
    """Show a run as it goes, then its graph. Ctrl-C leaves it running."""
    name, owner = str(begun["run"]), str(begun["owner"])
    if not begun["fresh"]:
        context.say(f"this is run {short(name)}: {handed_in(begun)}")
    # With this machine's own runs nothing needs to be signed.
    on = "" if owner == context.ask("status", {})["name"] else owner
    asked = {"run": name} if context.json else {"run": name, "waits": True}
    changes = _heard(context, context.stream("watch", asked, on=on))
    settled = ""
    try:
        settled = _watch(context, changes)
    except KeyboardInterrupt:
        context.say(f"\nrun {short(name)} goes on; `muster runs {short(name)}` shows it, "
                 f"`muster cancel {short(name)}` stops it")  # fmt: skip
        raise
    except Unreachable as error:
        raise Unreachable(
            f"lost sight of run {short(name)} ({error}); it goes on without us, "
            f"`muster runs {short(name)}` shows it"
        ) from error
    context.show(context.ask("runs", {"run": name}, on=on))
    return 0 if settled == "done" else NOT_DONE_EXIT


def _heard(context: CommandContext, changes: Iterator[Any]) -> Iterator[Any]:
    """The changes as they come; what keeps a task waiting is said on the way."""
    for change in changes:
        if "waits" not in change:
            yield change
            continue
        what = clean(change["waits"], 200)
        what = f"waits: {what}" if change["fits"] else f"waits for a machine that fits ({what})"
        context.say(
            f"{phase(change)} {what}; `muster why {short(change['task'])}` says more, "
            "Ctrl-C leaves the run as it is"
        )


def _watch(context: CommandContext, changes: Iterator[Any]) -> str:
    """How the run ended."""
    if not context.json and obeys():
        return _table(changes)
    course = TaskProgress()
    for change in changes:
        if "settled" in change:
            return str(change["settled"])
        if context.json:
            show.put_json(change)
        else:
            print(course.line(course.heard(change)), flush=True)
    return ""


def _table(changes: Iterator[Any]) -> str:
    # On a terminal only: rich costs 60 ms, and a script has no use for it.
    from rich.live import Live  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    course = TaskProgress()

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
