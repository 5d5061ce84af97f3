"""Who tells that something happened in a context folder; what happened is seen by looking.

Rule 1: an event is a hint: events may be lost, so a folder is looked through on each start, after
the machine slept, and now and then.
Rule 2: where the system cannot watch (no `watchfiles`, no watches left), the folder is looked
through every 30 s, and that is told once: never a busy loop.
Rule 3: to begin to watch takes as long as there are folders, so it is done in a thread. No link to
a folder is followed: whoever makes one to `/` would have the whole disk watched.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

from muster.context.path import TEMPORARY
from muster.node.host import clock

# A burst is one batch; what stands alone is told within the step.
_DEBOUNCE_MS: Final = 200
_STEP_MS: Final = 15
RESCAN_S: Final = 30.0
# Events that the kernel dropped leave no trace; what they told of is found then.
SAFETY_S: Final = 300.0
_SLEEP_LOOK_S: Final = 5.0
_SLEPT_MS: Final = 10_000
# What a watch says last.
_END: Final = object()
# "" is the folder itself.
Hear = Callable[[frozenset[str]], None]


async def watch(
    top: Path, hear: Hear, rescan: Callable[[], None], tell: Callable[[str], None], *, deep: bool
) -> None:
    """Tell of a folder's events, for ever; `tell` says what keeps them from us, "" for nothing.

    Of what lies deeper only where `deep`.
    """
    while True:
        rescan()
        try:
            async for changes in _events(top, deep=deep):
                if changes is None:
                    # What happens from here on is told; what happened before is seen now.
                    tell("")
                    rescan()
                else:
                    hear(_paths(top, changes))
        except ImportError:
            tell(
                "it is looked through every 30 s, for watchfiles is not installed: "
                "pip install 'muster[context]' makes changes known at once"
            )
        except (OSError, RuntimeError) as error:
            tell(f"it is looked through every 30 s, for the system does not watch it ({error})")
        else:
            # There is another folder: it is to be watched as well.
            continue
        await asyncio.sleep(RESCAN_S)


async def _events(top: Path, *, deep: bool) -> AsyncIterator[Any]:
    """What happens in a folder, None when the watch has begun; it ends when it must begin anew."""
    from watchfiles import awatch  # noqa: PLC0415 - an extra

    loop, heard = asyncio.get_running_loop(), asyncio.Queue[Any]()
    ours: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = []
    ended = threading.Event()

    async def watching() -> None:
        tops, recursive = watched(top, deep=deep)
        known = frozenset(map(str, tops))
        events = awatch(
            *tops, debounce=_DEBOUNCE_MS, step=_STEP_MS, recursive=recursive,
            watch_filter=lambda _, path: TEMPORARY not in path, ignore_permission_denied=True,
        )  # fmt: skip
        async with contextlib.aclosing(events):
            first = asyncio.ensure_future(anext(events))
            # It is made in its first turn.
            await asyncio.sleep(0)
            if not first.done() or not first.exception():
                say(None)
            say(await first)
            async for changes in events:
                say(changes)
                if not recursive and deep and _has_new(changes, known):
                    return

    def say(what: Any) -> None:
        with contextlib.suppress(RuntimeError):
            # The daemon may have ended.
            loop.call_soon_threadsafe(heard.put_nowait, what)

    def work() -> None:
        async def begun() -> None:
            task = asyncio.ensure_future(watching())
            ours.append((asyncio.get_running_loop(), task))
            if ended.is_set():
                task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                pass
            except (OSError, RuntimeError) as error:
                say(error)
            say(_END)

        asyncio.run(begun())

    threading.Thread(target=work, name="muster-watch", daemon=True).start()
    try:
        while (what := await heard.get()) is not _END:
            if isinstance(what, Exception):
                raise what
            yield what
    finally:
        ended.set()
        for its_loop, task in ours:
            with contextlib.suppress(RuntimeError):
                its_loop.call_soon_threadsafe(task.cancel)


def watched(top: Path, *, deep: bool) -> tuple[list[Path], bool]:
    """What is to be watched, and whether all that lies below as well.

    Where a link leads to a folder each folder is named: whoever watches all below follows links.
    """
    if not deep:
        return [top], False
    found, todo, has_link = [top], [top], False
    while todo:
        try:
            with os.scandir(todo.pop()) as inner:
                for each in inner:
                    if each.is_dir(follow_symlinks=False):
                        found.append(Path(each.path))
                        todo.append(Path(each.path))
                    elif each.is_symlink() and each.is_dir():
                        has_link = True
        except OSError:
            continue
    return (found, False) if has_link else ([top], True)


def _has_new(changes: Any, known: frozenset[str]) -> bool:
    return any(path not in known and os.path.isdir(path) for _, path in changes)


def _paths(top: Path, changes: Any) -> frozenset[str]:
    prefix = f"{top}/"
    return frozenset(
        path.removeprefix(prefix) if path.startswith(prefix) else "" for _, path in changes
    )


async def rescans(rescan: Callable[[], None]) -> None:
    """Look through the folders after the machine slept, and now and then; for ever."""
    loop = asyncio.get_running_loop()
    awake_s, last_s = clock.boot_ms() / 1000 - loop.time(), loop.time()
    while True:
        await asyncio.sleep(_SLEEP_LOOK_S)
        now_s = clock.boot_ms() / 1000 - loop.time()
        if (now_s - awake_s) * 1000 > _SLEPT_MS or loop.time() - last_s > SAFETY_S:
            last_s = loop.time()
            rescan()
        awake_s = now_s
