"""What a link through a real sshd adds to the contract of links: who is let in, and to what."""

import asyncio
import base64
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.channel import sshd
from tests.channel.rigs import run, short_folder
from tests.channel.sshd import FAR, FLEET, NEAR, OTHER, Sshd, ends, host_certificate, keys_of
from tests.promise import proves

from muster.channel import ssh
from muster.channel.base import Link, SshKeys
from muster.channel.ssh import Options
from muster.channel.tls import Credentials
from muster.cli import ssh_serve
from muster.errors import Denied, Forged, Malformed, MusterError, Unreachable
from muster.fleet import ssh_certificate

DAY_MS = 24 * 3_600_000


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made


@pytest.fixture
def door() -> Iterator[Sshd]:
    found = sshd.shared()
    yield found
    found.trust(NEAR.machine)


def dialled(folder: Path, door: Sshd, keys: SshKeys | None = None) -> MusterError | None:
    """How a dial ended: None where the link stood and carried a frame both ways."""
    found: list[MusterError | None] = []

    async def scenario() -> None:
        near, far, far_id = ends(folder, door, keys)

        async def echo(link: Link) -> None:
            while True:
                await link.send(await link.receive())

        listener = await far.listen("", echo)
        door.program.write_text(door.program.read_text() + "# as it is\n")
        try:
            link = await near.dial(near.address, peer=far_id)
            await link.send(b"there and back")
            assert await link.receive() == b"there and back"
            await link.close("done")
            found.append(None)
        except MusterError as error:
            found.append(error)
        finally:
            await listener.close()

    run(scenario())
    return found[0]


async def idle(link: Link) -> None:
    """What a far end does that only holds the link."""
    await link.receive()


@proves("ssh.only-the-fleet")
def test_a_machine_of_the_fleet_comes_in_and_one_that_sshd_was_not_told_of_does_not(
    folder: Path, door: Sshd
):
    assert dialled(folder, door) is None
    door.trust(FAR.machine)
    refused = dialled(folder, door)
    assert isinstance(refused, Denied)
    assert "muster ssh trust" in str(refused)


