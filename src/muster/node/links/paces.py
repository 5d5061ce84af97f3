"""How often each kind of place is used: what it costs there, and how soon somebody looks."""

from typing import Final

from muster.channel.base import PostOptions
from muster.log.pace import Pace

# How soon the next parcel for the same machine is left: each costs something somewhere.
GAPS_S: Final = {"nats": 0.1, "drop": 0.1, "git": 0.1, "cloud": 2.0}
_FOLDER: Final = Pace(5_000, 300_000, 600_000, 8 * 1024 * 1024, sign_ms=5_000, look_ms=60_000)
_STORE: Final = Pace(
    60_000, 3_600_000, 3_600_000, 4 * 1024 * 1024, sign_ms=300_000, look_ms=600_000
)
PACES: Final = {"nats": _FOLDER, "drop": _FOLDER, "git": _STORE, "cloud": _STORE}


def pace_of(name: str, options: PostOptions) -> Pace:
    """The pace of a place, which is looked at as often as its options say."""
    pace = PACES[name]
    return pace._replace(look_ms=options.deadline_s * 1000 or pace.look_ms)
