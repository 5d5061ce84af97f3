"""What two machines tell each other from time to time: "connected" is not "replicating".

Rule 1: they compare one sum over every stream that both may hold, each with its size and root.
Equal sums end it, for both: of two machines the one with the smaller name tells its own, the other
one does where it heard no equal one for longer than a refresh takes.
Rule 2: where sums differ the sums of sixteen parts are told, then those of their parts, until a
part is small: of that one each tells the other its heads, and all else goes on as when they are
told at any time. A stream belongs to a part by the first digits of the SHA-256 of its name.
Rule 3: one word costs a bounded answer, and in one refresh a peer gets so many heads and no more.
Rule 4: what one of the two may not hold is in no sum: it is shown seals (witnesses.py), and of
its own streams, as far as they are only witnessed here, what it has not shown itself.
Rule 5: with a peer that does not know the word (feature `roots`) some heads are told in turn.
"""

from collections.abc import Callable, Iterable
from hashlib import sha256
from itertools import islice
from typing import Final, NamedTuple, Protocol

from muster.errors import Malformed
from muster.limits import OFFER_HEADS_MAX
from muster.log import wire
from muster.log.paths import Paths
from muster.log.session import Replica, Session
from muster.log.stream import MachineId, StreamName
from muster.log.witnesses import Witnesses

# "Connected" is not "replicating": all is compared anew this often.
REFRESH_MS: Final = 60_000
# So many streams that grew untold are told at each refresh, and so many of the others, in turn.
REFRESH_MAX: Final = 32
REFRESH_TURN: Final = 8
# A peer's own streams that are only witnessed here are in no sum: one is told in so many refreshes.
WITNESSED_TURN: Final = 8
# A part of so few streams is told head by head, and one of this depth, whatever is in it.
FEW: Final = 8
DEPTH_MAX: Final = 4
PARTS: Final = "0123456789abcdef"
# So many parts that differ are looked into between two refreshes, and heads of them told: the rest
# is found at the next.
LOOKED_INTO_MAX: Final = 1024
_SUM_CHARS: Final = 64


class _Leaf(NamedTuple):
    """A stream in a sum: its place, what counts of it, and which stream it is."""

    place: str
    digest: bytes
    stream: StreamName


def sum_of(leaves: Iterable[_Leaf]) -> str:
    """The sum over streams in the order of their places; "" over none."""
    digests = [leaf.digest for leaf in leaves]
    return sha256(b"".join(digests)).hexdigest() if digests else ""


class Speaker(Protocol):
    """What is asked of sync.py."""

    machine: MachineId
    replica: Replica
    paths: Paths
    witnesses: Witnesses
    may_hold: Callable[[StreamName, MachineId], bool]

    def _heard(self, link: int, now_ms: int) -> Session | None: ...
    def _is_told(self, session: Session, stream: StreamName) -> bool: ...
    def _send(self, link: int, message: wire.Message) -> None: ...
    def _send_heads(self, session: Session, streams: list[StreamName]) -> None: ...


