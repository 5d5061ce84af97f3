"""A real sshd on loopback, for this process, and a machine behind it as `ssh-serve` meets it.

What it writes is in a folder of its own; as root it runs in mounts of its own, where /run is empty.
"""

import asyncio
import atexit
import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path

import pytest
from tests.channel.authority import TestAuthority
from tests.ports import free_port

from muster.channel.base import Link, LinkTasks, Listener, Own, SshKeys
from muster.channel.flow import Flow
from muster.channel.frame import Type, decode, encode
from muster.channel.ipc import IpcChannel
from muster.channel.ssh import Options, SshChannel
from muster.errors import Refused, Unreachable
from muster.fleet.machine import Authority, Identity
from muster.fleet.record import open_record, sign_binding, sign_record
from muster.fleet.ssh_certificate import (
    PROGRAM,
    issue_ssh,
    principal,
    private_key,
    ssh_authority,
)

READY_LOOKS = 1500
FLEET = Authority(b"the fleet of sshd".ljust(32))
OTHER = Authority(b"another fleet".ljust(32))
NEAR = Identity(b"near".ljust(32))
FAR = Identity(b"far".ljust(32))

CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
{more}
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
AuthenticationMethods publickey
MaxSessions 100
MaxStartups 200:30:400
SetEnv HOME={folder}
LogLevel VERBOSE
"""


def why_not() -> str:
    """Why there is no sshd here; "" where there is one."""
    if shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin") is None:
        return "needs sshd (openssh-server)"
    if shutil.which("ssh-keygen") is None:
        return "needs ssh-keygen (openssh-client)"
    try:
        import asyncssh  # noqa: F401
    except ImportError:
        return "needs asyncssh (pip install 'muster-fleet[ssh]')"
    return ""


def require() -> None:
    """Skip the test where there is no sshd."""
    if reason := why_not():
        print(reason)
        pytest.skip(reason)


def keys_of(
    identity: Identity = NEAR,
    authority: Authority = FLEET,
    now_ms: int | None = None,
    shows: str = "user",
) -> SshKeys:
    """What a machine has for an sshd, as its fleet would make it at some time."""
    record = open_record(
        sign_record(
            authority,
            sign_binding(identity, authority.fleet, "near"),
            roles=[],
            serial=1,
            issued_ms=1,
        ),
        authority.fleet,
    )
    when_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    found = issue_ssh(authority, record, when_ms)
    shown = found.user if shows == "user" else found.host
    return SshKeys(private_key(identity), shown, ssh_authority(found, authority.fleet))


def host_certificate(folder: Path, machine: Identity, authority: Authority) -> str:
    """The lines of a host that shows a certificate for this machine's own key."""
    shown = keys_of(machine, authority, shows="host")
    (folder / "own_key").write_bytes(shown.key)
    (folder / "own_key").chmod(0o600)
    (folder / "own_key-cert.pub").write_text(f"{shown.shown}\n")
    return f"HostKey {folder}/own_key\nHostCertificate {folder}/own_key-cert.pub"


def listening(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """An sshd that listens, with the file `config` of the folder. Raises: AssertionError."""
    sshd = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin")
    argv = [str(sshd), "-D", "-e", "-f", str(folder / "config")]
    if os.geteuid() == 0:
        mounts = 'mount -t tmpfs none /run && mkdir -m 755 /run/sshd && exec "$@"'
        apart = ["unshare", "--mount", "--propagation", "private", "--", "sh", "-c", mounts]
        argv = ["setpriv", "--pdeathsig", "KILL", "--", *apart, "-", *argv]
    with open(folder / "log", "ab") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    for _ in range(READY_LOOKS):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        if process.poll() is not None:
            break
        time.sleep(0.02)
    process.kill()
    process.wait()
    raise AssertionError("no sshd listens")


class Sshd:
    """One sshd; `folder` is the home folder of whoever it lets in."""

    def __init__(self, more: Callable[[Path], str] = lambda _: "") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sshd"))
        self.port = free_port()
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", "host_key"],
            cwd=self.folder, check=True, capture_output=True,
        )  # fmt: skip
        self.account = f"{getpass.getuser()}@127.0.0.1:{self.port}"
        self.keys = self.folder / "authorized_keys"
        self.trust(NEAR.machine)
        self.program = self.folder / PROGRAM
        self.program.parent.mkdir(parents=True)
        config = self.folder / "config"
        config.write_text(CONFIG.format(port=self.port, folder=self.folder, more=more(self.folder)))
        self.said = self.folder / "log"
        try:
            self.process = listening(self.folder, self.port)
        except AssertionError:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def trust(self, *machines: str, authority: Authority = FLEET) -> None:
        """Let these in, as `muster ssh trust` does, and nobody else."""
        names = ",".join(map(principal, machines))
        key = keys_of(authority=authority).authority
        self.keys.write_text(f'cert-authority,principals="{names}",restrict {key}\n')

    def serve(self, home: Path, before: str = "") -> None:
        """What is run for whoever comes in: the program of this home."""
        words = f"'{sys.executable}' -I -m muster.cli.ssh_serve '{home}'"
        self.program.write_text(f"#!/bin/sh\n{before}\nexec {words}\n")
        self.program.chmod(0o700)

    def log(self) -> str:
        return self.said.read_text(errors="replace")[-4000:]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@cache
