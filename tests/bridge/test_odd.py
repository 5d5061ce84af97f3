"""What anybody can write to a bridge, and a server can answer: none of it ends the bridge."""

import asyncio
import json
from asyncio import sleep as turn
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
import pytest
from tests.promise import proves

from muster.bridge.base import (
    CURSOR_CHARS_MAX,
    HEARD_CHARS_MAX,
    Button,
    Passed,
    Post,
    Pressed,
    Said,
    Slow,
)
from muster.bridge.process import _heed
from muster.bridge.wire import Heed, Show, line, read_word
from muster.errors import Malformed, Unreachable

nio = pytest.importorskip("nio")

from muster.bridge import matrix  # noqa: E402 - it needs its client
from muster.bridge.matrix_event import Shown  # noqa: E402 - as it does

BOT, ROOM = "@muster:fleet.test", "!room:fleet.test"
BUTTONS = {"org.muster.buttons": {"\N{WHITE HEAVY CHECK MARK}": "y1"}}


class Over(Exception):
    """Everything was heard."""


Answer = tuple[int, Any]
SLOW: Answer = (429, {"errcode": "M_LIMIT_EXCEEDED", "error": "", "retry_after_ms": 100})
GONE: Answer = (404, {"errcode": "M_NOT_FOUND", "error": "no such event"})
OUT: Answer = (403, {"errcode": "M_FORBIDDEN", "error": "not a member"})
BAD_GATEWAY: Answer = (502, {"errcode": "M_UNKNOWN", "error": "that server does not answer"})


class Server:
    """A homeserver, behind its client. `once` has what is answered instead, the first times."""

    user_id, access_token = "", "token"

    def __init__(self, *syncs: dict[str, Any]) -> None:
        self._syncs = [{"next_batch": f"s{number}", **each} for number, each in enumerate(syncs, 2)]
        self.once: dict[str, list[Answer]] = {}
        self.joined: list[str] = []
        self.since: list[str] = []
        self.sent: list[str] = []
        # A room into which coming takes for ever.
        self.hangs = ""

    async def whoami(self) -> Any:
        return nio.WhoamiResponse(BOT, None, False)

    async def room_send(self, room: str, kind: str, _content: Any, tx_id: str) -> Any:
        self.sent.append(kind)
        if kind != "m.reaction":
            return nio.RoomSendResponse("$sent", room)
        refused = nio.RoomSendError.from_dict(OUT[1], room)
        refused.transport_response = SimpleNamespace(status=403)
        return refused

    async def send(self, how: str, path: str, _body: Any, headers: Any) -> Any:
        """What the client sends, and does not read."""
        assert headers["Authorization"] == "Bearer token"
        where = urlsplit(path)
        assert where.path.startswith("/_matrix/client/v3/")
        parts = [unquote(each) for each in where.path.split("/")[4:]]
        name = parts[0] if parts[0] in {"sync", "join"} else parts[2]
        assert (how == "POST") == (name == "join")
        answer = await getattr(self, f"_{name}")(parts, dict(parse_qsl(where.query)))
        status, said = self.once[name].pop(0) if self.once.get(name) else (200, answer)

        async def read() -> bytes:
            return said if isinstance(said, bytes) else json.dumps(said).encode()

        return SimpleNamespace(status=status, read=read)

    async def _sync(self, _: Any, query: dict[str, str]) -> Any:
        for _turn in range(20):
            # What is done beside it goes on.
            await turn(0)
        if not self._syncs:
            raise Over
        self.since.append(query.get("since", ""))
        return None if self.once.get("sync") else self._syncs.pop(0)

    async def _join(self, parts: list[str], _: Any) -> Any:
        self.joined.append(parts[1])
        if parts[1] == self.hangs:
            await asyncio.Event().wait()
        return {"room_id": parts[1]}

    async def _joined_members(self, *_: Any) -> Any:
        # What people call themselves is for nobody to trip over.
        return {"joined": {"@a:b": {"display_name": 1}, "@c:d": None, "@e:f": []}}

    async def _messages(self, *_: Any) -> Any:
        return {"chunk": []}

    async def _event(self, parts: list[str], _: Any) -> Any:
        source = {**event("m.room.message", {"msgtype": "m.notice", "body": "", **BUTTONS})}
        return source | {"sender": BOT, "event_id": parts[3], "origin_server_ts": "5"}


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


def member(by: Any = "@eve:fleet.test", **content: Any) -> dict[str, Any]:
    said = {"type": "m.room.member", "sender": by, "state_key": BOT}
    return {**said, "content": {"membership": "invite", **content}}


def invited(*rooms: str, by: str = "@eve:fleet.test") -> dict[str, Any]:
    state = {"invite_state": {"events": [member(by)]}}
    return {"rooms": {"invite": dict.fromkeys(rooms, state)}}


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
            await made.run(json.dumps({"since": "s1", "last": {"!old": "$old"}}), keep)

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
    odd_ones += [*ODD, {}, {"type": "m.room.message"}]
    odd_ones += [text("x", **{each: None}) for each in ("event_id", "sender", "type", "content")]
    odd_ones += [reaction(event_id=ref, key="x") for ref in ("", "x" * 9_000, "/../..", "$\n")]
    heard, odd, cursors = hear(Server(of(*odd_ones, whole)))
    assert heard[-1].text == "what all came for"
    assert {type(each) for each in heard} == {Said}
    assert len(odd) > len(ODD)
    assert json.loads(cursors[-1])["since"] == "s2"


