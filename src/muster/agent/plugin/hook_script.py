"""The hook that an agent program starts: it moves bytes between the program and the daemon.

`muster install` writes it out whole, with the words between `@` put in; it is started as
`python3 -I -S`. Nothing is imported that is no part of the interpreter but `_socket`: a hook runs
at each use of a tool, and `json` alone would double what it costs. The daemon is given LIMIT_S in
all; where it is dead, hangs or refuses, nothing is said, and nothing else is late.
"""

import _socket
import posix
import sys
import time

SOCKET = "@SOCKET@"
AGENT = "@AGENT@"
LIMIT_S = 0.05
# Twice as much, in hex, fits into a frame; of what a program says beyond it nothing is needed.
INPUT_BYTES_MAX = 96 * 1024
READ_BYTES_MAX = 64 * 1024 * 1024
ANSWER_BYTES_MAX = 64 * 1024
CONFIG_BYTES_MAX = 64 * 1024
UP_MAX = 24


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


def project() -> tuple[str, str, str]:
    """The top of the checkout that the program works in, its git folder, and its HEAD."""
    top = posix.getcwd()
    for _ in range(UP_MAX):
        git = top.rstrip("/") + "/.git"
        head = read_file(git + "/HEAD", 400)
        if head:
            return top, git, head.decode("utf-8", "replace").strip()
        link = read_file(git, 4096)
        if link.startswith(b"gitdir: "):
            own = link[8:].strip().decode("utf-8", "surrogateescape")
            own = own if own.startswith("/") else top + "/" + own
            head = read_file(own + "/HEAD", 400)
            return top, own.partition("/worktrees/")[0], head.decode("utf-8", "replace").strip()
        if top == "/":
            break
        top = top.rpartition("/")[0] or "/"
    return "", "", ""


def origin(git: str) -> str:
    """Where the checkout was cloned from; who logs in there, and how, is left out."""
    section = ""
    for line in read_file(git + "/config", CONFIG_BYTES_MAX).decode("utf-8", "replace").split("\n"):
        name, _, value = line.partition("=")
        if name.strip().startswith("["):
            section = line.strip()
        elif section == '[remote "origin"]' and name.strip().lower() == "url":
            scheme, mark, rest = value.strip().partition("://")
            if not mark:
                scheme, rest = "", scheme
            host, end, place = rest.partition("/" if mark else ":")
            return scheme + mark + host.rpartition("@")[2] + end + place
    return ""


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


def answered(daemon: _socket.socket, end_s: float) -> tuple[str, bytes]:
    """The number of the answer, and what is to be printed. Raises OSError, ValueError."""
    parts = b""
    while len(parts) < ANSWER_BYTES_MAX:
        size = int.from_bytes(receive(daemon, 4, end_s), "big")
        if not 7 <= size <= ANSWER_BYTES_MAX:
            raise OSError("no frame of an answer")
        came = receive(daemon, size, end_s)
        if came[1] != 7 or came[2:6] != b"\0\0\0\1":
            continue
        parts += came[7:]
        if came[6:7] != b"+":
            break
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


def main() -> None:
    """Tell the daemon what the program said, and print what it answers."""
    said = b""
    for _ in range(READ_BYTES_MAX >> 16):
        came = posix.read(0, 1 << 16)
        if not came:
            break
        # All of it is taken, or the program would wait.
        said = said + came if len(said) < INPUT_BYTES_MAX else said
    # The agent of a task has its messages from its task.
    if b"MUSTER_CAPABILITY" in posix.environ:
        return
    end_s = time.monotonic() + LIMIT_S  # noqa: TID251 - of 50 ms
    top, git, head = project()
    told = ',"input":"' + said[:INPUT_BYTES_MAX].hex() + '"'
    where = ',"git":' + text(git) + ',"head":' + text(head)
    daemon = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        daemon.settimeout(LIMIT_S)
        daemon.connect(SOCKET)
        if not is_ours(daemon):
            return
        who = '"agent":' + text(AGENT)
        # Whoever began this hook began the server of our tools as well: so both are one session.
        pid = ',"pid":' + str(posix.getppid())
        cloned = ',"origin":' + text(origin(git) if git else "")
        args = who + ',"confirms":true' + where + told + cloned + pid + ',"root":' + text(top)
        daemon.sendall(frame("hook", 1, args))
        number, answer = answered(daemon, end_s)
        if answer:
            posix.write(1, answer)
            daemon.sendall(frame("hook.printed", 0, who + told + ',"number":' + text(number)))
    finally:
        daemon.close()


try:  # noqa: SIM105 - contextlib is no part of the interpreter
    main()
except (OSError, ValueError):
    # Whatever it was: the program goes on as if there were no hook.
    pass
