"""A spec: the file that describes a run, as types.

Rule 1: the types are the format. The reader (decode.py) and the published JSON Schema
        (spec.schema.json) are both derived from them.
Rule 2: values stay as written ("10m", "8GiB"); a property gives the number. So the same text
        always yields the same Spec, and the Spec can be compared with the operator's signature.
Rule 3: what is not known is refused, with the nearest known word.

`parse` tells whether the text is a spec; whether the spec makes sense is check.py's question, and
whoever wants to run it asks `check.admit`.
"""

import re
from functools import lru_cache
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct, field

from muster import limits
from muster.duration import duration_ms
from muster.errors import Malformed
from muster.task import decode, yaml
from muster.task.budget import Budget, RunBudget
from muster.task.problem import Problem, SpecErrors
from muster.task.secret import SecretNames
from muster.task.text_types import (
    NAME,
    Branch,
    Branches,
    Command,
    Duration,
    Glob,
    HostPath,
    Name,
    Names,
    Network,
    Path,
    Setting,
    Size,
    Switch,
    System,
    Text,
    Value,
    Variable,
    Versions,
    Word,
    Words,
    Writable,
)
from muster.task.units import size_mib

_DOCUMENTS_KEPT: Final = 8


def check_nameable(name: str, what: str) -> str:
    """`name` itself, where a spec can say it: what is called otherwise could never be asked for.

    Raises: Malformed.
    """
    if not re.fullmatch(NAME, name):
        raise Malformed(
            f"{what} {name[:60]!r} is nothing that a spec can name: take 1 to 40 of a-z, 0-9 and "
            "-, not starting with -"
        )
    return name


