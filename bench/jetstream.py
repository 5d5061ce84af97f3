"""The peer of bench/message.py: a JetStream file stream with `sync_interval: always`.

With one server there is one durable copy; with three the publisher hears of it when two of them
have synced it, which is what a receipt of ours says. Both are measured.
"""

import asyncio
import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import nats
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NothingThere
from nats.js.api import StorageType, StreamConfig
from nats.js.errors import Error as JetStreamError

CALLERS = 64
GAP_S = 0.002
BODY = b"x" * 300


class JetStream:
    """A server and a consumer in processes of their own; the publisher runs here."""

    def __init__(self, servers: int = 1) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="mb-nats-"))
        self._servers = servers
        self._ports = [_free_port() for _ in range(servers)]
        self._url = f"nats://127.0.0.1:{self._ports[0]}"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._client: Client
        self._js: Any
        self._heard: asyncio.Future[None]
        self._consumed = 0
        self._wanted = 0
        self._number = 0

    def __enter__(self) -> Self:
        server = str(Path(sys.executable).parent / "nats-server")
        if not Path(server).exists():
            server = "nats-server"
        peers = [_free_port() for _ in self._ports]
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in peers)
        for number, port in enumerate(self._ports):
            config = self._folder / f"nats{number}.conf"
            config.write_text(
                f"port: {port}\nhost: 127.0.0.1\nserver_name: n{number}\n"
                f'jetstream {{ store_dir: "{self._folder}/{number}"\n sync_interval: always }}\n'
                + (
                    f'cluster {{ name: bench, listen: "127.0.0.1:{peers[number]}"\n'
                    f" routes: [{routes}] }}\n"
                    if self._servers > 1
                    else ""
                )
            )
            self._processes.append(
                subprocess.Popen(
                    [server, "-c", str(config)],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def connect(self) -> None:
        for _ in range(100):
            try:
                self._client = await nats.connect(self._url, connect_timeout=1)
                break
            except OSError:
                await asyncio.sleep(0.1)
        self._js = self._client.jetstream()
        for name, subject in (("ONE", "one.*"), ("MANY", "many.*")):
            config = StreamConfig(
                name=name,
                subjects=[subject],
                storage=StorageType.FILE,
                num_replicas=self._servers,
            )
            await self._added(config)
        consumer = subprocess.Popen(  # noqa: ASYNC220 - a bench may wait
            [sys.executable, "-m", "bench.jetstream", self._url], stdout=subprocess.PIPE
        )
        self._processes.append(consumer)
        assert consumer.stdout is not None
        await asyncio.to_thread(consumer.stdout.readline)
        await self._client.subscribe("done.one", cb=self._on_one)
        await self._client.subscribe("done.many", cb=self._on_many)

    async def _added(self, config: StreamConfig) -> None:
        """Make a stream, once the servers have found each other."""
        for _ in range(100):
            with contextlib.suppress(JetStreamError, NothingThere):
                await self._js.add_stream(config)
                return
            await asyncio.sleep(0.2)
        raise RuntimeError("the servers of JetStream did not come together")

    async def _on_one(self, _: Msg) -> None:
        self._heard.set_result(None)

    async def _on_many(self, message: Msg) -> None:
        self._consumed = int(message.data)
        if self._consumed >= self._wanted and not self._heard.done():
            self._heard.set_result(None)

    async def idle(self, count: int) -> list[float]:
        loop, times = asyncio.get_running_loop(), []
        for _ in range(count):
            await asyncio.sleep(GAP_S)
            self._number += 1
            headers = {"Nats-Msg-Id": f"one-{self._number}"}
            self._heard = loop.create_future()
            start = time.perf_counter()
            await self._js.publish("one.x", BODY, headers=headers)
            await self._heard
            times.append((time.perf_counter() - start) * 1000)
        return times

    async def busy(self, count: int) -> float:
        self._heard = asyncio.get_running_loop().create_future()
        each = count // CALLERS
        self._wanted += each * CALLERS
        first = self._number
        self._number += count

        async def one(number: int) -> None:
            for at in range(each):
                headers = {"Nats-Msg-Id": f"many-{first + number * each + at}"}
                await self._js.publish("many.x", BODY, headers=headers, timeout=30)

        start = time.perf_counter()
        await asyncio.gather(*(one(number) for number in range(CALLERS)))
        await asyncio.wait_for(self._heard, 60)
        return each * CALLERS / (time.perf_counter() - start)

    async def close(self) -> None:
        await self._client.close()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


async def consume(url: str) -> None:
    """The second process: acknowledge each message, then say so."""
    client = await nats.connect(url)
    js = client.jetstream()

    async def take(message: Msg) -> None:
        await message.ack_sync()
        await client.publish("done.one", b"")

    await js.subscribe("one.*", durable="one", stream="ONE", cb=take, manual_ack=True)
    pull = await js.pull_subscribe("many.*", "many", stream="MANY")
    print("ready", flush=True)
    done = 0
    while True:
        messages: list[Msg] = []
        with contextlib.suppress(NothingThere):
            messages = await pull.fetch(256, timeout=30)
        for message in messages:
            await message.ack()
        done += len(messages)
        await client.publish("done.many", str(done).encode())


if __name__ == "__main__":
    uvloop.run(consume(sys.argv[1]))
