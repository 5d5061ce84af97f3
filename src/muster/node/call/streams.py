"""The streams of this machine's links: those it serves, those it asks for, and those it joins.

Rule 1: a stream is the rest of a call: whoever asks is judged as the caller of any verb, before the
handler sees anything. Until a handler accepts, it refuses like any other, and may tell values.
Rule 2: where the caller leaves before its call was accepted, the handler is cancelled; afterwards
the stream says so to whoever uses it.
Rule 3: what came before its call was begun is not lost: the core hands it back; and what comes
while that is under way goes the same way, so that nothing overtakes it.
"""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from muster import errors
from muster.channel.flow import PLAIN, RELAYED, TYPES, Flow, Terms
from muster.channel.frame import Type
from muster.channel.stream import Stream, splice
from muster.errors import Conflict, Denied, Malformed, MusterError, Unreachable
from muster.limits import LINK_RELAYS_MAX, LINK_STREAMS_MAX, STREAM_NEWS_MAX
from muster.log import canon
from muster.node import event as ev
from muster.node.call.router import Router
from muster.node.link import sentence

if TYPE_CHECKING:
    from muster.node.core import Core

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


class Served(Stream):
    """What the handler of a call is handed: a stream from `accept` on; before, its answers."""

    def __init__(self, streams: "Streams", call: ev.Perform, flow: Flow, terms: Terms) -> None:
        super().__init__(flow, lambda: streams.drained(call.link))
        # Whether it counts as one of its link's: from `accept` on, or already from `reserve` on.
        self.accepted = self.placed = False
        # Called when the caller leaves before: nobody waits for its bytes.
        self.on_hang_up: Callable[[], object] = lambda: None
        self._streams, self._call, self._terms = streams, call, terms
        self._news: deque[Any] = deque()
        self._missed = False

    def _fed(self) -> None:
        super()._fed()
        if self.flow.closed is not None and not self.accepted:
            self.on_hang_up()

    def reserve(self) -> None:
        """Have a place from here on, so that `accept` is not refused for want of one.

        Raises: Conflict as `accept`.
        """
        if not self.placed:
            self._streams.check_room(self._call.link, self._terms)
            self.placed = True

    def accept(self, at: int = 0) -> None:
        """Answer the call with yes; from here on the stream's end says what went wrong.

        `at` is where the stream begins in what was asked for.
        Raises: Conflict where the link has as many streams as one may have.
        """
        self.reserve()
        value = {"channel": self._call.channel} | ({"at": at} if at else {})
        self._streams.answer(self._call, {"ok": True, "value": value})
        self.accepted = True

    async def tell(self, value: object) -> None:
        """One of several answers to a call that is not accepted; waits while the link is busy."""
        self._streams.answer(self._call, {"ok": True, "value": value}, last=False)
        await self._drained()

    def tell_later(self, news: Any) -> None:
        """A step has news: `hear` gives them once the step is durable."""
        self._streams.core.do(ev.Told(self._call.link, self._call.channel, news))

    def told(self, news: Any) -> None:
        """A step had news; the same as those that wait is none."""
        if not self._news or self._news[-1] != news:
            self._missed = self._missed or len(self._news) >= STREAM_NEWS_MAX
            if not self._missed:
                self._news.append(news)
                self._moved.set()

    async def hear(self, within_s: float | None = None) -> Any:
        """The next news, None where none came in time. Raises: Conflict where some are lost."""
        # Nothing came within the time, which None says.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not self._news:
                    if self._missed:
                        raise Conflict("more happened than was read; follow it again")
                    self._moved.clear()
                    await self._moved.wait()
                return self._news.popleft()
        return None


