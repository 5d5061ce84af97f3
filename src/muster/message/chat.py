"""What is heard and posted over chat bridges, as entries and rows.

Rule 1: what was heard is a row before it counts: whoever hears it again, after a crash or from a
service that repeats itself, finds the row. The cursor goes with it. Both are the machine's own
(its journal), and so is what it posted where.
Rule 2: what an agent waits for is told to the machine with the bridge alone, and what an account
pressed to the machine where the agent waits alone: each in a stream that only those two read. The
machine with the bridge vouches for who pressed; whether that counts, the other one decides.
"""

from collections.abc import Iterable
from typing import Annotated, Final, Literal, NamedTuple

from msgspec import Meta, Struct, field

from muster.fleet.chat import Account, Service, Workspace
from muster.fleet.name import Hex16, Hex32, Milliseconds, Text, Word
from muster.log.entry import Entry
from muster.log.fold import Rows, Skip, Table, body_as
from muster.log.kind import kind
from muster.log.stream import JOURNAL, StreamName

Id = Annotated[str, Meta(max_length=512)]
Cursor = Annotated[str, Meta(max_length=16_384)]
# What a button carries: what it does, and the id of what it is about. That of an approval is of
# one action (task/approval.py), that of an incident of one telling of it.
DATA: Final = "([yna])([0-9a-f]{32})"
Data = Annotated[str, Meta(pattern=rf"^{DATA}\Z")]
State = Literal["wanted", "there"]
Outcome = Literal["allowed", "denied", "refused"]


@kind("chat.heard", unknown="ignore")
class ChatHeard(Struct, frozen=True, omit_defaults=True):
    """Something was heard, once; `message` is what it became, and `room` where an answer goes."""

    service: Service
    id: Id
    cursor: Cursor = ""
    message: Id = ""
    room: Id = ""
    thread: Id = ""


@kind("chat.post", unknown="ignore")
class ChatPosted(Struct, frozen=True, omit_defaults=True):
    """A post as it is wanted; `there` once the service shows it so, under `ref`."""

    service: Service
    key: Id
    room: Id
    text: Annotated[str, Meta(max_length=65_536)]
    buttons: tuple[Data, ...] = ()
    thread: Id = ""
    ref: Id = ""
    state: State = "wanted"


@kind("chat.ask")
class ChatAsk(Struct, frozen=True, forbid_unknown_fields=True):
    """An agent here waits for a permission that an account of yours may give.

    `id`, `hash`, `sort` (the class) and `until_ms` are those of its `approval.ask`.
    """

    hash: Hex32
    id: Hex16
    text: Text
    until_ms: Milliseconds
    sort: Word = field(name="class")


@kind("chat.press")
class ChatPress(Struct, frozen=True, forbid_unknown_fields=True):
    """This account pressed yes or no on what you asked under `id` and showed under `hash`."""

    account: Account
    allow: bool
    hash: Hex32
    id: Hex16
    service: Service
    workspace: Workspace = ""


@kind("chat.settle")
class ChatSettle(Struct, frozen=True, forbid_unknown_fields=True):
    """What became of a press (its entry's id)."""

    id: Hex16
    outcome: Outcome
    press: Hex32
    text: Text


class HeardRow(NamedTuple):
    stream: StreamName
    service: str
    id: str
    message: str
    room: str
    thread: str


class CursorRow(NamedTuple):
    stream: StreamName
    service: str
    cursor: str
    at_ms: int


class PostRow(NamedTuple):
    stream: StreamName
    service: str
    key: str
    room: str
    text: str
    buttons: str
    thread: str
    ref: str
    state: str
    at_ms: int


HEARD: Final = Table("chat_heard", HeardRow, key=2, indexes=(("message",),))
CURSOR: Final = Table("chat_cursor", CursorRow)
POST: Final = Table("chat_post", PostRow, key=2, indexes=(("state",), ("ref",), ("key",)))


class ChatFold:
    """See rule 1 at the top of this file."""

    name = "chat"
    tables = (HEARD, CURSOR, POST)
    kinds = frozenset({"chat.heard", "chat.post"})

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        """See the rules at the top of this file."""
        if rows.stream.scope != JOURNAL:
            raise Skip("wrong-scope")
        if entry.header.kind == "chat.post":
            post = body_as(entry, ChatPosted)
            what = (post.service, post.key, post.room, post.text, " ".join(post.buttons))
            where = (post.thread, post.ref, post.state, entry.header.t[0])
            return [PostRow(rows.stream, *what, *where)]
        body = body_as(entry, ChatHeard)
        found: list[NamedTuple] = []
        if body.id:
            to = (body.message, body.room, body.thread)
            found.append(HeardRow(rows.stream, body.service, body.id, *to))
        if body.cursor:
            row = CursorRow(rows.stream, body.service, body.cursor, entry.header.t[0])
            found.append(row)
        return found
