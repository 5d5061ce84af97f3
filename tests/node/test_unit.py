"""What a system is told so that it runs a daemon, and where that daemon's words go."""

import asyncio
import os
import plistlib
import shutil
import socket
import subprocess
import sys

import pytest
from tests.promise import proves

from muster.node.host import daemon_log, program, service
from muster.node.host.supervised import Supervised
from muster.node.host.unit import Service, launchd_plist, read, systemd_unit

ODD = '/home/al ice/100% "mine" \\o/$HOME'
SERVICE = Service(
    name="muster",
    home=ODD,
    argv=(sys.executable, "-P", "-m", "muster", "--home", ODD, "up"),
    fallen=(sys.executable, "-P", "-m", "muster.node.fallen", ODD),
    env={"PATH": "/opt/a b/bin:/usr/bin", "MUSTER_STATE": "/var/100%"},
    log="/home/al ice/daemon.log",
)


@proves("service.unit-is-sound")
@pytest.mark.parametrize("user", ["", "root"])
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path, user):
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "muster.service"
    says = subprocess.run([verify, "--version"], capture_output=True, text=True, check=True).stdout
    unit.write_text(systemd_unit(SERVICE._replace(user=user), int(says.split()[1])))
    scope = "--system" if user else "--user"
    (tmp_path / "run").mkdir(mode=0o700)
    done = subprocess.run(
        [verify, scope, "--man=no", "verify", str(unit)], capture_output=True, text=True,
        check=False, env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / "run")},
    )  # fmt: skip
    assert "muster.service" not in done.stdout + done.stderr


@proves("service.unit-is-sound")
@pytest.mark.parametrize("version", [252, 254])
def test_a_unit_starts_again_what_failed_for_ever_and_nothing_that_a_person_must_mend(version):
    lines = systemd_unit(SERVICE, version).splitlines()
    assert {"Restart=on-failure", "RestartPreventExitStatus=2 3 4 5 6", "Type=notify"} <= set(lines)
    # Neither a taken port nor a VPN that is not up yet is over in five minutes.
    assert [each for each in lines if each.startswith("StartLimit")] == ["StartLimitIntervalSec=0"]
    pauses = [each for each in lines if each.startswith(("RestartS", "RestartM"))]
    assert pauses == (
        ["RestartSec=10", "RestartSteps=8", "RestartMaxDelaySec=300"] if version >= 254
        else ["RestartSec=30"]
    )  # fmt: skip
    assert "WantedBy=default.target" in lines
    assert not [each for each in lines if each.startswith("User=")]
    system = systemd_unit(SERVICE._replace(user="alice")).splitlines()
    assert {"User=alice", "WantedBy=multi-user.target", "After=network-online.target"} <= set(
        system
    )


@proves("service.attempts-keep-what-they-have")
def test_a_unit_takes_nothing_from_an_attempt():
    """Each of these changes what a program of the person sees, or may do."""
    taking = (
        "Protect",
        "Private",
        "NoNewPrivileges",
        "Restrict",
        "SystemCall",
        "MemoryDeny",
        "Lock",
    )
    assert not [each for each in systemd_unit(SERVICE).splitlines() if each.startswith(taking)]


@proves("service.unit-is-sound")
@pytest.mark.parametrize("user", ["", "alice"])
def test_launchd_reads_every_word_back_as_it_was(user):
    read = plistlib.loads(launchd_plist(SERVICE._replace(user=user)))
    assert read["ProgramArguments"] == list(SERVICE.argv)
    assert read["EnvironmentVariables"] == SERVICE.env
    assert (read["RunAtLoad"], read["KeepAlive"]) == (True, {"SuccessfulExit": False})
    assert read.get("UserName", "") == user
    assert read["StandardErrorPath"] == SERVICE.log


@proves("service.log-is-bounded")
def test_the_daemons_log_is_begun_anew_at_a_size_and_nothing_that_was_said_is_lost(tmp_path):
    path = tmp_path / "daemon.log"
    script = (
        "import os, sys\n"
        "from muster.node.host import daemon_log\n"
        "daemon_log.DAEMON_LOG_BYTES_MAX = 100\n"
        "for n in range(20):\n"
        "    print(f'line {n:02}', file=sys.stderr)\n"
        "    daemon_log.bound(sys.argv[1])\n"
        "print(daemon_log.reader(sys.argv[1]), file=sys.stderr)\n"
    )
    with open(path, "ab") as log:
        subprocess.run([sys.executable, "-c", script, path], stderr=log, check=True)
    older = (tmp_path / "daemon.log.1").read_text().splitlines()
    newer = path.read_text().splitlines()
    assert older + newer == [*(f"line {n:02}" for n in range(20)), str(path)]
    assert older
    assert path.stat().st_mode & 0o077 == 0


