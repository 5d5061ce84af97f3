"""Commands on another machine, between two real homes."""

import contextlib
import fcntl
import hashlib
import json
import os
import random
import select
import signal
import sqlite3
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.cli.test_two_homes import Pair, runs
from tests.cli.world import LIMIT_S, environment, muster
from tests.e2e.fleet import until
from tests.promise import proves

pytestmark = pytest.mark.e2e


@contextlib.contextmanager
def in_persons_home(folder: Path, **variables: str) -> Iterator[Pair]:
    """Two homes whose daemons began in a person's home, with these variables around them."""
    found, home = Pair(folder), folder / "person"
    with pytest.MonkeyPatch.context() as patch:
        home.mkdir()
        for name, value in {"HOME": str(home), **variables}.items():
            patch.setenv(name, value)
        try:
            found.begin()
            yield found
        finally:
            found.end()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    variables = {"ANTHROPIC_API_KEY": "sk-not-for-commands"}
    with in_persons_home(tmp_path_factory.mktemp("remote"), **variables) as found:
        yield found


def begun(home: Path, *words: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "muster", *words], env=environment(home), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def filled(pipe: IO[bytes]) -> bool:
    """Fill a pipe that is full at times; whether something went into it."""
    try:
        return os.write(pipe.fileno(), b"x" * 65_536) > 0
    except BlockingIOError:
        return False


def waiting(child: "subprocess.Popen[bytes]") -> int:
    """How many bytes of what it wrote nobody has read."""
    assert child.stdout
    raw = bytearray(4)
    fcntl.ioctl(child.stdout.fileno(), termios.FIONREAD, raw)
    return int.from_bytes(raw, sys.byteorder)


