"""A run, followed to its end.

Rule 1: the run belongs to its owner; whoever follows it may leave and come back at any time.
Rule 2: the exit code is 0 only when it is done.
Rule 3: a terminal gets one picture that is drawn anew, everything else (also a terminal that cannot
move anything) a line per change. Nobody is asked whether something happened: what happens is told,
and only clocks run here.
"""

import contextlib
import queue
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from muster.cli.context import CommandContext
from muster.cli.news import PAUSE_S, listening
from muster.cli.picture import picture
from muster.cli.run_progress import RunProgress
from muster.cli.screen import Screen
from muster.cli.show.run import handed_in
from muster.cli.show.task import phase
from muster.cli.text import clean, now_ms, obeys, short
from muster.errors import Conflict, Denied, Malformed, NotFound, Unreachable
from muster.node.host.clock import boot_ms
from muster.task.state import LIVE

NOT_DONE_EXIT: Final = 1
Changes = Iterator[Mapping[str, Any]]


def follow(context: CommandContext, begun: Mapping[str, Any], task: str = "") -> int:
    """Show a run (or one `task` of it) as it goes, then what came of it. Ctrl-C leaves it."""
    name, owner = str(begun["run"]), str(begun["owner"])
    if not begun["fresh"]:
        context.say(f"this is run {short(name)}: {handed_in(begun)}")
    try:
        # With this machine's own runs nothing needs to be signed.
        on = "" if owner == context.ask("status", {})["name"] else owner
        changes = _changes(context, name, on)
        settled = _watch(context, _until_over(changes, task) if task else changes)
    except KeyboardInterrupt:
        context.say(f"\nrun {short(name)} goes on; `muster watch {short(name)}` comes back to it, "
                 f"`muster cancel {short(name)}` ends it")  # fmt: skip
        raise
    except Unreachable as error:
        raise Unreachable(
            f"lost sight of run {short(name)} ({error}); it goes on without us, "
            f"`muster watch {short(name)}` comes back to it"
        ) from error
    if task:
        context.say(f"task {short(task)} is {settled}; `muster why {short(task)}` says more")
    else:
        context.show(_ended(context, name, on))
    return 0 if settled == "done" else NOT_DONE_EXIT


def _ended(context: CommandContext, run: str, on: str) -> Any:
    try:
        return context.ask("runs", {"run": run}, on=on)
    except (Denied, NotFound, Unreachable):
        # Whoever may not ask its owner has a copy of its log.
        return context.ask("runs", {"run": run})


def _changes(context: CommandContext, run: str, on: str) -> Changes:
    """What its owner tells; where that one cannot be asked, what this machine hears of it."""
    # A script reads what it always read; `muster watch` tells it more.
    plain = context.json and context.command.verb.name != "watch"
    asked = {"run": run} if plain else {"run": run, "waits": True, "live": True}
    while True:
        heard = False
        try:
            for told in context.stream("watch", asked, on=on):
                heard = True
                yield told
            return
        except Conflict:
            # More happened than was read: where everything stands is told anew.
            if not heard or plain:
                raise
        except Malformed:
            # An owner of an older version tells tasks alone.
            if heard or plain:
                raise
            asked = {"run": run, "waits": True}
            plain = True
        except (Denied, NotFound, Unreachable) as error:
            if not on or (heard and (plain or not isinstance(error, Unreachable))):
                raise
            on, text = "", f"as far as this machine hears of it, without signs of life: {error}"
            if heard and not context.json:
                # There is a picture by now: below it, and not through it.
                yield {"note": text}
            else:
                context.say(text)


def _until_over(changes: Changes, task: str) -> Changes:
    """What is told of one task, and how it ended in the place of how its run did."""
    for told in changes:
        if "settled" in told:
            yield told
            return
        if told.get("task") == task or "phases" in told or set(told) == {"note"}:
            # The other phases have no place in this picture.
            yield {**told, "phases": {}} if "phases" in told else told
        if told.get("task") == task and told.get("state", "queued") not in LIVE:
            yield {"settled": told["state"], "reason": told.get("reason", "")}
            return


def _watch(context: CommandContext, changes: Changes) -> str:
    """How the run ended."""
    if not context.json and context.alone and obeys():
        return _drawn(context, changes)
    progress = RunProgress()
    for told in changes:
        slot = progress.hear(told)
        if context.json:
            if not progress.end:
                context.show(told)
        elif "waits" in told:
            context.say(_waits(told))
        elif "note" in told:
            context.say(clean(told["note"], 400))
        elif slot is not None and _is_news(told):
            context.put(progress.line(slot))
    return str(progress.end.get("settled", ""))


def _is_news(told: Mapping[str, Any]) -> bool:
    """Whether a line is worth it: every phase waits at first, most without a reason of its own."""
    idle = not told.get("task") and told["state"] in ("queued", "waiting")
    return not idle or bool(told.get("reason"))


def _waits(told: Mapping[str, Any]) -> str:
    what = clean(told["waits"], 200)
    what = f"waits: {what}" if told["fits"] else f"waits for a machine that fits ({what})"
    return (
        f"{phase(told)} {what}; `muster why {short(told['task'])}` says more, "
        "Ctrl-C leaves the run as it is"
    )


def _drawn(context: CommandContext, changes: Changes) -> str:
    """The run as a picture, drawn anew when something happened and when a clock goes on."""
    progress, screen, drawn_ms = RunProgress(), Screen(sys.stdout), 0
    with listening(changes) as news:
        while not progress.end:
            # Clocks are drawn when their second is over, all at once.
            with contextlib.suppress(queue.Empty):
                if not _take(progress, news.get(timeout=1 - now_ms() % 1000 / 1000)):
                    break
                # After a quiet moment a change is on the screen at once.
                time.sleep(max(0.0, PAUSE_S - (boot_ms() - drawn_ms) / 1000))
                while _take(progress, news.get_nowait()):
                    pass
            columns, rows = screen.size()
            screen.draw(picture(progress, columns - 1, rows))
            drawn_ms = boot_ms()
    screen.wipe()
    if progress.note:
        # The picture went, and with it what was said there.
        context.say(clean(progress.note, 400))
    return str(progress.end.get("settled", ""))


def _take(progress: RunProgress, told: Any) -> bool:
    """Whether there may be more. Raises: what ended the stream."""
    if isinstance(told, BaseException):
        raise told
    if told:
        progress.hear(told)
    return told is not None and not progress.end
