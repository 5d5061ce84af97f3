"""Verbs about what an agent did, read from the journals of the machines that did it.

Rule: a journal never leaves its machine by replication. It is for programs of its own user there;
whoever asks from elsewhere needs a grant, and what it shows is in its log as asked for.
"""

import contextlib
from collections.abc import Mapping
from typing import Annotated, Any, Final

from msgspec import UNSET, Struct, UnsetType

from muster.errors import Denied, MusterError, NotFound, Unreachable
from muster.limits import BODY_BYTES_MAX
from muster.log import canon
from muster.log.entry import Entry
from muster.log.stream import JOURNAL, StreamName
from muster.node.tasks.followers import Followers
from muster.node.tasks.ownership import Ownership
from muster.node.tasks.worker import WorkerService
from muster.verbs.declaration import Call, Context, Core, Daemon, Perform, Stream, opt, verb
from muster.verbs.find import OfTask, called, telling_task
from muster.verbs.history import question

SHOWN_MAX: Final = 2000
_LIVE: Final = frozenset({"queued", "waiting", "leased"})


class Keeper(Struct, frozen=True):
    machine: str
    name: str
    here: bool


class Journals(Struct, frozen=True):
    """Who began a task, the newest last; `holder` has it now: there an agent waits for answers."""

    task: str
    state: str
    machines: list[Keeper]
    holder: str
    # Of several, the one that was chosen: its place in the run.
    chosen: str | UnsetType = UNSET
    # Where a person decides it and no machine begins it; what was said with the answer.
    person: bool | UnsetType = UNSET
    note: str | UnsetType = UNSET


@verb("journal.where", auth="local")
def where(core: Core, call: Call, ask: OfTask) -> Journals:
    """The machines whose journals tell of a task.

    Its owner gave it to them, and they began it.
    """
    return _journals(core, ask.task)


def _journals(core: Core, task: str) -> Journals:
    held, several = telling_task(core, task)
    row = held.row
    begun = [each.stream.machine for each in core.part(Ownership).attempts(row.task)]
    return Journals(
        row.task,
        row.state,
        [Keeper(each, core.membership.name_of(each), each == core.machine) for each in begun],
        row.machine if row.state == "leased" else "",
        called(row.run[:12], row) if several else UNSET,
        *((True, row.summary) if question(core, row) else ()),
    )


class Read(OfTask, frozen=True):
    follow: Annotated[bool, opt("go on until the attempt ends", short="f")] = False


class JournalEnd(Struct, frozen=True):
    task: str
    end: bool = True


@verb("journal.begun", auth="local", runs="stream", followed=True)
async def begun(daemon: Daemon, call: Perform, stream: Stream, ask: OfTask) -> Journals:
    """As journal.where, when a machine has begun the task or none will."""
    core = daemon.core
    found = _journals(core, ask.task)
    stop = core.part(Followers).follow(found.task, stream.tell_later)
    try:
        while not found.machines and found.state in _LIVE:
            await stream.hear()
            found = _journals(core, found.task)
    finally:
        stop()
    return found


@verb("journal", auth="local", daily=True, runs="stream", object="task", followed=True)
async def journal(daemon: Daemon, call: Perform, stream: Stream, ask: Read) -> JournalEnd:
    """This machine's journal of a task; elsewhere, to whoever was granted it.

    Each entry is an answer of its own; with `follow` also those that come.
    """
    core, task = daemon.core, ask.task
    working = core.part(WorkerService)
    over = not ask.follow or working.worker.holds(task) is None
    if not over:
        working.followers.setdefault(task, []).append(stream.tell_later)
    read = dict[StreamName, int]()
    try:
        while True:
            for entry in _entries(core, task, read):
                body: Any = canon.decode(entry.body or b"{}", "journal", size_max=1 << 20)
                # What an agent calls the kind of its tool must not hide what kind of entry it is.
                if "kind" in body:
                    body["tool"] = body.pop("kind")
                said = {"kind": entry.header.kind, "actor": entry.header.actor}
                await stream.tell({**body, "t_ms": entry.header.t[0], **said, "machine": core.name})
            if over:
                return JournalEnd(task)
            over = await stream.hear()
    finally:
        # The attempt ended meanwhile, and all who followed it were let go.
        with contextlib.suppress(KeyError, ValueError):
            working.followers[task].remove(stream.tell_later)


