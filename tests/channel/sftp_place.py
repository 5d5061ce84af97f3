"""Folders that are reached by a real sshd alone, which lets one key in."""

import atexit
import getpass
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from tests.channel.fellows import known_to
from tests.channel.sshd import CONFIG, listening, require
from tests.ports import free_port

from muster.channel import drop
from muster.channel.base import Packet, Post, Visitor

__all__ = ["Host", "post_at", "require", "shared", "taken", "unexpected"]


class Host:
    """One sshd with sftp; it may be killed and started again."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sftp"))
        self.port = free_port()
        for name in ("host_key", "key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", name],
                cwd=self.folder, check=True, capture_output=True,
            )  # fmt: skip
        shutil.copyfile(self.folder / "key.pub", self.folder / "authorized_keys")
        host_key = (self.folder / "host_key.pub").read_text()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {host_key}")
        text = CONFIG.format(
            port=self.port, folder=self.folder, more="Subsystem sftp internal-sftp"
        )
        (self.folder / "config").write_text(text)
        self.start()

    def start(self) -> None:
        self._process = listening(self.folder, self.port)

    def kill(self) -> None:
        """End it and every session of it."""
        for child in _below(self._process.pid):
            os.kill(child, 9)
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def credentials(self) -> tuple[str, str]:
        """The key that is let in, and the file that knows the host."""
        return str(self.folder / "key"), str(self.folder / "known_hosts")


def _below(pid: int) -> list[int]:
    """Every process that this one began, and they."""
    found = []
    for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [int(text), *_below(int(text))]
    return found


@cache
def shared() -> Host:
    """One for all tests of this process; skips where there can be none."""
    require()
    made = Host()
    atexit.register(made.close)
    return made


def unexpected(name: str, error: Exception) -> None:
    raise AssertionError(f"{name}: {error!r}")


def post_at(
    place: Path,
    machine: str,
    host: Host | None = None,
    survived: Callable[[str, Exception], None] = unexpected,
    **more: Any,
) -> Post:
    """The mailbox of one machine in a folder of the host."""
    host = host or shared()
    key, known = host.credentials
    options = drop.Options(
        place=f"sftp://{getpass.getuser()}@127.0.0.1:{host.port}{place}",
        **{"key": key, "known_hosts": known, "deadline_s": 1, **more},
    )
    return drop.open_channel(options, Visitor(machine, place, survived, **known_to(machine)))


async def taken(place: Path, machine: str) -> list[Packet]:
    """What lies there for a machine."""
    post = post_at(place, machine)
    try:
        return await post.take()
    finally:
        await post.close()
