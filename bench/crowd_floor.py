"""The floor of bench/crowd.py: what no program in Python can leave out of a message to all.

A hub and its receivers, a process each, linked by mutual TLS. The hub signs and commits; a receiver
checks the signature, commits, signs a receipt and sends it; the hub checks each receipt and commits
again. Nothing is parsed, bounded, folded or looked up, nobody is judged, and nothing grows.
"""

import asyncio
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import apsw
import uvloop
from nacl.bindings import crypto_sign, crypto_sign_keypair, crypto_sign_open

from bench.figure import p50
from muster.channel.tls import Credentials, client_context, server_context
from muster.fleet import certificate
from muster.fleet.machine import Authority, Identity
from muster.fleet.record import open_record, sign_binding, sign_record

# A message of a few words in its segment, and a receipt in its frame.
MESSAGE, READING = b"m" * 800, b"r" * 220
MESSAGES, GAP_S = 20, 0.25
LENGTH = 4
CREDENTIALS, KEYS = ("cert", "key", "ca"), ("public", "secret")


class Disk:
    """One table, one row for each commit, as durable as ours."""

    def __init__(self, path: Path) -> None:
        self._connection = apsw.Connection(str(path))
        for pragma in ("journal_mode=wal", "synchronous=full"):
            self._connection.execute(f"pragma {pragma}").fetchall()
        self._connection.execute("create table row(id integer primary key, body blob)")

    def commit(self, body: bytes) -> None:
        self._connection.execute("insert into row(body) values(?)", (body,))


class Wire(asyncio.Protocol):
    """Frames behind their length; `take` gets each, `up` is called when the handshake is over."""

    def __init__(self, take: Callable[["Wire", bytes], None], up: Callable[[], None]) -> None:
        self._take, self._up = take, up
        self._buffer = bytearray()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._up()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        while len(buffer) >= LENGTH:
            end = LENGTH + int.from_bytes(buffer[:LENGTH], "big")
            if len(buffer) < end:
                break
            frame = bytes(buffer[LENGTH:end])
            del buffer[:end]
            self._take(self, frame)

    def send(self, frame: bytes) -> None:
        self.transport.write(len(frame).to_bytes(LENGTH, "big") + frame)


def _credentials(folder: Path) -> Credentials:
    return Credentials(*((folder / name).read_bytes() for name in CREDENTIALS))


async def receive(folder: Path, port: int, number: int) -> None:
    """One receiver, until the hub hangs up."""
    public, secret = ((folder / name).read_bytes() for name in KEYS)
    disk = Disk(folder / f"{number}.db")
    over = asyncio.get_running_loop().create_future()

    def take(wire: Wire, frame: bytes) -> None:
        crypto_sign_open(frame, public)
        disk.commit(frame)
        wire.send(crypto_sign(READING, secret))

    def ended(_: Exception | None) -> None:
        over.set_result(None)

    def make() -> Wire:
        wire = Wire(take, lambda: None)
        wire.connection_lost = ended  # type: ignore[method-assign, assignment]
        return wire

    tls = client_context(_credentials(folder))
    await asyncio.get_running_loop().create_connection(make, "127.0.0.1", port, ssl=tls)
    await over


async def measure(receivers: int) -> float:
    """Milliseconds from a message to the last receipt of it, in the median."""
    folder = Path(tempfile.mkdtemp(prefix="mb-floor-"))
    children: list[subprocess.Popen[bytes]] = []
    try:
        return await _measured(folder, children, receivers)
    finally:
        for child in children:
            child.kill()
            child.wait()
        shutil.rmtree(folder, ignore_errors=True)


async def _measured(folder: Path, children: list[subprocess.Popen[bytes]], receivers: int) -> float:
    _write_keys(folder)
    public, secret = ((folder / name).read_bytes() for name in KEYS)
    wires: list[Wire] = []
    missing, heard = receivers, asyncio.Event()
    disk = Disk(folder / "hub.db")

    def take(_wire: Wire, frame: bytes) -> None:
        nonlocal missing
        crypto_sign_open(frame, public)
        missing -= 1
        if not missing:
            disk.commit(frame * receivers)
            heard.set()

    def up() -> None:
        nonlocal missing
        missing -= 1
        if not missing:
            heard.set()

    def make() -> Wire:
        wires.append(Wire(take, up))
        return wires[-1]

    tls = server_context(_credentials(folder))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(make, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    for number in range(receivers):
        word = [sys.executable, "-m", "bench.crowd_floor", str(folder), str(port), str(number)]
        children.append(subprocess.Popen(word))  # noqa: ASYNC220 - a bench may wait
    await heard.wait()
    await asyncio.sleep(1)
    times = []
    for _ in range(MESSAGES):
        missing = receivers
        heard.clear()
        began = time.perf_counter()
        message = crypto_sign(MESSAGE, secret)
        disk.commit(message)
        for wire in wires:
            wire.send(message)
        await heard.wait()
        times.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(GAP_S)
    server.close()
    return p50(times)


def _write_keys(folder: Path) -> None:
    authority = Authority(secrets.token_bytes(32))
    identity = Identity(secrets.token_bytes(32))
    now_ms = time.time_ns() // 1_000_000
    binding = sign_binding(identity, authority.fleet, "m0")
    raw = sign_record(authority, binding, roles=["workstation"], serial=1, issued_ms=now_ms)
    chain = certificate.issue(authority, open_record(raw, authority.fleet), now_ms)
    for name, each in zip(CREDENTIALS, certificate.tls_files(identity, chain), strict=True):
        (folder / name).write_bytes(each)
    for name, each in zip(KEYS, crypto_sign_keypair(), strict=True):
        (folder / name).write_bytes(each)


if __name__ == "__main__":
    uvloop.run(receive(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
