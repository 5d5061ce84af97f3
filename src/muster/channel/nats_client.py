"""One client of a NATS server: what JetStream is asked, and what it answers, in our words.

Rule 1: what is left is left when JetStream acknowledged it, and never before: what the client holds
for a server that is away would be nobody's. So it never waits for a server by itself, and each use
finds out anew whether one is there.
Rule 2: whoever waits for an answer hears at once that the connection ended.
Rule 3: no subject, sequence, time or name that a server says is believed; sizes are bounded.

    stream    MUSTER_BOX_<receiver>   of subjects   muster.box.<receiver>.<sender>
    consumer  box                     pulled by the receiver alone
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Iterator
from typing import Any, Final, NamedTuple

from nats.aio.client import Client
from nats.errors import (
    AuthorizationError,
    ConnectionClosedError,
    Error,
    NoRespondersError,
    NoServersError,
)
from nats.js import api
from nats.js import errors as refused
from nats.js.client import JetStreamContext

from muster.channel.nats_pull import Pull, Pulled, read
from muster.channel.nats_waits import EXISTS, FULL, NOT_OURS, End, T, is_full, setting, unless
from muster.errors import Exhausted, Unreachable
from muster.limits import MAILBOX_BYTES_MAX, PACKET_BYTES_MAX

CONNECT_S: Final = 4
# A server that is there answers within milliseconds; one that syncs to a busy disk, within these.
ANSWER_S: Final = 10.0
# One that says nothing for so long, twice, is gone.
_PING_S: Final = 5
_AGAIN_S: Final = 0.25
# What was taken over a connection that is gone is given again after this.
TAKEN_S: Final = 30
_KEPT_S: Final = 30 * 24 * 3600
# JetStream gives in the order of what came, and no more than so many before the first of it is
# acknowledged: who sees all that lies there takes it in turn (nats.py), however much is of one.
AHEAD_MAX: Final = 65_536
_CONSUMER: Final = "box"
_BOX: Final = "MUSTER_BOX_"
# The client gives up on an odd greeting in any of these ways.
_ODD: Final = (
    Error, OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError,
    RecursionError,
)  # fmt: skip
# So many are written before others have a turn.
_UNINTERRUPTED: Final = 256


class Login(NamedTuple):
    """Where the servers are, and what lets us in, as the client calls it."""

    servers: tuple[str, ...]
    options: dict[str, Any]


class _Client(Client):
    """The library's, which would say who we are in the clear where a server begins no TLS."""

    def _connect_command(self) -> bytes:
        server = self._current_server
        if server is None or (
            server.uri.scheme == "tls" and self._server_info.get("tls_required") is not True
        ):
            raise Error("it begins no TLS")
        return super()._connect_command()


