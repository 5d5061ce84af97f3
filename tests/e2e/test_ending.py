"""A daemon that is told to end while something hangs: it has ended in time, and its store is whole."""

import contextlib
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
from muster import errors
from muster.node.host import ending
ending.END_S, ending.AFTER_S = 4.0, 0.5
from muster.node import daemon, installation
from muster.node.links.posts import Mailboxes
from muster.verbs import daemon as verb
def hang(*_, **__):
    threading.Event().wait()
def fail(*_, **__):
    raise errors.Broken("the disk is gone")
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


@contextlib.contextmanager
def hanging(home: Path, what: str) -> Iterator[subprocess.Popen[str]]:
    """A daemon in which that hangs; it answers."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", HANGS.replace("WHAT", what)],
        env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert "is up" in process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def counted(home: Path) -> int:
    """How often the daemon that runs knows of an end that was cut off."""
    return int(muster(home, "status", "--json").value["counters"].get(ending.CUT_OFF, 0))


def end_of(process: subprocess.Popen[str]) -> str:
    """What it said until it had ended."""
    began_s = time.monotonic()
    said, _ = process.communicate(timeout=30)
    print(f"ended after {time.monotonic() - began_s:.1f} s, {process.returncode}")
    return said


@proves("node.ends-within-a-bound", "node.ended-stays-ended", "node.cut-off-is-told")
@pytest.mark.parametrize("what", WHATS)
def test_a_daemon_that_is_told_to_end_does_whatever_hangs(home: Path, what: str) -> None:
    with hanging(home, WHATS[what]) as process:
        process.send_signal(signal.SIGTERM)
        said = end_of(process)
    # Every keeper of services starts again what ended with another code.
    assert process.returncode == 0, said
    hung = what != "nothing"
    assert ("it ends without waiting for" in said) == hung, said
    if "thread" in what:
        assert "(hang, line" in said
    # The next one begins at once, holds what was there, and knows how the last one ended.
    assert muster(home, "up", "--detach").code == 0
    cut_off = what not in ("nothing", "threads of the daemon")
    assert counted(home) == cut_off
    assert muster(home, "down").code == 0


@proves("node.ended-stays-ended", "node.cut-off-is-told")
def test_a_daemon_that_is_put_down_and_cut_off_has_ended_as_it_was_told_to(home: Path) -> None:
    with hanging(home, WHATS["its closing"]) as process:
        assert muster(home, "down").code == 0
        said = end_of(process)
    assert process.returncode == 0, said
    for cut_off in (True, False):
        assert muster(home, "up", "--detach").code == 0
        assert ("it was cut off" in muster(home, "doctor").out) == cut_off
        assert muster(home, "down").code == 0


@proves("node.ended-stays-ended")
@pytest.mark.parametrize("closing", ["hang", "fail"])
@pytest.mark.parametrize("told", [True, False])
def test_one_that_fails_is_started_again_but_where_it_was_told_to_end(
    home: Path, closing: str, told: bool
) -> None:
    what = f"machine.machine.close = {closing}"
    if not told:
        what += '; asyncio.get_running_loop().call_soon(machine.stop, "its disk fails")'
    with hanging(home, what) as process:
        if told:
            process.send_signal(signal.SIGTERM)
        said = end_of(process)
    assert process.returncode == (0 if told else 8), said
    assert closing == "hang" or "the disk is gone" in said


def test_the_bound_is_within_what_others_wait_for() -> None:
    from muster.node.host.unit import STOP_S
    from muster.verbs.daemon import GONE_S

    assert ending.END_S + ending.AFTER_S < GONE_S < STOP_S
