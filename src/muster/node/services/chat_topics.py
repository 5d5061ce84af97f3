"""What a chat is told by itself: incidents, ended runs, what agents wait for, answers to messages.

Rule 1: each is one post, and is changed to its outcome: a room shows what is, and not how often it
was told.
Rule 2: what another machine wrote stands behind its name, and further in than what we say. What
became of a press says the machine at which it was pressed, of that press alone.
Rule 3: what an agent asks for is shown where an account may answer it, whole or not at all: what
counts is how long it is as it is read there, with each letter that cannot be seen by its number.
"""

from typing import TYPE_CHECKING, Final

from muster.bridge.services import SERVICES
from muster.bridge.words import fits
from muster.errors import NotFound
from muster.fleet.chat import CHAT_ACKNOWLEDGE, ChatAcknowledged, is_chat_actor
from muster.fleet.folds import INCIDENT as INCIDENTS
from muster.fleet.incident import Looked, is_shared
from muster.fleet.kinds import (
    INCIDENT_ACKNOWLEDGE,
    INCIDENT_CLOSE,
    INCIDENT_OPEN,
    IncidentAcknowledge,
    IncidentClose,
    IncidentOpen,
    Told,
)
from muster.log.entry import Entry, EntryId
from muster.log.fold import body_or_none
from muster.log.stream import MachineId, StreamName, direct_target, scope_to
from muster.message.chat import HEARD, ChatAsk, ChatPress, ChatSettle, PostRow
from muster.message.kinds import MessageSend
from muster.node.counter import DECLARED
from muster.node.incidents import name
from muster.node.part import Part
from muster.node.services.chat_posts import FRESH_MS, OF_BRIDGE, ChatPosts
from muster.node.tasks.actor import said
from muster.node.tasks.approvals import INCIDENT as QUESTION
from muster.task.approval import id_of
from muster.task.fold import RUN
from muster.task.kinds import RunSettle

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "chat-settles-odd": "A machine told what became of a press that nobody pressed there.",
    "chat-asks-unshown": "What an agent asks for is longer than a post of a chat may be.",
}

# What the keys of posts begin with; behind it stand the beginning of a machine's id, and the key
# of an incident and since when it is one trouble, or the hash of an approval, which begins with its
# id.
INCIDENT: Final = "i/"
ASK: Final = "q/"
RUNS: Final = "r/"
MESSAGES: Final = "m/"
_ID_CHARS: Final = 32


def machine_of(core: "Core", key: str) -> MachineId:
    """The machine that a post is about. Raises: NotFound."""
    begins = key[2:].partition("/")[0]
    found = [each for each in core.roster.machines if each.startswith(begins)]
    if len(found) != 1:
        raise NotFound("the machine that asked is not in the fleet any more")
    return found[0]


def _said(who: str, text: str) -> str:
    """What somebody else said: whatever begins a line of it stands further in than what we say."""
    return f"{who}: " + text.replace("\n", "\n    ")


def _is_of(post: PostRow, about: str) -> bool:
    """Whether a post is of this incident: another one's key may go on behind a slash."""
    key, _, since_ms = post.key.rpartition("/")
    return key == about[:-1] and since_ms.isdecimal()


