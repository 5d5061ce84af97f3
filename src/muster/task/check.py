"""Whether a spec makes sense: everything that can be known before it runs, with its place.

Rule 1: `admit` is the only way from a text to a spec that runs; it refuses what `check` refuses.
Rule 2: all problems are found in one pass; what follows from another problem (a reference to an
        unknown phase) is said once.
Rule 3: a spec that passes proceeds: it has no cycle, every phase can be checked when it is done,
        every reference will have a value, and (given the fleet) a machine that can do it.

The fleet is judged by route.py, the same code that assigns the task later.
"""

from collections.abc import Collection, Iterator
from itertools import chain, islice
from typing import NamedTuple

from muster import limits
from muster.duration import duration_ms
from muster.task import advice, agent_check, budget_check, route
from muster.task.artefact import Artefact
from muster.task.collision import collisions
from muster.task.local_paths import local_files
from muster.task.precedence import cycles, prerequisites
from muster.task.problem import Problem, SpecErrors, did_you_mean, nearest, shown
from muster.task.review import VARIABLES
from muster.task.review_check import reviews
from muster.task.spec import Document, Phase, Spec, listed, names, read
from muster.task.template import EACH_PATH, largest_order, size_refusal, text_size
from muster.task.values import (
    EACH_VALUES,
    FILE,
    PHASE_VALUES,
    RESERVED,
    REVIEW_VALUES,
    ROUNDS,
    RUN_VALUES,
    Reference,
    by_variable,
    misspelt,
    named_variables,
    references,
    uses,
    variable,
)
from muster.task.waiver import waivers


class Report(NamedTuple):
    """What a check found. `spec` is None when there is an error; warnings stop nothing.

    `base_at` is where the spec names its base: only who can look into the repository can judge it.
    """

    spec: Spec | None
    problems: tuple[Problem, ...]
    base_at: tuple[int, int] = (1, 1)


def check(
    text: bytes, fleet: route.Fleet | None = None, *, repo: str = "", kept: Collection[str] = ()
) -> Report:
    """Every problem of a spec. `fleet`: what it is for, without it the questions that it answers
    are left open. `repo` counts before its own. `kept` phases run on no machine.
    """
    try:
        document = read(text)
    except SpecErrors as errors:
        # A person who mends the form is not told of the names afterwards.
        both = sorted((*errors.problems, *_names(text, fleet, repo)))
        return Report(None, tuple(both[: limits.SPEC_PROBLEMS_MAX]))
    # Cut while they are found: the search for the nearest word is slow enough to be an attack.
    look = _Check(document, text, fleet, repo)
    look.kept = frozenset(kept)
    problems = sorted(islice(look.problems(), limits.SPEC_PROBLEMS_MAX))
    failed = any(not problem.warning for problem in problems)
    base = document.problem("base", "")
    return Report(None if failed else document.spec, tuple(problems), (base.line, base.column))


def _names(text: bytes, fleet: route.Fleet | None, repo: str) -> list[Problem]:
    """What a spec with mistakes of form names that is not there."""
    try:
        document, written = names(text)
    except SpecErrors:
        return []
    found = _Check(document, text, fleet, repo).names(written)
    return list(islice(found, limits.SPEC_PROBLEMS_MAX))


def admit(
    text: bytes, fleet: route.Fleet | None = None, *, repo: str = "", kept: Collection[str] = ()
) -> Spec:
    """The spec, when it can run, or what is left of it without the `kept` phases.

    Raises:
        SpecErrors: with every problem.

    """
    report = check(text, fleet, repo=repo, kept=kept)
    if report.spec is None:
        raise SpecErrors([problem for problem in report.problems if not problem.warning])
    return report.spec


