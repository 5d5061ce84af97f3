"""The door of a real daemon: begun by a knock, gone when it is not needed, mended when it fails."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.fleet import Fleet, Machine, until
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Fleet(["studio"]) as fleet:
        yield fleet.start()["studio"]


def get(port: int, path: str = "/", *, timeout_s: float = 60.0, **headers: str) -> tuple[int, str]:
    """Status and body of one request, at a connection of its own."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout_s)) as asked:
        asked.request("GET", path, headers=headers)
        answer = asked.getresponse()
        return answer.status, answer.read().decode()


def port_of(machine: Machine) -> int:
    return until(lambda: machine.home.door_port, "a port is kept in the home")


def door_of(machine: Machine) -> int:
    """The pid of its door, 0 where none runs."""
    return next(
        (pid for pid, line in machine.fleet.processes().items() if "muster.door" in line), 0
    )


def bearer(machine: Machine) -> str:
    """The line of a request's head that says which session asks."""
    args = {"agent": "shell", "own": "raw", "project": "/src/shop"}
    return f"Authorization: Bearer {machine.ask('session.open', args)['token']}\r\n"


def incidents(machine: Machine) -> list[str]:
    return [i["title"] for i in machine.ask("incidents") if i["key"] == "door" and i["open"]]


def memory_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


@proves("door.starts-on-a-knock")
def test_nothing_runs_until_somebody_knocks_and_the_daemon_loads_nothing_of_it(machine):
    port = port_of(machine)
    assert door_of(machine) == 0
    before = memory_kib(machine.process.pid)
    status, said = get(port)
    assert (status, said.startswith("this is the door of a Muster machine")) == (200, True)
    first = door_of(machine)
    assert first
    for _ in range(50):
        assert get(port)[0] == 200
    assert door_of(machine) == first
    # What a web server alone is costs six; another process keeps it out of ours.
    assert memory_kib(machine.process.pid) - before < 3 * 1024
    given = (Path("/proc") / str(first) / "environ").read_bytes()
    assert b"MUSTER_" not in given
    assert b"NOTES" not in given


@proves("door.goes-on")
def test_a_door_that_is_killed_and_one_whose_daemon_is_killed_are_there_again_at_the_same_port(
    machine,
):
    port = port_of(machine)
    assert get(port)[0] == 200
    first = door_of(machine)
    os.kill(first, signal.SIGKILL)
    assert get(port)[0] == 200
    second = door_of(machine)
    assert second not in (0, first)
    machine.kill()
    until(lambda: not door_of(machine), "the door ends with its daemon")
    machine.start()
    until(lambda: machine.ask("door")["port"], "the port is held again")
    assert get(port)[0] == 200
    assert door_of(machine) not in (0, first, second)
    assert machine.stop() == 0
    assert door_of(machine) == 0
    with pytest.raises(ConnectionRefusedError):
        get(port)


@proves("door.a-failing-one-is-told")
def test_a_door_that_crashes_again_and_again_is_told_of_and_when_it_is_mended_too(tmp_path):
    with Fleet(["studio"]) as fleet:
        machine = fleet["studio"]
        broken = tmp_path / "uvicorn.py"
        broken.write_text("raise RuntimeError('broken on purpose')\n")
        machine.env["PYTHONPATH"] = str(tmp_path)
        fleet.start()
        port = port_of(machine)
        with socket.create_connection(("127.0.0.1", port)) as knocking:
            knocking.sendall(b"GET / HTTP/1.1\r\n")
            until(lambda: incidents(machine), "a person is told", within_s=60)
        assert "broken on purpose" in incidents(machine)[0]
        assert machine.ask("status")["counters"]["door-failed"] >= 3
        broken.unlink()
        assert get(port)[0] == 200
        until(lambda: not incidents(machine), "and told that it is over")


