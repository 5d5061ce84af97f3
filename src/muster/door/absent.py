"""What answers where the packages of the door are not installed: one sentence, for a while.

Rule 1: the standard library alone. Whoever knocks hears what is missing, and not silence.
Rule 2: it ends with its daemon, however that ends, and after a while in any case: the packages may
be there by then.
"""

import contextlib
import os
import select
import socket
import time
from typing import Final

# The exit code that says so to the daemon: EX_UNAVAILABLE of sysexits.h.
MISSING: Final = 69
# Whoever is told tries again a few times; then the daemon waits for the next knock.
ANSWERING_S: Final = 5.0
ANSWERING_S_MAX: Final = 60.0
_ASKING_S_MAX: Final = 1.0
_REQUEST_BYTES_MAX: Final = 64 * 1024


def refuse(listening: socket.socket, life: int, sentence: str, for_s: float = ANSWERING_S) -> None:
    """Answer every request with the sentence, until nobody came for so many seconds.

    `life` is a pipe of the daemon, over which it says nothing, and which ends with it.
    """
    body = f"{sentence}\n".encode()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    end = time.perf_counter() + ANSWERING_S_MAX
    while time.perf_counter() < end:
        there = select.select([listening.fileno(), life], [], [], for_s)[0]
        if not there or (life in there and not os.read(life, 4096)):
            return
        # Whoever knocked is gone; the next one is heard in the next round.
        with contextlib.suppress(OSError):
            connected, _ = listening.accept()
            with connected:
                _heard(connected)
                connected.sendall(head.encode() + body)


def _heard(connected: socket.socket) -> None:
    """Read the request: an answer over unread bytes may be lost with the connection."""
    connected.settimeout(_ASKING_S_MAX)
    end, room, seen = time.perf_counter() + _ASKING_S_MAX, _REQUEST_BYTES_MAX, b""
    while b"\r\n\r\n" not in seen and room > 0 and time.perf_counter() < end:
        piece = connected.recv(min(room, 4096))
        if not piece:
            return
        seen, room = (seen + piece)[-4096:], room - len(piece)
