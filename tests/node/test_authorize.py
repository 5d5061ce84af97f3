"""Orders: obeyed once, by the machine they name, and written down; refusals are, too."""

import pytest
from tests.node.cores import LOCAL, VERBS, Cores, One
from tests.promise import proves

from muster.agent.mask import Secrets
from muster.channel.frame import Type
from muster.errors import Conflict, Exhausted
from muster.fleet.capability import make_capability
from muster.fleet.machine import Operator
from muster.fleet.statement import open_statement
from muster.limits import CONFIRM_MS, DENIALS_PER_MINUTE_MAX
from muster.log import canon
from muster.log.admit import admit
from muster.log.stream import FLEET, Incarnation
from muster.node import event as ev
from muster.node.call.authorize import Authorizer

ARGS = {"text": ["hi"], "to": "all"}


@pytest.fixture
def hub() -> One:
    return Cores("hub", "studio")["hub"]


def kind(answer: dict[str, object]) -> object:
    error = answer.get("error")
    return error["kind"] if isinstance(error, dict) else "ok"


@proves("node.orders-once")
def test_an_order_is_obeyed_once_also_by_a_machine_that_restarted(hub):
    signed = hub.world.sign("send", "all", hub, ARGS)
    assert kind(hub.call("send", ARGS, statement=signed)) == "ok"
    assert kind(hub.call("send", ARGS, statement=signed)) == "Conflict"
    hub.world.restart("hub")
    # Until its peers had the time to show it more of its own log, it obeys nobody.
    assert hub.call("send", ARGS, statement=signed) is None
    hub.world.pass_ms(CONFIRM_MS + 200)
    assert kind(hub.call("send", ARGS, statement=signed)) == "Conflict"
    assert len(hub.entries("message.send")) == 1
    (taken,) = hub.entries("order.take")
    assert taken.header.actor == "op:alice"
    assert hub.entries("message.send")[0].causes == (taken.id,)


@proves("node.orders-once")
def test_an_order_is_obeyed_once_also_where_the_log_runs_ahead_of_the_clock(hub):
    """After a clock was set back, new entries are stamped later than any short order lasts."""
    world = hub.world
    assert kind(hub.order("send", "all", {**ARGS, "text": ["before"]})) == "ok"
    world.ms -= 3_600_000
    signed = world.sign("send", "all", hub, ARGS)
    assert kind(hub.call("send", ARGS, statement=signed)) == "ok"
    before = hub.own_size
    assert kind(hub.call("send", ARGS, statement=signed)) == "Conflict"
    assert hub.own_size == before
    assert hub.core.tables.skipped() == []


def in_one_step(one: One, *calls: bytes) -> list[object]:
    one.answers.clear()
    one.step(*(ev.Arrived(LOCAL, Type.CALL, n, call) for n, call in enumerate(calls, 1)))
    return [kind(answer) for answer in one.answers]


@proves("node.orders-once")
def test_an_order_is_obeyed_once_also_where_it_is_shown_twice_in_one_step(hub):
    signed = hub.world.sign("send", "all", hub, ARGS)
    call = canon.encode({"args": ARGS, "statement": signed, "verb": "send"})
    assert in_one_step(hub, call, call, call) == ["ok", "Conflict", "Conflict"]
    assert in_one_step(hub, call) == ["Conflict"]
    assert len(hub.entries("message.send")) == len(hub.entries("order.take")) == 1


@proves("node.orders-once")
def test_an_order_is_not_spent_by_a_step_whose_commit_failed(hub, monkeypatch):
    signed = hub.world.sign("send", "all", hub, ARGS)
    call = canon.encode({"args": ARGS, "statement": signed, "verb": "send"})

    def no_room() -> None:
        raise Exhausted("the disk is full")

    monkeypatch.setattr(hub.core, "_sign", no_room)
    with pytest.raises(Exhausted):
        hub.core.step([ev.Arrived(LOCAL, Type.CALL, 1, call)], hub.world.now())
    monkeypatch.undo()
    hub.core.effects.clear()
    assert in_one_step(hub, call) == ["ok"]


@proves("node.orders-once")
def test_an_order_that_was_taken_back_with_a_failure_is_not_spent(hub):
    signed = hub.world.sign("send", "all", hub, ARGS)
    statement = open_statement(signed.encode(), hub.world.fleet)
    with hub.core.store.transaction():
        mark = hub.core.mark()
        hub.core.part(Authorizer).take("send", None, ARGS, signed)
        assert hub.core.part(Authorizer)._spent(statement.operator, statement.nonce)
        hub.core.undo(mark)
        assert not hub.core.part(Authorizer)._spent(statement.operator, statement.nonce)


