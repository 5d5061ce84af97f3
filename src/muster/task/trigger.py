"""What happens, and runs a schedule: the end of a run, or an incident, as an entry says it.

Rule 1: an entry is the trigger, of the keeper's own stream: so one machine alone fires it, once,
        and needs no register. What another machine wrote triggers nothing here.
Rule 2: what its text says is a value of the run, as any other, and never a part of a source.
Rule 3: a run that a schedule began may trigger another one, so many times in a row and no more.
"""

from typing import Annotated, Final, Literal

from msgspec import Struct

from muster.fleet.incident import fits
from muster.fleet.kinds import INCIDENT_OPEN, IncidentOpen
from muster.log.entry import Entry, EntryId
from muster.log.fold import body_or_none
from muster.task.causes import Lookup
from muster.task.kinds import RunOpen, RunSettle
from muster.task.schedule_kinds import ScheduleFire
from muster.task.text_types import Name, matching

KINDS: Final = ("run.settle", INCIDENT_OPEN)
# A run that is triggered by the end of another one, and so on.
DEPTH_MAX: Final = 3
_TEXT_CHARS_MAX: Final = 1_000
Keys = Annotated[
    str,
    matching(
        "^[a-z0-9:*-]{1,64}$", "is no key of incidents; write a-z, 0-9, : and -, * for any letters"
    ),
]


class Trigger(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The end of a run of this name, with this outcome or any; or an incident by its key."""

    run: Name | None = None
    outcome: Literal["done", "failed", "cancelled"] | None = None
    incident: Keys | None = None

    @property
    def refusal(self) -> str:
        """What is wrong with it, or ""."""
        if (self.run is None) == (self.incident is None):
            return "`on` is {run: NAME} or {incident: KEY}"
        if self.outcome is not None and self.run is None:
            return "`outcome` is of a run; leave it out"
        return ""

    def text(self, entry: Entry, lookup: Lookup) -> str | None:
        """What an entry says where it is such a trigger, else None."""
        told = body_or_none(entry, IncidentOpen) if entry.header.kind == INCIDENT_OPEN else None
        if told is not None and self.incident is not None:
            return told.title[:_TEXT_CHARS_MAX] if fits(self.incident, told.key) else None
        end = body_or_none(entry, RunSettle) if entry.header.kind == "run.settle" else None
        if end is None or self.run is None or self.outcome not in (None, end.outcome):
            return None
        opening = _opening(entry, lookup)
        body = body_or_none(opening, RunOpen)
        return end.summary[:_TEXT_CHARS_MAX] if body is not None and body.name == self.run else None


def depth(entry: Entry, lookup: Lookup) -> int:
    """How many schedules, one after the other, led to this."""
    found, at = 0, _opening(entry, lookup)
    while at is not None and found <= DEPTH_MAX:
        fires = [each for each in map(lookup, at.causes) if each is not None]
        fire = next((each for each in fires if each.header.kind == "schedule.fire"), None)
        if fire is None:
            return found
        found += 1
        body = body_or_none(fire, ScheduleFire)
        behind = lookup_of(body.trigger, lookup) if body is not None and body.trigger else None
        at = _opening(behind, lookup) if behind is not None else None
    return found


def lookup_of(id: str, lookup: Lookup) -> Entry | None:
    """The entry of this id in hex."""
    return lookup(EntryId(bytes.fromhex(id)))


def _opening(entry: Entry, lookup: Lookup) -> Entry | None:
    """The opening of the run that an entry ends."""
    cited = [each for each in map(lookup, entry.causes) if each is not None]
    return next((each for each in cited if each.header.kind == "run.open"), None)
