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
    try:
        found = datetime.fromisoformat(text)
        zoned = found if found.tzinfo else found.replace(tzinfo=UTC)
        return int(zoned.timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise Malformed(f"{text[:40]!r} is no time; write 8h or 2026-11-20T23:00") from error
