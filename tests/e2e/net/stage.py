"""Hosts with networks of their own, for one test, and whatever may happen between them.

    with Net("hub", "studio", "laptop", "nas") as net:
        net.between("laptop", "hub").delay(25).loss(0.3)
        net.between("studio", "hub").cut(one_way=True)     # studio → hub is silent, hub → studio is not
        net.behind("laptop")                               # it dials out, nobody dials in
        net.exec("hub", ["ip", "-br", "addr"])
        net.socket("nas", socket.SOCK_DGRAM)               # a socket of the test's own, over there

Root on Linux alone can have it: `require()` skips a test elsewhere, and says why.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import pytest

from tests.e2e.net.fabric import Counters, Rule, told
from tests.e2e.net.switch import enter, inside

ROOT: Final = Path(__file__).parents[3]
PROGRAMS: Final = ("ip", "nsenter", "setpriv")
_END_S: Final = 60.0
T = TypeVar("T")


@cache
def why_not() -> str:
    """Why no test can have hosts of its own on this computer; "" where it can."""
    if sys.platform != "linux":
        return "needs network namespaces, which Linux has"
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        return f"needs {', '.join(missing)} (iproute2 and util-linux)"
    if os.getuid() != 0:
        return "needs root to make network namespaces"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "needs /dev/net/tun"
    try:
        with Net("probe") as net:
            net.exec("probe", ["ip", "link"])
            # Servers run in mounts of their own.
            mounted = "mount --bind /etc /etc && mount -t tmpfs none /run"
            apart = ["unshare", "--mount", "--propagation", "private"]
            net.exec("probe", [*apart, "sh", "-c", mounted])
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return f"cannot make namespaces and mounts here: {error}"
    return ""


def require() -> None:
    """Skip the test where it can have no hosts of its own."""
    if reason := why_not():
        print(reason)
        pytest.skip(reason)


class Between:
    """What lies between two hosts: each method changes both directions, with `one_way` the first."""

    def __init__(self, net: "Net", one: str, other: str) -> None:
        self._net = net
        self._ends = ((one, other), (other, one))

    def _change(self, one_way: bool, **changed: Any) -> Self:
        for ends in self._ends[: 1 if one_way else 2]:
            self._net.set_rule(*ends, **changed)
        return self

    def delay(self, ms: float, jitter_ms: float = 0.0, *, one_way: bool = False) -> Self:
        """Each frame takes so long."""
        return self._change(one_way, delay_ms=ms, jitter_ms=jitter_ms)

    def loss(self, part: float, *, one_way: bool = False) -> Self:
        """So many of all frames are lost, from 0 to 1."""
        return self._change(one_way, loss=part)

    def rate(self, bytes_per_s: int, *, one_way: bool = False) -> Self:
        """No more than this in a second."""
        return self._change(one_way, rate=bytes_per_s)

    def cut(self, *, one_way: bool = False) -> Self:
        """Nothing comes through, and nobody is told."""
        return self._change(one_way, cut=True)

    def heal(self) -> Self:
        """As a cable between the two."""
        return self._change(False, **told(Rule()))

    def counters(self) -> Counters:
        """What the first direction passed on and what it dropped, since the beginning."""
        source, target = self._ends[0]
        return Counters(**self._net.tell("counters", **{"from": source, "to": target}))


class Net:
    """See the top of this file."""

    def __init__(self, *names: str, seed: int | str = 1) -> None:
        self.names = names
        self._seed = str(seed)
        self._rules: dict[tuple[str, str], Rule] = {}
        self._lock = threading.Lock()
        self._switch: subprocess.Popen[str] | None = None
        self._hosts: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        # In a session of its own: what kills everything of the terminal leaves it, and it cleans up.
        self._switch = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.net.switch", self._seed, *self.names],
            cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            self._hosts = self._answer()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every process on a host, and the hosts."""
        switch, self._switch = self._switch, None
        if switch is None:
            return
        assert switch.stdin is not None
        assert switch.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            switch.stdin.close()
        try:
            switch.wait(_END_S)
        finally:
            switch.kill()
            switch.wait()
            switch.stdout.close()

    # --- the switch ----------------------------------------------------------------------

    def _answer(self) -> Any:
        assert self._switch is not None
        assert self._switch.stdout is not None
        line = self._switch.stdout.readline()
        if not line:
            raise RuntimeError(f"the switch ended with {self._switch.wait(_END_S)}")
        return json.loads(line)

    def tell(self, what: str, **words: Any) -> Any:
        """Have the switch do something; its answer."""
        with self._lock:
            assert self._switch is not None, "the net is closed"
            assert self._switch.stdin is not None
            print(json.dumps({"do": what} | words), file=self._switch.stdin, flush=True)
            return self._answer()

    def set_rule(self, source: str, target: str, **changed: Any) -> None:
        """Change the rule of one direction."""
        rule = Rule(**(told(self._rules.get((source, target), Rule())) | changed))
        self._rules[source, target] = rule
        self.tell("rule", **{"from": source, "to": target}, rule=told(rule))

    def between(self, one: str, other: str) -> Between:
        """What lies between two hosts."""
        return Between(self, one, other)

    def behind(self, host: str, *, on: bool = True) -> None:
        """Put a host behind a NAT of its own, or in front of it again."""
        self.tell("behind", host=host, on=on)

    def heal(self) -> None:
        """Everybody reaches everybody; who is behind a NAT stays there."""
        for (source, target), rule in list(self._rules.items()):
            if rule != Rule():
                self.set_rule(source, target, **told(Rule()))

    def look_after(self, folder: Path | str) -> None:
        """Have a folder removed when the net ends, also when the test was killed."""
        self.tell("remove", folder=str(folder))

    def keep_folders(self) -> None:
        """Leave the folders where they are."""
        self.tell("keep")

    # --- hosts ---------------------------------------------------------------------------

    def address(self, host: str) -> str:
        """Where the others reach it (IPv4)."""
        return str(self._hosts[host]["address"])

    def into(self, host: str) -> list[str]:
        """What a command begins with to run on a host; it ends with whoever started it."""
        namespace = self._hosts[host]["namespace"]
        return ["nsenter", f"--net={namespace}", "setpriv", "--pdeathsig", "KILL", "--"]

    def exec(self, host: str, argv: Sequence[str], timeout_s: float = 60.0, **more: Any) -> str:
        """What a command on a host prints. Raises: CalledProcessError."""
        done = subprocess.run(
            [*self.into(host), *argv], check=True, capture_output=True, text=True,
            timeout=timeout_s, **more,
        )  # fmt: skip
        return done.stdout

    def spawn(self, host: str, argv: Sequence[str], **more: Any) -> subprocess.Popen[bytes]:
        """A command that runs on a host until the net ends, or before."""
        return subprocess.Popen([*self.into(host), *argv], **more)

    def on(self, host: str, do: Callable[[], T]) -> T:
        """The value of `do`, in a thread that is on a host: sockets that it makes are over there."""
        found: list[T] = []
        failed: list[OSError] = []

        def work() -> None:
            try:
                namespace = os.open(self._hosts[host]["namespace"], os.O_RDONLY | os.O_CLOEXEC)
                try:
                    enter(namespace)
                finally:
                    os.close(namespace)
                found.append(do())
            except OSError as error:
                failed.append(error)

        # A thread of its own, which ends there: none of the test's is ever anywhere else.
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return found[0]

    def socket(self, host: str, kind: int = socket.SOCK_STREAM, timeout_s: float = 60.0) -> socket.socket:  # fmt: skip
        """A socket of the test's own on a host."""
        made = self.on(host, lambda: socket.socket(socket.AF_INET, kind))
        made.settimeout(timeout_s)
        return made

    def answers(self, host: str, address: str, port: int) -> bool:
        """Whether somebody listens there, seen from a host."""
        with self.socket(host, timeout_s=2.0) as probe:
            return probe.connect_ex((address, port)) == 0

    def processes(self) -> list[int]:
        """Every process that is on a host."""
        device = os.stat("/proc/self/ns/net").st_dev
        return inside({(device, each["inode"]) for each in self._hosts.values()})
