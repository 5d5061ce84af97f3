"""Small specs for tests: `spec(a="after: b")` writes the phases, the rest is filled in."""

from collections.abc import Mapping

from muster.task.problem import Problem
from muster.task.spec import Spec, parse

WORK = "agent: shell\ndo: make\ncheck: make test"


def text(phases: Mapping[str, str], head: str = "") -> bytes:
    """A spec's bytes. A phase that says nobody to do it gets shell work."""
    lines = ["muster: 1", "name: trial", *head.splitlines(), "phases:"]
    for name, body in phases.items():
        lines.append(f"  {name}:")
        whole = body if "do:" in body else f"{WORK}\n{body}"
        lines += [f"    {line}" for line in whole.strip().splitlines()]
    return ("\n".join(lines) + "\n").encode()


def shown(problem: Problem) -> str:
    """A problem as `check` prints it of the file x."""
    mark = "warning: " if problem.warning else ""
    place = f"x:{problem.line}:{problem.column}: " if problem.line else ""
    return f"{place}{mark}{problem.sentence}"


def graph(drawing: str, **extra: str) -> Spec:
    """`a ; b <- a ; c <- a b`: phases and what they wait for; `extra` adds keys to a phase."""
    phases = {}
    for part in drawing.split(";"):
        name, _, before = part.strip().partition("<-")
        name = name.strip()
        body = f"after: [{', '.join(before.split())}]" if before.strip() else ""
        phases[name] = body + "\n" + extra.get(name, "")
    return parse(text(phases))
