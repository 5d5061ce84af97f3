"""Within which bounds an agent may hand on work, and whether a run keeps to them.

Rule 1: an agent has no authority of its own. It hands on work within what a person signed: its
phase says `may: {delegate: …}`, or an operator granted `delegate` to the machine it speaks from.
Rule 2: what was handed on may be handed on again only within the same bounds and one step less, so
that no chain of agents ever gets further, or wider, than the person at its beginning said.
Rule 3: whoever asks, whoever owns the run and whoever works on it come to the same answer: it
follows from the signed texts and from names of machines.
Rule 4: the shell is named or not there: a phase that names nobody is refused, for it would be the
shell's (template.py, `agents_of`). Without it a run has nothing in it that a machine would carry
out without an agent of its own that is asked: no source, no command to check, no variables.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from muster.errors import Malformed
from muster.fleet.grant import ANYTHING, Grant
from muster.fleet.statement import Statement
from muster.limits import (
    DELEGATED_PHASES_MAX,
    DELEGATED_TASKS_MAX,
    DIGEST_TOKENS_MAX,
    PHASE_TIMEOUT_MS,
)
from muster.log.entry import Entry, EntryId
from muster.log.stream import MachineId
from muster.task import openings
from muster.task.budget import Budget
from muster.task.kinds import RunOpen
from muster.task.openings import UNSAID, Openings
from muster.task.precedence import rounds_of
from muster.task.spec import Delegate, May, Phase, Spec, listed
from muster.task.template import SHELL, Told, agents_of, told_by, told_of

# What always succeeds: who says nothing else is believed, as its agent's word.
UNCHECKED: Final = "true"
# A machine's id for a name, the name itself where there is none.
Ids = Callable[[str], str]


class Bounds(NamedTuple):
    """How far work may be handed on. `()` means any; of `agents` any but the shell.

    `runs` are of one attempt, or of a day.
    """

    runs: int
    depth: int
    agents: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    # None: any, also none at all.
    repos: tuple[str, ...] | None = None
    timeout_ms: int = 0
    # What its agents may be told of what is known, and write down.
    told: Told = Told(True, True, DIGEST_TOKENS_MAX)
    # What one attempt may use up; 0 where nobody said.
    tokens: int = 0
    usd_millionths: int = 0
    # The MCP servers that its agents may have; here `()` means none.
    servers: tuple[str, ...] = ()
    # What its sandbox may be opened for; nothing, where nobody said.
    opened: Openings = UNSAID
    # Another fleet asks: of `agents` `()` means none, and no person here is asked by it.
    foreign: bool = False


class Asking(Protocol):
    """What a machine knows of those that hand on work for their agents."""

    def machine_of(self, key: str) -> MachineId | None:
        """Return the machine whose agents this key speaks for, None where it is nobody's."""

    def grant(self, id: str, machine: MachineId) -> Grant | None:
        """Return the operator's grant of this id to the machine or one of its roles."""

    def is_counted(self, entry: Entry, run: str) -> bool:
        """Whether this, and nothing else of its stream, is what is counted of the run."""

    def is_first(self, entry: Entry, key: str) -> bool:
        """Whether its writer handed on nothing else under this key before it."""

    def is_begun(self, opening: Entry, run: RunOpen) -> bool:
        """Whether this opening, and no other of its writer's, is what the run's order began."""

    def before(self, entry: Entry, source: str, since_ms: int, most: int) -> int:
        """Return how often its writer handed on work by the same source, dated since then, before
        it: what its stream had before it, and what other streams had when it came. So many of each
        stream are counted at most.
        """

    def leads(self, statement: Statement, entry: Entry) -> bool:
        """Whether an operator signed the order by which this entry adopts another's work."""

    def ids(self, name: str) -> str:
        """Return the id of the machine of this name, the name itself where there is none."""

    def recompute(self, run: RunOpen, phase: str, instance: str) -> dict[str, Any]:
        """Return the template that the signed spec yields."""

    def is_removed(self, schedule: str, at_ms: int) -> bool:
        """As schedule_proof.py asks."""

    def fires(self, schedule: str, slot: int, nonce: str) -> list[EntryId]:
        """As schedule_proof.py asks."""


