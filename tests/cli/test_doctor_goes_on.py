"""A home in which something is damaged is looked at whole."""

import os
from pathlib import Path
from typing import Any

import pytest

from muster.errors import Broken
from muster.node.host.home import Home
from muster.verbs import doctor
from muster.verbs.checks import tried
from tests.cli.world import muster
from tests.promise import proves

OTHERS = {"SQLite", "git", "home", "home's mode", "socket", "disk"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    assert muster(path, "init", "--name", "studio", "--listen", "").code == 0
    return path


def looked_at(home: Path) -> dict[str, Any]:
    said = muster(home, "doctor", "--json")
    assert said.code == 1, said.err
    return {each["name"]: each for each in said.value["checks"]}


@proves("cli.doctor-goes-on", "node.damaged-home")
@pytest.mark.parametrize(
    ("file", "content", "check", "text"),
    [
        ("fleet.json", b"{}", "configuration", "missing required field"),
        ("fleet.json", b'{"fleet": 3}', "configuration", "Expected `str`"),
        ("fleet.json", None, "configuration", "fleet.json cannot be read"),
        ("config.toml", None, "configuration", "config.toml cannot be read"),
        ("config.toml", b"nmae = 1", "configuration", "is not a setting"),
        ("seed", None, "seed", "seed cannot be read"),
        ("seed", b"short", "seed", "damaged"),
        ("agents.json", None, "agents", "agents.json"),
        ("agents.json", b"[", "agents", "agents.json"),
        ("agents.env", b"\xff", "agents", "agents.env"),
        ("lock", None, "daemon", ""),
        ("repos", b"x", "repos", "is no folder"),
    ],
)
def test_whatever_is_damaged_every_other_check_is_made(home, file, content, check, text):
    path = home / file
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
        path.chmod(0o600)
    checks = looked_at(home)
    assert set(checks) >= OTHERS
    # Each mistake is said once, whichever other checks met it.
    wrong = [each["text"] for each in checks.values() if each["state"] == "wrong"]
    assert len(set(wrong)) == len(wrong)
    if file == "config.toml":
        assert "not looked at" in checks["sandbox"]["text"]
        assert checks["sandbox"]["state"] == checks["agents"]["state"] == "note"
    assert checks[check]["state"] == "wrong"
    assert text in checks[check]["text"]
    fixed = muster(home, "doctor", "--dry-run", "--json")
    assert fixed.code == 1, fixed.err


@proves("cli.doctor-goes-on", "node.damaged-home")
def test_a_record_that_is_none_is_named_with_its_file(home):
    facts = Home(home).facts()
    Home(home).put_facts({**facts, "record": "nobody signed this"})
    found = looked_at(home)["configuration"]["text"]
    assert found.startswith(f"{home}/fleet.json is damaged (`record`: ")
    assert muster(home, "up").err.startswith(f"muster: {home}/fleet.json is damaged")


@proves("cli.doctor-goes-on")
@pytest.mark.parametrize(
    ("error", "text"),
    [(KeyError("x"), "could not be looked at (KeyError: 'x')"), (Broken("it is"), "it is"),
     (IsADirectoryError(21, "Is a directory", "/a"), "'/a'"), (ValueError("no"), "ValueError")],
)  # fmt: skip
def test_a_check_that_cannot_be_made_is_one_line(error, text):
    def look() -> Any:
        yield doctor.Check("first", "ok", "found")
        raise error

    first, second = tried("links", "", look)
    assert (first.name, second.name, second.state) == ("first", "links", "wrong")
    assert text in second.text


@proves("cli.doctor-goes-on")
def test_doctor_says_whose_a_home_of_another_user_is(home, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: home.stat().st_uid + 4_321)
    (found,) = doctor._whose(Home(home))
    assert (found.state, found.text.startswith(f"{home} belongs to ")) == ("note", True)

    def closed(self: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "exists", closed)
    (found,) = doctor._of_home(Home(home))
    assert (found.state, "cannot be entered" in found.text) == ("wrong", True)
    assert "belongs to" in found.mend
    assert "be that user, or give another home with --home" in found.mend
