"""Slack: an app of one workspace, told over a WebSocket (Socket Mode) what was said and pressed.

Rule 1: the cursor is the time of the newest message that was heard, by Slack's clock. A socket has
no memory: at each `hello`, what was said since then in the room and in direct messages is fetched.
A message is called by its place and its time, so it is one, however often and however it comes.
Rule 2: an envelope is acknowledged once what it holds is durable. Until then Slack sends an event
again, for some minutes; a press it does not, and a person presses again.
Rule 3: the client does not connect again by itself: it would try for ever, and say nothing.
"""

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, ClassVar, Final, TypeVar

from aiohttp import ClientError, ClientSession, ClientTimeout, WSMessage
from slack_sdk.errors import SlackApiError
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.web.async_client import AsyncWebClient

from muster.bridge.base import Hear, Heard, Limits, Passed, Post, Said, Slow, patient
from muster.bridge.slack_payload import (
    LIMITS,
    TS_PATTERN,
    Direct,
    Message,
    Opened,
    Own,
    Page,
    Press,
    Sent,
    Who,
    as_,
    content,
    pressed,
    said,
)
from muster.errors import Denied, Malformed, Unreachable

T = TypeVar("T")
_SERVER: Final = "https://slack.com/api/"
_REQUEST_S: Final = 30
_CONNECT_S: Final = 30
_CLOSE_S: Final = 2
_PING_S: Final = 15
# So long without a word before it is looked at whether the connection is there.
_WATCH_S: Final = 15
# What is fetched: messages of a page, pages of a room, direct messages, threads of a room. What is
# more is left out, and told.
_PAGE: Final = 200
_PAGES_MAX: Final = 25
_ROOMS_MAX: Final = 100
_THREADS_MAX: Final = 50
# Slack tells of two messages in another order than they were sent, and shows one a moment later.
_OVERLAP_S: Final = 15
# What was heard in this process is not heard again.
_DONE_MAX: Final = 4_096
_TOO_MANY: Final = 429
_NO_TOKEN: Final = frozenset({
    "account_inactive", "invalid_auth", "missing_scope", "not_allowed_token_type", "not_authed",
    "token_expired", "token_revoked",
})  # fmt: skip
_FOR_NOW: Final = frozenset({
    "fatal_error", "internal_error", "request_timeout", "service_unavailable", "team_added_to_org",
})  # fmt: skip
_REF: Final = re.compile(rf"([A-Z0-9]{{1,32}})/({TS_PATTERN})")
# Its client tells its logger of connections by their addresses, and those are secret.
_QUIET: Final = logging.getLogger("muster.bridge.slack")
_QUIET.setLevel(logging.CRITICAL + 1)


class _Socket(SocketModeClient):
    """Passes on what comes, with the ends of a connection, in their order; see rule 3."""

    def __init__(self, app_token: str, web: AsyncWebClient) -> None:
        super().__init__(
            app_token, _QUIET, web, auto_reconnect_enabled=False, ping_interval=_PING_S
        )
        self.came: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        # How often it was connected, and whether the last one was greeted.
        self.made, self.greeted = 0, False
        self.message_listeners.append(self._message)
        self.on_close_listeners.append(self._closed)
        self.on_error_listeners.append(self._closed)

    async def connect_to_new_endpoint(self, force: bool = False) -> None:  # noqa: ARG002 - theirs
        """What the client does where Slack asks for a fresh connection."""
        self.came.put_nowait({"type": "refresh"})

    async def _message(self, _client: Any, message: dict[str, Any], _raw: str | None) -> None:
        self.came.put_nowait(message)

    async def _closed(self, _message: WSMessage) -> None:
        # Behind what came before it.
        await self.enqueue_message(json.dumps({"type": "closed", "made": self.made}))


