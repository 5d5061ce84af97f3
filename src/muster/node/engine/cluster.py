"""Which machines' servers are one, and what each of them is told by the machine with the authority.

Rule 1: `nats.cluster` in the config.toml of the machine with the authority names them. Whoever is
not among them is told that alone, and whoever is revoked nothing. Who was one of them and hears
that it is not any more serves no more.
Rule 2: each says where it is when it asks. Where they are, and what was told, is kept in the home,
so that a server begins again without asking anybody.
Rule 3: a server asks again when it knows of a machine of which it was not told, and now and then.
Rule 4: whoever passes on an older word, also after a start, changes nothing; the next is asked.
"""

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from muster import atomic_file
from muster.address import check_address, join_address, split_address
from muster.errors import Broken, Denied, Malformed, MusterError, NotFound, Refused
from muster.fleet.certificate import tls_key
from muster.fleet.nats_cluster import open_servers
from muster.limits import NATS_ACCOUNTS_MAX, NATS_SERVERS
from muster.log.stream import MachineId
from muster.node.attempts import question
from muster.node.engine.told import (
    AUTO,
    Answer,
    Place,
    Told,
    digest,
    said_of_all,
    tell,
    tell_nothing,
)
from muster.node.runtime import Runtime

T = TypeVar("T")

VERB: Final = "engine.told"
EVERYWHERE: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - it is only compared
# As NATS itself has it: 4222 for clients, 6222 for servers.
_ROUTES_ABOVE: Final = 2000
_SOON_S: Final = 1.0
_SELDOM_S: Final = 30.0
_TOLD: Final = "told.json"
_STAMP: Final = "stamp.json"
_FILE_BYTES_MAX: Final = 64 * 1024 * 1024