def of_phase(template: Mapping[str, Any], repo: str) -> Bounds | None:
    """What the order of a phase lets its agent hand on; None for nothing."""
    if not template.get("may"):
        return None
    try:
        found = msgspec.convert(template["may"], May).delegate
        agents = agents_of(template.get("agent"))
        timeout_ms = msgspec.convert(template.get("timeout_ms") or PHASE_TIMEOUT_MS, int)
        most = msgspec.convert(template.get("budget") or {}, dict[str, int])
        servers = msgspec.convert(template.get("mcp") or (), tuple[str, ...])
    except msgspec.ValidationError as error:
        raise Malformed(f"what this task may hand on cannot be read: {error}") from error
    spent = (most.get("tokens", 0), most.get("usd_millionths", 0))
    made = _bounds(found, agents, repo, timeout_ms, told_of(template), spent)
    return made._replace(servers=servers, opened=openings.openings_of(template))


def _bounds(  # noqa: PLR0917 - what is said of handing on, and what is said of the agent itself
    found: Delegate, agents: tuple[str, ...], repo: str, timeout_ms: int, told: Told,
    spent: tuple[int, int],
) -> Bounds:  # fmt: skip
    return Bounds(
        runs=found.runs or 1,
        depth=found.depth or 1,
        agents=listed(found.agent) or agents,
        machines=listed(found.machine),
        labels=listed(found.label),
        repos=listed(found.repo) or (repo,),
        timeout_ms=found.timeout_ms or timeout_ms,
        told=told,
        tokens=spent[0],
        usd_millionths=spent[1],
    )


def of_grant(grant: Grant) -> Bounds | None:
    """What an operator's grant lets a machine hand on for its agents; None for nothing."""
    most = grant.bounds
    if most is None:
        return None
    machines = () if grant.object == ANYTHING else (grant.object,)
    return Bounds(
        runs=most.per_day, depth=most.depth, agents=most.agents, machines=machines,
        repos=most.repos or None, timeout_ms=most.timeout_ms,
    )  # fmt: skip


def refusal(bounds: Bounds, spec: Spec, repo: str, ids: Ids) -> str:
    """Why a run of this spec in this repository is not within the bounds, or ""."""
    if bounds.repos is not None and repo not in ("", *bounds.repos):
        named = " or ".join(each or "none" for each in bounds.repos)
        return f"it works in repository {repo}, and may work in {named}"
    if spec.on or spec.inputs:
        return "it has inputs or is for a push; hand on a run that says all of it itself"
    if len(spec.phases) > DELEGATED_PHASES_MAX or _tasks(spec) > DELEGATED_TASKS_MAX:
        return (
            f"it has more than {DELEGATED_PHASES_MAX} phases, or more than {DELEGATED_TASKS_MAX} "
            "tasks with its racers, rounds and retries"
        )
    for name, phase in spec.phases.items():
        for why in (*_refusals(bounds, phase, repo, ids), *_richer(bounds, phase, spec)):
            return f"phase {name} {why}"
    return ""


def _tasks(spec: Spec) -> int:
    """How many attempts that fail by themselves it can come to at most."""
    rounds = rounds_of(spec)
    return sum(
        (phase.race or 1) * (1 + phase.repeats) * rounds.get(name, 1)
        for name, phase in spec.phases.items()
    )


def _refusals(bounds: Bounds, phase: Phase, repo: str, ids: Ids) -> Iterator[str]:
    if bounds.foreign:
        yield from _private(phase)
    if phase.by_human:
        return
    if phase.each is not None:
        yield "has each, and nobody knows how many tasks that are"
    if phase.priority > 0:
        yield "has a priority, and handed on work takes no turn from other work"
    if not phase.agents:
        yield "says nobody to do it, which would be the shell: name an agent"
    if wrong := [a for a in agents_of(phase.agent) if not _may_ask(bounds, a)]:
        yield f"asks {wrong[0]}, and it may ask {_whom(bounds)}"
    if SHELL not in bounds.agents:
        if phase.check not in (None, UNCHECKED):
            yield "has a check, which a shell would carry out, and no shell may be asked"
        if phase.env:
            yield "sets variables, and only who may ask a shell does"
    if others := [name for name in listed(phase.mcp) if name not in bounds.servers]:
        yield f"has the MCP server {others[0]}, and may have {_said(bounds.servers, 'none')}"
    yield from openings.wider(bounds.opened, openings.openings(phase))
    if phase.secrets:
        # Grants name specs, and whoever hands on work calls its spec as it likes.
        yield "names a secret, and what is handed on gets none"
    where = listed(phase.needs.machine) if phase.needs else ()
    if bounds.machines and not _within(where, bounds.machines, ids):
        yield f"is not bound to {_said(bounds.machines)}: say so in needs"
    labels = listed(phase.needs.label) if phase.needs else ()
    if lacks := [label for label in bounds.labels if label not in labels]:
        yield f"does not need the label {lacks[0]}: say so in needs"
    if bounds.timeout_ms and phase.timeout_ms > bounds.timeout_ms:
        yield f"may take longer than {bounds.timeout_ms // 1000} s: give it a shorter timeout"
    if phase.may is not None:
        yield from _wider(bounds, phase, phase.may.delegate, repo, ids)


