"""What anybody can write to a bridge, and a server can answer: none of it ends the bridge."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from tests.promise import proves

from muster.bridge.base import CURSOR_CHARS_MAX, HEARD_CHARS_MAX, Passed, Post, Pressed, Said, Slow
from muster.bridge.process import _heed
from muster.bridge.wire import Heed, Show, line, read_word
from muster.errors import Malformed, Unreachable

nio = pytest.importorskip("nio")

from muster.bridge import matrix  # noqa: E402 - it needs its client

BOT, ROOM = "@muster:fleet.test", "!room:fleet.test"
BUTTONS = {"org.muster.buttons": {"\N{WHITE HEAVY CHECK MARK}": "y1"}}


class Over(Exception):
    """Everything was heard."""


def answered(status: int, said: dict[str, Any], found: Any = None) -> Any:
    found = found if found is not None else nio.ErrorResponse.from_dict(said)
    found.transport_response = SimpleNamespace(status=status)
    return found


SLOW = answered(429, {"errcode": "M_LIMIT_EXCEEDED", "error": "", "retry_after_ms": 100})
GONE = answered(404, {"errcode": "M_NOT_FOUND", "error": "no such event"})
OUT = answered(403, {"errcode": "M_FORBIDDEN", "error": "not a member"})
BAD_GATEWAY = answered(502, {"errcode": "M_UNKNOWN", "error": "that server does not answer"})


class Server:
    """A homeserver as its client shows it. `once` has what is answered instead, the first times."""

    user_id, access_token = "", ""

    def __init__(self, *syncs: dict[str, Any]) -> None:
        self._syncs = [{"next_batch": f"s{number}", **each} for number, each in enumerate(syncs, 2)]
        self.once: dict[str, list[Any]] = {}
        self.joined: list[str] = []

    def _instead(self, name: str) -> Any:
        found = self.once.get(name, [])
        return found.pop(0) if found else None

    async def whoami(self) -> Any:
        return nio.WhoamiResponse(BOT, None, False)

    async def sync(self, **_: Any) -> Any:
        if not self._syncs:
            raise Over
        return self._instead("sync") or nio.SyncResponse.from_dict(self._syncs.pop(0))

    async def join(self, room: str) -> Any:
        self.joined.append(room)
        return self._instead("join") or nio.JoinResponse(room)

    async def joined_members(self, room: str) -> Any:
        return self._instead("members") or nio.JoinedMembersResponse([1, 2, 3], room)

    async def room_messages(self, room: str, **_: Any) -> Any:
        return self._instead("messages") or nio.RoomMessagesResponse(room, [], "p", None)

    async def room_get_event(self, _room: str, ref: str) -> Any:
        source = {**event("m.room.message", {"msgtype": "m.notice", "body": "", **BUTTONS})}
        source |= {"sender": BOT, "event_id": ref}
        found = nio.RoomGetEventResponse()
        found.event = nio.Event.parse_event(source)
        return self._instead("event") or found


def event(kind: str, content: Any, **more: Any) -> dict[str, Any]:
    event.number = getattr(event, "number", 0) + 1  # type: ignore[attr-defined]
    said = {"event_id": f"${event.number}", "sender": "@eve:fleet.test", "origin_server_ts": 1}  # type: ignore[attr-defined]
    return {"type": kind, "content": content, **said, **more}


def text(body: Any, **more: Any) -> dict[str, Any]:
    return event("m.room.message", {"msgtype": "m.text", "body": body, **more})


def reaction(**relates: Any) -> dict[str, Any]:
    return event("m.reaction", {"m.relates_to": {"rel_type": "m.annotation", **relates}})


PRESS = {"event_id": "$post", "key": "\N{WHITE HEAVY CHECK MARK}"}


def of(*events: dict[str, Any], room: str = ROOM, limited: bool = False) -> dict[str, Any]:
    timeline = {"events": list(events), "limited": limited, "prev_batch": "p"}
    return {"rooms": {"join": {room: {"timeline": timeline}}}}


def invited(*rooms: str, by: str = "@eve:fleet.test") -> dict[str, Any]:
    def state() -> dict[str, Any]:
        # Its client takes them apart.
        said = {"type": "m.room.member", "sender": by, "state_key": BOT}
        return {"invite_state": {"events": [{**said, "content": {"membership": "invite"}}]}}

    return {"rooms": {"invite": {room: state() for room in rooms}}}


def hear(server: Server, **options: Any) -> tuple[list[Any], list[str], list[str]]:
    """What is heard, what is passed over and why, and the cursors: until all is read."""
    heard, odd, cursors = list[Any](), list[str](), list[str]()

    async def keep(what: Any, cursor: str = "") -> None:
        if isinstance(what, Passed):
            odd.extend([what.odd] if what.odd else [])
        else:
            heard.append(what)
        cursors.extend([cursor] if cursor else [])

    async def read() -> None:
        made = matrix.Matrix("token", {"url": "http://localhost", "room": ROOM, **options})
        await made.close()
        made._client = server  # type: ignore[assignment]
        assert await made.begin() == BOT
        with pytest.raises(Over):
            await made.run(json.dumps({"since": "s1", "last": {}}), keep)

    asyncio.run(read())
    return heard, odd, cursors


ODD = (
    None, 1, True, "abc", [], [{}], {"event_id": 1}, {"event_id": {}}, {"rel_type": ["m.thread"]},
    {"m.in_reply_to": "abc"}, {"m.in_reply_to": ["$1"]}, {"m.in_reply_to": {"event_id": 5}},
    {"rel_type": {}, "event_id": "$1"}, {"key": {}, "event_id": "$post"},
)  # fmt: skip


@proves("chat.contract")
def test_no_event_of_a_stranger_ends_a_bridge_of_matrix():
    whole = text("what all came for")
    odd_ones = [text("x", **{"m.relates_to": each}) for each in ODD]
    odd_ones += [event("m.reaction", {"m.relates_to": each}) for each in ODD]
    odd_ones += [event(kind, each) for kind in ("m.room.message", "m.reaction") for each in ODD]
    odd_ones += [text(each) for each in (None, 5, {}, ["x"])]
    odd_ones += [reaction(event_id=ref, key="x") for ref in ("", "x" * 9_000, "/../..", "$\n")]
    heard, odd, cursors = hear(Server(of(*odd_ones, whole)))
    assert heard[-1].text == "what all came for"
    assert {type(each) for each in heard} == {Said}
    assert len(odd) > len(ODD)
    assert json.loads(cursors[-1])["since"] == "s2"


@proves("chat.contract")
def test_a_room_that_the_bridge_was_put_out_of_is_passed_over_and_read_on():
    server = Server(of(text("before I put you out"), text("and then")), of(text("b"), limited=True))
    server.once = {"members": [OUT], "messages": [OUT]}
    heard, odd, cursors = hear(server)
    assert [each.text for each in heard] == ["and then", "b"]
    assert ["M_FORBIDDEN" in why for why in odd] == [True, True]
    assert len(cursors) == 2


@proves("chat.contract")
def test_an_invitation_is_followed_where_it_may_be_and_one_that_fails_is_passed_over():
    server = Server(invited("!bad", "!worse", "!good"), of(text("x")))
    server.once = {"join": [OUT, BAD_GATEWAY]}
    heard, odd, _ = hear(server)
    assert server.joined == ["!bad", "!worse", "!good"]
    assert (len(heard), len(odd)) == (1, 2)
    # Of another server: into its own room, or where `config.toml` names who invites.
    eve = "@eve:evil.test"
    for options, joined in (
        ({}, [ROOM]),
        ({"inviters": ["evil.test"]}, ["!dm", ROOM]),
        ({"inviters": [eve]}, ["!dm", ROOM]),
        ({"inviters": ["@bob:evil.test", "fleet.test"]}, [ROOM]),
    ):
        server = Server(invited("!dm", ROOM, by=eve))
        _, odd, _ = hear(server, **options)
        assert server.joined == joined
        assert len(odd) == 2 - len(joined)
    # As often as a server asks to wait, at the next answer; nobody waits for it.
    server = Server(invited("!dm"), of(text("a")), of(text("b")))
    server.once = {"join": [SLOW, SLOW]}
    heard, _, _ = hear(server)
    assert (server.joined, len(heard)) == (["!dm"] * 3, 2)


@proves("chat.contract")
def test_a_cursor_fits_into_its_bound_whatever_rooms_are_called():
    rooms = [f"!{number:03}{'r' * 250}" for number in range(100)]
    *_, cursors = hear(Server(*(of(text("x"), room=room) for room in rooms)))
    assert max(map(len, cursors)) <= CURSOR_CHARS_MAX
    kept = json.loads(cursors[-1])
    assert kept["since"] == "s101"
    assert list(kept["last"])[-1] == rooms[-1]
    assert len(kept["last"]) > 40


@proves("chat.contract")
def test_a_bridge_waits_where_the_server_asks_for_it_and_loses_no_press(monkeypatch):
    rested = list[float]()

    async def sleep(pause_s: float) -> None:
        rested.append(pause_s)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    server = Server(of(reaction(**PRESS), text("x"), reaction(event_id="$none", key="x")))
    server.once = {"sync": [SLOW], "event": [SLOW, SLOW], "members": [SLOW]}
    heard, odd, _ = hear(server)
    assert [type(each) for each in heard] == [Pressed, Said]
    assert (rested, odd) == ([0.1] * 4, [])
    # One that asks for too long a pause ends it, and what was heard is heard again.
    server = Server(of(reaction(**PRESS)))
    long = {"errcode": "M_LIMIT_EXCEEDED", "error": "", "retry_after_ms": 10**7}
    server.once = {"event": [answered(429, long)]}
    with pytest.raises(Slow):
        hear(server)
    # What nobody can look at has no button of ours; where the server fails, it is asked again.
    server = Server(of(reaction(**PRESS)))
    server.once = {"event": [GONE]}
    assert hear(server)[:2] == ([], [])
    server = Server(of(reaction(**PRESS)))
    server.once = {"event": [BAD_GATEWAY]}
    with pytest.raises(Unreachable):
        hear(server)


@proves("chat.contract")
def test_what_has_no_room_in_a_line_is_passed_over_and_half_a_letter_is_no_end_of_it():
    named = ("w", "@a:w", "!r", False)
    rows = (
        (Said("e1", *named, "half \ud800 letter"), Said("e1", *named, "half ? letter")),
        (Said("e" * 600, *named, "x"), None),
        (Said("e1", *named, "x", "t" * 600), None),
        (Said("\ud800", *named, "x"), None),
        (Pressed("e1", "w", "@a:w", "!r", "$p", "d" * 600), None),
        (
            Pressed("e1", "w", "@a:w", "!r", "$p", "y1"),
            Pressed("e1", "w", "@a:w", "!r", "$p", "y1"),
        ),
    )
    for heard, said in rows:
        word = read_word(_heed(7, heard, "cursor"))
        assert isinstance(word, Heed)
        assert (word.number, word.cursor) == (7, "cursor")
        assert word.heard == said if said else word.heard.odd
    long = read_word(_heed(7, Said("e1", *named, "\0" * 300_000), ""))
    assert len(long.heard.text) == HEARD_CHARS_MAX
    with pytest.raises(Malformed):
        _heed(7, Passed(), "c" * 16_385)
    with pytest.raises(Malformed):
        line(Show(1, "k", Post("!r", "\ud800")))
