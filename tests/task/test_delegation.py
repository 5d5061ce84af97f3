"""Bounds of work that agents hand on: whatever a chain of them does, one step could have done."""

import random
from typing import Any

import msgspec
import pytest
from tests.promise import proves

from muster.errors import Malformed
from muster.fleet.grant import Bounds as Most
from muster.fleet.grant import Given, Grant, effective, root_grant
from muster.task import delegation, route
from muster.task.delegation import Bounds, narrowed, of_grant, of_phase, refusal
from muster.task.openings import openings_of
from muster.task.spec import Spec
from muster.task.template import Told, phase_order

AGENTS = ("claude", "codex", "shell")
MACHINES = ("hub", "mac1", "mac2")
LABELS = ("gpu", "mac")
REPOS = ("", "main", "other")
HOSTS = ("api.example.net", "*.example.org", "a.example.org")
PATHS = ("/opt/data", "/opt/data/small")
SERVERS = ("docs", "prod-db")
TIMES = (60_000, 600_000, 1_800_000)
NAMES = {"mac1": "a" * 64, "mac2": "b" * 64}


def ids(name: str) -> str:
    return NAMES.get(name, name)


def some(rng: random.Random, of: tuple[str, ...]) -> list[str]:
    return rng.sample(of, rng.randint(1, len(of)))


def drawn_bounds(rng: random.Random) -> Bounds:
    return Bounds(
        runs=rng.randint(1, 3),
        depth=rng.randint(1, 3),
        agents=tuple(some(rng, AGENTS)) if rng.random() < 0.5 else (),
        machines=tuple(some(rng, MACHINES)) if rng.random() < 0.3 else (),
        labels=tuple(some(rng, LABELS)) if rng.random() < 0.15 else (),
        repos=tuple(some(rng, REPOS)) if rng.random() < 0.4 else None,
        timeout_ms=rng.choice((0, *TIMES)),
        told=Told(rng.random() < 0.9, rng.random() < 0.9, rng.choice((2_000, 6_000, 6_000))),
        tokens=rng.choice((0, 0, 0, 1_000, 2_000)),
        usd_millionths=rng.choice((0, 0, 0, 500_000, 2_000_000)),
        servers=tuple(some(rng, SERVERS)) if rng.random() < 0.5 else (),
        opened=openings_of(drawn_openings(rng, 0.1)),
    )


def drawn_openings(rng: random.Random, share: float) -> dict[str, Any]:
    drawn = {
        "sandbox": "on",
        "network": "none" if rng.random() < 0.2 else some(rng, HOSTS),
        "paths": {"read": some(rng, PATHS), "write": some(rng, (*PATHS, ".vscode"))},
    }
    return {name: value for name, value in drawn.items() if rng.random() < share}


def drawn_spec(rng: random.Random, *, may: float) -> Spec:
    needs: dict[str, Any] = {}
    if rng.random() < 0.7:
        needs["machine"] = some(rng, MACHINES)
    if rng.random() < 0.5:
        needs["label"] = some(rng, LABELS)
    phase: dict[str, Any] = {
        "do": "x",
        **({"agent": some(rng, AGENTS)} if rng.random() < 0.95 else {}),
        "check": rng.choice(("true", "true", "true", "true", "make test")),
        "timeout": rng.choice(("1m", "10m", "30m")),
        **({"needs": needs} if needs else {}),
        **({"env": {"A": "b"}} if rng.random() < 0.05 else {}),
        **({"race": 2} if rng.random() < 0.05 else {}),
        **({"priority": 3} if rng.random() < 0.05 else {}),
        **({"budget": drawn_budget(rng)} if rng.random() < 0.9 else {}),
        **({"memory": drawn_memory(rng)} if rng.random() < 0.4 else {}),
        **({"mcp": some(rng, SERVERS)} if rng.random() < 0.1 else {}),
        **drawn_openings(rng, 0.04),
        **({"sandbox": "on"} if rng.random() < 0.9 else {}),
    }
    if rng.random() < may:
        phase["may"] = {"delegate": drawn_may(rng)}
    whole = {"memory": drawn_memory(rng)} if rng.random() < 0.4 else {}
    return msgspec.convert({"muster": 1, "name": "s", "phases": {"work": phase}, **whole}, Spec)


def drawn_budget(rng: random.Random) -> dict[str, Any]:
    drawn = {"tokens": rng.choice((1_000, 2_000)), "usd": rng.choice(("0.50", "2"))}
    return {name: value for name, value in drawn.items() if rng.random() < 0.9}


