"""How long, as people write it: `45s`, `10m`, `1h30m`, `2d`.

Rule: the text is kept as written where it was signed; here it becomes milliseconds.
"""

import re
from typing import Final

from muster.errors import Malformed

DURATION: Final = "^(?=.)([0-9]{1,3}d)?([0-9]{1,4}h)?([0-9]{1,5}m)?([0-9]{1,7}s)?$"
_MS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000}


def duration_ms(text: str) -> int:
    """`1h30m` -> 5400000. The text has been matched with DURATION."""
    parts = re.findall(r"([0-9]+)([dhms])", text)
    return sum(int(number) * _MS[unit] for number, unit in parts)


def duration_of(text: str) -> int | None:
    """What a person wrote as a duration, in milliseconds; None where it is none."""
    return duration_ms(text) if re.fullmatch(DURATION, text) else None


def wait_s(text: str) -> float:
    """How long a person wants to wait. Raises: Malformed."""
    found = duration_of(text)
    if not found:
        raise Malformed(f"{text[:40]!r} is no time to wait: write 30s, 5m or 1h30m")
    return found / 1000
