"""Live sessions of agent programs become rows: where each is, and what may come into it.

Rule 1: a session is told by its agent and the id that the program itself gives it: whoever comes
back under these is the same session, and has the same address.
Rule 2: the newest entry about a name counts, whole. Only this machine's private stream says it.
Rule 3: a name is given once. It is short for people, and the id makes it nobody else's.

    claude@studio#shop-3fa9      agent@machine#session
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from typing import Final, Literal, NamedTuple

import msgspec

from muster import limits
from muster.errors import Malformed
from muster.log.entry import Entry
from muster.log.fold import Rows, Skip, Table, body_as
from muster.log.kind import kind
from muster.log.stream import JOURNAL, StreamName
from muster.message.kinds import is_session

Mode = Literal["open", "focus", "do-not-disturb"]
"""What may come into a session: everything, only what is for it alone, nothing."""
State = Literal["open", "ended", "gone"]

_AGENT: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
# Of a program's id and of a branch. Chosen arbitrarily: what fits on a line.
_CHARS_MAX: Final = 200
# Of a folder's name; what is longer is no help to anybody.
_WORD_CHARS_MAX: Final = 24
_DIGITS_MIN: Final = 4
_DIGITS_MAX: Final = 32
_NAMED: Final = re.compile(rf"(.+)-[0-9a-f]{{{_DIGITS_MIN},{_DIGITS_MAX}}}")


class _Lenient(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a machine says to itself alone: what a newer version added is read over."""


@kind("session.state", unknown="ignore")
class SessionState(_Lenient, frozen=True):
    """A live session of an agent program on this machine, as of now; in its private stream.

    `own` is the id that the program itself gives the session, the same when it is resumed;
    `session` is what it is called here, behind the `#` of its address. `gone` is one that nobody
    will resume.
    """

    session: str
    agent: str
    own: str
    project: str = ""
    branch: str = ""
    mode: Mode = "open"
    state: State = "open"


def check_session(body: SessionState) -> SessionState:
    """The session, if it can be one. Raises: Malformed."""
    if not _AGENT.fullmatch(body.agent):
        raise Malformed(f"{body.agent[:80]!r} is no name of an agent program, such as claude")
    if not is_session(body.session):
        raise Malformed(f"{body.session[:80]!r} is no name of a session, such as shop-3fa9")
    if not body.own or len(body.own) > _CHARS_MAX or not body.own.isprintable():
        raise Malformed(f"a session has an id of its own, of at most {_CHARS_MAX} characters")
    if len(body.project.encode()) > limits.SESSION_PATH_BYTES_MAX or len(body.branch) > _CHARS_MAX:
        raise Malformed("the folder or the branch of a session is longer than any can be")
    return body


class SessionRow(NamedTuple):
    stream: StreamName
    name: str
    agent: str
    own: str
    project: str
    branch: str
    mode: Mode
    state: State
    at_ms: int


SESSION: Final = Table("live_session", SessionRow, indexes=(("own",), ("at_ms",)))


class SessionFold:
    """See the rules at the top of this file."""

    name = "session"
    tables = (SESSION,)
    kinds = frozenset({"session.state"})

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        """See the rules at the top of this file."""
        if rows.stream.scope != JOURNAL:
            raise Skip("wrong-scope")
        try:
            body = check_session(body_as(entry, SessionState))
        except Malformed as error:
            raise Skip("bad-session") from error
        return [
            SessionRow(
                rows.stream, body.session, body.agent, body.own, body.project, body.branch,
                body.mode, body.state, entry.header.t[0],
            )
        ]  # fmt: skip


def session_name(agent: str, own: str, project: str, is_taken: Callable[[str], bool]) -> str:
    """What a session is called: its folder, and as many digits as tell it from all others."""
    folder = project.rstrip("/").rpartition("/")[2].lower()
    word = re.sub(r"[^a-z0-9]+", "-", folder).strip("-")[:_WORD_CHARS_MAX].strip("-") or agent
    digits = hashlib.sha256(f"{agent}\n{own}".encode()).hexdigest()[:_DIGITS_MAX]
    names = (f"{word}-{digits[:most]}" for most in range(_DIGITS_MIN, len(digits) + 1))
    return next((name for name in names if not is_taken(name)), f"{word}-{digits}")


def is_session_name(agent: str, name: str) -> bool:
    """Whether a session of this agent can be called so by `session_name`."""
    found = _NAMED.fullmatch(name) if is_session(name) else None
    return found is not None and (len(found[1]) <= _WORD_CHARS_MAX or found[1] == agent)


def split_address(text: str) -> tuple[str, str]:
    """An address without its session, and the session ("" for none)."""
    address, _, session = text.partition("#")
    return address, session