class NatsClient:
    """See the rules at the top of this file. With a `machine` it has a mailbox of its own."""

    def __init__(self, where: str, machine: str, login: Callable[[], Login]) -> None:
        self._where, self._machine, self._login = where, machine, login
        self._client: Client | None = None
        # Set once the present connection has ended: the client lets whoever waits wait on.
        self._gone = End()
        self._dialling = asyncio.Lock()
        self._pulling = asyncio.Lock()
        self._closed = asyncio.Event()
        # Which connection this is: what came over another one is acknowledged over none.
        self.number = 0
        # When JetStream was last asked to give nothing of it again.
        self._held_s = float("-inf")

    # --- what is asked ----------------------------------------------------------------------

    async def leave(self, packet: bytes, to: str, name: str) -> bool:
        """Have JetStream keep it for a machine; returns whether it had one of this name.

        Raises: Exhausted, Unreachable.
        """
        async with self._reached() as client:
            return await self._answer(self._leave(client, packet, to, name))

    async def pull(self, pull: Pull) -> Pulled:
        """What waits now, or with `wait_s` comes within that time first. Raises: Unreachable."""
        # Two pulls at once would each hold back what the other asks for.
        async with self._reached() as client, self._pulling:
            inbox = client.new_inbox()
            answers = await client.subscribe(inbox)
            try:
                subject = f"$JS.API.CONSUMER.MSG.NEXT.{_BOX}{self._machine}.{_CONSUMER}"
                await client.publish(subject, pull.request(), reply=inbox)
                pulled = await read(pull, ANSWER_S, answers.next_msg, client.publish)
            finally:
                # The server forgets it with the connection, which this error most often ended.
                with contextlib.suppress(Error):
                    await answers.unsubscribe()
            if pulled.status == "503":
                # The store was wiped. There is nothing in a mailbox that is made now.
                await self._answer(_make(client, self._machine))
            return pulled

    async def hold(self, replies: Collection[str], number: int) -> None:
        """Have JetStream give none of these again for now, where it soon would: what came over the
        connection of this number and waits for its turn here. Raises: Unreachable.
        """
        loop = asyncio.get_running_loop()
        if not replies or loop.time() < self._held_s + TAKEN_S / 3:
            return
        async with self._reached() as client:
            if number != self.number:
                return
            self._held_s = loop.time()
            for count, reply in enumerate(replies):
                await client.publish(reply, b"+WPI")
                if count % _UNINTERRUPTED == 0:
                    await asyncio.sleep(0)

    def is_connected(self, number: int) -> bool:
        """Whether the connection of this number is there."""
        return number == self.number and self._client is not None and self._client.is_connected

    async def acknowledge(self, replies: Iterable[str], number: int) -> None:
        """Have JetStream forget what came over the connection of this number, where that is the
        present one. Raises: Unreachable.
        """
        async with self._reached() as client:
            # That nothing is to be acknowledged is no answer of the server.
            await self._answer(client.flush(timeout=int(ANSWER_S)))
            if number != self.number:
                return
            ends_s = asyncio.get_running_loop().time() + ANSWER_S
            told = [self._acknowledge(client, reply, ends_s) for reply in replies]
            for said in await asyncio.gather(*told, return_exceptions=True):
                if isinstance(said, BaseException):
                    raise said

    async def _acknowledge(self, client: Client, reply: str, ends_s: float) -> None:
        while True:
            try:
                await self._answer(client.request(reply, b"+ACK", timeout=ANSWER_S))
            except NoRespondersError:
                # Another server of a cluster becomes the one that hears it within seconds; and
                # where the mailbox itself is gone, so is the packet.
                if asyncio.get_running_loop().time() < ends_s:
                    await asyncio.sleep(_AGAIN_S)
                    continue
            return

    async def keep_boxes(self, machines: Iterable[str], copies: int = 1) -> None:
        """Have a mailbox for each of these machines, and for nobody else, on so many servers.

        Raises: Exhausted, Unreachable.
        """
        async with self._reached() as client:
            js = client.jetstream(timeout=ANSWER_S)
            there: set[str] = set()
            while page := await self._answer(js.streams_info(offset=len(there))):
                there |= {str(each.config.name) for each in page}
            wanted = {f"{_BOX}{machine}" for machine in machines}
            for stream in sorted(each for each in there - wanted if each.startswith(_BOX)):
                await self._answer(js.delete_stream(stream))
            # Also where it is there: what it is pulled by may be gone, or was never made.
            for stream in sorted(wanted):
                await self._answer(_make(client, stream.removeprefix(_BOX), copies=copies))

    async def give_all(self, other: "NatsClient") -> None:
        """Leave all that lies in the mailboxes here at another server. Raises: as `leave`."""
        async with self._reached() as here, other._reached() as there:
            js = here.jetstream(timeout=ANSWER_S)
            after = 0
            while page := await self._answer(js.streams_info(offset=after)):
                after += len(page)
                for stream in (str(each.config.name) for each in page):
                    seq = 1
                    while found := await self._answer(_at(js, stream, seq)):
                        seq = (found.seq or 0) + 1
                        await other._answer(_leave_as(there, stream, found))

    async def close(self) -> None:
        """Let go of the server; whoever waits is told so. Idempotent."""
        self._closed.set()
        async with self._dialling:
            await self._let_go()

    # --- the server ------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _reached(self) -> AsyncIterator[Client]:
        with self._said():
            yield await self._reach()

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        """What the server and the client say, in our words. Raises: Exhausted, Unreachable."""
        try:
            yield
        except (NoRespondersError, refused.APIError) as error:
            code = error.err_code if isinstance(error, refused.APIError) else None
            if code is None:
                raise Unreachable(f"{self._where} answers, and has no JetStream now") from error
            said = str(getattr(error, "description", ""))[:200]
            if code in FULL:
                raise Exhausted(f"{self._where} has no room: {said}") from error
            if code == NOT_OURS:
                raise Unreachable(f"{self._where} has no mailbox of that machine yet") from error
            raise Unreachable(f"{self._where} refuses: {said}") from error
        except _ODD as error:
            raise Unreachable(f"{self._where} gives no answer ({_reason(error)})") from error

    async def _reach(self) -> Client:
        """A client that is connected, and whose server has our mailbox."""
        async with self._dialling:
            if self._closed.is_set():
                raise Unreachable(f"{self._where} is not used any more")
            if self._client is None or not self._client.is_connected:
                await self._let_go()
                client = await unless(self._closed, ConnectionClosedError(), self._dial())
                async with contextlib.AsyncExitStack() as undo:
                    undo.push_async_callback(_close, client)
                    if self._machine:
                        # Where machines may not make a mailbox, it is there already.
                        with contextlib.suppress(refused.ServiceUnavailableError):
                            making = self._answer(_make(client, self._machine))
                            await unless(self._closed, ConnectionClosedError(), making)
                    undo.pop_all()
                self._client = client
                self.number += 1
            return self._client

    async def _answer(self, work: Coroutine[Any, Any, T]) -> T:
        """What the server answers. Raises: Error as soon as the connection ends."""
        gone = self._gone
        if gone.is_set():
            work.close()
            raise ConnectionClosedError
        try:
            # Asked for each packet: a task for the work, and one for the end, would cost as much.
            async with asyncio.timeout(None) as until:
                gone.waiting.add(until)
                try:
                    return await work
                finally:
                    gone.waiting.discard(until)
        except TimeoutError:
            if until.expired():
                raise ConnectionClosedError from None
            raise

    async def _dial(self) -> Client:
        failed: list[Exception] = []

        async def fails(error: Exception) -> None:
            # The first is why: the connection ends of it, and no server is left.
            failed.append(error)

        login = self._login()
        for server in login.servers:
            failed.clear()
            client, self._gone = _Client(), End()
            async with contextlib.AsyncExitStack() as undo:
                undo.push_async_callback(_close, client)
                try:
                    await client.connect(
                        server, name="muster", connect_timeout=CONNECT_S, error_cb=fails,
                        closed_cb=setting(self._gone), inbox_prefix=f"_INBOX.{self._machine or 0}",
                        ping_interval=_PING_S, max_outstanding_pings=2, allow_reconnect=False,
                        max_reconnect_attempts=1, reconnect_time_wait=0, **login.options,
                    )  # fmt: skip
                except NoServersError:
                    # It says no more than that; why is in what `fails` was told.
                    continue
                except _ODD as error:
                    failed.append(error)
                    continue
                if client.max_payload >= PACKET_BYTES_MAX:
                    undo.pop_all()
                    return client
                failed.append(ValueError(f"its max_payload is below {PACKET_BYTES_MAX} bytes"))
        raise failed[0] if failed else ValueError("no server is known")

    async def _let_go(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await _close(client)

    async def _leave(self, client: Client, packet: bytes, to: str, name: str) -> bool:
        js = client.jetstream(timeout=ANSWER_S)
        subject, stream = f"muster.box.{to}.{self._machine}", f"{_BOX}{to}"
        named = {"Nats-Msg-Id": name} if name else {}
        try:
            kept = await js.publish(subject, packet, stream=stream, headers={**named})
        except refused.NoStreamResponseError:
            # There is no mailbox yet: it is made, and the packet is left once more.
            await _make(client, to, pulled=False)
            kept = await js.publish(subject, packet, stream=stream, headers={**named})
        return bool(kept.duplicate)


async def _make(client: Client, machine: str, *, pulled: bool = True, copies: int = 1) -> None:
    """Have a mailbox for a machine, and what it is pulled by. Raises: Error."""
    js = client.jetstream(timeout=ANSWER_S)
    stream = api.StreamConfig(
        name=f"{_BOX}{machine}",
        subjects=[f"muster.box.{machine}.*"],
        retention=api.RetentionPolicy.WORK_QUEUE,
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.NEW,
        max_bytes=MAILBOX_BYTES_MAX,
        max_msg_size=PACKET_BYTES_MAX + 1024,
        max_age=_KEPT_S,
        num_replicas=copies,
    )
    try:
        await js.add_stream(stream)
    except refused.APIError as error:
        # Another version made it, or whoever has the server.
        if error.err_code not in EXISTS:
            raise
    if pulled:
        box = api.ConsumerConfig(
            durable_name=_CONSUMER, ack_wait=TAKEN_S, max_ack_pending=AHEAD_MAX
        )
        await js.add_consumer(f"{_BOX}{machine}", box)


async def _at(js: JetStreamContext, stream: str, seq: int) -> api.RawStreamMsg | None:
    """What is at that place of a stream, or next after it."""
    with contextlib.suppress(refused.NotFoundError):
        return await js.get_msg(stream, seq, subject=">", next=True)
    return None


async def _leave_as(client: Client, stream: str, found: api.RawStreamMsg) -> None:
    """Have it kept there, but where its mailbox is no more, or full: that is offered again."""
    named = {"Nats-Msg-Id": hashlib.sha256(found.data or b"").hexdigest()}
    js = client.jetstream(timeout=ANSWER_S)
    try:
        await js.publish(str(found.subject), found.data or b"", stream=stream, headers=named)
    except refused.NoStreamResponseError:
        # The mailbox itself is gone; its sender offers the packet again.
        with contextlib.suppress(refused.NotFoundError):
            await js.stream_info(stream)
            raise
    except refused.APIError as error:
        if not is_full(error.err_code, error.description):
            raise


def _reason(error: BaseException) -> str:
    if isinstance(error, AuthorizationError):
        return "it lets this machine in no more"
    return (str(error) or type(error).__name__).removeprefix("nats: ")[:200]


async def _close(client: Client) -> None:
    # One that was cut in its handshake fails in its own way, and is closed by then.
    with contextlib.suppress(*_ODD):
        await client.close()
