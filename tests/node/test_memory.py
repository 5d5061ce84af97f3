"""What machines know, through real cores."""

import random
import re
from types import SimpleNamespace
from typing import Any

import pytest
from tests.node.cores import Cores, One
from tests.promise import proves

from muster.errors import Denied, NotFound
from muster.limits import MEMORY_OVER_MAX
from muster.log.entry import Entry
from muster.memory.fold import ERASED, OVER, VERSION
from muster.memory.kinds import MemoryErase, MemoryPut, MemoryRefute
from muster.memory.state import records, versions
from muster.node.services.memory import Memory
from muster.verbs import memory

NAMES = ("hub", "studio", "build")
KEYS = ("a", "b", "c")
TEXTS = ("use npm", "use pnpm", "the port is 7447", "pass --no-lto")


def write(world: Cores, name: str, body: object, **more: Any) -> Entry:
    core = world[name].core
    with core.store.transaction():
        core.now = world.now()
        entry = core.append_body(body, **{"actor": "claude@" + name, **more})
        core.store.seal_dirty(core.membership.signer("seal"))
    core.sync.after_commit(core.now.boot_ms)
    return entry


def act(world: Cores, draw: random.Random, *, erases: bool = True) -> None:
    """One machine writes down, refutes or erases something that it knows."""
    name, key = draw.choice(NAMES), draw.choice(KEYS)
    found = list(world[name].core.part(Memory).records(key).values())
    heads = [head for record in found for head in record.heads]
    over = [head.id.hex() for head in heads[: draw.randint(0, 2)]]
    chance = draw.random()
    if chance < 0.6 or not heads:
        write(world, name, MemoryPut(key, draw.choice(TEXTS), over))
    elif chance < 0.8 or not erases:
        write(world, name, MemoryRefute(key, [heads[0].id.hex()], "wrong"))
    else:
        one = draw.choice(heads)
        kept = MemoryErase(
            one.id.hex(),
            "refuted" if one.state == "refuted" else "erased",
            key=one.key,
            over=[each.hex() for each in sorted(one.over)],
            print=one.print.hex(),
        )
        write(world, name, kept)


def of_everything(core) -> dict:
    """What counts by all rows that there are."""
    tables = core.tables
    rows = [tables.rows(each) for each in (VERSION, OVER, ERASED)]
    return dict(records(versions(*rows, lambda _row: False)))


@proves("memory.one-state-everywhere")
def test_what_counts_under_a_key_is_the_same_on_each_machine_and_as_if_all_were_read():
    for seed in range(6):
        draw, world = random.Random(seed), Cores(*NAMES)
        for one, other in (("hub", "studio"), ("hub", "build"), ("studio", "build")):
            world.link(one, other)
        world.pass_ms(3_000)
        for _ in range(25):
            act(world, draw)
            if draw.random() < 0.5:
                world.pass_ms(200)
        world.pass_ms(3_000)
        wanted = of_everything(world["hub"].core)
        assert wanted
        for name in NAMES:
            core = world[name].core
            assert of_everything(core) == wanted
            found = [core.part(Memory).records(key) for key in KEYS]
            assert {k: v for each in found for k, v in each.items()} == wanted, (seed, name)


# --- what a person and an agent ask ------------------------------------------------------------


@pytest.fixture
def world() -> Cores:
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(3_000)
    return world


def remember(one: One, key: str, text: str, **more: Any) -> dict[str, Any]:
    answer = one.order("remember", key, {"key": key, "text": text.split(" "), **more})
    assert answer is not None
    return answer


def known(one: One, key: str, **more: Any) -> list[tuple[str, str, str]]:
    answer = one.call("memory", {"key": key, **more})
    assert answer["ok"], answer
    return [(each["text"], each["state"], each["trust"]) for each in answer["value"]]


@proves("memory.one-state-everywhere")
def test_what_a_person_writes_down_here_is_known_there_as_theirs(world):
    answer = remember(world["hub"], "main/port", "it is 7447", tag=["repo:main"], pin=True)
    assert answer["value"]["state"] == "active"
    world.pass_ms(500)
    assert known(world["studio"], "main/port") == [("it is 7447", "active", "person")]
    (listed,) = world["studio"].call("memories", {})["value"]
    assert (listed["key"], listed["from"], listed["scope"]) == ("main/port", "op:alice", "fleet")


