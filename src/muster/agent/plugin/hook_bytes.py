"""What moves bytes between an agent program's hook and the daemon: a part of each hook's own file.

Nothing is imported that is no part of the interpreter but `_socket`: `json` alone would double what
a hook costs.
"""

import _socket
import posix
import sys
import time

SOCKET = "@SOCKET@"
AGENT = "@AGENT@"
# Twice as much, in hex, fits into a frame; of what a program says beyond it nothing is needed.
INPUT_BYTES_MAX = 96 * 1024
READ_BYTES_MAX = 64 * 1024 * 1024
ANSWER_BYTES_MAX = 64 * 1024


def read_input() -> bytes:
    """What the program says, or the beginning of it; all of it is taken, or it would wait."""
    said = b""
    for _ in range(READ_BYTES_MAX >> 16):
        came = posix.read(0, 1 << 16)
        if not came:
            break
        said = said + came if len(said) < INPUT_BYTES_MAX else said
    return said[:INPUT_BYTES_MAX]


def read_file(path: str, most: int) -> bytes:
    """The beginning of a small file; b"" where it cannot be read."""
    file = -1
    try:
        # A pipe that nobody writes to is an empty file.
        file = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK)
        return posix.read(file, most)
    except OSError:
        return b""
    finally:
        if file >= 0:
            posix.close(file)


def text(value: str) -> str:
    """A JSON text; what would have to be escaped in one is not told."""
    plain = value.isprintable() and '"' not in value and "\\" not in value
    return '"' + (value if plain else "") + '"'


def frame(verb: str, channel: int, args: str) -> bytes:
    """A call, as it goes onto the socket; the arguments in the order of their names."""
    raw = ('{"args":{' + args + '},"verb":"' + verb + '"}').encode()
    head = bytes((1, 6)) + channel.to_bytes(4, "big")
    return (len(head) + len(raw)).to_bytes(4, "big") + head + raw


def receive(daemon: _socket.socket, size: int, end_s: float) -> bytes:
    """So many bytes. Raises OSError: too late, or closed."""
    found = b""
    while len(found) < size:
        left_s = end_s - time.monotonic()  # noqa: TID251 - of 50 ms
        if left_s <= 0:
            raise OSError("too late")
        daemon.settimeout(left_s)
        came = daemon.recv(size - len(found))
        if not came:
            raise OSError("closed")
        found += came
    return found


def next_part(daemon: _socket.socket, end_s: float) -> tuple[bytes, bool]:
    """What the next frame holds of the answer to channel 1, and whether that is all of it.

    Raises OSError.
    """
    size = int.from_bytes(receive(daemon, 4, end_s), "big")
    if not 7 <= size <= ANSWER_BYTES_MAX:
        raise OSError("no frame of an answer")
    came = receive(daemon, size, end_s)
    if came[1] != 7 or came[2:6] != b"\0\0\0\1":
        return b"", False
    return came[7:], came[6:7] != b"+"


def finished(parts: bytes) -> tuple[str, bytes]:
    """The number of the answer, and what is to be printed. Raises OSError, ValueError."""
    value = parts.partition(b'"value":"')[2].partition(b'"')[0]
    number, colon, rest = value.partition(b":")
    if not colon:
        raise OSError("no answer")
    return number.decode(), bytes.fromhex(rest.decode())


def is_ours(daemon: _socket.socket) -> bool:
    """Whether this user's program listens there, as far as the kernel says it."""
    if sys.platform != "linux":
        return True
    told = daemon.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    return int.from_bytes(told[4:8], sys.byteorder) == posix.getuid()
