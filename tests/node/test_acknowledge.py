"""A person has looked at an incident: said once, counted everywhere, of a fork for good."""

from typing import Any

import msgspec
import pytest
from tests.node.cores import WALL_MS, Cores, One
from tests.node.test_fork import forked, meets, ordered
from tests.node.test_incidents import say
from tests.promise import proves

from muster.fleet import folds, kinds
from muster.fleet.acknowledgement import VERB, name_of
from muster.fleet.document import document_id
from muster.fleet.folds import ACKNOWLEDGED, INCIDENT
from muster.fleet.grant import Grant, sign_give, sign_take
from muster.fleet.machine import Operator
from muster.fleet.permanent import permanent
from muster.log import canon
from muster.log.clock import Stamp
from muster.log.stream import FLEET
from muster.node.replica import membership
from muster.node.services import operator_end
from muster.verbs import incident as incident_verbs

BOB = Operator(b"bob".ljust(32))
DAY_MS = 24 * 3_600_000


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


def signed(fork: str, note: str) -> dict[str, str]:
    return {"incident": fork, "note": note}


def close(machine: One, fork: str, note: str = "a restored backup", **more: Any) -> Any:
    return machine.order(VERB, fork, signed(fork, note), **more)


def counts(machine: One, fork: str) -> Any:
    """The word about a fork that counts there."""
    now_ms = machine.core.now.wall_ms
    return machine.core.incidents.acknowledged({fork}, now_ms).get(fork)


def write(machine: One, *entries: tuple[str, bytes]) -> None:
    core = machine.core
    with core.store.transaction():
        core.now = machine.world.now()
        for kind, body in entries:
            core.append(kind, body)
        core.store.seal_dirty(core.membership.signer("seal"))
    core.membership.changed()


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
    rows = hub.core.tables.rows(INCIDENT, key="incarnation")
    assert [r.open for r in rows if r.stream == hub.core.membership.own(FLEET)] == [0]


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
    assert counts(studio, fork["fork"]) == counts(hub, fork["fork"])


@proves("fleet.fork-closed")
def test_whoever_hears_the_decision_before_the_proof_comes_to_the_same(world):
    (fork,) = listed(world["hub"])
    assert close(world["hub"], fork["fork"])["ok"]
    world.pass_ms(1_000)
    late = Cores("hub", "studio")["studio"]
    entry = world["hub"].entries(kinds.INCIDENT_ACKNOWLEDGE)[0]
    write(late, (kinds.INCIDENT_ACKNOWLEDGE, entry.body))
    (closed,) = listed(late)
    assert (closed["state"], closed["common"]) == ("closed", fork["common"])
    assert alarms(late) == []
    assert counts(late, fork["fork"]) == counts(world["hub"], fork["fork"])


@proves("fleet.fork-closed")
def test_a_decision_whose_own_stream_is_cut_back_lasts(world):
    hub = world["hub"]
    (fork,) = listed(hub)
    assert close(hub, fork["fork"])["ok"]
    entry = hub.entries(kinds.INCIDENT_ACKNOWLEDGE)[0]
    fact = permanent(entry, hub.core.roster, world["studio"].id)
    assert fact is not None
    assert fact.row["incident"] == fork["fork"]
    assert hub.core.tables.rows(fact.table, **fact.row)


@proves("fleet.fork-closed")
def test_an_earlier_difference_is_another_fork_and_waits_for_its_own_decision(world):
    hub = world["hub"]
    (fork,) = listed(hub)
    earlier = name_of(kinds.Fork(fork["common"] - 1, fork["stream"]))
    assert earlier != fork["fork"]
    assert close(hub, earlier)["error"]["kind"] == "NotFound"
    assert alarms(hub)


