"""A machine that was set back: it says so, leaves alone what it may have done, and goes on again."""

from typing import Any

import msgspec
import pytest
from tests.node.cores import WALL_MS, Cores, One
from tests.promise import proves

from muster.channel.frame import Type
from muster.fleet import kinds
from muster.fleet.grant import Grant, sign_give
from muster.fleet.invite import read_invite
from muster.fleet.join import sign_join
from muster.fleet.machine import Identity, Operator
from muster.limits import CONFIRM_MS, SETBACKS_PER_HOUR_MAX
from muster.log import canon, wire
from muster.log import segment as segments
from muster.log.seal import make_cosign, make_seal
from muster.log.stream import FLEET, Incarnation, StreamName
from muster.node import event as ev
from muster.node.incarnations.doubt import FLOOR, Doubt
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.installation import resume_incarnation
from muster.store.mark import Mark
from muster.store.store import Draft
from muster.task.evidence import task_args
from muster.task.fold import TASK
from muster.task.kinds import TaskOpen

ARGS = {"text": ["pay"], "to": "all"}
FRESH = Incarnation("5" * 32)


def answer(found: Any) -> str:
    if found is None:
        return "waits"
    return "ok" if found["ok"] else str(found["error"]["kind"])


def marked(one: One) -> dict[str, int]:
    return {s: n for s, n in one.sizes().items() if s.startswith(one.id)}


def set_back(world: Cores, name: str, image: bytes, awaited: dict[str, int]) -> One:
    """The machine starts from an older image, and its mark tells of more, as `Installation` does."""
    one = world[name]
    one.incarnation = FRESH
    one.doubts = (("The stream had more before.",), awaited)
    world.restart(name, image)
    return one


def obeyed() -> tuple[Cores, One, bytes, dict[str, int], str]:
    """studio obeyed an order after its backup, and the hub holds that it did."""
    world = Cores("hub", "studio", "lap")
    world.link("hub", "studio")
    world.link("hub", "lap")
    world.pass_ms(CONFIRM_MS + 500)
    studio = world["studio"]
    image = studio.core.store.image()
    signed = world.sign("send", "all", studio, ARGS)
    assert answer(studio.call("send", ARGS, statement=signed)) == "ok"
    world.pass_ms(500)
    sizes = marked(studio)
    world.cut("studio")
    return world, studio, image, sizes, signed


def incidents(one: One) -> list[dict[str, Any]]:
    found = one.call("incidents", {})["value"]
    return [i for i in found if i["open"] and i["key"].startswith("set-back")]


@proves("node.doubt-obeys-nothing")
def test_an_order_is_not_obeyed_again_before_its_own_log_came_back():
    world, studio, image, sizes, signed = obeyed()
    set_back(world, "studio", image, sizes)
    assert answer(studio.call("send", ARGS, statement=signed)) == "waits"
    world.pass_ms(CONFIRM_MS + 500)
    # Alone it hears what is waited for, also who asks for something new.
    assert "hub" in studio.answers[-1]["error"]["text"]
    assert "muster vouch" in studio.answers[-1]["error"]["text"]
    assert answer(studio.order("send", "all", ARGS)) == "Conflict"
    assert studio.entries("order.take") == []
    world.link("hub", "studio")
    world.pass_ms(500)
    # Everything that its mark remembers is here: it need not wait for the laptop.
    assert answer(studio.call("send", ARGS, statement=signed)) == "Conflict"
    assert "taken already" in studio.answers[-1]["error"]["text"]
    assert answer(studio.order("send", "all", ARGS)) == "ok"
    assert len(world["hub"].entries("order.take")) == 2


