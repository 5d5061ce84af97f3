"""This machine as a member: its incarnation, its links, and how the others are.

Rule 1: nothing of ours is written before our own history is confirmed: after a start the peers are
asked for the head of our own stream first. Alone and in doubt means a new incarnation; alone and
not in doubt (a plain crash: what was sent was durable first) the old one goes on.
Rule 2: whoever holds more of our stream than we do proves that we were set back; a new incarnation
begins at once, citing where the old one ended as we know it.
Rule 3: a revoked machine's links are cut in the step that learns of it, and no stream of it grows
any more; they are ended from then on (replica/forks.py, rule 5).
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from muster.channel.frame import Type
from muster.errors import Malformed, Refused
from muster.fleet import kinds
from muster.fleet.chat import CHAT_LINK
from muster.fleet.facts import Facts, told
from muster.fleet.folds import fleet_folds
from muster.fleet.record import open_revocation
from muster.limits import COMPANY_MS, CONFIRM_MS, HELLO_BYTES_MAX, INT_ABS_MAX
from muster.log import canon
from muster.log.stream import FLEET, FleetId, Incarnation, MachineId
from muster.node import event as ev
from muster.node.counter import DECLARED
from muster.node.host.clock import Told
from muster.node.incarnations.doubt import Doubt
from muster.node.incarnations.lives import Lives
from muster.node.link import ROOTS, Link, channels, cost, sentence
from muster.node.part import Part
from muster.node.replica.forks import Regressed
from muster.node.replica.replication import Contradicted

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "incarnations": "This machine began a new incarnation.",
    "revocations-forged": "A revocation that a machine showed was by nobody who may revoke.",
}

# The setting that names the incarnation which this database goes on with.
PRESENT: Final = "incarnation"

FLEET_KINDS = (
    kinds.MACHINE_OPEN, kinds.MACHINE_RECORD, kinds.MACHINE_FACTS, kinds.MACHINE_LOGINS,
    kinds.MACHINE_REACH, kinds.MACHINE_WAKE, kinds.MACHINE_REVOKE, kinds.OPERATOR_RECORD,
    kinds.DEVICE_RECORD, kinds.GRANT_GIVE, kinds.OPERATOR_END, kinds.GRANT_TAKE, kinds.GROUP_OPEN,
    kinds.GROUP_ADD, kinds.GROUP_REMOVE, kinds.FLEET_PEER, kinds.FLEET_UNPEER,
    CHAT_LINK,
)  # fmt: skip


class FactsChanged(ev.Event, frozen=True):
    """The machine looked at itself again; `facts` as fleet/facts.py writes them."""

    facts: Mapping[str, Any]


class ShutOut(ev.Event, frozen=True):
    """A peer refused our link and showed a document: ours to check, whoever showed it."""

    proof: str


class FreshCertificates(ev.Effect, frozen=True):
    """Our record changed: show a certificate that says so, from the next handshake on."""


class OwnIncarnation(Part):
    name = "incarnation"
    effects = (FreshCertificates, ev.ReachedAt)
    vital = True

    def __init__(self, core: "Core") -> None:
        self.core = core
        self._started_ms = 0
        self._contradicted: set[MachineId] = set()
        self._facts: Mapping[str, Any] = {}
        # What no probe knows, by what it is called among the tools.
        self._said: dict[str, str] = {}
        for kind in FLEET_KINDS:
            # Combining the roster is dear, and such entries come in handfuls: the core tells the
            # listeners once, after the last of them.
            core.on(kind, lambda _stream, _entry: core.membership.stale())
        core.on(Regressed, self.regressed)
        core.on(Contradicted, self.contradicted)
        core.on(ev.RosterChanged, self._on_roster)
        core.on(ev.LinkUp, self.link_up)
        core.on(ev.LinkDown, self.link_down)
        core.on(ev.Tick, self._confirm)
        core.on(FactsChanged, self.facts_changed)
        core.on(ShutOut, self.shut_out)
        core.frames[Type.HELLO] = self._on_hello

    @staticmethod
    def folds(fleet: FleetId) -> Sequence[Any]:
        return fleet_folds(fleet)

    def start(self) -> None:
        """Open this incarnation's stream if it is new; find out whether we must ask first."""
        core = self.core
        self._started_ms = core.now.boot_ms
        fresh = core.log.size(core.membership.own(FLEET)) == 0
        core.settled = fresh or not self.must_ask()
        if fresh:
            self._open_incarnation()
        core.membership.changed()

    def must_ask(self) -> bool:
        """Whether somebody may know more of our own stream: anybody else in the fleet may."""
        return bool(self.core.roster.machines.keys() - {self.core.machine})

    def _open_incarnation(self) -> None:
        core, own = self.core, self.core.membership.own(FLEET)
        core.store.remember(PRESENT, own.incarnation)
        heads = {
            str(s): kinds.Head(core.log.root_at(s, core.log.size(s)).hex(), core.log.size(s))
            for s in core.log.streams()
            if s.machine == core.machine and s.incarnation != own.incarnation
        }
        record = str(core.settings["record"])
        core.append_body(kinds.MachineOpen(record, dict(list(heads.items())[-64:])))
        for raw in core.settings.get("operators", ()):
            core.append_body(kinds.OperatorRecorded(raw))
        for raw in core.settings.get("machines", ()):
            core.append_body(kinds.MachineRecorded(raw))
        for kind, fields in told(self._facts).items():
            core.append(kind, canon.encode(fields))

    def regressed(self, event: Regressed) -> None:
        """This incarnation is over: we were set back, or somebody else writes in our name.

        What is only claimed costs a new incarnation, and puts nothing in doubt: anybody can claim.
        """
        core, stream, why = self.core, event.stream, event.why
        if stream.incarnation != core.membership.incarnation:
            return
        core.counters["incarnations"] += 1
        core.membership.renewed(Incarnation(core.draw(16).hex()))
        # Nobody can know more of an incarnation that begins here.
        first, core.settled = not core.settled, True
        self._open_incarnation()
        title = f"{core.name} opened a new incarnation: {why}"
        core.incidents.open("incarnation", "warning", title)
        if event.proven:
            core.part(Doubt).begin((f"{why[:1].upper()}{why[1:]}.",))
        core.tell(ev.NewIncarnation())
        if first:
            core.confirmed()

    def contradicted(self, event: Contradicted) -> None:
        """A writer showed two histories of what we may not hold: only a person can tell.

        Once for each machine: it can open as many streams as it likes, and we write none for them.
        """
        machine = event.stream.machine
        if machine not in self._contradicted:
            self._contradicted.add(machine)
            title = "a machine shows different histories"
            self.core.incidents.open(f"fork-{machine[:16]}", "critical", title, event.what)

    def link_up(self, event: ev.LinkUp) -> None:
        core, now = self.core, self.core.now.boot_ms
        place = (event.link, event.peer, event.local, event.channel)
        price = cost(event.channel, event.through)
        more: dict[str, Any] = {"through": event.through, "cost": price, "foreign": event.foreign}
        link = core.links[event.link] = Link(*place, now, attempt=event.attempt, **more)
        if not event.peer:
            return
        link.numbers = channels(core.machine, event.peer)
        if event.peer in core.roster.revoked or event.peer not in core.roster.machines:
            core.do(ev.Cut(event.link, "this machine is not in the fleet"))
            return
        lives = core.part(Lives)
        for word in (lives.word, *lives.known()):
            core.send(event.link, Type.HELLO, 0, lives.hello_bytes(event.peer, word))
        core.sync.open(event.link, MachineId(event.peer), now, event.through, price)
        core.tell(ev.MachineHere(event.peer))

    def link_down(self, event: ev.LinkDown) -> None:
        core = self.core
        link = core.links.pop(event.link, None)
        if link is None:
            return
        core.sync.close(event.link, core.now.boot_ms)
        core.replication.closed(event.link)
        if link.peer and core.link_to(link.peer) is None:
            core.tell(ev.MachineGone(link.peer, link.heard_ms))

    def _on_hello(self, link: Link, _channel: int, payload: bytes) -> None:
        """The peer's version and clock: for status, never for decisions."""
        if len(payload) > HELLO_BYTES_MAX:
            raise Malformed("a hello is longer than any hello can be")
        try:
            hello = json.loads(payload)
            version, wall_ms = hello["muster"], hello["wall_ms"]
            word, process = hello.get("life", ""), hello.get("process", "")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Malformed("a hello cannot be read") from error
        if {type(version), type(word), type(process)} != {str} or type(wall_ms) is not int:
            raise Malformed("a hello names a version and a time in whole milliseconds")
        if not 0 <= wall_ms <= INT_ABS_MAX:
            raise Malformed("the time in a hello is none")
        link.version = sentence(version[:40])
        features = hello.get("features")
        # A hello has no room for many.
        words = [w for w in features if isinstance(w, str)] if isinstance(features, list) else []
        words = [word for word in words if word.isascii() and word.isprintable()]
        link.features = frozenset(words) or link.features
        core = self.core
        core.sync.process_named(link.id, process, core.now.boot_ms)
        session = core.sync.paths.by_link.get(link.id)
        if session is not None:
            session.compares = ROOTS in link.features
        if link.peer and process != link.process:
            # A process begun anew may be here before the old links of its machine are dead.
            others = {each.process for each in core.links.values() if each.peer == link.peer} - {""}
            link.process = process
            if others and process not in others:
                core.tell(ev.MachineGone(link.peer, link.heard_ms))
        link.offset_ms = wall_ms - core.now.boot_ms
        hubs = {hub.machine for hub in core.roster.hubs()}
        # The time that each linked machine goes by, as it said last, under whichever of its links.
        said = {one.peer: one.offset_ms for one in core.links.values() if one.offset_ms is not None}
        core.clock.heard(Told(at_ms, peer in hubs) for peer, at_ms in said.items() if peer)
        link.skew_ms = wall_ms - core.now.wall_ms
        if word:
            core.part(Lives).heard(link, word)

    def _confirm(self, _event: ev.Tick) -> None:
        """Go on when those who may know more of our own stream have had the time to say so.

        With everybody here that is at once. With somebody away it takes a moment, since the one
        who knows may be about to dial; with an unanswered question or a doubt, a little longer.
        """
        core, claims = self.core, self.core.replication.claims
        waited_ms, sessions = core.now.boot_ms - self._started_ms, core.sync.sessions.values()
        told = all(s.greeted for s in sessions) and claims.newest is None
        missing = core.roster.machines.keys() - {s.peer for s in sessions} - {core.machine}
        told = told and (not missing or (bool(sessions) and waited_ms >= COMPANY_MS))
        if core.settled or not (told or waited_ms >= CONFIRM_MS):
            return
        claim = claims.follow(core.membership)
        if claim is not None:
            self.regressed(Regressed(*claim, proven=False))
        else:
            core.confirmed()

    def _on_roster(self, event: ev.RosterChanged) -> None:
        core, after, before = self.core, event.after, event.before
        # A machine's certificate says its name and its roles.
        mine = [each.machines.get(core.machine) for each in (before, after) if each is not None]
        if len({None if record is None else (record.name, record.roles) for record in mine}) > 1:
            core.do(FreshCertificates())
        for machine in after.revoked:
            if before is not None and machine in before.revoked:
                continue
            own = [n for n, each in core.links.items() if each.peer == machine]
            for link in dict.fromkeys((*core.sync.cut(MachineId(machine)), *own)):
                core.do(ev.Cut(link, "this machine was revoked"))
            core.tell(ev.MachineRemoved(machine))
            core.replication.forks.end_streams_of(MachineId(machine), core.now.wall_ms)
            core.replication.intake.forget(MachineId(machine))

    def shut_out(self, event: ShutOut) -> None:
        """A peer shows that we were revoked. Only the authority's signature makes it true."""
        core, raw = self.core, event.proof
        try:
            revocation = open_revocation(raw.encode(), core.membership.fleet)
        except (Refused, UnicodeError):
            core.counters["revocations-forged"] += 1
            return
        if revocation.key == core.machine and core.machine not in core.roster.revoked:
            core.write(kinds.MACHINE_REVOKE, msgspec.to_builtins(kinds.MachineRevoke(raw)))

    def keeps(self, repo: str) -> None:
        """Tell the fleet of a repository that was just begun to be kept here, and of nothing else:
        to look at the whole machine takes a while.
        """
        known = set(self._facts.get("repositories", ()))
        self.facts_changed(FactsChanged({**self._facts, "repositories": sorted({*known, repo})}))

    def has(self, tool: str, said: str) -> None:
        """Tell the fleet of this among the tools, "" for none of it; however often it is probed."""
        self._said = {**self._said, tool: said}
        if self._facts:
            self.facts_changed(FactsChanged(self._facts))

    def facts_changed(self, event: FactsChanged) -> None:
        """Tell the fleet what this machine is, when that is news."""
        facts = event.facts
        if facts and self._said:
            probed = {n: v for n, v in facts.get("tools", {}).items() if n not in self._said}
            own = {name: text for name, text in self._said.items() if text}
            facts = {**facts, "tools": probed | own}
        if facts == self._facts:
            return
        self._facts = facts
        stored = self.core.roster.facts.get(self.core.machine, Facts("", ""))
        known = told(msgspec.to_builtins(stored))
        for kind, body in told(facts).items():
            if known.get(kind) != body:
                self.core.write(kind, body)
