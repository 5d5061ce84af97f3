"""Turns of `muster acp` where the other side is at its worst; the good ones are in tests/e2e."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from muster.agent.rpc import RpcError
from muster.errors import Broken, Conflict, Unreachable, Unsettled
from muster.node.host.home import Home
from muster.verbs import acp, acp_session, acp_stop, acp_turn, doctor, plan
from muster.verbs.acp_turn import Work
from muster.verbs.acp_words import fenced
from tests.promise import proves

SPEC = """\
muster: 1
name: tidy
phases:
  a:
    agent: shell
    do: ls
    check: 'true'
"""
RUN, TASK = "a" * 32, "b" * 64
QUESTION = "Is it <!-- really --> good?"
SETTLED = {"settled": "done"}


def until(true, what):
    for _ in range(6_000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError(what)


class Fleet:
    """The daemon as a command sees it: what it was asked, and what a test has it answer."""

    on, json = "", False

    def __init__(self, home):
        self.home = home
        self.asked = []
        # An answer by its verb: a value, an error, or a list of these, of which the last stays.
        self.answers = {
            "status": {"name": "hub"},
            "machines": [],
            "run": {"run": RUN, "owner": "studio"},
            "why": {"question": QUESTION},
            "cancel": {},
            "decide": {},
        }
        self.changes = [SETTLED]

    def ask(self, verb, args, *, on="", **_):
        self.asked.append((verb, dict(args), on))
        answer = self.answers[verb]
        if isinstance(answer, list) and answer:
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if callable(answer):
            answer = answer()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def stream(self, verb, args, *, on=""):
        for each in self.changes:
            change = each() if callable(each) else each
            if isinstance(change, Exception):
                raise change
            if change is not None:
                yield change

    def running(self):
        return True

    def said(self, verb):
        return [(args, on) for asked, args, on in self.asked if asked == verb]


class Editor:
    """What it was told and asked; an answer for each question, or an error."""

    def __init__(self, *outcomes):
        self.outcomes, self.told, self.asked = list(outcomes), [], []

    def tell(self, update):
        self.told.append(update)

    def ask(self, method, params):
        self.asked.append(params)
        outcome = self.outcomes.pop(0)
        if callable(outcome):
            outcome = outcome()
        if isinstance(outcome, Exception):
            raise outcome
        return {"outcome": outcome}

    def text(self):
        kind = "agent_message_chunk"
        return "".join(u["content"]["text"] for u in self.told if u["sessionUpdate"] == kind)

    def content(self, number=-1):
        (block,) = self.asked[number]["toolCall"]["content"]
        return block["content"]["text"]


def chosen(id):
    return {"outcome": "selected", "optionId": id}


@pytest.fixture
def fleet(tmp_path, monkeypatch):
    monkeypatch.setattr(acp_turn, "_LOOK_S", 0.01)
    made = plan.Plan(SPEC, "tidy", "")
    monkeypatch.setattr(plan, "planned", lambda *_: made)
    home = Home(tmp_path / "home")
    home.path.mkdir(mode=0o700, exist_ok=True)
    return Fleet(home)


def work(fleet, editor):
    return Work(fleet, editor, acp_session.opened("/"))


def waits(fleet, editor, done):
    """A run that waits for the person's word until `done`."""

    def wait():
        until(done, "the question was not answered")

    fleet.changes = [{"task": TASK, "phase": "a", "state": "waiting"}, wait, SETTLED]
    return work(fleet, editor)


# --- a closed dialog ------------------------------------------------------------------------------


@proves("cli.acp-closed-dialog")
@pytest.mark.parametrize(
    "outcome",
    [
        {"outcome": "cancelled"},
        {"outcome": "cancelled", "optionId": "no"},
        {"outcome": "selected", "optionId": "later"},
        {"outcome": "selected", "optionId": ["no"]},
        None,
        RpcError({"code": -32603, "message": "no window"}),
    ],
)
def test_a_dialog_that_is_closed_signs_no_word_of_the_person(fleet, outcome):
    editor = Editor(chosen("yes"), outcome)
    turn = waits(fleet, editor, lambda: "muster decide" in editor.text())
    assert turn.prompt("tidy up") == "end_turn"
    assert fleet.said("decide") == []
    assert f"`muster decide {TASK[:12]} yes` or `no` answers it" in editor.text()


