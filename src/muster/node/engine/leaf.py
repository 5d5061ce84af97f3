"""The NATS server of a machine that comes and goes: for this computer, linked to one of the fleet.

Rule 1: it is a child of the daemon, with JetStream under a domain of its own, which is there also
while nobody else is. Programs of this computer have an account there, and nothing of ours.
Rule 2: the link is made from here, with what lets the machine in (passes.py), to a server with one
of the keys that the roster has, and to no other; over it goes what the machine itself may ask.
Rule 3: this machine's mailbox is used over the link while the server runs. Nothing of it is kept
here: what was not acknowledged at the other end is in the log, and is said again.
"""

import asyncio
import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from muster import atomic_file
from muster.channel import CHANNELS
from muster.channel.base import PostOptions
from muster.errors import Broken, Exhausted, MusterError, Unreachable
from muster.fleet import nats_jwt
from muster.fleet.record import MachineRecord
from muster.log.stream import MachineId
from muster.node.engine import program
from muster.node.engine.child import last_words, running
from muster.node.engine.passes import NATS, servers_known
from muster.node.engine.state import State
from muster.node.engine.told import AUTO, cluster_id, pin_of
from muster.node.runtime import Runtime

if TYPE_CHECKING:
    from muster.channel.nats import Pass

_LOOK_S: Final = 1.0
_LOG_BYTES: Final = 1024 * 1024
# What programs may keep there; the disk is the owner's.
_STORE_BYTES: Final = 8 * 1024 * 1024 * 1024
_MEMORY_BYTES: Final = 256 * 1024 * 1024
_BESIDE: Final = "nats/leaf.json"
_NOT_HERE: Final = ("STREAM", "CONSUMER.CREATE", "CONSUMER.DURABLE")
# In the home: what lets programs of this computer in, as `user:password`.
PROGRAMS: Final = "nats/programs.txt"


class Link(msgspec.Struct, frozen=True):
    """Where the servers are that let this one in, their keys, and what is shown there."""

    machine: str
    urls: tuple[str, ...]
    pins: tuple[str, ...]
    domain: str
    shown: str


