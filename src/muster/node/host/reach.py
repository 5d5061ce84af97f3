"""Where this machine is reached, and where it looks for the others.

Rule 1: what a person wrote into `config.toml` counts before what was found out at `init` or `join`.
Rule 2: an address is a hint: the machine behind it proves itself. So all that are known are tried
in turn, and a stale one costs a try.
Rule 3: what cannot be meant is refused at start, by the name of the setting.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from muster.channel import FIRST
from muster.errors import Broken, MusterError
from muster.fleet.facts import Facts, Way
from muster.fleet.name import WORD_PATTERN
from muster.fleet.record import open_record
from muster.fleet.roster import Roster
from muster.log.stream import FleetId
from muster.node.host.config import Config
from muster.node.host.exposure import reached_at


def own_ways(config: Config, facts: Mapping[str, Any], *, moved: bool = False) -> tuple[Way, ...]:
    """Where this machine says that it is reached; `moved` as in `address_now`."""
    found = [Way(FIRST, address_now(config, facts, moved=moved))]
    found += [Way(s.name, o.reached_at()) for s, o in config.links() if s.name != FIRST]
    return tuple(way for way in found if way.address)


def address_now(config: Config, facts: Mapping[str, Any], *, moved: bool = False) -> str:
    """The address of it that every version understands.

    What was found out at `init` or `join` counts as long as the port it was found for is the same,
    and the address has not `moved` away: it was this machine's own, and is not any more.
    """
    options, stored = config.options(FIRST), str(facts.get("address") or "")
    same = facts.get("listen", options.listens_at) == options.listens_at
    if stored and same and options.listen and not options.address:
        return (reached_at(options) if moved else "") or stored
    return reached_at(options)


def check_config(config: Config, facts: Mapping[str, Any], where: str) -> None:
    """Raises: Broken for a setting that cannot do what it says, in one sentence."""
    for spec, options in config.links():
        dialled = {"address": options.address, "hub": options.hub}
        dialled |= {f"peers.{who[:64]}": text for who, text in options.peers.items()}
        checks = [("listen", options.listens_at, options.check_listen)]
        checks += [(name, text, options.check_address) for name, text in dialled.items()]
        for name, text, check in checks:
            try:
                if text or name.startswith("peers."):
                    check(text)
            except MusterError as error:
                raise Broken(f"{where}: `channel.{spec.name}.{name}`: {error}") from error
    for spec, post in config.posts():
        try:
            post.check_place(post.place)
        except MusterError as error:
            raise Broken(f"{where}: `channel.{spec.name}.place`: {error}") from error
    if not config.name:
        return
    try:
        record = open_record(str(facts["record"]).encode(), FleetId(str(facts["fleet"])))
    except MusterError as error:
        beside = PurePath(where).with_name("fleet.json")
        raise Broken(
            f"{beside} is damaged (`record`: {str(error).removesuffix('.')}): put it back from a "
            "copy of this home"
        ) from error
    if config.name != record.name:
        raise Broken(
            f"{where}: `name` says {config.name[:64]!r}, but this machine is {record.name} in its "
            f"fleet, which is signed: write {record.name!r} again; `muster machine rename` changes "
            "it"
        )


def given(config: Config, facts: Mapping[str, Any]) -> dict[str, list[Way]]:
    """Where a person, `reach` or the invitation said that machines are, by id or name."""
    dial = {str(machine): ways_of(told) for machine, told in dict(facts.get("dial", {})).items()}
    found: dict[str, list[Way]] = {}
    for spec, options in config.links():
        for who, text in options.peers.items():
            found.setdefault(who, []).append(Way(spec.name, text))
        if options.hub and len(dial) == 1:
            # Who joined dials one machine, the hub: `hub` is where that one is.
            found.setdefault(next(iter(dial)), []).append(Way(spec.name, options.hub))
    for machine, ways in dial.items():
        found.setdefault(machine, []).extend(ways)
    return found


def ways_of(told: Any) -> list[Way]:
    """What `dial` of fleet.json says of a machine: by channel; before 0.2 a text."""
    known = told if isinstance(told, dict) else {FIRST: told}
    return [Way(str(channel), str(address)) for channel, address in known.items()]


def said(facts: Facts) -> tuple[Way, ...]:
    """Where a machine says that it is reached.

    A machine of before 0.2 says one address alone, also one that was newer for a while.
    """
    older = re.match(WORD_PATTERN, facts.address) is not None
    return tuple(dict.fromkeys((*facts.reach, *([Way(FIRST, facts.address)] if older else ()))))


def places(
    given_: Mapping[str, Iterable[Way]], roster: Roster, me: str
) -> dict[str, tuple[Way, ...]]:
    """Every way that is known to each machine, the likeliest first."""
    found: dict[str, list[Way]] = {}
    for who, ways in given_.items():
        # By a name or an id; an id counts before it is known.
        named = [str(m) for m, record in roster.machines.items() if record.name == who]
        for machine in named or [who]:
            found.setdefault(machine, []).extend(ways)
    for machine in roster.machines:
        if machine in roster.facts:
            found.setdefault(str(machine), []).extend(said(roster.facts[machine]))
    found.pop(me, None)
    return {m: tuple(dict.fromkeys(w for w in ways if w.address)) for m, ways in found.items()}
