"""An operator's decision over a forked stream: written once, counted everywhere, for good."""

from typing import Any

import msgspec
import pytest
from tests.node.cores import Cores, One
from tests.node.test_fork import forked, meets, ordered
from tests.promise import proves

from muster.cli.sign import object_of
from muster.errors import NotFound
from muster.fleet import kinds
from muster.fleet.folds import FORK
from muster.fleet.forked import CLOSE, close_args, fork_id
from muster.fleet.machine import Operator
from muster.fleet.permanent import permanent
from muster.log import canon
from muster.log.stream import FLEET
from muster.node.replica import membership
from muster.verbs.fork import Close
from muster.verbs.fork import close as command
from muster.verbs.table import VERBS


@pytest.fixture
def world() -> Cores:
    made, _ = forked(ordered)
    meets(made)
    return made


def listed(machine: One) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = machine.call("forks", {})["value"]
    return found


def alarms(machine: One) -> list[str]:
    found = machine.call("incidents", {})["value"]
    return [i["title"] for i in found if i["open"] and i["key"].startswith("forked-")]


def close(machine: One, fork: str, note: str = "a restored backup", **more: Any) -> Any:
    return machine.order(CLOSE, fork, close_args(fork, note), **more)


@proves("fleet.fork-closed")
def test_a_fork_alarms_every_holder_until_an_operator_closes_it(world):
    hub, studio = world["hub"], world["studio"]
    (fork,) = listed(hub)
    assert (fork["state"], fork["machine"], fork["by"]) == ("open", "hub", "")
    assert listed(studio)[0]["fork"] == fork["fork"]
    for machine in (hub, studio):
        assert len(alarms(machine)) == 1
        assert alarms(machine)[0] in [
            i["title"] for i in machine.call("status", {})["value"]["incidents"]
        ]
    sizes = {s: n for s, n in hub.sizes().items() if s == fork["stream"]}
    assert close(studio, fork["fork"])["ok"]
    world.pass_ms(1_000)
    for machine in (hub, studio):
        (closed,) = listed(machine)
        assert (closed["state"], closed["by"], closed["note"]) == (
            "closed", "alice", "a restored backup",
        )  # fmt: skip
        assert alarms(machine) == []
    # Nothing came back and nothing went: the stream stays where its branches part.
    assert {s: n for s, n in hub.sizes().items() if s == fork["stream"]} == sizes
    rows = hub.core.store.rows("fleet_incident", key="incarnation")
    assert [r["open"] for r in rows if str(r["stream"]) == str(hub.core.membership.own(FLEET))] == [
        0
    ]


@proves("fleet.fork-closed")
def test_the_decision_survives_a_restart_and_a_rebuild_and_reaches_who_comes_late(world):
    hub, studio = world["hub"], world["studio"]
    (fork,) = listed(hub)
    world.cut("studio")
    assert close(hub, fork["fork"])["ok"]
    assert alarms(studio), "it has not heard"
    hub.incarnation = hub.core.membership.incarnation
    world.restart("hub")
    for _ in hub.core.store.rebuild():
        pass
    hub.core.membership.changed()
    assert listed(hub)[0]["state"] == "closed"
    world.link("hub", "studio")
    world.pass_ms(5_000)
    assert listed(studio)[0]["state"] == "closed"
    assert studio.core.roster.closed == hub.core.roster.closed


@proves("fleet.fork-closed")
def test_whoever_hears_the_decision_before_the_proof_comes_to_the_same(world):
    (fork,) = listed(world["hub"])
    assert close(world["hub"], fork["fork"])["ok"]
    world.pass_ms(1_000)
    late = Cores("hub", "studio")["studio"]
    with late.core.store.transaction():
        late.core.now = late.world.now()
        entry = world["hub"].entries(kinds.FORK_CLOSE)[0]
        late.core.append(kinds.FORK_CLOSE, entry.body)
        late.core.store.seal_dirty(late.core.membership.signer("seal"))
    late.core.membership.changed()
    assert [f["state"] for f in listed(late)] == ["closed"]
    assert alarms(late) == []
    assert late.core.roster.closed == world["hub"].core.roster.closed


@proves("fleet.fork-closed")
def test_a_decision_whose_own_stream_is_cut_back_lasts(world):
    hub = world["hub"]
    (fork,) = listed(hub)
    assert close(hub, fork["fork"])["ok"]
    entry = hub.entries(kinds.FORK_CLOSE)[0]
    fact = permanent(entry, hub.core.roster, world["studio"].id)
    assert fact is not None
    assert fact.row["fork"] == fork["fork"]
    assert hub.core.store.rows(fact.table, **fact.row)


@proves("fleet.fork-closed")
def test_an_earlier_difference_is_another_fork_and_waits_for_its_own_decision(world):
    hub = world["hub"]
    (fork,) = listed(hub)
    earlier = fork_id(fork["stream"], fork["common"] - 1)
    assert earlier != fork["fork"]
    assert close(hub, earlier)["error"]["kind"] == "NotFound"
    assert alarms(hub)


