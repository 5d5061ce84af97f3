"""Lists that are shown anew, on a terminal and in a pipe, with real daemons."""

import io
import json
import os
import queue
import re
import signal
import subprocess
import sys
import types
from typing import Any

import pytest

from muster.cli import parse, screen, text, watch
from muster.verbs.table import VERBS
from tests.cli.terminal import Terminal
from tests.cli.world import ended, environment, muster
from tests.promise import proves

WATCHED = [verb for verb in VERBS.values() if verb.watches]
LISTS = {"machines", "tasks", "runs", "status", "inbox", "questions", "incidents"}


@proves("cli.watch")
def test_every_list_that_goes_on_can_be_watched_and_none_of_many_machines():
    assert {verb.name for verb in WATCHED} >= LISTS
    for verb in WATCHED:
        assert parse.parse([verb.name, "-w"]).watch
        with pytest.raises(parse.Usage, match="one machine"):
            parse.parse([verb.name, "--watch", "--on", "all"])


class Context:
    """A command whose daemon tells what a test puts, and counts how often it is asked."""

    def __init__(self, news: "queue.SimpleQueue[Any]", *answers: Any, json: bool = False) -> None:
        self.news, self.answers, self.json, self.on = news, list(answers), json, ""
        self.command = types.SimpleNamespace(verb=VERBS["tasks"])
        self.asked, self.shown = 0, list[Any]()

    def stream(self, verb: str, args: Any, *, on: str) -> Any:
        assert (verb, on) == ("changes", "")
        while (each := self.news.get()) is not None:
            yield each

    def answer(self) -> Any:
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]

    def page(self, value: Any) -> str:
        return f"{value} at {text.now_ms()}"

    def show(self, value: Any) -> None:
        self.shown.append(value)


@proves("cli.watch")
def test_clocks_go_on_without_anybody_being_asked(monkeypatch):
    """Ten seconds of a clock that goes a hundred times as fast."""
    news: queue.SimpleQueue[Any] = queue.SimpleQueue()
    context, out = Context(news, "one"), io.StringIO()
    monkeypatch.setattr(watch, "obeys", lambda: True)
    monkeypatch.setattr(watch.sys, "stdout", out)
    # Each wait for news is over after ten milliseconds.
    monkeypatch.setattr(watch, "now_ms", lambda: 990)
    ticks = []

    def draw(self: Any, lines: Any) -> None:
        ticks.append(lines)
        if len(ticks) == 10:
            news.put(None)

    monkeypatch.setattr(screen.Screen, "draw", draw)
    news.put({"sorts": []})
    assert watch.watch(context) == 0
    assert (len(ticks) >= 10, context.asked) == (True, 1)


@proves("cli.watch")
def test_a_pipe_gets_the_list_anew_only_where_it_differs():
    news: queue.SimpleQueue[Any] = queue.SimpleQueue()
    context = Context(news, [1], [1], [1, 2], json=True)
    pauses = iter([{"sorts": ["task"]}, {"sorts": ["task"]}, None])

    def answer() -> Any:
        value = Context.answer(context)
        news.put(next(pauses))
        return value

    context.answer = answer  # type: ignore[method-assign]
    news.put({"sorts": []})
    assert watch.watch(context) == 0
    assert (context.asked, context.shown) == (3, [[1], [1, 2]])


@proves("cli.watch")
def test_what_was_so_long_ago_is_longer_ago_by_now():
    value = [{"heard_ms_ago": 1_000, "opened_ms": 5, "of": {"heard_ms_ago": None}}]
    assert watch.aged(value, 250) == [
        {"heard_ms_ago": 1_250, "opened_ms": 5, "of": {"heard_ms_ago": None}}
    ]


@proves("cli.watch")
def test_a_picture_has_no_line_that_is_too_long_and_says_what_is_below():
    lines = [f"\x1b[31m{'x' * 50}\x1b[0m", *map(str, range(30))]
    shown = watch.picture(lines, 20, 10)
    assert shown[0] == f"\x1b[31m{'x' * 18}…\x1b[0m"
    assert (len(shown), shown[-1]) == (9, "and 23 lines more")
    assert watch.picture(["a"], 20, 10) == ["a"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    found = tmp_path_factory.mktemp("alone") / "home"
    muster(found, "init", "--name", "hub", "--listen", "")
    assert muster(found, "up", "--detach").code == 0
    yield found
    muster(found, "down")


def run(home, name: str) -> str:
    spec = home.parent / f"{name}.yaml"
    text = "phases:\n  only:\n    agent: shell\n    do: sleep 1\n    check: 'true'\n"
    spec.write_text(f"muster: 1\nname: {name}\n{text}")
    said = muster(home, "run", str(spec), "--detach", "--json")
    assert said.code == 0, said
    return str(said.value["run"])


@pytest.mark.e2e
@proves("cli.watch")
def test_a_person_sees_runs_come_and_go_and_leaves_with_ctrl_c(home):
    words = [sys.executable, "-m", "muster", "runs", "--watch"]
    with Terminal(words, environment(home), columns=60) as terminal:
        terminal.see("There is no run yet")
        name = run(home, "first")
        terminal.see(name[:12])
        shown = terminal.see("done")
        assert "\x1b[" in shown, "drawn in its place"
        terminal.type("\x03")
        assert terminal.end() == 0
        assert "Traceback" not in terminal.text
    for line in re.split(r"[\r\n]+", shown):
        assert text.width_of(re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line)) < 60


@pytest.mark.e2e
@proves("cli.watch")
def test_a_script_reads_a_line_for_each_change(home):
    with following(home, "runs", "-w", "-o", "json") as child:
        assert isinstance(json.loads(child.stdout.readline()), list)
        name = run(home, "second")
        rows: list[Any] = []
        while not (
            states := [r["state"] for r in rows if r["run"] == name and r["state"] != "open"]
        ):
            rows = json.loads(child.stdout.readline())
        assert states == ["done"]
        child.send_signal(signal.SIGINT)
        assert (child.wait(20), child.stderr.read()) == (0, "")


@pytest.mark.e2e
@proves("cli.watch")
def test_a_daemon_that_goes_away_is_said(home):
    with following(home, "status", "-w") as child:
        assert child.stdout.readline().strip() == "hub"
        os.kill(int((home / "run" / "pid").read_text()), signal.SIGKILL)
        out, err = child.communicate(timeout=30)
        assert (child.returncode, err.count("\n")) == (7, 1), (out, err)
    assert muster(home, "up", "--detach").code == 0


def following(home, *words: str) -> Any:
    return ended(subprocess.Popen(
        [sys.executable, "-m", "muster", *words], env=environment(home),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ))  # fmt: skip