@proves("service.log-is-bounded")
@pytest.mark.parametrize("fails", ["open", "the first move", "the second move"])
def test_a_log_that_cannot_be_begun_anew_goes_on_where_it_is_and_is_tried_again(tmp_path, fails):
    path = tmp_path / "daemon.log"
    script = (
        "import os, sys\n"
        "from muster.node.host import daemon_log\n"
        "daemon_log.DAEMON_LOG_BYTES_MAX = 20\n"
        "count, real = [0], {'open': os.open, 'replace': os.replace}\n"
        "def failing(name, at):\n"
        "    def call(*args):\n"
        "        count[0] += 1\n"
        "        if count[0] == at: raise OSError(28, 'No space left on device')\n"
        "        return real[name](*args)\n"
        "    setattr(os, name, call)\n"
        f"failing({'open' if fails == 'open' else 'replace'!r}, {2 if 'second' in fails else 1})\n"
        "print('first, a long one that is enough', file=sys.stderr)\n"
        "daemon_log.bound(sys.argv[1])\n"
        "print('second', file=sys.stderr)\n"
        "assert 'second' in open(sys.argv[1]).read(), os.listdir()\n"
        "daemon_log.bound(sys.argv[1])\n"
        "print('third', file=sys.stderr)\n"
    )
    with open(path, "ab") as log:
        subprocess.run([sys.executable, "-c", script, path], stderr=log, check=True, cwd=tmp_path)
    older = (tmp_path / "daemon.log.1").read_text().splitlines()
    assert older == ["first, a long one that is enough", "second"]
    assert path.read_text() == "third\n"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["daemon.log", "daemon.log.1"]


@proves("service.log-is-bounded")
def test_another_file_than_the_one_that_is_written_is_left_alone(tmp_path, monkeypatch):
    path = tmp_path / "daemon.log"
    path.write_text("x" * 200)
    monkeypatch.setattr(daemon_log, "DAEMON_LOG_BYTES_MAX", 0)
    daemon_log.bound(str(path))
    assert [each.name for each in tmp_path.iterdir()] == ["daemon.log"]
    assert daemon_log.reader(str(path)) == ""


@proves("service.unit-is-sound")
def test_a_line_break_in_a_path_or_a_variable_begins_no_line_of_the_unit():
    odd = "/h\n[Service]\nExecStartPre=/bin/false\t\x7f\\x41 100% $HOME \"'"
    said = Service("muster", odd, (odd, "--home", odd), (odd, odd), {"PATH": f"/a:{odd}"}, odd)
    text = systemd_unit(said)
    assert [line for line in text.splitlines() if line.startswith("ExecStartPre")] == []
    assert text.count("\n[Service]\n") == 1
    assert read(text.encode()) == (odd, f"/a:{odd}")


@proves("service.unit-is-sound")
@pytest.mark.parametrize("session", [True, False])
def test_a_bare_shell_finds_the_persons_own_systemd_where_there_is_one(
    tmp_path, monkeypatch, session
):
    """As `su` and cron open one: it is told nothing of the session."""
    runtime, asked = tmp_path / "run" / str(os.getuid()), tmp_path / "bin" / "systemctl"
    for folder in (asked.parent, tmp_path / "config/systemd/user", *([runtime] if session else [])):
        folder.mkdir(parents=True)
    asked.write_text('#!/bin/sh\necho "ActiveState=${XDG_RUNTIME_DIR:-nowhere}"\n')
    asked.chmod(0o700)
    monkeypatch.setattr(program, "_SESSIONS", str(tmp_path / "run"))
    monkeypatch.setenv("PATH", str(asked.parent), prepend=os.pathsep)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    systemd = service.Systemd(SERVICE)
    systemd.file.touch()
    assert systemd.state().active == (str(runtime) if session else "nowhere")
    assert "XDG_RUNTIME_DIR" not in os.environ, "what else this command looks for stays there"


@proves("health.watchdog")
def test_a_loop_that_lives_says_so_and_one_that_is_blocked_does_not(tmp_path):
    lines = systemd_unit(SERVICE, 252).splitlines()
    assert {"WatchdogSec=60", "WatchdogSignal=SIGKILL"} <= set(lines)
    place = str(tmp_path / "ears")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ears:
        ears.bind(place)
        ears.setblocking(False)
        given = {"NOTIFY_SOCKET": place, "WATCHDOG_USEC": "40000", "WATCHDOG_PID": str(os.getpid())}
        environ = {**given, "PATH": "/usr/bin"}
        told = Supervised(environ)
        assert environ == {"PATH": "/usr/bin"}, "it is for nothing that the daemon starts"

        async def go() -> list[bytes]:
            loop, heard = asyncio.get_running_loop(), list[bytes]()
            told.ready()
            while len(heard) < 4:
                heard.append(await loop.sock_recv(ears, 100))
            # As long as somebody keeps the loop, it says nothing.
            ears.settimeout(0.1)
            with pytest.raises(TimeoutError):
                ears.recv(100)
            return heard

        assert asyncio.run(go()) == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        # Of another process nobody wants to hear that it lives.
        assert Supervised({**given, "WATCHDOG_PID": "1"})._pause_s == 0.0
