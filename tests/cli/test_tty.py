"""`muster tty`: a terminal here that is one there."""

import fcntl
import json
import struct
import sys
import termios

import pytest

from tests.cli.terminal import LIMIT_S, Terminal
from tests.cli.test_remote import in_persons_home, journal
from tests.cli.test_two_homes import Pair, runs
from tests.cli.world import environment, muster
from tests.e2e.fleet import until
from tests.promise import proves

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    variables = {"SHELL": "/bin/sh", "ANTHROPIC_API_KEY": "sk-not-for-shells"}
    with in_persons_home(tmp_path_factory.mktemp("tty"), **variables) as found:
        (found.folder / "person" / ".profile").write_text("PS1='ready> '\n")
        yield found


def at(pair: Pair) -> Terminal:
    words = [sys.executable, "-m", "muster", "tty", "laptop"]
    env = environment(pair.hub, TERM="xterm-256color")
    return Terminal(words, env, columns=101, rows=31)


@proves("remote.tty-is-a-terminal")
def test_it_is_a_terminal_of_our_size_and_every_key_goes_there(pair):
    with at(pair) as terminal:
        terminal.see("ready> ")
        terminal.type(
            "stty size; test -t 0 -a -t 1 -a -t 2 && echo is-$((40 + 2)); pwd; echo $TERM\r"
        )
        terminal.see("31 101")
        terminal.see("is-42")
        terminal.see(f"{pair.folder}/person")
        terminal.see("xterm-256color")
        # It follows ours.
        fcntl.ioctl(terminal._master, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 133, 0, 0))
        terminal.see("ready> ")
        terminal.type("until stty size | grep '44 133'; do sleep 0.1; done\r")
        terminal.see("44 133\r\n")
        terminal.see("ready> ")
        # Ctrl-C ends what is in front there, and not us; the shell has job control.
        terminal.type("sh -c 'echo go-$((1 + 1)); exec sleep 1000'\r")
        terminal.see("go-2")
        terminal.type("\x03")
        terminal.see("ready> ")
        terminal.type("env | grep -c not-for-shells; exit 7\r")
        terminal.see("\n0\r\n")
        assert terminal.end() == 7


@proves("remote.exec-ends-with-us")
def test_enter_tilde_dot_leaves_whatever_hangs_there_and_our_terminal_is_as_it_was(pair):
    with at(pair) as terminal:
        terminal.see("ready> ")
        raw = termios.tcgetattr(terminal._master)
        assert not raw[3] & (termios.ECHO | termios.ISIG)
        terminal.type("trap '' HUP TERM INT; echo me $$; sleep 1000\r")
        terminal.see("\nme ")
        pid = int(terminal.see("\r\n"))
        terminal.type("typed into nothing\r")
        terminal.type("~.")
        assert terminal.end(LIMIT_S) == 130
        after = termios.tcgetattr(terminal._master)
        assert after[3] & termios.ECHO
        assert after[3] & termios.ISIG
    until(lambda: not runs(pid), "the shell there ended")


@proves("remote.needs-an-order", "remote.is-written-down")
def test_without_a_terminal_or_a_grant_it_is_one_sentence_and_a_session_is_written_down(pair):
    said = muster(pair.hub, "tty", "laptop")
    assert (said.code, said.err.count("\n")) == (3, 1)
    assert "needs a terminal" in said.err
    muster(pair.laptop, "operator", "key")
    try:
        words = [sys.executable, "-m", "muster", "tty", "hub"]
        with Terminal(words, environment(pair.laptop)) as terminal:
            shown = terminal.see("--object hub`")
            assert "may not order tty on hub" in shown
            assert terminal.end() == 4
    finally:
        (pair.laptop / "operator.seed").unlink()
    begun = [json.loads(body) for _, body in journal(pair.laptop, "exec.begin")]
    assert [(each["program"], each["terminal"], each["words"]) for each in begun] == [
        ("/bin/sh", True, 2)
    ] * 2
    assert journal(pair.hub, "exec.begin") == []