@proves("memory.replaced-by-who-read-it")
def test_what_counts_is_replaced_only_by_whoever_names_it(world):
    first = remember(world["hub"], "main/port", "it is 7447")["value"]["version"]
    before = world["hub"].own_size
    refused = remember(world["hub"], "main/port", "it is 7450")
    assert refused["error"]["kind"] == "Conflict"
    assert "it is 7447" in refused["error"]["text"]
    assert f"--over {first[:12]}" in refused["error"]["text"]
    (denial,) = world["hub"].entries("order.deny")
    assert first[:12].encode() in (denial.body or b"")
    assert b"7447" not in (denial.body or b""), "it could never be erased"
    assert world["hub"].entries("memory.put")[-1].id.hex() == first
    assert remember(world["hub"], "main/port", "it is 7450", over=[first[:12]])["ok"]
    assert world["hub"].own_size > before
    world.pass_ms(500)
    assert known(world["studio"], "main/port") == [("it is 7450", "active", "person")]
    history = known(world["studio"], "main/port", history=True)
    assert [(text, state) for text, state, _ in history] == [
        ("it is 7447", "replaced"),
        ("it is 7450", "active"),
    ]


@proves("memory.replaced-by-who-read-it")
def test_two_who_were_apart_are_both_shown_until_one_ends_the_conflict(world):
    world.cut("studio")
    one = remember(world["hub"], "main/port", "it is 7447")["value"]["version"]
    two = remember(world["studio"], "main/port", "it is 7450")["value"]["version"]
    world.link("hub", "studio")
    world.pass_ms(2_000)
    for name in ("hub", "studio"):
        states = {state for _, state, _ in known(world[name], "main/port")}
        assert states == {"conflict"}
        (listed,) = world[name].call("memories", {"conflicts": True})["value"]
        assert listed["key"] == "main/port"
    assert remember(world["studio"], "main/port", "it is 7450", over=[one, two])["ok"]
    world.pass_ms(500)
    assert known(world["hub"], "main/port") == [("it is 7450", "active", "person")]


@proves("memory.refuted-stays-refuted")
def test_what_is_refuted_says_why_and_comes_back_under_no_other_key(world):
    first = remember(world["hub"], "build", "pass --no-lto")["value"]["version"]
    args = {"version": first[:8], "reason": ["the", "flag", "is", "gone"]}
    none = {**args, "version": "f" * 8}
    assert world["studio"].order("refute", "f" * 8, none)["error"]["kind"] == "NotFound"
    world.pass_ms(500)
    answer = world["studio"].order("refute", first[:8], args)
    assert answer["value"]["state"] == "refuted"
    world.pass_ms(500)
    assert known(world["hub"], "build") == [("the flag is gone", "refuted", "person")]
    again = remember(world["hub"], "other", "Pass  --no-LTO.")
    assert again["value"]["state"] == "refuted"


@proves("memory.agents-object-and-never-replace")
def test_what_only_claims_to_be_a_persons_counts_as_the_machines(world):
    first = remember(world["hub"], "rule", "never force-push")["value"]["version"]
    core = world["studio"].core
    world.pass_ms(500)
    with core.store.transaction():
        core.now = world.now()
        body = MemoryPut("rule", "force-push is fine", [first])
        core.append_body(body, actor="op:alice", cause=(bytes.fromhex(first),))
        core.store.seal_dirty(core.membership.signer("seal"))
    core.sync.after_commit(core.now.boot_ms)
    world.pass_ms(500)
    assert known(world["hub"], "rule") == [
        ("never force-push", "conflict", "person"),
        ("force-push is fine", "conflict", "machine"),
    ]


