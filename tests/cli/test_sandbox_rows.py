"""What doctor, `init` and `join` say of whether work is enclosed here."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from muster.cli.show import setup as screen
from muster.node.host.config import read_config, with_setting
from muster.node.host.enclosing import Enclosing, System
from muster.node.host.home import Home
from muster.verbs import sandbox_checks, setup
from muster.verbs.checks import Check
from muster.verbs.sandbox_checks import of_sandbox
from tests.cli.world import muster
from tests.promise import proves

FORBIDDEN = "bwrap: No permissions to create new namespace"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """With a program on its PATH that stands for bubblewrap."""
    home = Home(tmp_path / "home")
    home.create()
    (tmp_path / "bwrap").write_text("#!/bin/sh\n")
    (tmp_path / "bwrap").chmod(0o755)
    home.put("config.toml", f'path = "{tmp_path}"\nsandbox.default = "on"\n'.encode())
    return home


def row(home: Home, monkeypatch: pytest.MonkeyPatch, said: str = "", more: str = "") -> Check:
    made = lambda: Enclosing(lambda *_: said, lambda: System("linux", apparmor=bool(said)))  # noqa: E731
    monkeypatch.setattr(sandbox_checks, "Enclosing", made)
    text = (home.path / "config.toml").read_text()
    home.put("config.toml", f"{text}{more}\n".encode())
    (found,) = of_sandbox(home)
    return found


@proves("openings.said-to-people", "cli.doctor")
def test_doctor_says_what_encloses_work_here(home, monkeypatch):
    found = row(home, monkeypatch)
    assert (found.state, found.mend) == ("ok", "")
    assert f"work is enclosed by {home.path.parent}/bwrap" in found.text
    assert "(`sandbox: off`) is not" in found.text
    assert "sandbox: off" not in row(home, monkeypatch, more='sandbox.off = "refuse"').text


@proves("openings.said-to-people", "cli.doctor")
def test_a_machine_that_should_enclose_and_cannot_is_wrong_and_is_told_what_helps(
    home, monkeypatch
):
    home.put_seed("seed", bytes(32))
    found = row(home, monkeypatch, FORBIDDEN)
    assert found.state == "wrong"
    assert "work cannot be enclosed: AppArmor" in found.text
    assert "/etc/apparmor.d" in found.mend
    # Who has no slots has no work to enclose.
    assert row(home, monkeypatch, FORBIDDEN, "slots = 0").state == "note"


@proves("openings.said-to-people", "cli.doctor")
def test_a_machine_without_bubblewrap_is_told_its_package(home, monkeypatch):
    (home.path.parent / "bwrap").unlink()
    found = row(home, monkeypatch)
    assert "bubblewrap is not installed" in found.text
    assert "install the package bubblewrap" in found.mend


@proves("openings.said-to-people", "cli.doctor")
def test_an_owner_who_has_work_run_without_is_reminded_of_it(home, monkeypatch):
    config = home.path / "config.toml"
    config.write_text(with_setting(config.read_text(), "sandbox.default", "off"))
    found = row(home, monkeypatch)
    assert found.state == "note"
    assert "runs without one: it is as powerful as you are" in found.text
    assert "finds none" not in found.text
    assert "finds none: AppArmor" in row(home, monkeypatch, FORBIDDEN).text


@proves("openings.said-to-people")
@pytest.mark.parametrize(
    ("words", "default", "says"),
    [((), "on", "work is enclosed here"), (("--no-sandbox",), "off", "runs without one (--no-sandbox)")],
)  # fmt: skip
def test_init_says_in_a_line_whether_work_is_enclosed_and_writes_down_what_it_was_told(
    tmp_path, words, default, says, monkeypatch
):
    enclosing = Enclosing(lambda *_: "", lambda: System("linux"))
    monkeypatch.setattr(sandbox_checks, "Enclosing", lambda: enclosing)
    monkeypatch.setattr("muster.node.host.enclosing.program_of", lambda *_: "/usr/bin/bwrap")
    monkeypatch.setattr(setup, "_agents", lambda *_: ({}, []))
    context: Any = SimpleNamespace(home=Home(tmp_path / "home"), say=print)
    begun: Any = setup.init(context, setup.Init(listen="", name="a", no_sandbox=bool(words)))
    value = {name: getattr(begun, name) for name in begun.__struct_fields__}
    (line,) = [each for each in screen.init(value, {}).splitlines() if "sandbox" in each]
    assert says in line
    assert Home(tmp_path / "home").config().sandbox.default == default


@proves("openings.said-to-people")
def test_a_machine_that_cannot_enclose_hears_it_when_it_is_made(tmp_path):
    said = muster(tmp_path / "home", "init", "--listen", "", PATH=str(tmp_path), SHELL="/bin/false")
    assert said.code == 0, said.err
    assert "bubblewrap is not installed: this machine gets no work before" in said.out
    joined = {"name": "a", "hub": "b", "roles": (), "home": "h", "fleet": "f" * 64, "started": ""}
    shown = screen.join({**joined, "sandbox": "off: bubblewrap is not installed"}, {})
    assert "work that asks for none runs without one (--no-sandbox)" in shown


def test_what_the_option_writes_is_what_the_file_may_say(tmp_path):
    assert read_config({"sandbox": {"default": "off"}}, tmp_path).sandbox == setup._sandbox(
        setup.Init(no_sandbox=True)
    )
