"""Messages and readings become rows, each in the table of its own writer's stream.

Rule 1: `message` is keyed by (sender's stream, place in it), `reading` by (reader's stream,
message, actor).
Rule 2: a key is used once per stream: the second message with it is skipped (`same-key`).
Rule 3: the first reading counts. Acting on a message means having read it.
Rule 4: a row of `message` says where it stands, for whom (also which session) and of when; its
entry says the rest.
Rule 5: the terms of a message stand right behind it and change its row; others are skipped
(`not-its-message`).
Rule 6: a reading for a message that is not here yet is kept: arrival order is never an input.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from muster.duration import duration_ms
from muster.errors import Malformed
from muster.log.entry import Entry, EntryId
from muster.log.fold import NO_ENTRY, Rows, Skip, Table, body_as
from muster.log.stream import StreamName
from muster.message.kinds import (
    MessageAct,
    MessageRead,
    MessageSend,
    MessageTerms,
    check_send,
    check_terms,
    is_id,
)

# How a priority is kept: what is smaller comes first.
RANKS: Final = {"high": -1, "": 0, "low": 1}


class Message(NamedTuple):
    """A message: its entry, and what that says."""

    entry: Entry
    id: EntryId
    stream: StreamName
    to: list[str]
    thread: str
    subject: str
    text: str
    at_ms: int


def message_of(entry: Entry) -> Message:
    """The message that an entry is. Raises: Skip where it is none."""
    body = body_as(entry, MessageSend)
    thread, at_ms = body.thread or body.reply_to or entry.id.hex(), entry.header.t[0]
    return Message(entry, entry.id, entry.stream, body.to, thread, body.subject, body.text, at_ms)


class MessageRow(NamedTuple):
    stream: StreamName
    # By place and not by id: ids are hashes, and each would dirty a page of its own at random.
    seq: int
    id: EntryId
    recipients: str
    at_ms: int
    # What the terms say; without any `has_terms` and all of them are 0.
    has_terms: int = 0
    session: str = ""
    rank: int = 0
    until_ms: int = 0
    alarm_ms: int = 0


class KeyRow(NamedTuple):
    stream: StreamName
    dedupe: str
    id: EntryId


class ReadingRow(NamedTuple):
    """0 and b"" where it has not happened."""

    stream: StreamName
    message: bytes
    actor: str
    read_ms: int
    acted_ms: int
    result: str
    text: str
    read: EntryId
    acted: EntryId


MESSAGE: Final = Table("message", MessageRow)
MESSAGE_KEY: Final = Table("message_key", KeyRow, ids=True)
READING: Final = Table("reading", ReadingRow, key=2, ids=True)


class MessageFold:
    """What a stream's writer sent."""

    name = "message"
    tables = (MESSAGE, MESSAGE_KEY)
    kinds = frozenset({"message.send", "message.terms"})

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        """See the rules at the top of this file."""
        if entry.header.kind == "message.terms":
            return [self._with_terms(entry, rows)]
        try:
            body = check_send(body_as(entry, MessageSend))
        except Malformed as error:
            raise Skip("bad-message") from error
        header = entry.header
        row = MessageRow(rows.stream, header.seq, entry.id, "\n".join(body.to), header.t[0])
        if not body.key:
            return [row]
        if rows.get(MESSAGE_KEY, body.key) is not None:
            raise Skip("same-key")
        return [KeyRow(rows.stream, body.key, entry.id), row]

    def _with_terms(self, entry: Entry, rows: Rows) -> MessageRow:
        try:
            body = check_terms(body_as(entry, MessageTerms))
        except Malformed as error:
            raise Skip("bad-terms") from error
        row = rows.get(MESSAGE, entry.header.seq - 1)
        if row is None or row.id.hex() != body.message:
            raise Skip("not-its-message")
        return row._replace(
            has_terms=1,
            session=body.to_session,
            rank=RANKS[body.priority],
            until_ms=row.at_ms + duration_ms(body.expires) if body.expires else 0,
            alarm_ms=duration_ms(body.alarm),
        )


class ReadingFold:
    """What a stream's writer read and acted on."""

    name = "reading"
    tables = (READING,)
    kinds = frozenset({"message.read", "message.act"})

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        """See the rules at the top of this file."""
        acted = entry.header.kind == "message.act"
        body = body_as(entry, MessageAct) if acted else body_as(entry, MessageRead)
        if not is_id(body.message):
            raise Skip("bad-message-id")
        key = (bytes.fromhex(body.message), entry.header.actor)
        row = rows.get(READING, *key) or ReadingRow(
            rows.stream, *key, 0, 0, "", "", NO_ENTRY, NO_ENTRY
        )
        now = entry.header.t[0]
        if isinstance(body, MessageAct):
            if row.acted:
                raise Skip("acted-already")
            row = row._replace(acted_ms=now, result=body.result, text=body.text, acted=entry.id)
        elif row.read:
            raise Skip("read-already")
        if not row.read:
            row = row._replace(read_ms=now, read=entry.id)
        return [row]
