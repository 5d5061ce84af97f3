"""The roster: who is in the fleet and who may hold what, combined from every stream's rows.

Rule 1: a roster is a value, made from rows and nothing else; two machines with equal rows have
equal rosters, in whatever order the rows arrived.
Rule 2: of two records of one machine the higher serial counts, whoever passed them on.
Rule 3: a revoked key counts nowhere: not as a machine, not as an operator, not as a giver of
grants, not as a member; the tombstone outlives every later record.
Rule 4: a machine outside a stream's scope never holds it; in doubt it does not.

Rows are mappings from column to value of the tables in folds.py, with `stream` the writer's.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from muster.errors import Conflict, Denied, Forged, NotFound
from muster.fleet import folds
from muster.fleet.facts import Facts
from muster.fleet.grant import Given, Grant, decide, effective, gives, root_grant
from muster.fleet.name import short
from muster.fleet.record import (
    Binding,
    MachineRecord,
    OperatorRecord,
    Revocation,
    open_operator,
    open_record,
    open_revocation,
)
from muster.fleet.statement import Statement, check_order
from muster.log.stream import (
    FLEET,
    FleetId,
    MachineId,
    Scope,
    StreamName,
    direct_target,
    group_owner,
    is_group,
    scope_group,
)

Row = Mapping[str, Any]
RowsOf = Callable[[str], Iterable[Row]]

# As many documents as a large fleet has; opening one costs several signatures.
_OPENED_MAX: Final = 4096


class Member(NamedTuple):
    """A membership; `cuts` says from where on the member gets each stream that it names."""

    cuts: Mapping[str, int]


class Closed(NamedTuple):
    """An operator's decision about a fork: it is closed, the stream stays where it was cut."""

    stream: str
    common: int
    operator: str
    issued_ms: int
    note: str


