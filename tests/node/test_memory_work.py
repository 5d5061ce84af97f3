"""What one member wrote costs the others a bounded piece of work, whatever it is: by counts."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.node.cores import Cores, One
from tests.node.test_actor import says
from tests.node.test_memory import remember
from tests.promise import proves

from muster.fleet.kinds import ORDER_TAKE, OrderTake
from muster.fleet.machine import Operator
from muster.fleet.statement import Statement, args_hash
from muster.limits import (
    MEMORY_PROOFS_MAX,
)
from muster.log.stream import FLEET
from muster.memory import ordered
from muster.memory.kinds import MemoryErase, MemoryPut, MemoryRefute
from muster.node.services.digests import check_rule
from muster.node.services.memory import _AMONG_MAX, LOOKS_OF_PROOF, Memory
from muster.node.services.recalled import LOOKS_PER_TURN, Question, recall
from muster.node.tasks import actor

# What a question reads of one machine at most: what it wrote under the key, and what else decides.
OF_MACHINE = 8 * _AMONG_MAX + LOOKS_OF_PROOF * MEMORY_PROOFS_MAX


@pytest.fixture
def world() -> Cores:
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(3_000)
    return world


def write(one: One, *bodies: Any, by: str = "claude@studio", cause: Any = ()) -> list[bytes]:
    core = one.core
    with core.store.transaction():
        core.now = one.world.now()
        found = [core.append_body(body, actor=by, cause=cause).id for body in bodies]
        core.store.seal_dirty(core.membership.signer("seal"))
    core.sync.after_commit(core.now.boot_ms)
    return found


def flood(studio: One, key: str, count: int) -> None:
    """All that is dear to read: many versions, what is over each, the same texts, refutations."""
    took = studio.entries(ORDER_TAKE)[:1]
    claims: dict[str, Any] = {"by": "op:alice", "cause": tuple(each.id for each in took)}
    own = write(studio, *(MemoryPut(key, f"text {n}") for n in range(count)), **claims)
    every = [each.hex() for each in own]
    for start in range(0, count, 16):
        some = every[start : start + 16]
        for n in range(20):
            write(studio, MemoryPut(f"{key}/over/{start}/{n}", f"over {n}", some), **claims)
        write(studio, *(MemoryErase(each, key=key) for each in some for _ in range(2)), **claims)
    alike = write(
        studio, *(MemoryPut(f"{key}/{m}", f"text {n}") for n in range(count) for m in range(12))
    )
    for start in range(0, len(alike), 16):
        some = [each.hex() for each in alike[start : start + 16]]
        write(studio, MemoryRefute("x", some, "no"), MemoryRefute("y", some, "no"))


def work(one: One, ask: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Rows that were read, and questions that SQLite was asked."""
    part, database, asked = one.core.part(Memory), one.core.store._database, [0]
    query, before = database.query, part.looks

    def counted(*args: Any) -> Any:
        asked[0] += 1
        return query(*args)

    with monkeypatch.context() as patched:
        patched.setattr(database, "query", counted)
        ask()
    return part.looks - before, asked[0]