@proves("node.orders-once")
def test_an_order_that_an_earlier_life_took_is_spent_in_the_step_in_which_that_comes_back(hub):
    world = hub.world
    signed = world.sign("send", "all", hub, ARGS)
    image = hub.core.store.image()
    world.link("hub", "studio")
    assert kind(hub.call("send", ARGS, statement=signed)) == "ok"
    world.pass_ms(1_000)
    lost, studio = hub.core.membership.own(FLEET), world["studio"].core.store
    hub.incarnation = Incarnation("f" * 32)
    world.restart("hub", image)
    segment = studio.log.segment(lost, hub.core.log.size(lost))
    state, public = hub.core.log.state(lost), hub.core.membership.key_of(hub.id, "seal")
    found = admit(state, segment, world.fleet, public, hub.core.log.tree(lost))
    with hub.core.store.transaction():
        hub.core.store.take(found, world.now().wall_ms)
        with pytest.raises(Conflict):
            hub.core.part(Authorizer).take("send", None, ARGS, signed)


@proves("node.orders-once")
def test_an_order_for_the_whole_fleet_is_obeyed_once_by_each_machine(hub):
    world = hub.world
    signed = world.sign("send", "all", hub, ARGS, to="fleet")
    world.link("hub", "studio")
    for name in ("hub", "studio"):
        assert kind(world[name].call("send", ARGS, statement=signed)) == "ok"
        world.pass_ms(500)
        assert kind(world[name].call("send", ARGS, statement=signed)) == "Conflict"
    assert len(hub.entries("message.send")) == 2
    assert hub.core.tables.skipped() == []


@proves("node.orders-exact")
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"args": {"text": ["other"], "to": "all"}}, "Forged"),
        ({"args": {"text": ["hi"], "to": "studio"}}, "Denied"),
        ({"verb": "thread", "args": {"name": "all"}}, "Denied"),
        ({"statement": ""}, "Denied"),
        ({"statement": "muster/statement/v1\n{}\n"}, "Malformed"),
    ],
)
def test_an_order_orders_exactly_what_was_signed(hub, change, expected):
    call = {"verb": "send", "args": ARGS, "statement": hub.world.sign("send", "all", hub, ARGS)}
    call |= change
    assert kind(hub.call(call.pop("verb"), call.pop("args"), **call)) == expected
    assert hub.entries("message.send") == hub.entries("order.take") == []


@proves("node.orders-exact")
def test_an_order_late_early_elsewhere_or_of_a_stranger_is_refused(hub):
    world = hub.world
    stranger = Operator(b"x" * 32).statement
    late = world.sign("send", "all", hub, ARGS, life_ms=1_000)
    for signed in (
        world.sign("send", "all", world["studio"], ARGS),
        world.sign("send", "all", hub, ARGS, signer=stranger),
        world.sign("send", "all", hub, ARGS, signer=hub.identity.root),
    ):
        assert kind(hub.call("send", ARGS, statement=signed)) == "Denied"
    world.pass_ms(2_000)
    assert kind(hub.call("send", ARGS, statement=late)) == "Denied"
    assert hub.entries("message.send") == hub.entries("order.take") == []


@proves("node.secrets-stay-out")
def test_what_an_agent_says_to_others_is_refused_with_a_secret_in_it_and_never_changed(hub):
    now = hub.world.now().wall_ms
    token, capability = make_capability(
        b"t" * 32, task="ab" * 16, agent="claude", verbs=("send",), until_ms=now + 60_000
    )
    secret = "tok-A1b2C3d4E5"
    hub.core.part(Authorizer).allow_agent(capability, Secrets({"DEPLOY_TOKEN": secret}))
    held = {**ARGS, "text": f"the key is {secret}"}
    answer = hub.call("send", held, capability=token)
    assert kind(answer) == "Refused"
    assert secret not in str(answer)
    assert hub.entries("message.send") == []
    assert kind(hub.call("send", ARGS, capability=token)) == "ok"
    assert not [
        e
        for s in hub.core.log.streams()
        for e in hub.core.log.slice(s, 0)
        if secret.encode() in (e.body or b"")
    ]