class Needs(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the machine must have: every key given must hold, and route.py judges it.

    A list of labels, repositories or agents means all of them; a list of os, arch or machine
    means one of them.
    """

    label: Names | None = None
    os: System | Annotated[list[System], Meta(min_length=1, max_length=16)] | None = None
    arch: Words | None = None
    cpu: Annotated[int, Meta(ge=1, le=4096)] | None = None
    memory: Size | None = None
    gpu: Annotated[int, Meta(ge=1, le=64)] | None = None
    tools: Annotated[dict[Word, Versions], Meta(max_length=32)] | None = None
    repo: Names | None = None
    agent: Names | None = None
    power: Literal["mains"] | None = None
    sandbox: Literal["enforced"] | None = None
    machine: Names | None = None

    @property
    def memory_mib(self) -> int:
        return size_mib(self.memory) if self.memory else 0


class Unless(Struct, frozen=True, forbid_unknown_fields=True):
    """When a person need not be asked (waiver.py)."""

    lines: Annotated[int, Meta(ge=1, le=100_000)]
    passed: Annotated[int, Meta(ge=1, le=1_000)]


class Delegate(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Within which bounds the agent of a phase may hand on work (delegation.py)."""

    runs: Annotated[int, Meta(ge=1, le=limits.DELEGATIONS_OF_ATTEMPT_MAX)] | None = None
    agent: Names | None = None
    machine: Names | None = None
    label: Names | None = None
    repo: Names | None = None
    depth: Annotated[int, Meta(ge=1, le=limits.DELEGATION_DEPTH_MAX)] | None = None
    timeout: Duration | None = None

    @property
    def timeout_ms(self) -> int:
        """0 where nothing is said."""
        return duration_ms(self.timeout) if self.timeout else 0


class May(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the agent of a phase may do beside its work."""

    delegate: Delegate


class Remembering(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What an attempt's agent is told of what is known, and what it may write down: without a word
    what the whole fleet may know; an empty list is nothing.
    """

    read: Annotated[list[Literal["fleet"]], Meta(max_length=1)] | None = None
    write: Annotated[list[Literal["fleet"]], Meta(max_length=1)] | None = None
    budget: (
        Annotated[int, Meta(ge=limits.DIGEST_TOKENS_MIN, le=limits.DIGEST_TOKENS_MAX)] | None
    ) = None


Memory = Literal["none"] | Remembering


class Paths(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a sandbox shows beside the work folder, and which protected paths of that it frees."""

    read: HostPath | Annotated[list[HostPath], Meta(min_length=1, max_length=16)] | None = None
    write: Writable | Annotated[list[Writable], Meta(min_length=1, max_length=16)] | None = None


class Phase(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One node of the graph."""

    do: Text | None = None
    after: Name | Annotated[list[Name], Meta(max_length=64)] | None = None
    needs: Needs | None = None
    agent: Names | None = None
    by: Literal["human"] | None = None
    deliver: Path | Annotated[list[Path], Meta(min_length=1, max_length=64)] | None = None
    check: Command | None = None
    interpreter: Literal["sh", "bash"] | None = field(name="shell", default=None)
    model: Setting | None = None
    mode: Setting | None = None
    mcp: Names | None = None
    secrets: SecretNames | None = None
    timeout: Duration | None = None
    deadline: Duration | None = None
    retries: Annotated[int, Meta(ge=0, le=limits.RETRIES_MAX)] | None = None
    priority: Annotated[int, Meta(ge=-10, le=10)] = 0
    race: Annotated[int, Meta(ge=2, le=limits.RACERS_MAX)] | None = None
    each: Glob | None = None
    review: Name | None = None
    rounds: Annotated[int, Meta(ge=1, le=limits.REVIEW_ROUNDS_MAX)] | None = None
    same: bool | None = None
    unless: Unless | None = None
    env: Annotated[dict[Variable, Value], Meta(max_length=32)] | None = None
    budget: Budget | None = None
    may: May | None = None
    memory: Memory | None = None
    sandbox: Switch | None = None
    network: Network | None = None
    paths: Paths | None = None

    @property
    def prerequisites(self) -> tuple[str, ...]:
        """What must be done before; of a review first of all what it judges."""
        before = listed(self.after)
        return before if self.review in (None, *before) else (str(self.review), *before)

    @property
    def agents(self) -> tuple[str, ...]:
        """In order of preference; empty when a person does it."""
        return listed(self.agent)

    @property
    def deliverables(self) -> tuple[str, ...]:
        return listed(self.deliver)

    @property
    def texts(self) -> dict[str, str]:
        """Every text that it has, and in which a reference may stand, by its key."""
        own = (("do", self.do), ("check", self.check))
        found = {key: text for key, text in own if text}
        return found | {f"env.{name}": value for name, value in (self.env or {}).items()}

    @property
    def by_human(self) -> bool:
        return self.by == "human"

    @property
    def repeats(self) -> int:
        """How often a failed attempt is made again; a form that was missed costs no run."""
        if self.retries is not None:
            return self.retries
        return limits.REVIEW_RETRIES if self.review is not None else 0

    @property
    def shell(self) -> bool:
        """Whether `do` may become shell source."""
        return "shell" in self.agents

    @property
    def says_sandbox(self) -> bool:
        """Whether it says anything of a sandbox, which a Muster before 0.3 cannot read."""
        needs = self.needs is not None and self.needs.sandbox is not None
        return needs or any(each is not None for each in (self.sandbox, self.network, self.paths))

    @property
    def timeout_ms(self) -> int:
        return duration_ms(self.timeout) if self.timeout else limits.PHASE_TIMEOUT_MS

    @property
    def deadline_ms(self) -> int:
        """0 when there is none."""
        return duration_ms(self.deadline) if self.deadline else 0


class Push(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which pushes a run is for."""

    branches: Branches | Annotated[list[Branches], Meta(min_length=1, max_length=16)] | None = None


class On(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a run is for each of."""

    push: Push


# What a run for a push is given, beside the inputs that its spec names.
PUSH_BRANCH: Final = "push-branch"
PUSH_COMMIT: Final = "push-commit"
PUSH_BEFORE: Final = "push-before"


class Spec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A run, as its author describes it."""

    muster: Literal[1]
    name: Name
    phases: Annotated[dict[Name, Phase], Meta(min_length=1, max_length=limits.SPEC_PHASES_MAX)]
    repo: Name | None = None
    base: Branch | None = None
    inputs: Annotated[dict[Name, Value], Meta(max_length=32)] | None = None
    on: Literal["push"] | On | None = None
    memory: Memory | None = None
    budget: RunBudget | None = None

    @property
    def pushes(self) -> tuple[str, ...]:
        """The branches whose pushes it is for, as patterns; () where it is for none."""
        if isinstance(self.on, On):
            return listed(self.on.push.branches) or ("**",)
        return ("**",) if self.on else ()

    @property
    def takes(self) -> dict[str, str]:
        """The inputs of a run, with the default of each."""
        of_push = (PUSH_BRANCH, PUSH_COMMIT, PUSH_BEFORE) if self.on else ()
        return {**dict.fromkeys(of_push, ""), **(self.inputs or {})}

    @property
    def reviewers(self) -> dict[str, tuple[str, ...]]:
        """The phases that judge another one, by that one."""
        found: dict[str, tuple[str, ...]] = {}
        for name, phase in self.phases.items():
            if phase.review is not None:
                found[phase.review] = (*found.get(phase.review, ()), name)
        return found


class Document(NamedTuple):
    """A spec with the place of everything in it, by path (`phases.notes.after`)."""

    spec: Spec
    places: decode.Places

    def problem(self, path: str, sentence: str, *, warning: bool = False) -> Problem:
        """A problem at `path`, or at the nearest place above it that the text has."""
        near = path
        while near and near not in self.places:
            near = near[: max(near.rfind("."), near.rfind("["), 0)]
        return Problem(*self.places.get(near, (1, 1)), path, sentence, warning)


def listed(value: str | list[str] | None) -> tuple[str, ...]:
    """A key that takes one word or a list of them, as a tuple."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


# A run is checked, opened and worked on from the same text, one moment after the other.
@lru_cache(maxsize=_DOCUMENTS_KEPT)
def read(text: bytes) -> Document:
    """The spec and its places.

    Raises:
        SpecErrors: with every problem of form.

    """
    plain, places, problems = decode.glean(yaml.read(text), Spec)
    if problems:
        raise SpecErrors(problems)
    return Document(msgspec.convert(plain, Spec), places)


def names(text: bytes) -> tuple[Document, frozenset[str]]:
    """Of a spec with mistakes of form what can be held against names: who waits for whom, who does
    it, where. With every name that a phase was given, also one that is none.

    Raises:
        SpecErrors: where it is no YAML, or nothing of it can be read.

    """
    tree = yaml.read(text)
    plain, places, problems = decode.glean(tree, Spec)
    wrong = {problem.path.partition("[")[0] for problem in problems}

    def well(path: str) -> bool:
        return not any(each == path or each.startswith(f"{path}.") for each in wrong)

    if not isinstance(plain, dict) or len(problems) >= limits.SPEC_PROBLEMS_MAX:
        # With so many the reader stopped before the end, and what it has is no whole.
        raise SpecErrors(problems)
    phases, found = plain.get("phases"), tree.values.get("phases")  # type: ignore[union-attr]
    taken = {
        name: {key: phase[key] for key in _NAMING if key in phase and well(f"phases.{name}.{key}")}
        for name, phase in (phases if isinstance(phases, dict) else {}).items()
        if isinstance(phase, dict)
    }
    if not taken:
        raise SpecErrors(problems)
    whole = {"muster": 1, "name": "x", "phases": {n: {"do": "-", **p} for n, p in taken.items()}}
    repo = {"repo": plain["repo"]} if plain.get("repo") and well("repo") else {}
    written = found.keys if isinstance(found, yaml.Mapping) else {}
    return Document(msgspec.convert({**whole, **repo}, Spec), places), frozenset(written)


# The keys of a phase that name something.
_NAMING: Final = ("after", "agent", "do", "check", "review")


def parse(text: bytes) -> Spec:
    """The spec of a file's bytes; its form is right, its sense is not checked.

    Raises: SpecErrors with every problem of form.
    """
    return read(text).spec
