"""Verbs that show runs: all of them, one with its graph, and one as it goes."""

from collections.abc import Mapping
from typing import Any, Final

from muster.errors import Malformed, MusterError
from muster.log.entry import EntryId
from muster.log.fold import Skip, body_as
from muster.log.stream import MachineId
from muster.node.call import Call
from muster.node.core import Core
from muster.node.following import WATCHED, waiting
from muster.node.ownership import writer_of
from muster.node.presence import presence
from muster.node.verb import LATER
from muster.task import kinds
from muster.task.graph import Fact, PhaseProgress, Slot, plan
from muster.task.spec import Spec, read
from muster.verbs.find import claims, find_run
from muster.verbs.listing import LIMIT_MAX, say_cut, shown_max
from muster.verbs.tasks import SHOWN_MAX, task_view, waits_for

# Each is judged by the router against every machine; what keeps one keeps the others.
_WAITING_MAX: Final = 20


def runs(core: Core, call: Call) -> Any:
    """Runs, or one run with its phases, its tasks and why they stand where they stand."""
    wanted = str(call.args.get("run") or "")
    if not wanted:
        limit = shown_max(call, SHOWN_MAX)
        found = core.work.ownership.listing("run", limit)
        if found.cut:
            say_cut(call, limit, "runs", "--limit shows more")
        return [_run_view(core, row) for row in found.rows]
    held = find_run(core, wanted)
    view = _run_view(core, held.row)
    view["claims"] = claims(core, "run", str(held.row["run"]))
    view["tasks"] = _tasks(core, str(held.row["run"]))
    for task in [each for each in view["tasks"] if each["state"] == "queued"][:_WAITING_MAX]:
        task["waits"] = waits_for(core, str(task["task"]))
    document = _spec(core, held.row)
    if document is not None:
        view["phases"] = {
            name: {"after": list(p.prerequisites), "agent": list(p.agents), "human": p.by_human}
            for name, p in document.phases.items()
        }
        view["progress"] = {
            n: {"state": p.state, "reason": p.reason}
            for n, p in _progress(core, view, document).items()
        }
    return view


def _tasks(core: Core, run: str) -> list[dict[str, Any]]:
    """All tasks of a run, in the order in which they were opened."""
    found = core.work.ownership.listing("task", LIMIT_MAX, run=run).rows
    return [task_view(core, row) for row in reversed(found)]


def _spec(core: Core, row: Mapping[str, Any]) -> Spec | None:
    """What the run was ordered to do; None where that cannot be read here."""
    entry = core.store.entry(EntryId(_blob(row["opened"])))
    try:
        return None if entry is None else read(body_as(entry, kinds.RunOpen).spec.encode()).spec
    except (MusterError, Skip):
        return None


def _progress(core: Core, run: Mapping[str, Any], spec: Spec) -> Mapping[str, PhaseProgress]:
    """Where each phase stands and why; of a settled run, by what its tasks came to."""
    if run["run"] in core.work.running.runs:
        return core.work.running.progress(str(run["run"]))
    facts = dict[Slot, Fact]()
    matches = dict[str, list[str]]()
    for number, task in enumerate(run["tasks"], 1):
        slot = Slot(str(task["phase"]), str(task["instance"]))
        facts[slot] = Fact(task["state"], number, str(task["machine"]))
        matches.setdefault(slot.phase, []).append(slot.instance)
    cancelled = str(run["summary"]) if run["state"] == "cancelled" else ""
    try:
        found = plan(spec, facts, matches, cancelled, barred=_barred(run, spec)).phases
    except Malformed:
        return {}
    if run["state"] == "open":
        return found
    # It is over: nothing will begin any more, whatever could have.
    over = f"the run is {run['state']}" + (f": {run['summary']}" if run["summary"] else "")
    return {
        name: PhaseProgress("skipped", over) if each.state in ("waiting", "ready") else each
        for name, each in found.items()
    }


def _barred(run: Mapping[str, Any], spec: Spec) -> dict[str, str]:
    """The phase that could not be opened, as the end of its run says: it has no task that tells."""
    opened = {str(task["phase"]) for task in run["tasks"]}
    for name in spec.phases.keys() - opened:
        begins = f"phase {name} failed: "
        if str(run["summary"]).startswith(begins):
            return {name: str(run["summary"]).removeprefix(begins)}
    return {}


def _run_view(core: Core, row: Mapping[str, Any]) -> dict[str, Any]:
    owner = writer_of(row)
    view = {
        "run": row["run"],
        "name": row["name"],
        "state": row["state"],
        "repo": row["repo"],
        "summary": row["summary"],
        "opened_ms": row["opened_ms"],
        "changed_ms": row["changed_ms"],
        "owner": core.standing.name_of(owner),
    }
    if row["state"] == "open" and owner != core.machine:
        away = presence(core, MachineId(owner)) == "away"
        # Only its owner can go on with a run; nobody adopts it.
        view |= {"waits_for": view["owner"]} if away else {}
    return view


def watch(core: Core, call: Call) -> Any:
    """Changes of a run as they happen, until it is settled."""
    held = find_run(core, str(call.args["run"]))
    run, state = str(held.row["run"]), str(held.row["state"])
    for view in _tasks(core, run):
        call.more({k: view[k] for k in WATCHED})
    if run not in core.work.running.runs:
        return {"run": run, "settled": state, "reason": held.row["summary"]}

    open_run = core.work.running.runs[run]
    for phase, reason in core.work.running.looking.waiting(open_run).items():
        call.more(waiting(phase, reason, core.now.wall_ms))

    def tell(change: dict[str, Any]) -> None:
        if "settled" in change:
            core.router.open.pop((call.link, call.channel), None)
            call.end(change)
        else:
            call.more(change)

    core.router.streaming(call, core.work.running.following.follow(run, tell))
    return LATER


def _blob(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""
