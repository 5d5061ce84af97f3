"""`muster logs` where journals cannot be read: what is said, and how it ends."""

from collections.abc import Iterator
from typing import Any

import pytest

from muster.errors import Denied, MusterError, Unreachable
from muster.verbs.journal import Read, logs
from tests.promise import proves

TASK = "ab" * 16


class CommandContext:
    """Two machines worked on the task: this one, and `build`, whose journal is not to be had."""

    on = ""

    def __init__(self, error: MusterError, here: list[dict[str, Any]]) -> None:
        self.error, self.here = error, here
        self.said: list[str] = []
        self.shown: list[Any] = []

    def ask(self, verb: str, _args: Any, **_more: Any) -> Any:
        assert verb == "journal.where"
        machines = [
            {"machine": "b" * 64, "name": "build", "here": False},
            {"machine": "a" * 64, "name": "studio", "here": True},
        ]
        return {"task": TASK, "state": "done", "machines": machines}

    def stream(self, _verb: str, _args: Any, *, on: str = "") -> Iterator[Any]:
        if on:
            raise self.error
        yield from self.here

    def say(self, text: str) -> None:
        self.said.append(text)

    def show(self, value: Any) -> None:
        self.shown.append(value)


@proves("cli.logs-end-as-they-went")
@pytest.mark.parametrize("error", [Unreachable("build is away"), Denied("no key")])
def test_a_journal_that_cannot_be_read_is_the_error_where_nothing_else_was_shown(error):
    context: Any = CommandContext(error, [{"end": True}])
    with pytest.raises(type(error), match="the journal of build"):
        logs(context, Read(task=TASK))
    assert context.shown == []


@proves("cli.logs-end-as-they-went")
def test_what_could_be_read_is_shown_and_what_could_not_is_said():
    context: Any = CommandContext(
        Unreachable("build is away"), [{"kind": "agent.end"}, {"end": True}]
    )
    assert logs(context, Read(task=TASK)) is None
    assert context.shown == [{"kind": "agent.end"}]
    assert "the journal of build" in context.said[0]


@proves("cli.people-read-waiting-for-you")
@pytest.mark.parametrize(
    ("state", "said"),
    [("done", "a person decided task abababababab, no machine ran it: yes (reads well)"),
     ("failed", "a person decided task abababababab, no machine ran it: no (reads well)"),
     ("waiting", "`muster decide abababababab yes|no`")],
)  # fmt: skip
def test_logs_of_what_a_person_decides_say_so_and_what_was_decided(monkeypatch, state, said):
    context: Any = CommandContext(Unreachable("build is away"), [])
    where = {"task": TASK, "state": state, "machines": [], "person": True, "note": "reads well"}
    monkeypatch.setattr(context, "ask", lambda *_, **__: where)
    assert logs(context, Read(task=TASK, follow=True)) is None
    assert said in context.said[0]
