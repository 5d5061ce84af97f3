"""Which machine fits, which is best, and why the others lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.promise import proves
from tests.task.world import BUILD, STUDIO, machine

from muster import limits
from muster.errors import Malformed
from muster.task.pause import PAUSED, Pause
from muster.task.route import asked_of, judge, score, slots_of, wants_of
from muster.task.values import RESULTS


def verdict(needs, agent="shell", repo="", **facts):
    return judge(wants_of({"needs": needs, "agent": agent}, repo), machine(BUILD, **facts))


@proves("task.needs-are-hard")
@pytest.mark.parametrize(
    ("needs", "facts", "reason"),
    [
        ({"label": ["gpu", "big"]}, {"labels": ["gpu"]}, "no label big"),
        ({"os": ["darwin", "windows"]}, {}, "os linux, not darwin or windows"),
        ({"arch": "arm64"}, {}, "arch x86_64, not arm64"),
        ({"machine": "studio"}, {}, "is not studio"),
        ({"cpu": 8}, {}, "4 cpus, not 8"),
        ({"memory": "16GiB"}, {}, "8192 MiB memory, not 16384"),
        ({"gpu": 2}, {"gpus": ["RTX 4090"]}, "1 gpus, not 2"),
        ({"tools": {"python": ">=3.13"}}, {}, "python 3.12.1, not >=3.13"),
        ({"tools": {"node": "*"}}, {}, "no node"),
        ({"tools": {"x": ">=1"}}, {"tools": {"x": "dev"}}, "x of unknown version, not >=1"),
        ({"power": "mains"}, {"power": "battery"}, "on battery, and the work is heavy"),
        ({"cpu": 4}, {"power": "battery"}, "on battery, and the work is heavy"),
    ],
)
def test_a_machine_that_misses_a_need_is_out_and_says_which(needs, facts, reason):
    got = verdict(needs, **facts)
    assert not got.fits
    assert got.reasons == (reason,)


@proves("health.paused")
@pytest.mark.parametrize(
    ("said", "why"),
    [
        (Pause(0, "").told, "is paused"),
        (Pause(1_800_000_000_000, "a talk").told, "is paused until 2027-01-15 08:00 UTC: a talk"),
        (Pause(0, "a new disk", drains=True).told, "takes no work: it drains: a new disk"),
        (Pause(10**15 - 1, "").told, "is paused until 9999-12-31 23:59 UTC"),
        ("whatever it means", "is paused: whatever it means"),
        ("", "is paused"),
        ("-5 pauses x", "is paused: -5 pauses x"),
    ],
)
def test_a_machine_that_says_it_is_paused_gets_nothing_and_why_says_so(said, why):
    got = verdict({}, tools={PAUSED: said})
    assert (got.fits, got.reasons) == (False, (why,))
    assert not judge(wants_of({"agent": "noop"}), machine(BUILD, tools={PAUSED: said})).fits


@proves("task.needs-are-hard")
def test_a_phase_for_bash_wants_a_machine_that_has_it():
    wants = wants_of({"agent": "shell", "shell": "bash"})
    assert judge(wants, machine(BUILD)).reasons == ("no bash",)
    assert judge(wants, machine(BUILD, tools={"bash": "GNU bash, version 5.2.15"})).fits


@proves("agent.mcp-per-task", "task.needs-are-hard")
def test_a_phase_with_a_server_wants_a_machine_whose_owner_offers_it():
    wants = wants_of({"agent": "shell", "mcp": ["docs"]})
    assert judge(wants, machine(BUILD)).reasons == ("no MCP server docs",)
    assert judge(wants, machine(BUILD, tools={"mcp:docs": ""})).fits
    assert not judge(wants, machine(BUILD, tools={"docs": "1"})).fits


# What a machine says, against what an order asks: "" where it goes there, else the cause.
_SAYS_NOTHING: dict[str, str] = {}
_ENFORCED = {"sandbox": "enforced"}
_OFF = {"sandbox": "off"}
_OFF_UNABLE = {"sandbox": "off: bwrap is not installed"}
_UNABLE = {"sandbox": "bwrap is not installed"}
_NEEDS = {"needs": {"sandbox": "enforced"}}


@proves("openings.routed")
@pytest.mark.parametrize(
    ("order", "tools", "cause"),
    [
        ({}, _SAYS_NOTHING, ""),
        ({}, _ENFORCED, ""),
        ({}, _OFF, ""),
        ({}, _OFF_UNABLE, ""),
        ({}, _UNABLE, "cannot enclose: bwrap is not installed"),
        ({"sandbox": "off"}, _SAYS_NOTHING, ""),
        ({"sandbox": "off"}, _ENFORCED, ""),
        ({"sandbox": "off"}, _UNABLE, ""),
        ({"sandbox": "on"}, _SAYS_NOTHING, "cannot enclose: its Muster is too old to say"),
        ({"sandbox": "on"}, _ENFORCED, ""),
        ({"sandbox": "on"}, _OFF, ""),
        ({"sandbox": "on"}, _OFF_UNABLE, "cannot enclose: bwrap is not installed"),
        ({"sandbox": "on"}, _UNABLE, "cannot enclose: bwrap is not installed"),
        ({"network": "none"}, _SAYS_NOTHING, "cannot enclose: its Muster is too old to say"),
        ({"network": ["a.org"]}, _OFF_UNABLE, "cannot enclose: bwrap is not installed"),
        ({"paths": {"read": ["/opt"]}}, _UNABLE, "cannot enclose: bwrap is not installed"),
        (_NEEDS, _SAYS_NOTHING, "cannot enclose: its Muster is too old to say"),
        (_NEEDS, _ENFORCED, ""),
        (_NEEDS, _OFF, "does not enclose by itself: its owner has work run without a sandbox there"),
        (_NEEDS, _UNABLE, "cannot enclose: bwrap is not installed"),
        ({"agent": "noop"}, _UNABLE, ""),
    ],
)  # fmt: skip
def test_what_must_be_enclosed_goes_only_where_it_is(order, tools, cause):
    found = judge(wants_of(order), machine(BUILD, tools=tools, agents={"shell": "", "noop": ""}))
    assert (found.fits, found.reasons if cause else ()) == (not cause, (cause,) if cause else ())


@proves("agent.mcp-per-task", "task.needs-are-hard")
def test_an_agent_that_is_not_given_the_server_there_is_none_for_its_phase():
    wants = wants_of({"agent": ["gemini", "claude"], "mcp": ["docs"]})
    tools = {"mcp:docs": "except gemini, copilot"}
    both = machine(BUILD, tools=tools, agents={"gemini": "1", "claude": "1"})
    assert judge(wants, both).agent == "claude"
    one = judge(wants, machine(BUILD, tools=tools, agents={"gemini": "1"}))
    assert (one.fits, one.reasons) == (
        False,
        ("gemini is not given the MCP server docs as it is driven there",),
    )
    out = {"agents": {"gemini": "1", "claude": "1"}, "logins": {"claude": "no"}}
    assert judge(wants, machine(BUILD, tools=tools, **out)).login == "claude"
    # What a machine of before says, and of another server.
    assert judge(wants, machine(BUILD, tools={"mcp:docs": ""}, agents={"gemini": "1"})).fits
    other = {"mcp:docs": "", "mcp:web": "except gemini"}
    assert judge(wants, machine(BUILD, tools=other, agents={"gemini": "1"})).fits


@proves("task.needs-are-hard")
@pytest.mark.parametrize(
    ("needs", "facts"),
    [
        ({"os": "macos"}, {"os": "darwin"}),
        ({"arch": "arm64"}, {"arch": "aarch64"}),
        ({"arch": "amd64"}, {}),
        ({"machine": ["studio", "build"]}, {}),
        ({"machine": "build"}, {}),
        ({"memory": "8GiB", "cpu": 4}, {}),
        ({"gpu": 1}, {"gpus": ["RTX 4090"]}),
        ({"cpu": 2}, {"power": "battery"}),
        ({"tools": {"python": "3.12", "git": ">=2"}}, {}),
        ({}, {}),
        (None, {}),
    ],
)
def test_a_machine_that_meets_every_need_fits(needs, facts):
    assert verdict(needs, **facts).fits


def test_every_missing_need_is_named():
    got = verdict({"cpu": 8, "os": "windows", "label": "x"}, agent=["claude", "codex"])
    assert len(got.reasons) == 4
    assert got.reasons[-1] == "no agent claude or codex"


def test_a_repository_needs_git():
    assert verdict({}, repo="main", tools={}).reasons == ("no git for the repository",)


def test_a_machine_that_refused_is_out():
    wants = wants_of({"do": "x"}, avoid=[BUILD])
    assert judge(wants, machine(BUILD)).reasons == ("could not do this task before",)
    assert judge(wants, machine(STUDIO)).fits


@proves("task.first-agent-wins")
def test_the_first_available_agent_outweighs_every_load():
    wants = wants_of({"agent": ["claude", "shell"]})
    loaded = judge(
        wants, machine(BUILD, agents={"claude": "", "shell": ""}, load_percent=200, cost=1000)
    )
    idle = judge(wants, machine(STUDIO))
    assert (loaded.agent, idle.agent) == ("claude", "shell")
    assert score(loaded, 4, 4, 0) > score(idle, 0, 4, 1000)


def test_load_battery_cost_queue_and_past_failures_lower_a_score():
    wants = wants_of({"do": "x"}, "main")
    plain = judge(wants, machine(BUILD))
    assert judge(wants, machine(BUILD, load_percent=50)).score < plain.score
    assert judge(wants, machine(BUILD, power="battery")).score < plain.score
    assert judge(wants, machine(BUILD, cost=3)).score < plain.score
    assert judge(wants, machine(BUILD, repositories=["main"])).score > plain.score
    assert score(plain, 1, 2) < score(plain, 0, 2)
    assert score(plain, 0, 2, 100) < score(plain, 0, 2)


@pytest.mark.parametrize(
    "template",
    [
        {"needs": {"colour": "red"}},
        {"needs": ["label"]},
        {"needs": {"cpu": "4"}},
        {"needs": {"memory": "lots"}},
        {"needs": {"tools": {"python": "new"}}},
        {"agent": 5},
        {"agent": [1]},
        {"mcp": {"docs": "npx docs"}},
    ],
)
def test_needs_that_cannot_be_read_are_refused(template):
    with pytest.raises(Malformed):
        wants_of(template)


def test_slots_default_to_cpus_and_plenty_for_nothing():
    bare = machine(BUILD, slots={}, cpus=6)
    assert slots_of(bare, "") == 6
    assert slots_of(bare, "noop") == limits.NOOP_SLOTS
    assert slots_of(machine(BUILD, slots={"": 0}), "") == 0


needs = st.fixed_dictionaries(
    {},
    optional={"cpu": st.integers(1, 16), "label": st.sampled_from(["a", "b"]), "gpu": st.just(1)},
)
machines = st.builds(
    machine,
    st.sampled_from([BUILD, STUDIO]),
    cpus=st.integers(1, 16),
    labels=st.lists(st.sampled_from(["a", "b"])),
    gpus=st.lists(st.just("g")),
    load_percent=st.integers(0, 900),
)


@given(needs, machines)
def test_a_verdict_fits_exactly_when_nothing_is_missing(wanted, one):
    got = judge(wants_of({"needs": wanted}), one)
    assert got == judge(wants_of({"needs": wanted}), one)
    fits = (
        one.facts.cpus >= wanted.get("cpu", 1)
        and wanted.get("label", "") in {"", *one.facts.labels}
        and len(one.facts.gpus) >= wanted.get("gpu", 0)
    )
    assert got.fits == fits
    assert got.fits or got.reasons


@proves("node.versions-mix")
@pytest.mark.parametrize(
    ("muster", "fits"), [("0.1.0", False), ("", False), ("0.2.0", True), ("1.0", True)]
)
def test_a_task_whose_values_are_in_the_log_goes_to_no_machine_that_would_read_them_as_empty(
    muster, fits
):
    plain, apart = asked_of({"run": {"id": "1"}}), asked_of({"run": {RESULTS: "a" * 64}})
    older = machine(BUILD, muster=muster)
    assert judge(wants_of({}, asked=apart), older).fits == fits
    assert judge(wants_of({}, asked=plain), older).fits
