"""The published JSON Schema of a spec, derived from its types, for editors and other tools.

Rule 1: spec.schema.json beside this file is exactly `text()`; a test compares them.
Rule 2: every key has one sentence here; docs/spec/spec.md and an editor's hover show it.

The schema says what form a spec has. What makes sense is more than a schema can say: check.py.
"""

from typing import Any, Final

import msgspec

from muster.task.spec import Spec

KEYS: Final[dict[str, dict[str, str]]] = {
    "Spec": {
        "muster": "The version of this format.",
        "name": "What the run is called.",
        "repo": "The fleet's repository that every phase works in; without it, in an empty one.",
        "base": "The branch or whole commit id that the first phases start from; without it, the "
        "default branch.",
        "inputs": "What may be given when the run starts, with the default of each: "
        "${inputs.NAME}.",
        "on": "push: a run is for a push to the repository; nothing starts it by itself yet.",
        "memory": "What agents are told and may write down, where a phase says nothing else.",
        "budget": "What all attempts of the run may use up together, and how long it may take.",
        "phases": "The phases by name.",
    },
    "On": {"push": "A push to the repository."},
    "Push": {
        "branches": "The branches that count, as names or patterns (feature/*); all, if nothing is "
        "said.",
    },
    "Phase": {
        "do": "What is to be done: a prompt for an agent, source for the shell, a question for a "
        "person.",
        "after": "The phases that must be done before; this one starts from their commits.",
        "needs": "What the machine must have.",
        "agent": "Who does it; of several, the first that is available.",
        "by": "human: a person decides.",
        "deliver": "The paths that must exist in the repository when it is done.",
        "check": "A shell command that must succeed when it is done.",
        "shell": "Who reads `do` (of agent: shell) and `check`: sh, or bash with pipefail.",
        "model": "The model of its agent, by the agent's own name for it; the agent's choice, if "
        "nothing is said.",
        "mcp": "The MCP servers that its agent has, by the names that a machine has for them.",
        "secrets": "The secrets that its attempts get as variables, by the names that a machine "
        "has for them.",
        "mode": "The session mode of its agent (plan …), by the agent's own name for it.",
        "timeout": "How long one attempt may take; 30m if nothing is said.",
        "deadline": "How long the phase may take from when it could start, attempts and waits "
        "included.",
        "retries": "How often a failed attempt is repeated; lost machines do not count. 0 if "
        "nothing is said, 1 of a review.",
        "priority": "From -10 to 10; higher goes first where machines are scarce.",
        "race": "That many try at once; the first that passes wins, the others are cancelled.",
        "each": "One task for each file that matches in the repository, or folder with a / at the "
        "end: ${each.path}.",
        "review": "The phase whose commit is judged here, by an agent of another machine.",
        "rounds": "How often it may be rejected: 1 to 9, 3 if nothing is said.",
        "same": "true: the reviewer may be on the machine of the author, too.",
        "unless": "Of a phase by human: when nobody is asked.",
        "env": "Environment variables of the attempt.",
        "budget": "What one attempt may use up.",
        "may": "What its agent may do beside the work; nothing, if nothing is said.",
        "memory": "What its agent is told of what the fleet knows, and may write down: none, or as "
        "below.",
        "sandbox": "on: enclosed on every machine; off: not, of agent: shell alone and under a "
        "grant; without it as the machine's owner says, who encloses if he says nothing.",
        "network": "The hosts that are reached from its sandbox beside its agent's own, as name, "
        "name:port or *.name; none: not even those. Nothing beside, if nothing is said.",
        "paths": "What its sandbox shows of the machine beside the work folder; nothing, if "
        "nothing is said.",
    },
    "Paths": {
        "read": "Files and folders of the machine to read, from / or ~/, as far as its owner lists "
        "them.",
        "write": "Those to write as well; a path without / in front is a protected one of the work "
        "folder, which may then be written.",
    },
    "May": {"delegate": "Hand on work to other agents, within bounds."},
    "Delegate": {
        "runs": "How many runs an attempt may hand on; 1 if nothing is said.",
        "agent": "Whom it may ask, any of them; without it the agents of this phase.",
        "machine": "Where, any of them; without it anywhere.",
        "label": "Labels that the machine must have, all of them.",
        "repo": "In which repositories, any of them; without it the one of this run.",
        "depth": "How often it is handed on, 1 to 3: 1 (if nothing is said) is never again.",
        "timeout": "How long an attempt of it may take; without it as long as one of this phase.",
    },
    "Needs": {
        "label": "Labels, all of them.",
        "os": "linux, macos (or darwin) or windows; of several, any.",
        "arch": "The processor, as the machine's system names it; of several, any.",
        "cpu": "Processors, at least.",
        "memory": "Memory, at least, as 8GiB.",
        "gpu": "GPUs, at least.",
        "tools": 'Tools with a range of versions, as python: ">=3.11,<4"; * is any version.',
        "repo": "Repositories that the machine has a clone of already, all of them.",
        "agent": "Agents that the machine has, all of them.",
        "power": "mains: not on battery.",
        "sandbox": "enforced: it can enclose what it runs, and says so.",
        "machine": "The machine's name; of several, any.",
    },
    "Unless": {
        "lines": "The change of all phases before has at most so many lines.",
        "passed": "Of each of its authors (an agent on a machine) so many checked results passed "
        "in a row.",
    },
    "Remembering": {
        "read": "fleet: what the whole fleet may know, as without a word; [] is nothing.",
        "write": "fleet, as without a word; with [] its agent writes nothing down.",
        "budget": "Tokens of what it is told when it begins, 2000 to 6000; 2000 if nothing is "
        "said.",
    },
    "Budget": {"tokens": "Tokens in and out.", "usd": "Dollars, as 2.50."},
    "RunBudget": {
        "tokens": "Tokens in and out of all attempts.",
        "usd": "Dollars of all attempts, as 2.50.",
        "time": "How long after the run began its tasks are given up.",
    },
}


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a spec."""
    result = _without_null(msgspec.json.schema(Spec))
    for name, keys in KEYS.items():
        properties = result["$defs"][name]["properties"]
        for key, sentence in keys.items():
            properties[key] = {"description": sentence, **properties[key]}
    # A review has something to do without a word of its own.
    result["$defs"]["Phase"]["anyOf"] = [{"required": ["do"]}, {"required": ["review"]}]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A Muster spec, version 1",
        **result,
    }


def _without_null(node: Any) -> Any:
    """A key is left out, never null: the reader refuses `repo:` with nothing behind it."""
    if isinstance(node, list):
        return [_without_null(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {key: _without_null(value) for key, value in node.items()}
    if kept.get("default", 0) is None:
        del kept["default"]
    if "anyOf" in kept:
        choices = [choice for choice in kept.pop("anyOf") if choice != {"type": "null"}]
        kept = {**kept, **choices[0]} if len(choices) == 1 else {**kept, "anyOf": choices}
    if isinstance(kept.get("enum"), list):
        kept["enum"] = [value for value in kept["enum"] if value is not None]
    return kept


def text() -> str:
    """The schema as the published file holds it."""
    return msgspec.json.format(msgspec.json.encode(schema()), indent=2).decode() + "\n"
