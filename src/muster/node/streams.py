"""The streams of this machine's links: those it serves, those it asks for, and those it joins.

Rule 1: a stream is the rest of a call: whoever asks is judged as the caller of any verb, before the
handler sees anything. Until a handler accepts, it refuses like any other, and may tell values.
Rule 2: where the caller leaves before its call was accepted, the handler is cancelled; afterwards
the stream says so to whoever uses it.
Rule 3: what came before its call was begun is not lost: the core hands it back, in order.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

from muster import errors
from muster.channel.flow import PLAIN, RELAYED, TYPES, Flow, Terms
from muster.channel.frame import Type
from muster.channel.stream import Stream, splice
from muster.errors import Conflict, Denied, Malformed, MusterError, Unreachable
from muster.limits import LINK_RELAYS_MAX, LINK_STREAMS_MAX
from muster.log import canon
from muster.node import event as ev
from muster.node.core import Core
from muster.node.link import sentence

# Chosen arbitrarily; a machine that is up answers within a step.
ANSWER_S: Final = 30.0
# What another machine may say about why not; anything else is a no.
_KINDS: Final = ("Unreachable", "NotFound", "Conflict", "Malformed", "Denied")
# The verbs whose streams keep other terms than the plain ones.
_TERMS: Final[Mapping[str, Terms]] = {"relay": RELAYED, "relay.serve": RELAYED}


def refusal(error: Mapping[str, Any]) -> MusterError:
    """The other machine's no; one that may become a yes by waiting stays that."""
    text = str(error.get("text", "the other machine refused"))
    # What is broken there is not broken here: to us that machine is one that cannot be asked.
    kind = "Unreachable" if error.get("kind") == "Broken" else str(error.get("kind"))
    found: type[MusterError] = getattr(errors, kind) if kind in _KINDS else Denied
    return found(text)


class Streams:
    """See the top of this file."""

    def __init__(
        self,
        core: Core,
        put: Callable[[int, Type, int, bytes], None],
        drained: Callable[[int], Awaitable[None]],
        answer: Callable[[ev.Perform, Mapping[str, Any]], None],
    ) -> None:
        """`put` sends a frame on a link, `drained` waits while that has much to send."""
        self._core, self._put, self._drained, self._answer = core, put, drained, answer
        self._open: dict[tuple[int, int], tuple[Stream, Terms]] = {}

    def feed(self, link: int, type: Type, channel: int, payload: bytes) -> bool:
        """Whether this frame is one of a stream, which has it then."""
        found = self._open.get((link, channel)) if type in TYPES else None
        if found is not None:
            found[0].flow.feed(type, payload)
        return found is not None

    def link_down(self, link: int) -> None:
        for key in [key for key in self._open if key[0] == link]:
            self._open.pop(key)[0].flow.feed(Type.CLOSE, b"")

    def _begin(self, link: int, channel: int, verb: str, call: ev.Perform | None = None) -> Stream:
        if (link, channel) in self._open:
            raise Malformed(f"channel {channel} has a stream already")
        terms = _TERMS.get(verb, PLAIN)

        def accept() -> None:
            self._check_room(link, terms)
            if call is not None:
                self._answer(call, {"ok": True, "value": {"channel": channel}})

        flow = Flow(lambda kind, payload: self._put(link, kind, channel, payload), terms)
        stream = Stream(flow, lambda: self._drained(link), accept)
        self._open[link, channel] = stream, terms
        return stream

    def _check_room(self, link: int, terms: Terms) -> None:
        most, what = (
            (LINK_RELAYS_MAX, "relays") if terms is RELAYED else (LINK_STREAMS_MAX, "streams")
        )
        there = (s.accepted for key, (s, t) in self._open.items() if key[0] == link and t is terms)
        if sum(there) >= most:
            raise Conflict(f"this link has as many {what} as one may have; try again later")

    # --- serving -------------------------------------------------------------------------------

    def open(self, call: ev.Perform) -> Stream:
        """The stream of a call that is about to be handled. Raises: Malformed."""
        return self._begin(call.link, call.channel, call.verb, call)

    async def serve(self, call: ev.Perform, stream: Stream, work: Awaitable[Any]) -> Any:
        """Do the work of a handler to its end; the answer, None where the stream had its own.

        Raises: what the handler refused with.
        """
        end: str | None = f"this machine failed at {call.verb}; its daemon.log says how"
        try:
            value, end = await work, ""
        except MusterError as error:
            end = sentence(str(error))
            if not stream.accepted:
                raise
        except asyncio.CancelledError:
            end = None
            raise
        finally:
            self._open.pop((call.link, call.channel), None)
            if stream.accepted:
                stream.flow.close(end)
        return None if stream.accepted else value

    # --- asking --------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def call(self, link: int, verb: str, args: Mapping[str, Any]) -> AsyncIterator[Stream]:
        """The stream of a verb of the machine at the other end of a link, until this block ends.

        Raises: what it refused with; Unreachable without an answer; Conflict.
        """
        channel = next(self._core.links[link].numbers)
        stream = self._begin(link, channel, verb)
        try:
            stream.accept()
            answer = await self._ask(link, channel, verb, args)
            if not answer.get("ok"):
                stream.flow.feed(Type.CLOSE, b"")
                raise refusal(answer.get("error", {}))
            yield stream
        finally:
            self._open.pop((link, channel), None)
            stream.flow.close()

    async def _ask(
        self, link: int, channel: int, verb: str, args: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        future: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._core.router.expect(
            link, channel, lambda answer: None if future.done() else future.set_result(answer)
        )
        raw = canon.encode({"args": dict(args), "verb": verb})
        self._put(link, Type.CALL, channel, raw)
        try:
            async with asyncio.timeout(ANSWER_S):
                return await future
        except TimeoutError as error:
            raise Unreachable(f"no answer to {verb} within {ANSWER_S:.0f} s") from error

    async def pass_on(self, here: Stream, link: int, verb: str, args: Mapping[str, Any]) -> None:
        """Accept a stream, and join it to that of a verb of another machine.

        Raises: what that machine refused with, before anything was accepted.
        """
        async with self.call(link, verb, args) as there:
            here.accept()
            await splice(here, there)
