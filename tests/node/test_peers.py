"""Two fleets of two operators: what goes between them, and nothing else does."""

from dataclasses import replace
from typing import Any

import pytest
from tests.arguments import good as least
from tests.node.cores import WALL_MS, Cores, One
from tests.promise import proves

from muster.channel.frame import Type
from muster.errors import Conflict
from muster.fleet import certificate
from muster.fleet.grant import Grant, sign_give, sign_take
from muster.fleet.letter import Letter, open_receipt, sign_letter, sign_receipt
from muster.fleet.machine import Authority
from muster.fleet.peer import Door, Foreign, PeerFleet, peer_args, read_card, write_card
from muster.fleet.record import open_record, sign_binding, sign_record
from muster.limits import (
    PEER_CALLS_PER_MINUTE_MAX,
    PEER_LETTER_LIFE_MS,
    PEER_LETTERS_PER_DAY_MAX,
    PEER_TEXT_BYTES_MAX,
)
from muster.log.stream import FLEET
from muster.message.letter import SENT, TAKEN
from muster.node import event as ev
from muster.node.call.guests import REFUSED
from muster.node.services.letters import (
    DENIALS_PER_HOUR_MAX,
    Letters,
    LetterSettled,
    LetterTaken,
)
from muster.verbs.table import VERBS

NAMES = {0: "ours", 1: "acme"}
HOUR_MS = 3_600_000


class Two:
    """Our fleet (hub, studio) and acme (yard, shed), each of one operator; link numbers by side."""

    def __init__(self) -> None:
        self.ours, self.acme = Cores("hub", "studio"), Cores("yard", "shed", other=1)
        for world, pair in ((self.ours, ("hub", "studio")), (self.acme, ("yard", "shed"))):
            world.link(*pair)
            world.pass_ms(1_000)
        self._next = 1000

    def peer(self, world: Cores, other: Cores, at: str = "", **more: Any) -> Any:
        """An operator takes in the other fleet, whose first machine is its door."""
        card, name = card_of(other), NAMES[other.other]
        args = peer_args(card, other.fleet, name)
        where = world[at or next(iter(world.machines))]
        raw = world.sign("peer.add", other.fleet, where, args, **more)
        answer = where.call("peer.add", args, statement=raw)
        world.drain()
        return answer

    def both(self) -> "Two":
        for one, other in ((self.ours, self.acme), (self.acme, self.ours)):
            assert self.peer(one, other)["ok"]
        return self

    def link(self, at: One, who: One) -> int:
        """A link from a machine of the other fleet, as TLS proved it."""
        self._next += 1
        foreign = str(Foreign(who.world.fleet, who.id))
        at.step(ev.LinkUp(self._next, "", False, "http", "", foreign))
        return self._next


def card_of(world: Cores) -> str:
    door = next(iter(world.machines.values()))
    record = open_record(door.record, world.fleet)
    chain = certificate.issue(world.authority, record, WALL_MS)
    return write_card(world.fleet, chain.ca_pem.decode(), [Door("127.0.0.1:7", door.id, door.name)])


def give(world: Cores, object: str, to: Cores, verb: str = "send") -> str:
    """A grant to another fleet; its id."""
    hub = next(iter(world.machines.values()))
    grant = Grant(object=object, to=f"fleet:{to.fleet}", until_ms=WALL_MS + HOUR_MS, verb=verb)
    signer = world.operator.statement
    issued = WALL_MS + world.ms
    raw = sign_give(signer, world.fleet, grant, nonce=hub.core.draw(16), issued_ms=issued).decode()
    args = {"to": f"fleet:{NAMES[to.other]}", "verb": verb, "object": object}
    options = {"grant": {"object": object, "to": grant.to, "until_ms": grant.until_ms, "verb": verb},
               "statement": raw}  # fmt: skip
    answer = hub.order("grant", verb, args, options=options)
    assert answer["ok"], answer
    world.drain()
    return hub.call("grant.check", args)["value"]["held"][0]