@proves("fleet.fork-closed")
def test_nobody_but_an_operator_closes_a_fork_and_it_is_closed_once(world):
    hub = world["hub"]
    (fork,) = listed(hub)
    args = signed(fork["fork"], "mine")
    stranger = Operator(b"x" * 32).statement
    before = hub.own_size
    for signer in (stranger, hub.identity.root):
        statement = world.sign(VERB, fork["fork"], hub, args, signer=signer)
        assert hub.call(VERB, args, statement=statement)["error"]["kind"] == "Denied"
    assert hub.call(VERB, args)["error"]["kind"] == "Denied"
    changed = world.sign(VERB, fork["fork"], hub, signed(fork["fork"], "another note"))
    assert hub.call(VERB, args, statement=changed)["error"]["kind"] == "Forged"
    assert hub.core.tables.rows(ACKNOWLEDGED) == []
    assert alarms(hub)
    # Of the four, those that showed a statement were written down.
    assert hub.own_size - before == 3
    assert close(hub, fork["fork"])["ok"]
    size = hub.own_size
    assert close(hub, fork["fork"])["error"]["kind"] == "Conflict"
    assert [e.header.kind for e in hub.core.log.slice(hub.core.membership.own(FLEET), size)] == [
        "order.deny"
    ]


def old(world: Cores, fork: Any, note: str = "so I say", **changes: Any) -> kinds.ForkClose:
    """How a machine before 0.2 says it."""
    named = changes.pop("about", fork["fork"])
    said = {"fork": named, "note": changes.pop("said", note)}
    verb, object = changes.pop("verb", "fork.close"), changes.pop("object", named)
    statement = world.sign(verb, object, world["hub"], said, **changes)
    return kinds.ForkClose(fork["common"], note, fork["proof"], statement, fork["stream"])


def new(world: Cores, fork: Any, note: str = "so I say", **changes: Any) -> Any:
    named = changes.pop("about", fork["fork"])
    said = changes.pop("args", signed(named, changes.pop("said", note)))
    verb, object = changes.pop("verb", VERB), changes.pop("object", named)
    statement = world.sign(verb, object, world["hub"], said, **changes)
    of = kinds.Fork(fork["common"], fork["stream"])
    return kinds.IncidentAcknowledge(note, of, statement)


@proves("fleet.fork-closed", "fleet.folds-total")
@pytest.mark.parametrize(
    ("kind", "make"), [(kinds.FORK_CLOSE, old), (kinds.INCIDENT_ACKNOWLEDGE, new)]
)
def test_a_word_that_no_operator_signed_for_this_fork_counts_nowhere(world, kind, make):
    hub = world["hub"]
    (fork,) = listed(hub)
    stranger = Operator(b"x" * 32).statement
    bodies = [
        make(world, fork, signer=stranger),
        make(world, fork, about="0" * 64),
        # The operator said something else about this very fork.
        make(world, fork, said="I have not looked yet"),
        # It was signed for something else, with the same arguments.
        make(world, fork, object="0" * 64),
        make(world, fork, verb="fork.look"),
        # The statement of the other kind.
        make(world, fork, verb=VERB if kind == kinds.FORK_CLOSE else "fork.close"),
    ]
    forged = msgspec.structs.replace(bodies[0], statement=bodies[0].statement.replace("fleet", "x"))
    write(hub, *((kind, canon.encode(each)) for each in (*bodies, forged)), (kind, b'{"note":1}'))
    reasons = [s.reason for s in hub.core.tables.skipped()]
    assert reasons[-7:] == [*["other-incident"] * 5, "bad-statement", "bad-body"]
    world.pass_ms(500)
    assert not [e for e in hub.entries(kind) if permanent(e, hub.core.roster, hub.id)]
    assert counts(hub, fork["fork"]) is None
    rows = hub.core.tables.rows(INCIDENT, key="incarnation", open=1)
    assert len(rows) == 1, "what we told of it is not over"
    assert [each["state"] for each in listed(hub)] == ["open"]
    assert alarms(hub)


@proves("fleet.fork-closed")
def test_a_fork_that_an_older_version_closed_is_closed_and_stays_so(world):
    hub, studio = world["hub"], world["studio"]
    (fork,) = listed(hub)
    write(hub, (kinds.FORK_CLOSE, canon.encode(old(world, fork))))
    hub.core.sync.after_commit(hub.core.now.boot_ms)
    world.pass_ms(1_000)
    for machine in (hub, studio):
        (closed,) = listed(machine)
        assert (closed["state"], closed["by"], closed["note"]) == ("closed", "alice", "so I say")
        assert alarms(machine) == []
        assert permanent(machine.entries(kinds.FORK_CLOSE)[0], machine.core.roster, machine.id)
    assert close(hub, fork["fork"])["error"]["kind"] == "Conflict"


