"""Who waits for a machine that sleeps has it woken: once, by what it said of itself while awake."""

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from tests.node.cores import Cores, One
from tests.promise import proves

from muster.channel import wake
from muster.errors import Conflict, Malformed, NotFound, Unreachable
from muster.fleet import kinds
from muster.fleet.facts import Card
from muster.limits import WAKE_APART_MS
from muster.log import canon
from muster.node import event as ev
from muster.node.call import arguments
from muster.node.host import cards as host
from muster.node.host.facts import Interface
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.links.wakers import VERB, Wakers
from muster.node.services.sleepers import Sleepers, WakeUp

HERE, ELSEWHERE = "10.1.0.0/24", "10.2.0.0/24"
# Five minutes, and how often it is looked, as they are here.
APART_MS, LOOK_MS, AGAIN_MS = 20_000, 1_000, 5_000
NAS = Card("02:00:00:00:00:01", (HERE,), True)


@pytest.fixture
def world(monkeypatch) -> Cores:
    """The nas can be woken, and is away; the hub has a link to studio."""
    assert WAKE_APART_MS == 300_000
    monkeypatch.setattr("muster.node.services.sleepers.WAKE_APART_MS", APART_MS)
    monkeypatch.setattr("muster.node.services.sleepers.WAKE_LOOK_MS", LOOK_MS)
    monkeypatch.setattr("muster.node.services.sleepers.WAKE_AGAIN_MS", AGAIN_MS)
    world = Cores("hub", "studio", "nas")
    here, there = world.link("hub", "nas")
    world.link("hub", "studio")
    world.pass_ms(1_000)
    say(world, "nas", NAS)
    cut(world, "hub", here)
    cut(world, "nas", there)
    return world


def cut(world: Cores, name: str, link: int) -> None:
    world._links.pop((name, link), None)
    world[name].step(ev.LinkDown(link))


def say(world: Cores, name: str, *cards: Card) -> None:
    world[name].step(FactsChanged(world[name].facts(cards=cards)))
    world.pass_ms(1_000)


def woken(machine: One) -> list[str]:
    """Whom it wanted to be woken since the last time."""
    found = [each.machine for each in machine.effects if isinstance(each, WakeUp)]
    machine.effects.clear()
    return found


def send(machine: One, to: str, text: str = "hi") -> None:
    assert machine.order("send", to, {"to": to, "text": [text]})["ok"]


@proves("node.wakes-sleepers")
def test_a_message_that_waits_has_its_machine_woken_once_in_five_minutes(world):
    hub, nas = world["hub"], world["nas"]
    world.pass_ms(LOOK_MS)
    assert woken(hub) == [], "nobody waits for it"
    for number in range(50):
        send(hub, "nas", f"{number}")
    world.pass_ms(2 * LOOK_MS)
    assert woken(hub) == [nas.id]
    world.pass_ms(APART_MS - 3 * LOOK_MS)
    assert woken(hub) == []
    world.pass_ms(4 * LOOK_MS)
    assert woken(hub) == [nas.id], "it did not wake, and is still waited for"
    world.link("hub", "nas")
    world.pass_ms(APART_MS + LOOK_MS)
    assert woken(hub) == [], "it is awake"


@proves("node.wakes-sleepers")
def test_a_call_to_a_machine_that_sleeps_has_it_woken(world):
    hub, nas = world["hub"], world["nas"]
    woken(hub)
    for _ in range(20):
        answer = hub.call("status", {}, on="nas")
        assert answer["error"]["exit"] == 7
    assert woken(hub) == [nas.id]


@proves("node.wakes-sleepers")
def test_nobody_is_woken_who_did_not_say_so_or_is_no_member(world):
    hub, nas = world["hub"], world["nas"]
    part = hub.core.part(Sleepers)
    assert part.wakeable(nas.id)
    for machine in (hub.id, world["studio"].id, "0" * 64, "", "x" * 10_000, NAS.mac):
        assert not part.wakeable(machine)
    send(hub, "nas")
    assert hub.order("revoke", "nas", {"name": "nas", "reason": "sold"})["ok"]
    world.pass_ms(2 * LOOK_MS)
    assert woken(hub) == []
    assert not part.wakeable(nas.id)


