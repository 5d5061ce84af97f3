"""What machines of an older version read of what we write."""

import importlib
import inspect
import json
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from tests.fleet.world import FLEET_ID, NOW, STUDIO
from tests.node.cores import Cores
from tests.promise import proves

from muster.fleet import kinds
from muster.fleet.facts import Facts, Logins, Way
from muster.fleet.folds import LOGINS, FleetFold, fleet_folds
from muster.limits import WAYS_MAX
from muster.log import canon
from muster.log.kind import KINDS
from muster.log.stream import FLEET, Incarnation, StreamName
from muster.node.host.reach import places, said
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.store.store import Draft, Store

KNOWN: dict[str, list[str]] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "bodies.json").read_text()
)
# In memory it has one field more, which is told in an entry of another kind.
FACTS = "fleet.facts.Facts"

# Fields that came later: told only where they say something, and then who does not know them takes
# nothing of the entry (ADR 26): a rerun read without what it keeps would be another run.
LATER = {"task.kinds.RunOpen": {"kept", "budget", "after"}}

# The frozen file names what is written by the place where it stood then.
MOVED = {"node.call.Request": "node.call.answers.Request"}


def body(name: str) -> Any:
    module, _, found = MOVED.get(name, name).rpartition(".")
    return getattr(importlib.import_module(f"muster.{module}"), found)


@proves("node.versions-mix")
@pytest.mark.parametrize("name", sorted(KNOWN.keys() - {FACTS}))
def test_a_body_has_the_fields_that_an_older_machine_knows_and_no_other(name):
    # In whatever order: what is written is sorted by their names.
    fields, later = body(name).__struct_fields__, LATER.get(name, set())
    assert sorted(set(fields) - later) == sorted(KNOWN[name]), "a new meaning gets a new kind"
    if later:
        (kind,) = (each for each in KINDS.values() if each.body is body(name))
        assert body(name).__struct_config__.omit_defaults
        assert (kind.unknown, later <= set(fields)) == ("refuse", True)


@proves("node.versions-mix")
def test_every_body_of_an_older_machine_is_still_here():
    assert len(KNOWN) > 50
    assert all(inspect.isclass(body(name)) for name in KNOWN)


@proves("node.versions-mix", "task.logins-are-facts")
def test_an_older_machine_reads_our_facts_and_we_read_the_logins_beside_them():
    hub = Cores("hub", "studio")["hub"]
    facts = hub.facts(agents={"claude": "2", "shell": ""}, logins={"claude": "no"})
    hub.step(FactsChanged(facts))
    hub.world.link("hub", "studio")
    hub.world.drain()
    told = [json.loads(entry.body) for entry in hub.entries(kinds.MACHINE_FACTS)]
    assert told
    assert all(each.keys() <= set(KNOWN[FACTS]) for each in told)
    for machine in (hub, hub.world["studio"]):
        found = machine.core.roster.facts[hub.core.machine]
        assert found == msgspec.convert(facts, Facts), "put together again"
    before = len(hub.entries(kinds.MACHINE_LOGINS)), len(told)
    hub.step(FactsChanged({**facts, "logins": {"claude": "yes"}}))
    assert hub.core.roster.facts[hub.core.machine].logins == {"claude": "yes"}
    after = len(hub.entries(kinds.MACHINE_LOGINS)), len(hub.entries(kinds.MACHINE_FACTS))
    assert after == (before[0] + 1, before[1]), "only what is news is told"


@proves("node.versions-mix")
def test_a_machine_that_tells_no_logins_has_facts_all_the_same():
    hub = Cores("hub")["hub"]
    rest = {name: value for name, value in hub.facts().items() if name != "logins"}
    hub.step(FactsChanged(rest))
    assert hub.core.roster.facts[hub.core.machine].logins == {}


class Before(FleetFold):
    """As it was when a row of logins was no more than these."""

    version = 3

    def apply(self, entry, rows):
        (row,) = super().apply(entry, rows)
        return [row._replace(logins=canon.encode(json.loads(row.logins)["logins"]).decode())]


@proves("node.versions-mix", "task.logins-are-facts")
def test_a_home_whose_tables_an_older_version_filled_tells_the_same_facts(tmp_path):
    def opened(fold):
        path, rng = str(tmp_path / "log.db"), Random(1).randbytes
        return Store(path, fleet=FLEET_ID, machine=STUDIO.machine, rng=rng, folds=[fold])

    name = "fleet.logins"
    fold = next(each for each in fleet_folds(FLEET_ID) if each.name == name)
    store = opened(Before(name, FLEET_ID, fold.tables, fold._handlers))
    said = Logins({"claude": "yes"}, {"claude": "acp"})
    draft = Draft(kinds.MACHINE_LOGINS, "muster", (), canon.encode(said))
    with store.transaction():
        store.append(StreamName(STUDIO.machine, Incarnation("a" * 32), FLEET), (draft,), NOW)
        store.seal_dirty(STUDIO.signer("seal"))
    assert [row.logins for row in store.tables.rows(LOGINS)] == ['{"claude":"yes"}']
    store.close()
    store = opened(fold)
    (row,) = store.tables.rows(LOGINS)
    assert msgspec.json.decode(row.logins, type=Logins) == said
    store.close()


