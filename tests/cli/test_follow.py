"""Following a run: what is said while nothing happens."""

import contextlib
import queue
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from muster.cli import follow, news, steps
from muster.errors import Conflict, Unreachable
from muster.verbs import daemon_checks
from tests.promise import proves


class CommandContext:
    json, alone = False, True

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def put(self, text: str) -> None:
        print(text)


WAITS = {"phase": "one", "instance": "", "task": "ab" * 16, "fits": False}


@proves("cli.a-run-says-what-it-waits-for")
def test_what_keeps_a_task_waiting_is_said_and_is_no_change(capsys):
    context: Any = CommandContext()
    change = {"phase": "one", "state": "leased", "task": "ab" * 16}
    no = {**WAITS, "waits": "studio: no label tests; build: away"}
    gone = {**WAITS, "fits": True, "waits": "there is no repository 'main' here"}
    follow._watch(context, iter([no, change, gone, {"settled": "done"}]))
    assert capsys.readouterr().out == "one: running\n"
    assert (
        "one waits for a machine that fits (studio: no label tests; build: away)" in context.said[0]
    )
    assert "one waits: there is no repository 'main' here" in context.said[1]
    assert all("`muster why abababababab` says more" in each for each in context.said)


@proves("cli.live-view")
def test_who_follows_one_task_hears_how_it_is_heard_and_nothing_of_others():
    mine, note = {"task": "ab", "state": "leased"}, {"note": "as far as this machine hears of it"}
    told = [note, {"task": "cd", "state": "done"}, mine, {"task": "ab", "state": "done"}]
    found = list(follow._until_over(iter(told), "ab"))
    assert found[:2] == [note, mine]
    assert found[-1]["settled"] == "done"


@proves("cli.interrupt-says-what-may-be")
def test_who_leaves_before_anything_was_told_hears_how_to_come_back():
    class Left(CommandContext):
        def ask(self, *_: Any, **__: Any) -> Any:
            raise KeyboardInterrupt

    context: Any = Left()
    with pytest.raises(KeyboardInterrupt):
        follow.follow(context, {"run": "ab" * 16, "owner": "studio", "fresh": True})
    assert "`muster watch abababababab` comes back to it" in context.said[0]


class Known:
    """A daemon that knows one run, by all its names."""

    def __init__(self, text: str) -> None:
        self.command, self.on = SimpleNamespace(args={"run": text}), ""

    def ask(self, verb: str, args: Any, **_: Any) -> Any:
        if verb == "why":
            return {"task": {"task": "cd" * 16}}
        return {"run": "ab" * 16, "name": "fix", "tasks": [{"task": "cd" * 16}]}


@proves("cli.live-view")
@pytest.mark.parametrize(
    ("text", "task"),
    [("fix", ""), ("abab", ""), ("fix-abababab", ""), ("cdcd", "cd" * 16), ("fix/one", "cd" * 16)],
)
def test_a_run_is_watched_by_each_of_its_names_and_a_task_by_its_own(monkeypatch, text, task):
    followed: list[str] = []
    monkeypatch.setattr(follow, "follow", lambda _context, _run, task: followed.append(task))
    context: Any = Known(text)
    steps.watch(context)
    assert followed == [task]


FITS = {"machine": "studio", "fits": True, "reasons": []}


class Waiting:
    """A daemon with two tasks that wait."""

    def ask(self, verb: str, args: Any) -> Any:
        if verb == "tasks":
            rows = [("a" * 32, "queued"), ("b" * 32, "queued"), ("c" * 32, "leased")]
            return [{"task": task, "state": state, "phase": task[0]} for task, state in rows]
        assert verb == "why"
        reason = "the repository is gone" if args["task"][0] == "a" else ""
        return {"now": {"candidates": [FITS], "reason": reason}}


@proves("cli.doctor-finds")
def test_doctor_says_what_keeps_work_waiting():
    context: Any = Waiting()
    (check,) = daemon_checks._waiting(context)
    assert (check.name, check.state, check.text) == (
        "work",
        "note",
        "a waits: the repository is gone",
    )


