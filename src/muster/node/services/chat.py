"""What is heard over chat bridges, and what comes of it.

Rule 1: text from a chat is data: a message with the origin `chat`, or a question to Muster that a
grant of the account allows. It is no order, whatever it says.
Rule 2: an account that no operator linked changes nothing, gets no answer, and takes no room. What
the service says an account is called counts nowhere.
Rule 3: what counts is kept before it is said to be kept, and counts once, by its id: a bridge and
its service may say it again.
Rule 4: a button counts as it stands on the post now: one of a post that was changed is refused, and
so is one that somebody made up.
Rule 5: a code (chat_codes.py) links the first account that sends it in private. Whatever else looks
like one is what any word of that account is: a message where it is linked, and nothing where not.
"""

import re
from collections import deque
from typing import TYPE_CHECKING, Final

from muster.bridge.base import Heard, Passed, Pressed, Said
from muster.errors import Denied, MusterError
from muster.fleet.chat import (
    CHAT,
    CODE_CHARS,
    CODE_MS,
    DAY_MS,
    DEFAULT,
    Chat,
    ChatAcknowledged,
    ChatLinked,
    chat_actor,
)
from muster.fleet.document import document_id
from muster.fleet.kinds import Told
from muster.limits import MESSAGE_TEXT_BYTES_MAX
from muster.log.stream import JOURNAL, MachineId, Scope, scope_to
from muster.message.chat import CURSOR, DATA, HEARD, ChatHeard, ChatPress
from muster.message.kinds import MessageSend
from muster.node import event as ev
from muster.node.call.authorize import Authorizer
from muster.node.counter import DECLARED, spend
from muster.node.part import Part
from muster.node.services.chat_answers import answer_of, told_of
from muster.node.services.chat_codes import Code, Codes
from muster.node.services.chat_posts import BridgeDown, ChatPosts
from muster.node.services.chat_topics import ASK, INCIDENT, machine_of
from muster.task.approval import VERB as APPROVE

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "chat-unlinked": "Something came over a chat bridge from an account that is not linked.",
    "chat-again": "A chat bridge said something that was heard before.",
    "chat-too-much": "An account of a chat said more in a minute than is heard.",
}

HEARD_PER_MINUTE_MAX: Final = 60
ACCOUNTS_KEPT_MAX: Final = 1_000
# A cursor that nothing counts on is kept this often.
CURSOR_MS: Final = 30_000
_COMMAND: Final = re.compile(r"\s*[/!]?muster(?:\s+|\Z)", re.IGNORECASE)


class BridgeHeard(ev.Event, frozen=True):
    """A bridge heard something, under a number of its own."""

    service: str
    number: int
    heard: Heard
    cursor: str = ""


class BridgeKept(ev.Effect, frozen=True):
    """What was heard under this number is durable."""

    service: str
    number: int


