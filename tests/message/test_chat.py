"""What is heard and posted over chats becomes rows of the machine that has the bridge, and of no other."""

from typing import Any

import msgspec
import pytest
from tests.promise import proves

from muster.log import canon
from muster.log.clock import Stamp
from muster.log.entry import compose
from muster.log.fold import Skip
from muster.log.kind import kind_of
from muster.log.stream import FLEET, JOURNAL, Incarnation, MachineId, Scope, StreamName, scope_to
from muster.message.chat import (
    CURSOR,
    HEARD,
    POST,
    ChatAsk,
    ChatFold,
    ChatHeard,
    ChatPosted,
    ChatPress,
    ChatSettle,
    CursorRow,
    HeardRow,
    PostRow,
)

HUB, STUDIO = MachineId("a" * 64), MachineId("b" * 64)
ID, HASH = "0f" * 16, "0f" * 32
SERVICE = "matrix"


class Rows:
    """The rows of one stream; nothing here looks at what was before."""

    def __init__(self, scope: Scope = JOURNAL) -> None:
        self.stream = StreamName(HUB, Incarnation("1" * 32), scope)

    def get(self, *_key: Any) -> None:
        raise AssertionError("each entry counts by itself")

    def fold(self, body: Any, at_ms: int = 1_000) -> list[Any]:
        kind, raw = kind_of(type(body)), canon.encode(body)
        entry = compose(self.stream, 0, Stamp(at_ms, 0), kind, "muster", [], raw, bytes(16))
        assert kind in ChatFold.kinds
        return list(ChatFold().apply(entry, self))


@proves("chat.heard-once")
def test_what_was_heard_its_cursor_and_what_it_became_are_one_entry():
    rows = Rows()
    what = ("e1", "s7", "c" * 64, "!room", "e0")
    heard = HeardRow(rows.stream, SERVICE, "e1", "c" * 64, "!room", "e0")
    assert rows.fold(ChatHeard(SERVICE, *what)) == [
        heard, CursorRow(rows.stream, SERVICE, "s7", 1_000)
    ]  # fmt: skip
    # An event without a cursor leaves it where it was; a cursor alone says that nothing counted.
    assert rows.fold(ChatHeard(SERVICE, "e1")) == [HeardRow(rows.stream, SERVICE, "e1", "", "", "")]
    assert rows.fold(ChatHeard(SERVICE, "", "s8"), 2_000) == [
        CursorRow(rows.stream, SERVICE, "s8", 2_000)
    ]
    assert rows.fold(ChatHeard(SERVICE, "")) == []


@proves("chat.incidents")
def test_a_post_is_a_row_as_it_is_wanted_and_as_it_is_there():
    rows, buttons = Rows(), (f"y{ID}", f"n{ID}")
    wanted = ChatPosted(SERVICE, "q/1", "!room", "may it?", buttons, "e0")
    both, behind = f"y{ID} n{ID}", ("", "wanted", 1_000)
    row = PostRow(rows.stream, SERVICE, "q/1", "!room", "may it?", both, "e0", *behind)
    assert rows.fold(wanted) == [row]
    there = msgspec.structs.replace(wanted, ref="$1", state="there", buttons=())
    now = row._replace(buttons="", ref="$1", state="there", at_ms=2_000)
    assert rows.fold(there, 2_000) == [now]
    keys = [table.key for table in (HEARD, CURSOR, POST)]
    assert keys == [2, 1, 2], "one row for each id, cursor and post of a service"


@proves("chat.heard-once")
@pytest.mark.parametrize("scope", [FLEET, scope_to(STUDIO)])
def test_only_what_a_machine_wrote_for_itself_is_heard_or_posted(scope):
    for body in (ChatHeard(SERVICE, "e1", "s7"), ChatPosted(SERVICE, "x", "!room", "text")):
        with pytest.raises(Skip, match="wrong-scope"):
            Rows(scope).fold(body)


BODIES: dict[type, dict[str, Any]] = {
    ChatHeard: {"service": SERVICE, "id": "e1"},
    ChatPosted: {"service": SERVICE, "key": "x", "room": "!room", "text": "text"},
    ChatAsk: {"hash": HASH, "id": ID, "text": "may it?", "until_ms": 1, "class": "command"},
    ChatPress: {"account": "@eva:example.org", "allow": True, "hash": HASH, "id": ID, "service": SERVICE},
    ChatSettle: {"id": ID, "outcome": "allowed", "press": HASH, "text": ""},
}  # fmt: skip


@proves("chat.approval")
@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        (ChatHeard, {"service": "Matrix"}),
        (ChatHeard, {"id": "e" * 513}),
        (ChatHeard, {"cursor": "s" * 16_385}),
        (ChatPosted, {"buttons": [f"x{ID}"]}),
        (ChatPosted, {"buttons": [f"y{ID}0"]}),
        (ChatPosted, {"buttons": [f"y{ID}\n"]}),
        (ChatPosted, {"buttons": [f"y{ID.upper()}"]}),
        (ChatPosted, {"state": "gone"}),
        (ChatPosted, {"text": "x" * 65_537}),
        (ChatAsk, {"hash": ID}),
        (ChatAsk, {"id": HASH}),
        (ChatAsk, {"text": "x" * 4_097}),
        (ChatAsk, {"class": "two words"}),
        (ChatAsk, {"until_ms": -1}),
        (ChatAsk, {"more": 1}),
        (ChatPress, {"account": "eva eva"}),
        (ChatPress, {"workspace": "a b"}),
        (ChatPress, {"allow": "yes"}),
        (ChatPress, {"more": 1}),
        (ChatSettle, {"outcome": "maybe"}),
        (ChatSettle, {"press": ID}),
        (ChatSettle, {"more": 1}),
    ],
)
def test_a_body_that_is_odd_is_none(body, wrong):
    assert msgspec.convert(BODIES[body], body)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**BODIES[body], **wrong}, body)


def test_what_a_newer_machine_adds_to_its_own_rows_is_read_over():
    for body in (ChatHeard, ChatPosted):
        assert msgspec.convert({**BODIES[body], "more": 1}, body)
