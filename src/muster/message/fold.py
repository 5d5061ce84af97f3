"""Messages and receipts become rows, each in the table of its own writer's stream.

Rule 1: `message` is keyed by (sender's stream, place in it), `receipt` by (reader's stream,
message, actor).
Rule 2: a key is used once per stream: the second message with it is skipped (`same-key`).
Rule 3: the first receipt counts. Acting on a message means having read it.
Rule 4: a row of `message` says where it stands, for whom and of when; its entry says the rest.
Rule 5: a receipt for a message that is not here yet is kept: arrival order is never an input.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from muster.errors import Malformed
from muster.log.entry import Entry, EntryId
from muster.log.fold import Affinity, Change, Rows, Skip, Table, body_as
from muster.log.stream import StreamName
from muster.message.kinds import MessageAct, MessageRead, MessageSend, check_send, is_id


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


class ReceiptRow(NamedTuple):
    """Columns of `receipt`; 0 and b"" where it has not happened."""

    read_ms: int
    acted_ms: int
    result: str
    text: str
    read: bytes
    acted: bytes


_TYPES: Final[Mapping[Any, Affinity]] = {int: "int", str: "text", bytes: "blob"}


# By place and not by id: ids are hashes, and each would dirty a page of its own at random.
MESSAGE_TABLE: Final = Table(
    "message", (("seq", "int"),), (("id", "blob"), ("recipients", "text"), ("at_ms", "int"))
)
KEY_TABLE: Final = Table("message_key", (("dedupe", "text"),), (("id", "blob"),), ids=True)
RECEIPT_TABLE: Final = Table(
    "receipt",
    (("message", "blob"), ("actor", "text")),
    tuple((name, _TYPES[type_]) for name, type_ in ReceiptRow.__annotations__.items()),
    ids=True,
)


class MessageFold:
    """What a stream's writer sent."""

    name = "message"
    tables = (MESSAGE_TABLE, KEY_TABLE)
    kinds = frozenset({"message.send"})

    def apply(self, entry: Entry, rows: Rows) -> Iterable[Change]:
        """See the rules at the top of this file."""
        try:
            body = check_send(body_as(entry, MessageSend))
        except Malformed as error:
            raise Skip("bad-message") from error
        changes = []
        if body.key:
            if rows.get("message_key", (body.key,)) is not None:
                raise Skip("same-key")
            changes.append(Change("message_key", (body.key,), (entry.id,)))
        row = (entry.id, "\n".join(body.to), entry.header.t[0])
        return [*changes, Change("message", (entry.header.seq,), row)]


class ReceiptFold:
    """What a stream's writer read and acted on."""

    name = "receipt"
    tables = (RECEIPT_TABLE,)
    kinds = frozenset({"message.read", "message.act"})

    def apply(self, entry: Entry, rows: Rows) -> Iterable[Change]:
        """See the rules at the top of this file."""
        acted = entry.header.kind == "message.act"
        body = body_as(entry, MessageAct) if acted else body_as(entry, MessageRead)
        if not is_id(body.message):
            raise Skip("bad-message-id")
        key = (bytes.fromhex(body.message), entry.header.actor)
        found = rows.get("receipt", key)
        row = ReceiptRow._make(found) if found is not None else ReceiptRow(0, 0, "", "", b"", b"")
        now = entry.header.t[0]
        if isinstance(body, MessageAct):
            if row.acted:
                raise Skip("acted-already")
            row = row._replace(acted_ms=now, result=body.result, text=body.text, acted=entry.id)
        elif row.read:
            raise Skip("read-already")
        if not row.read:
            row = row._replace(read_ms=now, read=entry.id)
        return [Change("receipt", key, row)]