def send(world: Cores, at: str, to: str, text: str = "hello", **more: Any) -> Any:
    return world[at].order("send", to, {"to": to, "text": [text], **more})


def shown(one: One) -> dict[str, str]:
    """What is said of the oldest letter that waits here, as its carrier shows it."""
    letters = one.core.part(Letters)
    row = next(letters.waiting())
    return {"letter": letters.document(row), "record": one.record.decode()}


def carry(two: Two, at: One, who: One) -> Any:
    """Show the oldest waiting letter of a machine to a door, and bring back what that says."""
    answer = at.call("peer.message", shown(who), link=two.link(at, who))
    at.world.drain()
    return answer


def bring_back(who: One, answer: Any) -> None:
    row = next(who.core.part(Letters).waiting())
    said = answer["value"]
    who.step(LetterSettled(row.letter, said["receipt"], said["record"]))


def inbox(one: One) -> list[str]:
    return [item["text"] for item in one.call("inbox", {})["value"]]


@pytest.fixture
def two() -> Two:
    made = Two().both()
    give(made.acme, made.acme["yard"].id, made.ours)
    return made


@proves("peer.letter-settles-by-receipt")
def test_a_letter_is_taken_shown_and_settled_by_the_doors_receipt_alone(two):
    answer = send(two.ours, "hub", "yard.acme")
    assert (answer["value"]["state"], answer["value"]["to"]) == ("waiting", ["yard.acme"])
    hub, yard = two.ours["hub"], two.acme["yard"]
    said = carry(two, yard, hub)
    assert said["value"]["state"] == "stored"
    assert inbox(yard) == ["hub.ours (another fleet): hello"]
    (letter,) = hub.call("letters", {})["value"]
    assert (letter["state"], letter["to"], letter["text"]) == ("waiting", "yard", "hello")
    bring_back(hub, said)
    assert hub.call("letters", {})["value"][0]["state"] == "stored"
    assert not list(hub.core.part(Letters).waiting())
    # The door's entry cites what it was shown, whole, and the grant that let it in.
    taken, message = yard.entries("peer.take")[0], yard.entries("message.send")[0]
    assert message.header.cause == [taken.id.hex()]
    (row,) = yard.core.tables.rows(TAKEN)
    assert (row.fleet, row.by, row.name) == (two.ours.fleet, hub.id, "hub")
    assert yard.core.counters["letters-taken"] == 1


@proves("peer.taken-once")
def test_a_letter_that_is_shown_again_and_after_a_restart_is_taken_once(two):
    send(two.ours, "hub", "yard.acme")
    hub, yard = two.ours["hub"], two.acme["yard"]
    first = carry(two, yard, hub)
    again = carry(two, yard, hub)
    two.acme.restart("yard")
    two.acme.link("yard", "shed")
    two.acme.pass_ms(3_000)
    later = carry(two, yard, hub)
    assert first == again == later
    assert len(yard.entries("message.send")) == len(yard.entries("peer.take")) == 1


@proves("peer.taken-once")
def test_two_showings_in_one_step_are_one(two):
    send(two.ours, "hub", "yard.acme")
    yard, raw = two.acme["yard"], shown(two.ours["hub"])
    links = [two.link(yard, two.ours["hub"]) for _ in range(2)]
    from muster.log import canon

    call = canon.encode({"args": raw, "verb": "peer.message"})
    yard.step(*(ev.Arrived(link, Type.CALL, 7, call) for link in links))
    assert len(yard.entries("message.send")) == 1


@proves("peer.letter-settles-by-receipt")
def test_a_letter_waits_over_restarts_and_one_key_is_one_letter(two):
    for _ in range(2):
        answer = send(two.ours, "hub", "yard.acme", key="k")
        assert answer["ok"], answer
        two.ours.restart("hub")
        two.ours.link("hub", "studio")
        two.ours.pass_ms(3_000)
    letters = list(two.ours["hub"].core.part(Letters).waiting())
    assert len(letters) == 1
    other = send(two.ours, "hub", "yard.acme", "other words", key="k")
    assert other["error"]["kind"] == "Conflict"


