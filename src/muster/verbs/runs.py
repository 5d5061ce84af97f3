"""Verbs that show runs: all of them, one with its graph, and one as it goes."""

from collections.abc import Mapping
from typing import Any

from muster.errors import NotFound
from muster.log.entry import EntryId
from muster.log.fold import body_as
from muster.node.call import LATER, Call
from muster.node.core import Core
from muster.task import kinds
from muster.task.graph import Fact, PhaseProgress, Slot, plan
from muster.task.spec import Spec, read
from muster.verbs.tasks import SHOWN_MAX, newest, task_view


def runs(core: Core, call: Call) -> Any:
    """Runs, or one run with its phases, its tasks and why they stand where they stand."""
    wanted = str(call.args.get("run") or "")
    every = newest(core.store.rows("run", order=("-opened_ms",), limit=SHOWN_MAX), "run")
    rows = [r for r in every if str(r["run"]).startswith(wanted)]
    if not wanted:
        return [_run_view(core, row) for row in rows]
    if not rows:
        raise NotFound(f"no run begins with {wanted[:40]!r}; `muster runs` lists them")
    view = _run_view(core, rows[0])
    entry = core.store.entry(EntryId(_blob(rows[0]["opened"])))
    body = body_as(entry, kinds.RunOpen) if entry is not None else None
    view["tasks"] = [
        task_view(core, r)
        for r in newest(core.store.rows("task", order=("opened_ms",), run=rows[0]["run"]), "task")
    ]
    if body is not None:
        document = read(body.spec.encode())
        view["phases"] = {
            name: {"after": list(p.prerequisites), "agent": list(p.agents), "human": p.by_human}
            for name, p in document.spec.phases.items()
        }
        view["progress"] = {
            n: {"state": p.state, "reason": p.reason}
            for n, p in _progress(core, view, document.spec).items()
        }
    return view


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
    return plan(spec, facts, matches, cancelled).phases


def _run_view(core: Core, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "run": row["run"],
        "name": row["name"],
        "state": row["state"],
        "repo": row["repo"],
        "summary": row["summary"],
        "opened_ms": row["opened_ms"],
        "changed_ms": row["changed_ms"],
        "owner": core.standing.name_of(str(row["stream"]).partition("/")[0]),
    }


def watch(core: Core, call: Call) -> Any:
    """Changes of a run as they happen, until it is settled."""
    wanted = str(call.args["run"])
    rows = [r for r in newest(core.store.rows("run"), "run") if str(r["run"]).startswith(wanted)]
    if not rows:
        raise NotFound(f"no run begins with {wanted[:40]!r} here")
    run, state = str(rows[0]["run"]), str(rows[0]["state"])
    for row in newest(core.store.rows("task", order=("opened_ms",), run=run), "task"):
        view = task_view(core, row)
        call.more(
            {
                k: view[k]
                for k in ("phase", "instance", "task", "state", "machine", "summary", "commit")
            }
        )
    if run not in core.work.running.runs:
        return {"run": run, "settled": state, "reason": rows[0]["summary"]}
    watchers = core.work.running.watchers.setdefault(run, [])

    def tell(change: dict[str, Any]) -> None:
        if "settled" in change:
            core.router.open.pop((call.link, call.channel), None)
            call.end(change)
        else:
            call.more(change)

    def stop() -> None:
        if tell in watchers:
            watchers.remove(tell)

    watchers.append(tell)
    core.router.streaming(call, stop)
    return LATER


def _blob(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""
