"""What git says when it fails, as an error that says whose fault it is.

Rule 1: the texts are git's own in the C locale; the first mark that is found decides.
Rule 2: what a person reads is one clean line, the one that decided, and what to do next.
"""

import re
from collections.abc import Sequence
from typing import Final

from muster.errors import (
    Broken,
    Conflict,
    Damaged,
    Exhausted,
    MusterError,
    NotFound,
    Refused,
    Unreachable,
)
from muster.printable import visible

# The longest name that file systems take is 255 bytes; a path is cut where nobody reads on.
_NAME_CHARS_MAX: Final = 300

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")

# What git says of a repository that a power cut or a failing disk has left unreadable.
_DAMAGE: Final = (
    "is corrupt", "is empty", "bad object", "bad tree object", "bad config", "badRef", "badref",
    "invalid sha1 pointer", "unable to read", "could not read", "failed to read", "inflate",
    "does not match index", "far too short", "index file corrupt", "unknown index version",
    "missing blob", "missing tree", "missing commit", "unable to find", "unexpected line in",
    "did not send all necessary objects", "unable to parse", "Could not parse",
    "garbage at end of", "corrupted",
)  # fmt: skip
_COPY: Final = "a copy is damaged, or the disk that holds it"

_SPACE: Final = "free some disk space and try again"
_BUSY: Final = "try again when this machine is less busy"
_ACCESS: Final = "check the address and your access"
_NOTHING: Final = "nothing was changed"
_FASTER: Final = "somebody else moved it first; read it again"
_NETWORK: Final = "try again when the network is back"
_UNASKED: Final = "nobody is asked for a password here; use ssh:// and a key"

# First match decides; the texts are git's own in the C locale.
_MEANINGS: Final[tuple[tuple[str, type[MusterError], str], ...]] = (
    # First: what is wrong with a stranger's object is said in the stranger's own words.
    ("fsck error", Refused, _NOTHING),
    ("No space left on device", Exhausted, _SPACE),
    ("Out of diskspace", Exhausted, _SPACE),
    ("Disk quota exceeded", Exhausted, _SPACE),
    ("Too many open files", Exhausted, _BUSY),
    ("Resource temporarily unavailable", Exhausted, _BUSY),
    ("Cannot allocate memory", Exhausted, _BUSY),
    ("out of memory", Exhausted, _BUSY),
    ("Permission denied (", Unreachable, _ACCESS),
    ("Permission denied", Broken, "check who owns the folder"),
    ("muster: unreachable", Unreachable, "try again later"),
    ("muster: refused", Refused, _NOTHING),
    ("pack exceeds maximum allowed size", Refused, "nothing was changed; deliver less"),
    ("hook declined", Refused, _NOTHING),
    ("stale info", Conflict, _FASTER),
    # A branch `muster`, where `muster/<run>/<phase>` is to be made: no waiting helps.
    ("exists; cannot create", Refused, "rename the branch that is in the way"),
    ("reference broken", Damaged, _COPY),
    ("cannot lock ref", Conflict, _FASTER),
    ("failed to update ref", Conflict, _FASTER),
    ("non-fast-forward", Conflict, _FASTER),
    ("fetch first", Conflict, _FASTER),
    ("' not allowed", Refused, "use a muster::, ssh://, https:// or local address"),
    ("mismatched algorithms", Refused, "only repositories with SHA-1 object names are taken"),
    ("nvalid path '", Refused, "rename it: git checks out no path like this"),
    ("File name too long", Refused, "shorten the name"),
    ("not a git repository", NotFound, "check the path"),
    ("does not appear to be a git repository", NotFound, "check the path"),
    ("couldn't find remote ref", NotFound, "check the name"),
    ("Could not resolve host", Unreachable, _NETWORK),
    ("Connection refused", Unreachable, "try again when the other side is up"),
    ("Connection timed out", Unreachable, _NETWORK),
    ("Could not read from remote repository", Unreachable, _ACCESS),
    ("could not read Username", Refused, _UNASKED),
    ("could not read Password", Refused, _UNASKED),
    ("unable to access 'http", Unreachable, _ACCESS),
    ("hung up unexpectedly", Unreachable, "try again"),
    ("early EOF", Unreachable, "try again"),
)


def meaning(verb: str, code: int, err: str, said: str) -> MusterError:
    """The error that a failed git command stands for; `said` is all that it wrote."""
    for mark, kind, advice in _MEANINGS:
        if mark in said:
            return kind(f"git {verb} failed: {_line(err, mark)}; {advice}.")
    line = _line(err, "")
    if any(mark in err for mark in _DAMAGE):
        return Damaged(f"git {verb} failed: {line}; {_COPY}.")
    return Broken(f"git {verb} failed with code {code}: {line}.")


def clean(text: str) -> str:
    """A stranger's text in one safe, short line."""
    return visible(_CONTROL.sub(" ", text).strip()[:300])


def shown(raw: bytes) -> str:
    """A file's name as one readable, bounded word: what is no text is written as its escape."""
    text = raw.decode("utf-8", "backslashreplace")
    plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return plain if len(plain) <= _NAME_CHARS_MAX else f"{plain[:_NAME_CHARS_MAX]}…"


def listed(names: Sequence[str | bytes], most: int) -> str:
    """Names, as many as anybody reads; those of files as `shown`."""
    first = ", ".join(each if isinstance(each, str) else shown(each) for each in names[:most])
    return first + (f" and {len(names) - most} more" if len(names) > most else "")


def reason(err: str) -> str:
    """The first useful line of what git wrote to standard error."""
    lines = [clean(line.rpartition("\r")[2]) for line in err.splitlines()]
    lines = [line for line in lines if line and not line.startswith(("hint:", "warning:"))]
    for mark in ("muster:", "fatal:", "error:", "!"):
        for line in lines:
            if mark in line:
                return line.removeprefix("remote: ").strip()
    return lines[0] if lines else "no reason given"


def _line(err: str, mark: str) -> str:
    """What git said of it: the line that decided, which is often not the last word."""
    for line in err.splitlines() if mark else ():
        if mark in line and not line.startswith(("hint:", "warning:")):
            return clean(line.rpartition("\r")[2].removeprefix("remote: ")).rstrip(".;")
    return reason(err).rstrip(".;")
