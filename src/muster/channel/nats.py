"""A NATS server is a mailbox: its JetStream keeps what is for a machine until that takes it.

Rule 1: a packet is left when JetStream acknowledged it (channel/nats_client.py).
Rule 2: each packet is named by its hash, so that one whose acknowledgement was lost is not kept
twice. A name that was taken before its packet was ever sent is somebody else's doing, and is left
out.
Rule 3: what was taken belongs to the connection over which it came: over another one it comes
again. JetStream forgets it when it is acknowledged, and what it forgot before, or invents, or gives
in another order is the business of whoever reads packets (fleet/parcel.py, log/post.py).
Rule 4: for each machine so much may lie there, for so long, and no more. All of it is looked
through, and taken of each sender in turn: whose subject it came by is what a server says, and at
one of the fleet's own nobody leaves anything by another one's.
Rule 5: at a server of the fleet's own this machine shows the pass that it was given, and proves its
`nats` key. At any other it shows what its owner wrote into a file.

Whoever is first makes the mailbox. Where the server does not let machines, it is there already.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from muster.channel.base import Packet, PostOptions, Visitor
from muster.channel.nats_client import AHEAD_MAX, ANSWER_S, Login, NatsClient
from muster.channel.nats_lease import NatsLeases
from muster.channel.nats_pull import Pull, Pulled
from muster.channel.nats_waits import Came
from muster.channel.tls import Credentials, client_context
from muster.channel.turn import in_turn
from muster.errors import Exhausted, Malformed, Unreachable
from muster.limits import MAILBOX_BYTES_MAX, PACKET_BYTES_MAX, POST_TAKEN_MAX

NAME: Final = "nats"

_SERVER: Final = re.compile(r"(nats|tls)://[A-Za-z0-9._\[\]:-]{1,160}\Z")
_MACHINE: Final = re.compile(r"[0-9a-z-]{1,64}\Z")
_LOGIN_BYTES_MAX: Final = 8192
_DEADLINE_S: Final = 60
_NAMES_KEPT: Final = 256
# So many are asked for at once.
_PULLED_MAX: Final = 1024
# And of so many bytes: as many as came in so long the last time, between these. The least holds one
# packet, whatever its headers and subjects are.
_BYTES_MIN: Final = PACKET_BYTES_MAX + 64 * 1024
_BYTES_MAX: Final = 8 * 1024 * 1024
_PULL_S: Final = 2.0
# A look reads ahead for so long; then what is there is dealt with first.
_AHEAD_S: Final = 4.0
# Of one cluster.
SERVERS_MAX: Final = 8
# In the home: what another machine gave this one to be let in at its server.
PASS: Final = "nats/pass.json"  # noqa: S105 - the name of a file
# Of this machine's own server, while it runs.
BESIDE: Final = "nats/leaf.json"
# And why it gave none, where it did not.
REFUSED: Final = "nats/refused.txt"


ServerUrl = Annotated[str, msgspec.Meta(pattern=rf"\A{_SERVER.pattern}")]


class Pass(msgspec.Struct, frozen=True):
    """Where the server of a machine is, and what lets this one in there. No secret is in it.

    `more` are the other servers of its cluster, each as good; `leaves` is where a server of this
    machine is let in.
    """

    jwt: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_.-]{1,3000}\Z")]
    server: ServerUrl
    more: Annotated[tuple[ServerUrl, ...], msgspec.Meta(max_length=SERVERS_MAX)] = ()
    leaves: Annotated[tuple[ServerUrl, ...], msgspec.Meta(max_length=SERVERS_MAX)] = ()


class Beside(msgspec.Struct, frozen=True):
    """The server of this very machine, through which that of the other one is reached."""

    server: ServerUrl
    user: str
    password: str


def check_place(address: str) -> str:
    """A machine of the fleet; or one server, or several of one cluster. Raises: Malformed."""
    if _MACHINE.match(address):
        return address
    for server in address.split(","):
        if not _SERVER.match(server.strip()):
            raise Malformed(
                f"{server.strip()[:80]!r} is no NATS server: write the machine that serves, or "
                "nats://host:port or tls://host:port; a name and a password belong into the file "
                "that `credentials` names"
            )
    return address


def is_machine(place: str) -> bool:
    """Whether a place is the server of a machine of the fleet."""
    return _MACHINE.match(place) is not None


class Options(PostOptions, frozen=True, forbid_unknown_fields=True):
    """`place` is the machine of the fleet that serves, or a NATS server.

    `credentials` is a file that lets this machine in: one line, `user:password` or a token.
    """

    check_place = staticmethod(check_place)

    credentials: str = ""


class NatsPost:
    """See the rules at the top of this file."""

    name = NAME

    def __init__(self, options: Options, visitor: Visitor) -> None:
        self._options, self._visitor = options, visitor
        of_fleet = is_machine(options.place)
        where = f"the NATS server {'of ' * of_fleet}{options.place.split(',')[0].strip()}"
        lets_in = self._pass if of_fleet else self._login
        self._reached = (where, visitor.machine, lets_in)
        self._server = NatsClient(*self._reached)
        self._wait_s = options.deadline_s or _DEADLINE_S
        # What came over the connection of this number, and is not acknowledged; whose turn it was.
        self._taken: dict[str, Came] = {}
        self._after = ""
        self._number = 0
        self._at_once = _BYTES_MIN
        # Packets that were sent once: a server that has the name of one may have it from us.
        self._sent: OrderedDict[str, None] = OrderedDict()
        self._end = asyncio.Event()

    def leases(self) -> NatsLeases:
        """What this machine writes leases with at the same server, over a connection of its own."""
        return NatsLeases(*self._reached)

    async def put(self, packet: bytes, *, to: str) -> None:
        if len(packet) > PACKET_BYTES_MAX:
            raise Malformed(
                f"a packet has {len(packet)} bytes; at most {PACKET_BYTES_MAX} are left"
            )
        assert _MACHINE.match(to), "a receiver is a machine, and becomes a part of a subject"
        name = hashlib.sha256(packet).hexdigest()
        new = name not in self._sent
        self._sent[name] = None
        if len(self._sent) > _NAMES_KEPT:
            self._sent.popitem(last=False)
        if await self._server.leave(packet, to, name) and new:
            await self._server.leave(packet, to, "")

    async def take(self, most: int = POST_TAKEN_MAX) -> list[Packet]:
        await self._read_ahead()
        members, nobodys = self._visitor.secrets(), list[Came]()
        waiting: dict[str, list[Came]] = {}
        for each in self._taken.values():
            box = waiting.setdefault(each.sender, []) if each.sender in members else nobodys
            box.append(each)
        found = []
        for writer, each in islice(in_turn(waiting, self._after, nobodys), most):
            self._after = writer
            found.append(Packet(each.id, each.body))
        return found

    async def ack(self, ids: Sequence[str]) -> None:
        found = [self._taken[id] for id in ids if id in self._taken]
        await self._server.acknowledge([each.reply for each in found], self._number)
        for each in found:
            self._taken.pop(each.id, None)

    async def news(self, *, urgent: bool) -> None:  # noqa: ARG002 - a server tells at once anyway
        if self._end.is_set() or self._taken:
            return
        waiting = [asyncio.ensure_future(each) for each in (self._wait(), self._end.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def close(self) -> None:
        self._end.set()
        await self._server.close()

    async def _wait(self) -> None:
        """Until something comes, or the deadline. What fails is said by whoever takes next."""
        # What fails is said by whoever takes next.
        with contextlib.suppress(Unreachable, Exhausted):
            await self._pull(Pull(1, self._wait_s))

    async def _read_ahead(self) -> None:
        """Pull what waits, for a while. Raises: Exhausted, Unreachable, where nothing is here."""
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + _AHEAD_S
        try:
            while await self._pull_some() and loop.time() < ends_s:
                pass
        except (Exhausted, Unreachable):
            # What came over a connection that is gone comes again over another one.
            if not self._server.is_connected(self._number):
                self._taken.clear()
            if not self._taken:
                raise

    async def _pull_some(self) -> bool:
        """Whether more may wait, and there is room for it."""
        loop, before = asyncio.get_running_loop(), len(self._taken)
        await self._server.hold([each.reply for each in self._taken.values()], self._number)
        room = MAILBOX_BYTES_MAX - sum(len(each.body) for each in self._taken.values())
        # Asked also where enough was taken: a server that is away is said.
        most = min(_PULLED_MAX, max(1, AHEAD_MAX - before))
        began_s = loop.time()
        pulled = await self._pull(Pull(most, 0, max(1, min(self._at_once, room))))
        if pulled.more:
            came = sum(len(each.body) for each in pulled.found)
            fits = int(came * _PULL_S / max(0.001, loop.time() - began_s))
            self._at_once = max(_BYTES_MIN, min(fits, 2 * self._at_once, _BYTES_MAX))
        return pulled.more and len(self._taken) > before

    async def _pull(self, pull: Pull) -> Pulled:
        """Take over what came."""
        pulled = await self._server.pull(pull)
        if self._number != self._server.number:
            self._number = self._server.number
            self._taken.clear()
        for each in pulled.found:
            self._taken[each.id] = each
        return pulled

    def _login(self) -> Login:
        """What the file says that lets us in. Raises: OSError, ValueError."""
        servers = tuple(each.strip() for each in self._options.place.split(","))
        if not self._options.credentials:
            return Login(servers, {})
        with Path(self._options.credentials).expanduser().open("rb") as file:
            text = file.read(_LOGIN_BYTES_MAX).decode("ascii").strip()
        user, colon, password = text.partition(":")
        return Login(servers, {"user": user, "password": password} if colon else {"token": text})

    def _pass(self) -> Login:
        """What the machine that serves gave us. Raises: OSError, ValueError."""
        # No server of this computer has said yet where it is, or it is just saying so.
        nothing = contextlib.suppress(FileNotFoundError, msgspec.DecodeError)
        with nothing, (self._visitor.home / BESIDE).open("rb") as file:
            return _login_beside(msgspec.json.decode(file.read(_LOGIN_BYTES_MAX), type=Beside))
        shown = read_pass(self._visitor.home)
        if shown is None:
            raise ValueError(self._refused())
        sign, credentials = self._visitor.sign, self._visitor.credentials
        assert sign is not None, "a machine that uses a server of its fleet has keys"
        assert credentials is not None, "and certificates"
        return login(shown, sign, credentials)

    def _refused(self) -> str:
        """Why there is no pass. Raises: OSError, ValueError."""
        with contextlib.suppress(FileNotFoundError), (self._visitor.home / REFUSED).open("rb") as f:
            return f"this machine has no pass of it: {f.read(_LOGIN_BYTES_MAX).decode()}"
        return "this machine has no pass of it yet: link to it once"


def read_pass(home: Path) -> Pass | None:
    """What the machine that serves gave us; None where it did not. Raises: OSError."""
    try:
        with (home / PASS).open("rb") as file:
            return msgspec.json.decode(file.read(_LOGIN_BYTES_MAX), type=Pass)
    except (FileNotFoundError, msgspec.DecodeError):
        # What is damaged is asked for again.
        return None


class Look(NatsClient):
    """What a server of this machine says of itself."""

    async def linked(self) -> bool:
        """Whether it is linked to another one. Raises: Unreachable."""
        async with self._reached() as client:
            said = await self._answer(
                client.request("$SYS.REQ.SERVER.PING.LEAFZ", timeout=ANSWER_S)
            )
            return bool(json.loads(said.data)["data"].get("leafs"))


def open_look(beside: Beside) -> Look:
    """Of that server."""
    return Look("the NATS server of this computer", "", lambda: _login_beside(beside))


def _login_beside(beside: Beside) -> Login:
    return Login((beside.server,), {"user": beside.user, "password": beside.password})


def login(
    shown: Pass, sign: Callable[[bytes], bytes], credentials: Callable[[], Credentials]
) -> Login:
    """What is shown at a server of the fleet's own, and how the key behind it is proved."""
    options: dict[str, Any] = {
        "user_jwt_cb": lambda: bytearray(shown.jwt.encode("ascii")),
        "signature_cb": lambda nonce: base64.b64encode(sign(nonce.encode())),
    }
    servers = (shown.server, *shown.more)
    if any(each.startswith("tls:") for each in servers):
        # Not a word before it, so that a stranger does not learn what is there.
        options |= {"tls": client_context(credentials()), "tls_handshake_first": True}
    return Login(servers, options)


def open_channel(options: Options, visitor: Visitor) -> NatsPost:
    """The mailbox of one machine at a NATS server; that may be away now, and come back."""
    return NatsPost(options, visitor)
