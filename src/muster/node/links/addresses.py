"""Several addresses of one machine over one channel: the first link that stands."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from muster.channel.base import Link
from muster.errors import MusterError

# How long an address has to answer before the next one is dialled beside it.
NEXT_S: Final = 1.0


async def first_that_stands(
    addresses: Sequence[str],
    dial: Callable[[str], Coroutine[Any, Any, Link]],
    is_over: Callable[[MusterError], bool],
) -> tuple[Link, str] | None:
    """The link, and the address at which it stands; what else was dialled for it is given up.

    `is_over` hears why a dial failed, and says whether the addresses that are left need no try.
    """
    left, dials = deque(addresses), dict[asyncio.Task[Link], str]()
    try:
        while left or dials:
            if left:
                address = left.popleft()
                dials[asyncio.create_task(dial(address))] = address
            # One that says nothing costs a second and no more, as it is with channels.
            patience_s = NEXT_S if left else None
            done, _ = await asyncio.wait(dials, timeout=patience_s, return_when=_FIRST)
            for task in done:
                address = dials.pop(task)
                try:
                    return task.result(), address
                except MusterError as error:
                    if is_over(error):
                        left.clear()
    finally:
        for task in dials:
            task.cancel()
        for each in await asyncio.gather(*dials, return_exceptions=True):
            if not isinstance(each, BaseException):
                await each.close("another address answered before")
    return None


_FIRST: Final = asyncio.FIRST_COMPLETED
