"""Verbs about the channels to other machines: how each is, and whether anybody is there."""

import asyncio
from typing import Annotated, Final, Literal

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from muster.channel.relay import NAME as RELAY
from muster.errors import MusterError, NotFound, Refused, Unreachable
from muster.fleet.facts import Way
from muster.node.link import Link, Tried, best
from muster.node.verb import Column, Line
from muster.verbs.declaration import (
    Call,
    Core,
    Daemon,
    Nothing,
    Perform,
    Request,
    data,
    opt,
    pos,
    verb,
)

_ANSWER: Final = "ping.answer"
# Chosen arbitrarily: longer than any network takes.
_PING_S: Final = 10.0


class Channel(Struct, frozen=True, kw_only=True):
    """One channel to one machine, as this one sees it.

    `state` is `untried`, `failed`, `resting` (it failed, and is left for a while), `worked`, `up`
    (a link stands) or `speaks` (it is the one that entries go over); a mailbox is `untried`,
    `worked`, `failed`, or `broken` until somebody mends it. `proof_ms_ago` is how long ago
    the machine answered what was said over it: a link that stands proves nothing. `dial_ms` and
    `rtt_ms` are how long a dial and a `ping` take; `backlog` bytes wait to be sent. What `depends`
    names is in the middle: without it this way is gone.
    """

    machine: str
    channel: str
    address: str
    state: str
    proof_ms_ago: int | UnsetType = UNSET
    dial_ms: int | UnsetType = UNSET
    rtt_ms: int | UnsetType = UNSET
    backlog: int = 0
    depends: str = ""
    reason: str = ""


class OfMachine(Request, frozen=True):
    machine: Annotated[str, pos("only those to this machine", kind="machine")] = ""


@verb(
    "channels", auth="local", runs="async", group="The fleet", harmless=True,
    columns=(
        Column("machine", form="bold"), Column("channel"), Column("state", form="state"),
        Column("proof_ms_ago", "proof", "span", rank=1, when="proof_ms_ago"),
        Column("rtt_ms", "rtt", "span", rank=3, when="rtt_ms"),
        Column("dial_ms", "dial", "span", rank=5, when="dial_ms"),
        Column("backlog", rank=4, when="backlog"),
        Column("depends", "through", rank=2), Column("address", rank=6, width=40),
        Column("reason", width=80, least=20),
    ),
    nothing="There is no other machine: `muster invite NAME` lets one in.",
)  # fmt: skip
async def channels(daemon: Daemon, call: Perform, ask: OfMachine) -> list[Channel]:
    """Every channel to every machine: how it is, when it last carried something, and why not.

    A link that stands proves nothing: `proof` is how long ago the machine last answered what was
    said over that channel.

        muster channels
        muster channels build
        muster channels --on all       # from each machine to each
    """
    roster, me = daemon.core.roster, daemon.core.machine
    asked = [roster.find(ask.machine).machine] if ask.machine else roster.machines.keys()
    named = daemon.core.membership.name_of
    return [
        replace(each, machine=named(peer))
        for peer in sorted(asked, key=named)
        if peer != me
        for each in _of(daemon, peer)
    ]


def _of(daemon: Daemon, peer: str) -> list[Channel]:
    """Each channel to a machine, in the order in which they are tried."""
    paths, ways = daemon.paths, daemon.paths.ways(peer)
    up: dict[str, dict[int, Link]] = {}
    for number, link in daemon.core.links.items():
        if link.peer == peer:
            up.setdefault(link.channel, {})[number] = link
    names = dict.fromkeys((*(c for c in paths.names if c in ways or c in up), *up))
    found = [_one(daemon, peer, name, ways.get(name, []), up.get(name, {})) for name in names]
    found += [_mailbox(daemon, peer, each) for each in daemon.mailboxes.shown(peer)]
    why = "no address of it is known here, and it has not dialled this machine"
    return found or [Channel(machine=peer, channel="", address="", state="untried", reason=why)]


def _one(
    daemon: Daemon, peer: str, channel: str, addresses: list[str], links: dict[int, Link]
) -> Channel:
    core, health = daemon.core, daemon.paths.path(peer, channel).health
    proofs = [health.proven_ms, *map(core.sync.paths.proofs.proven_ms, links)]
    proven_ms = max((ms for ms in proofs if ms is not None), default=None)
    if not links:
        state, reason = daemon.paths.rested(peer, channel)
    else:
        sessions = core.sync.paths.by_link
        speaks = any(n in sessions and sessions[n].link == n for n in links)
        doubt = any(daemon.paths.climb(peer).is_in_doubt(number) for number in links)
        state = "speaks" if speaks else "up"
        reason = "what was said over it is not answered" if doubt else ""
    middles = {link.through for link in links.values()} - {""}
    return Channel(
        machine=peer,
        channel=channel,
        address=addresses[0] if addresses else "",
        state=state,
        proof_ms_ago=UNSET if proven_ms is None else max(1, core.now.boot_ms - proven_ms),
        dial_ms=UNSET if health.dial_ms is None else health.dial_ms,
        rtt_ms=UNSET if health.rtt_ms is None else health.rtt_ms,
        backlog=sum(map(daemon.backlog, links)),
        depends=", ".join(sorted(map(core.membership.name_of, middles))),
        reason=reason,
    )


