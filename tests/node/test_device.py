"""A second device at work: it is added, orders, convinces a worker, and is shut out."""

from typing import Any

import msgspec
import pytest
from tests.node.cores import WALL_MS, Cores
from tests.promise import proves

from muster.fleet.device import Terms, read_string, sign_device, sign_terms, write_string
from muster.fleet.grant import sign_take
from muster.log.keys import Signer
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.task.evidence import task_args
from muster.task.instruction import StartAttempt
from muster.task.kinds import TaskOpen

DAY_MS = 86_400_000
KEY = Signer(b"the laptop's own".ljust(32))


def kind(answer: Any) -> str:
    return "ok" if answer["ok"] else str(answer["error"]["kind"])


@pytest.fixture
def world() -> Cores:
    world = Cores("hub", "laptop", "build")
    world.link("hub", "laptop")
    world.link("hub", "build")
    world.pass_ms(4_000)
    return world


def added(world: Cores, *may: str, days: int = 30, seed: bytes = b"t" * 32) -> Any:
    """What `muster device add laptop` does; the daemon's answer, and the string."""
    hub = world["hub"]
    args = {
        "days": days, "hours": 24, "machine": "laptop", "may": list(may or ("task", "send:all")),
        "minutes": 10, "ticket": Signer(seed).public.hex(),
    }  # fmt: skip
    shown = hub.call("device.terms", args)
    if not shown["ok"]:
        return shown
    terms = msgspec.convert(shown["value"]["terms"], Terms)
    raw = sign_terms(
        world.operator.statement, world.fleet, terms, nonce=seed[:16], issued_ms=WALL_MS + world.ms
    ).decode()
    options = {"terms": shown["value"]["terms"], "statement": raw}
    answer = hub.order("device.add", "laptop", args, options=options)
    world.pass_ms(1_000)
    return answer


def joined(world: Cores, at: str = "laptop", seed: bytes = b"t" * 32, key: Signer = KEY) -> Any:
    """What `muster device join STRING` does on a machine."""
    fleet, ticket = read_string(write_string(world.fleet, seed))
    machine = world[at]
    offer = machine.call("device.offer", {"fleet": fleet, "ticket": ticket.public.hex()})
    if not offer["ok"]:
        return offer
    binding = sign_device(ticket, key, fleet, machine.id).decode()
    answer = machine.call("device.record", {"binding": binding, "id": offer["value"]["id"]})
    world.pass_ms(1_000)
    return answer


def states(world: Cores, at: str = "hub") -> list[str]:
    return [d["state"] for d in world[at].call("devices", {})["value"]]


def ordered(world: Cores, verb: str, object: str, args: Any, at: str = "hub", **more: Any) -> Any:
    target = world[at]
    statement = world.sign(verb, object, target, args, signer=KEY, **more)
    return target.call(verb, args, statement=statement)


SEND = {"to": "all", "text": ["hi"]}


@proves("node.device-orders")
def test_a_device_orders_on_every_machine_as_its_person_and_no_more_than_its_terms(world):
    assert kind(added(world)) == "ok"
    assert states(world, "laptop") == ["waits"]
    answer = joined(world)
    assert kind(answer) == "ok", answer
    assert answer["value"]["operator"] == "alice"
    for at in ("hub", "build"):
        assert states(world, at) == ["orders"]
        assert kind(ordered(world, "send", "all", SEND, at)) == "ok"
        (entry,) = [
            e for e in world[at].entries("message.send") if e.stream.machine == world[at].id
        ]
        assert entry.header.actor == "op:alice.laptop"
        assert kind(ordered(world, "send", "hub", {**SEND, "to": "hub"}, at)) == "Denied"
    assert kind(ordered(world, "revoke", "build", {"name": "build"})) == "Denied"
    assert kind(ordered(world, "send", "all", SEND, life_ms=3_600_000)) == "Denied"
    assert not world["hub"].core.roster.revoked


@proves("node.device-orders")
def test_a_device_that_may_invite_invites_no_hub(world):
    assert kind(added(world, "invite")) == "ok"
    assert kind(joined(world)) == "ok"
    for roles, found in (("workstation,hub", "Denied"), ("workstation", "ok")):
        args = {"name": "new", "roles": roles}
        assert kind(ordered(world, "invite", "new", args)) == found
    assert kind(world["hub"].order("invite", "h2", {"name": "h2", "roles": "hub"})) == "ok"
    # No spec could say `needs: {machine: …}` of it.
    long = "x" * 41
    assert kind(world["hub"].order("invite", long, {"name": long})) == "Malformed"


def submitted(world: Cores, signer: Signer | None) -> str:
    """A task of the hub that only build can do, ordered by this key."""
    hub = world["hub"]
    shape = {"v": 1, "agent": ["shell"], "do": "true", "needs": {"label": "there"}}
    task = hub.core.draw(16).hex()
    args = task_args(TaskOpen(task=task, template=shape))
    statement = world.sign("task", task, hub, args, signer=signer)
    item = {"task": task, "template": shape, "statement": statement}
    assert kind(hub.call("submit", {"tasks": [item]})) == "ok"
    return task


def offered(world: Cores) -> None:
    """Build says that it is what the tasks need, so that the hub hands them out."""
    build = world["build"]
    build.step(FactsChanged(build.facts(labels=("there",))))
    world.pass_ms(2_000)


def started(world: Cores) -> list[str]:
    effects = world["build"].effects
    return [e.open.task for e in effects if isinstance(e, StartAttempt)]


