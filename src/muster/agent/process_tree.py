"""Every process of an attempt, found and ended.

Rule 1: nothing that an attempt started may live on, also not what double-forked, called setsid,
closed its pipes or ignores SIGTERM.
Rule 2: only the standard library, because the shim imports this file on every start.

On Linux the shim is a child subreaper: an orphan below it becomes its child, not init's, so a
walk over parent links from the shim finds all of them. Where there is no subreaper (macOS) the
walk sees parent links and process groups at the moment it looks; the shim looks regularly and
remembers, which finds all but a process that double-forks into a new session between two looks.
Last resort on Linux, when the shim itself was killed: every process of an attempt carries the
marker in its environment unless it cleared it, and is in its control group where there is one.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from muster.agent import cgroup

PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36
MARKER: Final = "MUSTER_ATTEMPT"
# The killed need a moment to be gone.
SWEEP_PAUSE_S: Final = 0.02
ON_LINUX: Final = sys.platform == "linux"


class Process(NamedTuple):
    """One row of the process table."""

    parent: int
    group: int


def prctl(option: int, value: int) -> bool:
    """Whether the kernel did it; never on a kernel other than Linux."""
    if not ON_LINUX:
        return False
    return bool(ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) == 0)


def bind(group: cgroup.Group | None) -> None:
    """For a child between fork and exec: what covers the sudden death of its parent."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if group is not None:
        # Whatever it starts is in the group as well.
        group.write("cgroup.procs", "0")


def procfs_table() -> dict[int, Process]:
    """All living processes; zombies are left out, they are dead already."""
    found = {}
    for pid, stat in procfs("stat"):
        # The command name is in brackets and may hold spaces and brackets itself.
        fields = stat[stat.rindex(b")") + 2 :].split()
        if fields[0] not in (b"Z", b"X"):
            found[pid] = Process(int(fields[1]), int(fields[2]))
    return found


def procfs(name: str) -> Iterator[tuple[int, bytes]]:
    """A file of every process, as far as it may be read."""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as file:
                content = file.read()
        except OSError:
            continue  # It ended between the listing and the look, or belongs to somebody else.
        yield int(pid), content


def ps_table() -> dict[int, Process]:
    """The same where there is no procfs."""
    said = subprocess.run(
        ["/bin/ps", "-axo", "pid=,ppid=,pgid=,stat="], capture_output=True, text=True, check=False
    ).stdout
    found = {}
    for line in said.splitlines():
        pid, parent, group, state = line.split(None, 3)
        if not state.startswith("Z"):
            found[int(pid)] = Process(int(parent), int(group))
    return found


def descendants(root: int, processes: dict[int, Process]) -> set[int]:
    """All processes below `root`, itself not included."""
    children: dict[int, list[int]] = {}
    for pid, process in processes.items():
        children.setdefault(process.parent, []).append(pid)
    found: set[int] = set()
    todo = [root]
    while todo:
        fresh = [pid for pid in children.get(todo.pop(), ()) if pid not in found and pid != root]
        found.update(fresh)
        todo += fresh
    return found


def cpu_ms(root: int) -> int | None:
    """The processors' time of `root` and all below it, of those that ended too; None where nobody
    can tell (Linux only). Who ended and was waited for counts with its parent.
    """
    if not ON_LINUX:
        return None
    processes, ticks = dict[int, Process](), dict[int, int]()
    for pid, stat in procfs("stat"):
        fields = stat[stat.rindex(b")") + 2 :].split()
        processes[pid] = Process(int(fields[1]), int(fields[2]))
        ticks[pid] = sum(map(int, fields[11:15]))
    if root not in ticks:
        return None
    own = {root, *descendants(root, processes)}
    return sum(ticks[pid] for pid in own) * 1000 // os.sysconf("SC_CLK_TCK")


def enclosing(pids: Iterable[int]) -> set[int]:
    """Of our own descendants those with which a sandbox falls: the first process of a namespace of
    processes, and whoever is between that and us (Linux).
    """
    wanted = set(pids)
    first = {pid for pid, status in procfs("status") if pid in wanted and _is_first(status)}
    found, processes = set(first), procfs_table()
    for pid in first:
        while pid in processes and (pid := processes[pid].parent) in wanted:
            found.add(pid)
    return found


def _is_first(status: bytes) -> bool:
    numbers = next((line for line in status.splitlines() if line.startswith(b"NSpid:")), b"")
    return len(numbers.split()) > 2 and numbers.split()[-1] == b"1"


class ProcessTree:
    """What the calling process has started, and what that has started, remembered between looks."""

    def __init__(self, subreaper: bool) -> None:
        self._subreaper = subreaper
        self.groups: set[int] = set()
        """Process groups that are ours: seen by a look, or from their start on."""

    def look(self) -> set[int]:
        """The process ids that live now."""
        processes = procfs_table() if ON_LINUX else ps_table()
        own = os.getpid()
        found = descendants(own, processes)
        if self._subreaper:
            return found
        self.groups |= {processes[pid].group for pid in found} - {os.getpgid(0)}
        found |= {pid for pid, process in processes.items() if process.group in self.groups}
        return found - {own}


def reap() -> tuple[dict[int, int], bool]:
    """Collect ended children: their exit codes, and whether any child lives on."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended, False
        if pid == 0:
            return ended, True
        ended[pid] = os.waitstatus_to_exitcode(status)


def send(pids: Iterable[int], signum: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, signum)
        except (ProcessLookupError, PermissionError):
            # Ended meanwhile, or it changed its user: such a one is counted as a survivor.
            continue


def marked(marker: str) -> set[int]:
    """Processes of this user whose environment carries the marker of one attempt (Linux)."""
    if not ON_LINUX:
        return set()
    wanted = f"{MARKER}={marker}".encode()
    found = {pid for pid, environ in procfs("environ") if wanted in environ.split(b"\0")}
    return found - {os.getpid()}


def sweep(marker: str, rounds_max: int = 100) -> set[int]:
    """Kill whatever belongs to the marker until nothing does; what is left after all rounds."""
    group = cgroup.find(marker)
    left: set[int] = set()
    for _ in range(rounds_max):
        left = marked(marker) | (group.members() if group else set())
        if not left:
            break
        if group:
            group.write("cgroup.kill", "1")
        send(left, signal.SIGKILL)
        time.sleep(SWEEP_PAUSE_S)
    if group:
        group.remove()
    return left
