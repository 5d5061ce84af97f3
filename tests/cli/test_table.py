"""Lists on terminals of any width, and where there is no terminal."""

import re
import types
import typing
from collections.abc import Generator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
import pytest
from msgspec import UNSET, UnsetType
from tools import table as tool

from muster.cli import parse, show, table, text
from muster.node.verb import Column, Later
from muster.verbs.declaration import declared
from muster.verbs.table import VERBS
from tests.promise import proves

# These are shown as texts, however long; a terminal may wrap them as it does any text.
TEXTS = {"inbox", "threads", "memory"}
# One thing, which has a name.
ALONE = {"delegate"}
LISTS = [v.name for v in VERBS.values() if not v.hidden and v.names and v.name not in TEXTS | ALONE]
WORDS = {
    "long": "a-name-that-somebody-thought-was-a-good-idea-and-that-goes-on-and-on",
    "wide": "名前が長い機械のことを言う言葉であり",
    "mixed": "é🚀 e\u0301 ünïcode ﬁn",
    "plain": "build",
}
# Client verbs say nothing of their answers.
BY_HAND: dict[str, Any] = {
    "peer": {
        "rows": [
            {"name": "X", "fleet": "ab" * 32, "doors": ["X"], "waiting": 1, "last": "X"},
        ]
    },
    "operator": {"operators": [{"name": "X", "state": "orders", "since_ms": 1, "key": "ab" * 32}]},
    "secret": {
        "secrets": [
            {
                "name": "X",
                "place": "file",
                "set_ms": 1,
                "granted": ["X"],
                "over": ["X"],
                "reason": "X",
            }
        ]
    },
    "chat": {
        "chats": [
            {
                "account": "X",
                "workspace": "X",
                "machine": "X",
                "may": ["X"],
                "by": "X",
                "until_ms": 1_700_000_000_000,
                "id": "ab" * 32,
            }
        ]
    },
    "notify": [{"state": "ready", "name": "X", "as": "push", "place": "file", "reason": "X"}],
    "schedule": {
        "schedules": [
            {
                "name": "X",
                "state": "due",
                "when": "30 2 * * *",
                "owner": "X",
                "fence": "X",
                "next_ms": 1_700_000_000_000,
                "last": "fired",
                "last_ms": 1_700_000_000_000,
                "reason": "X",
            }
        ]
    },
    "device": {
        "devices": [
            {"device": "X", "state": "orders", "operator": "X", "rights": ["X"], "until_ms": 1}
        ]
    },
}


@pytest.fixture
def terminal(monkeypatch):
    def of(columns: int, encoding: str = "utf-8") -> None:
        stdout = types.SimpleNamespace(
            isatty=lambda: True, fileno=lambda: 1, encoding=encoding, write=None, flush=None
        )
        monkeypatch.setattr(table, "sys", types.SimpleNamespace(stdout=stdout))
        monkeypatch.setattr(text, "sys", types.SimpleNamespace(stdout=stdout))
        size = types.SimpleNamespace(columns=columns)
        monkeypatch.setattr(table.os, "get_terminal_size", lambda _: size)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)

    return of


def sample(kind: Any, word: str) -> Any:
    """A value of this type in which every text is that word."""
    base = get_origin(kind) or kind
    if base is Annotated:
        return sample(get_args(kind)[0], word)
    if base in (Union, types.UnionType):
        some = [t for t in get_args(kind) if t not in (type(None), UnsetType, Later)]
        return sample(some[0], word)
    if base is Literal:
        return get_args(kind)[0]
    if isinstance(base, type) and issubclass(base, msgspec.Struct):
        return {n: sample(t, word) for n, t in typing.get_type_hints(base).items()}
    if base in (list, tuple):
        return [sample(get_args(kind)[0], word)] * 3 if get_args(kind) else []
    if base is dict:
        return {word: sample(get_args(kind)[1], word)}
    simple = {str: word, int: 1_700_000_000_000, bool: True, float: 1.0, UNSET: None}
    return simple.get(base)


def answer(verb: str, word: str) -> Any:
    if verb in BY_HAND:
        return msgspec.json.decode(msgspec.json.encode(BY_HAND[verb]).replace(b"X", word.encode()))
    tool.rows()
    kind = declared[verb].handler.__annotations__["return"]
    if get_origin(kind) is Generator:
        kind = get_args(kind)[-1]
    some = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    listed = next((t for t in some if get_origin(t) is list), some[0])
    value = sample(listed, word)
    for each in value if isinstance(value, list) else ():
        each.update({k: "ab" * 32 for k in ("task", "run", "id", "fork", "message") if k in each})
    return value


def lines(verb: str, word: str) -> list[str]:
    shown = show.text(verb, answer(verb, word))
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in shown.splitlines()]


@proves("cli.lists-fit")
@pytest.mark.parametrize("columns", [80, 40, 20])
@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("verb", LISTS)
def test_no_line_of_a_list_is_wider_than_its_terminal(verb, word, columns, terminal):
    for encoding in ("utf-8", "ascii"):
        terminal(columns, encoding)
        shown = lines(verb, WORDS[word])
        assert len(shown) > 1
        for line in shown:
            assert text.width_of(line) <= columns, line
        if encoding == "ascii":
            assert "…" not in "".join(shown)


