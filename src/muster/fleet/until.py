"""Until when something counts: as a person wrote it, from the moment at which it was signed.

Rule: the text is what was signed; every machine makes the same moment of it.
"""

from datetime import UTC, datetime

from muster.duration import duration_of
from muster.errors import Malformed


def until_ms(text: str, signed_ms: int) -> int:
    """`8h` (from the signing on), or a date and time (UTC without a zone). Raises: Malformed."""
    span_ms = duration_of(text)
    if span_ms is not None:
        return signed_ms + span_ms
    return date_ms(text, "8h")


def date_ms(text: str, else_as: str) -> int:
    """A date and time such as `2026-11-20T23:00` (UTC without a zone). Raises: Malformed."""
    try:
        found = datetime.fromisoformat(text)
        zoned = found if found.tzinfo else found.replace(tzinfo=UTC)
        return int(zoned.timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise Malformed(f"{text[:40]!r} is no time; write {else_as} or 2026-11-20T23:00") from error
