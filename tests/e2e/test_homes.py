"""One home, whatever session, umask or left-over file the command meets: one daemon, for one user."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.node.host import lock
from muster.node.host.home import Home
from tests.cli.world import muster
from tests.e2e.fleet import until
from tests.ports import free_port
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

SPEC = """\
muster: 1
name: modes
phases:
  a:
    agent: shell
    do: umask; echo x > out.txt; stat -c %a out.txt
    deliver: out.txt
"""


def begin(home: Path, **more: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    said = muster(home, "init", "--name", "hub", "--operator", "alice", "--listen", address, **more)
    assert said.code == 0, said
    up(home, **more)


def up(home: Path, **more: str) -> None:
    said = muster(home, "up", "--detach", **more)
    assert said.code == 0, said


def daemon_of(home: Path) -> int:
    found = lock.holder(Home(home).lock)
    assert found, "a daemon holds the lock"
    return found


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "hub"
    yield path
    if lock.holder(Home(path).lock):
        muster(path, "down")


@proves("node.private-whatever-the-umask")
def test_under_umask_000_everything_is_for_its_owner_alone_and_an_attempt_has_a_usual_umask(
    home: Path, tmp_path: Path
) -> None:
    before = os.umask(0)
    try:
        begin(home / "deep" / "er")
        home = home / "deep" / "er"
        spec = tmp_path / "spec.yaml"
        spec.write_text(SPEC)
        assert muster(home, "send", "hub", "a secret").code == 0
        assert muster(home, "run", str(spec)).code == 0
        task = muster(home, "tasks", "--all", "--json").value[0]["task"]
        logs = muster(home, "logs", task).out
        assert muster(home, "fetch", task, "--to", str(tmp_path / "fetched")).code == 0
        assert muster(home, "audit", "export", str(tmp_path / "evidence")).code == 0
        found = {
            str(path): oct(stat.S_IMODE(path.lstat().st_mode))
            for path in tmp_path.rglob("*")
            if path != spec and not path.is_symlink() and path.lstat().st_mode & 0o077
        }
        assert muster(home, "down").code == 0
    finally:
        os.umask(before)
    assert found == {}
    assert "022" in logs
    assert "644" in logs


@proves("node.second-daemon")
def test_a_second_daemon_from_another_session_is_refused_and_the_first_one_is_found(
    tmp_path: Path,
) -> None:
    home = tmp_path / ("a-rather-long-folder-name-" * 4) / "hub"
    runtime = tmp_path / "r"
    runtime.mkdir(mode=0o700)
    begin(home)
    try:
        first = daemon_of(home)
        other = {"XDG_RUNTIME_DIR": str(runtime)}
        said = muster(home, "up", "--detach", **other)
        assert said.code == 6
        assert "runs already" in said.err
        assert muster(home, "rebuild", **other).code == 6
        assert muster(home, "status", **other).code == 0
        assert daemon_of(home) == first
    finally:
        assert muster(home, "down", **other).code == 0
    assert lock.holder(Home(home).lock) is None


@proves("node.second-daemon")
def test_also_where_the_first_one_does_not_answer(home: Path) -> None:
    begin(home)
    pid = daemon_of(home)
    Path(Home(home).socket).unlink()
    assert muster(home, "up", "--detach").code == 6
    assert daemon_of(home) == pid
    # It is ended all the same: who holds the lock is the daemon of this home.
    assert muster(home, "down").code == 0
    assert lock.holder(Home(home).lock) is None


@proves("node.down-its-own")
def test_down_ends_no_process_that_a_left_over_number_names(home: Path, tmp_path: Path) -> None:
    begin(home)
    pid = daemon_of(home)
    os.kill(pid, signal.SIGKILL)
    until(lambda: lock.holder(Home(home).lock) is None, "it is gone")
    # A daemon's command line, as another home's would have it.
    program = "import time; time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", program, "muster", "up"])
    try:
        Path(Home(home).pid_file).write_text(f"{other.pid}\n", encoding="ascii")
        Home(home).lock.write_text(f"{other.pid}\n", encoding="ascii")
        assert "not running" in muster(home, "down").out
        assert other.poll() is None
        # Killed and started again: what the dead one left prevents nothing.
        up(home)
        assert muster(home, "up", "--detach").code == 6
    finally:
        other.kill()
        other.wait()


@proves("node.down-its-own")
def test_a_number_in_a_held_lock_counts_only_for_a_process_that_has_it_open(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock.held(path):
        assert lock.holder(path) == os.getpid()
        path.write_text("1\n", encoding="ascii")
        assert lock.holder(path) == 0
    assert lock.holder(path) is None


@proves("node.second-daemon")
def test_a_copied_home_does_not_reach_the_daemon_of_the_other_one(tmp_path: Path) -> None:
    deep = tmp_path / ("a-rather-long-folder-name-" * 4)
    for name in ("one", "two"):
        Home(deep / name).create()
    Home(deep / "one").note_socket()
    (deep / "two" / "run" / "socket").write_bytes((deep / "one" / "run" / "socket").read_bytes())
    assert Home(deep / "two").socket != Home(deep / "one").socket
