"""What a door of another fleet does to the links and the letters of this one."""

import asyncio
import collections
import types
from typing import Any, NamedTuple

import pytest
from tests.promise import proves

from muster.channel.frame import Type, decode, encode
from muster.channel.tls import server_context
from muster.errors import Malformed
from muster.fleet.peer import Foreign
from muster.limits import PEER_LINKS_MAX
from muster.node.links import foreign
from muster.node.links.foreign import ForeignLinks
from muster.node.services.letter_waits import LetterRefused
from muster.node.services.letters import LetterSettled, LetterTaken

PLACE = ("a" * 64, "b" * 64)
TAKEN, STORED = (
    b'*{"ok":true,"value":{"state":"taken"}}',
    b'.{"ok":true,"value":{"state":"stored"}}',
)


class Row(NamedTuple):
    letter: str
    fleet: str = PLACE[0]
    door: str = PLACE[1]


class Door:
    """The far end of a link, which answers each call with these words."""

    def __init__(self, *words: bytes) -> None:
        self.words, self.shown = words, list[int]()
        self._said = asyncio.Queue[bytes]()

    async def send(self, frame: bytes) -> None:
        number = decode(frame).channel
        self.shown.append(number)
        for each in self.words:
            self.say(number, each)

    def say(self, number: int, words: bytes) -> None:
        self._said.put_nowait(encode(Type.REPLY, number, words))

    async def receive(self) -> bytes:
        return await self._said.get()


class Ends:
    """Our end: letters that wait, and what was told of them."""

    def __init__(self, letters: int) -> None:
        self.rows, self.told, self.looks = [Row(str(n)) for n in range(letters)], list[Any](), 0
        self.counters = collections.Counter[str]()
        daemon: Any = types.SimpleNamespace(
            post=self.told.append,
            core=types.SimpleNamespace(counters=self.counters),
            supervisor=types.SimpleNamespace(run=lambda _, c: asyncio.ensure_future(c)),
            serve=self._serve,
        )
        self.links = ForeignLinks(daemon)
        self.links._carried[PLACE] = asyncio.Event()
        self.links._waiting = self._waiting  # type: ignore[method-assign]
        self.links._call = lambda row: b"{}"  # type: ignore[method-assign]

    def _waiting(self, _: Any) -> Any:
        self.looks += 1
        return list(self.rows)

    async def _serve(self, link: Any, foreign: str) -> None:
        await link.gone.wait()

    async def hand_over(self, door: Any) -> None:
        await self.links._hand_over(door, PLACE)


async def turns(count: int = 200) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@proves("peer.letter-settles-by-receipt")
def test_letters_that_a_door_took_hold_up_no_other_and_keep_no_link_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(foreign, "_IDLE_S", 0.05)

    async def scenario() -> None:
        ends, door = Ends(40), Door(TAKEN)
        async with asyncio.timeout(20):
            await ends.hand_over(door)
        assert len(door.shown) == 40
        taken = {each.letter for each in ends.told if isinstance(each, LetterTaken)}
        assert taken == {row.letter for row in ends.rows}
        assert all(ends.links._rest_s(row) > 0 for row in ends.rows), "none is shown at once again"

    asyncio.run(scenario())


@proves("peer.letter-settles-by-receipt")
def test_a_receipt_that_comes_after_a_letter_was_taken_settles_it_over_the_same_link() -> None:
    async def scenario() -> None:
        ends, door = Ends(1), Door(TAKEN)
        task = asyncio.ensure_future(ends.hand_over(door))
        await turns()
        door.say(1, STORED)
        await turns()
        assert any(isinstance(each, LetterSettled) for each in ends.told)
        assert not ends.links._rests
        task.cancel()

    asyncio.run(scenario())


@proves("peer.wait-ends")
def test_a_letter_that_a_door_refuses_is_named_to_who_waits_for_it() -> None:
    async def scenario() -> None:
        refusal = b'.{"ok":false,"error":{"kind":"Denied","text":"no","exit":4}}'
        ends, door = Ends(2), Door(refusal)
        task = asyncio.ensure_future(ends.hand_over(door))
        await turns()
        refused = [each.letter for each in ends.told if isinstance(each, LetterRefused)]
        assert refused == ["0", "1"]
        task.cancel()

    asyncio.run(scenario())


@proves("peer.bounded")
def test_letters_that_expired_under_way_hold_no_place() -> None:
    async def scenario() -> None:
        ends, door = Ends(20), Door()
        task = asyncio.ensure_future(ends.hand_over(door))
        await turns()
        assert len(door.shown) == foreign._OPEN_MAX
        del ends.rows[: foreign._OPEN_MAX]
        ends.links._carried[PLACE].set()
        await turns()
        assert len(door.shown) == 20
        # What is said of one of them now is late, and no lie.
        door.say(1, STORED)
        await turns()
        assert not task.done()
        task.cancel()

    asyncio.run(scenario())


