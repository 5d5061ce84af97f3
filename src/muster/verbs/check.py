"""`muster check`: everything that is wrong with a spec, with line and column.

Rule: what the text alone tells needs no daemon and no fleet; only whether a machine meets the needs
of a phase is asked of the daemon, and where none runs the answer says that it was not asked.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from muster.task import check as checks
from muster.task.route import Machine

if TYPE_CHECKING:
    # Without a daemon the command asks this file itself, and must not load a daemon for it.
    from muster.node.call import Call
    from muster.node.core import Core


def check(core: "Core", call: "Call") -> Any:
    """The problems of a spec for this fleet; nothing is changed."""
    from muster.verbs.work import candidates  # noqa: PLC0415 - it loads a daemon, which runs here

    fleet = None if call.args.get("alone") else candidates(core)
    return problems(str(call.args.get("spec", "")), fleet)


def problems(text: str, fleet: Sequence[Machine] | None = None) -> dict[str, Any]:
    """The problems of a spec; `compared` says whether its needs were held against machines."""
    report = checks.check(text.encode(), fleet)
    answer: dict[str, Any] = {
        "compared": fleet is not None,
        "problems": [
            {
                "line": problem.line,
                "column": problem.column,
                "path": problem.path,
                "text": problem.sentence,
                "warning": problem.warning,
            }
            for problem in report.problems
        ],
    }
    if report.spec is not None:
        spec = report.spec
        answer.update(name=spec.name, phases=len(spec.phases), repo=spec.repo or "")
    return answer
