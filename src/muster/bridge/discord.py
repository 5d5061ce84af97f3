"""Discord: a bot's gateway for what is said, and its REST for what is posted and was missed.

Rule 1: the gateway tells what happens while a session lasts, and nothing of what was said before.
So the cursor is the newest message heard of each channel, and what came behind it is fetched there
whenever a session begins. A message that comes on both ways is heard once, by its number.
Rule 2: the library's own idea of what comes is not asked: it fails where one field is not as it
thinks, and takes the connection with it. It is read by discord_payload.py, and what cannot be read
is passed over.
Rule 3: heard are direct messages, and the channels of the server that the room is on: anybody may
invite a bot elsewhere. An account has one number on all of Discord.
Rule 4: a press is answered once it is durable, and waits for no message: whoever pressed is told
soon by Discord that nothing came of it. Nobody can fetch one that came while nobody heard.
Rule 5: where the service refuses or fails, it is known here before the library waits and asks
again; it says nothing in its log, where addresses with tokens would stand.
"""

import asyncio
import contextlib
import hashlib
import logging
import math
import zlib
from collections import OrderedDict
from collections.abc import Awaitable, Mapping
from typing import Any, ClassVar, Final, TypeVar

import aiohttp
import discord
import yarl
from discord.gateway import DiscordWebSocket
from discord.http import Route

from muster.bridge import discord_payload as payload
from muster.bridge.base import Hear, Limits, Passed, Post, Pressed, Said, Slow, patient
from muster.errors import Broken, Denied, Malformed, Refused, Unreachable

T = TypeVar("T")
_SERVER: Final = "https://discord.com"
_PAGE: Final = 100
# So much is fetched of one channel that was busy while nobody listened.
_PAGES_MAX: Final = 1_000
# So many numbers are known, for what comes on both ways, and so much waits to be durable.
_KNOWN_MAX: Final = 20_000
_WAITING_MAX: Final = 10_000
# So often a connection may end before it has begun, one after the other.
_DOWNS_MAX: Final = 3
_ANSWER_S: Final = 60.0
# Longer than this nobody waits whose press is not answered.
_PRESS_S: Final = 3.0
_CLOSE_S: Final = 2.0
# Where an answer says that the next one must wait, the library does so: the least it may be told.
_PAUSE_S_MAX: Final = 30.0
_ODD_CHARS_MAX: Final = 500
_BAD_TOKEN: Final = "Discord does not accept the token"  # noqa: S105 - it says so of one
_NO_INTENT: Final = "the bot may not read what is said: turn its Message Content Intent on"


class _Begun:
    """A session has begun: what was said before it is not told."""


_Came = _Begun | payload.Message | Passed


class _Client(discord.Client):
    """The library's connections, and nothing that it makes of what comes over them."""

    def __init__(self, bridge: "Discord") -> None:
        intents = discord.Intents.none()
        intents.guild_messages = intents.dm_messages = intents.message_content = True
        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(_judge)
        super().__init__(
            intents=intents, max_messages=None, enable_debug_events=True, http_trace=trace,
            max_ratelimit_timeout=_PAUSE_S_MAX,
        )  # fmt: skip
        self._connection.parsers.clear()
        self._bridge = bridge

    async def on_socket_raw_receive(self, raw: str) -> None:
        """The library calls it with each event as it comes."""
        self._bridge.came(raw)

    async def on_disconnect(self) -> None:
        """The library calls it where a connection has ended, before it begins the next one."""
        self._bridge.went_down()


