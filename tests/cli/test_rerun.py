"""`muster rerun` at the command: what it says of a run that it did not begin."""

from types import SimpleNamespace
from typing import Any

import pytest

from muster.cli import follow, steps
from muster.errors import NotFound
from tests.promise import proves

ORDER = {
    "name": "nightly", "owner": "hub", "run": "1ae7" * 8, "spec": "", "repo": "", "base": "",
    "values": {}, "kept": {}, "phases": ["test"],
}  # fmt: skip


class Context:
    on, json = "", False

    def __init__(self, fresh: bool) -> None:
        self.fresh = fresh
        self.command = SimpleNamespace(args={"run": "nightly"}, options={})
        self.said: list[str] = []

    def ask(self, verb: str, args: Any, **_: Any) -> Any:
        return (
            ORDER if verb == "rerun" else {"run": "beef" * 8, "owner": "hub", "fresh": self.fresh}
        )

    def say(self, text: str) -> None:
        self.said.append(text)


@proves("cli.rerun")
@pytest.mark.parametrize("fresh", [True, False])
def test_a_rerun_that_is_under_way_already_is_said_to_be_and_no_option_is_named_that_it_has_not(
    fresh, monkeypatch
):
    followed: list[Any] = []
    monkeypatch.setattr(follow, "follow", lambda _, begun: followed.append(begun) or 0)
    context: Any = Context(fresh)
    assert steps.rerun(context) == 0
    (said,) = context.said
    assert ("under way again already (`muster cancel beefbeefbeef`" in said) is not fresh
    assert "--again" not in said
    assert followed[0]["fresh"], "what follows says no more of it"


@proves("cli.rerun-is-checked")
def test_what_was_pruned_is_not_kept_and_nothing_is_ordered():
    asked: list[str] = []

    class Pruned(Context):
        def ask(self, verb: str, args: Any, **_: Any) -> Any:
            asked.append(verb)
            if verb == "rerun":
                return {**ORDER, "repo": "main", "kept": {"build": "1ae7" * 8}}
            if verb == "run.results":
                made = {"branch": "muster/1ae7/build", "commit": "c" * 40}
                return {"results": [{**made, "phase": "test"}, {**made, "phase": "build"}]}
            assert verb == "git.stands"
            return {"stands": False, "pruned": True}

    context: Any = Pruned(True)
    with pytest.raises(
        NotFound, match=r"phase build of run 1ae71ae71ae7 .* gone from repository main"
    ):
        steps.rerun(context)
    assert asked == ["rerun", "run.results", "git.stands"]
