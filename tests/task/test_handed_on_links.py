"""A run that an agent handed on: each link between it and the person behind, and each way to break it."""

from typing import Any

import pytest
from msgspec.structs import replace
from tests.promise import proves
from tests.task.test_handed_on import AGENTS, FLEET_ID, ME, NOW, OPERATOR, SPEC, Chain, authority

from muster import limits
from muster.errors import Denied
from muster.fleet.grant import DELEGATE, FLEET_GRANTEE, Bounds, Grant
from muster.fleet.statement import EVERY_MACHINE, sign_statement
from muster.log.clock import Stamp
from muster.log.entry import Entry, compose
from muster.log.keys import Signer
from muster.log.stream import FLEET, Incarnation, MachineId, StreamName
from muster.task import kinds
from muster.task.causes import Unproven
from muster.task.delegation_kinds import DelegationOpen
from muster.task.evidence import HOPELESS, asked_by, check_ordered, run_args
from muster.task.identity import run_id, task_id
from muster.task.spec import parse
from muster.task.template import phase_order

OTHER = MachineId("5" * 64)
PLAIN = 'muster: 1\nname: s\nphases:\n  work: {agent: claude, do: x, check: "true"}\n'
SHELL = PLAIN.replace("agent: claude", "agent: shell")
BOUNDS = Bounds(at_once=2, per_day=5)
GRANT = Grant(object="*", to=ME, until_ms=NOW, verb=DELEGATE, bounds=BOUNDS)


class Handed(Chain):
    """A run that the agent of an ordered one handed on; `changes` break one link of it."""

    def __init__(self, **changes: Any) -> None:
        super().__init__()
        self.changes, self.counts = changes, list[tuple[str, int, int]]()
        self.given: Grant | None = changes.get("given")
        order = changes.get("order", SPEC)
        run = kinds.RunOpen("-", "s", order, "")
        raw = self._signed(OPERATOR, run)
        run = replace(run, run=run_id(ME, raw), statement=raw)
        self.ground = self.assigned(self.write(run, "run.open"), changes.get("machine", ME))
        self.handed = self._handed()

    def write(self, body: Any, kind: str, *causes: Entry, at_ms: int = NOW, by: str = ME) -> Entry:
        raw = body if isinstance(body, bytes) else kinds.body_bytes(body)
        stream = StreamName(MachineId(by), Incarnation("3" * 32), FLEET)
        stamp, cited = Stamp(at_ms, len(self.entries)), [each.id for each in causes]
        made = compose(stream, len(self.entries), stamp, kind, "muster", cited, raw, bytes(16))
        self.entries[made.id] = made
        return made

    def _signed(self, signer: Signer, run: kinds.RunOpen, target: str = ME) -> str:
        return sign_statement(
            signer, fleet=FLEET_ID, verb="run", object="s", target=target, args=run_args(run),
            nonce=len(self.entries).to_bytes(16), issued_ms=NOW, until_ms=NOW + 60_000,
        ).hex()  # fmt: skip

    def _handed(self) -> Entry:
        said = self.changes
        bare = kinds.RunOpen("-", "s", said.get("spec", PLAIN), "", **said.get("shaped", {}))
        raw = self._signed(said.get("signer", AGENTS), bare, said.get("target", ME))
        run = replace(bare, run=run_id(ME, raw), statement=raw)
        body: Any = DelegationOpen(run.run, ME, raw, run.spec, grant="g1" if self.given else "")
        body = said.get("raw") or replace(body, **said.get("asked", {}))
        at_ms = said.get("at_ms", NOW)
        self.asking = self.write(body, "delegation.open", *self.grounds(), at_ms=at_ms)
        return self.write(run, "run.open", self.asking)

    def grounds(self) -> list[Entry]:
        """What the asking cites."""
        return [] if self.changes.get("uncaused") or self.given else [self.ground]

    def assigned(self, opening: Entry, machine: str = ME) -> Entry:
        run = kinds.read(kinds.RunOpen, opening.body or b"")
        place = task_id(run.run, "work", "")
        template = phase_order(parse(run.spec.encode()), "work")
        task = kinds.TaskOpen(place, template, run=run.run, phase="work")
        body = kinds.TaskAssign(place, (1, 1), machine, "claude", 30_000)
        return self.write(body, "task.assign", self.write(task, "task.open", opening))

    def machine_of(self, key: str) -> MachineId | None:
        found = self.changes.get("speaks", ME)
        return found if key == AGENTS.public.hex() else None

    def grant(self, id: str, machine: MachineId) -> Any:
        return self.given if (id, machine) == ("g1", ME) else None

    def is_counted(self, entry: Entry, run: str) -> bool:
        return not self.changes.get("other_counts")

    def is_begun(self, opening: Entry, run: kinds.RunOpen) -> bool:
        return not self.changes.get("begun_before")

    def before(self, entry: Entry, source: str, since_ms: int, most: int) -> int:
        self.counts.append((source, since_ms, most))
        return min(self.changes.get("before", 0), most)

    def reason(self, entry: Entry | None = None, **more: Any) -> str:
        known = {"fleet": FLEET_ID, "lookup": self.lookup, "authority": authority}
        known |= {"now_ms": NOW, "asking": self, **more}
        try:
            check_ordered(entry or self.handed, **known)
        except Unproven as unproven:
            return unproven.reason
        return ""


