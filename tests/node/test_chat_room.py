"""A chat service that takes no post: a person hears of it, once, until it takes one."""

from typing import Any

from tests.node.chats import SERVICE, ChatFleet
from tests.promise import proves

from muster.fleet.kinds import INCIDENT_CLOSE, INCIDENT_OPEN, IncidentClose, IncidentOpen
from muster.log.fold import body_or_none
from muster.node.services.chat_posts import BridgeShow, BridgeShown

KEY = f"chat-{SERVICE}-room"


class Closed(ChatFleet):
    """A service whose `closed` rooms take nothing."""

    closed: frozenset[str] = frozenset()

    def serve(self) -> None:
        self.world.drain()
        while refused := [e for e in self.hub.effects if self._is_refused(e)]:
            self.hub.effects[:] = [e for e in self.hub.effects if e not in refused]
            for each in refused:
                self.hub.step(BridgeShown(SERVICE, each.number, refused="you are not in it"))
            self.world.drain()
        super().serve()

    def _is_refused(self, effect: Any) -> bool:
        return isinstance(effect, BridgeShow) and effect.post.room in self.closed

    def told(self, body: type) -> int:
        """How often it was said of this room."""
        entries = [*self.hub.entries(INCIDENT_OPEN), *self.hub.entries(INCIDENT_CLOSE)]
        found = [body_or_none(each, body) for each in entries]
        return [each.key for each in found if each is not None].count(KEY)


@proves("chat.process")
def test_a_room_that_takes_no_post_is_an_incident_until_it_takes_one():
    fleet = Closed()
    fleet.link("alice")
    # What is answered in private concerns nobody else.
    fleet.closed = frozenset({"!bob", "!alice"})
    fleet.says("alice", "muster status", private=True)
    assert fleet.hub.core.counters["chat-posts-refused"] == 1
    assert fleet.told(IncidentOpen) == 0
    fleet.closed = frozenset({"!fleet"})
    fleet.incident("disk")
    fleet.incident("clock")
    row = fleet.hub.core.incidents.own(KEY)[KEY]
    assert "takes no post into its room: you are not in it" in row.title
    assert fleet.told(IncidentOpen) == 1
    fleet.closed = frozenset()
    fleet.says("alice", "muster status")
    assert not fleet.hub.core.incidents.is_open(KEY)
    assert fleet.told(IncidentClose) == 1