@proves("cli.acp-closed-dialog")
@pytest.mark.parametrize("answer", ["yes", "no"])
def test_a_yes_or_a_no_is_signed_as_it_was_said(fleet, answer):
    editor = Editor(chosen("yes"), chosen(answer))
    waits(fleet, editor, lambda: fleet.said("decide")).prompt("tidy up")
    assert fleet.said("decide") == [({"task": TASK, "answer": answer}, "")]


@proves("cli.acp-closed-dialog")
@pytest.mark.parametrize("outcome", [{"outcome": "cancelled", "optionId": "yes"}, chosen("y"), 1])
def test_a_plan_runs_with_a_yes_alone(fleet, outcome):
    assert work(fleet, Editor(outcome)).prompt("tidy up") == "end_turn"
    assert fleet.said("run") == []


# --- what is shown --------------------------------------------------------------------------------


@proves("cli.acp-shown-whole")
@pytest.mark.parametrize("inside", ["# <!--", "#\n   ```", "# ````` and ```", "# none"])
def test_nothing_in_a_text_ends_its_fence(inside):
    text = SPEC + inside
    first, *within, last = fenced(text, "yaml").splitlines()
    assert (first, "\n".join(within)) == (f"{last}yaml", text)
    assert set(last) == {"`"}
    assert last not in text


@proves("cli.acp-shown-whole")
def test_the_plan_and_the_question_stand_in_fences_wherever_they_are_shown(fleet, monkeypatch):
    spec = f"# <!--\n# ```\n{SPEC}# -->\n"
    monkeypatch.setattr(plan, "planned", lambda *_: plan.Plan(spec, "tidy", ""))
    editor = Editor(chosen("yes"), chosen("yes"))
    turn = waits(fleet, editor, lambda: fleet.said("decide"))
    turn.prompt("tidy up")
    shown = fenced(spec, "yaml")
    assert shown in editor.text()
    assert editor.content(0) == shown
    assert editor.content(1) == fenced(QUESTION)
    again = Editor()
    Work(fleet, again, acp_session.known(fleet.home, turn.session.id)).replay()
    assert shown in again.text()


# --- Stop -----------------------------------------------------------------------------------------


@proves("cli.acp-stop-is-heard")
def test_a_stop_that_nobody_heard_is_said_again_until_the_owner_hears_it(fleet):
    away = Unreachable("studio does not answer")
    fleet.answers["cancel"] = [away, away, away, {}]
    editor = Editor(chosen("yes"))
    turn = work(fleet, editor)

    def stopped():
        turn.cancel()
        until(lambda: len(fleet.said("cancel")) == 4, "it was not said again")

    fleet.changes = [stopped, {"settled": "cancelled"}]
    assert turn.prompt("tidy up") == "cancelled"
    wish = {"what": RUN, "reason": "cancelled in the editor"}
    assert fleet.said("cancel") == [(wish, "studio")] * 4
    assert editor.text().count("Not stopped yet: studio does not answer.") == 1
    until(lambda: "was told to stop" in editor.text(), "the person was not told")


@proves("cli.acp-stop-is-heard")
def test_a_run_that_did_not_hear_it_is_not_called_cancelled(fleet, monkeypatch):
    monkeypatch.setattr(acp_turn, "DAEMON_MS_MAX", 50)
    back = threading.Event()
    fleet.answers["cancel"] = lambda: {} if back.is_set() else Unreachable("nobody is there")
    turn = work(fleet, Editor(chosen("yes")))
    fleet.changes = [turn.cancel, Unreachable("nobody is there")]
    assert turn.prompt("tidy up") == "cancelled"
    (kept,) = acp_session.known(fleet.home, turn.session.id).turns
    assert (kept.run, kept.said) == (RUN, ""), "the next session follows it"
    back.set()
    before = len(fleet.said("cancel"))
    until(lambda: len(fleet.said("cancel")) > before, "it was forgotten with its turn")


@proves("cli.acp-stop-is-heard")
def test_a_run_that_has_ended_by_itself_is_not_told_again(fleet):
    fleet.answers["cancel"] = Conflict("it is done already")
    editor = Editor(chosen("yes"))
    turn = work(fleet, editor)

    def stopped():
        turn.cancel()
        until(lambda: not turn._unheard, "it is said for ever")

    fleet.changes = [stopped, SETTLED]
    turn.prompt("tidy up")
    assert len(fleet.said("cancel")) == 1
    assert "stop" not in editor.text().lower()


