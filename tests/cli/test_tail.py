"""`muster tail` for people: a line for each that came."""

import pytest

from muster.cli import parse, show
from tests.promise import proves

ENTRY = {"kind": "task.open", "id": "ab" * 32, "machine": "build", "t_ms": 1_790_000_000_000}


@proves("cli.tail")
def test_each_that_came_is_a_line_with_its_time_machine_kind_and_short_id():
    link = {**ENTRY, "kind": "link.up", "id": ""}
    hostile = {**ENTRY, "machine": "a\nb\x1b[2J"}
    text = show.text("tail", {"came": [ENTRY, link, hostile], "number": 7})
    first, second, third = text.splitlines()
    assert first.split()[2:] == ["build", "task.open", "abababababab"]
    assert second.split()[2:] == ["build", "link.up"]
    assert "\x1b" not in third
    assert show.text("tail", {"came": [], "number": 7}) == ""


@proves("cli.tail")
@pytest.mark.parametrize("words", [["--since", "x"], ["--since", ""], ["--kind", ""]])
def test_a_number_that_is_none_is_refused_before_anybody_is_asked(words):
    with pytest.raises(parse.Usage, match=r"since|kind"):
        parse.parse(["tail", *words])
