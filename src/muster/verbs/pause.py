"""Verbs that let a machine rest: it takes no work, or gives away what it has, until it goes on.

Rule: what a machine says of itself it says at once, to everybody who may give it work.
"""

from typing import Annotated, Any

from msgspec import Meta, Struct

from muster.duration import duration_of
from muster.errors import Conflict, Malformed
from muster.fleet.facts import Facts
from muster.limits import INT_ABS_MAX
from muster.node.services.tail import Tail
from muster.node.tasks.pauses import Pauses
from muster.node.tasks.worker import WorkerService
from muster.node.verb import Line
from muster.task.detector import DRAINS
from muster.task.pause import PAUSED, WHY_CHARS_MAX, Pause, pause_of
from muster.verbs.declaration import (
    Call,
    Context,
    Core,
    Daemon,
    Nothing,
    Perform,
    Request,
    Stream,
    data,
    opt,
    pos,
    verb,
)

# Why an attempt ends whose machine drains; its task goes elsewhere, and loses nothing by it.
_DRAINS = "its machine drains, and gives its work away"


class Rest(Struct, frozen=True):
    """That a machine takes no work: in words, until when (0 for until somebody ends it), and
    whether it gave away what ran.
    """

    how: str
    until_ms: int
    drains: bool


def rest_of(facts: Facts | None) -> Rest | None:
    """What a machine says of that among its facts; None where it takes work."""
    pause = pause_of(facts.tools.get(PAUSED)) if facts is not None else None
    return Rest(pause.sentence, pause.until_ms, pause.drains) if pause is not None else None


class Resting(Request, frozen=True):
    machine: Annotated[str, pos("the machine; this one where none is named", kind="machine")] = ""
    until: Annotated[str, opt("go on by itself after so long: 30m, 2h, 1d")] = ""
    why: Annotated[str, opt("what others read who wonder", max_length=WHY_CHARS_MAX)] = ""


class Rests(Struct, frozen=True):
    """A machine that takes no work, in words; how many attempts it works on still."""

    name: str
    how: str
    works: int


@verb(
    "pause", auth="local", runs="client", group="The fleet", on="none",
    says=(
        Line("{name} {how}. It ends {works} that it works on.", "works"),
        Line("{name} {how}.", "!works"),
    ),
)  # fmt: skip
def pause(context: Context, ask: Resting) -> Any:
    """Let a machine take no new work; what runs there goes on to its end.

    Also after a restart, until `muster resume` or the time that is given.

        muster pause
        muster pause laptop --until 2h --why 'a talk'
    """
    return context.ask("pause.begin", _args(ask), on=ask.machine)


class Draining(Resting, frozen=True):
    wait: Annotated[bool, opt("return only when nothing runs there any more")] = False


@verb(
    "drain", auth="local", runs="client", group="The fleet", on="none",
    says=(
        Line("{name} {how}. It ends {works} that only one machine may begin.", "works"),
        Line("{name} {how}. Nothing runs there.", "!works"),
    ),
)  # fmt: skip
def drain(context: Context, ask: Draining) -> Any:
    """Let a machine give away what it works on, and take nothing new.

    Its attempts end and their tasks begin again on other machines, which costs them no try; one
    that must not run twice (`once: true`) is finished first. What the machine owns stays its own.

        muster drain laptop --wait --why 'a new disk'
    """
    last = context.ask("pause.begin", _args(ask) | {"drains": True}, on=ask.machine)
    for each in context.stream("pause.hand-over", {"wait": ask.wait}, on=ask.machine):
        if each["works"] and each != last:
            context.say(f"{each['name']}: {each['works']} end there")
        last = each
    return last


class Which(Request, frozen=True):
    machine: Annotated[str, pos("the machine; this one where none is named", kind="machine")] = ""


class Resumed(Struct, frozen=True):
    name: str


@verb("resume", auth="local", runs="client", group="The fleet", on="none",
      says=(Line("{name} takes work again."),))  # fmt: skip
def resume(context: Context, ask: Which) -> Any:
    """Let a machine take work again that was paused, or that drained.

    muster resume
    muster resume laptop
    """
    return context.ask("pause.end", {}, on=ask.machine)


def _args(ask: Resting) -> dict[str, Any]:
    after_ms = duration_of(ask.until) if ask.until else 0
    if after_ms is None or (ask.until and not after_ms):
        raise Malformed(f"--until {ask.until[:40]!r} is no time: write 30m, 2h or 1d")
    return {"for_ms": after_ms, "why": ask.why}


class Begin(Request, frozen=True):
    for_ms: Annotated[int, Meta(ge=0, le=INT_ABS_MAX), data()] = 0
    why: Annotated[str, Meta(max_length=WHY_CHARS_MAX), data()] = ""
    drains: Annotated[bool, data()] = False


@verb("pause.begin", auth="local", writes=True)
def begin(core: Core, call: Call, ask: Begin) -> Rests:
    """Take no new work, from now on."""
    until_ms = core.now.wall_ms + ask.for_ms if ask.for_ms else 0
    core.part(Pauses).begin(Pause(until_ms, " ".join(ask.why.split()), ask.drains))
    return _rests(core)


@verb("pause.end", auth="local", writes=True)
def end(core: Core, call: Call, ask: Nothing) -> Resumed:
    """Take work again. Raises: Conflict where it takes some."""
    if core.part(Pauses).end() is None:
        raise Conflict(f"{core.name} is not paused: it takes work")
    return Resumed(core.name)


class HandOver(Request, frozen=True):
    wait: Annotated[bool, data()] = False


@verb("pause.hand-over", auth="local", runs="stream", writes=True, followed=True)
async def hand_over(daemon: Daemon, call: Perform, stream: Stream, ask: HandOver) -> Rests:
    """End what may begin elsewhere, and wait until that has ended, or with `wait` all that runs."""
    core, told = daemon.core, -1
    attempts = list(daemon.effects.attempts.values())
    ending = [each for each in attempts if each.template.get("once") is not True]
    for each in ending:
        each.stop(_DRAINS, stuck=DRAINS)
    with core.part(Tail).moves(lambda: stream.tell_later("moved")):
        while (works := _rests(core).works) and (
            ask.wait or any(not each.over.is_set() for each in ending)
        ):
            if works != told:
                await stream.tell(_rests(core))
            told = works
            await stream.hear()
        return _rests(core)


def _rests(core: Core) -> Rests:
    now, worker = core.part(Pauses).now, core.part(WorkerService).worker
    return Rests(core.name, now.sentence if now else "", sum(worker.statistics().values()))
