"""The hook that waits, as a program starts it: before a real socket, and below real processes."""

import contextlib
import json
import os
import pty
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.agent.plugin.test_hook_script import SAID, START_S, frame, serve
from tests.promise import proves

from muster.agent.plugin import hook
from muster.channel.frame import Type, decode, encode, prefixed
from muster.log import canon
from muster.node.call.answers import Request

# A program that is no agent's: it begins the hook as Claude does, and lives until it is told.
PROGRAM = """
import os, subprocess, sys
pid = os.environ.get("ABOVE") or str(os.getpid())
hook = subprocess.Popen([sys.executable, "-I", "-S", os.environ["HOOK"]], stdin=subprocess.PIPE,
                        stderr=subprocess.PIPE, env={**os.environ, "CLAUDE_PID": pid})
hook.stdin.write(os.environ["SAID"].encode())
hook.stdin.close()
open(os.environ["STATE"], "w").write(str(hook.pid))
said = hook.stderr.read()
open(os.environ["STATE"] + ".over", "w").write(f"{hook.wait()} {said.decode()}")
"""
STREAM = ("-p", "--input-format", "stream-json")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sock"


def written(path: Path, agent: str = "opencode") -> Path:
    script = path.parent / "wait.py"
    text = hook.script(agent, str(path), hook.WAIT)
    assert "AWAY_MS = 5_000" in text
    script.write_text(text.replace("AWAY_MS = 5_000", "AWAY_MS = 20"))
    return script


def begin(path: Path, **env: str) -> "subprocess.Popen[bytes]":
    written(path)
    return begin_again(path, SAID, **env)