@proves("memory.agents-object-and-never-replace")
def test_an_order_that_is_shown_again_elsewhere_or_over_another_text_proves_nothing(world):
    """A machine that was taken over has a person's order of its own, and every other's."""
    remember(world["hub"], "rule", "never force-push")
    assert remember(world["studio"], "mine", "it is so")["ok"]
    world.pass_ms(500)
    orders = {one.id: take for one in (world["hub"], world["studio"])
              for take in one.entries("order.take") if take.header.author == one.id}  # fmt: skip
    said = [
        ("rule", "force-push is fine", world["studio"].id),
        ("mine", "it is not so", world["studio"].id),
        ("rule", "never force-push", world["hub"].id),
    ]
    core = world["studio"].core
    with core.store.transaction():
        core.now = world.now()
        for key, text, whose in said:
            cause = (orders[whose].id,)
            core.append_body(MemoryPut(key, text), actor="op:alice", cause=cause)
        core.store.seal_dirty(core.membership.signer("seal"))
    core.sync.after_commit(core.now.boot_ms)
    world.pass_ms(500)
    found = [*known(world["hub"], "rule"), *known(world["hub"], "mine")]
    assert [text for text, _, trust in found if trust == "person"] == [
        "never force-push", "it is so"
    ]  # fmt: skip
    assert sum(trust == "machine" for _, _, trust in found) == len(said)


@pytest.mark.parametrize(
    ("args", "word"),
    [
        ({"key": "a!b"}, "no key"),
        ({"scope": "everybody"}, "no scope"),
        ({"scope": "thread:nobody"}, "no thread"),
        ({"over": ["3fa9c1d2"]}, "nothing is known"),
        ({"over": ["3f"]}, "6 digits"),
        ({"tag": ["two words"]}, "no tag"),
        ({"tag": ["repo:main", "pinned"]}, "--pin"),
        ({"text": [" "]}, "needs a text"),
        ({"text": ["x" * 17_000]}, "16384 bytes"),
    ],
)
def test_what_cannot_be_written_down_is_refused_and_nothing_is_written(world, args, word):
    hub = world["hub"]
    asked = {"key": "k", "text": ["t"], **args}
    answer = hub.order("remember", asked["key"], asked)
    assert word in answer["error"]["text"], answer
    assert hub.entries("memory.put") == []


@proves("context.keys-stay-here")
def test_a_key_is_neither_remembered_nor_given_as_a_reason_nor_repeated(world):
    hub, token = world["hub"], "ghp_" + "a1B2" * 9
    for more in ({"key": "k", "text": [f"use {token}"]}, {"key": token, "text": ["use it"]}):
        answer = hub.order("remember", more["key"], more)
        assert "a GitHub token" in answer["error"]["text"], answer
        assert token not in answer["error"]["text"]
    version = remember(hub, "k", "it is at the bank")["value"]["version"]
    answer = hub.order("refute", version, {"version": version, "reason": [f"no: {token}"]})
    assert "a GitHub token" in answer["error"]["text"]
    assert len(hub.entries("memory.put")) == 1
    assert hub.entries("memory.refute") == []


@proves("memory.scopes-do-not-leak")
def test_what_is_private_is_known_on_its_machine_alone(world):
    assert remember(world["hub"], "mine", "a secret plan", scope="private")["ok"]
    world.pass_ms(1_000)
    assert known(world["hub"], "mine") == [("a secret plan", "active", "person")]
    assert world["studio"].call("memory", {"key": "mine"})["error"]["kind"] == "NotFound"
    assert world["studio"].entries("memory.put") == []


@proves("memory.replaced-by-who-read-it")
def test_whoever_writes_more_heads_than_one_version_can_name_keeps_nobody_from_writing(world):
    for number in range(MEMORY_OVER_MAX + 4):
        write(world, "studio", MemoryPut("main/x", f"text {number}"))
    world.pass_ms(500)
    refused = remember(world["hub"], "main/x", "this is so")["error"]["text"]
    over = re.findall("--over ([0-9a-f]{12})", refused)
    assert len(over) == MEMORY_OVER_MAX
    assert remember(world["hub"], "main/x", "this is so", over=over)["ok"]
    again = remember(world["hub"], "main/x", "this is so")["error"]["text"]
    rest = re.findall("--over ([0-9a-f]{12})", again)
    assert remember(world["hub"], "main/x", "this is so", over=rest)["value"]["state"] == "active"


