"""Verbs that wait: for runs and tasks until they are over, for messages until they are stored.

Rule 1: nothing is asked again and again: whoever waits is woken by what happens, and looks then.
Rule 2: the exit code says how it ended: 0 all is done, 1 something is not, 124 (as `timeout` has
it) the time was over first.
"""

import asyncio
from collections.abc import Callable
from typing import Annotated, Final, Literal

from msgspec import UNSET, Struct, UnsetType

from muster.duration import wait_s
from muster.errors import Malformed, NotFound
from muster.limits import ARGUMENT_WORDS_MAX
from muster.log.fold import body_or_none
from muster.node.services import messages
from muster.node.services.peer_asks import PeerAsks
from muster.node.tasks.delegations import Delegations
from muster.node.tasks.ended_work import OPEN
from muster.node.tasks.followers import Followers
from muster.node.tasks.ownership import Ownership
from muster.node.verb import Column
from muster.task import artefact
from muster.task.delegation import UNCHECKED
from muster.task.delegation_fold import DelegationRow
from muster.task.fold import RUN, TASK, TaskRow
from muster.task.identity import branch_of
from muster.task.kinds import RunOpen, TaskOpen, TaskSettle
from muster.task.peer_work import SaidRow
from muster.verbs import peer_work
from muster.verbs.client import Finding
from muster.verbs.declaration import (
    Context,
    Core,
    Daemon,
    Perform,
    Request,
    Stream,
    Words,
    opt,
    pos,
    verb,
)
from muster.verbs.delegate import begun_here
from muster.verbs.find import whose

TIMEOUT_EXIT: Final = 124
NOT_DONE_EXIT: Final = 1
_GOOD: Final = frozenset({"done", "stored"})
# What fits into the context of an agent that asks.
_CAME_MAX: Final = 32
_SAID_CHARS_MAX: Final = 8_000


class Await(Request, frozen=True):
    what: Annotated[Words, pos("runs, tasks (RUN/PHASE) or messages")]
    any: Annotated[bool, opt("return with the first that is over")] = False
    timeout: Annotated[str, opt("give up after this time: 30s, 10m, 2h")] = ""


class Came(Struct, frozen=True, kw_only=True):
    """What came of a task: what its agent said, the commit and its branch, the command that it had
    to pass (and did, where it is done), what it delivered; `fetch` is how a person brings that.
    """

    task: str
    phase: str
    state: str
    agent: str
    machine: str
    summary: str
    instance: str | UnsetType = UNSET
    said: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    commit: str | UnsetType = UNSET
    branch: str | UnsetType = UNSET
    repo: str | UnsetType = UNSET
    check: str | UnsetType = UNSET
    files: list[str] | UnsetType = UNSET
    fetch: str | UnsetType = UNSET


class Waited(Struct, frozen=True):
    """What was waited for, and how it stands; `over`: nothing more becomes of it.

    `result` has what came of each task of a run that is over, in the order in which they began.
    """

    what: Literal["run", "task", "message"]
    id: str
    state: str
    reason: str
    over: bool
    result: list[Came] | UnsetType = UNSET


class Awaited(Struct, frozen=True):
    """Not `in_time`: some of it goes on still."""

    in_time: bool
    ends: list[Waited]


@verb("await", auth="local", runs="client", group="Work", on="many", several="waits",
      own="what", harmless=True, rows="ends",
      columns=(Column("id", form="id"), Column("what"), Column("state", form="state"),
               Column("reason", width=60)))  # fmt: skip
def wait(context: Context, ask: Await) -> Finding:
    """Wait until runs and tasks are over, and messages are stored where they go.

    Of a run it has the result: what each agent said, its commit, what it delivered.

    Exit code 0: all is done (with --any, what was over first). 1: something failed or was
    cancelled. 124: the time was over first; what goes on is not touched.

        muster await 1ae7 --timeout 10m
        muster await nightly/test 0827 --any
    """
    asked = {"what": list(ask.what), "any": ask.any, "timeout": ask.timeout}
    answer = context.ask("await.end", asked, on=context.on)
    over = [each for each in answer["ends"] if each["over"]]
    code = 0 if all(each["state"] in _GOOD for each in over) else NOT_DONE_EXIT
    return Finding(answer, code if answer["in_time"] else TIMEOUT_EXIT)


@verb("await.end", auth="local", runs="stream", followed=True)
async def end(daemon: Daemon, call: Perform, stream: Stream, ask: Await) -> Awaited:
    """How all of it ended, when it has."""
    core, within_s = daemon.core, wait_s(ask.timeout) if ask.timeout else None
    looks = [_look(core, text, stream) for text in dict.fromkeys(ask.what)]
    if not looks or len(looks) > ARGUMENT_WORDS_MAX:
        raise Malformed("say which runs, tasks or messages to wait for")
    now = asyncio.get_running_loop().time
    end_s = None if within_s is None else now() + within_s
    try:
        while True:
            ends = [look() for look, _ in looks]
            over = [each.over for each in ends]
            if all(over) or (ask.any and any(over)):
                return Awaited(True, ends)
            left_s = None if end_s is None else end_s - now()
            if left_s is not None and left_s <= 0:
                return Awaited(False, ends)
            await stream.hear(left_s)
    finally:
        for _, stop in looks:
            stop()


Look = tuple[Callable[[], Waited], Callable[[], None]]


