"""A real Matrix homeserver: Synapse, in an environment of its own, and people on it."""

import asyncio
import contextlib
import hashlib
import hmac
import itertools
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.bridge.desk import Desk, Seen
from tests.ports import free_port

from muster.bridge.base import Button

ROOT = Path(__file__).parent.parent.parent
PYTHON = ROOT / ".cache" / "synapse" / "bin" / "python"
CONFIG = """
server_name: fleet.test
pid_file: {folder}/synapse.pid
listeners:
  - {{port: {port}, type: http, tls: false, bind_addresses: [127.0.0.1], resources: [{{names: [client]}}]}}
database: {{name: sqlite3, args: {{database: "{folder}/synapse.db"}}}}
media_store_path: {folder}/media
signing_key_path: {folder}/signing.key
registration_shared_secret: secret
report_stats: false
trusted_key_servers: []
log_config: {folder}/log.yaml
rc_message: {{per_second: 10000, burst_count: 10000}}
rc_login: {{address: {{per_second: 1000, burst_count: 1000}}, account: {{per_second: 1000, burst_count: 1000}}}}
rc_joins: {{local: {{per_second: 1000, burst_count: 1000}}}}
rc_invites: {{per_room: {{per_second: 1000, burst_count: 1000}}, per_user: {{per_second: 1000, burst_count: 1000}}}}
"""
LOG = "version: 1\ndisable_existing_loggers: true\nroot: {level: ERROR}\n"


class Server:
    """One homeserver for all tests of a session."""

    def __init__(self, folder: Path) -> None:
        if not PYTHON.exists():
            pytest.skip(f"{PYTHON.relative_to(ROOT)} is not there: .ci/run installs Synapse")
        self.port = free_port()
        (folder / "log.yaml").write_text(LOG)
        config = folder / "homeserver.yaml"
        config.write_text(CONFIG.format(folder=folder, port=self.port))
        argv = [str(PYTHON), "-m", "synapse.app.homeserver", "-c", str(config)]
        subprocess.run([*argv, "--generate-keys"], check=True, capture_output=True, cwd=folder)
        self._process = subprocess.Popen(
            argv, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.url = f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)


class Rooms(Desk):
    name = "matrix"
    idempotent = True
    below = True
    _numbers = itertools.count(1)

    def __init__(self, server: Server) -> None:
        self._server, self.url = server, server.url
        self._tokens: dict[str, str] = {}
        self._mark = next(self._numbers)
        self._last = ""
        self._rooms: dict[str, str] = {}

    async def open(self) -> None:
        self._http = aiohttp.ClientSession()
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with self._http.get(f"{self.url}/_matrix/client/versions") as found:
                        if found.status == 200:
                            break
                await asyncio.sleep(0.1)
        self.token = await self._user("muster")
        self.room = await self._room("muster", [])
        # With one person alone a room is private.
        await self._user("carol")

    async def close(self) -> None:
        await self._http.close()

    def account(self, name: str) -> str:
        return f"@{name}{self._mark}:fleet.test"

    async def _user(self, name: str) -> str:
        if name not in self._tokens:
            where = "/_synapse/admin/v1/register"
            nonce = (await self._ask("GET", where))["nonce"]
            user = f"{name}{self._mark}"
            said = b"\0".join([nonce.encode(), user.encode(), b"pw", b"notadmin"])
            mac = hmac.new(b"secret", said, hashlib.sha1).hexdigest()
            body = {"nonce": nonce, "username": user, "password": "pw", "mac": mac, "admin": False}
            self._tokens[name] = (await self._ask("POST", where, body))["access_token"]
            if name != "muster":
                await self._invite(self.room, name)
        return self._tokens[name]

    async def _ask(self, how: str, path: str, body: Any = None, token: str = "") -> Any:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self._http.request(how, self.url + path, json=body, headers=headers) as found:
            answer = await found.json()
            assert found.status == 200, answer
            return answer

    async def _room(self, by: str, invite: list[str]) -> str:
        body = {"preset": "private_chat", "invite": invite}
        made = await self._ask("POST", "/_matrix/client/v3/createRoom", body, self._tokens[by])
        return str(made["room_id"])

    async def _invite(self, room: str, name: str) -> None:
        where = f"/_matrix/client/v3/rooms/{room}"
        user = {"user_id": self.account(name)}
        await self._ask("POST", f"{where}/invite", user, self._tokens["muster"])
        await self._ask("POST", f"{where}/join", {}, self._tokens[name])

    async def _send(self, account: str, room: str, kind: str, content: Any) -> str:
        token = await self._user(account)
        number = f"t{next(self._numbers)}"
        where = f"/_matrix/client/v3/rooms/{room}/send/{kind}/{number}"
        return str((await self._ask("PUT", where, content, token))["event_id"])

    async def say(self, account: str, text: str, *, private: bool = False) -> None:
        token, room = await self._user(account), self.room
        if private:
            if account not in self._rooms:
                self._rooms[account] = await self._room(account, [self.account("muster")])
                where = f"/_matrix/client/v3/rooms/{self._rooms[account]}/joined_members"
                async with asyncio.timeout(30):
                    # The bot is asked for, and comes when its bridge hears of it.
                    while len((await self._ask("GET", where, None, token))["joined"]) < 2:
                        pass
            room = self._rooms[account]
        self._last = await self._send(
            account, room, "m.room.message", {"msgtype": "m.text", "body": text}
        )

    async def edit_last(self, account: str, text: str) -> None:
        new = {"msgtype": "m.text", "body": text}
        relates = {"rel_type": "m.replace", "event_id": self._last}
        content = {**new, "m.new_content": new, "m.relates_to": relates}
        await self._send(account, self.room, "m.room.message", content)

    async def press(self, account: str, ref: str, button: Button) -> None:
        relates = {"rel_type": "m.annotation", "event_id": ref, "key": button.sign}
        await self._send(account, self.room, "m.reaction", {"m.relates_to": relates})

    async def seen(self) -> list[Seen]:
        where = f"/_matrix/client/v3/rooms/{self.room}/messages?dir=b&limit=200"
        chunk = (await self._ask("GET", where, None, self._tokens["muster"]))["chunk"]
        posts: dict[str, Seen] = {}
        for event in reversed(chunk):
            content = event.get("content", {})
            if event["type"] != "m.room.message" or event["sender"] != self.account("muster"):
                continue
            relates = content.get("m.relates_to", {})
            new = content.get("m.new_content", content)
            ref = relates.get("event_id") if relates.get("rel_type") == "m.replace" else ""
            posts[ref or event["event_id"]] = Seen(
                ref or event["event_id"], new["body"], list(new["org.muster.buttons"].values())
            )
        return list(posts.values())

    async def cut(self) -> None:
        # The server is for other tests, too: a bridge that begins now finds nobody.
        self.url = f"http://127.0.0.1:{free_port()}"

    async def revoke(self) -> None:
        await self._ask("POST", "/_matrix/client/v3/logout/all", {}, self._tokens["muster"])
