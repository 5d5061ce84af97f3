"""What is erased is erased on every machine, whenever it hears of it, and only by whom it may be."""

from typing import Any

import pytest
from tests.node.cores import Cores, One
from tests.promise import proves

from muster.cli import sign
from muster.errors import NotFound
from muster.limits import MEMORY_ERASED_IN_STEP_MAX
from muster.log.entry import Entry, EntryId
from muster.log.stream import FLEET, JOURNAL
from muster.memory.fold import ERASED
from muster.memory.kinds import MemoryErase, MemoryPut
from muster.memory.ordered import restated
from muster.node.services import memory as known
from muster.node.services.erasure import BodyErased, Erasures
from muster.node.services.memory import Memory
from muster.verbs import forget as forgetting

SECRET = "the password is swordfish"


@pytest.fixture
def world() -> Cores:
    world = Cores("hub", "studio", "build")
    for one, other in (("hub", "studio"), ("hub", "build")):
        world.link(one, other)
    world.pass_ms(3_000)
    return world


def remember(one: One, key: str = "main/login", text: str = SECRET, **more: Any) -> str:
    answer = one.order("remember", key, {"key": key, "text": text.split(" "), **more})
    assert answer["ok"], answer
    return str(answer["value"]["version"])


def forget(one: One, version: str, **more: Any) -> dict[str, Any]:
    """As the command does it: the order says what it is about, as the machine here knows it."""
    args: dict[str, Any] = {"version": version, **more}
    sign.forget_args(lambda verb, asked: asks(one, verb, asked), args, None)
    answer = one.order("forget", args["version"], args)
    assert answer["ok"], answer
    found: dict[str, Any] = answer["value"]
    return found


def asks(one: One, verb: str, args: Any) -> Any:
    answer = one.call(verb, args)
    if not answer["ok"]:
        raise NotFound(answer["error"]["text"])
    return answer["value"]


def write(world: Cores, name: str, *bodies: Any, scope: Any = FLEET) -> list[Entry]:
    """What a machine writes by itself, as an agent of it would."""
    core = world[name].core
    with core.store.transaction():
        core.now = world.now()
        found = [core.append_body(b, actor=f"claude@{name}", scope=scope) for b in bodies]
        core.store.seal_dirty(core.membership.signer("seal"))
    core.sync.after_commit(core.now.boot_ms)
    return found


def body(one: One, version: str | EntryId) -> bytes | None:
    id = bytes.fromhex(version) if isinstance(version, str) else version
    entry = one.core.log.entry(id)
    assert entry is not None, "its header is not here"
    return entry.body


def state(one: One, key: str = "main/login") -> set[str]:
    return {record.state for record in one.core.part(Memory).records(key).values()}


@proves("memory.erased-everywhere")
def test_what_is_forgotten_here_is_erased_on_every_machine_at_once(world):
    version = remember(world["studio"])
    world.pass_ms(1_000)
    assert all(body(world[name], version) for name in world.machines)
    answer = forget(world["hub"], version[:12], reason="it held a password")
    assert answer["erased"] == "hub"
    assert answer["waiting"] == ["build", "studio"]
    assert body(world["hub"], version) is None
    world.pass_ms(500)
    for name, one in world.machines.items():
        assert body(one, version) is None, name
        assert state(one) == {"erased"}
        assert b"swordfish" not in one.core.store.image()
        assert any(isinstance(each, BodyErased) for each in one.effects)
    # To ask again writes no other erasure, and says how far it came.
    assert forget(world["hub"], version)["waiting"] == []
    assert forget(world["studio"], version)["erased"] == "studio"
    assert len(world["hub"].entries("memory.erase")) == 1
    assert world["hub"].call("forget.check", {"version": version})["value"] is None


@proves("memory.erased-everywhere")
def test_a_machine_that_was_away_erases_when_it_comes_back(world):
    version = remember(world["studio"])
    world.pass_ms(500)
    world.cut("build")
    assert forget(world["hub"], version)["waiting"] == ["build", "studio"]
    world.pass_ms(500)
    assert forget(world["hub"], version)["waiting"] == ["build"]
    assert body(world["build"], version)
    world.link("hub", "build")
    world.pass_ms(1_000)
    assert body(world["build"], version) is None


