"""The Unix socket: who gets in, whose file it is, and the client of the command line."""

import asyncio
import contextlib
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.channel.rigs import LOOPS, run, short_folder
from tests.promise import proves

from muster.channel import ipc
from muster.channel.base import Link
from muster.channel.frame import Type, encode, farewell, prefixed
from muster.channel.ipc import IpcChannel, IpcLink
from muster.channel.ipc_client import Client
from muster.errors import Broken, Conflict, Denied, Malformed, Unreachable
from muster.limits import FRAME_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX, SOCKET_PATH_BYTES_MAX


@pytest.fixture
def path() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder / "run" / "sock"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def owner_of(path: Path) -> int:
    return path.stat().st_uid


def lie_at(path: Path, words: str) -> None:
    """Put an ordinary file where a socket was."""
    path.unlink()
    path.write_text(words)


def there(path: Path) -> str:
    """What is at a path: its words, "socket" or nothing."""
    if path.is_socket():
        return "socket"
    return path.read_text() if path.exists() else ""


async def echo(link: Link) -> None:
    while True:
        await link.send(await link.receive())


@proves("channel.ipc-same-user")
@pytest.mark.parametrize("loop", LOOPS)
def test_the_socket_is_private_and_each_end_knows_the_other_user(path: Path, loop: str) -> None:
    async def scenario() -> None:
        listener = await IpcChannel().listen(str(path), echo)
        assert mode_of(path.parent) == 0o700
        assert mode_of(path) == 0o600
        link = await IpcChannel().dial(str(path))
        assert isinstance(link, IpcLink)
        assert link.refusal is None
        assert link.peer == ""
        await link.close("over")
        await listener.close()
        assert there(path) == ""

    run(scenario(), loop)


