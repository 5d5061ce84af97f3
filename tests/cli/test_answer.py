"""What a person is shown of a run that a session proposes, and what their yes signs."""

from typing import Any

import pytest

from muster.cli.context import CommandContext
from muster.cli.parse import parse
from muster.errors import Conflict, MusterError, NotFound, Refused
from muster.verbs.client import Finding
from muster.verbs.question import Said, answer
from tests.promise import proves

COMMIT = "ab" * 20
SPEC = f"muster: 1\nname: handed-on\nphases:\n  work: {{agent: shell, do: git show {COMMIT}}}\n"
KNOWN = {
    "proposal": "3fa9" * 8, "state": "open", "actor": "claude@mac1", "session": "shop-3fa9",
    "because": "no grant\nlets it", "name": "handed-on", "spec": SPEC, "repo": "main",
    "base": "agents-own-branch", "asked_ms": 1, "until_ms": 2, "run": "", "by": "",
}  # fmt: skip
RUN = "1ae7" * 8


class Door:
    """A daemon that has one proposal; `later` is how it stands when it is asked for again."""

    def __init__(self, later: Any = KNOWN, end: MusterError | None = None) -> None:
        self.abouts, self.end = [KNOWN, later], end
        self.signed: list[tuple[str, Any]] = []

    def ask(self, verb: str, args: Any, **_: Any) -> Any:
        if verb == "proposal.about":
            found = self.abouts.pop(0)
            if isinstance(found, MusterError):
                raise found
            return found
        self.signed.append((verb, args))
        if verb == "proposal.end" and self.end is not None:
            raise self.end
        return {"run": RUN, "owner": "hub"}


def said(door: Door) -> Any:
    here: Any = CommandContext(parse(["answer", "3fa9", "yes"]))
    here.ask = door.ask
    return answer(here, Said(task="3fa9", answer="yes", yes=True))


@proves("door.a-person-approves")
def test_all_of_what_is_signed_is_shown_and_nothing_of_it_is_abbreviated(capsys):
    door = Door()
    assert said(door).run == RUN
    shown = capsys.readouterr().err
    assert f"do: git show {COMMIT}}}" in shown
    rows = dict(line.split(maxsplit=1) for line in shown.splitlines()[-6:] if line)
    assert (rows["repository"], rows["base"]) == ("main", "agents-own-branch")
    assert (rows["session"], rows["because"]) == ("shop-3fa9", "no grant lets it")
    assert "proposed by  claude@mac1" in shown
    # All of the text is set in: no line of it looks like one of these.
    assert all(f"  {line}\n" in shown for line in SPEC.splitlines())
    (_, wanted), _ = door.signed
    assert wanted == {"base": "agents-own-branch", "repo": "main", "spec": SPEC, "values": {}}


@proves("door.a-person-approves")
@pytest.mark.parametrize("later", [{**KNOWN, "state": "refused"}, NotFound("it ended")])
def test_what_was_refused_or_ended_while_it_was_read_is_not_ordered(later):
    door = Door(later)
    with pytest.raises((Conflict, NotFound)):
        said(door)
    assert door.signed == []


@proves("door.a-person-approves")
def test_who_ordered_a_run_hears_of_it_though_its_session_cannot_be_told(capsys):
    found = said(Door(end=Conflict("proposal 3fa9 is refused already; nothing was changed")))
    assert isinstance(found, Finding)
    assert (found.value.run, found.code) == (RUN, 1)
    assert f"run {RUN[:12]} began" in capsys.readouterr().err


ID = "7d5e" * 8
ASKED = {
    "approval": ID, "hash": ID * 2, "sort": "command", "task": "ab" * 16, "actor": "claude@mac1",
    "asked_ms": 1, "until_ms": 2, "tool": "execute", "title": "tidy up\u202e", "paths": ["/x\u200b"],
    "because": "execute outside", "input": '{"command": "rm -rf /\u2066"}\nwhat     harmless',
}  # fmt: skip


class Waiting:
    """A fleet in which an agent waits; `asked` is what its machine tells, or that it knows no such
    verb.
    """

    def __init__(self, asked: Any = ASKED) -> None:
        self.asked = asked
        self.signed: list[Any] = []

    def ask(self, verb: str, args: Any, on: str = "", **_: Any) -> Any:
        if verb == "proposal.about":
            raise NotFound("no session proposes it")
        if verb == "approval.find":
            found = ID if ID.startswith(args["id"]) else ""
            return {"approval": found, "task": ASKED["task"], "machine": "m1"}
        assert on == "m1"
        if verb == "approval.about":
            if isinstance(self.asked, MusterError):
                raise self.asked
            return self.asked
        self.signed.append(args)
        return {"task": ASKED["task"], "question": ID, "title": "", "answer": args["answer"]}


def answered(waiting: Waiting, told: str = "", **said: Any) -> Any:
    here: Any = CommandContext(parse(["answer"]))
    here.ask, here.question = waiting.ask, lambda _what, default: told or default
    return answer(here, Said(**said))


@proves("approval.shown")
@pytest.mark.parametrize(
    ("said", "told", "word"),
    [
        ({"task": ID[:8], "answer": "allow"}, "", "allow"),
        ({"task": ID, "answer": "no"}, "", "deny"),
        ({"task": "abab", "answer": "deny"}, "", "deny"),
        ({"task": "abab", "answer": "allow", "yes": True}, "", "allow"),
        # What is not named by its id is shown, and asked about.
        ({"task": "abab", "answer": "allow"}, "", ""),
        ({"task": "abab", "answer": "yes"}, "deny", "deny"),
        ({"task": ID}, "allow", "allow"),
        ({"task": ID}, "sure", ""),
        ({}, "no", "deny"),
        ({"answer": "allow"}, "", ""),
    ],
)
def test_a_yes_is_signed_over_what_was_named_or_shown_and_nothing_else(said, told, word, capsys):
    waiting = Waiting()
    if word:
        assert answered(waiting, told, **said).answer == word
        assert waiting.signed == [{"answer": word, "approval": ID, "hash": ID * 2}]
    else:
        with pytest.raises(Refused, match="nothing was answered"):
            answered(waiting, told, **said)
        assert waiting.signed == []
    named = bool(said.get("answer")) and (bool(word) and not told)
    shown = capsys.readouterr().err
    assert ("rm -rf /<U+2066 LEFT-TO-RIGHT ISOLATE>" in shown) == (not named)
    if shown:
        assert "  what     harmless\n" in shown, "no line of the agent looks like one of ours"
        assert "what     tidy up<U+202E RIGHT-TO-LEFT OVERRIDE>\n" in shown
        assert "path     /x<U+200B ZERO WIDTH SPACE>\n" in shown


@proves("approval.shown", "node.versions-mix")
def test_a_machine_of_before_is_answered_by_nobody_who_cannot_bind_the_answer():
    waiting = Waiting(NotFound("there is no verb 'approval.about' to call"))
    with pytest.raises(Refused, match="older version"):
        answered(waiting, task=ID, answer="allow")
    assert waiting.signed == []