@proves("memory.erased-everywhere")
def test_an_erasure_that_comes_before_its_target_erases_it_when_it_comes(world):
    world.cut("build")
    version = remember(world["studio"])
    world.pass_ms(500)
    forget(world["hub"], version)
    # The studio is away and has not heard; the build machine hears of the erasure alone.
    build = world["build"].core
    studio, hub = (world[name].core.membership.own(FLEET) for name in ("studio", "hub"))
    world.cut("studio")
    world.link("hub", "build")
    world.pass_ms(1_000)
    assert len(build.tables.rows(ERASED)) == 1
    assert build.log.size(hub) == world["hub"].core.log.size(hub)
    fresh = build.log.entry(bytes.fromhex(version))
    assert fresh is None or fresh.body is None
    world.link("studio", "build")
    world.pass_ms(1_000)
    assert build.log.size(studio) == world["studio"].core.log.size(studio)
    assert body(world["build"], version) is None
    assert b"swordfish" not in build.store.image()


@proves("memory.erased-by-whom")
def test_what_somebody_else_erased_without_an_order_stays_and_so_does_what_only_claims_one(world):
    version = remember(world["studio"])
    world.pass_ms(500)
    write(world, "build", MemoryErase(version, key="main/login"))
    world.pass_ms(1_000)
    core = world["build"].core
    with core.store.transaction():
        core.now = world.now()
        core.append_body(
            MemoryErase(version, key="main/login"),
            actor="op:alice",
            cause=(EntryId(bytes.fromhex(version)),),
        )
        core.store.seal_dirty(core.membership.signer("seal"))
    core.sync.after_commit(core.now.boot_ms)
    world.pass_ms(1_000)
    for name, one in world.machines.items():
        assert body(one, version), name
        assert state(one) == {"active"}
    # Nothing that is no version goes by an erasure, not even of its own machine.
    (order,) = world["studio"].entries("order.take")
    write(world, "studio", MemoryErase(order.id.hex()))
    world.pass_ms(500)
    assert body(world["studio"], order.id)
    # What its own machine erases is gone.
    write(world, "studio", MemoryErase(version, key="main/login"))
    world.pass_ms(500)
    assert [body(one, version) for one in world.machines.values()] == [None] * 3


@proves("memory.scopes-do-not-leak", "memory.erased-by-whom")
def test_an_erasure_that_not_all_readers_of_its_target_know_of_erases_nothing(world):
    version = remember(world["studio"])
    world.pass_ms(500)
    write(world, "studio", MemoryErase(version, key="main/login"), scope=JOURNAL)
    world.pass_ms(500)
    assert body(world["studio"], version)
    assert state(world["studio"]) == {"active"}
    private = remember(world["studio"], "mine", "a plan", scope="private")
    assert forget(world["studio"], private)["waiting"] == []
    assert body(world["studio"], private) is None
    # What is private to another machine is not even known to be there.
    assert (
        world["hub"].order("forget", private, {"version": private})["error"]["kind"] == "NotFound"
    )


@proves("memory.erased-everywhere")
def test_what_was_left_of_many_erasures_is_taken_up_after_a_restart(world):
    count = 3 * MEMORY_ERASED_IN_STEP_MAX
    puts = write(world, "studio", *(MemoryPut(f"k/{n}", f"{SECRET} {n}") for n in range(count)))
    world.pass_ms(1_000)
    hub = world["hub"].core
    # A version of Muster that obeys no erasure.
    reacts, hub._reacts = hub._reacts, {**hub._reacts, "memory.erase": []}
    write(world, "studio", *(MemoryErase(put.id.hex()) for put in puts))
    world.pass_ms(1_000)
    assert len(hub.tables.rows(ERASED)) == count
    assert all(body(world["hub"], put.id) for put in puts)
    hub._reacts = reacts
    world.restart("hub")
    world.pass_ms(1_000)
    assert not any(body(world["hub"], put.id) for put in puts)
    assert not world["hub"].core.part(Erasures).needs_tick
    assert not any(body(world["build"], put.id) for put in puts), "many at once, in some steps"


def test_one_step_erases_a_bounded_number(world):
    count = 2 * MEMORY_ERASED_IN_STEP_MAX + 3
    puts = write(world, "studio", *(MemoryPut(f"k/{n}", f"text {n}") for n in range(count)))
    world.pass_ms(1_000)
    store, most, step = world["hub"].core.store, [0], [0]
    erase, sealed = store.erase_body, store.seal_dirty

    def counted(*args: Any) -> None:
        step[0] += 1
        most[0] = max(most[0], step[0])
        erase(*args)

    def ended(*args: Any) -> Any:
        step[0] = 0
        return sealed(*args)

    store.erase_body, store.seal_dirty = counted, ended  # type: ignore[method-assign]
    write(world, "studio", *(MemoryErase(put.id.hex()) for put in puts))
    world.pass_ms(1_000)
    assert 0 < most[0] <= MEMORY_ERASED_IN_STEP_MAX
    assert not any(body(world["hub"], put.id) for put in puts)


