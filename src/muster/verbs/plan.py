"""`muster ask`: an agent turns an intention into a spec; a person sees it before it runs.

Rule 1: no keyword pretends to plan. Without an agent the person hears which ones Muster knows, and
gets a skeleton to fill in.
Rule 2: planning is a run like any other: signed, routed, recorded. Its answer is text, and counts
only when `check` finds nothing wrong with it; what is wrong goes back to the agent, a few times.
Rule 3: nothing the agent wrote runs before the person said yes (or typed `--yes`), who may change
it before (`--edit`, or `e` where it is asked); what they change is checked like any spec.
Rule 4: it plans in a checkout of the repository, where there is one, with what the fleet remembers
of it and of earlier runs, as every attempt has it.
"""

import contextlib
import json
import re
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Final, NamedTuple

from muster.agent import catalogue
from muster.errors import Malformed, MusterError, NotFound, Refused
from muster.task.route import NOOP
from muster.verbs import plan_edit
from muster.verbs.client import Finding
from muster.verbs.declaration import Context, Request, Words, opt, pos, verb

TRIES_MAX: Final = 3

# A machine a line; a planner does not read a thousand of them.
MACHINES_SHOWN_MAX: Final = 100
TIMEOUT: Final = "15m"
NOT_RUN_EXIT: Final = 1