def stop_of(fleet, **more):
    stop = acp_stop.Stop(RUN, "studio", "cancelled in the editor", **more)
    acp_stop.note(fleet.home, stop)
    return stop


@proves("cli.acp-stop-outlives-its-editor")
def test_a_stop_is_noted_down_before_it_is_said_and_struck_out_when_it_was_heard(fleet):
    seen, begun = [], []
    fleet.answers["cancel"] = [
        lambda: seen.append(list(acp_stop.left(fleet.home))) or Unreachable("away"),
        lambda: seen.append(list(begun)) or {},
    ]
    turn = work(fleet, Editor(chosen("yes")))
    turn.unheard = lambda: begun.append(1)

    def stopped():
        turn.cancel()
        until(lambda: not turn._unheard, "it was not heard")

    fleet.changes = [stopped, {"settled": "cancelled"}]
    turn.prompt("tidy up")
    assert [each.run for each in seen[0]] == [RUN], "an editor that is killed now loses nothing"
    assert seen[1] == [1], "another process says it when we are gone"
    assert list(acp_stop.left(fleet.home)) == []


@proves("cli.acp-stop-outlives-its-editor")
@pytest.mark.parametrize("last", [{}, Conflict("it is done already")])
def test_what_an_editor_left_is_said_until_it_is_heard(fleet, monkeypatch, last):
    monkeypatch.setattr(acp_stop, "_AGAIN_S", 0.01)
    stop_of(fleet)
    fleet.answers["cancel"] = [Unreachable("away"), Unsettled("who knows"), last]
    acp_stop.deliver(fleet)
    wish = {"what": RUN, "reason": "cancelled in the editor"}
    assert fleet.said("cancel") == [(wish, "studio")] * 3
    assert list(acp_stop.left(fleet.home)) == []


@proves("cli.acp-stop-outlives-its-editor")
def test_a_stop_that_is_refused_is_kept_with_the_reason_and_not_said_for_ever(fleet):
    stop = stop_of(fleet)
    fleet.answers["cancel"] = [Broken("you may not"), {}]
    acp_stop.deliver(fleet)
    (kept,) = acp_stop.left(fleet.home)
    assert (kept.run, kept.refused) == (stop.run, "you may not")
    (check,) = doctor._stops(fleet.home)
    assert (check.state, "you may not" in check.text) == ("wrong", True)
    # Whoever types it tries it once more.
    acp_stop.deliver(fleet)
    assert list(acp_stop.left(fleet.home)) == []


@proves("cli.acp-stop-outlives-its-editor")
def test_one_process_says_it_and_what_cannot_be_read_is_no_stop(fleet):
    stop_of(fleet)
    folder = fleet.home.path / "acp" / "stops"
    (folder / f"{'c' * 64}.json").write_text("[" * 10_000)
    (folder / "seed.json").write_text('{"run": "seed", "owner": "", "reason": ""}')
    assert [each.run for each in acp_stop.left(fleet.home)] == [RUN]
    lock = acp_stop._locked(fleet.home)
    acp_stop.deliver(fleet)
    assert fleet.said("cancel") == []
    os.close(lock)


# --- however it ends ------------------------------------------------------------------------------


@proves("cli.acp-turn-ends")
def test_a_run_is_known_by_its_id_though_the_daemon_goes_right_after(fleet, monkeypatch):
    monkeypatch.setattr(acp_turn, "DAEMON_MS_MAX", 50)
    gone = Unreachable("the daemon is gone")
    fleet.answers["status"] = [{"name": "hub"}, gone]
    fleet.changes = [gone]
    turn = work(fleet, Editor(chosen("yes")))
    with pytest.raises(Unreachable):
        turn.prompt("tidy up")
    (kept,) = acp_session.known(fleet.home, turn.session.id).turns
    assert (kept.run, kept.owner, kept.said) == (RUN, "studio", "")


@proves("cli.acp-turn-ends")
def test_nobody_says_that_it_was_not_run_where_nobody_knows(fleet):
    kept = []

    def signed():
        kept.extend(acp_session.known(fleet.home, turn.session.id).turns)
        return Unreachable("the daemon is gone")

    fleet.answers["run"] = signed
    turn = work(fleet, Editor(chosen("yes")))
    with pytest.raises(Unreachable):
        turn.prompt("tidy up")
    again = Editor()
    Work(fleet, again, acp_session.known(fleet.home, turn.session.id)).replay()
    assert "`muster runs` tells" in again.text()
    assert "`muster runs` tells" in kept[0].said, "whoever is killed now says no more either"