@proves("memory.erasure-revives-nothing")
def test_what_was_refuted_stays_refuted_when_it_is_forgotten_and_else_no_print_is_left(world):
    hub = world["hub"]
    wrong = remember(hub, "build", "pass --no-lto")
    assert hub.order("refute", wrong, {"version": wrong, "reason": ["no"]})["ok"]
    forget(hub, wrong)
    plain = remember(hub, "port", "it is 7447")
    after = remember(hub, "port", "it is 7450", over=[plain])
    forget(hub, after)
    first, second = hub.core.tables.rows(ERASED, order=("seq",))
    assert (len(first.print), second.print) == (16, b"")
    assert state(hub, "port") == {"erased"}, "what it had replaced is not back"
    again = hub.order("remember", "x", {"key": "x", "text": ["Pass", "--no-LTO."]})
    assert again["value"]["state"] == "refuted"


@proves("memory.agents-object-and-never-replace", "memory.erased-by-whom")
@pytest.mark.parametrize("binds", [True, False])
def test_a_machine_that_takes_an_order_to_forget_ends_nothing_else_by_it(world, binds):
    """The studio was taken over: it writes another erasure than the one that the person ordered."""
    hub, studio = world["hub"], world["studio"]
    rules = [remember(hub, f"rule/{n}", f"never do {n}", pin=True) for n in range(16)]
    old = remember(hub, "port", "it is 7447")
    version = remember(hub, "port", "it is 7450", over=[old])
    world.pass_ms(1_000)
    args: dict[str, Any] = {"version": version}
    if binds:
        sign.forget_args(lambda verb, asked: asks(hub, verb, asked), args, None)
        assert args["restates"]
    part = forgetting.__dict__
    honest = part["_erasure"]
    part["_erasure"] = lambda *_: MemoryErase(version, "erased", 2, "port", sorted(rules))
    part["restated"] = lambda _body: args.get("restates")
    try:
        assert studio.order("forget", version, args)["ok"]
    finally:
        part["_erasure"], part["restated"] = honest, restated
    world.pass_ms(1_000)
    for one in world.machines.values():
        for number in range(16):
            assert state(one, f"rule/{number}") == {"active"}
        # An order that says more than its target was not the one to write this.
        assert (body(one, version) is None) == (not binds)


@proves("memory.erasure-revives-nothing")
def test_an_order_of_an_older_muster_erases_its_target_and_says_nothing_of_another(world):
    hub = world["hub"]
    old = remember(hub, "port", "it is 7447")
    version = remember(hub, "port", "it is 7450", over=[old])
    assert hub.order("forget", version[:12], {"version": version[:12]})["ok"]
    world.pass_ms(1_000)
    for one in world.machines.values():
        assert body(one, version) is None
        (known,) = one.call("memory", {"key": "port"})["value"]
        assert (known["text"], known["state"]) == ("it is 7447", "active")


def test_an_order_that_says_what_is_not_so_here_any_more_erases_nothing(world):
    hub = world["hub"]
    old = remember(hub, "port", "it is 7447")
    version = remember(hub, "port", "it is 7450", over=[old])
    args = {"version": version, "restates": "0" * 64}
    refused = hub.order("forget", version, args)["error"]
    assert refused["kind"] == "Conflict"
    assert "give the order again" in refused["text"]
    assert body(hub, version)


@proves("memory.erased-everywhere")
def test_an_erasure_whose_order_comes_later_counts_when_it_comes(world):
    version = remember(world["studio"])
    world.pass_ms(500)
    part = world["build"].core.part(Erasures)

    proven = known.is_ordered
    try:
        known.is_ordered = lambda _core, _row: False
        forget(world["hub"], version)
        world.pass_ms(500)
        assert body(world["build"], version)
        assert part._unproven
    finally:
        known.is_ordered = proven
    (took,) = (e for e in world["build"].entries("order.take") if e.id in part._unproven)
    with world["build"].core.store.transaction():
        part._on_order(took.stream, took)
    assert body(world["build"], version) is None
    assert not part._unproven


def test_a_version_that_never_had_a_text_here_is_forgotten_elsewhere(world):
    (put,) = write(world, "studio", MemoryPut("a", "b"))
    core = world["studio"].core
    with core.store.transaction():
        core.store.erase_body(put.stream, put.header.seq)
    refused = world["studio"].order("forget", put.id.hex(), {"version": put.id.hex()})
    assert "forget it on one that has it" in refused["error"]["text"]
    assert world["studio"].entries("memory.erase") == []
