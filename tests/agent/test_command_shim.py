"""The shim of a person's command, alone: what it says, and that nothing of the command is left."""

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

import pytest
from tests.promise import proves

from muster.agent.command_shim import CONTROL
from muster.agent.process_tree import MARKER
from muster.agent.relay import boot

WAIT_S = 60


class Shimmed:
    """A shim with its order, and the daemon's end of its control socket."""

    def __init__(self, folder: Path, *argv: str, stdin: int = subprocess.DEVNULL) -> None:
        self.control, its = socket.socketpair()
        self.control.settimeout(WAIT_S)
        with its:
            self.shim = subprocess.Popen(
                boot("muster.agent.command_shim", "-S"), stdin=stdin, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, pass_fds=(its.fileno(),),
                env={"PATH": os.defpath, CONTROL: str(its.fileno())}, start_new_session=True,
            )  # fmt: skip
        env = {"PATH": os.environ["PATH"], MARKER: folder.name}
        self.tell({"argv": argv, "cwd": str(folder), "env": env})
        self._lines = self.control.makefile("rb")

    def tell(self, what: object) -> None:
        self.control.sendall(json.dumps(what).encode() + b"\n")

    def hear(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self._lines.readline())
        return found

    def leave(self) -> None:
        self._lines.close()
        self.control.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()
        self.shim.kill()
        self.shim.communicate()


def gone(pid: int) -> bool:
    """Whether a process is over, within a time that no machine needs."""
    for _ in range(WAIT_S * 20):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def numbers(file: Path, count: int) -> list[int]:
    """The process ids that a command wrote, once they are there."""
    for _ in range(WAIT_S * 20):
        if file.exists() and len(found := file.read_text().split()) == count:
            return [int(each) for each in found]
        time.sleep(0.05)
    raise AssertionError(f"{file} was not written")


# One that left its session and its parent, and hears no TERM; and one that is just there.
BROOD = (
    "(trap '' TERM; setsid sh -c 'echo $$ >> pids; trap \"\" TERM; while :; do sleep 1; done' &) ; "
    "sleep 1000 & echo $! >> pids; "
)


@proves("remote.exec-is-the-command")
def test_its_words_reach_no_shell_and_its_code_is_told(tmp_path):
    with Shimmed(
        tmp_path, "sh", "-c", 'printf "%s|" "$@"; exit 9', "-", "$HOME", "; id", "--"
    ) as it:
        assert "begun" in it.hear()
        assert it.hear() == {"code": 9}
        out, errors = it.shim.communicate(timeout=WAIT_S)
        assert (out, errors, it.shim.returncode) == (b"$HOME|; id|--|", b"", 0)


@proves("remote.exec-is-the-command")
def test_what_cannot_be_started_is_said_and_ends_the_shim(tmp_path):
    with Shimmed(tmp_path, "no-such-program") as it:
        assert "No such file" in str(it.hear()["lacks"])
        assert it.shim.wait(WAIT_S) == 0


@proves("remote.exec-ends-with-us")
def test_what_a_command_leaves_behind_ends_with_it(tmp_path):
    with Shimmed(tmp_path, "sh", "-c", BROOD + "while [ $(wc -l < pids) -lt 2 ]; do :; done") as it:
        assert "begun" in it.hear()
        assert it.hear() == {"code": 0}
        assert all(gone(pid) for pid in numbers(tmp_path / "pids", 2))
        # Its streams ended with the last of them.
        assert it.shim.communicate(timeout=WAIT_S) == (b"", b"")


@proves("remote.exec-ends-with-us")
@pytest.mark.parametrize("how", ["daemon died", "told to end"])
def test_a_control_socket_that_ends_ends_everything(tmp_path, how):
    with Shimmed(tmp_path, "sh", "-c", "trap '' TERM INT; " + BROOD + "wait; sleep 1000") as it:
        begun = it.hear()
        pids = [*numbers(tmp_path / "pids", 2), int(str(begun["begun"]))]
        if how == "daemon died":
            it.leave()
        else:
            it.shim.send_signal(signal.SIGTERM)
        assert it.shim.wait(WAIT_S) == 0
        assert all(gone(pid) for pid in pids)


@proves("remote.exec-ends-with-us")
def test_a_signal_goes_to_the_group_of_the_command_and_only_those_a_person_sends(tmp_path):
    script = "trap 'exit 5' INT; echo x > ready; while :; do sleep 0.1; done"
    with Shimmed(tmp_path, "sh", "-c", script) as it:
        it.hear()
        for _ in range(WAIT_S * 20):
            if (tmp_path / "ready").exists():
                break
            time.sleep(0.05)
        for odd in (9, 19, -1, 0, 10**9, "2", None):
            it.tell({"signal": odd})
        it.tell({"signal": 2})
        assert it.hear() == {"code": 5}
