"""Verbs about the AI agents of the fleet: which there are, and what keeps one from working.

Rule: a row says what is so and, where something is to be done, the one command that does it.
"""

import asyncio
import functools
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Final

from msgspec import Struct, convert
from msgspec.structs import replace

from muster.agent import catalogue
from muster.agent.catalogue import PLAIN, AgentEntry
from muster.agent.discovery import Discovery
from muster.fleet.facts import LOGGED_OUT, Facts
from muster.node.host.facts import logins_of
from muster.node.host.home import Home
from muster.node.host.person_path import person_path
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.services.presence import presence
from muster.node.tasks.trust import Trust
from muster.task.advice import how_to_log_in
from muster.task.route import Advice, Verdict
from muster.task.trust import NOTHING_KNOWN
from muster.verbs.declaration import Core, Daemon, Perform, Request, pos, verb

READY: Final = "ready"
LOGIN: Final = "not logged in"
SILENT: Final = "does not answer"
AWAY: Final = "away"
ABSENT: Final = "not found"
# For all agents of a machine together, where a person waits for them.
LOOK_S_MAX: Final = 20.0


class Agents(Request, frozen=True):
    machine: Annotated[str, pos("only those of this machine", kind="machine")] = ""


class Agent(Struct, frozen=True, kw_only=True):
    """An agent of a machine, or one that is known and not there (`machine` is empty where no
    machine has it). `driver` is how it is driven; `distribution` and `tested` are where the
    catalogue here has it from, in which version; `login` as facts say it, "" where nobody knows.
    `passed` and `failed` count its newest checked results everywhere, `streak` those that passed
    in a row; `trust` says by what this machine decides.
    """

    agent: str
    title: str
    machine: str
    state: str
    version: str = ""
    driver: str = ""
    distribution: str = ""
    tested: str = ""
    login: str = ""
    mend: str = ""
    passed: int = 0
    failed: int = 0
    streak: int = 0
    trust: str = ""


@verb("agents", auth="local", runs="async", group="The fleet", harmless=True)
async def agents(daemon: Daemon, call: Perform, ask: Agents) -> list[Agent]:
    """List the AI agents of the fleet, and what keeps one from working.

    Those of the machine where it is typed are looked at anew. An agent that no machine has is
    listed with the command that installs it. What an agent did well is counted from checked
    results: a check that passed or failed, a review that accepted or rejected.

        muster agents
        muster agents studio
    """
    core, known = daemon.core, daemon.effects.agents
    wanted = core.roster.find(ask.machine).machine if ask.machine else None
    own = await daemon.effects.facts(anew=True)
    daemon.post(FactsChanged(own))
    rows: list[Agent] = []
    trust = core.part(Trust)
    known_of = {**core.roster.facts, core.machine: convert(own, Facts)}
    standings = await trust.everywhere([(m, a) for m, f in known_of.items() for a in f.agents])
    for machine in sorted(core.roster.machines, key=core.membership.name_of):
        facts = convert(own, Facts) if machine == core.machine else core.roster.facts.get(machine)
        if facts is not None and wanted in (None, machine):
            away = presence(core, machine) == "away"
            silent = daemon.effects.discovery.silent if machine == core.machine else ()
            name = core.membership.name_of(machine)
            for row in rows_of(name, facts, known, away=away, silent=silent):
                seen = standings.get((machine, row.agent), NOTHING_KNOWN)
                counts = dict(zip(("passed", "failed", "streak"), seen, strict=False))
                rows.append(replace(row, **counts, trust=str(trust.of(machine, row.agent))))
    where = core.membership.name_of(wanted) if wanted else ""
    return rows + list(absent(rows, known, where))


def rows_of(
    machine: str,
    facts: Facts,
    known: Mapping[str, AgentEntry],
    *,
    away: bool = False,
    silent: Container[str] = (),
) -> Iterator[Agent]:
    """The agents that a machine says it has, and which of them do not answer; what runs commands
    is none.
    """
    for name, version in sorted(facts.agents.items()):
        if name in PLAIN:
            continue
        entry, login = known.get(name), facts.logins.get(name, "")
        out = login == LOGGED_OUT
        state = AWAY if away else SILENT if name in silent else LOGIN if out else READY
        mend = entry.login if entry and out else ""
        if state == SILENT and entry:
            mend = f"`{' '.join(entry.version_probe)}` in a terminal shows what it waits for"
        yield Agent(
            agent=name,
            title=entry.title if entry else name,
            machine=machine,
            state=state,
            version=version,
            driver=facts.drivers.get(name, ""),
            distribution=entry.comes_from if entry else "",
            tested=entry.tested if entry else "",
            login=login,
            mend=mend,
        )


def absent(
    rows: Iterable[Agent], known: Mapping[str, AgentEntry], machine: str = ""
) -> Iterator[Agent]:
    """The known agents that none of these rows has."""
    here = {row.agent for row in rows}
    for name, entry in sorted(known.items()):
        if name not in here and not entry.is_plain:
            yield Agent(
                agent=name,
                title=entry.title,
                machine=machine,
                state=ABSENT,
                distribution=entry.comes_from,
                tested=entry.tested,
                mend=entry.install or entry.by_hand,
            )


def here(home: Home, note: Callable[[str], None]) -> list[Agent]:
    """The agents of this machine as its daemon would find them, and the known others.

    In bounded time; `note` hears who is asked. Raises: Broken where a file of agents, agents.env or
    config.toml is of no use.
    """
    known = catalogue.load(home.path)
    config, file = home.config(), home.agent_variables()

    async def look() -> tuple[Facts, frozenset[str]]:
        until_s = asyncio.get_running_loop().time() + LOOK_S_MAX
        path = await person_path(config.path, os.environ)
        env = {**os.environ, "PATH": path, **file}
        programs = [each.program for each in known.values() if not each.is_plain]
        if asked := [each for each in programs if catalogue.which(each, env["PATH"])]:
            note(f"asking {', '.join(asked)}: each has {LOOK_S_MAX:g} s to answer")
        discovery = Discovery(known, config.headless, until_s)
        # At once: one that hangs must not use up the time in which others say their login.
        found, states = await asyncio.gather(
            discovery.found(env), discovery.logins(list(known), env)
        )
        logins = logins_of({name: state for name, state in states.items() if name in found})
        versions = {name: each.version for name, each in found.items()}
        drivers = {name: each.driver for name, each in found.items()}
        facts = Facts("", "", agents=versions, logins=logins, drivers=drivers)
        return facts, discovery.silent

    facts, silent = asyncio.run(look())
    rows = list(rows_of("", facts, known, silent=silent))
    return [*rows, *absent(rows, known)]


@functools.cache
def advice() -> dict[str, Advice]:
    """What a person does where a known agent is absent, or has no account."""
    entries = catalogue.load().items()
    return {name: Advice(e.install, e.login, e.by_hand) for name, e in entries}


def awaited_login(core: Core, verdicts: Sequence[Verdict]) -> str:
    """Whose login is all that a task waits for, and what a person does there; "" where another
    machine fits, or more is missing.
    """
    if any(verdict.fits for verdict in verdicts):
        return ""
    named, known = core.membership.name_of, advice()
    found = sorted((v.login, named(v.machine)) for v in verdicts if v.login)
    said = [f"{agent} on {where}{how_to_log_in(known, agent)}" for agent, where in found]
    return f"only a login is missing: {'; '.join(said)}" if said else ""
