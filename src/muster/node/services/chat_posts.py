"""What is posted over chat bridges: each post as it is wanted, until the service shows it so.

Rule 1: a post is a row before it goes out, and once more when it is there. After a crash whatever
was wanted and is not known to be there goes out again, under the same key.
Rule 2: one change of a post is under way at a time. What was wanted meanwhile goes out next, as it
is then: a post is changed to its outcome once, however often that was told.
Rule 3: nothing that is older than `FRESH_MS` is posted anew, but for what somebody may still press
a button of: a machine that learns a long history does not tell all of it. An incident or a question
that is over before it was ever posted is told nobody, and takes no room from others.
Rule 4: a minute has room for so many new posts of a sort (the first letter of their keys), and for
fewer for any one account or machine. An incident or a question is a row all the same, and goes out
later: nobody's chatter keeps it away. Any other post is cut, and counted.
"""

import itertools
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from muster.bridge.base import Button, Post
from muster.errors import NotFound, Refused
from muster.log.stream import JOURNAL, FleetId, Scope
from muster.message.chat import POST, ChatFold, ChatPosted, PostRow
from muster.node import event as ev
from muster.node.counter import DECLARED, has_room
from muster.node.host.chat_config import Room
from muster.node.part import Part
from muster.node.services.threads import group_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from muster.node.core import Core

DECLARED[__name__] = {
    "chat-posts-refused": "A chat service did not take a post.",
    "chat-posts-cut": "A post over a chat bridge was one too many for its minute.",
    "chat-posts-old": "A post waited too long for its chat bridge, and is told nobody any more.",
}

FRESH_MS: Final = 3_600_000
# New posts of one sort, and those of them for one account or of one machine.
POSTS_PER_MINUTE_MAX: Final = 30
POSTS_OF_ONE_MAX: Final = 15
# What the keys of posts begin with that go out late rather than never, and how many of one machine
# may wait to.
LATE: Final = ("i/", "q/")
WAITING_MAX: Final = 30
# What the first letter of a button's data says on it. Chosen arbitrarily: drawn everywhere.
FACES: Final = {"y": ("✅", "allow"), "n": ("❌", "deny"), "a": ("👀", "I look at it")}
# An incident about a bridge is not for that bridge to tell.
OF_BRIDGE: Final = "chat-"
# What services say where it is not the post that they do not take: the room is closed to us, is
# none, or has become another one.
OF_ROOM: Final = ("forbidden", "not found", "not_found", "supergroup")
_TEXT_CHARS_MAX: Final = 60_000
_WANTED_AT_ONCE: Final = 1_000
# So many are with a bridge at once.
_BUSY_MAX: Final = 100


class BridgeUp(ev.Event, frozen=True):
    """The bridge of a service begins."""

    service: str


class BridgeDown(ev.Event, frozen=True):
    """It has ended, for now."""

    service: str


class BridgeShown(ev.Event, frozen=True):
    """A post is there as `ref`, or was refused."""

    service: str
    number: int
    ref: str = ""
    refused: str = ""


class BridgeShow(ev.Effect, frozen=True):
    """Post it, or show it instead of `ref`."""

    service: str
    number: int
    key: str
    post: Post
    ref: str = ""