@proves("node.doubt-obeys-nothing")
def test_a_single_task_is_not_taken_again_either():
    world, studio, _, _, _ = obeyed()
    world.link("hub", "studio")
    world.pass_ms(500)
    image = studio.core.store.image()
    task, shape = "a" * 32, {"v": 1, "agent": ["noop"], "do": "{}"}
    signed = world.sign("task", task, studio, task_args(TaskOpen(task=task, template=shape)))
    items = {"tasks": [{"task": task, "template": shape, "statement": signed}]}
    assert answer(studio.call("submit", items)) == "ok"
    world.pass_ms(500)
    sizes = marked(studio)
    world.cut("studio")
    set_back(world, "studio", image, sizes)
    assert answer(studio.call("submit", items)) == "waits"
    world.pass_ms(CONFIRM_MS + 500)
    assert "muster vouch" in studio.answers[-1]["error"]["text"]
    assert answer(studio.call("submit", items)) == "Conflict"
    assert studio.entries("task.open") == []
    world.link("hub", "studio")
    world.pass_ms(500)
    assert answer(studio.call("submit", items)) == "Conflict"
    assert "ordered before" in studio.answers[-1]["error"]["text"]


@proves("node.doubt-obeys-nothing")
def test_one_that_does_not_hold_it_all_is_not_enough():
    """The hub was away when the order was obeyed: only the laptop holds that."""
    world, studio, image, _, _ = obeyed()
    world.link("lap", "studio")
    world.cut("hub")
    later = world.sign("send", "all", studio, ARGS)
    assert answer(studio.call("send", ARGS, statement=later)) == "ok"
    world.pass_ms(500)
    sizes = marked(studio)
    world.cut("studio")
    set_back(world, "studio", image, sizes)
    world.link("hub", "studio")
    world.pass_ms(CONFIRM_MS + 1_000)
    assert answer(studio.call("send", ARGS, statement=later)) == "Conflict"
    assert "lap" in studio.answers[-1]["error"]["text"]
    world.link("lap", "studio")
    world.pass_ms(1_000)
    assert answer(studio.call("send", ARGS, statement=later)) == "Conflict"
    assert "taken already" in studio.answers[-1]["error"]["text"]


@proves("node.doubt-obeys-nothing")
def test_also_one_whose_mark_was_restored_with_it_waits_once_it_hears_that_there_was_more():
    world, studio, image, _, signed = obeyed()
    world.restart("studio", image)
    here, _ = world.link("studio", "hub")
    assert here
    for _ in range(40):
        found = studio.call("send", ARGS, statement=signed)
        assert answer(found) != "ok"
        world.pass_ms(100)
    assert "taken already" in studio.answers[-1]["error"]["text"]
    assert len(world["hub"].entries("message.send")) == 1


@proves("node.doubt-obeys-nothing")
def test_no_task_is_taken_meanwhile_and_another_machine_gets_it():
    world, studio, image, sizes, _ = obeyed()
    set_back(world, "studio", image, {**sizes, next(iter(sizes)): 10_000})
    world.link("hub", "studio")
    world.pass_ms(2_000)
    assert studio.core.part(Doubt).waits
    hub = world["hub"]
    for _ in range(6):
        hub.submit()
        world.pass_ms(300)
    world.pass_ms(3_000)
    starts = hub.entries("attempt.start")
    assert starts
    assert studio.id not in {e.header.author for e in starts}
    assert studio.core.counters["assignments-in-doubt"] == 6
    assert all(hub.task(r.task).state == "done" for r in hub.core.tables.rows(TASK))


@proves("node.doubt-obeys-nothing")
def test_a_doubt_outlasts_a_restart():
    world, studio, image, sizes, signed = obeyed()
    set_back(world, "studio", image, sizes)
    world.pass_ms(500)
    studio.incarnation, studio.doubts = studio.core.membership.incarnation, ((), {})
    world.restart("studio")
    assert studio.core.part(Doubt).waits
    world.pass_ms(CONFIRM_MS + 500)
    assert answer(studio.call("send", ARGS, statement=signed)) == "Conflict"