class Slack:
    """See the rules at the top of this file. `options` has the `app_token`, and the `room`."""

    limits: ClassVar[Limits] = LIMITS

    def __init__(self, token: str, options: Mapping[str, Any]) -> None:
        self._app_token = str(options.get("app_token") or "")
        self._room = str(options.get("room") or "")
        where = str(options.get("url") or _SERVER)
        self._session = ClientSession(timeout=ClientTimeout(total=_REQUEST_S))
        # Without its own handlers, which try again what may have been posted.
        self._web = AsyncWebClient(
            token, where, session=self._session, logger=_QUIET, retry_handlers=[]
        )
        # The client is not wholly typed.
        self._socket: Any = None
        self._own, self._now = Own("", ""), ""
        self._since, self._floor = "", ""
        self._done: dict[str, None] = {}

    async def begin(self) -> str:
        """See the contract."""
        answer = await self._answer(self._web.auth_test())
        who = as_(answer.data, Who)
        self._own, self._now = Own(who.user_id, who.team_id), _time(answer.headers)
        return f"{who.team_id}/{who.user_id}"

    async def run(self, cursor: str, hear: Hear) -> None:
        """See the contract."""
        known = re.fullmatch(TS_PATTERN, cursor)
        self._since = cursor if known else self._now
        self._floor = "" if known else self._now
        self._socket = _Socket(self._app_token, self._web)
        await self._connect()
        while True:
            message = await self._next()
            kind = message.get("type")
            if kind == "hello":
                self._socket.greeted = True
                await self._catch_up(hear)
            elif kind == "refresh":
                await self._connect()
            elif kind == "closed":
                if message.get("made") == self._socket.made:
                    # Where a token was taken back, it says so.
                    await self.begin()
                    raise Unreachable("Slack closed the connection")
            else:
                await self._envelope(message, hear)

    # --- the connection -----------------------------------------------------------------------

    async def _connect(self) -> None:
        token = self._app_token
        opened = await patient(
            lambda: self._asked(
                self._web.apps_connections_open(app_token=token), Opened, whose="app"
            )
        )
        self._socket.made, self._socket.greeted = self._socket.made + 1, False
        self._socket.wss_uri = opened.url
        try:
            async with asyncio.timeout(_CONNECT_S):
                await self._socket.connect()
        except TimeoutError as error:
            raise Unreachable("Slack opens no connection") from error

    async def _next(self) -> dict[str, Any]:
        """What comes next. Raises: Unreachable: the connection ended, and nobody said so."""
        while True:
            try:
                async with asyncio.timeout(_WATCH_S):
                    found: dict[str, Any] = await self._socket.came.get()
                    return found
            except TimeoutError:
                if not self._socket.greeted or not await self._socket.is_connected():
                    raise Unreachable("the connection to Slack broke") from None

    async def close(self) -> None:
        """See the contract."""
        if self._socket is not None:
            # Whoever does not answer to a goodbye is left without one.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await self._socket.close()
            await self._socket.aiohttp_client_session.close()
        await self._session.close()

    # --- what is heard ------------------------------------------------------------------------

    async def _envelope(self, message: dict[str, Any], hear: Hear) -> None:
        id_ = message.get("envelope_id")
        if not isinstance(id_, str):
            return
        try:
            found = self._meant(message.get("type"), message.get("payload"))
        except Malformed as error:
            found = [Passed(str(error)[:500])]
        for each in found:
            await self._once(each, hear)
        # Where the connection ended meanwhile, Slack sends it again, and it is heard once.
        with contextlib.suppress(ClientError, ConnectionError):
            await self._socket.send_socket_mode_response({"envelope_id": id_})

    def _meant(self, kind: object, payload: object) -> list[Heard]:
        """What somebody said or pressed by it. Raises: Malformed: that cannot be told."""
        if not isinstance(payload, dict):
            raise Malformed("an envelope of Slack holds nothing")
        if kind == "interactive" and payload.get("type") == "block_actions":
            return [*pressed(as_(payload, Press), self._own)]
        event = payload.get("event")
        if kind != "events_api" or not isinstance(event, dict) or event.get("type") != "message":
            return []
        message = as_(event, Message)
        if message.channel is None:
            raise Malformed("a message of Slack is nowhere")
        self._since = max(self._since, message.ts)
        private = message.channel_type == "im"
        return [said(message, message.channel, self._own, private=private) or Passed()]

    async def _once(self, heard: Heard, hear: Hear) -> None:
        if isinstance(heard, Passed):
            await hear(heard, self._since)
        elif heard.id not in self._done:
            await hear(heard, self._since)
            self._done[heard.id] = None
            if len(self._done) > _DONE_MAX:
                del self._done[next(iter(self._done))]

    # --- what was missed ----------------------------------------------------------------------

    async def _catch_up(self, hear: Hear) -> None:
        """Hear what was said since then, room by room, each in its order. The cursor moves last."""
        oldest, newest = max(_before(self._since), self._floor), self._since
        for room, private in (await self._rooms(hear)).items():
            missed, odd = dict[str, Said | None](), list[str]()
            try:
                await self._fetch(room, oldest, missed, odd, private=private)
            except Malformed as error:
                odd.append(f"what was missed in {room} cannot be read: {error}")
            for ts, found in sorted(missed.items()):
                newest = max(newest, ts)
                if found is not None:
                    await self._once(found, hear)
            for why in odd[:10]:
                await hear(Passed(why[:500]))
            # It works, whatever is missed elsewhere.
            await hear(Passed(), self._since)
        self._since = newest
        await hear(Passed(), newest)

    async def _rooms(self, hear: Hear) -> dict[str, bool]:
        """The room that it posts in, and its direct messages; whether nobody else reads each."""
        directs = dict[str, bool]()
        try:
            async for each in self._each(partial(self._web.conversations_list, types="im")):
                if len(directs) == _ROOMS_MAX:
                    await hear(Passed(f"direct messages beyond {_ROOMS_MAX} are not looked at"))
                    break
                # What is no direct message is none to look at.
                with contextlib.suppress(Malformed):
                    direct = as_(each, Direct)
                    directs[direct.id] = direct.is_im
        except Malformed as error:
            await hear(Passed(f"direct messages cannot be listed: {error}"[:500]))
        return {**({self._room: False} if self._room else {}), **directs}

    async def _fetch(
        self, room: str, oldest: str, missed: dict[str, Said | None], odd: list[str], *,
        private: bool,
    ) -> None:  # fmt: skip
        """By their times what is newer than that, in the room and in its latest threads."""
        roots, count = list[str](), 0

        def take(each: Any) -> Message | None:
            try:
                message = as_(each, Message)
                if message.ts > oldest:
                    missed[message.ts] = said(message, room, self._own, private=private)
            except Malformed as error:
                odd.append(str(error))
                return None
            return message

        # The newest first. The first page is read to its end: what has new answers may be older.
        async for each in self._each(partial(self._web.conversations_history, channel=room)):
            count += 1
            message = take(each)
            if message is None:
                continue
            if (message.latest_reply or "") > oldest:
                roots.append(message.ts)
            if message.ts <= oldest and count >= _PAGE:
                break
        else:
            if count >= _PAGE * _PAGES_MAX:
                odd.append(f"of what was missed in {room}, no more than {count} are heard")
        if len(roots) > _THREADS_MAX:
            odd.append(f"of the threads in {room}, no more than {_THREADS_MAX} are looked at")
        for root in roots[:_THREADS_MAX]:
            ask = partial(self._web.conversations_replies, channel=room, ts=root, oldest=oldest)
            async for each in self._each(ask):
                take(each)

    async def _each(self, ask: Callable[..., Awaitable[Any]]) -> AsyncIterator[Any]:
        """What an answer lists, page after page."""
        more: str | None = None
        for _ in range(_PAGES_MAX):
            work = partial(ask, limit=_PAGE, cursor=more)
            page = await patient(partial(self._page, work))
            for each in (*page.messages, *page.channels):
                yield each
            more = page.response_metadata.next_cursor if page.response_metadata else None
            if not more:
                return

    async def _page(self, work: Callable[[], Awaitable[Any]]) -> Page:
        return await self._asked(work(), Page)

    # --- what is posted -----------------------------------------------------------------------

    async def post(self, post: Post, key: str) -> str:  # noqa: ARG002 - the service cannot tell
        """See the contract: what is asked for twice stands there twice."""
        below = _REF.fullmatch(post.thread)
        sent = await self._asked(
            self._web.chat_postMessage(
                channel=post.room, **content(post), thread_ts=below[2] if below else None,
                mrkdwn=False, unfurl_links=False, unfurl_media=False,
            ),
            Sent,
        )  # fmt: skip
        return f"{sent.channel}/{sent.ts}"

    async def edit(self, ref: str, post: Post, key: str) -> None:  # noqa: ARG002 - an edit is one
        """See the contract."""
        found = _REF.fullmatch(ref)
        if found is None:
            raise Malformed(f"{ref[:60]!r} is no post of Slack")
        await self._answer(self._web.chat_update(channel=found[1], ts=found[2], **content(post)))

    async def _asked(self, work: Awaitable[Any], wanted: type[T], whose: str = "bot") -> T:
        return as_((await self._answer(work, whose)).data, wanted)

    async def _answer(self, work: Awaitable[Any], whose: str = "bot") -> Any:
        """The answer of the service. Raises: as the contract says."""
        try:
            return await work
        except SlackApiError as error:
            raise _refusal(error.response, whose) from error
        except (ClientError, OSError, TimeoutError) as error:
            raise Unreachable(f"Slack does not answer: {type(error).__name__}") from error
        except (AttributeError, TypeError, ValueError) as error:
            # Its client takes for an object whatever comes.
            raise Unreachable("Slack answers with what is no answer") from error


