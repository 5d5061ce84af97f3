"""A link inside the links of a third machine: TLS end to end over frames that it passes on.

Rule 1: the middle is a wire. Who is at the far end is what TLS and `identify` say on both sides, by
        the rules of `http`; a link begins when each side has told the other that it takes it.
Rule 2: what is under way in each direction is bounded by what the receiver granted, by the middle,
        too, which cuts whoever breaks it: nobody can fill its memory.
Rule 3: the end of a link is said inside of TLS. What the middle says of an end is that it was cut.
Rule 4: each end gives a sign of life, its first one when it takes the other; a far end without one
        for too long is gone, whatever the middle pretends.

The conversation with the middle is a stream (`flow.py`). Inside TLS the frames of a link go as on a
Unix socket; the length 0x7fffffff is a sign of life, and nothing follows it.
docs/spec/frames.md is the normative text.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Sequence
from typing import Final

from muster.channel.base import LinkStatistics, gone
from muster.channel.flow import Flow
from muster.channel.frame import (
    LENGTH_BYTES,
    check_size,
    farewell,
    prefixed,
    read_length,
    short_reason,
)
from muster.channel.inbox import Inbox
from muster.channel.tls import Credentials, client_context, server_context
from muster.errors import Denied, Forged, Malformed, Refused, Unreachable
from muster.limits import (
    HANDSHAKE_TIMEOUT_MS,
    KEEPALIVE_INTERVAL_MS,
    KEEPALIVE_TIMEOUT_MS,
    LINK_CLOSE_TIMEOUT_MS,
    LINK_UNSENT_BYTES_MAX,
)

NAME: Final = "relay"

Identify = Callable[[bytes], str]

# A length that no frame and no farewell has.
_SIGN: Final = b"\x7f\xff\xff\xff"
_READ_BYTES: Final = 64 * 1024


class RelayLink:
    """One end of a relayed link, over one end of a stream to the middle."""

    channel: Final = NAME

    def __init__(
        self, flow: Flow, context: ssl.SSLContext, identify: Identify, *, serves: bool
    ) -> None:
        self.peer = ""
        self._flow = flow
        self._identify = identify
        self._coming, self._going = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._coming, self._going, server_side=serves)
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox(NAME, self._read)
        self._counters = LinkStatistics(self._loop.time())
        # What is decrypted, what waits for a grant.
        self._plain = bytearray()
        self._unsent = bytearray()
        self._shaken = self._taken = False
        # Set once the conversation with the middle is over: nothing may be put any more.
        self._over = ""
        self._moved = asyncio.Event()
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._heard_s = self._said_s = self._loop.time()
        self._pulse = self._loop.call_later(KEEPALIVE_INTERVAL_MS / 1000, self._live)
        flow.moved = self._fed

    # --- what the user of a link calls ---------------------------------------------------------

    async def prove(self, peer: str) -> None:
        """Shake hands with exactly this machine. Raises Unreachable, Refused, and is closed."""
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_MS / 1000):
                self._guarded(self._shake)
                self._fed()
                await self._until(lambda: self._shaken)
                self.peer = self._judged(peer)
                self._say(_SIGN)
                await self._until(lambda: self._taken)
        except TimeoutError as error:
            await self.close("the handshake took too long")
            raise Unreachable(gone(NAME, "the far end is silent")) from error
        except Refused as refused:
            await self.close(str(refused))
            raise

    async def send(self, frame: bytes) -> None:
        await self.send_all((frame,))

    async def send_all(self, frames: Sequence[bytes]) -> None:
        for frame in frames:
            check_size(frame)
        await self._wait_writable()
        self._hand_over(frames)
        if not self._may_write.is_set():
            await self._wait_writable()

    @property
    def ready(self) -> bool:
        return self._inbox.ended is None and not self._over and not self._unsent

    def send_all_nowait(self, frames: Sequence[bytes]) -> None:
        assert self.ready, "somebody else is sending, or the link is gone"
        for frame in frames:
            check_size(frame)
        self._hand_over(frames)

    async def receive(self) -> bytes:
        frame = await self._inbox.get()
        self._counters.count_in(len(frame))
        return frame

    async def close(self, reason: str) -> None:
        if not self._over and self._inbox.ended is None and self._shaken:
            self._say(farewell(reason))
        self._inbox.cut(short_reason(reason))
        self._may_write.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINK_CLOSE_TIMEOUT_MS / 1000):
                while self._unsent and not self._over:
                    await self._turn()
        self._hang_up("closed")

    def statistics(self) -> dict[str, float]:
        return self._counters.as_dict()

    async def _wait_writable(self) -> None:
        # Whoever woke first may have filled it again: see `ipc`.
        while not self._may_write.is_set():
            await self._may_write.wait()
        if self._over or self._inbox.ended is not None:
            raise Unreachable(gone(NAME, self._inbox.ended or self._over))

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():
            if (reason := self._inbox.ended) is not None:
                raise Unreachable(gone(NAME, reason))
            await self._turn()

    async def _turn(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    # --- what the conversation brings ------------------------------------------------------------

    def _fed(self) -> None:
        """The stream moved; what breaks a rule ends the link."""
        if self._over:
            return
        if self._flow.broken:
            self._break(str(self._flow.closed))
            return
        if data := self._flow.take():
            self._guarded(lambda: self._take(data))
        if self._flow.closed is not None:
            # What came before it is still read.
            self._end("it was cut on the way")
            self._guarded(self._read)
        self._flush()
        self._moved.set()

    def _take(self, data: bytes) -> None:
        self._coming.write(data)
        if not self._shaken:
            self._shake()
        if self._shaken:
            self._read()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except ssl.SSLCertVerificationError as error:
            self._break(f"the far end is not of this fleet ({error.verify_message})")
        except ssl.SSLError as error:
            self._break(f"TLS was broken off ({error.reason or 'it ended'})")
        except Malformed as error:
            self._break(str(error))

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
            self._shaken = True
        except ssl.SSLWantReadError:
            pass
        finally:
            # Also the alert that says why not.
            self._unsent += self._going.read()
            self._flush()

    def _read(self) -> None:
        """Decrypt as much as the reader has room for, and grant what was read."""
        while not self._inbox.full and self._inbox.ended is None:
            try:
                self._plain += self._tls.read(_READ_BYTES)
            except ssl.SSLWantReadError:
                self._caught_up()
                return
            self._heard_s = self._loop.time()
            self._take_frames()

    def _caught_up(self) -> None:
        if self._over:
            self._inbox.end(self._over)
            self._may_write.set()
        else:
            self._flow.give_back()

    def _take_frames(self) -> None:
        start = 0
        while len(self._plain) - start >= LENGTH_BYTES:
            head = bytes(self._plain[start : start + LENGTH_BYTES])
            if head == _SIGN:
                self._taken = True
                start += LENGTH_BYTES
                continue
            size, last = read_length(head)
            end = start + LENGTH_BYTES + size
            if len(self._plain) < end:
                break
            body = bytes(self._plain[start + LENGTH_BYTES : end])
            start = end
            if last:
                self._inbox.end(body.decode(errors="replace"))
                self._may_write.set()
                break
            self._inbox.put(body)
        del self._plain[:start]

    def _judged(self, peer: str) -> str:
        """Which machine is there. Raises Refused."""
        der = self._tls.getpeercert(binary_form=True)
        if not der:
            raise Forged("the far end of the relay shows no certificate")
        found = self._identify(der)
        if found != peer:
            raise Denied(f"the far end of the relay is machine {found[:16]}, not {peer[:16]}")
        return found

    # --- what leaves ---------------------------------------------------------------------------

    def _hand_over(self, frames: Sequence[bytes]) -> None:
        self._say(b"".join(map(prefixed, frames)))
        for frame in frames:
            self._counters.count_out(len(frame))

    def _say(self, plain: bytes) -> None:
        view = memoryview(plain)
        while view:
            view = view[self._tls.write(view) :]
        self._unsent += self._going.read()
        self._flush()

    def _flush(self) -> None:
        """Put what is granted."""
        while self._unsent and not self._over and (room := self._flow.room):
            part = bytes(self._unsent[:room])
            del self._unsent[:room]
            self._said_s = self._loop.time()
            self._flow.put(part)
        if len(self._unsent) <= LINK_UNSENT_BYTES_MAX or self._inbox.ended is not None:
            self._may_write.set()
        else:
            self._may_write.clear()

    # --- life ------------------------------------------------------------------------------------

    def _live(self) -> None:
        """Say that we are here; end it when the far end does not."""
        now_s, interval_s = self._loop.time(), KEEPALIVE_INTERVAL_MS / 1000
        if now_s - self._heard_s >= interval_s + KEEPALIVE_TIMEOUT_MS / 1000:
            self._break("the far end gave no sign of life")
            return
        if self._taken and self.ready and now_s - self._said_s >= interval_s / 2:
            self._say(_SIGN)
        self._pulse = self._loop.call_later(interval_s, self._live)

    def _break(self, reason: str) -> None:
        self._inbox.end(short_reason(reason))
        self._hang_up(reason)

    def _hang_up(self, reason: str) -> None:
        if not self._over:
            self._flow.close()
        self._end(reason)

    def _end(self, reason: str) -> None:
        """The conversation is over; the first reason counts."""
        if not self._over:
            self._over = reason
        self._pulse.cancel()
        self._may_write.set()
        self._moved.set()


class RelayChannel:
    """Makes the two ends; how the frames travel between them is the stream's affair."""

    name: Final = NAME

    def __init__(self, credentials: Credentials, identify: Identify) -> None:
        """`identify` is that of `http`: a certificate's machine id, or Refused."""
        self._identify = identify
        self.renew(credentials)

    def renew(self, credentials: Credentials) -> None:
        """Show new credentials from the next handshake on. Raises Broken, changing nothing."""
        client, server = client_context(credentials), server_context(credentials)
        self._client_tls, self._server_tls = client, server

    def dialling(self, flow: Flow) -> RelayLink:
        """The end that asked for the relay; then `prove`."""
        return RelayLink(flow, self._client_tls, self._identify, serves=False)

    def serving(self, flow: Flow) -> RelayLink:
        """The end that was asked."""
        return RelayLink(flow, self._server_tls, self._identify, serves=True)
