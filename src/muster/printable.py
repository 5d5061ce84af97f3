"""What of foreign text reaches a terminal or a log: only what can be seen where it stands.

Rule 1: nothing that acts (controls, escapes), that changes direction, or that cannot be seen
(format characters, tags, fillers, what Unicode has not assigned) is passed on; where it stood a
replacement character is shown, so that two texts which look alike are alike.
Rule 2: every blank is a space. Marks that stack on a letter are passed on as far as languages
need them; a flood of them would paint over other lines.
Rule 3: what only says how an emoji or a letter is drawn (variants, a terminal's colours) is left
out without a sign: it is in every other line of an agent or a build, and says nothing.
"""

import re
import unicodedata
from typing import Final

ODD: Final = "\N{REPLACEMENT CHARACTER}"
# Vietnamese needs two and pointed Hebrew four; what stacks higher leaves its line.
MARKS_MAX: Final = 4

_PLAIN: Final = re.compile(r"[^\x20-\x7e\n]+")
# Letters, marks and signs by category, and yet nothing is drawn: joiners, fillers, vowels that are
# not written, selectors of a variant, a blank of braille and one of music.
_FILLERS: Final = (
    "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U00016fe4"
    "\U0001d159\U000e0100-\U000e01ef"
)
_BRAILLE_BLANK: Final = "\u2800"
_BLANK: Final = frozenset(
    chr(n)
    for first, last in re.findall(r"(.)(?:-(.))?", _FILLERS + _BRAILLE_BLANK)
    for n in range(ord(first), ord(last or first) + 1)
)
# These, what Unicode calls ignorable whether it has assigned it or not, controls and formats.
_UNSEEN: Final = re.compile(
    f"[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2"
    f"\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb\U000110bd\U000110cd"
    f"\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    f"{_FILLERS}]+"
)
# Colours, and the wiping of a line that is drawn anew.
_DRAWN: Final = re.compile(r"\x1b\[[0-9;:]{0,40}[mK]")
_EMOJI_ONLY: Final = frozenset("\u200d\ufe0e\ufe0f")
_STACKED: Final = frozenset({"Mn", "Me"})


def visible(text: str) -> str:
    """`text` with everything that Rule 1 names replaced; line ends and tabs stay."""
    return _PLAIN.sub(_shown, undrawn(text))


def seen(text: str) -> str:
    """`text` without what takes no place when it is drawn; every blank and end of a line stays.

    It is the same on every machine, whatever Unicode its Python knows: prints of texts are made of
    it (memory/print.py), so to change it changes what counts.
    """
    if text.isascii() and text.isprintable():
        return text
    return _UNSEEN.sub("", text).replace(_BRAILLE_BLANK, " ")


def undrawn(text: str) -> str:
    """`text` without a terminal's colours; for whoever replaces controls in another way."""
    return _DRAWN.sub("", text) if "\x1b" in text else text


def escaped(raw: str) -> str:
    """The text of a JSON document in which all of that is written as an escape: the same value."""
    return _PLAIN.sub(lambda found: "".join(map(_escape, found[0])), raw)


def named(text: str) -> str:
    """`text` with the name of everything that Rule 1 means in its place: for what a person agrees
    to, where it matters what stands there.
    """
    return _PLAIN.sub(lambda found: "".join(map(_name, found[0])), text)


def _name(mark: str) -> str:
    if (
        mark != "\t"
        and unicodedata.category(mark) != "Zs"
        and (mark in _BLANK or not mark.isprintable())
    ):
        name = unicodedata.name(mark, "")
        return f"<U+{ord(mark):04X}{name and ' '}{name}>"
    return mark


def _shown(found: re.Match[str]) -> str:
    run = found[0]
    if run.isprintable() and not any(_is_odd(mark) for mark in run):
        return run
    shown, stacked = [], 0
    before = found.string[found.start() - 1] if found.start() else "\n"
    for mark in run:
        if unicodedata.category(mark) in _STACKED and mark not in _BLANK:
            stacked += 1
            # Nothing of what it would be drawn on is foreign at the beginning of a line.
            if stacked <= MARKS_MAX and before not in "\n\t":
                shown.append(mark)
            elif stacked == MARKS_MAX + 1 or before in "\n\t":
                shown.append(ODD)
            continue
        stacked = 0
        if mark in _EMOJI_ONLY and _is_drawn(before):
            continue
        shown.append(_one(mark))
        before = mark
    return "".join(shown)


def _one(mark: str) -> str:
    if mark == "\t":
        return mark
    if unicodedata.category(mark) == "Zs":
        return " "
    return ODD if mark in _BLANK or not mark.isprintable() else mark


def _is_odd(mark: str) -> bool:
    return mark in _BLANK or unicodedata.category(mark) in _STACKED


def _is_drawn(mark: str) -> bool:
    """Whether it is a sign that is drawn as an emoji or in one."""
    return mark in "#*0123456789" or unicodedata.category(mark) in {"So", "Sk", "Sm", "Po"}


def _escape(mark: str) -> str:
    if mark in _BLANK or not (mark.isprintable() or mark in "\t\r"):
        units = mark.encode("utf-16-be", "surrogatepass")
        return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
    return mark