@proves("cli.a-run-says-what-it-waits-for")
def test_a_dumb_terminal_gets_a_line_for_each_change(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    change = {"phase": "one", "instance": "", "state": "leased", "machine": "studio", "task": "ab"}
    context: Any = CommandContext()
    assert follow._watch(context, iter([change, {"settled": "done"}])) == "done"
    assert capsys.readouterr().out == "one: running on studio\n"


class Owner:
    """What a daemon tells on each asking, by whom it is asked of; an error ends it."""

    def __init__(self, *tells: tuple[str, list[Any]], json: bool = False) -> None:
        self.tells, self.json, self.said = list(tells), json, list[str]()
        self.command = SimpleNamespace(verb=SimpleNamespace(name="watch"))

    def stream(self, verb: str, args: Any, *, on: str) -> Any:
        whose, tells = self.tells.pop(0)
        assert (verb, on) == ("watch", whose)
        for each in tells:
            if isinstance(each, Exception):
                raise each
            yield each

    def say(self, text: str) -> None:
        self.said.append(text)


@proves("cli.live-view")
@pytest.mark.parametrize("json", [False, True])
def test_who_loses_the_owner_goes_on_from_this_machines_copy(json):
    context: Any = Owner(
        ("hub", [{"state": "leased"}, Unreachable("the link is gone")]),
        ("", [{"state": "done"}, {"settled": "done"}]),
        json=json,
    )
    told = list(follow._changes(context, "1ae7", "hub"))
    notes = [str(each["note"]) for each in told if "note" in each] + context.said
    assert [each for each in told if "note" not in each] == [
        {"state": "leased"}, {"state": "done"}, {"settled": "done"},
    ]  # fmt: skip
    assert notes == ["as far as this machine hears of it, without signs of life: the link is gone"]
    assert bool(context.said) is json, "a script's lines are as they always were"


@proves("cli.live-view")
def test_who_missed_some_of_it_is_told_anew_where_it_stands_and_who_was_told_nothing_is_refused():
    behind = Conflict("more happened than was read; follow it again")
    context: Any = Owner(
        ("", [{"state": "leased"}, behind]), ("", [{"state": "done"}, {"settled": "done"}])
    )
    told = list(follow._changes(context, "1ae7", ""))
    assert told[-1] == {"settled": "done"}
    none: Any = Owner(("", [behind]))
    with pytest.raises(Conflict):
        list(follow._changes(none, "1ae7", ""))


@proves("cli.live-view")
def test_a_terminal_that_was_stopped_makes_the_command_keep_no_more_than_so_much(monkeypatch):
    monkeypatch.setattr(news, "NEWS_MAX", 50)
    monkeypatch.setattr(news, "PAUSE_S", 0.001)
    gave, end = list[int](), threading.Event()

    def tell() -> Any:
        for number in range(1_000):
            gave.append(number)
            yield {"number": number}
        end.set()

    with news.listening(tell()) as heard:
        # Nothing is drawn: the terminal takes nothing.
        assert not end.wait(0.2)
        assert len(gave) <= 51
        read = [heard.get(timeout=5) for _ in range(1_001)]
    assert read[-1] is None
    assert [each["number"] for each in read[:-1]] == list(range(1_000))


@proves("cli.live-view-is-at-once")
def test_a_change_after_a_quiet_moment_is_drawn_at_once_and_a_storm_of_them_in_few_pictures(
    monkeypatch,
):
    pauses, pictures = list[float](), list[int]()
    monkeypatch.setattr(follow, "boot_ms", lambda: 100_000)
    monkeypatch.setattr(follow.time, "sleep", pauses.append)
    monkeypatch.setattr(follow, "picture", lambda *_: pictures.append(1) or [])
    monkeypatch.setattr(follow, "Screen", lambda _: Nothing())
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()
    change = {"phase": "one", "instance": "", "state": "leased", "task": "ab"}
    for each in [*[change] * 500, {"settled": "done"}]:
        told.put(each)
    monkeypatch.setattr(follow, "listening", lambda _: contextlib.nullcontext(told))
    context: Any = CommandContext()
    assert follow._drawn(context, iter([])) == "done"
    assert pauses == [0.0], "nothing was drawn just before"
    assert len(pictures) == 1


class Nothing:
    """A screen that nobody sees."""

    def size(self) -> tuple[int, int]:
        return 80, 24

    def draw(self, lines: Any) -> None:
        pass

    def wipe(self) -> None:
        pass
