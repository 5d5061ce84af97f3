"""WebSocket over mutual TLS 1.3: the link between machines that can reach each other's port.

Rule 1: the key decides, not the calendar and not the name. The certificate must come from the
        fleet's authority and TLS proves that the far end holds its key; whether that key is a
        machine of the fleet today is the answer of the injected `identify`. An expired
        certificate of a good machine opens a link (it slept for weeks), a valid one of a
        revoked machine does not.
Rule 2: a dial returns only after the listener has judged us. In TLS 1.3 a client whose
        certificate is refused "connects" and is cut afterwards, so the answer to the
        WebSocket handshake is the first proof.
Rule 3: a dialer without a certificate gets a link with peer "": enrolment needs one. There
        are few of these at a time (unproven.py), and what they may ask is decided above. Who has
        no certificate and does not speak as a joining machine does hears nothing at all.
Rule 4: no session is ever resumed: each link is judged by the records of its own moment.
Rule 5: this is the one file that imports `websockets`; its errors end here.

One side dials and both push, so it is enough that one side can be reached. Live links are not
cut by a renewal, and not by a revocation either: who learns of one closes the link.
"""

import asyncio
import http
import logging
import os
import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    WebSocketException,
)
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from muster import limits
from muster.address import check_address, join_address, split_address
from muster.channel.base import (
    Identify,
    Link,
    LinkOptions,
    LinkStatistics,
    LinkTasks,
    OnLink,
    Own,
    gone,
    no_guests,
    report,
)
from muster.channel.frame import check_size, short_reason
from muster.channel.knock import Knock
from muster.channel.listening import Hosts, Ports, places, told
from muster.channel.tls import Credentials, client_context, server_context
from muster.channel.unproven import (
    LINKED,
    SPEAKING,
    UnprovenPeer,
    UnprovenPeers,
    hang_up,
    why_nobody_listens,
)
from muster.errors import (
    Broken,
    Denied,
    Forged,
    Malformed,
    MusterError,
    Refused,
    Unreachable,
    unable,
)

NAME: Final = "http"


class Options(LinkOptions, frozen=True, forbid_unknown_fields=True):
    """`[channel.http]`: every address is host:port; `listen` may be `auto` (listening.py)."""

    check_listen = staticmethod(places)
    check_address = staticmethod(check_address)

    # Whether who does not know the word meets TLS (knock.py).
    strangers: bool = False

    def reached_at(self) -> str:
        found = self.address or (told(self.listens_at) if self.listen else "")
        return found and check_address(found)


def open_channel(options: Options, own: Own) -> "HttpChannel":
    """The channel of this machine."""
    channel = HttpChannel(own.credentials, own.identify, guests=own.guests)
    channel.hosts, channel.knock, channel.quiet = own.hosts, own.knock, not options.strangers
    return channel


class _Complaints(logging.Handler):
    """Where the library's log goes: a mistake of ours is reported, a stranger's is not.

    The library logs and goes on. What a peer or the network did comes to us as an exception
    as well, so only what can have no other cause than a bug is passed on.
    """

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        expected = (OSError, EOFError, WebSocketException, MusterError)
        if isinstance(error, Exception) and not isinstance(error, expected):
            asyncio.get_running_loop().call_exception_handler(
                {"message": record.getMessage(), "exception": error}
            )


_LOG: Final = logging.getLogger("muster.channel.http.websockets")
_LOG.addHandler(_Complaints(logging.ERROR))
_LOG.propagate = False


@dataclass(frozen=True, slots=True)
class Timing:
    """How patient a channel is; tests are less so."""

    keepalive_interval_s: float = limits.KEEPALIVE_INTERVAL_MS / 1000
    keepalive_timeout_s: float = limits.KEEPALIVE_TIMEOUT_MS / 1000
    handshake_s: float = limits.HANDSHAKE_TIMEOUT_MS / 1000
    close_s: float = limits.LINK_CLOSE_TIMEOUT_MS / 1000

    def options(self) -> dict[str, Any]:
        """The arguments that a dialer and a listener share."""
        return {
            "ping_interval": self.keepalive_interval_s,
            "ping_timeout": self.keepalive_timeout_s,
            "open_timeout": self.handshake_s,
            "close_timeout": self.close_s,
            "ssl_handshake_timeout": self.handshake_s,
            # Frames are signed, hashed and mostly unique: deflate would cost and gain nothing.
            "compression": None,
            "max_size": limits.FRAME_BYTES_MAX,
            "max_queue": limits.LINK_UNREAD_FRAMES_MAX,
            "write_limit": limits.LINK_UNSENT_BYTES_MAX,
            "logger": _LOG,
        }


