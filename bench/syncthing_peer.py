"""Two Syncthing on loopback, as Debian packs it, with one folder: the peer of context folders.

Their watcher waits a second, the least that its settings take; nothing is announced, relayed or
reported.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final, Self

from tests.ports import free_port

WATCH_S: Final = 1
_OFF: Final = (
    "globalAnnounceEnabled", "localAnnounceEnabled", "relaysEnabled", "natEnabled", "startBrowser",
    "crashReportingEnabled",
)  # fmt: skip


def missing() -> str:
    """Why it cannot be measured here, "" where it can."""
    return "" if shutil.which("syncthing") else "no `syncthing` on PATH (apt install syncthing)"


class Syncthing:
    """Both of them; `tops` are the two folders."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.tops = [folder / "a" / "top", folder / "b" / "top"]
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        homes = [self._folder / "a" / "home", self._folder / "b" / "home"]
        ids, ports = [], [free_port(), free_port()]
        for home, top in zip(homes, self.tops, strict=True):
            top.mkdir(parents=True)
            words = ["syncthing", "generate", "--home", str(home), "--no-default-folder"]
            subprocess.run(words, check=True, capture_output=True)
            asked = ["syncthing", "--device-id", "--home", str(home)]
            said = subprocess.run(asked, check=True, capture_output=True, text=True)
            ids.append(said.stdout.strip())
        for n, (home, top) in enumerate(zip(homes, self.tops, strict=True)):
            (home / "config.xml").write_text(_config(top, ids, ports, n))
            words = ["syncthing", "serve", "--home", str(home), "--no-browser", "--no-restart"]
            environment = {**os.environ, "STNOUPGRADE": "1"}
            log = (self._folder / f"{n}.log").open("wb")
            self._processes.append(subprocess.Popen(words, env=environment, stdout=log, stderr=log))
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._processes:
            each.terminate()
        for each in self._processes:
            each.wait(20)

    def ready(self) -> None:
        """Wait until one file has come over. Raises: TimeoutError."""
        (self.tops[0] / "first").write_text("x")
        until = time.monotonic() + 90
        while not (self.tops[1] / "first").exists():
            if time.monotonic() > until:
                raise TimeoutError("two syncthing do not find each other here")
            time.sleep(0.1)


def _config(top: Path, ids: list[str], ports: list[int], n: int) -> str:
    devices = "".join(
        f'<device id="{id}" name="n{i}"><address>tcp://127.0.0.1:{port}</address></device>'
        for i, (id, port) in enumerate(zip(ids, ports, strict=True))
    )
    members = "".join(f'<device id="{id}"></device>' for id in ids)
    off = "".join(f"<{name}>false</{name}>" for name in _OFF)
    return (
        '<configuration version="35">'
        f'<folder id="top" path="{top}" type="sendreceive" rescanIntervalS="3600" '
        f'fsWatcherEnabled="true" fsWatcherDelayS="{WATCH_S}">{members}'
        '<minDiskFree unit="%">0</minDiskFree></folder>'
        f'{devices}<gui enabled="true" tls="false"><address>127.0.0.1:{free_port()}</address>'
        f"</gui><options><listenAddress>tcp://127.0.0.1:{ports[n]}</listenAddress>{off}"
        "<reconnectionIntervalS>1</reconnectionIntervalS><urAccepted>-1</urAccepted>"
        "<autoUpgradeIntervalH>0</autoUpgradeIntervalH></options></configuration>"
    )
