"""Verbs about the machines of the fleet, as this one sees them, and what they are called.

Rule: a name is the machine's own word and the authority's: the machine signs that it is called so,
then the authority writes its next record. So it must be up, and a name is never put upon it.
"""

from collections.abc import Iterable
from typing import Annotated, Final, Literal

from msgspec import UNSET, Struct, UnsetType

from muster import limits
from muster.errors import Conflict, Malformed, Refused
from muster.fleet.facts import Facts
from muster.fleet.name import check_name
from muster.fleet.named import meant, taken
from muster.fleet.record import open_binding, sign_binding
from muster.log.stream import MachineId
from muster.node.exposed import Exposed
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.link import Tried
from muster.node.services.knocking import Knocking
from muster.node.services.presence import heard_ms_ago, presence
from muster.node.tasks.standins import standins
from muster.node.verb import Line, Loss
from muster.task.spec import check_nameable
from muster.verbs.declaration import (
    Call,
    Context,
    Core,
    Daemon,
    Nothing,
    Perform,
    Request,
    Words,
    data,
    opt,
    pos,
    verb,
)
from muster.verbs.leave import Left, leave
from muster.verbs.pause import Rest, rest_of
from muster.verbs.revoke import authority_of
from muster.verbs.role import write_record


class Machine(Struct, frozen=True, kw_only=True):
    """A machine of the fleet; `streams` is how much of ours it has receipted, by scope.

    What is known of a link is there while there is one; `heard_ms_ago` also of who is away. `ways`
    are tried in this order while there is none.
    """

    name: str
    machine: str
    roles: tuple[str, ...]
    state: str
    facts: Facts | None
    streams: dict[str, int]
    ways: list[Tried] = []
    channel: str | UnsetType = UNSET
    heard_ms_ago: int | UnsetType = UNSET
    skew_ms: int | UnsetType = UNSET
    muster: str | UnsetType = UNSET
    features: list[str] | UnsetType = UNSET
    through: str | UnsetType = UNSET
    # Who goes on with its work when it is gone.
    stand_in: str | UnsetType = UNSET
    # Of what is `revoked`: whether it left in order.
    left: bool | UnsetType = UNSET
    # Of this machine: where others can dial it now, and who can.
    listens: list[Exposed] | UnsetType = UNSET
    # Of another: whether it knocks, as it said; for one that does not strangers are heard, too.
    knocks: bool | UnsetType = UNSET
    # Of one that takes no work for now.
    rest: Rest | UnsetType = UNSET


@verb(
    "machines", watches=("machine", "link"), names="name", auth="local", group="The fleet",
    harmless=True,
)  # fmt: skip
def machines(core: Core, call: Call, ask: Nothing) -> list[Machine]:
    """Every machine of the fleet, and how it is.

    muster machines
    """
    known, gone, answer = core.roster.known, core.roster.revoked, []
    # Our entries that each has receipted, per scope.
    held: dict[str, dict[str, int]] = {}
    for stream in core.log.streams():
        if stream.machine == core.machine and stream.incarnation == core.membership.incarnation:
            for cosign in core.log.cosigns(stream):
                if cosign.strength == "held":
                    scope = stream.scope.partition(".")[0]
                    held.setdefault(cosign.machine, {})[scope] = cosign.size
    stood_in, silent = standins(core), core.part(Knocking).lacking()
    others, name_of = core.roster.machines.keys() - {core.machine}, core.membership.name_of
    for machine in sorted(known, key=lambda m: known[m].name):
        by = stood_in.get(machine)
        number = core.link_to(machine)
        link = None if number is None else core.links[number]
        heard = heard_ms_ago(core, machine) if link is None else core.now.boot_ms - link.heard_ms
        answer.append(
            Machine(
                name=known[machine].name,
                machine=machine,
                roles=known[machine].roles,
                state=presence(core, machine),
                facts=core.roster.facts.get(machine),
                streams=held.get(machine, {}),
                ways=core.ways_to(machine),
                heard_ms_ago=UNSET if heard is None else heard,
                channel=link.channel if link else UNSET,
                skew_ms=link.skew_ms if link else UNSET,
                muster=link.version if link else UNSET,
                features=sorted(link.features) if link else UNSET,
                through=core.membership.name_of(link.through) if link and link.through else UNSET,
                stand_in=" or ".join(map(name_of, map(MachineId, by.named))) if by else UNSET,
                left=True if machine in gone and gone[machine].left else UNSET,
                listens=core.exposed() if machine == core.machine else UNSET,
                knocks=machine not in silent if machine in others else UNSET,
                rest=rest_of(core.roster.facts.get(machine)) or UNSET,
            )
        )
    return answer


