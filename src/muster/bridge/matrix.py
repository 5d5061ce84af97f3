"""Matrix: rooms of a homeserver, read by `sync`.

Rule 1: the cursor is the token of a sync, with the last event of each room: servers differ in where
they stop. Where a room was busier than one answer shows (`limited`), what is missing is fetched
backwards from `prev_batch` to that event, and heard in its order.
Rule 2: a post carries what its buttons say, and a reaction to it presses the one whose sign it is:
an event is what its sender signed, so nobody else's post has buttons of ours.
Rule 3: rooms that are encrypted are not read: this bridge holds no keys. The bot comes into rooms
that it is invited to; in one with a single other member what is said is private.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar, Final, TypeVar

import nio
from aiohttp import ClientError

from muster.bridge.base import Hear, Limits, Passed, Post, Pressed, Said, Slow
from muster.bridge.words import plain
from muster.errors import Denied, Malformed, Unreachable

R = TypeVar("R")
LIMITS: Final = Limits(text_chars=16_000, buttons=3, data_bytes=64)
# Where a post keeps its buttons.
_BUTTONS: Final = "org.muster.buttons"
_SYNC_MS: Final = 30_000
_PAGE: Final = 100
# So much is fetched of one room that was busy while nobody listened.
_PAGES_MAX: Final = 1_000
# Of so many rooms the last event is known over a restart; their cursor fits into its bound.
_ROOMS_MAX: Final = 64
_FILTER: Final[dict[str, Any]] = {
    "room": {
        "timeline": {"limit": _PAGE, "types": ["m.room.message", "m.reaction"]},
        "state": {"lazy_load_members": True, "types": ["m.room.member"]},
        "ephemeral": {"types": []},
        "account_data": {"types": []},
    },
    "presence": {"types": []},
    "account_data": {"types": []},
}


class Matrix:
    """See the rules at the top of this file. `options` has the homeserver's `url`."""

    limits: ClassVar[Limits] = LIMITS

    def __init__(self, token: str, options: Mapping[str, Any]) -> None:
        config = nio.AsyncClientConfig(
            encryption_enabled=False, store_sync_tokens=False, max_limit_exceeded=0, max_timeouts=0,
            request_timeout=_SYNC_MS / 1000 + 15,
        )  # fmt: skip
        self._client = nio.AsyncClient(str(options["url"]), config=config)
        self._client.access_token = token
        self._known = asyncio.Event()
        # The event that was heard last in each room.
        self._last: dict[str, str] = {}

    async def run(self, cursor: str, hear: Hear) -> None:
        """See the contract."""
        who = await self._asked(self._client.whoami(), nio.WhoamiResponse)
        self._client.user_id = who.user_id
        self._known.set()
        since, self._last = _read(cursor)
        while True:
            wait_ms = _SYNC_MS if since else 0
            work = self._client.sync(timeout=wait_ms, since=since or None, sync_filter=_FILTER)
            answer = await self._asked(work, nio.SyncResponse)
            for room in answer.rooms.invite:
                await self._asked(self._client.join(room), nio.JoinResponse)
            if since:
                for room, joined in answer.rooms.join.items():
                    async for event in self._came(room, joined.timeline, since):
                        await self._heard(room, event, hear)
            for room, joined in answer.rooms.join.items():
                if joined.timeline.events:
                    # Anew at the end: those that are quiet for longest are forgotten first.
                    self._last.pop(room, None)
                    self._last[room] = joined.timeline.events[-1].event_id
            if answer.next_batch != since:
                since = answer.next_batch
                self._last = dict(list(self._last.items())[-_ROOMS_MAX:])
                await hear(Passed(), json.dumps({"since": since, "last": self._last}))

    async def _came(self, room: str, timeline: Any, since: str) -> AsyncIterator[Any]:
        """What came in a room since then, the oldest first."""
        missed: list[Any] = []
        start = timeline.prev_batch
        for _ in range(_PAGES_MAX if timeline.limited else 0):
            work = self._client.room_messages(
                room, start=start, end=since, limit=_PAGE,
                message_filter={"types": ["m.room.message", "m.reaction"]},
            )  # fmt: skip
            page = await self._asked(work, nio.RoomMessagesResponse)
            last = self._last.get(room)
            for event in page.chunk:
                if event.event_id == last:
                    break
                missed.append(event)
            else:
                # Without an event to look for, a page that is not full is the last one.
                over = not page.chunk or (last is None and len(page.chunk) < _PAGE)
                if page.end and page.end != start and not over:
                    start = page.end
                    continue
            break
        for event in (*reversed(missed), *timeline.events):
            yield event

    async def _heard(self, room: str, event: Any, hear: Hear) -> None:
        source: dict[str, Any] = event.source
        content = source.get("content") or {}
        relates = content.get("m.relates_to") or {}
        if event.sender == self._client.user_id or not isinstance(relates, dict):
            return
        workspace = event.sender.partition(":")[2]
        if source.get("type") == "m.reaction":
            ref, sign = str(relates.get("event_id", "")), str(relates.get("key", ""))
            data = await self._data(room, ref, sign)
            if data:
                await hear(Pressed(event.event_id, workspace, event.sender, room, ref, data))
            return
        # An edit comes as a message that replaces another one.
        if not isinstance(event, nio.RoomMessageText) or relates.get("rel_type") == "m.replace":
            return
        answered = (relates.get("m.in_reply_to") or {}).get("event_id", "")
        thread = relates.get("event_id", "") if relates.get("rel_type") == "m.thread" else answered
        await hear(
            Said(
                event.event_id, workspace, event.sender, room, await self._is_private(room),
                event.body, str(thread),
            )
        )  # fmt: skip

    async def _is_private(self, room: str) -> bool:
        found = await self._asked(self._client.joined_members(room), nio.JoinedMembersResponse)
        return len(found.members) <= 2

    async def _data(self, room: str, ref: str, sign: str) -> str:
        """What the button of this sign carries, "" where it has none, or the post is not ours."""
        answer = await self._client.room_get_event(room, ref)
        if not isinstance(answer, nio.RoomGetEventResponse):
            return ""
        event = answer.event
        if event.sender != self._client.user_id:
            return ""
        buttons = event.source.get("content", {}).get(_BUTTONS)
        if not isinstance(buttons, dict):
            return ""
        # A variant of the sign is the same sign.
        return str(buttons.get(sign.replace("\ufe0f", ""), ""))

    # --- what is posted -----------------------------------------------------------------------

    async def post(self, post: Post, key: str) -> str:
        """See the contract: the server keeps one event for a transaction id."""
        await self._known.wait()
        named = hashlib.sha256(f"{key}\n{post.text}".encode()).hexdigest()[:32]
        work = self._client.room_send(post.room, "m.room.message", _content(post), tx_id=named)
        sent = await self._asked(work, nio.RoomSendResponse)
        for button in post.buttons:
            await self._react(post.room, sent.event_id, button.sign, named)
        return str(sent.event_id)

    async def _react(self, room: str, ref: str, sign: str, named: str) -> None:
        """So that a person only has to press the sign that is there."""
        relates = {"rel_type": "m.annotation", "event_id": ref, "key": sign}
        content = {"m.relates_to": relates}
        work = self._client.room_send(room, "m.reaction", content, tx_id=f"{named}{sign}")
        await self._asked(work, nio.RoomSendResponse)

    async def edit(self, ref: str, post: Post) -> None:
        """See the contract."""
        await self._known.wait()
        new = _content(post)
        new.pop("m.relates_to", None)
        content = {
            **new,
            "body": f"* {new['body']}",
            "m.new_content": new,
            "m.relates_to": {"rel_type": "m.replace", "event_id": ref},
        }
        named = hashlib.sha256(json.dumps([ref, new]).encode()).hexdigest()[:32]
        work = self._client.room_send(post.room, "m.room.message", content, tx_id=named)
        await self._asked(work, nio.RoomSendResponse)

    async def close(self) -> None:
        """See the contract."""
        await self._client.close()

    async def _asked(self, work: Any, wanted: type[R]) -> R:
        """The answer of the server. Raises: as the contract says."""
        try:
            answer = await work
        except (ClientError, OSError, TimeoutError) as error:
            raise Unreachable(f"the homeserver does not answer: {error}") from error
        if isinstance(answer, wanted):
            return answer
        code, said = str(getattr(answer, "status_code", "")), str(getattr(answer, "message", ""))
        if code in {"M_UNKNOWN_TOKEN", "M_MISSING_TOKEN", "M_USER_DEACTIVATED"}:
            raise Denied(f"the homeserver does not accept the token: {said[:200]}")
        if code == "M_LIMIT_EXCEEDED":
            raise Slow((getattr(answer, "retry_after_ms", None) or 1_000) / 1_000)
        if code in {"M_FORBIDDEN", "M_TOO_LARGE", "M_NOT_FOUND", "M_INVALID_PARAM", "M_BAD_JSON"}:
            raise Malformed(f"the homeserver refuses it: {code} {said[:200]}")
        raise Unreachable(
            f"the homeserver answers with {code or type(answer).__name__}: {said[:200]}"
        )


def _read(cursor: str) -> tuple[str, dict[str, str]]:
    """The token of a sync, and the last event of each room."""
    if not cursor:
        return "", {}
    found = json.loads(cursor)
    return str(found["since"]), dict(found["last"])


def _content(post: Post) -> dict[str, Any]:
    """A post as an event: text alone, with nobody mentioned."""
    hint = "  ".join(f"{each.sign} {each.label}" for each in post.buttons)
    text = plain(post.text, LIMITS.text_chars)
    content: dict[str, Any] = {
        "msgtype": "m.notice",
        "body": f"{text}\n\n{hint}" if hint else text,
        "m.mentions": {},
        _BUTTONS: {each.sign: each.data for each in post.buttons},
    }
    if post.thread:
        content["m.relates_to"] = {
            "rel_type": "m.thread", "event_id": post.thread, "is_falling_back": True,
            "m.in_reply_to": {"event_id": post.thread},
        }  # fmt: skip
    return content


BRIDGE: Final = Matrix
