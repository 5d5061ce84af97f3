"""One pull at the mailbox of a machine: what is asked of JetStream, and what came of it.

Rule 1: what came counts, also where the line is too slow for the rest of it: that comes again.
Rule 2: a pull ends in time, whatever a server says, and however often.
Rule 3: more than was asked for is not read, and what is too large for a packet is forgotten there.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from muster.channel.nats_waits import Came
from muster.limits import PACKET_BYTES_MAX

# While nothing comes, JetStream says so often; when it does not, whoever held the pull is gone: a
# server of a cluster takes the pulls with it that wait there.
_BEAT_S: Final = 3
_SILENT_S: Final = 8.0
# Where what JetStream keeps is acknowledged; words of the server's own have no such place.
_ACKNOWLEDGED: Final = "$JS.ACK."
# Of what waits the next one has more bytes than were left of those asked for.
_TOO_MANY_BYTES: Final = "409"


class Pull(NamedTuple):
    """So many are asked for, of so many bytes, waiting so long for the first.

    One alone is asked for of any size: it may be what nobody wants, and is to go.
    """

    most: int
    wait_s: float
    room: int = PACKET_BYTES_MAX

    def request(self) -> bytes:
        """What JetStream is asked."""
        ask: dict[str, Any] = {"batch": self.most}
        if self.most > 1:
            ask["max_bytes"] = self.room
        if not self.wait_s:
            ask["no_wait"] = True
        else:
            ask["expires"] = int(self.wait_s * 1e9)
            if self.wait_s > _SILENT_S:
                ask["idle_heartbeat"] = int(_BEAT_S * 1e9)
        return json.dumps(ask).encode()


class Pulled(NamedTuple):
    """What came, whether more may wait, and with which word the server ended it."""

    found: list[Came]
    more: bool
    status: str = ""


async def read(
    pull: Pull,
    answer_s: float,
    next_msg: Callable[..., Awaitable[Any]],
    publish: Callable[[str, bytes], Awaitable[None]],
) -> Pulled:
    """What comes of a pull within its wait and so many seconds, by what the client has for it.

    Raises: TimeoutError, and what these raise.
    """
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + pull.wait_s + answer_s
    silent_s = _SILENT_S if pull.wait_s > _SILENT_S else pull.wait_s + answer_s
    found: list[Came] = []
    given, room = 0, pull.room
    while given < pull.most and room > 0:
        # A server that always beats, and never says that it is over, is not waited for.
        left_s = max(0.001, ends_s - loop.time())
        try:
            message = await next_msg(timeout=min(silent_s, left_s))
        except TimeoutError:
            if not given:
                raise
            break
        # In the headers of a packet its sender may say what it likes.
        kept = message.reply.startswith(_ACKNOWLEDGED)
        status = "" if kept else (message.headers or {}).get("Status", "")
        if status == "100":
            continue
        if status:
            return Pulled(found, status == _TOO_MANY_BYTES, status)
        given += 1
        if len(message.data) > PACKET_BYTES_MAX:
            await publish(message.reply, b"+TERM")
            continue
        room -= len(message.data)
        id, sender = str(message.metadata.sequence.stream), message.subject.split(".")[-1]
        found.append(Came(id, message.data, message.reply, sender))
    return Pulled(found, more=True)