@verb("facts", auth="local")
def facts(core: Core, call: Call, ask: Nothing) -> Facts | None:
    """What this machine says about itself."""
    return core.roster.facts.get(core.machine)


_NAMING: Final = ("rename", "relabel")


class Action(Request, frozen=True):
    action: Annotated[
        Literal["rename", "relabel", "leave"],
        pos("rename; relabel: change its labels; leave: be no member any more"),
    ]
    machine: Annotated[
        str,
        pos("the machine; to leave, this one where none is named", kind="machine", needed=_NAMING),
    ] = ""
    to: Annotated[
        Words,
        pos(
            "its new name; of labels +NAME adds, -NAME takes away, NAME alone replaces all",
            actions=_NAMING,
            needed=_NAMING,
            minus=("relabel",),
        ),
    ] = ()
    now: Annotated[
        bool, opt("give what it works on to others, and do not wait for it", actions=("leave",))
    ] = False
    force: Annotated[
        bool, opt("also where only it keeps something, or nobody hears of it", actions=("leave",))
    ] = False


class Called(Struct, frozen=True):
    """What a machine is called from now on, or what its labels are."""

    name: str
    was: str | UnsetType = UNSET
    labels: list[str] | UnsetType = UNSET


@verb(
    "machine", auth="local", runs="client", group="The fleet", on="none",
    says=(
        Line("{was} is {name} from now on.", "was"),
        Line("{name} has the labels {labels}.", "labels"),
        Line("{name} has no labels.", "name !labels !was"),
        Line("{left} left the fleet: its key never counts again.", "left told"),
        Line("{left} leaves, and no other machine heard of it: `muster revoke {left}` where "
             "authority.seed is says it.", "left !told"),
        Line("Its service {service} is gone.", "service"),
        Line("Its home is set aside: {home}; `muster join` makes a new machine here.", "home"),
        Line("There, `muster machine leave` ends its daemon and sets its home aside.",
             "left !home"),
    ),
    destroys=(
        Loss("{name} leaves the fleet for good: its key never counts again", when="action=leave",
             asks="machine.losing"),
    ),
)  # fmt: skip
def machine(context: Context, ask: Action) -> Called | Left:
    """Give a machine another name or other labels, or let it leave the fleet.

    It must be up. What was written of it before is shown under its new name; specs and addresses
    that name it are yours to change. One that leaves ends what it works on first; what only it
    keeps is named, and it stays.

        muster machine rename build forge
        muster machine relabel forge +gpu -tests
        muster machine relabel laptop portable    # and nothing else
        muster machine leave laptop
    """
    if ask.action == "leave":
        return leave(context, ask.machine, now=ask.now, force=ask.force)
    name = str(context.ask("machine.meant", {"name": ask.machine})["name"])
    if ask.action == "relabel":
        add, take, only = _signs(ask.to)
        answer = context.ask("machine.labels", {"add": add, "take": take, "only": only}, on=name)
        return Called(name, labels=answer["labels"])
    if len(ask.to) != 1 or not ask.to[0].strip():
        raise Malformed("a machine has one name: `muster machine rename OLD NEW`")
    # What the authority would refuse is refused before the machine gives its word.
    free = context.ask("machine.meant", {"name": name, "to": ask.to[0]})
    bound = context.ask("machine.bind", {"name": ask.to[0]}, on=name)["binding"]
    context.ask("machine.rename", {"machine": free["machine"], "binding": bound})
    return Called(ask.to[0], was=name)


