"""Listening sockets inside a sandbox's network, handed to the daemon that serves them outside.

Rule 1: the sockets are made in the namespace and used outside it: no process of ours and no file is
inside, and what is inside reaches nothing but them.
Rule 2: a process of its own enters the namespace, since there is no way back for it. It is made
before anything else, holds nothing, and ends with its parent's end of a pipe.
Rule 3: the user namespace to enter is the one that owns the network namespace, which the kernel
says. Where the process is now is another one: bubblewrap makes two, one after the other.
"""

import ctypes
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Sequence
from typing import Final

from muster.agent.sandbox.profile import PORTS_MAX
from muster.errors import Broken

_NS_GET_USERNS: Final = 0xB701
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
_BACKLOG: Final = 128
# The loopback comes up within a millisecond or two, once bubblewrap has its turn.
_UP_S_MAX: Final = 10.0
_LOOK_S: Final = 0.0003


class Listener:
    """The process that makes the sockets; it waits until it is told in whose namespace."""

    def __init__(self, ports: Sequence[int], to_daemon: int) -> None:
        if len(ports) > PORTS_MAX:
            raise Broken(f"{len(ports)} ports are more than the {PORTS_MAX} of a sandbox")
        told, self._tell = os.pipe()
        self._said, says = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._tell)
                os.close(self._said)
                os.write(says, _serve(told, ports, to_daemon).encode())
            finally:
                os._exit(0)
        os.close(told)
        os.close(says)

    def begin(self, pid: int) -> None:
        """Make them in the network of this process, and hand them over."""
        os.write(self._tell, b"%d\n" % pid)

    def confirm(self) -> None:
        """They are with the daemon. Raises: Broken."""
        said = b""
        while data := os.read(self._said, 4096):
            said += data
        if said != b"handed over":
            why = said.decode("utf-8", "replace") or "its process ended"
            raise Broken(f"no listener could be made in the sandbox's network: {why}")

    def close(self) -> None:
        """End the process, whatever it does; harmless when it has ended."""
        if self._pid:
            os.close(self._tell)
            os.close(self._said)
            os.waitpid(self._pid, 0)
            self._pid = 0


def _serve(told: int, ports: Sequence[int], to_daemon: int) -> str:
    """What there is to say to the parent at the end."""
    # What takes time is done while its parent prepares the rest.
    libc = ctypes.CDLL(None, use_errno=True)
    raw = os.read(told, 64)
    if not raw:
        return "it was not needed"
    try:
        _enter(libc, int(raw))
        sockets = [_listening(port) for port in ports]
        with socket.socket(fileno=to_daemon) as daemon:
            handles = [each.fileno() for each in sockets]
            socket.send_fds(daemon, [json.dumps(list(ports)).encode()], handles)
    except OSError as error:
        return str(error)
    return "handed over"


def _enter(libc: ctypes.CDLL, pid: int) -> None:
    network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    owner = fcntl.ioctl(network, _NS_GET_USERNS)
    for handle, kind, known in ((owner, _CLONE_NEWUSER, errno.EINVAL), (network, _CLONE_NEWNET, 0)):
        # The one that we are in already is refused as invalid.
        if libc.setns(handle, kind) != 0 and ctypes.get_errno() != known:
            number = ctypes.get_errno()
            raise OSError(number, f"its namespace cannot be entered: {os.strerror(number)}")


def _listening(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for _ in range(int(_UP_S_MAX / _LOOK_S)):
        try:
            made.bind(("127.0.0.1", port))
            break
        except OSError as error:
            # Nobody has said yet that the loopback is up.
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            time.sleep(_LOOK_S)
    made.listen(_BACKLOG)
    return made