def carried(home: Path, raw: bytes, *words: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-m", "muster", *words], env=environment(home), input=raw,
        capture_output=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip


@proves("remote.exec-is-the-command")
def test_input_output_errors_and_the_exit_code_go_through_as_they_are(pair):
    raw = random.Random(7).randbytes(3_000_000)
    script = "tee /dev/stderr | sha256sum; exit 42"
    done = carried(pair.hub, raw, "exec", "laptop", "--", "sh", "-c", script)
    assert done.returncode == 42
    assert done.stdout.split()[0].decode() == hashlib.sha256(raw).hexdigest()
    assert done.stderr == raw
    words = ["$HOME", "; id", "*", "--", "--json", "-h", "a b", "é", ""]
    done = carried(pair.hub, b"", "exec", "laptop", "--", "printf", "%s|", *words)
    assert done.stdout.decode() == "|".join([*words, ""])
    assert done.returncode == 0
    said = muster(
        pair.hub, "exec", "laptop", "--json", "--", "sh", "-c", "echo o; echo e >&2; exit 3"
    )
    assert (said.code, said.value) == (3, {"code": 3, "output": "o\n", "errors": "e\n"})
    killed = muster(pair.hub, "exec", "laptop", "--", "sh", "-c", "kill -9 $$")
    assert killed.code == 128 + 9


@proves("remote.exec-is-plain")
def test_it_stands_in_the_persons_home_with_nothing_of_an_agent(pair):
    said = muster(pair.hub, "exec", "laptop", "--", "sh", "-c", "pwd; env; umask")
    assert said.code == 0, said
    lines = said.out.splitlines()
    assert lines[0] == str(pair.folder / "person")
    assert f"MUSTER_HOME={pair.laptop}" in lines
    assert "TERM=dumb" in lines
    assert "sk-not-for-commands" not in said.out
    assert "CAPABILITY" not in said.out
    assert int(lines[-1], 8) & 0o022


@proves("remote.exec-is-the-command")
def test_a_program_that_is_not_there_is_one_sentence(pair):
    said = muster(pair.hub, "exec", "laptop", "--", "no-such-program")
    assert (said.code, said.err.count("\n")) == (5, 1)
    assert "no-such-program cannot be started there" in said.err
    assert muster(pair.hub, "exec", "laptop").code == 2
    assert muster(pair.hub, "exec", "laptop", "ls").code == 2
    assert muster(pair.hub, "exec", "nobody", "--", "true").code == 5
    planned = muster(pair.hub, "exec", "laptop", "--plan", "--json", "--", "ls", "-l").value["plan"]
    assert [each["name"] for each in planned["machines"]] == ["laptop"]
    # What would be signed: a name may become another machine's.
    ids = {each["name"]: each["machine"] for each in pair.ok(pair.hub, "machines")}
    assert planned["object"] == ids["laptop"]
    assert planned["args"] == {"machine": "laptop", "argv": ["ls", "-l"]}
    there = muster(pair.hub, "exec", "laptop", "--on", "hub", "--", "true")
    assert (there.code, "leave --on hub out" in there.err) == (2, True)
    bare = muster(pair.hub, "exec", "laptop").err
    assert "stands behind --, as in `muster exec build -- uname -a`" in bare
    assert "MACHINE -- ARGV..." in " ".join(muster(pair.hub, "exec", "--help").out.split())


@proves("remote.exec-on-several")
def test_a_command_on_several_is_one_for_each_and_the_worst_code_counts(pair):
    script = "case $MUSTER_HOME in *hub) printf one; echo no >&2; exit 3;; *) echo two;; esac"
    # One that was never up is away, and costs the others nothing.
    pair.ok(pair.folder / "spare", "join", pair.ok(pair.hub, "invite", "spare")["invitation"])
    words = ("exec", "spare,laptop,hub", "--", "sh", "-c", script)
    done = carried(pair.hub, b"not read", *words)
    assert done.returncode == 7
    hub, laptop, spare = done.stdout.decode().split("== ")[1:]
    assert (hub, laptop) == ("hub\none\n", "laptop\ntwo\n")
    assert spare.startswith("spare\nmuster: ")
    said = done.stderr.decode().splitlines()
    assert said == ["no", "it ended with exit code 3", "2 of 3 machines did not: hub, spare"]
    value = muster(pair.hub, *words[:2], "--json", *words[2:]).value
    assert value["hub"] == {"code": 3, "output": "one", "errors": "no\n"}
    assert value["laptop"] == {"code": 0, "output": "two\n", "errors": ""}
    assert value["spare"]["error"]["exit"] == 7
    both = carried(pair.hub, b"", "exec", "hub,laptop", "--", "sh", "-c", "cat; echo read")
    assert both.stdout == b"== hub\nread\n== laptop\nread\n"
    assert muster(pair.hub, "exec", "role=none", "--", "true").code == 5
    planned = muster(pair.hub, "exec", "laptop,hub", "--plan", "--json", "--", "true").value["plan"]
    assert [each["name"] for each in planned["machines"]] == ["hub", "laptop"]


@proves("remote.exec-on-several")
def test_whoever_leaves_ends_it_on_every_machine(pair):
    words = (
        "exec",
        "hub,laptop",
        "--",
        "sh",
        "-c",
        'echo $$ > "$MUSTER_HOME.pid"; exec sleep 1000',
    )
    child = begun(pair.hub, *words)
    try:
        files = [Path(f"{home}.pid") for home in (pair.hub, pair.laptop)]
        until(lambda: all(each.exists() and each.read_text() for each in files), "they run")
        pids = [int(each.read_text()) for each in files]
        child.send_signal(signal.SIGINT)
        assert child.wait(LIMIT_S) == 130
    finally:
        child.kill()
        child.communicate()
    until(lambda: not any(runs(pid) for pid in pids), "both ended")


@proves("remote.exec-ends-with-us")
def test_ctrl_c_goes_to_the_command_and_the_second_one_ends_it(pair):
    # It hears the first one and goes on.
    script = "trap 'echo heard' INT; echo $$; while :; do sleep 0.1; done"
    child = begun(pair.hub, "exec", "laptop", "--", "sh", "-c", script)
    try:
        assert child.stdout
        pid = int(child.stdout.readline())
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline() == b"heard\n"
        assert runs(pid)
        child.send_signal(signal.SIGINT)
        assert child.wait(LIMIT_S) == 130
        until(lambda: not runs(pid), "the command ended")
    finally:
        child.kill()
        child.communicate()
    plain = begun(pair.hub, "exec", "laptop", "--", "sh", "-c", "echo x; exec sleep 1000")
    try:
        assert plain.stdout
        plain.stdout.readline()
        plain.send_signal(signal.SIGINT)
        assert plain.wait(LIMIT_S) == 130
    finally:
        plain.kill()
        plain.communicate()


@proves("remote.exec-ends-with-us")
def test_ctrl_c_overtakes_what_was_typed_and_leaves_while_nobody_reads(pair):
    script = "trap 'echo heard; exit 9' INT; echo $$; while :; do sleep 0.1; done"
    unread = begun(pair.hub, "exec", "laptop", "--", "sh", "-c", script)
    # It says without an end, and what reads it stopped reading.
    stuck = begun(pair.hub, "exec", "laptop", "--", "sh", "-c", "echo $$; exec yes")
    try:
        assert unread.stdin
        assert unread.stdout
        assert stuck.stdout
        unread.stdout.readline()
        # All that there is room for on its way, and more.
        os.set_blocking(unread.stdin.fileno(), False)
        until(lambda: not filled(unread.stdin) and not select.select([], [unread.stdin], [], 1)[1],
              "nothing more fits")  # fmt: skip
        unread.send_signal(signal.SIGINT)
        assert unread.stdout.readline() == b"heard\n"
        assert unread.wait(LIMIT_S) == 9
        pid = int(stuck.stdout.readline())
        until(lambda: waiting(stuck) >= 60_000, "its pipe is full")
        stuck.send_signal(signal.SIGINT)
        # The first one went to the command; how it ended stands behind what nobody reads.
        until(lambda: not runs(pid), "it ended")
        stuck.send_signal(signal.SIGINT)
        assert stuck.wait(LIMIT_S) == 130
    finally:
        for each in (unread, stuck):
            each.kill()
            with contextlib.suppress(BrokenPipeError):
                each.communicate()


@proves("remote.exec-ends-with-us")
def test_whoever_is_killed_ends_what_was_begun_there(pair):
    script = "trap '' TERM INT HUP; setsid sleep 1000 & echo $! $$; wait; sleep 1000"
    child = begun(pair.hub, "exec", "laptop", "--", "sh", "-c", script)
    try:
        assert child.stdout
        pids = [int(each) for each in child.stdout.readline().split()]
    finally:
        child.kill()
        child.communicate()
    until(lambda: not any(runs(pid) for pid in pids), "everything ended")


@proves("remote.exec-ends-with-us")
def test_whoever_is_killed_ends_what_does_not_read_what_was_typed(pair):
    child = begun(pair.hub, "exec", "laptop", "--", "sh", "-c", "echo $$; exec sleep 1000")
    try:
        assert child.stdin
        assert child.stdout
        # More than a pipe and the daemon's own buffer hold, less than the stream has room for.
        child.stdin.write(b"x" * 200_000)
        child.stdin.flush()
        pid = int(child.stdout.readline())
    finally:
        child.kill()
        child.communicate()
    until(lambda: not runs(pid), "it ended")


@proves("remote.needs-an-order")
def test_a_key_needs_the_grant_for_that_very_machine(pair):
    key = muster(pair.laptop, "operator", "key").out.strip()
    try:
        refused = muster(pair.laptop, "exec", "hub", "--", "true")
        assert refused.code == 4
        assert "`muster grant KEY exec --object hub`" in refused.err
        pair.ok(pair.hub, "grant", key, "exec", "--object", "laptop")
        assert muster(pair.laptop, "exec", "hub", "--", "true").code == 4
        until(lambda: muster(pair.laptop, "exec", "laptop", "--", "true").code == 0, "it is known")
        pair.ok(pair.hub, "grant", key, "exec", "--object", "hub")
        assert muster(pair.laptop, "exec", "hub", "--", "true").code == 0
        held = pair.ok(pair.hub, "grants")["grants"]
        assert {(each["verb"], each["object"]) for each in held} == {
            ("exec", "hub"),
            ("exec", "laptop"),
        }
        pair.ok(pair.hub, "grant", key, "exec", "--object", "hub", "--take")
        assert muster(pair.laptop, "exec", "hub", "--", "true").code == 4
    finally:
        (pair.laptop / "operator.seed").unlink()


@proves("remote.nobody-between")
def test_two_machines_behind_a_hub_have_a_link_of_their_own_through_it(pair):
    """What the hub carries for them is TLS of theirs: it joins no stream of a command."""
    desk = pair.folder / "desk"
    pair.ok(desk, "join", pair.ok(pair.hub, "invite", "desk")["invitation"])
    pair.ok(desk, "up", "--detach")
    try:
        key = muster(desk, "operator", "key").out.strip()
        pair.ok(pair.hub, "grant", key, "exec", "--object", "laptop")
        words = ("exec", "laptop", "--", "cat")
        until(lambda: carried(desk, b"typed", *words).stdout == b"typed", "the relay stands")
    finally:
        muster(desk, "down")


def journal(home: Path, kind: str) -> list[tuple[bytes, bytes]]:
    """The header and the body of each entry of a kind in a machine's journal, the oldest first."""
    with contextlib.closing(sqlite3.connect(f"file:{home / 'log.db'}?mode=ro", uri=True)) as log:
        found = log.execute(
            "select stream.name, entry.header, entry.body from entry join stream on "
            "entry.id >> 40 = stream.id order by entry.id"
        ).fetchall()
    kept = [(name, bytes(h), bytes(b or b"")) for name, h, b in found if kind.encode() in bytes(h)]
    assert all(name.split("/")[-1] == "journal" or "journal" in name for name, _, _ in kept)
    return [(header, body) for _, header, body in kept]


@proves("remote.is-written-down")
def test_the_journal_there_says_what_was_done_by_digest_and_by_which_order(pair):
    secret = "hunter2-in-the-words"
    words = ["sh", "-c", f": {secret}; cat; echo no >&2; exit 6"]
    done = carried(pair.hub, b"spoken\n", "exec", "laptop", "--", *words)
    assert done.returncode == 6
    until(lambda: len(journal(pair.laptop, "exec.end")) == len(journal(pair.laptop, "exec.begin")),
          "the end is written down")  # fmt: skip
    (begin_header, begin), (end_header, end) = (
        journal(pair.laptop, kind)[-1] for kind in ("exec.begin", "exec.end")
    )
    digest = lambda raw: {"sha256": hashlib.sha256(raw).hexdigest(), "size": len(raw)}  # noqa: E731
    began = json.loads(begin)
    # Not of the words alone: those could be guessed.
    for known in (words, {"argv": words, "pad": ""}):
        said = json.dumps(known, separators=(",", ":")).encode()
        assert began["sha256"] != digest(said)["sha256"]
    del began["sha256"]
    assert began == {"program": "sh", "words": 3, "terminal": False}
    assert json.loads(end) == {
        "code": 6, "input": digest(b"spoken\n"), "output": digest(b"spoken\n"),
        "errors": digest(b"no\n"), "why": "",
    }  # fmt: skip
    for header in (json.loads(begin_header), json.loads(end_header)):
        assert header["actor"] == "op:alice"
        assert len(header["cause"]) == 1
    # The journal of one machine is on no other.
    assert (begin_header, begin) not in journal(pair.hub, "exec.begin")
    for home in (pair.hub, pair.laptop):
        for file in home.glob("log.db*"):
            assert secret.encode() not in file.read_bytes(), file
