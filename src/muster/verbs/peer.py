"""Verbs about other operators' fleets: exchange cards once, and what machines of theirs may ask.

Rule 1: both operators take in the other's card, after they compared the fleets' ids. That lets in
nobody to anything: what they may ask, `muster grant fleet:NAME` says.
Rule 2: a verb that says `foreign` is asked over a link of another fleet alone, and answers it with
nothing but what that fleet brought itself.
"""

from typing import Annotated, Any, Literal

from msgspec import Struct, field

from muster.channel import FIRST
from muster.errors import Conflict, Malformed, NotFound
from muster.fleet import kinds
from muster.fleet.name import check_name
from muster.fleet.peer import Door, fingerprint, read_card, write_card
from muster.limits import MESSAGES_SHOWN_MAX, PEER_DOORS_MAX, PEERS_MAX
from muster.log.stream import MachineId
from muster.node.services.letters import Letters, Waiting
from muster.node.services.peer_asks import PeerAsks
from muster.node.verb import Column, Later, Line, Loss
from muster.verbs.declaration import (
    Call,
    Context,
    Core,
    Nothing,
    Request,
    Words,
    data,
    opt,
    pos,
    verb,
)

_ADD = ("add",)
_CARD = ("card",)


class Action(Request, frozen=True):
    action: Annotated[
        Literal["card", "add", "list", "remove"],
        pos("card (what the other operator takes in), add, list, or remove"),
    ]
    what: Annotated[
        str,
        pos("the card to add, or the fleet to remove", actions=("add", "remove"),
            needed=("add", "remove")),
    ] = ""  # fmt: skip
    as_: Annotated[str, opt("what it is called here", actions=_ADD)] = field(name="as", default="")
    door: Annotated[
        Words, opt("a machine that the card names; else all that listen", actions=_CARD)
    ] = ()


@verb(
    "peer", names="name", auth="local", runs="client", group="The fleet", rows="rows",
    columns=(
        Column("name", form="bold"), Column("doors", form="words"), Column("waiting"),
        Column("last"), Column("fleet", form="id", rank=1),
    ),
    nothing="No other fleet is taken in; `muster peer card` prints what its operator takes in.",
    says=(
        Line("{card}", "card"),
        Line("Fleet {added} is taken in (id {fleet:id}…). Nothing goes either way before its "
             "operator took in this one; what it may ask, `muster grant fleet:{added}` says.",
             "added"),
        Line("Fleet {removed} is removed: nothing of it is answered or taken any more.", "removed"),
    ),
    destroys=(
        Loss("machines of the fleet with this id may dial here, and ask what is granted to it. "
             "Compare it with what its operator reads on `muster peer card`:\n  {fingerprint}",
             when="action=add", asks="peer.check card=what name=as"),
        Loss("links of fleet {name} are cut, and nothing of it is answered or taken any more",
             when="action=remove", asks="peer.find name=what"),
    ),
)  # fmt: skip
def peer(context: Context, ask: Action) -> Any:
    """Deal with another operator's fleet: exchange cards, list, remove.

    muster peer card    # prints a string; the other operator takes it in
    muster peer add CARD --as acme
    muster peer list
    """
    if ask.action == "list":
        return {"rows": context.ask("peers", {})}
    if ask.action == "card":
        own = context.ask("peer.card", {"door": list(ask.door)})
        context.say(f"This fleet's id, to be compared:\n  {own['fingerprint']}", whole=True)
        return own
    if ask.action == "add":
        found = context.ask("peer.check", {"card": ask.what, "name": ask.as_})
        args = {"card": found["card"], "fleet": found["fleet"], "name": ask.as_}
        return context.ask("peer.add", args, on=context.on)
    fleet = context.ask("peer.find", {"name": ask.what})["fleet"]
    return context.ask("peer.remove", {"fleet": fleet}, on=context.on)


class Doors(Request, frozen=True):
    door: Annotated[Words, data()] = ()


class Own(Struct, frozen=True):
    """This fleet's card, and its id as people compare it."""

    card: str
    fingerprint: str


@verb("peer.card", auth="local")
def card(core: Core, call: Call, ask: Doors) -> Own:
    """What another operator takes in of this fleet."""
    wanted = {core.roster.find(name).machine for name in ask.door}
    found = [door for machine in _doors(core) for door in [_door(core, machine)] if door.address]
    doors = [door for door in found if not wanted or door.machine in wanted][:PEER_DOORS_MAX]
    if not doors:
        raise NotFound(
            "no machine says of an address that it is reached there: set `listen` of one in its "
            "config.toml, and restart it"
        )
    text = write_card(core.membership.fleet, str(core.settings.get("ca") or ""), doors)
    return Own(text, fingerprint(core.membership.fleet))


def _doors(core: Core) -> list[MachineId]:
    """The machines of this fleet, hubs first."""
    return sorted(
        core.roster.machines, key=lambda m: ("hub" not in core.roster.machines[m].roles, m)
    )