@proves("node.doubt-resume")
def test_an_operators_word_goes_on_without_and_what_was_signed_before_stays_refused():
    world, studio, image, sizes, signed = obeyed()
    set_back(world, "studio", image, sizes)
    world.pass_ms(CONFIRM_MS + 500)
    doubt = studio.call("doubt", {})["value"]
    assert doubt["waits"]
    for other in ("0" * 32, "f" * 32):
        assert answer(studio.order("doubt.end", other, {"doubt": other})) == "Conflict"
    assert answer(studio.call("doubt.end", {"doubt": doubt["id"]})) == "Denied"
    assert studio.core.part(Doubt).waits
    assert answer(studio.order("doubt.end", doubt["id"], {"doubt": doubt["id"]})) == "ok"
    assert studio.call("doubt", {})["value"] is None
    assert incidents(studio) == []
    assert answer(studio.call("send", ARGS, statement=signed)) == "Conflict"
    assert "sign it anew" in studio.answers[-1]["error"]["text"]
    world.pass_ms(100)
    assert answer(studio.order("send", "all", ARGS)) == "ok"
    # The floor outlasts a restart, and the word counts for this doubt alone.
    studio.incarnation, studio.doubts = studio.core.membership.incarnation, ((), {})
    world.restart("studio")
    world.pass_ms(CONFIRM_MS + 500)
    assert answer(studio.call("send", ARGS, statement=signed)) == "Conflict"
    assert studio.core.store.recall(FLOOR)


@proves("node.setback-is-said")
def test_it_is_an_incident_everywhere_and_the_first_thing_that_is_said():
    world, studio, image, sizes, _ = obeyed()
    set_back(world, "studio", image, {**sizes, next(iter(sizes)): 10_000})
    world.link("hub", "studio")
    world.pass_ms(2_000)
    status = studio.call("status", {})["value"]
    assert status["doubt"]["reasons"] == ["The stream had more before."]
    assert status["incidents"][0]["key"].startswith("set-back")
    for name in ("hub", "studio", "lap"):
        assert any("studio lost a part" in i["title"] for i in incidents(world[name])), name
    assert any(n for n in studio.notes if "studio lost a part" in n)


@proves("node.setback-is-said")
def test_who_holds_more_of_a_machine_than_it_has_says_so_though_it_keeps_quiet():
    world, studio, image, _, _ = obeyed()
    world.restart("studio", image)
    # Its own incidents never come: an older version knows of none.
    studio.core.incidents.open = lambda *_a, **_k: None
    world.link("hub", "studio")
    world.pass_ms(100)
    assert any("asks others for its entries" in n for n in world["hub"].notes)
    world.pass_ms(2_000)
    # They are back, and it confirmed them.
    assert incidents(world["hub"]) == []


@proves("node.setback-is-said")
def test_a_member_that_loses_and_finds_its_own_entries_all_day_does_not_fill_our_log():
    world = Cores("hub", "studio", "lap")
    link, _ = world.link("hub", "lap")
    world.pass_ms(CONFIRM_MS + 500)
    hub, lap = world["hub"], world["lap"]
    own, before = lap.core.membership.own(FLEET), hub.own_size
    size, seal = lap.core.log.size(own), lap.core.log.seal_of(own)
    for _ in range(50):
        want = wire.Want(str(own), 0)
        has = wire.Offer([wire.Head(str(own), size, seal.note.decode())])
        for message in (want, has):
            hub.step(ev.Arrived(link, Type.OFFER, 0, wire.encode(message)))
        world.pass_ms(200)
    assert hub.own_size - before <= 2 * SETBACKS_PER_HOUR_MAX
    open_ = [i["key"] for i in hub.call("incidents", {})["value"] if i["open"]]
    assert f"set-back-{lap.id[:16]}" in open_, "it stays said"
    world.ms += 3_600_000
    world.pass_ms(200)
    open_ = [i["key"] for i in hub.call("incidents", {})["value"] if i["open"]]
    assert f"set-back-{lap.id[:16]}" not in open_


@proves("node.setback-is-said")
def test_alone_in_its_fleet_it_goes_on_says_so_and_obeys_nothing_that_was_signed_before():
    world = Cores("hub")
    hub, own = world["hub"], {"text": ["pay"], "to": "hub"}
    signed = world.sign("send", "hub", hub, own)
    image = hub.core.store.image()
    assert answer(hub.call("send", own, statement=signed)) == "ok"
    set_back(world, "hub", image, marked(hub))
    assert answer(hub.call("send", own, statement=signed)) == "Conflict"
    world.pass_ms(100)
    assert answer(hub.order("send", "hub", own)) == "ok"
    assert incidents(hub)
    doubt = hub.call("status", {})["value"]["doubt"]
    assert not doubt["waits"]
    assert answer(hub.order("doubt.end", doubt["id"], {"doubt": doubt["id"]})) == "ok"
    assert incidents(hub) == []


