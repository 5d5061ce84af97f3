"""What a name, a key and a nonce look like, and the refusal when one does not.

Rule: a name is `[a-z0-9-]` and never becomes a path. `..`, a slash, a NUL or an upper-case
letter cannot occur, so no name escapes from a folder and none differs from another only on
some file systems.

The annotated types are for the fields of decoded documents; `check_name` is for what a
person typed, with a sentence that says what would be accepted.
"""

import re
from typing import Annotated, Final

from msgspec import Meta

from muster import limits
from muster.errors import Malformed

NAME_PATTERN: Final = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z"
# Words that mean something else wherever a machine's name is written.
RESERVED_NAMES: Final = frozenset({"all", "any", "fleet", "journal", "muster", "op"})

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
GroupName = Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,32}\Z")]
Hex16 = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
Hex32 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Hex64 = Annotated[str, Meta(pattern=r"^[0-9a-f]{128}\Z")]
Size = Annotated[int, Meta(ge=0, le=limits.INT_ABS_MAX)]
Milliseconds = Annotated[int, Meta(ge=0, le=limits.INT_ABS_MAX)]
Text = Annotated[str, Meta(max_length=4096)]
# A verb or an object: printable ASCII without spaces, so that it can stand in one line.
WORD_PATTERN: Final = r"^[!-~]{1,200}\Z"
Word = Annotated[str, Meta(pattern=WORD_PATTERN)]

_NAME: Final = re.compile(NAME_PATTERN)


def check_name(name: str, what: str) -> str:
    """`name` itself; raises Malformed with what a name may look like."""
    if not _NAME.match(name):
        raise Malformed(
            f"{what} {name!r} is not a name: use 1 to {limits.NAME_CHARS_MAX} of a-z, 0-9 and "
            "'-', starting and ending with a letter or digit."
        )
    if name in RESERVED_NAMES:
        raise Malformed(f"{what} {name!r} has another meaning in Muster: choose another name.")
    return name


def check_word(word: str, what: str) -> str:
    """`word` itself, when it can be a verb or an object; raises Malformed with what one may be."""
    if not re.match(WORD_PATTERN, word):
        raise Malformed(
            f"{what} {word[:60]!r} is none that anything can have: 1 to 200 letters, digits and "
            "signs, without spaces and accents"
        )
    return word


def short(key: str) -> str:
    """The first digits of a key: enough for a person to tell two keys apart in a sentence."""
    return key[:12] + "…"
