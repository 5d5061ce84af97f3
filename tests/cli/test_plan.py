"""What `muster ask` does with an agent's answer, with a door that answers what a test says."""

import io
import json
import sys
from types import SimpleNamespace

import pytest
from msgspec import convert

from muster.errors import Malformed, NotFound, Refused
from muster.task import check, values
from muster.task.spec import parse
from muster.verbs import plan
from muster.verbs.client import Finding
from tests.promise import proves

PLAN = "muster: 1\nname: tidy\nphases:\n  a:\n    agent: shell\n    do: ls\n    check: 'true'\n"
FACTS = {
    "os": "linux", "arch": "x86_64", "cpus": 2, "labels": [], "tools": {}, "repositories": ["main"],
    "agents": {"claude": "2.1", "noop": "", "shell": ""},
}  # fmt: skip
STUDIO = {"name": "studio", "state": "up", "facts": FACTS}
HUB = {"name": "hub", "state": "here", "facts": {**FACTS, "agents": {"noop": "", "shell": ""}}}


class CommandContext:
    """The daemon of `hub`, and an agent that gives these answers, one a run."""

    on = ""

    def __init__(self, *answers, machines=(HUB, STUDIO), state="done"):
        self.answers, self.machines, self.state = list(answers), list(machines), state
        self.runs, self.said, self.cancelled = [], [], []

        self.home = SimpleNamespace(default_repository=lambda: "")

    def ask(self, verb, args, *, on="", options=None):
        match verb:
            case "machines":
                return self.machines
            case "status":
                return {"name": "hub"}
            case "run":
                self.runs.append((args, options))
                return {"run": f"{len(self.runs):032x}", "owner": "hub", "fresh": True}
            case "result":
                return {"values": {"output": self.answers.pop(0)}}
            case "check":
                report = check.check(args["spec"].encode(), None)
                found = [
                    {"line": p.line, "column": p.column, "text": p.sentence, "warning": p.warning}
                    for p in report.problems
                ]
                good = (
                    {"name": report.spec.name, "repo": report.spec.repo or ""}
                    if report.spec
                    else {}
                )
                return {"problems": found, **good}
            case "cancel":
                self.cancelled.append(args["what"])
                return {}
        raise AssertionError(verb)

    def stream(self, verb, args, *, on=""):
        assert (verb, on) == ("watch", ""), "the daemon here is asked without an order"
        if self.state == "interrupted":
            raise KeyboardInterrupt
        yield {"task": "t1", "state": "leased"}
        yield {"task": "t1", "state": self.state, "summary": "the model is away"}
        yield {"run": args["run"], "settled": self.state}

    def say(self, text, *, whole=False):
        # What is to be agreed to is not abbreviated, and all else may be.
        assert whole == text.startswith("\nmuster: "), text
        self.said.append(text)


def fenced(text):
    return f"Here:\n\n```yaml\n{text}```\n"


def ask(context, **args):
    return plan.ask(context, convert({"intention": ["tidy", "up"], "yes": True, **args}, plan.Ask))


@proves("cli.ask")
def test_what_runs_is_the_very_text_that_was_shown():
    context = CommandContext(fenced(PLAN))
    answer = ask(context)
    (_, (args, options)) = context.runs
    assert (args["spec"], answer["spec"], options) == (PLAN, PLAN, {"object": "tidy"})
    assert f"\n{PLAN}" in context.said


@proves("cli.default-repository")
@pytest.mark.parametrize(("said", "named"), [("", "main"), ("site", "site")])
def test_an_intention_is_about_the_default_repository_where_none_is_named(said, named):
    facts = {**FACTS, "repositories": ["main", "site"]}
    context = CommandContext(fenced(PLAN), machines=[{**STUDIO, "facts": facts}])
    context.home.default_repository = lambda: "main"
    ask(context, repo=said)
    (planning, _), (args, _) = context.runs
    assert f"work in is named {named}." in planning["spec"]
    assert args["repo"] == named


