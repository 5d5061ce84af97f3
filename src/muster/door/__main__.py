"""The door as a process: `python -m muster.door SOCKET FD PORT [IDLE_S]`, started by the daemon.

SOCKET is where the daemon listens, FD the listening socket that it passed on, PORT its port. It
says `ready` on its standard output, and ends with its standard input.
"""

import importlib.util
import socket
import sys
from typing import Final

from muster.door import absent
from muster.limits import DOOR_IDLE_S

NEEDED: Final = ("uvicorn", "starlette", "mcp")


def main(argv: list[str]) -> int:
    """The exit code: 0 where nobody needs it any more, 69 where its packages are none to use."""
    daemon, number, port, *idle = argv
    with socket.socket(fileno=int(number)) as listening:
        missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            return _refuse(listening, f"{', '.join(missing)}, which is not installed")
        try:
            from muster.door import server  # noqa: PLC0415 - it may not be there
        except ImportError as error:
            return _refuse(listening, f"packages that cannot be loaded ({error})")
        idle_s = float(idle[0]) if idle else DOOR_IDLE_S
        if why := server.serve(listening, daemon, int(port), idle_s):
            sys.stderr.write(f"{why}\n")
            return absent.MISSING
    return 0


def _refuse(listening: socket.socket, needs: str) -> int:
    sentence = (
        f"the door needs {needs}: `pip install 'muster-fleet[doors]'` where Muster is installed"
    )
    sys.stderr.write(f"{sentence}\n")
    absent.refuse(listening, sys.stdin.fileno(), sentence)
    return absent.MISSING


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
