"""The NATS server of this machine: a child of the daemon, for the machines of the fleet alone.

Rule 1: it says that something is kept when that is on the disk (`sync_interval: always`).
Rule 2: it lets in whom the roster has, and cuts whom it has no more; each machine reaches its own
mailbox and those of others to leave something there, and nothing else (fleet/nats_jwt.py).
Rule 3: it ends with the daemon, however that ends, and is begun again when it ends by itself; what
it keeps is what parcels are: lost without harm.
Rule 4: beyond this computer it speaks TLS, with the machine's own certificate.
Rule 5: what it has to know is in told.py, and where that comes from in cluster.py.
"""

import asyncio
import contextlib
import ipaddress
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec.json import encode

from muster import atomic_file
from muster.address import join_address, split_address
from muster.channel import CHANNELS
from muster.errors import Broken, Denied, Exhausted, MusterError, NotFound, Unreachable
from muster.fleet import nats_jwt
from muster.fleet.machine import Authority
from muster.log.stream import MachineId
from muster.node.counter import DECLARED
from muster.node.engine import moved, program
from muster.node.engine.child import last_words, running
from muster.node.engine.cluster import EVERYWHERE, Cluster
from muster.node.engine.leaf import Leaf
from muster.node.engine.state import State
from muster.node.engine.told import AUTO, Told, cluster_id, configuration, tell
from muster.node.runtime import Runtime

if TYPE_CHECKING:
    from muster.channel.nats_lease import NatsLeases

DECLARED[__name__] = {
    "nats-boxes-not-kept": "The NATS server of this machine did not let its mailboxes be kept.",
}

# How soon a machine that is revoked, or new, or has another certificate, is taken notice of.
_ROSTER_S: Final = 1.0
# How soon what could not be moved is tried again.
_MOVES_MS: Final = 30_000