def shared() -> Sshd:
    """One for all tests of this process; skips where there can be none."""
    require()
    made = Sshd()
    atexit.register(made.close)
    return made


class Near:
    """Dials; where a connection was, its end is waited for: no test leaves one to the loop."""

    name = "ssh"

    def __init__(self, sshd: Sshd, channel: SshChannel) -> None:
        self.channel = channel
        self.address = f"127.0.0.1:{sshd.port}"

    async def dial(self, address: str, *, peer: str = "") -> Link:
        return await self.channel.dial(address, peer=peer)

    async def settled(self) -> None:
        """Returns when every connection to sshd is gone."""
        for each in tuple(self.channel._connections.values()):
            each._connection.close()
            await each._connection.wait_closed()


class Far:
    """The daemon behind sshd, as the program meets it: it takes the call, and shakes hands."""

    name = "ssh"

    def __init__(self, sshd: Sshd, channel: SshChannel, home: Path, near: Near) -> None:
        self._sshd, self._channel, self._home, self._near = sshd, channel, home, near
        self.address = near.address
        self.hosting: LinkTasks | None = None
        self.refusals: list[Exception] = []
        self._queues: set[asyncio.Queue[bytes]] = set()

    async def listen(self, _address: str, on_link: Callable[[Link], Awaitable[None]]) -> "Far":
        self._sshd.serve(self._home)
        self.hosting = LinkTasks(on_link)
        socket_path = str(self._home / "run" / "sock")
        self._listener: Listener = await IpcChannel().listen(socket_path, self._program)
        return self

    async def _program(self, link: Link) -> None:
        call = decode(await link.receive())
        assert call.type is Type.CALL
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._queues.add(queue)
        flow = Flow(lambda kind, payload: queue.put_nowait(encode(kind, call.channel, payload)))
        accepted = b'.{"ok":true,"value":{"channel":%d}}' % call.channel
        queue.put_nowait(encode(Type.REPLY, call.channel, accepted))

        async def write() -> None:
            with contextlib.suppress(Unreachable):
                while True:
                    frame = await queue.get()
                    await link.send(frame)
                    queue.task_done()

        async def prove() -> None:
            end = self._channel.open(flow, serves=True)
            try:
                await end.prove("")
            except (Refused, Unreachable) as error:
                self.refusals.append(error)
            else:
                if self.hosting is None:
                    await end.close("the listener is closed")
                else:
                    self.hosting.adopt(end)

        tasks = [asyncio.create_task(write()), asyncio.create_task(prove())]
        try:
            while True:
                frame = decode(await link.receive())
                flow.feed(frame.type, frame.payload)
        finally:
            flow.feed(Type.CLOSE, b"")
            self._queues.discard(queue)
            await asyncio.wait(tasks[1:])
            tasks[0].cancel()
            await asyncio.wait(tasks)

    async def close(self) -> None:
        hosting, self.hosting = self.hosting, None
        if hosting is not None:
            await hosting.close()
            # What was said last is on its way to the program.
            for queue in tuple(self._queues):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(2):
                        await queue.join()
            await self._listener.close()
            await self._near.settled()


def ends(folder: Path, sshd: Sshd, keys: SshKeys | None = None) -> tuple[Near, Far, str]:
    """Both ends of the channel by this sshd, and the id of the far one."""
    authority = TestAuthority("fleet")
    (near_id, near), (far_id, far) = authority.issue("near"), authority.issue("far")
    shown = keys or keys_of()
    dials = SshChannel(Options(), Own(near_id, near, authority.identify, lambda: shown))
    serves = SshChannel(Options(), Own(far_id, far, authority.identify))
    made = Near(sshd, dials)
    return made, Far(sshd, serves, folder, made), far_id