@proves("cli.acp-turn-ends")
@pytest.mark.parametrize("error", [Broken("the disk refused"), FileExistsError("acp")])
def test_a_disk_that_refuses_ends_no_run(fleet, monkeypatch, error):
    def refuse(*_):
        raise error

    if isinstance(error, OSError):
        fleet.home.path.joinpath("acp").write_text("a file where a folder belongs")
    else:
        monkeypatch.setattr(Home, "put", refuse)
    editor = Editor(chosen("yes"))
    assert work(fleet, editor).prompt("tidy up") == "end_turn"
    assert "tidy is done" in editor.text()
    assert editor.text().count("This session cannot be kept") == 1


def in_an_editor(fleet, talk):
    """What the talk with an agent gives; nothing of it goes over a pipe."""

    async def begin():
        agent = acp.Agent(fleet, asyncio.StreamReader(), SimpleNamespace(is_closing=lambda: True))
        agent.ask = lambda *_: {"outcome": chosen("yes")}
        async with asyncio.timeout(60):
            return await talk(agent)

    return asyncio.run(begin())


def asked(id):
    return {"sessionId": id, "prompt": [{"type": "text", "text": "tidy up"}]}


@proves("cli.acp-turn-ends")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [OSError("no descriptors"), KeyError("run")])
def test_a_mistake_in_a_turn_reaches_the_editor(fleet, monkeypatch, error):
    async def talk(agent):
        id = (await agent._asked("session/new", {"cwd": "/"}))["sessionId"]
        fleet.answers["machines"] = error
        with pytest.raises(RpcError, match="it failed here"):
            await agent._asked("session/prompt", asked(id))
        fleet.answers["machines"] = []
        return await agent._asked("session/prompt", asked(id))

    assert in_an_editor(fleet, talk) == {"stopReason": "end_turn"}


# --- sessions -------------------------------------------------------------------------------------

OTHER = """
import sys
from muster.node.host.home import Home
from muster.verbs.acp_session import Held
held = Held(Home(sys.argv[1]))
held.take(sys.argv[2])
print("taken", flush=True)
sys.stdin.read()
"""


@proves("cli.acp-one-editor")
def test_a_session_that_another_editor_has_open_is_refused_until_it_has_ended(fleet):
    session, other = acp_session.opened("/"), acp_session.opened("/")
    for each in (session, other):
        acp_session.keep(fleet.home, each)
    words = [sys.executable, "-c", OTHER, str(fleet.home.path), session.id]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}

    async def load(agent, id):
        return await agent._asked("session/load", {"sessionId": id, "cwd": "/"})

    async def refused(agent):
        with pytest.raises(RpcError, match="is open in another editor"):
            await load(agent, session.id)
        with pytest.raises(RpcError, match="no session"):
            await agent._asked("session/prompt", asked("0" * 32))
        assert await load(agent, other.id) == {}

    async def taken(agent):
        assert await load(agent, session.id) == {}
        return await load(agent, session.id)

    with subprocess.Popen(words, **pipes) as process:
        try:
            assert process.stdout.readline() == b"taken\n"
            in_an_editor(fleet, refused)
        finally:
            process.kill()
    assert in_an_editor(fleet, taken) == {}, "and ours again is no other"


@proves("cli.acp-many-sessions")
def test_one_session_too_many_closes_the_one_that_was_idle_longest(fleet, monkeypatch):
    monkeypatch.setattr(acp, "SESSIONS_MAX", 3)

    async def talk(agent):
        async def new():
            return (await agent._asked("session/new", {"cwd": "/"}))["sessionId"]

        used, worked, idle = [await new() for _ in range(3)]
        assert await agent._asked("session/prompt", asked(used)) == {"stopReason": "end_turn"}
        agent._turns[worked] = None
        last = await new()
        assert set(agent._sessions) == {used, worked, last}, "neither the used nor the one at work"
        with pytest.raises(RpcError, match=f"no session '{idle}' is open here"):
            await agent._asked("session/prompt", asked(idle))
        # One that is open already is no other.
        await agent._asked("session/prompt", asked(last))
        await agent._asked("session/load", {"sessionId": last, "cwd": "/"})
        assert set(agent._sessions) == {used, worked, last}
        agent._turns |= {used: None, last: None}
        with pytest.raises(RpcError, match="3 sessions work"):
            await new()

    in_an_editor(fleet, talk)
