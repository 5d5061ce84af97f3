"""Links that come through sshd, and what this machine shows to the sshd of others.

Rule 1: sshd proves nothing to us: who came through it proves inside to be a machine of the fleet,
as on every link. Who is shut out is cut, and its connection to sshd with it: sshd looks at nobody
again once it let them in.
Rule 2: certificates are asked of the authority at half of their life, as those of TLS are; a hub of
an older version gives none.
Rule 3: where no daemon runs, sshd begins one for as long as somebody is there: it listens nowhere,
dials nobody and offers no room for work. What it took on before, it goes on with.
Rule 4: whom sshd lets in follows the roster: a person trusted the fleet once, machines come and go.
"""

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Any, Final

import msgspec

from muster.channel.base import Own, SshKeys
from muster.channel.ssh import Options, SshChannel
from muster.channel.tls import Credentials
from muster.errors import Conflict, Denied, Malformed, MusterError
from muster.fleet.ssh_certificate import (
    SshCertificates,
    issue_ssh,
    open_ssh,
    private_key,
    renew_ssh_at_ms,
    ssh_authority,
)
from muster.node import event as ev
from muster.node.call.streams import Served
from muster.node.counter import DECLARED, labelled
from muster.node.host.ssh_trust import Trust
from muster.node.runtime import Runtime
from muster.node.tasks.worker import WorkerService

DECLARED[__name__] = {
    "ssh-refused-<error>": "Who came through sshd did not prove to be a machine of the fleet.",
    "ssh-cut": "The connection of a machine that was shut out was cut at sshd.",
}

CERTIFICATES: Final = "ssh.certificates"
LOOK_S: Final = 5.0
# A person waits so long for the first certificates.
_KNOWN_S: Final = 20
# A hub that has none to give, of an older version or without the authority, is asked ever less.
_ASK_S_MAX: Final = 600.0
# How long a daemon that sshd began waits for the first to come through, who may have given up on a
# slow computer and come again; and for the next one after that.
FIRST_VISIT_S: Final = 60.0
VISIT_S: Final = 10.0
# What keeps authorized_keys from being written is tried again after this, and told once each time.
AGAIN_S: Final = 300.0
# Whoever came through sshd and did not prove anything yet; a handshake takes a moment.
UNPROVEN_MAX: Final = 16


