"""A few machines, streams and entries that every test of the log starts from."""

from muster.log import seal
from muster.log.clock import Stamp
from muster.log.entry import Entry, compose
from muster.log.keys import Signer
from muster.log.stream import FLEET, FleetId, Incarnation, MachineId, Scope, StreamName
from muster.log.tree import Range, node_hash

FLEET_ID = FleetId(Signer(b"authority".ljust(32)).public.hex())
OTHER_FLEET = FleetId(Signer(b"other authority".ljust(32)).public.hex())
SEAL = Signer(b"studio seal".ljust(32))
SEEN = Signer(b"build seen".ljust(32))
HELD = Signer(b"build held".ljust(32))
STUDIO = MachineId(Signer(b"studio".ljust(32)).public.hex())
BUILD = MachineId(Signer(b"build".ljust(32)).public.hex())
STREAM = StreamName(STUDIO, Incarnation("0123456789abcdef" * 2), FLEET)
SALT = bytes(range(16))
T = Stamp(1790000000000, 0)


def stream(scope: Scope = FLEET, machine: MachineId = STUDIO) -> StreamName:
    return StreamName(machine, STREAM.incarnation, scope)


def entry(seq: int = 0, body: bytes = b'{"text":"hello"}', name: StreamName = STREAM) -> Entry:
    return compose(name, seq, Stamp(T.ms + seq, 0), "message.send", "claude@studio", [], body, SALT)


def entries(count: int, name: StreamName = STREAM) -> list[Entry]:
    return [entry(seq, b'{"n":%d}' % seq, name) for seq in range(count)]


def root(items: list[Entry]) -> bytes:
    tree = Range()
    for item in items:
        tree.append(item.id)
    return tree.root()


class Nodes:
    """Every subtree hash of a small tree."""

    def __init__(self) -> None:
        self._levels: list[list[bytes]] = [[]]

    @property
    def size(self) -> int:
        return len(self._levels[0])

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash and every subtree that it completes."""
        level = 0
        self._levels[0].append(leaf)
        while len(self._levels[level]) % 2 == 0:
            left, right = self._levels[level][-2:]
            level += 1
            if level == len(self._levels):
                self._levels.append([])
            self._levels[level].append(node_hash(left, right))

    def subtree(self, level: int, index: int) -> bytes:
        return self._levels[level][index]


def nodes(items: list[Entry]) -> Nodes:
    tree = Nodes()
    for item in items:
        tree.append(item.id)
    return tree


def sealed(items: list[Entry]) -> seal.Seal:
    return seal.make_seal(FLEET_ID, STREAM, len(items), root(items), SEAL)
