"""What agents of this machine wait for, told to machines with a bridge, and what was pressed there.

Rule 1: a machine hears what is asked only while an account at its bridge may allow that class, and
in a stream that nobody else reads.
Rule 2: the machine with the bridge vouches for which account pressed, and for nothing else. Whether
that account may, whether it is still asked, and whether it is what was shown (its hash), is decided
here, when it comes, as of any answer (approvals.py). A refusal is written down as any other.
Rule 3: whoever allows it has been shown all of it: what was cut on its way here, or does not fit,
is not shown in part. Where it is shown is measured once more, as it will be read (chat_topics.py).
"""

from typing import TYPE_CHECKING, Final

from muster.agent.lines import is_cut
from muster.errors import Conflict, MusterError
from muster.fleet.chat import chat_actor, chat_key
from muster.fleet.kinds import INCIDENT_OPEN
from muster.log.entry import Entry
from muster.log.fold import body_or_none
from muster.log.stream import MachineId, StreamName, direct_target, scope_to
from muster.message.chat import ChatAsk, ChatPress, ChatSettle, Outcome
from muster.node import event as ev
from muster.node.call.authorize import Authorizer
from muster.node.counter import DECLARED
from muster.node.part import Part
from muster.node.tasks.approvals import Approvals, Question
from muster.printable import named
from muster.task.approval import VERB, grant_object

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "chat-asks-untold": "What an agent asks for was not told to a chat: not all of it is there.",
}

_TEXT_CHARS_MAX: Final = 4_000


class ChatAsks(Part):
    """See the rules at the top of this file."""

    name = "chat-asks"

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._approvals, self._orders = core.part(Approvals), core.part(Authorizer)
        # Who was told of what; it ends with the question, as that lives in memory.
        self._told: set[tuple[str, MachineId]] = set()
        self._pressed: list[Entry] = []
        core.on(INCIDENT_OPEN, self._opened)
        core.on("chat.press", self._came)
        core.on(ev.RosterChanged, self._changed)

    def _opened(self, stream: StreamName, _entry: Entry) -> None:
        self.dirty = self.dirty or stream.machine == self._core.machine

    def _changed(self, _event: ev.RosterChanged) -> None:
        self.dirty = self.dirty or bool(self._approvals.listing())

    def _came(self, stream: StreamName, entry: Entry) -> None:
        if direct_target(stream.scope) == self._core.machine:
            self._pressed.append(entry)
            self.dirty = True

    def flush(self) -> None:
        """Tell what is asked, and do what was pressed."""
        asked = {each.id: each for each in self._approvals.listing()}
        self._told = {told for told in self._told if told[0] in asked}
        for each in asked.values():
            for machine in self._whom(each.sort):
                if (each.id, machine) not in self._told:
                    self._told.add((each.id, machine))
                    self._tell(each, machine)
        pressed, self._pressed = self._pressed, []
        for entry in pressed:
            self._press(entry)

    def _whom(self, sort: str) -> set[MachineId]:
        """The machines with an account that may allow this class now."""
        roster, now_ms = self._core.roster, self._core.now.wall_ms
        return {
            link.machine
            for link in roster.chats.values()
            if link.machine in roster.machines
            and roster.may(link.key, VERB, grant_object(sort), now_ms)
        }

    def _tell(self, asked: Question, machine: MachineId) -> None:
        fields = asked.fields
        paths = "\n".join(f"  {path}" for path in fields.get("paths") or ())
        because = str(fields.get("because") or "")
        lines = (
            f"{asked.actor} asks for a permission ({asked.sort}):",
            str(fields.get("title") or ""),
            paths,
            str(fields.get("input") or ""),
            f"because: {because}" if because else "",
        )
        text = named("\n".join(filter(None, lines)))
        if is_cut(text) or len(text) > _TEXT_CHARS_MAX:
            self._core.counters["chat-asks-untold"] += 1
            return
        body = ChatAsk(asked.hash, asked.id, text, asked.until_ms, asked.sort)
        self._core.append_body(body, scope=scope_to(machine))

    def _press(self, entry: Entry) -> None:
        body, by = body_or_none(entry, ChatPress), entry.stream.machine
        if body is None:
            return
        text, outcome = "", "allowed" if body.allow else "denied"
        try:
            self._answer(body, by, entry)
        except MusterError as error:
            text, outcome = str(error), "refused"
            key = chat_key(body.service, body.account, by)
            self._orders.deny(key, VERB, body.id, error)
        told: Outcome = outcome  # type: ignore[assignment]
        settle = ChatSettle(body.id, told, entry.id.hex(), text[:1_000])
        self._core.append_body(settle, scope=scope_to(by), cause=(entry.id,))

    def _answer(self, body: ChatPress, by: MachineId, press: Entry) -> None:
        """Raises: Denied, Conflict, NotFound."""
        roster = self._core.roster
        link = roster.chat(body.service, body.workspace, body.account, by)
        object = self._approvals.class_object(body.id)
        if not object:
            raise Conflict("that is decided already, or nobody waits for it any more")
        roster.decide(link.key, VERB, object, self._core.now.wall_ms)
        actor = chat_actor(body.service, body.account, self._core.membership.name_of(by))
        self._approvals.answer(
            body.id, body.hash, "allow" if body.allow else "deny", actor, "", press.id,
            account=link.key,
        )  # fmt: skip
