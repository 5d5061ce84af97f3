"""The roster: who is in the fleet and who may hold what, combined from every stream's rows.

Rule 1: a roster is a value, made from rows and nothing else; see assembly.py.
Rule 2: of two records of one machine the higher serial counts, whoever passed them on.
Rule 3: a revoked key counts nowhere: not as a machine, not as an operator, not as a giver of
grants, not as a member; the tombstone outlives every later record.
Rule 4: a machine outside a stream's scope never holds it; in doubt it does not.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from muster.errors import Conflict, Denied, Forged, Malformed, NotFound, Refused
from muster.fleet.chat import Chat, Links, capped, chat_key
from muster.fleet.device import Device
from muster.fleet.facts import Facts
from muster.fleet.grant import (
    CHAT_GRANTEE,
    DELEGATE,
    FLEET_GRANTEE,
    TASK,
    Given,
    Grant,
    decide,
    effective,
    gives,
)
from muster.fleet.name import short
from muster.fleet.operator_end import Ended, acknowledged, took
from muster.fleet.peer import PeerFleet
from muster.fleet.record import Binding, MachineRecord, OperatorRecord, Revocation
from muster.fleet.statement import Statement
from muster.log.stream import (
    FLEET,
    FleetId,
    MachineId,
    Scope,
    StreamName,
    direct_target,
    group_owner,
)


@dataclass(frozen=True, slots=True)
class Roster:
    """Everything the fleet's streams say about who; see the rules at the top of this file.

    `machines` and `operators` are the ones that count; `known` includes revoked machines,
    whose old seals must stay verifiable.
    """

    fleet: FleetId
    machines: Mapping[MachineId, MachineRecord] = field(default_factory=dict)
    known: Mapping[MachineId, MachineRecord] = field(default_factory=dict)
    # The machine that had a name before it got another, where nobody has it now.
    former: Mapping[str, MachineId] = field(default_factory=dict)
    operators: Mapping[str, OperatorRecord] = field(default_factory=dict)
    # Every key that was an operator's once; what it took or acknowledged stays so, see `ended`.
    operators_ever: frozenset[str] = frozenset()
    # Of revoked operators' keys all that counts, where the authority said so.
    ended: Mapping[str, Ended] = field(default_factory=dict)
    # The devices that count, by key.
    devices: Mapping[str, Device] = field(default_factory=dict)
    # Every device that ever was one; whose work is what it ordered does not change.
    devices_ever: Mapping[str, Device] = field(default_factory=dict)
    revoked: Mapping[str, Revocation] = field(default_factory=dict)
    grants: tuple[Given, ...] = ()
    facts: Mapping[MachineId, Facts] = field(default_factory=dict)
    # The members of each group, and from where on a member gets each stream that is named.
    groups: Mapping[Scope, Mapping[MachineId, Mapping[str, int]]] = field(default_factory=dict)
    # The sub-keys of revoked machines.
    dead: frozenset[str] = frozenset()
    # The other fleets that are dealt with, by their ids.
    peers: Mapping[str, PeerFleet] = field(default_factory=dict)
    # The accounts of chats that are linked, by what grants call them; some may have ended.
    chats: Mapping[str, Chat] = field(default_factory=dict)
    links: Links = field(default_factory=Links)

    def machine(self, machine: str) -> MachineRecord:
        """The live record of a machine. Raises Denied when revoked, NotFound when unknown."""
        record = self.machines.get(MachineId(machine))
        if record is not None:
            return record
        if machine in self.revoked:
            raise Denied(
                f"Machine {self.revoked[machine].name} {self.revoked[machine].how}: "
                "its key counts no more."
            )
        raise NotFound(f"No machine {short(machine)} is in this fleet.")

    def find(self, text: str) -> MachineRecord:
        """The live machine that a person means by a name or a full id."""
        if MachineId(text) in self.known:
            return self.machine(text)
        found = [each for each in self.machines.values() if each.name == text]
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(sorted(short(each.machine) for each in found))
            raise Conflict(f"More than one machine is named {text} ({ids}): revoke one of them.")
        gone = [m for m, each in self.known.items() if each.name == text and m in self.revoked]
        if gone:
            raise Denied(f"Machine {text} {self.revoked[gone[-1]].how}: its key counts no more.")
        if text in self.former:
            raise NotFound(f"No machine is named {text} any more: it is {self.now_named(text)}.")
        names = ", ".join(sorted(each.name for each in self.machines.values())) or "none"
        raise NotFound(f"No machine is named {text[:64]!r}; the fleet has: {names}.")

    def peer(self, text: str) -> tuple[str, PeerFleet]:
        """Another fleet, by the name that it has here or its id. Raises: NotFound, Conflict."""
        found = [each for each in self.peers.items() if text in (each[0], each[1].name)]
        if len(found) > 1:
            ids = " and ".join(fleet[:12] for fleet, _ in found)
            raise Conflict(
                f"Two other fleets are called {text[:64]!r}: {ids}; remove one by its id, and take "
                "it in by another name."
            )
        if found:
            return found[0]
        names = ", ".join(sorted(each.name for each in self.peers.values())) or "none"
        raise NotFound(
            f"No other fleet is called {text[:64]!r}; there are: {names} (`muster peer add`)."
        )

    def now_named(self, former: str) -> str:
        """How a machine is called that had this name once."""
        return self.known[self.former[former]].name

    def hubs(self) -> tuple[MachineRecord, ...]:
        """The live machines with the role `hub`, in the order of their ids."""
        return tuple(
            self.machines[m] for m in sorted(self.machines) if "hub" in self.machines[m].roles
        )

    def keeper(self, repository: str, now_ms: int) -> MachineRecord | None:
        """The machine to fetch a repository from: a hub that has it, else one granted `repo` on it.

        That a machine says it has one is not enough: it would choose what the others run.
        """
        having = [
            record
            for machine, record in sorted(self.machines.items())
            if machine in self.facts and repository in self.facts[machine].repositories
        ]
        for record in having:
            if "hub" in record.roles:
                return record
        for record in having:
            try:
                self.decide(record.machine, "repo", repository, now_ms)
            except Denied:
                # This one may not keep it; the next one may.
                continue
            return record
        return None

    def cut(self, stream: StreamName) -> int | None:
        """How much of a revoked machine's stream still counts; None when it is not revoked."""
        revocation = self.revoked.get(stream.machine)
        return None if revocation is None else revocation.cuts.get(str(stream), 0)

    def may_hold(self, stream: StreamName, machine: MachineId) -> bool:
        """Whether `machine` may have the plaintext of `stream`; see also `held_from`."""
        if machine not in self.machines:
            return False
        if machine == stream.machine:
            return True
        target = direct_target(stream.scope)
        if target is not None or stream.scope == FLEET:
            return target in (None, machine)
        # Nobody answers any more for a group whose owner is revoked: it is closed.
        members = self.groups.get(stream.scope, {})
        return group_owner(stream.scope) in self.machines and machine in members

    def held_from(self, stream: StreamName, machine: MachineId) -> int:
        """From which entry on a member may have the bodies of a stream: 0 for its whole history."""
        if machine == stream.machine:
            return 0
        return self.groups.get(stream.scope, {}).get(machine, {}).get(str(stream), 0)

    def decide(self, key: str, verb: str, object: str, now_ms: int, life_ms: int = 0) -> str:
        """The grant that lets a key, an agent (`name@<machine id>`) or a machine do this now.

        Raises Denied, also for every key of a revoked machine or operator.
        """
        machine = MachineId(key.rpartition("@")[2])
        if self.is_dead(key) or machine in self.revoked:
            raise Denied(
                f"{self.called(key)} is revoked: it may do nothing any more; `muster operator "
                "list` names who orders, `muster device list` what orders for whom."
            )
        roles = self.machines[machine].roles if machine in self.machines and "@" not in key else ()
        asked = (self.grants, key, verb, object, now_ms, roles, life_ms)
        try:
            return decide(*asked)
        except Denied as error:
            # Who that is costs a look at every machine, and only a refusal says it.
            who = self.called(key)
            if key in self.devices_ever and key not in self.devices:
                raise Denied(
                    f"{who} orders nothing any more: what let it was taken back, or has ended; "
                    "`muster device add` with its name, where an operator orders, lets it anew."
                ) from error
            return decide(*asked, who=who, on=self.called_object(object))

    def may(self, key: str, verb: str, object: str, now_ms: int) -> bool:
        """Whether `decide` would name a grant."""
        with suppress(Denied):
            return bool(self.decide(key, verb, object, now_ms))
        return False

    def called(self, key: str) -> str:
        """What a person calls the owner of a key, an agent (`name@<machine id>`) or a machine."""
        agent, at, machine = key.rpartition("@")
        if at:
            return f"{agent} on {self.called(machine)}"
        if (device := self.devices_ever.get(key)) is not None:
            return f"the device {self._name_of(device.terms.machine)}"
        if key in self.operators:
            return f"operator {self.operators[key].name}"
        if (gone := self.revoked.get(key)) is not None:
            return f"{gone.of} {gone.name}"
        if MachineId(key) in self.known:
            return f"machine {self.known[MachineId(key)].name}"
        if (other := key.removeprefix(FLEET_GRANTEE)) != key:
            named = self.peers.get(other)
            return f"fleet {short(other) if named is None else named.name}"
        owner = next((m for m, r in self.known.items() if key in r.keys.values()), "")
        return f"machine {self._name_of(owner)}" if owner else f"key {short(key)}"

    def object_of_machine(self, text: str) -> str:
        """An object that begins with a machine's name, with its id: a name can be reused.

        Raises: NotFound.
        """
        name, colon, rest = text.partition(":")
        return self.find(name).machine + colon + rest

    def called_object(self, object: str) -> str:
        """What a person calls an object, which may begin with a machine's id."""
        machine, colon, rest = object.partition(":")
        return self._name_of(machine) + colon + rest if len(machine) == 64 else object

    def _name_of(self, machine: str) -> str:
        found = self.known.get(MachineId(machine))
        return machine[:12] if found is None else found.name

    def chat(self, service: str, workspace: str, account: str, machine: str) -> Chat:
        """The link of an account as it was heard there. Raises: Denied."""
        with suppress(Malformed):
            # What no account can be called is not linked either.
            link = self.chats.get(chat_key(service, account, machine))
            if link is not None and link.workspace == workspace:
                return link
        raise Denied(f"this account is not linked: `muster chat link {service}` links one")

    def permit(self, statement: Statement, now_ms: int) -> str:
        """The grant by which its signer may order what this statement says, then.

        Whoever asks about a statement asks here: only so is the life of an order looked at.
        """
        life_ms = statement.until_ms - statement.issued_ms
        return self.decide(statement.operator, statement.verb, statement.object, now_ms, life_ms)

    def was_permitted(self, statement: Statement, at_ms: int) -> None:
        """Whether it was an order when it was given, whoever was shut out since. Raises Denied."""
        key = statement.operator
        device = self.devices_ever.get(key)
        if key in self.operators_ever:
            return
        if device is None:
            self.permit(statement, at_ms)
            return
        life_ms = statement.until_ms - statement.issued_ms
        decide(device.given(), key, statement.verb, statement.object, at_ms, life_ms=life_ms)

    def speaker(self, key: str) -> str:
        """Who speaks with this key: an operator's name, or with the machine of a device behind it.

        Also after either was revoked. A key that has neither is called by its first digits. An
        account of a chat has no key, and is called as `called` says.
        """
        if key.startswith(CHAT_GRANTEE):
            return self.called(key)
        device = self.devices_ever.get(key)
        operator = device.operator if device else key
        if operator not in self.operators_ever:
            return key[:12]
        signed: OperatorRecord | Revocation | None = self.operators.get(operator)
        signed = signed or self.revoked.get(operator)
        name = operator[:12] if signed is None else signed.name
        if device is None:
            return name
        return f"{name}.{self._name_of(device.terms.machine)}"

    def speaking_for(self, key: str) -> MachineId | None:
        """The machine, in the fleet now or once, that signs for its agents with this key."""
        found = (m for m, record in self.known.items() if record.keys["statement"] == key)
        return next(found, None)

    def delegating(self, machine: str) -> tuple[Given, ...]:
        """The grants by which a live machine may hand on work for its agents, ended ones too."""
        record = self.machines.get(MachineId(machine))
        if record is None:
            return ()
        whom = {machine, *record.roles}
        return tuple(
            each
            for each in self.grants
            if each.grant.verb == DELEGATE and each.grant.bounds and each.grant.to in whom
        )

    def asking(self, fleet: str = "", verb: str = TASK) -> tuple[Given, ...]:
        """The grants by which a fleet that is taken in (or any) may ask for that, ended too."""
        whom = {FLEET_GRANTEE + each for each in self.peers if fleet in ("", each)}
        return tuple(
            each
            for each in self.grants
            if each.grant.verb == verb and each.grant.bounds and each.grant.to in whom
        )

    def check_give(self, statement: Statement, grant: Grant) -> None:
        """Raises Denied unless the signer of this opened statement may give this grant; Refused
        where no link of the account stood then.

        A grant that was written all the same counts for nothing; this is the sentence for
        the person who tried.
        """
        if not gives(statement, grant):
            raise Forged("The statement gives another grant than the one shown with it.")
        giver = statement.operator
        candidate = Given("", giver, grant)
        roots = [each for each in self.grants if each.giver == ""]
        others = [each for each in self.grants if each.giver != ""]
        if self.is_dead(giver) or candidate not in effective(roots, (*others, candidate)):
            raise Denied(
                f"{self.called(giver)} may not give {grant.verb} on {grant.object}: "
                "an operator must, or let this key do so."
            )
        if capped(candidate._replace(issued_ms=statement.issued_ms), self.links) is None:
            raise Refused(
                "this grant would count nowhere: no link of the account stood when it was signed; "
                "set the clock of the computer that signs it, and grant it again"
            )

    def took(self, key: str, id: str) -> bool:
        """Whether this key, an operator's now or once, took the grant (or terms) of this id."""
        return key in self.operators_ever and took(self.ended, key, id)

    def acknowledged(self, key: str, incident: str) -> bool:
        """Whether this key's word about an incident is an operator's, now or when it counted."""
        return key in self.operators_ever and acknowledged(self.ended, key, incident)

    def is_dead(self, key: str) -> bool:
        """Whether a key was revoked, or is a sub-key of a machine that was."""
        return key in self.revoked or key in self.dead

    def check_binding(self, binding: Binding) -> None:
        """Raises unless the machine of this binding may be in the fleet under this name.

        A tombstoned key never comes back; a name in use is taken; no two machines share a key,
        else one could show another's sub-key as its own.
        """
        if self.is_dead(binding.machine) or any(self.is_dead(k) for k in binding.keys.values()):
            raise Denied(
                f"A key of {binding.name} was revoked and is never enrolled again: "
                "start over there with a new seed."
            )
        keys = {binding.machine, *binding.keys.values()}
        for record in self.known.values():
            if record.machine == binding.machine:
                continue
            if keys & {record.machine, *record.keys.values()}:
                raise Forged(f"{binding.name} shows a key that belongs to {record.name}.")
            if record.name == binding.name and record.machine in self.machines:
                raise Denied(
                    f"Another machine is named {binding.name}: take another name "
                    f"(`muster invite` with it, where {binding.name} was invited)."
                )
