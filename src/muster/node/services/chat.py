"""What is heard over chat bridges, and what comes of it.

Rule 1: text from a chat is data: a message with the origin `chat`, or a question to Muster that a
grant of the account allows. It is no order, whatever it says.
Rule 2: an account that no operator linked changes nothing, gets no answer, and takes no room. What
the service says an account is called counts nowhere.
Rule 3: what counts is kept before it is said to be kept, and counts once, by its id: a bridge and
its service may say it again.
Rule 4: a button counts as it stands on the post now: one of a post that was changed is refused, and
so is one that somebody made up.
Rule 5: a code is 8 letters of 40 bits, in memory alone, for ten minutes, for the first account that
sends it in private; few may be tried.
"""

import re
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from muster.bridge.base import Heard, Passed, Pressed, Said
from muster.errors import Denied, MusterError
from muster.fleet.chat import (
    CODE_ALPHABET,
    CODE_CHARS,
    CODE_MS,
    DEFAULT,
    Chat,
    ChatAcknowledged,
    ChatLinked,
    chat_actor,
    code_hash,
)
from muster.fleet.kinds import Told
from muster.limits import MESSAGE_TEXT_BYTES_MAX
from muster.log.stream import JOURNAL, MachineId, Scope, scope_to
from muster.message.chat import CURSOR, HEARD, ChatHeard, ChatPress
from muster.message.kinds import MessageSend
from muster.node import event as ev
from muster.node.call.authorize import Authorizer
from muster.node.counter import DECLARED, spend
from muster.node.part import Part
from muster.node.services.chat_answers import answer_of, told_of
from muster.node.services.chat_posts import BridgeDown, ChatPosts
from muster.node.services.chat_topics import ASK, INCIDENT, machine_of
from muster.task.approval import VERB as APPROVE

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "chat-unlinked": "Something came over a chat bridge from an account that is not linked.",
    "chat-again": "A chat bridge said something that was heard before.",
    "chat-too-much": "An account of a chat said more in a minute than is heard.",
    "chat-codes-wrong": "Somebody sent a code over a chat bridge that links nothing.",
}

HEARD_PER_MINUTE_MAX: Final = 60
CODES_OPEN_MAX: Final = 8
# So often a wrong code is looked at: of one account, and of all together while one is open.
TRIES_MAX: Final = 5
TRIES_OF_ALL_MAX: Final = 50
ACCOUNTS_KEPT_MAX: Final = 1_000
# A cursor that nothing counts on is kept this often.
CURSOR_MS: Final = 30_000
_COMMAND: Final = re.compile(r"\s*[/!]?muster(?:\s+|\Z)", re.IGNORECASE)
_DATA: Final = re.compile(r"([yna])([0-9a-f]{32})")


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


class Code(NamedTuple):
    """An order to link an account, for whoever shows its code."""

    service: str
    days: int
    statement: str
    operator: str
    until_ms: int