def begin_again(path: Path, said: bytes, *words: str, **env: str) -> "subprocess.Popen[bytes]":
    """What waits, by the file that is there."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", path.parent / "wait.py", *words], stdin=subprocess.PIPE, cwd=path.parent,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={"PATH": "/usr/bin", **env},
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(said)
    process.stdin.close()
    process.stdin = None
    return process


def over(process: "subprocess.Popen[bytes]") -> tuple[int, bytes, bytes]:
    out, err = process.communicate(timeout=START_S)
    return process.returncode, out, err


def until(what: Callable[[], object]) -> None:
    end = time.perf_counter() + START_S
    while not what():
        assert time.perf_counter() < end
        time.sleep(0.01)


def answer(there: socket.socket, value: str) -> None:
    raw = json.dumps({"ok": True, "value": value}, separators=(",", ":")).encode()
    there.sendall(prefixed(encode(Type.OFFER, 0, b"x")))
    there.sendall(prefixed(encode(Type.REPLY, 1, b"+" + raw[:20])))
    there.sendall(prefixed(encode(Type.REPLY, 1, b"." + raw[20:])))


def call(there: socket.socket) -> Request:
    return canon.decode_as(decode(frame(there)).payload, Request, "call", size_max=1 << 20)


@proves("hook.wakes", "hook.shown-is-proven")
def test_it_ends_with_two_and_the_text_when_the_daemon_has_one_and_says_that_it_printed_it(path):
    calls: list[Request] = []

    def wakes(there: socket.socket) -> None:
        calls.append(call(there))
        answer(there, "7:" + b"good news".hex())
        calls.append(call(there))

    thread = serve(path, wakes)
    assert over(begin(path)) == (2, b"", b"good news")
    thread.join(START_S)
    first, second = calls
    assert (first.verb, first.args["agent"]) == ("hook.wait", "opencode")
    assert bytes.fromhex(first.args["input"]) == SAID
    assert first.args["pid"] == os.getpid()
    assert (second.verb, second.args["number"]) == ("hook.printed", "7")


@proves("hook.wait-ends")
def test_it_goes_in_silence_when_nobody_need_wait_any_more(path):

    def let_go(there: socket.socket) -> None:
        call(there)
        answer(there, "0:")

    serve(path, let_go)
    assert over(begin(path)) == (0, b"", b"")


@proves("hook.wakes", "hook.wait-ends")
def test_a_daemon_that_is_away_or_says_nonsense_is_looked_for_again(path):
    process = begin(path)
    for nonsense in (b"", b"\xff" * 64, b"\0\0\0\7\1\7\0\0\0\1."):

        def says(there: socket.socket, nonsense: bytes = nonsense) -> None:
            call(there)
            there.sendall(nonsense)

        serve(path, says).join(START_S)
        path.unlink()
    assert process.poll() is None

    def wakes(there: socket.socket) -> None:
        call(there)
        answer(there, "1:" + b"here again".hex())
        call(there)

    serve(path, wakes)
    assert over(process) == (2, b"", b"here again")


@proves("hook.wait-ends")
def test_without_a_daemon_one_waits_for_each_session(path):
    first = begin(path)
    file = f"{path.parent / 'wait.py'}"
    inode = Path(file).stat().st_ino
    until(lambda: f":{inode} " in Path("/proc/locks").read_text())
    second = begin_again(path, SAID)
    assert over(second) == (0, b"", b"")
    assert first.poll() is None
    other = begin_again(path, SAID.replace(b'"session_id":"', b'"session_id":"ff'))
    until(lambda: Path("/proc/locks").read_text().count(f":{inode} ") == 2)

    def wakes(there: socket.socket) -> None:
        call(there)
        answer(there, "1:" + b"here again".hex())
        call(there)

    for _ in range(2):
        serve(path, wakes).join(START_S)
        path.unlink()
    assert over(first) == over(other) == (2, b"", b"here again")


@proves("hook.wait-ends")
def test_a_daemon_that_knows_no_such_wait_is_not_asked_again(path):

    def refuses(there: socket.socket) -> None:
        call(there)
        raw = b'.{"error":{"kind":"Malformed","text":"there is no verb hook.wait"},"ok":false}'
        there.sendall(prefixed(encode(Type.REPLY, 1, raw)))

    serve(path, refuses)
    assert over(begin(path)) == (0, b"", b"")


@proves("hook.wait-ends")
def test_what_was_taken_out_meanwhile_wakes_nobody(path):
    process = begin(path)

    def wakes(there: socket.socket) -> None:
        call(there)
        (path.parent / "wait.py").unlink()
        answer(there, "7:" + b"good news".hex())

    serve(path, wakes)
    assert over(process) == (0, b"", b"")


@proves("hook.wait-ends")
def test_without_a_daemon_it_is_gone_when_it_was_taken_out(path):
    process = begin(path)
    (path.parent / "wait.py").unlink()
    # Before it had read its own file there is nothing to wait with.
    assert over(process)[1] == b""


@proves("hook.wait-ends")
def test_in_an_attempt_it_asks_nothing_and_ends(path):
    asked: list[bytes] = []
    serve(path, lambda there: asked.append(there.recv(1)))
    assert over(begin(path, MUSTER_CAPABILITY="x")) == (0, b"", b"")
    assert asked == []


class Below:
    """A program with the hook below it, which asked the daemon, or ended at once."""

    def __init__(self, path: Path, *words: str, stdin: int, stdout: int = -1, **env: str) -> None:
        self.state = path.parent / "state"
        self.asked: list[Request] = []

        def hears(there: socket.socket) -> None:
            self.asked.append(call(there))
            there.recv(1)

        self.thread = serve(path, hears)
        said = {
            "HOOK": str(written(path, "claude")), "SAID": SAID.decode(), "STATE": str(self.state),
            "CLAUDE_CODE_ENTRYPOINT": "cli", "PATH": "/usr/bin", **env,
        }  # fmt: skip
        argv = [sys.executable, "-c", PROGRAM, *words]
        self.process = subprocess.Popen(
            argv, stdin=stdin, stdout=stdout, env=said, cwd=path.parent, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    @property
    def ended(self) -> str:
        """How the hook ended; "" while it waits."""
        over = Path(f"{self.state}.over")
        return over.read_text() if over.exists() else ""

    def waits(self) -> bool:
        """Whether it waits: it asked, or it ended."""
        until(lambda: self.asked or self.ended)
        return bool(self.asked)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(ValueError, OSError):
            pid = int(self.state.read_text())
            until(lambda: not Path(f"/proc/{pid}").exists() or _is_dead(pid))


def _is_dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is told by /proc who waits")


@proves("hook.wait-ends")
@pytest.mark.parametrize(
    ("words", "waits"),
    [((), True), (("fix it",), True), (("--resume", "x"), True), (("-p", "fix it"), False),
     (("--print",), False), (("-cp",), False)],
)  # fmt: skip
def test_at_a_terminal_it_waits_and_where_one_prompt_is_answered_it_holds_nothing_up(
    path, words, waits
):
    ours, theirs = pty.openpty()
    below = Below(path, *words, stdin=theirs, stdout=theirs)
    try:
        assert below.waits() == waits
        assert waits or below.ended.startswith("0 ")
    finally:
        below.end()
        os.close(ours)
        os.close(theirs)


@proves("hook.wait-ends")
@pytest.mark.parametrize("words", [(), ("-p",), STREAM[:2], ("-p", "x", "stream-json")])
def test_where_no_terminal_is_and_no_stream_it_holds_nothing_up(path, words):
    below = Below(path, *words, stdin=subprocess.PIPE)
    try:
        assert not below.waits()
        assert below.ended.startswith("0 ")
    finally:
        below.process.communicate()
        below.end()


@proves("hook.wait-ends")
@pytest.mark.parametrize("words", [STREAM, ("-p", "--input-format=stream-json")])
def test_a_stream_of_prompts_is_waited_beside_until_it_ends(path, words):
    below = Below(path, *words, stdin=subprocess.PIPE)
    try:
        assert below.waits()
        assert below.ended == ""
        assert below.process.stdin is not None
        below.process.stdin.close()
        until(lambda: below.ended)
        assert below.ended.startswith("0 ")
    finally:
        below.end()
        if below.process.stdout is not None:
            below.process.stdout.close()


@proves("hook.wait-ends")
def test_a_stream_whose_end_it_could_not_see_is_not_waited_beside(path):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        below = Below(path, *STREAM, stdin=theirs.fileno(), stdout=theirs.fileno())
        try:
            assert not below.waits()
        finally:
            below.end()


@proves("hook.wait-ends")
def test_beside_a_program_that_has_only_the_variables_of_one_above_it_it_does_not_wait(path):
    ours, theirs = pty.openpty()
    below = Below(path, stdin=theirs, stdout=theirs, ABOVE="1")
    try:
        assert not below.waits()
    finally:
        below.end()
        os.close(ours)
        os.close(theirs)


@proves("hook.wait-ends")
def test_when_its_program_dies_it_is_gone(path):
    ours, theirs = pty.openpty()
    below = Below(path, stdin=theirs, stdout=theirs)
    try:
        assert below.waits()
    finally:
        # It sees that the hook is gone, too.
        below.end()
        os.close(ours)
        os.close(theirs)
    below.thread.join(START_S)
    assert not below.thread.is_alive()


# The program that runs a session is what puts a prompt into its queue: here it is an interpreter.
QUEUE = "import json, sys; open('queued', 'w').write(json.dumps(sys.argv[1:]))"
THREAD = "01a21d39-b975-7e42-ae60-a662cea65705"


def codex(path: Path, own: str, *words: str) -> bytes:
    """What the hook of Codex begins, which was told of this session; how it ended. `words` are the
    number of that Codex and what runs there, or it is this program.
    """
    words = words or (str(os.getpid()),)
    (path.parent / "queue").write_text(QUEUE)
    script = written(path, "codex")
    said = json.dumps({"session_id": own, "hook_event_name": "Stop"}, separators=(",", ":"))
    done = subprocess.run(
        [sys.executable, "-I", "-S", script, *words], input=said.encode(),
        capture_output=True, cwd=path.parent, timeout=START_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    return done.stdout + done.stderr


@proves("hook.wakes")
@pytest.mark.parametrize("own", [THREAD, "--resume", "x y"])
def test_codex_is_woken_by_a_prompt_in_its_queue_and_by_a_session_id_alone(path, own):

    def wakes(there: socket.socket) -> None:
        call(there)
        answer(there, "0:" + hook.NOTICE.encode().hex())

    serve(path, wakes)
    assert codex(path, own) == b""
    queued = path.parent / "queued"
    assert queued.exists() == (own == THREAD)
    if own == THREAD:
        words = json.loads(queued.read_text())
        assert words == ["--thread", THREAD, "--message", hook.NOTICE]


@proves("hook.wakes")
def test_a_codex_that_was_updated_while_it_runs_is_woken(path):
    program = path.parent / "codex"
    shutil.copy(Path(sys.executable).resolve(), program)
    with subprocess.Popen([program, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE) as runs:
        until(lambda: str(program) in str(Path(f"/proc/{runs.pid}/exe").readlink()))
        program.unlink()
        assert "deleted" in str(Path(f"/proc/{runs.pid}/exe").readlink())

        def wakes(there: socket.socket) -> None:
            call(there)
            answer(there, "0:" + hook.NOTICE.encode().hex())

        serve(path, wakes)
        assert codex(path, THREAD, str(runs.pid)) == b""
        assert (path.parent / "queued").exists()
        runs.communicate(b"\n")


@proves("hook.wait-ends")
def test_beside_what_is_no_codex_any_more_nobody_waits(path):
    asked: list[bytes] = []
    serve(path, lambda there: asked.append(there.recv(1)))
    assert codex(path, THREAD, str(os.getpid()), "/usr/bin/codex") == b""
    assert codex(path, THREAD, "1") == b""
    assert asked == []


@proves("hook.wait-ends")
def test_a_hook_whose_program_died_begins_nothing_that_waits(path):
    waiter, script = path.parent / "waits.py", path.parent / "hook.py"
    waiter.write_text("open('began', 'w')")
    script.write_text(hook.script("codex", str(path), waiter=str(waiter)))
    said = json.dumps({"session_id": THREAD, "hook_event_name": "Stop"}, separators=(",", ":"))
    above = (
        "import subprocess, sys, os\n"
        "hook = subprocess.Popen([sys.executable, '-I', '-S', 'hook.py'], stdin=subprocess.PIPE)\n"
        "hook.stdin.write(os.environ['SAID'].encode()); hook.stdin.close(); sys.stdin.read()\n"
    )
    begun, done = threading.Event(), threading.Event()

    def hears(there: socket.socket) -> None:
        call(there)
        assert begun.wait(START_S)
        program.kill()
        program.wait()
        answer(there, "0:")
        # Its end is seen when all that it would do is done.
        there.recv(1)
        done.set()

    serve(path, hears)
    program = subprocess.Popen(
        [sys.executable, "-c", above], stdin=subprocess.PIPE, cwd=path.parent,
        env={"SAID": said, "PATH": "/usr/bin"},
    )  # fmt: skip
    begun.set()
    assert done.wait(START_S)
    program.communicate()
    time.sleep(0.2)
    assert not (path.parent / "began").exists()


@proves("hook.wait-ends")
def test_beside_codex_it_is_gone_when_that_is(path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as program:
        heard = threading.Event()

        def hears(there: socket.socket) -> None:
            call(there)
            heard.set()
            there.recv(1)

        serve(path, hears)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", written(path, "codex"), str(program.pid)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(SAID)
        process.stdin.close()
        process.stdin = None
        assert heard.wait(START_S)
        assert process.poll() is None
        program.communicate(b"\n")
    assert over(process) == (0, b"", b"")


@proves("hook.wait-ends", "hook.delays-nothing")
@pytest.mark.parametrize("event", ["Stop", "SessionStart", "PostToolUse"])
def test_the_hook_begins_what_waits_when_its_session_rests_and_is_not_held_up_by_it(path, event):
    waiter, script = path.parent / "waits.py", path.parent / "hook.py"
    waiter.write_text(
        "import sys; said = sys.stdin.read(); out = open('began.new', 'w')\n"
        "out.write(sys.argv[1] + ' ' + said); out.close()\n"
        "import os, time; os.rename('began.new', 'began')\n"
        "end = time.monotonic() + 60\n"
        "while not os.path.exists('over') and time.monotonic() < end: time.sleep(0.01)\n"
    )
    script.write_text(hook.script("codex", str(path), waiter=str(waiter)))
    said = json.dumps({"session_id": THREAD, "hook_event_name": event}, separators=(",", ":"))
    serve(path, lambda there: (call(there), answer(there, "0:")))
    done = subprocess.run(
        [sys.executable, "-I", "-S", script], input=said.encode(), capture_output=True,
        cwd=path.parent, timeout=START_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    began = path.parent / "began"
    if event == "PostToolUse":
        assert not began.exists()
        return
    until(began.exists)
    assert began.read_text() == f"{os.getpid()} {said}"
    (path.parent / "over").touch()
