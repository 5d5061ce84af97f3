"""Verbs about what an agent did, read from the journals of the machines that did it.

Rule: a journal never leaves its machine by replication. It is for programs of its own user there;
whoever asks from elsewhere needs a grant, and what it shows is in its log as asked for.
"""

import contextlib
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

from msgspec import Struct

from muster.errors import Denied, MusterError, NotFound, Unreachable
from muster.limits import BODY_BYTES_MAX
from muster.log import canon
from muster.log.entry import Entry
from muster.log.stream import JOURNAL
from muster.node.ownership import writer_of
from muster.node.verb import LATER, Later
from muster.verbs.declaration import Call, Core, Door, Request, opt, verb
from muster.verbs.find import TASK, find_task

if TYPE_CHECKING:
    from collections.abc import Iterator

SHOWN_MAX: Final = 2000
# Often enough for a person, seldom enough for a daemon.
LOOK_S: Final = 0.5
_LIVE: Final = frozenset({"queued", "waiting", "leased"})


class Where(Request, frozen=True):
    task: Annotated[str, TASK]


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


@verb("journal.where", auth="local")
def where(core: Core, call: Call, ask: Where) -> Journals:
    """The machines whose journals tell of a task.

    Its owner gave it to them, and they began it.
    """
    row = find_task(core, ask.task).row
    begun = [writer_of(each) for each in core.work.ownership.attempts(str(row["task"]))]
    return Journals(
        str(row["task"]),
        str(row["state"]),
        [Keeper(each, core.standing.name_of(each), each == core.machine) for each in begun],
        str(row["machine"]) if row["state"] == "leased" else "",
    )


class Read(Request, frozen=True):
    task: Annotated[str, TASK]
    follow: Annotated[bool, opt("go on until the attempt ends", short="f")] = False


class JournalEnd(Struct, frozen=True):
    task: str
    end: bool = True


@verb("journal", auth="local", object="task", followed=True)
def journal(core: Core, call: Call, ask: Read) -> JournalEnd | Later:
    """This machine's journal of a task; elsewhere, to whoever was granted it.

    Each entry is an answer of its own; with `follow` also those that come.
    """
    task = ask.task
    for entry in _entries(core, task):
        call.more(_view(core, entry))
    if not ask.follow or not _running(core, task):
        return JournalEnd(task)
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
            self.call.end(JournalEnd(self.task))
        else:
            self.call.more(_view(self.core, entry))


@verb("logs", auth="local", runs="client", group="Work", on="one", harmless=True)
def logs(door: Door, ask: Read) -> None:
    """What the agent of a task did, as it happens with --follow.

    The journals of every machine that worked on it, one after the other.

        muster logs 7d5e --follow
    """
    where = door.ask("journal.where", {"task": ask.task}, on=door.on)
    if ask.follow and not where["machines"] and where["state"] in _LIVE:
        door.say(f"no machine has begun it yet; `muster why {where['task'][:12]}` says why")
        while not where["machines"] and where["state"] in _LIVE:
            time.sleep(LOOK_S)
            where = door.ask("journal.where", {"task": where["task"]}, on=door.on)
    machines = list(dict.fromkeys(each["machine"] for each in where["machines"]))
    names = {each["machine"]: each["name"] for each in where["machines"]}
    if not machines:
        raise NotFound(
            f"no machine has begun task {where['task'][:12]} yet; "
            f"`muster why {where['task'][:12]}` says what it waits for"
        )
    # Of the machine that was asked; with --on that is another one.
    here = "" if door.on else next((m["machine"] for m in where["machines"] if m["here"]), "")
    shown, missing = 0, list[str]()
    kind: type[MusterError] = Denied
    for machine in machines:
        asked = {"task": where["task"]}
        if ask.follow and machine == machines[-1]:
            asked["follow"] = True
        try:
            for each in door.stream("journal", asked, on="" if machine == here else machine):
                if not each.get("end"):
                    door.show(each)
                    shown += 1
        except Unreachable as error:
            missing.append(f"the journal of {names[machine]} cannot be read now: {error}")
            kind = Unreachable
        except Denied:
            missing.append(_stays(where["task"], names[machine]))
    if missing and not shown:
        raise kind("; ".join(missing))
    for text in missing:
        door.say(text)
    if not shown:
        door.say("nothing was written into the journals yet")


def _stays(task: str, machine: str) -> str:
    return (
        f"the journal of {machine} stays there: type `muster logs {task[:12]}` on {machine}, or on "
        "the machine that holds operator.seed"
    )
