"""A chat service that takes no post: a person hears of it, once, until it takes one."""

from typing import Any

from tests.node.chats import ROOM, SERVICE, ChatFleet, within
from tests.promise import proves

from muster.fleet.kinds import INCIDENT_CLOSE, INCIDENT_OPEN, IncidentClose, IncidentOpen
from muster.log.fold import body_or_none
from muster.node.host.chat_config import Room
from muster.node.services.chat_posts import BridgeShow, BridgeShown, ChatPosts

KEY = f"chat-{SERVICE}-room"


class Closed(ChatFleet):
    """A service whose `closed` rooms take nothing."""

    closed: frozenset[str] = frozenset()
    why = "you are not in it"

    def serve(self) -> None:
        self.world.drain()
        while refused := [e for e in self.hub.effects if self._is_refused(e)]:
            self.hub.effects[:] = [e for e in self.hub.effects if e not in refused]
            for each in refused:
                self.hub.step(BridgeShown(SERVICE, each.number, refused=self.why))
            self.world.drain()
        super().serve()

    def _is_refused(self, effect: Any) -> bool:
        # What is changed there it takes.
        return isinstance(effect, BridgeShow) and effect.post.room in self.closed and not effect.ref

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


@proves("chat.process")
def test_what_is_wrong_with_a_post_says_nothing_of_its_room():
    fleet, room = Closed(), frozenset({ROOM})
    fleet.incident("first")
    for why, at_once in (
        ("the homeserver refuses it: M_TOO_LARGE it is too long", False),
        ("the homeserver refuses it: M_FORBIDDEN you are not in it", True),
        ("Telegram refuses it: Forbidden: bot was kicked from the group chat", True),
        ("Telegram refuses it: Bad Request: chat not found", True),
    ):
        fleet.why = why
        fleet.world.ms += 60_000
        for number in range(2):
            fleet.closed = room
            fleet.incident(f"refused-{len(why)}-{number}")
            assert fleet.hub.core.incidents.is_open(KEY) is at_once, why
            # What was there before is changed, and says nothing either.
            fleet.over("first", why + str(number))
            assert fleet.hub.core.incidents.is_open(KEY) is at_once, why
            fleet.closed = frozenset()
            fleet.incident(f"taken-{len(why)}-{number}")
            assert not fleet.hub.core.incidents.is_open(KEY), why


@proves("chat.process")
def test_what_was_told_of_a_bridge_that_is_not_configured_any_more_is_over():
    fleet = ChatFleet()
    core = fleet.hub.core
    rooms, keys = core.part(ChatPosts).rooms, [KEY, f"chat-{SERVICE}", f"chat-{SERVICE}-thread"]
    for named, left in (
        (Room(SERVICE, ROOM, "team"), keys),
        (Room(SERVICE, ROOM, ""), keys[:2]),
        (Room(SERVICE, "", ""), keys[1:2]),
        (None, []),
    ):
        rooms.clear()
        if named is not None:
            rooms[SERVICE] = named

        def tells() -> None:
            for key in (*keys, "disk"):
                core.incidents.open(key, "warning", "it does not work")

        within(fleet.hub, tells)
        within(fleet.hub, core.confirmed)
        assert sorted(core.incidents.own()) == sorted((*left, "disk"))
