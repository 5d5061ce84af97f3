"""Matrix: rooms of a homeserver, read by `sync`.

Rule 1: the cursor is the token of a sync, with the last event of each room: servers differ in where
they stop. Where a room was busier than one answer shows (`limited`), what is missing is fetched
backwards from `prev_batch` to that event, and heard in its order.
Rule 2: a post carries what its buttons say, and a reaction to it presses the one whose sign it is:
an event is what its sender signed, so nobody else's post has buttons of ours.
Rule 3: rooms that are encrypted are not read: this bridge holds no keys. The bot comes into rooms
that its own server's accounts, or the `inviters`, invite it to, and into the one that it posts in;
in one with a single other member what is said is private.
Rule 4: an event is what anybody made of it. It is read as far as `Event` says; one that is none,
or about which the server says no more, is passed over, as is an invitation that cannot be followed.
The client is asked to read none of it.
Rule 5: where the server does not know the place any more that the cursor names, the bridge begins
from now on, and says so.
"""

import asyncio
import contextlib
import hashlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any, ClassVar, Final, TypeVar
from urllib.parse import quote, urlencode

import msgspec
import nio
from aiohttp import ClientError

from muster.bridge.base import (
    CURSOR_CHARS_MAX,
    Hear,
    Limits,
    Passed,
    Post,
    Pressed,
    Said,
    Slow,
    patient,
)
from muster.bridge.matrix_event import (
    BUTTONS,
    Event,
    Joined,
    Members,
    Page,
    Refusal,
    Relates,
    Shown,
    Synced,
    Timeline,
    answer,
    event_of,
    id_of,
    inviter,
)
from muster.bridge.words import plain
from muster.errors import Denied, Malformed, MusterError, Unreachable

