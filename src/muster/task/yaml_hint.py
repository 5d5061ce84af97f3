"""What a person most likely meant where the YAML of a spec stops making sense.

Rule 1: the parser says where it stopped; the mistake is often a line before. The sentence names the
line with the mistake, and what to write.
Rule 2: nothing is guessed where two mistakes look alike; then the parser's own words stand.
"""

import re
from typing import Final, NamedTuple

_COLON: Final = re.compile(r":(\s|$)")
_UNKNOWN: Final = re.compile(r"found character '(.)' that cannot start any token")
_QUOTES: Final = "put it in quotes"


class Stop(NamedTuple):
    """Where the parser stopped, what it says, and where what it was reading began (0: unsaid)."""

    problem: str
    context: str
    line: int
    column: int
    began: int


def sentence(text: str, stop: Stop) -> str:
    """The mistake and its mend; the parser's words where we know nothing better."""
    problem, lines = stop.problem, text.splitlines()
    found = ""
    if "'\\t'" in problem:
        found = "a tab cannot indent a line; indent with spaces"
    elif match := _UNKNOWN.match(problem):
        found = f"a value cannot begin with {match[1]}; {_QUOTES}"
    elif problem == "mapping values are not allowed here":
        found = _colon(lines, stop)
    elif problem == "could not find expected ':'":
        found = _without_colon(lines, stop.began or stop.line)
    elif problem.startswith("expected alphabetic or numeric character"):
        found = f"* and & have a meaning of their own before a value; {_QUOTES}"
    elif problem.startswith(("expected ',' or '}'", "expected ',' or ']'")):
        mark = "{" if "'}'" in problem else "["
        found = f"the {mark} of line {stop.began} is not closed, or a value in it needs quotes"
    elif problem.startswith("expected <block end>"):
        found = f"it begins in another column than the lines from {stop.began} on, to which it "
        found += "belongs; indent it like them"
        if "'<scalar>'" in problem:
            found = "something stands behind a closing quote; look for a quote that is not closed "
            found += "before"
    elif "quoted scalar" in stop.context:
        found = f"the quote of line {stop.began} is not closed, or a \\ in it is no escape"
    elif "sequence entries are not allowed" in problem:
        found = "a list begins on the line below its key, each item with a - and a space"
    return found or problem


def _colon(lines: list[str], stop: Stop) -> str:
    """A colon where none can be: the value has one, or the line before is not what it should be."""
    here = lines[stop.line - 1] if stop.line <= len(lines) else ""
    if _COLON.search(here[: stop.column - 1]):
        return 'a value with a colon and a space in it stands in quotes, or below a "|"'
    number = stop.line - 1
    while number > 0 and not lines[number - 1].strip():
        number -= 1
    if number < 1:
        return ""
    before = lines[number - 1]
    if not _COLON.search(before):
        return _without_colon(lines, number)
    if len(here) - len(here.lstrip(" ")) > len(before) - len(before.lstrip(" ")):
        return f"it is indented deeper than line {number}, which has a value already"
    return ""


def _without_colon(lines: list[str], number: int) -> str:
    if not 0 < number <= len(lines):
        return ""
    what = "has a colon without a space" if ":" in lines[number - 1] else "has no colon"
    return f"line {number} {what}; write it as name: value"