ODD: Mapping[str, Any] = {
    "no card": [{"mac": "02:00:00:00:00", "subnets": [HERE], "wakes": True}],
    "capitals": [{"mac": "AA:00:00:00:00:01", "subnets": [HERE], "wakes": True}],
    "a line more": [{"mac": f"{NAS.mac}\n", "subnets": [HERE], "wakes": True}],
    "no network": [{"mac": NAS.mac, "subnets": ["255.255.255.255"], "wakes": True}],
    "too many": [{"mac": NAS.mac, "subnets": [], "wakes": True}] * 9,
    "too many networks": [{"mac": NAS.mac, "subnets": [HERE] * 5, "wakes": True}],
}


@proves("node.wakes-sleepers")
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_odd_cards_of_a_member_are_skipped(world, odd):
    hub, studio = world["hub"], world["studio"]
    with studio.core.store.transaction():
        studio.core.append(kinds.MACHINE_WAKE, canon.encode({"cards": odd}))
        studio.core.store.seal_dirty(studio.core.membership.signer("seal"))
    world.pass_ms(1_000)
    assert [each.reason for each in hub.core.tables.skipped()] == ["bad-body"]
    assert hub.core.roster.facts[studio.id].cards == ()


class Hand:
    """The wakers of one machine, what they send, and what the machines they ask answer."""

    def __init__(self, one: One, monkeypatch: pytest.MonkeyPatch, *networks: str) -> None:
        self.one, self.core = one, one.core
        self.packets: list[tuple[str, str, str]] = []
        self.asked: list[tuple[str, Any]] = []
        self.answers: Any = {"ok": True, "value": 1}
        self.streams: Any = SimpleNamespace(ask=self.ask)
        monkeypatch.setattr(wake, "send", self.leave)
        self.dead: set[str] = set()
        monkeypatch.setattr(
            "muster.node.links.wakers.source_in",
            lambda net: f"{net.rpartition('.')[0]}.9" if net in networks else "",
        )
        self.wakers = Wakers(self)  # type: ignore[arg-type]

    def leave(self, mac: str, subnet: str, source: str) -> None:
        if subnet in self.dead:
            raise Unreachable(f"no packet leaves {source}")
        self.packets.append((mac, subnet, source))

    async def ask(self, link: int, _channel: int, verb: str, args: Any) -> Any:
        self.asked.append((self.core.links[link].peer, {"verb": verb, **args}))
        if isinstance(self.answers, Exception):
            raise self.answers
        return self.answers

    def wake(self, machine: str) -> str:
        return asyncio.run(self.wakers.wake(machine)).by


@proves("node.wakes-sleepers")
def test_the_packet_goes_from_an_interface_in_its_network_and_holds_what_the_roster_says(
    world, monkeypatch
):
    hub, nas = world["hub"], world["nas"]
    hand = Hand(hub, monkeypatch, HERE)
    assert hand.wake(nas.id) == hub.id
    assert hand.packets == [(NAS.mac, HERE, "10.1.0.9")]
    for _ in range(100):
        with pytest.raises(Conflict, match="of late"):
            hand.wake(nas.id)
        with pytest.raises(Conflict):
            hand.wakers.send(nas.id)
    assert len(hand.packets) == 1
    assert hub.core.counters["wakes-too-soon"] == 200
    assert hub.core.counters["wakes-sent"] == 1
    with pytest.raises(Conflict, match="studio is awake"):
        hand.wake(world["studio"].id)
    with pytest.raises(NotFound, match="`wake = true`"):
        hand.wake(hub.id)