@dataclass(frozen=True, slots=True)
class Roster:
    """Everything the fleet's streams say about who; see the rules at the top of this file.

    `machines` and `operators` are the ones that count; `known` includes revoked machines,
    whose old seals must stay verifiable.
    """

    fleet: FleetId
    machines: Mapping[MachineId, MachineRecord] = field(default_factory=dict)
    known: Mapping[MachineId, MachineRecord] = field(default_factory=dict)
    operators: Mapping[str, OperatorRecord] = field(default_factory=dict)
    revoked: Mapping[str, Revocation] = field(default_factory=dict)
    grants: tuple[Given, ...] = ()
    facts: Mapping[MachineId, Facts] = field(default_factory=dict)
    groups: Mapping[Scope, Mapping[MachineId, Member]] = field(default_factory=dict)
    # The forks that an operator closed, by name; see forked.py.
    closed: Mapping[str, Closed] = field(default_factory=dict)
    # The sub-keys of revoked machines.
    dead: frozenset[str] = frozenset()

    def machine(self, machine: str) -> MachineRecord:
        """The live record of a machine. Raises Denied when revoked, NotFound when unknown."""
        record = self.machines.get(MachineId(machine))
        if record is not None:
            return record
        if machine in self.revoked:
            raise Denied(
                f"Machine {self.revoked[machine].name} is revoked: its key counts no more."
            )
        raise NotFound(f"No machine {short(machine)} is in this fleet.")

    def named(self, name: str) -> MachineRecord:
        """The live machine of this name."""
        found = [each for each in self.machines.values() if each.name == name]
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(sorted(short(each.machine) for each in found))
            raise Conflict(f"More than one machine is named {name} ({ids}): revoke one of them.")
        if any(each.name == name for m, each in self.known.items() if m in self.revoked):
            raise Denied(f"Machine {name} is revoked: its key counts no more.")
        names = ", ".join(sorted(each.name for each in self.machines.values())) or "none"
        raise NotFound(f"No machine is named {name[:64]!r}; the fleet has: {names}.")

    def find(self, text: str) -> MachineRecord:
        """The live machine that a person means by a name or a full id."""
        if MachineId(text) in self.known:
            return self.machine(text)
        return self.named(text)

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
                continue
            return record
        return None

    def cut(self, stream: StreamName) -> int | None:
        """How much of a revoked machine's stream still counts; None when it is not revoked."""
        revocation = self.revoked.get(stream.machine)
        return None if revocation is None else revocation.cuts.get(str(stream), 0)

    def may_write(self, stream: StreamName) -> bool:
        """Whether the stream's own machine is, now, entitled to its scope."""
        if stream.machine not in self.machines:
            return False
        return not is_group(stream.scope) or self._includes(stream.scope, stream.machine)

    def may_hold(self, stream: StreamName, machine: MachineId) -> bool:
        """Whether `machine` may have the plaintext of `stream`; see also `held_from`."""
        if machine not in self.machines:
            return False
        if machine == stream.machine:
            return True
        target = direct_target(stream.scope)
        return machine == target if target is not None else self._includes(stream.scope, machine)

    def held_from(self, stream: StreamName, machine: MachineId) -> int:
        """From which entry on a member may have the bodies of a stream: 0 for its whole history."""
        if machine == stream.machine:
            return 0
        member = self.groups.get(stream.scope, {}).get(machine)
        return 0 if member is None else member.cuts.get(str(stream), 0)

    def holders(self, stream: StreamName) -> frozenset[MachineId]:
        """Every machine that may hold the stream."""
        return frozenset(each for each in self.machines if self.may_hold(stream, each))

    def decide(self, key: str, verb: str, object: str, now_ms: int) -> str:
        """The grant that lets a key, an agent (`name@<machine id>`) or a machine do this now.

        Raises Denied, also for every key of a revoked machine or operator.
        """
        machine = MachineId(key.rpartition("@")[2])
        if self.is_dead(key) or machine in self.revoked:
            raise Denied(f"{short(key)} is revoked: it may do nothing any more.")
        roles = self.machines[machine].roles if machine in self.machines and "@" not in key else ()
        return decide(self.grants, key, verb, object, now_ms, roles)

    def allow(
        self,
        statement: Statement,
        *,
        verb: str,
        object: str,
        machine: MachineId,
        args: Any,
        now_ms: int,
    ) -> str:
        """The grant by which `machine` obeys an opened statement; raises Denied or Forged.

        The caller still has to take the nonce, in the transaction of the effect.
        """
        check_order(statement, verb=verb, object=object, machine=machine, args=args, now_ms=now_ms)
        return self.decide(statement.operator, verb, object, now_ms)

    def check_give(self, statement: Statement, grant: Grant) -> None:
        """Raises Denied unless the signer of this opened statement may give this grant.

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
                f"{short(giver)} may not give {grant.verb} {grant.object}: "
                "an operator must, or let this key do so."
            )

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
                raise Denied(f"Another machine is named {binding.name}: choose another name.")

    def _includes(self, scope: Scope, machine: MachineId) -> bool:
        if scope == FLEET:
            return True
        # Nobody answers any more for a group whose owner is revoked: it is closed.
        return group_owner(scope) in self.machines and machine in self.groups.get(scope, {})


def assemble(fleet: FleetId, rows: RowsOf) -> Roster:
    """The roster that these rows amount to; `rows(table)` yields those of every stream."""
    revoked = {
        key: _revocation(raw, fleet)
        for key, raw in _newest(rows(folds.REVOKED.name), "key", "issued_ms", "revocation").items()
    }
    known = {
        MachineId(machine): _record(raw, fleet)
        for machine, raw in _newest(rows(folds.MACHINE.name), "machine", "serial", "record").items()
    }
    machines = {m: record for m, record in known.items() if m not in revoked}
    signed = {
        key: _operator(raw, fleet)
        for key, raw in _newest(
            rows(folds.OPERATOR.name), "operator", "issued_ms", "record"
        ).items()
    }
    dead = frozenset(
        key for m, record in known.items() if m in revoked for key in record.keys.values()
    )
    operators = {key: record for key, record in signed.items() if key not in revoked}
    roots = tuple(root_grant(key, operators[key].raw) for key in sorted(operators))
    return Roster(
        fleet=fleet,
        machines=machines,
        known=known,
        operators=operators,
        revoked=revoked,
        grants=effective(roots, _given(rows, frozenset(signed), dead | frozenset(revoked))),
        facts=_facts(rows(folds.FACTS.name)),
        groups=_groups(rows),
        closed=_closed(rows(folds.FORK.name), signed),
        dead=dead,
    )


def _newest(rows: Iterable[Row], key: str, number: str, text: str) -> dict[str, bytes]:
    """Per key, the document of the highest number; of equal numbers the greater text."""
    newest: dict[str, tuple[int, str]] = {}
    for row in rows:
        candidate = (row[number], row[text])
        newest[row[key]] = max(newest.get(row[key], candidate), candidate)
    return {each: raw.encode() for each, (_, raw) in newest.items()}


def _given(rows: RowsOf, operators: frozenset[str], dead: frozenset[str]) -> tuple[Given, ...]:
    """Every grant that a live key gave and nobody entitled to has taken, by id."""
    takers: dict[str, set[str]] = {}
    for row in rows(folds.TAKEN.name):
        takers.setdefault(row["id"], set()).add(row["taker"])
    given: dict[str, Given] = {}
    for row in rows(folds.GRANT.name):
        id_, giver = row["id"], row["giver"]
        # What an operator took stays taken after the operator was revoked.
        taken = bool(takers.get(id_, set()) & (operators | {giver}))
        if giver not in dead and not taken:
            grant = Grant(
                object=row["object"], to=row["grantee"], until_ms=row["until_ms"], verb=row["verb"]
            )
            given[id_] = Given(id_, giver, grant)
    return tuple(given[id_] for id_ in sorted(given))


def _closed(rows: Iterable[Row], operators: Mapping[str, object]) -> dict[str, Closed]:
    """Per fork its first decision; it stands when the operator is revoked later."""
    found: dict[str, Closed] = {}
    for row in sorted(rows, key=lambda r: (r["issued_ms"], r["operator"], r["note"])):
        if row["operator"] in operators:
            closed = Closed(
                row["forked"], row["common"], row["operator"], row["issued_ms"], row["note"]
            )
            found.setdefault(row["fork"], closed)
    return found


def _facts(rows: Iterable[Row]) -> dict[MachineId, Facts]:
    newest: dict[str, tuple[int, str]] = {}
    for row in rows:
        candidate = (row["t_ms"], row["facts"])
        newest[row["machine"]] = max(newest.get(row["machine"], candidate), candidate)
    return {MachineId(m): msgspec.json.decode(text, type=Facts) for m, (_, text) in newest.items()}


def _groups(rows: RowsOf) -> dict[Scope, dict[MachineId, Member]]:
    """The members of every group; the owner's later stamp counts, across its incarnations."""
    latest: dict[tuple[Scope, str], tuple[int, int, bool, str]] = {}
    groups: dict[Scope, dict[MachineId, Member]] = {}
    for row in rows(folds.GROUP.name):
        scope, owner = _group(row)
        groups[scope] = {owner: Member({})}
    for row in rows(folds.MEMBER.name):
        scope, owner = _group(row)
        groups.setdefault(scope, {owner: Member({})})
        cuts = row["cuts"] if row["since"] == "now" else "{}"
        # At the same stamp a removal counts.
        candidate = (row["t_ms"], row["t_n"], not row["member"], cuts)
        key = (scope, row["machine"])
        latest[key] = max(latest.get(key, candidate), candidate)
    for (scope, machine), (_, _, removed, cuts) in latest.items():
        if not removed and machine not in groups[scope]:
            member = Member(msgspec.json.decode(cuts, type=dict[str, int]))
            groups[scope][MachineId(machine)] = member
    return groups


def _group(row: Row) -> tuple[Scope, MachineId]:
    owner = StreamName.parse(str(row["stream"])).machine
    return scope_group(owner, row["name"]), owner


@lru_cache(maxsize=_OPENED_MAX)
def _record(raw: bytes, fleet: FleetId) -> MachineRecord:
    return open_record(raw, fleet)


@lru_cache(maxsize=_OPENED_MAX)
def _operator(raw: bytes, fleet: FleetId) -> OperatorRecord:
    return open_operator(raw, fleet)


@lru_cache(maxsize=_OPENED_MAX)
def _revocation(raw: bytes, fleet: FleetId) -> Revocation:
    return open_revocation(raw, fleet)
