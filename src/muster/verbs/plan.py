"""`muster ask`: an agent turns an intention into a spec; a person sees it before it runs.

Rule 1: no keyword pretends to plan. Without an agent the person hears which ones Muster knows, and
gets a skeleton to fill in.
Rule 2: planning is a run like any other: signed, routed, recorded. Its answer is text, and counts
only when `check` finds nothing wrong with it; what is wrong goes back to the agent, a few times.
Rule 3: nothing the agent wrote runs before the person said yes (or typed `--yes`).
"""

import json
import re
import sys
from collections.abc import Mapping
from typing import Any, Final

from muster.errors import NotFound, Refused
from muster.task import schema as specs
from muster.verbs.client import Door, Finding

TRIES_MAX: Final = 3
PLAIN_AGENTS: Final = frozenset({"shell", "noop"})

_FENCE: Final = re.compile(r"```(?:ya?ml)?[ \t]*\n(.*?)```", re.DOTALL)
_NAME: Final = re.compile(r"^name:[ \t]*([a-z0-9-]+)[ \t]*$", re.MULTILINE)

_TASK: Final = """\
Turn an intention into a plan for a fleet of machines. Answer with ONE YAML document in a ```yaml
fence and nothing else. Do not do the work itself, do not write files, do not run commands.

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
    agent: [claude, shell]   # the first one available
    do: "Draft NOTES.md; tests: ${test.summary}"
    deliver: [NOTES.md]
  sign-off:
    after: [notes]
    by: human
    do: "Read NOTES.md on ${notes.branch} and approve"
```

Every phase needs `deliver` or `check`, or `by: human`. Phases that do not depend on each other run
at the same time on different machines. Name only labels, tools and agents that exist below.
"""


def ask(door: Door, args: Mapping[str, Any]) -> Any:
    """Plan, show, run. The answer is the run that began, or what is missing."""
    intention = _text(args.get("intention"))
    repo = str(args.get("repo") or "")
    machines = door.ask("machines", {})
    agent = _agent(machines, str(args.get("agent") or ""))
    if not agent:
        return Finding(_skeleton(machines, intention, repo), NotFound.exit_code)
    door.say(f"{agent} is planning …")
    spec = _planned(door, agent, intention, repo, machines)
    door.say(spec)
    if not args.get("yes") and not _agreed():
        return Finding({"spec": spec, "run": None}, 1)
    name = _name(spec)
    wanted = {"base": "", "repo": repo or _repo_of(spec), "spec": spec, "values": {}}
    begun = door.ask("run", wanted, options={"object": name})
    door.say(f"run {begun['run'][:12]} began; follow it with `muster runs {begun['run'][:12]}`")
    return {"spec": spec, **begun}


def schema(door: Door, args: Mapping[str, Any]) -> Any:  # noqa: ARG001 - takes nothing
    """The JSON Schema of specs, as editors want it."""
    return specs.schema()


def _planned(
    door: Door, agent: str, intention: str, repo: str, machines: list[dict[str, Any]]
) -> str:
    """A spec that the check has nothing against. Raises: Refused when the agent gives none."""
    problems = ""
    for attempt in range(1, TRIES_MAX + 1):
        prompt = _prompt(intention, repo, machines, problems)
        answer = _answer_of(door, agent, prompt)
        spec = _spec_in(answer)
        if not spec:
            problems = "Your last answer held no YAML document in a ```yaml fence."
            continue
        found = [p for p in door.ask("check", {"spec": spec})["problems"] if not p["warning"]]
        if not found:
            return spec
        lines = "\n".join(f"line {p['line']}, column {p['column']}: {p['text']}" for p in found)
        problems = f"Your last plan was:\n\n{spec}\n\nIt has these problems; mend them:\n{lines}"
        door.say(f"plan {attempt} of {TRIES_MAX} has {len(found)} problems; asking again …")
    raise Refused(f"{agent} gave no plan that can run in {TRIES_MAX} tries; write the spec yourself")