@proves("peer.letter-settles-by-receipt")
def test_a_letter_for_a_machine_behind_the_door_is_settled_when_that_machine_holds_it(two):
    give(two.acme, two.acme["shed"].id, two.ours)
    send(two.ours, "hub", "shed.acme")
    hub, yard = two.ours["hub"], two.acme["yard"]
    two.acme.cut("yard")
    said = carry(two, yard, hub)
    assert said["value"] == {"state": "taken", "receipt": "", "record": ""}
    two.acme.link("yard", "shed")
    two.acme.pass_ms(5_000)
    assert inbox(two.acme["shed"]) == ["hub.ours (another fleet): hello"]
    said = carry(two, yard, hub)
    assert said["value"]["state"] == "stored"


@proves("peer.letter-settles-by-receipt")
def test_a_letter_is_answered_by_a_letter_and_not_to_the_door(two):
    give(two.acme, two.acme["shed"].id, two.ours)
    send(two.ours, "hub", "shed.acme")
    carry(two, two.acme["yard"], two.ours["hub"])
    shed = two.acme["shed"]
    (item,) = shed.call("inbox", {})["value"]
    args = {"message": item["message"], "text": ["seen"]}
    answer = shed.order("reply", item["message"], args)
    assert "`muster send hub.ours TEXT`" in answer["error"]["text"]
    assert len(shed.entries("message.send")) == 1
    own = shed.order("send", "yard", {"to": "yard", "text": ["x"]})["value"]["message"]
    two.acme.pass_ms(1_000)
    yard = two.acme["yard"]
    assert yard.order("reply", own, {"message": own, "text": ["y"]})["ok"]


@proves("peer.both-operators")
def test_nothing_goes_before_both_operators_took_in_the_other_fleet():
    two = Two()
    give_way = send(two.ours, "hub", "yard.acme")
    assert give_way["error"]["kind"] == "NotFound"
    assert two.peer(two.ours, two.acme)["ok"]
    assert send(two.ours, "hub", "yard.acme")["ok"]
    yard, link = two.acme["yard"], two.link(two.acme["yard"], two.ours["hub"])
    yard.effects.clear()
    assert yard.call("peer.message", shown(two.ours["hub"]), link=link) is None
    assert any(isinstance(each, ev.Cut) and each.link == link for each in yard.effects)
    assert not yard.entries("peer.take")


@proves("peer.both-operators")
def test_a_removed_fleet_is_cut_and_heard_no_more(two):
    send(two.ours, "hub", "yard.acme")
    yard, hub = two.acme["yard"], two.ours["hub"]
    link = two.link(yard, hub)
    args = {"fleet": two.ours.fleet}
    yard.effects.clear()
    assert yard.order("peer.remove", two.ours.fleet, args)["value"] == {"removed": "ours"}
    two.acme.drain()
    assert any(isinstance(each, ev.Cut) and each.link == link for each in yard.effects)
    assert yard.call("peer.message", shown(hub), link=link) is None
    assert not yard.entries("peer.take")
    # Another machine of that fleet heard of it, too, and the newest order counts.
    assert two.acme["shed"].call("peers", {})["value"] == []
    two.acme.pass_ms(1_000)
    two.acme.ms += 1
    assert two.peer(two.acme, two.ours)["ok"]
    assert carry(two, yard, hub)["value"]["state"] == "stored"


@proves("peer.both-operators")
def test_who_is_no_operator_takes_in_nobody_and_an_older_order_changes_nothing(two):
    shed = two.acme["shed"]
    refused = two.peer(two.acme, two.ours, at="shed", signer=shed.identity.signer("statement"))
    assert refused["error"]["kind"] == "Denied"
    args = peer_args(card_of(two.ours), two.ours.fleet, "other")
    raw = two.acme.sign("peer.add", two.ours.fleet, shed, {**args, "name": "ours"})
    forged = shed.call("peer.add", args, statement=raw)
    assert forged["error"]["kind"] == "Forged"
    assert [row["name"] for row in shed.call("peers", {})["value"]] == ["ours"]


