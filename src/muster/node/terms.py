"""What a message's sender said about it besides: how much it matters, until when, when to worry,
and between which live sessions it is.
"""

from typing import TYPE_CHECKING

from muster.log.entry import Entry
from muster.log.fold import body_as
from muster.message.fold import MESSAGE, MessageRow
from muster.message.kinds import MessageTerms

if TYPE_CHECKING:
    from muster.node.core import Core


def row_of(core: "Core", entry: Entry) -> MessageRow | None:
    """The row of a message; None where it is none, or stands beyond a cut."""
    return core.tables.row(MESSAGE, entry.stream, entry.header.seq)


def terms_of(core: "Core", entry: Entry) -> MessageTerms | None:
    """The terms that count for a message; None where it has none."""
    return terms_in(core, entry, row_of(core, entry))


def terms_in(core: "Core", entry: Entry, row: MessageRow | None) -> MessageTerms | None:
    """The same for a message whose row is at hand."""
    if row is None or not row.has_terms:
        return None
    return body_as(core.log.entry_at(entry.stream, entry.header.seq + 1), MessageTerms)


def is_over(row: MessageRow | None, now_ms: int) -> bool:
    """Whether a message counts no more."""
    return row is not None and 0 < row.until_ms <= now_ms