class _Check:
    """One pass over one document; each method yields the problems of one kind."""

    def __init__(
        self, document: Document, text: bytes, fleet: route.Fleet | None, repo: str
    ) -> None:
        self.document = document
        self.text, self.kept = text, frozenset[str]()
        self.spec = document.spec
        self.repo = repo or document.spec.repo or ""
        # What was told beside the file stands in none of its lines.
        self.told = bool(repo) and repo != document.spec.repo
        self.fleet = fleet
        self.before = prerequisites(self.spec)
        self.reviewed = self.spec.reviewers
        self.yields = {variable(n, v): n for n in self.spec.phases for v in self._yielded(n)}

    def problems(self) -> Iterator[Problem]:
        size, most = text_size(self.text.decode()), limits.SPEC_LOG_BYTES_MAX
        if size > most:
            what = f"the spec takes {size} bytes in the log, at most {most}; put texts into files"
            yield self.document.problem("", what)
        if self.spec.base and not self.repo:
            what = "base names a branch, but the spec names no repository; add repo: NAME"
            yield self.document.problem("base", what)
        if self.spec.on and not self.repo:
            what = "on is for pushes to a repository, and the spec names none; add repo: NAME"
            yield self.document.problem("on", what)
        if self.spec.on and self.spec.base:
            what = "base does not go with on: a run starts from the commit that was pushed"
            yield self.document.problem("base", what)
        for key, what in budget_check.of_run(self.spec):
            yield self.document.problem(key, what)
        yield from self._repository()
        for name, *others in cycles(self.spec, self.before):
            way = " waits for ".join([name, *others, name])
            what = f"closes a cycle: {way}; take one `after` away"
            itself = f"names {name} itself; a phase cannot wait for itself"
            yield self._at(name, "after", what if others else itself)
        for name, phase in self.spec.phases.items():
            yield from self._names(name, phase)
            yield from self._doer(name, phase)
            yield from self._combination(name, phase)
            yield from self._times(name, phase)
            yield from self._references(name, phase)
            yield from self._order(name, phase)
        looks = [look(self.spec, self.before, self.repo) for look in (local_files, collisions)]
        looks += [reviews(self.spec, self.repo, self.fleet), waivers(self.spec, self.repo)]
        for found in chain.from_iterable(looks):
            # A review that is kept was once in order; the machines that it needed may be gone.
            if found.phase not in self.kept:
                yield self._at(found.phase, found.key, found.sentence, warning=found.warning)

    def names(self, written: Collection[str]) -> Iterator[Problem]:
        """What is named and is not there. `written` are names that some phase was given."""
        yield from self._repository()
        agents = {a for m in self.fleet.machines for a in m.facts.agents} if self.fleet else set()
        for name, phase in self.spec.phases.items():
            yield from self._names(name, phase, written)
            for key, text in phase.texts.items():
                for reference in references(text):
                    source, known = reference[0], {*written, *RESERVED}
                    if source not in known:
                        what = f"which is no phase{did_you_mean(source, written)}"
                        yield self._at(name, key, f"refers to {reference}, {what}")
            for agent in phase.agents if self.fleet else ():
                if agent not in agents:
                    hint = did_you_mean(agent, agents)
                    hint = hint or advice.how_to_get(self.fleet, [agent])
                    yield self._at(name, "agent", f"names {agent}, which no machine has{hint}")

    def _at(self, phase: str, key: str, sentence: str, *, warning: bool = False) -> Problem:
        """A problem at the value of a phase's key, or at the phase's name when key is ""."""
        path = f"phases.{phase}.{key}" if key else f"phases.{phase}"
        where = path if key else f"{path}:"
        found = self.document.problem(where, f"{path} {sentence}", warning=warning)
        return found._replace(path=path)

    def _repository(self) -> Iterator[Problem]:
        kept = self.fleet.repositories if self.fleet else None
        if self.repo and kept is not None and self.repo not in kept:
            hint = did_you_mean(self.repo, kept) or f"; there are: {', '.join(sorted(kept))}"
            if not kept:
                hint = "; `muster repo add NAME PATH` adds one"
            named = "--repo" if self.told else "repo"
            what = f"{named} names {shown(self.repo)}, which no machine of the fleet keeps{hint}"
            found = self.document.problem("repo", what)
            yield found._replace(line=0, column=0) if self.told else found

    def _names(self, name: str, phase: Phase, written: Collection[str] = ()) -> Iterator[Problem]:
        if name in RESERVED:
            yield self._at(name, "", "is a reserved name (each, inputs, run); choose another")
        for value in PHASE_VALUES if name.startswith("inputs-") else ():
            taken = f"{name}-{value}".removeprefix("inputs-")
            if taken in self.spec.takes:
                shared = variable(name, value)
                yield self._at(name, "", f"and the input {taken} share {shared}; rename one")
        if phase.review is not None and phase.review not in (*self.spec.phases, *written):
            hint = did_you_mean(phase.review, self.spec.phases.keys() - {name})
            yield self._at(name, "review", f"names {phase.review}, which is no phase{hint}")
        seen: set[str] = set()
        for number, other in enumerate(listed(phase.after)):
            key = f"after[{number}]"
            if other in seen:
                yield self._at(name, key, f"names {other} a second time; keep one")
            elif other not in self.spec.phases and other not in written:
                hint = did_you_mean(other, self.spec.phases.keys() - {name})
                yield self._at(name, key, f"names {other}, which is no phase{hint}")
            seen.add(other)

    def _doer(self, name: str, phase: Phase) -> Iterator[Problem]:
        if phase.do is None and phase.review is None:
            yield self._at(name, "", "has no do; add do: …")
        if phase.by_human:
            for key in (each for each in _NOT_BY_HUMAN if getattr(phase, each) not in (None, 0)):
                yield self._at(name, key, "does not go with by: human; leave it out")
            return
        if not phase.agents:
            yield self._at(name, "", "says nobody to do it; add agent: shell, or by: human")
        if len(set(phase.agents)) < len(phase.agents):
            yield self._at(name, "agent", "names an agent twice; keep the first")
        if phase.do is None and phase.shell:
            what = "says nothing for the shell to do; add do: …, or take an agent that is asked"
            yield self._at(name, "agent", what)
        if phase.check is None and not phase.deliverables and phase.review is None:
            what = "cannot be checked; say what it delivers (deliver: [FILE]) or a check: COMMAND"
            yield self._at(name, "", what)
        for key, what, warning in agent_check.misplaced(phase):
            yield self._at(name, key, what, warning=warning)

    def _combination(self, name: str, phase: Phase) -> Iterator[Problem]:
        if phase.race is not None and phase.each is not None:
            yield self._at(name, "race", "does not go with each; make two phases of it")
        paths = [(f"deliver[{i}]", path) for i, path in enumerate(phase.deliverables)]
        if isinstance(phase.deliver, str):
            paths = [("deliver", phase.deliver)]
        if len({path.rstrip("/") for _, path in paths}) < len(paths):
            yield self._at(name, "deliver", "names a path twice; keep one")
        for key, path in paths:
            if phase.each is not None and EACH_PATH not in path:
                what = f"{shown(path)} is the same for every match; begin it with {EACH_PATH}/"
                yield self._at(name, key, what)
            if "${" in path.replace(EACH_PATH, ""):
                yield self._at(name, key, f"{shown(path)} may refer to {EACH_PATH} only")
        if phase.each is not None and not self.repo:
            what = "matches the files of a repository, and the spec names none; add repo: NAME"
            yield self._at(name, "each", what)
        # Without a repository the names of deliverables stand in one entry, with their hashes.
        size = sum(text_size(str(Artefact(p, "0" * 64, 10**9))) for p in phase.deliverables)
        if not self.repo and size > limits.ARTEFACT_NAMES_BYTES_MAX:
            what = "names more files than one entry can list; deliver one folder that holds them"
            yield self._at(name, "deliver", what)
        if phase.each is not None and not uses(phase.texts.values()).names("each", "path"):
            match = f"${variable('each', 'path')}" if phase.shell else EACH_PATH
            yield self._at(name, "each", f"is never used; say {match} in do")

    def _times(self, name: str, phase: Phase) -> Iterator[Problem]:
        for key, most in _TIME_MS_MAX.items():
            text = getattr(phase, key)
            if text is None:
                continue
            if not 0 < duration_ms(text) <= most:
                hours = most // 3_600_000
                yield self._at(name, key, f"is {text}; it must be above 0 and at most {hours}h")
        limit = phase.deadline_ms
        if phase.timeout and limit and duration_ms(phase.timeout) > limit:
            what = f"is {phase.timeout}, longer than the deadline {phase.deadline}; make it shorter"
            yield self._at(name, "timeout", what)
        for key, what in budget_check.of_phase(phase):
            yield self._at(name, key, what)

    def _references(self, name: str, phase: Phase) -> Iterator[Problem]:
        for key, text in phase.texts.items():
            # Where several may do it, `do` is source only when the shell does.
            source = key == "check" or (key == "do" and phase.shell)
            perhaps = source and key == "do" and set(phase.agents) != {"shell"}
            for wrong in misspelt(text):
                right = "".join(wrong.split())
                yield self._at(name, key, f"has {shown(wrong)}; write it as {shown(right)}")
            for reference in references(text, escaped=source and not perhaps):
                sentence = self._reference(name, phase, reference)
                if sentence:
                    yield self._at(name, key, f"refers to {reference}, {sentence}")
                elif source:
                    what = f"refers to {reference} {by_variable(reference)}"
                    yield self._at(name, key, what, warning=perhaps)
            if source:
                yield from self._variables(name, phase, key, text)

    def _reference(self, name: str, phase: Phase, reference: Reference) -> str:
        source_name, value = reference
        if source_name == "each":
            if phase.each is None:
                return "but the phase has no each"
            return "" if value in EACH_VALUES else "but a match has only a path"
        if source_name == "inputs":
            known = self.spec.takes
            return "" if value in known else f"which is no input{did_you_mean(value, known)}"
        if source_name == "run":
            return "" if value in RUN_VALUES else "but a run has only id and name"
        if source_name not in self.spec.phases:
            return f"which is no phase{did_you_mean(source_name, self.spec.phases)}"
        if value not in (yielded := self._yielded(source_name)):
            if value in REVIEW_VALUES:
                return f"but {source_name} is no review and has no {value}"
            hint = did_you_mean(value, yielded) or f"; it has {', '.join(yielded)}"
            return f"but a phase has no {value}{hint}"
        if source_name == name:
            return "its own result, which is not there yet"
        if source_name not in self.before[name]:
            return f"but does not come after {source_name}; add after: [{source_name}]"
        return ""

    def _yielded(self, name: str) -> tuple[str, ...]:
        """The values of a phase."""
        if self.spec.phases[name].review is not None:
            return (*PHASE_VALUES, *REVIEW_VALUES)
        return (*PHASE_VALUES, ROUNDS) if name in self.reviewed else PHASE_VALUES

    def _variables(self, name: str, phase: Phase, key: str, text: str) -> Iterator[Problem]:
        """A value that never comes is a mistake; a variable that nothing sets may be one."""
        for used in sorted(named_variables(text)):
            other = self.yields.get(used.removesuffix(FILE))
            if other == name:
                yield self._at(name, key, f"uses ${used}, its own result, which is not there yet")
            elif other is not None and other not in self.before[name]:
                what = f"uses ${used}, but does not come after {other}"
                yield self._at(name, key, f"{what}; add after: [{other}]")
            elif used == variable("each", "path") and phase.each is None:
                yield self._at(name, key, f"uses ${used}, but the phase has no each")
            elif other is None and used in VARIABLES:
                continue
            elif other is None and f"{used}=" not in text and (meant := self._unset(used)):
                what = f"uses ${used}, which nothing sets{meant}"
                yield self._at(name, key, what, warning=True)

    def _unset(self, used: str) -> str:
        """The hint for a variable of a value that there is not, "" for one of somebody else.

        Whatever costs a search for the nearest word is a problem, and problems are counted.
        """
        word = used.removeprefix("MUSTER_").removesuffix(FILE).replace("_", "-").lower()
        source, _, value = word.rpartition("-")
        inputs, phases = self.spec.takes, self.spec.phases
        if word.startswith("inputs-"):
            given = word.removeprefix("inputs-")
            if given in inputs:
                return ""
            near = ("inputs", nearest(given, inputs))
        elif value in PHASE_VALUES:
            near = (nearest(source, phases), value)
        elif source in phases:
            near = (source, nearest(value, self._yielded(source)))
        else:
            return ""
        return f"; did you mean ${variable(*near)}?" if all(near) else "; its name is misspelt"

    def _order(self, name: str, phase: Phase) -> Iterator[Problem]:
        if phase.by_human:
            return
        order = largest_order(self.spec, name, {})
        if refusal := size_refusal(self.spec, order, {}):
            yield self._at(name, "", refusal)
        if self.fleet is None or name in self.kept:
            return
        if not self.fleet.machines:
            yield self._at(name, "", "finds no machine: the fleet has none; invite one")
            return
        wants = route.wants_of(order, self.repo)
        verdicts = [(route.judge(wants, each), each.name) for each in self.fleet.machines]
        if any(verdict.fits for verdict, _ in verdicts):
            return
        if what := advice.logged_out(self.fleet, verdicts):
            yield self._at(name, "agent", what, warning=True)
            return
        # One that is asked for by its name is meant, whatever it lacks.
        meant = set(listed(wants.needs.machine)) & {name for _, name in verdicts}
        near = [(verdict, name) for verdict, name in verdicts if not meant or name in meant]
        best, machine = min(near, key=lambda pair: (len(pair[0].reasons), pair[1]))
        why = ", ".join(best.reasons) + advice.how_to_get(self.fleet, phase.agents, machine)
        key = "needs" if f"phases.{name}.needs" in self.document.places else "agent"
        yield self._at(name, key, f"fits no machine; the nearest is {machine}: {why}")


_NOT_BY_HUMAN = (
    *("agent", "needs", "deliver", "check", "timeout"),
    *("retries", "race", "each", "env", "budget", "may", "memory", "model", "mode", "mcp"),
    *("sandbox", "network", "paths", "secrets"),
)
_TIME_MS_MAX = {"timeout": limits.PHASE_TIMEOUT_MS_MAX, "deadline": limits.PHASE_DEADLINE_MS_MAX}
