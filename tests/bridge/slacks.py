"""Slack's Web API and Socket Mode as far as a bridge uses them, on loopback.

A message is an event where a socket is open, and lies in the history whatever happens. What was not
acknowledged is sent again, in an envelope of its own, once another socket opens.
"""

import asyncio
import email.utils
import itertools
import json
import re
from typing import Any

from aiohttp import WSMsgType, web
from tests.bridge.desk import Desk, Seen

from muster.bridge.base import Button

TEAM, BOT = "T0FLEET", "U0BOT"
TOKEN, APP_TOKEN = "xoxb-1-of-the-bot", "xapp-1-of-the-app"
# Some minutes between one message and the next.
STEP_S = 100


class Slacks(Desk):
    name = "slack"
    room = "C0ROOM"

    def __init__(self) -> None:
        self.token, self.options = TOKEN, {"app_token": APP_TOKEN}
        self._numbers = itertools.count(1)
        self._clock = 1_700_000_000
        self.messages: dict[str, list[dict[str, Any]]] = {self.room: []}
        self.sockets: list[web.WebSocketResponse] = []
        # Sent, and not acknowledged.
        self.pending: dict[str, dict[str, Any]] = {}
        self._changed = asyncio.Event()
        self._slow, self._revoked, self.asked = 0, False, list[str]()
        # What is answered instead, the first times: a body, a whole response, or None for none.
        self.once: dict[str, list[Any]] = {}
        self.greets = True

    async def open(self) -> None:
        app = web.Application()
        app.router.add_post("/{method}", self._asked)
        app.router.add_get("/{method}", self._asked)
        app.router.add_get("/link/{ticket}", self._link)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def close(self) -> None:
        await self._runner.cleanup()

    async def until(self, holds: Any) -> None:
        async with asyncio.timeout(20):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    # --- people -----------------------------------------------------------------------------

    def account(self, name: str) -> str:
        return f"U0{name.upper()}"

    def tick(self) -> str:
        self._clock += STEP_S
        return f"{self._clock}.{next(self._numbers):06}"

    async def say(self, account: str, text: str, *, private: bool = False, **more: Any) -> str:
        room = f"D0{account.upper()}" if private else self.room
        escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        message = {
            "type": "message", "user": self.account(account), "text": escaped, "ts": self.tick(),
            "team": TEAM, "blocks": [], "client_msg_id": "c", **more,
        }  # fmt: skip
        self.put(room, message)
        kind = "im" if private else "channel"
        await self.tell({**message, "channel": room, "channel_type": kind})
        return str(message["ts"])

    def put(self, room: str, message: dict[str, Any]) -> None:
        if root := message.get("thread_ts"):
            (found,) = [each for each in self.messages[room] if each["ts"] == root]
            found |= {"thread_ts": root, "latest_reply": message["ts"], "reply_count": 1}
        self.messages.setdefault(room, []).append(message)

    async def edit_last(self, account: str, text: str) -> None:
        last = [each for each in self.messages[self.room] if each.get("user") != BOT][-1]
        edited = {"user": self.account(account), "ts": self.tick()}
        last |= {"text": text, "edited": edited}
        await self.tell({
            "type": "message", "subtype": "message_changed", "hidden": True, "channel": self.room,
            "channel_type": "channel", "ts": edited["ts"], "message": last, "previous_message": {},
        })  # fmt: skip

    async def press(self, account: str, ref: str, button: Button) -> None:
        # Where nobody listens, a person sees that it failed, and presses again.
        await self.until(lambda: self.sockets)
        room, _, ts = ref.partition("/")
        action = {"type": "button", "action_id": "muster-0", "block_id": "b", "value": button.data}
        await self.send("interactive", {
            "type": "block_actions", "team": {"id": TEAM, "domain": "fleet"}, "token": "t",
            "user": {"id": self.account(account), "username": account, "team_id": TEAM},
            "container": {"type": "message", "message_ts": ts, "channel_id": room},
            "channel": {"id": room}, "actions": [{**action, "action_ts": self.tick()}],
        })  # fmt: skip

    async def tell(self, event: dict[str, Any]) -> None:
        payload = {"type": "event_callback", "team_id": TEAM, "event": event, "event_id": "Ev"}
        await self.send("events_api", payload)

    async def send(self, kind: str, payload: Any, **more: Any) -> str:
        id_ = f"e{next(self._numbers)}"
        envelope = {"type": kind, "envelope_id": id_, "payload": payload, **more}
        if self.sockets:
            # Nobody is told later of what was pressed.
            if kind == "events_api":
                self.pending[id_] = envelope
            await self.raw(json.dumps(envelope))
        return id_

    async def raw(self, text: str) -> None:
        await self.sockets[-1].send_str(text)

    async def seen(self) -> list[Seen]:
        posts = [each for each in self.messages[self.room] if each.get("user") == BOT]
        return [Seen(f"{self.room}/{each['ts']}", *_shown(each["blocks"])) for each in posts]

    async def slow_down(self) -> None:
        self._slow = 1

    async def revoke(self) -> None:
        self._revoked = True
        if self.sockets:
            await self.refresh("link_disabled")

    async def refresh(self, reason: str = "refresh_requested") -> None:
        """Slack asks for a fresh connection, and closes this one."""
        socket = self.sockets.pop()
        await socket.send_json({"type": "disconnect", "reason": reason, "debug_info": {}})
        await socket.close()

    async def cut(self) -> None:
        for each in self.sockets:
            await each.close(code=1001)
        self.sockets.clear()
        await self._runner.cleanup()

    # --- the service ----------------------------------------------------------------------

    async def _asked(self, request: web.Request) -> web.StreamResponse:
        method, data = request.match_info["method"], dict(request.query)
        if request.content_type == "application/json":
            data |= await request.json()
        elif request.can_read_body:
            data |= dict(await request.post())
        self.asked.append(method)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        wanted = APP_TOKEN if method == "apps.connections.open" else TOKEN
        if self._revoked or token != wanted:
            return self._no("invalid_auth")
        if found := self.once.get(method):
            answer = found.pop(0)
            if answer is None:
                assert request.transport is not None
                request.transport.abort()
            return answer if isinstance(answer, web.Response) else web.json_response(answer)
        if method in {"chat.postMessage", "chat.update"} and self._slow:
            self._slow -= 1
            headers = {"Retry-After": "1"}
            return web.json_response(
                {"ok": False, "error": "ratelimited"}, status=429, headers=headers
            )
        return self._answered(method, data)

    def _answered(self, method: str, data: dict[str, Any]) -> web.Response:
        if method == "auth.test":
            return self._yes(user_id=BOT, team_id=TEAM, bot_id="B0BOT", url="https://x", team="x")
        if method == "apps.connections.open":
            ticket = next(self._numbers)
            return self._yes(url=f"ws://127.0.0.1:{self._port}/link/{ticket}")
        if method == "conversations.list":
            assert data["types"] == "im"
            rooms = [name for name in self.messages if name.startswith("D")]
            return self._paged("channels", [{"id": each, "is_im": True} for each in rooms], data)
        if method == "conversations.history":
            if data["channel"] not in self.messages:
                return self._no("channel_not_found")
            found = [
                each
                for each in self.messages[data["channel"]]
                if each.get("thread_ts") in {None, each["ts"]}
            ]
            return self._paged("messages", list(reversed(found)), data)
        if method == "conversations.replies":
            found = [
                each
                for each in self.messages[data["channel"]]
                if each.get("thread_ts") == data["ts"]
                and (each["ts"] > data["oldest"] or each["ts"] == data["ts"])
            ]
            return self._paged("messages", found, data)
        return self._posted(method, data)

    def _posted(self, method: str, data: dict[str, Any]) -> web.Response:
        _check(data)
        if method == "chat.postMessage":
            assert data["mrkdwn"] is data["unfurl_links"] is data["unfurl_media"] is False
            if data["channel"] not in self.messages:
                return self._no("channel_not_found")
            post = {"type": "message", "user": BOT, "bot_id": "B0BOT", "team": TEAM, **data}
            post |= {"ts": self.tick()}
            self.put(data["channel"], post)
        else:
            assert method == "chat.update"
            found = [each for each in self.messages[data["channel"]] if each["ts"] == data["ts"]]
            if not found:
                return self._no("message_not_found")
            (post,) = found
            assert post["user"] == BOT
            post |= data
        told = {**post, "channel": data["channel"], "channel_type": "channel"}
        self._telling = asyncio.ensure_future(self.tell(told))
        return self._yes(channel=data["channel"], ts=post["ts"])

    def _paged(self, name: str, found: list[Any], data: dict[str, Any]) -> web.Response:
        start, limit = int(data.get("cursor") or 0), int(data["limit"])
        more = str(start + limit) if len(found) > start + limit else ""
        page = {name: found[start : start + limit], "response_metadata": {"next_cursor": more}}
        return self._yes(**page, has_more=bool(more))

    def _yes(self, **answer: Any) -> web.Response:
        date = email.utils.formatdate(self._clock + 1, usegmt=True)
        return web.json_response({"ok": True, **answer}, headers={"Date": date})

    def _no(self, error: str) -> web.Response:
        return web.json_response({"ok": False, "error": error})

    async def _link(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        if self.greets:
            await socket.send_json({"type": "hello", "num_connections": 1, "connection_info": {}})
        self.sockets.append(socket)
        self._changed.set()
        again, self.pending = self.pending, {}
        for each in again.values():
            await self.send(each["type"], each["payload"], retry_attempt=1, retry_reason="timeout")
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                self.pending.pop(json.loads(message.data)["envelope_id"], None)
                self._changed.set()
        if socket in self.sockets:
            self.sockets.remove(socket)
        return socket


def _check(data: dict[str, Any]) -> None:
    """As Slack takes it, and so that nothing in it is more than text."""
    assert data["parse"] == "none"
    assert data["link_names"] is False
    assert 0 < len(data["text"]) <= 4_000
    assert 0 < len(data["blocks"]) <= 50
    texts = [data["text"]]
    for block in data["blocks"]:
        if block["type"] == "section":
            found = [block["text"]]
            assert block["expand"] is True
        else:
            found = [each["text"] for each in block["elements"]]
            assert block["type"] == "actions"
            assert all(0 < len(each["value"]) <= 2_000 for each in block["elements"])
            assert all(len(each["text"]) <= 75 for each in found)
            assert len({each["action_id"] for each in block["elements"]}) == len(found)
        for each in found:
            assert (each["type"], each["emoji"]) == ("plain_text", False)
            assert 0 < len(each["text"].encode("utf-16-le")) // 2 <= 3_000
            texts.append(each["text"])
    for text in texts:
        assert not re.search("[<>]|&(?!amp;|lt;|gt;)", text)


def _shown(blocks: list[dict[str, Any]]) -> tuple[str, list[str]]:
    text = "".join(each["text"]["text"] for each in blocks if each["type"] == "section")
    keys = [key["value"] for each in blocks for key in each.get("elements", ())]
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"), keys
