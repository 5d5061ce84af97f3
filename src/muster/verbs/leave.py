"""How a machine leaves its fleet in order.

Rule 1: what only it keeps is named before anything is done, and is reason enough to stay.
Rule 2: it takes no new task, and ends what it works on; with `now` the others take that over.
Rule 3: the authority says that it left. That is a revocation of its own reason: its key never
counts again, and nobody takes it for a machine that was lost or stolen.
Rule 4: its home is set aside and not deleted, and last: until then the same command goes on.
"""

import asyncio
from collections.abc import Iterator
from typing import Annotated

from msgspec import UNSET, Struct, UnsetType

from muster.errors import Denied, NotFound, Refused, Unreachable
from muster.fleet.machine import Operator
from muster.fleet.named import meant
from muster.fleet.record import LEFT
from muster.limits import LEAVING_GRACE_S, LEAVING_RECEIPTS_S
from muster.log.stream import MachineId
from muster.node.host import service
from muster.node.services.messages import held_size
from muster.node.services.tail import Tail
from muster.node.tasks.ended_work import OPEN
from muster.node.tasks.ownership import Ownership
from muster.node.tasks.worker import WorkerService
from muster.task.fold import RUN, TASK
from muster.verbs.daemon import end
from muster.verbs.declaration import (
    Call,
    Context,
    Core,
    Daemon,
    Perform,
    Request,
    Stream,
    data,
    opt,
    pos,
    verb,
)
from muster.verbs.revoke import Revoked, authority_of, shut_out
from muster.verbs.service import remove

_NAMED_MAX = 6


class Left(Struct, frozen=True):
    """Who left; where its home lies now, "" where that is another machine's to do.

    `told` is false where no other machine heard of it.
    """

    left: str
    told: bool
    home: str
    service: str | UnsetType = UNSET


def leave(context: Context, name: str, *, now: bool, force: bool) -> Left:
    """Let a machine leave: all of it where it is this one, else what others can do of it."""
    goer = context.ask("machine.leaving", {"machine": name, "force": force})
    here, kept = goer["here"], service.everywhere(context.home) if goer["here"] else []
    for each in kept:
        _check_service(each)
    told = not goer["member"]
    if goer["member"]:
        try:
            told = _tell(context, goer, now=now, force=force)
        except (Denied, NotFound, Unreachable) as error:
            if not (here and force):
                raise
            context.say(f"nobody else hears of it: {error}")
    if not here:
        return Left(goer["name"], told, "")
    for each in kept:
        remove(context, each)
    end(context)
    if context.home.has_seed("operator.seed"):
        context.say(
            "operator.seed in the home that is set aside still orders: "
            "`muster operator revoke NAME` elsewhere ends that"
        )
    aside = context.home.set_aside()
    return Left(goer["name"], told, str(aside), kept[0].service.name if kept else UNSET)


def _check_service(kept: service.Manager) -> None:
    """What only root can take away is said before anything is done. Raises: Denied."""
    try:
        kept.check("remove")
    except Denied as error:
        again = "then `muster up --detach`, and `muster machine leave` again"
        raise Denied(f"{error}; {again}") from error
    except NotFound:
        # Its file came here with a folder, and goes with the rest.
        return


def _tell(context: Context, goer: dict[str, str], *, now: bool, force: bool) -> bool:
    """Let it end its work, then let the authority say that it left; whether that could say so."""
    name, here = goer["name"], bool(goer["here"])
    if here and not context.home.has_seed("operator.seed"):
        raise Denied(
            f"only an operator lets a machine leave: type `muster machine leave {name}` where "
            "operator.seed is, then `muster machine leave` here"
        )
    by = context.ask("target", {"verb": "machine.left", "object": name})
    if by["machine"] == goer["machine"]:
        return False
    args = {"by": by["machine"], "now": now, "force": force}
    for each in context.stream("machine.drain", args, on="" if here else name):
        if each["works"]:
            context.say(
                f"{name} takes no new task, and ends {each['works']} that it works on; "
                "Ctrl-C and `--now` gives them to others"
            )
    context.ask("machine.left", {"machine": goer["machine"]})
    return True


class Leaving(Request, frozen=True):
    machine: Annotated[str, pos("the machine; this one where none is named")] = ""
    force: Annotated[bool, opt("also where only it keeps something")] = False


class Goer(Struct, frozen=True):
    """Who is meant: whether it is this machine, and a member still."""

    name: str
    machine: str
    here: bool
    member: bool


@verb("machine.leaving", auth="local", runs="async")
async def leaving(daemon: Daemon, call: Perform, ask: Leaving) -> Goer:
    """Who is to leave. Refuses where only it keeps something."""
    goer = _goer(daemon.core, ask.machine)
    if goer.member and not ask.force:
        _check(daemon.core, goer.machine, _operator_here(daemon) if goer.here else "")
    return goer


@verb("machine.losing", auth="local", runs="async")
async def losing(daemon: Daemon, call: Perform, ask: Leaving) -> Goer | None:
    """Who is lost to the fleet; nothing where it is a member no more. Refuses as `leaving`."""
    goer = await leaving(daemon, call, ask)
    return goer if goer.member else None


def _goer(core: Core, text: str) -> Goer:
    machine = core.machine
    if text not in ("", core.name, machine):
        machine = MachineId(meant(core.roster, text, "machine").key)
    member = machine in core.roster.machines
    return Goer(core.membership.name_of(machine), machine, machine == core.machine, member)


