"""`git-remote-muster`: what git starts for an address `muster::<machine>/<repository>`.

Rule 1: nothing of git's protocol is understood here; bytes go through, both ways, with credit.
Rule 2: nothing heavy is imported; git starts this for every fetch.

    git fetch muster::hub/site
        └─ git-remote-muster <remote> hub/site
              │ connect git-upload-pack
              └─ the local daemon's socket ── a link ── the hub ── git upload-pack

One thread sends what git says, the main thread receives; a send waits until the other side
granted room. Git closes its end when it is done, or the daemon does when the far git ended.
docs/spec/git.md holds the frames.
"""

import json
import os
import sys
import threading
from typing import Final, NamedTuple

from muster import limits
from muster.channel import ipc_client
from muster.channel.frame import Frame, Type, decode, encode
from muster.errors import Malformed, MusterError, Refused, Unreachable
from muster.limits import SOCKET_PATH_BYTES_MAX
from muster.visible import visible

_SERVICES: Final = ("git-upload-pack", "git-receive-pack")
_CALL: Final = 1
# The far git may work for long without a word; a daemon that dies closes the socket at once.
_SILENCE_S_MAX: Final = 24 * 3600.0
_GRANT_BYTES: Final = limits.GIT_WINDOW_BYTES // 4


class Address(NamedTuple):
    """Where a repository is."""

    machine: str
    repo: str


def main() -> int:
    """The program. Git speaks first, a line at a time."""
    try:
        if len(sys.argv) != 3:
            raise Malformed("this program is started by git, for addresses like muster::hub/site")
        address = parse(sys.argv[2])
        while (line := read_line()) != "":
            if line == "capabilities\n":
                write(b"connect\n\n")
            elif line.startswith("connect "):
                return connect(address, line.removeprefix("connect ").strip())
            elif line != "\n":
                raise Malformed(f"git asked for {line.strip()[:60]!r}, which we do not know")
    except Unreachable as error:
        print(visible(f"muster: unreachable: {_homeless() or error}"), file=sys.stderr)
        return 1
    except (MusterError, ValueError, OSError) as error:
        print(visible(f"muster: refused: {error}"), file=sys.stderr)
        return 1
    return 0


def _homeless() -> str:
    """Why nobody could answer, where git was started without the home of any machine."""
    from muster.node.home import Home  # noqa: PLC0415 - only after a failure

    home = Home()
    if os.environ.get("MUSTER_SOCK") or home.exists:
        return ""
    return (
        f"no machine lives in {home.path}: set MUSTER_HOME to the home that `muster init` or "
        "`muster join` named"
    )


def parse(text: str) -> Address:
    """`<machine>/<repository>`, also as `muster://<machine>/<repository>`. Raises Malformed."""
    machine, _, repo = text.removeprefix("muster://").partition("/")
    for name in (machine, repo):
        # The daemon checks names by its own rules; here only what could never be one.
        if not name or not set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-"):
            raise Malformed(f"{text[:80]!r} is not an address like muster::hub/site")
    return Address(machine, repo)


def connect(address: Address, service: str) -> int:
    """Open the tunnel and pump until one side is done; 0 when the far git ended well."""
    if service not in _SERVICES:
        raise Malformed(f"git asked for the service {service[:40]!r}, which we do not know")
    with ipc_client.Client(socket_path(), _SILENCE_S_MAX) as client:
        channel = call(client, address, service)
        # An empty line tells git that from here on the bytes are the service's own.
        write(b"\n")
        return Tunnel(client, channel).run()


def socket_path() -> str:
    """Where the local daemon listens."""
    if path := os.environ.get("MUSTER_SOCK"):
        return path
    home = os.environ.get("MUSTER_HOME", "")
    path = os.path.join(os.path.abspath(home), "run", "sock")
    if home and len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        return path
    from muster.node.home import Home  # noqa: PLC0415 - it costs a third of a quick command

    return Home(home or None).socket