@proves("node.wakes-sleepers")
def test_where_no_interface_is_in_its_network_a_neighbour_is_asked_by_its_name_alone(
    world, monkeypatch
):
    hub, nas, studio = world["hub"], world["nas"], world["studio"]
    hand = Hand(hub, monkeypatch)
    with pytest.raises(Unreachable, match="no packet reaches nas"):
        hand.wake(nas.id)
    assert hand.asked == []
    say(world, "studio", Card("02:00:00:00:00:02", (ELSEWHERE, HERE)))
    # Nothing was sent, so it is tried again before long.
    assert 0 < hub.core.part(Sleepers).rests_ms(nas.id) <= AGAIN_MS
    world.pass_ms(AGAIN_MS)
    assert hand.wake(nas.id) == studio.id
    assert hand.asked == [(studio.id, {"verb": VERB, "machine": nas.id})]
    world.pass_ms(APART_MS)
    assert hub.core.counters["wakes-asked"] == 1
    for hand.answers in ({"ok": False}, Unreachable("no answer")):
        with pytest.raises(Unreachable):
            hand.wake(nas.id)
        world.pass_ms(APART_MS)
    assert hand.packets == []
    with pytest.raises(Unreachable, match="no network of that one"):
        hand.wakers.send(nas.id)


@proves("node.wakes-sleepers")
def test_what_went_out_here_is_no_reason_to_ask_no_neighbour(world, monkeypatch):
    """A network of another house may bear the same figures as ours."""
    hub, nas, studio = world["hub"], world["nas"], world["studio"]
    say(world, "studio", Card("02:00:00:00:00:02", (HERE,)))
    hand = Hand(hub, monkeypatch, HERE)
    assert hand.wake(nas.id) == hub.id
    assert hand.packets == [(NAS.mac, HERE, "10.1.0.9")]
    assert hand.asked == [(studio.id, {"verb": VERB, "machine": nas.id})]


@proves("node.wakes-sleepers")
def test_a_way_by_which_nothing_leaves_keeps_none_of_the_others_from_being_tried(
    world, monkeypatch
):
    hub, nas, studio = world["hub"], world["nas"], world["studio"]
    link, there = world.link("hub", "nas")
    say(world, "nas", Card(NAS.mac, (HERE, ELSEWHERE), True))
    cut(world, "hub", link)
    cut(world, "nas", there)
    say(world, "studio", Card("02:00:00:00:00:02", (HERE,)))
    world.pass_ms(APART_MS)
    hand = Hand(hub, monkeypatch, HERE, ELSEWHERE)
    hand.dead = {HERE}
    assert hand.wake(nas.id) == hub.id
    assert hand.packets == [(NAS.mac, ELSEWHERE, "10.2.0.9")]
    world.pass_ms(APART_MS)
    hand.dead = {HERE, ELSEWHERE}
    assert hand.wake(nas.id) == studio.id
    world.pass_ms(APART_MS)
    hand.answers = {"ok": False}
    with pytest.raises(Unreachable, match="no packet reaches nas"):
        hand.wake(nas.id)
    assert 0 < hub.core.part(Sleepers).rests_ms(nas.id) <= AGAIN_MS
    world.pass_ms(AGAIN_MS)
    with pytest.raises(Unreachable, match="no packet leaves"):
        hand.wakers.send(nas.id)
    assert 0 < hub.core.part(Sleepers).rests_ms(nas.id) <= AGAIN_MS
    assert hub.core.counters["wakes-unsent"] == 7


@proves("node.wakes-sleepers")
def test_a_member_that_asks_names_the_sleeper_and_nothing_of_the_packet(world, monkeypatch):
    hub, nas = world["hub"], world["nas"]
    hand = Hand(hub, monkeypatch, HERE)
    link = hub.core.link_to(world["studio"].id)
    assert link is not None
    strange = {"machine": nas.id, "mac": "ff:ff:ff:ff:ff:ff", "subnet": "0.0.0.0/0"}
    verb = hub.core.verbs[VERB]
    for args in (strange, {"machine": NAS.mac}, {"machine": "f" * 64}, {}, {"machine": "nas"}):
        ask = verb_request(verb, args)
        try:
            asyncio.run(verb.load()(SimpleNamespace(wakers=hand.wakers), None, ask))
        except (NotFound, Unreachable):
            continue
    assert hand.packets == [(NAS.mac, HERE, "10.1.0.9")]


