"""A chain of agents that each hand on the work of the one before: how far it is followed."""

from typing import Any

import pytest
from tests.promise import proves

from muster import limits
from muster.errors import Denied
from muster.fleet.statement import sign_statement
from muster.log.clock import Stamp
from muster.log.entry import Entry, EntryId, compose
from muster.log.keys import Signer
from muster.log.stream import FLEET, FleetId, Incarnation, MachineId, StreamName
from muster.task import kinds
from muster.task.causes import Unproven
from muster.task.delegation_kinds import DelegationOpen
from muster.task.evidence import check_evidence, run_args
from muster.task.identity import run_id, task_id
from muster.task.spec import parse
from muster.task.template import phase_order

NOW = 1_790_000_000_000
FLEET_ID = FleetId("f" * 64)
OPERATOR, AGENTS = Signer(b"o" * 32), Signer(b"a" * 32)
ME = MachineId("1" * 64)
SPEC = """\
muster: 1
name: s
phases:
  work: {agent: claude, do: x, check: "true", may: {delegate: {depth: 3, runs: 3}}}
"""


class Chain:
    """Runs of one hostile machine that is asker, owner and worker of all but the first."""

    def __init__(self) -> None:
        self.entries: dict[EntryId, Entry] = {}
        self.looked = 0

    def lookup(self, id: EntryId) -> Entry | None:
        self.looked += 1
        return self.entries.get(id)

    def append(self, body: Any, kind: str, *causes: Entry) -> Entry:
        stream = StreamName(ME, Incarnation("2" * 32), FLEET)
        made = compose(
            stream, len(self.entries), Stamp(NOW, len(self.entries)), kind, "muster",
            [each.id for each in causes], kinds.body_bytes(body), bytes(16),
        )  # fmt: skip
        self.entries[made.id] = made
        return made

    def run(self, assign: Entry | None) -> Entry:
        """The assignment of a run that the agent of another assignment handed on."""
        run = kinds.RunOpen("-", "s", SPEC, "")
        raw = sign_statement(
            OPERATOR if assign is None else AGENTS, fleet=FLEET_ID, verb="run", object="s",
            target=ME, args=run_args(run), nonce=len(self.entries).to_bytes(16), issued_ms=NOW,
            until_ms=NOW + 60_000,
        ).hex()  # fmt: skip
        id = run_id(ME, raw)
        causes = []
        if assign is not None:
            asked = DelegationOpen(id, ME, raw, SPEC)
            causes = [self.append(asked, "delegation.open", assign)]
        opened = self.append(kinds.RunOpen(id, "s", SPEC, raw), "run.open", *causes)
        template = phase_order(parse(SPEC.encode()), "work")
        task = kinds.TaskOpen(task_id(id, "work", ""), template, run=id, phase="work")
        opening = self.append(task, "task.open", opened)
        return self.append(
            kinds.TaskAssign(task.task, (1, 1), ME, "claude", 30_000), "task.assign", opening
        )

    def machine_of(self, key: str) -> MachineId | None:
        return ME if key == AGENTS.public.hex() else None

    def leads(self, statement: Any, entry: Any) -> bool:
        return False

    def grant(self, id: str, machine: MachineId) -> None:
        return None

    def is_begun(self, opening: Entry, run: kinds.RunOpen) -> bool:
        return True

    def is_counted(self, entry: Entry, run: str) -> bool:
        return True

    def before(self, entry: Entry, source: str, since_ms: int, most: int) -> int:
        return 0

    def ids(self, name: str) -> str:
        return name

    def recompute(self, run: kinds.RunOpen, phase: str, instance: str) -> dict[str, Any]:
        return phase_order(parse(run.spec.encode()), phase, instance)

    def check(self, assign: Entry, **more: Any) -> Any:
        return check_evidence(
            assign, me=ME, fleet=FLEET_ID, lookup=self.lookup, authority=authority,
            recompute=self.recompute, now_ms=NOW, **{"asking": self, **more},
        )  # fmt: skip


def authority(statement: Any, at_ms: int) -> None:
    if statement.operator != OPERATOR.public.hex():
        raise Denied("this key is no operator's")


@proves("delegation.never-wider")
def test_a_chain_that_grows_no_narrower_is_refused_and_a_long_one_is_not_even_followed():
    chain = Chain()
    first = chain.run(None)
    assert chain.check(first).statement.operator == OPERATOR.public.hex()
    last = chain.run(first)
    with pytest.raises(Unproven) as refused:
        chain.check(last)
    assert refused.value.reason == "delegation-too-wide"
    for _ in range(200):
        last = chain.run(last)
    chain.looked = 0
    with pytest.raises(Unproven, match="handed on too often"):
        chain.check(last)
    assert chain.looked < 20 * limits.DELEGATION_DEPTH_MAX


@proves("delegation.old-machines")
def test_whoever_does_not_know_of_agents_that_ask_finds_a_key_that_may_order_nothing():
    chain = Chain()
    last = chain.run(chain.run(None))
    with pytest.raises(Unproven) as refused:
        chain.check(last, asking=None)
    assert refused.value.reason == "operator-not-allowed"