def _check(core: Core, machine: str, key: str = "") -> None:
    """Raises: Refused where only this machine keeps something, as far as is known here."""
    if found := [*_kept_alone(core, MachineId(machine)), *([key] if key else [])]:
        name = core.membership.name_of(MachineId(machine))
        raise Refused(f"only {name} has {'; '.join(found)}; `--force` leaves all the same")


def _kept_alone(core: Core, machine: MachineId) -> Iterator[str]:
    """What would be lost with a machine, each with what keeps it."""
    roster, known = core.roster, core.roster.facts
    others = {m for m in roster.machines if m != machine}
    elsewhere = {name for m in others & known.keys() for name in known[m].repositories}
    mine = known[machine].repositories if machine in known else ()
    if alone := sorted(set(mine) - elsewhere):
        yield f"the repositories {_some(alone)} (`muster repo add` on another machine)"
    if [hub.machine for hub in roster.hubs()] == [machine]:
        yield "the role hub (`muster role NAME hub` gives it to another machine)"
    owner = core.part(Ownership).owner
    if machine == core.machine and core.authority is not None:
        yield ("authority.seed, as far as it knows (bring it to another machine's home, move it "
               "away here, then `muster down` and `muster up`)")  # fmt: skip
    runs = [row for row in core.tables.rows(RUN, writer=machine, state="open")
            if owner(RUN, row.run) == machine]  # fmt: skip
    if runs:
        named = _some([f"{row.name} ({row.run[:12]})" for row in runs])
        yield f"the open runs {named} (`muster await` or `muster cancel`)"
    tasks = [row.task[:12] for state in sorted(OPEN) for row in
             core.tables.rows(TASK, writer=machine, state=state)
             if not row.run and owner(TASK, row.task) == machine]  # fmt: skip
    if tasks:
        yield f"the open tasks {_some(tasks)} (`muster await` or `muster cancel`)"


def _operator_here(daemon: Daemon) -> str:
    operators = daemon.core.roster.operators
    if not daemon.home.has_seed("operator.seed") or len(operators) != 1:
        return ""
    # A key that lies here may be of somebody who orders nothing yet, or no more.
    known = operators.get(Operator(daemon.home.seed("operator.seed")).key)
    if known is None:
        return ""
    return f"the key of {known.name}, the only operator (`muster operator add` adds another)"


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED_MAX
    return ", ".join(names[:_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


class Drain(Request, frozen=True):
    by: Annotated[str, data()]
    now: Annotated[bool, data()] = False
    force: Annotated[bool, data()] = False


class Drained(Struct, frozen=True):
    """How many attempts it works on still."""

    works: int


@verb("machine.drain", auth="order", runs="stream", operators_only=True, on="one", followed=True)
async def drain(daemon: Daemon, call: Perform, stream: Stream, ask: Drain) -> Drained:
    """Take no new task, and answer when none is left and the machine `by` has all that we wrote.

    Whoever gives up before has it take tasks again, unless somebody else drains it.
    """
    core, worker, told = daemon.core, daemon.core.part(WorkerService), 0
    if not ask.force:
        _check(core, core.machine, _operator_here(daemon))
    drained, this = False, object()
    worker.drains.add(this)
    try:
        with core.part(Tail).moves(lambda: stream.tell_later("moved")):
            while not ask.now and (works := sum(worker.worker.statistics().values())):
                if works != told:
                    await stream.tell(Drained(works))
                told = works
                await stream.hear()
            await _receipted(core, stream, MachineId(ask.by))
        drained = True
        return Drained(0)
    finally:
        if drained:
            # Whoever asked has this long to have the authority say it.
            loop = asyncio.get_running_loop()
            loop.call_later(LEAVING_GRACE_S, worker.drains.discard, this)
        else:
            worker.drains.discard(this)


async def _receipted(core: Core, stream: Stream, by: MachineId) -> None:
    """What a machine wrote counts only as far as the one that lets it go knows it.

    Raises: Unreachable where that does not hold all of it in time.
    """
    me, incarnation = core.machine, core.membership.incarnation
    mine = {
        s: core.log.size(s)
        for s in core.log.streams()
        if (s.machine, s.incarnation) == (me, incarnation) and core.roster.may_hold(s, by)
    }
    stops = [
        core.replication.awaited.when_held(each, size, {by}, lambda: stream.tell_later("held"))
        for each, size in mine.items()
    ]
    now = asyncio.get_running_loop().time
    end_s = now() + LEAVING_RECEIPTS_S
    try:
        while any(held_size(core, each)(by) < size for each, size in mine.items()):
            if now() >= end_s:
                raise Unreachable(
                    f"{core.membership.name_of(by)} does not hold yet all that {core.name} wrote: "
                    "`muster machines` shows whether it is linked; nothing was changed"
                )
            await stream.hear(end_s - now())
    finally:
        for stop in stops:
            stop()


class Gone(Request, frozen=True):
    machine: Annotated[str, data()]


@verb("machine.left", auth="order", object="machine", target="authority", operators_only=True)
def left(core: Core, call: Call, ask: Gone) -> Revoked:
    """Say that a machine left: its key counts no more, and its name is free."""
    authority_of(core)
    return shut_out(core, call, meant(core.roster, ask.machine, "machine"), reason=LEFT)
