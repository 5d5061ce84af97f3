"""`[chat.<service>]` of `config.toml`: a bridge of this machine to a chat service.

Rule: no token stands in it, but the name of the secret that the token is (`muster secret set`).
"""

import re
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from muster.errors import Malformed
from muster.task.secret import check_name

_ROOM: Final = re.compile(r"[!-~]{1,255}")
# With the machine that keeps it behind an `@`, where another one could open a thread so called.
_THREAD: Final = re.compile(r"[a-z0-9-]{1,32}(@[a-z0-9-]{1,64})?")
_INVITER: Final = re.compile(r"(@[!-9;-~]{1,100}:)?[A-Za-z0-9.:\[\]-]{1,255}")
_INVITERS_MAX: Final = 100
_NEEDED: Final = {
    "discord": ("room",),
    "matrix": ("url",),
    "slack": ("app_token",),
}
# What is of one service and says nothing to the others.
_ALONE: Final = {
    "app_token": "slack",
    "inviters": "matrix",
}
# Where it is known what a room is called.
_ROOMS: Final = {
    "discord": re.compile(r"[0-9]{1,19}"),
    "slack": re.compile(r"[CDG][A-Z0-9]{1,31}"),
}


class Room(NamedTuple):
    """Where a bridge posts what it is not asked for, and the thread that this room shows."""

    service: str
    room: str
    thread: str = ""


class ChatConfig(msgspec.Struct, frozen=True):
    """`token` is the name of the secret with the bot's token. `room` is where incidents, ended runs
    and questions are posted, "" nowhere; `thread` is the thread of the fleet that this room shows.
    `url` is the server, where there is more than one. Of Matrix, `inviters` are the accounts, and
    the servers, whose accounts the bot follows into rooms besides those of its own server. Of
    Slack, `app_token` is the name of the secret with the token that opens its connections.
    """

    token: str = ""
    room: str = ""
    thread: str = ""
    url: str = ""
    inviters: list[str] = []
    app_token: str = ""

    def refusal(self, service: str) -> str:
        """Why it is of no use, behind its name; "" where it is."""
        for name in ("token", *_NEEDED.get(service, ())):
            if not getattr(self, name):
                return f"needs `{name}`"
        try:
            for name in filter(None, (self.token, self.app_token)):
                check_name(name)
        except Malformed:
            return "names its token by the name of a secret, such as MATRIX_TOKEN"
        if self.room and not _ROOMS.get(service, _ROOM).fullmatch(self.room):
            return "has a `room` that is none: take the id that the service gives it"
        if self.thread and not _THREAD.fullmatch(self.thread):
            return "has a `thread` that is no name of one"
        if self.url and (urlsplit(self.url).scheme not in {"http", "https"} or "@" in self.url):
            return "has a `url` that is none: https://HOST"
        for name, alone in _ALONE.items():
            if getattr(self, name) and service != alone:
                return f"has `{name}`, which is of {alone} alone"
        if len(self.inviters) > _INVITERS_MAX or not all(map(_INVITER.fullmatch, self.inviters)):
            return "has `inviters` that are none: @ACCOUNT:SERVER, or SERVER"
        return ""

    def options(self) -> dict[str, Any]:
        """What its process is told beside the token."""
        return {"url": self.url.rstrip("/"), "room": self.room, "inviters": self.inviters}
