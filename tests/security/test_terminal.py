"""What machines and agents wrote, on a person's terminal: it may be read, it may not act."""

import io
import json
import sys
import unicodedata
from typing import Any

import pytest

from muster.cli import show
from muster.cli.main import main
from muster.cli.text import block, clean, safe
from muster.node.link import sentence
from muster.node.supervisor import say
from muster.printable import MARKS_MAX, visible
from tests.promise import proves

HOSTILE = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202egpj.exe\u2066\r\x08\x1b[8mhidden\x00\u2028end"
ACTS = set("\x1b\x07\x9b\u202e\u2066\r\x08\x00\u2028")

TASK: dict[str, Any] = dict.fromkeys(
    ("task", "state", "run", "phase", "instance", "machine", "agent", "reason", "summary", "commit", "owner"),
    HOSTILE,
) | {"epoch": [1, 1], "tries": 0, "losses": 0, "opened_ms": 1, "changed_ms": 1}  # fmt: skip
MACHINE: dict[str, Any] = {
    "name": HOSTILE, "machine": HOSTILE, "roles": [HOSTILE], "state": HOSTILE, "streams": {HOSTILE: 1},
    "facts": {"os": HOSTILE, "arch": HOSTILE, "cpus": 1, "memory_mib": 1, "agents": {HOSTILE: HOSTILE},
              "labels": [HOSTILE], "tools": {HOSTILE: HOSTILE}, "repositories": [HOSTILE], "gpus": []},
    "channel": HOSTILE, "heard_ms_ago": 1, "skew_ms": 1, "muster": HOSTILE,
}  # fmt: skip
MESSAGE: dict[str, Any] = dict.fromkeys(
    ("message", "from", "machine", "trust", "text", "thread", "subject"), HOSTILE
) | {"t_ms": 1, "read": False, "acted": False}
ANSWERS: dict[str, Any] = {
    "tasks": [TASK], "machines": [MACHINE], "inbox": [MESSAGE], "incidents": [
        {"key": HOSTILE, "severity": HOSTILE, "title": HOSTILE, "detail": HOSTILE, "open": True,
         "machine": HOSTILE, "stream": HOSTILE, "t_ms": 1, "opened_ms": 1, "closed_ms": 0, "reason": HOSTILE,
         "count": 1, "times": 1}],
    "target": {HOSTILE: [HOSTILE, {HOSTILE: HOSTILE}]}, "some-text": HOSTILE,
}  # fmt: skip


@pytest.mark.parametrize("verb", ANSWERS)
@proves("cli.terminal-is-safe")
def test_no_answer_moves_the_cursor_or_hides_text(verb: str) -> None:
    try:
        text = show.text(verb, ANSWERS[verb])
    except KeyError as missing:
        pytest.skip(f"the page of {verb} reads {missing}, which this test does not know")
    assert "end" in text
    assert not set(text) & ACTS


@proves("cli.terminal-is-safe")
def test_json_for_scripts_is_the_same_value_without_raw_control_characters(capsys: Any) -> None:
    show.put_json(TASK)
    out = capsys.readouterr().out
    assert not set(out) & ACTS
    assert json.loads(out) == TASK


@proves("cli.terminal-is-safe")
def test_our_own_colours_stay() -> None:
    assert safe("\x1b[31mred\x1b[0m") == "\x1b[31mred\x1b[0m"
    assert safe("two\nlines\tand a tab") == "two\nlines\tand a tab"


HIDDEN_KINDS = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@proves("cli.terminal-shows-all")
def test_no_character_that_is_not_seen_where_it_stands_is_passed_on_by_any_gate() -> None:
    hidden = [
        chr(n) for n in range(0x110000) if unicodedata.category(chr(n)) in HIDDEN_KINDS
        and chr(n) not in "\n\t"
    ]  # fmt: skip
    hidden += [*"\u034f\u115f\u1160\u17b4\u17b5\u180b\u2800\u3164\uffa0\ufe00\ufe0f\U000e0100"]
    page = "".join(f"a{each}b" for each in hidden)
    for gate in (visible, safe, clean, block, sentence_of_any_length):
        assert not set(gate(page)) & set(hidden), gate
    assert set(visible(page)) == {"a", "b", "\N{REPLACEMENT CHARACTER}"}


def sentence_of_any_length(text: str) -> str:
    return "".join(sentence(text[at : at + 500]) for at in range(0, len(text), 500))


@proves("cli.terminal-shows-all")
def test_text_of_every_language_passes_as_it_was_written() -> None:
    for text in (
        "gr\u00fcn \u2713 \u2026 \u2192", "\u0440\u0443\u0441\u0441\u043a\u0438\u0439", "\u4f60\u597d", "\u0939\u093f\u0928\u094d\u0926\u0940",
        "vie\u0323\u0302t", "\u05e9\u05bc\u05c1\u05b8", "\u0e01\u0e33", "caf\u0065\u0301", "two\nlines\tand a tab",
    ):  # fmt: skip
        assert visible(text) == text
    # How an emoji is drawn is left out without a sign, blanks of every width are a space.
    assert visible("\u26a0\ufe0f no, 1\ufe0f\u20e3 and \U0001f468\u200d\U0001f4bb") == (
        "\u26a0 no, 1\u20e3 and \U0001f468\U0001f4bb"
    )
    assert visible("a\u00a0b\u3000c") == "a b c"


@proves("cli.terminal-shows-all")
def test_a_flood_of_marks_does_not_paint_over_other_lines() -> None:
    shown = visible("a" + "\u0301" * 500 + "b" + "\u0489" * 500)
    assert len(shown) == 2 * (1 + MARKS_MAX + 1)
    # A mark that begins a line would stand on what is ours.
    assert visible("\u0301a\n\u0301b") == "\ufffda\n\ufffdb"


@proves("cli.terminal-shows-all")
def test_json_for_scripts_is_the_same_value_with_everything_hidden_escaped(capsys: Any) -> None:
    value = {"a": "x\u061cy\u200b\U000e0041\U000f0000\u3164\ufe0f z\u0301\U0001f4bb"}
    show.put_json(value)
    out = capsys.readouterr().out
    assert visible(out) == out
    assert json.loads(out) == value


@proves("cli.terminal-shows-all")
def test_the_daemons_own_log_shows_as_little_as_a_terminal(capsys: Any) -> None:
    say("from a peer: \u061c\u200b\U000e0041\x1b[2J")
    assert capsys.readouterr().err == "from a peer: \ufffd\ufffd\ufffd\ufffd[2J\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@proves("cli.narrow-terminal")
def test_a_terminal_that_cannot_show_a_letter_gets_a_sign_for_it(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err = io.BytesIO(), io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding=encoding))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(err, encoding=encoding))
    assert main(["gr\u00fcn\u2713"]) == 2
    show.put_json({"text": "gr\u00fcn \u2713"})
    sys.stdout.flush()
    sys.stderr.flush()
    said = err.getvalue().decode(encoding)
    assert "there is no verb 'gr" in said
    assert json.loads(out.getvalue().decode(encoding)) == {"text": "gr\u00fcn \u2713"}


@proves("cli.narrow-terminal")
def test_a_word_that_the_locale_could_not_read_is_read_and_one_that_is_no_text_is_refused(
    capsys: Any,
) -> None:
    assert main(["--json", b"gr\xff".decode(errors="surrogateescape")]) == 2
    assert "is no UTF-8 text" in capsys.readouterr().err
    assert main(["gr\u00fcn".encode().decode("ascii", "surrogateescape")]) == 2
    assert "gr\u00fcn" in capsys.readouterr().err