class Cluster:
    """See the rules at the top of this file."""

    def __init__(self, daemon: Runtime, folder: Path) -> None:
        self._daemon, self._core, self._folder = daemon, daemon.core, folder
        self._serve = daemon.machine.config.nats
        # Of the machine with the authority: where the servers said that they are.
        self._places: dict[str, Place] = {}
        # What each server was told since this start, but for accounts, with its stamp; and the
        # newest stamp that there was.
        self._said: dict[str, tuple[str, int]] = {}
        self._stamp = 0
        # Of another one: what it was told, and why it was not.
        self._told: Told | None = None
        self._why = ""
        # What may have to be told to a server anew.
        self.changes = 0

    def begin(self) -> None:
        """Remember what was known, and ask from now on, where another machine has the authority."""
        if self._core.authority is not None:
            self._places = _read(self._folder / "places.json", dict[str, Place]) or {}
            self._stamp = _read(self._folder / _STAMP, int) or 0
        elif self._serve.serve != AUTO:
            self._told = _read(self._folder / _TOLD, Told)
            self._daemon.supervisor.keep("nats-told", self._ask_for_ever)

    def place(self) -> Place:
        """Where this machine's server is reached. Raises: MusterError naming what is not said."""
        serve = self._serve
        if serve.serve in {"", AUTO}:
            raise Broken(
                "the server of a cluster listens where others reach it: say that in `nats.serve`"
            )
        host, port = split_address(serve.serve)
        if not port:
            raise Broken("the server of a cluster has a port of its own: say it in `nats.serve`")
        ours = serve.address
        if not ours:
            known, _ = split_address(str(self._core.settings.get("address") or ":0"))
            reached = known if host in EVERYWHERE else host
            if not reached:
                raise Broken("nobody knows where this machine is: say `nats.address`")
            ours = join_address(reached, port)
        host, _ = split_address(ours)
        routes = join_address(host, split_address(self.listens())[1])
        return Place(check_address(ours), check_address(routes), self.leaves(host))

    def leaves(self, host: str) -> str:
        """Where the servers of machines that come and go reach this one, which is at that host."""
        if not self._serve.leaves:
            return ""
        return check_address(join_address(host, split_address(self._serve.leaves)[1]))

    def listens(self) -> str:
        """Where the other servers reach this one, as it listens."""
        if self._serve.routes:
            return self._serve.routes
        host, port = split_address(self._serve.serve)
        return join_address(host, port + _ROUTES_ABOVE)

    # --- of the machine with the authority ----------------------------------------------------

    def members(self) -> tuple[MachineId, ...]:
        """Whose servers are one; none where there is no cluster. Raises: MusterError."""
        names = self._serve.cluster
        found = {self._known(name) for name in names}
        if names and len(found) != NATS_SERVERS:
            raise Broken(f"`nats.cluster` names {NATS_SERVERS} machines, each once")
        if names and self._core.machine not in found:
            raise Broken(
                "`nats.cluster` does not name this machine, which says whom its servers let in: "
                "the machine with the authority is one of the three"
            )
        return tuple(sorted(found))

    def _known(self, name: str) -> MachineId:
        roster = self._core.roster
        try:
            return roster.find(name).machine
        except (Denied, NotFound):
            # The cluster goes on without the one that was revoked, and is the same one under
            # another name.
            meant = roster.former.get(name, name)
            found = [m for m, each in roster.known.items() if meant in (m, each.name)]
            if not found:
                raise
            return max(found, key=lambda m: (m in self._places, m))

    def told(self) -> Told:
        """All that this machine's own server has to know. Raises: MusterError while it is not."""
        core = self._core
        if core.authority is None:
            if self._serve.serve == AUTO or self._told is None:
                raise Broken(
                    "this machine does not hold the fleet's authority, which says whom a NATS "
                    "server lets in: let the machine where `muster init` ran serve, or have it "
                    f"name this one in `nats.cluster`{self._why}"
                )
            if core.machine not in self._told.cluster:
                raise Broken(
                    "the machine with the fleet's authority does not name this one in "
                    "`nats.cluster`: let it do so, or take `nats.serve` out of config.toml here"
                )
            told = self._told
        else:
            cluster = self.members()
            if cluster:
                self._noted(core.machine, self.place())
                told = self._stamped(core.machine, core.roster.machines)
            else:
                told = self._tell(core.machine, core.roster.machines)
        if away := self._away(told):
            names = " and ".join(core.membership.name_of(m) for m in away)
            raise Broken(
                f"it waits for {names} to say where its NATS server is: `nats.serve` there"
            )
        return told

    def _away(self, told: Told) -> list[str]:
        """Who did not say yet where its server is."""
        live = self._core.roster.machines
        return [m for m in told.cluster if m not in told.places and m in live]

    def tell(self, machine: str, place: Place, asked: Sequence[str]) -> Answer:
        """What one of the servers is told. Raises: Denied, NotFound, Malformed."""
        if self._core.authority is None:
            raise NotFound(f"{self._core.name} does not hold the fleet's authority")
        server = self._core.roster.machine(machine).machine
        if server in self.members():
            self._noted(server, _checked(place))
        return msgspec.convert(msgspec.to_builtins(self._stamped(server, asked)), Answer)

    def _stamped(self, server: MachineId, asked: Iterable[str]) -> Told:
        """What it is told, with a stamp above all before where that is not what it was told last.

        A start gives a new one: who knows what was told since the home was copied, or set back.
        """
        before, stamp = self._said.get(server, ("", 0))
        told = self._tell(server, asked, stamp)
        if (said := said_of_all(told)) == before:
            return told
        self._stamp = max(self._core.now.wall_ms, self._stamp + 1)
        # Kept before it is said: a clock that is put back gives none again.
        self._keep(_STAMP, self._stamp)
        self._said[server] = (said, self._stamp)
        return self._tell(server, asked, self._stamp)

    def _tell(self, server: MachineId, asked: Iterable[str], stamp: int = 0) -> Told:
        core, authority = self._core, self._core.authority
        assert authority is not None, "who has none is told by who has it"
        roster, cluster = core.roster, self.members()
        if server not in cluster and server != core.machine:
            return tell_nothing(authority, cluster, stamp)
        live = [roster.machines[MachineId(m)] for m in asked if m in roster.machines]
        places: dict[str, Place] = {m: self._places[m] for m in cluster if m in self._places}
        me = roster.machine(core.machine)
        wall_ms = core.now.wall_ms
        return tell(authority, me, roster.machine(server), live, wall_ms, cluster, places, stamp,
                    leaves=bool(self._serve.leaves))  # fmt: skip

    def _noted(self, machine: MachineId, place: Place) -> None:
        if self._places.get(machine) != place:
            self._places[machine] = place
            self._keep("places.json", self._places)
            self.changes += 1

    # --- of the others -------------------------------------------------------------------------

    async def _ask_for_ever(self) -> None:
        while True:
            found = False
            async with self._daemon.supervisor.attempt("nats-told"):
                found = await self._ask()
            for _ in range(int((_SELDOM_S if found else _SOON_S) / _SOON_S)):
                await asyncio.sleep(_SOON_S)
                if self._lacking():
                    break

    def _lacking(self) -> list[str]:
        told = self._told
        if told is not None and self._core.machine not in told.cluster:
            return []
        return [
            m
            for m, record in self._core.roster.machines.items()
            if told is None or m not in told.accounts or told.accounts[m].serial < record.serial
        ]

    async def _ask(self) -> bool:
        """Whether we know all. Raises: MusterError for an answer that is none, and no other."""
        core, place = self._core, self.place()
        odd: MusterError | None = None
        lacking = self._lacking()[:NATS_ACCOUNTS_MAX]
        asked = {**msgspec.to_builtins(place), "machines": lacking}
        for hub in core.roster.hubs():
            answer = await question.ask(self._daemon, hub.machine, VERB, asked)
            if not answer["ok"]:
                self._why = f" ({hub.name} says: {answer['error']['text'][:200]})"
                continue
            try:
                new = self._read(answer["value"], hub.name)
                self._take(new)
            except MusterError as error:
                # Who answers so keeps nobody from the one that has the authority.
                odd = error
                continue
            return not self._lacking() and not self._away(new)
        if odd is not None:
            raise odd
        return False

    @staticmethod
    def _read(value: object, name: str) -> Answer:
        try:
            return msgspec.convert(value, Answer)
        except msgspec.ValidationError as error:
            raise Malformed(f"{name} tells nothing of use ({error})") from error

    def _take(self, new: Answer) -> None:
        """Raises: Refused, Denied for what the authority did not say, or not to this machine."""
        had, known = self._told, self._core.roster.known
        cluster = open_servers(new.word.encode(), self._core.roster.fleet, digest(new))
        if set(cluster) != set(new.cluster):
            raise Denied("this machine's NATS server is told of another cluster than was signed")
        if had is not None:
            _check_newer(new, had)
        if self._core.machine not in cluster:
            self._is_none_of_it(new, had)
            return
        if tls_key(new.certificate.encode()) != known[self._core.machine].key("tls"):
            raise Denied("this machine's NATS server is told what is for another machine's")
        same = had is not None and _of_accounts(had) == _of_accounts(new)
        before = had.accounts if had is not None and same else {}
        newer = {
            m: each
            for m, each in new.accounts.items()
            if m not in before or each.serial >= before[m].serial
        }
        accounts = {m: each for m, each in (before | newer).items() if m in known}
        told = msgspec.structs.replace(
            msgspec.convert(new, Told, from_attributes=True), accounts=accounts
        )
        self._why = ""
        # The word is of what was asked for, which is another part of it each time.
        if had is None or msgspec.structs.replace(told, word=had.word, stamp=had.stamp) != had:
            self.changes += 1
        elif told.stamp == had.stamp:
            return
        self._told = told
        self._keep(_TOLD, told)

    def _is_none_of_it(self, new: Answer, had: Told | None) -> None:
        """The authority names other machines: this one's server ends, where it runs."""
        if had is None or had.stamp < new.stamp:
            told = self._told = msgspec.convert(new, Told, from_attributes=True)
            self._keep(_TOLD, told)
            self.changes += 1

    def _keep(self, name: str, what: object) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        atomic_file.write_file(self._folder / name, msgspec.json.encode(what), mode=0o600)


def _checked(place: Place) -> Place:
    """Raises: Malformed."""
    for address in filter(None, (place.address, place.routes, place.leaves)):
        check_address(address)
    return place


def _of_accounts(told: Told) -> tuple[object, ...]:
    """What all accounts are made with."""
    return told.operator, told.shared, told.leaves


def _check_newer(new: Told, had: Told) -> None:
    """Raises: Refused for an older word, or another one under the stamp of what we have."""
    same = new.stamp == had.stamp and said_of_all(new) == said_of_all(had)
    if new.stamp <= had.stamp and not same:
        raise Refused(
            "this machine's NATS server is told what is older than what it knows; it keeps that. "
            "If the machine with the authority was set up anew, remove `nats/told.json` of the "
            "home here"
        )


def _read(path: Path, shape: type[T]) -> T | None:
    """What was kept; None where it is not there, or damaged: it is said again."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(_FILE_BYTES_MAX), type=shape)
    except (OSError, msgspec.DecodeError):
        return None
