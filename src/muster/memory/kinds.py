"""The bodies of what is known: versions, refutations and erasures; and of who was shown what.

Rule 1: a version is one entry; its id is the entry's id. Who may know it is the stream's scope.
Rule 2: `over` names the versions that its writer had *read* and replaces, never what its machine
        happens to hold: what nobody read is replaced by nobody.
Rule 3: what a version says is data with an origin. No text of one is an instruction of an operator.
Rule 4: an erasure restates what its target was over and how much that counted, and the print of
        what is refuted: without it an erased correction would bring back what it corrected.
Rule 5: what was shown is named by ids and never repeated: an erased text is in no showing.
"""

import re
import unicodedata
from typing import Final, Literal

import msgspec

from muster import limits
from muster.errors import Malformed
from muster.log.kind import kind
from muster.printable import seen

Origin = Literal["", "outside", "import"]
Rank = Literal[0, 1, 2]
Why = Literal["start", "recall", "get", "mcp", "hook", "similar"]
PERSON: Final = 2
MACHINE: Final = 1
OUTSIDE: Final = 0
# The tag of a person's rule: it is told first, and always.
PINNED: Final = "pinned"

_KEY: Final = re.compile(r"[A-Za-z0-9._/:-]{1,200}")
_TAG: Final = re.compile(r"[A-Za-z0-9._/:@+#-]{1,64}")
_ID: Final = re.compile(r"[0-9a-f]{64}")
# Of a showing: its epoch, tokens, budget and time, and two for each section.
_NUMBERS_MAX: Final = 20
_SALT: Final = re.compile(r"(?:[0-9a-f]{32})?")
_PRINT: Final = re.compile(r"(?:[0-9a-f]{32})?")


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What all bodies share: strict, immutable, small."""


@kind("memory.put")
class MemoryPut(Body, frozen=True):
    """One version. `about` names tasks, runs, messages and versions that it comes from.

    `origin` is the daemon's word: the writer had been shown what comes from `outside` the fleet,
    or it is an `import`. `salt` is of a private one that a person ordered: with it their order
    tells nobody else what it is about.
    """

    key: str
    text: str
    over: list[str] = []
    tags: list[str] = []
    about: list[str] = []
    source: str = ""
    origin: Origin = ""
    salt: str = ""


@kind("memory.refute")
class MemoryRefute(Body, frozen=True):
    """The versions in `over` are wrong. `key` is where that is found, `origin` as of a version."""

    key: str
    over: list[str]
    reason: str
    about: list[str] = []
    origin: Origin = ""


@kind("memory.erase")
class MemoryErase(Body, frozen=True):
    """`target` is gone for good; the other fields are what stays of it."""

    target: str
    state: Literal["erased", "refuted"] = "erased"
    rank: Rank = MACHINE
    key: str = ""
    over: list[str] = []
    print: str = ""
    reason: str = ""


@kind("memory.read")
class MemoryRead(Body, frozen=True):
    """What an attempt or a session was shown, for its machine's journal.

    `shown` has everything in the order of its names (`m1`, `m2` …), also what runs came to; without
    it that is `versions`. Of a digest: `parts` says how many lines each section has, `left_out` how
    many it has not, `budget` the tokens it was made for, `tokens` what it takes, and `sha256` is of
    its text, which is made again from all this as of `told_ms`. `outside`: something of it came
    from outside the fleet.
    """

    why: Why
    versions: list[str] = []
    query: str = ""
    task: str = ""
    epoch: tuple[int, int] = (0, 0)
    session: str = ""
    tokens: int = 0
    shown: list[str] = []
    outside: bool = False
    sha256: str = ""
    budget: int = 0
    parts: list[int] = []
    left_out: list[int] = []
    told_ms: int = 0


def check_put(body: MemoryPut, text_bytes_max: int = limits.MEMORY_TEXT_BYTES_MAX) -> MemoryPut:
    """The version, if it can be kept. Raises: Malformed: says what is wrong with it."""
    check_key(body.key)
    _check_ids("over", body.over, limits.MEMORY_OVER_MAX)
    _check_ids("about", body.about, limits.MEMORY_ABOUT_MAX)
    if not body.text.strip():
        raise Malformed("what is to be remembered needs a text")
    if _has_stacked(body.text):
        raise Malformed(f"the text stacks more than {limits.MEMORY_MARKS_MAX} marks on one letter")
    if len(body.text.encode()) > text_bytes_max:
        raise Malformed(
            f"the text has more than {text_bytes_max} bytes: put it in a file of the repository, "
            "and remember where it is"
        )
    if len(body.tags) > limits.MEMORY_TAGS_MAX:
        raise Malformed(f"a memory has at most {limits.MEMORY_TAGS_MAX} tags")
    for tag in body.tags:
        if not _TAG.fullmatch(tag):
            raise Malformed(
                f"{tag[:80]!r} is no tag: 1 to 64 letters, digits and ._/:@+#-, as in repo:main"
            )
    _check_line("the source", body.source)
    if not _SALT.fullmatch(body.salt):
        raise Malformed("the salt of an order has 32 hex digits")
    return body


def check_refute(body: MemoryRefute) -> MemoryRefute:
    """The refutation, if it can be kept. Raises: Malformed."""
    check_key(body.key)
    _check_ids("over", body.over, limits.MEMORY_OVER_MAX)
    _check_ids("about", body.about, limits.MEMORY_ABOUT_MAX)
    if not body.over:
        raise Malformed("a refutation names what is wrong: one version at least")
    if not body.reason.strip():
        raise Malformed("a refutation needs a reason: it is told instead of what is refuted")
    if len(body.reason.encode()) > limits.MEMORY_REASON_BYTES_MAX:
        raise Malformed(f"a reason has at most {limits.MEMORY_REASON_BYTES_MAX} bytes")
    return body


def check_erase(body: MemoryErase) -> MemoryErase:
    """The erasure, if it can be kept. Raises: Malformed."""
    if body.key:
        check_key(body.key)
    _check_ids("target", [body.target], 1)
    _check_ids("over", body.over, limits.MEMORY_OVER_MAX)
    if not _PRINT.fullmatch(body.print):
        raise Malformed("the print of a text has 32 hex digits")
    _check_line("the reason", body.reason)
    return body


def check_read(body: MemoryRead) -> MemoryRead:
    """The showing, if it can be kept. Raises: Malformed."""
    _check_ids("a showing", body.versions, limits.MEMORY_SHOWN_MAX)
    _check_ids("a showing", body.shown, limits.MEMORY_SHOWN_MAX)
    for text in (body.query, body.task, body.session):
        _check_line("a showing's query, task or session", text)
    if body.sha256:
        _check_ids("a digest", [body.sha256], 1)
    numbers = (
        *body.epoch, body.tokens, body.budget, body.told_ms, *body.parts, *body.left_out
    )  # fmt: skip
    if len(numbers) > _NUMBERS_MAX or any(each < 0 for each in numbers):
        raise Malformed("a showing counts nothing below 0, and has a few numbers at most")
    return body


def _has_stacked(text: str) -> bool:
    """Whether so many marks stand in a row that to order them costs their square (UAX 15, 13)."""
    row = 0
    # What is unseen is taken out before they are ordered.
    for each in "" if text.isascii() else seen(text):
        row = row + 1 if unicodedata.combining(each) else 0
        if row > limits.MEMORY_MARKS_MAX:
            return True
    return False


def check_key(key: str) -> None:
    """Raises: Malformed: what a memory is about cannot be called so."""
    if not _KEY.fullmatch(key):
        raise Malformed(
            f"{key[:80]!r} is no key: 1 to 200 letters, digits and ._/:-, as in main/tests/where"
        )


def _check_ids(what: str, ids: list[str], most: int) -> None:
    if len(ids) > most:
        raise Malformed(f"{what} names at most {most} ids")
    for each in ids:
        if not _ID.fullmatch(each):
            raise Malformed(f"{each[:80]!r} is not the id of a version")


def _check_line(what: str, text: str) -> None:
    if len(text) > limits.MEMORY_LINE_CHARS_MAX:
        raise Malformed(f"{what} has at most {limits.MEMORY_LINE_CHARS_MAX} characters")