class ChatTopics(Part):
    """See the rules at the top of this file."""

    name = "chat-topics"

    def __init__(self, core: "Core") -> None:
        self._core, self._posts = core, core.part(ChatPosts)
        # Incidents that something was said of, by their machine and key.
        self._changed: dict[tuple[MachineId, str], None] = {}
        self._asks: list[Entry] = []
        core.on(INCIDENT_OPEN, self._incident)
        core.on(INCIDENT_CLOSE, self._incident)
        for kind in (INCIDENT_ACKNOWLEDGE, CHAT_ACKNOWLEDGE):
            core.on(kind, self._looked)
        core.on("run.settle", self._later)
        core.on("message.send", self._later)
        core.on("chat.ask", self._later)
        core.on("chat.settle", self._later)

    def _incident(self, stream: StreamName, entry: Entry) -> None:
        if self._posts.rooms:
            body = body_or_none(entry, IncidentOpen) or body_or_none(entry, IncidentClose)
            if body is not None:
                self._changed[stream.machine, body.key] = None
                self.dirty = True

    def _looked(self, _stream: StreamName, entry: Entry) -> None:
        body = body_or_none(entry, ChatAcknowledged) or body_or_none(entry, IncidentAcknowledge)
        told = body.of if body is not None else None
        if self._posts.rooms and isinstance(told, Told):
            self._changed[MachineId(told.stream[:64]), told.key] = None
            if is_shared(told.key):
                # It counts for whoever told of the same before.
                for row in self._core.tables.rows(INCIDENTS, key=told.key, open=1):
                    self._changed[row.stream.machine, told.key] = None
            self.dirty = True

    def _later(self, _stream: StreamName, entry: Entry) -> None:
        if self._posts.rooms:
            self._asks.append(entry)
            self.dirty = True

    def flush(self) -> None:
        """Post what is new, and change what is there."""
        changed, self._changed = self._changed, {}
        for machine, key in changed:
            self._of_incident(machine, key)
        later, self._asks = self._asks, []
        for entry in later:
            _HANDLERS[entry.header.kind](self, entry)

    def _rooms(self, but: str = "") -> list[tuple[str, str]]:
        ups = self._posts.rooms.values()
        return [(up.service, up.room) for up in ups if up.room and up.service != but]

    def _is_fresh(self, ms: int) -> bool:
        return abs(self._core.now.wall_ms - ms) < FRESH_MS

    # --- incidents ------------------------------------------------------------------------

    def _of_incident(self, machine: MachineId, key: str) -> None:
        rows = self._core.tables.rows(INCIDENTS, writer=machine, key=key)
        if not rows:
            return
        row = max(rows, key=lambda each: each.t_ms)
        if key.startswith(QUESTION):
            for post in self._asking(machine, key.removeprefix(QUESTION)):
                if not row.open:
                    # Why it was closed stands where its detail was.
                    self._posts.end(post, _said("it is over", row.detail))
            return
        head = _said(f"{row.severity}: {self._core.membership.name_of(machine)}", row.title)
        called, about = name(row), f"{INCIDENT}{machine[:_ID_CHARS]}/{key}/"
        posts = [post for post in self._posts.known(about) if _is_of(post, about)]
        # Before 28 November 2026 its key did not say since when.
        posts += self._posts.called(about[:-1])
        looked = self._core.incidents.looked([row], self._core.now.wall_ms).get(called, Looked())
        if not row.open or looked.by:
            over = _said("it is over", row.detail)
            outcome = f"{looked.by} looks at it" if row.open else over
            for post in posts:
                # What is over stays as it ended, whatever came of what began later.
                if post.buttons or post.key == f"{about}{row.since_ms}":
                    self._posts.want(post.service, post.key, post.room, f"{head}\n\n{outcome}")
            return
        if row.severity == "notice" or not self._is_fresh(row.t_ms):
            return
        button = f"a{called[:_ID_CHARS]}"
        # Of a service that does not work, or takes no post in its room, another one tells.
        of = key.removeprefix(OF_BRIDGE).partition("-")[0] if key.startswith(OF_BRIDGE) else ""
        for post in posts:
            if post.key != f"{about}{row.since_ms}":
                self._posts.end(post, "it is told anew")
        for service, room in self._rooms(of):
            self._posts.want(service, f"{about}{row.since_ms}", room, head, (button,))

    # --- what agents wait for -------------------------------------------------------------

    def _ask(self, entry: Entry) -> None:
        body, machine = body_or_none(entry, ChatAsk), entry.stream.machine
        if body is None or direct_target(entry.stream.scope) != self._core.machine:
            return
        if body.id != id_of(body.hash):
            return
        buttons = (f"y{body.id}", f"n{body.id}")
        key = f"{ASK}{machine[:_ID_CHARS]}/{body.hash}"
        text = _said(self._core.membership.name_of(machine), body.text)
        for service, room in self._rooms():
            if fits(text, SERVICES[service].text_chars):
                self._posts.want(service, key, room, text, buttons)
            else:
                self._core.counters["chat-asks-unshown"] += 1

    def _settled(self, entry: Entry) -> None:
        body, machine = body_or_none(entry, ChatSettle), entry.stream.machine
        if body is None or direct_target(entry.stream.scope) != self._core.machine:
            return
        pressed = self._pressed(body, machine)
        if pressed is None:
            self._core.counters["chat-settles-odd"] += 1
            return
        for post in self._asking(machine, body.id):
            if body.outcome != "refused":
                self._posts.end(post, f"{body.outcome} by {pressed.account}")
            else:
                text = _said(self._core.membership.name_of(machine), body.text)
                self._posts.want(
                    post.service, f"h/{body.press}", post.room, text, thread=post.ref, whose=machine
                )

    def _pressed(self, settle: ChatSettle, machine: MachineId) -> ChatPress | None:
        """The press of ours, at that machine, that it says this of; None where there is none."""
        found = self._core.log.entry(EntryId(bytes.fromhex(settle.press)))
        press = body_or_none(found, ChatPress)
        if found is None or press is None:
            return None
        may = {"allowed": press.allow, "denied": not press.allow, "refused": True}
        what = (found.stream.machine, found.stream.scope, press.id)
        ours = what == (self._core.machine, scope_to(machine), settle.id)
        return press if ours and may[settle.outcome] else None

    def _asking(self, machine: MachineId, id: str) -> list[PostRow]:
        return self._posts.known(f"{ASK}{machine[:_ID_CHARS]}/{id}")

    # --- runs and messages ----------------------------------------------------------------

    def _run(self, entry: Entry) -> None:
        body, machine = body_or_none(entry, RunSettle), entry.stream.machine
        if body is None or not self._is_fresh(entry.header.t[0]):
            return
        rows = self._core.tables.rows(RUN, run=body.run, limit=1)
        named = rows[0].name if rows else ""
        ended = f"run {named or body.run[:12]} has ended: {body.outcome}. {body.summary[:500]}"
        text = _said(self._core.membership.name_of(machine), ended.strip())
        for service, room in self._rooms():
            key = f"{RUNS}{machine[:_ID_CHARS]}/{body.run}"
            self._posts.want(service, key, room, text, whose=machine)

    def _message(self, entry: Entry) -> None:
        """An answer to what a chat said goes back there; so does what is said in its thread."""
        body, actor = body_or_none(entry, MessageSend), entry.header.actor
        if body is None or is_chat_actor(actor) or not self._is_fresh(entry.header.t[0]):
            return
        key = f"{MESSAGES}{entry.id.hex()}"
        by = said(self._core, entry)
        machine = entry.stream.machine
        name = self._core.membership.name_of(machine)
        text = _said(by.name if by.trust in ("agent", "person") else name, body.text)
        heard = self._core.tables.rows(
            HEARD, writer=self._core.machine, message=body.reply_to, limit=1
        )
        if body.reply_to and heard:
            row = heard[0]
            self._posts.want(row.service, key, row.room, text, thread=row.thread, whose=machine)
            return
        for up in list(self._posts.rooms.values()):
            if up.room and self._posts.thread(up.service) == entry.stream.scope:
                self._posts.want(up.service, key, up.room, text, whose=machine)


_HANDLERS: Final = {
    "chat.ask": ChatTopics._ask,
    "chat.settle": ChatTopics._settled,
    "run.settle": ChatTopics._run,
    "message.send": ChatTopics._message,
}
