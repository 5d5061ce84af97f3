"""Root at work on another person's home, and a person whom the system cannot name."""

import contextlib
import os
import pwd
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import muster as muster_package
from muster.cli import context, parse
from muster.errors import Broken, Denied
from muster.node.host import lock, owner, service, systemd
from muster.node.host.home import Home
from tests.cli.world import Said, everything_in, muster
from tests.e2e import scripted_systemd
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]
THEIRS, NAMELESS = 65534, 54321
SOURCE = Path(muster_package.__file__).parent.parent
# The one of these tests, or the system's of the same version.
PYTHONS = (
    sys.executable,
    shutil.which(f"python3.{sys.version_info.minor}", path="/usr/bin:/usr/local/bin"),
)


class Other(NamedTuple):
    """A person who is not us, in a folder that is theirs alone."""

    folder: Path
    uid: int
    python: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def muster(self, *words: str) -> Said:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MUSTER_", "XDG_"))}
        done = subprocess.run(
            [self.python, "-P", "-m", "muster", *words, "--home", str(self.home)],
            env={**kept, "HOME": str(self.folder), "MUSTER_STATE": str(self.folder / "state")},
            capture_output=True, text=True, timeout=90, check=False, stdin=subprocess.DEVNULL,
            user=self.uid, extra_groups=[], cwd="/",
        )  # fmt: skip
        return Said(done.stdout, done.stderr, done.returncode)


def runs(interpreter: str, uid: int) -> bool:
    """Whether that user may start it; a developer's own lies where only they may look."""
    try:
        return not subprocess.run([interpreter, "-c", ""], user=uid, check=False).returncode
    except PermissionError:
        return False


@contextlib.contextmanager
def person(uid: int) -> Iterator[Other]:
    if os.getuid():
        pytest.skip("only root can be two persons")
    # Not in the folder of this test, which is shut to everybody else.
    folder = Path(tempfile.mkdtemp(prefix="muster-", dir="/tmp"))
    os.chown(folder, uid, uid)
    found = Other(folder, uid, folder / "python")
    try:
        interpreter = next((each for each in PYTHONS if each and runs(each, uid)), None)
        if interpreter is None:
            pytest.skip("each Python here is for root alone")
        paths = ":".join(dict.fromkeys([str(SOURCE), *(p for p in sys.path if "-packages" in p)]))
        found.python.write_text(
            f'#!/bin/sh\nPYTHONPATH={shlex.quote(paths)} exec {interpreter} "$@"\n'
        )
        found.python.chmod(0o755)
        os.chown(found.python, uid, uid)
        assert found.muster("init", "--name", "studio", "--listen", "").code == 0
        yield found
    finally:
        if found.python.exists():
            found.muster("down")
        shutil.rmtree(folder)


@pytest.fixture
def other() -> Iterator[Other]:
    with person(THEIRS) as found:
        yield found