def counting(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[Any]:
    """The calls of a function from now on."""
    real, calls = getattr(module, name), list[Any]()

    def counted(*args: Any) -> Any:
        calls.append(args)
        return real(*args)

    monkeypatch.setattr(module, name, counted)
    return calls


@proves("memory.work-in-turns", "memory.agents-object-and-never-replace")
def test_however_much_one_machine_writes_a_key_costs_so_much_and_the_others_words_count(
    world, monkeypatch
):
    hub, studio = world["hub"], world["studio"]
    assert remember(hub, "rule", "never force-push", pin=True)["ok"]
    # A person's rule that was written down on the machine whose agents now flood its key.
    assert remember(studio, "other", "never merge red", pin=True)["ok"]
    world.pass_ms(1_000)
    wrong = write(hub, MemoryPut("wrong", "pass --no-lto"), by="claude@hub")[0]
    assert hub.order("refute", wrong.hex(), {"version": wrong.hex(), "reason": ["no"]})["ok"]
    costs = []
    for _ in range(2):
        flood(studio, "rule", 120)
        write(studio, *(MemoryPut("other", f"text {n}") for n in range(150)))
        write(studio, *(MemoryPut(f"w/{n}", "pass --no-lto") for n in range(150)))
        ask = lambda: studio.core.part(Memory).records("rule")  # noqa: E731
        costs.append(work(studio, ask, monkeypatch))
    for looks, asked in costs:
        assert looks <= OF_MACHINE
        assert asked <= 1_000
    assert costs[1][0] < 1.2 * costs[0][0] + 200, "twice as much, and it costs the same"
    world.pass_ms(5_000)
    for one in (hub, studio):
        part = one.core.part(Memory)
        for key, text in (("rule", "never force-push"), ("other", "never merge red")):
            (record,) = part.records(key).values()
            first = one.core.log.entry(record.heads[0].id)
            assert record.heads[0].rank == 2
            assert text.encode() in (first.body or b"")
        (record,) = part.records("wrong").values()
        assert record.state == "refuted"


@proves("memory.work-in-turns")
def test_a_key_that_many_machines_flood_costs_what_one_that_few_flood_does(monkeypatch):
    costs = []
    for bad in (["studio", "build"], ["studio", "build", "attic", "shed", "barn"]):
        world = Cores("hub", *bad)
        hub = world["hub"]
        for name in bad:
            world.link("hub", name)
        world.pass_ms(3_000)
        mine = write(hub, MemoryPut("rule", "use pnpm"), by="claude@hub")
        for name in bad:
            flood(world[name], "rule", 64)
        world.pass_ms(5_000)
        part = hub.core.part(Memory)
        costs.append(work(hub, lambda part=part: part.records("rule"), monkeypatch)[0])
        (record,) = part.records("rule").values()
        assert mine[0] in [head.id for head in record.heads]
    assert costs[1] < 1.5 * costs[0], costs


@proves("memory.work-in-turns")
def test_a_question_about_many_dear_keys_lets_others_have_their_turn(world, monkeypatch):
    hub = world["hub"]
    for key in ("a", "b", "c"):
        write(hub, *(MemoryPut(key, f"flag {n}") for n in range(150)))
    world.pass_ms(5_000)
    part, most, before = hub.core.part(Memory), 0, hub.core.part(Memory).looks
    monkeypatch.setattr("muster.node.services.recalled.LOOKS_PER_TURN", 100)
    turns: Iterator[Any] = recall(hub.core, Question("flag", [FLEET], 50))
    found = 0
    for each in turns:
        if each is None:
            most, before = max(most, part.looks - before), part.looks
        else:
            found += 1
    assert found
    assert 0 < most <= 100 + OF_MACHINE
    assert LOOKS_PER_TURN <= 1_000
    assert hub.call("recall", {"words": ["flag"]})["ok"]


@proves("memory.work-in-turns")
def test_whoever_writes_a_rule_waits_for_so_much_of_what_others_wrote(world, monkeypatch):
    hub = world["hub"]
    for number in range(6):
        assert remember(hub, f"rule/{number}", "be brief", pin=True)["ok"]
        write(hub, *(MemoryPut(f"rule/{number}", f"x {n}") for n in range(150)))
    monkeypatch.setattr("muster.node.services.digests._RULE_LOOKS_MAX", 100)
    looks, _ = work(hub, lambda: check_rule(hub.core, "new", "x"), monkeypatch)
    assert 0 < looks <= 100 + OF_MACHINE


@proves("memory.work-in-turns")
def test_whose_key_it_is_comes_before_what_it_signed(world, monkeypatch):
    """The studio signs an order with a key of its own, over a text that is dear to look at."""
    hub, studio = world["hub"], world["studio"]
    text, over = "a " * 8_000, [f"{n:064x}" for n in range(16)]
    args = {"key": "k", "over": [each[:9] for each in over], "text": text}
    stranger = Operator(b"x" * 32).statement
    for signer in (stranger, None):
        raw = world.sign("remember", "k", studio, args, signer=signer)
        took = says(studio, ORDER_TAKE, OrderTake("0" * 64, raw))
        put = says(studio, "memory.put", MemoryPut("k", text, over), (took.id,), after=took)
        compared, read = (
            counting(monkeypatch, ordered, "is_ordered"),
            counting(monkeypatch, actor, "open_statement"),
        )
        entry = hub.core.log.entry(put.id)
        assert entry is not None
        said = actor.said(hub.core, entry)
        monkeypatch.undo()
        assert said.trust == ("machine" if signer else "person")
        assert bool(compared) == bool(read) == (signer is None)


@proves("memory.work-in-turns")
def test_a_long_text_is_written_out_a_few_times_however_its_version_may_have_been_named(
    monkeypatch,
):
    text, over = "a " * 8_000, [f"{n:064x}" for n in range(16)]
    args = {"key": "k", "over": [each[:63] for each in over], "text": text.split(" ")}
    statement = Statement(
        args=args_hash(args), fleet="0" * 64, issued_ms=1, nonce="0" * 32, object="k",
        operator="0" * 64, target="a" * 64, until_ms=2, verb="remember",
    )  # fmt: skip
    encode, long = ordered.canon.encode, [0]

    def counted(value: Any) -> bytes:
        raw = encode(value)
        long[0] += len(raw) > len(text)
        return raw

    monkeypatch.setattr(ordered.canon, "encode", counted)
    assert ordered.is_ordered(MemoryPut("k", text, over), FLEET, statement, str)
    assert long[0] <= 3
