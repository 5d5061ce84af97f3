"""A daemon that is there and says nothing: who says so, how soon, and what ends it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.node.host import lock
from muster.node.host.home import Home
from tests.cli.world import LIMIT_S, Said, ended, environment, muster
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

# The command, which gives up sooner than a person's.
HASTY = """\
import sys
from muster.verbs import daemon
daemon.ANSWER_S, daemon.GONE_S = 1.0, 1.0
from muster.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
# Somebody who holds the lock and listens, and does nothing else.
DEAF = """\
import signal, socket, sys, time
from pathlib import Path
from muster.node.host import lock
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with lock.held(Path(sys.argv[1])):
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(sys.argv[2])
    listening.listen()
    print("ready", flush=True)
    time.sleep(600)
"""


def hastily(home: Path, *words: str) -> Said:
    done = subprocess.run(
        [sys.executable, "-c", HASTY, *words], env=environment(home), capture_output=True,
        text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    return Said(done.stdout, done.stderr, done.returncode)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "hub"
    assert muster(path, "init", "--name", "hub", "--listen", "").code == 0
    yield path
    if pid := lock.holder(Home(path).lock):
        os.kill(pid, signal.SIGKILL)


@proves("cli.hung-daemon")
def test_a_daemon_that_was_stopped_is_named_by_doctor_and_ended_by_down(home: Path) -> None:
    assert muster(home, "up", "--detach").code == 0
    pid = lock.holder(Home(home).lock)
    assert pid
    os.kill(pid, signal.SIGSTOP)
    checks = {each["name"]: each for each in hastily(home, "doctor", "--json").value["checks"]}
    assert checks["daemon"]["state"] == "wrong"
    assert f"it hangs: process {pid} gave no answer" in checks["daemon"]["text"]
    assert checks["daemon"]["mend"].startswith("`muster down` ends it")
    assert f"`kill -9 {pid}`" in checks["daemon"]["mend"]
    assert checks["configuration"]["state"] == "ok"
    again = hastily(home, "up", "--detach")
    assert (again.code, "`muster doctor`" in again.err) == (6, True), again.err
    assert "`muster status`" not in again.err
    said = hastily(home, "down")
    assert said.code == 0, said.err
    assert f"the daemon (process {pid}) does not answer" in said.err
    assert lock.holder(Home(home).lock) is None


@proves("cli.hung-daemon")
def test_one_that_does_not_end_either_is_said_with_what_ends_it(home: Path) -> None:
    held = Home(home)
    deaf = subprocess.Popen(
        [sys.executable, "-c", DEAF, str(held.lock), str(home / "run" / "sock")],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with ended(deaf):
        assert deaf.stdout is not None
        deaf.stdout.readline()
        said = hastily(home, "down")
    assert said.code == 8
    assert f"the daemon (process {deaf.pid}) does not end; `kill -9 {deaf.pid}` ends it" in said.err
