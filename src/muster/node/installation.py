"""One machine as it lies on the disk: home, keys, store, and the core made of them.

Rule 1: which incarnation goes on is decided here, once per start, from what the database, the
high-water mark outside the home and the machine itself say. Any doubt means a new one.
Rule 2: the mark is written after commits, at most once a second and beside the loop: it may lag,
never lead.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec

from muster import __version__
from muster.channel import FIRST
from muster.channel.tls import Credentials
from muster.errors import Malformed, MusterError
from muster.fleet import certificate, mesh
from muster.fleet.certificate import CertificateChain
from muster.fleet.facts import Way
from muster.fleet.join import open_answer, sign_renew
from muster.fleet.machine import Authority, Identity
from muster.fleet.record import MachineRecord, open_record
from muster.log.stream import FLEET, FleetId, Incarnation
from muster.node.core import Core
from muster.node.host import clock, daemon_log, reach
from muster.node.host.cards import cards
from muster.node.host.chat_config import Room
from muster.node.host.exposure import reached_inside
from muster.node.host.home import Home
from muster.node.host.mesh import is_there
from muster.node.host.own_address import OwnAddress
from muster.node.incarnations.doubt import Doubt
from muster.node.incarnations.own_incarnation import PRESENT
from muster.node.part import Part, all_folds
from muster.node.tasks.enclosures import Enclosures
from muster.node.verb import Verb
from muster.store.blobs import Blobs
from muster.store.mark import Mark, MarkFile, doubts
from muster.store.store import Store
from muster.task.enclosure import Here

MARK_MS: Final = 1_000
_MACHINE_ID: Final = "/etc/machine-id"
_GENERATION: Final = "/sys/firmware/acpi/tables/VMGENID"


class Installation:
    """Opens everything; raises what a person can act on where something is missing or wrong."""

    def __init__(self, home: Home, parts: Sequence[type[Part]], *, visiting: bool = False) -> None:
        """`visiting`: for as long as somebody comes through sshd, and for nothing else."""
        home.require()
        self.visiting = visiting
        self.home = home
        self.parts = parts
        self.config = home.config()
        if visiting:
            # Work would end with the visit.
            self.config = msgspec.structs.replace(self.config, slots=0)
        self.facts = home.facts()
        reach.check_config(self.config, self.facts, str(home.path / "config.toml"))
        self.fleet = FleetId(self.facts["fleet"])
        self.identity = Identity(home.seed())
        self.authority: Authority | None = None
        if home.has_seed("authority.seed"):
            self.authority = Authority(home.seed("authority.seed"))
        self.agent_variables = tuple(self.config.agent_env)
        self.blobs = Blobs(Path(home.blobs))
        # SQLite gives its companion files the mode of the database: nobody else reads any of them.
        Path(home.database).touch(mode=0o600)
        self.store = Store(
            home.database,
            fleet=self.fleet,
            machine=self.identity.machine,
            rng=secrets.token_bytes,
            folds=all_folds(self.fleet, self.parts),
        )
        # Why `config.toml` has another name than our record, "" where it has not; see `_shown`.
        self.misnamed = ""
        self.doubts: tuple[str, ...] = ()
        self._marked: dict[str, int] = {}
        self._mark_due = 0
        # What the mark says, or is about to say.
        self._noted: dict[str, int] = {}
        self._mark = MarkFile(Path(home.mark_folder) / "mark.json")
        self._core: Core | None = None
        self._own_address = OwnAddress()
        # One thread, so that marks are written in the order in which they were true.
        self._marker = ThreadPoolExecutor(1, "mark")
        self._marking: Future[bool] | None = None

    def core(self, verbs: Mapping[str, Verb]) -> Core:
        """The core in the incarnation that goes on (or begins)."""
        now = clock.read()
        self._core = Core(
            store=self.store,
            identity=self.identity,
            fleet=self.fleet,
            incarnation=self._incarnation(),
            rng=secrets.token_bytes,
            verbs=verbs,
            parts=self.parts,
            authority=self.authority,
            settings={
                "record": self.facts["record"],
                "operators": self.facts.get("operators", []),
                "machines": self.facts.get("machines", []),
                "ca": self.facts["ca"],
                "dials": bool(self.dials()),
                "version": __version__,
                "address": reach.address_now(self.config, self.facts),
                "listen": self.config.options(FIRST).listens_at,
                # What a person wrote into config.toml counts before what a command says.
                "address_written": self.config.options(FIRST).address,
                "lease_ms": self.config.lease_s * 1000,
                "money": self.config.money.terms(),
                "sandbox": Enclosures(self.config.sandbox.terms(), self.here()),
                "chat": [Room(n, c.room, c.thread) for n, c in self.config.chat.items()],
                "pid": os.getpid(),
                "visiting": self.visiting,
                "index": self.home.index,
                "daemon_log": daemon_log.reader(self.home.daemon_log),
                "up_since_ms": now.wall_ms,
            },
            now=now,
        )
        doubt = self._core.part(Doubt)
        doubt.reasons, doubt.awaited = self.doubts, self._marked
        return self._core

    def here(self) -> Here:
        """What a sandbox of this machine is decided with: its person's home, and what is ours."""
        return Here(home=os.path.expanduser("~"), never=self.home.own_folders)

    def whereabouts(self) -> dict[str, Any]:
        """Where this machine is reached now and what its network cards are, as facts say it."""
        moved = self._own_address.moved(self.facts)
        ways = reach.own_ways(self.config, self.facts, moved=moved)
        address = next((way.address for way in ways if way.channel == FIRST), "")
        if self._core is not None:
            # Whoever is invited now is told of where it is now.
            self._core.settings = {**self._core.settings, "address": address}
        ways = (*ways, *self._ways_of_mesh())
        beside = {"reach": ways, "cards": cards(wake=self.config.wake)}
        return {"address": address, **msgspec.to_builtins(beside)}

    def _ways_of_mesh(self) -> Iterator[Way]:
        """Where it is reached inside the fleet's own mesh, and where that mesh finds it."""
        interface, place = mesh.interface(self.identity.machine), self.mesh_place()
        if place is None or not is_there(interface):
            return
        if inside := reached_inside(self.config.options(FIRST), interface):
            yield Way(FIRST, inside)
        if place.endpoint:
            yield Way(mesh.WAY, place.endpoint)

    def mesh_place(self) -> mesh.Place | None:
        """Where this machine takes packets of the mesh, None where it is not in it."""
        return mesh.read_place(self.facts.get("mesh"), self.fleet)

    def in_mesh(self, place: mesh.Place | None) -> None:
        """Remember it, also over a start."""
        self._remember(mesh=None if place is None else msgspec.to_builtins(place))

    def dials(self) -> dict[str, list[Way]]:
        """Whom this machine was told to dial, and where."""
        return reach.given(self.config, self.facts)

    def found_at(self, machine: str, way: Way) -> None:
        """Remember where a machine was reached or is said to be: it is tried there first."""
        dial = self.facts.get("dial", {})
        known = {each.channel: each.address for each in reach.ways_of(dial.get(machine, {}))}
        known[way.channel] = way.address
        self._remember(dial={**dial, machine: known})

    def reached_at(self, address: str) -> None:
        """Remember where others reach this machine, as long as it listens where it does now."""
        self._remember(address=address, listen=self.config.options(FIRST).listens_at)

    def _shown(self, record: str, certificate: str) -> None:
        """Keep what we show of ourselves. A new name goes into `config.toml`, too.

        In between no name stands there: one that is not the record's would be refused at a start.
        Where the file cannot be written, the rest goes on, and `misnamed` says what a person has
        to do: without a certificate that counts, nobody hears this machine.
        """
        name = open_record(record.encode(), self.fleet).name
        renamed, self.misnamed = self.config.name not in ("", name), ""
        if renamed:
            self._name_in_config("", name)
        self._remember(record=record, certificate=certificate)
        if renamed and not self.misnamed:
            self._name_in_config(name, name)

    def _name_in_config(self, text: str, name: str) -> None:
        try:
            self.home.set_config("name", text)
        except (MusterError, OSError) as error:
            self.misnamed = (
                f"this machine is {name} now, and config.toml does not say so ({error}); write "
                f"{name!r} as the `name` there before the next start"
            )
        else:
            self.config = msgspec.structs.replace(self.config, name=text)

    def set_labels(self, labels: tuple[str, ...]) -> None:
        """What specs ask for with `needs: label`, from now on. Raises: Refused, Broken."""
        self.home.set_config("labels", labels)
        self.config = msgspec.structs.replace(self.config, labels=labels)

    def _remember(self, **facts: Any) -> None:
        self.facts = {**self.facts, **facts}
        self.home.put_facts(self.facts)

    def _incarnation(self) -> Incarnation:
        going, machine = None, self.identity.machine
        try:
            mark = self._mark.read()
        except Malformed as error:
            self.doubts = (str(error),)
        else:
            boots = (_read(_MACHINE_ID), _read(_GENERATION))
            going, self.doubts = resume_incarnation(self.store, mark, *boots)
            sizes = mark.sizes if mark is not None else {}
            self._marked = {s: n for s, n in sizes.items() if s.startswith(f"{machine}/")}
        return going or Incarnation(secrets.token_hex(16))

    def note_heads(self) -> None:
        """Keep the high-water mark outside the home; cheap when it was just done."""
        core = self._core
        if core is None or core.now.boot_ms < self._mark_due:
            return
        if self._marking is not None:
            if not self._marking.done():
                return
            error = self._marking.exception()
            # A mark that could not be written is late, and late is allowed: it is written again.
            if error is not None:
                self._noted = {}
                if not isinstance(error, MusterError):
                    raise error
        self._mark_due = core.now.boot_ms + MARK_MS
        heads = self._heads(core)
        if heads == self._noted:
            return
        self._noted = heads
        mark = self._mark_of(core)
        self._marking = self._marker.submit(self._mark.write, mark, core.now.wall_ms, force=True)

    def _heads(self, core: Core) -> dict[str, int]:
        """How long the streams of the present incarnation are."""
        incarnation, me = core.membership.incarnation, self.identity.machine
        own = [
            s for s in self.store.log.streams() if (s.machine, s.incarnation) == (me, incarnation)
        ]
        return {str(stream): self.store.log.size(stream) for stream in own}

    def _mark_of(self, core: Core) -> Mark:
        machine, boot = _read(_MACHINE_ID), _read("/proc/sys/kernel/random/boot_id")
        generation = _read(_GENERATION)
        return Mark(core.membership.incarnation, self._heads(core), machine, boot, generation)

    def credentials(self) -> Credentials:
        """What this machine shows of itself with each link."""
        shown, ca = self.facts["certificate"].encode(), self.facts["ca"].encode()
        return Credentials(*certificate.tls_files(self.identity, CertificateChain(shown, ca)))

    def renewal_due(self, record: MachineRecord | None, wall_ms: int) -> bool:
        """Whether the certificate is old, or says another name or roles than the record does."""
        shown = open_record(self.facts["record"].encode(), self.fleet)
        if record is not None and (record.roles, record.name) != (shown.roles, shown.name):
            return True
        return wall_ms >= certificate.renew_at_ms(self.facts["certificate"].encode())

    def renewed_here(self, record: MachineRecord, wall_ms: int) -> bool:
        """Fresh certificates from our own authority; False where we hold none."""
        if self.authority is None:
            return False
        issued = certificate.issue(self.authority, record, wall_ms)
        self._shown(record.raw.decode(), issued.tls_pem.decode())
        return True

    def renewal(self, record: MachineRecord, wall_ms: int) -> str:
        """The request for fresh certificates, signed by our root key."""
        nonce = secrets.token_bytes(16)
        return sign_renew(self.identity, record, nonce=nonce, issued_ms=wall_ms).decode()

    def take_renewal(self, raw: str) -> None:
        """Keep the certificates in an answer. Raises: Refused where a part of it is not for us."""
        fresh = open_answer(raw.encode(), self.identity, self.fleet).answer
        self._shown(fresh.record, fresh.tls_pem)

    def close(self) -> None:
        self._marker.shutdown(wait=True)
        if self._core is not None and self.store.broken is None and not self.store.waits:
            # A disk without room keeps an older mark, which is true as well.
            with contextlib.suppress(MusterError):
                self._mark.write(self._mark_of(self._core), self._core.now.wall_ms, force=True)
                self.store.idle()
        self.store.close()