def drawn_memory(rng: random.Random) -> Any:
    drawn = {
        "read": rng.choice(([], [], ["fleet"])), "write": rng.choice(([], ["fleet"])),
        "budget": rng.choice((2_000, 6_000)),
    }  # fmt: skip
    kept = {name: value for name, value in drawn.items() if rng.random() < 0.6}
    return "none" if rng.random() < 0.4 else kept


def drawn_may(rng: random.Random) -> dict[str, Any]:
    drawn = {
        "runs": rng.randint(1, 3), "depth": rng.randint(1, 3), "agent": some(rng, AGENTS),
        "machine": some(rng, MACHINES), "label": some(rng, LABELS),
        "repo": some(rng, REPOS[1:]), "timeout": rng.choice(("1m", "10m", "30m")),
    }  # fmt: skip
    return {name: value for name, value in drawn.items() if rng.random() < 0.5}


@proves("delegation.never-wider")
def test_whatever_is_handed_on_at_last_could_have_been_handed_on_at_first():
    rng, chains = random.Random(71), 0
    for _ in range(20_000):
        first, middle, repo = drawn_bounds(rng), drawn_spec(rng, may=0.9), rng.choice(REPOS)
        if refusal(first, middle, repo, ids):
            continue
        second = of_phase(
            phase_order(middle, "work", "1" if middle.phases["work"].race else ""), repo
        )
        if second is None:
            continue
        assert second.depth < first.depth
        assert second.runs <= first.runs
        for _ in range(64):
            last, there = drawn_spec(rng, may=0.3), rng.choice(REPOS)
            if not refusal(second, last, there, ids):
                chains += 1
                assert not refusal(first, last, there, ids), (first, middle, repo, last, there)
    assert chains > 100


@proves("delegation.never-wider")
@pytest.mark.parametrize(
    ("bounds", "phase", "why"),
    [
        (Bounds(1, 1), {"each": "src/*/", "do": "${each.path}"}, "has each"),
        (Bounds(1, 2), {"may": {"delegate": {"runs": 2}}}, "2 runs, and 1 are allowed"),
        (Bounds(1, 2, labels=("gpu",)), {"needs": {"label": "gpu"}, "may": {"delegate": {}}}, "without the labels"),
        (Bounds(1, 1, told=Told(False, True, 2_000)), {}, "is told what is remembered"),
        (Bounds(1, 1, told=Told(True, False, 2_000)), {"memory": {"write": ["fleet"]}}, "writes down what it learns"),
        (Bounds(1, 1, told=Told(True, True, 2_000)), {"memory": {"budget": 6_000}}, "is told 6000 tokens"),
        (Bounds(1, 1), {"mcp": "prod-db"}, "has the MCP server prod-db, and may have none"),
        (Bounds(1, 1, servers=("docs",)), {"mcp": ["docs", "prod-db"]}, "prod-db, and may have docs"),
        (Bounds(1, 1, tokens=100), {}, "more than 100 tokens"),
        (Bounds(1, 1, tokens=100), {"budget": {"tokens": 101}}, "more than 100 tokens"),
        (Bounds(1, 1, usd_millionths=500_000), {"budget": {"usd": "0.51"}}, "more than 0.50 dollars"),
        (Bounds(1, 2, machines=("mac2",)), {"needs": {"machine": "mac2"}, "may": {"delegate": {}}}, "to machines that"),
        (Bounds(1, 2, agents=("claude",), foreign=True), {"agent": None}, "says nobody to do it"),
        (Bounds(1, 2, agents=("claude",)), {"agent": None}, "says nobody to do it"),
        (Bounds(1, 2), {"agent": None}, "says nobody to do it"),
        (Bounds(1, 2), {"agent": None, "race": 2}, "says nobody to do it"),
        (Bounds(1, 2), {"agent": None, "review": "work", "same": True, "check": None}, "says nobody to do it"),
        (Bounds(1, 1), {"network": ["api.example.net"]}, "reaches the host api.example.net:443"),
        (Bounds(1, 1), {"paths": {"read": "/opt"}}, "is shown /opt of the machine"),
        (Bounds(1, 1, agents=("shell",)), {"agent": "shell", "sandbox": "off"}, "has sandbox: off"),
        (Bounds(1, 1, agents=("claude",), foreign=True), {"network": ["api.example.net"]}, "reaches the host"),
        # Also where it may be asked: it is named or not there.
        (Bounds(1, 2, agents=("shell",)), {"agent": None}, "says nobody to do it"),
    ],
)  # fmt: skip
def test_each_bound_has_its_sentence(bounds, phase, why):
    whole = {"do": "x", "agent": "claude", "check": "true", **phase}
    spec = msgspec.convert({"muster": 1, "name": "s", "phases": {"work": whole}}, Spec)
    assert why in refusal(bounds, spec, "", ids)