AHEAD_MS = NOW + limits.CLOCK_AHEAD_MS_MAX
# What is changed of the chain, and what its owner and each worker say of it.
LINKS: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    # Whose key it is, what it ordered of whom, and for which run.
    ({"signer": Signer(b"x" * 32)}, "delegation-not-allowed"),
    ({"speaks": None}, "delegation-not-allowed"),
    ({"speaks": OTHER}, "delegation-other-order"),
    ({"target": EVERY_MACHINE}, "statement-other-order"),
    ({"target": OTHER}, "statement-other-order"),
    ({"asked": {"owner": OTHER}}, "statement-other-order"),
    ({"asked": {"run": "f" * 32}}, "delegation-other-order"),
    ({"asked": {"statement": "00"}}, "delegation-other-order"),
    ({"other_counts": True}, "delegation-other-order"),
    ({"begun_before": True}, "run-begun-before"),
    ({"raw": b"[]"}, "delegation-bad-body"),
    # When it was asked.
    ({"at_ms": AHEAD_MS}, ""),
    ({"at_ms": AHEAD_MS + 1}, "delegation-in-the-future"),
    # Within what the signed phase says.
    ({"uncaused": True}, "delegation-missing"),
    ({"machine": OTHER}, "assign-other-machine"),
    ({"order": PLAIN}, "delegation-not-allowed"),
    ({"before": 2}, ""),
    ({"before": 3}, "delegation-too-many"),
    ({"before": limits.DELEGATIONS_OF_ATTEMPT_MAX}, "delegation-too-many"),
    ({"spec": SPEC}, "delegation-too-wide"),
    ({"spec": SHELL}, "delegation-too-wide"),
    ({"spec": "no spec"}, "spec-yields-nothing"),
    ({"shaped": {"values": {"a": "b"}}}, "delegation-too-wide"),
    ({"shaped": {"kept": {"work": "r0"}}}, "delegation-too-wide"),
    ({"shaped": {"budget": {"tokens": 1}}}, "delegation-too-wide"),
    ({"shaped": {"after": "r0"}}, "delegation-too-wide"),
    # By an operator's grant to its machine.
    ({"given": GRANT}, ""),
    ({"given": GRANT, "before": 4}, ""),
    ({"given": GRANT, "before": 5}, "delegation-too-many"),
    ({"given": GRANT, "at_ms": NOW + 1}, "delegation-not-allowed"),
    ({"given": GRANT, "asked": {"grant": "g2"}}, "delegation-not-allowed"),
    ({"given": replace(GRANT, bounds=None)}, "delegation-not-allowed"),
    ({"given": replace(GRANT, object=OTHER)}, "delegation-too-wide"),
    ({"given": replace(GRANT, to=f"{FLEET_GRANTEE}{'e' * 64}")}, "peer-missing"),
]


@proves("delegation.evidence", "delegation.never-wider", "delegation.budget")
def test_an_owner_takes_what_an_agent_handed_on_only_by_what_a_person_signed():
    for changes, reason in LINKS:
        assert Handed(**changes).reason() == reason, changes


@proves("delegation.evidence")
def test_a_worker_says_of_the_run_what_its_owner_says_and_that_no_other_fleet_is_behind_it():
    for changes in ({}, {"given": GRANT}):
        chain = Handed(**changes)
        found = chain.check(chain.assigned(chain.handed))
        assert found.statement.operator == AGENTS.public.hex()
        assert (found.certain, found.foreign) == (True, False)
        assert asked_by(chain.handed, chain.lookup) == chain.asking
    assert asked_by(chain.write(b"{}", "run.open"), chain.lookup) is None
    for changes, reason in LINKS[1:12]:
        chain = Handed(**changes)
        with pytest.raises(Unproven) as refused:
            chain.check(chain.assigned(chain.handed))
        assert refused.value.reason == reason, changes


@proves("delegation.evidence")
def test_a_link_of_what_was_handed_on_that_is_gone_is_a_refusal_that_may_be_mended():
    chain = Handed()
    whole, gone = chain.lookup, {chain.ground.id: "delegation-missing"}
    gone[chain.asking.id] = "operator-not-allowed"
    for lost, reason in gone.items():
        chain.lookup = lambda id_, lost=lost: None if id_ == lost else whole(id_)
        assert chain.reason() == reason
    chain.lookup = whole
    assert chain.reason() == ""
    # What lacks something is asked again; what nobody allowed is not.
    assert "delegation-missing" not in HOPELESS
    assert {"delegation-not-allowed", "delegation-too-wide", "delegation-too-many"} <= HOPELESS