def _door(core: Core, machine: MachineId) -> Door:
    facts = core.roster.facts.get(machine)
    ways = [way.address for way in facts.reach if way.channel == FIRST] if facts else []
    if facts is not None and facts.address:
        ways.append(facts.address)
    if machine == core.machine and not ways:
        ways.append(str(core.settings.get("address") or ""))
    return Door((ways or [""])[0], machine, core.roster.machines[machine].name)


class Taken(Request, frozen=True):
    card: Annotated[str, pos("the card")]
    name: Annotated[str, pos("what the fleet is called here")]


class Found(Struct, frozen=True):
    """What a card says, before it is taken in."""

    card: str
    fleet: str
    name: str
    fingerprint: str
    doors: list[str]


@verb("peer.check", auth="local")
def check(core: Core, call: Call, ask: Taken) -> Found:
    """Whose card it is, and whether it would be refused."""
    if not ask.name:
        raise Malformed("what is that fleet called here? Say it with --as NAME")
    check_name(ask.name, "The fleet's name")
    own = "".join(ask.card.split())
    found = read_card(own)
    if found.fleet == core.membership.fleet:
        raise Conflict("this is the card of this very fleet: take in the other operator's")
    for fleet, known in core.roster.peers.items():
        if known.name == ask.name and fleet != found.fleet:
            raise Conflict(f"another fleet is called {ask.name} already: choose another name")
    if found.fleet not in core.roster.peers and len(core.roster.peers) >= PEERS_MAX:
        raise Conflict(f"a fleet deals with at most {PEERS_MAX} others: remove one")
    names = [door.name for door in found.doors]
    return Found(own, found.fleet, ask.name, fingerprint(found.fleet), names)


class Add(Taken, frozen=True):
    fleet: Annotated[str, pos("its id")]


class Added(Struct, frozen=True):
    added: str
    fleet: str


@verb("peer.add", auth="order", object="fleet", operators_only=True)
def add(core: Core, call: Call, ask: Add) -> Added:
    """Take another fleet in under a name."""
    found = check(core, call, Taken(card=ask.card, name=ask.name))
    if (found.fleet, found.card) != (ask.fleet, ask.card):
        raise Malformed("the card is another fleet's than the order says")
    call.write(kinds.FleetPeered(ask.card, ask.fleet, ask.name, call.statement))
    return Added(ask.name, ask.fleet)


class Name(Request, frozen=True):
    name: Annotated[str, pos("its name here, or its id")]


class Meant(Struct, frozen=True):
    name: str
    fleet: str


@verb("peer.find", auth="local")
def find(core: Core, call: Call, ask: Name) -> Meant:
    """Which fleet is called so."""
    fleet, known = core.roster.peer(ask.name)
    return Meant(known.name, fleet)


class Fleet(Request, frozen=True):
    fleet: Annotated[str, pos("its id")]


class Removed(Struct, frozen=True):
    removed: str


@verb("peer.remove", auth="order", object="fleet", operators_only=True)
def remove(core: Core, call: Call, ask: Fleet) -> Removed:
    """Let in nothing of another fleet any more."""
    fleet, known = core.roster.peer(ask.fleet)
    if fleet != ask.fleet:
        raise Malformed("an order to remove a fleet names it by its id")
    call.write(kinds.FleetUnpeered(fleet, call.statement))
    return Removed(known.name)


class Known(Struct, frozen=True):
    """A fleet that is taken in: its doors, our letters that wait for it, how the last try went."""

    name: str
    fleet: str
    doors: list[str]
    waiting: int
    last: str


@verb("peers", auth="local")
def listing(core: Core, call: Call, ask: Nothing) -> list[Known]:
    """Every other fleet that is taken in."""
    letters = core.part(Letters)
    waiting = [row.fleet for row in letters.waiting()]
    waiting += [row.fleet for row in core.part(PeerAsks).waiting()]
    return [
        Known(
            known.name,
            fleet,
            [door.name for door in known.card.doors],
            waiting.count(fleet),
            letters.tried.get(fleet, "untried"),
        )
        for fleet, known in core.roster.peers.items()
    ]


@verb(
    "letters", names="letter", auth="local", group="Messages", harmless=True,
    columns=(
        Column("letter", form="id", rank=1), Column("to", form="bold"), Column("fleet", rank=2),
        Column("state", form="state"), Column("t_ms", "sent", "ago"), Column("text", least=20),
    ),
    nothing="Nothing was sent from here to another fleet.",
)  # fmt: skip
def letters(core: Core, call: Call, ask: Nothing) -> list[Waiting]:
    """What was sent from here to other fleets, the newest first, and how far it came.

    muster letters
    """
    return list(core.part(Letters).sent(MESSAGES_SHOWN_MAX))


class Message(Request, frozen=True):
    letter: Annotated[str, data()] = ""
    record: Annotated[str, data()] = ""


@verb("peer.message", auth="foreign")
def message(core: Core, call: Call, ask: Message) -> Later:
    """Take a letter of another fleet; the receipt follows when its reader's machine holds it."""
    return core.part(Letters).take(call, ask.letter, ask.record)
