"""What several machines tell as it happens: each line behind its name, and one that dies says so."""

import ast
import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muster.cli import context, parse, several, streams
from muster.errors import Refused, Unreachable
from muster.verbs.table import VERBS
from tests.cli.test_two_homes import Pair
from tests.cli.world import ended, environment, muster
from tests.promise import proves

# Where several machines make no sense, and why; a new verb says it here.
ONE: dict[str, str] = {
    "down": "whoever passes the call on must be the last",
    "takeover": "one machine goes on with the work",
    "standin": "one machine stands in",
    "rerun": "a run is of one machine, which kept its results",
    "ask": "one plan is looked at before it runs",
    "context": "what maps, removes and ignores is about a folder of one machine",
    "resolve": "a memory is of the fleet: said once",
    "undo": "a memory is of the fleet: said once",
    "acknowledge": "an incident is of one machine",
    "schedule": "a schedule is of the fleet: said once",
    "silence": "a silence is of the fleet: said once",
    "chat": "an account is linked where its bridge is",
    "repo": "what adds, removes and prunes is about a repository of one machine",
}
QUICK = """\
muster: 1
name: quick
phases:
  only: {agent: shell, do: "echo here", check: "true"}
"""


@proves("cli.on-others")
def test_each_verb_that_goes_elsewhere_goes_to_several_or_says_why_not():
    assert {v.name for v in VERBS.values() if v.on == "one" and not v.hidden} == set(ONE)
    for name in ("run", "await", "tail", "logs", "watch"):
        assert VERBS[name].on == "many"
    for words in (["repo", "list"], ["repo", "sync"], ["context", "status"]):
        assert context.CommandContext(parse.parse([*words, "--on", "a,b"])).many
    for words in (["repo", "prune", "main"], ["context", "remove", "notes"]):
        with pytest.raises(parse.Usage, match="goes to one machine"):
            parse.parse([*words, "--on", "a,b"])


@proves("cli.several-is-declared")
def test_a_verb_says_itself_what_it_is_on_several_machines():
    """Else one that is added would have to be named where several are asked."""
    for verb in VERBS.values():
        assert verb.own in ("", *(arg.name for arg in verb.args)), verb.name
    told = {verb.name for verb in VERBS.values() if verb.several == "tells"}
    assert told == {"tail", "logs", "watch", "run"}
    source = Path(several.__file__).read_text(encoding="utf-8")
    words = {n.value for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant)}
    special = {v.name for v in VERBS.values() if v.own or v.undone or v.several != "answers"}
    assert special >= {"await", "repo", "exec", "runs"}
    assert not words & special


@proves("cli.streams-of-several")
@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("nightly", "nightly@m1"),
        ("nightly/test[2]", "nightly@m1/test[2]"),
        ("1ae7", "1ae7"),
        ("1ae7/test", "1ae7/test"),
    ],
)
def test_a_name_is_each_machines_own_run_and_an_id_is_the_same_everywhere(typed, meant):
    assert several.own(typed, "m1") == meant
    for words, word in ((["logs", typed], "task"), (["watch", typed], "run")):
        command = several.of_each(parse.parse(words), "m1")
        assert (command.args[word], command.on) == (meant, "m1")
    assert several.of_each(parse.parse(["await", typed]), "m1").args["what"] == [meant]


@proves("cli.streams-of-several")
def test_more_machines_than_can_be_heard_at_once_are_refused_and_so_is_a_number_of_one():
    rows = [{"name": f"m{number}", "machine": f"{number}"} for number in range(65)]
    several.check_followed(parse.parse(["tail", "--on", "all"]), rows[:64])
    with pytest.raises(Refused, match="at most 64"):
        several.check_followed(parse.parse(["tail", "--on", "all"]), rows)
    with pytest.raises(parse.Usage, match="--since"):
        several.check_followed(parse.parse(["tail", "--since", "3", "--on", "all"]), rows[:2])


class Fleet:
    """A command whose machines tell what a test has them tell."""

    def __init__(self, monkeypatch: Any, **tells: Any) -> None:
        rows = [{"name": n, "machine": n, "state": "up", "roles": []} for n in sorted(tells)]

        def tell(one: streams.Told) -> int:
            found = tells[one.name]
            return int(found(one))

        monkeypatch.setattr(context.CommandContext, "ask", lambda *_: rows)
        monkeypatch.setattr(streams, "ready", lambda *_: None)
        monkeypatch.setattr(streams, "_led", lambda one, _orders: tell(one))

    def follow(self, *words: str) -> int:
        return streams.follow(context.CommandContext(parse.parse(["tail", "--on", "all", *words])))


def dies(one: streams.Told) -> int:
    one.put("alive")
    raise Unreachable("the link was cut")


@proves("cli.streams-of-several")
def test_one_that_dies_says_so_and_the_others_go_on(monkeypatch, capsys):
    died = threading.Event()

    def long(one: streams.Told) -> int:
        assert died.wait(60)
        one.put("still here")
        return 0

    def dying(one: streams.Told) -> int:
        died.set()
        return dies(one)

    fleet = Fleet(monkeypatch, nas=dying, studio=long)
    assert fleet.follow() == 7
    said = capsys.readouterr()
    assert sorted(said.out.splitlines()) == ["nas:    alive", "studio: still here"]
    assert said.err.splitlines() == [
        "nas:    muster: the link was cut",
        "1 of 2 machines did not: nas",
    ]


