"""Who tells that something happened in a context folder; what happened is seen by looking.

Rule 1: an event is a hint: events may be lost, so a folder is looked through on each start, after
the machine slept, and now and then.
Rule 2: where the system cannot watch (no `watchfiles`, no watches left), the folder is looked
through every 30 s, and that is told once: never a busy loop.
Rule 3: to begin to watch takes as long as there are folders, so it is done in a thread. No link to
a folder is followed, also where one is moved in later: whoever makes one to `/` would have the
whole disk watched. So each folder is watched by its own name.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any, Final

from muster.context.path import TEMPORARY
from muster.node.host import clock

# A burst is one batch; what stands alone is told within two steps.
_DEBOUNCE_MS: Final = 200
# Each of them wakes a thread, also where nothing happens.
_STEP_MS: Final = 30
RESCAN_S: Final = 30.0
_ANEW_S: Final = 0.2
# Events that the kernel dropped leave no trace; what they told of is found then.
SAFETY_S: Final = 300.0
_SLEEP_LOOK_S: Final = 5.0
_SLEPT_MS: Final = 10_000
# So many new folders have a watch of their own, of which a system has some hundred.
_MORE_MAX: Final = 8
# Each looks some sixty times a second for what the system told: when nothing happens for so long,
# one does it for all of them.
_JOINED_AFTER_S: Final = 5.0
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
            # The folder is looked through instead, and the person is told how to get more.
            tell(
                "it is looked through every 30 s, for watchfiles is not installed: "
                "pip install 'muster[context]' makes changes known at once"
            )
        except (OSError, RuntimeError) as error:
            tell(f"it is looked through every 30 s, for the system does not watch it ({error})")
        else:
            # There are other folders: they are to be watched as well. Never a busy loop.
            await asyncio.sleep(_ANEW_S)
            continue
        await asyncio.sleep(RESCAN_S)


async def _events(top: Path, *, deep: bool) -> AsyncIterator[Any]:
    """What happens in a folder, None when the watch has begun; it ends when it must begin anew."""
    import watchfiles  # noqa: PLC0415, F401 - an extra, which is missed here and in no thread

    loop, heard = asyncio.get_running_loop(), asyncio.Queue[Any]()
    ours: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = []
    ended = threading.Event()

    async def watching() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                await _watched_in(group, top, say, deep=deep)
        except* (OSError, RuntimeError) as found:
            errors = list(found.exceptions)
        else:
            return
        # What is gone by now is no trouble of the system's: it begins anew.
        if not (_is_folder(top) and all(isinstance(each, FileNotFoundError) for each in errors)):
            raise errors[0]

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
                # The watch was ended from outside, which `_END` says.
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
            # Its loop has ended, and the watch with it.
            with contextlib.suppress(RuntimeError):
                its_loop.call_soon_threadsafe(task.cancel)


class _Anew(FileNotFoundError):
    """There are so many new folders that one watch for all of them is to be made."""


async def _watched_in(
    group: asyncio.TaskGroup, top: Path, say: Callable[[Any], None], *, deep: bool
) -> None:
    """Say what happens in a folder, and in each that is made in it, for ever."""
    from watchfiles import Change, awatch  # noqa: PLC0415 - an extra

    # The watches that there are; what they watch; when something was told last.
    watches, seen, last_s = list[asyncio.Task[None]](), set[Path](), 0.0

    async def of(tops: list[Path], told: Any, before: Iterable[asyncio.Task[None]]) -> None:
        events = awatch(
            *tops, debounce=_DEBOUNCE_MS, step=_STEP_MS, recursive=False,
            watch_filter=lambda _, path: TEMPORARY not in path, ignore_permission_denied=True,
        )  # fmt: skip
        async with contextlib.aclosing(events):
            first = asyncio.ensure_future(anext(events))
            try:
                # It is made in its first turn.
                await asyncio.sleep(0)
                if not first.done() or not first.exception():
                    say(told)
                    for each in before:
                        each.cancel()
                if deep:
                    # What was made between the look for them and the watch: nobody tells of it.
                    still = [path for path in tops if path == top or _is_folder(path)]
                    begin({each for path in still for each in watched(path, deep=True)} - seen)
                found(await first)
            finally:
                # What is closed must not be in the middle of a turn.
                first.cancel()
                await asyncio.wait([first])
            async for changes in events:
                found(changes)

    def found(changes: Any) -> None:
        nonlocal last_s
        last_s = asyncio.get_running_loop().time()
        say(changes)
        seen.difference_update(Path(path) for how, path in changes if how == Change.deleted)
        made = [Path(path) for how, path in changes if how == Change.added] if deep else []
        begin({each for path in made if _is_folder(path) for each in watched(path, deep=True)})

    def begin(fresh: set[Path]) -> None:
        if not fresh:
            return
        if len(watches) > _MORE_MAX:
            raise _Anew(top)
        seen.update(fresh)
        # What was made in them before they were watched is seen by a second look.
        again = {(Change.added, str(each)) for each in fresh}
        watches.append(group.create_task(of(sorted(fresh), again, ())))

    def begin_all(told: Any) -> None:
        """One watch for all of them; those that there were end when it stands."""
        every, before = watched(top, deep=deep), [*watches]
        seen.clear()
        seen.update(every)
        watches[:] = [group.create_task(of(every, told, before))]

    begin_all(None)
    while True:
        await asyncio.sleep(_JOINED_AFTER_S)
        quiet_s = asyncio.get_running_loop().time() - last_s
        if len(watches) > 1 and quiet_s >= _JOINED_AFTER_S:
            begin_all(frozenset())


def watched(top: Path, *, deep: bool) -> list[Path]:
    """The folders that are to be watched, each by its name.

    Whoever watches all that lies below one follows links, also those that are moved in later.
    """
    found, todo = [top], [top] if deep else []
    while todo:
        try:
            with os.scandir(todo.pop()) as inner:
                below = [Path(each.path) for each in inner if each.is_dir(follow_symlinks=False)]
        except OSError:
            # The look through all files names a folder that nobody can look into.
            continue
        found += below
        todo += below
    return found


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


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