@proves("peer.grants")
def test_without_a_grant_for_just_that_machine_a_letter_is_refused_and_nothing_is_told(two):
    for to in ("shed.acme", "nobody.acme", "claude@shed.acme"):
        send(two.ours, "hub", to)
        said = carry(two, two.acme["yard"], two.ours["hub"])
        assert said == {"ok": False, "error": {"kind": "Denied", "text": REFUSED, "exit": 4}}, said
        assert not two.acme["yard"].entries("peer.take")
        row = next(two.ours["hub"].core.part(Letters).waiting())
        forget(two.ours["hub"], row.letter)
    denied = two.acme["yard"].entries("order.deny")
    assert len(denied) == two.acme["yard"].core.counters["letters-refused"] == 3
    assert all(f"fleet:{two.ours.fleet}".encode() in (e.body or b"") for e in denied)


def forget(one: One, letter: str) -> None:
    """For a test that wants the next one: it is as if it had been settled."""
    letters = one.core.part(Letters)
    before = letters.waiting
    letters.waiting = lambda: (r for r in before() if r.letter != letter)  # type: ignore[method-assign]


@proves("peer.grants")
def test_a_grant_to_a_fleet_is_for_its_machines_and_orders_nothing(two):
    yard = two.acme["yard"]
    for verb, object in (("run", "*"), ("*", "*"), ("grant", "send"), ("exec", yard.id)):
        asked = {"to": "fleet:ours", "verb": verb, "object": object}
        assert (
            "another fleet may be granted send" in yard.call("grant.check", asked)["error"]["text"]
        )
    (held,) = yard.call("grants", {})["value"]["grants"]
    assert (held["to"], held["sort"], held["object"]) == ("ours", "fleet", "yard")
    # Its operator signs here as anybody does.
    order = yard.call(
        "send", {"to": "shed", "text": ["x"]},
        statement=two.acme.sign("send", "shed", yard, {"to": "shed", "text": ["x"]},
                                signer=two.ours.operator.statement),
    )  # fmt: skip
    assert order["error"]["kind"] == "Denied"


@proves("peer.grants")
def test_a_grant_that_was_taken_lets_nothing_in_any_more(two):
    yard, hub = two.acme["yard"], two.ours["hub"]
    args = {"to": "fleet:ours", "verb": "send", "object": "yard", "take": True}
    (held,) = yard.call("grant.check", args)["value"]["held"]
    raw = sign_take(
        two.acme.operator.statement, two.acme.fleet, held, nonce=bytes(16),
        issued_ms=WALL_MS + two.acme.ms,
    ).decode()  # fmt: skip
    taken = yard.order("grant", "send", args, options={"id": held, "statement": raw})
    assert taken["ok"], taken
    send(two.ours, "hub", "yard.acme")
    assert carry(two, yard, hub)["error"]["text"] == REFUSED
    assert not yard.entries("message.send")


FOREIGN = [v.name for v in VERBS.values() if v.auth == "foreign"]
REST = [v for v in VERBS.values() if v.auth != "foreign" and v.runs != "client"]