@proves("ssh.only-the-fleet")
@pytest.mark.parametrize(
    "keys",
    [
        lambda: keys_of(now_ms=sshd.time.time_ns() // 1_000_000 - 31 * DAY_MS),
        lambda: keys_of(now_ms=sshd.time.time_ns() // 1_000_000 + DAY_MS),
        lambda: keys_of(authority=OTHER),
        lambda: keys_of(shows="host"),
    ],
    ids=["expired", "of-tomorrow", "other-fleet", "of-a-host"],
)
def test_a_certificate_that_does_not_count_opens_nothing(
    folder: Path, door: Sshd, keys: Callable[[], SshKeys]
):
    refused = dialled(folder, door, keys())
    assert isinstance(refused, MusterError)
    assert not isinstance(refused, Forged)


def asked(door: Sshd, folder: Path, *words: str, keys: SshKeys | None = None) -> Any:
    """What the ordinary ssh gets with a machine's key and certificate, whatever it asks for."""
    shown = keys or keys_of()
    (folder / "id").write_bytes(shown.key)
    (folder / "id").chmod(0o600)
    (folder / "id-cert.pub").write_text(f"{shown.shown}\n")
    options = [
        "IdentitiesOnly=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null",
        "BatchMode=yes", "LogLevel=ERROR", "ExitOnForwardFailure=yes",
    ]  # fmt: skip
    flags = [each for option in options for each in ("-o", option)]
    argv = ["ssh", "-F", "none", "-i", str(folder / "id"), "-p", str(door.port), *flags]
    return subprocess.run(
        [*argv, *words[:-1], door.account.partition(":")[0], words[-1]],
        capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip


@proves("ssh.no-shell")
@pytest.mark.parametrize("words", [["-tt", ""], ["-s", "sftp"], ["-N", "-R", "0:127.0.0.1:1", ""]])
def test_a_stolen_certificate_gets_no_shell_no_terminal_and_no_way_on(
    folder: Path, door: Sshd, words: list[str]
):
    mark = folder / "owned"
    door.program.write_text('#!/bin/sh\necho "the program of muster"; tty; exit 7\n')
    door.program.chmod(0o700)
    words = [*words[:-1], words[-1] or f"touch {mark}"]
    done = asked(door, folder, *words)
    assert not mark.exists()
    assert done.returncode in (7, 255)
    assert "/dev/pts" not in done.stdout
    if done.returncode == 7:
        assert "the program of muster" in done.stdout


@proves("ssh.no-shell")
def test_it_gets_none_where_the_settings_of_sshd_trust_the_fleet_for_anything(folder: Path):
    sshd.require()

    def more(place: Path) -> str:
        (place / "ca.pub").write_text(keys_of().authority)
        (place / "names").write_text(f"{ssh_certificate.principal(NEAR.machine)}\n")
        return f"TrustedUserCAKeys {place}/ca.pub\nAuthorizedPrincipalsFile {place}/names"

    door = Sshd(more)
    try:
        door.keys.write_text("")
        door.program.write_text('#!/bin/sh\necho "the program of muster"\n')
        door.program.chmod(0o700)
        done = asked(door, folder, "id")
        assert (done.returncode, done.stdout) == (0, "the program of muster\n")
    finally:
        door.close()


@proves("ssh.no-shell")
def test_a_command_in_the_line_of_the_keys_beside_it_is_refused_by_sshd(folder: Path, door: Sshd):
    """So `muster ssh trust` writes none: what runs stands in the certificate alone."""
    door.keys.write_text(f'command="/bin/true",{door.keys.read_text()}')
    assert isinstance(dialled(folder, door), Denied)


@proves("ssh.host")
@pytest.mark.parametrize(
    ("machine", "authority", "refused"),
    [(FAR, FLEET, False), (NEAR, FLEET, True), (FAR, OTHER, True)],
    ids=["of-the-machine", "of-another-machine", "of-another-fleet"],
)
def test_a_host_that_shows_a_certificate_has_to_show_the_right_one(
    folder: Path, machine: Any, authority: Any, *, refused: bool
):
    sshd.require()
    door = Sshd(lambda place: host_certificate(place, machine, authority))

    async def scenario() -> None:
        near, _, _ = ends(folder, door)
        door.serve(folder)
        # Nobody is behind it: how far it gets tells what was thought of the host.
        with pytest.raises(Forged if refused else Unreachable):
            await near.dial(near.address, peer=FAR.machine)
        await near.settled()

    try:
        run(scenario())
    finally:
        door.close()


@proves("ssh.host")
def test_a_host_without_a_certificate_is_no_hindrance_for_tls_inside_says_who_it_is(
    folder: Path, door: Sshd
):
    async def scenario() -> None:
        near, far, _ = ends(folder, door)

        listener = await far.listen("", idle)
        with pytest.raises(Denied, match="not"):
            await near.dial(near.address, peer="ee" * 32)
        await listener.close()

    run(scenario())


@proves("ssh.noise")
@pytest.mark.parametrize(
    ("noise", "carries"),
    [("echo welcome; printf 'no newline'", True), ("seq 1 9000; read x", True),
     ("head -c 200000 /dev/zero; sleep 20", False)],
    ids=["a-greeting", "much", "too-much"],
)  # fmt: skip
def test_what_a_login_says_before_the_program_begins_is_passed_over(
    folder: Path, door: Sshd, noise: str, *, carries: bool
):
    async def scenario() -> None:
        near, far, far_id = ends(folder, door)

        async def echo(link: Link) -> None:
            await link.send(await link.receive())

        listener = await far.listen("", echo)
        before = noise if "read" not in noise else "seq 1 9000"
        door.serve(folder, before)
        if carries:
            link = await near.dial(near.address, peer=far_id)
            await link.send(b"x")
            assert await link.receive() == b"x"
            await link.close("done")
        else:
            with pytest.raises(Unreachable, match="says too much"):
                await near.dial(near.address, peer=far_id)
        await listener.close()

    run(scenario())


@proves("ssh.noise")
def test_where_no_daemon_is_behind_it_the_dial_says_so(folder: Path, door: Sshd):
    async def scenario() -> None:
        near, _, far_id = ends(folder, door)
        door.serve(folder)
        with pytest.raises(Unreachable, match="no machine lives in"):
            await near.dial(near.address, peer=far_id)
        await near.settled()

    run(scenario())


@proves("ssh.one-connection")
def test_links_share_one_connection_and_it_ends_with_the_last_of_them(folder: Path, door: Sshd):
    async def scenario() -> None:
        near, far, far_id = ends(folder, door)

        listener = await far.listen("", idle)
        first = await near.dial(near.address, peer=far_id)
        (connection,) = near.channel._connections.values()
        second = await near.dial(near.address, peer=far_id)
        assert list(near.channel._connections.values()) == [connection]
        await first.close("done")
        assert not connection.is_over
        await second.close("done")
        await connection._connection.wait_closed()
        third = await near.dial(near.address, peer=far_id)
        assert list(near.channel._connections.values()) != [connection]
        await third.close("done")
        await listener.close()

    run(scenario())


@proves("ssh.one-connection")
def test_a_program_that_does_not_begin_ends_the_connection_that_was_for_it_alone(
    folder: Path, door: Sshd
):
    async def scenario() -> None:
        near, far, far_id = ends(folder, door)

        listener = await far.listen("", idle)
        served = door.program.read_text()
        first = await near.dial(near.address, peer=far_id)
        (connection,) = near.channel._connections.values()
        door.program.write_text("#!/bin/sh\nexit 3\n")
        for _ in range(3):
            with pytest.raises(Unreachable):
                await near.dial(near.address, peer=far_id)
        assert not connection.is_over
        assert len(connection._pipes) == 1
        await first.close("done")
        await connection._connection.wait_closed()
        with pytest.raises(Unreachable):
            await near.dial(near.address, peer=far_id)
        for each in near.channel._connections.values():
            await each._connection.wait_closed()
        door.program.write_text(served)
        await listener.close()

    run(scenario())


@proves("ssh.one-connection")
def test_what_is_written_after_sshd_closed_the_channel_raises_nothing_and_ends_the_link(
    folder: Path, door: Sshd
):
    from asyncssh.packet import SSHPacket

    async def scenario() -> None:
        near, far, far_id = ends(folder, door)

        listener = await far.listen("", idle)
        link: Any = await near.dial(near.address, peer=far_id)
        pipe = link._pipe
        # What CHANNEL_CLOSE of the far end does; its end is told in a later turn.
        pipe._channel._process_close(0, 0, SSHPacket(b""))
        assert pipe.closed is None
        assert pipe.room == 0
        pipe.put(b"lost")
        link.send_all_nowait([b"lost"])
        assert not link.ready
        with pytest.raises(Unreachable):
            await link.receive()
        await link.close("done")
        await near.settled()
        await listener.close()

    run(scenario())


@proves("ssh.one-connection")
def test_an_sshd_that_does_not_answer_holds_up_one_dial_and_gets_no_other_on_this_connection(
    folder: Path, door: Sshd, monkeypatch: pytest.MonkeyPatch
):
    from muster.channel import ssh_client

    async def scenario() -> None:
        near, far, far_id = ends(folder, door)

        async def echo(link: Link) -> None:
            while True:
                await link.send(await link.receive())

        async def silence(*_: Any, **__: Any) -> None:
            await asyncio.Event().wait()

        listener = await far.listen("", echo)
        first = await near.dial(near.address, peer=far_id)
        (connection,) = near.channel._connections.values()
        with monkeypatch.context() as now:
            now.setattr(ssh_client, "BEGIN_S", 0.1)
            now.setattr(connection._connection, "create_session", silence)
            with pytest.raises(Unreachable, match="answers nothing more"):
                await near.dial(near.address, peer=far_id)
        await first.send(b"still here")
        assert await first.receive() == b"still here"
        second = await near.dial(near.address, peer=far_id)
        assert list(near.channel._connections.values()) != [connection]
        await first.close("done")
        await connection._connection.wait_closed()
        await second.close("done")
        await near.settled()
        await listener.close()

    run(scenario())


@proves("ssh.one-connection")
def test_a_channel_that_sshd_does_not_close_keeps_no_connection(
    folder: Path, door: Sshd, monkeypatch: pytest.MonkeyPatch
):
    from muster.channel import ssh_client

    assert ssh_client.CLOSE_S == 5
    monkeypatch.setattr(ssh_client, "CLOSE_S", 0.1)

    async def scenario() -> None:
        near, far, far_id = ends(folder, door)

        listener = await far.listen("", idle)
        link: Any = await near.dial(near.address, peer=far_id)
        (connection,) = near.channel._connections.values()
        # As if CLOSE were never answered.
        link._pipe._channel.close = lambda: None
        link._pipe.close()
        await connection._connection.wait_closed()
        assert connection.is_over
        assert link._pipe._gone
        await link.close("done")
        await near.settled()
        await listener.close()

    run(scenario())


@proves("ssh.only-the-fleet")
def test_a_machine_without_a_certificate_says_what_it_waits_for(folder: Path, door: Sshd):
    async def scenario() -> None:
        near, _, far_id = ends(folder, door)
        near.channel._keys = lambda: None
        with pytest.raises(Unreachable, match=r"channel\.ssh\.key"):
            await near.dial(near.address, peer=far_id)

    run(scenario())


@proves("ssh.addresses")
@pytest.mark.parametrize(
    ("address", "found"),
    [("nas", ("", "nas", 22)), ("me@nas", ("me", "nas", 22)), ("me@nas:2022", ("me", "nas", 2022)),
     ("[fd00::1]", ("", "fd00::1", 22)), ("a.b-c@[fd00::1]:23", ("a.b-c", "fd00::1", 23))],
)  # fmt: skip
def test_an_address_is_an_account_at_a_host(address: str, found: tuple[str, str, int]):
    assert ssh.split(address) == found
    assert Options.check_address(address) == address


@proves("ssh.addresses")
@pytest.mark.parametrize(
    "address",
    ["", "@nas", "-oProxyCommand=x@nas", "me@", "me@nas:0", "me@nas:x", "a@b@nas", "a b@c"],
)
def test_what_is_no_account_at_a_host_is_refused(address: str):
    with pytest.raises(Malformed):
        Options.check_address(address)


@proves("ssh.addresses")
def test_nothing_of_ours_listens_for_ssh():
    with pytest.raises(Malformed, match="sshd listens"):
        Options.check_listen("0.0.0.0:22")


def test_both_ends_mean_the_same_words():
    """Neither may import the other: the program stands on little, the pure core on less."""
    assert ssh_certificate._FORCED == ssh.COMMAND
    from muster.channel import ssh_client

    assert ssh_serve.BEGIN == ssh_client.BEGIN


def test_a_key_is_never_printed():
    shown = keys_of()
    assert base64.b64encode(shown.key).decode() not in repr(shown)
    assert "PRIVATE" not in repr(shown)
    assert "PRIVATE" not in repr(Credentials(b"", b"PRIVATE", b""))
