"""How often something is left in a mailbox, by what kind of place it is."""

from typing import Final, NamedTuple

# A peer may use the place from tomorrow on; till then little lies there.
SELDOM_MS: Final = 6 * 3_600_000


class Pace(NamedTuple):
    """What a kind of place bears: how long to wait before something is offered again, at first and
    at most; how soon all is told in turn; and how much may lie there unreceipted, in bytes.

    `sign_ms`: how often a machine says at most that it lives (signs.py). `look_ms`: so long what
    lies there may wait until it is looked at.
    """

    retry_ms: int
    retry_ms_max: int
    refresh_ms: int
    flight_bytes: int
    sign_ms: int = 5_000
    look_ms: int = 0