ENCLOSED = 77


@pytest.fixture
def enclosed(hub):
    """The token of an attempt that speaks over a link of its own sandbox."""
    task = "ab" * 16
    now = hub.world.now().wall_ms
    token, capability = make_capability(
        b"t" * 32, task=task, agent="claude", verbs=("send", "recall"), until_ms=now + 60_000
    )
    hub.core.part(Authorizer).allow_agent(capability)
    hub.step(ev.LinkUp(ENCLOSED, "", True, "ipc", attempt=task))
    return token


@proves("node.enclosed-by-capability")
def test_an_enclosed_attempt_does_what_its_capability_says(hub, enclosed):
    assert kind(hub.call("send", ARGS, ENCLOSED, capability=enclosed)) == "ok"
    assert hub.entries("message.send")[0].header.actor == "claude@hub"


@proves("node.enclosed-by-capability")
@pytest.mark.parametrize("verb", sorted(VERBS))
def test_an_enclosed_attempt_without_its_capability_may_do_nothing_at_all(hub, enclosed, verb):
    before = hub.sizes()
    assert kind(hub.call(verb, ARGS, ENCLOSED)) == "Denied"
    assert hub.sizes() == before


@proves("node.enclosed-by-capability")
def test_an_enclosed_attempt_cannot_speak_for_another_one_or_for_an_operator(hub, enclosed):
    now = hub.world.now().wall_ms
    other, capability = make_capability(
        b"u" * 32, task="cd" * 16, agent="codex", verbs=("send",), until_ms=now + 60_000
    )
    hub.core.part(Authorizer).allow_agent(capability)
    assert kind(hub.call("send", ARGS, capability=other)) == "ok", "over a link of the person's"
    signed = hub.world.sign("send", "all", hub, ARGS)
    for brought in (
        {"capability": other},
        {"statement": signed},
        {"capability": enclosed, "statement": signed},
        {"capability": enclosed, "on": "studio"},
        {"capability": enclosed, "on": "hub"},
        {"capability": "muster-cap1.x.y"},
    ):
        assert kind(hub.call("send", ARGS, ENCLOSED, **brought)) in ("Denied", "Malformed")
    assert len(hub.entries("message.send")) == 1


@proves("node.denials-are-kept")
def test_refusals_are_written_down_but_a_flood_of_them_is_only_counted(hub):
    stranger = Operator(b"x" * 32).statement
    for _ in range(DENIALS_PER_MINUTE_MAX + 20):
        signed = hub.world.sign("send", "all", hub, ARGS, signer=stranger)
        assert kind(hub.call("send", ARGS, statement=signed)) == "Denied"
    assert len(hub.entries("order.deny")) == DENIALS_PER_MINUTE_MAX
    assert hub.core.counters["denied-unrecorded"] == 20
    assert hub.core.counters["denied"] == DENIALS_PER_MINUTE_MAX + 20
    hub.world.pass_ms(61_000)
    hub.call("send", ARGS, statement=hub.world.sign("send", "all", hub, ARGS, signer=stranger))
    assert len(hub.entries("order.deny")) == DENIALS_PER_MINUTE_MAX + 1


@proves("node.capability-bounds")
def test_a_capability_counts_for_its_verbs_its_time_and_its_running_task(hub):
    now = hub.world.now().wall_ms
    token, capability = make_capability(
        b"t" * 32, task="ab" * 16, agent="claude", verbs=("send",), until_ms=now + 5_000
    )
    assert kind(hub.call("send", ARGS, capability=token)) == "Denied", "not allowed yet"
    hub.core.part(Authorizer).allow_agent(capability)
    assert kind(hub.call("send", ARGS, capability=token)) == "ok"
    assert hub.entries("message.send")[0].header.actor == "claude@hub"
    assert kind(hub.call("thread", {"name": "x"}, capability=token)) == "Denied"
    assert kind(hub.call("revoke", {"name": "studio"}, capability=token)) == "Denied"
    link = hub.world.stranger("hub")
    assert kind(hub.call("send", ARGS, link, capability=token)) == "Denied"
    hub.world.pass_ms(6_000)
    assert kind(hub.call("send", ARGS, capability=token)) == "Denied", "its time is over"
    hub.core.part(Authorizer).forget_agent("ab" * 16)
    assert kind(hub.call("send", ARGS, capability=token)) == "Denied"
    assert len(hub.entries("message.send")) == 1
