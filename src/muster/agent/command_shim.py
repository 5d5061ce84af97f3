"""The small program around one command of a person; when it ends, nothing of the command is left.

Rule 1: everything below it is ended when the command is done, a line says so, or the control socket
ends. The daemon holds the other end, so a daemon that was killed ends the commands by dying.
Rule 2: first TERM, after the grace KILL, until nobody is left.
Rule 3: the command has our standard streams; the shim reads and writes none of them.
Rule 4: standard library only, and little of it; the start of every command waits for this.

On the control socket, one JSON object a line: to it the order, then `{"signal": number}`; from it
`{"begun": pid}` or `{"lacks": why}`, and at the end `{"code": exit code}`.
"""

import contextlib
import fcntl
import json
import os
import selectors
import signal
import socket
import subprocess
import termios
import time
from typing import Any, Final

from muster import umask
from muster.agent import cgroup, process_tree
from muster.agent.lines import ORDER_BYTES_MAX, Splitter

GRACE_S: Final = 2.0
KILL_AGAIN_S: Final = 0.05
# A process stuck in the kernel cannot be killed; say so by ending all the same.
KILLS_MAX: Final = 100
LOOK_S: Final = 1.0
READ_BYTES: Final = 64 * 1024
# What a person at the other end may send.
SIGNALS: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})


class CommandShim:
    """One command from order to end."""

    def __init__(self, control: socket.socket, subreaper: bool) -> None:
        self._control, self._subreaper = control, subreaper
        self._brood = process_tree.ProcessTree(subreaper)
        self._lines = Splitter(ORDER_BYTES_MAX)
        self._selector = selectors.DefaultSelector()
        self._child, self._code = 0, 0
        # When what is left is killed; None while the command runs.
        self._kill_at: float | None = None
        self._kills = 0

    def run(self, order: dict[str, Any], rest: bytes) -> None:
        """Start the command of the order, and stay until nothing of it is left."""
        reading, waking = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(waking, False)
        signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, lambda *_: self._end())
        self._selector.register(reading, selectors.EVENT_READ, lambda: os.read(reading, 512))
        at_terminal = bool(order.get("terminal"))
        env, group = dict(order["env"]), cgroup.make(str(order["env"][process_tree.MARKER]))
        try:
            child = subprocess.Popen(
                order["argv"],
                cwd=order["cwd"],
                env=env,
                start_new_session=True,
                # Safe here: the shim has one thread.
                preexec_fn=lambda: _prepare(group, at_terminal),  # noqa: PLW1509
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self._say({"lacks": getattr(error, "strerror", None) or str(error)})
            return
        # The shim reaps for everybody, so Popen must not wait for its child by itself.
        child.returncode = 0
        self._child = child.pid
        self._brood.groups.add(child.pid)
        # The streams are the command's alone: they end when it and what it started has ended.
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nothing, number)
        self._say({"begun": child.pid})
        self._control.setblocking(False)
        self._selector.register(self._control, selectors.EVENT_READ, self._read)
        self._obey(rest)
        while not self._over():
            for key, _ in self._selector.select(self._pause_s()):
                key.data()
        if group is not None:
            group.remove()
        self._say({"code": self._code})

    def _say(self, what: dict[str, Any]) -> None:
        # A daemon that died hears nothing.
        with contextlib.suppress(OSError):
            self._control.setblocking(True)
            self._control.sendall(json.dumps(what).encode() + b"\n")
            self._control.setblocking(False)

    def _read(self) -> None:
        try:
            data = self._control.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(self._control)
            self._end()
        self._obey(data)

    def _obey(self, data: bytes) -> None:
        for line, dropped in self._lines.feed(data):
            # Only the daemon writes here: a line that is none was cut off by its end.
            with contextlib.suppress(ValueError):
                match None if dropped else json.loads(line):
                    case {"signal": int(number)} if number in SIGNALS and self._child:
                        # The whole group of it, as a terminal would.
                        with contextlib.suppress(ProcessLookupError, PermissionError):
                            os.killpg(self._child, number)

    def _end(self) -> None:
        """Begin to end everything; once."""
        if self._kill_at is None:
            self._kill_at = _now_s() + GRACE_S
            process_tree.send(self._brood.look(), signal.SIGTERM)

    def _over(self) -> bool:
        ended, any_children = process_tree.reap()
        if self._child in ended:
            self._code, self._child = ended[self._child], 0
            self._end()
        if self._kill_at is None:
            if not self._subreaper:
                self._brood.look()
            return False
        left = self._brood.look()
        if not any_children and not left:
            return True
        if _now_s() >= self._kill_at:
            process_tree.send(left, signal.SIGKILL)
            self._kill_at = _now_s() + KILL_AGAIN_S
            self._kills += 1
        return self._kills > KILLS_MAX

    def _pause_s(self) -> float:
        if self._kill_at is None:
            return LOOK_S
        return max(0.0, min(self._kill_at - _now_s(), KILL_AGAIN_S))


def _prepare(group: cgroup.Group | None, at_terminal: bool) -> None:
    process_tree.bind(group)
    if at_terminal:
        # Ctrl-C reaches whoever this terminal is the terminal of.
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _now_s() -> float:
    # The clock that counts the machine's sleep, where there is one.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def main() -> None:
    """Run the command whose order is the first line on the control socket; exits without one."""
    os.umask(umask.of_attempts())
    control = socket.socket(fileno=int(os.environ.pop(CONTROL)))
    os.set_inheritable(control.fileno(), False)
    raw = bytearray()
    while b"\n" not in raw:
        data = control.recv(READ_BYTES)
        if not data or len(raw) > ORDER_BYTES_MAX:
            raise SystemExit("the shim got no order on its control socket")
        raw += data
    line, _, rest = bytes(raw).partition(b"\n")
    # From now on orphans below this process become its own children.
    subreaper = process_tree.prctl(process_tree.PR_SET_CHILD_SUBREAPER, 1)
    CommandShim(control, subreaper).run(json.loads(line), rest)


# Where the shim finds its control socket.
CONTROL: Final = "MUSTER_CONTROL"


if __name__ == "__main__":
    main()
