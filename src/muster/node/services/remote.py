"""What this machine did for a person elsewhere, written down in its own journal."""

from typing import TYPE_CHECKING

from msgspec import Struct

from muster.log.entry import EntryId
from muster.log.stream import JOURNAL
from muster.node import event as ev
from muster.node.part import Part

if TYPE_CHECKING:
    from muster.node.core import Core


class Remote(ev.Event, frozen=True):
    """It did, or does, something by an order: what is written of it, and which order that was."""

    body: Struct
    actor: str
    cites: tuple[EntryId, ...]


class RemoteWork(Part):
    """See the top of this file."""

    name = "remote"

    def __init__(self, core: "Core") -> None:
        self._core = core
        core.on(Remote, self._write)

    def _write(self, event: Remote) -> None:
        self._core.append_body(event.body, scope=JOURNAL, cause=event.cites, actor=event.actor)