@proves("peer.reaches-nothing-else")
def test_a_machine_of_another_fleet_reaches_the_verbs_for_such_and_none_else(two):
    assert FOREIGN == ["peer.message", "peer.work", "peer.file"]
    assert all(VERBS[name].runs == "step" for name in FOREIGN)
    yard, hub = two.acme["yard"], two.ours["hub"]
    before, sizes = yard.core.store.image(), yard.sizes()
    for number, verb in enumerate(REST):
        if number % (PEER_CALLS_PER_MINUTE_MAX // 4) == 0:
            two.acme.ms += 60_000
        args = least(verb)
        for more in ({}, {"on": "shed"}, {"hops": 1}):
            answer = yard.call(verb.name, args, link=two.link(yard, hub), **more)
            assert answer == {"ok": False, "error": {"kind": "Denied", "text": REFUSED, "exit": 4}}
    assert yard.sizes() == sizes
    assert before


@proves("peer.reaches-nothing-else")
def test_what_is_for_other_fleets_is_asked_by_nobody_of_this_one(two):
    yard = two.acme["yard"]
    yard.step(ev.LinkUp(1000, two.acme["shed"].id, False, "http"))
    for link in (1, 1000):
        answer = yard.call("peer.message", shown_any(two), link=link)
        assert answer["error"]["kind"] == "Denied"
    assert not yard.entries("peer.take")


def shown_any(two: Two) -> dict[str, str]:
    send(two.ours, "hub", "yard.acme")
    return shown(two.ours["hub"])


@proves("peer.reaches-nothing-else")
def test_a_link_of_another_fleet_hears_no_head_no_hello_and_no_stream(two):
    yard, hub = two.acme["yard"], two.ours["hub"]
    said: list[ev.Send] = []
    carried = two.acme.carry_out

    def watch(machine: One, effects: list[ev.Effect]) -> None:
        said.extend(e for e in effects if isinstance(e, ev.Send) and e.link > 1000)
        carried(machine, effects)

    two.acme.carry_out = watch  # type: ignore[method-assign]
    link = two.link(yard, hub)
    for type in (Type.HELLO, Type.OFFER, Type.WANT, Type.SEGMENT, Type.COSIGN, Type.DATA):
        yard.step(ev.Arrived(link, type, 0, b"{}"))
    order = {"to": "shed", "text": ["within"]}
    assert yard.order("send", "shed", order)["ok"]
    two.acme.pass_ms(60_000)
    assert said == []
    assert hub.id not in {row["machine"] for row in yard.call("machines", {})["value"]}
    assert not [s for s in yard.core.log.streams() if s.machine == hub.id]


# --- hostile ------------------------------------------------------------------------------


def letter(two: Two, who: One, **changed: Any) -> Letter:
    said = {
        "fleet": two.acme.fleet, "by": who.id, "door": two.acme["yard"].id,
        "issued_ms": WALL_MS + two.acme.ms, "nonce": "0" * 32, "of": two.ours.fleet,
        "text": "x", "to": "yard",
    }  # fmt: skip
    return Letter(**(said | changed))


@proves("peer.forged-refused")
def test_a_letter_that_is_not_its_senders_own_word_for_this_door_is_refused(two):
    hub, studio, yard = two.ours["hub"], two.ours["studio"], two.acme["yard"]
    key = hub.identity.signer("statement")
    third = Authority(b"t" * 32)
    stolen = sign_record(
        third, sign_binding(hub.identity, third.fleet, "hub"), roles=[], serial=1, issued_ms=WALL_MS
    ).decode()
    good = sign_letter(key, letter(two, hub)).decode()
    old = WALL_MS + two.acme.ms - PEER_LETTER_LIFE_MS - 1
    cases = {
        "another machine's link": (good, hub.record.decode(), studio),
        "another machine's record": (good, studio.record.decode(), hub),
        "a record of a third authority": (good, stolen, hub),
        "changed": (good.replace('"text":"x"', '"text":"y"'), hub.record.decode(), hub),
        "signed by another": (
            sign_letter(studio.identity.signer("statement"), letter(two, hub)).decode(),
            hub.record.decode(), hub,
        ),
        "signed by another key of it": (
            sign_letter(hub.identity.signer("held"), letter(two, hub)).decode(),
            hub.record.decode(), hub,
        ),
        "for another fleet": (
            sign_letter(key, letter(two, hub, fleet=two.ours.fleet)).decode(),
            hub.record.decode(), hub,
        ),
        "of another fleet": (
            sign_letter(key, letter(two, hub, of=two.acme.fleet)).decode(),
            hub.record.decode(), hub,
        ),
        "for another door": (
            sign_letter(key, letter(two, hub, door=two.acme["shed"].id)).decode(),
            hub.record.decode(), hub,
        ),
        "too old": (sign_letter(key, letter(two, hub, issued_ms=old)).decode(),
                    hub.record.decode(), hub),
        "of a time to come": (
            sign_letter(key, letter(two, hub, issued_ms=old + 2 * PEER_LETTER_LIFE_MS)).decode(),
            hub.record.decode(), hub,
        ),
        "for what is no agent": (
            sign_letter(key, letter(two, hub, to="A B@yard")).decode(), hub.record.decode(), hub,
        ),
        "no letter": ("", hub.record.decode(), hub),
        "no record": (good, "", hub),
        "no text": (12, [], hub),
    }  # fmt: skip
    sizes = yard.sizes()
    for what, (raw, record, who) in cases.items():
        args = {"letter": raw, "record": record}
        answer = yard.call("peer.message", args, link=two.link(yard, who))
        assert answer["error"]["text"] == REFUSED, what
        assert yard.sizes() == sizes, what
    fine = yard.call(
        "peer.message", {"letter": good, "record": hub.record.decode()}, link=two.link(yard, hub)
    )
    assert fine["value"]["state"] == "stored"


@proves("peer.forged-refused")
def test_a_member_of_this_fleet_cannot_show_itself_as_anothers(two):
    shed, yard = two.acme["shed"], two.acme["yard"]
    said = letter(two, shed, of=two.acme.fleet)
    raw = sign_letter(shed.identity.signer("statement"), said).decode()
    args = {"letter": raw, "record": shed.record.decode()}
    assert yard.call("peer.message", args, link=two.link(yard, shed)) is None
    assert not yard.entries("peer.take")


@proves("peer.forged-refused")
def test_no_receipt_but_the_doors_own_for_this_letter_settles_it(two):
    send(two.ours, "hub", "yard.acme")
    hub, yard, shed = two.ours["hub"], two.acme["yard"], two.acme["shed"]
    row = next(hub.core.part(Letters).waiting())
    what = {"fleet": two.ours.fleet, "door": yard.id, "letter": row.letter, "of": two.acme.fleet}
    held = yard.identity.signer("held")
    wrong = [
        (sign_receipt(shed.identity.signer("held"), **what), yard.record),
        (sign_receipt(shed.identity.signer("held"), **{**what, "door": shed.id}), shed.record),
        (sign_receipt(held, **{**what, "letter": "0" * 64}), yard.record),
        (sign_receipt(held, **{**what, "fleet": two.acme.fleet}), yard.record),
        (sign_receipt(yard.identity.signer("seen"), **what), yard.record),
        (sign_receipt(held, **what), shed.record),
        (b"", b""),
    ]
    for raw, record in wrong:
        hub.step(LetterSettled(row.letter, raw.decode(), record.decode()))
        assert hub.call("letters", {})["value"][0]["state"] == "waiting"
    assert hub.core.counters["receipts-refused"] == len(wrong)
    good = sign_receipt(held, **what)
    open_receipt(good, yard.record, **what)
    hub.step(LetterSettled(row.letter, good.decode(), yard.record.decode()))
    assert hub.call("letters", {})["value"][0]["state"] == "stored"


@proves("peer.bounded")
def test_a_fleet_that_calls_too_often_is_cut_unread_and_others_are_not(two):
    yard, hub = two.acme["yard"], two.ours["hub"]
    links = [two.link(yard, hub), two.link(yard, two.ours["studio"])]
    answered = 0
    for number in range(PEER_CALLS_PER_MINUTE_MAX + 20):
        answered += yard.call("peer.message", {}, link=links[number % 2]) is not None
    assert answered == PEER_CALLS_PER_MINUTE_MAX
    cut = {each.link for each in yard.effects if isinstance(each, ev.Cut)}
    assert cut == set(links)
    assert yard.call("status", {})["ok"]
    two.acme.ms += 60_000
    assert yard.call("peer.message", {}, link=links[0]) is not None


@proves("peer.bounded")
def test_what_is_no_call_is_refused_and_hanging_up_counts_as_one(two):
    yard, hub = two.acme["yard"], two.ours["hub"]
    link = two.link(yard, hub)
    for type in (Type.REPLY, Type.DATA, Type.CREDIT):
        before = yard.core.counters["refused-refused"]
        yard.step(ev.Arrived(link, type, 7, b"."))
        assert yard.core.counters["refused-refused"] == before + 1
    for _ in range(PEER_CALLS_PER_MINUTE_MAX):
        yard.step(ev.Arrived(link, Type.CLOSE, 7, b""))
    assert yard.core.counters["guests-cut"] == 0
    yard.step(ev.Arrived(link, Type.CLOSE, 7, b""))
    assert yard.core.counters["guests-cut"] == 1


@proves("peer.bounded")
def test_refusals_of_a_fleet_are_written_down_a_few_times_an_hour(two):
    yard, hub = two.acme["yard"], two.ours["hub"]
    key = hub.identity.signer("statement")
    for number in range(DENIALS_PER_HOUR_MAX + 5):
        raw = sign_letter(key, letter(two, hub, to="nobody", nonce=f"{number:032x}")).decode()
        args = {"letter": raw, "record": hub.record.decode()}
        assert not yard.call("peer.message", args, link=two.link(yard, hub))["ok"]
    assert len(yard.entries("order.deny")) == DENIALS_PER_HOUR_MAX


@proves("peer.bounded")
def test_a_fleet_brings_so_many_letters_a_day(two, monkeypatch):
    monkeypatch.setattr("muster.node.services.letters.PEER_LETTERS_PER_DAY_MAX", 3)
    assert PEER_LETTERS_PER_DAY_MAX > 3
    yard, hub = two.acme["yard"], two.ours["hub"]
    key, states = hub.identity.signer("statement"), []
    for number in range(5):
        said = letter(two, hub, nonce=f"{number:032x}")
        args = {"letter": sign_letter(key, said).decode(), "record": hub.record.decode()}
        states.append(yard.call("peer.message", args, link=two.link(yard, hub))["ok"])
    assert states == [True, True, True, False, False]
    two.acme.ms += 25 * HOUR_MS
    said = letter(two, hub, nonce="f" * 32)
    args = {"letter": sign_letter(key, said).decode(), "record": hub.record.decode()}
    answer = yard.call("peer.message", args, link=two.link(yard, hub))
    # The grant of the test was for an hour.
    assert not answer["ok"]


@proves("peer.bounded")
def test_what_is_too_long_or_has_terms_is_refused_where_it_is_said(two):
    long = send(two.ours, "hub", "yard.acme", "x" * (PEER_TEXT_BYTES_MAX + 1))
    assert long["error"]["kind"] == "Refused"
    worst = send(two.ours, "hub", "yard.acme", "\x01" * PEER_TEXT_BYTES_MAX)
    assert worst["ok"], worst
    assert carry(two, two.acme["yard"], two.ours["hub"])["ok"]
    for more in ({"priority": "high"}, {"expires": "2h"}):
        assert send(two.ours, "hub", "yard.acme", **more)["error"]["kind"] == "Malformed"
    for to in ("yard.acme#s-1", "../x.acme", "Yard.acme", "a.b.acme", ".acme", "yard."):
        assert not send(two.ours, "hub", to)["ok"], to
    assert len(list(two.ours["hub"].core.tables.rows(SENT))) == 1


@proves("peer.grants")
def test_an_agent_says_nothing_to_another_fleet_by_itself(two):
    from muster.fleet.capability import make_capability
    from muster.node.call.authorize import Authorizer

    hub = two.ours["hub"]
    token, capability = make_capability(
        bytes(32), agent="claude", task="t" * 32, verbs=("send",), until_ms=WALL_MS + HOUR_MS
    )
    hub.core.part(Authorizer).allow_agent(capability)
    args = {"to": "yard.acme", "text": ["secrets"]}
    answer = hub.call("send", args, capability=token)
    assert answer["error"]["kind"] == "Denied"
    assert not list(hub.core.tables.rows(SENT))
    assert FLEET


# --- clocks and moments -------------------------------------------------------------------


@proves("peer.bounded")
def test_a_door_whose_log_is_ahead_counts_a_day_by_its_clock(two, monkeypatch):
    monkeypatch.setattr("muster.node.services.letters.PEER_LETTERS_PER_DAY_MAX", 3)
    monkeypatch.setattr("tests.node.test_peers.HOUR_MS", 30 * 24 * HOUR_MS)
    give(two.acme, two.acme["yard"].id, two.ours)
    yard, hub = two.acme["yard"], two.ours["hub"]
    # It wrote something while its clock was a month ahead, and its log's time never runs back.
    stamp = yard.core.store._stamp
    yard.core.store._stamp = stamp._replace(ms=stamp.ms + 30 * 24 * 3_600_000)
    key, states = hub.identity.signer("statement"), []
    for number in range(6):
        said = letter(two, hub, nonce=f"{number:032x}")
        args = {"letter": sign_letter(key, said).decode(), "record": hub.record.decode()}
        states.append(yard.call("peer.message", args, link=two.link(yard, hub))["ok"])
        if number == 3:
            two.acme.ms += 25 * 3_600_000
    assert states == [True, True, True, False, True, True]


@proves("peer.letter-settles-by-receipt")
def test_a_letter_waits_a_week_by_its_own_time_though_our_log_is_ahead(two):
    hub = two.ours["hub"]
    stamp = hub.core.store._stamp
    hub.core.store._stamp = stamp._replace(ms=stamp.ms + 30 * 24 * HOUR_MS)
    send(two.ours, "hub", "yard.acme")
    assert len(list(hub.core.part(Letters).waiting())) == 1
    two.ours.ms += PEER_LETTER_LIFE_MS + HOUR_MS
    two.ours.pass_ms(1_000)
    assert not list(hub.core.part(Letters).waiting())
    assert hub.call("letters", {})["value"][0]["state"] == "expired"


@proves("peer.letter-settles-by-receipt")
def test_of_a_letter_that_its_door_took_nobody_says_that_it_expired(two):
    send(two.ours, "hub", "yard.acme")
    hub = two.ours["hub"]
    hub.step(LetterTaken(next(hub.core.part(Letters).waiting()).letter))
    assert hub.call("letters", {})["value"][0]["state"] == "taken"
    two.ours.ms += PEER_LETTER_LIFE_MS + HOUR_MS
    two.ours.pass_ms(1_000)
    assert hub.call("letters", {})["value"][0]["state"] == "taken"


@proves("peer.both-operators")
def test_a_letter_that_waited_for_our_history_is_refused_where_its_fleet_was_removed(two):
    send(two.ours, "hub", "yard.acme")
    yard, args = two.acme["yard"], shown(two.ours["hub"])
    link = two.link(yard, two.ours["hub"])
    yard.core.settled = False
    assert yard.call("peer.message", args, link=link) is None
    yard.core.settled = True
    assert yard.order("peer.remove", two.ours.fleet, {"fleet": two.ours.fleet})["ok"]
    yard.answers.clear()
    yard.step(ev.HeadConfirmed())
    assert yard.core.counters["failed-verb"] == 0
    assert not yard.entries("peer.take")


@proves("peer.letter-settles-by-receipt")
def test_a_receipt_before_our_history_is_confirmed_waits_and_is_no_mistake(two):
    send(two.ours, "hub", "yard.acme")
    hub = two.ours["hub"]
    said = carry(two, two.acme["yard"], hub)
    hub.core.settled = False
    bring_back(hub, said)
    assert hub.core.counters["failed-letters"] == 0
    hub.core.settled = True
    bring_back(hub, said)
    assert hub.call("letters", {})["value"][0]["state"] == "stored"


@proves("peer.both-operators")
def test_of_two_fleets_with_one_name_neither_is_meant_by_it(two):
    third, roster = Cores("barn", "silo", other=2), two.ours["hub"].core.roster
    both = {**roster.peers, third.fleet: PeerFleet(NAMES[1], read_card(card_of(third)))}
    twice = replace(roster, peers=both)
    with pytest.raises(Conflict, match="by its id"):
        twice.peer(NAMES[1])
    assert {twice.peer(fleet)[0] for fleet in both} == set(both)
