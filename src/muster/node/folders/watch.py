"""Who tells that something happened in a context folder; what happened is seen by looking.

Rule 1: an event is a hint: events may be lost, so a folder is looked through on each start, after
the machine slept, and now and then.
Rule 2: where the system cannot watch (no `watchfiles`, no watches left), the folder is looked
through every 30 s, and that is told once: never a busy loop.
"""

import asyncio
import contextlib
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
# "" is the folder itself.
Hear = Callable[[frozenset[str]], None]


async def watch(
    top: Path, hear: Hear, rescan: Callable[[], None], tell: Callable[[str], None], *, deep: bool
) -> None:
    """Tell of a folder's events, for ever; `tell` says what keeps them from us, "" for nothing.

    Of what lies deeper only where `deep`.
    """
    while True:
        try:
            events = _events(top, deep=deep)
            first = asyncio.ensure_future(anext(events))
            # Made in its first turn: what happens from here on is told.
            await asyncio.sleep(0)
            rescan()
            if not first.done() or not first.exception():
                tell("")
            hear(_paths(top, await first))
            async for changes in events:
                hear(_paths(top, changes))
        except ImportError:
            tell(
                "it is looked through every 30 s, for watchfiles is not installed: "
                "pip install 'muster[context]' makes changes known at once"
            )
        except (OSError, RuntimeError) as error:
            tell(f"it is looked through every 30 s, for the system does not watch it ({error})")
        await asyncio.sleep(RESCAN_S)
        rescan()


async def _events(top: Path, *, deep: bool) -> AsyncIterator[Any]:
    from watchfiles import awatch  # noqa: PLC0415 - an extra

    async with contextlib.aclosing(
        awatch(
            top, debounce=_DEBOUNCE_MS, step=_STEP_MS, recursive=deep,
            watch_filter=lambda _, path: TEMPORARY not in path, ignore_permission_denied=True,
        )
    ) as found:  # fmt: skip
        async for changes in found:
            yield changes


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