@proves("fleet.fork-closed", "node.versions-mix")
def test_an_older_machine_goes_on_alarming_until_it_closes_the_fork_itself_or_is_upgraded(
    world, monkeypatch
):
    """It reads over the kind that it does not know, and nothing of it stops."""
    hub, studio = world["hub"], world["studio"]
    (fork,) = listed(hub)
    with monkeypatch.context() as older:
        tables, handlers = folds._FOLDS["fleet.acknowledged"]
        known = {kinds.FORK_CLOSE: handlers[kinds.FORK_CLOSE]}
        older.setitem(folds._FOLDS, "fleet.acknowledged", (tables, known))
        world.restart("studio")
    world.link("hub", "studio")
    world.pass_ms(5_000)
    assert close(hub, fork["fork"])["ok"]
    world.pass_ms(1_000)
    assert alarms(hub) == []
    assert [each["state"] for each in listed(studio)] == ["open"]
    assert studio.core.tables.skipped() == []
    assert hub.order("send", "studio", {"text": ["hi"], "to": "studio"})["ok"]
    # Its own word is the older kind, which everybody knows.
    image = studio.core.store.image()
    write(studio, (kinds.FORK_CLOSE, canon.encode(old(world, fork, "as ever"))))
    assert [each["state"] for each in listed(studio)] == ["closed"]
    # Or it is upgraded, and reads what it has.
    world.restart("studio", image)
    assert [(f["state"], f["note"]) for f in listed(studio)] == [("closed", "a restored backup")]


@proves("fleet.fork-closed")
def test_a_person_names_an_incident_by_its_beginning_and_signs_its_whole_name(world):
    hub = world["hub"]
    (fork,) = listed(hub)

    def target(text: str) -> Any:
        return hub.call("target", {"verb": VERB, "object": text})

    for unknown in ("ffff", fork["fork"][:3]):
        assert target(unknown)["error"]["kind"] == "NotFound"
    found = target(fork["fork"][:12])["value"]
    assert (found["object"], found["here"]) == (fork["fork"], True)
    # Signed for its beginning it would count nowhere, and so it is not taken.
    short = fork["fork"][:12]
    assert hub.order(VERB, short, signed(short, "seen"))["error"]["kind"] == "Refused"
    assert alarms(hub)
    assert not hub.entries(kinds.INCIDENT_ACKNOWLEDGE)
    said = hub.order(VERB, fork["fork"], {"incident": fork["fork"]})
    assert (said["value"]["incident"], said["value"]["common"]) == (fork["fork"], fork["common"])
    assert alarms(hub) == []
    assert counts(hub, fork["fork"]).note == ""


@proves("fleet.fork-closed")
def test_however_many_words_come_at_once_who_is_in_the_fleet_is_not_combined_anew(monkeypatch):
    """hub <- studio (50 of nobody in one segment): each of them had cost a roster of its own."""
    world = Cores("hub", "studio")
    studio = world["studio"]
    body = {
        "common": 1, "note": "so", "proof": "0" * 64, "statement": "nobody's",
        "stream": f"{studio.id}/{'0' * 32}/fleet",
    }  # fmt: skip
    write(studio, *((kinds.FORK_CLOSE, canon.encode({**body, "common": n})) for n in range(50)))
    combined: list[int] = []
    made = membership.assemble
    monkeypatch.setattr(membership, "assemble", lambda *args: combined.append(1) or made(*args))
    world.link("hub", "studio")
    world.pass_ms(500)
    assert len(world["hub"].entries(kinds.FORK_CLOSE)) == 50
    assert len(combined) < 10
    assert not [name for name in world["hub"].core.counters if name.startswith("failed-")]


# --- what is no fork ---------------------------------------------------------------------------------


@pytest.fixture
def pair() -> Cores:
    """A studio that says something is wrong, and the hub that hears of it."""
    made = Cores("hub", "studio")
    made.link("hub", "studio")
    made.pass_ms(4_000)
    tell(made)
    return made