class Discord:
    """See the rules at the top of this file. `options` has the `room`, the number of a channel, and
    may have the `url` of another server.
    """

    limits: ClassVar[Limits] = payload.LIMITS

    def __init__(self, token: str, options: Mapping[str, Any]) -> None:
        self._token, self._room = token, str(options.get("room", ""))
        if not payload.is_id(self._room):
            raise Broken("the `room` of Discord is the number of a channel: copy its id there")
        logging.getLogger("discord").setLevel(logging.CRITICAL + 1)
        self._url = str(options.get("url") or _SERVER)
        Route.BASE = f"{self._url}/api/v10"
        self._client = _Client(self)
        self._guild: str | None = None
        self._cursor = payload.Cursor()
        self._known = OrderedDict[str, None]()
        self._came = asyncio.Queue[_Came](_WAITING_MAX)
        self._presses = asyncio.Queue[payload.Press](_WAITING_MAX)
        self._downs = 0
        self._over: asyncio.Future[None] | None = None

    async def begin(self) -> str:
        """See the contract."""
        # Anew each time: what the library began before it failed is let go of.
        await self.close()
        self._client = _Client(self)
        await _asked(self._client.login(self._token))
        application, user = self._client.application, self._client.user
        if application is None or user is None:
            raise Unreachable("Discord does not say which bot this is")
        if application.interactions_endpoint_url:
            raise Denied("presses go elsewhere: clear the bot's Interactions Endpoint URL")
        return str(user.id)

    async def run(self, cursor: str, hear: Hear) -> None:
        """See the contract."""
        self._over = asyncio.get_running_loop().create_future()
        await patient(lambda: self._find_room(payload.cursor(cursor)))
        DiscordWebSocket.DEFAULT_GATEWAY = await patient(self._gateway)
        running: list[asyncio.Future[None]] = [
            asyncio.ensure_future(_asked(self._client.connect(reconnect=False), None)),
            asyncio.ensure_future(self._hear_all(hear)),
            asyncio.ensure_future(self._hear_presses(hear)),
            self._over,
        ]
        try:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for each in running:
                if each in done:
                    each.result()
        finally:
            for each in running:
                each.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        raise Unreachable("the connection to Discord has ended")

    async def _find_room(self, cursor: payload.Cursor) -> None:
        """Which server is ours, and from where on its channel is heard."""
        try:
            found = payload.as_(await self._ask(_channel("GET", self._room)), payload.Channel)
        except Malformed as error:
            raise Malformed(f"the bot may not see the channel {self._room}: {error}") from error
        self._guild = found.guild_id
        if cursor.guild == self._guild:
            self._cursor = cursor
        else:
            self._cursor = payload.Cursor(self._guild, {}, cursor.private)
        kept = self._cursor.channels if self._guild else self._cursor.private
        kept.setdefault(self._room, found.last_message_id or "0")

    async def _gateway(self) -> yarl.URL:
        found = payload.as_(await self._ask(Route("GET", "/gateway/bot")), payload.Gateway)
        if not found.session_start_limit.remaining:
            # Whoever begins more sessions in a day loses the token.
            raise Slow(found.session_start_limit.reset_after / 1_000)
        if self._url.startswith("https:") and not found.url.startswith("wss:"):
            raise Unreachable("Discord names a gateway that is not encrypted")
        return yarl.URL(found.url)

    # --- what comes ---------------------------------------------------------------------------

    def came(self, raw: str) -> None:
        """Keep what is to be heard of an event of the gateway."""
        try:
            found = self._read(raw)
            if isinstance(found, payload.Press):
                self._presses.put_nowait(found)
            elif found is not None:
                self._came.put_nowait(found)
        except asyncio.QueueFull:
            # The daemon begins it anew, and it is fetched then.
            self._end("Discord tells more than is kept")

    def _read(self, raw: str) -> _Came | payload.Press | None:
        try:
            return self._meant(payload.frame(raw))
        except Unreachable as error:
            return Passed(str(error)[:_ODD_CHARS_MAX])

    def _meant(self, event: payload.Frame) -> _Came | payload.Press | None:
        """Raises: Unreachable: it cannot be read."""
        if event.t in {"READY", "RESUMED"}:
            self._downs = 0
        if event.t == "READY":
            return _Begun()
        if event.t == "MESSAGE_CREATE":
            return payload.as_(event.d, payload.Message)
        if event.t == "INTERACTION_CREATE" and payload.is_press(event.d):
            return payload.as_(event.d, payload.Press)
        return None

    def went_down(self) -> None:
        """A connection has ended. The library tries the next one without any pause."""
        self._downs += 1
        if self._downs >= _DOWNS_MAX:
            self._end("Discord ends each connection before it begins")

    def _end(self, why: str) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_exception(Unreachable(why))

    async def _hear_all(self, hear: Hear) -> None:
        while True:
            came = await self._came.get()
            if isinstance(came, _Begun):
                await self._missed(hear)
            elif isinstance(came, payload.Message):
                await self._heard(came, came.guild_id, hear)
            else:
                await hear(came)

    async def _hear_presses(self, hear: Hear) -> None:
        while True:
            await self._pressed(await self._presses.get(), hear)

    async def _missed(self, hear: Hear) -> None:
        """Hear what was said in each channel behind what was heard there last."""
        await hear(Passed())
        if self._guild:
            for room in [*self._cursor.channels]:
                await self._missed_in(room, self._guild, hear)
        for room in [*self._cursor.private]:
            await self._missed_in(room, None, hear)
        await hear(Passed(), self._cursor.text())

    async def _missed_in(self, room: str, guild: str | None, hear: Hear) -> None:
        kept = self._cursor.channels if guild else self._cursor.private
        after = int(kept.get(room, "0"))
        for _ in range(_PAGES_MAX):
            try:
                page = await self._page(room, after)
            except Malformed as error:
                # It is gone, or the bot may not read it any more.
                if room != self._room:
                    kept.pop(room, None)
                await hear(Passed(f"what was missed in a channel cannot be read: {error}"))
                return
            for found in sorted(page, key=payload.number):
                try:
                    message = payload.of_page(found, room)
                except Unreachable as error:
                    await hear(Passed(str(error)[:_ODD_CHARS_MAX]))
                else:
                    await self._heard(message, guild, hear)
            if len(page) < _PAGE:
                return
            # A page is in the order of time: two of one millisecond may stand on both sides of its
            # end, in any order.
            before, after = after, payload.just_before(max(map(payload.number, page)))
            if after <= before:
                break
        await hear(Passed("more was said in a channel than is fetched of it"))

    async def _page(self, room: str, after: int) -> list[Any]:
        """The messages that come next behind that number, in any order."""
        asked, where = {"after": str(after), "limit": _PAGE}, _channel("GET", room, "/messages")
        return payload.as_(await patient(lambda: self._ask(where, params=asked)), list[Any])

    async def _heard(self, message: payload.Message, guild: str | None, hear: Hear) -> None:
        if message.id in self._known or guild not in {None, self._guild}:
            return
        self._known[message.id] = None
        if len(self._known) > _KNOWN_MAX:
            self._known.popitem(last=False)
        room = message.channel_id
        self._cursor.move(room, message.id, guild, keep=self._room)
        cursor = self._cursor.text()
        if not message.is_said:
            await hear(Passed(), cursor)
            return
        named = (f"m{message.id}", "", message.author.id, room)
        await hear(Said(*named, guild is None, message.content, message.thread), cursor)

    async def _pressed(self, press: payload.Press, hear: Hear) -> None:
        if not press.account or press.guild_id not in {None, self._guild}:
            await hear(Passed("a button was pressed by nobody, or in another server"))
            return
        named = (f"i{press.id}", "", press.account, press.channel_id)
        await hear(Pressed(*named, f"{press.channel_id}/{press.message.id}", press.data.custom_id))
        where = Route(
            "POST", "/interactions/{webhook_id}/{webhook_token}/callback",
            webhook_id=int(press.id), webhook_token=press.token,
        )  # fmt: skip
        # It waits for so long only; that it was heard is kept all the same.
        with contextlib.suppress(Refused, Unreachable):
            await _asked(self._client.http.request(where, json={"type": 6}), _PRESS_S)

    # --- what is posted -----------------------------------------------------------------------

    async def post(self, post: Post, key: str) -> str:
        """See the contract: for some minutes the service keeps one of equal nonces."""
        if not payload.is_id(post.room):
            raise Malformed(f"{post.room[:60]!r} is no channel of Discord")
        named = hashlib.sha256(f"{key}\n{post.text}".encode()).hexdigest()[:25]
        body = {**payload.body(post), "nonce": named, "enforce_nonce": True}
        below = post.thread.rpartition("/")[2]
        if payload.is_id(below):
            body["message_reference"] = {"message_id": below, "fail_if_not_exists": False}
        answer = await self._ask(_channel("POST", post.room, "/messages"), json=body)
        return f"{post.room}/{payload.as_(answer, payload.Named).id}"

    async def edit(self, ref: str, post: Post, key: str) -> None:  # noqa: ARG002 - an edit is one
        """See the contract."""
        room, _, number = ref.rpartition("/")
        if not payload.is_id(room) or not payload.is_id(number):
            raise Malformed(f"{ref[:60]!r} is no post of Discord")
        where = _channel("PATCH", room, "/messages/{message_id}", number)
        await self._ask(where, json=payload.body(post))

    async def close(self) -> None:
        """See the contract."""
        # Whoever does not answer to a goodbye is left without one.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._client.close()
        await self._client.http.close()

    async def _ask(self, where: Route, **more: Any) -> Any:
        return await _asked(self._client.http.request(where, **more))


