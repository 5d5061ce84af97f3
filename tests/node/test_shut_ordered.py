"""What a key orders after it was shut out is nobody's, and in no list, whatever date it bears."""

from typing import Any

import msgspec
import pytest
from tests.node.cores import WALL_MS, Cores, One
from tests.promise import proves

from muster.fleet import kinds as fleet_kinds
from muster.fleet.device import Right, Terms, sign_device, sign_terms
from muster.fleet.document import document_id
from muster.fleet.grant import sign_take
from muster.fleet.machine import Operator
from muster.log import canon
from muster.log.keys import Signer
from muster.log.stream import Incarnation
from muster.node.call.shut_out import was_told
from muster.task import kinds
from muster.task.evidence import task_args

BOB = Operator(b"bob".ljust(32))
TICKET = Signer(b"ticket".ljust(32))
DEVICE = Signer(b"device".ljust(32))
DAY_MS = 24 * 3_600_000
SHAPE = {"v": 1, "agent": ["noop"], "do": "{}"}


@pytest.fixture
def world() -> Cores:
    made = Cores("hub", "studio", "laptop")
    for name in ("studio", "laptop"):
        made.link("hub", name)
    made.pass_ms(4_000)
    assert made["hub"].order("operator.add", "bob", {"name": "bob", "key": BOB.key})["ok"]
    made.pass_ms(1_000)
    return made


def writes(machine: One, kind: str, raw: bytes) -> None:
    """A member writes what it likes."""
    core = machine.core
    core.now = machine.world.now()
    with core.store.transaction():
        core.append(kind, raw)
        core.store.seal_dirty(core.membership.signer("seal"))
    core.sync.after_commit(core.now.boot_ms)
    machine.world.pass_ms(1_000)


def opens(machine: One, task: str, signer: Any, back_ms: int = 0) -> None:
    """A member opens a task of its own that this key ordered."""
    world = machine.world
    args = task_args(kinds.TaskOpen(task=task, template=SHAPE))
    world.ms -= back_ms
    statement = world.sign("task", task, machine, args, signer=signer)
    world.ms += back_ms
    body = kinds.TaskOpen(task=task, template=SHAPE, statement=statement.encode().hex())
    writes(machine, "task.open", kinds.body_bytes(body))


def listed(machine: One) -> set[str]:
    return {str(t["task"]) for t in machine.call("tasks", {"all": True})["value"]}


def is_device(world: Cores) -> str:
    """The studio is a device of Alice's; the id of its terms."""
    terms = Terms(
        60_000, world["studio"].id, WALL_MS + DAY_MS, (Right("task", "*"),),
        TICKET.public.hex(), WALL_MS + DAY_MS,
    )  # fmt: skip
    raw = sign_terms(
        world.operator.statement, world.fleet, terms, nonce=bytes(16), issued_ms=WALL_MS
    )
    binding = sign_device(TICKET, DEVICE, world.fleet, world["studio"].id).decode()
    body = fleet_kinds.DeviceRecorded(binding, raw.decode(), terms)
    writes(world["studio"], fleet_kinds.DEVICE_RECORD, canon.encode(msgspec.to_builtins(body)))
    return document_id(raw)


@proves("task.shut-key-orders-nothing")
@pytest.mark.parametrize("whose", ["operator", "device"])
def test_a_task_that_came_after_its_key_was_shut_out_is_in_no_list(world, whose):
    studio, laptop, hub = world["studio"], world["laptop"], world["hub"]
    signer = BOB.statement
    if whose == "device":
        terms, signer = is_device(world), DEVICE
    opens(studio, "before", signer)
    assert listed(laptop) == listed(hub) == {"before"}
    if whose == "device":
        now_ms = WALL_MS + world.ms
        raw = sign_take(
            world.operator.statement, world.fleet, terms, nonce=bytes(16), issued_ms=now_ms
        )
        take = fleet_kinds.GrantTake(terms, raw.decode())
        writes(hub, fleet_kinds.GRANT_TAKE, canon.encode(msgspec.to_builtins(take)))
    else:
        assert hub.order("revoke", "bob", {"name": "bob", "operator": True})["ok"]
    world.pass_ms(1_000)
    opens(studio, "after", signer, back_ms=4_000)
    assert listed(laptop) == listed(hub) == {"before"}
    assert laptop.core.counters["unproven-key-shut-out"]
    world.restart("laptop")
    assert listed(laptop) == {"before"}, "what came before stays, also after a start"


@proves("task.shut-key-orders-nothing")
def test_who_joins_later_is_told_of_all_of_it_and_lists_what_was_ordered(world):
    """It cannot tell what was before from what came after: for it all of it came at once."""
    studio, hub = world["studio"], world["hub"]
    opens(studio, "before", BOB.statement)
    assert hub.order("revoke", "bob", {"name": "bob", "operator": True})["ok"]
    world.pass_ms(1_000)
    late = Cores("hub", "studio", "laptop")
    late.ms = world.ms
    late["laptop"].boot()
    late.machines = {**world.machines, "laptop": late["laptop"]}
    late["laptop"].world = world
    world.machines["laptop"] = late["laptop"]
    world.link("hub", "laptop")
    world.pass_ms(4_000)
    assert was_told(world["laptop"].core, BOB.key)
    assert not was_told(hub.core, BOB.key)
    assert listed(world["laptop"]) == {"before"}


@proves("task.shut-key-orders-nothing")
def test_a_taking_that_a_member_says_again_under_an_old_date_moves_no_border():
    world = Cores("hub", "studio", "laptop", "mallory")
    for name in ("studio", "laptop", "mallory"):
        world.link("hub", name)
    world.pass_ms(4_000)
    studio, mallory = world["studio"], world["mallory"]
    terms = is_device(world)
    opens(studio, "before", DEVICE)
    world.pass_ms(1_000)
    raw = sign_take(
        world.operator.statement,
        world.fleet,
        terms,
        nonce=bytes(16),
        issued_ms=WALL_MS + world.ms,
    )
    take = canon.encode(msgspec.to_builtins(fleet_kinds.GrantTake(terms, raw.decode())))
    writes(world["hub"], fleet_kinds.GRANT_TAKE, take)
    # The member begins a fresh stream whose clock stands at 1970.
    world.cut("mallory")
    ms = world.ms
    mallory.incarnation = Incarnation("ab" * 16)
    world.ms = 2_000 - WALL_MS
    mallory.boot(None)
    core = mallory.core
    core.now = world.now()
    with core.store.transaction():
        core.append(fleet_kinds.GRANT_TAKE, take)
        core.store.seal_dirty(core.membership.signer("seal"))
    world.ms = ms
    world.link("hub", "mallory")
    world.pass_ms(5_000)
    opens(studio, "after", DEVICE, back_ms=8_000)
    for name in ("hub", "laptop"):
        assert listed(world[name]) == {"before"}
