"""Whether a spec makes sense: each refusal with its place and its way out."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.promise import proves
from tests.task.specs import text
from tests.work import calls

from muster.errors import Malformed
from muster.fleet.facts import Facts
from muster.git.glob import matching
from muster.task.check import admit, check
from muster.task.graph import Fact, Slot, plan
from muster.task.problem import SpecErrors
from muster.task.route import Advice, Fleet, Machine
from muster.task.spec import parse
from muster.task.template import phase_order

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


def told(raw: bytes, *, warnings: bool = False, **view: object) -> list[str]:
    """`phases.a.after: sentence` of every problem."""
    report = check(raw, **view)
    assert (report.spec is None) == any(not p.warning for p in report.problems)
    return [p.sentence for p in report.problems if p.warning == warnings]


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_every_example_can_run(file):
    assert told(file.read_bytes()) == []
    admit(file.read_bytes())


# What the examples speak of, as a repository of theirs would have it.
TREE = ["README.md", "services/mail/main.py", "services/web/app.py", "tests/flaky/test_x.py"]


@proves("spec.examples-work")
@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_every_example_runs_to_its_end_on_a_fleet_that_has_what_it_needs(file):
    facts = {
        "agents": {"shell": "", "claude": "", "codex": "", "gemini": ""},
        "labels": ("tests", "writing"), "memory_mib": 16_384, "tools": {"python": "3.12", "git": "2.40"},
    }  # fmt: skip
    raw = file.read_bytes()
    both = [machine("lab", **facts), machine("attic", **facts)]
    assert told(raw, fleet=Fleet(both, frozenset({"main"}))) == []
    spec, known, matches = admit(raw), dict[Slot, Fact](), dict[str, tuple[str, ...]]()
    for _ in range(10 * len(spec.phases)):
        now = plan(spec, known, matches)
        if now.settled:
            break
        for name in now.match:
            matches[name] = matching(TREE, spec.phases[name].each or "")
        for slot in (*now.start, *now.ask):
            phase_order(spec, slot.phase, slot.instance)
            known[slot] = Fact("done", len(known))
        for slot, _reason in now.cancel:
            known[slot] = Fact("cancelled", len(known))
    assert now.settled == "done", now


@proves("spec.every-mistake")
def test_form_and_sense_are_both_told_with_their_place():
    report = check(b"muster: 1\nname: x\nphases: {a: {do: x, tmeout: 1m}}\n")
    assert report.spec is None
    assert [(p.line, p.column, p.path) for p in report.problems] == [(3, 21, "phases.a.tmeout")]
    report = check(text({"a": "after: z", "b": "timeout: 0s"}))
    assert [(p.line, p.column, p.path) for p in report.problems] == [
        (8, 12, "phases.a.after[0]"),
        (13, 14, "phases.b.timeout"),
    ]


def test_what_has_an_error_is_not_admitted_and_what_has_a_warning_is():
    with pytest.raises(SpecErrors, match="which is no phase") as caught:
        admit(text({"a": "after: z"}))
    assert isinstance(caught.value, Malformed)
    mixed = text({"a": "agent: [claude, shell]\ndo: x\ncheck: y"})
    assert "prompt to the other" in told(mixed, warnings=True)[0]
    admit(mixed)


@proves("spec.cycle")
@pytest.mark.parametrize(
    ("phases", "cycle"),
    [
        ({"a": "after: a"}, ["phases.a.after names a itself; a phase cannot wait for itself"]),
        (
            {"a": "after: b", "b": "after: a"},
            ["phases.a.after closes a cycle: a waits for b waits for a; take one `after` away"],
        ),
        (
            {"z": "", "a": "after: [z, c]", "b": "after: a", "c": "after: b", "d": "after: c"},
            [
                (
                    "phases.a.after closes a cycle: a waits for c waits for b waits for a; "
                    "take one `after` away"
                )
            ],
        ),
        (
            {"a": "after: b", "b": "after: a", "c": "after: d", "d": "after: c"},
            [
                "phases.a.after closes a cycle: a waits for b waits for a; take one `after` away",
                "phases.c.after closes a cycle: c waits for d waits for c; take one `after` away",
            ],
        ),
    ],
)
def test_a_cycle_is_named_once(phases, cycle):
    assert told(text(phases)) == cycle


@proves("cli.agents")
def test_an_agent_that_no_machine_has_is_told_with_what_installs_it():
    view = Fleet([machine("lab", agents={"shell": ""})], None, ADVICE)
    raw = text({"a": "agent: claude\ndo: x\ncheck: y"})
    (sentence,) = told(raw, fleet=view)
    assert sentence.startswith(
        "phases.a.agent fits no machine; the nearest is lab: no agent claude"
    )
    assert sentence.endswith("; install it there with `get claude`")
    there = Fleet([machine("lab", agents={"claude": ""})], None, ADVICE)
    raw = text({"a": "agent: claude\ndo: x\ncheck: y\nneeds: {os: windows}"})
    (sentence,) = told(raw, fleet=there)
    assert "install" not in sentence, "the agent is there, something else is not"


@proves("cli.agents")
def test_what_the_machine_that_is_meant_lacks_is_told_although_another_has_it():
    there, lacks = {"agents": {"claude": ""}}, {"agents": {"shell": ""}}
    view = Fleet([machine("laptop", **there), machine("studio", **lacks)], None, ADVICE)
    raw = text({"a": "agent: claude\ndo: x\ncheck: y\nneeds: {machine: studio}"})
    (sentence,) = told(raw, fleet=view)
    assert sentence.endswith("the nearest is studio: no agent claude; install it there with `get claude`")  # fmt: skip


@proves("agent.mcp-per-task")
def test_an_agent_that_is_not_given_the_server_of_its_phase_is_told_before_the_run():
    here = {"agents": {"gemini": ""}, "tools": {"git": "2", "mcp:docs": "except gemini"}}
    raw = text({"a": "agent: gemini\ndo: x\ncheck: y\nmcp: docs"})
    (sentence,) = told(raw, fleet=Fleet([machine("lab", **here)], None, ADVICE))
    assert sentence.endswith("gemini is not given the MCP server docs as it is driven there")
    here["tools"] = {"git": "2", "mcp:docs": ""}
    assert told(raw, fleet=Fleet([machine("lab", **here)], None, ADVICE)) == []


@proves("cli.agents")
def test_an_agent_that_is_logged_in_nowhere_is_warned_of_with_what_to_do():
    out, well = ({"agents": {"claude": ""}, "logins": {"claude": each}} for each in ("no", "yes"))
    raw = text({"a": "agent: claude\ndo: x\ncheck: y"})
    view = Fleet([machine("lab", **out)], None, ADVICE)
    assert told(raw, fleet=view) == []
    (problem,) = check(raw, view).problems
    what = "phases.a.agent finds claude on lab, where it is not logged in: run claude"
    assert (problem.warning, problem.sentence) == (True, what)
    both = Fleet([machine("lab", **out), machine("den", **well)], None, ADVICE)
    assert check(raw, both).problems == ()


@proves("spec.nearest-word")
def test_an_unknown_phase_is_told_with_the_nearest():
    assert told(text({"test": "", "b": "after: tset"})) == [
        'phases.b.after[0] names tset, which is no phase; did you mean "test"?'
    ]


@proves("spec.checkable")
def test_a_phase_needs_a_deliverable_a_check_or_a_person():
    bare = text({"a": "agent: shell\ndo: make"})
    assert told(bare) == [
        "phases.a cannot be checked; say what it delivers (deliver: [FILE]) or a check: COMMAND"
    ]
    assert check(bare).problems[0][:2] == (4, 3)
    assert told(text({"a": "agent: shell\ndo: make\ndeliver: x.txt"})) == []
    assert told(text({"a": "agent: shell\ndo: make\ncheck: make test"})) == []
    assert told(text({"a": "by: human\ndo: look"})) == []


@proves("spec.sensible")
@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("do: x\ncheck: y", "says nobody to do it"),
        ("agent: [a, a]\ndo: x\ncheck: y", "names an agent twice"),
        ("by: human\ndo: x\nrace: 2", "race does not go with by: human"),
        ("by: human\ndo: x\nagent: shell", "agent does not go with by: human"),
        ("by: human\ndo: x\ncheck: y", "check does not go with by: human"),
        ("by: human\ndo: x\nretries: 1", "retries does not go with by: human"),
        ("by: human\ndo: x\nneeds: {os: linux}", "needs does not go with by: human"),
        ("race: 2\neach: s/*\nenv: {P: '${each.path}'}", "race does not go with each"),
        ("each: s/*", "each is never used; say $MUSTER_EACH_PATH in do"),
        ("each: s/*\nagent: claude\ndo: x\ncheck: y", "each is never used; say ${each.path} in do"),
        ("each: s/*\nenv: {P: '${each.path}'}\ndeliver: x.md", "is the same for every match"),
        ("deliver: ['${inputs.x}/y']", "may refer to ${each.path} only"),
        ("deliver: [a/, a]", "names a path twice"),
        ("timeout: 25h", "timeout is 25h; it must be above 0 and at most 24h"),
        ("timeout: 0m", "timeout is 0m; it must be above 0"),
        ("deadline: 32d", "deadline is 32d; it must be above 0 and at most 744h"),
        ("timeout: 2h\ndeadline: 1h", "timeout is 2h, longer than the deadline 1h"),
        ("budget: {tokens: 5}", "budget does not go with agent: shell"),
        ("agent: claude\ndo: x\ncheck: y\nbudget: {usd: '0'}", "budget.usd is 0"),
        ("after: [b, b]", "names b a second time"),
        ("agent: claude\ndo: x\nshell: bash", "shell has nothing to read here"),
    ],
)
def test_keys_that_make_no_sense_together_are_refused(body, sentence):
    found = [p for p in told(text({"a": body, "b": ""})) if sentence in p]
    assert len(found) == 1, told(text({"a": body, "b": ""}))


@proves("agent.mcp-per-task")
def test_a_server_is_a_name_and_for_an_agent_alone():
    (problem,) = told(text({"a": "agent: shell\ndo: x\ncheck: y\nmcp: docs"}))
    assert "is for an agent that is asked in words" in problem
    assert told(text({"a": "agent: claude\ndo: x\ncheck: y\nmcp: [docs, web]"})) == []
    for value in ("{docs: npx}", "./run", "[[a]]", "docs; rm -rf"):
        assert told(text({"a": f"agent: claude\ndo: x\ncheck: y\nmcp: {value!r}"})), value


@proves("openings.off-is-the-shells")
@pytest.mark.parametrize(
    ("said", "key", "why"),
    [
        ("agent: claude\nsandbox: off", "sandbox", "off is for agent: shell alone"),
        ("agent: [shell, claude]\nsandbox: off", "sandbox", "off is for agent: shell alone"),
        ("agent: shell\nsandbox: off\nnetwork: api.example.net", "network", "keep one"),
        ("agent: shell\nsandbox: off\nnetwork: none", "network", "keep one"),
        ("agent: shell\nsandbox: off\npaths: {read: /opt}", "paths", "keep one"),
        ("agent: shell\nsandbox: off\nneeds: {sandbox: enforced}", "needs", "is not enclosed"),
    ],
)
def test_only_a_shell_that_asks_nothing_of_a_sandbox_may_be_without_one(said, key, why):
    found = told(text({"a": f"{said}\ndo: x\ncheck: y"}))
    assert [p for p in found if p.startswith(f"phases.a.{key} ") and why in p], found


@proves("openings.said")
@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("sandbox: yes", 'phases.a.sandbox: "yes" is not on or off; write on'),
        ("sandbox: false", 'phases.a.sandbox: "false" is not on or off; write off'),
        ("sandbox: bwrap", 'phases.a.sandbox: "bwrap" is not on or off'),
        ("sandbox: [on]", "phases.a.sandbox is a text"),
        ("sandbox:", "phases.a.sandbox has no value"),
        ("network: []", "phases.a.network is empty"),
        ("network: {a: b}", "phases.a.network is"),
        ("network: 127.0.0.1", 'phases.a.network: "127.0.0.1" is an address'),
        (
            "network: [a.org, 'https://API.Example.net/x']",
            "host's name as it is written here; write api.example.net",
        ),
        ("paths: /opt", "phases.a.paths is a mapping"),
        ("paths: {red: /opt}", 'phases.a.paths has no key "red"; did you mean "read"?'),
        ("paths: {read: [/opt, /proc]}", 'phases.a.paths.read[1]: "/proc" belongs to the system'),
        ("paths: {write: .git/hooks}", 'phases.a.paths.write: ".git/hooks" is git\'s own'),
        ("needs: {sandbox: on}", 'phases.a.needs.sandbox: "on" is not enforced'),
    ],
)
def test_what_is_no_word_of_a_sandbox_is_refused_with_what_to_write(said, sentence):
    (found,) = told(text({"a": said}))
    assert sentence in found


@proves("openings.said")
@pytest.mark.parametrize("said", ["sandbox: off", "sandbox: 'off'", "sandbox: on", "network: none",
                                  "network: api.example.net", "paths: {read: ~/data, write: [/opt/x]}"])  # fmt: skip
def test_what_people_write_of_a_sandbox_is_taken(said):
    assert told(text({"a": said})) == []


@proves("openings.routed")
def test_a_phase_that_no_machine_encloses_is_refused_with_the_cause():
    here = {"tools": {"git": "2", "sandbox": "bwrap is not installed"}, "agents": {"shell": ""}}
    fleet = Fleet([Machine("1" * 64, "nas", Facts("linux", "x86_64", **here))])
    (problem,) = told(text({"a": "sandbox: on"}), fleet=fleet)
    assert "the nearest is nas: cannot enclose: bwrap is not installed" in problem
    here["tools"] = {"git": "2", "sandbox": "enforced"}
    fleet = Fleet([Machine("1" * 64, "nas", Facts("linux", "x86_64", **here))])
    assert told(text({"a": "sandbox: on\nneeds: {sandbox: enforced}"}), fleet=fleet) == []


@proves("agent.model-of-the-task")
@pytest.mark.parametrize("key", ["model", "mode"])
@pytest.mark.parametrize("agent", ["shell", "[claude, codex]", "[claude, shell]"])
def test_a_model_and_a_mode_are_names_of_one_agent(key, agent):
    found = told(text({"a": f"agent: {agent}\ndo: x\ncheck: y\n{key}: opus"}))
    assert [p for p in found if f"phases.a.{key} is a name that one agent knows" in p], found
    assert told(text({"a": f"agent: claude\ndo: x\ncheck: y\n{key}: opus"})) == []


@proves("agent.model-of-the-task")
@pytest.mark.parametrize("name", ["--help", "-m", "a b", "a;b", "x" * 121])
def test_a_model_that_would_be_an_option_or_more_is_no_name(name):
    (found,) = told(text({"a": f"agent: claude\ndo: x\ncheck: y\nmodel: '{name}'"}))
    assert "is not a name of an agent's own" in found


@proves("agent.model-of-the-task")
def test_an_order_has_the_model_and_the_mode_of_its_phase():
    spec = parse(text({"a": "agent: claude\ndo: x\ncheck: y\nmodel: opus\nmode: plan"}))
    order = phase_order(spec, "a", "", {})
    assert (order["model"], order["mode"]) == ("opus", "plan")


@proves("spec.sensible")
def test_reserved_names_and_shared_variables_are_refused():
    assert "reserved name" in told(text({"each": ""}))[0]
    shared = told(text({"inputs-a": ""}, "inputs: {a-summary: x}"))
    assert shared == [
        "phases.inputs-a and the input a-summary share MUSTER_INPUTS_A_SUMMARY; rename one"
    ]


@proves("spec.sensible")
def test_an_order_too_large_for_an_entry_is_refused():
    body = 'agent: claude\ncheck: y\ndo: "x' + "\\t" * 16_000 + '"\nenv:\n'
    body += "".join(f"  V{i}: '{'x' * 1_000}'\n" for i in range(31))
    of_whole, of_phase = told(text({"a": body}))
    assert "in the log, at most 61440; put texts into files" in of_whole
    assert "at most 49152; put texts into files" in of_phase


@proves("spec.fits-the-log")
def test_a_spec_is_measured_as_it_is_written_down():
    """A quote and a tab take two bytes, so what is read need not be what fits."""
    quotes = "do: '" + '"' * 15_000 + "'\nagent: claude\ncheck: y"
    assert told(text({"a": quotes})) == []
    (sentence,) = told(text({f"p{n}": quotes for n in range(3)}))
    assert "takes 90" in sentence


@proves("spec.fits-the-log")
def test_an_order_has_less_room_beside_long_inputs():
    head = "inputs:\n" + "".join(f"  i{n}: '{'x' * 1_000}'\n" for n in range(30))
    body = "agent: claude\ncheck: y\ndo: |\n  " + "x" * 16_000 + "\nenv:\n"
    body += "".join(f"  V{i}: '{'x' * 900}'\n" for i in range(14))
    assert told(text({"a": body})) == []
    (sentence,) = told(text({"a": body}, head))
    assert "beside inputs of" in sentence


ADVICE = {"claude": Advice("get claude", "run claude")}
FLEET = Fleet([], frozenset({"main", "site"}))


@proves("spec.known-repository")
def test_a_repository_that_nobody_keeps_is_refused_with_the_nearest_or_with_those_there_are():
    raw = text({"a": "by: human\ndo: x"}, "repo: mian")
    assert told(raw) == []
    (sentence,) = told(raw, fleet=FLEET)
    assert sentence.endswith('which no machine of the fleet keeps; did you mean "main"?')
    assert told(raw, fleet=FLEET, repo="site") == []
    (sentence,) = told(raw, fleet=FLEET, repo="xyz")
    assert sentence.startswith('--repo names "xyz"')
    # It stands in no line of the file, and the file's own mistake stands in its line.
    assert [p.line for p in check(raw, FLEET, repo="xyz").problems] == [0]
    assert [p.line for p in check(raw, FLEET, repo="mian").problems] == [3]
    with pytest.raises(SpecErrors, match=r"^--repo names"):
        admit(raw, FLEET, repo="xyz")
    assert sentence.endswith("there are: main, site")
    (sentence,) = told(raw, fleet=Fleet([], frozenset()))
    assert "`muster repo add" in sentence


@proves("spec.every-mistake", "spec.nearest-word")
def test_wrong_names_are_told_together_with_wrong_keys():
    raw = b"""\
