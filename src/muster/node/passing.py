"""Two channels joined: what comes on one goes out on the other, until one side closes.

Rule 1: nothing is looked at and nothing is counted; credit, end to end, bounds what waits.
Rule 2: whether it may be passed on was decided before.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from muster import errors, limits
from muster.agent.remote import Kind
from muster.channel.frame import Type
from muster.errors import Denied, MusterError
from muster.node import event as ev
from muster.node.loop import Loop

TYPES: Final[Mapping[Kind, Type]] = {
    "data": Type.DATA,
    "credit": Type.CREDIT,
    "close": Type.CLOSE,
}
# What a frame costs beside its bytes: a flood of empty ones is a flood, too.
_FRAME_BYTES: Final = 64
# What another machine may say about why not; anything else is a no.
_KINDS: Final = ("Unreachable", "NotFound", "Conflict", "Malformed", "Denied")


def refusal(error: Mapping[str, Any]) -> MusterError:
    """The other machine's no; one that may become a yes by waiting stays that."""
    text = str(error.get("text", "the other machine refused"))
    # What is broken there is not broken here: to us that machine is one that cannot be asked.
    kind = "Unreachable" if error.get("kind") == "Broken" else str(error.get("kind"))
    found: type[MusterError] = getattr(errors, kind) if kind in _KINDS else Denied
    return found(text)


async def pass_on(
    daemon: Loop, call: ev.Perform, link: int, verb: str, args: Mapping[str, Any]
) -> None:
    """Ask `verb` on a link, answer the caller, and join the two until one side closes.

    Raises: what the other machine refused with; Unreachable.
    """
    channel = next(daemon.core.links[link].numbers)
    there = _Passing(daemon, link, channel)
    here = _Passing(daemon, call.link, call.channel)
    daemon.tunnel(call.link, call.channel, there.feed)
    try:
        daemon.tunnel(link, channel, here.feed)
        answer = await daemon.hands.ask_on(link, channel, verb, args)
        if not answer.get("ok"):
            raise refusal(answer.get("error", {}))
        daemon.answer(call, {"ok": True, "value": {"channel": call.channel}})
        there.begin()
        here.begin()
        done = [asyncio.ensure_future(side.over.wait()) for side in (there, here)]
        await asyncio.wait(done, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.cancel()
    finally:
        daemon.close_tunnel(call.link, call.channel)
        daemon.close_tunnel(link, channel)


class _Passing:
    """Passes frames on to one side, to the closing one.

    The first bytes can be here before the answer that announces them: they wait for `begin`, as
    many as an honest sender's window holds.
    """

    def __init__(self, daemon: Loop, link: int, channel: int) -> None:
        self.over = asyncio.Event()
        self._daemon, self._link, self._channel = daemon, link, channel
        self._waiting: list[tuple[Kind, bytes]] | None = []
        self._room = 2 * limits.GIT_WINDOW_BYTES

    def begin(self) -> None:
        waiting, self._waiting = self._waiting or [], None
        for kind, payload in waiting:
            self.feed(kind, payload)

    def feed(self, kind: Kind, payload: bytes) -> None:
        if self._waiting is not None:
            self._room -= len(payload) + _FRAME_BYTES
            if self._room < 0:
                # Nobody may fill our memory with what nobody asked for yet.
                self._waiting = [("close", b"")]
            else:
                self._waiting.append((kind, payload))
            return
        self._daemon.put(self._link, TYPES[kind], self._channel, payload)
        if kind == "close":
            self.over.set()
