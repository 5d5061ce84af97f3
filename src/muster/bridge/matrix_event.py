"""What is read of what a homeserver says: of events, and of posts of ours.

Rule 1: an event is what anybody made of it, and is read by itself: what cannot be read is that one.
"""

from typing import Any, Final

from msgspec import Struct, field

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
    unsigned: Unsigned = field(default_factory=Unsigned)

    def buttons(self, own: str) -> dict[str, Any]:
        """Those that are there; where a change took them away, those that were, to be told so."""
        if self.sender != own:
            return {}
        change = self.unsigned.relations.change
        now = change.content.new.buttons if change is not None and change.sender == own else {}
        return now or self.content.buttons