def resume_incarnation(
    store: Store, mark: Mark | None, machine_id: str, generation: str
) -> tuple[Incarnation | None, tuple[str, ...]]:
    """The incarnation that goes on after a start; None, and why, when a new one must begin."""
    mine = [s for s in store.log.streams() if s.machine == store.machine and store.log.size(s)]
    opened = [s for s in mine if s.scope == FLEET]
    if mark is not None and not any(s.startswith(store.machine) for s in mark.sizes):
        # It was left by another machine that lived in this folder.
        mark = None
    if not opened:
        size = sum(mark.sizes.values()) if mark is not None else 0
        gone = (f"Its log is gone: it had {size} entries.",) if size else ()
        return None, gone
    # Where we wrote last, and not what began last: a clock may say anything, and what comes back
    # from peers may be younger than what this database has gone on with.
    last = next((s for s in opened if s.incarnation == store.recall(PRESENT)), None)
    if last is None:
        last = max(opened, key=lambda s: store.log.slice(s, 0, 1)[0].stamp)
    same = [s for s in mine if s.incarnation == last.incarnation]
    found = doubts(mark, {str(s): store.log.size(s) for s in same}, machine_id, generation)
    if any(store.log.frozen_at(s) is not None for s in same):
        found.append("Its stream forked: its key wrote two histories.")
    return (None if found else last.incarnation), tuple(found)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()[:64]
    except (OSError, UnicodeDecodeError):
        return ""