def tell(world: Cores, key: str = "smoke", title: str = "there is smoke") -> None:
    world.pass_ms(1_000)
    world["studio"].core.now = world.now()
    say(world["studio"], key, "critical", title)
    world["studio"].core.sync.after_commit(world["studio"].core.now.boot_ms)
    world.pass_ms(1_000)


def incident(machine: One, key: str = "smoke") -> dict[str, Any]:
    found: list[dict[str, Any]] = machine.call("incidents", {})["value"]
    (one,) = [each for each in found if each["key"] == key]
    return one


def waits(machine: One) -> list[str]:
    return [each["key"] for each in machine.call("status", {})["value"]["incidents"]]


def look(machine: One, id: str, signer: Operator | None = None, note: str = "seen") -> Any:
    args = signed(id, note)
    by = None if signer is None else signer.statement
    return machine.call(
        VERB, args, statement=machine.world.sign(VERB, id, machine, args, signer=by)
    )


@proves("fleet.incident-acknowledged")
def test_what_was_acknowledged_needs_nobody_on_any_machine_and_stays_open(pair):
    hub, studio = pair["hub"], pair["studio"]
    assert waits(hub) == waits(studio) == ["smoke"]
    found = incident(hub)
    assert (found["by"], found["id"]) == ("", incident(studio)["id"])
    assert look(hub, found["id"])["value"]["title"] == "there is smoke"
    pair.pass_ms(1_000)
    for machine in (hub, studio):
        assert waits(machine) == []
        told = incident(machine)
        assert (told["open"], told["by"], told["note"]) == (1, "alice", "seen")
    assert look(studio, found["id"])["error"]["kind"] == "Conflict"
    assert hub.call("incidents", {})["value"][0]["key"] == "smoke"
    assert list(hub.core.store.rebuild())
    assert waits(hub) == []


@proves("fleet.incident-acknowledged")
def test_what_is_told_again_needs_somebody_again(pair):
    hub = pair["hub"]
    first = incident(hub)["id"]
    assert look(hub, first)["ok"]
    tell(pair)
    assert incident(hub)["times"] == 2
    assert waits(hub) == ["smoke"]
    assert look(hub, first)["error"]["kind"] == "Conflict", "what was seen then is another one"
    assert look(hub, incident(hub)["id"])["ok"]
    assert waits(hub) == []


@proves("fleet.incident-acknowledged")
def test_what_was_not_acknowledged_is_seen_behind_however_much_that_was(pair):
    hub = pair["hub"]
    for number in range(30):
        tell(pair, f"later-{number}", "smoke again")
    for each in hub.call("incidents", {})["value"]:
        if each["key"] != "smoke":
            assert look(hub, each["id"])["ok"]
    assert waits(hub) == ["smoke"]
    assert hub.call("incidents", {})["value"][0]["key"] == "smoke"


@proves("fleet.incident-acknowledged")
def test_a_machine_that_tells_without_end_what_is_over_elsewhere_costs_status_only_so_much(
    pair, monkeypatch
):
    hub, asked = pair["hub"], list[int]()
    monkeypatch.setattr(incident_verbs, "SHOWN_MAX", 20)
    for number in range(60):
        say(pair["studio"], f"told-{number}", "notice", "smoke")
    pair.pass_ms(1_000)
    for each in hub.call("incidents", {"limit": 100})["value"]:
        body = {
            "note": "",
            "of": {"type": "incident", **{k: each[k] for k in ("key", "stream", "t_ms")}},
        }
        args = {"incident": each["id"]}
        statement = pair.sign(VERB, each["id"], hub, args)
        write(hub, (kinds.INCIDENT_ACKNOWLEDGE, canon.encode({**body, "statement": statement})))
    read = hub.core.tables.rows

    def rows(table: Any, **how: Any) -> Any:
        asked.append(how.get("limit", 0) if table is INCIDENT else 0)
        return read(table, **how)

    monkeypatch.setattr(hub.core.tables, "rows", rows)
    assert waits(hub) == []
    assert max(asked) == 24, "the first room of more than are shown"