def _signs(words: Iterable[str]) -> tuple[list[str], list[str], list[str]]:
    """Labels to add, to take away, and the only ones there are to be. Raises: Malformed."""
    add = [word[1:] for word in words if word.startswith("+")]
    take = [word.strip("-") for word in words if word.startswith("-") or word.endswith("-")]
    only = [word for word in words if not word.startswith(("+", "-")) and not word.endswith("-")]
    if only and (add or take):
        raise Malformed("either +NAME and NAME- change the labels, or names alone replace them")
    return add, take, only


class Meant(Request, frozen=True):
    name: Annotated[str, data()] = ""
    to: Annotated[str, data()] = ""


class Found(Struct, frozen=True):
    name: str
    machine: str


@verb("machine.meant", auth="local")
def find(core: Core, call: Call, ask: Meant) -> Found:
    """Which machine is meant, and whether it can be called `to`."""
    found = meant(core.roster, ask.name, "machine")
    if ask.to:
        _check_free(core, found.key, ask.to)
    return Found(found.name, found.key)


def _check_free(core: Core, machine: str, name: str) -> None:
    """Raises: Malformed, Conflict where a machine cannot be called so."""
    check_nameable(check_name(name, "The name"), "The name")
    other = taken(core.roster, name)
    if other is not None:
        whose = "it has this name already" if other.key == machine else f"{other} has this name"
        raise Conflict(f"{whose}: choose another one; nothing was changed")


class Bind(Request, frozen=True):
    name: Annotated[str, pos("the new name")]


class Bound(Struct, frozen=True):
    binding: str


@verb("machine.bind", auth="order", runs="async", object="name", naming=True, operators_only=True,
      on="one")  # fmt: skip
async def bind(daemon: Daemon, call: Perform, ask: Bind) -> Bound:
    """This machine's own word that it is called so: with the same keys, for the authority."""
    _check_free(daemon.core, daemon.core.machine, ask.name)
    fleet = daemon.core.membership.fleet
    return Bound(sign_binding(daemon.machine.identity, fleet, ask.name).decode())


class Rename(Request, frozen=True):
    machine: Annotated[str, pos("the id of the machine")]
    binding: Annotated[str, opt("what it signed")]


@verb("machine.rename", auth="order", object="machine", target="authority", operators_only=True)
def rename(core: Core, call: Call, ask: Rename) -> Found:
    """Write the next record of a machine, over the same keys and under the name that it signed."""
    authority_of(core)
    record = core.roster.machine(ask.machine)
    binding = open_binding(ask.binding.encode(), core.membership.fleet)
    if (binding.machine, binding.keys) != (record.machine, record.keys):
        raise Refused(f"what was signed is not of {record.name} and its keys; nothing was changed")
    _check_free(core, record.machine, binding.name)
    write_record(core, call, record, ask.binding.encode(), record.roles)
    return Found(binding.name, record.machine)


class Relabel(Request, frozen=True):
    add: Annotated[Words, data()] = ()
    take: Annotated[Words, data()] = ()
    only: Annotated[Words, data()] = ()


class Labelled(Struct, frozen=True):
    labels: tuple[str, ...]


@verb("machine.labels", auth="order", runs="async", operators_only=True, on="one")
async def labels(daemon: Daemon, call: Perform, ask: Relabel) -> Labelled:
    """Change this machine's labels, in its config.toml and for the routing of every machine."""
    there = daemon.machine.config.labels
    for label in (*ask.add, *ask.only):
        check_nameable(label, "The label")
    if missing := [label for label in ask.take if label not in there]:
        raise Refused(f"{daemon.core.name} has no label {missing[0][:60]!r}; it has: "
                      f"{', '.join(there) or 'none'}")  # fmt: skip
    kept = ask.only or [each for each in (*there, *ask.add) if each not in ask.take]
    fresh = tuple(dict.fromkeys(kept))
    if len(fresh) > limits.FLEET_LIST_MAX:
        raise Refused(f"a machine has at most {limits.FLEET_LIST_MAX} labels")
    daemon.machine.set_labels(fresh)
    # Before the answer: an order that is typed next is routed by them.
    daemon.post(FactsChanged(await daemon.effects.facts()))
    return Labelled(fresh)