class ChatPosts(Part):
    """See the rules at the top of this file."""

    name = "chat-posts"
    effects = (BridgeShow,)

    def __init__(self, core: "Core") -> None:
        self._core = core
        # Of each bridge of this machine, as `config.toml` has it (`Installation` says so).
        self.rooms: dict[str, Room] = {room.service: room for room in core.settings.get("chat", ())}
        self._running: set[str] = set()
        self._numbers = itertools.count(1)
        # What is under way, by its number and by the post that it is.
        self._shown: dict[int, ChatPosted] = {}
        self._busy: dict[tuple[str, str], int] = {}
        # What a bridge was given, that has not said whether it is there: it may be, when it ended.
        self._given: set[tuple[str, str]] = set()
        # When something new was posted of late, by its sort and for whom.
        self._fresh: dict[tuple[str, str], deque[int]] = defaultdict(deque)
        self._late = False
        # The new post of each service that was refused last, if none was taken since.
        self._refused: dict[str, str] = {}
        core.on(ev.HeadConfirmed, self._confirmed)
        core.on(BridgeUp, self._up)
        core.on(BridgeDown, self._down)
        core.on(BridgeShown, self._there)

    @staticmethod
    def folds(fleet: FleetId) -> "Sequence[object]":  # noqa: ARG004 - as of every part
        return (ChatFold(),)

    def _up(self, event: BridgeUp) -> None:
        self._forget(event.service)
        self._running.add(event.service)
        self.dirty = True

    def _down(self, event: BridgeDown) -> None:
        self._running.discard(event.service)
        self._forget(event.service)

    def _forget(self, service: str) -> None:
        for key in [key for key in self._busy if key[0] == service]:
            del self._shown[self._busy.pop(key)]

    def _confirmed(self, _event: ev.HeadConfirmed) -> None:
        """What was told of a bridge, a room or a thread that is not configured any more is over."""
        named = set[str]()
        for service, room in self.rooms.items():
            there = (("", True), ("-room", room.room), ("-thread", room.thread))
            named |= {f"{OF_BRIDGE}{service}{of}" for of, said in there if said}
        for key in self._core.incidents.own(OF_BRIDGE).keys() - named:
            self._core.incidents.close(key, "it is not configured any more")

    def trouble(self, service: str) -> str:
        """Why nobody is heard over a bridge now, "" where it runs and nothing is known of it."""
        row = self._core.incidents.own(f"{OF_BRIDGE}{service}").get(f"{OF_BRIDGE}{service}")
        if row is not None:
            return row.title.rstrip(".")
        return "" if service in self._running else f"the chat bridge to {service} is not up yet"

    def thread(self, service: str) -> Scope | None:
        """The thread that the room of a service shows, where nobody else can take its place."""
        up, key = self.rooms.get(service), f"{OF_BRIDGE}{service}-thread"
        if up is None or not up.thread:
            return None
        incidents = self._core.incidents
        try:
            scope = group_of(self._core, up.thread)
        except NotFound:
            return None
        except Refused as error:
            if not incidents.is_open(key):
                title = f"the room of {service} shows no thread: {error}, in `[chat.{service}]`"
                incidents.open(key, "warning", title)
            return None
        incidents.close(key, "it is one thread")
        return scope

    # --- what is wanted -------------------------------------------------------------------

    def find(self, service: str, **equals: Any) -> PostRow | None:
        """A post, by its `key` or its `ref`."""
        rows = self._core.tables.rows(
            POST, writer=self._core.machine, service=service, order=("-at_ms",), limit=1, **equals
        )
        return rows[0] if rows else None

    def called(self, key: str) -> list[PostRow]:
        """The posts of just this key, in each service."""
        return [row for each in self.rooms if (row := self.find(each, key=key)) is not None]

    def known(self, begins: str) -> list[PostRow]:
        """The posts whose key begins so, each as it was wanted last."""
        rows = self._core.tables.rows(
            POST, writer=self._core.machine, begins={"key": begins}, order=("-at_ms",),
            limit=_WANTED_AT_ONCE,
        )  # fmt: skip
        return list({(row.service, row.key): row for row in reversed(rows)}.values())

    def want(  # noqa: PLR0917 - what a post is has this many parts
        self, service: str, key: str, room: str, text: str, buttons: tuple[str, ...] = (),
        thread: str = "", *, whose: str = "",
    ) -> None:  # fmt: skip
        """Let a post be there, and read so. `whose` is the account or the machine behind it."""
        before = self.find(service, key=key)
        text = text[:_TEXT_CHARS_MAX]
        if before is not None and (before.text, before.buttons) == (text, " ".join(buttons)):
            return
        begins = before is None or (not before.ref and before.state == "there")
        if begins and not self._has_room(service, key, whose):
            self._core.counters["chat-posts-cut"] += 1
            return
        ref, below = (before.ref, before.thread) if before is not None else ("", thread)
        where = before.room if before is not None else room
        self._write(ChatPosted(service, key, where, text, buttons, below, ref))
        self.dirty = True

    def _has_room(self, service: str, key: str, whose: str) -> bool:
        if not key.startswith(LATE):
            return self._spend(service, key, whose)
        waiting = self._core.tables.rows(
            POST, writer=self._core.machine, service=service, state="wanted", ref="",
            begins={"key": f"{key[:2]}{_about(key)}/"}, limit=WAITING_MAX,
        )  # fmt: skip
        return len(waiting) < WAITING_MAX

    def _spend(self, service: str, key: str, whose: str) -> bool:
        now_ms, sort = self._core.now.boot_ms, f"{service}/{key[:2]}"
        self._fresh = defaultdict(
            deque, {k: s for k, s in self._fresh.items() if s and now_ms - s[-1] < 60_000}
        )
        asked = [(self._fresh[sort, ""], POSTS_PER_MINUTE_MAX)]
        if whose:
            asked.append((self._fresh[sort, whose], POSTS_OF_ONE_MAX))
        # What has no room in one of them takes none of the other.
        room = all(has_room(spent, most, 60_000, now_ms) for spent, most in asked)
        for spent, _ in asked if room else ():
            spent.append(now_ms)
        return room

    def end(self, row: PostRow, outcome: str) -> None:
        """A post says what came of it, and its buttons are gone."""
        if row.buttons:
            self.want(row.service, row.key, row.room, f"{row.text}\n\n{outcome}")

    def _write(self, post: ChatPosted) -> None:
        asks = post.buttons or not post.key.startswith(LATE)
        if not (asks or post.ref or (post.service, post.key) in self._given):
            # It is over, and nobody was told of it.
            post = replace(post, state="there")
        self._core.append_body(post, scope=JOURNAL)

    # --- what goes out --------------------------------------------------------------------

    @property
    def needs_tick(self) -> bool:
        return self._late

    def tick(self) -> None:
        """Look again at what waits for its minute."""
        self.dirty = self.dirty or self._late

    def flush(self) -> None:
        """Let go out what is wanted of those that run."""
        self._late = False
        for service in sorted(self._running):
            wanted = self._core.tables.rows(
                POST, writer=self._core.machine, service=service, state="wanted",
                order=("at_ms",), limit=_WANTED_AT_ONCE,
            )  # fmt: skip
            room = _BUSY_MAX - sum(key[0] == service for key in self._busy)
            for row in wanted:
                if room <= 0:
                    break
                if (service, row.key) in self._busy:
                    continue
                if self._is_old(row):
                    # There may be more than this look saw.
                    self._late, room = True, room - 1
                    continue
                late = not row.ref and row.key.startswith(LATE)
                if late and not self._spend(service, row.key, _about(row.key)):
                    self._late = True
                    continue
                self._show(row)
                room -= 1

    def _is_old(self, row: PostRow) -> bool:
        """Whether it is too late to post it; then nobody waits for it any more."""
        waited_ms = self._core.now.wall_ms - row.at_ms
        if row.ref or row.buttons or waited_ms < FRESH_MS:
            return False
        self._core.counters["chat-posts-old"] += 1
        what = (row.service, row.key, row.room, row.text, (), row.thread)
        self._write(ChatPosted(*what, state="there"))
        return True

    def _show(self, row: PostRow) -> None:
        number = next(self._numbers)
        buttons = tuple(row.buttons.split())
        self._shown[number] = ChatPosted(
            row.service, row.key, row.room, row.text, buttons, row.thread, row.ref
        )
        self._busy[row.service, row.key] = number
        self._given.add((row.service, row.key))
        faces = tuple(Button(data, FACES[data[0]][1], FACES[data[0]][0]) for data in buttons)
        post = Post(row.room, row.text, faces, row.thread)
        # A change is another one each time, also where it shows again what was shown before.
        key = f"{row.key}/{self._core.now.wall_ms}.{number}" if row.ref else row.key
        self._core.do(BridgeShow(row.service, number, key, post, row.ref))

    def _tell_room(self, shown: ChatPosted, refused: str) -> None:
        """A person hears of it where a service takes nothing into the room of `config.toml`.

        What is wrong with one post says nothing of the room, and nor does what is changed there.
        """
        room, key = self.rooms.get(shown.service), f"{OF_BRIDGE}{shown.service}-room"
        if room is None or shown.room != room.room or shown.ref:
            return
        if not refused:
            self._refused.pop(shown.service, None)
            self._core.incidents.close(key, "it takes posts again")
            return
        before = self._refused.get(shown.service, shown.key)
        self._refused[shown.service] = shown.key
        sure = before != shown.key or any(word in refused.casefold() for word in OF_ROOM)
        if sure and not self._core.incidents.is_open(key):
            title = f"{shown.service} takes no post into its room: {refused}"
            self._core.incidents.open(key, "warning", title)

    def _there(self, event: BridgeShown) -> None:
        shown = self._shown.get(event.number)
        if shown is None or shown.service != event.service:
            return
        del self._shown[event.number]
        del self._busy[shown.service, shown.key]
        self._given.discard((shown.service, shown.key))
        if event.refused:
            self._core.counters["chat-posts-refused"] += 1
        self._tell_room(shown, event.refused)
        row = self.find(shown.service, key=shown.key)
        if row is None:
            return
        same = (row.text, row.buttons) == (shown.text, " ".join(shown.buttons))
        self._write(
            ChatPosted(
                row.service, row.key, row.room, row.text, tuple(row.buttons.split()), row.thread,
                event.ref or row.ref, "there" if same else "wanted",
            )
        )  # fmt: skip
        self.dirty = True


def _about(key: str) -> str:
    """The machine that an incident or a question is of, as its key has it."""
    return key[2:].partition("/")[0]
