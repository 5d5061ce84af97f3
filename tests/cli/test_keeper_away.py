"""What a command says of a repository whose keeper cannot be asked."""

from types import SimpleNamespace
from typing import Any

import pytest

from muster.errors import Unreachable
from muster.verbs.results import OfResults, choose
from tests.promise import proves

ENDED = {
    "phase": "p", "task": "d", "instance": "", "commit": "c" * 40, "branch": "b/p", "machine": "studio",
    "agent": "shell", "summary": "", "check": "", "shell": "", "last": True,
}  # fmt: skip
RUN = {
    "run": "ab" * 16, "name": "fix", "state": "done", "summary": "", "repo": "main", "base": "",
    "phases": ["p"], "results": [ENDED],
}  # fmt: skip


@proves("cli.away-since")
@pytest.mark.parametrize(
    ("state", "says"),
    [("away", "studio, which keeps repository main, is away"), ("up", "an older version")],
)
def test_a_keeper_that_is_away_is_said_to_be_away(state, says):
    answers: dict[str, Any] = {
        "run.results": RUN,
        "repo.origin": {"keeper": "studio", "branch": ""},
        "machines": [{"name": "studio", "state": state}],
    }
    context = SimpleNamespace(ask=lambda verb, _args: answers[verb])
    with pytest.raises(Unreachable, match=says):
        choose(context, OfResults(run="fix"))
