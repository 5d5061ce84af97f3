"""Verbs that show tasks: which there are, what each yielded, and why it went where it went."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from muster.errors import Conflict, Malformed, NotFound, Refused
from muster.fleet.presence import Presence
from muster.log import canon
from muster.log.entry import Entry, EntryId
from muster.log.fold import Skip, body_as
from muster.node.call import Call
from muster.node.core import Core
from muster.task import kinds
from muster.task.state import LIVE
from muster.task.unit import duration_ms
from muster.verbs import past
from muster.verbs.fleet import presence

SHOWN_MAX = 1000
_AGO: Final = re.compile(r"([0-9]{1,6}[dhms])+")


def find_task(core: Core, text: str, owner: str = "") -> dict[str, Any]:
    """The newest row of the one task whose id begins like this; `owner`'s own before any other."""
    rows = core.store.query(
        "select distinct task from task where task >= ? and task < ? limit 2", (text, text + "g")
    )
    if not text or not rows:
        raise NotFound(f"no task begins with {text[:40]!r}; `muster tasks --all` lists them")
    if len(rows) > 1:
        raise Refused(f"more than one task begins with {text[:40]!r}; give more of its id")
    found = core.store.rows("task", task=str(rows[0][0]))

    def order(row: dict[str, Any]) -> tuple[bool, int, int]:
        own = str(row["stream"]).partition("/")[0] == owner
        return own, int(str(row["opened_ms"])), int(str(row["changed_ms"]))

    return max(found, key=order)


def tasks(core: Core, call: Call) -> Any:
    """Tasks, the live ones first; settled ones with `all`."""
    run = str(call.args.get("run") or "")
    if call.args.get("at"):
        at_ms = _moment(str(call.args["at"]), core.now.wall_ms)
        past = core.store.as_of("task", time_ms=at_ms)
        rows = sorted(past, key=lambda r: int(str(r["opened_ms"])), reverse=True)[:SHOWN_MAX]
    else:
        where = {"run": run} if run else {}
        rows = core.store.rows("task", order=("-opened_ms",), limit=SHOWN_MAX, **where)
    return [
        task_view(core, row)
        for row in newest(rows, "task")
        if (not run or row["run"] == run) and (call.args.get("all") or run or row["state"] in LIVE)
    ]


