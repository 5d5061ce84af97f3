"""What happens, and runs a schedule: the end of a run, an incident, a message or a memory, as an
entry says it.

Rule 1: an entry is the trigger, of the keeper's own stream: so one machine alone fires it, once,
        and needs no register. What another machine wrote triggers nothing here.
Rule 2: what its text says is a value of the run, as any other, and never a part of a source.
Rule 3: a run that a schedule began may trigger another one, so many times in a row and no more.
Rule 4: every worker sees what triggered: a message is one to all, a memory one of the whole fleet.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct, field

from muster.fleet.incident import fits
from muster.fleet.kinds import INCIDENT_OPEN, IncidentOpen
from muster.log.entry import Entry, EntryId
from muster.log.fold import body_or_none
from muster.log.kind import KINDS as BODIES
from muster.log.stream import FLEET
from muster.task.causes import Lookup
from muster.task.kinds import RunOpen, RunSettle
from muster.task.schedule_kinds import ScheduleFire
from muster.task.text_types import Name, matching

END, MESSAGE, MEMORY = "run.settle", "message.send", "memory.put"
KINDS: Final = (END, INCIDENT_OPEN, MESSAGE, MEMORY)
EVERYONE: Final = "all"
# A run that is triggered by the end of another one, and so on.
DEPTH_MAX: Final = 3
_TEXT_CHARS_MAX: Final = 1_000
Keys = Annotated[
    str,
    matching(
        "^[a-z0-9:*-]{1,64}$", "is no key of incidents; write a-z, 0-9, : and -, * for any letters"
    ),
]
Senders = Annotated[
    str,
    matching(
        "^[A-Za-z0-9@:._*-]{1,100}$",
        "says of nobody that a message is theirs; write claude@studio, op:alice, * for any letters",
    ),
]
Records = Annotated[
    str,
    matching("^[A-Za-z0-9._/:*-]{1,200}$", "is no key of the memory; write deploys/*, * for any"),
]


class Message(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A message to all that somebody says on a keeper, with this beginning or any."""

    sender: Senders = field(name="from")
    begins: Annotated[str, Meta(min_length=1, max_length=100)] | None = None


class Trigger(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The end of a run of this name, with this outcome or any; an incident by its key; a message;
    or what is remembered under a key.
    """

    run: Name | None = None
    outcome: Literal["done", "failed", "cancelled"] | None = None
    incident: Keys | None = None
    message: Message | None = None
    memory: Records | None = None

    @property
    def refusal(self) -> str:
        """What is wrong with it, or ""."""
        said = (self.run, self.incident, self.message, self.memory)
        if sum(each is not None for each in said) != 1:
            return (
                "`on` is one of {run: NAME}, {incident: KEY}, {message: {from: WHO}} and "
                "{memory: KEY}"
            )
        if self.outcome is not None and self.run is None:
            return "`outcome` is of a run; leave it out"
        return ""

    @property
    def words(self) -> str:
        """What it is, as people say it."""
        if self.incident is not None:
            return f"each incident {self.incident}"
        if self.memory is not None:
            return f"what is remembered of {self.memory}"
        if self.message is not None:
            begins = f" that begins with {self.message.begins!r}" if self.message.begins else ""
            return f"each message of {self.message.sender} to all{begins}"
        return f"the end of each run {self.run}" + (
            f" that is {self.outcome}" if self.outcome else ""
        )

    def erased(self, entry: Entry, said: str) -> str | None:
        """What an entry said that was erased since, as its run has it; None where it was no such
        trigger.
        """
        kinds = {END: self.run, INCIDENT_OPEN: self.incident, MESSAGE: self.message}
        wanted = {**kinds, MEMORY: self.memory}.get(entry.header.kind)
        return said if entry.body is None and wanted is not None else None

    def text(self, entry: Entry, lookup: Lookup) -> str | None:
        """What an entry says where it is such a trigger, else None."""
        tells = _TELLS.get(entry.header.kind)
        known = BODIES.get(entry.header.kind)
        if tells is None or known is None or entry.stream.scope != FLEET:
            return None
        # By the name of its kind: what is said and remembered stands beside this layer.
        body = body_or_none(entry, known.body)
        found = tells(self, body, entry, lookup) if body is not None else None
        return found[:_TEXT_CHARS_MAX] if found is not None else None


def _incident(trigger: Trigger, told: IncidentOpen, _entry: Entry, _lookup: Lookup) -> str | None:
    wanted = trigger.incident
    return told.title if wanted is not None and fits(wanted, told.key) else None


def _end(trigger: Trigger, end: RunSettle, entry: Entry, lookup: Lookup) -> str | None:
    if trigger.run is None or trigger.outcome not in (None, end.outcome):
        return None
    opening = _opening(entry, lookup)
    body = body_or_none(opening, RunOpen)
    return end.summary if body is not None and body.name == trigger.run else None


def _message(trigger: Trigger, said: Any, entry: Entry, _lookup: Lookup) -> str | None:
    wanted = trigger.message
    if wanted is None or said.to != [EVERYONE] or not fits(wanted.sender, entry.header.actor):
        return None
    return str(said.text) if said.text.startswith(wanted.begins or "") else None


def _version(trigger: Trigger, put: Any, _entry: Entry, _lookup: Lookup) -> str | None:
    """The key alone: a text that is forgotten later may not stay as the value of a run. What came
    from outside the fleet begins nothing: whoever is given it has to know that.
    """
    wanted = trigger.memory
    if wanted is None or not fits(wanted, put.key) or put.origin == "outside":
        return None
    return str(put.key)


_TELLS: Final[Mapping[str, Callable[[Trigger, Any, Entry, Lookup], str | None]]] = {
    END: _end, INCIDENT_OPEN: _incident, MESSAGE: _message, MEMORY: _version,
}  # fmt: skip


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
