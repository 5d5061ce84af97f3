"""Verbs about what an agent did, read from the journal of the machine that did it.

Rule: a journal is for programs of its own user there; whoever asks from elsewhere needs a grant.
"""

import contextlib
from typing import TYPE_CHECKING, Any

from muster.limits import BODY_BYTES_MAX
from muster.log import canon
from muster.log.entry import Entry
from muster.log.stream import JOURNAL
from muster.node.call import Call
from muster.node.core import Core
from muster.node.ownership import writer_of
from muster.node.verb import LATER
from muster.verbs.find import find_task

if TYPE_CHECKING:
    from collections.abc import Iterator

SHOWN_MAX = 2000


def where(core: Core, call: Call) -> Any:
    """The machines that its owner gave a task to and that began it, the newest last.

    Their journals hold what happened. `holder` has the task now: there an agent waits for answers.
    """
    row = find_task(core, str(call.args.get("task", ""))).row
    found = []
    for attempt in core.work.ownership.attempts(str(row["task"])):
        machine = writer_of(attempt)
        found.append({"machine": machine, "name": core.standing.name_of(machine),
                      "here": machine == core.machine})  # fmt: skip
    holder = str(row["machine"]) if row["state"] == "leased" else ""
    return {"task": row["task"], "state": row["state"], "machines": found, "holder": holder}


def journal(core: Core, call: Call) -> Any:
    """What this machine's journal says about a task; with `follow`, also what comes."""
    task = str(call.args.get("task", ""))
    for entry in _entries(core, task):
        call.more(_view(core, entry))
    if not call.args.get("follow") or not _running(core, task):
        return {"task": task, "end": True}
    _Follower(core, call, task).begin()
    return LATER


def _running(core: Core, task: str) -> bool:
    return core.work.working.worker.holds(task) is not None


def _entries(core: Core, task: str) -> "Iterator[Entry]":
    """Entries of all our journals about one task, in their order; the last `SHOWN_MAX`."""
    found: list[Entry] = []
    for stream in core.store.streams():
        if stream.machine != core.machine or stream.scope != JOURNAL:
            continue
        start = 0
        while entries := core.store.slice(stream, start):
            found += [e for e in entries if _is_about(e, task)]
            found = found[-SHOWN_MAX:]
            start += len(entries)
    yield from found


def _is_about(entry: Entry, task: str) -> bool:
    """Whether it is of this task; that another task's agent speaks of it is not enough."""
    if not task or entry.body is None or task.encode() not in entry.body:
        return False
    body = canon.decode(entry.body, "journal", size_max=BODY_BYTES_MAX)
    return isinstance(body, dict) and str(body.get("task", "")).startswith(task)


def _view(core: Core, entry: Entry) -> dict[str, Any]:
    body: Any = {}
    if entry.body is not None:
        body = canon.decode(entry.body, "journal", size_max=1 << 20)
    # What an agent calls the kind of its tool must not hide what kind of entry this is.
    if "kind" in body:
        body["tool"] = body.pop("kind")
    return {**body, "t_ms": entry.header.t[0], "kind": entry.header.kind,
            "actor": entry.header.actor, "machine": core.name}  # fmt: skip


class _Follower:
    """Sends journal entries of a task as they are written, until the attempt ends."""

    def __init__(self, core: Core, call: Call, task: str) -> None:
        self.core, self.call, self.task = core, call, task
        self.open = True

    def begin(self) -> None:
        self.core.router.streaming(self.call, self.stop)
        self.core.work.working.followers.setdefault(self.task, []).append(self.tell)

    def stop(self) -> None:
        self.open = False
        with contextlib.suppress(KeyError, ValueError):
            self.core.work.working.followers[self.task].remove(self.tell)

    def tell(self, entry: Entry | None) -> None:
        """The next entry; None when there will be no more."""
        if not self.open:
            return
        if entry is None:
            self.core.router.open.pop((self.call.link, self.call.channel), None)
            self.call.end({"task": self.task, "end": True})
        else:
            self.call.more(_view(self.core, entry))
