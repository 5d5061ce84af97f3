"""A service is one file and one line: the parts of a core, and one more that this test makes."""

import importlib
import pkgutil
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pytest
from tests.node.cores import Cores, One
from tests.promise import proves

import muster.node
from muster.log.entry import Entry
from muster.log.fold import Rows, Table
from muster.log.stream import FleetId, StreamName
from muster.node import event as ev
from muster.node.core import Core
from muster.node.part import Part, all_folds
from muster.node.parts import PARTS


class Rang(ev.Event, frozen=True):
    """Somebody rang."""

    by: str


class Ring(ev.Effect, frozen=True):
    """Let it ring."""

    times: int


class BellRow(NamedTuple):
    stream: StreamName
    by: str
    times: int


BELL = Table("bell", BellRow)


class _BellFold:
    name = "bell"
    tables = (BELL,)
    kinds = frozenset({"bell.rang"})

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        row = rows.get(BELL, entry.header.actor) or BellRow(rows.stream, entry.header.actor, 0)
        return (row._replace(times=row.times + 1),)


class Bell(Part):
    """A service of this test: it writes down who rang, and rings when it is settled what it says."""

    name = "bell"
    effects = (Ring,)

    def __init__(self, core: Core) -> None:
        self.core = core
        self.seen: list[str] = []
        self.due = 0
        core.on(Rang, self._rang)
        core.on("bell.rang", self._on_rang)

    @staticmethod
    def folds(fleet: FleetId) -> Sequence[Any]:
        return (_BellFold(),)

    def start(self) -> None:
        self.seen.append("start")

    def tick(self) -> None:
        self.seen.append("tick")

    def flush(self) -> None:
        self.seen.append("flush")
        self.core.do(Ring(self.due))

    def _rang(self, event: Rang) -> None:
        if event.by == "nobody":
            raise KeyError(event.by)
        self.core.append("bell.rang", b"{}", actor=f"op:{event.by}")

    def _on_rang(self, stream: StreamName, _entry: Entry) -> None:
        self.seen.append("entry")
        self.due = self.core.tables.rows(BELL, stream=stream)[0].times
        self.dirty = True


def _bells(*more: type[Part]) -> tuple[One, Bell]:
    hub = Cores("hub", parts=(*PARTS, Bell, *more))["hub"]
    return hub, hub.core.part(Bell)


@proves("node.a-service-is-one-file")
def test_a_part_that_is_named_among_the_parts_has_its_tables_its_turns_and_its_effects():
    hub, bell = _bells()
    assert bell.seen == ["start"]
    assert Ring in hub.core.wants
    bell.seen.clear()
    for _ in range(2):
        hub.step(Rang("alice"))
    assert hub.notes == []
    assert bell.seen == ["entry", "flush"] * 2
    assert [each for each in hub.effects if isinstance(each, Ring)] == [Ring(1), Ring(2)]
    (row,) = hub.core.tables.rows(BELL)
    assert (row.by, row.times) == ("op:alice", 2)
    bell.seen.clear()
    hub.step(ev.Tick())
    assert bell.seen == ["tick"]
    hub.world.restart("hub")
    assert hub.core.tables.rows(BELL)[0].times == 2
    assert hub.core.part(Bell).seen == ["start"]


@proves("log.fold-rows")
def test_every_table_lies_in_the_database_as_the_class_of_its_rows_says():
    hub, _ = _bells()
    tables = [
        t for fold in all_folds(hub.core.membership.fleet, (*PARTS, Bell)) for t in fold.tables
    ]
    assert BELL in tables
    for table in tables:
        asked = f"select name, lower(type), pk from pragma_table_info('{table.name}') order by cid"
        (stream, *columns) = hub.core.tables.query(asked)
        assert stream[:2] == ("stream", "int")
        assert tuple((name, sort) for name, sort, _ in columns) == table.columns
        keys = {name for name, _, key in (stream, *columns) if key}
        assert keys == {*table.row._fields[: 1 + table.key]}


@proves("node.a-service-is-one-file", "node.one-failure-is-one-unit")
def test_what_fails_in_a_part_is_told_under_its_name_and_keeps_no_other_from_its_turn():
    class Deaf(Part):
        name = "deaf"

        def start(self) -> None:
            raise KeyError("start")

        def tick(self) -> None:
            raise KeyError("tick")

    class Last(Bell):
        name = "last"
        effects = ()

        @staticmethod
        def folds(fleet: FleetId) -> Sequence[Any]:
            return ()

    hub, bell = _bells(Deaf, Last)
    last = hub.core.part(Last)
    assert (bell.seen, last.seen) == (["start"], ["start"])
    hub.step(Rang("nobody"))
    hub.step(ev.Tick())
    assert last.seen == ["start", "tick"]
    assert hub.core.counters["failed-deaf"] == 2
    assert (hub.core.counters["failed-bell"], hub.core.counters["failed-last"]) == (1, 1)
    assert hub.core.tables.rows(BELL) == []


@proves("node.message-wakes-no-task")
def test_a_message_asks_no_part_to_flush(monkeypatch: pytest.MonkeyPatch):
    flushed: list[str] = []
    for part in PARTS:
        if part.flush is not Part.flush:
            flush = part.flush
            spy = lambda self, flush=flush: (flushed.append(self.name), flush(self))  # noqa: E731
            monkeypatch.setattr(part, "flush", spy)
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(1_000)
    world["hub"].submit()
    assert {"owner", "worker"} <= set(flushed)
    flushed.clear()
    answer = world["hub"].order("send", "studio", {"text": ["hi"], "to": "studio"})
    assert answer["ok"]
    assert world["studio"].call("inbox", {})["ok"]
    assert flushed == []


@proves("node.a-service-is-one-file")
def test_every_part_in_the_product_is_named_once():
    for module in pkgutil.walk_packages(muster.node.__path__, "muster.node."):
        importlib.import_module(module.name)
    every = {p.__name__ for p in Part.__subclasses__() if p.__module__.startswith("muster.")}
    assert sorted(each.__name__ for each in PARTS) == sorted(every)
    names = [each.name for each in PARTS]
    assert all(names)
    assert len(set(names)) == len(names)


@proves("node.a-service-is-one-file")
def test_every_event_in_the_product_is_heard_by_some_part():
    # What nobody hears is no event, and the core takes it for a mistake.
    every = {e for e in ev.Event.__subclasses__() if e.__module__.startswith("muster.")}
    assert every - Cores("hub", "studio")["hub"].core._hears.keys() == set()
