"""What a person must see of this machine, until it is over."""

from dataclasses import dataclass

from muster.fleet import kinds
from muster.log.stream import FLEET
from muster.node import event as ev
from muster.node.whole import Whole


@dataclass(frozen=True, slots=True)
class Noticed(ev.Event):
    """Something about this machine that a person must see; without a `title` it is over."""

    key: str
    title: str = ""


class Incidents:
    """The incidents of this machine, in its own stream."""

    def __init__(self, core: Whole) -> None:
        self._core = core

    def open(self, key: str, severity: str, title: str, detail: str = "") -> None:
        body = {"detail": detail[:500], "key": key[:64], "severity": severity, "title": title[:500]}
        self._core.members.write(kinds.INCIDENT_OPEN, body)

    def close(self, key: str, reason: str) -> None:
        """It is over."""
        self._core.members.write(kinds.INCIDENT_CLOSE, {"key": key[:64], "reason": reason[:500]})

    def close_anywhere(self, key: str, reason: str) -> None:
        """It is over, in whichever of our incarnations it was opened."""
        core = self._core
        own = core.standing.own(FLEET)
        mine = core.store.rows("fleet_incident", writer=core.machine, key=key[:64], open=1)
        if not mine:
            return
        if not any(str(row["stream"]) == str(own) for row in mine):
            # An incident is closed where it stands: said again here, and over.
            self.open(key, str(mine[0]["severity"]), str(mine[0]["title"]))
        self.close(key, reason)

    def noticed(self, event: Noticed) -> None:
        if event.title:
            self.open(event.key, "warning", event.title)
        else:
            self.close(event.key, "it is gone")
