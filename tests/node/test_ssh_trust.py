"""`muster ssh trust`: one line of a person's file, one program, and nothing else."""

import subprocess
from pathlib import Path

import pytest
from tests.promise import proves

from muster.errors import Conflict, NotFound
from muster.fleet.ssh_certificate import PROGRAM, principal
from muster.node.host.home import Home
from muster.node.host.ssh_trust import Trust

FLEET, CA = "f" * 64, "ssh-ed25519 AAAAthekey"
OTHERS = "# mine, \u2028 \x0c \x85 and all\nssh-ed25519 AAAAmine me@laptop\n\ncert-authority ssh-ed25519 AAAAwork work\n"


@pytest.fixture
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def trust(person: Path, name: str = "home") -> Trust:
    home = Home(person / name)
    home.create()
    return Trust(home)


def line(*machines: str) -> str:
    names = ",".join(map(principal, machines))
    return f'cert-authority,principals="{names}",restrict {CA} muster-fleet-{FLEET}\n'


@proves("ssh.trust")
def test_one_line_is_added_and_followed_and_taken_and_all_else_stays(person: Path):
    given = trust(person)
    keys = person / ".ssh" / "authorized_keys"
    keys.parent.mkdir(mode=0o700)
    keys.write_text(OTHERS)
    keys.chmod(0o640)
    assert not given.is_given
    assert given.give(FLEET, CA, ["a", "b"]) == keys
    assert given.is_given
    assert keys.read_text() == OTHERS + line("a", "b")
    assert keys.stat().st_mode & 0o777 == 0o640
    keys.write_text(line("a", "b") + OTHERS)
    given.follow(FLEET, CA, ["a"])
    assert keys.read_text() == line("a") + OTHERS
    given.follow(FLEET, CA, [])
    assert keys.read_text() == line("nobody") + OTHERS
    given.give(FLEET, CA, ["c"])
    assert keys.read_text() == line("c") + OTHERS
    assert given.take(FLEET) == keys
    assert keys.read_text() == OTHERS
    assert not given.is_given
    assert not (person / PROGRAM).exists()
    with pytest.raises(NotFound):
        given.take(FLEET)


@proves("ssh.trust")
def test_where_there_is_no_file_it_is_made_for_its_person_alone(person: Path):
    file = trust(person).give(FLEET, CA, ["a"])
    assert file.read_text() == line("a")
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


@proves("ssh.trust")
def test_a_line_that_the_person_took_away_does_not_come_back_by_itself(person: Path):
    given = trust(person)
    file = given.give(FLEET, CA, ["a"])
    file.write_text(OTHERS)
    given.follow(FLEET, CA, ["a", "b"])
    assert file.read_text() == OTHERS


@proves("ssh.trust")
def test_a_link_to_the_file_stays_one(person: Path):
    real = person / "kept"
    real.write_text(OTHERS)
    (person / ".ssh").mkdir()
    (person / ".ssh" / "authorized_keys").symlink_to(real)
    trust(person).give(FLEET, CA, ["a"])
    assert (person / ".ssh" / "authorized_keys").is_symlink()
    assert real.read_text() == OTHERS + line("a")


@proves("ssh.trust")
def test_the_program_serves_one_home_and_is_never_taken_from_another(person: Path):
    given, other = trust(person), trust(person, "other home's")
    given.give(FLEET, CA, ["a"])
    program = person / PROGRAM
    before = program.read_text()
    assert program.stat().st_mode & 0o111
    with pytest.raises(Conflict, match="another home"):
        other.give(FLEET, CA, ["a"])
    assert program.read_text() == before
    given.take(FLEET)
    other.give(FLEET, CA, ["a"])
    # A home whose name holds what a shell would read is one word to it.
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert f"no machine lives in {person}/other home's" in done.stderr
