"""The words of a post, so that they are read as they are and do nothing.

Rule 1: nobody is called by them: what services take for a call (`@everyone`, `<!channel>`, `@room`,
`<@U1>`) is broken by a sign that looks alike and means nothing.
Rule 2: what turns the direction of a line, or cannot be seen, is shown by its number.
Rule 3: what is too long is cut in its middle, with a mark that says how much is missing: what is at
the end of a command is as much of it as what is at its beginning.
"""

import re
from typing import Final

from muster.printable import MARKS_MAX, seen

# A full-width at sign and angle brackets: drawn alike, taken for nothing.
_AT: Final = "\N{FULLWIDTH COMMERCIAL AT}"
_ANGLE: Final = "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}"
_CALL: Final = re.compile(r"@(?=\w)|@(?=[!&])")
_TAG: Final = re.compile(r"<(?=[@!#:/a-zA-Z])")
_STACK: Final = re.compile(
    rf"([\u0300-\u036f\u0483-\u0489\u20d0-\u20ff]{{{MARKS_MAX}}})[\u0300-\u036f\u0483-\u0489\u20d0-\u20ff]+"
)
# A name of a host becomes a link by itself where a service finds one in it.
_ADDRESS: Final = re.compile(r"\b([a-zA-Z][a-zA-Z0-9+.-]*):(?=//)")


def plain(text: str, chars_max: int) -> str:
    """The text as it may be posted anywhere."""
    return cut(_plain(text), chars_max)


def fits(text: str, chars_max: int) -> bool:
    """Whether nothing of the text is cut where it is posted."""
    return len(_plain(text)) <= chars_max


def _plain(text: str) -> str:
    shown = "".join(_visible(letter) for letter in text.replace("\r\n", "\n").replace("\t", " "))
    shown = _STACK.sub(r"\1", shown)
    shown = _ADDRESS.sub("\\1\N{MODIFIER LETTER COLON}", shown)
    return _CALL.sub(_AT, _TAG.sub(_ANGLE, shown))


def _visible(letter: str) -> str:
    if letter == "\n" or (letter.isprintable() and seen(letter)):
        return letter
    # A variant of an emoji is part of how it is drawn.
    return "" if letter in "\u200d\ufe0e\ufe0f" else f"[U+{ord(letter):04X}]"


def cut(text: str, chars_max: int) -> str:
    """The text with so many letters at most, both of its ends among them."""
    if len(text) <= chars_max:
        return text
    mark = f"\n[… {len(text) - chars_max} or more letters are left out here …]\n"
    room = max(0, chars_max - len(mark))
    head = room - room // 3
    tail = text[len(text) - (room - head) :] if room > head else ""
    return (text[:head] + mark + tail)[:chars_max]
