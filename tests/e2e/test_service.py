"""The daemon as a service: under a scripted systemd everywhere, under a real one where one runs."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.cli.world import LIMIT_S, Said
from tests.e2e import scripted_systemd
from tests.ports import free_port
from tests.promise import proves

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parent.parent.parent
# A name that means something to every program that does not quote it.
ODD = 'my "own" 100% home$HOME'
SYSTEMD = Path("/lib/systemd/systemd")


class Person(NamedTuple):
    """Somebody whose systemd answers: where it runs, and the variables of that place."""

    folder: Path
    env: dict[str, str]
    before: tuple[str, ...] = ()

    def run(self, *words: str) -> Said:
        done = subprocess.run(
            [*self.before, *words], env=self.env, capture_output=True, text=True, timeout=LIMIT_S,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        return Said(done.stdout, done.stderr, done.returncode)

    def muster(self, *words: str) -> Said:
        return self.run(sys.executable, "-m", "muster", *words)

    def ask(self, *words: str) -> Any:
        said = self.muster(*words, "--json")
        assert said.code == 0, said.err
        return json.loads(said.out)

    def asked(self) -> list[str]:
        return (self.folder / "systemd" / "asked").read_text().splitlines()


def person(folder: Path, **more: str) -> Person:
    """With a machine in a home of an odd name, and nothing of who runs the tests."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MUSTER_", "XDG_"))}
    found = Person(
        folder,
        {
            **kept,
            "HOME": str(folder),
            "MUSTER_HOME": str(folder / ODD),
            "MUSTER_STATE": str(folder / "state of it"),
            "XDG_CONFIG_HOME": str(folder / "config"),
            **more,
        },
    )
    listen = f"127.0.0.1:{free_port()}"
    words = ("--name", "studio", "--operator", "alice", "--listen", listen, "--no-sandbox")
    said = found.muster("init", *words)
    assert said.code == 0, said.err
    return found


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[Person]:
    found = person(tmp_path, **scripted_systemd.put(tmp_path))
    yield found
    found.muster("down")


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Person]:
    """A real systemd of a person, in a mount namespace whose /run says that the system has one."""
    if not SYSTEMD.exists() or os.getuid() or shutil.which("nsenter") is None:
        pytest.skip("a systemd of one's own takes systemd, nsenter and root")
    runtime = "/run/user/0"
    script = (
        f"mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system {runtime} && "
        f"chmod 700 {runtime} && exec {SYSTEMD} --user"
    )
    found = person(tmp_path, XDG_RUNTIME_DIR=runtime, XDG_DATA_HOME=str(tmp_path / "data"))
    keeper = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script], env=found.env, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    inside = found._replace(before=("nsenter", f"--target={keeper.pid}", "--mount"))
    try:
        for _ in range(100):
            if keeper.poll() is not None or not inside.run("systemctl", "--user", "is-active").err:
                break
            time.sleep(0.1)
        if inside.run("systemctl", "--user", "show-environment").code:
            pytest.skip("systemd does not run in a namespace of this sandbox")
        yield inside
        inside.muster("service", "remove")
    finally:
        keeper.terminate()
        keeper.wait(30)