class Leaf:
    """See the rules at the top of this file."""

    def __init__(self, daemon: Runtime, folder: Path) -> None:
        self._daemon, self._core, self._folder = daemon, daemon.core, folder / "leaf"
        self._home = folder.parent
        self._serve = daemon.machine.config.nats
        self.state = State()

    def begin(self) -> None:
        """Serve this computer from now on, where its owner wants it to."""
        # What a killed daemon left there says where nobody is.
        self._says_where(None)
        if self._serve.leaf:
            self._daemon.supervisor.keep("nats-leaf", self.keep)

    async def keep(self) -> None:
        """Run the server until it ends. Raises: MusterError, saying why it does not run."""
        state = self.state = State("starting", restarts=self.state.restarts)
        try:
            await self._run(state)
        except (MusterError, OSError) as error:
            state.state, state.linked, state.pid = "stopped", False, 0
            state.why = str(error)
            raise Broken(f"the NATS server of this computer does not run: {error}") from error
        finally:
            state.restarts += 1
            self._says_where(None)

    async def _run(self, state: State) -> None:
        next(spec for spec in CHANNELS if spec.name == NATS).load()
        from muster.channel import nats  # noqa: PLC0415 - it stands on an extra

        state.program = program.find(self._serve.server, os.environ)
        state.version = await asyncio.to_thread(program.check_version, state.program)
        while isinstance(link := self._link(), str):
            state.state, state.why = "stopped", link
            await asyncio.sleep(_LOOK_S)
        state.state, state.why = "starting", ""
        ours, looks = secrets.token_hex(16), secrets.token_hex(16)
        self._write(link, ours, looks)
        log = self._folder / "server.log"
        async with running(state.program, self._folder / "server.json", log) as (child, port):
            server = f"nats://127.0.0.1:{port}"
            state.address, state.pid, state.leaf_of = server, child.pid, link.machine
            self._says_where(nats.Beside(server, "muster", ours))
            look = nats.open_look(nats.Beside(server, "looks", looks))
            try:
                while child.returncode is None:
                    if self._link() != link:
                        raise Broken("who lets it in is reached in another way, so it begins anew")
                    try:
                        state.linked = await look.linked()
                        state.why = "" if state.linked else last_words(log)
                    except (Unreachable, Exhausted) as error:
                        state.linked, state.why = False, str(error)
                    state.state = "serves"
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(child.wait(), _LOOK_S)
            finally:
                await look.close()
            raise Broken(f"nats-server ended: {last_words(log)}")

    def _link(self) -> Link | str:
        """Where it is to be linked, or why nowhere."""
        from muster.channel import nats  # noqa: PLC0415 - as above

        options, roster = self._daemon.machine.config.channel.get(NATS), self._core.roster
        if not isinstance(options, PostOptions) or not nats.is_machine(options.place):
            return "`channel.nats.place` names no machine of the fleet, to whose server it goes"
        try:
            named = roster.find(options.place)
        except MusterError as error:
            return str(error)
        shown: Pass | None = nats.read_pass(self._home)
        if shown is None:
            return f"this machine has no pass of {named.name} yet: link to it once"
        if not shown.leaves:
            return f"{named.name} lets no servers of others in: say `nats.leaves` there"
        known = servers_known(self._home, roster.fleet)
        # The one that is named is live, so there is a key in any case: without, any would do.
        known = known if named.machine in known else ()
        servers = [m for m in map(MachineId, known or (named.machine,)) if m in roster.machines]
        return Link(
            named.name, shown.leaves, tuple(pin_of(roster.machines[m]) for m in servers),
            nats_jwt.domain(named.machine, cluster_id(known)), shown.jwt,
        )  # fmt: skip

    def _write(self, link: Link, ours: str, looks: str) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        secret = self._core.membership.identity.secret("nats")
        text = nats_jwt.credentials(link.shown, secret)
        atomic_file.write_file(self._folder / "link.creds", text.encode(), mode=0o600)
        me = self._core.roster.machine(self._core.machine)
        logins = {"muster": ours, "looks": looks, "programs": self._programs()}
        written = configuration(link, me, self._folder, self._serve.leaf, logins)
        raw = json.dumps(written, ensure_ascii=False).encode()
        atomic_file.write_file(self._folder / "server.json", raw, mode=0o600)

    def _programs(self) -> str:
        """The password of programs, which stays."""
        path = self._home / PROGRAMS
        # The first time there is none; one that is damaged is replaced. Any other error is raised,
        # or the password that stays would be another one after each hiccup of the disk.
        with contextlib.suppress(FileNotFoundError, UnicodeDecodeError):
            if found := path.read_text("ascii").strip().removeprefix("programs:"):
                return found
        made = secrets.token_hex(16)
        atomic_file.write_file(path, f"programs:{made}\n".encode(), mode=0o600)
        return made

    def _says_where(self, where: object) -> None:
        """Where this machine's mailbox is used; None: at the server of the other machine itself."""
        # `channel/nats.py` reads it, which stands on an extra.
        path = self._home / _BESIDE
        if where is None:
            path.unlink(missing_ok=True)
        else:
            atomic_file.write_file(path, msgspec.json.encode(where), mode=0o600)


def configuration(
    link: Link, me: MachineRecord, folder: Path, listen: str, logins: dict[str, str]
) -> dict[str, Any]:
    """What it reads. Three accounts: the machine's, which is linked; of programs; and its own."""
    assert link.pins, "without a key of the other end any key would do"
    user = {name: {"user": name, "password": password} for name, password in logins.items()}
    # Between two domains `$JS.API` does not pass: it is asked for by the other one's name. What
    # else is asked of it would get no answer, not even that nobody hears it.
    taken = {nats_jwt.take_from(me.machine): nats_jwt.take_from(me.machine, link.domain)}
    taken |= {f"$JS.API.{what}.>": f"muster.nobody.{what}.>" for what in _NOT_HERE}
    return {
        "server_name": f"muster-{me.machine[:16]}",
        "listen": "127.0.0.1:-1" if listen == AUTO else listen,
        "ports_file_dir": str(folder),
        "log_file": str(folder / "server.log"),
        "log_size_limit": _LOG_BYTES,
        "logfile_max_num": 2,
        "jetstream": {
            "store_dir": str(folder / "store"),
            "domain": me.machine[:16],
            "sync_interval": "always",
            "max_file_store": _STORE_BYTES,
            "max_memory_store": _MEMORY_BYTES,
        },
        "accounts": {
            "MACHINE": {"users": [user["muster"]], "mappings": taken},
            "PROGRAMS": {"users": [user["programs"]], "jetstream": "enabled"},
            "SYSTEM": {"users": [user["looks"]]},
        },
        "system_account": "SYSTEM",
        "leafnodes": {
            "reconnect": "1s",
            # No name is in a certificate, for it is the key that counts.
            "tls": {"pinned_certs": list(link.pins)},
            "remotes": [
                {
                    "urls": list(link.urls),
                    "account": "MACHINE",
                    "credentials": str(folder / "link.creds"),
                    "tls": {"insecure": True, "handshake_first": True, "min_version": "1.3"},
                }
            ],
        },
    }