def verb_request(verb: Any, args: Any) -> Any:
    return arguments.read(verb, verb.load(), args, {})


@proves("node.wakes-sleepers")
def test_a_machine_says_of_its_cards_what_it_can_see_and_what_its_owner_wrote(
    monkeypatch, tmp_path
):
    found = [
        Interface("eth0", "02:00:00:00:00:01", ("10.1.0.5/255.255.255.0",)),
        Interface("wlan0", "02-00-00-00-00-0A", ("10.2.0.5/255.255.255.0", "nonsense/None")),
        Interface("lo", "00:00:00:00:00:00", ("127.0.0.1/255.0.0.0",)),
        Interface("wg0", "", ("10.9.0.1/255.255.255.0",)),
        Interface("ppp0", "02:00:00:00:00:03", ("10.8.0.1/255.255.255.255",)),
        Interface("new", "02:00:00:00:00:04", ("169.254.1.1/255.255.0.0",)),
    ]
    monkeypatch.setattr(host, "interfaces", lambda: found)
    monkeypatch.setattr(host, "_NET", tmp_path)
    for name, says in (("eth0", "enabled\n"), ("wlan0", "disabled\n")):
        (tmp_path / name / "device" / "power").mkdir(parents=True)
        (tmp_path / name / "device" / "power" / "wakeup").write_text(says)
    wlan = Card("02:00:00:00:00:0a", (ELSEWHERE,), False)
    assert host.cards(wake=False) == (NAS, wlan)
    assert [card.wakes for card in host.cards(wake=True)] == [True, True]
    assert host.source_in(HERE) == "10.1.0.5"
    assert host.source_in("10.9.9.0/24") == ""


@proves("node.wakes-sleepers")
def test_the_owner_says_nothing_of_a_bridge_that_no_card_is_in(monkeypatch, tmp_path):
    found = [
        Interface("docker0", "02:00:00:00:00:01", ("172.17.0.1/255.255.0.0",)),
        Interface("br0", "02:00:00:00:00:02", ("10.1.0.5/255.255.255.0",)),
        Interface("br1", "02:00:00:00:00:03", ("10.2.0.5/255.255.255.0",)),
        Interface("veth0", "02:00:00:00:00:04", ("10.3.0.5/255.255.255.0",)),
    ]
    monkeypatch.setattr(host, "interfaces", lambda: found)
    monkeypatch.setattr(host, "_NET", tmp_path)
    for path in (
        "docker0/brif/veth1", "veth1", "br0/brif/eth0", "eth0/device", "br1/brif/bond0",
        "bond0/lower_eth1",
    ):  # fmt: skip
        (tmp_path / path).mkdir(parents=True)
    assert [card.wakes for card in host.cards(wake=True)] == [False, True, True, True]


@proves("node.wakes-sleepers")
def test_the_packet_is_six_bytes_and_sixteen_times_the_card():
    raw = wake.packet("02:78:00:00:00:01")
    assert raw == b"\xff" * 6 + bytes.fromhex("027800000001") * 16
    assert len(raw) == 102
    for odd in ("", "02:78", "zz:78:00:00:00:01", "02:78:00:00:00:01:02", "é" * 12):
        with pytest.raises(Malformed):
            wake.packet(odd)
    with pytest.raises(Unreachable, match=r"no packet leaves 192\.0\.2\.1"):
        wake.send("02:78:00:00:00:01", "192.0.2.0/24", "192.0.2.1")


@proves("node.wakes-sleepers")
def test_cards_are_told_in_an_entry_of_their_own_when_they_change(world):
    nas = world["nas"]
    assert len(nas.entries(kinds.MACHINE_WAKE)) == 1
    say(world, "nas", NAS)
    assert len(nas.entries(kinds.MACHINE_WAKE)) == 1
    assert world["hub"].core.roster.facts[nas.id].cards == (NAS,)
