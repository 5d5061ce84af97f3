"""What machines say to each other beside the streams, in parcels: whether anybody comes by.

Rule 1: a question that nobody asked here is not answered by what lies in a place: each has a number
that only who was asked can know.
Rule 2: what is answered costs a parcel, so so many are answered in a minute and no more, whatever
is asked.
"""

import asyncio
import secrets
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Final

from muster.errors import Unreachable
from muster.fleet.parcel import PING, PONG, Item
from muster.limits import PARCEL_ANSWERS_PER_MINUTE_MAX
from muster.node.core import Core
from muster.node.counter import DECLARED, spend
from muster.node.services.parcels import AsideCame

DECLARED[__name__] = {
    "asides-malformed": "What a parcel says beside the streams is not what it claims to be.",
    "pings-too-often": "A machine asked in parcels whether anybody is here, and was not answered.",
    "pongs-unasked": "A parcel answers what nobody here asked, or asked too long ago.",
}

NONCE_BYTES: Final = 16
# Chosen arbitrarily: who comes by a place comes by within so long, or not soon.
PING_S: Final = 30.0
_MINUTE_MS: Final = 60_000


class Asides:
    """The asides of all mailboxes of one machine; `leave` puts one into the mailbox of a number."""

    def __init__(self, core: Core, leave: Callable[[int, Item], None]) -> None:
        self._core, self._leave = core, leave
        self._asked: dict[tuple[int, bytes], asyncio.Future[None]] = {}
        self._answered = defaultdict[int, deque[int]](deque)

    async def ping(self, box: int, name: str) -> None:
        """Returns when the machine of this mailbox has answered. Raises: Unreachable."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        asked = self._asked[box, nonce] = asyncio.get_running_loop().create_future()
        self._leave(box, Item(PING, nonce))
        try:
            async with asyncio.timeout(PING_S):
                await asked
        except TimeoutError as error:
            raise Unreachable(
                f"{name} has answered no parcel for {PING_S:.0f} s; it may come by seldom, or "
                "not use that place: try later"
            ) from error
        finally:
            del self._asked[box, nonce]

    def came(self, aside: AsideCame) -> None:
        """One came, and its writer is proven; it counts only where it says something of use."""
        match aside.item.type:
            case _ if len(aside.item.body) != NONCE_BYTES:
                self._core.counters["asides-malformed"] += 1
            case type if type == PONG:
                asked = self._asked.get((aside.box, aside.item.body))
                if asked is None:
                    self._core.counters["pongs-unasked"] += 1
                elif not asked.done():
                    asked.set_result(None)
            case _ if aside.newer:
                self._answer(aside)

    def _answer(self, ping: AsideCame) -> None:
        spent, now_ms = self._answered[ping.box], self._core.now.boot_ms
        if spend(spent, PARCEL_ANSWERS_PER_MINUTE_MAX, _MINUTE_MS, now_ms):
            self._leave(ping.box, Item(PONG, ping.item.body))
        else:
            self._core.counters["pings-too-often"] += 1
