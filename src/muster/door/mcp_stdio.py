"""The door for programs that speak MCP over their standard input and output alone.

    python3 -I -S …/muster/door/mcp_stdio.py HOME AGENT [SESSION]

Rule 1: the standard library alone, and nothing of Muster: it starts in a tenth of a second with any
Python 3 of the system, and moves lines.
Rule 2: it asks the daemon's own socket for the token of its session, keeps it in memory, and asks
for another one where the daemon was started anew. Nothing of it stands in a file or an argument.
Rule 3: the token is shown to the daemon's own door alone: the daemon says with each request which
port it holds at this moment, and the kernel, where it does, whose program is connected there.
Rule 4: what a program gives up on is hung up on; where no daemon runs it hears so, as an answer.
Rule 5: a connection of the older era goes on at the next door: it is begun again as it was.
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
# Another token, another door, and once more where both went at once.
_TRIES = 4
# Between two looks whether a door is there that tells of changes.
_AGAIN_S, _AGAIN_S_MAX = 1.0, 30.0
_VERSION = "io.modelcontextprotocol/protocolVersion"
_FAILED = (OSError, http.client.HTTPException, ValueError, KeyError)


class Bridge:
    """One program on one side, the door on the other."""

    def __init__(self, home: str, agent: str, own: str) -> None:
        self._home, self._agent, self._own = home, agent, own
        self._token, self._session, self._version = "", "", ""
        self._writing, self._renewing = threading.Lock(), threading.RLock()
        self._open: dict[Any, http.client.HTTPConnection] = {}
        # How the program began, of the older era, and what it follows: said again to another door.
        self._began: list[tuple[dict[str, Any], bytes]] = []
        self._follows: dict[str, tuple[dict[str, Any], bytes]] = {}
        self._hears = False

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
                self._hang_up(_params(message).get("requestId"))
            self._keep(message, line)
            moving = threading.Thread(target=self._move, args=(message, line), daemon=True)
            moving.start()
            if method == "initialize":
                # What comes next needs what is answered to this.
                moving.join()
                if not self._hears:
                    self._hears = True
                    threading.Thread(target=self._hear, daemon=True).start()
            else:
                threads = [each for each in threads if each.is_alive()] + [moving]
        for each in threads:
            each.join(_END_S)

    def _keep(self, message: dict[str, Any], line: bytes) -> None:
        """What the next door has to be told, too."""
        method, uri = message.get("method"), str(_params(message).get("uri"))
        if method == "initialize":
            self._began, self._session = [(message, line)], ""
        elif method == "notifications/initialized":
            self._began = [*self._began[:1], (message, line)]
        elif method == "resources/subscribe":
            self._follows[uri] = (message, line)
        elif method == "resources/unsubscribe":
            self._follows.pop(uri, None)

    # --- one message ----------------------------------------------------------------------

    def _move(self, message: dict[str, Any], line: bytes) -> None:
        number = message.get("id")
        try:
            self._pass_on(message, self._asked(message, line))
        except _FAILED as error:
            if number is not None:
                told = f"this machine's Muster does not answer ({error}); see `muster doctor`"
                self._say({"jsonrpc": "2.0", "id": number, "error": _error(-32000, told)})
        finally:
            self._hang_up(number)

    def _asked(self, message: dict[str, Any], line: bytes) -> http.client.HTTPResponse:
        """The answer of a door that knows who asks, and where."""
        for left in reversed(range(_TRIES)):
            token, session = self._bearer(), self._session
            answer = self._post(message, line, token, session)
            if left and answer.status == 401:
                # The daemon was started anew, and knows no token of before.
                self._forget(token)
            elif left and answer.status == 404 and session:
                # So was the door, and knows no connection of before.
                answer.read()
                self._renew(session)
            else:
                break
            answer.close()
        return answer

    def _post(
        self, message: dict[str, Any], line: bytes, token: str, session: str
    ) -> http.client.HTTPResponse:
        asked = self._dialled()
        if (number := message.get("id")) is not None:
            self._open[number] = asked
        asked.request("POST", "/mcp", line, self._headers(token, session) | _routing(message))
        return asked.getresponse()

    def _renew(self, gone: str) -> None:
        """Begin again with another door, unless somebody did already."""
        with self._renewing:
            if self._session != gone or not self._began:
                return
            self._session = ""
            try:
                for message, line in [*self._began, *self._follows.values()]:
                    # It is none of the program's own requests, whatever their numbers.
                    answer = self._asked({**message, "id": None}, line)
                    self._session = answer.headers.get("mcp-session-id") or self._session
                    answer.read()
                    answer.close()
            finally:
                # What could not be begun again is tried again with the next request.
                self._session = self._session or gone

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
        """What the door says by itself, to a connection of the older era; of each door anew."""
        pause_s, waiting = _AGAIN_S, threading.Event()
        while True:
            # The door is away or just begins: it is asked again after the pause.
            with contextlib.suppress(*_FAILED):
                token, session = self._bearer(), self._session
                asked = self._dialled()
                headers = self._headers(token, session) | {"Accept": "text/event-stream"}
                asked.request("GET", "/mcp", headers=headers)
                answer = asked.getresponse()
                if answer.status == 200:
                    pause_s = _AGAIN_S
                    self._pass_on({}, answer)
                elif answer.status == 401:
                    self._forget(token)
                elif answer.status == 404 and session:
                    self._renew(session)
                asked.close()
            waiting.wait(pause_s)
            pause_s = min(2 * pause_s, _AGAIN_S_MAX)

    def _hang_up(self, number: Any) -> None:
        asked = self._open.pop(number, None) if isinstance(number, (int, str)) else None
        if asked is not None and asked.sock is not None:
            # It has ended by itself.
            with contextlib.suppress(OSError):
                asked.sock.shutdown(socket.SHUT_RDWR)
            asked.close()

    def _say(self, message: Any) -> None:
        with self._writing:
            sys.stdout.write(json.dumps(message, separators=(",", ":")) + "\n")
            sys.stdout.flush()

    # --- who asks, and whom ---------------------------------------------------------------

    def _headers(self, token: str, session: str) -> dict[str, str]:
        found = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "Authorization": f"Bearer {token}",
        }
        if session:
            found |= {"Mcp-Session-Id": session, "MCP-Protocol-Version": self._version}
        return found

    def _bearer(self) -> str:
        """The token of our session. Raises: OSError without a daemon, ValueError."""
        with self._renewing:
            if not self._token:
                # A hook of the same program says which of its sessions that is.
                args = {"agent": self._agent, "own": self._own, "pid": os.getppid()}
                args["project"] = os.getcwd()
                self._token = str(self._daemon("session.open", args)["token"])
            return self._token

    def _forget(self, token: str) -> None:
        with self._renewing:
            if self._token == token:
                self._token = ""

    def _dialled(self) -> http.client.HTTPConnection:
        """A connection to the door. Raises: OSError where that is not our daemon's."""
        port = int(self._daemon("door", {})["port"])
        if not port:
            raise OSError("its door is shut, or its port is another program's")
        asked = http.client.HTTPConnection("127.0.0.1", port, timeout=None)
        asked.connect()
        if not is_ours(asked.sock):
            asked.close()
            raise OSError(f"another user's program answers at port {port}")
        return asked

    def _daemon(self, verb: str, args: dict[str, Any]) -> Any:
        """What the daemon answers at its own socket. Raises: OSError without one, ValueError."""
        with open(os.path.join(self._home, "run", "socket"), encoding="utf-8") as file:
            path = file.read().strip()
        # The one spelling that the daemon takes.
        call = {"args": args, "verb": verb}
        text = json.dumps(call, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        raw = text.encode()
        with socket.socket(socket.AF_UNIX) as daemon:
            daemon.settimeout(_ANSWER_S)
            daemon.connect(path)
            if sys.platform == "linux":
                told = daemon.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                if struct.unpack("=iII", told)[1] != os.getuid():
                    raise OSError("another user's program listens at its socket")
            frame = struct.pack(">BBI", 1, _CALL, 1) + raw
            daemon.sendall(struct.pack(">I", len(frame)) + frame)
            with daemon.makefile("rb") as said:
                (size,) = struct.unpack(">I", _read(said, 4))
                answer = json.loads(_read(said, min(size, LINE_BYTES_MAX))[7:])
        if not answer["ok"]:
            raise ValueError(answer["error"]["text"])
        return answer["value"]


def _read(said: Any, size: int) -> bytes:
    found: bytes = said.read(size)
    if len(found) < size:
        raise OSError("its daemon hung up")
    return found


def is_ours(connected: socket.socket) -> bool:
    """Whether a program of this user has the other end, as far as the kernel says it.

    What nobody accepted yet is whose the listening socket is.
    """
    if sys.platform != "linux":
        return True
    own, other = connected.getsockname()[1], connected.getpeername()[1]
    # As the kernel writes an address: the number that its four bytes are here.
    host = f"{struct.unpack('=I', socket.inet_aton('127.0.0.1'))[0]:08X}"
    rows: list[list[str]] = []
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        # A system that hides them says nothing of whose it is, as the first line promises.
        with contextlib.suppress(OSError), open(path, encoding="ascii") as table:
            rows += [line.split() for line in table][1:]
    uid = str(os.getuid())
    for row in rows:
        if row[1].endswith(f"{host}:{other:04X}") and row[2].endswith(f"{host}:{own:04X}"):
            if row[9] != "0":
                return row[7] == uid
            listen = [
                each for each in rows if each[3] == "0A" and each[1].endswith(f":{other:04X}")
            ]
            return all(each[7] == uid for each in listen)
    return True


def _params(message: dict[str, Any]) -> dict[str, Any]:
    found = message.get("params")
    return found if isinstance(found, dict) else {}


def _error(code: int, message: str) -> dict[str, Any]:
    return {"code": code, "message": message}


def _routing(message: dict[str, Any]) -> dict[str, str]:
    """The headers by which the newer era says what a request is, out of the request itself."""
    params = _params(message)
    version = (params.get("_meta") or {}).get(_VERSION)
    if not isinstance(version, str):
        return {}
    found = {"MCP-Protocol-Version": version, "Mcp-Method": str(message.get("method"))}
    named = params.get("name", params.get("uri"))
    return found | ({"Mcp-Name": named} if isinstance(named, str) else {})


if __name__ == "__main__":
    given = os.environ.get("CLAUDE_CODE_SESSION_ID") or f"stdio-{os.urandom(8).hex()}"
    Bridge(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else given).run()