@proves("delegation.never-wider")
def test_whom_nobody_names_means_the_shell_to_who_routes_it_and_to_who_bounds_it():
    for order in ({}, {"agent": []}):
        bounds = of_phase({**order, "may": {"delegate": {}}}, "")
        assert bounds is not None
        assert route.wants_of(order).agents == bounds.agents == ("shell",)


@proves("delegation.never-wider")
@pytest.mark.parametrize("memory", ["none", {"read": []}, {"write": []}, None])
@pytest.mark.parametrize(
    "budget", [None, {"tokens": 7}, {"usd": "1.05"}, {"tokens": 7, "usd": "2"}]
)
def test_what_keeps_within_an_order_can_be_said_in_the_words_of_a_phase(memory, budget):
    own = {"agent": "claude", "do": "x", "check": "true", "may": {"delegate": {}}}
    own |= {n: v for n, v in (("memory", memory), ("budget", budget)) if v is not None}
    spec = msgspec.convert({"muster": 1, "name": "s", "phases": {"work": own}}, Spec)
    bounds = of_phase(phase_order(spec, "work"), "")
    assert bounds is not None
    plain = {"agent": "claude", "do": "x", "check": "true"}
    for more, fits in (({}, memory is None and budget is None), (narrowed(bounds), True)):
        phases = {"work": {**plain, **more}}
        asked = msgspec.convert({"muster": 1, "name": "s", "phases": phases}, Spec)
        assert (refusal(bounds, asked, "", ids) == "") == fits


@proves("delegation.never-wider")
def test_an_agent_hands_on_its_own_servers_and_a_grant_hands_on_none():
    def asked(*servers: str, may: bool = False) -> Spec:
        phase = {"do": "x", "agent": "claude", "check": "true"}
        phase |= {"mcp": list(servers)} if servers else {}
        phase |= {"may": {"delegate": {}}} if may else {}
        return msgspec.convert({"muster": 1, "name": "s", "phases": {"work": phase}}, Spec)

    own = of_phase(phase_order(asked("docs", may=True), "work"), "")
    without = of_phase(phase_order(asked(may=True), "work"), "")
    granted = of_grant(Grant("*", "2" * 64, 9, "delegate", Most(at_once=1, per_day=1)))
    for bounds, fits in ((own, True), (without, False), (granted, False)):
        assert bounds is not None
        assert (refusal(bounds, asked("docs"), "", ids) == "") == fits
        assert not refusal(bounds, asked(), "", ids)
        assert refusal(bounds, asked("docs", "prod-db"), "", ids)


@proves("delegation.never-wider")
def test_what_is_given_from_outside_is_none_of_it():
    plain = {"do": "x", "agent": "claude", "check": "true"}
    for more in ({"inputs": {"a": "b"}}, {"on": "push"}):
        spec = msgspec.convert({"muster": 1, "name": "s", "phases": {"work": plain}, **more}, Spec)
        assert "inputs" in refusal(Bounds(1, 1), spec, "", ids)


@proves("delegation.never-wider")
def test_a_machine_is_known_by_its_id_under_whatever_name():
    needs = {"machine": "mac2"}
    phase = {"do": "x", "agent": "claude", "check": "true", "needs": needs}
    spec = msgspec.convert({"muster": 1, "name": "s", "phases": {"work": phase}}, Spec)
    assert not refusal(Bounds(1, 1, machines=("b" * 64,)), spec, "", ids)
    assert refusal(Bounds(1, 1, machines=("a" * 64,)), spec, "", ids)


@proves("delegation.default-deny")
def test_only_an_operator_gives_it_and_a_grant_of_everything_is_none():
    root, bob, mac1 = "0" * 64, "1" * 64, "2" * 64
    most = Most(at_once=1, per_day=1)
    everything = Given("a", root, Grant("*", bob, 99, "*"))
    may_give = Given("b", root, Grant("*", bob, 99, "grant"))
    given = Given("c", bob, Grant("*", mac1, 9, "delegate", most))
    operator = root_grant(root, b"record")
    assert given not in effective([operator], [everything, may_give, given])
    assert of_grant(everything.grant) is None
    assert given._replace(giver=root) in effective([operator], [given._replace(giver=root)])


@proves("delegation.default-deny")
def test_an_order_whose_bounds_cannot_be_read_lets_nothing():
    assert of_phase({"agent": ["claude"]}, "") is None
    with pytest.raises(Malformed):
        of_phase({"agent": ["claude"], "may": {"delegate": {"runs": "many"}}}, "")
    found = of_phase({"agent": ["claude"], "may": {"delegate": {}}, "timeout_ms": 5}, "main")
    assert found == Bounds(1, 1, ("claude",), (), (), ("main",), 5, Told(True, True, 2_000))
    assert delegation.UNCHECKED == "true"