@proves("node.setback-is-said")
def test_a_claim_without_our_own_signature_puts_nothing_in_doubt():
    world, studio, _, _, _ = obeyed()
    world.restart("studio")
    own = studio.core.membership.own(FLEET)
    claim(world, own, 5)
    world.pass_ms(CONFIRM_MS + 500)
    assert studio.core.membership.own(FLEET) != own, "it costs an incarnation"
    assert not studio.core.part(Doubt).waits
    assert answer(studio.order("send", "all", ARGS)) == "ok"


def claim(world: Cores, own: StreamName, more: int) -> None:
    """Lap receipts more of the studio's stream than there is, and tells it over a new link."""
    studio, lap = world["studio"], world["lap"]
    size, signer = studio.core.log.size(own) + more, lap.core.membership.signer("held")
    note = make_cosign(world.fleet, own, size, b"r" * 32, lap.id, "held", signer, 1).note
    _, link = world.link("lap", "studio")
    shown = wire.encode(wire.Cosigns([note.decode()]))
    studio.step(ev.Arrived(link, Type.COSIGN, 0, shown))


def begun(world: Cores) -> StreamName:
    """The studio was started again; its stream."""
    studio = world["studio"]
    studio.incarnation = studio.core.membership.incarnation
    world.restart("studio")
    return studio.core.membership.own(FLEET)


@proves("node.claims-cost-once")
def test_a_machine_that_claims_what_never_was_costs_one_incarnation_and_not_one_at_each_start():
    world, studio, _, _, _ = obeyed()
    first = begun(world)
    claim(world, first, 5)
    world.pass_ms(CONFIRM_MS + 500)
    second = studio.core.membership.own(FLEET)
    assert second != first
    found = studio.call("incidents", {})["value"]
    assert [i["title"] for i in found if i["open"] and "lap claims" in i["title"]], "it is said"
    for more in (1, 5, 50):
        assert begun(world) == second
        claim(world, second, more)
        world.pass_ms(CONFIRM_MS + 500)
        assert studio.core.membership.own(FLEET) == second
        assert studio.core.settled


@proves("node.claims-cost-once")
def test_whoever_claimed_what_then_came_is_believed_again():
    world, studio, _, _, _ = obeyed()
    first = begun(world)
    claim(world, first, 1)
    world.pass_ms(CONFIRM_MS + 500)
    assert studio.core.membership.own(FLEET) != first
    with studio.core.store.transaction():
        studio.core.store.append(first, [Draft("test.more", "muster", (), b"{}")], WALL_MS)
        studio.core.store.seal_dirty(studio.core.membership.signer("seal"))
    second = begun(world)
    claim(world, second, 1)
    world.pass_ms(CONFIRM_MS + 500)
    assert studio.core.membership.own(FLEET) != second


@proves("store.mark-doubts")
def test_a_log_that_is_gone_is_a_doubt_and_a_mark_of_another_machine_is_none():
    world = Cores("hub", "studio")
    studio, sizes = world["studio"], marked(world["studio"])
    empty = Cores("hub", "studio")["studio"].core.store
    mark = Mark(studio.incarnation, sizes, "m", "b", "g", 1)
    assert resume_incarnation(studio.core.store, mark, "m", "g") == (studio.incarnation, ())
    one = One(world, "studio", 1)
    one.world.machines["studio"] = one
    fresh = type(empty)(
        ":memory:", fleet=world.fleet, machine=studio.id, rng=studio.core.draw, folds=()
    )  # fmt: skip
    going, why = resume_incarnation(fresh, mark, "m", "g")
    assert going is None
    assert "log is gone" in why[0]
    assert resume_incarnation(fresh, None, "m", "g") == (None, ())
    other = {s.replace(studio.id, "0" * 64): n for s, n in sizes.items()}
    assert resume_incarnation(fresh, Mark("x", other, "m", "b", "g", 1), "m", "g") == (None, ())


