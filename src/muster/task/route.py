"""Which machine fits a piece of work, which of them is best, and why the others lost.

Rule 1: a need is hard: a machine that misses one is out, with every reason, not only the first.
Rule 2: among those that fit, integers decide; equal scores go to the lower machine id. The same
        facts give the same answer on every machine, so the decision can be checked later.
Rule 3: nothing is hidden: `judge` gives a verdict for each machine, fitting or not.

The score starts at 1,000. An agent further down the list of a phase costs so much that load never
outweighs it: "claude, else shell" means claude wherever one is. Below that: the share of slots in
use, the load of the machine, battery, cost, the success of this agent there, whether the repository
is there already, and whether this task failed or was lost there before.

A machine that says that the agent is not logged in does not fit: it could do nothing. It fits again
as soon as its facts say otherwise, and one of which nobody can tell fits always. A machine that
failed at the agent or the repository is *put last*: it fits, and gets nothing as long as another
one does (queue.py).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from muster import limits
from muster.errors import Malformed
from muster.fleet.facts import LOGGED_OUT, Facts
from muster.task import fault, review
from muster.task.openings import UNSAID, Openings, openings_of
from muster.task.pause import PAUSED, pause_of
from muster.task.secret import NOTHING as NO_SECRETS
from muster.task.secret import Wanted, lack, wanted_of
from muster.task.spec import Needs, listed
from muster.task.template import agents_of
from muster.task.trust import SUCCESS_UNKNOWN
from muster.task.units import SIZE
from muster.task.values import RESULTS, SINCE, Values
from muster.task.version import Version, check_range, in_range, version_of

# How an MCP server that a machine offers stands among its tools.
MCP: Final = "mcp:"
# What stands there in the place of a version, before the agents that are not given it.
EXCEPT: Final = "except "
# How what a machine says of its sandbox stands among its tools: that it encloses; that it does
# where it is asked to (its owner has the rest run without), or why not even that; else why it
# cannot. A machine that says nothing is of before there was one.
SANDBOX: Final = "sandbox"
ENFORCED: Final = "enforced"
UNENCLOSED: Final = "off"
# The keys of an order that say what its task wants of a machine.
ROUTED_BY: Final = ("needs", "agent", "shell", "mcp", "sandbox", "network", "paths")
# The agent that does nothing, in the step that accepts its task: it has slots of its own, which
# are named as it is. All others share those that are named "".
NOOP: Final = "noop"
AGENT_RANK_COST: Final = 10_000
# More than load, and less than the next agent of the list: it was tried here, and went wrong; or
# who judged the work here would go on with it, and could judge it no more.
AGAIN_COST: Final = 5_000
# More than any list of agents.
LAST_COST: Final = 1_000_000
# From here on work is heavy, and a laptop on battery does not take it.
HEAVY_CPUS: Final = 4
HEAVY_MEMORY_MIB: Final = 8_192
# People and platforms have several names for the same; the right one is what facts use.
_SAME: Final = {
    "macos": "darwin", "osx": "darwin", "win32": "windows",
    "amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64",
}  # fmt: skip
# Before that, values that are not in the opening of a task were no values.
RESULTS_SINCE: Final[Version] = (0, 2)
# Before that, no spec with a review, with a rule of whom to ask or for a push could be read, and no
# order that keeps phases of an earlier run; `reviews` said so of specs before `since` did.
ORDER_SINCE: Final[Version] = (0, 3)
_OF_REVIEWS: Final = "reviews"
# Less than a fault, and more than load: it knows the work, and its folder is warm.
BEFORE_GAIN: Final = 2_000


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A candidate: what it says it is, and what it can take. `slots` are attempts at once, by pool.

    Without `slots` a machine takes one attempt per cpu. `faults` is what it failed at lately, in
    words, by part (fault.py).
    """

    id: str
    name: str
    facts: Facts
    slots: dict[str, int] = {}
    load_percent: int = 0
    cost: int = 0
    faults: dict[str, str] = {}


