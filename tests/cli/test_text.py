"""What people read: aligned, dated, and harmless."""

import time
import types
from importlib import import_module
from pathlib import Path

import pytest

from muster.cli import show, steps, text
from muster.cli.show import agent, memory, message, spec
from muster.node.verb import Column, Line
from muster.verbs.table import VERBS
from tests.promise import proves


@proves("cli.text-is-harmless")
def test_what_an_agent_wrote_cannot_move_the_cursor_or_hide_text():
    evil = "ok\x1b[2J\x1b]0;title\x07 \u202egnp.exe\r\nnext"
    for shown in (text.clean(evil), text.block(evil)):
        assert not set("\x1b\x07\r\u202e") & set(shown)
    assert text.clean("a\nb") == "a b"
    assert text.clean("abcdef", 4) == "abc…"


@proves("cli.text-is-harmless")
def test_the_colours_of_a_build_leave_no_trace_and_hide_nothing():
    coloured = "\x1b[1;31mError:\x1b[0m \x1b[8mhidden\x1b[m\x1b[K, \x1b[38:2::1:2:3mend\x1b[0m"
    for shown in (text.clean(coloured), text.block(coloured)):
        assert shown.strip() == "Error: hidden, end"


@proves("cli.agents")
@pytest.mark.parametrize("word", ["ready", "not logged in", "away"])
def test_a_state_of_an_agent_has_the_colour_that_the_word_has_everywhere(monkeypatch, word):
    monkeypatch.setattr(text, "obeys", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    row = dict.fromkeys(("agent", "machine", "version", "driver", "login", "mend"), "x")
    row |= {"state": word, "passed": 0, "failed": 0, "streak": 0}
    coloured = text.state(word)
    assert coloured.startswith("\x1b[")
    assert coloured in agent.agents([row], {})


@proves("cli.text-is-harmless")
@pytest.mark.parametrize(
    ("tty", "term", "drawn"),
    [
        (True, "xterm-256color", True),
        (True, "dumb", False),
        (True, "", False),
        (True, None, False),
        (False, "xterm", False),
    ],
)
def test_a_terminal_that_obeys_nothing_gets_no_escapes(monkeypatch, tty, term, drawn):
    monkeypatch.setattr("sys.stdout.isatty", lambda: tty, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("TERM", raising=False)
    if term is not None:
        monkeypatch.setenv("TERM", term)
    assert text.obeys() is drawn
    assert ("\x1b" in text.paint("x", "red")) is drawn


@proves("cli.text-is-aligned")
def test_times_are_said_as_people_say_them():
    now = time.time_ns() // 1_000_000
    assert text.ago(now - 5_100) == "5 s ago"
    assert text.ago(now + 3_700_000) == "in 1 h 1 min"
    assert [text.span(n) for n in (5, 59_000, 61_000, 90_000_000, 2 * 86_400_000)] == [
        "5 ms", "59 s", "1 min 1 s", "25 h 0 min", "2 days",
    ]  # fmt: skip
    assert text.ago(None) == ""


@proves("node.channels-are-shown")
def test_who_waits_for_a_machine_without_a_link_reads_by_which_mailbox_it_goes():
    away = [{"machine": "a", "mailboxes": []}, {"machine": "b", "mailboxes": ["drop", "git"]}]
    shown = message.waiting({"message": "0" * 64, "away": away}, {})
    assert "a is away; it is delivered when it is back" in shown
    assert "b has no link to this machine; it goes by drop and git" in shown


@proves("cli.shows-everything")
def test_an_answer_that_no_page_knows_is_shown_with_all_its_fields():
    shown = show.text("target", {"name": "hub", "list": [1, {"a": "b"}], "none": None})
    assert shown == "name: hub\nlist:\n  - 1\n  - a: b\nnone: -"


@proves("cli.shows-everything")
def test_every_page_shows_answers_of_verbs_of_its_noun():
    for path in (Path(show.__file__).parent).glob("[a-z]*.py"):
        page = import_module(f"muster.cli.show.{path.stem}")
        handler = f"muster.verbs.{path.stem}:"
        verbs = [verb.name for verb in VERBS.values() if verb.handler.startswith(handler)]
        assert any(callable(getattr(page, name, None)) for name in verbs), path


@proves("cli.shows-everything")
def test_a_line_and_a_cell_are_shown_where_their_condition_holds():
    row = VERBS["device"]._replace(
        rows="all",
        columns=(Column("name"), Column("key", form="id", when="!state=gone")),
        says=(
            Line("always {n} {key:id} {text:4}"), Line("one", "n"), Line("none", "!n"),
            Line("is", "state=gone n"), Line("is not", "!state=gone"), Line("absent", "other"),
        ),
    )  # fmt: skip
    value = {"n": 2, "key": "ab" * 32, "text": "a\x1b[2J\nletter", "state": "gone"}
    assert show.declared(row, value) == "always 2 abababababab a […\none\nis"
    assert show.declared(row, {**value, "n": 0, "state": ""}).splitlines()[1:] == ["none", "is not"]
    cells = [{"name": ["x", "y"], "state": state, "key": "ab" * 32} for state in ("", "gone")]
    assert show.declared(row, {"all": cells}).split() == [
        "NAME", "KEY", "x,", "y", "abababababab", "x,", "y", "-",
    ]  # fmt: skip


@proves("cli.check-exit")
def test_a_spec_with_errors_is_exit_1_and_one_with_warnings_is_0():
    problem = {"line": 3, "column": 5, "text": "no such agent", "warning": False}
    for warning in (False, True):
        found = types.SimpleNamespace(
            command=types.SimpleNamespace(args={}), on="hub", show=lambda _: None,
            ask=lambda *_, **__: {"problems": [{**problem, "warning": warning}]},  # noqa: B023
        )  # fmt: skip
        assert steps.check(found) == int(not warning)
    assert spec.problem(problem, "a.yaml") == "a.yaml:3:5: error: no such agent"


@proves("cli.logs")
def test_a_tool_a_question_and_a_decision_are_said_in_words():
    frame = {"t_ms": 0, "actor": "claude@studio", "machine": "studio", "task": "ab" * 16}
    call = {"tool": "execute", "title": "rm x\x1b[2J", "paths": ["/w/x"], "because": "inside"}
    asked = show.text("logs", {**frame, **call, "kind": "agent.ask", "ask": "1"})
    assert "rm x [2J  (/w/x)" in asked
    assert "muster answer abababababab`" in asked
    named = show.text("logs", {**frame, **call, "kind": "agent.ask", "approval": "cd" * 16})
    assert "muster answer cdcdcdcdcdcd`" in named
    decided = {**frame, **call, "kind": "agent.decision", "answer": "allow", "by": "op:alice"}
    assert "allow by op:alice: rm x [2J  (/w/x)  [inside]" in show.text("logs", decided)
    done = {**frame, **call, "kind": "agent.tool", "status": "completed", "output": "gone\n"}
    assert show.text("logs", done).endswith("completed: rm x [2J  (/w/x)\n  gone")


@proves("cli.logs")
def test_what_surrounds_an_attempt_is_told_in_a_line_each():
    frame = {"t_ms": 1, "actor": "claude@mac1", "machine": "a" * 64, "task": "b" * 32}

    def line(kind, **fields):
        shown = show.text("logs", {**frame, "kind": kind, **fields})
        assert "\n" not in shown
        return shown.partition("claude@mac1")[2].strip()

    profile = "c" * 64
    stuck = line("agent.health", detector="loop", did="told", why="it called make")
    assert stuck == "told: it called make"
    assert line("agent.sandbox", enclosed=True, why="the spec says so", profile=profile) == (
        "in a sandbox: the spec says so"
    )
    assert line("agent.sandbox", enclosed=False, why="its owner", profile=profile) == (
        "without a sandbox: its owner"
    )
    reached = {"host": "a.test", "port": 443, "sent": 5, "received": 7, "times": 1}
    assert line("agent.network", allowed=True, why="", **reached) == (
        "reached: a.test:443  5 bytes out, 7 in"
    )
    assert line("agent.network", allowed=False, why="no", **{**reached, "times": 3}) == (
        "refused: a.test:443 (3 times)  no"
    )
    assert line("agent.network", allowed=False, why="no", **{**reached, "host": ""}) == (
        "refused: nothing that has a name  no"
    )
    usage = {"input": 10, "output": 3, "cache_read": 5}
    assert line("agent.call", ending="answered", model="m", answered="m-1", usage=usage) == (
        "answered: m-1  15 tokens in, 3 out"
    )
    assert line("agent.budget", used=90, tokens=90, tokens_max=100) == (
        "90 % of what it may use up is used: 90 tokens of 100"
    )
    assert line("agent.call", ending="spent", model="m", why="it is spent", usage={}) == (
        "spent: m  it is spent"
    )


@proves("cli.people-read-running")
def test_a_task_that_a_machine_holds_is_running_to_people_and_json_keeps_the_words_of_the_log():
    task = {"task": "ab" * 16, "state": "leased", "run": "", "phase": "one", "instance": "", "machine": "hub",
            "agent": "shell", "changed_ms": 1, "summary": "", "reason": ""}  # fmt: skip
    shown = show.text("tasks", [task])
    assert "running" in shown
    assert "leased" not in shown


STATUS = {
    "name": "hub", "machine": "ab" * 32, "fleet": "cd" * 32, "incarnation": "ef" * 16,
    "settled": True, "revoked": None, "runs": 1, "exposed": 0, "unread": 2, "unconfirmed": 0,
    "machines": {"known": 3, "linked": 1, "away": ["build"]},
    "owner": {"open": 7}, "worker": {"running": 1}, "incidents": [],
    "works": [{"task": "12" * 16, "phase": "test", "instance": "a", "agent": "shell"}],
    "log": {"streams": 4, "entries": 99, "own": 9}, "counters": {"call-notfound": 5},
}  # fmt: skip


@proves("cli.status-is-for-people")
def test_status_shows_what_a_person_acts_on_and_the_counters_only_when_asked():
    shown = show.text("status", STATUS)
    for word in ("3 machines, away: build", "test[a]", "2 unread", "1 open"):
        assert word in shown
    for word in ("ef" * 16, "call-notfound", "streams"):
        assert word not in shown
        assert word in show.text("status", STATUS, {"verbose": "yes"})


@proves("cli.away-since")
def test_a_machine_that_was_never_heard_of_says_so():
    away = {"name": "build", "machine": "ab" * 32, "roles": [], "state": "away", "facts": None}
    shown = show.text("machines", [away])
    assert "HEARD" in shown
    assert "never" in shown


@proves("cli.people-read-reasons")
def test_of_a_task_that_failed_the_reason_is_shown_and_of_one_that_is_done_what_it_said():
    task = {"task": "ab" * 16, "phase": "one", "instance": "", "machine": "hub", "agent": "shell",
            "changed_ms": 1, "summary": "all went well", "commit": "",
            "run": "cd" * 16}  # fmt: skip
    failed = {**task, "state": "failed", "reason": "the check failed"}
    run = {"name": "r", "run": "cd" * 16, "state": "failed", "summary": "", "tasks": [failed]}
    for shown in (show.text("tasks", [failed]), show.text("runs", run)):
        assert "the check failed" in shown
        assert "all went well" not in shown
    done = {**task, "state": "done", "reason": "was lost once"}
    assert "all went well" in show.text("tasks", [done])


@proves("cli.init-says-who-can-knock")
def test_init_says_when_its_port_can_be_reached_from_elsewhere_and_how_to_narrow_it():
    value = {"name": "studio", "operator": "alice", "home": "/h", "fleet": "ab" * 32,
             "address": "192.0.2.1:7447", "agents": {}, "tools": [], "started": "",
             "service": None, "next": "", "invitation": ""}  # fmt: skip
    shown = show.text("init", {**value, "listen": "0.0.0.0:7447"})
    assert "every network" in shown
    assert "`listen` in config.toml" in shown
    assert "every network" not in show.text("init", {**value, "listen": "127.0.0.1:7447"})


@proves("cli.short-ids")
def test_ids_are_as_short_as_tells_them_apart():
    alone, twin = "ab" * 32, "cd" * 6 + "1" * 52
    other = twin[:20] + "2" * 44
    rows = [{"task": each, "run": each[:32], "of": [each]} for each in (alone, twin, other)]
    text.tell_apart(rows)
    assert [text.short(each) for each in (alone, twin, other)] == [
        alone[:12],
        twin[:21],
        other[:21],
    ]
    # An id and its own beginning are one thing twice.
    assert len(text.short(twin)) < 32
    text.tell_apart([])
    assert text.short(twin) == twin[:12]


@proves("cli.short-ids")
def test_an_error_names_ids_by_their_beginning_and_leaves_words_alone():
    said = f"task {'ab' * 16} of {'cd' * 32} at {'ef' * 20}, see deadbeef and abc"
    assert text.abbreviated(said) == (
        f"task {'ab' * 6} of {'cd' * 6} at {'ef' * 6}, see deadbeef and abc"
    )


@proves("memory.as-it-was")
def test_what_changed_is_shown_by_lines_and_moves_no_cursor():
    side = {"asked": "2d", "state": "active", "versions": ["ab" * 32], "from": ["op:alice"]}
    value = {"key": "main/port", "scope": "private", "before": {**side, "text": "a"},
             "after": {**side, "state": "nothing", "versions": [], "from": [], "text": ""},
             "lines": ["  first:", "-   it is 7447\x1b[2J", "+   \x1b[31mit is 7450"]}  # fmt: skip
    shown = memory.memory(value, {}).split("\n")
    assert shown[0] == "main/port  private"
    assert shown[1].startswith("- 2d  active  op:alice  abababab")
    assert shown[2] == "+ 2d  nothing"
    assert shown[4:] == ["  first:", "-   it is 7447\ufffd[2J", "+   it is 7450"]
    assert memory.memory({**value, "lines": []}, {}).endswith("Its text is the same.")
