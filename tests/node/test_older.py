"""What machines of an older version read of what we write."""

import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.node.cores import Cores
from tests.promise import proves

from muster.fleet import kinds
from muster.fleet.facts import Facts
from muster.node import event as ev

KNOWN: dict[str, list[str]] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "bodies.json").read_text()
)
# In memory it has one field more, which is told in an entry of another kind.
FACTS = "fleet.facts.Facts"


def body(name: str) -> Any:
    module, _, found = name.rpartition(".")
    return getattr(importlib.import_module(f"muster.{module}"), found)


@proves("node.versions-mix")
@pytest.mark.parametrize("name", sorted(KNOWN.keys() - {FACTS}))
def test_a_body_has_the_fields_that_an_older_machine_knows_and_no_other(name):
    assert list(body(name).__struct_fields__) == KNOWN[name], "a new meaning gets a new kind"


@proves("node.versions-mix")
def test_every_body_of_an_older_machine_is_still_here():
    assert len(KNOWN) > 50
    assert all(inspect.isclass(body(name)) for name in KNOWN)


@proves("node.versions-mix", "task.logins-are-facts")
def test_an_older_machine_reads_our_facts_and_we_read_the_logins_beside_them():
    hub = Cores("hub", "studio")["hub"]
    facts = hub.facts(agents={"claude": "2", "shell": ""}, logins={"claude": "no"})
    hub.step(ev.FactsChanged(facts))
    hub.world.link("hub", "studio")
    hub.world.drain()
    told = [json.loads(entry.body) for entry in hub.entries(kinds.MACHINE_FACTS)]
    assert told
    assert all(each.keys() <= set(KNOWN[FACTS]) for each in told)
    for machine in (hub, hub.world["studio"]):
        found = machine.core.roster.facts[hub.core.machine]
        assert found == msgspec.convert(facts, Facts), "put together again"
    before = len(hub.entries(kinds.MACHINE_LOGINS)), len(told)
    hub.step(ev.FactsChanged({**facts, "logins": {"claude": "yes"}}))
    assert hub.core.roster.facts[hub.core.machine].logins == {"claude": "yes"}
    after = len(hub.entries(kinds.MACHINE_LOGINS)), len(hub.entries(kinds.MACHINE_FACTS))
    assert after == (before[0] + 1, before[1]), "only what is news is told"


@proves("node.versions-mix")
def test_a_machine_that_tells_no_logins_has_facts_all_the_same():
    hub = Cores("hub")["hub"]
    rest = {name: value for name, value in hub.facts().items() if name != "logins"}
    hub.step(ev.FactsChanged(rest))
    assert hub.core.roster.facts[hub.core.machine].logins == {}
