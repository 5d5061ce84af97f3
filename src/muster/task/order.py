"""The order of a phase: what a task of it is, computed from the spec alone.

Rule 1: the same spec text, phase, instance and inputs give the same order, on every machine.
        The owner puts it into `task.open`; a worker computes it again from the text that the
        operator signed and runs nothing when the two differ.
Rule 2: an order holds no results. References stay references; values.py fills them in where the
        task runs, so a value can be checked on its own.
Rule 3: keys without a value are left out; numbers are integers. A new meaning gets a new `v`.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from muster import limits
from muster.errors import Malformed, NotFound
from muster.task.problem import shown
from muster.task.spec import Phase, Spec
from muster.task.unit import path_refusal
from muster.task.values import references

ORDER_VERSION: Final = 1
EACH_PATH: Final = "${each.path}"


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
    _check_instance(part, phase, instance)
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
        "timeout_ms": 0 if part.by_human else part.timeout_ms,
        "deadline_ms": part.deadline_ms,
        "retries": part.retries,
        "priority": part.priority,
        "race": part.race,
        "each": part.each,
        "env": dict(part.env or {}),
        "budget": _budget(part),
        "repo": spec.repo,
        "base": spec.base,
        "inputs": _inputs_used(spec, part, inputs or {}),
    }
    return {key: value for key, value in order.items() if value not in (None, "", 0, [], {})}


def texts_of(phase: Phase) -> tuple[str, ...]:
    """Every text of a phase in which a reference may stand."""
    return (phase.do, phase.check or "", *(phase.env or {}).values())


def _budget(part: Phase) -> dict[str, int]:
    budget = part.budget
    if budget is None:
        return {}
    both = {"tokens": budget.tokens or 0, "usd_millionths": budget.usd_millionths}
    return {key: value for key, value in both.items() if value}


def _inputs_used(spec: Spec, part: Phase, given: Mapping[str, str]) -> dict[str, str]:
    """The inputs that the phase names, with the default of each where none was given."""
    defaults = spec.inputs or {}
    unknown = sorted(set(given) - set(defaults))
    if unknown:
        raise Malformed(f"the spec {spec.name} has no input {unknown[0]}; leave it out")
    every = {**defaults, **given}
    named = {
        ref.value for text in texts_of(part) for ref in references(text) if ref.source == "inputs"
    }
    return {name: every[name] for name in sorted(named & set(every))}


def _check_instance(part: Phase, phase: str, instance: str) -> None:
    if part.each is not None:
        if refusal := match_refusal(instance):
            raise Malformed(f"phase {phase} cannot take the match {shown(instance)}: it {refusal}")
    elif part.race is not None:
        if instance not in map(str, range(1, part.race + 1)):
            raise Malformed(f"phase {phase} has the racers 1 to {part.race}, not {instance!r}")
    elif instance:
        raise Malformed(f"phase {phase} is one task and has no instance {instance!r}")


def match_refusal(instance: str) -> str:
    """Why a path of a repository cannot be a match of `each`, or "". Others write such trees."""
    if not instance:
        return "is empty"
    return path_refusal(instance) or ("must not contain ${" if "${" in instance else "")


def order_size(order: Mapping[str, Any]) -> int:
    """How many bytes the order takes in `task.open`; at most limits.SPEC_ORDER_BYTES_MAX."""
    return len(msgspec.json.encode(order))


def order_fits(order: Mapping[str, Any]) -> bool:
    """Whether the order leaves room for the rest of the entry."""
    return order_size(order) <= limits.SPEC_ORDER_BYTES_MAX
