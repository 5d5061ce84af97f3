"""What a person must see of this machine, until it is over."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from muster.fleet import kinds
from muster.log.stream import FLEET
from muster.node import event as ev
from muster.node.replica.membership import Membership
from muster.store.store import Store


@dataclass(frozen=True, slots=True)
class Noticed(ev.Event):
    """Something about this machine that a person must see; without a `title` it is over."""

    key: str
    title: str = ""


class Incidents:
    """The incidents of this machine, in its own stream."""

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

    def close_anywhere(self, key: str, reason: str) -> None:
        """It is over, in whichever of our incarnations it was opened."""
        own, me = self._membership.own(FLEET), self._membership.machine
        mine = self._store.rows("fleet_incident", writer=me, key=key[:64], open=1)
        if not mine:
            return
        if not any(str(row["stream"]) == str(own) for row in mine):
            # An incident is closed where it stands: said again here, and over.
            self.open(key, str(mine[0]["severity"]), str(mine[0]["title"]))
        self.close(key, reason)

    def noticed(self, event: Noticed) -> None:
        """What the daemon saw, or that it is gone."""
        if event.title:
            self.open(event.key, "warning", event.title)
        else:
            self.close(event.key, "it is gone")
