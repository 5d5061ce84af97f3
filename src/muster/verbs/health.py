"""`muster health`: whether a machine is well, for a person at a glance and for what watches it.

Rule 1: well is what needs nobody. Each reason why it is not is a sentence, and there is no other.
Rule 2: nothing is found out here: what is open as an incident is repeated, what is counted is read.
"""

from typing import Final

from msgspec import Struct

import muster
from muster.fleet.facts import Facts
from muster.log.stream import MachineId
from muster.node.host import disk
from muster.node.incarnations.doubt import Doubt
from muster.node.services.messages import held_size
from muster.node.services.presence import heard_ms_ago, presence
from muster.node.tasks.pauses import Pauses
from muster.node.tasks.worker import WorkerService
from muster.task.fold import TASK
from muster.task.route import ENFORCED, SANDBOX
from muster.verbs.client import Finding
from muster.verbs.declaration import Context, Core, Daemon, Nothing, Perform, verb
from muster.verbs.incident import Incident, listed
from muster.verbs.status import exposed

_INCIDENTS_MAX: Final = 20


class Clock(Struct, frozen=True):
    """How far the clock of the peer that differs most is from ours."""

    skew_max_ms: int


class Log(Struct, frozen=True):
    """Entries here, those of our own that no other machine vouched for, and what no table could
    take.
    """

    entries: int
    unwitnessed: int
    skipped: int


class Peer(Struct, frozen=True):
    """A machine; `lag` is how many entries of ours it has not receipted, `seen_s` -1 for never."""

    name: str
    state: str
    channel: str
    lag: int
    seen_s: int


class Tasks(Struct, frozen=True):
    """Of those that this machine owns what waits, and for how long the oldest of them; what runs
    here, and what of that was told that it is stuck.
    """

    queued: int
    oldest_s: int
    running: int
    stalled: int


class Agent(Struct, frozen=True):
    """An attempt of an agent that runs here; `state` is `works`, `quiet` or `told`."""

    task: str
    name: str
    state: str
    quiet_s: int
    tokens: int


class Sandbox(Struct, frozen=True):
    """What encloses attempts here, whether by itself, and else why not."""

    kind: str
    enforced: bool
    why: str


class Health(Struct, frozen=True):
    """`ok` is that there are no `reasons`; `paused` says that it takes no work, which is well."""

    ok: bool
    reasons: list[str]
    machine: str
    incarnation: str
    settled: bool
    paused: str
    uptime_s: int
    version: str
    disk_free_mib: int
    clock: Clock
    log: Log
    peers: list[Peer]
    tasks: Tasks
    agents: list[Agent]
    incidents: list[Incident]
    sandbox: Sandbox
    counters: dict[str, int]


@verb("health", auth="local", runs="client", group="What is true", harmless=True, on="many")
def health(context: Context, ask: Nothing) -> Finding:
    """Say whether this machine is well, and each reason why it is not.

    Exit code 1 where it is not.

        muster health
        muster health --on all
        muster health --json
    """
    value = context.ask("health.look", {}, on=context.on)
    return Finding(value, 0 if value["ok"] else 1)


@verb("health.look", auth="local", runs="async", daily=True)
async def look(daemon: Daemon, call: Perform, ask: Nothing) -> Health:
    """How this machine is."""
    core = daemon.core
    open_incidents, _ = listed(core, _INCIDENTS_MAX, waiting=True)
    own = [each for each in open_incidents if core.name in each.seen_by]
    agents = [
        Agent(each.task, each.agent, watch.state, round(watch.quiet_s), watch.tokens)
        for each in daemon.effects.attempts.values()
        if (watch := each.watch.detector) is not None
    ]
    now_ms, rest = core.now.wall_ms, core.part(Pauses).now
    queued = core.tables.rows(TASK, writer=core.machine, state="queued")
    oldest_ms = min((row.opened_ms for row in queued), default=now_ms)
    reasons = [*_of_past(core), *(f"{each.key}: {each.title}" for each in own)]
    running = len(core.part(WorkerService).worker.running())
    return Health(
        ok=not reasons,
        reasons=reasons,
        machine=core.name,
        incarnation=core.membership.incarnation,
        settled=core.settled,
        paused=rest.sentence if rest else "",
        uptime_s=max(0, now_ms - int(str(core.settings.get("up_since_ms", now_ms)))) // 1000,
        version=muster.__version__,
        disk_free_mib=disk.free_bytes(daemon.home.path) >> 20,
        clock=Clock(max((abs(e.skew_ms) for e in core.links.values() if e.peer), default=0)),
        log=_log(core),
        peers=_peers(core),
        tasks=Tasks(
            len(queued),
            max(0, now_ms - oldest_ms) // 1000,
            running,
            sum(each.state == "told" for each in agents),
        ),
        agents=agents,
        incidents=open_incidents,
        sandbox=_sandbox(core),
        counters=dict(sorted(core.counters.items())),
    )


def _of_past(core: Core) -> list[str]:
    """What is wrong with what it is: nothing that it does counts, or it may do nothing yet."""
    found = []
    if core.machine in core.roster.revoked:
        found.append("it was revoked: nothing that it does counts")
    if not core.settled:
        found.append("it asks the others where its own log ended, and has heard nobody yet")
    if core.part(Doubt).waits:
        found.append("it does not know all of its own past, and obeys no order until it does")
    return found


def _log(core: Core) -> Log:
    entries = sum(core.log.size(stream) for stream in core.log.streams())
    skipped = int(str(core.tables.query("select count(*) from skipped")[0][0]))
    return Log(entries, exposed(core), skipped)


def _peers(core: Core) -> list[Peer]:
    ours = [
        (stream, core.log.size(stream), held_size(core, stream))
        for stream in core.log.streams()
        if (stream.machine, stream.incarnation) == (core.machine, core.membership.incarnation)
    ]
    found = []
    for machine, record in core.roster.machines.items():
        if machine == core.machine:
            continue
        number = core.link_to(machine)
        heard_ms = 0 if number is not None else heard_ms_ago(core, MachineId(machine))
        lag = sum(
            max(0, size - held(machine))
            for stream, size, held in ours
            if core.membership.may_hold(stream, machine)
        )
        channel = "" if number is None else core.links[number].channel
        seen_s = -1 if heard_ms is None else heard_ms // 1000
        found.append(Peer(record.name, presence(core, machine), channel, lag, seen_s))
    return sorted(found, key=lambda each: each.name)


def _sandbox(core: Core) -> Sandbox:
    said = core.roster.facts.get(core.machine, Facts("", "")).tools.get(SANDBOX, "")
    return Sandbox("bubblewrap" if said == ENFORCED else "", said == ENFORCED,
                   "" if said == ENFORCED else said)  # fmt: skip
