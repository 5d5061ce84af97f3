"""Runs that live sessions propose: what a person may order as their own, or refuse.

Rule 1: a proposal lets nobody do anything. What begins is a run that a person signs, over exactly
the text that was proposed.
Rule 2: what became of one is said by a signed order alone. A page, a token and this machine's
socket are reached by every agent that has a shell.
Rule 3: it is in memory, and ends after a day. What was refused is refused for that time, whichever
session asks and however it writes the same: nobody is asked it again. The fleet hears that somebody
is needed, and never what for.
"""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
from msgspec.structs import replace

from muster.errors import Conflict, NotFound
from muster.limits import (
    PROPOSAL_LIFE_MS,
    PROPOSALS_ENDED_MAX,
    PROPOSALS_MAX,
    PROPOSALS_OF_SESSION_MAX,
)
from muster.log.stream import scope_to
from muster.message.kinds import MessageSend, MessageTerms
from muster.node.part import Part
from muster.node.tasks.followers import Followers
from muster.task.spec import Spec

if TYPE_CHECKING:
    from muster.node.core import Core

INCIDENT: Final = "proposal-"
State = Literal["open", "ordered", "refused"]


@dataclass
class Proposal:
    """A run that a session proposes, and why it may not simply hand it on.

    `content` is what its spec says, however that is written (`content_of`). `key` is what the
    address of its page ends with: who has it may read what is proposed. `run` is what a person
    began of it, `owner` whose that is, and `by` who that was.
    """

    id: str
    key: str
    session: str
    actor: str
    because: str
    name: str
    spec: str
    repo: str
    base: str
    content: bytes
    asked_ms: int
    until_ms: int
    state: State = "open"
    by: str = ""
    reason: str = ""
    run: str = ""
    owner: str = ""


class Proposals(Part):
    """Those of this machine's sessions."""

    name = "proposals"

    def __init__(self, core: "Core") -> None:
        self.core = core
        self._known: dict[str, Proposal] = {}
        self._tidy = False

    def tick(self) -> None:
        """What is over its time is over; what was proposed before we were stopped, once, too."""
        now_ms = self.core.now.wall_ms
        for each in [each for each in self._known.values() if each.until_ms < now_ms]:
            del self._known[each.id]
            if each.state == "open":
                self.core.incidents.close(_incident(each), "nobody answered in time")
        if not self._tidy:
            self._tidy = True
            known = {_incident(each) for each in self._known.values()}
            for key in self.core.incidents.own(INCIDENT).keys() - known:
                self.core.incidents.close(key, "the daemon was restarted")

    def listing(self) -> list[Proposal]:
        """Those that wait for a person, the oldest first."""
        return [each for each in self._known.values() if each.state == "open"]

    def find(self, text: str, key: str = "") -> Proposal:
        """The one whose id begins so, and that has the `key` where one is given: who has another
        one hears of none. Raises: NotFound, Conflict where several do.
        """
        there = [each for each in self._known.values() if not key or each.key == key]
        found = [each for each in there if text and each.id.startswith(text)]
        if len(found) > 1:
            raise Conflict(f"more than one proposal begins so: {', '.join(p.id for p in found)}")
        if not found:
            raise NotFound(
                f"no session of {self.core.name} proposes {text[:40]!r}; `muster questions` lists "
                "what waits, and a proposal ends after a day or with its daemon"
            )
        return found[0]

    def same(self, session: str, content: bytes) -> Proposal | None:
        """What this session proposed already, or a person refused to another one."""
        found = [each for each in self._known.values() if each.content == content]
        mine = [each for each in found if each.session == session]
        return next(iter([*mine, *(each for each in found if each.state == "refused")]), None)

    def propose(  # noqa: PLR0917 - what is proposed, and by whom
        self, session: str, actor: str, because: str, name: str, spec: str, repo: str, base: str,
        content: bytes,
    ) -> Proposal | None:  # fmt: skip
        """A person is asked for this run; None where too much waits for them already."""
        core, waiting = self.core, self.listing()
        mine = sum(each.session == session for each in waiting)
        if mine >= PROPOSALS_OF_SESSION_MAX or len(waiting) >= PROPOSALS_MAX:
            return None
        now_ms = core.now.wall_ms
        made = Proposal(
            core.draw(16).hex(), core.draw(16).hex(), session, actor, because, name, spec, repo,
            base, content, now_ms, now_ms + PROPOSAL_LIFE_MS,
        )  # fmt: skip
        self._known[made.id] = made
        short = made.id[:12]
        core.incidents.open(
            _incident(made), "warning",
            f"{actor} proposes a run: on {core.name}, `muster answer {short} yes|no` shows and "
            "orders or refuses it",
        )  # fmt: skip
        return made

    def end(self, proposal: Proposal, state: State, by: str, reason: str = "") -> None:
        """A person said what becomes of it; its session is told."""
        core = self.core
        if proposal.state != "open":
            raise Conflict(
                f"proposal {proposal.id[:12]} is {proposal.state} already; nothing was changed"
            )
        proposal.state, proposal.by, proposal.reason = state, by, reason
        ended = [each for each in self._known.values() if each.state != "open"]
        for each in ended[:-PROPOSALS_ENDED_MAX]:
            del self._known[each.id]
        core.incidents.close(_incident(proposal), f"{by}: {state}")
        core.part(Followers).answered(proposal.id)
        self._tell(proposal)

    def _tell(self, proposal: Proposal) -> None:
        core, agent = self.core, proposal.actor.rpartition("@")[0]
        text = f"what you proposed ({proposal.name}) is {proposal.state} by {proposal.by}"
        if proposal.run:
            text += f": run {proposal.run[:12]}; `muster await {proposal.run[:12]}` has its result"
        elif proposal.reason:
            text += f": {proposal.reason}"
        about: dict[str, Any] = {"about": proposal.run} if proposal.run else {}
        key, scope = f"proposal:{proposal.id}", scope_to(core.machine)
        body = MessageSend([f"{agent}@{core.machine}"], text, subject="proposal", key=key, **about)
        sent = core.append_body(body, scope=scope)
        # Right behind it, or it says nothing of it.
        core.append_body(MessageTerms(sent.id.hex(), to_session=proposal.session), scope=scope)


def content_of(spec: Spec, repo: str, base: str) -> bytes:
    """What a run is about: the same for whatever is read as the same, with other comments, blanks,
    quotes or another order of names, and with its repository in the text or beside it.
    """
    plain = msgspec.json.encode(replace(spec, repo=None, base=None), order="deterministic")
    return hashlib.sha256(msgspec.json.encode([plain.decode(), repo, base])).digest()


def _incident(each: Proposal) -> str:
    return f"{INCIDENT}{each.id}"
