"""Whoever looks at a list with `--watch` is told that what it shows has changed, and asks anew.

Rule 1: what is told is a sort of thing (`task`, `message`, `link`: the first part of the kinds of
entries), never which one, so that it says nothing which the list does not.
Rule 2: it is told at once, then a few times a second at most, however much happens.
"""

import asyncio
from typing import Annotated, Final

from msgspec import Struct

from muster.limits import TAIL_ENTRIES_MAX
from muster.node.services.tail import Arrival, Tail
from muster.verbs.declaration import Daemon, Perform, Request, Stream, Words, data, verb

# Nobody reads a list more often.
PAUSE_S: Final = 0.25


class Follow(Request, frozen=True):
    sorts: Annotated[Words, data()] = ()


class Changed(Struct, frozen=True):
    sorts: list[str]


@verb("changes", auth="local", runs="stream", on="one", followed=True)
async def changes(daemon: Daemon, call: Perform, stream: Stream, ask: Follow) -> Changed:
    """That things of these sorts came or changed here, as it happens; first, that it is followed.

    To whoever fell far behind everything has changed.
    """
    log, part, wanted = daemon.core.log, daemon.core.part(Tail), set(ask.sorts)
    number, links = part.number, set[str]()

    def hear(link: Arrival | None) -> None:
        links.update([link.kind.partition(".")[0]] if link else [])
        # All that waits is one word, so nobody who is slow misses any.
        stream.tell_later(True)

    part.followers.append(hear)
    try:
        await stream.tell(Changed([]))
        while True:
            await stream.hear()
            entries, read = log.admitted_since(number, part.number, TAIL_ENTRIES_MAX)
            behind, number = read < part.number, part.number
            found = {each.header.kind.partition(".")[0] for each in entries} | links
            links.clear()
            if shown := sorted(wanted if behind else wanted & found):
                await stream.tell(Changed(shown))
                await asyncio.sleep(PAUSE_S)
    finally:
        part.followers.remove(hear)
