"""`muster schedule`: specs that run when nobody looks, kept by several machines.

Rule 1: a schedule is a standing order: the command signs it for the whole fleet, beside the order
        to write it down. What is signed has the text of its spec and the ids of its keepers.
Rule 2: nothing that is added, resumed or named anew ever runs what was due before.
"""

import os
from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from muster.errors import Conflict, Malformed, NotFound, Refused
from muster.fleet.until import until_ms
from muster.limits import BODY_BYTES_MAX, SCHEDULES_MAX
from muster.log.stream import MachineId
from muster.node.host import clock
from muster.node.tasks import slots
from muster.node.tasks.slots import Known
from muster.node.verb import Column, Line, Loss
from muster.task import check as checks
from muster.task import occurrences
from muster.task import schedule as schedules
from muster.task.problem import of_file
from muster.task.schedule import AUTO, OWNER, REPO
from muster.task.schedule_fold import ordered as schedule_order
from muster.task.schedule_kinds import (
    SchedulePause,
    ScheduleRemove,
    ScheduleResume,
    ScheduleSet,
)
from muster.task.spec import check_nameable, parse
from muster.verbs.declaration import Call, Context, Core, Request, data, opt, pos, verb
from muster.verbs.spec import fleet

_NAMED: Final = ("add", "show", "next", "pause", "resume", "fire", "remove", "takeover")
Name = Annotated[str, Meta(max_length=40)]
# What was changed would be due at once.
_RESTS: Final = "the schedule {0} rests; `muster schedule resume {0}` first, or remove it"


# --- inside the command --------------------------------------------------------------------------


class Action(Request, frozen=True):
    action: Annotated[
        Literal["add", "list", "show", "next", "pause", "resume", "fire", "remove", "takeover"],
        pos(
            "add FILE; list; and of NAME: show, next, pause, resume, fire, remove, takeover --on M"
        ),
    ]
    what: Annotated[
        str, pos("the file of a schedule, or its name", actions=_NAMED, needed=_NAMED)
    ] = ""
    count: Annotated[int, opt("so many slots", actions=("next",), ge=1, le=100)] = 5
    until: Annotated[
        str, opt("how long, or until which moment, it rests: 8h, 2026-12-31", actions=("pause",))
    ] = ""
    slot: Annotated[str, opt("run the slot of this moment by hand", actions=("fire",))] = ""


@verb(
    "schedule", auth="local", runs="client", group="Work", rows="schedules", names="name",
    on="one",
    columns=(
        Column("name", form="bold"), Column("state", form="state"), Column("when", least=12),
        Column("next_ms", "next", "ago", when="next_ms"), Column("last", rank=1),
        Column("last_ms", "when", "ago", rank=1, when="last_ms"), Column("owner", rank=2),
        Column("fence", rank=2),
    ),
    nothing="Nothing runs by a schedule: `muster schedule add FILE` lets a spec.",
    says=(
        Line("{name} is due next {next_ms:ago} ({next_local}), on the watch of {owner}.",
             "did=added next_ms"),
        Line("{name} is not due any more.", "did=added !next_ms !on"),
        Line("{name} is run {on} that a keeper of it owns or has.", "on"),
        Line("Its fence is {fence}: who fires a slot is decided there.", "did=added !alone !on"),
        Line("Its owner alone fires it: nobody stands in for {owner}.", "did=added alone"),
        Line("{name} rests; what is due meanwhile is skipped.", "did=paused"),
        Line("{name} is due again from now on.", "did=resumed"),
        Line("{name} is gone; what runs goes on.", "did=removed"),
        Line("Run {run} of {spec} began.", "run"),
    ),
    destroys=(
        Loss("the schedule {what} is gone for good; `muster schedule add` makes a new one",
             when="action=remove", asks="schedule.check what=what"),
    ),
)  # fmt: skip
def schedule(context: Context, ask: Action) -> Any:
    """Run a spec by the calendar, on machines that stand in for each other.

    muster schedule add nightly.yaml
    muster schedule next nightly --count 3
    muster schedule pause nightly --until 8h
    muster schedule fire nightly
    """
    match ask.action:
        case "list":
            return {"schedules": context.ask("schedule.list", {})}
        case "add":
            return _add(context, ask.what)
        case "show" | "next":
            asked = {"name": ask.what, **({"count": ask.count} if ask.action == "next" else {})}
            return context.ask(f"schedule.{ask.action}", asked)
        case "fire":
            return _fire(context, ask)
        case "takeover":
            return _takeover(context, ask.what)
    found = context.ask("schedule.check", {"what": ask.what})
    args = {"name": found["name"], "schedule": found["schedule"]}
    if ask.until:
        args["until_ms"] = until_ms(ask.until, clock.read().wall_ms)
    return context.ask(f"schedule.{ask.action}", args)