def call(client: ipc_client.Client, address: Address, service: str) -> int:
    """Ask the daemon for a tunnel; the channel it runs on."""
    args = {"machine": address.machine, "repo": address.repo, "service": service}
    question = {"args": args, "verb": "git.connect"}
    payload = json.dumps(question, separators=(",", ":"), ensure_ascii=False).encode()
    client.send(encode(Type.CALL, _CALL, payload))
    frame = decode(client.receive())
    if frame.type is not Type.REPLY or frame.channel != _CALL:
        raise Malformed("the daemon answered something else; see `muster doctor`")
    reply = json.loads(frame.payload[1:]) if frame.payload[:1] == b"." else None
    if not isinstance(reply, dict) or reply.get("ok") is not True:
        error = reply.get("error") if isinstance(reply, dict) else None
        reason = error.get("text") if isinstance(error, dict) else None
        away = isinstance(error, dict) and error.get("kind") == "Unreachable"
        # A worker tries again while the hub is away, and gives up where it is refused.
        meaning = Unreachable if away else Refused
        raise meaning(str(reason or "the daemon gave no reason")[:300])
    value = reply.get("value")
    channel = value.get("channel") if isinstance(value, dict) else None
    if type(channel) is not int:
        raise Malformed("the daemon named no channel; see `muster doctor`")
    return channel


class Tunnel:
    """Git's two pipes on one side, frames on the other."""

    def __init__(self, client: ipc_client.Client, channel: int) -> None:
        self._client = client
        self._channel = channel
        # Both threads send; a frame must go out whole.
        self._sending = threading.Lock()
        self._room = threading.Condition()
        self._credit = limits.GIT_WINDOW_BYTES
        self._owed = 0

    def run(self) -> int:
        """Pump until the daemon closes the channel; the far git's exit code."""
        threading.Thread(target=self._upwards, name="git to daemon", daemon=True).start()
        while True:
            frame = decode(self._client.receive())
            if frame.channel != self._channel:
                continue
            if frame.type is Type.CLOSE:
                return self._closed(frame)
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        if frame.type is Type.CREDIT:
            with self._room:
                self._credit += int.from_bytes(frame.payload, "big")
                self._room.notify()
        elif frame.type is Type.DATA and frame.payload:
            write(frame.payload)
            self._owed += len(frame.payload)
            if self._owed >= _GRANT_BYTES:
                granted, self._owed = self._owed, 0
                self._send(Type.CREDIT, granted.to_bytes(4, "big"))
        elif frame.type is Type.DATA:
            # Nothing more comes; git learns it from the closed pipe.
            os.close(1)

    def _closed(self, frame: Frame) -> int:
        reply = json.loads(frame.payload or b"{}")
        code = reply.get("code") if isinstance(reply, dict) else None
        if code != 0 and isinstance(reply, dict) and reply.get("error"):
            said = str(reply["error"])[:300].removeprefix("muster: ")
            print(visible(f"muster: {said}"), file=sys.stderr)
        return 0 if code == 0 else 1

    def _upwards(self) -> None:
        try:
            while True:
                with self._room:
                    while self._credit <= 0:
                        self._room.wait()
                    size = min(self._credit, limits.GIT_DATA_BYTES_MAX)
                chunk = os.read(0, size)
                with self._room:
                    self._credit -= len(chunk)
                self._send(Type.DATA, chunk)
                if not chunk:
                    return
        except (MusterError, OSError):
            # The receiving side meets the same broken socket and reports it.
            return

    def _send(self, type: Type, payload: bytes) -> None:
        with self._sending:
            self._client.send(encode(type, self._channel, payload))


def read_line() -> str:
    """One line of git's; byte by byte, because what follows `connect` is not ours."""
    line = bytearray()
    while len(line) < 1024 and not line.endswith(b"\n"):
        if not (byte := os.read(0, 1)):
            break
        line += byte
    return line.decode("utf-8", "replace")


def write(data: bytes) -> None:
    """All of the bytes to git."""
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


if __name__ == "__main__":
    sys.exit(main())
