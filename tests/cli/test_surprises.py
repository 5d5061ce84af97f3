"""What nobody typed wrongly: a daemon of another version, a full disk, files of another user."""

import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
import threading

import pytest

from muster import errors
from muster.channel.frame import LENGTH_BYTES, Type, decode, encode, prefixed, read_length
from muster.cli import call, main
from muster.errors import Broken, Exhausted
from tests.cli.test_call import Daemon, answer, failure
from tests.cli.world import environment, muster
from tests.promise import proves


class Answering:
    """A daemon in this home that answers each verb as it is told, however often it is asked."""

    def __init__(self, home, answers):
        (home / "run").mkdir(parents=True)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(home / "run" / "sock"))
        self._socket.listen()
        self._answers = answers
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            link, _ = self._socket.accept()
            with link:
                size, _ = read_length(link.recv(LENGTH_BYTES, socket.MSG_WAITALL))
                frame = decode(link.recv(size, socket.MSG_WAITALL))
                said = self._answers[json.loads(frame.payload)["verb"]]
                with contextlib.suppress(ConnectionError):
                    link.sendall(prefixed(encode(Type.REPLY, frame.channel, said)))


# As the daemon of 0.1.0 says it.
UNKNOWN = failure("NotFound", "there is no verb 'grants' to call; see `muster --help`", 5)


@proves("cli.another-version")
def test_a_verb_that_the_daemon_does_not_know_is_no_thing_that_is_missing(tmp_path):
    with Daemon(tmp_path / "sock", UNKNOWN), pytest.raises(Broken, match="another version") as said:
        call.ask(str(tmp_path / "sock"), "grants")
    assert "`muster down` and `muster up --detach`" in str(said.value)


@proves("cli.another-version")
def test_an_answer_that_lacks_something_names_the_version_of_the_daemon(tmp_path):
    # As 0.1.0 answered: it knew of no base.
    checked = answer({"compared": False, "problems": [], "name": "a", "phases": 1, "repo": ""})
    facts = answer({"name": "old", "muster": "0.1.0"})
    Answering(tmp_path / "old", {"check": checked, "facts": facts})
    said = muster(tmp_path / "old", "run", "-", stdin="muster: 1\n")
    assert (said.code, "runs Muster 0.1.0" in said.err) == (8, True)
    assert "muster up --detach" in said.err


@proves("cli.no-traceback", "cli.errors-as-json")
def test_our_own_mistake_is_json_where_json_was_asked_for_and_no_finding(tmp_path):
    script = (
        "import sys; from muster.cli import main, parse\n"
        "parse.parse = lambda words: {}['nobody']\n"
        "sys.exit(main.main(['status', '--json']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(tmp_path), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 8
    error = json.loads(done.stderr)["error"]
    assert (error["exit"], error["kind"]) == (8, "Broken")
    assert "KeyError" in error["text"]


@proves("cli.system-refusals")
def test_a_full_disk_ends_with_9_wherever_the_command_meets_it(tmp_path):
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "muster", "schema"],
            env=environment(tmp_path), stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, "free some space" in done.stderr) == (9, True)
    found = main._refusal_of_the_system(OSError(errno.EDQUOT, "Disk quota exceeded", "x"))
    assert isinstance(found, Exhausted)


@proves("cli.system-refusals")
def test_a_file_that_we_may_not_use_is_said_to_be_whose_it_is(tmp_path, monkeypatch):
    refused = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "home" / "seed"))
    ours = main._refusal_of_the_system(refused)
    assert isinstance(ours, Broken)
    assert f"ls -ld {tmp_path}" in str(ours)
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(tmp_path).st_uid + 4321)
    theirs = str(main._refusal_of_the_system(refused))
    assert f"{tmp_path} belongs to " in theirs
    assert "give another home with --home" in theirs


@proves("cli.call-errors")
def test_an_error_of_a_kind_that_we_do_not_know_keeps_its_exit_code(tmp_path):
    for code in range(3, 10):
        sock = str(tmp_path / str(code))
        said = failure("SomethingNew", "why", code)
        with Daemon(sock, said), pytest.raises(errors.MusterError, match="why") as found:
            call.ask(sock, "retry")
        assert found.value.exit_code == code
    assert errors.of_exit(77) is Broken
