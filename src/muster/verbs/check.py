"""`muster check`: everything that is wrong with a spec, with line and column.

Rule: what the text alone tells needs no daemon and no fleet; only whether a machine meets the needs
of a phase is asked of the daemon, and where none runs the answer says that it was not asked.
"""

from typing import TYPE_CHECKING, Any

from muster.task import check as checks
from muster.task.route import Fleet

if TYPE_CHECKING:
    # Without a daemon the command asks this file itself, and must not load a daemon for it.
    from muster.node import event as ev
    from muster.node.call import Call
    from muster.node.core import Core
    from muster.node.daemon import Daemon


def check(core: "Core", call: "Call") -> Any:
    """The problems of a spec for this fleet; nothing is changed."""
    from muster.verbs.work import fleet  # noqa: PLC0415 - it loads a daemon, which runs here

    known = None if call.args.get("alone") else fleet(core)
    return problems(str(call.args.get("spec", "")), known, str(call.args.get("repo") or ""))


def problems(text: str, fleet: Fleet | None = None, repo: str = "") -> dict[str, Any]:
    """The problems of a spec; `compared` says whether its needs were held against machines."""
    report = checks.check(text.encode(), fleet, repo=repo)
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
        answer.update(name=spec.name, phases=len(spec.phases), repo=repo or spec.repo or "")
        answer.update(base=spec.base or "", base_at=report.base_at)
    return answer


async def base(daemon: "Daemon", call: "ev.Perform") -> Any:
    """The commit that a run would start from.

    Raises: NotFound where there is no such branch or commit, Unreachable without the repository.
    """
    repo, name = str(call.args.get("repo", "")), str(call.args.get("base") or "")
    return {"commit": await daemon.hands.commit_of(repo, name)}
