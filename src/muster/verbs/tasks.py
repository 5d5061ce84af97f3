"""Verbs that show tasks: which there are, what each yielded, and why it went where it went."""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

from muster.errors import Conflict, Malformed, NotFound
from muster.fleet.roster import Roster
from muster.log import canon
from muster.log.entry import Entry, EntryId
from muster.log.fold import Skip, body_as
from muster.node.actor import said
from muster.node.call import Call
from muster.node.core import Core
from muster.node.ownership import Held, Listing, newest, writer_of
from muster.node.presence import presence
from muster.task import kinds
from muster.task.state import LIVE
from muster.task.unit import duration_ms
from muster.verbs import past
from muster.verbs.find import claims, find_run, find_task
from muster.verbs.listing import Room, say_cut, shown_max

SHOWN_MAX: Final = 1_000
# A handful of machines and people; what else is cited is shown by its digits.
NAMES_MAX: Final = 1_000
_AGO: Final = re.compile(r"([0-9]{1,6}[dhms])+")


def tasks(core: Core, call: Call) -> Any:
    """Tasks, the live ones first; settled ones with `all`."""
    run, limit = str(call.args.get("run") or ""), shown_max(call, SHOWN_MAX)
    where = {"run": find_run(core, run).row["run"]} if run else {}
    every = bool(call.args.get("all") or run)
    if call.args.get("at"):
        found = _then(core, _moment(str(call.args["at"]), core.now.wall_ms), every, where, limit)
    else:
        found = core.work.ownership.listing("task", limit, () if every else LIVE, **where)
    if found.cut:
        say_cut(call, limit, "tasks", "--limit shows more, --run only those of one run")
    return [task_view(core, row) for row in found.rows]


def _then(core: Core, at_ms: int, every: bool, where: Mapping[str, object], limit: int) -> Listing:
    """The tasks as this machine knew them at a moment."""
    past = newest(core.store.as_of("task", time_ms=at_ms), "task")
    past.sort(key=lambda r: int(str(r["opened_ms"])), reverse=True)
    found: list[dict[str, Any]] = []
    for row in past:
        if (every or row["state"] in LIVE) and row["run"] == where.get("run", row["run"]):
            if core.work.ownership.owner("task", str(row["task"])) != writer_of(row):
                continue
            if len(found) == limit:
                return Listing(found, True)
            found.append(row)
    return Listing(found, False)


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
        "owner": core.standing.name_of(writer_of(row)),
        "opened_ms": row["opened_ms"],
        "changed_ms": row["changed_ms"],
    }


def result(core: Core, call: Call) -> Any:
    """What a settled task yielded: its values, its commit, what it cost."""
    row = find_task(core, str(call.args.get("task", ""))).row
    body = settlement(core, row)
    if body is None:
        raise Conflict(f"task {str(row['task'])[:12]} is {row['state']}: it has no result")
    return {
        **task_view(core, row),
        "values": body.values,
        "artefacts": list(body.artefacts),
        "usage": body.usage,
    }


def settlement(core: Core, row: Mapping[str, Any]) -> kinds.TaskSettle | None:
    """What its owner wrote when the task ended; None without it, or where it cannot be read."""
    entry = core.store.entry(EntryId(_blob(row["settled"]))) if row["settled"] else None
    if entry is None or entry.header.kind != "task.settle":
        return None
    try:
        return body_as(entry, kinds.TaskSettle)
    except Skip:
        return None


def why(core: Core, call: Call) -> Any:
    """Every candidate and its reason: of a live task as it is now, and as it was when assigned."""
    held = find_task(core, str(call.args.get("task", "")))
    row, task = held.row, str(held.row["task"])
    answer: dict[str, Any] = {
        "task": task_view(core, row),
        "decisions": _decisions(core, held),
        "claims": claims(core, "task", task),
    }
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


def waits_for(core: Core, task: str) -> str:
    """What keeps a queued task of ours from a machine, "" where it only waits its turn."""
    try:
        found = core.work.owning.owner.why(task)
    except NotFound:
        return ""
    if found.reason or any(verdict.fits for verdict in found.verdicts):
        return found.reason
    everybody = [*(_verdict(core, v) for v in found.verdicts), *_away(core, found.verdicts)]
    return "; ".join(f"{each['machine']}: {', '.join(each['reasons'])}" for each in everybody)


