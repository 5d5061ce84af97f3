"""Verbs about the machines of the fleet, as this one sees them."""

from msgspec import UNSET, Struct, UnsetType

from muster.fleet.facts import Facts
from muster.node.link import Tried
from muster.node.services.presence import heard_ms_ago, presence
from muster.verbs.declaration import Call, Core, Nothing, verb


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


@verb("machines", names="name", auth="local", group="The fleet", harmless=True)
def machines(core: Core, call: Call, ask: Nothing) -> list[Machine]:
    """Every machine of the fleet, and how it is.

    muster machines
    """
    known, answer = core.roster.known, []
    # Our entries that each has receipted, per scope.
    held: dict[str, dict[str, int]] = {}
    for stream in core.log.streams():
        if stream.machine == core.machine and stream.incarnation == core.membership.incarnation:
            for cosign in core.log.cosigns(stream):
                if cosign.strength == "held":
                    scope = stream.scope.partition(".")[0]
                    held.setdefault(cosign.machine, {})[scope] = cosign.size
    for machine in sorted(known, key=lambda m: known[m].name):
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
            )
        )
    return answer


@verb("facts", auth="local")
def facts(core: Core, call: Call, ask: Nothing) -> Facts | None:
    """What this machine says about itself."""
    return core.roster.facts.get(core.machine)
