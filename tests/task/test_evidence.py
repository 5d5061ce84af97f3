"""Nothing runs without a signature: each link of the chain, and each way to break it."""

import re
from pathlib import Path
from typing import Any

import pytest
from tests.promise import proves

from muster import limits
from muster.errors import Denied, NotFound
from muster.fleet.grant import UNENCLOSED
from muster.fleet.statement import sign_statement
from muster.log.clock import Stamp
from muster.log.entry import compose
from muster.log.keys import Signer
from muster.log.stream import FLEET, FleetId, Incarnation, MachineId, StreamName
from muster.task import kinds
from muster.task.causes import Unproven
from muster.task.evidence import check_evidence, run_args, task_args

SPEC = "muster: 1\nname: notes\n"
TEMPLATE = {"agent": ["shell"], "do": "make test", "phase": "test"}
ORDERED_MS = 1_790_000_000_000
FLEET_ID = FleetId("f" * 64)
OPERATOR = Signer(b"o" * 32)
OWNER = MachineId("1" * 64)
ME = MachineId("b" * 64)
OTHER = MachineId("5" * 64)


class Chain:
    """An assignment with its causes. A test changes one argument, and one link breaks."""

    def __init__(self, **changes: Any) -> None:
        self.entries: dict[Any, Any] = {}
        self.lost: set[str] = changes.get("lost", set())
        self.changes = changes
        run = self._run()
        opener = self._open(run)
        body = kinds.TaskAssign("t1", (1, 1), changes.get("machine", ME), "shell", 30_000)
        kind = changes.get("assign_kind", "task.assign")
        self.assign = self._append(kind, body, [opener.id], OWNER)

    def _append(self, kind, body, causes, author, at_ms=ORDERED_MS + 5):
        raw = body if isinstance(body, bytes) else kinds.body_bytes(body)
        stream = StreamName(author, Incarnation("2" * 32), FLEET)
        entry = compose(
            stream, len(self.entries), Stamp(at_ms, 0), kind, "muster", causes, raw, bytes(16)
        )
        if kind not in self.lost:
            self.entries[entry.id] = entry
        return entry

    def _run(self):
        made = kinds.RunOpen("r1", "notes", SPEC, "", repo="main", values={"tag": "v1"})
        args = {**run_args(made), **self.changes.get("args", {})}
        statement = self.changes.get("statement", self.statement("run", "notes", args))
        made = kinds.RunOpen(
            self.changes.get("run", "r1"),
            "notes",
            SPEC,
            statement,
            repo="main",
            values={"tag": "v1"},
        )
        author = self.changes.get("run_author", OWNER)
        at_ms = self.changes.get("at_ms", ORDERED_MS + 5)
        return self._append("run.open", self.changes.get("run_body", made), [], author, at_ms)

    def _open(self, run):
        known = {"template": TEMPLATE, "run": "r1", "phase": "test", "repo": "main"}
        made = kinds.TaskOpen(
            self.changes.get("task", "t1"), **{**known, **self.changes.get("open", {})}
        )
        causes = [] if self.changes.get("uncaused") else [run.id]
        author = self.changes.get("open_author", OWNER)
        return self._append("task.open", self.changes.get("open_body", made), causes, author)

    def statement(self, verb, name, args):
        known = {
            "fleet": FLEET_ID, "verb": verb, "object": name, "target": OWNER, "args": args,
            "nonce": bytes(16), "issued_ms": ORDERED_MS, "until_ms": ORDERED_MS + 60_000,
        }  # fmt: skip
        return sign_statement(OPERATOR, **{**known, **self.changes.get("signed", {})}).hex()

    def lookup(self, entry_id):
        entry = self.entries.get(entry_id)
        erased = entry is not None and entry.header.kind == self.changes.get("erased")
        return entry.without_body() if erased else entry

    def check(self, **changes):
        known = {
            "me": ME, "fleet": FLEET_ID, "lookup": self.lookup, "authority": authority,
            "recompute": recompute, "now_ms": ORDERED_MS + 3_600_000,
        }  # fmt: skip
        return check_evidence(self.assign, **{**known, **changes})


def authority(statement, at_ms):
    if statement.operator != OPERATOR.public.hex():
        raise Denied("this key is no operator's")


def recompute(run, phase, instance):
    if (run.spec, phase, instance) != (SPEC, "test", ""):
        raise NotFound("the spec has no such phase")
    return TEMPLATE