def _entries(core: Core, task: str, read: dict[StreamName, int]) -> list[Entry]:
    """What all our journals say of a task beyond what was read; the last `SHOWN_MAX`."""
    found: list[Entry] = []
    for stream in core.log.streams():
        if stream.machine != core.machine or stream.scope != JOURNAL:
            continue
        while entries := core.log.slice(stream, read.get(stream, 0)):
            found = [*found, *(each for each in entries if _is_about(each, task))][-SHOWN_MAX:]
            read[stream] = read.get(stream, 0) + len(entries)
    return found


def _is_about(entry: Entry, task: str) -> bool:
    """Whether it is of this task; that another task's agent speaks of it is not enough."""
    if not task or entry.body is None or task.encode() not in entry.body:
        return False
    body = canon.decode(entry.body, "journal", size_max=BODY_BYTES_MAX)
    return isinstance(body, dict) and str(body.get("task", "")).startswith(task)


def _decided(where: Mapping[str, Any]) -> str:
    """Of a task that a person decides: how it stands, for there is no journal of it."""
    task, state = where["task"][:12], where["state"]
    if state in _LIVE:
        return (
            f"a person decides task {task}, and it waits for that: `muster why {task}` shows the "
            f"question, `muster decide {task} yes|no` answers it"
        )
    said = {"done": "yes", "failed": "no"}.get(state, state)
    note = f" ({where['note']})" if where.get("note") else ""
    return f"a person decided task {task}, no machine ran it: {said}{note}"


@verb("logs", auth="local", runs="client", group="Work", on="many", harmless=True,
      followed=True, several="tells", own="task")  # fmt: skip
def logs(context: Context, ask: Read) -> None:
    """What the agent of a task did, as it happens with --follow.

    The journals of every machine that worked on it, one after the other. Of a run with several
    tasks: one that runs, else one that failed.

        muster logs 7d5e --follow
        muster logs 1ae7
    """
    where = context.ask("journal.where", {"task": ask.task}, on=context.on)
    if chosen := where.get("chosen"):
        run, state = chosen.partition("/")[0], where["state"]
        said = "running" if state == "leased" else state
        context.say(f"of {chosen}, which is {said}; `muster runs {run}` shows the others")
    if where.get("person") and not where["machines"]:
        context.say(_decided(where))
        return
    if ask.follow and not where["machines"] and where["state"] in _LIVE:
        context.say(f"no machine has begun it yet; `muster why {where['task'][:12]}` says why")
        where = context.ask("journal.begun", {"task": where["task"]}, on=context.on)
    machines = list(dict.fromkeys(each["machine"] for each in where["machines"]))
    names = {each["machine"]: each["name"] for each in where["machines"]}
    if not machines:
        raise NotFound(
            f"no machine has begun task {where['task'][:12]} yet; "
            f"`muster why {where['task'][:12]}` says what it waits for"
        )
    # Of the machine that was asked; with --on that is another one.
    here = "" if context.on else next((m["machine"] for m in where["machines"] if m["here"]), "")
    shown, missing = 0, list[str]()
    kind: type[MusterError] = Denied
    for machine in machines:
        asked = {"task": where["task"]}
        if ask.follow and machine == machines[-1]:
            asked["follow"] = True
        try:
            for each in context.stream("journal", asked, on="" if machine == here else machine):
                if not each.get("end"):
                    context.show(each)
                    shown += 1
        except Unreachable as error:
            missing.append(f"the journal of {names[machine]} cannot be read now: {error}")
            kind = Unreachable
        except Denied:
            # It is among what is missing, which is shown or raised below.
            missing.append(
                f"the journal of {names[machine]} stays there: type `muster logs "
                f"{where['task'][:12]}` on {names[machine]}, or on the machine that holds "
                "operator.seed"
            )
    if missing and not shown:
        raise kind("; ".join(missing))
    for text in missing:
        context.say(text)
    if not shown:
        context.say("nothing was written into the journals yet")
