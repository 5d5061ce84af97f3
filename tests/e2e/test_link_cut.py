"""Two machines and a cable: namespaces joined by a veth pair that is pulled and put back."""

import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.promise import proves

ROOT = Path(__file__).parents[2]
# The timing of link_end: a ping every second, two seconds for its answer, and slack for
# a busy machine.
NOTICE_S_MAX = 1.0 + 2.0 + 2.0


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)


def _why_not() -> str:
    if sys.platform != "linux" or not shutil.which("ip"):
        return "needs Linux and the ip command (iproute2)"
    if os.getuid() != 0:
        return "needs root to make network namespaces"
    probe = f"muster{os.getpid()}p"
    try:
        ip("netns", "add", probe)
        ip("netns", "del", probe)
    except subprocess.CalledProcessError as error:
        return f"cannot make network namespaces here: {error.stderr.decode().strip()}"
    return ""


class End:
    """A process in a namespace and what it printed."""

    def __init__(self, namespace: str, *words: str) -> None:
        self._lines: queue.Queue[str] = queue.Queue()
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, "-m", "tests.e2e.link_end", *words],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.split()[1])

    def wait_for(self, word: str, within_s: float) -> None:
        deadline = time.perf_counter() + within_s
        while True:
            try:
                if self._lines.get(timeout=max(0.0, deadline - time.perf_counter())) == word:
                    return
            except queue.Empty:
                pytest.fail(f"no {word!r} within {within_s} s")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def cable() -> Iterator[Callable[[str], None]]:
    """Two namespaces, `muster<pid>a` at 10.77.0.1 and `b` at 10.77.0.2; call it with up or down."""
    if reason := _why_not():
        print(reason)
        pytest.skip(reason)
    a, b = f"muster{os.getpid()}a", f"muster{os.getpid()}b"
    try:
        for namespace in (a, b):
            ip("netns", "add", namespace)
        ip("link", "add", "va", "netns", a, "type", "veth", "peer", "name", "vb", "netns", b)
        for namespace, device, address in ((a, "va", "10.77.0.1"), (b, "vb", "10.77.0.2")):
            ip("-n", namespace, "addr", "add", f"{address}/24", "dev", device)
            ip("-n", namespace, "link", "set", device, "up")

        def pull(state: str) -> None:
            ip("-n", a, "link", "set", "va", state)

        yield pull
    finally:
        for namespace in (a, b):
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)


@pytest.mark.e2e
@proves("channel.link-cut-noticed")
@pytest.mark.parametrize("load", ["idle", "busy"])
def test_a_cut_link_is_noticed_at_both_ends_and_comes_back(
    cable: Callable[[str], None], load: str
) -> None:
    """1. link up  2. pull the cable: both ends notice  3. plug it in: the dialer returns."""
    far = End(f"muster{os.getpid()}b", "listen", "10.77.0.2:7437", load)
    try:
        far.wait_for("listening", 10)
        near = End(f"muster{os.getpid()}a", "dial", "10.77.0.2:7437", load)
        try:
            for _ in range(2):
                near.wait_for("up", 10)
                far.wait_for("up", 10)
                cable("down")
                cut = time.perf_counter()
                near.wait_for("lost", NOTICE_S_MAX)
                far.wait_for("lost", max(0.1, cut + NOTICE_S_MAX - time.perf_counter()))
                cable("up")
            near.wait_for("up", 10)
        finally:
            near.stop()
    finally:
        far.stop()
