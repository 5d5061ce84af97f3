"""`muster status`: this machine in one screen.

Rule: what a person acts on is counted for persons (who is away, what runs here, what is unread);
the counters of the parts are in the answer too, for programs and for `--verbose`.
"""

from typing import Annotated, Final

from msgspec import UNSET, Struct, UnsetType

from muster.node.services.mailbox import Mailbox
from muster.node.services.presence import presence
from muster.node.services.speakers import Speakers
from muster.node.tasks.owner import OwnerService
from muster.node.tasks.runs import RunService
from muster.node.tasks.worker import WorkerService
from muster.node.verb import Turns
from muster.task.fold import TASK
from muster.verbs.declaration import Call, Core, Nothing, Request, opt, verb
from muster.verbs.doubt import View, doubt
from muster.verbs.incident import Incident, listed
from muster.verbs.pause import Rest, rest_of

INCIDENTS_SHOWN_MAX: Final = 5


class Ask(Request, frozen=True):
    verbose: Annotated[
        bool, opt("also ids and the counters of each part", unsigned=True, short="v")
    ] = False


class Machines(Struct, frozen=True):
    """How many there are, to how many there is a link, who is away, who is behind whom, and who
    takes no work for now.
    """

    known: int
    linked: int
    away: list[str]
    through: dict[str, str]
    rest: list[str]


class Work(Struct, frozen=True):
    """A task that runs here."""

    task: str
    phase: str
    instance: str
    agent: str


class Log(Struct, frozen=True):
    streams: int
    entries: int
    own: int


class Revoked(Struct, frozen=True):
    t_ms: int
    reason: str


class Process(Struct, frozen=True):
    """The daemon as the system sees it; `daemon_log` is a file, or what reads its log.

    `visiting`: sshd began it for a machine that came through, and it ends after that one.
    """

    pid: int
    up_since_ms: int
    daemon_log: str
    visiting: bool


class Status(Struct, frozen=True):
    name: str
    machine: str
    fleet: str
    incarnation: str
    settled: bool
    doubt: View | None
    revoked: Revoked | None
    operators: int
    machines: Machines
    owner: dict[str, int]
    worker: dict[str, int]
    works: list[Work]
    runs: int
    log: Log
    unconfirmed: int
    unread: int
    incidents: list[Incident]
    exposed: int
    counters: dict[str, int]
    process: Process | UnsetType = UNSET
    rest: Rest | UnsetType = UNSET


@verb(
    "status",
    watches=(
        "task",
        "run",
        "attempt",
        "work",
        "message",
        "incident",
        "machine",
        "operator",
        "link",
    ),
    auth="local",
    group="The fleet",
    harmless=True,
)
def status(core: Core, call: Call, ask: Ask) -> Turns[Status]:
    """What this machine is doing, in one screen.

    muster status
    muster status --verbose --on build
    """
    yield from core.part(Mailbox).whole()
    sizes = [(s, core.log.size(s)) for s in core.log.streams()]
    mine = [n for s, n in sizes if s.machine == core.machine]
    open_incidents, _ = listed(core, INCIDENTS_SHOWN_MAX, waiting=True)
    worker = core.part(WorkerService).worker
    leased = [
        row
        for task in worker.running()
        for row in core.tables.rows(TASK, writer=worker.owner_of(task), task=task, state="leased")
    ]
    revoked, machines = core.roster.revoked.get(core.machine), core.roster.machines.items()
    links = ((record.name, core.link_to(machine)) for machine, record in machines)
    through = [(name, core.links[link].through) for name, link in links if link is not None]
    return Status(
        name=core.name,
        machine=core.machine,
        fleet=core.membership.fleet,
        incarnation=core.membership.incarnation,
        settled=core.settled,
        doubt=doubt(core, call, Nothing()),
        revoked=None if revoked is None else Revoked(revoked.issued_ms, revoked.reason),
        operators=len(core.roster.operators),
        machines=Machines(
            len(machines),
            len({link.peer for link in core.links.values() if link.peer}),
            sorted(r.name for machine, r in machines if presence(core, machine) == "away"),
            dict(sorted((name, core.membership.name_of(by)) for name, by in through if by)),
            sorted(r.name for machine, r in machines if rest_of(core.roster.facts.get(machine))),
        ),
        owner=core.part(OwnerService).owner.statistics(),
        worker=worker.statistics(),
        works=[
            Work(*(str(getattr(row, name)) for name in Work.__struct_fields__))
            for row in sorted(leased, key=lambda row: row.task)
            if worker.holds(row.task) == row.epoch
        ],
        runs=len(core.part(RunService).runs),
        log=Log(len(sizes), sum(n for _, n in sizes), sum(mine)),
        unconfirmed=core.sync.unconfirmed(),
        unread=core.part(Mailbox).count(Speakers(core)),
        incidents=open_incidents,
        exposed=exposed(core),
        counters=dict(sorted(core.counters.items())),
        process=Process(*(core.settings[name] for name in Process.__struct_fields__))
        if "pid" in core.settings
        else UNSET,
        rest=rest_of(core.roster.facts.get(core.machine)) or UNSET,
    )


def exposed(core: Core) -> int:
    """Our entries that no other machine has vouched for yet: here this machine alone is trusted."""
    exposed = 0
    for stream in core.log.streams():
        if stream.machine == core.machine and stream.incarnation == core.membership.incarnation:
            sizes = [c.size for c in core.log.cosigns(stream) if c.machine != core.machine]
            exposed += core.log.size(stream) - max(sizes, default=0)
    return exposed
