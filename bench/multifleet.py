"""Ours beside `multifleet`: a thousand messages between two nodes, and what strangers' packets do.

Both have two nodes, each on a host of its own, and one program that says one message after another
as their commands do, while the receiver is there, is killed (`kill -9`) halfway, stays away for a
tenth of the messages and comes back. What was *said to be delivered* is what the sender was told,
what *arrived* is what stands before the receiver's agent in the end.

Then a stranger on the network, who has no key of anybody: a packet of a sender nobody knows, one in
the name of the other node, and one that was heard on the way and is said again. To ours they are
said at the port of a machine: bytes in the clear, TLS with a certificate of another fleet that has
the same names, and all that one machine said to the other when it linked and sent.
"""

import contextlib
import socket
import ssl
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Final, NamedTuple

from tests.e2e.net.fleet import PORT, NetFleet
from tests.e2e.net.stage import ROOT, Net
from tests.e2e.net.talk import inbox

from bench import multifleet_peer
from bench.figure import Figure
from muster.fleet import certificate

MESSAGES, SHORT = 1_000, 100
# So many parts of a hundred are said while the receiver is away.
AWAY: Final = 10
# A message that has not come after this is lost: nothing is on its way any more.
QUIET_S: Final = 20.0
UNKNOWN, FORGED, REPLAYED = 9_001, 9_002, 9_003
ATTACKS: Final = "unsigned, forged, replayed"


class Wire:
    """Carries what comes to its port on to a machine, and writes down what was said to it."""

    def __init__(self, net: Net, host: str, port: int, to: tuple[str, int]) -> None:
        self._net, self._host, self._to = net, host, to
        self.heard: list[bytearray] = []
        self._door = net.socket(host)
        self._door.bind((net.address(host), port))
        self._door.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = self._door.accept()
                other = self._net.socket(self._host)
                other.connect(self._to)
                self.heard.append(said := bytearray())
                for source, target, kept in ((one, other, said), (other, one, bytearray())):
                    words = (source, target, kept)
                    threading.Thread(target=_carry, args=words, daemon=True).start()

    def close(self) -> None:
        self._door.close()


def _carry(source: socket.socket, target: socket.socket, kept: bytearray) -> None:
    with contextlib.suppress(OSError):
        while part := source.recv(65_536):
            kept += part
            target.sendall(part)
        target.shutdown(socket.SHUT_WR)


class Theirs:
    """Two of `multifleet`."""

    name = "multifleet"

    def __init__(self, fleet: multifleet_peer.MultiFleet) -> None:
        self._fleet = fleet
        self.came, self.kill, self.start = fleet.b.came, fleet.b.kill, fleet.b.start

    def say(self, number: int) -> bool:
        return self._fleet.a.say("b", number)

    def attack(self) -> list[int]:
        """How many of each packet were believed."""
        heard = self._fleet.overhear("b", lambda: self.say(REPLAYED))
        unknown = multifleet_peer.packet("b", UNKNOWN, id="x1", **{"from": "nobody"})
        forged = multifleet_peer.packet("b", FORGED, id="x2", **{"from": "a"})
        self._fleet.stranger_says([unknown, forged, heard], "b")
        time.sleep(5)
        came = self.came()
        return [came[UNKNOWN], came[FORGED], came[REPLAYED] - 1]


class Ours:
    """Two daemons; `a` dials `b`."""

    name = "muster"

    def __init__(self, fleet: NetFleet) -> None:
        self._net, self._fleet = fleet.net, fleet
        self._a, self._b = fleet["a"], fleet["b"]
        self.kill = self._b.kill

    def start(self) -> None:
        self._b.start()

    def say(self, number: int) -> bool:
        args = {"text": [f"<{number}>"], "to": "b", "wait": self._b.alive}
        answer = self._a.order("send", "b", args)
        return bool(answer["state"] == "stored")

    def came(self) -> Counter[int]:
        return Counter(int(text[1:-1]) for text in inbox(self._b))

    def attack(self, wire: Wire) -> list[int]:
        """How many messages there are more after each."""
        self.say(REPLAYED)
        found, before = [], sum(self.came().values())
        for do in (self._in_the_clear, self._of_another_fleet, lambda: self._again(wire)):
            do()
            time.sleep(5)
            after = sum(self.came().values())
            found.append(after - before)
            before = after
        return found

    def _says(self, raw: bytes, context: ssl.SSLContext | None = None) -> None:
        with contextlib.suppress(OSError), self._net.socket("stranger", timeout_s=5) as plain:
            plain.connect((self._net.address("b"), PORT))
            door = context.wrap_socket(plain) if context else plain
            door.sendall(raw)
            while door.recv(65_536):
                pass

    def _in_the_clear(self) -> None:
        self._says(multifleet_peer.packet("b", UNKNOWN, id="x1", **{"from": "nobody"}))

    def _of_another_fleet(self) -> None:
        with NetFleet(self._net, ["a", "b"]) as other:
            home = other["a"].home
            facts, folder = home.facts(), Path(other.root)
            pems = (facts["certificate"].encode(), facts["ca"].encode())
            chain = certificate.CertificateChain(*pems)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            files = certificate.tls_files(other["a"].identity, chain)
            for name, raw in zip(("cert", "key"), files, strict=False):
                (folder / name).write_bytes(raw)
            context.load_cert_chain(folder / "cert", folder / "key")
            self._says(multifleet_peer.packet("b", FORGED, id="x2", **{"from": "a"}), context)

    def _again(self, wire: Wire) -> None:
        for said in list(wire.heard):
            self._says(bytes(said))