@proves("cli.streams-of-several")
def test_with_json_each_line_names_its_machine(monkeypatch, capsys):
    def well(one: streams.Told) -> int:
        one.show({"number": 1})
        one.remark("about it")
        return 1

    assert Fleet(monkeypatch, nas=dies, studio=well).follow("--json") == 7
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    by = {name: [each for each in lines if each["machine"] == name] for name in ("nas", "studio")}
    assert by["studio"] == [
        {"machine": "studio", "value": {"number": 1}},
        {"machine": "studio", "note": "about it"},
    ]
    error = {"exit": 7, "kind": "Unreachable", "text": "the link was cut"}
    assert by["nas"][-1] == {"machine": "nas", "error": error}


@proves("cli.streams-of-several")
def test_no_more_is_kept_than_whoever_reads_has_room_for(monkeypatch):
    """Whoever tells waits meanwhile: nothing is lost, and nothing is kept."""
    kept, shown, most = list[Any](), list[str](), 0

    class Counted(queue.Queue[Any]):
        def __init__(self, maxsize: int) -> None:
            super().__init__(maxsize)
            kept.append(self)

    def put(said: streams.Said, *_: Any, **__: Any) -> None:
        nonlocal most
        most = max(most, kept[0].qsize())
        shown.append(said.text)

    def flood(one: streams.Told) -> int:
        for number in range(500):
            one.put(str(number))
        return 0

    monkeypatch.setattr(streams.queue, "Queue", Counted)
    monkeypatch.setattr(streams, "_put", put)
    assert Fleet(monkeypatch, nas=flood).follow() == 0
    assert shown == [*(str(number) for number in range(500)), ""]
    assert kept[0].maxsize == streams._WAITING_MAX >= most


@proves("cli.streams-of-several")
def test_a_terminal_has_room_for_the_name_before_each_line(monkeypatch):
    from muster.cli import table

    monkeypatch.setattr(table.Shape, "spare", 0)
    Fleet(monkeypatch, studio=lambda _: 0).follow()
    assert table.Shape.spare == len("studio: ")


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Iterator[Pair]:
    found = Pair(tmp_path_factory.mktemp("streams"))
    try:
        found.begin()
        yield found
    finally:
        found.end()


@pytest.mark.e2e
@pytest.mark.timeout(240)
@proves("cli.run-on-several", "cli.streams-of-several")
def test_a_run_on_each_of_several_is_planned_run_waited_for_and_read(pair):
    """1. planned: nothing is sent. 2. a run of its own on each, followed. 3. what each came to is
    waited for, and read, by its name. 4. a machine that is away is named, and the other one's run
    goes on.
    """
    spec = pair.folder / "quick.yaml"
    spec.write_text(QUICK)
    plan = pair.ok(pair.hub, "run", str(spec), "--on", "all", "--plan")["plan"]
    assert [each["name"] for each in plan["machines"]] == ["hub", "laptop"]
    assert pair.ok(pair.hub, "runs") == []

    said = muster(pair.hub, "run", str(spec), "--on", "hub,laptop", "--json")
    assert said.code == 0, said
    lines = [json.loads(line) for line in said.out.splitlines()]
    ends = {each["machine"]: each["value"] for each in lines if "progress" in each["value"]}
    assert {name: end["owner"] for name, end in ends.items()} == {"hub": "hub", "laptop": "laptop"}
    assert ends["hub"]["run"] != ends["laptop"]["run"]
    assert {end["state"] for end in ends.values()} == {"done"}

    waited = pair.ok(pair.hub, "await", "quick", "--on", "all")
    assert {name: each["ends"][0]["id"] for name, each in waited.items()} == {
        name: end["run"] for name, end in ends.items()
    }
    read = muster(pair.hub, "logs", "quick", "--on", "all")
    assert read.code == 0, read
    for name in ("hub:    ", "laptop: "):
        assert any(line.startswith(name) and "here" in line for line in read.out.splitlines())

    words = [sys.executable, "-m", "muster", "tail", "--on", "all", "--kind", "task.*", "--json"]
    with ended(
        subprocess.Popen(words, env=environment(pair.hub), stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True)
    ) as tail:  # fmt: skip
        begun = {json.loads(tail.stdout.readline())["machine"] for _ in range(2)}
        assert begun == {"hub", "laptop"}
        muster(pair.laptop, "down")
        away = json.loads(tail.stdout.readline())
        assert (away["machine"], away["error"]["exit"]) == ("laptop", 7)
        one = muster(pair.hub, "run", str(spec), "--on", "hub,laptop", "--again")
        assert (one.code, "hub:    only: done" in one.out) == (7, True)
        assert one.err.splitlines()[-1] == "1 of 2 machines did not: laptop"
        assert "task.open" in tail.stdout.readline()
        tail.send_signal(signal.SIGINT)
        assert tail.wait(60) == 130