def _mailbox(daemon: Daemon, peer: str, tried: Tried) -> Channel:
    health = daemon.paths.path(peer, tried.channel).health
    proven_ms = daemon.mailboxes.proven_ms(tried.channel, peer)
    return Channel(
        machine=peer,
        channel=tried.channel,
        address=tried.address,
        state=tried.state,
        proof_ms_ago=UNSET if proven_ms is None else max(1, daemon.core.now.boot_ms - proven_ms),
        rtt_ms=UNSET if health.rtt_ms is None else health.rtt_ms,
        backlog=daemon.mailboxes.waiting(tried.channel, peer),
        reason=tried.error,
    )


class Ping(Request, frozen=True):
    machine: Annotated[str, pos("the machine", kind="machine")]
    via: Annotated[str, opt("over this channel alone; else over the best link")] = ""


class Pinged(Struct, frozen=True):
    """`by` proved to be who it is over this channel: by a `call` over the link that stands, by a
    `dial` that was closed again, or by a `parcel` in its mailbox here that answers one in its own.
    """

    machine: str
    by: str
    channel: str
    how: Literal["call", "dial", "parcel"]
    ms: int


@verb(
    "ping", auth="local", runs="async", group="The fleet", harmless=True,
    says=(
        Line("{machine} answered over {channel} within {ms} ms.", "how=call"),
        Line("{machine} proved to be there over {channel} within {ms} ms; no link was kept.",
             "how=dial"),
        Line("{machine} answered a parcel over {channel} within {ms} ms.", "how=parcel"),
        Line("It is {by:id}, by its own key."),
    ),
)  # fmt: skip
async def ping(daemon: Daemon, call: Perform, ask: Ping) -> Pinged:
    """Ask a machine whether it is there, over the best link or over one channel.

    Where no link stands over that channel it is dialled, and the link is closed again. Over a
    mailbox a parcel is left, and its answer waited for. Raises: Unreachable where nobody proves to
    be that machine.

        muster ping build
        muster ping build --via http
    """
    core, loop = daemon.core, asyncio.get_running_loop()
    record = core.roster.find(ask.machine)
    if record.machine == core.machine:
        raise Refused("this is the machine itself; name another one")
    known = (*daemon.paths.names, *daemon.mailboxes.names, RELAY)
    if ask.via and ask.via not in known:
        raise NotFound(f"{ask.via[:40]!r} is no channel of this machine; it has {', '.join(known)}")
    links = {n: link for n, link in core.links.items() if ask.via in ("", link.channel)}
    number = best(links, record.machine, core.sync.paths.proofs, direct=False)
    began_s = loop.time()
    how: Literal["call", "dial", "parcel"] = "dial"
    if ask.via in daemon.mailboxes.names:
        how, channel = "parcel", ask.via
        await daemon.mailboxes.ping(channel, record.machine)
    elif number is not None:
        how, channel = "call", links[number].channel
        await _called(daemon, number, record.name)
    else:
        channel = await _dialled(daemon, record.machine, ask.via)
    ms = max(1, round((loop.time() - began_s) * 1000))
    if how != "dial":
        daemon.paths.path(record.machine, channel).health.rtt_ms = ms
    return Pinged(record.name, record.machine, channel, how, ms)


async def _called(daemon: Daemon, number: int, name: str) -> None:
    channel = next(daemon.core.links[number].numbers)
    try:
        async with asyncio.timeout(_PING_S):
            # A machine that does not know this verb says so: it is there all the same.
            await daemon.streams.ask(number, channel, _ANSWER, {})
    except TimeoutError as error:
        raise Unreachable(f"the link to {name} stands, and nothing came back over it") from error


async def _dialled(daemon: Daemon, peer: str, via: str) -> str:
    """The channel over which the machine proved to be there."""
    paths, name = daemon.paths, daemon.core.membership.name_of(peer)
    why: dict[str, None] = {}
    for channel, addresses in paths.ways(peer).items():
        for address in addresses if via in ("", channel) else ():
            try:
                link = await paths.dial(peer, Way(channel, address))
            except MusterError as error:
                why[str(error).removesuffix("; try later")] = None
                continue
            await link.close("it was asked whether anybody is there")
            return channel
    if via in ("", RELAY):
        try:
            await daemon.relays.probe(peer)
        except MusterError as error:
            why[str(error)] = None
        else:
            return RELAY
    said = "; ".join(why) or "no address of it is known here"
    raise Unreachable(f"{name} is not there{f' over {via}' * bool(via)}: {said}; try later")


@verb("ping.answer", auth="peer")
def ping_answer(core: Core, call: Call, ask: Nothing) -> bool:
    """That this machine is there."""
    return True


class Mend(Request, frozen=True, forbid_unknown_fields=False):
    channel: Annotated[str, data()] = ""


@verb("path.mend", auth="peer", runs="async")
async def path_mend(daemon: Daemon, call: Perform, ask: Mend) -> bool:
    """Look after a channel between two machines, of which one hears by a poorer way alone."""
    return daemon.mends.asked(call.peer, ask.channel)