class Outcome(NamedTuple):
    """What became of the messages of one scene."""

    said: int
    arrived: int
    doubled: int
    false: int
    seconds: float

    def line(self, name: str) -> str:
        return (
            f"{name}: {self.said} said to be delivered, {self.arrived} arrived, {self.false} of "
            f"those said never did, {self.doubled} twice, {self.seconds:.1f} s"
        )


def talk(two: Theirs | Ours, count: int, *, killed: bool) -> Outcome:
    """Say so many messages, one after another; with `killed` the receiver dies halfway."""
    said = set()
    began_s = time.monotonic()
    for number in range(count):
        if killed and number == count // 2:
            two.kill()
        if killed and number == count // 2 + count * AWAY // 100:
            two.start()
        if two.say(number):
            said.add(number)
    came, last_s = two.came(), time.monotonic()
    while len(came) < count and time.monotonic() - last_s < QUIET_S:
        time.sleep(0.2)
        now = two.came()
        if now != came:
            came, last_s = now, time.monotonic()
    doubled = sum(times - 1 for times in came.values())
    return Outcome(len(said), len(came), doubled, len(said - set(came)), last_s - began_s)


def _ours(count: int, *, killed: bool) -> Outcome:
    with Net("a", "b") as net, NetFleet(net, ["a", "b"], dials={"a": ["b"]}) as fleet:
        return talk(Ours(fleet.start()), count, killed=killed)


def _attacked() -> list[int]:
    with Net("a", "b", "stranger") as net, NetFleet(net, ["a", "b"], dials={"a": ["b"]}) as fleet:
        wire = Wire(net, "stranger", PORT, (net.address("b"), PORT))
        net.between("a", "b").cut()
        fleet["a"].edit_facts(dial={fleet["b"].id: f"{net.address('stranger')}:{PORT}"})
        try:
            return Ours(fleet.start()).attack(wire)
        finally:
            wire.close()


def _theirs(count: int, *, killed: bool) -> tuple[Outcome, list[int]]:
    home = tempfile.TemporaryDirectory(dir=ROOT / ".cache")
    with home as folder, multifleet_peer.MultiFleet(Path(folder)) as fleet:
        two = Theirs(fleet)
        return talk(two, count, killed=killed), [] if killed else two.attack()


async def run(*, short: bool) -> list[Figure]:
    if reason := multifleet_peer.missing():
        print(f"multifleet is not measured: {reason}")
        return []
    count = SHORT if short else MESSAGES
    whole, died = _ours(count, killed=False), _ours(count, killed=True)
    their_whole, their_attacks = _theirs(count, killed=False)
    their_died, _ = _theirs(count, killed=True)
    attacks = _attacked()
    what = f"{count:,} messages"
    return [
        Figure(f"{what} between two nodes: lost or twice", count - whole.arrived + whole.doubled, 0,
               whole.line("ours") + "; " + their_whole.line("theirs"), unit="msg"),
        Figure("… receiver killed and back: lost or twice", count - died.arrived + died.doubled, 0,
               died.line("ours") + "; " + their_died.line("theirs"), unit="msg"),
        Figure("… said to be delivered and never came", died.false, 0,
               f"theirs {their_died.false}", unit="msg"),
        Figure("a stranger's packets that are believed", sum(attacks), 0,
               f"{ATTACKS}: ours {attacks}, theirs {their_attacks}", unit="pkt"),
    ]  # fmt: skip