def _channel(method: str, room: str, path: str = "", message: str = "") -> Route:
    path = "/channels/{channel_id}" + path
    return Route(method, path, channel_id=int(room), message_id=message)


async def _judge(_session: Any, _context: Any, ended: aiohttp.TraceRequestEndParams) -> None:
    """Whether the library may go on with an answer. Raises: Denied, Slow, Unreachable."""
    answer = ended.response
    if answer.status not in {401, 429} and answer.status < 500:
        return
    answer.close()
    if answer.status == 401:
        raise Denied(_BAD_TOKEN)
    if answer.status == 429:
        raise Slow(_seconds(answer.headers.get("Retry-After", "")))
    raise Unreachable(f"Discord answers with {answer.status}")


def _seconds(text: str) -> float:
    try:
        wait_s = float(text)
    except ValueError:
        return 1.0
    return max(0.1, wait_s) if math.isfinite(wait_s) else 1.0


async def _asked(work: Awaitable[T], within_s: float | None = _ANSWER_S) -> T:
    """The answer of the service. Raises: as the contract says."""
    try:
        async with asyncio.timeout(within_s):
            return await work
    except discord.RateLimited as error:
        raise Slow(_seconds(str(error.retry_after))) from error
    except discord.ConnectionClosed as error:
        if error.code == 4004:
            raise Denied(_BAD_TOKEN) from error
        if error.code in {4013, 4014}:
            raise Denied(_NO_INTENT) from error
        raise Unreachable(f"Discord closes the connection: {error.code}") from error
    except discord.HTTPException as error:
        raise Malformed(f"Discord refuses it: {error.status} {str(error.text)[:200]}") from error
    except (aiohttp.ClientError, OSError, discord.DiscordException) as error:
        why = str(error) or type(error).__name__
        raise Unreachable(f"Discord does not answer: {why[:200]}") from error
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError, zlib.error) as error:
        # The library does not find what it looks for in an answer, or was closed meanwhile.
        raise Unreachable(f"Discord's answer cannot be read: {type(error).__name__}") from error


BRIDGE: Final = Discord
