"""What a person must see of this machine until it is over, and who looked at what."""

import json
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, NamedTuple

from muster.errors import Denied
from muster.fleet import folds, kinds
from muster.fleet.acknowledgement import VERB, name_of, read
from muster.fleet.grant import ANYTHING
from muster.fleet.permanent import permanent
from muster.log.entry import Entry
from muster.log.stream import FLEET, StreamName
from muster.node import event as ev
from muster.node.replica.membership import Membership
from muster.store.sqlite import as_int
from muster.store.store import Store


class Noticed(ev.Event, frozen=True):
    """Something about this machine that a person must see; without a `title` it is over."""

    key: str
    title: str = ""


class Looked(NamedTuple):
    """Who looked at an incident, "" for nobody."""

    by: str = ""
    note: str = ""
    issued_ms: int = 0


def name(row: folds.IncidentRow) -> str:
    """What an incident of this row is called where somebody acknowledges it."""
    return name_of(kinds.Told(row.key, str(row.stream), row.t_ms))


class Incidents:
    """The incidents of this machine, in its own stream; and what was said of everybody's."""

    def __init__(
        self, store: Store, membership: Membership, write: Callable[[str, Any], None]
    ) -> None:
        """`write` makes an entry as soon as we may write."""
        self._store, self._membership, self._write = store, membership, write

    def open(self, key: str, severity: str, title: str, detail: str = "") -> None:
        body = {"detail": detail[:500], "key": key[:64], "severity": severity, "title": title[:500]}
        self._write(kinds.INCIDENT_OPEN, body)

    def close(self, key: str, reason: str) -> None:
        """It is over."""
        self._write(kinds.INCIDENT_CLOSE, {"key": key[:64], "reason": reason[:500]})

    def is_open(self, key: str, machine: str = "") -> bool:
        """Whether we, or that machine, told of it and not yet that it is over."""
        writer = machine or self._membership.machine
        return bool(self._store.tables.rows(folds.INCIDENT, writer=writer, key=key, open=1))

    def close_anywhere(self, key: str, reason: str) -> None:
        """It is over, in whichever of our incarnations it was opened."""
        own, me = self._membership.own(FLEET), self._membership.machine
        mine = self._store.tables.rows(folds.INCIDENT, writer=me, key=key[:64], open=1)
        if not mine:
            return
        if not any(row.stream == own for row in mine):
            # An incident is closed where it stands: said again here, and over.
            self.open(key, mine[0].severity, mine[0].title)
        self.close(key, reason)

    def noticed(self, event: Noticed) -> None:
        """What the daemon saw, or that it is gone."""
        if event.title:
            self.open(event.key, "warning", event.title)
        else:
            self.close(event.key, "it is gone")

    def on_acknowledgement(self, _stream: StreamName, entry: Entry) -> None:
        """What we told of a fork is over once an operator looked at it.

        Not what was told after that: anybody can say an old word again.
        """
        me, own = self._membership.machine, self._membership.own(FLEET)
        if permanent(entry, self._membership.roster, me) is None:
            return
        said = read(entry)
        signed_ms = said.signed(self._membership.fleet).issued_ms
        machine = said.what.stream.partition("/")[0]
        for key in (f"fork-{machine[:16]}", *(["incarnation"] if machine == me else [])):
            for row in self._store.tables.rows(folds.INCIDENT, stream=own, key=key, open=1):
                if row.t_ms <= signed_ms:
                    self.close(key, f"an operator looked at the fork: {said.note}")

    def acknowledged(self, names: Collection[str], now_ms: int) -> dict[str, Looked]:
        """Of each of these incidents the first word that counts, where there is one."""
        roster, found = self._membership.roster, dict[str, Looked]()
        granted = (g.grant.to for g in roster.grants if g.grant.verb in (VERB, ANYTHING))
        # Of nobody else: anybody can sign, as often as he likes.
        keys = json.dumps(list(roster.operators_ever.union(granted)))
        rows = self._store.tables.query(
            "select distinct issued_ms, signer, note, incident, fork from fleet_acknowledged "
            "where incident in (select value from json_each(?)) "
            "and signer in (select value from json_each(?)) order by 1, 2, 3",
            (json.dumps(list(names)), keys),
        )
        for issued_ms, *texts, fork in rows:
            key, note, incident = map(str, texts)
            if incident not in found and self._counts(key, incident, now_ms, fork=fork == 1):
                found[incident] = Looked(roster.speaker(key), note, as_int(issued_ms))
        return found

    def _counts(self, key: str, incident: str, now_ms: int, *, fork: bool) -> bool:
        roster = self._membership.roster
        if fork or key in roster.operators_ever:
            return roster.acknowledged(key, incident)
        with suppress(Denied):
            return bool(roster.decide(key, VERB, incident, now_ms))
        return False