@pytest.fixture
def keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: Other) -> Path:
    """Where the units of a scripted system lie; this process is `sudo muster`."""
    units = tmp_path / "units"
    units.mkdir()
    for name, value in scripted_systemd.put(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SCRIPTED_SYSTEM_UNITS", str(units))
    monkeypatch.setenv("MUSTER_HOME", str(other.home))
    monkeypatch.setenv("MUSTER_STATE", str(other.folder / "state"))
    monkeypatch.delenv("MUSTER_SOCK", raising=False)
    monkeypatch.setattr(systemd, "SYSTEM_UNITS", units)
    monkeypatch.setattr(sys, "executable", str(other.python))
    return units


def typed(*words: str) -> dict[str, object]:
    value, _ = context.CommandContext(parse.parse(list(words))).inside()
    return dict(value)


@proves("service.whose-home")
def test_root_installs_the_service_of_a_person_whose_daemon_runs_by_hand(
    other: Other, keeper: Path
) -> None:
    assert other.muster("up", "--detach").code == 0
    by_hand = lock.holder(Home(other.home).lock)
    kept = typed("service", "install", "--system", "--home", str(other.home))
    try:
        assert (kept["did"], kept["active"], kept["took_over"]) == ("installed", "active", by_hand)
        assert lock.holder(Home(other.home).lock) == kept["pid"] != by_hand
        assert lock.user_of(int(str(kept["pid"]))) == THEIRS
        strange = [p for p in other.folder.rglob("*") if p.lstat().st_uid != THEIRS]
        assert strange == []
    finally:
        removed = typed("service", "remove", "--system", "--home", str(other.home))
    assert removed["did"] == "removed"
    assert list(keeper.iterdir()) == []


@proves("service.whose-home")
def test_no_unit_is_written_and_nobody_ended_where_it_cannot_be_told_who_runs(
    other: Other, keeper: Path
) -> None:
    """The number in a lock is the person's to write, and root ends nobody on their word."""
    path = Home(other.home).lock
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        with lock.held(path):
            path.write_text(f"{bystander.pid}\n")
            with pytest.raises(Broken, match="cannot be told which one"):
                typed("service", "install", "--system", "--home", str(other.home))
            # We have it open, and are not whose home it is.
            path.write_text(f"{os.getpid()}\n")
            with pytest.raises(Broken, match="which is not nobody's"):
                typed("service", "install", "--system", "--home", str(other.home))
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
    assert list(keeper.iterdir()) == []


@proves("service.whose-home")
def test_the_socket_of_another_person_is_named_and_nobody_is_told_to_remove_it(
    other: Other,
) -> None:
    assert other.muster("up", "--detach").code == 0
    said = muster(other.home, "status")
    assert said.code == 4
    assert "sudo -u nobody" in said.err
    assert "remove" not in said.err


@proves("service.whose-home")
@pytest.mark.parametrize("words", ["up", "up --detach", "doctor --fix", "rebuild"])
def test_root_opens_nothing_in_the_home_of_another_person(other: Other, words: str) -> None:
    before = everything_in(other.folder)
    said = muster(other.home, *words.split())
    assert said.code == 4
    assert "sudo -u nobody" in said.err
    assert everything_in(other.folder) == before
    assert [p for p in other.folder.rglob("*") if p.lstat().st_uid != THEIRS] == []
    assert other.muster("up", "--detach").code == 0


@proves("service.whose-home")
@pytest.mark.parametrize("name", ["XDG_DATA_HOME", "XDG_STATE_HOME"])
def test_what_roots_shell_moved_moves_nothing_of_another_person(
    other: Other, keeper: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "/srv/elsewhere")
    monkeypatch.delenv("MUSTER_STATE")
    manager = service.manager_of(Home(other.home), system=True)
    theirs = Path(pwd.getpwuid(THEIRS).pw_dir)
    assert manager.service.env["MUSTER_STATE"] == str(theirs / owner.STATE)
    assert Path(Home(other.home).mark_folder).is_relative_to(theirs / owner.STATE)


@proves("service.whose-home")
def test_a_home_that_is_set_aside_by_root_takes_the_mark_of_its_person_along(
    other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MUSTER_STATE", raising=False)
    monkeypatch.setattr(owner, "folder_of", lambda uid: other.folder / str(uid))
    mark = Path(Home(other.home).mark_folder)
    assert mark.is_relative_to(other.folder / str(THEIRS))
    mark.mkdir(parents=True)
    aside = Home(other.home).set_aside()
    assert aside.is_dir()
    assert not mark.exists()


@proves("service.whose-home")
def test_a_folder_that_a_container_was_handed_is_ours_where_the_keys_are(other: Other) -> None:
    os.chown(other.home / "seed", os.getuid(), -1)
    assert owner.stranger(other.home) is None
    os.chown(other.home / "seed", THEIRS, -1)
    assert owner.stranger(other.home) == THEIRS
    with pytest.raises(Denied, match="sudo -u nobody "):
        owner.require_own(other.home, "up")


@proves("service.nameless")
def test_a_user_whom_the_system_cannot_name_has_a_daemon_and_no_service_of_the_system() -> None:
    with person(NAMELESS) as nameless:
        for words, code in (
            ("up --detach", 0), ("status", 0), ("doctor --dry-run", 0), ("service status", 1),
            ("down", 0),
        ):  # fmt: skip
            said = nameless.muster(*words.split())
            assert said.code in (code, code and 5), (words, said)
        said = nameless.muster("service", "install", "--system")
        assert said.code == 5
        assert f"the user {NAMELESS} has no name" in said.err