R = TypeVar("R")
LIMITS: Final = Limits(text_chars=16_000, buttons=3, data_bytes=64)
_SYNC_MS: Final = 30_000
_PAGE: Final = 100
# So much is fetched of one room that was busy while nobody listened.
_PAGES_MAX: Final = 1_000
# Of so many rooms the last event is known over a restart, where their cursor fits into its bound.
_ROOMS_MAX: Final = 64
# So many invitations wait for a server that asks to wait.
_INVITED_MAX: Final = 16
_OK: Final = 200
_TOO_MANY: Final = 429
_REF: Final = re.compile(r"\$[!-~]{1,254}")
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
        self._room, self._inviters = str(options.get("room", "")), set(options.get("inviters", ()))
        self._invited: dict[str, None] = {}
        self._joining: asyncio.Task[None] | None = None
        # The event that was heard last in each room.
        self._last: dict[str, str] = {}

    async def begin(self) -> str:
        """See the contract."""
        who = await self._asked(self._client.whoami(), nio.WhoamiResponse)
        self._client.user_id = who.user_id
        return str(who.user_id)

    async def run(self, cursor: str, hear: Hear) -> None:
        """See the contract."""
        try:
            await self._run(*_read(cursor), hear)
        finally:
            if self._joining is not None:
                self._joining.cancel()
                await asyncio.wait({self._joining})

    async def _run(self, since: str, last: dict[str, str], hear: Hear) -> None:
        self._last, wait_ms, lost = last, 0, ""
        while True:
            try:
                found = await self._synced(since, wait_ms)
            except Malformed as error:
                if not since:
                    raise
                lost = f"what was said meanwhile is not heard: {error}"[:500]
                since, self._last, wait_ms = "", {}, 0
                continue
            if not wait_ms:
                await hear(Passed(lost))
            wait_ms, lost = _SYNC_MS, ""
            await self._invitations(found.rooms.invite, hear)
            if since:
                await self._joined(found.rooms.join, since, hear)
            for room, joined in found.rooms.join.items():
                if called := next(filter(None, map(id_of, reversed(joined.timeline.events))), ""):
                    # Anew at the end: those that are quiet for longest are forgotten first.
                    self._last.pop(room, None)
                    self._last[room] = called
            if found.next_batch != since:
                since = found.next_batch
                await hear(Passed(), self._cursor(since))

    async def _joined(self, rooms: Mapping[str, Joined], since: str, hear: Hear) -> None:
        for room, joined in rooms.items():
            async for event in self._came(room, joined.timeline, since, hear):
                await self._heard(room, event, hear)

    async def _synced(self, since: str, wait_ms: int) -> Synced:
        query = {"timeout": str(wait_ms), "filter": json.dumps(_FILTER)}
        return await self._read(["sync"], Synced, query | ({"since": since} if since else {}))

    def _cursor(self, since: str) -> str:
        """A cursor within its bound: of the rooms that fit."""
        self._last = dict(list(self._last.items())[-_ROOMS_MAX:])
        while len(found := json.dumps({"since": since, "last": self._last})) > CURSOR_CHARS_MAX:
            if not self._last:
                raise Unreachable("the homeserver calls a place in its history by too long a name")
            del self._last[next(iter(self._last))]
        return found

    # --- invitations --------------------------------------------------------------------------

    async def _invitations(self, found: Mapping[str, Any], hear: Hear) -> None:
        """Come where it may, while what is said elsewhere is heard."""
        for room, invited in found.items():
            if len(self._invited) < _INVITED_MAX and self._may_come(room, invited):
                self._invited[room] = None
            else:
                await hear(Passed("an invitation into a room is not for this bridge to follow"))
        if self._joining is not None and self._joining.done():
            self._joining.result()
            self._joining = None
        if self._invited and self._joining is None:
            self._joining = asyncio.ensure_future(self._come(hear))

    async def _come(self, hear: Hear) -> None:
        """Into each room that it was invited to."""
        for room in list(self._invited):
            odd = ""
            try:
                await self._ask("POST", ["join", room], dict)
            except Slow:
                # Those that are left are followed after the next answer.
                return
            except (Malformed, Unreachable) as error:
                odd = f"an invitation could not be followed: {error}"[:500]
            del self._invited[room]
            if odd:
                await hear(Passed(odd))

    def _may_come(self, room: str, invited: Any) -> bool:
        own = self._client.user_id
        by = inviter(invited, own)
        known = {own.partition(":")[2], *self._inviters}
        whose = {by, by.partition(":")[2]}
        return bool(by) and (room == self._room or not known.isdisjoint(whose))

    # --- what is heard ------------------------------------------------------------------------

    async def _came(
        self, room: str, timeline: Timeline, since: str, hear: Hear
    ) -> AsyncIterator[Any]:
        """What came in a room since then, the oldest first."""
        missed: list[Any] = []
        start, last = timeline.prev_batch or "", self._last.get(room)
        for _ in range(_PAGES_MAX if timeline.limited else 0):
            try:
                page = await self._page(room, start, since)
            except Malformed as error:
                await hear(Passed(f"what was missed in a room cannot be read: {error}"))
                break
            for event in page.chunk:
                if last is not None and id_of(event) == last:
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

    async def _page(self, room: str, start: str, end: str) -> Page:
        kinds = json.dumps({"types": _FILTER["room"]["timeline"]["types"]})
        query = {"dir": "b", "to": end, "limit": str(_PAGE), "filter": kinds}
        query |= {"from": start} if start else {}
        return await self._read(["rooms", room, "messages"], Page, query)

    async def _heard(self, room: str, event: Any, hear: Hear) -> None:
        try:
            found: Said | Pressed | Passed | None = await self._meant(room, event_of(event))
        except Malformed as error:
            found = Passed(str(error)[:500])
        if found is not None:
            await hear(found)

    async def _meant(self, room: str, event: Event) -> Said | Pressed | None:
        """What somebody said or pressed by it. Raises: Malformed: that cannot be told."""
        if event.sender == self._client.user_id:
            return None
        relates = event.content.relates or Relates()
        workspace = event.sender.partition(":")[2]
        if event.type == "m.reaction":
            data = await self._data(room, relates.event_id, relates.key)
            named = (event.event_id, workspace, event.sender, room)
            return Pressed(*named, relates.event_id, data) if data else None
        # An edit comes as a message that replaces another one.
        if event.content.msgtype != "m.text" or relates.rel_type == "m.replace":
            return None
        answered = relates.answered.event_id if relates.answered is not None else ""
        thread = relates.event_id if relates.rel_type == "m.thread" else answered
        private = await self._is_private(room)
        named = (event.event_id, workspace, event.sender, room)
        return Said(*named, private, event.content.body, thread, below=event.event_id)

    async def _is_private(self, room: str) -> bool:
        found = await self._read(["rooms", room, "joined_members"], Members)
        return len(found.joined) <= 2

    async def _data(self, room: str, ref: str, sign: str) -> str:
        """What the button of this sign carries, "" where it has none, or the post is not ours."""
        if not _REF.fullmatch(ref):
            return ""
        try:
            found = await self._read(["rooms", room, "event", ref], dict)
            buttons = msgspec.convert(found, Shown).buttons(self._client.user_id)
        except (Malformed, msgspec.ValidationError):
            # There is none, or none that may be seen, or none of ours.
            return ""
        # A variant of the sign is the same sign.
        return str(buttons.get(sign.replace("\ufe0f", ""), ""))

    # --- what is posted -----------------------------------------------------------------------

    async def post(self, post: Post, key: str) -> str:
        """See the contract: the server keeps one event for a transaction id."""
        named = hashlib.sha256(f"{key}\n{post.text}".encode()).hexdigest()[:32]
        work = self._client.room_send(post.room, "m.room.message", _content(post), tx_id=named)
        sent = await self._asked(work, nio.RoomSendResponse)
        for button in post.buttons:
            # A room may take posts and no reactions: the post is there, and so are its signs.
            with contextlib.suppress(Malformed):
                await self._react(post.room, sent.event_id, button.sign, named)
        return str(sent.event_id)

    async def _react(self, room: str, ref: str, sign: str, named: str) -> None:
        """So that a person only has to press the sign that is there."""
        relates = {"rel_type": "m.annotation", "event_id": ref, "key": sign}
        content = {"m.relates_to": relates}
        work = self._client.room_send(room, "m.reaction", content, tx_id=f"{named}{sign}")
        await self._asked(work, nio.RoomSendResponse)

    async def edit(self, ref: str, post: Post, key: str) -> None:
        """See the contract."""
        new = _content(post)
        new.pop("m.relates_to", None)
        content = {
            **new,
            "body": f"* {new['body']}",
            "m.new_content": new,
            "m.relates_to": {"rel_type": "m.replace", "event_id": ref},
        }
        named = hashlib.sha256(json.dumps([key, ref, new]).encode()).hexdigest()[:32]
        work = self._client.room_send(post.room, "m.room.message", content, tx_id=named)
        await self._asked(work, nio.RoomSendResponse)

    async def close(self) -> None:
        """See the contract."""
        await self._client.close()

    async def _read(self, path: list[str], wanted: type[R], query: Mapping[str, str] = {}) -> R:
        """As `_ask`, after as many pauses as the server wants."""
        return await patient(lambda: self._ask("GET", path, wanted, query))

    async def _ask(
        self, how: str, path: list[str], wanted: type[R], query: Mapping[str, str] = {}
    ) -> R:
        """The answer of the server, which the client is kept from reading. Raises: as `_asked`."""
        try:
            where = "/".join(quote(each, safe="") for each in path)
        except UnicodeError as error:
            raise Malformed("the name of a room or an event has half a letter") from error
        headers = {"Authorization": f"Bearer {self._client.access_token}"}
        headers |= {"Content-Type": "application/json"} if how == "POST" else {}
        body = "{}" if how == "POST" else None
        url = f"/_matrix/client/v3/{where}?{urlencode(query)}"
        try:
            found = await self._client.send(how, url, body, headers)
            raw, status = await found.read(), found.status
        except (ClientError, OSError, TimeoutError) as error:
            raise Unreachable(f"the homeserver does not answer: {error}") from error
        if status == _OK:
            return answer(raw, wanted)
        try:
            why = answer(raw, Refusal)
        except (Malformed, Unreachable):
            why = Refusal()
        raise _failed(status, why.errcode, why.error, why.retry_after_ms)

    async def _asked(self, work: Awaitable[Any], wanted: type[R]) -> R:
        """What the client read of an answer. Raises: as the contract says."""
        try:
            found = await work
        except (ClientError, OSError, TimeoutError) as error:
            raise Unreachable(f"the homeserver does not answer: {error}") from error
        if isinstance(found, wanted):
            return found
        response = getattr(found, "transport_response", None)
        status = response.status if response is not None else 0
        code, said = str(getattr(found, "status_code", "")), str(getattr(found, "message", ""))
        raise _failed(status, code, said, getattr(found, "retry_after_ms", None))