class SshDoor:
    """The sshd of this computer as a door of this machine, and its keys for those of others."""

    def __init__(self, daemon: Runtime) -> None:
        self._daemon = daemon
        self._home = daemon.machine.home
        self._channel: SshChannel | None = None
        self._unproven = 0
        self._visitors = 0
        self._shown: SshKeys | None = None
        self._renew_at_ms = 0
        self._ask_s, self._ask_at_ms = LOOK_S, 0
        self._changed = asyncio.Event()
        self.trust = Trust(self._home)
        self._take_kept()

    def opens(self, own: Own) -> None:
        """From here on who comes through sshd may prove who it is."""
        self._channel = SshChannel(Options(), own)

    def renew(self, credentials: Credentials) -> None:
        """Show new credentials inside from the next handshake on."""
        assert self._channel is not None, "it is opened before anybody may call"
        self._channel.renew(credentials)

    # --- certificates --------------------------------------------------------------------

    def keys(self) -> SshKeys | None:
        """What this machine has for an sshd; None before any hub gave it certificates."""
        return self._shown

    async def known(self) -> SshKeys | None:
        """The same, asked for now where there is nothing yet: who just joined waits a moment."""
        for _ in range(_KNOWN_S):
            if self._shown is not None:
                break
            self._ask_at_ms = 0
            self._changed.set()
            await asyncio.sleep(1)
        return self._shown

    def _take_kept(self) -> None:
        raw = self._home.ssh_certificates()
        if raw:
            # What is damaged is asked for anew.
            with contextlib.suppress(MusterError, msgspec.DecodeError):
                self._take(msgspec.json.decode(raw, type=SshCertificates))

    def _take(self, found: SshCertificates) -> None:
        """Show these from now on. Raises: Forged, Malformed where they are not ours."""
        machine = self._daemon.machine
        open_ssh(found, machine.identity, machine.fleet)
        authority = ssh_authority(found, machine.fleet)
        self._renew_at_ms = renew_ssh_at_ms(found, machine.fleet)
        self._shown = SshKeys(private_key(machine.identity), found.user, authority)

    async def keep(self) -> None:
        """Have certificates that count, and sshd let in whoever is of the fleet."""
        membership = self._daemon.core.membership
        membership.on_change.append(lambda _after, _before: self._changed.set())
        while True:
            within_s = AGAIN_S
            async with self._daemon.supervisor.attempt("ssh"):
                if self._daemon.core.now.wall_ms >= max(self._renew_at_ms, self._ask_at_ms):
                    self._rest()
                    await self._renew()
                await self.follow()
                within_s = LOOK_S
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._changed.wait()

    def _rest(self) -> None:
        """Ask nobody for a while; each time for longer, until one gave us certificates."""
        self._ask_at_ms = self._daemon.core.now.wall_ms + int(self._ask_s * 1000)
        self._ask_s = min(2 * self._ask_s, _ASK_S_MAX)

    async def _renew(self) -> None:
        core, machine = self._daemon.core, self._daemon.machine
        record = core.roster.machines.get(core.machine)
        if record is None:
            return
        found: Any = None
        if machine.authority is not None:
            found = msgspec.to_builtins(issue_ssh(machine.authority, record, core.now.wall_ms))
        for hub in core.roster.hubs() if found is None else ():
            found = await self._daemon.effects.ask(hub.machine, CERTIFICATES, {})
            if found is not None:
                break
        if found is None:
            return
        try:
            certificates = msgspec.convert(found, SshCertificates)
        except msgspec.ValidationError as error:
            raise Malformed(f"what a hub gave as SSH certificates is none: {error}") from error
        self._take(certificates)
        self._home.put_ssh_certificates(msgspec.json.encode(certificates))
        self._ask_s, self._ask_at_ms = LOOK_S, 0

    async def follow(self) -> None:
        """Where a person trusted the fleet, let in who is of it now, and nobody else."""
        if self._shown is not None and self.trust.is_given:
            authority, others = self._shown.authority, self.others()
            fleet = self._daemon.machine.fleet
            await asyncio.to_thread(self.trust.follow, fleet, authority, others)

    def others(self) -> list[str]:
        """Every machine of the fleet but this one."""
        core = self._daemon.core
        return sorted(str(each) for each in core.roster.machines if each != core.machine)

    # --- who comes -----------------------------------------------------------------------

    async def serve(self, call: ev.Perform, stream: Served, sshd: int) -> None:
        """The life of a link that came through sshd, whose process for it has this number."""
        core = self._daemon.core
        link = core.links.get(call.link)
        if link is None or not link.local:
            raise Denied("who comes through sshd comes by this machine's own socket")
        if self._unproven >= UNPROVEN_MAX:
            raise Conflict("many came through sshd and did not prove who they are; try again")
        self._visitors += 1
        try:
            await self._visited(stream, sshd)
        finally:
            self._visitors -= 1

    async def _visited(self, stream: Served, sshd: int) -> None:
        assert self._channel is not None, "it is opened before anybody may call"
        core = self._daemon.core
        self._unproven += 1
        try:
            stream.accept()
            came = self._channel.open(stream.flow, serves=True)
            try:
                await came.prove("")
            except MusterError as error:
                core.counters[labelled("ssh-refused", error)] += 1
                if isinstance(error, Denied):
                    self._cut(sshd)
                return
        finally:
            self._unproven -= 1
        try:
            await self._daemon.serve(came)
        except Malformed as error:
            await came.close(str(error))
        finally:
            await came.close("done")
            if came.peer in core.roster.revoked:
                self._cut(sshd)

    async def visit(self) -> None:
        """End the daemon, which sshd began, when nobody has come through for a while."""
        loop, worker = asyncio.get_running_loop(), self._daemon.core.part(WorkerService).worker
        ends_s = loop.time() + FIRST_VISIT_S
        while loop.time() < ends_s:
            await asyncio.sleep(1)
            if self._visitors or any(worker.running()):
                ends_s = loop.time() + VISIT_S
        self._daemon.stop()

    def _cut(self, sshd: int) -> None:
        """End a connection to sshd: whoever is shut out must not run our program again and again.

        A number proves nothing: only a process of sshd is ended, and the kernel allows only those
        of the same person.
        """
        # It has ended, or is of somebody else, whom the kernel does not let us end.
        with contextlib.suppress(OSError):
            name = Path(f"/proc/{sshd}/comm").read_text(encoding="ascii", errors="replace")
            if sshd > 1 and name.startswith("sshd"):
                os.kill(sshd, signal.SIGTERM)
                self._daemon.core.counters["ssh-cut"] += 1
