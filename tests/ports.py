"""A port for a machine that a test stops and starts again.

Rule: never one of those that the system gives to whoever dials. While the machine is down, another one
that dials it may be given its very port, and then it cannot listen there any more.
"""

import random
import socket

# Below where Linux (32768) and macOS (49152) begin to hand out ports.
_FIRST, _LAST = 18_000, 31_999


def free_port() -> int:
    """A port of loopback on which nobody listens now."""
    while True:
        port = random.SystemRandom().randint(_FIRST, _LAST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                # Taken: another will do.
                continue
            return port