# A fence at the start of a line, or a shell phase that writes Markdown would end the plan early.
_FENCE: Final = re.compile(r"^```(\w*)[ \t]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
_REFERENCE: Final = re.compile(r"\$\{[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\}")
_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")

_TASK: Final = """\
Turn an intention into a plan for a fleet of machines. Answer with ONE YAML document in a ```yaml
fence and nothing else. Do not do the work itself, do not write files. Read what you need to know.

The format, by example:

```yaml
muster: 1
name: release-notes          # [a-z0-9-]
repo: main                   # leave out when no repository is needed
phases:
  test:
    needs: {label: tests, tools: {python: ">=3.11"}}   # also os, arch, cpu, memory, gpu, machine
    agent: shell             # shell: `do` is shell source; an agent: `do` is what it is asked
    do: make test > report.txt
    deliver: [report.txt]    # files that must be there afterwards (relative paths)
    check: test -s report.txt    # shell; must succeed
    timeout: 10m
    retries: 2
  notes:
    after: [test]            # starts from the commits of these phases
    agent: [claude, codex]   # the first one available
    do: "Draft NOTES.md; tests: ${test.summary}"
    deliver: [NOTES.md]
  sign-off:
    after: [notes]
    by: human
    do: "Read NOTES.md on ${notes.branch} and approve"
```

Every phase needs `deliver` or `check`, or `by: human`. Phases that do not depend on each other run
at the same time on different machines. Name only labels, tools and agents that exist below. Shell
source (`do` of agent: shell, every `check`) says "$MUSTER_TEST_SUMMARY" for ${test.summary}.
"""


class Plan(NamedTuple):
    """A spec that can run."""

    spec: str
    name: str
    repo: str


class Ask(Request, frozen=True):
    intention: Annotated[Words, pos("what you want, in your words")]
    repo: Annotated[str, opt("the repository it is about", kind="repository")] = ""
    agent: Annotated[
        str, opt("the planning agent (default: the first that is up)", kind="agent")
    ] = ""
    yes: Annotated[bool, opt("run the plan without asking", short="y")] = False
    edit: Annotated[bool, opt("change the plan in your editor first", short="e")] = False
    detach: Annotated[bool, opt("begin the run and return", unsigned=True, short="d")] = False


@verb("ask", auth="local", runs="client", group="Work", on="one", harmless=True, steps=True)
def ask(context: Context, wish: Ask) -> dict[str, Any] | Finding:
    """Let an agent turn an intention into a spec, and run it.

    The answer is the plan and the run that began, or what is missing.

    The agent plans in a checkout of the repository. VISUAL or EDITOR names the editor of --edit.

        muster ask 'say in NOTES.md what changed this week' --repo main
        muster ask 'mend the flaky test' --edit
    """
    intention, repo = " ".join(wish.intention).strip(), wish.repo
    repo = repo or context.home.default_repository()
    if not intention:
        raise Malformed('say what you want: muster ask "…"')
    machines = context.ask("machines", {})
    plan = planned(context, machines, intention, repo, wish.agent)
    if plan is None:
        return Finding(skeleton(machines, intention, repo), NotFound.exit_code)
    if wish.edit:
        plan = _edited(context, plan)
    answer = {"spec": plan.spec, "name": plan.name, "run": None}
    if not wish.yes and not sys.stdin.isatty():
        context.say("nobody is here to say yes: hand the plan to `muster run`, or ask with --yes")
        return Finding(answer, NOT_RUN_EXIT)
    context.say(f"\n{plan.spec}", whole=True)
    while not wish.yes and (said := _said("Run this? [y/N/e(dit)] ")) not in ("y", "yes"):
        if said not in ("e", "edit"):
            return Finding({**answer, "declined": True}, NOT_RUN_EXIT)
        plan = _edited(context, plan)
        answer |= {"spec": plan.spec, "name": plan.name}
        context.say(f"\n{plan.spec}", whole=True)
    # Exactly what `muster run` would sign for this spec: the workers compute it again.
    wanted = {"base": "", "repo": repo or plan.repo, "spec": plan.spec, "values": {}}
    begun = context.ask("run", wanted, on=context.on, options={"object": plan.name})
    return {**answer, **begun}


def planned(
    context: Context, machines: list[dict[str, Any]], intention: str, repo: str, wanted: str = ""
) -> Plan | None:
    """A plan that can run, by the agent wanted or the first that is up; None without any.

    Raises: NotFound for a repository or an agent that no machine has, Refused when none came.
    """
    known = {name for m in machines if m["facts"] for name in m["facts"]["repositories"]}
    if repo and repo not in known:
        # Before an agent plans for a repository that nobody has.
        raise NotFound(f"no machine has the repository {repo}; there are: {_list(known)}")
    agent = _agent(machines, wanted)
    if not agent:
        return None
    context.say(f"{agent} is planning …")
    return _planned(context, agent, intention, repo, machines)


def _said(question: str) -> str:
    """What a person at a terminal types."""
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower()


def _edited(context: Context, plan: Plan) -> Plan:
    """The plan as the person changes it, again while it cannot run and they go on.

    Raises: Refused where it cannot run as it was left; Broken, Malformed as `plan_edit.edited`.
    """
    spec = plan.spec
    while True:
        spec = plan_edit.edited(spec)
        checked, problems = _checked(context, spec)
        if not problems:
            return Plan(spec, str(checked["name"]), str(checked["repo"]))
        context.say(f"the plan cannot run as you left it:\n{problems}")
        if not sys.stdin.isatty() or _said("Change it again? [Y/n] ") not in ("", "y", "yes"):
            raise Refused(f"the plan cannot run as you left it: {problems}")


def _checked(context: Context, spec: str) -> tuple[Mapping[str, Any], str]:
    """What the check says of a spec, and its problems a line each; "" where it can run."""
    checked = context.ask("check", {"spec": spec})
    found = [p for p in checked["problems"] if not p["warning"]]
    lines = "\n".join(f"line {p['line']}, column {p['column']}: {p['text']}" for p in found)
    return checked, lines


def _planned(
    context: Context, agent: str, intention: str, repo: str, machines: list[dict[str, Any]]
) -> Plan:
    """A plan that the check has nothing against. Raises: Refused when the agent gives none."""
    problems = ""
    for attempt in range(1, TRIES_MAX + 1):
        asked = _prompt(intention, repo, machines, problems)
        answer = _answer_of(context, agent, asked, repo)
        spec = _spec_in(answer)
        if not spec:
            problems = "Your last answer held no YAML document in a ```yaml fence."
            context.say(f"answer {attempt} of {TRIES_MAX} holds no plan")
            continue
        checked, lines = _checked(context, spec)
        if not lines:
            return Plan(spec, str(checked["name"]), str(checked["repo"]))
        problems = f"Your last plan was:\n\n{spec}\n\nIt has these problems; mend them:\n{lines}"
        context.say(f"plan {attempt} of {TRIES_MAX} cannot run yet:\n{lines}")
    raise Refused(
        f"{agent} gave no plan that can run in {TRIES_MAX} tries; write the spec yourself"
    )


def _answer_of(context: Context, agent: str, prompt: str, repo: str) -> str:
    """What the agent says to the prompt: a run of one phase, and what its task yielded."""
    # What the prompt says of values is text in it, never one.
    quoted = json.dumps(_REFERENCE.sub(r"$\g<0>", prompt), ensure_ascii=False)
    spec = (
        f"muster: 1\nname: plan\nphases:\n  plan:\n    agent: [{json.dumps(agent)}]\n"
        f"    do: {quoted}\n    check: 'true'\n    timeout: {TIMEOUT}\n    retries: 1\n"
    )
    wanted = {"base": "", "repo": repo, "spec": spec, "values": {}}
    begun = context.ask("run", wanted, options={"object": "plan", "again": True})
    here = context.ask("status", {})["name"]
    on = "" if begun["owner"] == here else str(begun["owner"])
    last: dict[str, Any] = {}
    try:
        for change in context.stream("watch", {"run": begun["run"]}, on=on):
            last = change if change.get("task") else last
    except KeyboardInterrupt:
        # Nobody waits for the answer any more, and thinking costs.
        with contextlib.suppress(MusterError):
            context.ask("cancel", {"what": begun["run"], "reason": "the person left"}, on=on)
        raise
    if not last or last.get("state") != "done":
        why = last.get("summary") or "it ended without an answer"
        raise Refused(
            f"{agent} could not plan: {why}; see `muster logs {last.get('task', '')[:12]}`"
        )
    result = context.ask("result", {"task": last["task"]}, on=on)
    return str(result["values"].get("output", ""))


def _prompt(intention: str, repo: str, machines: list[dict[str, Any]], problems: str) -> str:
    known = [m for m in machines if m["facts"] and m["state"] != "revoked"]
    here = [m for m in known if m["state"] != "away"]
    shown = [*here, *(m for m in known if m not in here)][:MACHINES_SHOWN_MAX]
    parts = [_TASK, "The fleet:\n" + "\n".join(_machine(m) for m in shown)]
    if repo:
        parts.append(
            f"The repository to work in is named {repo}. The current folder is a checkout of it: "
            "look at what is there before you plan."
        )
    if problems:
        parts.append(problems)
    parts.append(f"The intention:\n{intention}")
    return "\n\n".join(parts)


def _machine(machine: Mapping[str, Any]) -> str:
    facts = machine["facts"]
    agents = set(facts["agents"]) - {NOOP}
    return (
        f"- {machine['name']} ({machine['state']}): {facts['os']} {facts['arch']}, "
        f"{facts['cpus']} cpus, labels {_list(facts['labels'])}, agents {_list(agents)}, "
        f"tools {_list(facts['tools'])}, repositories {_list(facts['repositories'])}"
    )


def _list(items: Any) -> str:
    return ", ".join(sorted(items)) or "none"


def _agent(machines: list[dict[str, Any]], wanted: str) -> str:
    """The agent that plans: the one wanted, else the first that is up. "" when there is none."""
    here = [m for m in machines if m["state"] in ("here", "up")]
    known = sorted({agent for m in here for agent in _planners(m)})
    if wanted:
        if wanted not in known:
            raise NotFound(
                f"no machine that is up has the agent {wanted}; there are: {_list(known)}"
            )
        return wanted
    return known[0] if known else ""


def _planners(machine: Mapping[str, Any]) -> set[str]:
    return set(machine["facts"]["agents"]) - catalogue.PLAIN if machine["facts"] else set()


def skeleton(machines: list[dict[str, Any]], intention: str, repo: str) -> dict[str, Any]:
    """Without an agent: what is missing, and a spec to fill in."""
    agents = sorted(set(catalogue.load()) - catalogue.PLAIN)
    words = " ".join(_CONTROL.sub("", intention).split())[:60]
    lines = ["muster: 1", "name: my-plan", *([f"repo: {repo}"] if repo else []), "phases:",
             "  work:", "    agent: shell", f"    do: |  # {words}",
             "      echo 'replace this'", "    check: 'true'", ""]  # fmt: skip
    away = [str(m["name"]) for m in machines if m["state"] == "away" and _planners(m)]
    asleep = f" ({_list(away)} would have one and is away)" if away else ""
    return {
        "missing": agents,
        "text": f"no machine that is up has a planning agent{asleep}; install one of "
        f"{', '.join(agents)} on any machine, or fill in this spec and hand it to `muster run`",
        "skeleton": "\n".join(lines),
    }


def _spec_in(answer: str) -> str:
    """The spec in what an agent said: the last fence, or the whole when it begins like a spec."""
    text = _CONTROL.sub("", answer.replace("\r\n", "\n"))
    found = _FENCE.findall(text)
    fences = [each for kind, each in found if kind in ("", "yaml", "yml") and "muster:" in each]
    if fences:
        return str(fences[-1])
    start = re.search(r"^muster: 1$", text, re.MULTILINE)
    return text[start.start() :].rstrip() + "\n" if start else ""
