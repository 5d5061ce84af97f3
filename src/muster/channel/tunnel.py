"""TLS end to end over bytes that somebody else carries: the link inside of another conversation.

Rule 1: whoever carries the bytes is a wire. Who is at the far end is what TLS and `identify` say on
        both sides, by the rules of `http`; a link begins when each side has told the other that it
        takes it.
Rule 2: what is under way is bounded: a pipe has room for so much, and more comes only as it is
        given back what was dealt with.
Rule 3: the end of a link is said inside of TLS. What the pipe says of an end is that it was cut.
Rule 4: each end gives a sign of life, its first one when it takes the other; a far end without one
        for too long is gone, whatever is pretended on the way.

Inside TLS the frames of a link go as on a Unix socket; the length 0x7fffffff is a sign of life, and
nothing follows it. `relay` and `ssh` are made of it; docs/spec/frames.md is the normative text.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from muster import limits
from muster.channel.base import Identify, gone
from muster.channel.frame import farewell, prefixed, short_reason
from muster.channel.framed import FramedLink
from muster.channel.tls import Credentials, client_context, server_context
from muster.errors import Denied, Forged, Malformed, Refused, Unreachable

_READ_BYTES: Final = 64 * 1024


class Pipe(Protocol):
    """Bytes to one far end and from it, in order; `Flow` is one."""

    moved: Callable[[], None]
    """Called when something came, when there is room again, and at the end."""
    ended: bool
    """Nothing more comes."""
    closed: str | None
    """Why it is over, None while it is not."""
    broken: bool
    """The far end broke a rule of the pipe, which `closed` says."""

    def take(self) -> bytes:
        """What came, all of it."""

    def give_back(self) -> None:
        """All that was taken is dealt with: more may come."""

    @property
    def room(self) -> int:
        """How many bytes the next `put` may hold."""

    def put(self, data: bytes) -> None:
        """Send data, for which there is room."""

    def close(self) -> None:
        """End both directions."""


class TunnelLink(FramedLink):
    """One end of a link inside a pipe."""

    sign = b"\x7f\xff\xff\xff"

    def __init__(
        self,
        channel: str,
        pipe: Pipe,
        context: ssl.SSLContext,
        identify: Identify,
        *,
        serves: bool,
    ) -> None:
        super().__init__()
        self.channel = channel
        self._pipe = pipe
        self._identify = identify
        self._coming, self._going = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._coming, self._going, server_side=serves)
        self._loop = asyncio.get_running_loop()
        # What is decrypted, what waits for a grant.
        self._plain = bytearray()
        self._unsent = bytearray()
        self._shaken = False
        self._moved = asyncio.Event()
        self._heard_s = self._said_s = self._loop.time()
        self._pulse = self._loop.call_later(limits.KEEPALIVE_INTERVAL_MS / 1000, self._live)
        pipe.moved = self._fed

    async def prove(self, peer: str) -> None:
        """Shake hands with exactly this machine, or with any of the fleet where `peer` is "".

        Raises Unreachable, Refused, and is closed.
        """
        try:
            async with asyncio.timeout(limits.HANDSHAKE_TIMEOUT_MS / 1000):
                self._on_room()
                self._fed()
                await self._until(lambda: self._shaken)
                der = self._tls.getpeercert(binary_form=True)
                if not der:
                    raise Forged(f"the far end of the {self.channel} shows no certificate")
                found = self._identify(der)
                if peer not in ("", found):
                    raise Denied(
                        f"the far end of the {self.channel} is machine {found[:16]}, "
                        f"not {peer[:16]}"
                    )
                self.peer = found
                self._say(self.sign)
                await self._until(lambda: self._signs > 0)
        except TimeoutError as error:
            await self.close("the handshake took too long")
            raise Unreachable(gone(self.channel, "the far end is silent")) from error
        except Refused as refused:
            await self.close(str(refused))
            raise

    @property
    def ready(self) -> bool:
        return self.ended is None and not self._over and not self._unsent

    async def close(self, reason: str) -> None:
        if not self._over and self.ended is None and self._shaken:
            self._say(farewell(reason))
        self.cut(short_reason(reason))
        # The farewell is a courtesy: whoever does not take it in time is cut off.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limits.LINK_CLOSE_TIMEOUT_MS / 1000):
                while self._unsent and not self._over:
                    self._moved.clear()
                    await self._moved.wait()
        self._hang_up("closed")

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():
            if self.ended is not None:
                raise Unreachable(gone(self.channel, self.ended))
            self._moved.clear()
            await self._moved.wait()

    def _fed(self) -> None:
        """The pipe moved; what breaks a rule ends the link."""
        if self._over:
            return
        if self._pipe.broken:
            self._break(str(self._pipe.closed))
            return
        if data := self._pipe.take():
            self._on_room(data)
        if self._pipe.closed is not None or self._pipe.ended:
            # What came before it is still read.
            self._hang_up("it was cut on the way")
            self._on_room()
        self._flush()
        self._moved.set()

    def _on_room(self, data: bytes = b"") -> None:
        """Shake hands; decrypt as much as the reader has room for, and grant what was read."""
        try:
            self._coming.write(data)
            if not self._shaken:
                try:
                    self._tls.do_handshake()
                    self._shaken = True
                finally:
                    # Also the alert that says why not.
                    self._unsent += self._going.read()
                    self._flush()
            while not self.full and self.ended is None:
                self._plain += self._tls.read(_READ_BYTES)
                self._heard_s = self._loop.time()
                self._take_frames(self._plain)
        except ssl.SSLWantReadError:
            # TLS has said all that came: more is to come, or nothing ever.
            if self._over:
                self.end(self._over)
            else:
                self._pipe.give_back()
        except ssl.SSLCertVerificationError as error:
            self._break(f"the far end is not of this fleet ({error.verify_message})")
        except ssl.SSLError as error:
            self._break(f"TLS was broken off ({error.reason or 'it ended'})")
        except Malformed as error:
            self._break(str(error))

    def _write(self, frames: Sequence[bytes]) -> None:
        self._say(b"".join(map(prefixed, frames)))
        self.counters.count_out(frames)

    def _say(self, plain: bytes) -> None:
        view = memoryview(plain)
        while view:
            view = view[self._tls.write(view) :]
        self._unsent += self._going.read()
        self._flush()

    def _flush(self) -> None:
        """Put what is granted."""
        while self._unsent and not self._over and (room := self._pipe.room):
            part = bytes(self._unsent[:room])
            del self._unsent[:room]
            self._said_s = self._loop.time()
            self._pipe.put(part)
        if len(self._unsent) <= limits.LINK_UNSENT_BYTES_MAX or self.ended is not None:
            self._may_write.set()
        else:
            self._may_write.clear()

    def _live(self) -> None:
        """Say that we are here; end it when the far end does not."""
        now_s, interval_s = self._loop.time(), limits.KEEPALIVE_INTERVAL_MS / 1000
        if now_s - self._heard_s >= interval_s + limits.KEEPALIVE_TIMEOUT_MS / 1000:
            self._break("the far end gave no sign of life")
            return
        if self._signs and self.ready and now_s - self._said_s >= interval_s / 2:
            self._say(self.sign)
        self._pulse = self._loop.call_later(interval_s, self._live)

    def _break(self, reason: str) -> None:
        self.end(short_reason(reason))
        self._hang_up(reason)

    def _hang_up(self, reason: str) -> None:
        """The pipe is of no more use; the first reason counts."""
        if not self._over:
            self._over = reason
            self._pipe.close()
        self._pulse.cancel()
        self._may_write.set()
        self._moved.set()


class Tunnels:
    """Makes the two ends; how the bytes travel between them is the pipe's affair.

    A channel says its `name`.
    """

    name: str

    def __init__(self, credentials: Credentials, identify: Identify) -> None:
        self._identify = identify
        self.renew(credentials)

    def renew(self, credentials: Credentials) -> None:
        """Show new credentials from the next handshake on. Raises Broken, changing nothing."""
        client, server = client_context(credentials), server_context(credentials)
        self._client_tls, self._server_tls = client, server

    def open(self, pipe: Pipe, *, serves: bool) -> TunnelLink:
        """The end that was dialled, or that dials; then `prove`."""
        context = self._server_tls if serves else self._client_tls
        return TunnelLink(self.name, pipe, context, self._identify, serves=serves)
