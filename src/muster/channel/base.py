"""What every channel is: a `Link`, a live pipe between two ends, or a `Post`, a mailbox.

A link carries frames in order, or breaks:

Rule 1: a channel knows nothing of what it carries; a frame is bytes of a bounded size.
Rule 2: "sent" means "handed over", never "delivered". Only the far machine's cosign says that.
Rule 3: a link is a pipe that works or is gone. It loses, repeats and reorders nothing while
        it works; once it is gone, every call raises Unreachable, on both sides, for ever.
Rule 4: nobody's memory grows because somebody else is slow: `send` waits.
Rule 5: `peer` is what the channel *proved* ("" when it proved nothing), never what was claimed.

How a link is used:

    link = await channel.dial(address, peer=machine)   # Unreachable, Refused
    await link.send(frame)                             # any number of senders
    frame = await link.receive()                       # one reader at a time
    await link.close("done")                           # idempotent; the peer is told why

The reader must keep reading: an end that reads nothing for the keepalive bound counts as dead.
Frames that arrived before the close are still received, then `receive` raises Unreachable with
the reason. `close` makes the calls that wait at this end raise at once.

A listener runs `on_link(link)` as the life of each link: when it returns or raises, the link
is closed. Closing the listener closes its links, too.

A post has no far end that answers. It is a place (a folder, a bucket, a branch) where one machine
leaves packets for another, which takes them when it comes by:

Rule 6: `put` returns when the packet lies in the place, whole. What was put is taken sooner or
        later, in any order, and again and again until it was acknowledged: nothing is lost between
        taking a packet and committing what it says.
Rule 7: a packet is taken whole or not at all, and never by anybody but whom it is for.
Rule 8: the place is trusted with nothing: who wrote a packet, the packet itself has to prove.
Rule 9: nobody keeps another one's packets waiting: they are taken in turn by their writers
        (channel/turn.py), whatever else lies there.
Rule 10: nobody asks a place over and over. `news` returns when something may lie there: at once
         where the place can tell, else after the deadline of the place.

    await post.put(packet, to=machine)                 # Unreachable: the place is not there now
    for each in await post.take():                     # what waits for us, again what was not acked
        ...
        await post.ack([each.id])                      # idempotent; it never comes again
    await post.news(urgent=False)                      # then take again
    await post.close()                                 # idempotent; whoever waits for news is woken

`tests/channel/test_contract.py` holds the first half against every link, `test_post.py` the second
against every post.
"""

import asyncio
import re
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple, Protocol, cast

import msgspec

from muster.channel.frame import check_size
from muster.channel.knock import Knock
from muster.channel.tls import Credentials
from muster.channel.turn import Names
from muster.errors import Malformed, Refused, Unreachable
from muster.limits import POST_TAKEN_MAX


class Link(Protocol):
    """One end of a working pipe."""

    channel: str
    """The name of the channel."""
    peer: str
    """The machine id that the channel proved, "" when it proved none."""
    counters: "LinkStatistics"

    async def send(self, frame: bytes) -> None:
        """Hand one frame over; waits while the far end is slow.

        Raises Malformed (too large, nothing was sent) and Unreachable (the link is gone).
        A cancelled `send` was either not sent at all or will be sent whole.
        """
        await self.send_all((frame,))

    async def send_all(self, frames: Sequence[bytes]) -> None:
        """As `send` of each in turn, in as few writes as the channel can: they arrive together."""

    @property
    def ready(self) -> bool:
        """Whether nothing waits to be sent: then `send_all_nowait` may be called."""

    def send_all_nowait(self, frames: Sequence[bytes]) -> None:
        """As `send_all` without a turn of the loop; only while `ready`.

        Raises Malformed (nothing was sent). A link that breaks meanwhile tells the receiver.
        """
        assert self.ready, "somebody else is sending, or the link is gone"
        check_size(*frames)
        self._write(frames)

    @abstractmethod
    def _write(self, frames: Sequence[bytes]) -> None:
        """Hand over all of them in one piece, and count them."""

    async def receive(self) -> bytes:
        """The next frame. Cancelling loses nothing. Raises Unreachable."""

    async def close(self, reason: str) -> None:
        """End the link and tell the peer why, within two seconds even if it does not listen."""


