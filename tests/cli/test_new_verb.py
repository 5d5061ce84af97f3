"""A verb that somebody adds: declared in one file, it is there everywhere else by itself."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pytest
from msgspec import Struct
from tools import docs, table

from muster.cli import parse, show
from muster.cli.overview import overview
from muster.node.verb import Column, Verb
from muster.verbs import completion
from muster.verbs.declaration import Request, data, declared, opt, pos, verb
from muster.verbs.table import VERBS
from tests.node.cores import Cores
from tests.promise import proves


class Nudge(Request, frozen=True):
    machine: Annotated[str, pos("whom to nudge", kind="machine")]
    how: Annotated[Literal["softly", "firmly"], opt("how firmly")] = "softly"
    times: Annotated[int, opt("how often", ge=1, le=9)] = 1
    force: Annotated[bool, opt("also who sleeps", short="f", unsigned=True)] = False
    seen: Annotated[list[int], data()] = []  # noqa: RUF012 - msgspec copies it


class Nudged(Struct, frozen=True):
    machine: str
    times: int


def nudge(core: Any, call: Any, ask: Nudge) -> list[Nudged]:
    """Nudge a machine.

    muster nudge build --times 3
    """
    return [Nudged(ask.machine, ask.times + len(ask.seen))]


@pytest.fixture
def row(monkeypatch) -> Iterator[Verb]:
    declare = verb("nudge", auth="local", group="The fleet", object="machine", harmless=True,
                   columns=(Column("machine"), Column("times", "how often")))  # fmt: skip
    declare(nudge)
    made = table.row("nudge")
    monkeypatch.setitem(VERBS, "nudge", made)
    yield made
    del declared["nudge"]


@proves("cli.one-file-a-verb")
def test_a_new_verb_is_in_the_table_the_help_and_the_documents(row):
    assert f'"name":"nudge","summary":"{row.summary}"' in table.text(table.rows())
    assert re.search(r"^  nudge +nudge a machine$", overview((), whole=True), re.MULTILINE)
    with pytest.raises(parse.Shown) as shown:
        parse.parse(["nudge", "--help"])
    for text in ("MACHINE", "--how {softly,firmly}", "-f, --force", "muster nudge build --times 3"):
        assert text in str(shown.value)
    assert "### nudge" in docs.page()
    assert "answers `[{machine: string, times: integer}]`" in docs.page()
    body = docs.openapi()["components"]["schemas"]["Nudge"]["properties"]
    assert body["times"]["maximum"] == 9
    assert body["how"]["enum"] == ["firmly", "softly"]


@proves("cli.one-file-a-verb")
def test_a_new_verb_is_parsed_completed_suggested_and_shown(row):
    found = parse.parse(["nudge", "build", "-f", "--times", "3"])
    assert found.args == {"machine": "build", "how": "softly", "times": 3}
    assert found.options == {"force": True}
    with pytest.raises(parse.Usage, match="did you mean `nudge`"):
        parse.parse(["nugde"])
    with pytest.raises(parse.Usage, match="invalid choice"):
        parse.parse(["nudge", "build", "--how", "x"])
    offered = completion.complete(None, completion.Line(words=("nudge", "--")))  # type: ignore[arg-type]
    assert "--force\talso who sleeps" in offered
    assert show.text("nudge", [{"machine": "build", "times": 3}]).split() == [
        "MACHINE", "HOW", "OFTEN", "build", "3",
    ]  # fmt: skip


@proves("cli.one-file-a-verb")
def test_a_new_verb_is_called_with_its_request_and_answers_a_list(row):
    hub = Cores("hub")["hub"]
    answer = hub.call("nudge", {"machine": "build", "seen": [1, 2]})
    assert answer == {"ok": True, "value": [{"machine": "build", "times": 3}]}
    for args, says in (
        ({}, "nudge needs `machine`; see `muster nudge --help`"),
        ({"machine": 1}, "`machine` of nudge must be a text"),
        ({"machine": "x", "times": 10}, "`times` of nudge must be a whole number from 1 to 9"),
        ({"machine": "x", "times": True}, "`times` of nudge must be a whole number from 1 to 9"),
        ({"machine": "x", "how": "evil"}, "`how` of nudge must be one of softly, firmly"),
        ({"machine": "x", "seen": ["evil"]}, "`seen` of nudge must be as docs/verbs.md says"),
        (
            {"machine": "x", "evil": 1},
            "nudge takes `machine`, `how`, `times`, `force`, `seen`, and",
        ),
    ):
        refused = hub.call("nudge", args)["error"]
        assert refused["kind"] == "Malformed"
        assert refused["text"].startswith(says)
        assert "evil" not in refused["text"]
    # What need not be signed may stand among what is; not the other way round.
    assert hub.call("nudge", {"machine": "x", "force": True})["ok"]
    assert not hub.call("nudge", {"machine": "x"}, options={"how": "firmly"})["ok"]


@proves("cli.one-file-a-verb")
def test_what_nobody_authorised_or_what_is_declared_twice_cannot_be_declared(row):
    with pytest.raises(TypeError, match="auth"):
        verb("poke")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="declared twice"):
        verb("nudge", auth="local")(nudge)
    for wrong in (
        {"auth": "everybody"},
        {"auth": "local", "runs": "x"},
        {"auth": "local", "group": "x"},
    ):
        verb("poke", **wrong)(nudge)
        with pytest.raises(ValueError, match="there is no"):
            table.row("poke")
        del declared["poke"]
