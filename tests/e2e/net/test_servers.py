"""Each server starts on a host, answers another one, and is gone afterwards."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.fleet import until
from tests.e2e.net import servers
from tests.e2e.net.servers import Server
from tests.e2e.net.stage import Net, require
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@pytest.fixture
def net() -> Iterator[Net]:
    require()
    with Net("laptop", "nas") as net:
        yield net


def gone(net: Net, server: Server) -> bool:
    """Nobody is on any host any more."""
    return not net.processes() and not net.answers("laptop", server.address, server.port)


def repository(net: Net, folder: Path) -> Path:
    """A repository with one commit."""
    made = folder / "work"
    made.mkdir()
    servers.git(net, "laptop", made, "init", "-q", "-b", "main")
    (made / "hello").write_text("from the laptop\n")
    servers.git(net, "laptop", made, "add", "hello")
    servers.git(net, "laptop", made, "commit", "-q", "-m", "hello")
    return made


@proves("net.servers-real")
def test_an_sshd_lets_in_whoever_has_the_key_and_is_gone_with_its_sessions(
    net: Net, tmp_path: Path
):
    with servers.sshd(net, "nas", tmp_path / "ssh") as nas:
        assert "10.78.0.2" in nas.run("laptop", "ip -br addr show eth0")
        # Nothing that it starts can change the computer.
        assert nas.run("laptop", "test -w /etc || echo refused") == "refused\n"
        held = net.spawn(
            "laptop", [*nas.command, f"root@{nas.address}", "echo in; exec sleep 600"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert held.stdout is not None
        assert held.stdout.readline() == b"in\n"
        nas.keys.write_text("")
        with pytest.raises(subprocess.CalledProcessError) as refused:
            nas.run("laptop", "true")
        assert "Permission denied" in refused.value.stderr
        # Whoever is in stays in, until the server is gone.
        assert held.poll() is None
    assert held.wait(60) == 255
    held.stdout.close()
    until(lambda: gone(net, nas), lambda: f"nobody is left: {net.processes()}")


@proves("net.servers-real")
@pytest.mark.parametrize("way", ["git", "ssh"])
def test_a_git_server_takes_a_push_and_gives_it_back(net: Net, tmp_path: Path, way: str):
    work = repository(net, tmp_path)
    with (
        servers.git_daemon(net, "nas", tmp_path / "git") as shared,
        servers.sshd(net, "nas", tmp_path / "ssh") as nas,
    ):
        url = shared.url if way == "git" else shared.url_over(nas)
        servers.git(net, "laptop", work, "push", "-q", url, "main", ssh=nas)
        servers.git(net, "laptop", tmp_path, "clone", "-q", "-b", "main", url, "again", ssh=nas)
        assert (tmp_path / "again" / "hello").read_text() == "from the laptop\n"
    until(lambda: gone(net, shared), lambda: f"nobody is left: {net.processes()}")


PUBLISHES = """
import asyncio, sys
import nats

async def main():
    client = await nats.connect(sys.argv[1], allow_reconnect=False, connect_timeout=20)
    stream = client.jetstream(timeout=20)
    await stream.add_stream(name="s", subjects=["s.>"])
    first = await stream.publish("s.a", b"once", headers={"Nats-Msg-Id": "1"})
    again = await stream.publish("s.a", b"once", headers={"Nats-Msg-Id": "1"})
    print(first.seq, again.seq, again.duplicate)
    await client.close()

asyncio.run(main())
"""


@proves("net.servers-real")
def test_a_nats_server_keeps_what_was_published(net: Net, tmp_path: Path):
    with servers.nats(net, "nas", tmp_path / "nats") as nas:
        said = net.exec("laptop", [sys.executable, "-c", PUBLISHES, nas.url])
        assert said == "1 1 True\n"
        assert "sync_interval: always" in (tmp_path / "nats" / "nats.conf").read_text()
        assert list((tmp_path / "nats" / "store").rglob("*.blk"))
    until(lambda: gone(net, nas), lambda: f"nobody is left: {net.processes()}")


@proves("net.servers-real")
@pytest.mark.parametrize("kind", ["rclone", "weed"])
def test_an_object_store_keeps_what_was_put_for_whoever_has_the_secret(
    net: Net, tmp_path: Path, kind: str
):
    with servers.s3(net, "nas", tmp_path / "s3", kind) as nas:
        # It listens before its parts have found each other.
        until(lambda: nas.ask("laptop", "PUT", "/shared")[0] == 200, nas.log, within_s=60)
        until(lambda: nas.ask("laptop", "PUT", "/shared/to/one.mp", "sealed")[0] == 200, nas.log, within_s=60)  # fmt: skip
        assert nas.ask("laptop", "GET", "/shared/to/one.mp") == (200, "sealed")
        status, listed = nas.ask("laptop", "GET", "/shared?list-type=2&prefix=to")
        assert (status, "to/one.mp" in listed) == (200, True)
        assert nas.ask("laptop", "GET", "/shared/to/one.mp", secret="another")[0] == 403
        assert nas.ask("laptop", "DELETE", "/shared/to/one.mp")[0] == 204
        assert nas.ask("laptop", "GET", "/shared/to/one.mp")[0] == 404
    until(lambda: gone(net, nas), lambda: f"nobody is left: {net.processes()}")


@proves("net.servers-real")
def test_a_server_that_does_not_start_says_why(net: Net, tmp_path: Path):
    server = Server(net, "nas", ["sh", "-c", "echo no such port >&2; exit 3"], 5, tmp_path / "log")
    with pytest.raises(AssertionError, match=r"(?s)no server at 5.*no such port"):
        server.ready()
    server.kill()
