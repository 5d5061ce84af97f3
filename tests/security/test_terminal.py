"""What machines and agents wrote, on a person's terminal: it may be read, it may not act."""

import json
from typing import Any

import pytest

from muster.cli import show
from muster.cli.text import safe
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
    "nothing-knows-this": {HOSTILE: [HOSTILE, {HOSTILE: HOSTILE}]}, "some-text": HOSTILE,
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
