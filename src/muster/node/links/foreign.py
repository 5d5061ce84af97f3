"""Links with machines of other fleets: who comes, and how letters are carried there.

Rule 1: who comes must show a certificate that the authority on a card signed, for a fleet that is
taken in, and in its time. To everything else here such a link is one that proved no machine.
Rule 2: who is dialled must be the door that the letter names, by the card of its fleet. It is shown
our certificate, and asked two verbs.
Rule 3: a letter is shown until the core has its receipt; a door that refused one, or took it and
does not say yet that it is held, is shown it again, more and more rarely, until it is too old. Such
a letter holds up no other, and keeps no link open. A door that says anything but what became of a
letter is hung up on.
Rule 4: nothing goes out while nothing waits: a link without letters is closed soon.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain, count
from typing import Final

import msgspec

from muster.channel.backoff import Backoff
from muster.channel.base import Link
from muster.channel.frame import Type, decode, encode
from muster.channel.http import HttpChannel
from muster.channel.knock import Knock
from muster.channel.tls import Credentials, is_authority
from muster.errors import Denied, Malformed, MusterError, NotFound
from muster.fleet import certificate
from muster.fleet.peer import Foreign, PeerFleet
from muster.fleet.roster import Roster
from muster.limits import PEER_LETTER_BYTES_MAX, PEER_LINKS_MAX
from muster.log import canon
from muster.message.letter import SentRow
from muster.node import event as ev
from muster.node.call.guests import REFUSED
from muster.node.counter import DECLARED, labelled
from muster.node.link import Said
from muster.node.runtime import Runtime
from muster.node.services.letter_waits import LetterRefused
from muster.node.services.letters import (
    DoorTried,
    Held,
    Letters,
    LetterSettled,
    LettersWait,
    LetterTaken,
)
from muster.node.services.peer_asks import PeerAsks
from muster.task.peer_work import SaidRow

DECLARED[__name__] = {
    "foreign-<error>": "Letters could not be handed over to another fleet; it is tried again.",
    "guests-unusable": "TLS did not take the authority of another fleet: nobody of it comes in.",
    "guests-turned-away": "A link of another fleet was closed: it had enough of them.",
}

VERB: Final = "peer.message"
WORK_VERB: Final = "peer.work"
# A link without letters is kept for so long: an answer often follows.
_IDLE_S: Final = 20.0
# A link over which letters are without an answer is looked at again after so long.
_ANSWER_S: Final = 60.0
# What a door refused, or took and does not hold yet, is shown again after so long, and then after
# twice that, at most so long.
_AGAIN_S: Final = 5.0
_AGAIN_S_MAX: Final = 600.0
# So many letters are without an answer at once on a link.
_OPEN_MAX: Final = 16

# A fleet, and one of its doors.
Place = tuple[str, str]
# A letter, or a document about work.
Row = SentRow | SaidRow


class _Shown:
    """What was shown over one link, by the numbers of the calls."""

    def __init__(self) -> None:
        # Until the last word about them.
        self.letters: dict[int, str] = {}
        # Those of which the door has said nothing yet.
        self.open: set[int] = set()
        self._numbers = count(1)

    def add(self, letter: str) -> int:
        """The number for one more."""
        number = next(self._numbers)
        self.letters[number] = letter
        self.open.add(number)
        return number

    def forget(self, waiting: set[str]) -> None:
        """Of what waits no more no answer is awaited; one that comes is still known for one."""
        self.open = {number for number in self.open if self.letters[number] in waiting}


class ForeignLinks:
    """See the rules at the top of this file."""

    def __init__(self, daemon: Runtime) -> None:
        self._daemon, self._core = daemon, daemon.core
        self._links: dict[str, list[Link]] = defaultdict(list)
        self._carried: dict[Place, asyncio.Event] = {}
        # Of a letter that is not settled yet: when it is shown again, and after how long once more.
        self._rests: dict[str, tuple[float, float]] = {}
        # Whose authorities TLS was told of.
        self._told: list[str] = []
        self._begun = False

    def begin(self) -> None:
        """Carry what waits, now and whenever something does."""
        self._begun = True
        self._core.membership.on_change.append(self._changed)
        if self._authorities() != self._told:
            # Somebody was taken in, or removed, since the listener was made.
            self._daemon.show()
        self.look()

    def _changed(self, after: Roster, before: Roster | None) -> None:
        if before is None or after.peers != before.peers:
            asyncio.get_running_loop().call_soon(self._daemon.show)

    # --- who comes ----------------------------------------------------------------------------

    def _authorities(self) -> list[str]:
        return [peer.card.ca for peer in self._core.roster.peers.values()]

    def guests(self) -> list[str]:
        """The authorities of all fleets that are taken in, each in PEM, that TLS takes."""
        self._told = self._authorities()
        found = [pem for pem in self._told if is_authority(pem)]
        self._core.counters["guests-unusable"] += len(self._told) - len(found)
        return found

    def identify(self, peer: certificate.Peer, der: bytes) -> str:
        """Which machine of another fleet shows this certificate. Raises: Denied, without a word."""
        known = self._core.roster.peers.get(peer.fleet)
        try:
            if known is None:
                raise NotFound("no such fleet is taken in")
            found = self._check(der, known)
        except MusterError as error:
            raise Denied("not here") from error
        return str(found)

    def check_ours(self, der: bytes) -> None:
        """That our authority signed it, where TLS lets in others', too. Raises: Denied.

        Another one can write our fleet into a certificate, and is told nothing for that.
        """
        if not self._core.roster.peers:
            return
        try:
            certificate.check_issued(der, str(self._core.settings.get("ca") or "").encode())
        except MusterError as error:
            raise Denied("not here") from error

    def _check(self, der: bytes, peer: PeerFleet) -> Foreign:
        ca, now_ms = peer.card.ca.encode(), self._core.now.wall_ms
        found = certificate.foreign_of(der, ca, peer.card.fleet, now_ms)
        return Foreign(found.fleet, found.machine)

    async def serve(self, link: Link, guest: Foreign) -> None:
        """The life of a link that a machine of another fleet dialled."""
        links = self._links[guest.fleet]
        # The places change hands before anything is awaited: whoever comes meanwhile finds others.
        old = links[: max(0, len(links) + 1 - PEER_LINKS_MAX)]
        del links[: len(old)]
        links.append(link)
        for each in old:
            self._core.counters["guests-turned-away"] += 1
            self._daemon.supervisor.run("letters", each.close("there are newer links"))
        link.peer = ""
        try:
            await self._daemon.serve(link, foreign=str(guest))
        finally:
            if link in links:
                links.remove(link)

    # --- what goes out ------------------------------------------------------------------------

    @ev.effect(LettersWait)
    def on_letters_wait(self, _effect: LettersWait) -> None:
        """One was written down, or somebody was taken in."""
        self.look()

    def look(self) -> None:
        """Begin to carry what waits."""
        if not self._begun:
            return
        rows = list(self._all())
        waiting = {row.letter for row in rows}
        self._rests = {each: rest for each, rest in self._rests.items() if each in waiting}
        for place in {(row.fleet, row.door) for row in rows}:
            if place in self._carried:
                self._carried[place].set()
            else:
                self._carried[place] = asyncio.Event()
                self._daemon.supervisor.run("letters", self._carry(place))

    def _all(self) -> Iterator[Row]:
        """All that is to be carried; letters first, whatever else waits."""
        return chain(self._core.part(Letters).waiting(), self._core.part(PeerAsks).waiting())

    def _waiting(self, place: Place) -> list[Row]:
        return [row for row in self._all() if (row.fleet, row.door) == place]

    async def _carry(self, place: Place) -> None:
        """Hand over all that waits for one door."""
        backoff, bell = Backoff(random.SystemRandom().random), self._carried[place]
        loop = asyncio.get_running_loop()
        try:
            while rows := self._waiting(place):
                bell.clear()
                began_s = loop.time()
                pause_s = min(self._rest_s(row) for row in rows)
                if pause_s <= 0:
                    pause_s = await self._try(place, backoff, began_s)
                try:
                    async with asyncio.timeout(pause_s):
                        await bell.wait()
                except TimeoutError:
                    continue
        finally:
            del self._carried[place]

    async def _try(self, place: Place, backoff: Backoff, began_s: float) -> float:
        """One link and all that goes over it; after how long the next one is tried."""
        loop = asyncio.get_running_loop()
        try:
            link = await self.dial(place)
            try:
                await self._hand_over(link, place)
            finally:
                await link.close("done")
        except MusterError as error:
            self._core.counters[labelled("foreign", error)] += 1
            self._daemon.post(DoorTried(place[0], str(error)))
            return backoff.lost(int((loop.time() - began_s) * 1000)) / 1000
        return 0.0

    async def dial(self, place: Place) -> Link:
        """A link to a door of another fleet. Raises: NotFound, Unreachable, Refused."""
        fleet, machine = place
        peer = self._core.roster.peers.get(fleet)
        doors = [each for each in peer.card.doors if each.machine == machine] if peer else []
        if peer is None or not doors:
            raise NotFound("the card of that fleet names this door no more: its letters expire")
        shown = self._daemon.machine.credentials()
        credentials = Credentials(shown.cert_pem, shown.key_pem, peer.card.ca.encode())
        channel = HttpChannel(credentials, lambda der: str(self._check(der, peer)))
        # Its card names the fleet, which is all that is needed to knock.
        channel.knock = Knock(fleet, machine, lambda: self._core.now.wall_ms, lambda: False)
        return await channel.dial(doors[0].address, peer=str(Foreign(fleet, machine)))

    async def _hand_over(self, link: Link, place: Place) -> None:
        """Show the letters and hear of them, until none is without an answer.

        Raises: Unreachable, Malformed.
        """
        bell, shown = self._carried[place], _Shown()
        # Of those that have an answer, or are under way, on this link.
        seen: set[str] = set()
        receiving = asyncio.ensure_future(link.receive())
        ringing = asyncio.ensure_future(bell.wait())
        look = True
        try:
            while True:
                if look or ringing.done():
                    bell.clear()
                    if ringing.done():
                        ringing = asyncio.ensure_future(bell.wait())
                    await self._show(link, place, shown, seen)
                done, _ = await asyncio.wait(
                    {receiving, ringing},
                    timeout=_ANSWER_S if shown.open else _IDLE_S,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if not done and not shown.open:
                    return
                # What expired meanwhile is awaited no more.
                look = not done
                if receiving in done:
                    look = self._heard(place[0], receiving.result(), shown)
                    receiving = asyncio.ensure_future(link.receive())
        finally:
            ringing.cancel()
            if not receiving.cancel() and not receiving.cancelled():
                # Where sending failed first it says the same.
                receiving.exception()

    async def _show(self, link: Link, place: Place, shown: _Shown, seen: set[str]) -> None:
        """Show what waits, as far as there is room."""
        rows = self._waiting(place)
        shown.forget({row.letter for row in rows})
        for row in rows:
            if len(shown.open) >= _OPEN_MAX:
                return
            if row.letter not in seen and self._rest_s(row) <= 0:
                seen.add(row.letter)
                number = shown.add(row.letter)
                await link.send(encode(Type.CALL, number, self._call(row)))

    def _call(self, row: Row) -> bytes:
        core = self._core
        record = core.roster.machine(core.machine).raw.decode()
        if isinstance(row, SentRow):
            letter, asked = core.part(Letters).document(row), VERB
        else:
            letter, asked = core.part(PeerAsks).document(row), WORK_VERB
        return canon.encode({"args": {"letter": letter, "record": record}, "verb": asked})

    def _heard(self, fleet: str, frame: bytes, shown: _Shown) -> bool:
        """A frame of the door; whether another letter has room now. Raises: Malformed."""
        type_, number, payload = decode(frame)
        letter, first = shown.letters.get(number), payload[:1] == b"*"
        if type_ is not Type.REPLY or letter is None or payload[:1] not in (b"*", b"."):
            raise Malformed("the door says what is no answer to a letter")
        if len(payload) > PEER_LETTER_BYTES_MAX:
            raise Malformed("the door answers more than a receipt")
        try:
            said = msgspec.json.decode(payload[1:], type=Said)
            held = msgspec.convert(said.value, Held) if said.ok else Held(REFUSED)
        except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
            raise Malformed("the door answers what is no receipt") from error
        free = number in shown.open
        if first and not free:
            raise Malformed("the door says twice that it took a letter")
        shown.open.discard(number)
        if first:
            self._rest(letter)
            self._daemon.post(LetterTaken(letter))
            self._daemon.post(DoorTried(fleet))
            return free
        del shown.letters[number]
        if said.ok:
            self._rests.pop(letter, None)
            self._daemon.post(LetterSettled(letter, held.receipt, held.record))
            self._daemon.post(DoorTried(fleet))
        else:
            self._rest(letter)
            self._daemon.post(LetterRefused(letter))
            self._daemon.post(
                DoorTried(fleet, "it refuses a letter: no grant there, or no such machine")
            )
        return free

    def _rest(self, letter: str) -> None:
        _, rest_s = self._rests.get(letter, (0.0, _AGAIN_S))
        now_s = asyncio.get_running_loop().time()
        self._rests[letter] = (now_s + rest_s, min(2 * rest_s, _AGAIN_S_MAX))

    def _rest_s(self, row: Row) -> float:
        """For how long it is not to be shown yet."""
        until_s, _ = self._rests.get(row.letter, (0.0, 0.0))
        return until_s - asyncio.get_running_loop().time()
