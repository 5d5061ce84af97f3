"""Whatever is typed, and whatever stands where a file should be, is answered in one sentence."""

import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from muster.cli import parse, show
from muster.cli.main import main
from muster.errors import Malformed
from muster.verbs.table import VERBS
from tests.promise import proves

# Every exit code that errors.py and the command line know.
CODES = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}
ODD = (
    "", " ", "-", "--", "---", "--nope", "--json", "--on", "--home", "-h", "x" * 100_000,
    "two\nlines", "\t", "\x1b[2J", "ä", "\u202e", "😀" * 50, "\udcff", "%s", "{0}", "$HOME", "../..",
    "*", "'", '"', "0", "-1", "1e999", "9" * 400, "nul", "all", "muster1.", "role:", "thread:", "@",
    "a@", "@b", "--limit=0", "--limit=x", "--days=99999999999", "--at=x", "--timeout=x", "=",
)  # fmt: skip
CLIENT_SLOW = {"doctor"}


@pytest.fixture(autouse=True)
def nobody(tmp_path, monkeypatch):
    """No machine, no daemon, no person: nothing outside of a new folder can be reached."""
    for name in ("MUSTER_SOCK", "MUSTER_CAPABILITY", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MUSTER_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("MUSTER_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    hook = sys.excepthook
    yield
    sys.excepthook = hook


def say(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """What a command line answers; its errors must be one sentence and an exit code."""
    code = main(words)
    err = capsys.readouterr().err
    assert code in CODES, words
    assert "Traceback" not in err, words
    assert "our mistake" not in err, words
    if code >= 2:
        said = [line for line in err.splitlines() if line.startswith(("muster: ", '{"error"'))]
        assert len(said) == 1, (words, err[-500:])
    return code, err


@proves("cli.odd-words")
@pytest.mark.parametrize("verb", sorted(set(VERBS) - CLIENT_SLOW))
def test_no_words_behind_a_verb_end_in_anything_but_a_sentence(verb, capsys, tmp_path, monkeypatch):
    draw = random.Random(verb)
    most = len(VERBS[verb].args) + 2
    for number in range(25):
        # A home of its own, for `init` may well succeed.
        monkeypatch.setenv("MUSTER_HOME", str(tmp_path / f"home{number}"))
        words = [draw.choice(ODD) for _ in range(draw.randrange(most))]
        if verb == "up" and not words:
            continue
        say([verb, *words], capsys)


@proves("cli.odd-words")
@pytest.mark.parametrize("word", ODD)
def test_no_word_in_the_place_of_a_verb_ends_in_anything_but_a_sentence(word, capsys):
    code, err = say([word], capsys)
    assert code in {0, 2}
    assert len(err) < 500


def odd_files(folder: Path) -> dict[str, str]:
    (folder / "binary").write_bytes(bytes(range(256)))
    (folder / "huge").write_bytes(b"a" * 3_000_000)
    (folder / "empty").touch()
    (folder / "two\nlines").write_text("\x1b[2J", encoding="utf-8")
    os.mkfifo(folder / "fifo")
    (folder / "loop").symlink_to(folder / "loop")
    names = ("binary", "huge", "empty", "two\nlines", "fifo", "loop", "missing", ".")
    return {name: str(folder / name) for name in names} | {"endless": "/dev/zero"}


@proves("cli.odd-words")
@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "verb", [v.name for v in VERBS.values() if any(a.kind == "file" for a in v.args)]
)
def test_whatever_stands_where_a_file_should_be_is_answered_in_a_sentence(verb, capsys, tmp_path):
    for path in odd_files(tmp_path).values():
        code, err = say([verb, path], capsys)
        assert code != 0, path
        assert "\x1b" not in err


@proves("cli.odd-words")
def test_a_pipe_that_somebody_writes_to_is_read_to_its_end():
    reader, writer = os.pipe()
    late = threading.Timer(0.1, lambda: (os.write(writer, b"muster: 1"), os.close(writer)))
    late.start()
    try:
        assert parse.read_file(f"/dev/fd/{reader}") == "muster: 1"
    finally:
        late.join()
        os.close(reader)


@proves("cli.odd-words")
@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
@pytest.mark.parametrize("words", [["version"], ["check", "-"], ["status"], ["--help"], ["nope"]])
def test_a_closed_standard_stream_ends_nothing_in_a_traceback(closed, words, tmp_path):
    shut = "".join(f" {number}>&-" for number in closed)
    line = f'exec "$0" -m muster "$@"{shut}'
    done = subprocess.run(
        ["sh", "-c", line, sys.executable, *words], capture_output=True, timeout=30, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode in CODES
    assert b"Traceback" not in done.stderr
    assert b"our mistake" not in done.stderr


@proves("cli.odd-words")
def test_a_home_that_cannot_be_is_named(capsys, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere")):
        monkeypatch.setenv("MUSTER_HOME", str(place))
        code, err = say(["init", "--name", "a"], capsys)
        assert (code, str(place) in err) == (8, True)
        assert say(["status"], capsys)[0] == 5


@proves("cli.odd-words")
def test_an_answer_of_another_version_is_named_as_that():
    for verb, value in (("status", {}), ("machines", [{"name": 1}]), ("inbox", {"a": 1})):
        with pytest.raises(Malformed, match="restart the daemon"):
            show.text(verb, value)


_DESTROYS = {
    "delete", "discard", "drop", "end", "erase", "forget", "leave", "prune", "purge", "remove",
    "reset", "revoke", "uninstall", "vouch", "wipe",
}  # fmt: skip
# Nothing is lost by these, though they are called so.
_HARMLESS_ALL_THE_SAME = {
    "service remove": "the home stays as it is, and `service install` brings the service back",
    "uninstall": "what stood there before comes back, byte for byte",
    "secret revoke": "the secret stays, and `secret grant` gives it to the same attempts again",
    "context remove": "the files stay where they are, and `context map` has them followed again",
}


@proves("cli.asks-before-what-destroys")
def test_whatever_is_called_as_what_destroys_says_what_is_lost_and_takes_yes():
    called = {(v, "") for v in VERBS.values() if not v.hidden and v.name in _DESTROYS}
    called |= {
        (verb, action)
        for verb in VERBS.values()
        if not verb.hidden
        for arg in verb.args
        if arg.position
        for action in arg.choices
        if action in _DESTROYS
    }
    assert len(called) >= 4
    for verb, action in called:
        if f"{verb.name} {action}".strip() in _HARMLESS_ALL_THE_SAME:
            continue
        # What else a condition asks for is what keeps an action from it, as `--dry-run` does.
        declared = [x for x in verb.destroys if not x.when or f"action={action}" in x.when.split()]
        assert declared, f"`muster {verb.name} {action}` needs a Loss in its destroys="
    for verb in (v for v in VERBS.values() if v.destroys):
        with pytest.raises(parse.Shown, match="--yes"):
            parse.parse([verb.name, "--help"])
        # Two ways to say so would be one too many.
        assert "yes" not in [arg.name for arg in verb.args]
        asked = {loss.asks.split()[0] for loss in verb.destroys if loss.asks}
        assert asked <= {v.name for v in VERBS.values() if v.hidden}


@proves("cli.suggests-nothing-that-destroys")
@pytest.mark.parametrize(
    ("words", "daring"),
    [
        (["revoke", "build", "--yess"], "--yes"),
        (["revoke", "build", "--lasts"], "--last"),
        (["fetch", "t", "--forec"], "--force"),
    ],
)
def test_no_option_is_suggested_that_does_what_is_refused_otherwise(words, daring):
    with pytest.raises(parse.Usage) as refused:
        parse.parse(words)
    assert f"`{daring}`" not in str(refused.value)


@proves("cli.suggests-nothing-that-destroys")
def test_what_is_suggested_for_a_mistake_is_harmless():
    harmless = {v.name for v in VERBS.values() if v.harmless}
    assert harmless <= {v.name for v in VERBS.values() if not v.hidden}
    assert not [v.name for v in VERBS.values() if v.destroys and v.harmless]
    kept = {
        "revoke",
        "cancel",
        "down",
        "acknowledge",
        "silence",
        "rebuild",
        "init",
        "join",
        "grant",
        "role",
    }
    kept |= {"operator", "device", "decide", "answer", "repo", "invite"}
    assert not kept & harmless
    draw = random.Random(1)
    for verb in VERBS:
        for _ in range(30):
            at = draw.randrange(len(verb))
            word = verb[:at] + draw.choice(["", "x", verb[at] * 2]) + verb[at + 1 :]
            if word in {*VERBS, "", "help"}:
                continue
            with pytest.raises(parse.Usage) as refused:
                parse.parse([word])
            said = str(refused.value)
            assert not [v for v in VERBS if f"`{v}`" in said and v not in harmless], said
