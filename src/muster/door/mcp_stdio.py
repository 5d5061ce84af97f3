"""The door for programs that speak MCP over their standard input and output alone.

    python3 -I -S …/muster/door/mcp_stdio.py HOME AGENT [SESSION]

Rule 1: the standard library alone, and nothing of Muster: it starts in a tenth of a second with any
Python 3 of the system, and moves lines.
Rule 2: it asks the daemon's own socket for the token of its session, keeps it in memory, and asks
for another one where the daemon was started anew. Nothing of it stands in a file or an argument.
Rule 3: what a program gives up on is hung up on; where no daemon runs it hears so, as an answer.
"""

import contextlib
import http.client
import json
import os
import socket
import struct
import sys
import threading
from typing import Any

LINE_BYTES_MAX = 1024 * 1024
_CALL, _ANSWER_S, _END_S = 6, 20.0, 2.0
_VERSION = "io.modelcontextprotocol/protocolVersion"


class Bridge:
    """One program on one side, the door on the other."""

    def __init__(self, home: str, agent: str, own: str) -> None:
        self._home, self._agent, self._own = home, agent, own
        self._token, self._session, self._version = "", "", ""
        self._writing = threading.Lock()
        self._open: dict[Any, http.client.HTTPConnection] = {}

    def run(self) -> None:
        """Move lines until the program closes its end."""
        threads: list[threading.Thread] = []
        while line := sys.stdin.buffer.readline(LINE_BYTES_MAX + 1):
            if not line.strip():
                continue
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                message = None
            if not isinstance(message, dict) or len(line) > LINE_BYTES_MAX:
                self._say({"jsonrpc": "2.0", "id": None, "error": _error(-32700, "no JSON object")})
                if not line.endswith(b"\n"):
                    # What follows is the rest of the same line.
                    return
                continue
            method = message.get("method")
            if method == "notifications/cancelled":
                self._hang_up((message.get("params") or {}).get("requestId"))
            moving = threading.Thread(target=self._move, args=(message, line), daemon=True)
            moving.start()
            if method == "initialize":
                # What comes next needs what is answered to this.
                moving.join()
                threading.Thread(target=self._hear, daemon=True).start()
            else:
                threads = [each for each in threads if each.is_alive()] + [moving]
        for each in threads:
            each.join(_END_S)

    # --- one message ----------------------------------------------------------------------

    def _move(self, message: dict[str, Any], line: bytes) -> None:
        number = message.get("id")
        try:
            answer = self._post(message, line)
            if answer.status == 401:
                # The daemon was started anew, and knows no token of before.
                answer.read()
                self._token = ""
                answer = self._post(message, line)
            self._pass_on(message, answer)
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            if number is not None:
                told = f"this machine's Muster does not answer ({error}); see `muster doctor`"
                self._say({"jsonrpc": "2.0", "id": number, "error": _error(-32000, told)})
        finally:
            self._hang_up(number)

    def _post(self, message: dict[str, Any], line: bytes) -> http.client.HTTPResponse:
        asked = http.client.HTTPConnection("127.0.0.1", self._port(), timeout=None)
        headers = self._headers() | _routing(message)
        asked.request("POST", "/mcp", line, headers)
        if (number := message.get("id")) is not None:
            self._open[number] = asked
        return asked.getresponse()

    def _pass_on(self, message: dict[str, Any], answer: http.client.HTTPResponse) -> None:
        kind = answer.headers.get("content-type", "")
        if session := answer.headers.get("mcp-session-id"):
            self._session = session
        if kind.startswith("text/event-stream"):
            for line in answer:
                if line.startswith(b"data:") and line[5:].strip():
                    self._take(message, line[5:].strip())
        elif kind.startswith("application/json"):
            self._take(message, answer.read())
        elif answer.status >= 400 and "id" in message:
            text = answer.read(4096).decode(errors="replace").strip()
            self._say({"jsonrpc": "2.0", "id": message["id"], "error": _error(-32000, text)})

    def _take(self, message: dict[str, Any], raw: bytes) -> None:
        found = json.loads(raw)
        if message.get("method") == "initialize" and "result" in found:
            self._version = str(found["result"]["protocolVersion"])
        self._say(found)

    def _hear(self) -> None:
        """What the door says by itself, to a connection of the older era."""
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError):
            asked = http.client.HTTPConnection("127.0.0.1", self._port(), timeout=None)
            asked.request("GET", "/mcp", headers=self._headers() | {"Accept": "text/event-stream"})
            answer = asked.getresponse()
            if answer.status == 200:
                self._pass_on({}, answer)

    def _hang_up(self, number: Any) -> None:
        asked = self._open.pop(number, None) if isinstance(number, int | str) else None
        if asked is not None and asked.sock is not None:
            with contextlib.suppress(OSError):
                asked.sock.shutdown(socket.SHUT_RDWR)
            asked.close()

    def _say(self, message: Any) -> None:
        with self._writing:
            sys.stdout.write(json.dumps(message, separators=(",", ":")) + "\n")
            sys.stdout.flush()

    # --- who asks -------------------------------------------------------------------------

    def _headers(self) -> dict[str, str]:
        if not self._token:
            self._token = self._ask_token()
        found = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "Authorization": f"Bearer {self._token}",
        }
        if self._session:
            found |= {"Mcp-Session-Id": self._session, "MCP-Protocol-Version": self._version}
        return found

    def _port(self) -> int:
        with open(os.path.join(self._home, "door.port"), encoding="ascii") as file:
            return int(file.read(16))

    def _ask_token(self) -> str:
        """The token of our session, from the daemon. Raises: OSError without one, ValueError."""
        with open(os.path.join(self._home, "run", "socket"), encoding="utf-8") as file:
            path = file.read().strip()
        args = {"agent": self._agent, "own": self._own, "project": os.getcwd()}
        call = {"args": args, "verb": "session.open"}
        # The one spelling that the daemon takes.
        text = json.dumps(call, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        raw = text.encode()
        with socket.socket(socket.AF_UNIX) as daemon:
            daemon.settimeout(_ANSWER_S)
            daemon.connect(path)
            frame = struct.pack(">BBI", 1, _CALL, 1) + raw
            daemon.sendall(struct.pack(">I", len(frame)) + frame)
            with daemon.makefile("rb") as said:
                (size,) = struct.unpack(">I", said.read(4))
                answer = json.loads(said.read(min(size, LINE_BYTES_MAX))[7:])
        if not answer["ok"]:
            raise ValueError(answer["error"]["text"])
        return str(answer["value"]["token"])


def _error(code: int, message: str) -> dict[str, Any]:
    return {"code": code, "message": message}


def _routing(message: dict[str, Any]) -> dict[str, str]:
    """The headers by which the newer era says what a request is, out of the request itself."""
    params = message.get("params")
    params = params if isinstance(params, dict) else {}
    version = (params.get("_meta") or {}).get(_VERSION)
    if not isinstance(version, str):
        return {}
    found = {"MCP-Protocol-Version": version, "Mcp-Method": str(message.get("method"))}
    named = params.get("name", params.get("uri"))
    return found | ({"Mcp-Name": named} if isinstance(named, str) else {})


if __name__ == "__main__":
    given = os.environ.get("CLAUDE_CODE_SESSION_ID") or f"stdio-{os.urandom(8).hex()}"
    Bridge(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else given).run()