class Advice(NamedTuple):
    """What a person types where an agent is absent, and what he does where it has no account.

    `by_hand` is where it comes from where no command brings it.
    """

    install: str
    login: str
    by_hand: str = ""


class Fleet(NamedTuple):
    """What a spec is checked against: the machines, and the repositories that one of them keeps
    for all (None: unknown). `advice` is what helps with an agent.
    """

    machines: Sequence[Machine]
    repositories: frozenset[str] | None = None
    advice: Mapping[str, Advice] = {}


class Asked(NamedTuple):
    """What the owner's values of a task ask of a machine. `since` is the oldest Muster that can
    do it, `apart` whose work is judged, `kept` who alone can judge it, `judges` who judged rounds
    before, `before` who did the round before, as agent and machine.
    """

    since: Version = ()
    apart: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    before: tuple[str, str] = ("", "")
    judges: tuple[str, ...] = ()


NOTHING: Final = Asked()


class Wants(NamedTuple):
    """What a piece of work needs of a machine: the spec's `needs`, its agents, its repository.

    A machine in `avoid` is out; one in `tried` is taken when no better one is free.
    """

    needs: Needs
    agents: tuple[str, ...]
    repo: str = ""
    avoid: frozenset[str] = frozenset()
    tried: frozenset[str] = frozenset()
    asked: Asked = NOTHING
    opened: Openings = UNSAID
    secrets: Wanted = NO_SECRETS


class Verdict(NamedTuple):
    """What became of one candidate. `reasons` says what it lacks, or what made its score.

    `last` says why it gets nothing while another one fits, "" where nothing is against it; `login`
    names the agent whose missing login is all that the machine lacks.
    """

    machine: str
    fits: bool
    reasons: tuple[str, ...]
    score: int
    agent: str = ""
    last: str = ""
    login: str = ""

    @property
    def pool(self) -> str:
        """The slots this verdict would take."""
        return pool_of(self.agent)


def pool_of(agent: str) -> str:
    """The slots an agent takes."""
    return NOOP if agent == NOOP else ""


def wants_of(
    template: Mapping[str, Any],
    repo: str = "",
    avoid: Iterable[str] = (),
    tried: Iterable[str] = (),
    asked: Asked = NOTHING,
) -> Wants:
    """What a task's template wants of a machine; a phase without an agent runs in the shell.

    Raises:
        Malformed: a need is unknown or of the wrong kind, or what its sandbox is to open.

    """
    try:
        needs = msgspec.convert(template.get("needs") or {}, Needs)
        agents = agents_of(template.get("agent"))
        servers = msgspec.convert(template.get("mcp") or [], list[str])
    except msgspec.ValidationError as error:
        raise Malformed(f"the needs of this task cannot be read: {error}") from error
    # Checked here as well: an order need not come from a spec that was read.
    for wanted in (needs.tools or {}).values():
        check_range(wanted)
    if needs.memory is not None and not re.fullmatch(SIZE, needs.memory):
        raise Malformed(f"{needs.memory[:40]!r} is not an amount of memory such as 8GiB")
    if servers:
        tools = {f"{MCP}{name}": "*" for name in servers}
        needs = msgspec.structs.replace(needs, tools={**tools, **(needs.tools or {})})
    if template.get("shell") == "bash":
        needs = msgspec.structs.replace(needs, tools={"bash": "*", **(needs.tools or {})})
    opened, secrets = openings_of(template), wanted_of(template)
    return Wants(needs, agents, repo, frozenset(avoid), frozenset(tried), asked, opened, secrets)


def asked_of(values: Values) -> Asked:
    """What a task which is given these values asks of a machine."""
    run = values.get("run", {})
    since = RESULTS_SINCE if RESULTS in run else ()
    since = max(since, ORDER_SINCE if _OF_REVIEWS in run else version_of(run.get(SINCE, "")) or ())
    agent, _, machine = run.get(review.BEFORE, "").rpartition("@")
    names = (review.APART, review.KEPT, review.JUDGED_BY)
    apart, kept, judges = (tuple(run.get(name, "").split()) for name in names)
    return Asked(since, apart, kept, (agent, machine), judges)