muster: 1
nmae: x
repo: mian
phases:
  count: {agnet: shell, do: x, check: y}
  notes:
    after: [count, cuont]
    agent: [cluade]
    do: "${count.output} ${cuont.output}"
    retires: 2
  Last: {after: notes, agent: claude, do: z, check: y}
  end: {after: cuont, agent: claude, do: z, check: y}
"""
    view = Fleet([machine("build", agents={"claude": "", "shell": ""})], frozenset({"main"}))
    found = [(p.line, p.sentence) for p in check(raw, view).problems]
    assert [line for line, _ in found] == [2, 3, 5, 7, 8, 9, 10, 11, 12]
    said = dict(found)
    assert said[3].endswith('which no machine of the fleet keeps; did you mean "main"?')
    assert said[7] == 'phases.notes.after[1] names cuont, which is no phase; did you mean "count"?'
    assert (
        said[8] == 'phases.notes.agent names cluade, which no machine has; did you mean "claude"?'
    )
    assert 'refers to ${cuont.output}, which is no phase; did you mean "count"?' in said[9]
    assert "names cuont, which is no phase" in said[12]


@proves("spec.hostile-text")
@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none()
        | st.integers(-2, 99)
        | st.sampled_from(["a", "b", "A", "", "${b.output}", "main"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["muster", "name", "phases", "repo", "a", "b", "after", "agent", "do", "x"]
                ),
                inner,
                max_size=5,
            )
        ),
        max_leaves=20,
    )
)
def test_whatever_has_the_form_of_half_a_spec_is_checked_to_its_end(body):
    report = check(json.dumps(body).encode(), FLEET)
    assert report.problems


@proves("spec.sensible")
def test_matches_and_a_base_need_a_repository():
    every = text({"a": "each: '*.md'\nagent: shell\ndo: cat $MUSTER_EACH_PATH\ncheck: y"})
    (sentence,) = told(every)
    assert sentence.startswith("phases.a.each matches the files of a repository")
    assert told(every, repo="main") == []
    (sentence,) = told(text({"a": ""}, "base: side"))
    assert sentence.startswith("base names a branch")


@proves("spec.collisions")
@pytest.mark.parametrize(
    ("x", "y"), [("r.md", "r.md"), ("R.md", "r.MD"), ("out/", "out/a.md"), ("out/a/b", "out")]
)
def test_two_phases_that_deliver_to_one_place_and_meet_are_refused_without_a_repository(x, y):
    phases = {"x": f"deliver: {x}", "y": f"deliver: ['z.md', {y}]", "end": "after: [x, y]"}
    (sentence,) = told(text(phases))
    assert "y.deliver[1] is delivered to by x, too" in sentence
    assert "end comes after both" in sentence
    assert told(text(phases), warnings=True, repo="main") == [
        sentence.replace(
            "its folder can hold only one", "git must merge them, which fails where they differ"
        )
    ]


@proves("spec.collisions")
@pytest.mark.parametrize(
    ("x", "y", "after_y", "after_end"),
    [
        ("r.md", "r.md", "x", "[x, y]"),
        ("r.md", "s.md", "", "[x, y]"),
        ("out/a", "out/b", "", "[x, y]"),
        ("r.md", "r.md", "", "[x]"),
        ("r.md", "r.md2", "", "[x, y]"),
    ],
)
def test_phases_that_follow_each_other_or_never_meet_may_deliver_to_one_place(
    x, y, after_y, after_end
):
    before = f"after: {after_y}\n" if after_y else ""
    phases = {"x": f"deliver: {x}", "y": f"{before}deliver: {y}", "end": f"after: {after_end}"}
    assert told(text(phases)) == []
    assert told(text(phases), warnings=True) == []


@proves("spec.fits-the-log")
def test_more_names_of_deliverables_than_an_entry_lists_are_refused_without_a_repository():
    long = ", ".join(f"'{n}{'x' * 190}'" for n in range(10, 64))
    raw = text({"a": f"deliver: [{long}]"})
    (sentence,) = told(raw)
    assert "deliver one folder" in sentence
    assert told(raw, repo="main") == []


@proves("spec.fitting-machine")
@pytest.mark.parametrize(
    ("need", "lacks"),
    [("repo: main", "no repository main"), ("agent: [shell, codex]", "no agent codex")],
)
def test_a_repository_and_agents_that_are_needed_are_looked_for(need, lacks):
    raw = text({"a": f"needs: {{{need}}}"})
    (sentence,) = told(raw, fleet=Fleet([machine("lab")]))
    assert sentence.endswith(f"lab: {lacks}")
    good = machine("lab", repositories=("main",), agents={"shell": "", "codex": ""})
    assert told(raw, fleet=Fleet([good])) == []


@proves("spec.known-references", "spec.nearest-word")
@pytest.mark.parametrize(
    ("ref", "sentence"),
    [
        ("tset.summary", 'which is no phase; did you mean "test"?'),
        ("test.sumary", 'but a phase has no sumary; did you mean "summary"?'),
        ("later.summary", "but does not come after later; add after: [later]"),
        ("here.summary", "its own result, which is not there yet"),
        ("each.path", "but the phase has no each"),
        ("inputs.wrod", 'which is no input; did you mean "word"?'),
        ("run.number", "but a run has only id and name"),
        (" test.summary ", 'write it as "${test.summary}"'),
    ],
)
def test_a_reference_that_will_have_no_value_is_refused(ref, sentence):
    phases = {"test": "", "mid": "after: test", "later": "after: here"}
    body = f'after: mid\nagent: claude\ncheck: y\ndo: "${{{ref}}}"'
    found = told(text({**phases, "here": body}, "inputs: {word: x}"))
    assert len(found) == 1
    assert sentence in found[0]


@proves("spec.known-references")
def test_a_reference_to_a_far_prerequisite_and_to_the_run_is_taken():
    body = 'after: mid\ndo: say ${test.summary} ${run.id} ${inputs.word}\ncheck: "true"\n'
    raw = text({"test": "", "mid": "after: test", "x": body + "agent: claude"}, "inputs: {word: x}")
    assert told(raw) == []


HERE = 'each: s/*\nagent: shell\ndo: echo "$MUSTER_EACH_PATH" '


@proves("spec.known-references")
@pytest.mark.parametrize(
    ("used", "sentence"),
    [
        ("MUSTER_LATER_SUMMARY", "but does not come after later; add after: [later]"),
        ("MUSTER_LATER_OUTPUT_FILE", "but does not come after later; add after: [later]"),
        ("MUSTER_HERE_SUMMARY", "its own result, which is not there yet"),
    ],
)
def test_a_variable_that_will_have_no_value_is_refused(used, sentence):
    phases = {"sign-off": "", "later": "after: here", "here": f"after: sign-off\n{HERE} ${used}"}
    (found,) = told(text({**phases, "here": phases["here"] + "\ncheck: y"}, "repo: main"))
    assert found == f"phases.here.do uses ${used}, {sentence}"


@proves("spec.known-references")
def test_the_match_of_a_phase_without_matches_is_refused():
    (found,) = told(text({"a": "agent: shell\ndo: ls $MUSTER_EACH_PATH\ncheck: y"}))
    assert found == "phases.a.do uses $MUSTER_EACH_PATH, but the phase has no each"
    (found,) = told(text({"a": "each: s/*\nagent: shell\ndo: ls\ncheck: y"}, "repo: main"))
    assert found == "phases.a.each is never used; say $MUSTER_EACH_PATH in do"


@proves("spec.known-references", "spec.nearest-word")
@pytest.mark.parametrize(
    ("used", "meant"),
    [
        ("MUSTER_SING_OFF_SUMMARY", "MUSTER_SIGN_OFF_SUMMARY"),
        ("MUSTER_SIGN_OFF_SUMARY", "MUSTER_SIGN_OFF_SUMMARY"),
        ("MUSTER_SIGN_OFF_OUTPT_FILE", "MUSTER_SIGN_OFF_OUTPUT"),
        ("MUSTER_SGIN_OFF_OUTPUT", "MUSTER_SIGN_OFF_OUTPUT"),
        ("MUSTER_INPUTS_WROD", "MUSTER_INPUTS_WORD"),
    ],
)
def test_a_variable_that_nothing_sets_is_told_with_the_one_that_was_meant(used, meant):
    body = f"after: sign-off\nagent: shell\ncheck: y\ndo: echo ${used}"
    raw = text({"sign-off": "", "here": body}, "inputs: {word: x}")
    assert told(raw) == []
    assert told(raw, warnings=True) == [
        f"phases.here.do uses ${used}, which nothing sets; did you mean ${meant}?"
    ]
    mine = raw.replace(b"echo", f"{used}=1; echo".encode())
    assert told(mine, warnings=True) == []


@proves("spec.known-references")
def test_variables_of_somebody_else_are_left_alone():
    used = "echo $MUSTER_HOME $MUSTER_Z_OUTBOX $MUSTER_RUN_ID $MUSTER_INPUTS_WORD $MUSTER_A_COMMIT"
    phases = {"a": "", "b": f"after: a\nagent: shell\ndo: {used}\ncheck: y"}
    assert told(text(phases, "inputs: {word: x}"), warnings=True) == []


@proves("spec.no-injection")
def test_a_reference_in_shell_source_is_refused_with_the_variable_to_write():
    said = 'in shell source, where a value is a variable: write "$MUSTER_A_SUMMARY"'
    raw = text({"a": "", "b": "after: a\nagent: shell\ndo: echo ${a.summary}\ncheck: 'true'"})
    assert told(raw) == [f"phases.b.do refers to ${{a.summary}} {said}"]
    checked = text({"a": "", "b": "after: a\nagent: claude\ndo: x\ncheck: test ${a.summary}"})
    assert told(checked) == [f"phases.b.check refers to ${{a.summary}} {said}"]
    escaped = raw.replace(b"echo $", b"echo $$")
    assert told(escaped) == [f"phases.b.do refers to ${{a.summary}} {said}"]
    assert told(raw.replace(b"agent: shell\n    do: echo", b"agent: claude\n    do: say")) == []


@proves("spec.no-injection")
def test_where_an_agent_or_the_shell_may_do_it_a_reference_is_warned_of():
    raw = text({"a": "", "b": "after: a\nagent: [claude, shell]\ndo: say ${a.summary}\ncheck: y"})
    assert told(raw) == []
    (both, refers) = told(raw, warnings=True)
    assert "make sure that it fits both" in both + refers
    assert 'write "$MUSTER_A_SUMMARY"' in both + refers


# --- local files


@proves("spec.local-files")
@pytest.mark.parametrize(
    "do",
    [
        "cat /home/me/data.csv",
        "cp ~/x y",
        "cp ~me/x y",
        "read $HOME/x",
        "ls --dir=/Users/me/x",
        "open C:\\data\\x",
        "see file:///x/y",
        "cat </mnt/disk/x",
        "PATH=/bin:/srv/bin make",
    ],
)
def test_a_personal_file_is_refused_unless_the_phase_is_pinned(do):
    body = f"agent: claude\ncheck: y\ndo: |\n  {do}\n"
    (sentence,) = told(text({"a": body}))
    assert sentence.startswith("phases.a.do names ")
    assert "a file of one machine" in sentence
    assert told(text({"a": body + "needs: {machine: studio}"})) == []
    assert len(told(text({"a": body + "needs: {machine: [studio, lab]}"}))) == 1


@proves("spec.local-files")
@pytest.mark.parametrize(
    "do",
    [
        "/usr/bin/env true > /dev/null",
        "curl https://host/home/me/x",
        "add the /login and /home route",
        "a/home/b and ../mnt/x",
        "1 ~ 2, x~y/z",
        "ratio 3:/4",
        "mktemp /tmp/x.XXX",
        "and/or, I/O",
    ],
)
def test_what_is_no_personal_file_is_left_alone(do):
    assert told(text({"a": f"agent: claude\ncheck: y\ndo: |\n  {do}\n"})) == []


@proves("spec.local-files")
def test_a_temporary_file_between_two_phases_is_refused():
    one, two = "agent: shell\ncheck: y\ndo: x > /tmp/x", "agent: shell\ncheck: y\ndo: cat /tmp/x"
    assert told(text({"a": one, "b": f"after: a\n{two}"})) == [
        'phases.b.do names "/tmp/x", as a does, which may run on another machine; let a deliver it'
    ]
    pin = "\nneeds: {machine: m}"
    assert told(text({"a": one + pin, "b": f"after: a\n{two}{pin}"})) == []
    assert told(text({"a": one.replace("check: y", "check: test -s /tmp/x")})) == []


@proves("spec.local-files")
def test_a_deliverable_read_by_a_phase_that_does_not_come_after_is_refused():
    make = "agent: shell\ndo: make > report.txt\ndeliver: report.txt"
    read = "agent: shell\ndo: sort ./report.txt\ncheck: y"
    told_plain = 'phases.b.do reads "report.txt", which a delivers; add after: [a]'
    raw = text({"a": make, "b": read})
    assert told(raw) == [told_plain]
    assert told(text({"a": make, "b": f"after: a\n{read}"})) == []
    with_repo = raw.replace(b"phases:", b"repo: main\nphases:")
    assert told(with_repo) == []
    assert told(with_repo, warnings=True) == [told_plain]
    early = text({"b": read, "a": f"after: b\n{make}"})
    assert "which runs after this phase" in told(early)[0]


# --- machines


def machine(name: str, **facts: object) -> Machine:
    base = {"os": "linux", "arch": "x86_64", "cpus": 4, "agents": {"shell": "1"}}
    return Machine(id=name * 8, name=name, facts=Facts(**{**base, **facts}))


@proves("spec.fitting-machine")
def test_a_phase_that_fits_no_machine_says_what_the_nearest_lacks():
    raw = text({"a": "needs: {label: gpu, memory: 64GiB, os: linux}"})
    machines = [
        machine("mac", os="darwin", memory_mib=8_192),
        machine("lab", memory_mib=131_072),
    ]
    assert told(raw, fleet=Fleet(machines)) == [
        "phases.a.needs fits no machine; the nearest is lab: no label gpu"
    ]
    assert (
        told(raw, fleet=Fleet([*machines, machine("big", memory_mib=65_536, labels=("gpu",))]))
        == []
    )
    assert told(raw, fleet=Fleet([])) == [
        "phases.a finds no machine: the fleet has none; invite one"
    ]
    assert told(raw) == []


@proves("spec.fitting-machine")
def test_an_agent_that_no_machine_has_is_told():
    raw = text({"a": "agent: claude\ndo: x\ncheck: y", "b": "by: human\ndo: look"})
    assert told(raw, fleet=Fleet([machine("lab")])) == [
        "phases.a.agent fits no machine; the nearest is lab: no agent claude"
    ]


@proves("spec.hostile-text")
@pytest.mark.parametrize(
    "raw",
    [
        text({f"p{i}": "after: [" + ", ".join(f"p{j}" for j in range(max(0, i - 15), i)) + "]"
              for i in range(400)}),
        text({f"p{i}": f"after: p{(i + 1) % 500}" for i in range(500)}),
        text({f"phase-{i}": f"after: [phsae-{i}, phaze-{i}]" for i in range(500)}),
        text({f"p{i}": "agent: shell\ncheck: y\ndo: " + "sh [[ ${a.b} " * 1_200 for i in range(15)}),
        text({f"p{i}": "agent: shell\ncheck: y\ndo: " + " ".join(f"$MUSTER_{j}P{i}_SUMMARY" for j in range(700))
              for i in range(20)} | {f"q{i}": "" for i in range(400)}),
        text({f"p{i}": "agent: claude\ncheck: y\ndo: " + "~a/b /tmp/x${ a" * 1_000
              for i in range(15)}),
        text({f"p{i}": "deliver: [" + ", ".join(f"d{j}.txt" for j in range(15)) + "]"
              for i in range(500)}),
        text({f"p{i}": "deliver: [" + ", ".join("a/" * (i % 80) + f"b{j}" for j in range(8)) + "]"
              for i in range(500)}),
        text({"a": "deliver: [" + ", ".join(f"d{i}.txt" for i in range(60)) + "]",
              **{f"p{i}": "agent: claude\ncheck: y\ndo: " + "d1.txt d2.txt " * 1_100
                 for i in range(15)}}),
    ],
)  # fmt: skip
def test_a_large_spec_made_to_be_slow_takes_bounded_work(raw):
    reports = []
    # Six million were counted; what grows with the square of a spec takes a thousand times as many.
    assert calls(lambda: reports.append(check(raw))) < 20_000_000
    assert len(reports[0].problems) <= 100


@proves("budget.checked")
@pytest.mark.parametrize(
    ("top", "own", "sentence"),
    [
        ("{usd: 2.50, tokens: 9, time: 2h}", "{tokens: 5, usd: 1.00}", ""),
        ("{usd: '0'}", "{tokens: 5}", "budget.usd is 0"),
        ("{time: 0s}", "{tokens: 5}", "budget.time is 0s"),
        ("{time: 40d}", "{tokens: 5}", "at most 744h"),
        ("{tokens: 4}", "{tokens: 5}", "one attempt of one may use more than the whole run"),
        ("{usd: '1'}", "{usd: 1.01}", "one attempt of one may use more than the whole run"),
    ],
)
def test_a_budget_that_nobody_can_keep_is_refused(top: str, own: str, sentence: str) -> None:
    top, own = (re.sub(r"usd: ([0-9.]+)", r"usd: '\1'", each) for each in (top, own))
    text = f"muster: 1\nname: a\nbudget: {top}\nphases:\n  one:\n    agent: claude\n    do: x\n"
    problems = check(f"{text}    check: 'true'\n    budget: {own}\n".encode()).problems
    assert len(problems) == bool(sentence)
    assert all(sentence in each.sentence for each in problems)


# --- for a push


@proves("spec.push")
@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        ("on: push", "on is for pushes to a repository, and the spec names none; add repo: NAME"),
        ("repo: main\nbase: main\non: push",
         "base does not go with on: a run starts from the commit that was pushed"),
        ("repo: main\non: psh", 'on: "psh" is not push; did you mean "push"?'),
        ("repo: main\non: [push]", "on is push, not a list or a mapping"),
        ("repo: main\non: {pus: {}}", 'on has no key "pus"; did you mean "push"?'),
        ("repo: main\non: {push: {branch: main}}",
         'on.push has no key "branch"; did you mean "branches"?'),
        ("repo: main\non: {push: {branches: [a..b]}}",
         'on.push.branches[0]: "a..b" names no branches; write one, or some as "feature/*"'),
        ("repo: main\non: {push: {branches: []}}",
         "on.push.branches is empty; give it a value or leave the key out"),
    ],
)  # fmt: skip
def test_what_a_run_on_push_cannot_be_is_refused(head, sentence):
    assert told(text({"a": ""}, head)) == [sentence]


@proves("spec.push")
def test_what_a_push_gives_is_an_input_and_only_where_there_is_a_push():
    asks = {"a": "agent: claude\ndo: ${inputs.push-commit}\ncheck: test $MUSTER_INPUTS_PUSH_BEFORE"}
    assert told(text(asks, "repo: main\non: push")) == []
    assert told(text(asks, "repo: main\ninputs: {a: b}")) == [
        "phases.a.do refers to ${inputs.push-commit}, which is no input"
    ]