class HttpLink(Link):
    """One end of a WebSocket."""

    channel = NAME

    def __init__(self, socket_: Connection, peer: str, timing: Timing) -> None:
        self.peer = peer
        self.counters = LinkStatistics(socket_.loop.time())
        self._socket = socket_
        self._timing = timing
        # One sender at a time writes and waits for room, so a hundred waiting senders hold
        # one frame in the buffer, not a hundred.
        self._turn = asyncio.Lock()
        self._reason: str | None = None
        raw = socket_.transport.get_extra_info("socket")
        # A frame is a whole message; waiting for more to fill a packet only delays it.
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sys.platform == "linux":
            # Unacknowledged bytes end the connection after this, not after a quarter of an hour.
            silent_ms = int(timing.keepalive_timeout_s * 1000)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, silent_ms)

    async def send_all(self, frames: Sequence[bytes]) -> None:
        check_size(*frames)
        async with self._turn:
            self._check_open()
            try:
                # The keepalive ping waits behind a full buffer, so it cannot see a peer that
                # died while it was sent much: no room for so long means the same.
                async with asyncio.timeout(self._timing.keepalive_timeout_s):
                    async with self._socket.send_context():
                        self._write(frames)
            except ConnectionClosed as closed:
                raise Unreachable(gone(NAME, self._why(closed))) from closed
            except TimeoutError as error:
                self._reason = "the peer took no bytes for too long"
                self._socket.transport.abort()
                raise Unreachable(gone(NAME, self._reason)) from error
            self._check_open()

    @property
    def ready(self) -> bool:
        return not (
            self._reason is not None
            or self._turn.locked()
            or self._socket.protocol.state is not State.OPEN
            or self._socket.transport.is_closing()
            or self._socket.transport.get_write_buffer_size()
        )

    def _write(self, frames: Sequence[bytes]) -> None:
        """In one piece: else each frame is a TLS record, a system call and a wake-up over there."""
        protocol = self._socket.protocol
        for frame in frames:
            protocol.send_binary(frame)
        self._socket.transport.write(b"".join(protocol.data_to_send()))
        self.counters.count_out(frames)

    async def receive(self) -> bytes:
        self._check_open()
        try:
            frame = await self._socket.recv(decode=False)
        except ConnectionClosed as closed:
            raise Unreachable(gone(NAME, self._why(closed))) from closed
        self.counters.frames_in += 1
        self.counters.bytes_in += len(frame)
        return frame

    async def close(self, reason: str) -> None:
        if self._reason is None:
            self._reason = short_reason(reason)
        try:
            # The library bounds the wait for the answer, but not the one behind a full buffer.
            async with asyncio.timeout(self._timing.close_s):
                await self._socket.close(reason=self._reason)
        except TimeoutError:
            # The far end does not take leave in time: it is cut off.
            self._socket.transport.abort()
            await self._socket.wait_closed()

    def _check_open(self) -> None:
        if self._reason is not None:
            raise Unreachable(gone(NAME, self._reason))

    def _why(self, closed: ConnectionClosed) -> str:
        if self._reason is not None:
            return self._reason
        if closed.rcvd is not None:
            return closed.rcvd.reason or f"code {closed.rcvd.code}"
        if closed.sent is not None and closed.sent.reason:
            return closed.sent.reason
        return str(closed.__cause__ or "connection lost")


