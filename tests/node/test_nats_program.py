"""Which nats-server is run, and which never."""

import re
import subprocess
from pathlib import Path

import pytest
from tests.promise import proves

from muster.errors import Broken
from muster.extra import bring
from muster.node.engine import program


def put(folder: Path, says: str) -> str:
    """A program that says a version."""
    return written(folder, f"#!/bin/sh\necho '{says}'\n")


def written(folder: Path, text: str) -> str:
    """Written by another process: what is open here for writing, when another thread forks, cannot be run."""
    folder.mkdir(exist_ok=True)
    path = str(folder / "nats-server")
    write = 'cat > "$1" && chmod 700 "$1"'
    subprocess.run(["sh", "-c", write, "-", path], input=text.encode(), check=True)
    return path


@proves("node.nats-program")
def test_it_is_the_one_that_was_named_or_came_with_the_extra_or_is_on_path(tmp_path, monkeypatch):
    named, given, on_path = (put(tmp_path / each, "nats-server: v2.15.1") for each in "abc")
    environ = {"PATH": str(tmp_path / "c"), program.VARIABLE: given}
    assert program.find(named, environ) == named
    assert program.find("", environ) == given
    del environ[program.VARIABLE]
    monkeypatch.setattr(program, "_beside", lambda: named)
    assert program.find("", environ) == named
    monkeypatch.setattr(program, "_beside", lambda: None)
    assert program.find("", environ) == on_path
    with pytest.raises(Broken, match=re.escape(f"not installed: {bring('nats')}")):
        program.find("", {"PATH": str(tmp_path / "none")})
    for wrong in (str(tmp_path / "none"), "no-such-program"):
        with pytest.raises(Broken, match="there is no program"):
            program.find(wrong, environ)


@proves("node.nats-program")
def test_the_one_of_the_extra_is_found_without_path_and_is_new_enough():
    pytest.importorskip("nats", reason="pip install 'muster-fleet[nats]'")
    found = program.find("", {"PATH": ""})
    assert tuple(map(int, program.check_version(found).split("."))) >= program.VERSION_MIN


@proves("node.nats-program")
@pytest.mark.parametrize(
    ("says", "why"),
    [
        ("nats-server: v2.9.10", "nats-server 2.9.10, and at least 2.15.1 is needed"),
        ("nats-server: v2.15.0", "2.15.0, and at least"),
        ("nats-server: v1.99.99", "1.99.99, and at least"),
        ("hello", "does not say which"),
        ("", "does not say which"),
    ],
)
def test_an_older_one_and_what_is_none_is_refused_by_what_it_says(tmp_path, says: str, why: str):
    with pytest.raises(Broken, match=why):
        program.check_version(put(tmp_path / "a", says))


@proves("node.nats-program")
def test_a_newer_one_is_taken_and_one_that_cannot_run_is_said(tmp_path, monkeypatch):
    for version in ("2.15.1", "2.15.10", "2.16.0", "3.0.0"):
        assert program.check_version(put(tmp_path / "a", f"nats-server: v{version}")) == version
    with pytest.raises(Broken, match="cannot be run"):
        program.check_version(written(tmp_path / "a", "#!/no/such/program\n"))
    monkeypatch.setattr(program, "_SAYS_S", 0.2)
    with pytest.raises(Broken, match="cannot be run"):
        program.check_version(written(tmp_path / "a", "#!/bin/sh\nexec sleep 60\n"))
