"""What Slack says and is told, as far as a bridge reads and writes it. See slack.py.

Rule 1: each field is of the type that is said here, or what it stands in is passed over.
Rule 2: who speaks is a person of the bot's own workspace. Bots, people of others in a channel that
is shared, and messages that were changed are nobody: what they were before, nobody shows.
Rule 3: text is posted as plain text, of which Slack takes three letters for more unless they are
escaped. None of it is folded away: who presses a button has seen all.
"""

from typing import Annotated, Any, Final, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct

from muster.bridge.base import HEARD_CHARS_MAX, Limits, Post, Pressed, Said
from muster.bridge.words import cut, plain
from muster.errors import Malformed

T = TypeVar("T")
LIMITS: Final = Limits(text_chars=4_096, buttons=3, data_bytes=64)
# Slack takes 3,000 in a block, and may count a letter as two; of a button 75.
_BLOCK_CHARS_MAX: Final = 1_500
_LABEL_CHARS_MAX: Final = 70
# What a telephone shows without its program.
_NOTICE_CHARS_MAX: Final = 300
_SAID: Final = frozenset({None, "file_share", "thread_broadcast"})
_SLACKBOT: Final = "USLACKBOT"

TS_PATTERN: Final = r"[0-9]{10}\.[0-9]{6}"
Ts = Annotated[str, Meta(pattern=rf"^{TS_PATTERN}\Z")]
Place = Annotated[str, Meta(pattern=r"^[CDG][A-Z0-9]{1,31}\Z")]
User = Annotated[str, Meta(pattern=r"^[UW][A-Z0-9]{1,31}\Z")]
Team = Annotated[str, Meta(pattern=r"^[TE][A-Z0-9]{1,31}\Z")]


class Who(Struct):
    """Of `auth.test`: the bot."""

    user_id: User
    team_id: Team


class Opened(Struct):
    """Of `apps.connections.open`."""

    url: str


class Sent(Struct):
    """Of `chat.postMessage`."""

    channel: Place
    ts: Ts


class _More(Struct):
    next_cursor: str | None = None


class Page(Struct):
    """Of whatever lists."""

    messages: list[Any] = []
    channels: list[Any] = []
    response_metadata: _More | None = None


class Direct(Struct):
    """Of `conversations.list`: what nobody reads but one person and the bot."""

    id: Place
    is_im: bool


class Message(Struct):
    """Of an event, or of a page; where a page is of stands in no message of it."""

    ts: Ts
    channel: Place | None = None
    channel_type: str | None = None
    user: str | None = None
    text: str | None = None
    subtype: str | None = None
    thread_ts: Ts | None = None
    latest_reply: Ts | None = None
    bot_id: str | None = None
    team: str | None = None
    user_team: str | None = None
    source_team: str | None = None
    hidden: bool | None = None
    edited: dict[str, Any] | None = None


class _Presser(Struct):
    id: User
    team_id: Team


class _Container(Struct):
    channel_id: Place
    message_ts: Ts


class _Action(Struct):
    type: str
    action_ts: Ts
    value: str | None = None


class Press(Struct):
    """Of `block_actions`."""

    user: _Presser
    container: _Container
    actions: list[_Action]


def as_(found: object, wanted: type[T]) -> T:
    """What Slack said as that. Raises: Malformed."""
    try:
        return msgspec.convert(found, wanted)
    except msgspec.ValidationError as error:
        raise Malformed(f"something of Slack cannot be read: {error}") from error


class Own(NamedTuple):
    """Which bot the bridge is, and in which workspace."""

    user: str
    team: str


def said(message: Message, room: str, own: Own, *, private: bool) -> Said | None:
    """What a person said by it, None where it is anything else. Raises: Malformed."""
    teams = {message.team, message.user_team, message.source_team} - {None}
    if (
        message.subtype not in _SAID
        or message.bot_id is not None
        or message.hidden
        or message.edited is not None
        or message.user in {None, own.user, _SLACKBOT}
        or teams - {own.team}
    ):
        return None
    user, root = as_(message.user, User), message.thread_ts
    thread = f"{room}/{root}" if root not in {None, message.ts} else ""
    text = cut(_unescaped(message.text or ""), HEARD_CHARS_MAX)
    return Said(f"{room}/{message.ts}", own.team, user, room, private, text, thread)


def pressed(press: Press, own: Own) -> list[Pressed]:
    """The buttons that a person pressed. Raises: Malformed: one of another workspace."""
    user = press.user
    if user.team_id != own.team:
        raise Malformed("somebody of another workspace pressed a button")
    room = press.container.channel_id
    ref = f"{room}/{press.container.message_ts}"
    return [
        Pressed(f"{ref}/{user.id}/{each.action_ts}", own.team, user.id, room, ref, each.value)
        for each in press.actions
        if each.type == "button" and each.value
    ]


def content(post: Post) -> dict[str, Any]:
    """A post as Slack is told it."""
    text = plain(post.text, LIMITS.text_chars)
    blocks: list[dict[str, Any]] = [
        {"type": "section", "expand": True, "text": _text(piece)} for piece in _pieces(text)
    ]
    if post.buttons:
        keys = [
            {
                "type": "button", "action_id": f"muster-{number}", "value": each.data,
                "text": _text(_escaped(plain(f"{each.sign} {each.label}", _LABEL_CHARS_MAX))),
            }
            for number, each in enumerate(post.buttons)
        ]  # fmt: skip
        blocks.append({"type": "actions", "elements": keys})
    notice = _escaped(cut(text, _NOTICE_CHARS_MAX))
    return {"text": notice, "blocks": blocks, "parse": "none", "link_names": False}


def _text(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text, "emoji": False}


def _pieces(text: str) -> list[str]:
    """The text, escaped, in pieces of which each has room in a block."""
    pieces = [""]
    for letter in map(_escaped, text):
        if len(pieces[-1]) + len(letter) > _BLOCK_CHARS_MAX:
            pieces.append("")
        pieces[-1] += letter
    return pieces


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _unescaped(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
