"""Discord as far as a bridge uses it, on loopback: its REST, and the gateway with its sessions."""

import asyncio
import contextlib
import itertools
import json
import re
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp import web
from tests.bridge.desk import WAIT_S, Desk, Seen

from muster.bridge.base import Button

with contextlib.suppress(ImportError), warnings.catch_warnings():
    # It imports a module for voices that ends with Python 3.12.
    warnings.simplefilter("ignore", DeprecationWarning)
    import discord  # noqa: F401

BOT, GUILD, ELSEWHERE = "77", "500", "501"
MESSAGE_CONTENT = 1 << 15
HELLO, IDENTIFY, RESUME, INVALID, RECONNECT = 10, 2, 6, 9, 7


class Session:
    """What was told in one session of the gateway, and the socket that it is told over."""

    def __init__(self, id: str) -> None:
        self.id, self.told, self.lives = id, list[tuple[str, Any]](), True
        self.line: Line | None = None

    async def tell(self, kind: str, data: Any) -> None:
        self.told.append((kind, data))
        if self.line is not None:
            await self.line.event(len(self.told), kind, data)


class Line:
    """One socket, compressed as a whole."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.socket, self._zlib = socket, zlib.compressobj()

    async def send(self, **frame: Any) -> None:
        raw = self._zlib.compress(json.dumps(frame).encode()) + self._zlib.flush(zlib.Z_SYNC_FLUSH)
        with contextlib.suppress(ConnectionError):
            await self.socket.send_bytes(raw)

    async def event(self, number: int, kind: str, data: Any) -> None:
        await self.send(op=0, t=kind, s=number, d=data)


class Discords(Desk):
    name = "discord"
    room = "100"
    idempotent = True

    def __init__(self) -> None:
        self.token = "Nzc.Gabcde." + "a" * 38
        self._numbers = itertools.count(2**59, 2**22)
        # Messages of each channel, by their number.
        self.messages: dict[str, dict[str, Any]] = {self.room: {}}
        self.sessions: dict[str, Session] = {}
        self._nonces: dict[str, str] = {}
        self._slow, self._revoked = 0, False
        self.asked: list[tuple[str, Any]] = []
        self._was_asked = asyncio.Event()
        # What it does that is not as usual.
        self.intents, self.starts, self.endpoint = MESSAGE_CONTENT, 1_000, None
        self.instead: dict[str, Any] = {}
        self.shuts = False
        # What was said is told when these are set: that a session has begun, and that it may be.
        self.begun, self.shows = asyncio.Event(), asyncio.Event()
        self.shows.set()

    async def open(self) -> None:
        app = web.Application()
        app.router.add_get("/gateway", self._gateway)
        app.router.add_route("*", "/api/v10/{path:.*}", self._rest)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._at = f"127.0.0.1:{self._runner.addresses[0][1]}"
        self.url = f"http://{self._at}"

    async def close(self) -> None:
        await self._drop(1001)
        await self._runner.cleanup()

    async def until(self, holds: Callable[[], Any]) -> None:
        """Until it holds of what was asked."""
        async with asyncio.timeout(WAIT_S):
            while not holds():
                self._was_asked.clear()
                await self._was_asked.wait()

    # --- people -------------------------------------------------------------------------------

    def account(self, name: str) -> str:
        return str(10**17 + sum(map(ord, name)))

    def number(self) -> str:
        return str(next(self._numbers))

    def user(self, name: str) -> dict[str, Any]:
        return {"id": self.account(name), "username": name, "discriminator": "0", "avatar": None}

    def message(self, account: str, text: str, room: str, **more: Any) -> dict[str, Any]:
        return {
            "id": self.number(), "channel_id": room, "author": self.user(account), "content": text,
            "type": 0, "timestamp": "2026-11-28T00:00:00+00:00", "embeds": [], "attachments": [],
            "mentions": [], "edited_timestamp": None, "tts": False, "pinned": False, **more,
        }  # fmt: skip

    async def told(self, kind: str, data: Any) -> None:
        for session in self.sessions.values():
            if session.lives:
                await session.tell(kind, data)

    async def keep(self, message: dict[str, Any], guild: str = GUILD) -> None:
        """It stands in its channel, where no message says whose server that is."""
        self.messages.setdefault(message["channel_id"], {})[message["id"]] = message
        await self.told("MESSAGE_CREATE", message | ({"guild_id": guild} if guild else {}))

    def private(self, account: str) -> str:
        return str(10**16 + int(self.account(account)))

    async def say(self, account: str, text: str, *, private: bool = False) -> None:
        room = self.private(account) if private else self.room
        await self.keep(self.message(account, text, room), "" if private else GUILD)

    async def edit_last(self, account: str, text: str) -> None:
        last = [*self.messages[self.room].values()][-1]
        last |= {"content": text, "edited_timestamp": "2026-11-28T00:00:01+00:00"}
        await self.told("MESSAGE_UPDATE", last | {"guild_id": GUILD})

    async def press(self, account: str, ref: str, button: Button) -> None:
        room, _, number = ref.rpartition("/")
        await self.told("INTERACTION_CREATE", self.pressed(account, room, number, button.data))

    def pressed(self, account: str, room: str, number: str, data: str) -> dict[str, Any]:
        return {
            "id": self.number(), "application_id": BOT, "type": 3, "token": f"aW50{self.number()}",
            "version": 1, "guild_id": GUILD, "channel_id": room,
            "member": {"user": self.user(account), "roles": [], "permissions": "0"},
            "message": self.messages[room].get(number) or {"id": number},
            "data": {"component_type": 2, "custom_id": data, "id": 2},
        }  # fmt: skip

    async def seen(self) -> list[Seen]:
        found = []
        for number, each in self.messages[self.room].items():
            if each["author"]["id"] == BOT:
                # A sign behind a backslash is that sign.
                text = re.sub(r"\\([^0-9A-Za-z\s])", r"\1", each["content"])
                rows = each["components"] or [{"components": []}]
                data = [button["custom_id"] for button in rows[0]["components"]]
                found.append(Seen(f"{self.room}/{number}", text, data))
        return found

    async def slow_down(self) -> None:
        self._slow = 1

    async def revoke(self) -> None:
        self._revoked = True
        await self._drop(4004)

    async def cut(self) -> None:
        await self._drop(1001)
        await self._runner.cleanup()

    async def _drop(self, code: int) -> None:
        """Each line ends; what is told meanwhile waits for whoever comes back to its session."""
        for session in self.sessions.values():
            if session.line is not None:
                line, session.line = session.line, None
                await line.socket.close(code=code)

    async def reconnect(self) -> None:
        """The gateway asks to come back, to the session that there is."""
        for session in self.sessions.values():
            if session.line is not None:
                line, session.line = session.line, None
                await line.send(op=RECONNECT, d=None)

    # --- the gateway --------------------------------------------------------------------------

    async def _gateway(self, request: web.Request) -> web.WebSocketResponse:
        assert request.query["compress"] == "zlib-stream"
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        line = Line(socket)
        await line.send(op=HELLO, d={"heartbeat_interval": 41_250})
        if self.shuts:
            await socket.close(code=4000)
        async for each in socket:
            if each.type is not aiohttp.WSMsgType.TEXT:
                break
            frame = json.loads(each.data)
            if frame["op"] == 1:
                await line.send(op=11)
            elif frame["d"]["token"] != self.token or self._revoked:
                await socket.close(code=4004)
            elif frame["op"] == IDENTIFY:
                await self._identify(line, frame["d"])
            elif frame["op"] == RESUME:
                await self._resume(line, frame["d"])
        for session in self.sessions.values():
            if session.line is line:
                session.line = None
                # Whoever says goodbye does not come back.
                session.lives = socket.close_code not in {1000, 1001}
        return socket

    async def _identify(self, line: Line, said: Any) -> None:
        if said["intents"] & MESSAGE_CONTENT & ~self.intents:
            await line.socket.close(code=4014)
            return
        session = Session(self.number())
        self.sessions[session.id] = session
        session.line = line
        ready = {"v": 10, "user": self._bot(), "guilds": [], "session_id": session.id}
        await session.tell("READY", {**ready, "resume_gateway_url": f"ws://{self._at}/gateway"})
        self.begun.set()

    async def _resume(self, line: Line, said: Any) -> None:
        session = self.sessions.get(said["session_id"])
        if session is None or not session.lives:
            await line.send(op=INVALID, d=False)
            return
        for number, (kind, data) in enumerate(session.told, 1):
            if number > said["seq"]:
                await line.event(number, kind, data)
        session.line = line
        await session.tell("RESUMED", {})

    # --- what is asked for --------------------------------------------------------------------

    def _bot(self) -> dict[str, Any]:
        return {**self.user("muster"), "id": BOT, "bot": True}

    async def _rest(self, request: web.Request) -> web.Response:
        path, method = request.match_info["path"], request.method
        body = await request.json() if request.can_read_body else {}
        self.asked.append((f"{method} /{path}", body))
        self._was_asked.set()
        if path.startswith("interactions/"):
            return self.instead.get("interactions", lambda: web.Response(status=204))()
        if self._revoked or request.headers.get("Authorization") != f"Bot {self.token}":
            return answer({"message": "401: Unauthorized", "code": 0}, 401)
        if path in self.instead:
            return self.instead[path]()
        if path == "users/@me":
            return answer(self._bot())
        if path == "oauth2/applications/@me":
            return answer({
                "id": BOT, "name": "muster", "icon": None, "description": "", "bot_public": False,
                "bot_require_code_grant": False, "verify_key": "0" * 64, "flags": 0,
                "owner": self.user("owner"), "interactions_endpoint_url": self.endpoint,
            })  # fmt: skip
        if path == "gateway/bot":
            starts = {"total": 1_000, "remaining": self.starts, "reset_after": 7_200_000}
            starts["max_concurrency"] = 1
            url = f"ws://{self._at}/gateway"
            return answer({"url": url, "shards": 1, "session_start_limit": starts})
        _, room, *rest = path.split("/")
        there = self.messages.get(room)
        if there is None:
            return answer({"message": "Unknown Channel", "code": 10003}, 404)
        if not rest:
            of = {"guild_id": GUILD} if room == self.room else {}
            last = [*there][-1] if there else None
            return answer({"id": room, "type": 0 if of else 1, "last_message_id": last, **of})
        if method == "GET":
            await self.shows.wait()
            return answer(self._page(there, request.query))
        if self._slow:
            self._slow -= 1
            headers = {"Retry-After": "1", "Via": "1.1 proxy"}
            return answer({"message": "slow", "retry_after": 1.0, "global": False}, 429, headers)
        return await self._posted(room, method, rest[1:], body)

    def _page(self, there: dict[str, Any], query: Any) -> list[Any]:
        """Those that come next, the newest of them first."""
        behind = [each for number, each in there.items() if int(number) > int(query["after"])]
        return behind[: int(query["limit"])][::-1]

    async def _posted(self, room: str, method: str, rest: list[str], body: Any) -> web.Response:
        assert body["allowed_mentions"]["parse"] == []
        assert body["flags"] == 4
        there = self.messages[room]
        if not 0 < len(body["content"]) <= 2_000:
            return answer({"message": "Invalid Form Body", "code": 50035}, 400)
        if method == "PATCH":
            if rest[0] not in there:
                return answer({"message": "Unknown Message", "code": 10008}, 404)
            there[rest[0]] |= {"content": body["content"], "components": body["components"]}
            return answer(there[rest[0]])
        assert body["enforce_nonce"]
        assert len(body["nonce"]) <= 25
        if known := self._nonces.get(body["nonce"]):
            return answer(there[known])
        bot = {"author": self._bot(), "components": body["components"]}
        message = self.message("muster", body["content"], room, **bot)
        self._nonces[body["nonce"]] = message["id"]
        await self.keep(message, GUILD if room == self.room else "")
        return answer(message)


def answer(found: Any, status: int = 200, headers: Any = None) -> web.Response:
    """The library reads what is JSON by exactly this name."""
    headers = {"Content-Type": "application/json", **(headers or {})}
    return web.Response(body=json.dumps(found).encode(), status=status, headers=headers)