def _failed(status: int, code: str, said: str, wait_ms: Any) -> MusterError:
    """What it means that something was not done."""
    said = f"{code[:60] or status} {said[:200]}"
    if code in {"M_UNKNOWN_TOKEN", "M_MISSING_TOKEN", "M_USER_DEACTIVATED"}:
        return Denied(f"the homeserver does not accept the token: {said}")
    if code == "M_LIMIT_EXCEEDED" or status == _TOO_MANY:
        return Slow(max(100, wait_ms if isinstance(wait_ms, int) else 1_000) / 1_000)
    if 400 <= status < 500:
        return Malformed(f"the homeserver refuses it: {said}")
    return Unreachable(f"the homeserver answers with {said}")


def _read(cursor: str) -> tuple[str, dict[str, str]]:
    """The token of a sync, and the last event of each room; of what is no cursor of ours, none."""
    try:
        found = json.loads(cursor)
        return str(found["since"]), dict(found["last"])
    except (ValueError, KeyError, TypeError):
        return "", {}


def _content(post: Post) -> dict[str, Any]:
    """A post as an event: text alone, with nobody mentioned."""
    hint = "  ".join(f"{each.sign} {each.label}" for each in post.buttons)
    text = plain(post.text, LIMITS.text_chars)
    content: dict[str, Any] = {
        "msgtype": "m.notice",
        "body": f"{text}\n\n{hint}" if hint else text,
        "m.mentions": {},
        BUTTONS: {each.sign: each.data for each in post.buttons},
    }
    if post.thread:
        content["m.relates_to"] = {
            "rel_type": "m.thread", "event_id": post.thread, "is_falling_back": True,
            "m.in_reply_to": {"event_id": post.thread},
        }  # fmt: skip
    return content


BRIDGE: Final = Matrix
