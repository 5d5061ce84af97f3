"""A daemon that is told to end while something hangs: it has ended in time, and its store is whole."""

import contextlib
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.node.host import ending, lock, signals
from muster.node.host.home import Home
from tests.cli.world import environment, muster
from tests.e2e.fleet import until
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

# The daemon, in which something hangs; its bounds are shorter than a person's.
HANGS = """\
import asyncio, ctypes, os, signal, sys, threading
from muster import errors
from muster.node.host import ending
from muster.node.host import signals
ending.END_S, ending.AFTER_S, signals._LOOK_S = 4.0, 0.5, 0.5
from muster.node import daemon, installation
from muster.node.links.posts import Mailboxes
from muster.verbs import daemon as verb
def hang(*_, **__):
    threading.Event().wait()
def fail(*_, **__):
    raise errors.Broken("the disk is gone")
async def hang_here(*_, **__):
    await asyncio.Event().wait()
def hang_in_system(*_):
    os.write(1, b"hangs\\n")
    os.read(os.pipe()[0], 1)
def hang_in_kernel(*_):
    # Until its child executes a program the thread waits as for a disk: it takes no signal (clone).
    os.write(1, b"hangs\\n")
    if ctypes.CDLL(None).syscall(CLONE, 0x4000 | signal.SIGCHLD, 0, 0, 0, 0) == 0:
        while True:
            signal.pause()
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
def hanging(home: Path, what: str, clone: str = "0") -> Iterator[subprocess.Popen[str]]:
    """A daemon in which that hangs; it answers."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", HANGS.replace("WHAT", what).replace("CLONE", clone)],
        env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert "is up" in process.stdout.readline()
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def counted(home: Path) -> int:
    """How often the daemon that runs knows of an end that was cut off."""
    return int(muster(home, "status", "--json").value["counters"].get(ending.CUT_OFF, 0))


def end_of(process: subprocess.Popen[str]) -> str:
    """What it said until it had ended."""
    began_s = time.monotonic()
    process.wait(timeout=30)
    with contextlib.suppress(ProcessLookupError):
        # Of what hangs in the kernel one is left by the way in which it was brought there.
        os.killpg(process.pid, signal.SIGKILL)
    said, _ = process.communicate()
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
    assert muster(home, "up", "--detach").code == 0
    assert "it was cut off" in muster(home, "doctor").out
    # The one after this knows nothing of it any more.
    assert not Home(home).cut_off.exists()


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


@proves("node.ends-within-a-bound", "node.ended-stays-ended")
@pytest.mark.skipif(sys.platform != "linux", reason="the way into the kernel is Linux's")
@pytest.mark.parametrize("where", ["system", "kernel"])
def test_a_daemon_whose_loop_hangs_in_a_call_of_the_system_ends_when_it_is_told_to(
    home: Path, where: str, tmp_path: Path
) -> None:
    clone = {"x86_64": "56", "aarch64": "220"}[platform.machine()]
    what = f"signal.signal(signal.SIGUSR1, hang_in_{where})"
    with hanging(home, what, clone) as process:
        child = worker(home, tmp_path) if where == "system" else 0
        process.send_signal(signal.SIGUSR1)
        assert process.stdout is not None
        assert process.stdout.readline() == "hangs\n"
        process.send_signal(signal.SIGTERM)
        said = end_of(process)
        assert process.returncode == 0, said
        assert "it ends without waiting for" in said
        if child:
            until(lambda: not Path(f"/proc/{child}").exists(), "nothing of an attempt is left")


def worker(home: Path, folder: Path) -> int:
    """A process of an attempt that goes on."""
    note, spec = folder / "pid", folder / "sleeps.yaml"
    do = f"echo $$ > {note}.new; mv {note}.new {note}; sleep 600"
    spec.write_text(
        f"muster: 1\nname: sleeps\nphases:\n  only:\n    agent: shell\n    do: {do}\n    check: 'true'\n"
    )
    assert muster(home, "run", str(spec), "--detach").code == 0
    until(note.exists, "the attempt begins")
    return int(note.read_text())


def test_the_bound_is_within_what_others_wait_for() -> None:
    from muster.node.host.unit import STOP_S
    from muster.verbs.daemon import GONE_S

    longest_s = signals._LOOK_S + ending.END_S + ending.AFTER_S + ending.SAYING_S
    assert longest_s < GONE_S < STOP_S
