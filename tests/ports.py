"""A port for a machine that a test stops and starts again.

Rules, since its daemon does not listen there all the time:
- never one of those that the system gives to whoever dials: while the machine is down, another one that
  dials it may be given its very port, and then it cannot listen there any more;
- never one that another test holds, in this process or in any other that runs tests at the same time.
  A port is held until the process ends, by a lock of one byte in a file that all of them share.
"""

import fcntl
import os
import random
import socket
import tempfile
from functools import cache
from pathlib import Path

# Where Linux, macOS and Windows begin to hand out ports, unless the system says otherwise.
_HANDED_OUT = 32_768
_WIDTH = 14_000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")

_held: set[int] = set()


@cache
def _ports() -> range:
    first = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else _HANDED_OUT
    return range(max(1024, first - _WIDTH), first) if first > 2048 else range(18_000, _HANDED_OUT)


@cache
def _locks() -> int:
    path = Path(tempfile.gettempdir()) / f"muster-test-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _hold(port: int) -> bool:
    if port in _held:
        return False
    try:
        fcntl.lockf(_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except BlockingIOError:
        # Another process that runs tests holds it.
        return False
    _held.add(port)
    return True


def free_port() -> int:
    """A port of loopback on which nobody listens now, and that no other test is given."""
    while True:
        port = random.SystemRandom().choice(_ports())
        if not _hold(port):
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                # Taken by something that is no test: another will do.
                continue
            return port