@proves("door.says-what-is-missing")
def test_without_its_packages_whoever_knocks_hears_how_to_install_them(tmp_path):
    with Fleet(["studio"]) as fleet:
        machine = fleet["studio"]
        (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['uvicorn'] = None\n")
        machine.env["PYTHONPATH"] = str(tmp_path)
        fleet.start()
        status, said = get(port_of(machine))
        assert status == 503
        assert "uvicorn" in said
        assert "pip install 'muster-fleet[doors]'" in said
        until(lambda: incidents(machine), "a person is told as well")
        assert "muster-fleet[doors]" in incidents(machine)[0]


@proves("door.says-what-is-missing", "door.a-failing-one-is-told")
def test_where_what_speaks_to_agents_is_broken_they_hear_so_and_are_answered_when_it_is_mended(
    tmp_path,
):
    with Fleet(["studio"]) as fleet:
        machine = fleet["studio"]
        broken = tmp_path / "mcp.py"
        broken.write_text("raise ImportError('half of an upgrade')\n")
        machine.env["PYTHONPATH"] = str(tmp_path)
        fleet.start()
        port, (name, _, value) = port_of(machine), bearer(machine).strip().partition(": ")
        status, said = get(port, "/mcp", **{name: value})
        assert status == 503
        assert "half of an upgrade" in said
        assert "muster-fleet[doors]" in said
        until(lambda: incidents(machine), "a person is told as well")
        assert "half of an upgrade" in incidents(machine)[0]
        assert get(port)[0] == 200
        assert incidents(machine), "that a page is answered ends nothing"
        broken.unlink()
        assert get(port, "/mcp", **{name: value})[0] in (400, 406)
        until(lambda: not incidents(machine), "and told that it is over")


@proves("door.can-be-shut")
def test_a_machine_whose_owner_wants_no_door_listens_nowhere():
    with Fleet(["studio"]) as fleet:
        machine = fleet["studio"]
        machine.home.set_config("door", value=False)
        fleet.start()
        assert machine.ask("door") == {"port": 0, "runs": False}
        assert machine.home.door_port == 0


@proves("door.port-is-ours")
def test_a_port_that_another_program_has_is_waited_for_and_told_of_never_changed():
    with Fleet(["studio"]) as fleet, socket.socket() as other:
        machine = fleet["studio"]
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        machine.home.keep_door_port(port)
        fleet.start()
        until(lambda: incidents(machine), "a person is told", within_s=60)
        assert str(port) in incidents(machine)[0]
        other.close()
        until(lambda: not incidents(machine), "it has its port")
        assert get(port)[0] == 200


@proves("door.ends-when-idle")
def test_a_door_that_nobody_uses_ends_and_the_next_knock_waits_for_another(tmp_path):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.setblocking(False)
        number, port = listening.fileno(), listening.getsockname()[1]
        argv = [sys.executable, "-m", "muster.door", str(tmp_path / "sock"), str(number), str(port)]
        for _ in range(2):
            door = subprocess.Popen(
                [*argv, "0.5"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(number,)
            )
            # It is idle for longer than that while somebody reads what it answers.
            assert get(port)[0] == 200
            assert door.wait(30) == 0
            for end in (door.stdin, door.stdout):
                end.close()


@proves("door.speaks-to-ours-alone", "door.is-bounded")
def test_foreign_pages_and_names_and_what_is_too_large_deep_or_slow_are_refused(machine):
    port = port_of(machine)
    assert get(port, Host=f"evil.example:{port}")[0] == 421
    assert get(port, Host="localhost")[0] == 421
    assert get(port, Host=f"localhost:{port}")[0] == 200
    for origin in ("http://evil.example", "null", f"http://localhost:{port + 1}"):
        assert get(port, Origin=origin)[0] == 403
    assert get(port, Origin=f"http://localhost:{port}")[0] == 200
    ours = f"POST /mcp HTTP/1.1\r\nHost: localhost:{port}\r\n{bearer(machine)}"
    nobodys = f"POST / HTTP/1.1\r\nHost: localhost:{port}\r\n"

    def post(body: bytes, *, said: int | None = None, head: str = ours) -> bytes:
        head += f"content-length: {len(body) if said is None else said}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port), 60) as asked:
            with contextlib.suppress(ConnectionError):
                asked.sendall(head.encode() + body)
            with contextlib.suppress(ConnectionError):
                return asked.recv(4096)
        return b""

    assert post(b" " * 10 * 1024 * 1024)[:12] in (b"HTTP/1.1 413", b"")
    assert post(b"", said=10 * 1024 * 1024).startswith(b"HTTP/1.1 413")
    chunks = b"10000\r\n" + b" " * 65536 + b"\r\n"
    with socket.create_connection(("127.0.0.1", port), 60) as asked:
        head = f"{ours}transfer-encoding: chunked\r\n\r\n"
        with contextlib.suppress(ConnectionError):
            asked.sendall(head.encode() + chunks * 40)
        assert asked.recv(12) == b"HTTP/1.1 413"
    assert post(b"[" * 100).startswith(b"HTTP/1.1 400")
    assert b"nested deeper" not in post(b'"' + b"[" * 100 + b'"')
    # Of whom nobody knows nothing is waited for.
    assert post(b"1", said=9, head=nobodys).startswith(b"HTTP/1.1 200")
    # Two that say their headers or their body slowly are cut, while others are served.
    slow = [socket.create_connection(("127.0.0.1", port), 60) for _ in range(2)]
    slow[0].sendall(b"GET / HTTP/1.1\r\nHost:")
    slow[1].sendall(f"{ours}content-length: 9\r\n\r\n1".encode())
    assert get(port)[0] == 200
    for each in slow:
        with contextlib.closing(each), contextlib.suppress(ConnectionError):
            said = each.recv(4096)
            assert said == b"" if each is slow[0] else said.startswith(b"HTTP/1.1 408")
    assert get(port)[0] == 200


@proves("door.is-bounded")
def test_hundreds_of_connections_that_say_nothing_keep_nobody_out(machine):
    port = port_of(machine)
    assert get(port)[0] == 200
    silent = [socket.create_connection(("127.0.0.1", port), 60) for _ in range(300)]
    try:
        assert get(port)[0] == 200
    finally:
        for each in silent:
            each.close()
