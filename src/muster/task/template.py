"""The order of a phase: what a task of it is, computed from the spec alone.

Rule 1: the same spec text, phase, instance and inputs give the same order, on every machine.
        The owner puts it into `task.open`; a worker computes it again from the text that the
        operator signed and runs nothing when the two differ.
Rule 2: an order holds no results. References stay references; values.py fills them in where the
        task runs, so a value can be checked on its own.
Rule 3: keys without a value are left out; numbers are integers. A new meaning gets a new `v`.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from muster import limits
from muster.errors import Malformed, NotFound
from muster.task import review
from muster.task.budget import Budget
from muster.task.host_rule import NONE
from muster.task.precedence import rounds_of
from muster.task.problem import did_you_mean, shown
from muster.task.spec import PUSH_BRANCH, PUSH_COMMIT, Memory, Paths, Phase, Spec, listed
from muster.task.units import path_refusal
from muster.task.values import references

ORDER_VERSION: Final = 1
# Of what is reviewed, and of reviews.
REVIEW_VERSION: Final = 2
# What a `task.open` holds beside the order and the inputs: ids, names, the commits it starts from.
_REST_BYTES: Final = 8 * 1024
_UNFIT: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_encode: Final = msgspec.json.Encoder().encode
EACH_PATH: Final = "${each.path}"
SHELL: Final = "shell"


def phase_order(
    spec: Spec, phase: str, instance: str = "", inputs: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The task template of a phase. `instance` is a match of `each`, or a racer's number from 1.

    Raises:
        NotFound: the spec has no such phase.
        Malformed: the instance or an input does not belong to it.

    """
    part = spec.phases.get(phase)
    if part is None:
        raise NotFound(f"the spec {spec.name} has no phase {phase}")
    if part.each is not None:
        if refusal := match_refusal(instance):
            raise Malformed(f"phase {phase} cannot take the match {shown(instance)}: it {refusal}")
    elif part.race is not None:
        if instance not in map(str, range(1, part.race + 1)):
            raise Malformed(f"phase {phase} has the racers 1 to {part.race}, not {instance!r}")
    elif instance and not 1 < review.round_of(instance) <= rounds_of(spec).get(phase, 0):
        raise Malformed(f"phase {phase} is one task and has no instance {instance!r}")
    most = part.budget or Budget()
    budget = {"tokens": most.tokens, "usd_millionths": most.usd_millionths}
    order: dict[str, Any] = {
        "v": ORDER_VERSION,
        "spec": spec.name,
        "phase": phase,
        "instance": instance,
        "do": part.do,
        "after": sorted(part.prerequisites),
        "agent": list(part.agents),
        "by": part.by,
        "needs": msgspec.to_builtins(part.needs) if part.needs else None,
        "deliver": [path.replace(EACH_PATH, instance) for path in part.deliverables],
        "check": part.check,
        "shell": part.interpreter,
        "model": part.model,
        "mode": part.mode,
        "mcp": list(listed(part.mcp)),
        "secrets": list(listed(part.secrets)),
        "timeout_ms": 0 if part.by_human else part.timeout_ms,
        "deadline_ms": part.deadline_ms,
        "retries": part.retries,
        "priority": part.priority,
        "race": part.race,
        "each": part.each,
        "env": dict(part.env or {}),
        "unless": msgspec.to_builtins(part.unless) if part.unless else None,
        "budget": {key: value for key, value in budget.items() if value},
        "may": msgspec.to_builtins(part.may) if part.may else None,
        "memory": _memory(part.memory or spec.memory),
        "sandbox": part.sandbox,
        "network": _network(part),
        "paths": _paths(part),
        "repo": spec.repo,
        "base": spec.base,
        "inputs": _inputs_used(spec, part, inputs or {}),
        **_review(spec, phase),
    }
    return {key: value for key, value in order.items() if value not in (None, "", 0, [], {})}


def agents_of(named: object) -> tuple[str, ...]:
    """Whom a phase, or its order, asks by its `agent`, in order of preference: where nobody is
    named, the shell.

    Raises: msgspec.ValidationError for what names no agents.
    """
    return listed(msgspec.convert(named or SHELL, str | list[str]))


class Told(NamedTuple):
    """What an attempt of an order may read and write of what is known, and in how many tokens."""

    reads: bool
    writes: bool
    budget: int


def told_of(order: Mapping[str, Any]) -> Told:
    """As `memory` of an order says it: all that the fleet may know, where it says nothing."""
    memory = order.get("memory", {})
    if not isinstance(memory, dict):
        return Told(False, False, 0)
    budget = memory.get("budget", limits.DIGEST_TOKENS)
    return Told(
        memory.get("read") != [], memory.get("write") != [], min(budget, limits.DIGEST_TOKENS_MAX)
    )


def told_by(spec: Spec, phase: Phase) -> Told:
    """As `told_of`, of a phase of a spec."""
    memory = _memory(phase.memory or spec.memory)
    return told_of({} if memory is None else {"memory": memory})


