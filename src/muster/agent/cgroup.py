"""A control group per attempt, where the machine lets us make one (cgroup v2, writable).

Rule 1: it is an addition: everything works without it, and every step may fail quietly.
Rule 2: only the standard library, because the shim imports this file on every start.

It gives two things that a walk over parent links cannot: the kernel kills a whole group at once,
however fast it forks, and the daemon can end an attempt whose shim was killed although its
processes left their parent and cleared their environment. The group lies below the group that
the daemon and the shim share, so both find it by the marker alone.
"""

import contextlib
import os
from typing import Final, NamedTuple

PREFIX: Final = "muster-"
# Of ours in the group of an attempt: bubblewrap, and the driver that talks to the program inside.
_OF_OURS: Final = 16


class Group(NamedTuple):
    """A control group of one attempt; its folder may be gone already."""

    path: str

    def members(self) -> set[int]:
        try:
            with open(f"{self.path}/cgroup.procs", encoding="ascii") as file:
                return {int(line) for line in file}
        except OSError:
            return set()

    def remove(self) -> None:
        # Rule 1: the kernel keeps a group in which something still dies, and `make` may find it.
        with contextlib.suppress(OSError):
            os.rmdir(self.path)

    def limit(self, processes: int, memory_bytes: int) -> None:
        """Bound all of it together, where this machine's groups can; 0 is no bound."""
        if processes:
            self.write("pids.max", str(processes + _OF_OURS))
        if memory_bytes:
            self.write("memory.max", str(memory_bytes))

    def write(self, name: str, text: str) -> None:
        """Tell the kernel, where it knows this file: older ones have no `cgroup.kill`."""
        # Rule 1: what bounds and ends an attempt besides its group is enough.
        with contextlib.suppress(OSError):
            fd = os.open(f"{self.path}/{name}", os.O_WRONLY)
            try:
                os.write(fd, text.encode())
            finally:
                os.close(fd)


def find(marker: str) -> Group | None:
    """Where the group of an attempt is, or would be; None without cgroup v2."""
    parent = own_folder()
    return Group(f"{parent}/{PREFIX}{marker}") if parent else None


def make(marker: str) -> Group | None:
    """A new group for an attempt; None where we may not make one."""
    group = find(marker)
    if group is None or not marker:
        return None
    try:
        os.mkdir(group.path)
    except OSError:
        return None
    return group


def own_folder() -> str:
    """The folder of this process's own group; empty without cgroup v2."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            own = next((line[3:].strip() for line in file if line.startswith("0::")), "")
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            mounts = [line.split() for line in file if " - cgroup2 " in line]
    except OSError:
        return ""
    return f"{mounts[0][4]}{own}".rstrip("/") if own and mounts else ""
