"""The first minutes: a fleet of one machine, and the line that makes it two."""

import getpass
import os
import pty
import re
import select
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from muster.errors import Unreachable
from muster.fleet.invite import write_invite
from muster.log.stream import FleetId
from muster.node.host.home import Home
from muster.verbs import setup
from tests.cli.world import LIMIT_S, environment, muster
from tests.e2e import scripted_systemd
from tests.ports import free_port
from tests.promise import proves

NO_PROGRAMS = {"PATH": "/nowhere"}


def typed(home: Path, *words: str, answers: str, **more: str) -> tuple[str, int]:
    """What a person reads at a terminal who answers so, and the exit code."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "muster", *words], stdin=theirs, stdout=theirs, stderr=theirs,
        env=environment(home, **more), start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, answers.encode())
    said = b""
    try:
        while select.select([ours], [], [], LIMIT_S)[0] and (part := os.read(ours, 65536)):
            said += part
    except OSError:
        # The last end of the terminal is closed.
        pass
    finally:
        os.close(ours)
    return said.decode(), child.wait(LIMIT_S)


@proves("cli.two-machines-in-two-commands")
def test_init_prints_the_one_line_that_makes_the_next_machine_a_member_that_runs(tmp_path):
    first, second = tmp_path / "first home", tmp_path / "second home"
    listen = f"127.0.0.1:{free_port()}"
    begun = muster(first, "init", "--name", "studio", "--listen", listen, "--up")
    assert begun.code == 0, begun.err
    try:
        line = re.search(r"^  muster (join .*)$", begun.out, re.MULTILINE)
        assert line is not None
        joined = muster(second, *line[1].split())
        assert joined.code == 0, joined.err
        assert "You are in" in joined.out
        machines = muster(second, "machines", "--json").value
        assert [each["name"] for each in machines] == ["build", "studio"]
    finally:
        for home in (first, second):
            muster(home, "down")


@proves("cli.init-asks-twice-at-most")
def test_a_person_at_a_terminal_is_asked_for_the_name_and_the_service_and_nothing_else(tmp_path):
    home = tmp_path / "home"
    said, code = typed(home, "init", answers="desk\nno\n", **NO_PROGRAMS)
    assert code == 0, said
    assert re.findall(r"^.*\[[\w-]+\]: ", said, re.MULTILINE)[0].startswith("This machine's name [")
    assert len(re.findall(r"\[[\w-]+\]: ", said)) == 2
    assert "desk is now a fleet of one machine" in said
    assert "`muster up --detach`, then `muster invite build`" in said


@proves("cli.init-asks-twice-at-most")
@pytest.mark.parametrize("words", [("--name", "desk"), ("--json",), ("--operator", "al")])
def test_who_gives_options_is_asked_nothing(tmp_path, words):
    said, code = typed(tmp_path / "home", "init", *words, answers="", **NO_PROGRAMS)
    assert code == 0, said
    assert not re.findall(r"\[[\w-]+\]: ", said)


@proves("cli.agents-in-time")
def test_a_person_at_a_terminal_hears_whom_init_asks_and_a_script_does_not(tmp_path):
    (tmp_path / "claude").write_text("#!/bin/sh\necho 2.1.40\n")
    (tmp_path / "claude").chmod(0o755)
    more = {"PATH": str(tmp_path), "HOME": str(tmp_path), "SHELL": "/bin/false"}
    said, code = typed(tmp_path / "one", "init", "--listen", "", answers="", **more)
    assert code == 0, said
    assert re.search(r"asking .*claude.*: each has 20 s to answer", said)
    assert muster(tmp_path / "two", "init", "--listen", "", **more).err == ""


@proves("cli.init-asks-twice-at-most")
def test_without_a_terminal_nobody_is_asked(tmp_path):
    said = muster(tmp_path / "home", "init", stdin="desk\ny\n", **NO_PROGRAMS)
    assert said.code == 0, said.err
    assert "[" not in said.err
    assert not said.out.startswith("desk ")


@proves("cli.init-asks-twice-at-most")
def test_nothing_of_the_system_is_changed_before_somebody_said_so(tmp_path):
    more = scripted_systemd.put(tmp_path)
    assert muster(tmp_path / "home", "init", "--json", stdin="", **more).code == 0
    asked = tmp_path / "systemd" / "asked"
    assert not asked.exists() or "enable-linger" not in asked.read_text()


@proves("service.refused-where-none")
def test_where_no_service_can_be_nothing_is_made_and_no_invitation_is_spent(tmp_path):
    home = tmp_path / "home"
    invitation = write_invite(FleetId("a" * 64), bytes(16), "127.0.0.1:1")
    for words in (("init", "--service"), ("join", f"{invitation}#desk", "--service")):
        said = muster(home, *words, **NO_PROGRAMS)
        assert (said.code, said.out) == (5, "")
        assert "with --up instead of --service" in said.err
        assert not home.exists()


@proves("cli.init-says-what-is-left")
def test_a_machine_whose_daemon_does_not_start_is_made_and_says_so(tmp_path):
    home, port = tmp_path / "home", free_port()
    listen = f"127.0.0.1:{port}"
    script = f"import socket, sys; s = socket.create_server(('127.0.0.1', {port}))"
    script += "; print('.', flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    other.stdout.read(1)
    try:
        said = muster(home, "init", "--name", "desk", "--listen", listen, "--up")
    finally:
        other.communicate()
    assert said.code == 8
    assert "the machine is made, and its daemon does not run" in said.err
    assert "Next: `muster up --detach`" in said.out
    assert muster(home, "up", "--detach").code == 0
    muster(home, "down")


@proves("cli.init-names")
@pytest.mark.parametrize(
    ("login", "host", "machine", "person"),
    [
        ("muster", "muster", "machine", "owner"),
        ("all", "x" * 39 + "-y", "x" * 39, "owner"),
        ("Ann.B", "...", "machine", "ann"),
        ("nas", "NAS.local", "nas", "owner"),
        ("op", "owner", "owner", "operator"),
    ],
)
def test_names_that_are_taken_without_asking_are_allowed(
    tmp_path, monkeypatch, login, host, machine, person
):
    monkeypatch.setattr(getpass, "getuser", lambda: login)
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    monkeypatch.setattr(setup, "_agents", lambda *_: ({}, []))
    context: Any = SimpleNamespace(home=Home(tmp_path / "home"), say=print)
    begun: Any = setup.init(context, setup.Init(listen=""))
    assert (begun.name, begun.operator) == (machine, person)


@proves("cli.init-names")
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--name", "muster"), ("--name", "A b"), ("--operator", "all"), ("--next", "Foo Bar!"),
        ("--next", "fleet"), ("--next", "x" * 41), ("--next", "desk"),
    ],
)  # fmt: skip
def test_a_typed_name_is_refused_by_its_option_before_anything_is_written(tmp_path, option, value):
    home = tmp_path / "home"
    rest = [] if option == "--name" else ["--name", "desk"]
    said = muster(home, "init", "--listen", "", *rest, option, value, "--up")
    assert (said.code, said.out) == (3, "")
    assert option in said.err
    assert not home.exists()


@proves("cli.init-says-what-is-left")
def test_an_invitation_that_fails_hides_nothing_of_what_was_made(tmp_path, monkeypatch):
    def ask(_verb: str, _args: Any) -> Any:
        raise Unreachable("the daemon hung up")

    told: list[str] = []
    context: Any = SimpleNamespace(home=Home(tmp_path / "home"), say=told.append, ask=ask)
    monkeypatch.setattr(setup, "_agents", lambda *_: ({}, []))
    monkeypatch.setattr(setup, "begin", lambda _context: None)
    ask_for = setup.Init(name="desk", listen="127.0.0.1:7447", up=True, next="nas")
    found: Any = setup.init(context, ask_for)
    assert found.code == Unreachable.exit_code
    assert (found.value.name, found.value.started, found.value.next) == ("desk", "up", "nas")
    assert "the daemon hung up" in told[-1]