class Streams:
    def __init__(
        self,
        core: "Core",
        put: Callable[[int, Type, int, bytes], None],
        drained: Callable[[int], Awaitable[None]],
        answer: Callable[..., None],
        is_up: Callable[[int], bool],
    ) -> None:
        """`put` sends a frame on a link, `drained` waits while that has much to send, and `is_up`
        says whether it is there at this very moment.
        """
        self.drained, self.answer = drained, answer
        self.core, self._put, self._is_up = core, put, is_up
        self._open: dict[tuple[int, int], tuple[Stream, Terms]] = {}
        # How many frames of a stream are on their way through the core.
        self._behind: Counter[tuple[int, int]] = Counter()

    def feed(self, link: int, type: Type, channel: int, payload: bytes) -> bool:
        """Whether this frame is one of a stream, which has it then; else it is for the core."""
        if type not in TYPES:
            return False
        key = (link, channel)
        if key in self._behind or not self.feed_late(link, type, channel, payload):
            self._behind[key] += 1
            return False
        return True

    def feed_late(self, link: int, type: Type, channel: int, payload: bytes) -> bool:
        """Whether a frame that the core hands back is one of a stream."""
        found = self._open.get((link, channel))
        if found is not None:
            found[0].flow.feed(type, payload)
        return found is not None

    def heard(self, events: Iterable[ev.Event]) -> None:
        """The core has done with these: what it hands back of them was fed."""
        for event in events:
            if isinstance(event, ev.Arrived) and event.type in TYPES:
                key = (event.link, event.channel)
                self._behind[key] -= 1
                if self._behind[key] <= 0:
                    del self._behind[key]

    @ev.effect(ev.Told)
    def told(self, effect: ev.Told) -> None:
        """News for the handler of a call, if it is there still."""
        found = self._open.get((effect.link, effect.channel))
        if found is not None and isinstance(found[0], Served):
            found[0].told(effect.news)

    def go_over(self, link: int) -> bool:
        """Whether a stream, or a call that was not answered yet, goes over this link."""
        return any(link == each for each, _ in self._open) or self.core.part(Router).goes_over(link)

    def link_down(self, link: int) -> None:
        for key in [key for key in self._open if key[0] == link]:
            self._open.pop(key)[0].flow.feed(Type.CLOSE, b"")
        for key in [key for key in self._behind if key[0] == link]:
            del self._behind[key]

    def _flow(self, link: int, channel: int, terms: Terms) -> Flow:
        if not self._is_up(link):
            # It went after its call came, and before this step was done: nothing else would end it.
            raise Unreachable("the link of this stream is gone")
        if (link, channel) in self._open:
            raise Malformed(f"channel {channel} has a stream already")
        return Flow(lambda kind, payload: self._put(link, kind, channel, payload), terms)

    def _begin(self, link: int, channel: int, terms: Terms) -> Stream:
        """One that is a stream from the beginning. Raises: Malformed, Conflict."""
        self.check_room(link, terms)
        stream = Stream(self._flow(link, channel, terms), lambda: self.drained(link))
        self._open[link, channel] = stream, terms
        return stream

    def check_room(self, link: int, terms: Terms) -> None:
        """Raises: Conflict where the link has as many streams of the kind as one may have."""
        relayed = terms is RELAYED
        most, what = (LINK_RELAYS_MAX, "relays") if relayed else (LINK_STREAMS_MAX, "streams")
        there = [s for key, (s, t) in self._open.items() if key[0] == link and t is terms]
        if sum(not isinstance(each, Served) or each.placed for each in there) >= most:
            raise Conflict(f"this link has as many {what} as one may have; try again later")

    def open(self, call: ev.Perform) -> Served:
        """The stream of a call that is about to be handled. Raises: Malformed."""
        terms = _TERMS.get(call.verb, PLAIN)
        stream = Served(self, call, self._flow(call.link, call.channel, terms), terms)
        self._open[call.link, call.channel] = stream, terms
        return stream

    async def serve(self, call: ev.Perform, stream: Served, work: Awaitable[Any]) -> Any:
        """Do the work of a handler to its end; the answer, None where the stream had its own.

        Raises: what the handler refused with.
        """
        end: str | None = (
            f"this machine failed at {call.verb}; its log says how (`muster status` names it)"
        )
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

    @contextlib.asynccontextmanager
    async def call(self, link: int, verb: str, args: Mapping[str, Any]) -> AsyncIterator[Stream]:
        """The stream of a verb of the machine at the other end of a link, until this block ends.

        Raises: what it refused with; Unreachable without an answer; Conflict.
        """
        channel = next(self.core.links[link].numbers)
        stream = self._begin(link, channel, _TERMS.get(verb, PLAIN))
        try:
            answer = await self.ask(link, channel, verb, args)
            if not answer.get("ok"):
                stream.flow.feed(Type.CLOSE, b"")
                raise refusal(answer["error"])
            value = answer.get("value")
            at = value.get("at") if isinstance(value, dict) else None
            stream.at = at if isinstance(at, int) else 0
            yield stream
        finally:
            self._open.pop((link, channel), None)
            stream.flow.close()

    async def ask(
        self, link: int, channel: int, verb: str, args: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """What the machine at the other end answers. Raises: Unreachable without an answer."""
        future: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        router = self.core.part(Router)
        router.asked[link, channel] = lambda answer: (
            None if future.done() else future.set_result(answer)
        )
        raw = canon.encode({"args": dict(args), "verb": verb})
        self._put(link, Type.CALL, channel, raw)
        try:
            async with asyncio.timeout(ANSWER_S):
                return await future
        except TimeoutError as error:
            raise Unreachable(f"no answer to {verb} within {ANSWER_S:.0f} s") from error
        finally:
            router.forget(link, channel)

    async def pass_on(self, here: Served, link: int, verb: str, args: Mapping[str, Any]) -> None:
        """Accept a stream, and join it to that of a verb of another machine.

        Raises: what that machine refused with, before anything was accepted.
        """
        async with self.call(link, verb, args) as there:
            here.accept(there.at)
            await splice(here, there)

    def join(self, effect: ev.Join) -> Coroutine[Any, Any, None]:
        """What joins a caller to the machine that accepted the call which was passed on to it.

        Raises: Conflict where one of the links has as many streams as it may have.
        """
        key, other = (effect.link, effect.channel), (effect.target, effect.number)
        here = self._begin(*key, PLAIN)
        try:
            there = self._begin(*other, PLAIN)
        except MusterError:
            del self._open[key]
            raise

        async def joined() -> None:
            try:
                await splice(here, there)
            finally:
                for each, stream in ((key, here), (other, there)):
                    self._open.pop(each, None)
                    stream.flow.close()

        return joined()
