"""Two versions in one fleet, and one machine before and after its upgrade.

A newer version is this one with bodies that have a field more: what it writes is frozen in
tests/vectors/newer.json, and what a machine makes of it is looked at before and after it knows them.
"""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.node.cores import Cores
from tests.promise import proves

from muster.fleet import assembly, facts, folds
from muster.log import canon
from muster.log import kind as kind_registry
from muster.log.kind import KINDS, Kind
from muster.message import fold as message_fold
from muster.message.fold import READING
from muster.message.kinds import MessageRead
from muster.node import event as ev

NEWER: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "newer.json").read_text()
)


def write(world: Cores, name: str, kind: str, body: dict[str, Any]) -> None:
    core = world[name].core
    with core.store.transaction():
        core.append(kind, canon.encode(body))
        core.store.seal_dirty(core.membership.signer("seal"))
    world[name].step(ev.Tick())
    world.pass_ms(1_000)


def with_field(body: type[msgspec.Struct], field: tuple[Any, ...]) -> type[msgspec.Struct]:
    strict = bool(body.__struct_config__.forbid_unknown_fields)
    return msgspec.defstruct(
        body.__name__, [field], bases=(body,), frozen=True, forbid_unknown_fields=strict
    )


def learns(monkeypatch, name: str, body: type[msgspec.Struct], *places: Any) -> None:
    """From here on this process is the newer version."""
    known = KINDS[name]
    monkeypatch.setitem(kind_registry.KINDS, name, Kind(name, body, known.unknown))
    monkeypatch.setitem(kind_registry._names, body, name)
    for place in places:
        monkeypatch.setattr(place, body.__name__, body)


@pytest.fixture
def world() -> Cores:
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(2_000)
    return world


@proves("log.kinds-say-what-is-unknown")
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_what_a_newer_version_adds_is_read_over_or_refused_as_the_kind_says(kind):
    assert NEWER["unknown"][kind] == KINDS[kind].unknown, "a kind does not change its mind"


@proves("log.kinds-say-what-is-unknown")
def test_what_a_newer_machine_says_of_itself_counts_as_far_as_it_is_understood(world):
    hub, studio = world["hub"], world["studio"]
    write(world, "studio", "machine.facts", NEWER["facts"])
    assert "addresses" in NEWER["facts"]
    assert hub.core.roster.facts[studio.id].labels == ("gpu",)
    assert hub.core.tables.skipped() == []


@proves("log.kinds-say-what-is-unknown", "store.reads-again")
def test_after_an_upgrade_a_field_that_was_read_over_is_there_without_a_rebuild(world, monkeypatch):
    hub, studio = world["hub"], world["studio"]
    write(world, "studio", "machine.facts", NEWER["facts"])
    newer = with_field(facts.Facts, ("addresses", tuple[str, ...], ()))
    learns(monkeypatch, "machine.facts", newer, facts, folds, assembly)
    world.restart("hub")
    found: Any = hub.core.roster.facts[studio.id]
    assert found.addresses == ("ssh://studio",)


@proves("store.reads-again")
def test_an_entry_with_a_field_that_must_be_understood_counts_after_the_upgrade(world, monkeypatch):
    hub = world["hub"]
    assert hub.order("send", "studio", {"text": ["hi"], "to": "studio"})["ok"]
    world.pass_ms(500)
    (sent,) = hub.entries("message.send")
    write(world, "studio", "message.read", {**NEWER["read"], "message": sent.id.hex()})
    skipped = [(each.fold, each.reason) for each in hub.core.tables.skipped()]
    assert skipped == [("reading", "bad-body")]
    assert hub.core.tables.rows(READING, message=bytes(sent.id)) == []
    newer = with_field(MessageRead, ("aloud", bool, False))
    learns(monkeypatch, "message.read", newer, message_fold)
    world.restart("hub")
    assert hub.core.tables.skipped() == []
    assert len(hub.core.tables.rows(READING, message=bytes(sent.id))) == 1


@proves("store.reads-again")
def test_a_mended_sentence_about_a_body_changes_no_fold(monkeypatch):
    before = kind_registry.schema("message.read")
    assert "message" in before
    told = with_field(MessageRead, ("aloud", bool, False))
    monkeypatch.setattr(MessageRead, "__doc__", "Said better.")
    assert kind_registry.schema("message.read") == before
    learns(monkeypatch, "message.read", told)
    assert kind_registry.schema("message.read") != before


@proves("store.reads-again")
def test_a_start_of_the_same_version_folds_nothing_again(world, monkeypatch):
    folded: list[Any] = []
    store = type(world["hub"].core.store)
    read = store._run_entries
    monkeypatch.setattr(
        store, "_run_entries", lambda *args: (folded.append(args[1:]), read(*args))[1]
    )
    world.restart("hub")
    assert folded == []
