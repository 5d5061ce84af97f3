"""A daemon that is told to end while something hangs: it has ended in time, and its store is whole."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.node.host import ending, lock
from muster.node.host.home import Home
from tests.cli.world import environment, muster
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

# The daemon, in which something hangs; its bounds are shorter than a person's.
HANGS = """\
import asyncio, sys, threading
from muster.node.host import ending
ending.END_S, ending.AFTER_S = 4.0, 0.5
from muster.node import daemon, installation
from muster.node.links.posts import Mailboxes
from muster.verbs import daemon as verb
def hang(*_, **__):
    threading.Event().wait()
async def hang_here(*_, **__):
    await asyncio.Event().wait()
begun = verb._live
async def live(home, ready, *more, **how):
    def then(machine):
        WHAT
        ready(machine)
    return await begun(home, then, *more, **how)
verb._live = live
from muster.cli.main import main
sys.exit(main(["up"]))
"""
WHATS = {
    "nothing": "pass",
    "threads of the daemon": "[asyncio.ensure_future(asyncio.to_thread(hang)) for _ in range(64)]",
    "the disk of its mark": "machine.machine._marker.submit(hang)",
    "a place that does not close": "machine.mailboxes.close = hang_here",
    "its closing": "machine.machine.close = hang",
    "a task that does not end": "machine.supervisor.stop = hang_here",
}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "hub"
    assert muster(path, "init", "--name", "hub", "--listen", "").code == 0
    yield path
    if pid := lock.holder(Home(path).lock):
        os.kill(pid, signal.SIGKILL)


@proves("node.ends-within-a-bound")
@pytest.mark.parametrize("what", WHATS)
def test_a_daemon_that_is_told_to_end_does_whatever_hangs(home: Path, what: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", HANGS.replace("WHAT", WHATS[what])],
        env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert "is up" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        began_s = time.monotonic()
        said, _ = process.communicate(timeout=30)
        print(f"{what}: ended after {time.monotonic() - began_s:.1f} s, {process.returncode}")
    finally:
        process.kill()
        process.wait()
    in_order = what in ("nothing", "threads of the daemon")
    assert process.returncode == (0 if in_order else 8), said
    hung = what != "nothing"
    assert ("it ends without waiting for" in said) == hung, said
    if "thread" in what:
        assert "(hang, line" in said
    # The next one begins at once, and holds what was there.
    assert muster(home, "up", "--detach").code == 0
    assert muster(home, "status").code == 0
    assert muster(home, "down").code == 0


def test_the_bound_is_within_what_others_wait_for() -> None:
    from muster.node.host.unit import STOP_S
    from muster.verbs.daemon import GONE_S

    assert ending.END_S + ending.AFTER_S < GONE_S < STOP_S