def let(world: Cores, days: int = 1) -> str:
    """Alice lets Bob acknowledge; the grant's id."""
    grant = Grant("*", BOB.key, WALL_MS + days * DAY_MS, VERB)
    raw = sign_give(
        world.operator.statement, world.fleet, grant, nonce=bytes(16), issued_ms=WALL_MS
    )
    options = {"grant": msgspec.to_builtins(grant), "statement": raw.decode()}
    assert world["hub"].order("grant", VERB, {"to": BOB.key, "verb": VERB}, options=options)["ok"]
    world.pass_ms(500)
    return document_id(raw)


@proves("fleet.incident-acknowledged")
def test_whom_an_operator_lets_acknowledges_as_long_as_that_lasts(pair):
    hub, studio = pair["hub"], pair["studio"]
    found = incident(hub)["id"]
    assert look(hub, found, BOB)["error"]["kind"] == "Denied"
    grant = let(pair)
    assert look(hub, found, BOB)["ok"]
    pair.pass_ms(1_000)
    assert waits(studio) == []
    raw = sign_take(pair.operator.statement, pair.fleet, grant, nonce=bytes(16), issued_ms=WALL_MS)
    write(hub, (kinds.GRANT_TAKE, canon.encode(kinds.GrantTake(grant, raw.decode()))))
    hub.core.sync.after_commit(hub.core.now.boot_ms)
    pair.pass_ms(1_000)
    assert waits(hub) == waits(studio) == ["smoke"]


@proves("fleet.incident-acknowledged")
def test_a_word_counts_no_longer_than_the_grant_behind_it(pair):
    hub = pair["hub"]
    let(pair)
    assert look(hub, incident(hub)["id"], BOB)["ok"]
    assert waits(hub) == []
    late = hub.core.now._replace(wall_ms=WALL_MS + 2 * DAY_MS)
    hub.core.now = late
    assert hub.core.incidents.acknowledged({incident(hub)["id"]}, late.wall_ms) == {}


@proves("fleet.incident-acknowledged", "fleet.fork-closed")
def test_nobody_acknowledges_a_fork_by_a_grant(world):
    hub = world["hub"]
    (fork,) = listed(hub)
    let(world)
    assert look(hub, fork["fork"], BOB)["error"]["kind"] == "Denied"
    # Also not by writing the entry itself.
    body = new(world, fork, signer=BOB.statement)
    write(hub, (kinds.INCIDENT_ACKNOWLEDGE, canon.encode(body)))
    assert hub.core.tables.rows(ACKNOWLEDGED, signer=BOB.key)
    assert alarms(hub)
    assert [each["state"] for each in listed(hub)] == ["open"]
    assert permanent(hub.entries(kinds.INCIDENT_ACKNOWLEDGE)[-1], hub.core.roster, hub.id) is None


@proves("fleet.operator-end", "fleet.fork-closed")
def test_a_proven_fork_is_named_before_all_else_that_a_revoked_operator_acknowledged(
    world, monkeypatch
):
    """A member that has the key can tell of much, and acknowledge that."""
    monkeypatch.setattr(operator_end, "OPERATOR_END_NAMES_MAX", 1)
    hub = world["hub"]
    (fork,) = listed(hub)
    assert hub.order("operator.add", "bob", {"name": "bob", "key": BOB.key})["ok"]
    for number in range(8):
        say(hub, f"told-{number}", "critical", "smoke")
    for each in hub.call("incidents", {})["value"]:
        if each["key"].startswith(("forked-", "told-")):
            assert look(hub, each["id"], BOB)["ok"]
    world.pass_ms(1_000)
    assert hub.order("revoke", "bob", {"name": "bob", "operator": True})["ok"]
    world.pass_ms(1_000)
    for machine in (hub, world["studio"]):
        (closed,) = listed(machine)
        assert (closed["state"], closed["by"]) == ("closed", "bob")
        assert len([i for i in machine.call("incidents", {})["value"] if i["open"]]) >= 8
        assert alarms(machine) == []
    assert fork["fork"] == closed["fork"]


@proves("fleet.incident-acknowledged")
def test_a_word_about_what_is_no_fork_is_not_said_again(pair):
    """It would fill the room of what must not be lost; without it there is an alarm again."""
    hub = pair["hub"]
    assert look(hub, incident(hub)["id"])["ok"]
    (entry,) = hub.entries(kinds.INCIDENT_ACKNOWLEDGE)
    assert permanent(entry, hub.core.roster, hub.id) is None