def _answer_of(door: Door, agent: str, prompt: str) -> str:
    """What the agent says to the prompt: a run of one phase, and what its task yielded."""
    spec = "muster: 1\nname: plan\nphases:\n  plan:\n    agent: %s\n    do: %s\n    check: 'true'\n" % (
        json.dumps([agent]),
        json.dumps(prompt, ensure_ascii=False).replace("${", "$${"),
    )
    wanted = {"base": "", "repo": "", "spec": spec, "values": {}}
    begun = door.ask("run", wanted, options={"object": "plan", "again": True})
    last: dict[str, Any] = {}
    for change in door.stream("watch", {"run": begun["run"]}, on=begun["owner"]):
        last = change if change.get("task") else last
    if not last or last.get("state") != "done":
        why = last.get("summary") or "it ended without an answer"
        raise Refused(f"{agent} could not plan: {why}; see `muster logs {last.get('task', '')[:12]}`")
    result = door.ask("result", {"task": last["task"]}, on=begun["owner"])
    return str(result["values"].get("output", ""))


def _prompt(intention: str, repo: str, machines: list[dict[str, Any]], problems: str) -> str:
    parts = [_TASK, "The fleet:\n" + "\n".join(_machine(m) for m in machines if m["facts"])]
    if repo:
        parts.append(f"The repository to work in is named {repo}.")
    if problems:
        parts.append(problems)
    parts.append(f"The intention:\n{intention}")
    return "\n\n".join(parts)


def _machine(machine: Mapping[str, Any]) -> str:
    facts = machine["facts"]
    return (
        f"- {machine['name']} ({machine['state']}): {facts['os']} {facts['arch']}, "
        f"{facts['cpus']} cpus, labels {_list(facts['labels'])}, agents {_list(facts['agents'])}, "
        f"tools {_list(facts['tools'])}, repositories {_list(facts['repositories'])}"
    )


def _list(items: Any) -> str:
    return ", ".join(sorted(items)) or "none"


def _agent(machines: list[dict[str, Any]], wanted: str) -> str:
    """The agent that plans: the one wanted, else the first that is up. "" when there is none."""
    here = [m for m in machines if m["state"] in ("here", "up") and m["facts"]]
    known = sorted({a for m in here for a in m["facts"]["agents"]} - PLAIN_AGENTS)
    if wanted:
        if wanted not in known:
            raise NotFound(f"no machine that is up has the agent {wanted}; there are: {_list(known)}")
        return wanted
    return known[0] if known else ""


def _skeleton(machines: list[dict[str, Any]], intention: str, repo: str) -> dict[str, Any]:
    """Without an agent: what is missing, and a spec to fill in."""
    from muster.agent import catalogue  # noqa: PLC0415 - only where planning is impossible

    agents = sorted(set(catalogue.load()) - PLAIN_AGENTS)
    lines = ["muster: 1", "name: my-plan", *([f"repo: {repo}"] if repo else []), "phases:",
             "  work:", "    agent: shell", f"    do: |  # {intention[:60]}",
             "      echo 'replace this'", "    check: 'true'", ""]  # fmt: skip
    return {
        "missing": agents,
        "text": "no machine that is up has a planning agent; install one of "
        f"{', '.join(agents)} on any machine, or fill in this spec and hand it to `muster run`",
        "skeleton": "\n".join(lines),
    }


def _spec_in(answer: str) -> str:
    """The spec in what an agent said: the last fence, or the whole when it begins like a spec."""
    fences = _FENCE.findall(answer)
    if fences:
        return str(fences[-1])
    start = answer.find("muster: 1")
    return answer[start:] if start >= 0 else ""


def _name(spec: str) -> str:
    found = _NAME.search(spec)
    return found[1] if found else ""


def _repo_of(spec: str) -> str:
    found = re.search(r"^repo:[ \t]*([a-z0-9-]+)[ \t]*$", spec, re.MULTILINE)
    return found[1] if found else ""


def _agreed() -> bool:
    if not sys.stdin.isatty():
        raise Refused("nobody is there to say yes; look at the plan and run it with --yes")
    print("Run this? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _text(value: Any) -> str:
    return " ".join(str(v) for v in value) if isinstance(value, list | tuple) else str(value or "")
