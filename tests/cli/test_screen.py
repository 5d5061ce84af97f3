"""Lines that are drawn anew in their place, whatever becomes of the terminal."""

import io

import pytest

from muster.cli.screen import Screen
from tests.promise import proves


@pytest.fixture
def out(monkeypatch) -> io.StringIO:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "10")
    return io.StringIO()


def said(out: io.StringIO) -> str:
    text = out.getvalue()
    out.seek(0)
    out.truncate()
    return text


@proves("cli.live-view")
def test_lines_are_drawn_over_the_ones_before_and_leave_nothing_of_them(out):
    screen = Screen(out)
    screen.draw(["one", "two"])
    assert said(out) == "\rone\x1b[K\ntwo\x1b[K\n\x1b[J"
    screen.draw(["three"])
    assert said(out).startswith("\r\x1b[2Athree")
    screen.wipe()
    assert said(out) == "\r\x1b[1A\x1b[J"


@proves("cli.live-view")
def test_in_a_terminal_that_became_narrower_the_lines_begin_below_and_touch_nothing_above(
    out, monkeypatch
):
    screen = Screen(out)
    screen.draw(["x" * 30, "two"])
    said(out)
    monkeypatch.setenv("COLUMNS", "20")
    screen.draw(["one"])
    assert said(out).startswith("\r\none")
    screen.draw(["two"])
    assert said(out).startswith("\r\x1b[1Atwo")


@proves("cli.live-view")
def test_what_somebody_wrote_moves_no_cursor(out):
    Screen(out).draw(["\x1b[2Jevil\x07", "\x1b[2mdim\x1b[0m"])
    shown = said(out)
    assert "\x1b[2J" not in shown
    assert "\x07" not in shown
    assert "\x1b[2mdim\x1b[0m" in shown
