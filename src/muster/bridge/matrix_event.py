"""What is read of what a homeserver says: of events, and of posts of ours.

Rule 1: what the server itself makes of an answer has its shape, or it did not answer. What others
put into it is what anybody made of it, and is read by itself: what cannot be read is that one.
"""

import json
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct, field

from muster.errors import Malformed, Unreachable

R = TypeVar("R")

# Where a post keeps its buttons.
BUTTONS: Final = "org.muster.buttons"


class Answered(Struct):
    event_id: str = ""


class Relates(Struct):
    rel_type: str = ""
    event_id: str = ""
    key: str = ""
    answered: Answered | None = field(default=None, name="m.in_reply_to")


class Content(Struct):
    msgtype: str = ""
    body: str = ""
    relates: Relates | None = field(default=None, name="m.relates_to")


class Event(Struct):
    """What is read of an event."""

    type: str
    event_id: str
    sender: str
    content: Content


class New(Struct):
    buttons: dict[str, Any] = field(default_factory=dict, name=BUTTONS)


class Changed(New):
    new: New = field(default_factory=New, name="m.new_content")


class Change(Struct):
    sender: str = ""
    content: Changed = field(default_factory=Changed)


class Relations(Struct):
    change: Change | None = field(default=None, name="m.replace")


class Unsigned(Struct):
    relations: Relations = field(default_factory=Relations, name="m.relations")


class Shown(Struct):
    """A post of ours, with what the server says that it was changed to last."""

    sender: str
    content: New
    unsigned: Unsigned | None = None

    def buttons(self, own: str) -> dict[str, Any]:
        """Those that are there; where a change took them away, those that were, to be told so."""
        if self.sender != own:
            return {}
        change = self.unsigned.relations.change if self.unsigned is not None else None
        now = change.content.new.buttons if change is not None and change.sender == own else {}
        return now or self.content.buttons


# --- answers -------------------------------------------------------------------------------------


class Timeline(Struct):
    events: list[Any] = field(default_factory=list)
    limited: bool = False
    prev_batch: str | None = None


class Joined(Struct):
    timeline: Timeline = field(default_factory=Timeline)


class Rooms(Struct):
    join: dict[str, Joined] = field(default_factory=dict)
    invite: dict[str, Any] = field(default_factory=dict)


class Synced(Struct):
    """Of `sync`."""

    next_batch: str
    rooms: Rooms = field(default_factory=Rooms)


class Page(Struct):
    """Of `messages`."""

    chunk: list[Any]
    end: str | None = None


class Members(Struct):
    """Of `joined_members`."""

    joined: dict[str, Any]


class Refusal(Struct):
    """Of whatever was not done."""

    errcode: str = ""
    error: str = ""
    retry_after_ms: Any = None


def answer(raw: bytes, wanted: type[R]) -> R:
    """Raises: Unreachable: it is none; Malformed: what somebody put into it cannot be read."""
    try:
        return msgspec.convert(json.loads(raw, parse_int=_number), wanted)
    except RecursionError as error:
        raise Malformed("an answer of the homeserver is too deep to be read") from error
    except (ValueError, msgspec.ValidationError) as error:
        raise Unreachable(f"the homeserver answers with what is none: {error}") from error


def event_of(found: Any) -> Event:
    """Raises: Malformed: it is none."""
    try:
        return msgspec.convert(found, Event)
    except msgspec.ValidationError as error:
        raise Malformed(f"an event of Matrix cannot be read: {error}") from error


def id_of(found: Any) -> str:
    """What an event is called, "" where that cannot be told."""
    called = found.get("event_id") if isinstance(found, dict) else None
    return called if isinstance(called, str) else ""


# --- invitations ---------------------------------------------------------------------------------


class _Membership(Struct):
    membership: str


class _Member(Struct):
    sender: str
    content: _Membership


def inviter(invited: Any, own: str) -> str:
    """Who invites the account `own`, "" where that cannot be told.

    The server adds the invitation itself to what another one says of the room: what cannot be read
    beside it, or says something else, may be there to hide it.
    """
    try:
        states = msgspec.convert(invited, _Invited).invite_state.events
    except msgspec.ValidationError:
        return ""
    said: dict[tuple[str, str], None] = {}
    for each in states:
        if not isinstance(each, dict) or each.get("state_key") != own:
            continue
        if each.get("type") == "m.room.member":
            try:
                member = msgspec.convert(each, _Member)
            except msgspec.ValidationError:
                return ""
            said[member.sender, member.content.membership] = None
    (sender, membership), *more = said or [("", "")]
    return sender if membership == "invite" and not more else ""


class _State(Struct):
    events: list[Any] = field(default_factory=list)


class _Invited(Struct):
    invite_state: _State = field(default_factory=_State)


def _number(digits: str) -> int:
    """No number that is read here is as long as one may be that somebody made."""
    return int(digits) if len(digits) <= 20 else 0