@proves("node.device-orders", "task.evidence")
def test_a_worker_is_convinced_by_a_device_through_its_chain(world):
    """hub (owner) -> build (worker); the order was signed on the laptop."""
    assert kind(added(world)) == "ok"
    assert kind(joined(world)) == "ok"
    task = submitted(world, KEY)
    offered(world)
    assert started(world) == [task]


@proves("node.device-orders", "task.evidence")
def test_a_worker_refuses_what_a_device_ordered_that_was_revoked_since(world):
    """The owner took the order while it counted; the worker asks again when it is to run it."""
    assert kind(added(world)) == "ok"
    assert kind(joined(world)) == "ok"
    submitted(world, KEY)
    assert kind(taken_back(world)) == "ok"
    offered(world)
    assert started(world) == []
    refusals = [e.body or b"" for e in world["build"].entries("attempt.refuse")]
    assert any(b"operator-not-allowed" in body for body in refusals)


def taken_back(world: Cores, by: Any = None) -> Any:
    """What `muster device revoke laptop` does."""
    hub = world["hub"]
    found = hub.call("device.taken", {"device": "laptop"})
    if not found["ok"]:
        return found
    answer: Any = None
    for each in found["value"]["ids"]:
        raw = sign_take(
            by or world.operator.statement, world.fleet, each, nonce=each[:16].encode(),
            issued_ms=WALL_MS + world.ms,
        ).decode()  # fmt: skip
        options = {"id": each, "statement": raw}
        answer = hub.order("device.revoke", "laptop", {"device": "laptop"}, options=options)
    world.pass_ms(1_000)
    return answer


@proves("fleet.device-revoked")
def test_a_revoked_device_orders_nothing_anywhere_and_another_string_makes_another_key(world):
    assert kind(added(world)) == "ok"
    assert kind(joined(world)) == "ok"
    assert kind(added(world, seed=b"u" * 32)) == "Conflict"
    assert kind(taken_back(world)) == "ok"
    for at in ("hub", "laptop", "build"):
        assert states(world, at) == ["revoked"], at
        assert kind(ordered(world, "send", "all", SEND, at)) == "Denied"
    assert kind(joined(world)) == "Denied"
    assert kind(added(world, seed=b"u" * 32)) == "ok"
    again = Signer(b"the second key".ljust(32))
    assert kind(joined(world, seed=b"u" * 32, key=again)) == "ok"
    assert sorted(states(world)) == ["orders", "revoked"]
    assert set(world["build"].core.roster.devices) == {again.public.hex()}
    assert world["laptop"].id in world["hub"].core.roster.machines, "it is a member as before"


@proves("fleet.device-revoked")
def test_a_string_that_waits_is_revoked_like_a_device(world):
    assert kind(added(world)) == "ok"
    assert kind(taken_back(world)) == "ok"
    refused = joined(world)
    assert kind(refused) == "Denied"
    assert "was revoked" in refused["error"]["text"]
    assert kind(taken_back(world)) == "NotFound"


@proves("fleet.device-string-once")
def test_the_string_works_once_here_and_in_time_only(world):
    assert kind(added(world)) == "ok"
    elsewhere = joined(world, at="build")
    assert kind(elsewhere) == "Denied"
    assert "for laptop" in elsewhere["error"]["text"]
    assert kind(joined(world, seed=b"never told".ljust(32))) == "NotFound"
    world.ms += DAY_MS + 1
    late = joined(world)
    assert kind(late) == "Denied"
    assert "in time" in late["error"]["text"]
    world.ms -= DAY_MS
    assert kind(joined(world)) == "ok"
    used = joined(world)
    assert kind(used) == "Denied"
    assert "used already" in used["error"]["text"]
    assert len(world["laptop"].entries("device.record")) == 1


@proves("node.device-orders")
@pytest.mark.parametrize(
    ("may", "expected"),
    [("*", "Refused"), ("operator.add", "Refused"), ("grant:run", "Refused"),
     ("rnu", "NotFound"), ("logs", "Refused"), ("status:x", "Refused")],
)  # fmt: skip
def test_what_a_device_can_never_or_never_usefully_hold_is_refused_before_it_is_signed(
    world, may, expected
):
    assert kind(added(world, may)) == expected
    assert not world["hub"].entries("device.open")


@proves("cli.grant-has-an-effect")
def test_what_a_device_may_is_not_changed_by_a_grant(world):
    assert kind(added(world)) == "ok"
    assert kind(joined(world)) == "ok"
    refused = world["hub"].call("grant.check", {"to": "laptop", "verb": "run"})
    assert kind(refused) == "Refused"
    assert "when it is added" in refused["error"]["text"]
    pushes = world["hub"].call("grant.check", {"to": "laptop", "verb": "push"})
    assert pushes["value"]["grantee"] == world["laptop"].id


@proves("node.device-orders")
def test_only_an_operator_adds_and_revokes_devices(world):
    assert kind(added(world, "task", "send", "device.terms")) == "ok"
    assert kind(joined(world)) == "ok"
    args = {"machine": "build"}
    for verb, object in (("device.add", "build"), ("device.revoke", "laptop")):
        call = args if verb == "device.add" else {"device": "laptop"}
        assert kind(ordered(world, verb, object, call)) == "Denied"
    stranger = Signer(b"a stranger".ljust(32))
    assert kind(taken_back(world, by=stranger)) == "Denied"
    assert states(world) == ["orders"]