def _memory(memory: Memory | None) -> Any:
    """As it was written; an empty list is an answer, and stays."""
    return msgspec.to_builtins(memory) if memory is not None else None


def _network(part: Phase) -> str | list[str]:
    """`none`, or hosts as they were written."""
    return NONE if part.network == NONE else list(listed(part.network))


def _paths(part: Phase) -> dict[str, list[str]]:
    asked = part.paths or Paths()
    found = {"read": list(listed(asked.read)), "write": list(listed(asked.write))}
    return {key: named for key, named in found.items() if named}


def _review(spec: Spec, phase: str) -> dict[str, Any]:
    """What the order of a review, or of what is reviewed, has beside the others.

    A reviewer is told what the author was asked, references and all.
    """
    judged = spec.phases[phase].review
    reviewers = spec.reviewers.get(judged or phase)
    if not reviewers:
        return {}
    found = {"v": REVIEW_VERSION, "reviewers": list(reviewers)}
    if judged is None:
        return found
    return {**found, "review": judged, "asked": _asked(spec, spec.phases[phase])}


def _asked(spec: Spec, part: Phase) -> str:
    """What the author of what this phase judges is asked; "" where it judges nothing."""
    judged = spec.phases.get(part.review or "")
    return (judged.do or "") if judged else ""


def _inputs_used(spec: Spec, part: Phase, given: Mapping[str, str]) -> dict[str, str]:
    """The inputs that the phase names, with the default of each where none was given."""
    unknown = sorted(set(given) - set(spec.takes))
    if unknown:
        raise Malformed(f"the spec {spec.name} has no input {shown(unknown[0])}; leave it out")
    every = every_input(spec, given)
    texts = [*part.texts.values(), _asked(spec, part)]
    asked = (each for text in texts for each in references(text))
    named = {each.value for each in asked if each.source == "inputs"}
    return {name: every[name] for name in sorted(named & set(every))}


def match_refusal(instance: str) -> str:
    """Why a path of a repository cannot be a match of `each`, or "". Others write such trees."""
    if not instance:
        return "is empty"
    return path_refusal(instance) or ("must not contain ${" if "${" in instance else "")


def given_inputs(spec: Spec, given: object) -> dict[str, str]:
    """What a run is given at its start, when the spec can take it.

    Raises:
        Malformed: it is of another form, names no input of the spec, or cannot be handed on.

    """
    if not isinstance(given, Mapping):
        raise Malformed("what a run is given is a mapping of its inputs' names to texts")
    known = spec.takes
    for name, text in given.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise Malformed("what a run is given is a mapping of its inputs' names to texts")
        if name not in known:
            names = ", ".join(sorted(known))
            has = f"; it has {names}" if names else "; it has no inputs at all: leave --value out"
            hint = did_you_mean(name, known) or has
            raise Malformed(f"the spec {spec.name} has no input {shown(name)}{hint}")
        if _UNFIT.search(text.replace("\r\n", "\n")):
            raise Malformed(f"what is given for {name} holds a control character; leave it out")
        size, most = text_size(text), limits.INPUT_BYTES_MAX
        if size > most:
            what = f"what is given for {name} takes {size} bytes, at most {most}"
            raise Malformed(f"{what}; put it into a file of the repository")
    return dict(given)


def largest_order(spec: Spec, phase: str, given: Mapping[str, str]) -> dict[str, object]:
    """The order of a task of the phase, as long as it is known to be before anything matched.

    A match of `each` is not known before: where a long one is named often, the run says so.
    """
    part = spec.phases[phase]
    return phase_order(spec, phase, "1" if part.race else "x" if part.each else "", given)


def size_refusal(spec: Spec, order: Mapping[str, object], given: Mapping[str, str]) -> str:
    """Why this order would not fit into its entry, or ""."""
    size = len(_encode(order))
    inputs = sum(text_size(name) + text_size(t) + 2 for name, t in every_input(spec, given).items())
    room = limits.BODY_BYTES_MAX - _REST_BYTES - inputs
    most = min(limits.SPEC_ORDER_BYTES_MAX, room)
    if size <= most:
        return ""
    beside = f" beside inputs of {inputs}" if room < limits.SPEC_ORDER_BYTES_MAX else ""
    return f"takes {size} bytes{beside}, at most {most}; put texts into files"


def every_input(spec: Spec, given: Mapping[str, str]) -> dict[str, str]:
    """Every input of a run: what was given, else its default."""
    return {**spec.takes, **given}


def text_size(text: str) -> int:
    """The bytes that a text takes in an entry: a quote or a control character takes several."""
    return len(_encode(text))


def push_refusal(spec: Spec, base: str, given: Mapping[str, str]) -> str:
    """Why a run cannot begin for what it is given of a push, or ""."""
    if not spec.pushes:
        return ""
    if not given.get(PUSH_COMMIT) or not given.get(PUSH_BRANCH):
        return f"the spec {spec.name} is for a push: `muster run FILE --push BRANCH` gives it one"
    if given[PUSH_COMMIT] != base:
        return "a run for a push starts from the commit that was pushed; leave --base out"
    return ""
