"""The hook that waits while a session rests, and wakes it: what it says as it ends is read then.

`muster install` writes it out as it does the other hook. The program starts it in its background
when a session begins and at the end of each turn, or its hook does. It ends with 2, and the text on
its stderr, when there is something to read, and with 0 when there is nobody to wait for any more:
the session goes on or is over, its program is gone, or what wrote this file took it out again. A
daemon that is away is looked for now and then, by one for each session.
"""

import _socket
import posix
import select
import sys
import time

from muster.agent.plugin.hook_bytes import (
    AGENT,
    ANSWER_BYTES_MAX,
    SOCKET,
    finished,
    frame,
    is_ours,
    next_part,
    read_file,
    read_input,
    text,
)

LIMIT_S = 1.0
# Until the daemon is looked for again, and until the parent is: its pipe says at once that it died.
AWAY_MS = 5_000
PARENT_MS = 30_000
QUEUE_MS = 20_000
WORDS_BYTES_MAX = 1 << 20
# As many as a place in a file has numbers, nearly.
PLACES = (1 << 61) - 1
REFUSED = b'{"error":{"kind":"Malformed"'
WOKEN = 2


def watched(parent: int) -> "dict[int, int] | None":
    """What ends when the session does; None where to wait would hold up the program.

    RAN with Claude Code 2.1.332: what answers one prompt (`-p`) waits for its hooks, also for those
    in its background; and what reads prompts from a stream waits for them when that has ended. So
    it has to be a terminal, or a stream whose end is seen from here, which a socket's is not.
    """
    if AGENT == "codex":
        # Its hook began this one, and is over.
        if len(sys.argv) < 2 or not hasattr(posix, "pidfd_open"):
            return None
        ends = {posix.pidfd_open(parent): select.POLLIN}
        # It may have died before, and its number be another one's.
        same = sys.argv[2:3] in ([], [posix.readlink(f"/proc/{parent}/exe")])
        return ends if same and parent > 1 else None
    if AGENT != "claude":
        return {2: 0}
    # Older ones know no hook that wakes, and would wait for it; a program below another one has its
    # variables, but not its number.
    if posix.environ.get(b"CLAUDE_PID") != str(parent).encode():
        return None
    words = read_file(f"/proc/{parent}/cmdline", WORDS_BYTES_MAX).split(b"\0")[1:]
    if not words or sum(map(len, words)) > WORDS_BYTES_MAX // 2:
        return None
    there = [posix.readlink(f"/proc/{parent}/fd/{number}") for number in (0, 1)]
    streams = b"stream-json" in words[words.index(b"--input-format") :][1:2] if (
        b"--input-format" in words
    ) else b"--input-format=stream-json" in words  # fmt: skip
    if streams and there[0].startswith("pipe:"):
        return {2: 0, posix.open(f"/proc/{parent}/fd/0", posix.O_RDONLY | posix.O_NONBLOCK): 0}
    prints = any(w == b"--print" or (w[:1] == b"-" != w[1:2] and b"p" in w) for w in words)
    at_terminal = all(each.startswith(("/dev/pts/", "/dev/tty")) for each in there)
    attended = posix.environ.get(b"CLAUDE_CODE_ENTRYPOINT") == b"cli"
    return {2: 0} if at_terminal and attended and not prints and not streams else None


def is_over(ends: "dict[int, int]", parent: int, daemon: "_socket.socket | None", ms: int) -> bool:
    """Whether there is nobody to wait for; it returns when that is so, when the daemon says
    something, or, without a daemon, after this time.
    """
    poll = select.poll()
    for each, what in ends.items():
        poll.register(each, what)
    if daemon is not None:
        poll.register(daemon.fileno(), select.POLLIN)
    while True:
        found = [each for each, _ in poll.poll(ms)]
        orphan = AGENT != "codex" and posix.getppid() != parent
        if orphan or any(each in ends for each in found):
            return True
        if found or daemon is None:
            return False


def is_there() -> bool:
    """Whether this file was not taken out; to open it would let go of what `is_alone` holds."""
    try:
        return posix.stat(sys.argv[0]).st_size > 0
    except OSError:
        return False


def is_alone(said: bytes) -> bool:
    """Whether no other one waits for this session without a daemon, which would end all but one.

    It is so for as long as this one runs: that holds a place in its own file, by its session.
    """
    own = said.partition(b'"session_id":')[2].partition(b",")[0].strip(b' "}')
    file = posix.open(sys.argv[0], posix.O_RDWR)
    try:
        posix.lseek(file, int.from_bytes(own, "big") % PLACES, 0)
        posix.lockf(file, posix.F_TLOCK, 1)
    except OSError:
        return False
    return True


def queue(said: bytes, notice: str, parent: int) -> None:
    """Put it into the queue of Codex's session, by the very program that runs it."""
    own = said.partition(b'"session_id":"')[2].partition(b'"')[0].decode()
    if not own or own.strip("0123456789abcdef-"):
        # No session of Codex is called so.
        return
    # By this name it is found also where an update took its file away.
    program = f"/proc/{parent}/exe"
    named = posix.readlink(program).removesuffix(" (deleted)")
    words = [named, "queue", "--thread", own, "--message", notice]
    child = posix.posix_spawn(program, words, posix.environ)
    poll = select.poll()
    poll.register(posix.pidfd_open(child), select.POLLIN)
    if not poll.poll(QUEUE_MS):
        posix.kill(child, 9)
    posix.waitpid(child, 0)


def is_woken(said: bytes, ends: "dict[int, int]", parent: int) -> bool:
    """Whether there was something to read, which is printed then. Raises OSError, ValueError: the
    daemon is away.
    """
    told = '"agent":' + text(AGENT) + ',"input":"' + said.hex() + '"'
    daemon = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        daemon.settimeout(LIMIT_S)
        daemon.connect(SOCKET)
        if not is_ours(daemon):
            return False
        daemon.sendall(frame("hook.wait", 1, told + ',"pid":' + str(parent)))
        parts, over = b"", False
        while not over and len(parts) < ANSWER_BYTES_MAX:
            if is_over(ends, parent, daemon, PARENT_MS):
                return False
            part, over = next_part(daemon, time.monotonic() + LIMIT_S)  # noqa: TID251 - of a frame
            parts += part
        if REFUSED in parts:
            # It will say so each time, as one does that knows nothing of this.
            return False
        number, answer = finished(parts)
        # Of one that was taken out meanwhile nobody is to hear any more.
        if not answer or not is_there():
            return False
        if AGENT == "codex":
            queue(said, answer.decode(), parent)
            return False
        posix.write(2, answer)
        daemon.sendall(frame("hook.printed", 0, told + ',"number":' + text(number)))
        return True
    finally:
        daemon.close()


def main() -> bool:
    """Wait; whether the session is woken."""
    said, parent = read_input(), int(sys.argv[1]) if len(sys.argv) > 1 else posix.getppid()
    if b"MUSTER_CAPABILITY" in posix.environ:
        return False
    ends = watched(parent)
    if ends is None:
        return False
    alone = False
    while True:
        try:
            return is_woken(said, ends, parent)
        except (OSError, ValueError):
            alone = alone or (is_there() and is_alone(said))
            if not alone or not is_there() or is_over(ends, parent, None, AWAY_MS):
                return False


try:
    woken = main()
except (OSError, ValueError):
    # Whatever it was: the program goes on as if there were no hook.
    woken = False
if woken:
    sys.exit(WOKEN)
