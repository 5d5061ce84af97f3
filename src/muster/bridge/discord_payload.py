"""What is read of what Discord tells, what is kept of it, and how a post is written for it.

Rule 1: what comes is read field by field, as far as the structs below say; the rest of it is not
looked at, and what is not as they say cannot be read.
Rule 2: the cursor is the newest message of each channel that was heard, of as many as have room.
Rule 3: Discord reads markup in everything, so every sign of it is escaped, no post may call
anybody, and none shows what a link leads to. What has no room in one post has no buttons: whoever
allows something has seen all of it.
"""

import re
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from muster.bridge.base import Limits, Post
from muster.bridge.words import cut, plain
from muster.errors import Unreachable

T = TypeVar("T")
LIMITS: Final = Limits(text_chars=2_000, buttons=3, data_bytes=100)
# Of so many channels the newest message is known, those heard last: their cursor has room.
CHANNELS_MAX: Final = 64
PRIVATE_MAX: Final = 128
_SUPPRESS_EMBEDS: Final = 4
_LABEL_CHARS_MAX: Final = 80
# A message, and one that answers another; every other type is the service's own word.
_SAID: Final = frozenset({0, 19})
_COMPONENT: Final = 3
# A number is a time in milliseconds, and so many bits that tell apart what is of the same one.
_BELOW_MS_BITS: Final = 22
_TOO_LONG: Final = "\n\nThis is too long to be answered here: a terminal shows all of it."

Id = Annotated[str, Meta(pattern=r"^[0-9]{1,19}\Z")]
Count = Annotated[int, Meta(ge=0)]


# --- what is read --------------------------------------------------------------------------------


class Frame(Struct):
    """What stands in one message of the gateway."""

    op: int
    t: str | None = None
    d: Any = None


class Named(Struct):
    """Something, by its number."""

    id: Id


class User(Struct):
    id: Id
    bot: bool = False


class Reference(Struct):
    message_id: Id | None = None


class Message(Struct):
    """Somebody, or something, said it."""

    id: Id
    channel_id: Id
    author: User
    content: str
    type: int
    guild_id: Id | None = None
    webhook_id: Id | None = None
    message_reference: Reference | None = None

    @property
    def is_said(self) -> bool:
        """Whether a person said it."""
        return not self.author.bot and self.webhook_id is None and self.type in _SAID

    @property
    def thread(self) -> str:
        """The post that it answers."""
        answered = self.message_reference
        below = answered.message_id if answered is not None else None
        return f"{self.channel_id}/{below}" if below else ""


class Member(Struct):
    user: User


class Component(Struct):
    custom_id: Annotated[str, Meta(max_length=100)]


class Press(Struct):
    """Somebody pressed a button: in a server as its member, else as a user."""

    id: Id
    token: Annotated[str, Meta(max_length=2_000)]
    channel_id: Id
    message: Named
    data: Component
    guild_id: Id | None = None
    member: Member | None = None
    user: User | None = None

    @property
    def account(self) -> str:
        user = self.member.user if self.member is not None else self.user
        return user.id if user is not None else ""


class Channel(Struct):
    guild_id: Id | None = None
    last_message_id: Id | None = None


class Starts(Struct):
    """So many sessions may begin yet, and after so many milliseconds more."""

    remaining: Count
    reset_after: Count


class Gateway(Struct):
    url: Annotated[str, Meta(pattern=r"^wss?://[!-~]+\Z", max_length=500)]
    session_start_limit: Starts


def as_(found: Any, wanted: type[T]) -> T:
    """It, as far as it is read. Raises: Unreachable."""
    try:
        return msgspec.convert(found, wanted)
    except (msgspec.ValidationError, RecursionError) as error:
        raise Unreachable(f"what Discord tells cannot be read: {error}") from error


def frame(raw: str) -> Frame:
    """A message of the gateway. Raises: Unreachable."""
    try:
        return msgspec.json.decode(raw, type=Frame)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unreachable(f"what Discord tells cannot be read: {error}") from error


