"""Verbs that wait: for runs and tasks until they are over, for messages until they are stored.

Rule 1: nothing is asked again and again: whoever waits is woken by what happens, and looks then.
Rule 2: the exit code says how it ended: 0 all is done, 1 something is not, 124 (as `timeout` has
it) the time was over first.
"""

import asyncio
from collections.abc import Callable
from typing import Annotated, Final, Literal

from msgspec import Struct

from muster.duration import wait_s
from muster.errors import Malformed, NotFound
from muster.limits import ARGUMENT_WORDS_MAX
from muster.node.services import messages
from muster.node.tasks.ended_work import OPEN
from muster.node.tasks.followers import Followers
from muster.node.tasks.ownership import Ownership
from muster.node.verb import Column
from muster.task.fold import RUN, TASK
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
from muster.verbs.find import whose

TIMEOUT_EXIT: Final = 124
NOT_DONE_EXIT: Final = 1
_GOOD: Final = frozenset({"done", "stored"})


class Await(Request, frozen=True):
    what: Annotated[Words, pos("runs, tasks (RUN/PHASE) or messages")]
    any: Annotated[bool, opt("return with the first that is over")] = False
    timeout: Annotated[str, opt("give up after this time: 30s, 10m, 2h")] = ""


class Waited(Struct, frozen=True):
    """What was waited for, and how it stands; `over`: nothing more becomes of it."""

    what: Literal["run", "task", "message"]
    id: str
    state: str
    reason: str
    over: bool


class Awaited(Struct, frozen=True):
    """Not `in_time`: some of it goes on still."""

    in_time: bool
    ends: list[Waited]


@verb("await", auth="local", runs="client", group="Work", on="one", harmless=True, rows="ends",
      columns=(Column("id", form="id"), Column("what"), Column("state", form="state"),
               Column("reason", width=60)))  # fmt: skip
def wait(context: Context, ask: Await) -> Finding:
    """Wait until runs and tasks are over, and messages are stored where they go.

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
    try:
        meant = whose(core, text)
    except NotFound:
        return _message(core, text, stream)
    what: Literal["run", "task"] = "run" if meant.what == "run" else "task"
    owned = core.part(Ownership)

    def look() -> Waited:
        held = owned.held(RUN, meant.id) if what == "run" else owned.held(TASK, meant.id)
        if held is None:
            raise NotFound(f"{what} {meant.id[:12]} is nobody's any more")
        row = held.row
        reason = getattr(row, "reason", "") or row.summary
        return Waited(what, meant.id, row.state, reason, row.state not in OPEN)

    # Woken is enough: how it stands is read then, and many changes are one.
    stop = core.part(Followers).follow(meant.id, lambda _change: stream.tell_later("moved"))
    return look, stop


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
