"""Telling services something, each in a short-lived program of its own; and the sign of life.

Rule 1: what may hang, and who knows passwords, is a child that is ended after `NOTIFY_S_MAX`.
Rule 2: it gets the address on its standard input, and of our environment only how this machine
reaches the network.
Rule 3: whatever goes wrong is a reason, in a sentence without the address; nothing here fails.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from muster import child_process, extra
from muster.errors import MusterError
from muster.limits import HEARTBEAT_S, NOTIFY_S_MAX
from muster.node import event as ev
from muster.node.counter import DECLARED
from muster.node.host.environment import NETWORK
from muster.node.host.notify_store import NotifyStore
from muster.node.notify_child import UNKNOWN
from muster.node.services.pager import Page, Paged, Paging
from muster.node.supervisor import say
from muster.printable import visible

if TYPE_CHECKING:
    from muster.node.runtime import Runtime

DECLARED[__name__] = {
    "heartbeats-failed": "The address that is told that this machine lives did not answer.",
}

_CHILD: Final = "muster.node.notify_child"
_MISSING: Final = "is not installed"
_ANSWER_BYTES_MAX: Final = 64 * 1024
_REASON_CHARS_MAX: Final = 300


async def ask(what: Mapping[str, Any]) -> str:
    """Why the child could not do it; "" where it did."""
    kept = (*NETWORK, "PATH", "LANG", "LC_ALL", "SYSTEMROOT", "TMPDIR")
    environ = {name: os.environ[name] for name in kept if name in os.environ}
    try:
        child = await child_process.start(
            sys.executable, "-I", "-m", _CHILD, env=environ, cwd=os.sep,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
    except OSError as error:
        return f"no program could be started ({error.strerror})"
    try:
        async with asyncio.timeout(NOTIFY_S_MAX):
            raw, _ = await child.communicate(json.dumps(what).encode())
        answer = json.loads(raw[:_ANSWER_BYTES_MAX])
        ok, reason = bool(answer["ok"]), str(answer["reason"])
    except TimeoutError:
        return f"no answer within {NOTIFY_S_MAX} s"
    except (ValueError, KeyError, TypeError, OSError):
        return "the program that tells it died"
    finally:
        await child.end()
    if ok:
        return ""
    reason = " ".join(visible(reason).split())[:_REASON_CHARS_MAX]
    return f"{reason}: {extra.bring('notify')}" if reason.endswith(_MISSING) else reason or "no"


async def is_unknown(url: str) -> bool:
    """Whether Apprise cannot read this address; where nobody can say, such as without Apprise, it
    is not.
    """
    return await ask({"read": url}) == UNKNOWN


async def deliver(home: Path, name: str, title: str, body: str) -> str:
    """Why this service did not take a message; "" where it did."""
    try:
        url = await asyncio.to_thread(NotifyStore(home).url, name)
    except MusterError as error:
        return str(error)
    return await ask({"url": url, "title": title, "body": body})


def _mistake(error: BaseException) -> str:
    return f"it could not be tried ({type(error).__name__})"


class Notifier:
    """The daemon's: it carries out what the pager wants told."""

    def __init__(self, daemon: "Runtime") -> None:
        self._daemon, self._home = daemon, daemon.home.path

    def begin(self) -> None:
        self.tell_services()
        if self._daemon.machine.config.heartbeat.url:
            self._daemon.supervisor.keep("heartbeat", self._beat)

    def tell_services(self) -> None:
        """The services are others, or these are the first."""
        config = self._daemon.machine.config.notify
        try:
            services = NotifyStore(self._home).services()
        except MusterError as error:
            say(f"notify: {error}")
            services = ()
        self._daemon.post(Paging(services, config.pagers, config.hours(), config.runs))

    @ev.effect(Page)
    def on_page(self, effect: Page) -> None:
        self._daemon.supervisor.run("notify", self._page(effect))

    async def _page(self, effect: Page) -> None:
        work = (deliver(self._home, s, effect.title, effect.body) for s in effect.services)
        came = await asyncio.gather(*work, return_exceptions=True)
        # Whatever happens the pager hears of it: else it waits for this message for ever.
        reasons = [each if isinstance(each, str) else _mistake(each) for each in came]
        self._daemon.post(Paged(effect.number, tuple(zip(effect.services, reasons, strict=True))))
        for each in came:
            if isinstance(each, BaseException):
                raise each

    async def _beat(self) -> None:
        while True:
            if await ask({"get": self._daemon.machine.config.heartbeat.url}):
                self._daemon.core.counters["heartbeats-failed"] += 1
            await asyncio.sleep(HEARTBEAT_S)