def _add(context: Context, path: str) -> Any:
    """Read both files, have them judged, and order the schedule."""
    text, file = _file(path), path
    try:
        found = schedules.read(text.encode())
        # Of what has a place there, only the spec is judged by the daemon.
        file = os.path.join(os.path.dirname(path), found.run)
        return _set(context, text, _file(file))
    except Refused as error:
        raise of_file(error, file) from error


def _set(context: Context, text: str, spec: str) -> Any:
    made = context.ask("schedule.make", {"spec": spec, "text": text})
    said = {"keepers": made["keepers"], "name": made["name"], "text": made["text"]}
    return context.ask("schedule.set", said)


def _file(path: str) -> str:
    """Raises: NotFound, Malformed."""
    try:
        with open(path, "rb") as file:
            raw = file.read(BODY_BYTES_MAX + 1)
        if len(raw) > BODY_BYTES_MAX:
            raise Malformed(f"{path} has more than {BODY_BYTES_MAX} bytes")
        return raw.decode()
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Malformed(f"{path} is no UTF-8 text") from error


def _fire(context: Context, ask: Action) -> Any:
    """An ordinary run of its spec; of a slot that nobody ran, with what that says of itself."""
    found = context.ask("schedule.show", {"name": ask.what})
    values = {}
    if ask.slot:
        slot = schedules.moment_ms(ask.slot, found["zone"])
        late_ms = max(clock.read().wall_ms - slot, 0)
        values = schedules.slot_values(
            parse(found["text"].encode()).takes, slot, ask.slot, late_ms, 0
        )
    args = {"base": "", "repo": found["repo"], "spec": found["text"], "values": values}
    options = {"again": True, "object": found["spec"]}
    begun = context.ask("run", args, on=context.on, options=options)
    return {**begun, "spec": found["spec"]}


def _takeover(context: Context, name: str) -> Any:
    """The same schedule with another machine as its owner."""
    if not context.on:
        raise Malformed("say whose it is to be: `muster schedule takeover NAME --on MACHINE`")
    found = context.ask("schedule.show", {"name": name})
    if found["state"] == "rests":
        raise Conflict(_RESTS.format(name))
    gone = [each["name"] for each in found["keepers"] if each["presence"] == "revoked"]
    if gone:
        context.say(f"{', '.join(gone)} is revoked, and keeps {name} no more")
    names = [
        each["name"]
        for each in found["keepers"]
        if each["name"] != context.on and each["presence"] != "revoked"
    ]
    made = replace(schedules.opened(found["signed"]), keepers=[context.on, *names], run="-")
    return _set(context, schedules.text_of(made), found["text"])


# --- in the daemon -------------------------------------------------------------------------------


class Files(Request, frozen=True):
    text: Annotated[str, Meta(max_length=BODY_BYTES_MAX), data()]
    spec: Annotated[str, Meta(max_length=BODY_BYTES_MAX), data()]


class Made(Struct, frozen=True):
    """What is to be signed."""

    name: str
    text: str
    keepers: list[str]


@verb("schedule.make", auth="local")
def make(core: Core, call: Call, ask: Files) -> Made:
    """A schedule as it would be signed: with its spec, its keepers' ids, and where its fence is.

    Raises whatever it could not begin with.
    """
    found = schedules.read(ask.text.encode())
    spec = checks.admit(ask.spec.encode(), fleet(core), repo="")
    if spec.pushes:
        raise Malformed(f"the spec {spec.name} is for a push; leave `on` out of it")
    keepers = [core.roster.find(each).machine for each in found.keepers]
    fence = found.fence
    if found.when.on is not None:
        # One machine alone hears of it first-hand.
        fence = OWNER
    elif fence == AUTO:
        fence = f"{REPO}{spec.repo}" if spec.repo else OWNER
    whole = replace(found, run=ask.spec, keepers=[str(each) for each in keepers], fence=fence)
    text = schedules.text_of(whole)
    schedules.opened(text)
    schedules.until_ms(whole, core.now.wall_ms)
    if len(text.encode()) > BODY_BYTES_MAX - 8 * 1024:
        raise Malformed("the schedule with its spec is too long for an entry; shorten the spec")
    return Made(whole.schedule, text, whole.keepers)