@proves("fleet.incident-acknowledged")
def test_an_incident_cannot_take_the_name_of_a_fork():
    """Else a machine would let its smoke be acknowledged, and then fork unseen."""
    stream = f"{'a' * 64}/{'0' * 32}/fleet"
    names = {
        name_of(kinds.Fork(7, stream)), name_of(kinds.Told("7", stream, 7)),
        name_of(kinds.Told("common", stream, 7)), name_of(kinds.Fork(8, stream)),
        name_of(kinds.Told("7", stream, 8)),
    }  # fmt: skip
    assert len(names) == 5


@proves("fleet.incident-acknowledged")
def test_that_the_disk_is_full_is_acknowledged_by_nobody(pair, monkeypatch):
    hub = pair["hub"]
    assert all(each["id"] for each in hub.call("incidents", {})["value"] if each["open"])
    assert hub.call("target", {"verb": VERB, "object": ""})["error"]["kind"] == "NotFound"


def again(machine: One, entry: Any, times: int = 1) -> None:
    """A member says a word again that somebody else signed."""
    write(machine, *[(entry.header.kind, entry.body)] * times)
    machine.core.sync.after_commit(machine.core.now.boot_ms)
    machine.world.pass_ms(1_000)


def still_open(machine: One) -> list[str]:
    rows = machine.core.tables.rows(INCIDENT, stream=machine.core.membership.own(FLEET))
    return sorted(row.key for row in rows if row.open)


@proves("fleet.fork-closed")
def test_an_old_word_that_is_said_again_ends_no_later_alarm(world):
    hub, studio = world["hub"], world["studio"]
    (fork,) = listed(hub)
    assert close(studio, fork["fork"])["ok"]
    world.pass_ms(2_000)
    assert still_open(hub) == []
    for machine, key in ((hub, "incarnation"), (studio, f"fork-{hub.id[:16]}")):
        with machine.core.store.transaction():
            machine.core.now = world.now()
            machine.core.incidents.open(key, "critical", "something new")
            machine.core.store.seal_dirty(machine.core.membership.signer("seal"))
    again(studio, studio.entries(kinds.INCIDENT_ACKNOWLEDGE)[0])
    assert still_open(hub) == ["incarnation"]
    assert still_open(studio) == [f"fork-{hub.id[:16]}"]


@proves("fleet.fork-closed")
def test_a_word_said_five_hundred_times_while_a_machine_starts_is_answered_once(world):
    hub, studio = world["hub"], world["studio"]
    (fork,) = listed(hub)
    world.cut("hub")
    assert close(studio, fork["fork"])["ok"]
    again(studio, studio.entries(kinds.INCIDENT_ACKNOWLEDGE)[0], times=500)
    hub.incarnation = hub.core.membership.incarnation
    world.restart("hub")
    assert still_open(hub) == ["incarnation"]
    before = hub.own_size
    world.link("hub", "studio")
    world.pass_ms(8_000)
    assert still_open(hub) == []
    assert hub.own_size - before < 10


@proves("fleet.incident-acknowledged")
def test_what_is_told_again_needs_somebody_again_though_our_clock_stands(world):
    """A peer's clock that is ahead lets all that we say meanwhile have one time."""
    hub, studio = world["hub"], world["studio"]
    studio.core.store._stamp = Stamp(WALL_MS + world.ms + 300_000, 0)
    assert studio.order("send", "all", {"text": ["hi"], "to": "all"})["ok"]
    world.pass_ms(1_000)

    def told() -> list[dict[str, Any]]:
        with hub.core.store.transaction():
            hub.core.now = world.now()
            hub.core.incidents.open("full", "warning", "the disk is full")
            hub.core.store.seal_dirty(hub.core.membership.signer("seal"))
        world.pass_ms(500)
        return [i for i in hub.call("status", {})["value"]["incidents"] if i["key"] == "full"]

    (first,) = told()
    assert close(hub, first["id"])["ok"]
    assert not [i for i in hub.call("status", {})["value"]["incidents"] if i["key"] == "full"]
    world.pass_ms(10_000)
    (second,) = told()
    assert second["id"] != first["id"]