def judge(wants: Wants, machine: Machine) -> Verdict:
    """Whether a machine fits, and its score without what changes from task to task."""
    asked, (agent_before, machine_before) = wants.asked, wants.asked.before
    # Whoever did the round before does the next one, where it can.
    ranked = sorted(wants.agents, key=lambda agent: agent != agent_before)
    here = [a for a in ranked if a in machine.facts.agents]
    without = {a: what for a in here if (what := _not_given(wants, machine.facts, a))}
    out = [a for a in here if a not in without and machine.facts.logins.get(a) == LOGGED_OUT]
    able = [a for a in here if a not in without and a not in out]
    # An agent further down the list that works is better than the first that does not.
    against = dict.fromkeys(able, "")
    for agent in able:
        failed = [p for p in fault.parts(agent, wants.repo) if p in machine.faults]
        if failed:
            against[agent] = machine.faults[failed[0]]
    agent = next((a for a in able if not against[a]), able[0] if able else "")
    lacks = [*_lacks_place(wants, machine), *_lacks_means(wants, machine.facts)]
    if unsafe := _cannot_enclose(wants, machine.facts):
        lacks.append(unsafe)
    if (version_of(machine.facts.muster) or ()) < asked.since:
        what = "read what was ordered" if asked.since >= ORDER_SINCE else ""
        what = what or "take values this large"
        lacks.append(f"its Muster {machine.facts.muster or '?'} cannot {what}")
    if machine.id in asked.apart:
        lacks.append("did the work itself, and a reviewer works on another machine")
    if machine.id in asked.kept:
        lacks.append("is the only one that can review this work")
    if not here:
        lacks.append(f"no agent {' or '.join(wants.agents)}")
    login = out[0] if out and not agent and not lacks else ""
    if out and not agent:
        lacks.append(f"{' and '.join(out)} {'are' if out[1:] else 'is'} not logged in there")
    if not agent:
        lacks += [f"{a} {what}" for a, what in without.items()]
    if machine.id in wants.avoid:
        why = f": {against[agent]}" if against.get(agent) else ""
        lacks.append(f"could not do this task before{why}")
        login = ""
    if lacks:
        return Verdict(machine.id, False, tuple(lacks), 0, login=login)
    parts = {
        "agent": -AGENT_RANK_COST * ranked.index(agent),
        "load": -min(max(machine.load_percent, 0), 200),
        "battery": -100 if machine.facts.power == "battery" else 0,
        "cost": -min(max(machine.cost, 0), 1000),
        "repository": 200 if wants.repo and wants.repo in machine.facts.repositories else 0,
        "did the round before": BEFORE_GAIN if machine.id == machine_before else 0,
        "judged it before": -AGAIN_COST if machine.id in asked.judges else 0,
        "went wrong there before": -AGAIN_COST if machine.id in wants.tried else 0,
    }
    reasons = tuple(f"{name} {value:+d}" for name, value in parts.items() if value)
    score = 1000 + sum(parts.values())
    if agent in machine.facts.drivers and agent not in machine.facts.logins:
        reasons = (*reasons, "nobody can tell of its login")
    if last := against[agent]:
        reasons = (f"put last: {last}", *reasons)
        return Verdict(machine.id, True, reasons, score - LAST_COST, agent, last)
    return Verdict(machine.id, True, reasons, score, agent)


def score(verdict: Verdict, used: int, slots: int, success: int = SUCCESS_UNKNOWN) -> int:
    """The score with what changes: slots in use, and successes per thousand of this agent there."""
    return verdict.score - 300 * used // max(slots, 1) + (success - SUCCESS_UNKNOWN) // 5


def slots_of(machine: Machine, pool: str) -> int:
    """How many attempts of a pool the machine runs at once."""
    return max(0, machine.slots.get(pool, limits.NOOP_SLOTS if pool else machine.facts.cpus))