def _away(core: Core, verdicts: Iterable[Any]) -> list[dict[str, Any]]:
    """Machines that nobody asks now because they are away; their time may come."""
    asked = {verdict.machine for verdict in verdicts}
    return [
        {"machine": record.name, "fits": False, "score": 0, "reasons": ["away"]}
        for machine, record in sorted(core.roster.machines.items())
        if machine not in asked and presence(core, machine) == "away"
    ]


def _verdict(core: Core, verdict: Any) -> dict[str, Any]:
    return {
        "machine": core.standing.name_of(verdict.machine),
        "fits": verdict.fits,
        "score": verdict.score,
        "reasons": list(verdict.reasons),
    }


def _decisions(core: Core, held: Held) -> list[dict[str, Any]]:
    """Each assignment of a task, with the candidates as they were, and why it came to nothing."""
    found, left = [], past.left(core, held)
    for entry in history(core, held):
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


def history(core: Core, held: Held) -> list[Entry]:
    """Every entry about a task that counts, oldest first: its owner's, and its workers'."""
    rows = core.store.query(
        "select leaf_id from (select stream, opened leaf_id from task where task = ?1"
        " union select stream, assigned from task where task = ?1"
        " union select stream, settled from task where task = ?1"
        " union select stream, assigned from task_hist where task = ?1)"
        " join stream on stream.id = stream where name like ?2 and length(leaf_id) = 32",
        (str(held.row["task"]), f"{held.owner}/%"),
    )
    own = [core.store.entry(EntryId(_blob(row[0]))) for row in rows]
    ends = [
        core.store.entry(EntryId(_blob(row[name])))
        for row in core.work.ownership.attempts(str(held.row["task"]))
        for name in ("started", "ended")
        if row[name]
    ]
    entries = {entry.id: entry for entry in (*own, *ends) if entry is not None}
    return sorted(entries.values(), key=lambda e: (e.header.t, e.id))


def explain(core: Core, call: Call) -> Any:
    """The decision, reconstructed: each entry about a task, with what it cites, to its order."""
    held = find_task(core, str(call.args.get("task", "")))
    seen: dict[bytes, Entry] = {}
    todo = history(core, held)
    while todo:
        entry = todo.pop()
        if entry.id in seen or len(seen) > SHOWN_MAX:
            continue
        seen[entry.id] = entry
        todo += [e for e in (core.store.entry(c) for c in entry.causes) if e is not None]
    ordered = sorted(seen.values(), key=lambda e: (e.header.t, e.id))
    room = Room()
    return {
        "task": task_view(core, held.row),
        "entries": [_entry_view(core, e, room) for e in ordered],
        "claims": claims(core, "task", str(held.row["task"])),
        "names": dict(islice(_names(core.roster), NAMES_MAX)),
    }


def _names(roster: Roster) -> Iterator[tuple[str, str]]:
    """What people call the keys and grants that entries cite."""
    for key in (*roster.operators, *roster.machines, *roster.devices_ever, *roster.revoked):
        # Its sort stands before it: `operator`, `machine`.
        yield key, roster.called(key).removeprefix("operator ").removeprefix("machine ")
    for given in roster.grants:
        whose = roster.called(given.giver or given.grant.to)
        yield given.id, f"what {whose} gave" if given.giver else f"what {whose} may"


def _who(core: Core, entry: Entry) -> dict[str, Any]:
    found = said(core, entry)
    return {"actor": found.name, **({"claims": found.claims} if found.claims else {})}


def _entry_view(core: Core, entry: Entry, room: Room) -> dict[str, Any]:
    body: Any = None
    if entry.body is not None:
        try:
            body = canon.decode(entry.body, "body", size_max=1 << 20)
        except Malformed:
            # What a member wrote need not be JSON; that it is not says enough.
            body = {"unreadable": f"{len(entry.body)} bytes that are no JSON"}
        if not room.has(body):
            body = {"left out": f"{len(entry.body)} bytes, for which this page has no room"}
    held = [
        core.standing.name_of(c.machine)
        for c in core.store.cosigns(entry.stream)
        if c.strength == "held" and c.size > entry.header.seq
    ]
    return {
        "id": entry.id.hex(),
        "kind": entry.header.kind,
        "machine": core.standing.name_of(entry.header.author),
        **_who(core, entry),
        "t_ms": entry.header.t[0],
        "seq": entry.header.seq,
        "causes": list(entry.header.cause),
        "body": body,
        "held_by": sorted(held),
    }


def _blob(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""