@proves("fleet.fork-closed")
def test_nobody_but_an_operator_closes_a_fork_and_it_is_closed_once(world):
    hub = world["hub"]
    (fork,) = listed(hub)
    args = close_args(fork["fork"], "mine")
    stranger = Operator.from_seed(b"x" * 32).statement
    before = hub.own_size
    for signer in (stranger, hub.identity.root):
        statement = world.sign(CLOSE, fork["fork"], hub, args, signer=signer)
        assert hub.call(CLOSE, args, statement=statement)["error"]["kind"] == "Denied"
    assert hub.call(CLOSE, args)["error"]["kind"] == "Denied"
    changed = world.sign(CLOSE, fork["fork"], hub, close_args(fork["fork"], "another note"))
    assert hub.call(CLOSE, args, statement=changed)["error"]["kind"] == "Forged"
    assert hub.core.store.rows(FORK.name) == []
    assert alarms(hub)
    # Of the four, those that showed a statement were written down.
    assert hub.own_size - before == 3
    assert close(hub, fork["fork"])["ok"]
    size = hub.own_size
    assert close(hub, fork["fork"])["error"]["kind"] == "Conflict"
    assert [e.header.kind for e in hub.core.store.slice(hub.core.membership.own(FLEET), size)] == [
        "order.deny"
    ]


@proves("fleet.fork-closed", "fleet.folds-total")
def test_a_decision_that_no_operator_signed_for_this_fork_counts_nowhere(world):
    hub = world["hub"]
    (fork,) = listed(hub)
    stranger = Operator.from_seed(b"x" * 32).statement
    note = "so I say"

    def body(**changes: Any) -> bytes:
        signed = {
            "signer": world.operator.statement, "fork": fork["fork"], "note": note, "verb": CLOSE,
            "object": changes.get("fork", fork["fork"]), **changes,
        }  # fmt: skip
        args = close_args(signed["fork"], signed["note"])
        signer = signed["signer"]
        statement = world.sign(signed["verb"], signed["object"], hub, args, signer=signer)
        made = kinds.ForkClose(fork["common"], note, fork["proof"], statement, fork["stream"])
        return canon.encode(msgspec.to_builtins(made))

    with hub.core.store.transaction():
        hub.core.now = world.now()
        hub.core.append(kinds.FORK_CLOSE, body(signer=stranger))
        hub.core.append(kinds.FORK_CLOSE, body(fork="0" * 64))
        # The operator said something else about this very fork.
        hub.core.append(kinds.FORK_CLOSE, body(note="I have not looked yet"))
        # It was signed for something else, with the same arguments.
        hub.core.append(kinds.FORK_CLOSE, body(object="0" * 64))
        hub.core.append(kinds.FORK_CLOSE, body(verb="fork.look"))
        hub.core.append(kinds.FORK_CLOSE, b'{"stream":1}')
        hub.core.store.seal_dirty(hub.core.membership.signer("seal"))
    hub.core.membership.changed()
    reasons = [s.reason for s in hub.core.store.skipped()]
    assert reasons[-5:] == [*["other-fork"] * 4, "bad-body"]
    assert hub.core.roster.closed == {}
    assert alarms(hub)


class Knock:
    """The command's door, onto a core of this process; it signs as the operator."""

    def __init__(self, machine: One) -> None:
        self.machine = machine

    def ask(self, verb: str, args: dict[str, Any]) -> Any:
        if verb == CLOSE:
            answer = self.machine.order(verb, object_of(VERBS[verb], args), args)
        else:
            answer = self.machine.call(verb, args)
        if not answer["ok"]:
            raise NotFound(answer["error"]["text"])
        return answer["value"]


@proves("fleet.fork-closed")
def test_a_person_names_a_fork_by_its_beginning(world):
    hub = world["hub"]
    (fork,) = listed(hub)
    door: Any = Knock(hub)
    for unknown in ("ffff", fork["fork"][:3], ""):
        with pytest.raises(NotFound):
            command(door, Close(fork=unknown))
    assert alarms(hub)
    text = ("we", "restored", "it")
    said = command(door, Close(fork=fork["fork"][:12], note=text))
    assert (said["fork"], said["common"]) == (fork["fork"], fork["common"])
    assert listed(hub)[0]["note"] == "we restored it"
    assert alarms(hub) == []


@proves("fleet.fork-closed")
def test_however_many_decisions_come_at_once_who_is_in_the_fleet_is_combined_once(monkeypatch):
    """hub <- studio (50 decisions in one segment): each of them had cost a roster of its own."""
    world = Cores("hub", "studio")
    studio = world["studio"]
    with studio.core.store.transaction():
        for number in range(50):
            body = {
                "common": number, "note": "so", "proof": "0" * 64, "statement": "nobody's",
                "stream": f"{studio.id}/{'0' * 32}/fleet",
            }  # fmt: skip
            studio.core.append(kinds.FORK_CLOSE, canon.encode(body))
        studio.core.store.seal_dirty(studio.core.membership.signer("seal"))
    combined: list[int] = []
    made = membership.assemble
    monkeypatch.setattr(membership, "assemble", lambda *args: combined.append(1) or made(*args))
    world.link("hub", "studio")
    world.pass_ms(500)
    assert len(world["hub"].entries(kinds.FORK_CLOSE)) == 50
    assert len(combined) < 10
    assert not [name for name in world["hub"].core.counters if name.startswith("failed-")]