def _lacks_place(wants: Wants, machine: Machine) -> list[str]:
    needs, facts, lacks = wants.needs, machine.facts, list[str]()
    if (pause := pause_of(facts.tools.get(PAUSED))) is not None:
        lacks.append(pause.sentence)
    machines, systems, archs = listed(needs.machine), listed(needs.os), listed(needs.arch)
    if machines and machine.name not in machines and machine.id not in machines:
        lacks.append(f"is not {' or '.join(machines)}")
    if systems and facts.os not in {_SAME.get(s.lower(), s) for s in systems}:
        lacks.append(f"os {facts.os or 'unknown'}, not {' or '.join(systems)}")
    arch = _SAME.get(facts.arch.lower(), facts.arch)
    if archs and arch not in {_SAME.get(a.lower(), a) for a in archs}:
        lacks.append(f"arch {facts.arch or 'unknown'}, not {' or '.join(archs)}")
    lacks += [f"no label {label}" for label in listed(needs.label) if label not in facts.labels]
    lacks += [f"no repository {r}" for r in listed(needs.repo) if r not in facts.repositories]
    lacks += [f"no agent {agent}" for agent in listed(needs.agent) if agent not in facts.agents]
    return lacks


def _not_given(wants: Wants, facts: Facts, agent: str) -> str:
    """What of the phase an agent there is not given, in words; "" where it is given all."""
    for tool in wants.needs.tools or ():
        said = facts.tools.get(tool, "") if tool.startswith(MCP) else ""
        if said.startswith(EXCEPT) and agent in said.removeprefix(EXCEPT).split(", "):
            return f"is not given the MCP server {tool.removeprefix(MCP)} as it is driven there"
    return lack(wants.secrets, agent, facts.tools)


def cannot_enclose(said: str | None) -> str:
    """Why a machine that says this of its sandbox encloses nothing, also where it is asked to."""
    if said in {ENFORCED, UNENCLOSED}:
        return ""
    if said is None:
        return "its Muster is too old to say"
    return said.removeprefix(f"{UNENCLOSED}: ")


def _cannot_enclose(wants: Wants, facts: Facts) -> str:
    """Why the work must be enclosed and would not be there; "" where it is, or need not be.

    A machine of before there were sandboxes does as before what says nothing of one: whoever wants
    it enclosed on every machine says so.
    """
    said, opened = facts.tools.get(SANDBOX), wants.opened
    by_itself = wants.needs.sandbox is not None
    if said == ENFORCED or opened.is_off or set(wants.agents) == {NOOP}:
        return ""
    # Its owner has what says nothing run without, or nobody there knows better.
    plain = said is None or said.partition(":")[0] == UNENCLOSED
    if plain and not by_itself and opened == UNSAID:
        return ""
    if why := cannot_enclose(said):
        return f"cannot enclose: {why}"
    there = "its owner has work run without a sandbox there"
    return f"does not enclose by itself: {there}" if by_itself else ""


def _lacks_means(wants: Wants, facts: Facts) -> list[str]:
    """What it has too little of, and the tools that it has not."""
    lacks, needs = [], wants.needs
    cpus, memory = needs.cpu or 0, needs.memory_mib
    if cpus > facts.cpus:
        lacks.append(f"{facts.cpus} cpus, not {cpus}")
    if memory > facts.memory_mib:
        lacks.append(f"{facts.memory_mib} MiB memory, not {memory}")
    if (needs.gpu or 0) > len(facts.gpus):
        lacks.append(f"{len(facts.gpus)} gpus, not {needs.gpu}")
    heavy = cpus >= HEAVY_CPUS or memory >= HEAVY_MEMORY_MIB or needs.gpu or needs.power == "mains"
    if facts.power == "battery" and heavy:
        lacks.append("on battery, and the work is heavy")
    for tool, wanted in sorted((needs.tools or {}).items()):
        have = facts.tools.get(tool)
        if have is None:
            server = tool.removeprefix(MCP)
            lacks.append(f"no MCP server {server}" if server != tool else f"no {tool}")
        elif not in_range(have, wanted):
            found = version_of(have)
            number = ".".join(map(str, found)) if found else "of unknown version"
            lacks.append(f"{tool} {number}, not {wanted}")
    if wants.repo and "git" not in facts.tools:
        lacks.append("no git for the repository")
    return lacks