def lives(pid: int) -> bool:
    """Whether a process runs; one that ended may stay until somebody asks for its exit code."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def wait_for(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.05)


@proves("service.runs-the-daemon")
def test_a_service_that_is_installed_runs_the_daemon_of_a_home_of_any_name(scripted: Person):
    kept = scripted.ask("service", "install")
    assert (kept["did"], kept["active"], kept["enabled"]) == ("installed", "active", True)
    status = scripted.ask("status")
    assert (status["name"], status["process"]["pid"]) == ("studio", kept["pid"])
    # The variables of the daemon that was started are those of the shell: its PATH, its state.
    env = Path(f"/proc/{kept['pid']}/environ").read_bytes().split(b"\0")
    assert f"PATH={scripted.env['PATH']}".encode() in env
    assert f"MUSTER_STATE={scripted.env['MUSTER_STATE']}".encode() in env
    shown = scripted.muster("service", "status")
    assert shown.code == 0
    assert str(kept["pid"]) in shown.out
    assert "journalctl --user --unit muster-" in shown.out


@proves("service.takes-over")
def test_a_daemon_that_runs_by_hand_gives_way_to_the_service_and_nothing_is_done_twice(
    scripted: Person,
):
    by_hand = scripted.ask("up", "--detach")["pid"]
    kept = scripted.ask("service", "install")
    assert kept["took_over"] == by_hand != kept["pid"]
    assert not lives(by_hand)
    before = len(scripted.asked())
    again = scripted.ask("service", "install")
    assert (again["did"], again["pid"]) == ("nothing", kept["pid"])
    changing = {"restart", "enable", "daemon-reload", "disable"}
    assert not [line for line in scripted.asked()[before:] if changing & set(line.split())]


@proves("service.takes-over")
def test_what_is_started_by_hand_is_started_by_the_service_that_is_there(scripted: Person):
    kept = scripted.ask("service", "install")
    down = scripted.ask("down")
    assert (down["pid"], down["service"]) == (kept["pid"], kept["name"])
    shown = scripted.muster("service", "status")
    assert shown.code == 1
    up = scripted.ask("up", "--detach")
    assert up["pid"] == scripted.ask("service", "status")["pid"] != kept["pid"]


@proves("service.removed")
def test_a_service_that_is_removed_leaves_nothing_behind_and_the_home_as_it_was(scripted: Person):
    kept = scripted.ask("service", "install")
    removed = scripted.ask("service", "remove")
    assert (removed["did"], removed["installed"]) == ("removed", False)
    assert not Path(kept["file"]).exists()
    assert not lives(kept["pid"])
    assert scripted.ask("service", "remove")["did"] == "nothing"
    assert scripted.ask("up", "--detach")["pid"]


@proves("service.without-a-login")
@pytest.mark.parametrize("may", [True, False])
def test_a_service_lingers_or_says_what_lets_it(scripted: Person, may: bool):
    if not may:
        (scripted.folder / "systemd" / "no-linger").touch()
    kept = scripted.ask("service", "install")
    assert (scripted.folder / "systemd" / "linger").exists() is may
    assert [each for each in kept["to_do"] if "sudo loginctl enable-linger" in each] == (
        [] if may else kept["to_do"]
    )
    assert bool(kept["to_do"]) is not may
    # Nobody sits before polkit's question, which would hold the command for half a minute.
    assert "loginctl --no-ask-password enable-linger" in scripted.asked()


@proves("service.where-systemd-reads")
def test_a_unit_lies_where_systemd_reads_it_whatever_the_shell_says(scripted: Person):
    folder = scripted.folder / "elsewhere" / "systemd" / "user"
    (scripted.folder / "systemd" / "units").write_text(str(folder))
    kept = scripted.ask("service", "install")
    assert Path(kept["file"]).parent == folder
    assert not (scripted.folder / "config").exists()
    assert scripted.ask("service", "remove")["did"] == "removed"
    assert list(folder.iterdir()) == []


@proves("service.where-systemd-reads", "service.removed")
@pytest.mark.parametrize("words", ["service remove", "service install"])
def test_a_unit_that_systemd_does_not_know_is_taken_away_all_the_same(scripted: Person, words: str):
    stray = Path(scripted.ask("service", "install")["file"])
    scripted.ask("down")
    wanted = stray.parent / "default.target.wants" / stray.name
    wanted.parent.mkdir()
    wanted.symlink_to(stray)
    folder = scripted.folder / "elsewhere" / "systemd" / "user"
    (scripted.folder / "systemd" / "units").write_text(str(folder))
    assert scripted.ask(*words.split())["did"] in ("removed", "installed", "restarted")
    assert not stray.exists()
    assert not wanted.is_symlink()
    if words == "service install":
        kept = scripted.ask("service", "status")
        assert (kept["active"], Path(kept["file"]).parent) == ("active", folder)
        scripted.ask("service", "remove")


@proves("service.where-systemd-reads", "service.removed")
def test_the_unit_of_a_home_that_came_to_a_container_is_a_file_that_goes(scripted: Person):
    stray = Path(scripted.ask("service", "install")["file"])
    (scripted.folder / "systemd" / "away").touch()
    said = scripted.muster("service", "remove")
    assert said.code == 0, said
    assert "only the file of the service is taken away" in said.err
    assert not stray.exists()
    assert "not running" in scripted.muster("down").out


@proves("service.refused-where-none")
def test_where_no_systemd_answers_one_sentence_says_so_and_nothing_is_changed(scripted: Person):
    (scripted.folder / "systemd" / "away").touch()
    up = scripted.ask("up", "--detach")["pid"]
    said = scripted.muster("service", "install")
    assert said.code == 5
    assert len(said.err.strip().splitlines()) == 1
    assert "`muster up --detach`" in said.err
    assert not (scripted.folder / "config").exists()
    assert scripted.ask("status")["process"]["pid"] == up


@proves("service.failure-is-said")
def test_a_daemon_that_does_not_start_under_the_service_is_said_with_where_to_look(
    scripted: Person,
):
    Path(scripted.env["MUSTER_HOME"], "config.toml").write_text("slots = 'many'\n")
    said = scripted.muster("service", "install")
    assert said.code == 8
    assert "journalctl --user --unit muster-" in said.err


@proves("service.runs-the-daemon", "service.failure-is-said", "service.removed")
@proves("service.fallen-is-told")
def test_a_real_systemd_runs_the_daemon_begins_it_again_and_removes_it(real: Person):
    kept = real.ask("service", "install")
    assert (kept["active"], kept["enabled"]) == ("active", True)
    assert real.ask("status")["process"]["pid"] == kept["pid"]
    # A daemon that dies is started again.
    os.kill(kept["pid"], 9)
    wait_for(lambda: _runs(real, kept["pid"]), 90)
    assert real.ask("status")["name"] == "studio"
    # One that was told to end stays down.
    real.ask("down")
    assert real.muster("service", "status").code == 1
    assert len(_failures(real)) == 1, "the one that died, and not the one that was told to end"
    assert real.ask("up", "--detach")["pid"] == real.ask("service", "status")["pid"]
    file = Path(kept["file"])
    # One that fails is tried for ever, and said to fail.
    limit = real.run("systemctl", "--user", "show", file.name, "--property=StartLimitIntervalUSec")
    assert limit.out.strip() == "StartLimitIntervalUSec=0"
    Path(real.env["MUSTER_HOME"], "config.toml").write_text("slots = 'many'\n")
    os.kill(real.ask("service", "status")["pid"], 9)
    wait_for(lambda: "(exit 8)" in real.muster("service", "status").out, 90)
    assert "see why: `journalctl --user" in real.muster("service", "status").out
    assert len(_failures(real)) == 3
    assert real.ask("service", "remove")["did"] == "removed"
    assert not file.exists()
    assert real.run("systemctl", "--user", "cat", file.name).code != 0


def _failures(real: Person) -> list[int]:
    """When what tells people of an end heard of a failure."""
    past = json.loads(Path(real.env["MUSTER_HOME"], "fallen.json").read_text())
    return list(past["failed_ms"])


def _runs(real: Person, other_than: int) -> bool:
    said = real.muster("service", "status", "--json")
    return said.code == 0 and json.loads(said.out)["pid"] not in (0, other_than)