class Refresh:
    """The comparing of one machine with all its peers."""

    def __init__(self, sync: Speaker) -> None:
        self._sync = sync
        # The place of each stream, and what counts of it at a size: forgotten when it changes.
        self._leaves: dict[StreamName, tuple[int, _Leaf]] = {}

    def changed(self, stream: StreamName) -> None:
        """What is here of a stream is not what it was."""
        self._leaves.pop(stream, None)

    def due(self, session: Session, now_ms: int) -> None:
        """Tell a peer what it may not know, for nothing else may have told it."""
        session.looked_into = 0
        if not session.compares:
            self._tell_in_turn(session, now_ms)
            return
        self._tell_unshared(session, now_ms)
        first = self._sync.machine < session.peer
        rest_ms = REFRESH_MS * 3 // 4 if first else REFRESH_MS * 5 // 4
        compared_ms = session.compared_ms
        if compared_ms is None or now_ms - compared_ms >= rest_ms:
            self._sync._send(session.link, wire.Roots("", [sum_of(self._shared(session))]))

    def _tell_in_turn(self, session: Session, now_ms: int) -> None:
        sync = self._sync
        streams = list(sync.replica.streams())
        turn = {
            streams[(session.turn + i) % len(streams)]: None
            for i in range(min(len(streams), REFRESH_TURN))
        }
        session.turn += len(turn)
        lanes, size = session.lanes, sync.replica.size
        untold = (s for s in streams if s in lanes and lanes[s].shown < size(s))
        heads = []
        for stream in {**turn, **dict.fromkeys(islice(untold, REFRESH_MAX))}:
            if stream.machine != session.peer and not sync.may_hold(stream, session.peer):
                sync.witnesses.show(session, stream, now_ms)
            elif sync._is_told(session, stream):
                heads.append(stream)
        sync._send_heads(session, heads)

    def _tell_unshared(self, session: Session, now_ms: int) -> None:
        """Rule 4."""
        sync, heads, shown = self._sync, list[StreamName](), 0
        witnessed = list[StreamName]()
        for stream in sync.replica.streams():
            if stream.machine == session.peer:
                if sync.may_hold(stream, sync.machine):
                    continue
                witnessed.append(stream)
                seal = sync.replica.latest_seal(stream)
                if seal is not None and seal.size > session.showed.get(stream, 0):
                    heads.append(stream)
            elif shown < REFRESH_MAX and not sync.may_hold(stream, session.peer):
                lane = session.lanes.get(stream)
                before = 0 if lane is None else lane.shown
                if before < sync.replica.size(stream):
                    sync.witnesses.show(session, stream, now_ms)
                    shown += session.lane(stream).shown != before
        session.turn += 1
        if witnessed and session.turn % WITNESSED_TURN == 0:
            heads.append(witnessed[session.turn // WITNESSED_TURN % len(witnessed)])
        told = list(dict.fromkeys(heads[-REFRESH_MAX:]))
        for stream in told:
            self.has_shown(session, stream)
        sync._send_heads(session, told)

    def has_shown(self, session: Session, stream: StreamName) -> None:
        """The peer was told of its own stream, or told us: only news are told it again."""
        seal = self._sync.replica.latest_seal(stream)
        if seal is not None:
            session.showed[stream] = seal.size

    # --- sums --------------------------------------------------------------------------

    def _shared(self, session: Session, part: str = "") -> list[_Leaf]:
        """What both may hold, and is here, in the order of places."""
        sync, found = self._sync, list[_Leaf]()
        me, peer, size_of = sync.machine, session.peer, sync.replica.size
        for stream in sync.replica.streams():
            size = size_of(stream)
            if not size or not sync.may_hold(stream, peer) or not sync.may_hold(stream, me):
                continue
            known = self._leaves.get(stream)
            if known is None or known[0] != size:
                known = self._leaves[stream] = size, self._leaf(stream, size)
            if known[1].place.startswith(part):
                found.append(known[1])
        found.sort()
        return found

    def _leaf(self, stream: StreamName, size: int) -> _Leaf:
        name = str(stream).encode()
        root = self._sync.replica.root_at(stream, size)
        place = sha256(name).hexdigest()
        return _Leaf(place, sha256(b"%s %d %s" % (name, size, root)).digest(), stream)

    def on_roots(self, link: int, roots: wire.Roots, now_ms: int) -> None:
        """The peer's sums of a part: whole, or of its parts. Raises: Malformed."""
        _check_part(roots.part)
        for each in roots.sums:
            if each and (len(each) != _SUM_CHARS or each.strip(PARTS)):
                raise Malformed("the sum of a part is 64 hex digits, or nothing")
        match len(roots.sums):
            case 1:
                parts = [roots.part]
            case 16 if len(roots.part) < DEPTH_MAX:
                parts = [roots.part + each for each in PARTS]
            case _:
                raise Malformed("a part has one sum, or sixteen of the parts below it")
        session = self._sync._heard(link, now_ms)
        # Before it told all, and over a path that is new, everything is told anyway.
        if session is None or not session.greeted or link in session.fresh:
            return
        ours = self._shared(session, roots.part)
        differ = []
        for part, theirs in zip(parts, roots.sums, strict=True):
            below = [leaf for leaf in ours if leaf.place.startswith(part)]
            if sum_of(below) != theirs:
                differ.append((part, below))
        if not differ and not roots.part and len(parts) == 1:
            session.compared_ms = now_ms
        small: list[str] = []
        heads: list[_Leaf] = []
        for part, below in differ:
            if session.looked_into >= LOOKED_INTO_MAX:
                break
            session.looked_into += 1
            if len(below) <= FEW or len(part) == DEPTH_MAX:
                small.append(part)
                heads += below
            else:
                sums = [sum_of(x for x in below if x.place[len(part)] == each) for each in PARTS]
                self._sync._send(session.link, wire.Roots(part, sums))
        self._tell(session, heads)
        if small:
            self._sync._send(session.link, wire.Differ(small))

    def on_differ(self, link: int, differ: wire.Differ, now_ms: int) -> None:
        """The peer told its heads of these parts, and asks for ours. Raises: Malformed."""
        if len(differ.parts) > len(PARTS):
            raise Malformed(f"{len(differ.parts)} parts in one question, more than a part has")
        for part in differ.parts:
            _check_part(part)
        session = self._sync._heard(link, now_ms)
        if session is None or not session.greeted or session.looked_into >= LOOKED_INTO_MAX:
            return
        session.looked_into += len(differ.parts)
        under = tuple(differ.parts)
        self._tell(session, [x for x in self._shared(session) if x.place.startswith(under)])

    def _tell(self, session: Session, leaves: list[_Leaf]) -> None:
        """Heads of what differs. Of more than fit, others come at the next refresh."""
        if len(leaves) > OFFER_HEADS_MAX:
            at = session.turn * OFFER_HEADS_MAX % len(leaves)
            leaves = [*leaves, *leaves][at : at + OFFER_HEADS_MAX]
        told = [x.stream for x in leaves if self._sync._is_told(session, x.stream)]
        session.looked_into += len(told)
        self._sync._send_heads(session, told)


def _check_part(part: str) -> None:
    if len(part) > DEPTH_MAX or part.strip(PARTS):
        raise Malformed("a part is named by up to four hex digits")
