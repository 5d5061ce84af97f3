"""Where this machine is reached, and where it looks for the others.

Rule 1: what a person wrote into `config.toml` counts before what was found out at `init` or `join`.
Rule 2: an address is a hint: the machine behind it proves itself. So all that are known are tried
in turn, and a stale one costs a try.
Rule 3: what cannot be meant is refused at start, by the name of the setting.
"""

import socket
from collections.abc import Iterable, Mapping
from typing import Any, Final

from muster.channel.address import split_address
from muster.errors import Broken, Malformed, MusterError
from muster.fleet.invite import check_address
from muster.fleet.record import open_record
from muster.fleet.roster import Roster
from muster.log.stream import FleetId
from muster.node.home import Config

_ANY_HOST: Final = ("", "0.0.0.0", "::", "[::]")  # noqa: S104 - compared with, not bound to


def own_address(explicit: str, listen: str) -> str:
    """Where others reach a machine that listens there, "" when nowhere. Raises: Malformed."""
    if explicit:
        return check_address(explicit)
    if not listen:
        return ""
    host, port = split_address(listen)
    if host not in _ANY_HOST:
        return check_address(listen)
    return check_address(f"{own_ip()}:{port}")


def address_now(config: Config, facts: Mapping[str, Any]) -> str:
    """Where this machine says that it is reached.

    What was found out at `init` or `join` counts as long as the port it was found for is the same.
    """
    if config.address or not config.listen:
        return config.address
    stored = str(facts.get("address") or "")
    if stored and facts.get("listen", config.listen) == config.listen:
        return stored
    return own_address("", config.listen)


def own_ip() -> str:
    """The address of the interface that leads outside; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # An address of documentation (RFC 5737): only the routing table is asked.
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def check_config(config: Config, facts: Mapping[str, Any], where: str) -> None:
    """Raises: Broken for a setting that cannot do what it says, in one sentence."""
    for name in ("listen", "address", "hub"):
        text = str(getattr(config, name))
        try:
            if text:
                split_address(text) if name == "listen" else check_address(text)
        except MusterError as error:
            raise Broken(f"{where}: `{name}`: {error}") from error
    for machine, text in config.peers.items():
        try:
            check_address(str(text))
        except Malformed as error:
            raise Broken(f"{where}: `peers`: {machine[:64]}: {error}") from error
    if not config.name:
        return
    record = open_record(str(facts["record"]).encode(), FleetId(str(facts["fleet"])))
    if config.name != record.name:
        raise Broken(
            f"{where}: `name` says {config.name[:64]!r}, but this machine joined its fleet as "
            f"{record.name}, which is signed: write {record.name!r} again, or join anew under "
            "another name with another --home"
        )


def given(config: Config, facts: Mapping[str, Any]) -> dict[str, list[str]]:
    """Where a person, `reach` or the invitation said that machines are, by id or name."""
    dial = {str(machine): str(text) for machine, text in dict(facts.get("dial", {})).items()}
    found: dict[str, list[str]] = {machine: [text] for machine, text in config.peers.items()}
    for machine, text in dial.items():
        found.setdefault(machine, []).append(text)
    if config.hub and len(dial) == 1:
        # Who joined dials one machine, the hub: `hub` is where that one is.
        found[next(iter(dial))].insert(0, config.hub)
    return found


def places(
    given_: Mapping[str, Iterable[str]], roster: Roster, me: str
) -> dict[str, tuple[str, ...]]:
    """Every address that is known of each machine, the likeliest first."""
    found: dict[str, list[str]] = {}
    for who, texts in given_.items():
        for machine in _ids(roster, who):
            found.setdefault(machine, []).extend(texts)
    for machine, facts in roster.facts.items():
        if machine in roster.machines and facts.address:
            found.setdefault(str(machine), []).append(facts.address)
    found.pop(me, None)
    return {m: tuple(dict.fromkeys(t for t in texts if t)) for m, texts in found.items()}


def _ids(roster: Roster, who: str) -> list[str]:
    """The machines that `peers` means by a name or an id; an id counts before it is known."""
    named = [str(m) for m, record in roster.machines.items() if record.name == who]
    return named or [who]
