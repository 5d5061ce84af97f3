"""What one attempt's sandbox is to be, as the order says it.

The daemon builds it as plain JSON (`AttemptOrder.sandbox`); {} means that nothing is enclosed.
"""

import sys
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from muster.errors import Broken

# Where a program inside has its home, whoever it is outside.
HOME: Final = "/home/agent"
# As whom a root daemon's attempts run. Nobody else does: Debian reserves 65000 to 65533, systemd
# gives none above 65519, and 65534 is `nobody`, as whom services and network file systems run.
# All attempts share it; their processes and folders do not see each other.
USER_OF_ROOTS: Final = 65522

# Chosen arbitrarily: one for each service of the daemon's that an attempt has.
PORTS_MAX: Final = 64


class Profile(NamedTuple):
    """One sandbox; every path but the keys of `placed` is one of the host."""

    cwd: str
    """The work folder: writable, at the same place inside."""
    program: str
    """bubblewrap."""
    home: str
    """Writable, at HOME inside."""
    user: int = 0
    """As whom the program runs where the daemon is root; 0 where the daemon is a user already."""
    readable: tuple[str, ...] = ()
    """At the same place inside, where they are there."""
    writable: tuple[str, ...] = ()
    """At the same place inside."""
    placed: Mapping[str, str] = {}
    """By its place inside: a file as it is at the start, or a socket."""
    free: frozenset[str] = frozenset()
    """Protected paths (protected.py) that its order sets free."""
    ports: tuple[int, ...] = ()
    """Of the loopback inside, on which the daemon serves."""
    memory_bytes: int = 0
    """Of address space for each process; 0 is no bound, here and below."""
    processes: int = 0
    file_bytes: int = 0
    notes: str = ""
    """Of the work folder's untouched files (muster.git.baseline), where it has any."""

    @property
    def drops(self) -> bool:
        """Whether the program runs as another user than the daemon."""
        return bool(self.user)


def profile_of(cwd: str, sandbox: Mapping[str, Any]) -> Profile:
    """The sandbox of an order. Raises: Broken where this machine can have none such."""
    if sys.platform != "linux":
        raise Broken("attempts are enclosed on Linux only; give the task to such a machine")
    return Profile(
        cwd=cwd,
        program=str(sandbox["program"]),
        home=str(sandbox["home"]),
        user=int(sandbox.get("user", 0)),
        readable=tuple(sandbox.get("readable", ())),
        writable=tuple(sandbox.get("writable", ())),
        placed=dict(sandbox.get("placed", {})),
        free=frozenset(sandbox.get("free", ())),
        ports=tuple(map(int, sandbox.get("ports", ()))),
        memory_bytes=int(sandbox.get("memory_bytes", 0)),
        processes=int(sandbox.get("processes", 0)),
        file_bytes=int(sandbox.get("file_bytes", 0)),
        notes=str(sandbox.get("notes", "")),
    )