def of_page(found: Any, room: str) -> Message:
    """A message of a page of this channel. Raises: Unreachable: it is none."""
    message = as_(found, Message)
    if message.channel_id != room:
        raise Unreachable("what Discord tells of a channel is of another one")
    return message


def is_press(found: Any) -> bool:
    """Whether an interaction is one with a button."""
    return isinstance(found, dict) and found.get("type") == _COMPONENT


def is_id(text: str) -> bool:
    """Whether it is a number as Discord gives them."""
    return text.isascii() and text.isdecimal() and len(text) < 20


def number(found: Any) -> int:
    """The number of a message that is not read yet, 0 where it has none."""
    id_ = found.get("id") if isinstance(found, dict) else None
    return int(id_) if isinstance(id_, str) and is_id(id_) else 0


def just_before(number: int) -> int:
    """What comes before every number of the same millisecond."""
    return (number >> _BELOW_MS_BITS << _BELOW_MS_BITS) - 1


# --- what is kept --------------------------------------------------------------------------------


class Cursor(Struct, forbid_unknown_fields=True):
    """The newest message of each channel, those heard last at the end, and whose server it is."""

    guild: Id | None = None
    channels: dict[Id, Id] = {}
    private: dict[Id, Id] = {}

    def move(self, room: str, id_: str, guild: str | None, *, keep: str = "") -> None:
        """It was heard in this room. One that was said earlier does not set it back."""
        kept = self.channels if guild else self.private
        kept[room] = str(max(int(kept.pop(room, "0")), int(id_)))
        if len(kept) > (CHANNELS_MAX if guild else PRIVATE_MAX):
            del kept[next(each for each in kept if each != keep)]

    def text(self) -> str:
        """As `cursor` reads it."""
        return msgspec.json.encode(self).decode()


def cursor(text: str) -> Cursor:
    """What was kept; nothing of what is no cursor."""
    try:
        return msgspec.json.decode(text, type=Cursor) if text else Cursor()
    except (msgspec.DecodeError, RecursionError):
        return Cursor()


# --- what is posted ------------------------------------------------------------------------------

_MARKUP: Final = re.compile(r"[\\`*_~|<>#\[\]-]|:(?=[\w~+-]+:)|(?<=\d)\.(?=\s)")
# An invitation is one without its `https:`, too.
_INVITATION: Final = re.compile(r"(discord(?:app)?\.(?:com|gg|gift))/", re.IGNORECASE)


def escaped(text: str, chars_max: int) -> tuple[str, bool]:
    """The text without markup, and whether it is all of it."""
    whole, chars = plain(text, len(text) * 10 + chars_max), chars_max
    while True:
        found = _INVITATION.sub(r"\1\\/", _MARKUP.sub(r"\\\g<0>", cut(whole, chars)))
        if len(found) <= chars_max:
            return found, chars >= len(whole)
        # Each letter that is left out takes one sign of its own with it at most.
        chars = min(chars, len(whole)) - max(1, (len(found) - chars_max) // 2)


def body(post: Post) -> dict[str, Any]:
    """A post as Discord takes it."""
    text, is_whole = escaped(post.text, LIMITS.text_chars)
    buttons = [
        {
            "type": 2, "style": 2, "label": f"{each.sign} {each.label}"[:_LABEL_CHARS_MAX],
            "custom_id": each.data,
        }
        for each in post.buttons
    ]  # fmt: skip
    if buttons and not is_whole:
        text = escaped(post.text, LIMITS.text_chars - len(_TOO_LONG))[0] + _TOO_LONG
        buttons = []
    return {
        "content": text,
        "components": [{"type": 1, "components": buttons}] if buttons else [],
        "allowed_mentions": {"parse": [], "replied_user": False},
        "flags": _SUPPRESS_EMBEDS,
    }