class Listener(Protocol):
    """The end that waits to be dialled."""

    address: str
    """What a dialer gives to `dial`."""

    @property
    def listens(self) -> bool:
        """Whether it can be dialled: not once it was closed, or failed."""

    async def close(self) -> None:
        """Take no more links, close the ones there are. Idempotent."""


OnLink = Callable[[Link], Awaitable[None]]


class Channel(Protocol):
    """A way to move bytes to a machine."""

    name: str
    """One word."""

    async def dial(self, address: str, *, peer: str = "") -> Link:
        """Open a link, proven on both sides on return.

        With `peer` the far end must prove to be that machine; a channel that cannot prove it
        refuses. Raises Unreachable and Refused.
        """

    async def listen(self, address: str, on_link: OnLink) -> Listener:
        """Wait for links at an address. Raises Broken and Conflict."""


# Turns a peer's certificate (DER, signed by the fleet's authority) into a machine id, or raises
# Refused. It is asked for every link, on both sides.
Identify = Callable[[bytes], str]


@dataclass(frozen=True, slots=True)
class SshKeys:
    """What a machine shows to an sshd: its key and the certificate of it; `authority` is the key
    that signs those of the fleet. The first is never printed.
    """

    key: bytes = field(repr=False)
    shown: str
    authority: str


def _no_ssh() -> SshKeys | None:
    return None


def no_guests() -> Sequence[str]:
    """Nobody but machines of the fleet."""
    return ()


class Own(NamedTuple):
    """What a machine brings to its channels; `ssh` says what it has for an sshd at that time, and
    `hosts` where it may be reached then (exposure.py); `knock` is the word at a port. `guests` are
    the authorities of other fleets whose machines may come then, each in PEM.
    """

    machine: str
    credentials: Credentials
    identify: Identify
    ssh: Callable[[], SshKeys | None] = _no_ssh
    hosts: Callable[[], Sequence[str]] = lambda: ("127.0.0.1",)
    knock: Knock | None = None
    guests: Callable[[], Sequence[str]] = no_guests


class MachineChannel(Channel, Protocol):
    """A channel of `CHANNELS`: both ends are machines, and prove it."""

    def renew(self, credentials: Credentials) -> None:
        """Show new credentials from the next handshake on. Raises Broken, changing nothing."""


def check_place(address: str) -> str:
    """What any address of any channel is: one printable word. Raises: Malformed."""
    if not re.fullmatch(r"[!-~]{1,200}", address):
        raise Malformed(
            f"{address[:80]!r} is not an address: write 1 to 200 letters without spaces"
        )
    return address


class LinkOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[channel.<name>]` in config.toml; a channel adds what is its own.

    `listen` is where others may dial, "" where nobody may; `address` is where they reach that;
    `hub` is where the machine is through which this one joined; `peers` says of others, by name or
    id, where they are. What is written for a place is checked as the channel writes it.
    """

    check_listen = staticmethod(cast("Callable[[str], object]", check_place))
    check_address = staticmethod(check_place)

    listen: str | tuple[str, ...] = ""
    address: str = ""
    hub: str = ""
    peers: Mapping[str, str] = {}

    def reached_at(self) -> str:
        """Where others reach this machine, "" when nowhere."""
        return self.address or self.listens_at.partition(",")[0]

    @property
    def listens_at(self) -> str:
        """What `listen` says, as one text with commas between."""
        return self.listen if isinstance(self.listen, str) else ",".join(self.listen)


class Visitor(NamedTuple):
    """What a machine brings to the places where it leaves and takes packets.

    In `home`, its own folder, lies what a post remembers. `survived` counts what ended nothing, by
    a word and its error: `unread` and `unremoved` packets, `unwatched` and `untidied` places.
    `variables` are those of a file there that nobody else may read; it raises Broken. `wall_ms`
    reads the wall clock.
    """

    machine: str
    home: Path
    survived: Callable[[str, Exception], None]
    # A signature of the machine's `nats` key, and what it shows in TLS.
    sign: Callable[[bytes], bytes] | None = None
    credentials: Callable[[], Credentials] | None = None
    # What no place that lies here asks for.
    variables: Callable[[str], Mapping[str, str]] = lambda _: {}
    wall_ms: Callable[[], int] = lambda: 0
    # By what the writers of packets are told, and their turns (channel/turn.py): of each other
    # machine of the fleet what it shares with this one alone; and whether one reads such names.
    secrets: Callable[[], Mapping[str, bytes]] = dict
    reads_names: Callable[[str], bool] = lambda _: False

    @property
    def names(self) -> Names:
        """What packets are called at a place that tells writers by the names."""
        return Names(self.machine, self.secrets, self.reads_names)


class PostOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[channel.<name>]` of a mailbox in config.toml.

    `place` is where the packets lie; after `deadline_s` it is looked at without news, 0 for as
    often as the channel itself thinks right.
    """

    check_place = staticmethod(check_place)

    place: str = ""
    deadline_s: Annotated[int, msgspec.Meta(ge=0, le=86_400)] = 0


class Packet(NamedTuple):
    """What lay in a mailbox; `id` names it there and means nothing elsewhere."""

    id: str
    body: bytes


class Post(Protocol):
    """A place where machines leave packets for each other."""

    name: str
    """One word."""

    async def put(self, packet: bytes, *, to: str) -> None:
        """Leave a packet for the machine `to`.

        Raises Malformed (too large, nothing was left), Exhausted (the place is full), Unreachable
        (the place is not there now; whether the packet lies in it is not known) and, as all of
        these do, Broken (the place refuses this machine until somebody mends something).
        """

    async def take(self, most: int = POST_TAKEN_MAX) -> list[Packet]:
        """What waits for this machine, so many at once and none for good. Raises Unreachable."""

    async def ack(self, ids: Sequence[str]) -> None:
        """Let the place forget packets that were taken. Raises Unreachable."""

    async def news(self, *, urgent: bool) -> None:
        """Returns when something may lie there for this machine, or the deadline has passed.

        `urgent`: somebody waits, so a place that cannot tell is looked at soon. It never raises.
        """

    async def close(self) -> None:
        """Let go of the place; `news` returns. Idempotent."""


@dataclass(slots=True)
class LinkStatistics:
    """What went over a link. `since` is the time of the event loop when it opened."""

    since: float
    frames_in: int = 0
    frames_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    def count_out(self, frames: Sequence[bytes]) -> None:
        self.frames_out += len(frames)
        self.bytes_out += sum(map(len, frames))


def gone(channel: str, reason: str) -> str:
    """The sentence for a link that is no more, the same in every channel."""
    return f"the {channel} link is closed: {reason or 'no reason was given'}; dial again"


def report(task: "asyncio.Task[None]", message: str) -> None:
    """A mistake of ours in a task is never silent, and never the end of who started it."""
    if not task.cancelled() and (error := task.exception()) is not None:
        task.get_loop().call_exception_handler(
            {"message": message, "exception": error, "task": task}
        )


class LinkTasks:
    """The links of one listener, each running `on_link` as its life."""

    def __init__(self, on_link: OnLink) -> None:
        self._on_link = on_link
        self._lives: dict[asyncio.Task[None], Link] = {}

    def adopt(self, link: Link) -> None:
        """Begin the life of a link that a dialer opened."""
        task = asyncio.get_running_loop().create_task(self._live(link))
        self._lives[task] = link
        task.add_done_callback(self._lives.pop)
        task.add_done_callback(lambda ended: report(ended, "the life of a link failed"))

    async def _live(self, link: Link) -> None:
        """Run one life to its end, whatever the end is; the link is closed afterwards."""
        reason = "this end failed"
        try:
            await self._on_link(link)
            reason = "done"
        except Unreachable:
            # The link ended while it was used: the ordinary end of a conversation.
            reason = "the peer is gone"
        except Refused as refused:
            reason = str(refused)
        except asyncio.CancelledError:
            reason = "the listener is closed"
            raise
        finally:
            await link.close(reason)

    async def close(self) -> None:
        """End every life and wait for it."""
        lives = dict(self._lives)
        for task in lives:
            task.cancel()
        if lives:
            await asyncio.wait(lives)
        for link in lives.values():
            # A life that was cancelled before its first step has closed nothing.
            await link.close("the listener is closed")
