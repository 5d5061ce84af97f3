"""The hook that an agent program starts: it moves bytes between the program and the daemon.

`muster install` writes it out whole, with `hook_bytes` in place of what it imports of that, and the
words between `@` put in; it is started as `python3 -I -S`, at each use of a tool. The daemon is
given LIMIT_S in all; where it is dead, hangs or refuses, nothing is said, and nothing else is late.
"""

import _socket
import posix
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

LIMIT_S = 0.05
# What waits beside a session that rests, of a program that has no hook for that; "" for none.
WAITER = "@WAITER@"
# What fits into a pipe at once; the event is said before.
TOLD_BYTES_MAX = 32 * 1024
CONFIG_BYTES_MAX = 64 * 1024
UP_MAX = 24


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


def begin_waiter(said: bytes, parent: int) -> None:
    """Begin what waits, apart from this hook, which the program waits for. It is told whose child
    this is, and what runs there: it ends with that. Nobody waits beside a program that is gone.
    """
    runs = posix.readlink(f"/proc/{parent}/exe") if sys.platform == "linux" else ""
    if parent <= 1 or posix.getppid() != parent:
        return
    there, ours = posix.pipe()
    try:
        nothing = [
            (posix.POSIX_SPAWN_OPEN, each, "/dev/null", posix.O_WRONLY, 0) for each in (1, 2)
        ]
        posix.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", WAITER, str(parent), runs],
            posix.environ,
            file_actions=[(posix.POSIX_SPAWN_DUP2, there, 0), *nothing],
            setpgroup=0,
        )
        posix.write(ours, said[:TOLD_BYTES_MAX])
    finally:
        posix.close(there)
        posix.close(ours)


def main() -> None:
    """Tell the daemon what the program said, and print what it answers."""
    parent, said = posix.getppid(), read_input()
    # The agent of a task has its messages from its task.
    if b"MUSTER_CAPABILITY" in posix.environ:
        return
    end_s = time.monotonic() + LIMIT_S  # noqa: TID251 - of 50 ms
    top, git, head = project()
    told = ',"input":"' + said.hex() + '"'
    where = ',"git":' + text(git) + ',"head":' + text(head)
    daemon = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        daemon.settimeout(LIMIT_S)
        daemon.connect(SOCKET)
        if not is_ours(daemon):
            return
        who = '"agent":' + text(AGENT)
        # Whoever began this hook began the server of our tools as well: so both are one session.
        pid = ',"pid":' + str(parent)
        cloned = ',"origin":' + text(origin(git) if git else "")
        args = who + ',"confirms":true' + where + told + cloned + pid + ',"root":' + text(top)
        daemon.sendall(frame("hook", 1, args))
        parts, over = b"", False
        while not over and len(parts) < ANSWER_BYTES_MAX:
            part, over = next_part(daemon, end_s)
            parts += part
        number, answer = finished(parts)
        if answer:
            posix.write(1, answer)
            daemon.sendall(frame("hook.printed", 0, who + told + ',"number":' + text(number)))
    finally:
        daemon.close()
    rests = (b'"hook_event_name":"Stop"', b'"hook_event_name":"SessionStart"')
    if WAITER and any(each in said for each in rests):
        begin_waiter(said, parent)


try:  # noqa: SIM105 - contextlib is no part of the interpreter
    main()
except (OSError, ValueError):
    # Whatever it was: the program goes on as if there were no hook.
    pass