class Chats(Part):
    """See the rules at the top of this file."""

    name = "chat"
    effects = (BridgeKept,)

    def __init__(self, core: "Core") -> None:
        self._core, self._posts = core, core.part(ChatPosts)
        self._orders = core.part(Authorizer)
        self._codes = Codes(core.counters)
        self._said: dict[str, deque[int]] = {}
        # Heard before our own history was confirmed.
        self._early: list[BridgeHeard] = []
        # Cursors that no row has yet.
        self._cursors: dict[str, str] = {}
        self._cursors_ms = 0
        core.on(BridgeHeard, self._came)
        core.on(BridgeDown, self._down)
        core.on(ev.HeadConfirmed, self._confirmed)

    # --- codes ----------------------------------------------------------------------------

    def code(self, service: str, days: int, statement: str, operator: str) -> tuple[str, int]:
        """A fresh code for this order, and until when it counts."""
        drawn, now = self._core.draw(CODE_CHARS), self._core.now
        order = (days, statement, operator)
        return self._codes.add(drawn, service, order, now), now.wall_ms + CODE_MS

    def _link(self, service: str, said: Said, code: Code) -> None:
        core, operators = self._core, self._core.roster.operators
        self._codes.use(code)
        text = "that code links nobody any more: its order is too old, or was taken back"
        if code.operator in operators:
            body = ChatLinked(
                said.account, code.hash, code.days, service, code.statement, said.workspace
            )  # fmt: skip
            core.append_body(body, actor=chat_actor(service, said.account, core.name))
            # What is written counts only by the rules that every machine goes by.
            core.membership.stale()
            id_, link = document_id(code.statement.encode()), self._whose(service, said)
            if link is not None and core.tables.rows(CHAT, id=id_, account=said.account):
                name, may = operators[code.operator].name, ", ".join(DEFAULT)
                days = max(1, round((link.until_ms - core.now.wall_ms) / DAY_MS))
                text = f"This account is linked by {name} for {days} days. It may: {may}."
        self._posts.want(service, f"h/{said.id}"[:200], said.room, text)

    # --- what comes -----------------------------------------------------------------------

    def cursor(self, service: str) -> str:
        """How far a service was heard."""
        rows = self._core.tables.rows(
            CURSOR, writer=self._core.machine, service=service, order=("-at_ms",), limit=1
        )
        return self._cursors.get(service) or (rows[0].cursor if rows else "")

    def _confirmed(self, _event: ev.HeadConfirmed) -> None:
        early, self._early = self._early, []
        for event in early:
            self._came(event)

    def _down(self, event: BridgeDown) -> None:
        # It will say again what was not kept.
        self._early = [each for each in self._early if each.service != event.service]

    def tick(self) -> None:
        """Keep the cursors that nothing counts on."""
        now_ms = self._core.now.boot_ms
        if self._cursors and now_ms - self._cursors_ms >= CURSOR_MS:
            self._cursors_ms = now_ms
            cursors, self._cursors = self._cursors, {}
            for service, cursor in cursors.items():
                self._keep(service, "", cursor)

    def _came(self, event: BridgeHeard) -> None:
        if not self._core.settled:
            self._early.append(event)
            return
        self._take(event.service, event.heard, event.cursor)
        self._core.do(BridgeKept(event.service, event.number))

    def _take(self, service: str, heard: Heard, cursor: str) -> None:
        """Keep what counts; of what does not, the cursor alone."""
        core = self._core
        if not isinstance(heard, Passed):
            link, code = self._whose(service, heard), self._codes.shown(service, heard, core.now)
            if link is None and code is None:
                core.counters["chat-unlinked"] += 1
            elif core.tables.rows(
                HEARD, writer=core.machine, service=service, id=heard.id, limit=1
            ):  # fmt: skip
                core.counters["chat-again"] += 1
            else:
                work = (service, heard, cursor, link, code)
                if core.guard.run("chat", service, self._heard, *work):
                    # What failed is kept as heard: it is not said again and again.
                    self._keep(service, heard.id, cursor)
                return
        if cursor:
            self._cursors[service] = cursor

    def _whose(self, service: str, heard: Said | Pressed) -> Chat | None:
        """The link of whoever said it, while it lasts."""
        try:
            link = self._core.roster.chat(
                service, heard.workspace, heard.account, self._core.machine
            )
        except Denied:
            return None
        return link if self._core.now.wall_ms <= link.until_ms else None

    def _heard(
        self, service: str, heard: Said | Pressed, cursor: str, link: Chat | None, code: Code | None
    ) -> None:
        """Do what comes of it, and keep that: its message, and where the answer to one goes."""
        became: tuple[str, ...] = ()
        if code is not None and isinstance(heard, Said):
            self._link(service, heard, code)
        elif link is not None and self._has_room(link):
            if isinstance(heard, Pressed):
                self._press(service, heard, link)
            elif command := _COMMAND.match(heard.text):
                self._command(service, heard, link, heard.text[command.end() :].split())
            else:
                became = self._message(service, heard)
        self._keep(service, heard.id, cursor, *became)

    def _has_room(self, link: Chat) -> bool:
        if len(self._said) > ACCOUNTS_KEPT_MAX:
            self._said.clear()
        spent = self._said.setdefault(link.key, deque())
        if spend(spent, HEARD_PER_MINUTE_MAX, 60_000, self._core.now.boot_ms):
            return True
        self._core.counters["chat-too-much"] += 1
        return False

    def _keep(self, service: str, id: str, cursor: str, *became: str) -> None:
        self._core.append_body(ChatHeard(service, id, cursor, *became), scope=JOURNAL)
        if cursor:
            # An older one, that no row has yet, counts no more.
            self._cursors.pop(service, None)

    # --- questions to Muster --------------------------------------------------------------

    def _command(self, service: str, said: Said, link: Chat, words: list[str]) -> None:
        try:
            text = self._answer(link, words)
        except MusterError as error:
            text = str(error)
        key = f"h/{said.id}"[:200]
        self._posts.want(service, key, said.room, text, thread=said.thread, whose=link.key)

    def _answer(self, link: Chat, words: list[str]) -> str:
        name, object = (*words, "help", "")[:2] if words else ("help", "")
        if name in ("ack", "acknowledge") and len(words) > 1:
            return self._acknowledge(link, words[1])
        object = words[1] if name == "why" and len(words) > 1 else ""
        self._check(link, name if name in DEFAULT else "help", object or "*")
        return answer_of(self._core, name, object)

    def _check(self, link: Chat, verb: str, object: str) -> None:
        """Raises: Denied, which is written down."""
        if verb == "help":
            return
        try:
            self._core.roster.decide(link.key, verb, object, self._core.now.wall_ms)
        except Denied as error:
            self._orders.deny(link.key, verb, object, error)
            raise

    def _acknowledge(self, link: Chat, name: str) -> str:
        told, title, known = told_of(self._core, name)
        self._check(link, "acknowledge", known)
        self._looked(link, told)
        return f"noted: you look at {known[:12]} ({title[:200]})"

    def _looked(self, link: Chat, told: Told) -> None:
        body = ChatAcknowledged(link.account, told, link.service, link.workspace)
        self._core.append_body(body, actor=chat_actor(link.service, link.account, self._core.name))

    # --- buttons --------------------------------------------------------------------------

    def _press(self, service: str, pressed: Pressed, link: Chat) -> None:
        found = re.fullmatch(DATA, pressed.data)
        post = self._posts.find(service, ref=pressed.ref)
        try:
            if found is None or post is None or pressed.data not in post.buttons.split():
                raise Denied("that button counts no more: what it is about is settled, or changed")
            what, id_ = found.groups()
            if what == "a" and post.key.startswith(INCIDENT):
                told, _, known = told_of(self._core, id_)
                self._check(link, "acknowledge", known)
                self._looked(link, told)
            elif what != "a" and post.key.startswith(ASK):
                machine, hash = machine_of(self._core, post.key), post.key.rpartition("/")[2]
                self._pass_on(link, machine, id_, hash, allow=what == "y")
        except MusterError as error:
            key, below = f"h/{pressed.id}"[:200], pressed.ref
            self._posts.want(
                service, key, pressed.room, str(error), thread=below, whose=link.key
            )  # fmt: skip

    def _pass_on(self, link: Chat, machine: MachineId, id_: str, hash: str, *, allow: bool) -> None:
        roster, now_ms = self._core.roster, self._core.now.wall_ms
        held = [g for g in roster.grants if (g.grant.to, g.grant.verb) == (link.key, APPROVE)]
        # Which class it is, the machine that asks knows; who holds none is refused here already.
        if not any(g.grant.until_ms >= now_ms for g in held):
            self._check(link, APPROVE, id_)
        account, workspace = link.account, link.workspace
        body = ChatPress(account, allow, hash, id_, link.service, workspace)
        actor = chat_actor(link.service, link.account, self._core.name)
        self._core.append_body(body, scope=scope_to(machine), actor=actor)

    # --- messages -------------------------------------------------------------------------

    def _message(self, service: str, said: Said) -> tuple[str, ...]:
        core, text = self._core, said.text.strip()
        if not text:
            return ()
        text = text.encode()[:MESSAGE_TEXT_BYTES_MAX].decode("utf-8", "ignore")
        scope, to = self._where(service, said)
        post = self._posts.find(service, ref=said.thread) if said.thread else None
        about = post.key[2:] if post is not None and post.key.startswith("m/") else ""
        body = MessageSend(
            to, text, thread=f"chat.{service}.{said.thread or said.room}"[:200],
            reply_to=about if len(about) == 64 else "", key=f"chat.{service}.{said.id}"[:200],
        )  # fmt: skip
        entry = core.append_body(
            body, scope=scope, actor=chat_actor(service, said.account, self._core.name)
        )
        below = said.thread or ("" if said.private else said.below)
        return entry.id.hex(), said.room, below

    def _where(self, service: str, said: Said) -> tuple[Scope, list[str]]:
        """The thread that a room shows, or else this machine."""
        up = self._posts.rooms.get(service)
        if up is not None and said.room == up.room and (scope := self._posts.thread(service)):
            return scope, ["all"]
        return scope_to(self._core.machine), [self._core.machine]
