"""Verbs about live sessions of agent programs: what registers them, and what people see of them.

Rule: a token is told to whoever opened the session, once, and stands in no list and no entry.
"""

from typing import Annotated

from msgspec import Meta, Struct

from muster.errors import Denied
from muster.limits import (
    HOOK_TOUCHED_MS,
    SAME_FILE_WRITERS_MAX,
    SAME_FILES_PER_CALL,
    SESSIONS_MAX,
)
from muster.message.session import Mode, SessionRow, split_address
from muster.node.services.same_files import SameFiles
from muster.node.services.sessions import Sessions
from muster.node.verb import LATER, Column, Later, Line
from muster.verbs.declaration import Call, Core, Nothing, Request, data, opt, pos, verb
from muster.verbs.listing import say_cut


class Opening(Request, frozen=True):
    agent: Annotated[str, data()]
    own: Annotated[str, data()]
    project: Annotated[str, data()] = ""
    branch: Annotated[str, data()] = ""
    pid: Annotated[int, data()] = 0


class Opened(Struct, frozen=True):
    """A session: what it is called, where messages reach it, and its token."""

    session: str
    address: str
    token: str


@verb("session.open", auth="local", writes=True, on="none")
def open_session(core: Core, call: Call, ask: Opening) -> Opened:
    """A session of an agent program begins or goes on; `own` is the id that the program gives it.

    The same id is the same session, with the same address, after any restart. Where the program
    with this `pid` has one already, which its hooks told, it is that one. Raises: Denied where
    that program's hooks said a moment ago that it ends.
    """
    part = core.part(Sessions)
    row = part.of_program(ask.agent, ask.pid)
    if row is None and part.is_ending(ask.agent, ask.pid, ask.own):
        raise Denied("this program said a moment ago that it ends: it has no session any more")
    part.started(ask.agent, ask.pid, ask.own)
    if row is None:
        row = part.open(ask.agent, ask.own, ask.project, ask.branch)
        part.runs_in(row, ask.pid)
    return Opened(row.name, address_of(core, row), part.token(row))


class Token(Request, frozen=True):
    token: Annotated[str, data()]


class Who(Struct, frozen=True, kw_only=True):
    """The session that showed a token."""

    session: str
    address: str
    agent: str
    own: str
    project: str
    branch: str
    mode: Mode


@verb("session.who", auth="local", on="none")
def who(core: Core, call: Call, ask: Token) -> Who:
    """Whose token this is. The same token is the capability of what that session then asks."""
    row = core.part(Sessions).of_token(ask.token)
    return Who(
        session=row.name, address=address_of(core, row), agent=row.agent, own=row.own,
        project=row.project, branch=row.branch, mode=row.mode,
    )  # fmt: skip


class Closing(Request, frozen=True):
    session: Annotated[str, data()]
    gone: Annotated[bool, data()] = False


class Closed(Struct, frozen=True):
    session: str
    state: str


@verb("session.close", auth="local", writes=True, on="none")
def close(core: Core, call: Call, ask: Closing) -> Closed:
    """A session ended. What is for it waits until it is resumed, or, `gone`, is its agent's now."""
    part = core.part(Sessions)
    row = part.change(part.find(ask.session), state="gone" if ask.gone else "ended")
    part.forget(row)
    return Closed(row.name, row.state)


Print = Annotated[str, Meta(pattern=r"^(?:[0-9a-f]{32})?\Z")]
# As agents and sessions are called: nothing else of another machine's words reaches a session.
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\Z")]
Ago = Annotated[int, Meta(ge=0, le=HOOK_TOUCHED_MS)]
Writers = Annotated[list[tuple[Name, Name, Ago]], Meta(max_length=SAME_FILE_WRITERS_MAX)]


class Wrote(Request, frozen=True, forbid_unknown_fields=False):
    files: Annotated[
        Annotated[list[tuple[Print, Print]], Meta(max_length=SAME_FILES_PER_CALL)], data()
    ]


@verb("session.wrote", auth="peer")
def wrote(core: Core, call: Call, ask: Wrote) -> Later:
    """Sessions of another machine wrote these files just now; which ones only those know that wrote
    the same.
    """
    core.part(SameFiles).on_wrote(call.peer, ask.files)
    return LATER


class Meeting(Request, frozen=True, forbid_unknown_fields=False):
    files: Annotated[
        Annotated[list[tuple[Print, Print, Writers]], Meta(max_length=SAME_FILES_PER_CALL)], data()
    ]
    back: Annotated[bool, data()] = False


@verb("session.met", auth="peer")
def met(core: Core, call: Call, ask: Meeting) -> Later:
    """Sessions of both machines wrote these files; `back` asks who did here."""
    core.part(SameFiles).on_met(call.peer, ask.files, back=ask.back)
    return LATER


class Live(Struct, frozen=True, kw_only=True):
    """A session: where it works, what may come into it, and when it was last heard of."""

    session: str
    address: str
    agent: str
    project: str
    branch: str
    mode: str
    state: str
    heard_ms: int


@verb("sessions", auth="local", group="Messages", harmless=True, names="session",
      nothing="No agent program has a session here: `muster install claude` lets Claude Code's in.",
      columns=(Column("address", form="bold"), Column("state", form="state"), Column("mode"),
               Column("heard_ms", "heard", "ago", rank=1),
               Column("project", rank=2, least=12, width=48),
               Column("branch", rank=3)))  # fmt: skip
def sessions(core: Core, call: Call, ask: Nothing) -> list[Live]:
    """List the live sessions of agent programs on this machine, the last heard of first.

    muster sessions
    muster sessions --on build
    """
    part = core.part(Sessions)
    rows = [row for row in part.newest() if not part.is_gone(row)]
    if len(rows) == SESSIONS_MAX:
        say_cut(call, len(rows), "sessions", "older ones are there and not listed")
    return [_live(core, row) for row in sorted(rows, key=part.heard_ms, reverse=True)]


class Changed(Request, frozen=True):
    session: Annotated[str, pos("the session: what stands behind the # of its address")]
    mode: Annotated[Mode, opt("what may come into it")]


@verb("session", auth="local", group="Messages", harmless=True, writes=True,
      says=(Line("{address}  {mode}"),))  # fmt: skip
def session(core: Core, call: Call, ask: Changed) -> Live:
    """Say what may come into a live session by itself.

    `open`: messages, news and notices, whenever they come; `focus`: while it works, only what is
    for this very session; `do-not-disturb`: nothing, what comes waits in the inbox.

    muster session shop-3fa9 --mode focus
    """
    part = core.part(Sessions)
    return _live(
        core, part.change(part.find(split_address(ask.session)[1] or ask.session), mode=ask.mode)
    )


def _live(core: Core, row: SessionRow) -> Live:
    return Live(
        session=row.name, address=address_of(core, row), agent=row.agent, project=row.project,
        branch=row.branch, mode=row.mode, state=row.state,
        heard_ms=core.part(Sessions).heard_ms(row),
    )  # fmt: skip


def address_of(core: Core, row: SessionRow) -> str:
    """Where messages reach a session."""
    return f"{row.agent}@{core.name}#{row.name}"
