"""`muster doctor --fix`: what is done by itself, and what never is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from muster.git import repository
from muster.node.host import service
from muster.node.host.home import Home
from muster.node.host.unit import read
from tests.cli.world import everything_in, muster
from tests.e2e import scripted_systemd
from tests.promise import proves


@pytest.fixture
def home(tmp_path):
    home = tmp_path / "home"
    assert muster(home, "init", "--name", "studio", "--operator", "al", "--listen", "").code == 0
    yield home
    muster(home, "down")


def checks(said) -> dict[str, str]:
    return {each["name"]: each["state"] for each in said.value["checks"]}


@proves("cli.doctor-fixes")
def test_doctor_starts_what_is_down_and_shuts_what_is_open(home):
    home.chmod(0o755)
    (home / "operator.seed").chmod(0o644)
    before = checks(muster(home, "doctor", "--json"))
    assert {before[name] for name in ("home's mode", "operator.seed", "daemon")} == {"wrong"}
    said = muster(home, "doctor", "--fix", "--json")
    assert not [each for each in said.value["done"] if each["failed"]]
    after = checks(said)
    assert {after[name] for name in ("home's mode", "operator.seed", "daemon")} == {"ok"}
    # That others could read a key is not over because they cannot any more.
    assert [each for each in said.value["done"] if "muster revoke" in each["what"]]
    assert muster(home, "status").code == 0
    assert muster(home, "doctor", "--fix", "--json").value["done"] == []


@proves("cli.doctor-fixes")
def test_what_would_be_done_is_said_and_nothing_is_done(home):
    home.chmod(0o755)
    before = everything_in(home)
    said = muster(home, "doctor", "--dry-run", "--json")
    assert [each["what"].split()[0] for each in said.value["would"]] == ["shut", "start"]
    assert everything_in(home) == before
    assert home.stat().st_mode & 0o777 == 0o755
    assert muster(home, "status").code == 7
    assert "would" in muster(home, "doctor", "--dry-run").out


@proves("cli.doctor-fixes")
def test_what_cannot_be_done_is_said_with_its_reason_and_the_rest_is_done(home):
    home.chmod(0o755)
    (home / "config.toml").write_text("slots = 'many'\n")
    said = muster(home, "doctor", "--fix", "--json")
    assert said.code == 1
    shut, start = said.value["done"]
    assert not shut["failed"]
    assert "slots" in start["failed"]
    assert checks(said)["configuration"] == "wrong"


@proves("cli.doctor-fixes")
def test_where_no_machine_lives_nothing_is_made(tmp_path):
    said = muster(tmp_path / "none", "doctor", "--fix", "--json")
    assert said.value["done"] == []
    assert not (tmp_path / "none").exists()


@proves("cli.doctor-fixes", "service.path-is-looked-after")
def test_a_service_that_lacks_what_the_shell_finds_is_installed_anew(home, tmp_path):
    env = {**scripted_systemd.put(tmp_path), "HOME": str(tmp_path)}
    env["XDG_CONFIG_HOME"] = str(tmp_path / "config")
    assert muster(home, "service", "install", **env).code == 0
    assert checks(muster(home, "doctor", "--json", **env))["service"] == "ok"
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "ffmpeg").write_text("#!/bin/sh\necho ffmpeg 9\n")
    (tools / "ffmpeg").chmod(0o755)
    richer = {**env, "PATH": f"{env['PATH']}:{tools}"}
    looked = muster(home, "doctor", "--json", **richer)
    assert checks(looked)["service"] == "note"
    assert [c for c in looked.value["checks"] if "ffmpeg" in c["text"]]
    assert len(muster(home, "doctor", "--fix", "--json", **richer).value["done"]) == 1
    (unit,) = (tmp_path / "config" / "systemd" / "user").iterdir()
    assert str(tools) in read(unit.read_bytes()).path
    # A shell that finds less changes nothing.
    assert muster(home, "doctor", "--fix", "--json", **env).value["done"] == []
    muster(home, "service", "remove", **env)


@proves("service.path-is-looked-after")
@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_what_was_written_is_read_back_and_a_python_that_is_gone_is_found(
    tmp_path, monkeypatch, platform
):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(sys, "executable", str(tmp_path / 'odd "100%" $PYTHON'))
    monkeypatch.setenv("PATH", f"{tmp_path}/a \\ b:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    manager = service.manager_of(Home(tmp_path / "home"))
    # Files are written as this system writes them.
    monkeypatch.setattr(sys, "platform", "linux")
    assert service.write(manager)
    assert not service.write(manager)
    assert read(manager.file.read_bytes()) == (sys.executable, os.environ["PATH"])
    assert "is gone" in service.faults(manager, [])[0]
    Path(sys.executable).touch()
    assert service.faults(manager, ["sh", "no-such-program"]) == []


@proves("service.path-is-looked-after")
def test_a_unit_of_an_older_muster_that_is_given_up_after_thirty_starts_is_found(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    manager = service.manager_of(Home(tmp_path / "home"))
    assert service.write(manager)
    assert service.faults(manager, []) == []
    text = manager.file.read_text()
    manager.file.write_text(text.replace("IntervalSec=0", "IntervalSec=3600\nStartLimitBurst=30"))
    assert "thirty failed starts" in service.faults(manager, [])[0]


@proves("cli.doctor-fixes")
def test_lingering_that_the_system_refused_is_not_said_to_be_done(home, tmp_path):
    env = {**scripted_systemd.put(tmp_path), "HOME": str(tmp_path)}
    env["XDG_CONFIG_HOME"] = str(tmp_path / "config")
    (tmp_path / "systemd" / "no-linger").touch()
    assert muster(home, "service", "install", **env).code == 0
    try:
        (done,) = muster(home, "doctor", "--fix", "--json", **env).value["done"]
        assert "linger" in done["what"]
        assert "`sudo loginctl enable-linger" in done["failed"]
        (tmp_path / "systemd" / "no-linger").unlink()
        (done,) = muster(home, "doctor", "--fix", "--json", **env).value["done"]
        assert (done["failed"], (tmp_path / "systemd" / "linger").exists()) == ("", True)
    finally:
        muster(home, "service", "remove", **env)


@proves("service.failure-is-said")
@pytest.mark.parametrize(
    ("said", "says"),
    [
        (("ActiveState=activating\nSubState=auto-restart\nResult=exit-code\nExecMainStatus=8\n"
         "NRestarts=12"), "fails again and again (exit 8)"),
        ("ActiveState=activating\nSubState=start\nResult=success\nNRestarts=12",
         "fails again and again"),
        ("ActiveState=activating\nSubState=auto-restart\nResult=oom-kill\nNRestarts=0",
         "failed, and is started again (oom-kill)"),
        ("ActiveState=failed\nSubState=failed\nResult=exit-code\nExecMainStatus=5",
         "failed (exit 5)"),
    ],
)  # fmt: skip
def test_a_service_that_fails_again_and_again_is_said_to_with_where_to_look(
    home, tmp_path, said, says
):
    env = {**scripted_systemd.put(tmp_path), "HOME": str(tmp_path)}
    env["XDG_CONFIG_HOME"] = str(tmp_path / "config")
    assert muster(home, "service", "install", **env).code == 0
    try:
        (tmp_path / "systemd" / "said").write_text(said)
        shown = muster(home, "service", "status", **env)
        assert shown.code == 1
        assert f"{says}, process" in shown.out
        assert "To do, to see why: `journalctl --user --unit muster-" in shown.out
        looked = muster(home, "doctor", "--json", **env).value["checks"]
        (found,) = [each for each in looked if each["name"] == "service"]
        assert (found["state"], found["text"].split(" ", 1)[1]) == ("wrong", says)
        assert found["mend"].startswith("`journalctl --user --unit muster-")
    finally:
        (tmp_path / "systemd" / "said").unlink()
        muster(home, "service", "remove", **env)


@proves("service.path-is-looked-after")
@pytest.mark.parametrize("text", ["", "<?xml nonsense", "[Service]\nExecStart=/bin/true\n"])
def test_a_file_that_is_not_ours_is_named(tmp_path, monkeypatch, text):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    manager = service.manager_of(Home(tmp_path / "home"))
    manager.file.parent.mkdir(parents=True)
    manager.file.write_text(text)
    assert "cannot be read" in service.faults(manager, [])[0]


@proves("service.unit-is-sound")
def test_a_system_service_belongs_to_the_owner_of_the_home(tmp_path):
    if os.getuid():
        pytest.skip("only root installs a service of the system")
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 65534, -1)
    manager = service.manager_of(Home(home), system=True)
    name = subprocess.run(["id", "-un", "65534"], capture_output=True, text=True, check=True)
    assert f"User={name.stdout.strip()}".encode() in manager.text()


@proves("cli.doctor-fixes")
@pytest.mark.parametrize("what", ["gone", "interpreter", "changed"])
def test_hooks_that_are_gone_or_lead_nowhere_are_written_anew(home, tmp_path, what):
    project = tmp_path / "project"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(project)]
    project.mkdir()
    for words in (["init", "-q", "-b", "main"], ["commit", "-qm", "one", "--allow-empty"]):
        subprocess.run([*git, *words], check=True)
    assert muster(home, "up", "--detach").code == 0
    assert muster(home, "repo", "add", "site", str(project)).code == 0
    repo = home / "repos" / "site.git"
    assert "repository site" not in checks(muster(home, "doctor", "--json"))
    hook = repo / "hooks" / "pre-receive"
    if what == "gone":
        hook.unlink()
    elif what == "interpreter":
        hook.write_text(hook.read_text().replace(sys.executable, "/gone/python"))
    else:
        (repo / "config").write_text("")
    assert checks(muster(home, "doctor", "--json"))["repository site"] == "wrong"
    said = muster(home, "doctor", "--fix", "--json")
    (done,) = said.value["done"]
    assert "the repository site" in done["what"]
    assert repository.guarded(repo, sys.executable)
    assert "repository site" not in checks(said)