def _look(core: Core, text: str, stream: Stream) -> Look:
    """What says how it stands, and what ends the following. Raises: NotFound, Refused."""
    if (out := peer_work.meant(core, text)) is not None:
        return _asked(core, out, stream)
    try:
        meant = whose(core, text)
    except NotFound:
        if len(handed := begun_here(core, text)) == 1:
            return _handed_on(core, handed[0], stream)
        return _message(core, text, stream)
    what: Literal["run", "task"] = "run" if meant.what == "run" else "task"
    owned = core.part(Ownership)

    def look() -> Waited:
        held = owned.held(RUN, meant.id) if what == "run" else owned.held(TASK, meant.id)
        if held is None:
            raise NotFound(f"{what} {meant.id[:12]} is nobody's any more")
        row = held.row
        reason = getattr(row, "reason", "") or row.summary
        over = row.state not in OPEN
        came = _came(core, held.owner, meant.id) if over and what == "run" else UNSET
        return Waited(what, meant.id, row.state, reason, over, came)

    # Woken is enough: how it stands is read then, and many changes are one.
    stop = core.part(Followers).follow(meant.id, lambda _change: stream.tell_later("moved"))
    return look, stop


def _handed_on(core: Core, row: DelegationRow, stream: Stream) -> Look:
    """A run that was handed on from here and that its owner may not have heard of."""
    part = core.part(Delegations)

    def look() -> Waited:
        state = part.state(row)
        over = state not in ("asked", "open")
        reason = part.refused(row) or ("its owner heard of it too late" if state == "late" else "")
        came = _came(core, row.owner, row.run) if over else UNSET
        return Waited("run", row.run, state, reason, over, came)

    stop = core.part(Followers).follow(row.run, lambda _change: stream.tell_later("moved"))
    return look, stop


def _asked(core: Core, row: SaidRow, stream: Stream) -> Look:
    """What another fleet was asked for, as its door reports it."""
    part, owner = core.part(PeerAsks), peer_work.view(core, row)["owner"]

    def look() -> Waited:
        state, report = part.state(row), part.report(row)
        if not part.is_over(row) or report is None:
            return Waited("run", row.letter, state, "", part.is_over(row))
        came = [
            Came(
                task=row.letter, phase=each.phase, state=each.state, agent="", machine=owner,
                summary=each.summary, instance=each.instance or UNSET, said=each.said or UNSET,
            )
            for each in report.came
        ]  # fmt: skip
        return Waited("run", row.letter, state, report.summary, True, came or UNSET)

    stop = core.part(Followers).follow(row.letter, lambda _change: stream.tell_later("moved"))
    return look, stop


def _came(core: Core, owner: str, run: str) -> list[Came]:
    """What came of the tasks of a run, as its owner settled them; of many the first ones."""
    rows = core.tables.rows(TASK, writer=owner, run=run, order=("opened_ms",), limit=_CAME_MAX)
    # An owner that began anew opened them again.
    newest = {row.task: row for row in sorted(rows, key=lambda row: row.changed_ms)}
    opened = core.tables.rows(RUN, writer=owner, run=run, limit=1)
    body = body_or_none(core.log.entry(opened[0].opened), RunOpen) if opened else None
    return [_task(core, row, body) for row in newest.values()]


def _task(core: Core, row: TaskRow, run: RunOpen | None) -> Came:
    settled = body_or_none(core.log.entry(row.settled), TaskSettle)
    order = body_or_none(core.log.entry(row.opened), TaskOpen)
    said = settled.values.get("output", "") if settled else ""
    delivered = artefact.named(settled.commit, settled.artefacts) if settled else ()
    # With a commit it says which files it changed.
    files = [each.path for each in delivered] or (list(settled.artefacts) if settled else [])
    fetch = ""
    if row.commit_id:
        fetch = f"muster checkout {row.run[:12]} --phase {row.phase}"
    elif files:
        fetch = f"muster fetch {row.task[:12]}"
    if len(said) > _SAID_CHARS_MAX:
        said = f"…{said[-_SAID_CHARS_MAX:]}"
    check = str(order.template.get("check") or "") if order else ""
    return Came(
        task=row.task,
        phase=row.phase,
        state=row.state,
        agent=row.agent,
        machine=core.membership.name_of(row.machine) if row.machine else "",
        summary=row.summary,
        instance=row.instance or UNSET,
        said=said if said.strip() not in ("", row.summary.strip()) else UNSET,
        reason=row.reason or UNSET,
        commit=row.commit_id or UNSET,
        branch=branch_of(row.run, row.phase, row.instance) if row.commit_id else UNSET,
        repo=run.repo if run and row.commit_id else UNSET,
        check=check if check != UNCHECKED and check else UNSET,
        files=files or UNSET,
        fetch=fetch or UNSET,
    )


def _message(core: Core, text: str, stream: Stream) -> Look:
    try:
        found = messages.find(core, text)
    except NotFound as error:
        raise NotFound(f"no run, task or message is {text[:40]!r}") from error
    seq, whom = found.entry.header.seq, messages.receivers(core, found.stream, found.to)
    whom -= {found.stream.machine}

    def look() -> Waited:
        held = messages.held_size(core, found.stream)
        stored = all(held(machine) > seq for machine in whom)
        return Waited("message", found.id.hex(), "stored" if stored else "waiting", "", stored)

    if look().over:
        return look, lambda: None
    return look, core.replication.awaited.when_held(
        found.stream, seq + 1, set(whom), lambda: stream.tell_later("moved")
    )
