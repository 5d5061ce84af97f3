"""The pictures of the guide are what `make screenshots` makes."""

import re
import xml.etree.ElementTree as ET

import pytest
from tools import screenshots

from muster.cli.text import width_of
from tests.promise import proves

_TIME = re.compile(
    r"\d+ (?:ms|s|min|h|days)(?: \d+ (?:s|min))?|\d\d:\d\d:\d\d| {2,}| (?:width|y)=\"\d+\""
)


def timeless(text: str) -> str:
    """A picture without how long things took, and without the room that this takes."""
    return _TIME.sub("~", text)


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return screenshots.screens()


@proves("cli.screenshots")
def test_the_committed_pictures_are_those_that_the_command_makes(made):
    there = {each.name: each.read_text(encoding="utf-8") for each in screenshots.FOLDER.iterdir()}
    there, now = ({n: timeless(text) for n, text in each.items()} for each in (there, made))
    assert there == now, "type `make screenshots`, look at them, and commit them"


@proves("cli.screenshots")
def test_a_picture_is_xml_whose_text_says_what_happened_and_no_line_is_wider_than_the_terminal(
    made,
):
    read = {name: ET.fromstring(text) for name, text in made.items()}
    rows = {
        name: ["".join(each.itertext()) for each in svg if each.tag.endswith("text")]
        for name, svg in read.items()
    }
    assert "attempt 2; taken over from studio" in "\n".join(rows["watch.svg"])
    assert "studio has it no more: the lease ended" in "\n".join(rows["why.svg"])
    assert max(width_of(line) for lines in rows.values() for line in lines) <= screenshots.COLUMNS


@proves("cli.screenshots")
def test_what_a_terminal_would_show_is_shown_and_no_markup_of_ours_is_made_of_it():
    picture = screenshots.svg("muster <a>", ["\x1b[31mfailed\x1b[0m & <b>", "x" * 300])
    texts = [each for each in ET.fromstring(picture) if each.tag.endswith("text")]
    assert ["".join(each.itertext()) for each in texts[:2]] == ["$ muster <a>", "failed & <b>"]
    assert len(texts) == 5, "a long line goes on in the next rows"