@proves("task.evidence")
def test_an_assignment_leads_back_to_the_operators_signature():
    found = Chain().check()
    assert found.assign.task == found.opened.task == "t1"
    assert found.run is not None
    assert found.statement.operator == OPERATOR.public.hex()


@proves("openings.off-by-a-grant")
def test_what_has_no_sandbox_was_ordered_by_who_may_order_that_too():
    asked = []

    def but_not_that(statement, at_ms):
        asked.append((statement.verb, statement.object, at_ms))
        if statement.verb == UNENCLOSED:
            raise Denied("no grant allows it")

    off = {**TEMPLATE, "sandbox": "off"}
    chain = Chain(open={"template": off})
    with pytest.raises(Unproven, match="without a sandbox: no grant allows it") as refused:
        chain.check(authority=but_not_that, recompute=lambda *_: off)
    assert refused.value.reason == "unenclosed-not-allowed"
    assert asked == [("run", "notes", ORDERED_MS + 5), ("unenclosed", "notes", ORDERED_MS + 5)]
    assert chain.check(recompute=lambda *_: off)
    # And what cannot be read is not run either.
    odd = {**TEMPLATE, "network": ["127.0.0.1"]}
    with pytest.raises(Unproven):
        Chain(open={"template": odd}).check(recompute=lambda *_: odd)


FORGED = sign_statement(
    OPERATOR, fleet=FLEET_ID, verb="run", object="notes", target=OWNER, args={}, nonce=bytes(16),
    issued_ms=ORDERED_MS, until_ms=ORDERED_MS + 60_000,
)  # fmt: skip


@proves("task.evidence")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"assign_kind": "task.open"}, "assign-other-kind"),
        ({"machine": OTHER}, "assign-other-machine"),
        ({"lost": {"task.open"}}, "open-missing"),
        ({"erased": "task.open"}, "open-no-body"),
        ({"open_body": b'{"task":1}'}, "open-bad-body"),
        ({"open_author": OTHER}, "open-other-owner"),
        ({"task": "t2"}, "open-other-task"),
        ({"lost": {"run.open"}}, "run-missing"),
        ({"uncaused": True}, "run-missing"),
        ({"erased": "run.open"}, "run-no-body"),
        ({"run_body": b"[]"}, "run-bad-body"),
        ({"run_author": OTHER}, "run-other-owner"),
        ({"run": "r2"}, "run-other-run"),
        ({"statement": ""}, "statement-missing"),
        ({"statement": "zz"}, "statement-forged"),
        ({"statement": "00ff"}, "statement-forged"),
        ({"statement": FORGED[:-1].hex() + f"{FORGED[-1] ^ 1:02x}"}, "statement-forged"),
        ({"signed": {"fleet": FleetId("e" * 64)}}, "statement-forged"),
        ({"signed": {"verb": "ask"}}, "statement-other-order"),
        ({"signed": {"object": "other"}}, "statement-other-order"),
        ({"signed": {"target": OTHER}}, "statement-other-order"),
        ({"args": {"spec": "another spec"}}, "statement-other-order"),
        ({"args": {"values": {}}}, "statement-other-order"),
        ({"at_ms": ORDERED_MS - limits.CLOCK_SKEW_MS - 1}, "statement-other-order"),
        ({"open": {"template": {**TEMPLATE, "do": "rm -r /"}}}, "task-not-in-spec"),
        ({"open": {"phase": "notes"}}, "spec-yields-nothing"),
        ({"open": {"instance": "2"}}, "spec-yields-nothing"),
        ({"open": {"repo": "secrets"}}, "task-other-repo"),
        ({"open": {"run": ""}}, "statement-missing"),
    ],
)
def test_each_broken_link_has_its_own_reason(changes, reason):
    chain = Chain(**changes)
    with pytest.raises(Unproven) as refused:
        chain.check()
    assert refused.value.reason == reason