def _refusal(response: Any, whose: str) -> Denied | Malformed | Unreachable:
    data, headers = getattr(response, "data", None), getattr(response, "headers", {})
    status = getattr(response, "status_code", getattr(response, "status", 0))
    found = data if isinstance(data, dict) else {}
    code, needed = _word(found.get("error")), _word(found.get("needed"))
    if status == _TOO_MANY or code in {"ratelimited", "rate_limited"}:
        wait = str(headers.get("Retry-After", ""))
        return Slow(max(0.1, float(wait)) if re.fullmatch("[0-9]{1,6}", wait) else 30.0)
    if code in _NO_TOKEN:
        scope = f" (it needs the scope {needed})" if needed else ""
        return Denied(f"Slack does not accept the {whose} token: {code}{scope}")
    if status >= 500 or not code or code in _FOR_NOW:
        return Unreachable(f"Slack answers with {code or status}")
    return Malformed(f"Slack refuses it: {code}")


def _word(found: object) -> str:
    return found if isinstance(found, str) and re.fullmatch("[a-z_:.,]{1,200}", found) else ""


def _time(headers: Mapping[str, str]) -> str:
    """Now, by the clock of the service."""
    try:
        return f"{int(parsedate_to_datetime(headers['Date']).timestamp()):010}.000000"
    except (KeyError, TypeError, ValueError) as error:
        raise Unreachable("Slack does not say what time it is") from error


def _before(ts: str) -> str:
    return f"{max(0, int(ts[:10]) - _OVERLAP_S):010}.000000"


BRIDGE: Final = Slack
