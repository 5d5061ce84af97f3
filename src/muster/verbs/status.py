"""`muster status`: this machine in one screen.

Rule: what a person acts on is counted for persons (who is away, what runs here, what is unread);
the counters of the parts are in the answer too, for programs and for `--verbose`.
"""

from typing import Any, Final

from muster.node.call import Call
from muster.node.core import Core
from muster.node.presence import presence
from muster.node.speaking import Speaking
from muster.verbs import doubt
from muster.verbs.incident import listed

INCIDENTS_SHOWN_MAX: Final = 5


def status(core: Core, call: Call) -> Any:
    """Who this machine is, who is here, what it does, what is wrong."""
    sizes = [(s, core.store.size(s)) for s in core.store.streams()]
    mine = [n for s, n in sizes if s.machine == core.machine]
    open_incidents, _ = listed(core, INCIDENTS_SHOWN_MAX, only_open=True)
    return {
        "name": core.name,
        "machine": core.machine,
        "fleet": core.standing.fleet,
        "incarnation": core.standing.incarnation,
        "settled": core.members.settled,
        "doubt": doubt.view(core, call),
        "revoked": _revoked(core),
        "operators": len(core.roster.operators),
        "machines": {
            "known": len(core.roster.machines),
            "linked": len({link.peer for link in core.links.values() if link.peer}),
            "away": _away(core),
            "through": _through(core),
        },
        "owner": core.work.owning.owner.statistics(),
        "worker": core.work.working.worker.statistics(),
        "works": _works(core),
        "runs": len(core.work.running.runs),
        "log": {"streams": len(sizes), "entries": sum(n for _, n in sizes), "own": sum(mine)},
        "unconfirmed": core.sync.unconfirmed(),
        "unread": core.mailbox.count(Speaking(core)),
        "incidents": open_incidents,
        "exposed": exposed(core),
        "counters": dict(sorted(core.counters.items())),
    }


def _away(core: Core) -> list[str]:
    """The names of the machines that nobody here has a link to."""
    return sorted(
        record.name
        for machine, record in core.roster.machines.items()
        if presence(core, machine) == "away"
    )


def _through(core: Core) -> dict[str, str]:
    """The machines that are only reached through another one, and which that is."""
    found = {}
    for machine, record in core.roster.machines.items():
        number = core.link_to(machine)
        if number is not None and (through := core.links[number].through):
            found[record.name] = core.standing.name_of(through)
    return dict(sorted(found.items()))


def _works(core: Core) -> list[dict[str, Any]]:
    """The tasks that run on this machine now."""
    worker = core.work.working.worker
    found = [
        row
        for task in worker.running()
        for row in core.store.rows("task", writer=worker.owner_of(task), task=task, state="leased")
    ]
    return [
        {"task": row["task"], "phase": row["phase"], "instance": row["instance"],
         "agent": row["agent"]}
        for row in sorted(found, key=lambda row: str(row["task"]))
        if worker.holds(str(row["task"])) == (row["epoch_order"], row["epoch_count"])
    ]  # fmt: skip


def _revoked(core: Core) -> dict[str, Any] | None:
    """When and why this very machine was shut out of the fleet."""
    found = core.roster.revoked.get(core.machine)
    return None if found is None else {"t_ms": found.issued_ms, "reason": found.reason}


def exposed(core: Core) -> int:
    """Our entries that no other machine has vouched for yet: here this machine alone is trusted."""
    exposed = 0
    for stream in core.store.streams():
        if stream.machine == core.machine and stream.incarnation == core.standing.incarnation:
            sizes = [c.size for c in core.store.cosigns(stream) if c.machine != core.machine]
            exposed += core.store.size(stream) - max(sizes, default=0)
    return exposed