class Engine:
    """See the rules at the top of this file."""

    def __init__(self, daemon: Runtime) -> None:
        self._daemon, self._core = daemon, daemon.core
        self._serve = daemon.machine.config.nats
        self._folder = Path(daemon.home.path) / "nats"
        self._log = self._folder / "server.log"
        self.state = State()
        self.cluster = Cluster(daemon, self._folder)
        self.leaf = Leaf(daemon, self._folder)
        # What the server was told last, and where we reach it.
        self._told: Told | None = None
        self._server = ""
        self._seen: object = None
        self._moves_ms = 0
        # The machines that have a mailbox there.
        self._kept: tuple[str, ...] = ()

    def begin(self) -> None:
        """Serve from now on, where the owner of this machine wants it to."""
        if self._serve.serve:
            self.cluster.begin()
            self._daemon.supervisor.keep("nats-server", self.keep)
        self.leaf.begin()

    def how(self) -> State:
        """How the server of this machine is, whichever it has."""
        return self.leaf.state if self._serve.leaf else self.state

    async def keep(self) -> None:
        """Run the server until it ends. Raises: MusterError, saying why it does not run."""
        state = self.state = State("starting", restarts=self.state.restarts)
        try:
            try:
                await self._run(state)
            except OSError as error:
                raise Broken(f"the NATS server cannot be run ({error})") from error
        except MusterError as error:
            state.state, state.why, state.pid = "stopped", str(error), 0
            raise
        finally:
            state.restarts += 1
            self._told, self._server, self._kept = None, "", ()

    async def _run(self, state: State) -> None:
        while (why := self._waits_for()) and self._serve.serve != AUTO:
            # It is told soon, and then it begins.
            state.state, state.why = "stopped", why
            await asyncio.sleep(_ROSTER_S)
        # Before anything is begun: without the client nobody looks after the mailboxes.
        next(spec for spec in CHANNELS if spec.name == "nats").load()
        state.program = program.find(self._serve.server, os.environ)
        state.version = await asyncio.to_thread(program.check_version, state.program)
        told = self._write()
        state.state, state.why = "starting", ""
        names = self._core.membership.name_of
        state.beside = tuple(names(m) for m in told.cluster if m != self._core.machine)
        serve_together, let_in = self._serve_together(told), self._let_in()
        configured = self._folder / "server.json"
        async with (
            running(state.program, configured, self._log) as (child, port),
            self._looked_after(port, state) as looks,
        ):
            state.pid = child.pid
            while child.returncode is None:
                if self._seen != self._to_see():
                    anew = self._serve_together(self._write()) != serve_together
                    before, let_in = let_in, self._let_in()
                    if anew or before - let_in:
                        # No server cuts another one that it knows already.
                        raise Broken("others are linked with it now, so it begins anew")
                    child.send_signal(signal.SIGHUP)
                if looks.done():
                    looks.result()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(child.wait(), _ROSTER_S)
            raise Broken(f"nats-server ended: {last_words(self._log)}")

    @contextlib.asynccontextmanager
    async def _looked_after(self, port: int, state: State) -> AsyncIterator[asyncio.Task[None]]:
        """Beside: who is let in no more is cut also while mailboxes are made, or moved."""
        self._reached_at(port, state)
        looks = asyncio.create_task(self._look_for_ever(state), name="nats-boxes")
        try:
            yield looks
        finally:
            looks.cancel()
            await asyncio.gather(looks, return_exceptions=True)

    async def _look_for_ever(self, state: State) -> None:
        while True:
            try:
                await self._look_after(state)
            except (Unreachable, Exhausted) as error:
                # It serves whom it served, and is looked after again soon.
                self._core.counters["nats-boxes-not-kept"] += 1
                state.why = str(error)
            await asyncio.sleep(_ROSTER_S)

    # --- what it is told --------------------------------------------------------------------

    def _waits_for(self) -> str:
        """Why it cannot be told yet; "" where it can."""
        try:
            self.cluster.told()
        except MusterError as error:
            return str(error)
        return ""

    def _to_see(self) -> object:
        """What it has to be told anew when it changes."""
        roster = self._core.roster
        live = tuple(sorted((m, r.serial) for m, r in roster.machines.items()))
        return live, self._daemon.machine.facts["certificate"], self.cluster.changes

    def _serve_together(self, told: Told) -> object:
        """The servers of its cluster, by their keys, and where this one is."""
        live = self._core.roster.machines
        keys = {m: live[MachineId(m)].key("tls") for m in told.cluster if m in live}
        return told.cluster, keys, told.places.get(self._core.machine)

    def _let_in(self) -> frozenset[tuple[str, int]]:
        """Whose own servers may be linked to it, by their records."""
        live = self._core.roster.machines.items() if self._serve.leaves else ()
        return frozenset((machine, record.serial) for machine, record in live)

    def _write(self) -> Told:
        """The configuration, which is JSON. Raises: MusterError."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        told = self._told = self.cluster.told()
        self._seen = self._to_see()
        listen, tls = self._serve.serve, not is_here(self._serve.serve)
        if tls:
            pair = told.certificate.encode() + self._daemon.machine.credentials().key_pem
            atomic_file.write_file(self._folder / "tls.pem", pair, mode=0o600)
            atomic_file.write_file(self._folder / "ca.pem", told.ca.encode(), mode=0o600)
        written = configuration(
            told, self._core.machine, self._core.roster.machines, self._folder, listen=listen,
            routes=self.cluster.listens() if told.cluster else "", tls=tls,
            leaves=self._serve.leaves,
        )  # fmt: skip
        # The server does not read every escape of JSON.
        text = json.dumps(written, ensure_ascii=False)
        atomic_file.write_file(self._folder / "server.json", text.encode(), mode=0o600)
        return told

    # --- how it is ----------------------------------------------------------------------------

    def _reached_at(self, port: int, state: State) -> None:
        """Where we reach it; and where others do, which is where they reach this machine else."""
        serve, host = self._serve, "127.0.0.1"
        if serve.serve != AUTO:
            host = split_address(serve.serve)[0]
        if host in EVERYWHERE:
            ours, _ = split_address(str(self._core.settings.get("address") or ":0"))
            state.address, host = join_address(ours, port), "127.0.0.1"
        else:
            state.address = join_address(host, port)
        state.address = serve.address or state.address
        scheme = "nats" if is_here(serve.serve) else "tls"
        self._server = f"{scheme}://{join_address(host, port)}"

    async def _look_after(self, state: State) -> None:
        """Have a mailbox for each machine, where that is ours to do, and our own pass."""
        machines = tuple(self._core.roster.machines)
        told = self._told
        if told is None or (state.state == "serves" and self._kept == machines):
            return
        authority = self._core.authority
        if authority is not None:
            async with self._keeper(
                authority, told.cluster, self._server, *self._others(told)
            ) as it:
                await it.keep_boxes(machines, len(told.cluster) or 1)
                if told.cluster:
                    await it.keep(machines, change=True)
        if self._core.machine in told.accounts:
            from muster.channel import nats  # noqa: PLC0415 - it stands on an extra

            shown = told.accounts[self._core.machine].shown
            mine = nats.Pass(shown, self._server, self._others(told))
            path = Path(self._daemon.home.path) / nats.PASS
            atomic_file.write_file(path, encode(mine), mode=0o600)
        state.state, state.machines = "serves", len(machines)
        if authority is not None and told.cluster:
            await self._move(authority, told)
        state.why, self._kept = "", machines

    @contextlib.asynccontextmanager
    async def _keeper(
        self, authority: Authority, cluster: tuple[str, ...], *servers: str
    ) -> AsyncIterator["NatsLeases"]:
        """Who looks after the mailboxes of these servers, and after who is elected there."""
        from muster.channel import nats, nats_lease  # noqa: PLC0415 - it stands on an extra

        me = self._core.roster.machine(self._core.machine)
        jwt = nats_jwt.keeper_pass(authority, me, cluster_id(cluster))
        sign = self._core.membership.identity.signer("nats").sign
        shown = nats.Pass(jwt, servers[0], servers[1:])
        login = nats.login(shown, sign, self._daemon.machine.credentials)
        client = nats_lease.NatsLeases("the NATS server of this machine", "", lambda: login)
        try:
            yield client
        finally:
            await client.close()

    async def _move(self, authority: Authority, told: Told) -> None:
        """Have the cluster keep what this machine's server kept alone. Raises: as `keep_boxes`."""
        core = self._core
        if core.now.boot_ms < self._moves_ms:
            raise Unreachable("what its server kept alone is not moved yet: it is tried again soon")
        me, live = core.roster.machine(core.machine), core.roster.machines

        async def give(address: str) -> None:
            async with (
                self._keeper(authority, (), address) as old,
                self._keeper(authority, told.cluster, self._server, *self._others(told)) as new,
            ):
                await old.give_all(new)

        alone = tell(authority, me, me, live.values(), core.now.wall_ms)
        try:
            await moved.move(self.state.program, self._folder, alone, me.machine, live, give)
        except (MusterError, OSError) as error:
            self._moves_ms = core.now.boot_ms + _MOVES_MS
            if isinstance(error, Unreachable | Exhausted):
                raise
            raise Unreachable(f"what its server kept alone cannot be moved: {error}") from error

    def _others(self, told: Told) -> tuple[str, ...]:
        """Where the other servers of the cluster are."""
        live, me = self._core.roster.machines, self._core.machine
        return tuple(
            f"tls://{told.places[m].address}"
            for m in told.cluster
            if m != me and m in live and m in told.places
        )

    def pass_for(self, machine: str) -> dict[str, Any]:
        """What lets a machine in here. Raises: NotFound, Denied."""
        told, state = self._told, self.state
        if told is None or state.state != "serves":
            raise NotFound(
                f"no NATS server runs on {self._core.name} now: `muster engine` says why"
            )
        if is_here(self._serve.serve):
            raise Denied(f"the NATS server of {self._core.name} is for that computer alone")
        if not split_address(state.address)[0]:
            raise NotFound(f"nobody knows where {self._core.name} is: say `nats.address` there")
        self._core.roster.machine(machine)
        if machine not in told.accounts:
            raise NotFound(f"{self._core.name} was not told yet whom to let in: ask again soon")
        shown = told.accounts[machine].shown
        return {
            "jwt": shown,
            "server": f"tls://{state.address}",
            "more": self._others(told),
            "word": told.word if told.cluster else "",
            "leaves": self._leaves(told) if told.leaves else (),
        }

    def _leaves(self, told: Told) -> tuple[str, ...]:
        """Where servers of other machines are let in: at this one, and at those beside it."""
        own = self.cluster.leaves(split_address(self.state.address)[0])
        live, me = self._core.roster.machines, self._core.machine
        beside = [p.leaves for m, p in told.places.items() if m != me and m in live]
        return tuple(f"tls://{each}" for each in (own, *beside) if each)


def is_here(listen: str) -> bool:
    """Whether only this computer reaches what listens there."""
    if listen == AUTO:
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(split_address(listen)[0]).is_loopback
    return False