class HttpListener:
    """Made by `HttpChannel.listen`."""

    def __init__(self, channel: "HttpChannel", address: str, on_link: OnLink) -> None:
        """Raises: OSError, Malformed."""
        # Strangers and revoked machines that were turned away, for the health page.
        self.refused = 0
        self.door = UnprovenPeers()
        self._channel = channel
        self._hosting = LinkTasks(on_link)
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = True
        self.ports = Ports(address, channel.hosts, self.door, self._take)
        self.address = self.ports.address

    def _take(self, connected: socket.socket, address: str) -> None:
        loop = asyncio.get_running_loop()
        visitor = self.door.knock(address, lambda: hang_up(connected), loop.time())
        if visitor is None:
            hang_up(connected)
            connected.close()
            return
        # From here to the end of the handshake, TLS or not, whatever is said meanwhile.
        late = loop.call_later(self._channel.timing.handshake_s, visitor.end)
        task = loop.create_task(self._receive(connected, visitor, late))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda ended: report(ended, "a connection failed"))

    async def _receive(
        self, connected: socket.socket, visitor: UnprovenPeer, late: asyncio.TimerHandle
    ) -> None:
        """A connection from its acceptance to its end."""
        timing, loop = self._channel.timing, asyncio.get_running_loop()
        options = timing.options()
        protocol = _Quiet(max_size=options["max_size"], logger=_LOG)
        names = ("ping_interval", "ping_timeout", "close_timeout", "max_queue", "write_limit")
        # Not what the call below returns: uvloop gives its own TLS in the place of the connection.
        connection = Opening(visitor, protocol, {name: options[name] for name in names})
        try:
            knock = self._channel.knock
            if knock is not None and self._channel.quiet and not await knock.heard(connected):
                self.door.turned_away += 1
                hang_up(connected)
                return
            await loop.connect_accepted_socket(
                lambda: connection,
                connected,
                ssl=self._channel.server_tls,
                ssl_handshake_timeout=timing.handshake_s,
                ssl_shutdown_timeout=timing.close_s,
            )
            try:
                await connection.handshake(self._judge, None, None)
                if connection.protocol.state is State.OPEN and self._open:
                    late.cancel()
                    link = HttpLink(connection, connection.username, timing)
                    connection.start_keepalive()
                    if link.peer:
                        self.door.leave(visitor, proved=True)
                    else:
                        self.door.make_place(LINKED, limits.LINKS_UNPROVEN_MAX)
                        visitor.stage = LINKED
                        late = loop.call_later(limits.LINK_UNPROVEN_MS_MAX / 1000, visitor.end)
                    self._hosting.adopt(link)
                    await connection.wait_closed()
            finally:
                connection.transport.abort()
        except (OSError, EOFError, WebSocketException):
            # It ended before it was anything: what a stranger does is nobody's mistake here.
            pass
        finally:
            late.cancel()
            self.door.leave(visitor)
            connected.close()

    def _judge(self, connection: ServerConnection, _: Request) -> Response | None:
        """Decide who this is, before the far end is told that it is welcome."""
        der = _peer_certificate(connection)
        try:
            connection.username = self._channel.identify(der) if der else ""
        except Refused as refused:
            self.refused += 1
            # The far end believes the proof for what it is, whoever shows it.
            proof = refused.proof if isinstance(refused, Denied) else ""
            return connection.respond(http.HTTPStatus.FORBIDDEN, f"{refused}\n{proof}")
        return None

    @property
    def listens(self) -> bool:
        return self._open and self.ports.listens

    async def close(self) -> None:
        if not self._open:
            return
        self._open = False
        await self.ports.close()
        self.door.end()
        await self._hosting.close()
        # What is left are handshakes whose socket was shut: each ends in a turn of the loop.
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._channel.timing.close_s)


class _Quiet(ServerProtocol):
    """Says nothing but welcome to whoever shows no certificate: a reason would tell what we are."""

    known = False
    hushed = False

    def send_response(self, response: Response) -> None:
        said = len(self.writes)
        super().send_response(response)
        if not self.known and response.status_code != http.HTTPStatus.SWITCHING_PROTOCOLS:
            self.hushed = True
            # The words, not the end of them, by which the library knows that it is over.
            del self.writes[said]


class Opening(ServerConnection):
    """A connection that is being judged; `visitor` is its place at the door."""

    def __init__(self, visitor: UnprovenPeer, protocol: _Quiet, options: dict[str, Any]) -> None:
        # All that the library asks of the server of a connection.
        serving = SimpleNamespace(is_serving=lambda: True)
        super().__init__(protocol, serving, **options)  # type: ignore[arg-type]
        self._visitor = visitor
        self._quiet = protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The library's own server would begin its handshake here; ours has begun already.
        Connection.connection_made(self, transport)
        self._visitor.stage = SPEAKING
        self._quiet.known = bool(_peer_certificate(self))

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._quiet.hushed:
            self.transport.abort()


