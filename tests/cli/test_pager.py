"""What is longer than the screen: through a pager on a terminal, and nowhere else."""

import os
import sys
from pathlib import Path

import pytest

from muster.cli import context, parse
from tests.cli.terminal import Terminal
from tests.cli.world import environment, muster
from tests.promise import proves

LONG, SHORT = ["help", "--all"], ["help"]


def shown(folder: Path, *words: str, rows: int = 24, **more: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "muster", *words]
    with Terminal(command, environment(folder / "none", **more), rows=rows) as terminal:
        return terminal.end(), terminal.text.replace("\r\n", "\n")


@pytest.fixture
def pager(tmp_path) -> str:
    """A pager that says that it had the text, and what it was told."""
    script = tmp_path / "pager"
    script.write_text('#!/bin/sh\necho "PAGED LESS=$LESS $*"; cat\n')
    script.chmod(0o755)
    return str(script)


@proves("cli.pager")
def test_what_does_not_fit_on_the_screen_goes_through_the_persons_pager(tmp_path, pager):
    whole = muster(tmp_path, *LONG).out
    assert "PAGED" not in whole
    for more in ({"PAGER": f"{pager} -x"}, {"MUSTER_PAGER": f"{pager} -x", "PAGER": "false"}):
        code, text = shown(tmp_path, *LONG, LESS="", **more)
        assert (code, text.startswith("PAGED LESS= -x\n")) == (0, True)
        assert text.endswith(whole)
    assert shown(tmp_path, *SHORT, MUSTER_PAGER=pager) == (0, muster(tmp_path, *SHORT).out)
    assert "PAGED" not in shown(tmp_path, *LONG, rows=200, MUSTER_PAGER=pager)[1]
    assert "PAGED" in shown(tmp_path, *SHORT, rows=10, MUSTER_PAGER=pager)[1]


@proves("cli.pager")
@pytest.mark.parametrize("named", ["", "cat", "no-such-pager", "'", "true", "head -n 1"])
def test_no_pager_and_one_that_is_left_early_are_no_error(tmp_path, named):
    code, text = shown(tmp_path, *LONG, MUSTER_PAGER=named)
    assert (code, "Traceback" in text) == (0, False)
    if named not in ("true", "head -n 1"):
        assert text == muster(tmp_path, *LONG).out


@proves("cli.pager")
def test_it_can_be_left_out_and_a_dumb_terminal_gets_none(tmp_path, pager):
    for words, more in (([*LONG, "--no-pager"], {}), (LONG, {"TERM": "dumb"})):
        code, text = shown(tmp_path, *words, MUSTER_PAGER=pager, **more)
        assert (code, "PAGED" in text) == (0, False)


@proves("cli.pager")
def test_less_is_the_usual_one_and_keeps_the_exit_code(tmp_path):
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "less").write_text('#!/bin/sh\necho "less with $LESS"; cat; exit 3\n')
    (bin / "less").chmod(0o755)
    env = {k: v for k, v in environment(tmp_path / "none").items() if k not in ("PAGER", "LESS")}
    env["PATH"] = f"{bin}{os.pathsep}{env['PATH']}"
    (tmp_path / "long.yaml").write_text("muster: 1\nname: x\nnope: 1\n")
    command = [sys.executable, "-m", "muster", "check", str(tmp_path / "long.yaml"), "--alone"]
    with Terminal(command, env, rows=2) as terminal:
        assert terminal.end() == 1
        assert "less with FRX" in terminal.text


@proves("cli.pager")
@pytest.mark.e2e
def test_an_answer_of_a_daemon_is_paged_and_json_is_not(tmp_path, pager):
    home = tmp_path / "home"
    muster(home, "init", "--listen", "", "--name", "hub")
    assert muster(home, "up", "--detach").code == 0
    try:
        for words, paged in ((["status"], True), (["status", "--json"], False)):
            env = environment(home, MUSTER_PAGER=pager)
            with Terminal([sys.executable, "-m", "muster", *words], env, rows=3) as terminal:
                assert terminal.end() == 0
                assert ("PAGED" in terminal.text) is paged
    finally:
        muster(home, "down")


@proves("cli.hints")
@pytest.mark.e2e
def test_what_may_be_typed_next_is_told_at_a_terminal_alone(tmp_path):
    (tmp_path / "good.yaml").write_text(
        "muster: 1\nname: good\nphases:\n  a:\n    agent: shell\n    do: ls\n    check: 'true'\n"
    )
    home = tmp_path / "home"
    muster(home, "init", "--listen", "", "--name", "hub")
    assert muster(home, "up", "--detach").code == 0
    words = ["check", str(tmp_path / "good.yaml")]
    try:
        with Terminal([sys.executable, "-m", "muster", *words], environment(home)) as terminal:
            assert terminal.end() == 0
            assert "`muster run` with the same file runs it" in terminal.text
        said = muster(home, *words)
        assert (said.code, said.err, "muster run" in said.out) == (0, "", False)
    finally:
        muster(home, "down")


@proves("cli.pager")
@pytest.mark.parametrize(
    ("words", "paged"),
    [
        (["tasks"], True),
        (["tasks", "--no-pager"], False),
        (["tail"], False),
        (["logs", "t"], False),
    ],
)
def test_what_comes_piece_by_piece_is_shown_as_it_comes(words, paged, monkeypatch):
    told = []
    monkeypatch.setattr(context.pager, "put", lambda _, *, paged: told.append(paged))
    monkeypatch.setattr(context.show, "text", lambda *_: "a text")
    context.CommandContext(parse.parse(words)).show([])
    assert told == [paged]
