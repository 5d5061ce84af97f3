"""What is granted, and what can be: for people to read."""

from typing import Annotated

from msgspec import UNSET, Struct, UnsetType

from muster.errors import MusterError
from muster.fleet.grant import Bounds, Given
from muster.verbs.declaration import Call, Core, Request, opt, verb
from muster.verbs.grant import (
    FLEET_VERBS,
    MACHINE_VERBS,
    OF_MACHINE,
    check_right,
    key_verbs,
    sort_of,
)


class Grants(Request, frozen=True):
    verbs: Annotated[bool, opt("what can be granted, and what the object of each is")] = False


class Grantable(Struct, frozen=True):
    verb: str
    object: str
    to: str


class Held(Struct, frozen=True):
    """A grant that stands, in words; `no_effect` says why it has none."""

    id: str
    to: str
    sort: str
    verb: str
    object: str
    until_ms: int
    by: str
    no_effect: str
    bounds: Bounds | UnsetType = UNSET


class Listed(Struct, frozen=True):
    grants: list[Held] | UnsetType = UNSET
    verbs: list[Grantable] | UnsetType = UNSET


@verb("grants", names="id", rows="grants", auth="local", group="The fleet", harmless=True)
def grants(core: Core, call: Call, ask: Grants) -> Listed:
    """Every grant that stands, and what can be granted.

    muster grants --verbs
    """
    if ask.verbs:
        table = [Grantable(verb, object, "key") for verb, object in sorted(key_verbs().items())]
        table += [Grantable(verb, object, "machine") for verb, object in MACHINE_VERBS.items()]
        table += [Grantable(verb, object, "fleet") for verb, object in FLEET_VERBS.items()]
        return Listed(verbs=table)
    given = [g for g in core.roster.grants if g.giver and g.grant.to not in core.roster.devices]
    return Listed(grants=[_shown(core, each) for each in given])


def _shown(core: Core, given: Given) -> Held:
    sort, to = sort_of(core, given.grant.to), given.grant.to
    effect = ""
    try:
        check_right(given.grant.verb, given.grant.object, sort)
    except MusterError as error:
        effect = str(error)
    if core.now.wall_ms > given.grant.until_ms:
        effect = "it has ended"
    agent, _, machine = to.rpartition("@")
    names = {
        "machine": lambda: core.membership.name_of(to),
        "agent": lambda: f"{agent}@{core.membership.name_of(machine)}",
        "operator": lambda: core.roster.speaker(to),
        "fleet": lambda: core.roster.called(to).removeprefix("fleet "),
    }
    object = given.grant.object
    if given.grant.verb in OF_MACHINE or sort == "fleet":
        object = core.roster.called_object(object)
    return Held(
        id=given.id,
        to=names.get(sort, lambda: to)(),
        sort=sort,
        verb=given.grant.verb,
        object=object,
        until_ms=given.grant.until_ms,
        by=core.roster.speaker(given.giver),
        no_effect=effect,
        bounds=given.grant.bounds or UNSET,
    )
