"""As much of a daemon as serves who follows something on a core: turned by hand, in the core's time.

What a verb tells is in the answers of its machine, or on its way to the other one that asked.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, Final

import msgspec

from muster.channel import frame as frames
from muster.channel.frame import Type
from muster.errors import MusterError
from muster.node import event as ev
from muster.node.call.streams import Served, Streams
from muster.node.core import Core
from muster.node.host.home import Home
from muster.node.link import failure
from muster.verbs.table import VERBS

FOLLOWED: Final = {v.name for v in VERBS.values() if v.runs == "stream" and v.followed}
_LOOP: Final = asyncio.new_event_loop()


class Serving:
    """`take` carries out what is to be sent; `now_s` is the time of the core."""

    def __init__(
        self,
        core: Core,
        take: Callable[[list[ev.Effect]], None],
        now_s: Callable[[], float],
    ) -> None:
        self.core, self.take, self.now_s = core, take, now_s
        self.streams = Streams(
            core, self.put, self.drained, self.answer, lambda link: link in core.links
        )
        # It runs no attempt.
        self.effects = SimpleNamespace(attempts={})
        # Of a machine whose person has no key in it.
        self.home = Home("/nowhere")
        self.tasks: set[asyncio.Task[None]] = set()
        self.failed: BaseException | None = None

    def put(self, link: int, type: Type, channel: int, payload: bytes) -> None:
        self.take([ev.Send(link, frames.encode(type, channel, payload))])

    async def drained(self, link: int) -> None:
        await asyncio.sleep(0)

    def answer(self, call: Any, answer: Mapping[str, Any], *, last: bool = True) -> None:
        raw = (b"." if last else b"*") + json.dumps(answer, default=msgspec.to_builtins).encode()
        self.put(call.link, Type.REPLY, call.channel, raw)

    def carry_out(self, effect: ev.Effect) -> bool:
        """Whether it is nobody else's."""
        match effect:
            case ev.Perform(verb=verb) if verb in FOLLOWED:
                stream = self.streams.open(effect)
                task = _LOOP.create_task(self.serve(effect, stream))
                # A test may end while somebody still follows.
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                stream.on_hang_up = lambda: _LOOP.call_soon(task.cancel)
                self.tasks.add(task)
                task.add_done_callback(self.ended)
            case ev.Told():
                self.streams.told(effect)
            case ev.Stray(link, type, channel, payload):
                return self.streams.feed_late(link, type, channel, payload)
            case _:
                return False
        return True

    def ended(self, task: "asyncio.Task[None]") -> None:
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.failed = task.exception()

    async def serve(self, call: ev.Perform, stream: Served) -> None:
        handler = VERBS[call.verb].load()
        try:
            value = await self.streams.serve(call, stream, handler(self, call, stream, call.ask))
            self.answer(call, {"ok": True, "value": value})
        except MusterError as error:
            self.answer(call, failure(error))

    def turn(self) -> None:
        """Let everybody who is served here go on, as far as they can at this moment."""
        if not self.tasks or _LOOP.is_running():
            return
        _LOOP.time = self.now_s  # type: ignore[method-assign]
        for _ in range(20):
            _LOOP.call_soon(_LOOP.stop)
            _LOOP.run_forever()
        if self.failed is not None:
            raise self.failed
