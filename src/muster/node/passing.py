"""Two channels joined: what comes on one goes out on the other, until one side closes.

Rule 1: nothing is looked at; credit, end to end, bounds what waits. Where the caller is another
machine, a watch counts it, and what was not granted ends both sides.
Rule 2: whether it may be passed on was decided before.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from muster import errors, limits
from muster.channel.frame import Type
from muster.channel.relay import Meter
from muster.errors import Denied, Malformed, MusterError
from muster.git.serve import Kind
from muster.node import event as ev
from muster.node.counter import DECLARED
from muster.node.loop import Loop

DECLARED[__name__] = {
    "relays-broken": "A stream that was passed on between two machines broke on one side."
}

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


class Watch:
    """Counts what passes. `there` and `here` get what goes to the asked and to the caller."""

    def __init__(self) -> None:
        self._there, self._here = Meter(), Meter()
        self.passed = 0

    def there(self, kind: Kind, payload: bytes) -> None:
        """Raises: Malformed for what was not granted."""
        self._count(kind, payload, self._there, self._here)

    def here(self, kind: Kind, payload: bytes) -> None:
        """Raises: Malformed for what was not granted."""
        self._count(kind, payload, self._here, self._there)

    def _count(self, kind: Kind, payload: bytes, same: Meter, other: Meter) -> None:
        if kind == "data":
            same.spend(payload)
            self.passed += len(payload)
        elif kind == "credit":
            other.grant(payload)


async def pass_on(  # noqa: PLR0917 - whom to ask for what, and under whose eyes
    daemon: Loop,
    call: ev.Perform,
    link: int,
    verb: str,
    args: Mapping[str, Any],
    watch: Watch | None = None,
) -> None:
    """Ask `verb` on a link, answer the caller, and join the two until one side closes.

    Raises: what the other machine refused with; Unreachable.
    """
    channel = next(daemon.core.links[link].numbers)
    relay = watch is not None
    there = _Passing(daemon, link, channel, watch.there if watch else _unwatched)
    here = _Passing(daemon, call.link, call.channel, watch.here if watch else _unwatched)
    daemon.tunnel(call.link, call.channel, there.feed, relay=relay)
    try:
        daemon.tunnel(link, channel, here.feed, relay=relay)
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
        if there.broken or here.broken:
            daemon.core.counters["relays-broken"] += 1
            there.end()
            here.end()
    finally:
        daemon.close_tunnel(call.link, call.channel)
        daemon.close_tunnel(link, channel)


def _unwatched(_kind: Kind, _payload: bytes) -> None:
    """A program of this user may do as it likes with its own tunnel."""


class _Passing:
    """Passes frames on to one side, to the closing one.

    The first bytes can be here before the answer that announces them: they wait for `begin`, as
    many as an honest sender's window holds.
    """

    def __init__(
        self, daemon: Loop, link: int, channel: int, watch: Callable[[Kind, bytes], None]
    ) -> None:
        self.over = asyncio.Event()
        self.broken = False
        self._daemon, self._link, self._channel = daemon, link, channel
        self._watch = watch
        self._waiting: list[tuple[Kind, bytes]] | None = []
        self._room = 2 * limits.GIT_WINDOW_BYTES

    def begin(self) -> None:
        waiting, self._waiting = self._waiting or [], None
        for kind, payload in waiting:
            self._pass(kind, payload)

    def end(self) -> None:
        """Tell this side that it is over."""
        self._daemon.put(self._link, Type.CLOSE, self._channel, b"")

    def feed(self, kind: Kind, payload: bytes) -> None:
        if self.broken:
            return
        try:
            self._watch(kind, payload)
        except Malformed:
            self.broken = True
            self.over.set()
            return
        self._pass(kind, payload)

    def _pass(self, kind: Kind, payload: bytes) -> None:
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
