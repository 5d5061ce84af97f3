"""The work of a machine that is gone goes on at another one, by an operator's order.

Rule: whose work it is, is said by the machine's id: a name may be another machine's one day, and
every machine reads this order as long as the work goes on.
"""

from typing import Annotated

from msgspec import Struct

from muster.errors import Conflict, Refused
from muster.fleet.named import meant
from muster.fleet.statement import open_statement
from muster.limits import FLEET_LIST_MAX
from muster.log.stream import MachineId
from muster.node.tasks.adoption import Adoptions
from muster.node.verb import Line, Loss
from muster.verbs.declaration import Call, Core, Request, pos, verb


class Whose(Request, frozen=True):
    machine: Annotated[str, pos("the machine that is gone", kind="machine")]


class Found(Struct, frozen=True):
    """Whose work it is, and how much of it could go on, by what this machine knows."""

    name: str
    machine: str
    runs: int
    tasks: int


class Left(Struct, frozen=True):
    """A run or task that stays as it is, and why."""

    id: str
    reason: str


class Taken(Struct, frozen=True):
    """What goes on here; what may be under way still follows within so many seconds."""

    name: str
    here: str
    runs: list[str]
    tasks: list[str]
    within_s: int
    left: list[Left]


@verb(
    "takeover", auth="order", group="The fleet", object="machine", operators_only=True, on="one",
    signs="takeover_args",
    destroys=(
        Loss("what is open of {name} ({runs} runs, {tasks} tasks) goes on elsewhere, and is not "
             "{name}'s any more when it is back", asks="takeover.check"),
    ),
    says=(
        Line("{here} goes on with the open work of {name}, within {within_s} s: nobody knows "
             "sooner that what was under way has ended.", "within_s"),
        Line("{here} goes on with the open work of {name}.", "!within_s"),
    ),
    then=(Line("`muster runs` shows it; `muster why RUN` shows how each task stands"),),
)  # fmt: skip
def takeover(core: Core, call: Call, ask: Whose) -> Taken:
    """Let the open work of a machine that is gone go on here, for good: it obeys when it is back.

    muster takeover build
    """
    found, part = _whose(core, ask.machine), core.part(Adoptions)
    until_ms = open_statement(call.statement.encode(), core.membership.fleet).until_ms
    part.begin(MachineId(found.machine), call.cites[-1], until_ms)
    work = part.work(found.machine)
    left = sorted(work.left.items())[:FLEET_LIST_MAX]
    return Taken(
        found.name,
        core.name,
        [row.run for row in work.runs[:FLEET_LIST_MAX]],
        [row.task for row in work.tasks[:FLEET_LIST_MAX]],
        part.within_ms(work) // 1000,
        [Left(name, why) for name, why in left],
    )


@verb("takeover.check", auth="local")
def check(core: Core, call: Call, ask: Whose) -> Found:
    """Whose work it is, and whether taking it over would be refused."""
    return _whose(core, ask.machine)


def _whose(core: Core, text: str) -> Found:
    """Raises: NotFound, Denied, Conflict; Refused where the machine is linked."""
    machine = MachineId(meant(core.roster, text, "machine").key)
    name = core.membership.name_of(machine)
    if machine == core.machine:
        raise Conflict(f"{name} does its own work: name the machine that is gone")
    if core.settings.get("visiting"):
        raise Conflict(f"{core.name} runs for a visit alone: `muster up` there first")
    if core.link_to(machine) is not None:
        raise Refused(
            f"{name} is linked to {core.name} and does its own work: `muster down` there first, "
            f"or `muster cancel` what it is not to do"
        )
    work = core.part(Adoptions).work(machine)
    return Found(name, machine, len(work.runs), len(work.tasks))