@pytest.mark.parametrize("name", ["hub", "studio"])
@proves("node.doubt-resume")
def test_a_machine_that_knows_its_past_has_no_doubt(name):
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(CONFIRM_MS + 500)
    world.restart(name)
    world.link("hub", "studio")
    world.pass_ms(CONFIRM_MS + 500)
    assert world[name].call("doubt", {})["value"] is None
    assert answer(world[name].order("send", "all", ARGS)) == "ok"


def longer(world: Cores, studio: One, stream: StreamName, more: int) -> None:
    """The hub shows our own, genuine seal over more of our stream than it can give."""
    size = studio.core.log.size(stream) + more
    seal = make_seal(world.fleet, stream, size, b"r" * 32, studio.identity.signer("seal"))
    link = next(n for n, each in studio.core.links.items() if each.peer == world["hub"].id)
    offer = wire.Offer([wire.Head(str(stream), size, seal.note.decode())])
    studio.step(ev.Arrived(link, Type.OFFER, 0, wire.encode(offer)))


@proves("node.doubt-obeys-nothing")
def test_our_own_seal_over_more_than_is_here_is_enough_to_wait_for_it():
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(CONFIRM_MS + 500)
    studio = world["studio"]
    own = studio.core.membership.own(FLEET)
    longer(world, studio, own, 3)
    assert studio.core.part(Doubt).waits
    world.pass_ms(CONFIRM_MS + 500)
    # Everybody spoke, and what was shown is with nobody: only a person can go on.
    assert answer(studio.order("send", "all", ARGS)) == "Conflict"
    assert "nobody here holds" in studio.answers[-1]["error"]["text"]
    assert studio.core.part(Doubt).waits


@proves("node.setback-is-said")
def test_entries_of_our_own_key_that_we_never_had_are_a_sign_whatever_they_say():
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(CONFIRM_MS + 500)
    studio = world["studio"]
    # It began anew from nothing, and so names no incarnation that ended.
    other = One(world, "studio", 1)
    other.name, other.incarnation = "other", Incarnation("7" * 32)
    other.boot()
    stream = other.core.membership.own(FLEET)
    segment = other.core.log.segment(stream, 0, 100_000, 0)
    assert segment is not None
    link = next(n for n, each in studio.core.links.items() if each.peer == world["hub"].id)
    studio.step(ev.Arrived(link, Type.SEGMENT, 0, segments.encode(segment)))
    assert any("own log that it did not have" in n for n in studio.notes)
    assert studio.core.counters["doubts"] == 1


@proves("node.doubt-obeys-nothing")
def test_an_owner_in_doubt_takes_no_task_up_that_it_may_have_settled():
    world = Cores("hub", "studio", "lap")
    hub = world["hub"]
    world.pass_ms(CONFIRM_MS + 500)
    hub.step(FactsChanged(hub.facts(agents={})))
    task = hub.submit()
    world.pass_ms(200)
    image = hub.core.store.image()
    world.link("hub", "studio")
    world.pass_ms(2_000)
    assert hub.task(task).state == "done"
    sizes = marked(hub)
    world.cut("hub")
    set_back(world, "hub", image, sizes)
    world.pass_ms(CONFIRM_MS + 3_000)
    assert len(hub.entries("task.open")) == 1
    assert not [e for e in hub.entries("task.open") if e.stream.incarnation == FRESH]
    world.link("hub", "studio")
    world.pass_ms(3_000)
    assert hub.task(task).state == "done"
    assert len(hub.entries("attempt.start")) == 1, "it was not done again"
    assert hub.core.counters["reports-of-nobody"] == 1