def _private(phase: Phase) -> Iterator[str]:
    """What no other fleet chooses here, whatever it is granted."""
    if phase.by_human:
        yield "asks a person, and the people of a fleet are asked by their own"
    if phase.mode:
        yield "chooses the mode of its agent, which says what that does without asking"
    if phase.env:
        yield "sets variables, which another fleet does not"


def _richer(bounds: Bounds, phase: Phase, spec: Spec) -> Iterator[str]:
    """Why its agent would be told, would write down or could use up more than who hands it on."""
    if phase.by_human:
        return
    told, least = told_by(spec, phase), bounds.told
    if told.reads and not least.reads:
        yield "is told what is remembered, which its asker is not: say `memory: {read: []}`"
    elif told.reads and told.budget > least.budget:
        yield f"is told {told.budget} tokens of what is remembered, and {least.budget} are allowed"
    if told.writes and not least.writes:
        yield "writes down what it learns, which its asker may not: say `memory: {write: []}`"
    spends = phase.budget or Budget()
    if bounds.tokens and not 0 < (spends.tokens or 0) <= bounds.tokens:
        yield f"may use up more than {bounds.tokens} tokens: say so in budget"
    if bounds.usd_millionths and not 0 < spends.usd_millionths <= bounds.usd_millionths:
        yield f"may use up more than {_dollars(bounds.usd_millionths)} dollars: say so in budget"


def _dollars(millionths: int) -> str:
    return f"{millionths // 1_000_000}.{millionths // 10_000 % 100:02}"


def narrowed(bounds: Bounds) -> dict[str, Any]:
    """The keys of a phase that keep within what its asker is told, may use up and reaches."""
    told, found, spends = bounds.told, openings.narrowed(bounds.opened), dict[str, Any]()
    if not (told.reads and told.writes):
        may = {"read": told.reads, "write": told.writes}
        found["memory"] = {name: [] for name, allowed in may.items() if not allowed}
    if bounds.tokens:
        spends["tokens"] = bounds.tokens
    if bounds.usd_millionths:
        spends["usd"] = _dollars(bounds.usd_millionths)
    return {**found, **({"budget": spends} if spends else {})}


def _wider(bounds: Bounds, phase: Phase, further: Delegate, repo: str, ids: Ids) -> Iterator[str]:
    """Why its agent could hand on more than may be handed on now: never further, never wider."""
    # What its agents are told, use up and have of servers is what it is told, uses up and has.
    asked = _bounds(further, agents_of(phase.agent), repo, phase.timeout_ms, bounds.told, (0, 0))
    if asked.depth >= bounds.depth:
        left = bounds.depth - 1
        yield f"may hand on work {asked.depth} times more, and {left or 'none'} is allowed"
    if asked.runs > bounds.runs:
        yield f"may hand on {asked.runs} runs, and {bounds.runs} are allowed"
    if wrong := [a for a in asked.agents if not _may_ask(bounds, a)]:
        yield f"may ask {wrong[0]}, which it may not be asked for itself"
    if bounds.machines and not _within(asked.machines, bounds.machines, ids):
        yield "may hand on work to machines that it may not be given to itself"
    if not set(bounds.labels) <= set(asked.labels):
        yield "may hand on work to machines without the labels that it needs itself"
    if bounds.repos is not None and not set(asked.repos or ()) <= {"", *bounds.repos}:
        yield "may hand on work in repositories that it may not work in itself"
    if bounds.timeout_ms and asked.timeout_ms > bounds.timeout_ms:
        yield "may hand on work that takes longer than it may itself"


def _may_ask(bounds: Bounds, agent: str) -> bool:
    if bounds.agents or bounds.foreign:
        return agent in bounds.agents
    return agent != SHELL


def _whom(bounds: Bounds) -> str:
    return _said(bounds.agents, "none" if bounds.foreign else "any agent but the shell")


def _within(named: tuple[str, ...], allowed: tuple[str, ...], ids: Ids) -> bool:
    """Whether machines are named, and none but these."""
    return bool(named) and {ids(name) for name in named} <= {ids(name) for name in allowed}


def _said(names: tuple[str, ...], none: str = "") -> str:
    return " or ".join(each[:12] if len(each) == 64 else each for each in names) or none
