"""`[notify]` and `[heartbeat]` of `config.toml`: who tells people what happens, and when.

Rule: what is of no use is named by its setting. Where messages go, and with which passwords, stands
in a file of its own (notify_store.py).
"""

import re
from datetime import UTC, datetime, tzinfo
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import msgspec

from muster.errors import Malformed
from muster.fleet.escalation import Hours
from muster.fleet.name import NAME_PATTERN
from muster.limits import PAGERS_MAX
from muster.task.occurrences import check_zone
from muster.task.problem import shown

_TIME: Final = r"([01][0-9]|2[0-3]):([0-5][0-9])"
_URL_CHARS_MAX: Final = 2048


class NotifyConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """`pagers` are the machines that tell people, in this order; none named is this one alone.

    `quiet` is when warnings wait (22:00-07:00), `digest` when notices are told, in the `zone` of
    whoever is told, "" for the system's. `runs` are those whose end is told of.
    """

    pagers: Annotated[tuple[str, ...], msgspec.Meta(max_length=PAGERS_MAX)] = ()
    quiet: str = ""
    zone: str = ""
    digest: str = "08:00"
    runs: Literal["failed", "end", "none"] = "failed"

    def check(self) -> None:
        """Raises: Malformed naming the setting that is of no use."""
        for name in self.pagers:
            if not re.match(NAME_PATTERN, name):
                raise Malformed(f"`pagers` names {shown(name)}, which is no name of a machine")
        if len(set(self.pagers)) != len(self.pagers):
            raise Malformed("`pagers` names a machine twice; the order says who comes first")
        if self.quiet and not re.fullmatch(f"{_TIME}-{_TIME}", self.quiet):
            raise Malformed(f"`quiet` is {shown(self.quiet)}; write it as 22:00-07:00")
        if not re.fullmatch(_TIME, self.digest):
            raise Malformed(f"`digest` is {shown(self.digest)}; write it as 08:00")
        if self.zone:
            try:
                check_zone(self.zone)
            except Malformed as error:
                raise Malformed(f"`zone`: {error}") from None

    def hours(self) -> Hours:
        """When whoever is told sleeps."""
        zone: tzinfo | None = check_zone(self.zone) if self.zone else None

        def offset_ms(ms: int) -> int:
            there = datetime.fromtimestamp(ms / 1000, UTC).astimezone(zone)
            offset = there.utcoffset()
            return 0 if offset is None else int(offset.total_seconds()) * 1000

        begin, _, end = self.quiet.partition("-")
        return Hours(offset_ms, (_minute(begin), _minute(end)), _minute(self.digest))


class Heartbeat(msgspec.Struct, frozen=True, omit_defaults=True):
    """`[heartbeat]`: an address of the web that is asked for every five minutes while this machine
    lives. Who watches it tells people when it stays away: a fleet that is dead cannot.
    """

    url: str = ""

    def check(self) -> None:
        """Raises: Malformed naming the setting that is of no use, without its value."""
        parts = urlsplit(self.url)
        web = parts.scheme in ("http", "https") and bool(parts.hostname)
        plain = self.url.isascii() and self.url.isprintable() and " " not in self.url
        if self.url and not (web and plain and len(self.url) <= _URL_CHARS_MAX):
            raise Malformed("`url` is no address of the web; write it as https://host/path")


def _minute(text: str) -> int:
    hour, _, minute = text.partition(":")
    return int(hour) * 60 + int(minute) if text else 0
