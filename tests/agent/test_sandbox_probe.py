"""A machine says whether it can enclose an attempt by enclosing one that tries to get out."""

import os
import tempfile
from pathlib import Path

import pytest
from tests.agent import enclosed
from tests.agent.enclosed import BWRAP, DROPPED
from tests.promise import proves

from muster.agent.sandbox.probe import probe


@pytest.fixture(autouse=True)
def _sandbox():
    enclosed.require("user")


def tried(program=BWRAP):
    return probe(str(program), DROPPED if enclosed.is_root() else 0)


def in_the_place_of(folder, text):
    program = folder / "bwrap"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    # Whoever runs it has to get there, however deep the folders of tests are.
    for each in (folder, *folder.parents):
        if each == Path(tempfile.gettempdir()):
            break
        each.chmod(0o755)
    return program


@proves("enclosure.probe")
def test_a_machine_that_can_says_nothing_and_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert tried() == ""
    assert list(tmp_path.iterdir()) == []


@proves("enclosure.probe")
def test_a_machine_without_bubblewrap_says_so(tmp_path):
    assert "install the package bubblewrap" in tried(tmp_path / "bwrap")


@proves("enclosure.probe")
def test_a_bubblewrap_that_fails_is_quoted(tmp_path):
    assert "it broke" in tried(in_the_place_of(tmp_path, "echo it broke >&2; exit 1"))


@proves("enclosure.probe")
def test_what_a_bubblewrap_that_fails_had_begun_is_ended_with_it(tmp_path):
    """It holds the pipes, and would be waited for."""
    mark = f"8{os.getpid():09}"
    begun = f"subprocess.Popen(['sleep', '{mark}'])"
    text = f"exec {enclosed.PYTHON} -c \"import subprocess, sys; {begun}; sys.exit('it broke')\""
    assert "it broke" in tried(in_the_place_of(tmp_path, text))
    assert not [pid for pid in pids() if mark.encode() in command_of(pid)]


def pids():
    return [each.name for each in Path("/proc").glob("[0-9]*")]


def command_of(pid):
    try:
        return Path("/proc", pid, "cmdline").read_bytes()
    except OSError:
        return b""


# What another bubblewrap might leave out, how many words it is, and what is found of it.
LEFT_OUT = {
    "--seccomp": (2, "no filter of system calls is set"),
    "--unshare-net": (1, "its net namespace is the machine's own"),
    "--clearenv": (1, ""),
    ".git/": (0, "settings of a repository can be written"),
}


@proves("enclosure.probe")
@pytest.mark.parametrize("what", LEFT_OUT)
def test_a_sandbox_that_does_not_hold_is_found(tmp_path, what):
    """Arguments go through a file: a program in the place of bubblewrap takes some out."""
    count, says = LEFT_OUT[what]
    program = in_the_place_of(tmp_path, "")
    program.write_text(FILTER.format(python=enclosed.PYTHON, bwrap=BWRAP, what=what, count=count))
    said = tried(program)
    assert says in said
    assert bool(said) == bool(says)


FILTER = """#!{python}
import os, sys
what, count, at = b"{what}", {count}, int(sys.argv[2])
raw = b""
while data := os.read(at, 1 << 20):
    raw += data
words = raw.split(b"\\0")[:-1]
if count:
    where = words.index(what)
    del words[where : where + count]
else:
    while any(what in word for word in words):
        where = next(number for number, word in enumerate(words) if what in word)
        del words[where - 1 : where + 2]
other = os.memfd_create("x", 0)
os.write(other, b"".join(word + b"\\0" for word in words))
os.lseek(other, 0, 0)
os.set_inheritable(other, True)
os.execve("{bwrap}", ["bwrap", "--args", str(other), *sys.argv[3:]], {{}})
"""


@proves("enclosure.probe")
def test_nothing_is_asked_of_a_machine_that_is_not_linux(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    assert "Linux only" in probe("/nowhere", 0)


def test_the_script_of_probes_looks_for_more_than_ten_things():
    text = Path(probe.__code__.co_filename).read_text(encoding="utf-8")
    assert text.count('got "') >= 15
