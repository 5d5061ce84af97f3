"""What somebody said of an incident: that a person has looked at it.

Rule 1: an incident is named by what it is, so that every machine gives it the same name: a fork by
its stream and the place of the first difference, everything else by the stream that tells of it,
its key there and when it was told last. What is told again, and an earlier difference that is
proved later, is another incident and waits for a word of its own.
Rule 2: the word counts for its signature, whoever passes it on: an operator's, also of one that was
(operator_end.py); of what is no fork, also the word of whoever may order `acknowledge` now. It adds
nothing to a stream and takes nothing away: it ends the alarm.
Rule 3: with `until` it counts for that long, however often the incident is told again meanwhile,
and no longer. A fork has no `until`: it is closed for good.
Rule 4: `fork.close` is how versions before 0.2 said it of a fork. It is read for ever; what is said
anew is `incident.acknowledge`.
"""

import hashlib
from typing import Final, NamedTuple

import msgspec

from muster.fleet.device_fold import checked
from muster.fleet.kinds import (
    FORK_CLOSE,
    INCIDENT_ACKNOWLEDGE,
    Fork,
    ForkClose,
    IncidentAcknowledge,
    Told,
)
from muster.fleet.statement import Statement, args_hash, open_statement
from muster.log import canon
from muster.log.entry import Entry
from muster.log.fold import Skip, body_as
from muster.log.stream import FleetId

KINDS: Final = (FORK_CLOSE, INCIDENT_ACKNOWLEDGE)
# The verb whose statement says it; its object is the incident's name.
VERB: Final = "acknowledge"


def name_of(what: Fork | Told) -> str:
    """The name of an incident."""
    return hashlib.sha256(canon.encode(msgspec.structs.asdict(what))).hexdigest()


class Acknowledgement(NamedTuple):
    """What an entry says; that somebody signed it, `signed` says."""

    what: Fork | Told
    note: str
    statement: str
    # The verb of the statement, and what its arguments call the incident.
    verb: str = VERB
    called: str = "incident"
    until: str = ""

    @property
    def name(self) -> str:
        return name_of(self.what)

    def signed(self, fleet: FleetId) -> Statement:
        """The statement, where it says exactly this. Raises: Skip."""
        found = checked("bad-statement", open_statement, self.statement, fleet)
        bare = {self.called: self.name, **({"until": self.until} if self.until else {})}
        args = [{**bare, "note": self.note}, *([] if self.note else [bare])]
        if (found.verb, found.object) != (self.verb, self.name) or found.args not in map(
            args_hash, args
        ):
            raise Skip("other-incident")
        if self.until and isinstance(self.what, Fork):
            raise Skip("other-incident")
        return found


def read(entry: Entry) -> Acknowledgement:
    """What an entry of one of these kinds says. Raises: Skip."""
    if entry.header.kind == FORK_CLOSE:
        old = body_as(entry, ForkClose)
        return Acknowledgement(
            Fork(old.common, old.stream), old.note, old.statement, FORK_CLOSE, "fork"
        )
    body = body_as(entry, IncidentAcknowledge)
    return Acknowledgement(body.of, body.note, body.statement, until=body.until)