class Chats(Part):
    """See the rules at the top of this file."""

    name = "chat"
    effects = (BridgeKept,)

    def __init__(self, core: "Core") -> None:
        self._core, self._posts = core, core.part(ChatPosts)
        self._orders = core.part(Authorizer)
        # By what is kept of each code.
        self._codes: dict[str, Code] = {}
        self._tries: dict[str, int] = {}
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
        now_ms = self._core.now.wall_ms
        self._codes = {k: c for k, c in self._codes.items() if c.until_ms > now_ms}
        while len(self._codes) >= CODES_OPEN_MAX:
            self._codes.pop(next(iter(self._codes)))
        self._tries.clear()
        code = "".join(CODE_ALPHABET[each % 32] for each in self._core.draw(CODE_CHARS))
        until_ms = now_ms + CODE_MS
        self._codes[code_hash(code)] = Code(service, days, statement, operator, until_ms)
        return code, until_ms

    def _is_code(self, text: str) -> bool:
        word = text.strip().upper().replace("-", "")
        return len(word) == CODE_CHARS and set(word) <= set(CODE_ALPHABET) and bool(self._codes)

    def _link(self, service: str, said: Said) -> None:
        who = f"{service}\n{said.workspace}\n{said.account}"
        if self._tries.get(who, 0) >= TRIES_MAX or sum(self._tries.values()) >= TRIES_OF_ALL_MAX:
            return
        hashed = code_hash(said.text.strip().upper().replace("-", ""))
        code, now_ms = self._codes.get(hashed), self._core.now.wall_ms
        operators = self._core.roster.operators
        if code is None or code.service != service or code.until_ms < now_ms:
            self._tries[who] = self._tries.get(who, 0) + 1
            self._core.counters["chat-codes-wrong"] += 1
            return
        del self._codes[hashed]
        if code.operator not in operators:
            return
        link = ChatLinked(said.account, hashed, code.days, service, code.statement, said.workspace)
        self._core.append_body(link, actor=chat_actor(service, said.account, self._core.name))
        name = operators[code.operator].name
        may = ", ".join(DEFAULT)
        text = f"This account is linked by {name} for {code.days} days. It may: {may}."
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
                self._core.append_body(ChatHeard(service, "", cursor), scope=JOURNAL)

    def _came(self, event: BridgeHeard) -> None:
        if not self._core.settled:
            self._early.append(event)
            return
        service, heard = event.service, event.heard
        link = None if isinstance(heard, Passed) else self._whose(service, heard)
        counts = isinstance(heard, Pressed | Said) and (
            link is not None
            or (isinstance(heard, Said) and heard.private and self._is_code(heard.text))
        )
        if counts and not isinstance(heard, Passed):
            known = self._core.tables.rows(
                HEARD, writer=self._core.machine, service=service, id=heard.id, limit=1
            )
            self._core.append_body(ChatHeard(service, heard.id, event.cursor), scope=JOURNAL)
            self._cursors.pop(service, None)
            if known:
                self._core.counters["chat-again"] += 1
            else:
                # By itself: what fails in it is kept as heard, and is not said again and again.
                self._core.guard.run("chat", service, self._heard, service, heard, link)
        else:
            if event.cursor:
                self._cursors[service] = event.cursor
            if not isinstance(heard, Passed):
                self._core.counters["chat-unlinked"] += 1
        self._core.do(BridgeKept(service, event.number))

    def _whose(self, service: str, heard: Said | Pressed) -> Chat | None:
        """The link of whoever said it, while it lasts."""
        try:
            link = self._core.roster.chat(
                service, heard.workspace, heard.account, self._core.machine
            )
        except Denied:
            return None
        return link if self._core.now.wall_ms <= link.until_ms else None

    def _heard(self, service: str, heard: Said | Pressed, link: Chat | None) -> None:
        if isinstance(heard, Said) and heard.private and self._is_code(heard.text):
            self._link(service, heard)
            return
        if link is None:
            return
        if len(self._said) > ACCOUNTS_KEPT_MAX:
            self._said.clear()
        spent = self._said.setdefault(link.key, deque())
        if not spend(spent, HEARD_PER_MINUTE_MAX, 60_000, self._core.now.boot_ms):
            self._core.counters["chat-too-much"] += 1
            return
        if isinstance(heard, Pressed):
            self._press(service, heard, link)
        elif command := _COMMAND.match(heard.text):
            self._command(service, heard, link, heard.text[command.end() :].split())
        else:
            self._message(service, heard)

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
        found = _DATA.fullmatch(pressed.data)
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

    def _message(self, service: str, said: Said) -> None:
        core, text = self._core, said.text.strip()
        if not text:
            return
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
        below = said.thread or ("" if said.private else said.id if service == "matrix" else "")
        kept = ChatHeard(service, said.id, "", entry.id.hex(), said.room, below)
        core.append_body(kept, scope=JOURNAL)

    def _where(self, service: str, said: Said) -> tuple[Scope, list[str]]:
        """The thread that a room shows, or else this machine."""
        up = self._posts.rooms.get(service)
        if up is not None and up.thread and said.room == up.room:
            for scope, members in sorted(self._core.roster.groups.items()):
                if scope.rpartition(".")[2] == up.thread and self._core.machine in members:
                    return scope, ["all"]
        return scope_to(self._core.machine), [self._core.machine]
