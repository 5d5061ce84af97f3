"""The hook as a program starts it, before a real socket: dead, hanging, odd and well."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.promise import proves

from muster.agent.plugin import hook
from muster.agent.plugin.place import Place
from muster.channel.frame import Type, decode, encode, prefixed
from muster.log import canon
from muster.node.call.answers import Request

SAID = b'{"session_id":"1","cwd":"/","hook_event_name":"Stop"}'
# The interpreter alone may need that long on a busy machine; the hook adds its own bound.
START_S = 20.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sock"


def run(path: Path, said: bytes = SAID, **env: str) -> subprocess.CompletedProcess[bytes]:
    script = path.parent / "hook.py"
    script.write_text(hook.script("claude", str(path)))
    argv = [sys.executable, "-I", "-S", str(script)]
    return subprocess.run(
        argv, input=said, capture_output=True, cwd=path.parent, timeout=START_S,
        env={"PATH": "/usr/bin", **env}, check=False,
    )  # fmt: skip


def serve(path: Path, answer: Callable[[socket.socket], None]) -> threading.Thread:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()

    def one() -> None:
        there, _ = listening.accept()
        # A hook that is out of patience hangs up before its answer comes.
        with there, listening, contextlib.suppress(ConnectionError):
            answer(there)

    thread = threading.Thread(target=one, daemon=True)
    thread.start()
    return thread


def frame(there: socket.socket) -> bytes:
    def exactly(size: int) -> bytes:
        found = b""
        while len(found) < size:
            came = there.recv(size - len(found))
            assert came
            found += came
        return found

    return exactly(int.from_bytes(exactly(4), "big"))


@proves("hook.delays-nothing", "hook.shown-is-proven")
def test_it_tells_what_it_was_told_prints_the_answer_and_says_that_it_did(path):
    calls: list[Request] = []
    (path.parent / ".git").mkdir()
    (path.parent / ".git" / "HEAD").write_text("ref: refs/heads/main\n")

    def answer(there: socket.socket) -> None:
        called = decode(frame(there))
        calls.append(canon.decode_as(called.payload, Request, "call", size_max=1 << 20))
        there.sendall(prefixed(encode(Type.OFFER, 0, b"x")))
        raw = b'{"ok":true,"value":"7:' + b"good news".hex().encode() + b'"}'
        there.sendall(prefixed(encode(Type.REPLY, 1, b"+" + raw[:20])))
        there.sendall(prefixed(encode(Type.REPLY, 1, b"." + raw[20:])))
        calls.append(
            canon.decode_as(decode(frame(there)).payload, Request, "call", size_max=1 << 20)
        )

    thread = serve(path, answer)
    done = run(path, SAID + b" " * 300_000)
    thread.join(START_S)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"good news", b"")
    first, second = calls
    assert bytes.fromhex(first.args["input"]).startswith(SAID)
    assert (first.verb, first.args["agent"], first.args["confirms"]) == ("hook", "claude", True)
    assert first.args["root"] == str(path.parent)
    assert first.args["head"] == "ref: refs/heads/main"
    assert (second.verb, second.args["number"]) == ("hook.printed", "7")


@proves("hook.collisions-across-machines", "hook.delays-nothing")
@pytest.mark.parametrize(
    ("config", "told"),
    [
        ('[core]\n\turl = no\n[remote "origin"]\n\tfetch = +refs/*\n\tURL = git@example.com:a/b.git\n',
         "example.com:a/b.git"),
        ('[remote "origin"]\nurl=https://alice:s3cret@example.com/a@b\n', "https://example.com/a@b"),
        ('[remote "origin"]\nurl = /srv/shop.git', "/srv/shop.git"),
        ('[remote "origin"]\nurl = "https://example.com/\\"a"', ""),
        ('[remote "other"]\nurl = https://example.com/a', ""),
        ("url\n=\x00\xff[", ""),
        (None, ""),
        ("pipe", ""),
    ],
)  # fmt: skip
def test_it_says_where_the_checkout_was_cloned_from_and_no_password(path, config, told):
    git = path.parent / ".git"
    git.mkdir()
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    if config == "pipe":
        os.mkfifo(git / "config")
    elif config is not None:
        (git / "config").write_text(config, encoding="latin-1")
    raw: list[bytes] = []
    thread = serve(path, lambda there: raw.append(decode(frame(there)).payload))
    assert run(path).returncode == 0
    thread.join(START_S)
    call = canon.decode_as(raw[0], Request, "call", size_max=1 << 20)
    assert call.args["origin"] == told
    assert b"s3cret" not in raw[0]


@proves("hook.delays-nothing")
def test_without_a_daemon_it_says_nothing(path):
    done = run(path)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    path.write_text("no socket")
    assert run(path).returncode == 0


@proves("hook.delays-nothing")
@pytest.mark.parametrize(
    "answer",
    [b"", b"\xff" * 64, b"\0\0\0\7\1\7\0\0\0\1.", prefixed(encode(Type.REPLY, 1, b".{}")),
     prefixed(encode(Type.REPLY, 1, b'.{"ok":true,"value":"1:zz"}'))],
)  # fmt: skip
def test_a_daemon_that_says_nonsense_is_as_none(path, answer):

    def say(there: socket.socket) -> None:
        frame(there)
        there.sendall(answer)

    serve(path, say)
    done = run(path)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@proves("hook.delays-nothing")
def test_a_daemon_that_hangs_costs_fifty_milliseconds(path):
    """Seen from the daemon: how long the hook stays; the interpreter's start is not in it."""
    stayed: list[float] = []

    def hang(there: socket.socket) -> None:
        frame(there)
        began = time.perf_counter()
        there.recv(1)
        stayed.append(time.perf_counter() - began)

    thread = serve(path, hang)
    done = run(path)
    thread.join(START_S)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    # Without the bound it would stay until the test's own end.
    assert stayed[0] < START_S / 2


@proves("hook.delays-nothing")
def test_in_an_attempt_it_asks_nothing(path):
    asked: list[bytes] = []
    serve(path, lambda there: asked.append(there.recv(1)))
    assert run(path, MUSTER_CAPABILITY="x").stdout == b""
    assert asked == []


@proves("hook.delays-nothing")
def test_it_loads_nothing_but_the_interpreter_and_a_socket(path):
    script = path.parent / "hook.py"
    script.write_text(
        hook.script("claude", str(path)) + "\nposix.write(2, ' '.join(sys.modules).encode())\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", script], input=SAID, capture_output=True, check=False,
        env={**os.environ},
    )  # fmt: skip
    bare = subprocess.run(
        [sys.executable, "-I", "-S", "-c", "import sys;print(' '.join(sys.modules))"],
        capture_output=True, check=True,
    )  # fmt: skip
    more = set(done.stderr.split()) - set(bare.stdout.split())
    assert more <= {b"_socket"}


@proves("hook.delays-nothing")
def test_where_the_hook_is_gone_the_program_goes_on(tmp_path):
    """Python ends with 2 where its file is not there: with that a hook forbids every prompt."""
    nothing: Callable[[Path], bytes | None] = lambda _: None  # noqa: E731 - it reads no file
    place = Place(tmp_path, {}, tmp_path / "own", "muster", sys.executable, "", nothing)
    for there in (False, True):
        if there:
            place.hook.parent.mkdir(parents=True, exist_ok=True)
            place.hook.write_text("print('ran')")
        done = subprocess.run(
            ["sh", "-c", place.command], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n" * there, "")