@proves("node.doubt-resume")
def test_only_an_operator_ends_a_doubt_not_whom_an_operator_let_do_everything_else():
    world, studio, image, sizes, _ = obeyed()
    helper = Operator(b"helper".ljust(32))
    grant = Grant(object="*", to=helper.key, until_ms=WALL_MS * 2, verb="*")
    now_ms = world.now().wall_ms
    given = sign_give(
        world.operator.statement, world.fleet, grant, nonce=b"n" * 16, issued_ms=now_ms
    )
    with studio.core.store.transaction():
        studio.core.now = world.now()
        body = kinds.GrantGive(grant, given.decode())
        studio.core.append(kinds.GRANT_GIVE, canon.encode(msgspec.to_builtins(body)))
        studio.core.store.seal_dirty(studio.core.membership.signer("seal"))
    image, sizes = studio.core.store.image(), marked(studio)
    set_back(world, "studio", image, {**sizes, next(iter(sizes)): 10_000})
    world.pass_ms(CONFIRM_MS + 500)
    doubt = studio.call("doubt", {})["value"]["id"]
    args = {"doubt": doubt}
    signed = world.sign("doubt.end", doubt, studio, args, signer=helper.statement)
    assert answer(studio.call("doubt.end", args, statement=signed)) == "Denied"
    assert "only an operator" in studio.answers[-1]["error"]["text"]
    assert studio.core.part(Doubt).waits


def invited(world: Cores) -> str:
    answer = world["hub"].order("invite", "phone", {"name": "phone"})
    world.pass_ms(500)
    return str(answer["value"]["invitation"]).partition("#")[0]


def enrols(world: Cores, invitation: str, seed: bytes) -> str:
    phone = Identity(seed.ljust(32))
    request = sign_join(phone, read_invite(invitation), "phone").decode()
    hub = world["hub"]
    return answer(hub.call("enrol", {"request": request}, link=world.stranger("hub")))


@proves("node.doubt-lets-nobody-in")
def test_an_invitation_that_was_used_is_of_no_use_at_a_hub_from_a_backup():
    world = Cores("hub", "studio", "lap")
    for name in ("studio", "lap"):
        world.link("hub", name)
    world.pass_ms(CONFIRM_MS + 500)
    hub, invitation = world["hub"], invited(world)
    image = hub.core.store.image()
    assert enrols(world, invitation, b"phone") == "ok"
    assert enrols(world, invitation, b"thief") == "Denied"
    world.pass_ms(1_000)
    sizes = marked(hub)
    world.cut("hub")
    set_back(world, "hub", image, sizes)
    assert enrols(world, invitation, b"thief") == "waits"
    world.pass_ms(CONFIRM_MS + 500)
    assert enrols(world, invitation, b"thief") == "Conflict"
    assert len(hub.core.roster.machines) == 3
    for name in ("studio", "lap"):
        world.link("hub", name)
    world.pass_ms(5_000)
    assert len(hub.core.roster.machines) == 4
    assert enrols(world, invitation, b"thief") == "Denied"


@proves("node.doubt-lets-nobody-in")
def test_where_what_became_of_it_is_lost_for_good_an_invitation_counts_no_more():
    world = Cores("hub")
    hub, invitation = world["hub"], invited(world)
    image = hub.core.store.image()
    assert enrols(world, invitation, b"phone") == "ok"
    set_back(world, "hub", image, marked(hub))
    world.pass_ms(CONFIRM_MS + 500)
    assert enrols(world, invitation, b"thief") == "Denied"
    assert enrols(world, invited(world), b"phone") == "ok"


@proves("node.doubt-lets-nobody-in")
def test_a_machine_from_a_backup_binds_no_device_and_renews_nobody():
    world = Cores("hub", "studio", "lap")
    world.link("hub", "studio")
    world.pass_ms(CONFIRM_MS + 500)
    hub = world["hub"]
    image = hub.core.store.image()
    sizes = {**marked(hub), str(hub.core.membership.own(FLEET)): hub.own_size + 5}
    world.cut("hub")
    set_back(world, "hub", image, sizes)
    world.pass_ms(CONFIRM_MS + 500)
    assert answer(hub.call("device.offer", {"fleet": world.fleet, "ticket": "x"})) == "Conflict"
    assert answer(hub.call("device.record", {"binding": "x", "id": "x"})) == "Conflict"
    _, link = world.link("studio", "hub")
    # Its answer goes over the link; what is counted is enough.
    hub.call("renew", {"request": "x"}, link=link)
    assert hub.core.counters["call-conflict"] == 3
    assert hub.core.counters["call-malformed"] == 0
