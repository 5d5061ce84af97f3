"""Tells people of a daemon that ended and does not come back by itself; systemd runs it then.

    python -m muster.node.fallen HOME       # with what systemd.exec(5) says of the end

Rule 1: the daemon is not there, and perhaps no other machine: nothing here needs either.
Rule 2: an end that a person has to mend is told at once; one after which it is started again when
        it has come often, and then not again for a while. That it was told to end is nobody's news.
Rule 3: what does not take it stands in the journal, by its name and without its address.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import DecodeError, Struct
from msgspec import json as fast

from muster.atomic_file import write_file
from muster.errors import MusterError
from muster.limits import (
    SERVICE_FAILURES,
    SERVICE_FAILURES_MS,
    SERVICE_TOLD_AGAIN_MS,
)
from muster.node.host import clock
from muster.node.host.home import Home
from muster.node.host.notify_store import NotifyStore
from muster.node.host.unit import FINAL
from muster.node.services.notifier import deliver
from muster.node.supervisor import say

FILE: Final = "fallen.json"


class Past(Struct, frozen=True):
    """When it failed, as far as that counts still, and when that was told."""

    failed_ms: tuple[int, ...] = ()
    told_ms: int = 0


def after(past: Past, now_ms: int) -> tuple[Past, bool]:
    """With one more failure, and whether people are to be told of so many."""
    since = now_ms - SERVICE_FAILURES_MS
    failed = (*(each for each in past.failed_ms if since < each <= now_ms), now_ms)
    failed = failed[-SERVICE_FAILURES:]
    told_ms = past.told_ms if past.told_ms <= now_ms else 0
    if len(failed) < SERVICE_FAILURES or now_ms - told_ms < SERVICE_TOLD_AGAIN_MS:
        return Past(failed, told_ms), False
    return Past(failed, now_ms), True


def text(home: Home, env: Mapping[str, str], now_ms: int) -> tuple[str, str] | None:
    """Title and body of what is to be told of an end, None for nothing. Raises: MusterError."""
    result, status = env.get("SERVICE_RESULT", "success"), env.get("EXIT_STATUS", "")
    if result == "success":
        return None
    host = socket.gethostname()
    where = f"on {host}; its home is {home.path}."
    if status in map(str, FINAL):
        title = f"critical: Muster on {host} has ended, and is not started again"
        ended = f"It ended with exit code {status}, and a person has to mend that"
        return title, f"{ended}: `muster doctor` {where}"
    path = home.path / FILE
    try:
        past = fast.decode(path.read_bytes(), type=Past)
    except (OSError, DecodeError):
        # None was written yet, or what is there says nothing: then nothing is known.
        past = Past()
    past, is_due = after(past, now_ms)
    write_file(path, fast.encode(past))
    if not is_due:
        return None
    often = f"{SERVICE_FAILURES} times within {SERVICE_FAILURES_MS // 60_000} minutes"
    last = f"the last time: {result}, {status}" if status else f"the last time: {result}"
    title = f"critical: Muster on {host} fails again and again"
    return title, f"It ended {often} ({last}), and goes on trying: `muster service status` {where}"


async def tell(home: Home, title: str, body: str) -> int:
    """Tell every service; how many did not take it. Raises: MusterError."""
    names = [each.name for each in NotifyStore(home.path).services()]
    told = (deliver(home.path, name, title, body) for name in names)
    failed = 0
    for name, reason in zip(names, await asyncio.gather(*told), strict=True):
        if reason:
            say(f"{name} was not told that the daemon has ended: {reason}")
            failed += 1
    return failed


def main(words: Sequence[str]) -> int:
    try:
        home = Home(words[0])
        told = text(home, os.environ, clock.read().wall_ms)
        return 0 if told is None else min(1, asyncio.run(tell(home, *told)))
    except MusterError as error:
        say(str(error))
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