class HttpChannel:
    """Links over TLS; an address is `host:port`, `[v6 address]:port` or, to listen, `:port`."""

    name: Final = NAME

    def __init__(
        self, credentials: Credentials, identify: Identify, timing: Timing | None = None,
        guests: Callable[[], Sequence[str]] = no_guests,
    ) -> None:  # fmt: skip
        self.timing = timing or Timing()
        self.identify, self._guests = identify, guests
        self.hosts: Hosts = lambda: ("127.0.0.1",)
        self.knock: Knock | None = None
        self.quiet = False
        self._ca_pem = credentials.ca_pem
        self.server_tls = server_context(credentials, guests())
        self._client_tls = client_context(credentials)

    def renew(self, credentials: Credentials) -> None:
        """Show new credentials from the next handshake on. Raises Broken, changing nothing."""
        if credentials.ca_pem != self._ca_pem:
            raise Broken("the fleet's authority differs; open a new channel for another fleet")
        # Both are built first: a pair that does not match must not reach what is in use.
        made = client_context(credentials), server_context(credentials, self._guests())
        self._client_tls, self.server_tls = made

    async def dial(self, address: str, *, peer: str = "") -> Link:
        tls, name = self._client_tls, "" if self.knock is None else self.knock.name(peer)
        return await _dial(address, tls, self.identify, self.timing, peer=peer, name=name)

    async def listen(self, address: str, on_link: OnLink) -> HttpListener:
        try:
            return HttpListener(self, address, on_link)
        except Malformed as error:
            # Our own configuration says so.
            raise Broken(str(error)) from error
        except OSError as error:
            raise unable(
                f"cannot listen at {address}: {why_nobody_listens(error)}", error
            ) from error


async def join(address: str, pin: Identify, timing: Timing | None = None, name: str = "") -> Link:
    """Dial a fleet of which only a key is known, from an invitation, without a certificate.

    `name` is the word that it listens for (knock.py).
    `pin` gets the listener's certificate, whose key TLS has proven and nothing else, and
    returns the machine id or raises Refused: it must check the signature under the key of
    the invitation itself. Raises Unreachable and Refused.
    """
    return await _dial(address, client_context(None), pin, timing or Timing(), name=name)


async def _dial(
    address: str,
    tls: ssl.SSLContext,
    identify: Identify,
    timing: Timing,
    *,
    peer: str = "",
    name: str = "",
) -> Link:
    proven = ""

    class Dialer(ClientConnection):
        """Verifies the listener before it is asked anything."""

        async def handshake(self, *arguments: Any, **options: Any) -> None:
            nonlocal proven
            proven = identify(_peer_certificate(self))
            if peer not in ("", proven):
                raise Denied(
                    f"{address} is machine {proven[:16]}, not {peer[:16]}; its address has changed"
                )
            await super().handshake(*arguments, **options)

    class Direct(connect):
        """Follows no redirect: the address was chosen here and nobody else may choose."""

        def process_redirect(self, exc: Exception) -> Exception:
            return exc

    # An address is what somebody says: only what names a host and a port becomes part of a URL.
    host, port = split_address(check_address(address))
    try:
        connection = await Direct(
            f"wss://{join_address(host, port)}/",
            ssl=tls,
            # Nobody's name: who looks on learns none, and it decides who is heard, and no more.
            server_hostname=name,
            proxy=None,
            user_agent_header=None,
            create_connection=Dialer,
            **timing.options(),
        )
    except (OSError, InvalidHandshake, EOFError) as error:
        raise _translated(address, error) from error
    except ValueError as error:
        # Such as a name with a part of 70 letters.
        raise Malformed(f"{address} can be no computer's address ({error})") from error
    return HttpLink(connection, proven, timing)


def _translated(address: str, error: Exception) -> MusterError:
    """Whose fault a failed dial was, in our words."""
    if isinstance(error, InvalidStatus):
        text = bytes(error.response.body or b"").decode(errors="replace")
        body, _, proof = text.partition("\n")
        if error.response.status_code == http.HTTPStatus.FORBIDDEN:
            return Denied(f"{address} refused this machine: {short_reason(body)}", proof)
        return Unreachable(
            f"{address} answers {error.response.status_code} {short_reason(body)}; try later"
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return Forged(
            f"the certificate of {address} is not of this fleet ({error.verify_message});"
            " check the address"
        )
    if isinstance(error.__cause__, EOFError) or isinstance(error, ConnectionResetError):
        # All that TLS 1.3 lets us see when the far end does not accept our certificate; and all
        # that there is to see when we do not know the word.
        return Unreachable(
            f"{address} hung up on the handshake: it stops, is another machine, does not know this"
            " machine's certificate, or its clock or ours is an hour off; try later, or join again"
        )
    why = str(error) or type(error).__name__
    if isinstance(error, ssl.SSLError):
        why = f"what answers there is no machine of a fleet: {error.reason or 'it breaks off TLS'}"
    elif isinstance(error, TimeoutError):
        why = "it is silent"
    elif isinstance(error, socket.gaierror):
        why = "there is no computer of this name"
    elif isinstance(error, OSError) and error.errno:
        why = os.strerror(error.errno).lower()
    return Unreachable(f"no link to {address} ({why}); try later")


def _peer_certificate(connection: Connection) -> bytes:
    tls: ssl.SSLObject = connection.transport.get_extra_info("ssl_object")
    return tls.getpeercert(binary_form=True) or b""