def _moment(text: str, now_ms: int) -> int:
    """`10m` (ago), or a date and time such as `2026-11-20T23:00` (UTC without a zone)."""
    if _AGO.fullmatch(text):
        return now_ms - duration_ms(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise Malformed(f"{text[:40]!r} is no time; write 10m (ago) or 2026-11-20T23:00") from error
    zoned = found if found.tzinfo else found.replace(tzinfo=UTC)
    return int(zoned.timestamp() * 1000)


def newest(rows: Iterable[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Of each task or run the row that counts.

    An owner that began anew opened it again in its new stream; the old row stays as it was.
    """
    found: dict[tuple[str, object], dict[str, Any]] = {}
    for row in rows:
        key = (str(row["stream"]).partition("/")[0], row[name])
        known = found.get(key)
        if known is None or int(str(row["changed_ms"])) >= int(str(known["changed_ms"])):
            found[key] = row
    return list(found.values())


def task_view(core: Core, row: Mapping[str, Any]) -> dict[str, Any]:
    """A task's row as a person reads it."""
    machine = str(row["machine"])
    return {
        "task": row["task"],
        "state": row["state"],
        "run": row["run"],
        "phase": row["phase"],
        "instance": row["instance"],
        "machine": core.standing.name_of(machine) if machine else "",
        "agent": row["agent"],
        "epoch": [row["epoch_order"], row["epoch_count"]],
        "tries": row["tries"],
        "losses": row["losses"],
        "reason": row["reason"],
        "summary": row["summary"],
        "commit": row["commit_id"],
        "owner": core.standing.name_of(str(row["stream"]).partition("/")[0]),
        "opened_ms": row["opened_ms"],
        "changed_ms": row["changed_ms"],
    }


def result(core: Core, call: Call) -> Any:
    """What a settled task yielded: its values, its commit, what it cost."""
    row = find_task(core, str(call.args.get("task", "")))
    entry = core.store.entry(EntryId(_blob(row["settled"]))) if row["settled"] else None
    if entry is None or entry.header.kind != "task.settle":
        raise Conflict(f"task {str(row['task'])[:12]} is {row['state']}: it has no result")
    body = body_as(entry, kinds.TaskSettle)
    return {
        **task_view(core, row),
        "values": body.values,
        "artefacts": list(body.artefacts),
        "usage": body.usage,
    }


def why(core: Core, call: Call) -> Any:
    """Every candidate and its reason: of a live task as it is now, and as it was when assigned."""
    row = find_task(core, str(call.args.get("task", "")))
    task = str(row["task"])
    answer: dict[str, Any] = {"task": task_view(core, row), "decisions": _decisions(core, task)}
    if row["state"] == "waiting":
        answer["question"] = past.question(core, _blob(row["opened"]))
    try:
        found = core.work.owning.owner.why(task)
    except NotFound:
        return answer
    answer["now"] = {
        "state": found.state,
        "stage": found.stage,
        "reason": found.reason,
        "candidates": [*(_verdict(core, v) for v in found.verdicts), *_away(core, found.verdicts)],
    }
    return answer


def _away(core: Core, verdicts: Iterable[Any]) -> list[dict[str, Any]]:
    """Machines that nobody asks now because they are away; their time may come."""
    asked = {verdict.machine for verdict in verdicts}
    return [
        {"machine": record.name, "fits": False, "score": 0, "reasons": ["away"]}
        for machine, record in sorted(core.roster.machines.items())
        if machine not in asked and presence(core, machine) == Presence.AWAY.value
    ]


def _verdict(core: Core, verdict: Any) -> dict[str, Any]:
    return {
        "machine": core.standing.name_of(verdict.machine),
        "fits": verdict.fits,
        "score": verdict.score,
        "reasons": list(verdict.reasons),
    }


def _decisions(core: Core, task: str) -> list[dict[str, Any]]:
    """Each assignment of a task, with the candidates as they were, and why it came to nothing."""
    found, left = [], past.left(core, task)
    for entry in history(core, task):
        if entry.header.kind != "task.assign":
            continue
        try:
            body = body_as(entry, kinds.TaskAssign)
        except Skip:
            continue
        found.append(
            {
                "t_ms": entry.header.t[0],
                "machine": core.standing.name_of(body.machine),
                "agent": body.agent,
                "epoch": list(body.epoch),
                "left": left.get(body.epoch),
                "candidates": [
                    {
                        "machine": core.standing.name_of(machine),
                        "fits": fits,
                        "score": score,
                        "reasons": [reason] if reason else [],
                    }
                    for machine, fits, score, reason in body.candidates
                ],
            }
        )
    return found


def history(core: Core, task: str) -> list[Entry]:
    """Every entry about a task that this machine holds, oldest first."""
    rows = core.store.query(
        "select leaf_id from (select opened leaf_id from task where task = ?1"
        " union select assigned from task where task = ?1"
        " union select settled from task where task = ?1"
        " union select started from attempt where task = ?1"
        " union select ended from attempt where task = ?1"
        " union select assigned from task_hist where task = ?1) where length(leaf_id) = 32",
        (task,),
    )
    found = [core.store.entry(EntryId(_blob(row[0]))) for row in rows]
    entries = {entry.id: entry for entry in found if entry is not None}
    return sorted(entries.values(), key=lambda e: (e.header.t, e.id))


def explain(core: Core, call: Call) -> Any:
    """The decision, reconstructed: each entry about a task, with what it cites, to its order."""
    row = find_task(core, str(call.args.get("task", "")))
    seen: dict[bytes, Entry] = {}
    todo = history(core, str(row["task"]))
    while todo:
        entry = todo.pop()
        if entry.id in seen or len(seen) > SHOWN_MAX:
            continue
        seen[entry.id] = entry
        todo += [e for e in (core.store.entry(c) for c in entry.causes) if e is not None]
    ordered = sorted(seen.values(), key=lambda e: (e.header.t, e.id))
    return {"task": task_view(core, row), "entries": [_entry_view(core, e) for e in ordered]}


def _entry_view(core: Core, entry: Entry) -> dict[str, Any]:
    body: Any = None
    if entry.body is not None:
        body = canon.decode(entry.body, "body", size_max=1 << 20)
    held = [
        core.standing.name_of(c.machine)
        for c in core.store.cosigns(entry.stream)
        if c.strength == "held" and c.size > entry.header.seq
    ]
    return {
        "id": entry.id.hex(),
        "kind": entry.header.kind,
        "machine": core.standing.name_of(entry.header.author),
        "actor": entry.header.actor,
        "t_ms": entry.header.t[0],
        "seq": entry.header.seq,
        "causes": list(entry.header.cause),
        "body": body,
        "held_by": sorted(held),
    }


def _blob(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""