@proves("cli.lists-fit")
@pytest.mark.parametrize("verb", LISTS)
def test_at_eighty_columns_a_list_of_short_names_is_whole_where_it_counts(verb, terminal):
    terminal(80)
    shown = lines(verb, "build")
    # The name of a row is what the next command is given.
    named = {"ab" * 6, "build"}
    assert all(named & set(line.replace(",", " ").split()) for line in shown[1:]), shown


@proves("cli.lists-fit")
@pytest.mark.parametrize("verb", LISTS)
def test_what_is_no_terminal_gets_every_row_whole(verb):
    for word in ("long", "wide"):
        shown = show.text(verb, answer(verb, WORDS[word]))
        assert WORDS[word] in shown
        assert "…" not in shown


COLUMNS = (
    Column("name"), Column("id", form="id"), Column("from", rank=1), Column("to", rank=2),
    Column("text", least=10),
)  # fmt: skip
ROW = ("build", "ab" * 6, "studio", "laptop", "what somebody wanted to say to somebody else")


@proves("cli.lists-fit")
def test_the_least_columns_are_left_out_first_and_then_texts_are_cut(terminal):
    def shown(columns: int) -> list[str]:
        terminal(columns)
        found = table.table(COLUMNS, [ROW]).splitlines()
        return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in found]

    assert shown(200)[1] == "build  abababababab  studio  laptop  " + ROW[4]
    assert shown(60)[1] == "build  abababababab  studio  laptop  what somebody wanted t…"
    assert shown(46)[1] == "build  abababababab  studio  what somebody wa…"
    assert shown(32)[1] == "build  abababababab  what someb…"
    # The last thing to go are pieces of what must be whole.
    assert shown(20)[1].startswith("build")
    assert [text.width_of(line) <= 20 for line in shown(20)] == [True, True]


@proves("cli.lists-fit")
def test_a_cell_that_is_cut_keeps_its_colour_and_ends_it(terminal):
    terminal(20)
    painted = text.paint("a" * 30, "red")
    assert table.table([Column("a")], [(painted,)]).splitlines()[1] == f"\x1b[31m{'a' * 19}…\x1b[0m"


@proves("cli.lists-fit")
def test_without_a_terminal_an_empty_cell_holds_the_place_of_its_column():
    shown = table.table(("name", "none", "n"), [("a", "", "1"), ("long name", "", "22")])
    assert shown.splitlines() == ["NAME       NONE  N", "a          -     1", "long name  -     22"]


@proves("cli.lists-fit")
def test_wide_shows_every_column_on_a_narrow_terminal_too(terminal, monkeypatch):
    terminal(20)
    monkeypatch.setattr(table.Shape, "wide", True)
    assert "what somebody wanted to say to somebody else" in table.table(COLUMNS, [ROW])


@proves("cli.output")
def test_the_shape_of_an_answer_is_asked_for_in_one_way():
    assert parse.parse(["tasks", "-o", "json"]).json
    assert parse.parse(["-o", "wide", "tasks"]).output == "wide"
    assert parse.parse(["tasks", "--output=name"]).output == "name"
    for words in (["status", "-o", "name"], ["tasks", "-o", "name", "--json"],
                  ["tasks", "-o", "yaml"]):  # fmt: skip
        with pytest.raises(parse.Usage):
            parse.parse(words)
    for words in (["-o", "json"], ["-ojson"], ["--output=json"], ["--json"]):
        assert parse.wants_json(["tasks", *words])
    assert not parse.wants_json(["send", "build", "json", "-o", "wide"])


@proves("cli.output")
@pytest.mark.parametrize("verb", [v for v in LISTS if v not in BY_HAND])
def test_names_alone_are_whole_one_a_line(verb):
    names = show.names(VERBS[verb], answer(verb, "build"))
    assert len(names) == 3
    assert set(names) <= {"ab" * 32, "build"}


@proves("cli.agents")
def test_from_where_the_catalogue_has_an_agent_is_for_whoever_asks_for_all(terminal, monkeypatch):
    row = {"agent": "claude", "title": "Claude Code", "machine": "studio", "state": "ready",
           "version": "2.1.332", "driver": "acp", "login": "yes", "passed": 1, "failed": 0,
           "streak": 1, "mend": "", "distribution": "npx @agentclientprotocol/x@1.0.0"}  # fmt: skip
    terminal(300)
    assert "npx" not in show.text("agents", [row])
    monkeypatch.setattr(table.Shape, "wide", True)
    shown = show.text("agents", [row])
    assert "CATALOGUE" in shown
    assert "npx @agentclientprotocol/x@1.0.0" in shown


@proves("cli.lists-fit", "cli.agents")
@pytest.mark.parametrize("login", ["no", ""])
def test_at_eighty_columns_the_agents_and_what_is_to_be_done_are_whole(login, terminal):
    mend = "run `claude` there once and log in, or give it ANTHROPIC_API_KEY"
    row = {"agent": "claude", "title": "Claude Code", "machine": "studio-of-the-second-floor",
           "state": "not logged in", "version": "2.1.332", "driver": "headless", "login": login,
           "passed": 12, "failed": 1, "streak": 8, "mend": mend}  # fmt: skip
    absent = row | {"agent": "evil", "machine": "", "state": "not found", "mend": "get\x1b[31m it"}
    terminal(80)
    shown = show.text("agents", [row, absent])
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in shown.splitlines()]
    assert max(map(text.width_of, plain)) <= 80, plain
    assert all(word in plain[1] for word in ("claude", "studio-of", "not logged in")), plain
    assert mend in " ".join(" ".join(plain).split())
    assert "get\x1b" not in shown, "what a catalogue says steers no terminal"