STRANGER = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(5)
s.connect(sys.argv[1])
sys.stdout.buffer.write(b"".join(iter(lambda: s.recv(4096), b"")))
"""


@proves("channel.ipc-same-user")
@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")
def test_another_user_is_refused_even_when_the_modes_let_him_in(path: Path) -> None:
    async def scenario() -> None:
        welcomed: list[Link] = []

        async def on_link(link: Link) -> None:
            welcomed.append(link)

        listener = await IpcChannel().listen(str(path), on_link)
        for opened, mode in ((path.parents[1], 0o755), (path.parent, 0o755), (path, 0o666)):
            opened.chmod(mode)
        done = await asyncio.to_thread(
            subprocess.run,
            ["/usr/bin/env", "python3", "-c", STRANGER, str(path)],
            user=65534,
            capture_output=True,
            check=False,
            env={"PATH": "/usr/bin:/bin"},
        )
        if not done.stdout:
            pytest.skip(f"nobody cannot run a Python here: {done.stderr.decode()[-200:]}")
        assert b"uid 65534 is not uid 0" in done.stdout
        assert welcomed == []
        await listener.close()

    run(scenario())


@proves("channel.ipc-of-an-attempt")
@pytest.mark.skipif(os.getuid() != 0, reason="only root can let another user in")
def test_the_socket_of_an_attempt_is_its_users_and_lets_only_that_one_in(path: Path) -> None:
    async def scenario() -> None:
        listener = await IpcChannel().listen(str(path), echo, user=61_999)
        assert (owner_of(path), mode_of(path), mode_of(path.parent)) == (61_999, 0o600, 0o700)
        link = await IpcChannel().dial(str(path))
        assert "uid 0 is not uid 61999" in str(link.ended) or await refused(link)
        await listener.close()

    async def refused(link: Link) -> bool:
        with pytest.raises(Unreachable, match="uid 0 is not uid 61999"):
            await link.receive()
        return True

    run(scenario())


@proves("channel.ipc-of-an-attempt")
def test_only_who_is_enclosed_believes_a_user_that_the_kernel_cannot_name(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        listener = await IpcChannel().listen(str(path), echo)
        for where in ("muster.channel.ipc.peer_uid", "muster.channel.ipc_client.peer_uid"):
            monkeypatch.setattr(where, lambda _: 65534)
        monkeypatch.delenv("MUSTER_ENCLOSED", raising=False)
        with pytest.raises(Denied, match="not as you"):
            await asyncio.to_thread(Client, str(path), 5.0)
        monkeypatch.setenv("MUSTER_ENCLOSED", "1")
        (await asyncio.to_thread(Client, str(path), 5.0)).__exit__()
        monkeypatch.undo()
        link = await IpcChannel().dial(str(path))
        await link.close("over")
        await listener.close()

    run(scenario())


@proves("channel.ipc-same-user")
def test_a_daemon_of_another_user_is_not_believed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        listener = await IpcChannel().listen(str(path), echo)
        mine = os.getuid()
        # The kernel's answer stays; what changes is who we are.
        monkeypatch.setattr(ipc.os, "getuid", lambda: mine + 1)
        with pytest.raises(Denied, match="run it as that user"):
            await IpcChannel().dial(str(path))
        with pytest.raises(Denied, match="not as you"):
            await asyncio.to_thread(Client, str(path), 5.0)
        monkeypatch.undo()
        # Sockets are accepted in order, so now the loop has seen the two others as well:
        # CPython 3.11 leaks a socket that it accepts in the turn in which its server is closed.
        link = await IpcChannel().dial(str(path))
        await link.close("over")
        await listener.close()

    run(scenario())


@proves("channel.ipc-stale-socket")
def test_a_stale_socket_is_replaced(path: Path) -> None:
    async def scenario() -> None:
        path.parent.mkdir(mode=0o700)
        with socket.socket(socket.AF_UNIX) as crashed:
            crashed.bind(str(path))
        listener = await IpcChannel().listen(str(path), echo)
        link = await IpcChannel().dial(str(path))
        await link.close("over")
        await listener.close()

    run(scenario())


@proves("channel.ipc-stale-socket")
def test_a_socket_in_use_is_left_alone(path: Path) -> None:
    async def scenario() -> None:
        listener = await IpcChannel().listen(str(path), echo)
        with pytest.raises(Conflict, match="another daemon"):
            await IpcChannel().listen(str(path), echo)
        link = await IpcChannel().dial(str(path))
        await link.send(b"still mine")
        assert await link.receive() == b"still mine"
        await link.close("over")
        await listener.close()

    run(scenario())


@proves("channel.ipc-stale-socket")
def test_what_a_foreign_program_or_file_holds_is_left_alone(path: Path) -> None:
    async def scenario() -> None:
        path.parent.mkdir(mode=0o700)
        with socket.socket(socket.AF_UNIX) as foreign:
            foreign.bind(str(path))
            foreign.listen()
            with pytest.raises(Conflict, match="another program"):
                await IpcChannel().listen(str(path), echo)
            assert there(path) == "socket"
        lie_at(path, "a diary")
        with pytest.raises(Broken, match="not a socket"):
            await IpcChannel().listen(str(path), echo)
        assert there(path) == "a diary"

    run(scenario())


@proves("channel.ipc-path")
def test_a_path_too_long_for_the_kernel_is_named_before_anything_is_made(path: Path) -> None:
    async def scenario() -> None:
        long = path.parent / ("s" * (SOCKET_PATH_BYTES_MAX - len(str(path.parent))))
        assert len(str(long)) == SOCKET_PATH_BYTES_MAX + 1
        for attempt in (IpcChannel().listen(str(long), echo), IpcChannel().dial(str(long))):
            with pytest.raises(Broken, match="shorter folder"):
                await attempt
        with pytest.raises(Broken, match="shorter folder"):
            Client(str(long), 1.0)
        assert not path.parent.exists()
        longest = long.with_name(long.name[1:])
        listener = await IpcChannel().listen(str(longest), echo)
        await listener.close()

    run(scenario())


@proves("channel.ipc-path")
def test_a_folder_open_to_others_is_refused_and_not_changed(path: Path) -> None:
    async def scenario() -> None:
        path.parent.mkdir()
        path.parent.chmod(0o755)
        with pytest.raises(Broken, match="chmod 700"):
            await IpcChannel().listen(str(path), echo)
        assert mode_of(path.parent) == 0o755
        assert list(path.parent.iterdir()) == []

    run(scenario())


@proves("channel.oversize-refused")
@pytest.mark.parametrize("head", [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"GET / HTTP/1.1\r\n"])
def test_bytes_that_are_no_frame_cut_only_their_own_link(path: Path, head: bytes) -> None:
    async def scenario() -> None:
        listener = await IpcChannel().listen(str(path), echo)
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(head)
        answer = await reader.read()
        assert answer[:1] == b"\x80", "a farewell with the reason"
        assert b"over the" in answer
        writer.close()
        link = await IpcChannel().dial(str(path))
        await link.send(b"healthy")
        assert await link.receive() == b"healthy"
        await link.close("over")
        await listener.close()

    run(scenario())


# --- the client of the command line --------------------------------------------------------


@proves("channel.ipc-client")
def test_the_blocking_client_talks_to_the_daemon(path: Path) -> None:
    async def scenario() -> None:
        listener = await IpcChannel().listen(str(path), echo)

        def command() -> None:
            with Client(str(path), timeout_s=5) as client:
                for size in (0, 1, FRAME_PAYLOAD_BYTES_MAX):
                    frame = encode(Type.CALL, 1, bytes(size))
                    client.send(frame)
                    assert client.receive() == frame
                with pytest.raises(Malformed, match="split it"):
                    client.send(bytes(FRAME_BYTES_MAX + 1))

        await asyncio.to_thread(command)
        await listener.close()

    run(scenario())


@proves("channel.ipc-client")
def test_the_client_says_why_the_daemon_closed(path: Path) -> None:
    async def scenario() -> None:
        async def refuse(link: Link) -> None:
            raise Denied("no grant for you; ask the operator")

        listener = await IpcChannel().listen(str(path), refuse)

        def command() -> None:
            with Client(str(path), 5) as client, pytest.raises(Unreachable, match="no grant for"):
                client.receive()

        await asyncio.to_thread(command)
        await listener.close()

    run(scenario())


@pytest.fixture
def fake_daemon(path: Path) -> Iterator[tuple[Path, list[bytes]]]:
    """Answers whatever the test puts into the list, then hangs up."""
    path.parent.mkdir(mode=0o700)
    script: list[bytes] = []
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()

    def serve() -> None:
        connection, _ = listening.accept()
        with connection, contextlib.suppress(ConnectionError):
            for words in script:
                connection.sendall(words)

    thread = threading.Thread(target=serve)
    thread.start()
    yield path, script
    thread.join(5)
    listening.close()


@proves("channel.ipc-client")
@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (b"", Unreachable, "hung up"),
        (b"\0\0", Unreachable, "hung up"),
        (b"\0\0\0\x05abc", Unreachable, "hung up"),
        (b"\xff\xff\xff\xff", Malformed, "over the"),
        (farewell("draining"), Unreachable, "draining"),
    ],
)
def test_a_daemon_that_talks_nonsense_is_reported(
    fake_daemon: tuple[Path, list[bytes]],
    words: bytes,
    error: type[Exception],
    says: str,
) -> None:
    path, script = fake_daemon
    script.append(words)
    with Client(str(path), timeout_s=5) as client, pytest.raises(error, match=says):
        client.receive()


@proves("channel.ipc-client")
def test_a_silent_daemon_is_given_up_and_a_missing_one_named(path: Path) -> None:
    with pytest.raises(Unreachable, match="muster up"):
        Client(str(path), timeout_s=1)
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        with Client(str(path), timeout_s=0.05) as client:
            client.send(prefixed(b"")[:0])
            with pytest.raises(Unreachable, match="silent"):
                client.receive()


def test_on_windows_the_channel_says_what_it_needs(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(sys, "platform", "win32")
        try:
            with pytest.raises(Broken, match="Linux or macOS"):
                await IpcChannel().dial(str(path))
        finally:
            monkeypatch.undo()

    run(scenario())


@proves("channel.ipc-bounded")
@pytest.mark.parametrize("loop", LOOPS)
def test_so_many_programs_and_no_more_and_the_silent_ones_go_first(
    path: Path, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ipc.limits, "LINKS_LOCAL_MAX", 8)

    async def scenario() -> None:
        listener = await IpcChannel().listen(str(path), echo)
        silent = [await IpcChannel().dial(str(path)) for _ in range(30)]
        talking = []
        for _ in range(8):
            talking.append(await IpcChannel().dial(str(path)))
            await talking[-1].send(b"hello")
            assert await talking[-1].receive() == b"hello"
            assert len(listener.links) <= 8
        late = await IpcChannel().dial(str(path))
        with pytest.raises(Unreachable, match="too many programs"):
            await late.receive()
        for link in talking:
            await link.send(b"still")
            assert await link.receive() == b"still"
        for link in silent:
            with pytest.raises(Unreachable, match="nothing was said"):
                await link.receive()
        await talking.pop().close("over")
        async with asyncio.timeout(5):
            while True:
                again = await IpcChannel().dial(str(path))
                try:
                    await again.send(b"again")
                    assert await again.receive() == b"again"
                    break
                except Unreachable:
                    # The far end counts a link as gone in a turn of its own.
                    continue
        await listener.close()

    run(scenario(), loop)


@proves("channel.ipc-bounded")
def test_a_program_that_says_nothing_is_cut_and_one_that_spoke_may_wait(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ipc.limits, "LINK_LOCAL_SILENT_MS_MAX", 100)

    async def scenario() -> None:
        listener = await IpcChannel().listen(str(path), echo)
        spoke = await IpcChannel().dial(str(path))
        await spoke.send(b"hello")
        assert await spoke.receive() == b"hello"
        silent = await IpcChannel().dial(str(path))
        async with asyncio.timeout(5):
            with pytest.raises(Unreachable, match="nothing was said"):
                await silent.receive()
        await spoke.send(b"still")
        assert await spoke.receive() == b"still"
        await spoke.close("over")
        await listener.close()

    run(scenario())


@proves("channel.ipc-bounded", "channel.descriptors-kept")
def test_the_last_descriptors_are_not_for_local_programs(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        listener = await IpcChannel().listen(str(path), echo)
        monkeypatch.setattr(ipc, "is_spare", lambda number, kept: number < 0 and kept > 0)
        link = await IpcChannel().dial(str(path))
        with pytest.raises(Unreachable, match="too many programs"):
            await link.receive()
        await listener.close()

    run(scenario())
