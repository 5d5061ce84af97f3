"""Whose memory counts, and who reads it: of a thread its members, of the fleet its machines."""

from typing import Any

import pytest
from tests.node.cores import Cores, One
from tests.node.test_memory import remember
from tests.promise import proves

from muster.log.stream import FLEET, Scope, scope_group
from muster.memory.kinds import MemoryErase, MemoryPut, MemoryRefute
from muster.node.services.erasure import Erasures

PLANS = "thread:plans"


@pytest.fixture
def world() -> Cores:
    made = Cores("hub", "studio", "laptop")
    for one, other in (("hub", "studio"), ("hub", "laptop"), ("studio", "laptop")):
        made.link(one, other)
    made.pass_ms(4_000)
    change(made, add=["studio"])
    return made


def change(world: Cores, **how: list[str]) -> None:
    assert world["hub"].order("thread", "plans", {"name": "plans", **how})["ok"]
    world.pass_ms(1_000)


def plans(world: Cores) -> Scope:
    return scope_group(world["hub"].id, "plans")


def write(world: Cores, name: str, body: Any, scope: Scope = FLEET) -> str:
    core = world[name].core
    with core.store.transaction():
        core.now = world.now()
        entry = core.append_body(body, actor=f"claude@{name}", scope=scope)
        core.store.seal_dirty(core.membership.signer("seal"))
    core.sync.after_commit(core.now.boot_ms)
    world.pass_ms(1_000)
    return entry.id.hex()


def shown(one: One, key: str = "plan") -> set[str]:
    """What is said of a key by each verb that tells of it, which must be the same."""
    found = one.call("memory", {"key": key})
    texts = {each["text"] for each in found["value"]} if found["ok"] else set()
    every = one.call("memory", {"key": key, "history": True})
    assert {each["text"] for each in every["value"]} == texts if every["ok"] else not texts
    listed = {m["text"] for m in one.call("memories", {})["value"] if m["key"] == key}
    assert listed <= texts
    assert bool(listed) == bool(texts)
    notes = one.call("memory.list", {})["value"]["notes"]
    assert {each["text"] for each in notes if each["key"] == key} == texts
    recalled = one.call("recall", {"words": ["canary"], "all": True})["value"]
    assert {each["text"] for each in recalled if each["name"] == key} == texts
    return texts


@proves("memory.scopes-do-not-leak")
def test_whoever_was_put_out_of_a_thread_is_shown_nothing_of_it_by_any_verb(world):
    version = remember(world["hub"], "plan", "a canary sings", scope=PLANS)["value"]["version"]
    own = remember(world["studio"], "own", "my canary", scope=PLANS)["value"]["version"]
    world.pass_ms(1_000)
    studio = world["studio"]
    assert shown(studio) == shown(world["hub"]) == {"a canary sings"}
    change(world, remove=["studio"])
    assert shown(studio) == shown(studio, "own") == set()
    assert shown(world["hub"]) == {"a canary sings"}
    for verb, args in (
        ("memory", {"key": version}), ("memory", {"key": own}), ("memory.standing", {"key": "plan"}),
        ("forget.check", {"version": version}),
    ):  # fmt: skip
        answer = studio.call(verb, args)
        assert answer["error"]["kind"] == "NotFound", verb
    refused = studio.order("forget", version, {"version": version})
    assert refused["error"]["kind"] == "NotFound"
    # Whoever is taken in again reads it again.
    change(world, add=["studio"])
    assert shown(studio) == {"a canary sings"}


@proves("memory.scopes-do-not-leak")
def test_a_machine_that_was_revoked_is_shown_nothing_that_is_known(world, monkeypatch):
    remember(world["hub"], "plan", "a canary sings")
    world.pass_ms(1_000)
    studio = world["studio"]
    assert shown(studio) == {"a canary sings"}
    assert world["hub"].order("revoke", "studio", {"name": "studio", "reason": "stolen"})["ok"]
    world.pass_ms(2_000)
    # Nobody tells it; whoever carries the word to it does this to its roster.
    monkeypatch.setattr(studio.core.membership, "may_hold", world["hub"].core.membership.may_hold)
    assert shown(studio) == set()
    assert shown(world["hub"]) == shown(world["laptop"]) == {"a canary sings"}


@proves("memory.members-speak")
def test_what_a_machine_that_is_in_no_thread_writes_there_counts_for_nothing(world):
    scope = plans(world)
    version = remember(world["hub"], "plan", "a canary sings", scope=PLANS)["value"]["version"]
    world.pass_ms(1_000)
    write(world, "laptop", MemoryPut("plan", "no canary", [version]), scope)
    write(world, "laptop", MemoryRefute("plan", [version], "it is a crow"), scope)
    write(world, "laptop", MemoryPut("other", "another canary"), scope)
    for name in ("hub", "studio"):
        one = world[name]
        assert one.entries("memory.refute"), "it is kept, as evidence"
        assert shown(one) == {"a canary sings"}
        assert shown(one, "other") == set()
        (known,) = one.call("memory", {"key": "plan"})["value"]
        assert known["state"] == "active"
    change(world, add=["laptop"])
    assert shown(world["studio"], "other") == {"another canary"}, "the keeper let it in"


@proves("memory.members-speak", "memory.erased-by-whom")
def test_an_erasure_of_whoever_is_in_no_thread_is_obeyed_when_the_keeper_lets_it_in(world):
    scope = plans(world)
    version = write(world, "laptop", MemoryPut("other", "another canary"), scope)
    write(world, "laptop", MemoryErase(version, key="other"), scope)
    entry = world["hub"].core.log.entry(bytes.fromhex(version))
    assert entry is not None
    assert entry.body is not None
    assert not world["hub"].core.part(Erasures).needs_tick
    change(world, add=["laptop"])
    entry = world["hub"].core.log.entry(bytes.fromhex(version))
    assert entry is not None
    assert entry.body is None