@proves("cli.ask")
def test_the_planning_run_is_a_spec_that_can_run_and_asks_what_it_was_told():
    context = CommandContext(fenced(PLAN))
    ask(context, intention=['say "é" ${test.summary} ${HOME}\nand $${a.b}'])
    planning = parse(context.runs[0][0]["spec"].encode())
    said = values.prompt(planning.phases["plan"].do, {})
    assert said.endswith('The intention:\nsay "é" ${test.summary} ${HOME}\nand $${a.b}')
    assert "- hub (here)" in said
    assert "agents claude, shell" in said


@proves("cli.ask-mends")
def test_three_answers_without_a_good_plan_are_enough():
    context = CommandContext("no", fenced(PLAN.replace("do:", "doo:")), fenced("muster: 2\n"))
    with pytest.raises(Refused, match="3 tries"):
        ask(context)
    assert len(context.runs) == 3
    prompts = [args["spec"] for args, _ in context.runs]
    assert "held no YAML" in prompts[1]
    assert "doo" in prompts[2]


@proves("cli.ask-mends")
def test_an_agent_that_fails_is_said_with_its_reason_and_nothing_runs():
    context = CommandContext(state="failed")
    with pytest.raises(Refused, match="the model is away"):
        ask(context)
    assert len(context.runs) == 1


@proves("cli.ask")
def test_a_person_who_leaves_ends_the_planning():
    context = CommandContext(state="interrupted")
    with pytest.raises(KeyboardInterrupt):
        ask(context)
    assert context.cancelled == [f"{1:032x}"]


@proves("cli.ask-asks")
def test_nobody_at_the_terminal_means_that_nothing_runs(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n"))
    context = CommandContext(fenced(PLAN))
    answer = ask(context, yes=False)
    assert isinstance(answer, Finding)
    assert (answer.code, answer.value["spec"], answer.value["run"]) == (1, PLAN, None)
    assert len(context.runs) == 1, "only the planning"


@proves("cli.ask-asks")
def test_what_a_person_is_shown_has_no_characters_that_hide_what_runs():
    hidden = PLAN.replace("do: ls", "do: ls\x1b[8m; rm -rf x\u202e")
    answer = ask(CommandContext(fenced(hidden)))
    assert "do: ls[8m; rm -rf x\n" in answer["spec"]


@proves("cli.ask-without-agent")
def test_without_an_agent_the_skeleton_passes_the_check_whatever_was_asked():
    away = {**STUDIO, "state": "away"}
    context = CommandContext(machines=[HUB, away])
    answer = ask(context, intention=["a\nb: 'c'\x1b"], repo="main")
    assert (answer.code, "claude" in answer.value["missing"]) == (5, True)
    assert "studio would have one and is away" in answer.value["text"]
    assert check.check(answer.value["skeleton"].encode(), None).problems == ()
    assert context.runs == []


@proves("cli.ask")
@pytest.mark.parametrize(
    ("args", "error"),
    [
        ({"intention": [" "]}, Malformed),
        ({"agent": "gemini"}, NotFound),
        ({"repo": "other"}, NotFound),
    ],
)
def test_what_makes_no_sense_is_refused_before_an_agent_thinks(args, error):
    context = CommandContext(fenced(PLAN))
    with pytest.raises(error):
        ask(context, **args)
    assert context.runs == []


@proves("cli.ask")
@pytest.mark.parametrize(
    ("answer", "spec"),
    [
        (fenced(PLAN), PLAN),
        (PLAN, PLAN),
        (f"```\n{PLAN}```", PLAN),
        (f"```sh\nls\n```\nand\n{fenced(PLAN)}", PLAN),
        (
            fenced(PLAN.replace("ls", "|\n      echo '```'")),
            PLAN.replace("ls", "|\n      echo '```'"),
        ),
        (fenced("a: 1\n") + fenced(PLAN), PLAN),
        (fenced(PLAN).replace("\n", "\r\n"), PLAN),
        ("I would write `muster: 1` first.", ""),
    ],
)
def test_the_plan_is_found_in_what_an_agent_says(answer, spec):
    assert plan._spec_in(answer) == spec


@proves("cli.ask")
def test_the_example_that_planners_see_is_a_good_spec():
    example = plan._spec_in(plan._TASK)
    problems = check.check(example.encode(), None).problems
    assert [p for p in problems if not p.warning] == [], json.dumps(problems)