@proves("peer.bounded")
@pytest.mark.parametrize(
    "frame",
    [
        encode(Type.REPLY, 9999, TAKEN),
        encode(Type.REPLY, 1, b"junk"),
        encode(Type.DATA, 1, b""),
        encode(Type.HELLO, 0, b"{}"),
    ],
)
def test_a_door_that_says_what_is_no_answer_is_hung_up_on(frame: bytes) -> None:
    async def scenario() -> None:
        ends, door = Ends(1), Door()
        door._said.put_nowait(frame)
        async with asyncio.timeout(20):
            with pytest.raises(Malformed):
                await ends.hand_over(door)

    asyncio.run(scenario())


@proves("peer.bounded")
def test_a_door_that_says_twice_that_it_took_a_letter_is_hung_up_on() -> None:
    async def scenario() -> None:
        async with asyncio.timeout(20):
            with pytest.raises(Malformed):
                await Ends(1).hand_over(Door(TAKEN, TAKEN))

    asyncio.run(scenario())


@proves("peer.bounded")
def test_letters_are_looked_through_once_for_each_place_that_became_free() -> None:
    async def scenario() -> None:
        ends, door = Ends(10), Door(TAKEN, STORED)
        task = asyncio.ensure_future(ends.hand_over(door))
        await turns()
        assert ends.looks == 11
        task.cancel()

    asyncio.run(scenario())


class Guest:
    peer = str(Foreign(*PLACE))

    def __init__(self) -> None:
        self.gone, self.closes = asyncio.Event(), 0

    async def close(self, why: str) -> None:
        self.closes += 1
        # Its far end takes its time to answer that.
        await turns()
        self.gone.set()


@proves("peer.bounded")
def test_a_fleet_has_so_many_links_however_slowly_they_end() -> None:
    async def scenario() -> None:
        ends, guests = Ends(0), [Guest() for _ in range(50)]
        tasks = [
            asyncio.ensure_future(ends.links.serve(guest, Foreign(*PLACE)))  # type: ignore[arg-type]
            for guest in guests
        ]
        await turns(20)
        assert len(ends.links._links[PLACE[0]]) == PEER_LINKS_MAX
        await turns(2000)
        assert [guest.closes for guest in guests] == [1] * (50 - PEER_LINKS_MAX) + [0] * (
            PEER_LINKS_MAX
        )
        assert sum(not task.done() for task in tasks) == PEER_LINKS_MAX
        assert ends.counters["guests-turned-away"] == 50 - PEER_LINKS_MAX
        for guest in guests:
            guest.gone.set()
        await asyncio.gather(*tasks)
        assert not ends.links._links[PLACE[0]]

    asyncio.run(scenario())


@proves("peer.both-operators")
def test_an_authority_that_tls_does_not_take_keeps_nobody_else_out() -> None:
    from tests.channel.authority import TestAuthority

    ours, acme = TestAuthority("ours"), TestAuthority("acme")
    credentials, good = ours.issue("hub")[1], acme.issue("yard")[1].ca_pem.decode()
    bad = "-----BEGIN CERTIFICATE-----\nMAMCAQU=\n-----END CERTIFICATE-----\n"
    assert len(server_context(credentials, [bad, good.rstrip("\n"), good]).get_ca_certs()) == 2
    ends = Ends(0)
    card = types.SimpleNamespace
    peers = {"a": card(card=card(ca=bad)), "b": card(card=card(ca=good))}
    ends.links._core.roster = types.SimpleNamespace(peers=peers)  # type: ignore[misc,assignment]
    assert ends.links.guests() == [good]
    assert ends.counters["guests-unusable"] == 1


@proves("peer.both-operators")
def test_a_fleet_that_was_taken_in_before_we_looked_is_let_in_at_once() -> None:
    ends, shown, card = Ends(0), list[str](), types.SimpleNamespace
    core: Any = ends.links._core
    core.membership, core.part = card(on_change=[]), lambda _: card(waiting=list)
    core.roster = card(peers={})
    daemon: Any = ends.links._daemon
    daemon.show = lambda: shown.extend(ends.links.guests() or ["none"])
    assert ends.links.guests() == []
    ends.links.begin()
    assert not shown
    core.roster.peers["b"] = card(card=card(ca="no authority"))
    ends.links.begin()
    assert shown == ["none"]


@proves("peer.reaches-nothing-else")
def test_what_another_authority_writes_of_our_fleet_is_told_nothing() -> None:
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509 import load_pem_x509_certificate
    from tests.channel.authority import TestAuthority
    from tests.fleet.test_certificate import PAPERS

    from muster.errors import Denied

    ends = Ends(0)
    core: Any = ends.links._core
    core.roster, core.settings = (
        types.SimpleNamespace(peers={"a": 1}),
        {"ca": PAPERS.ca_pem.decode()},
    )
    der = load_pem_x509_certificate(PAPERS.tls_pem).public_bytes(Encoding.DER)
    ends.links.check_ours(der)
    core.settings["ca"] = TestAuthority("acme").issue("yard")[1].ca_pem.decode()
    with pytest.raises(Denied, match="not here"):
        ends.links.check_ours(der)