NEWER = [{"address": "nas.example:1", "channel": "http"}, {"address": "n/2", "channel": "pigeon"}]


def told_of(hub: Any, machine: Any) -> tuple[Way, ...]:
    return places({}, hub.core.roster, hub.id).get(machine.id, ())


@proves("node.reach-is-told", "node.versions-mix")
def test_where_a_machine_is_reached_is_told_by_channel_and_to_older_machines_by_one_address():
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    hub, studio = world["hub"], world["studio"]
    facts = {**studio.facts(address="nas.example:1"), "reach": NEWER}
    studio.step(FactsChanged(facts))
    world.pass_ms(1_000)
    assert told_of(hub, studio) == (Way("http", "nas.example:1"), Way("pigeon", "n/2"))
    (told,) = [json.loads(entry.body) for entry in hub.entries(kinds.MACHINE_REACH)]
    assert told == {"reach": NEWER}
    newest = json.loads(hub.entries(kinds.MACHINE_FACTS)[-1].body)
    assert newest["address"] == "nas.example:1"
    assert newest.keys() <= set(KNOWN[FACTS])


@proves("node.reach-is-told")
def test_where_a_machine_is_reached_is_told_when_it_changes_and_not_before():
    hub = Cores("hub")["hub"]
    told = lambda: [json.loads(e.body)["reach"] for e in hub.entries(kinds.MACHINE_REACH)]  # noqa: E731
    assert told() == [], "a machine that is reached nowhere says nothing of it"
    ways = tuple(Way(each["channel"], each["address"]) for each in NEWER)
    for reach, slots in ((ways, 2), (ways, 3), (ways[:1], 3), ((), 3), ((), 4)):
        hub.step(FactsChanged(hub.facts(slots=slots, reach=reach)))
    assert told() == [NEWER, NEWER[:1], []]
    before = len(hub.entries(kinds.MACHINE_FACTS))
    hub.step(FactsChanged(hub.facts(slots=4, reach=ways)))
    assert len(hub.entries(kinds.MACHINE_FACTS)) == before


@proves("node.reach-is-told", "node.versions-mix")
def test_an_older_machine_is_found_by_its_one_address_also_when_it_was_newer_for_a_while():
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    hub, studio = world["hub"], world["studio"]
    studio.step(FactsChanged(studio.facts(address="old.example:1")))
    world.pass_ms(1_000)
    assert told_of(hub, studio) == (Way("http", "old.example:1"),)
    assert Way("http", "b:2") in said(Facts("", "", reach=(Way("http", "a:1"),), address="b:2"))


ODD: dict[str, Any] = {
    "too many": [{"address": f"h:{n + 1}", "channel": "http"} for n in range(WAYS_MAX + 1)],
    "too long": [{"address": "h" * 201, "channel": "http"}],
    "two lines": [{"address": "h:1\n", "channel": "http"}],
    "moves the cursor": [{"address": "\x1b[2J", "channel": "http"}],
    "empty": [{"address": "", "channel": "http"}],
    "no name of a channel": [{"address": "h:1", "channel": "../http"}],
    "no list": "h:1",
}


@proves("node.reach-is-told")
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_an_odd_reach_of_a_member_is_skipped_and_ends_nothing(odd):
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    hub, studio = world["hub"], world["studio"]
    studio.step(FactsChanged({**studio.facts(), "reach": NEWER}))
    world.pass_ms(1_000)
    before = told_of(hub, studio)
    with studio.core.store.transaction():
        studio.core.append(kinds.MACHINE_REACH, canon.encode({"reach": odd}))
        studio.core.store.seal_dirty(studio.core.membership.signer("seal"))
    world.pass_ms(1_000)
    assert told_of(hub, studio) == before
    assert [each.reason for each in hub.core.tables.skipped()] == ["bad-body"]
    assert hub.order("send", "studio", {"text": ["hi"], "to": "studio"})["ok"]


@proves("node.reach-is-told")
def test_an_odd_address_in_facts_leads_nowhere():
    assert said(Facts("", "", address="a\x00b c")) == ()
