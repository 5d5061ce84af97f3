"""Telegram's Bot API as far as a bridge uses it, on loopback."""

import asyncio
import itertools
import json
from typing import Any

from aiohttp import web
from tests.bridge.desk import Desk, Seen

from muster.bridge.base import Button

# A group that is another one by now: the room.
MOVED = "-99"


class Telegrams(Desk):
    name = "telegram"
    room, bot = "-100", "77."

    def __init__(self) -> None:
        self.token = "77:" + "A" * 35
        self._numbers = itertools.count(1)
        self._updates: list[dict[str, Any]] = []
        self._posts: dict[str, dict[str, Any]] = {}
        self._came = asyncio.Event()
        self._slow, self._revoked, self.asked = 0, False, list[str]()

    async def open(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/bot{token}/{method}", self._asked)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        self._came.set()
        await self._runner.cleanup()

    def account(self, name: str) -> str:
        return str(sum(map(ord, name)))

    def _user(self, name: str) -> dict[str, Any]:
        return {"id": int(self.account(name)), "is_bot": False, "first_name": name}

    def _push(self, **update: Any) -> None:
        self._updates.append({"update_id": next(self._numbers), **update})
        self._came.set()

    def _message(self, account: str, text: str, *, private: bool) -> dict[str, Any]:
        chat = {"id": int(self.account(account)), "type": "private"}
        chat = chat if private else {"id": int(self.room), "type": "supergroup", "title": "fleet"}
        number, who = next(self._numbers), self._user(account)
        return {"message_id": number, "date": 1, "chat": chat, "from": who, "text": text}

    async def say(self, account: str, text: str, *, private: bool = False) -> None:
        self._push(message=self._message(account, text, private=private))

    async def edit_last(self, account: str, text: str) -> None:
        self._push(edited_message=self._message(account, text, private=False) | {"edit_date": 2})

    async def press(self, account: str, ref: str, button: Button) -> None:
        number = int(ref.rpartition("/")[2])
        message = {"message_id": number, "date": 1, "chat": {"id": int(self.room), "type": "group"}}
        self._push(callback_query={
            "id": str(next(self._numbers)), "from": self._user(account), "chat_instance": "c",
            "data": button.data, "message": message,
        })  # fmt: skip

    async def seen(self) -> list[Seen]:
        found = []
        for ref, post in self._posts.items():
            rows = json.loads(post.get("reply_markup") or "{}").get("inline_keyboard") or [[]]
            found.append(Seen(ref, post["text"], [each["callback_data"] for each in rows[0]]))
        return found

    async def slow_down(self) -> None:
        self._slow = 1

    async def revoke(self) -> None:
        self._revoked = True
        self._came.set()

    async def cut(self) -> None:
        await self._runner.cleanup()

    # --- the service ----------------------------------------------------------------------

    async def _asked(self, request: web.Request) -> web.Response:
        method = request.match_info["method"]
        data = dict(await request.post()) if request.can_read_body else {}
        self.asked.append(method)
        if self._revoked or request.match_info["token"] != self.token:
            return _no(401, "Unauthorized")
        if method == "getMe":
            return _yes({"id": 77, "is_bot": True, "first_name": "m", "username": "muster_bot"})
        if method == "getUpdates":
            return await self._poll(data)
        if method in ("sendMessage", "editMessageText") and data["chat_id"] == MOVED:
            why = "Bad Request: group chat was upgraded to a supergroup chat"
            return _no(400, why, {"migrate_to_chat_id": int(self.room)})
        if method in ("sendMessage", "editMessageText") and self._slow:
            self._slow -= 1
            return _no(429, "Too Many Requests", {"retry_after": 1})
        if method == "sendMessage":
            assert "parse_mode" not in data
            ref = f"{data['chat_id']}/{next(self._numbers)}"
            self._posts[ref] = data
            return _yes(self._shown(ref, data))
        if method == "editMessageText":
            ref = f"{data['chat_id']}/{data['message_id']}"
            self._posts[ref] = data
            return _yes(self._shown(ref, data))
        return _yes(True)

    def _shown(self, ref: str, data: Any) -> dict[str, Any]:
        room, _, number = ref.rpartition("/")
        chat = {"id": int(room), "type": "supergroup"}
        return {"message_id": int(number), "date": 1, "chat": chat, "text": data["text"]}

    async def _poll(self, data: Any) -> web.Response:
        offset = int(data.get("offset", 0) or 0)
        if offset < 0:
            return _yes(self._updates[offset:])
        self._updates = [each for each in self._updates if each["update_id"] >= offset]
        if not self._updates and int(data.get("timeout", 0) or 0):
            self._came.clear()
            await self._came.wait()
            if self._revoked:
                return _no(401, "Unauthorized")
        wanted = json.loads(data.get("allowed_updates") or "[]")
        return _yes([u for u in self._updates if not wanted or set(u) & set(wanted)])


def _yes(result: Any) -> web.Response:
    return web.json_response({"ok": True, "result": result})


def _no(code: int, text: str, more: Any = None) -> web.Response:
    said = {"ok": False, "error_code": code, "description": text, "parameters": more or {}}
    return web.json_response(said, status=code)