@proves("chat.contract")
def test_what_the_servers_client_cannot_read_is_heard_or_passed_over():
    bare = {"event_id": "$b", "sender": "@eve:fleet.test", "type": "m.room.message"}
    long = text("long", origin_server_ts=0)
    server = Server(
        of(text("a", origin_server_ts="5"), text("b", unsigned=None), bare, 5, None, limited=True),
        {"rooms": {"invite": {"!a": None, "!b": {"invite_state": {"events": ODD}}}}},
    )
    page = json.dumps({"chunk": [*ODD, long]}).replace('_ts": 0', '_ts": ' + "9" * 5_000)
    server.once = {"messages": [(200, page.encode())]}
    heard, odd, cursors = hear(server)
    assert [each.text for each in heard] == ["long", "a", "b"]
    assert len(odd) == len(ODD) + 5
    assert json.loads(cursors[0])["last"] == {"!old": "$old", ROOM: "$b"}
    # An answer that is none ends it for a while, and the place stays.
    for said in (b"<html>", b"[]", b"{}", b"\xff"):
        server = Server(of(text("x")))
        server.once = {"sync": [(200, said)]}
        with pytest.raises(Unreachable):
            hear(server)


@proves("chat.contract")
def test_what_is_no_cursor_is_from_now_on():
    for cursor in ("", "s1", "123", "[]", "{}", '{"since": "s1", "last": 5}'):
        assert matrix._read(cursor) == ("", {})
    assert matrix._read('{"since": "s1", "last": {"!r": "$1"}}') == ("s1", {"!r": "$1"})


@proves("chat.contract")
def test_of_a_place_that_the_server_does_not_know_any_more_it_begins_from_now_on_and_says_so():
    unknown = (400, {"errcode": "M_UNKNOWN", "error": "unknown token"})
    for refused in (unknown, (200, b"[" * 100_000)):
        server = Server(of(text("what was said before")), of(text("and since")))
        server.once = {"sync": [refused]}
        heard, odd, cursors = hear(server)
        assert server.since == ["s1", "", "s2"]
        assert [each.text for each in heard] == ["and since"]
        assert ["is not heard" in each for each in odd] == [True]
        assert json.loads(cursors[0])["since"] == "s2"
        assert "!old" not in json.loads(cursors[0])["last"]
    server = Server(of(text("x")))
    server.once = {"sync": [unknown, unknown]}
    with pytest.raises(Malformed):
        hear(server)


@proves("chat.contract")
def test_a_post_has_the_buttons_of_its_last_change_by_our_own_account():
    own, old = "\N{WHITE HEAVY CHECK MARK}", {"sender": BOT, "content": BUTTONS}
    for sender, content, data in (
        (BOT, {"m.new_content": {"org.muster.buttons": {own: "y2"}}}, "y2"),
        ("@eve:fleet.test", {"m.new_content": {"org.muster.buttons": {own: "y2"}}}, "y1"),
        # To be told that it counts no more.
        (BOT, {"m.new_content": {"org.muster.buttons": {}}}, "y1"),
        (BOT, {}, "y1"),
    ):
        new = {"m.relations": {"m.replace": {"sender": sender, "content": content}}}
        for unsigned in (new, None, {}):
            shown = msgspec.convert({**old, "unsigned": unsigned}, Shown)
            assert shown.buttons(BOT) == {own: data if unsigned else "y1"}
        assert shown.buttons("@eve:fleet.test") == {}


@proves("chat.contract")
def test_a_post_is_there_in_a_room_that_takes_no_reactions():
    async def post() -> None:
        made = matrix.Matrix("token", {"url": "http://localhost", "room": ROOM})
        made._client = server = Server()  # type: ignore[assignment]
        buttons = (Button("y1", "yes", "!"), Button("n1", "no", "?"))
        assert await made.post(Post(ROOM, "hello", buttons), "k") == "$sent"
        assert server.sent == ["m.room.message", "m.reaction", "m.reaction"]

    asyncio.run(post())


@proves("chat.contract")
def test_a_room_that_the_bridge_was_put_out_of_is_passed_over_and_read_on():
    server = Server(of(text("before I put you out"), text("and then")), of(text("b"), limited=True))
    server.once = {"joined_members": [OUT], "messages": [OUT]}
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
    # What cannot be read beside the invitation, or says something else, may be there to hide it.
    ours = member("@alice:fleet.test")
    for states, joined in (
        ([ours, {**member(eve), "state_key": eve}, None, {}], ["!dm"]),
        ([member("@alice:fleet.test", displayname=1)], ["!dm"]),
        ([ours, member(eve, displayname=1)], []),
        ([member(eve), ours], []),
        ([ours, member(eve)], []),
        ([ours, member(None)], []),
        ([ours, {**ours, "content": None}], []),
        ([ours, {**ours, "content": {"membership": "ban"}}], []),
        ([{**ours, "content": {"membership": "ban"}}], []),
        ([], []),
    ):
        server = Server({"rooms": {"invite": {"!dm": {"invite_state": {"events": states}}}}})
        assert len(hear(server)[1]) == 1 - len(joined)
        assert server.joined == joined
    # What is said is heard meanwhile.
    server = Server(invited("!dm"), of(text("a")))
    server.hangs = "!dm"
    assert [each.text for each in hear(server)[0]] == ["a"]
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
    server.once = {"sync": [SLOW], "event": [SLOW, SLOW], "joined_members": [SLOW]}
    heard, odd, _ = hear(server)
    assert [type(each) for each in heard] == [Pressed, Said]
    assert (rested, odd) == ([0.1] * 4, [])
    # One that asks for too long a pause ends it, and what was heard is heard again.
    server = Server(of(reaction(**PRESS)))
    long = {"errcode": "M_LIMIT_EXCEEDED", "error": "", "retry_after_ms": 10**7}
    server.once = {"event": [(429, long)]}
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