@proves("task.evidence")
def test_what_a_new_incarnation_of_the_owner_repeats_is_proven_by_the_first_writing():
    chain = Chain()
    run, opener = list(chain.entries.values())[:2]
    late = ORDERED_MS + 100_000
    again = chain._append("run.open", run.body, [run.id], OWNER, late)
    reopened = chain._append("task.open", opener.body, [opener.id, again.id], OWNER, late)
    body = kinds.TaskAssign("t1", (2, 1), ME, "shell", 30_000)
    chain.assign = chain._append("task.assign", body, [reopened.id], OWNER, late)
    assert chain.check().run is not None
    changed = kinds.TaskOpen("t1", {"do": "rm"}, run="r1", phase="test", repo="main")
    forged = chain._append("task.open", kinds.body_bytes(changed), [opener.id], OWNER, late)
    chain.assign = chain._append("task.assign", body, [forged.id], OWNER, late)
    with pytest.raises(Unproven) as refused:
        chain.check()
    assert refused.value.reason == "run-missing"


@proves("task.evidence")
def test_a_remembered_run_is_still_asked_for_authority_and_age():
    chain, known = Chain(), {}
    chain.check(known=known)
    assert len(known) == 1
    chain.check(known=known)
    with pytest.raises(Unproven):
        chain.check(known=known, now_ms=ORDERED_MS + limits.EVIDENCE_AGE_MS_MAX + 6)
    broken = Chain(statement="")
    with pytest.raises(Unproven):
        broken.check(known=known)
    assert len(known) == 1


@proves("task.evidence")
def test_a_key_that_may_not_order_convinces_nobody():
    def nobody(statement, at_ms):
        raise Denied("revoked")

    with pytest.raises(Unproven) as refused:
        Chain().check(authority=nobody)
    assert refused.value.reason == "operator-not-allowed"


@proves("task.evidence")
@pytest.mark.parametrize(
    ("now_ms", "reason"),
    [
        (ORDERED_MS - limits.CLOCK_AHEAD_MS_MAX, "order-in-the-future"),
        (ORDERED_MS + limits.EVIDENCE_AGE_MS_MAX + 6, "order-too-old"),
    ],
)
def test_an_order_of_another_time_moves_nothing(now_ms, reason):
    with pytest.raises(Unproven) as refused:
        Chain().check(now_ms=now_ms)
    assert refused.value.reason == reason


@proves("task.evidence-lasts")
@pytest.mark.parametrize("late_ms", [1, 3_600_000, 40 * 24 * 3_600_000])
def test_an_order_that_the_owner_took_convinces_also_where_its_opening_is_stamped_late(late_ms):
    """A log that runs ahead of its clock, or an opening repeated where the first is not here."""
    chain = Chain(at_ms=ORDERED_MS + 60_000 + late_ms)
    asked = []
    chain.check(now_ms=ORDERED_MS + 5, authority=lambda _, at_ms: asked.append(at_ms))
    assert asked == [ORDERED_MS + 60_000], "the grant is asked for as of the order's own end"


@proves("task.evidence")
def test_an_order_written_down_again_and_again_grows_no_younger():
    old_ms = ORDERED_MS + 60_000 + limits.EVIDENCE_AGE_MS_MAX
    chain = Chain(at_ms=old_ms)
    chain.check(now_ms=old_ms)
    with pytest.raises(Unproven) as refused:
        chain.check(now_ms=old_ms + 1)
    assert refused.value.reason == "order-too-old"


@proves("task.evidence")
def test_a_task_without_a_run_carries_its_own_order():
    chain = Chain()
    bare = kinds.TaskOpen("t1", TEMPLATE, repo="main")

    def open_with(args):
        return {
            "run": "", "phase": "", "statement": chain.statement("task", "t1", args),
        }  # fmt: skip

    found = Chain(open=open_with(task_args(bare))).check()
    assert found.run is None
    with pytest.raises(Unproven) as refused:
        Chain(open=open_with({**task_args(bare), "template": {}})).check()
    assert refused.value.reason == "statement-other-order"


def test_the_specification_names_every_reason():
    root = Path(__file__).parents[2]
    page = (root / "docs" / "spec" / "task.md").read_text(encoding="utf-8")
    files = [root / "src" / "muster" / "task" / name for name in ("evidence.py", "causes.py")]
    source = "".join(file.read_text(encoding="utf-8") for file in files)
    found = set(re.findall(r'Unproven\(\s*"([a-z-]+)"', source))
    found |= {f"{w}-{e}" for w in ("open", "run") for e in ("missing", "other-owner")}
    found |= {f"{w}-{e}" for w in ("assign", "open", "run") for e in ("no-body", "bad-body")}
    assert len(found) > 20
    assert {reason for reason in found if f"`{reason}`" not in page} == set()
