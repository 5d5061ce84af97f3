"""Progress of a call that waits: what happens meanwhile to the runs that it waits for.

Rule: only where the client asked for progress. What cannot be followed is waited for all the same.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from mcp.server.context import ServerRequestContext
from mcp.shared.jsonrpc_dispatcher import progress_token_from_params

from muster.door.daemon import Daemon
from muster.errors import MusterError

# Chosen arbitrarily: more at once tell nobody anything.
_FOLLOWED_MAX: Final = 8


@asynccontextmanager
async def progress(
    daemon: Daemon, args: Mapping[str, Any], context: ServerRequestContext[Any, Any]
) -> AsyncIterator[None]:
    """Tell of every change while this block waits for what `args` names."""
    named = args.get("what")
    wanted = progress_token_from_params(context.params) is not None
    whats = [str(each) for each in named][:_FOLLOWED_MAX] if isinstance(named, list) else []
    told = _Told(context)
    tasks = [asyncio.create_task(_follow(daemon, what, told)) for what in whats if wanted]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Told:
    """How far all of it is: a number that only rises, which is what the protocol wants."""

    def __init__(self, context: ServerRequestContext[Any, Any]) -> None:
        self._context, self._changes = context, 0

    async def change(self, change: Mapping[str, Any]) -> None:
        if "state" not in change:
            return
        self._changes += 1
        text = f"{change.get('phase') or change.get('task') or ''}: {change['state']}"
        await self._context.session.report_progress(self._changes, None, text)


async def _follow(daemon: Daemon, what: str, told: _Told) -> None:
    # A message, or a task of no run: nothing happens to it but its end.
    with suppress(MusterError):
        async for change in daemon.stream("watch", {"run": what}):
            await told.change(change)
