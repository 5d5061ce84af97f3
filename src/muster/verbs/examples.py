"""An example of each verb, for its help: what a person would type, and what it is for.

Rule: every verb that the help page lists has one here, and the command line takes each of them.
"""

from typing import Final

EXAMPLES: Final[dict[str, tuple[str, ...]]] = {
    "run": (
        "muster run notes.yaml",
        "muster run notes.yaml --repo main --value topic='the tests' --detach",
    ),
    "ask": ("muster ask 'say in NOTES.md what changed this week' --repo main",),
    "check": ("muster check notes.yaml",),
    "why": ("muster why 7d5e",),
    "tasks": ("muster tasks --all", "muster tasks --at 10m    # as it was ten minutes ago"),
    "runs": ("muster runs", "muster runs 1ae7"),
    "cancel": ("muster cancel 1ae7 --reason 'wrong branch'",),
    "retry": ("muster retry 7d5e",),
    "decide": ("muster decide 7d5e yes --note 'reads well'",),
    "questions": ("muster questions --on all",),
    "answer": ("muster answer 7d5e no",),
    "logs": ("muster logs 7d5e --follow",),
    "fetch": ("muster fetch 7d5e --to results", "muster fetch 7d5e report.txt"),
    "schema": ("muster schema > muster.schema.json",),
}