class Set(Request, frozen=True):
    name: Annotated[Name, data()]
    text: Annotated[str, Meta(max_length=BODY_BYTES_MAX), data()]
    keepers: Annotated[list[str], Meta(max_length=64), data()]
    statement: Annotated[str, data(unsigned=True)] = ""


class Done(Struct, frozen=True, kw_only=True):
    name: str
    did: str
    schedule: str
    owner: str | UnsetType = UNSET
    fence: str | UnsetType = UNSET
    alone: bool | UnsetType = UNSET
    on: str | UnsetType = UNSET
    next_ms: int | UnsetType = UNSET
    next_local: str | UnsetType = UNSET


@verb("schedule.set", auth="order", object="name", signs="schedule_statement")
def set_(core: Core, call: Call, ask: Set) -> Done:
    """Write down a schedule that an operator signed for the whole fleet."""
    body = ScheduleSet(ask.text, ask.statement)
    statement, schedule = schedule_order(body, core.membership.fleet)
    if schedule.schedule != ask.name or statement.operator != call.operator:
        raise Malformed("the standing order is about another schedule; use `muster schedule add`")
    there = slots.schedules(core)
    before = there.get(schedule.schedule)
    if before is None and len(there) >= SCHEDULES_MAX:
        raise Conflict(f"there are {SCHEDULES_MAX} schedules already; remove one")
    if before is not None and before.at(core.now.wall_ms).paused_ms:
        raise Conflict(_RESTS.format(schedule.schedule))
    if before is not None and before.statement.issued_ms >= statement.issued_ms:
        raise Conflict(f"a newer order about the schedule {schedule.schedule} is known here")
    call.write(body)
    ahead = occurrences.following(schedule.times, statement.issued_ms, 1)
    ahead = [slot for slot in ahead if slot <= statement.until_ms]
    return Done(
        name=schedule.schedule, did="added", schedule=schedules.id_of(ask.statement),
        owner=core.membership.name_of(MachineId(schedule.keepers[0])), fence=schedule.fence,
        alone=schedule.fence == OWNER and schedule.when.on is None,
        on=schedules.happens(schedule), next_ms=ahead[0] if ahead else 0,
        next_local=occurrences.local(schedule.times, ahead[0]) if ahead else "",
    )  # fmt: skip


class Stop(Request, frozen=True):
    name: Annotated[Name, data()]
    schedule: Annotated[str, Meta(max_length=64), data()]


class Pause(Stop, frozen=True):
    until_ms: Annotated[int, Meta(ge=0), data()] = 0


@verb("schedule.pause", auth="order", object="name")
def pause(core: Core, call: Call, ask: Pause) -> Done:
    """Let a schedule rest."""
    known(core, ask.name, ask.schedule)
    if 0 < ask.until_ms <= core.now.wall_ms:
        raise Malformed("`--until` is a moment that is over; write one that is ahead, as 8h")
    call.write(SchedulePause(ask.schedule, ask.name, call.statement, ask.until_ms))
    return Done(name=ask.name, did="paused", schedule=ask.schedule)


@verb("schedule.resume", auth="order", object="name")
def resume(core: Core, call: Call, ask: Stop) -> Done:
    """Let a schedule that rests go on; what was due meanwhile is skipped."""
    known(core, ask.name, ask.schedule)
    call.write(ScheduleResume(ask.schedule, ask.name, call.statement))
    return Done(name=ask.name, did="resumed", schedule=ask.schedule)


@verb("schedule.remove", auth="order", object="name")
def remove(core: Core, call: Call, ask: Stop) -> Done:
    """End a schedule for good."""
    known(core, ask.name, ask.schedule)
    call.write(ScheduleRemove(ask.schedule, ask.name, call.statement))
    return Done(name=ask.name, did="removed", schedule=ask.schedule)


class Meant(Request, frozen=True, forbid_unknown_fields=False):
    what: Annotated[str, Meta(max_length=200), data()]


class Found(Struct, frozen=True):
    name: str
    schedule: str


@verb("schedule.check", auth="local")
def check(core: Core, call: Call, ask: Meant) -> Found:
    """Which schedule is meant."""
    each = known(core, ask.what)
    return Found(each.row.name, each.id)


def known(core: Core, name: str, id: str = "") -> Known:
    """Raises: NotFound, Conflict."""
    found = slots.schedules(core)
    each = found.get(name)
    if each is None:
        names = ", ".join(found) or "none"
        raise NotFound(
            f"there is no schedule {check_nameable(name, 'a schedule')}; there are: {names}"
        )
    if id and each.id != id:
        raise Conflict(f"the schedule {name} was changed meanwhile; give the order again")
    return each
