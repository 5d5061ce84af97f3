"""Orders: whether somebody may, decided once by the machine that acts, and written down.

Rule 1: an operator's statement is the only source of authority; a socket, a link or a role is none.
Rule 2: taking an order and its effect are one transaction; the entry `order.take` spends its nonce,
so the same statement shown again does nothing.
Rule 3: a refusal is written down too, but a flood of them cannot fill the log.
Rule 4: an enclosed attempt is no program of the person's, though it runs for the same user: what
speaks on its own socket may do what its capability says, here, and nothing else. No statement that
it shows counts, and no verb that every program of the person may call.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from muster.agent.mask import Secrets
from muster.errors import Conflict, Denied, MusterError, Refused
from muster.fleet import kinds
from muster.fleet.capability import Capability, check_capability, read_token
from muster.fleet.folds import ORDER
from muster.fleet.statement import Statement, check_order, open_statement
from muster.limits import DENIALS_PER_MINUTE_MAX
from muster.log.entry import EntryId
from muster.log.stream import FLEET
from muster.node.call.answers import Request
from muster.node.counter import DECLARED, spend
from muster.node.incarnations.doubt import Doubt
from muster.node.part import Part
from muster.node.verb import Verb

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "denied": "Somebody was refused what it may not do.",
    "denied-unrecorded": "A refusal made no entry: there were too many in a minute.",
}


class OrderTaken(NamedTuple):
    """An order taken: by whom, and the entry that says so."""

    actor: str
    entry: EntryId
    operator: str
    object: str


class Bearer(NamedTuple):
    """Whoever shows a capability: the actor, and its task, or its live session."""

    actor: str
    task: str
    session: str


def check_enclosed(task: str, verb: Verb | None, request: Request) -> None:
    """Raises: Denied unless an enclosed attempt shows its own capability, for a verb of agents."""
    if verb is None or not verb.agents or request.on:
        raise Denied(f"an attempt that is enclosed may not {request.verb[:40]} here")
    if request.statement or not request.capability:
        raise Denied("an attempt that is enclosed speaks by its capability alone")
    if read_token(request.capability)[0] != task:
        raise Denied("the capability is of another task")


class Authorizer(Part):
    """Statements and capabilities of one machine."""

    name = "orders"

    def __init__(self, core: "Core") -> None:
        self.core = core
        self._doubt = core.part(Doubt)
        self._capabilities: dict[str, Capability] = {}
        self._secrets: dict[str, Secrets] = {}
        # By verb: what else a grant may name that an order of this object is under, "" for nothing.
        self.wider: dict[str, Callable[[str], str]] = {}
        # Which of them are of live sessions, and of no task.
        self._sessions: set[str] = set()
        self._denied: deque[int] = deque()

    def take(
        self, verb: str, object: str | None, args: Any, raw: str, *, operators_only: bool = False
    ) -> OrderTaken:
        """Obey a statement, spending its nonce; without `object` its own counts.

        Raises: Denied, Forged, Malformed; Conflict where it was obeyed before.
        """
        core = self.core
        statement = open_statement(raw.encode(), core.membership.fleet)
        if operators_only and statement.operator not in core.roster.operators:
            denied = f"only an operator may order {verb}, not whom an operator granted something"
            self.deny(statement.operator, verb, statement.object, Denied(denied), raw)
            raise Denied(denied)
        object = statement.object if object is None else object
        if self._spent(statement.operator, statement.nonce):
            raise Conflict(f"this order to {verb} was taken already: nothing was done again")
        self._doubt.check(statement)
        try:
            what: dict[str, Any] = {"verb": verb, "object": object, "args": args}
            here, now_ms = core.machine, core.now.wall_ms
            check_order(statement, **what, machine=here, now_ms=now_ms)
            grant = self._permit(statement, now_ms)
        except Refused as error:
            self.deny(statement.operator, verb, object, error, raw)
            raise
        actor = f"op:{core.roster.speaker(statement.operator)}"
        entry = core.append_body(kinds.OrderTake(grant, raw), actor=actor)
        # No table shows it before this step ends.
        core.of_step[ORDER.name, statement.operator, statement.nonce] = None
        return OrderTaken(actor, entry.id, statement.operator, object)

    def _permit(self, statement: Statement, now_ms: int) -> str:
        """The grant by which it is ordered: of the object, or of what the object is one of."""
        try:
            return self.core.roster.permit(statement, now_ms)
        except Denied:
            names = self.wider.get(statement.verb)
            wider = names(statement.object) if names is not None else ""
            if not wider:
                raise
        return self.core.roster.permit(replace(statement, object=wider), now_ms)

    def _spent(self, operator: str, nonce: str) -> bool:
        """Whether we obeyed it before; another machine's rows say nothing about us."""
        if (ORDER.name, operator, nonce) in self.core.of_step:
            return True
        store, own = self.core.store, self.core.membership.own(FLEET)
        # What an earlier life of ours took may come back in this very step: that is folded first.
        return store.tables.has_row(ORDER, own, operator, nonce) or any(
            store.tables.row(ORDER, stream, operator, nonce) is not None
            for stream in store.log.streams()
            if stream.machine == own.machine and stream.scope == FLEET and stream != own
        )

    def deny(self, by: str, verb: str, object: str, error: MusterError, raw: str = "") -> None:
        """Write down that somebody was refused."""
        core = self.core
        core.counters["denied"] += 1
        if not spend(self._denied, DENIALS_PER_MINUTE_MAX, 60_000, core.now.boot_ms):
            core.counters["denied-unrecorded"] += 1
            return
        denial = kinds.OrderDeny(by, object[:64] or "*", error.recorded[:500], verb[:64], raw)
        core.append_body(denial)
        core.surviving.append(denial)

    def allow_agent(self, capability: Capability, secrets: Secrets | None = None) -> None:
        """An attempt begins: its agent may ask for the verbs that its capability names.

        What it says then becomes entries: nothing of it may hold one of the `secrets`.
        """
        self._capabilities[capability.sha256] = capability
        self._secrets[capability.sha256] = secrets or Secrets({})

    def forget_agent(self, task: str) -> None:
        ended = [k for k, c in self._capabilities.items() if c.task == task]
        for key in [each for each in ended if each not in self._sessions]:
            del self._capabilities[key], self._secrets[key]

    def allow_session(self, capability: Capability) -> None:
        """As `allow_agent`, for a live session of an agent program: it stands for its task."""
        self.allow_agent(capability)
        self._sessions.add(capability.sha256)

    def forget_session(self, sha256: str) -> None:
        """What a live session had counts no more."""
        if sha256 in self._sessions:
            self._sessions.remove(sha256)
            del self._capabilities[sha256], self._secrets[sha256]

    def capability(self, token: str, verb: str, args: Any) -> Bearer:
        """Whom a token stands for.

        Raises: Denied, Refused for a secret in the words.
        """
        _, sha256 = read_token(token)
        capability = self._capabilities.get(sha256)
        if capability is None:
            error = Denied("no running task has this capability")
            self.deny("agent", verb, "*", error)
            raise error
        try:
            check_capability(capability, token, verb, self.core.now.wall_ms)
        except Denied as error:
            self.deny(capability.agent, verb, capability.task, error)
            raise
        # Refused and not masked: whoever gets a message must get what was said.
        if self._secrets[sha256].fields(args) != args:
            raise Refused("this holds a secret of this machine, and an entry lasts; say it without")
        is_session = sha256 in self._sessions
        names = ("", capability.task) if is_session else (capability.task, "")
        return Bearer(f"{capability.agent}@{self.core.name}", *names)
