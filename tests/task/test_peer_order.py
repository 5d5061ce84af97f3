"""What another fleet asked for: the document behind a run, and what no grant lets anybody ask."""

from typing import Any

import pytest
from msgspec.structs import replace
from tests.fleet.world import BUILD, LAPTOP, OTHER_AUTHORITY, record
from tests.promise import proves
from tests.task.test_handed_on import FLEET_ID, ME, NOW
from tests.task.test_handed_on_links import OTHER, Handed

from muster.errors import Refused
from muster.fleet.document import document_id
from muster.fleet.grant import FLEET_GRANTEE, TASK, Bounds, Grant
from muster.fleet.peer_work import Cancel, Task, sign_work
from muster.log.entry import Entry
from muster.task.peer_order import check_askable, narrowed, of_grant
from muster.task.peer_work import PeerHear
from muster.task.problem import SpecErrors
from muster.task.spec import Spec, parse

ACME = OTHER_AUTHORITY.fleet
SPEC = """\
muster: 1
name: s
memory: none
phases:
  work: {agent: claude, do: x, check: "true", needs: {machine: hub}}
"""
BOUNDS = Bounds(at_once=2, per_day=5, agents=("claude",))
GRANT = Grant(object="*", to=f"{FLEET_GRANTEE}{ACME}", until_ms=NOW, verb=TASK, bounds=BOUNDS)
WORK = Task(
    fleet=FLEET_ID, by=LAPTOP.machine, door=ME, issued_ms=NOW, nonce="0" * 32, of=ACME, to="hub",
    spec=SPEC,
)  # fmt: skip


class Asked(Handed):
    """A run that the door of this fleet began for another one; `work` is what that one signed."""

    def __init__(self, **changes: Any) -> None:
        self.work = replace(WORK, **changes.pop("work", {}))
        if changes.get("cancel"):
            said = {name: getattr(WORK, name) for name in ("fleet", "by", "door", "issued_ms")}
            self.work = Cancel(**said, nonce=WORK.nonce, of=ACME, task="0" * 64)  # type: ignore[assignment]
        signer = changes.pop("signs", LAPTOP).signer("statement")
        self.document = sign_work(signer, self.work).decode()
        known = {"given": GRANT, "spec": SPEC, **changes}
        known["asked"] = {"key": document_id(self.document.encode()), **changes.get("asked", {})}
        super().__init__(**known)

    def grounds(self) -> list[Entry]:
        if self.changes.get("unheard"):
            return []
        whose = self.changes.get("vouched") or record(LAPTOP, "laptop", authority=OTHER_AUTHORITY)
        heard: Any = PeerHear(self.document, whose.raw.decode())
        heard = self.changes.get("heard", heard)
        return [self.write(heard, "peer.hear", by=self.changes.get("hearer", ME))]

    def is_first(self, _entry: Entry, key: str) -> bool:
        return not self.changes.get("begun_by_it")

    def ids(self, name: str) -> str:
        return {"hub": ME}.get(name, name)


# What is changed of the chain, and what owner and worker say of it.
DOCUMENTS: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    ({"unheard": True}, "peer-missing"),
    ({"hearer": OTHER}, "peer-missing"),
    ({"heard": b"[]"}, "peer-bad-body"),
    ({"heard": PeerHear("{}", "{}")}, "peer-forged"),
    ({"signs": BUILD}, "peer-forged"),
    ({"vouched": record(BUILD, "build", authority=OTHER_AUTHORITY)}, "peer-forged"),
    ({"vouched": record(LAPTOP, "laptop")}, "peer-forged"),
    ({"work": {"of": FLEET_ID}}, "peer-forged"),
    ({"work": {"door": OTHER}}, "peer-other-fleet"),
    ({"given": replace(GRANT, to=f"{FLEET_GRANTEE}{'e' * 64}")}, "peer-other-fleet"),
    ({"cancel": True}, "peer-other-fleet"),
    ({"work": {"spec": SPEC + "# another\n"}}, "peer-other-order"),
    ({"work": {"repo": "main"}}, "peer-other-order"),
    ({"work": {"base": "main"}}, "peer-other-order"),
    ({"shaped": {"base": "main"}}, "peer-other-order"),
    # One document is one run, whatever its door calls it.
    ({"asked": {"key": "k"}}, "peer-begun-before"),
    ({"begun_by_it": True}, "peer-begun-before"),
    # And all that a grant to a machine of ours is held against.
    ({"given": replace(GRANT, verb="file")}, "delegation-not-allowed"),
    ({"given": replace(GRANT, object=OTHER)}, "delegation-not-allowed"),
    ({"given": replace(GRANT, object=ME)}, ""),
    ({"given": replace(GRANT, bounds=None)}, "delegation-not-allowed"),
    ({"given": replace(GRANT, bounds=Bounds(at_once=1, per_day=1))}, "delegation-too-wide"),
    ({"before": 5}, "delegation-too-many"),
    ({"at_ms": NOW + 1}, "delegation-not-allowed"),
]