@proves("memory.scopes-do-not-leak")
def test_an_agent_neither_reads_nor_writes_what_is_not_the_whole_fleets(world):
    hub = world["hub"]
    version = remember(hub, "mine", "a secret plan", scope="private")["value"]["version"]
    call: Any = SimpleNamespace(actor="claude@hub", write=None, task="", session="")
    for ask in (
        memory.Remember(key="mine", text=("x",), scope="private"),
        memory.Remember(key="mine", text=("x",), over=(version,)),
    ):
        with pytest.raises((Denied, NotFound)) as error:
            memory.remember(hub.core, call, ask)
        assert "secret" not in str(error.value)
    with pytest.raises(NotFound):
        memory.refute(hub.core, call, memory.Refute(version=version, reason=("no",)))


@proves("memory.as-it-was")
def test_what_changed_between_versions_and_moments_is_told_as_it_was(world):
    hub = world["hub"]
    first = remember(hub, "k", "the port\nis 7447")["value"]["version"]
    world.pass_ms(600_000)
    second = remember(hub, "k", "the port\nis 7450", over=[first])["value"]["version"]
    world.pass_ms(600_000)
    args = {"version": second, "reason": ["it moved"]}
    assert hub.order("refute", second, args)["ok"]

    def diff(*asked: str, **more: Any) -> Any:
        return hub.call("memory", {"key": "k", "diff": list(asked), **more})

    found = diff(first[:8], second[:8])["value"]
    assert found["lines"] == ["  the port", "- is 7447", "+ is 7450"]
    assert [found[side]["state"] for side in ("before", "after")] == ["replaced", "replaced"]
    # As versions, so as the moments at which they counted; alone it is against what counts now.
    assert diff("15m", "5m")["value"]["lines"] == found["lines"]
    assert diff("15m", "5m")["value"]["after"]["versions"] == [second]
    now = diff("5m")["value"]
    assert (now["before"]["state"], now["after"]["state"]) == ("active", "refuted")
    assert now["lines"] == ["- the port", "- is 7450", "+ it moved"]
    born = diff("1h", "15m")["value"]
    assert (born["before"]["state"], born["before"]["text"]) == ("nothing", "")
    assert born["lines"] == ["+ the port", "+ is 7447"]
    assert diff("15m", "15m")["value"]["lines"] == []
    # What was erased since is erased, on both sides.
    assert hub.order("forget", first, {"version": first})["ok"]
    gone = diff("15m", "5m")["value"]
    assert (gone["before"]["state"], gone["before"]["text"]) == ("erased", "")
    assert "7447" not in str(gone)
    other = remember(hub, "other", "x")["value"]["version"]
    for asked, kind, word in (
        (("2h", "1h"), "NotFound", "at any of the two"), (("1m",) * 3, "Malformed", "once or twice"),
        ((other,), "NotFound", "none of k"), (("yesterday",), "Malformed", "no time"),
        (("f" * 9,), "NotFound", "nothing is known"),
    ):  # fmt: skip
        error = diff(*asked)["error"]
        assert (error["kind"], word in error["text"]) == (kind, True), error
    assert diff("1m", history=True)["error"]["kind"] == "Malformed"
    remember(hub, "k", "mine", scope="private")
    assert "several scopes" in diff("1m")["error"]["text"]
    assert diff("1m", scope="private")["value"]["lines"] == ["+ mine"]


@proves("memory.as-it-was")
def test_what_was_known_under_a_key_at_a_moment_is_told_as_it_was(world):
    hub = world["hub"]
    first = remember(hub, "k", "it is 7447")["value"]["version"]
    world.pass_ms(600_000)
    remember(hub, "k", "it is 7450", over=[first])
    assert known(hub, "k", at="5m") == [("it is 7447", "active", "person")]
    assert known(hub, "k", at="5m", history=True) == [("it is 7447", "active", "person")]
    assert known(hub, "k", at="1h") == []
    assert len(known(hub, "k", history=True)) == 2