@proves("delegation.budget")
def test_what_is_counted_is_of_the_attempt_at_all_times_and_of_a_grant_in_one_day():
    chain = Handed()
    assert chain.reason() == ""
    source = chain.ground.id.hex()
    # First what no spec allows, then what this one does.
    assert chain.counts == [(source, 0, limits.DELEGATIONS_OF_ATTEMPT_MAX), (source, 0, 3)]
    granted = Handed(given=GRANT)
    assert granted.reason() == ""
    assert granted.counts == [("g1", NOW - 24 * 3_600_000, 5)]


@proves("task.evidence", "delegation.evidence")
def test_whoever_reads_an_opening_finds_the_same_order_behind_it_as_its_worker_does():
    chain, came = Handed(), []
    run = next(each for each in chain.entries.values() if each.header.kind == "run.open")
    task = next(each for each in chain.entries.values() if each.header.kind == "task.open")
    known = {"fleet": FLEET_ID, "lookup": chain.lookup, "authority": authority, "now_ms": NOW}
    known |= {"asking": chain, "came": lambda statement, entry: came.append((statement, entry))}
    # The id of a run and of its task follow from the order: nobody else can have them.
    assert check_ordered(run, **known) == check_ordered(task, **known) == (True, 0)
    assert [entry for _, entry in came] == [run, run]
    opened = kinds.read(kinds.TaskOpen, task.body or b"")
    for changes, reason in (
        ({"task": "f" * 32}, "task-other-id"), ({"run": "f" * 32}, "run-other-run"),
        ({"instance": "2"}, "task-other-id"),
    ):  # fmt: skip
        other = chain.write(replace(opened, **changes), "task.open", run)
        assert chain.reason(other) == reason
    assert chain.reason(chain.write(opened, "task.open")) == "run-missing"
    assert chain.reason(chain.write(opened, "task.open", run, by=OTHER)) == "run-other-owner"
    # An id that somebody chose may be anybody's.
    chosen = chain.write(replace(kinds.read(kinds.RunOpen, run.body or b""), run="r1"), "run.open")
    named = chain.write(replace(opened, task="t1", run="r1"), "task.open", chosen)
    assert check_ordered(named, **known) == check_ordered(chosen, **known) == (False, 0)


@proves("task.evidence")
def test_a_task_without_a_run_is_of_the_machine_of_which_it_was_ordered():
    chain, came = Handed(), []
    bare = kinds.TaskOpen("t1", {"agent": ["claude"], "do": "x"})
    args = {"base": "", "repo": "", "template": bare.template}

    def opened(target: str, by: str = ME) -> Entry:
        raw = sign_statement(
            OPERATOR, fleet=FLEET_ID, verb="task", object="t1", target=target, args=args,
            nonce=bytes(16), issued_ms=NOW, until_ms=NOW + 60_000,
        ).hex()  # fmt: skip
        return chain.write(replace(bare, statement=raw), "task.open", by=by)

    came_ = lambda statement, entry: came.append(entry)  # noqa: E731
    known = {"fleet": FLEET_ID, "lookup": chain.lookup, "authority": authority, "now_ms": NOW}
    mine, anybodys = opened(ME), opened(EVERY_MACHINE)
    assert check_ordered(mine, came=came_, **known) == (True, 0)
    assert check_ordered(anybodys, came=came_, **known) == (False, 0)
    assert came == [mine, anybodys]
    assert chain.reason(opened(OTHER)) == "statement-other-order"
    assert chain.reason(chain.write(bare, "task.open")) == "statement-missing"

    def late(_statement: Any, _entry: Entry) -> None:
        raise Unproven("order-came-late", "its key was shut out before")

    assert chain.reason(mine, came=late) == "order-came-late"


@proves("task.evidence")
def test_who_remembers_many_runs_forgets_them_and_looks_again():
    chain, known = Handed(), {}
    for n in range(300):
        bare = kinds.RunOpen("-", "s", PLAIN, "", values={"n": f"{n}"})
        raw = chain._signed(OPERATOR, bare)
        opening = chain.write(replace(bare, run=f"r{n}", statement=raw), "run.open")
        check_ordered(
            opening, fleet=FLEET_ID, lookup=chain.lookup, authority=authority, now_ms=NOW,
            known=known,
        )  # fmt: skip
        assert opening.id in known
        assert len(known) <= 256
    # What is remembered is no authority.
    with pytest.raises(Unproven):
        check_ordered(
            opening, fleet=FLEET_ID, lookup=chain.lookup, authority=_nobody, now_ms=NOW, known=known
        )


def _nobody(_statement: Any, _at_ms: int) -> None:
    raise Denied("nobody may")