@proves("peer.task-chain", "peer.task-by-grant")
def test_owner_and_worker_look_at_the_document_that_the_other_fleet_signed():
    for changes, reason in DOCUMENTS:
        assert Asked(**changes).reason() == reason, changes
    chain = Asked()
    found = chain.check(chain.assigned(chain.handed))
    assert found.foreign
    # What another fleet's spec says beside its own work is more than any grant lets.
    for old, new in (
        ("memory: none\n", ""), ("needs: {machine: hub}", "needs: {machine: other}"),
        ("agent: claude", "agent: codex"), ("agent: claude", "agent: shell"),
        ("do: x", "do: x, env: {A: b}"), ("do: x", "do: x, mode: yolo"),
        ("do: x", "do: x, may: {delegate: {}}"), ('check: "true"', "check: make"),
    ):  # fmt: skip
        spec = SPEC.replace(old, new)
        assert spec != SPEC
        assert Asked(spec=spec, work={"spec": spec}).reason() == "delegation-too-wide", new


@proves("peer.task-default-deny")
def test_a_grant_to_another_fleet_lets_it_nothing_that_it_does_not_name():
    found = of_grant(GRANT, ME)
    assert found is not None
    assert (found.runs, found.depth, found.foreign) == (5, 1, True)
    assert (found.agents, found.machines, found.repos) == (("claude",), (ME,), ())
    assert (found.told.reads, found.told.writes, found.told.budget) == (False, False, 0)
    whole = replace(GRANT, bounds=replace(BOUNDS, repos=("main",), timeout_ms=60_000, depth=1))
    wider = of_grant(whole, ME)
    assert wider is not None
    assert (wider.repos, wider.timeout_ms, wider.depth) == (("main",), 60_000, 1)
    for less in ({"verb": "delegate"}, {"object": OTHER}, {"bounds": None}):
        assert of_grant(replace(GRANT, **less), ME) is None


# What no fleet lets another one ask for, whatever it grants; and words of why.
NEVER = [
    ("do: x", "do: x, env: {A: b}", "sets variables"),
    ("do: x", "do: x, mode: yolo", "chooses the mode"),
    ("do: x", "do: x, priority: 3", "has a priority"),
    ("agent: claude, do: x, check", "by: human, do: look, check", "asks a person"),
    ("needs: {machine: hub}", "needs: {machine: other}", "is not bound to hub"),
    ("memory: none\n", "", "what is remembered"),
    ("do: x", "do: x, may: {delegate: {}}", "may hand on work"),
    ("do: x", "do: x, mcp: [files]", "has the MCP server files"),
    ("memory: none", "memory: none\ninputs: {a: b}", "has inputs or is for a push"),
    ('check: "true"', "check: make", "has a check"),
]


@proves("peer.task-raises-nothing")
def test_what_no_grant_lets_is_refused_before_it_is_asked_and_names_what_to_change():
    check_askable(parse(SPEC.encode()), "", "hub")
    check_askable(parse(SPEC.encode()), "main", "hub")
    for old, new, words in NEVER:
        text = SPEC.replace(old, new)
        if "by: human" in text:
            text = text.replace(', check: "true"', "").replace(", needs: {machine: hub}", "")
        with pytest.raises(Refused, match=words):
            check_askable(parse(text.encode()), "", "hub")


# Specs as people write them, of which another fleet's machine is told what it must be told.
WRITTEN = [
    'muster: 1\nname: s\nphases:\n  work: {agent: claude, do: x, check: "true"}\n',
    SPEC.replace("needs: {machine: hub}", "needs: {label: gpu}"),
    """\
muster: 1
name: "s"
repo: main
phases:
  build:
    agent: [claude, codex]
    do: |
      first line
        second: "line" # no comment
    check: "true"
    timeout: 1h30m
    retries: 2
    budget: {tokens: 500, usd: "0.50"}
    deliver: [a, "b c"]
  look:
    by: human
    after: build
    do: "no"
""",
]


def _phases(spec: Spec) -> dict[str, Any]:
    return {name: replace(phase, needs=None) for name, phase in spec.phases.items()}


@proves("peer.task-raises-nothing")
def test_a_spec_for_another_fleet_says_its_machine_and_no_memory_and_else_what_it_said():
    for text in WRITTEN:
        before, after = parse(text.encode()), parse(narrowed(text, "hub").encode())
        assert _phases(after) == _phases(before)
        assert after.name == before.name
        for name, phase in after.phases.items():
            told, wanted = phase.needs, before.phases[name].needs
            if phase.by_human:
                assert told is None
                continue
            assert told is not None
            assert told.machine == "hub"
            assert told.label == (wanted.label if wanted else None)
        # Said once, it is said.
        assert parse(narrowed(narrowed(text, "hub"), "hub").encode()) == after
    # Who says it says it otherwise, and is asked nothing.
    said = parse(narrowed(SPEC.replace("hub", "shed"), "hub").encode())
    assert said.phases["work"].needs.machine == "shed"
    assert said == parse(SPEC.replace("hub", "shed").encode())
    with pytest.raises(SpecErrors):
        narrowed("no spec", "hub")
