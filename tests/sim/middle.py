"""A hostile middle: what goes between some machines passes through hands that do with it as they like.

It withholds streams from whom it likes, turns bits, says other sizes, puts other entries under a
genuine seal or under one of its own key, other words into genuine entries, says again what was said long ago, lets what came later
overtake, and tells one machine of a stream what it tells no other.

Rule 1: it is between some machines, and until the world heals: an honest way exists then.
Rule 2: it touches what is said of streams (offers and segments), which proves itself. The TLS of a
link (channel/tunnel.py) lies below these frames, so hands on a wire can do less: withhold, and end
the link. A member that others' streams pass through can do all of it.
Rule 3: a relay is such a member: the links of all others go through it (`Faults.relay`). It cannot
read them, but what it may hold is its to pass on; it does all that to its own words of streams.
"""

import random
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from muster.channel import frame as frames
from muster.channel.frame import Type
from muster.errors import MusterError
from muster.log import segment as segments
from muster.log import wire as messages
from muster.log.clock import Stamp
from muster.log.entry import Entry, compose
from muster.log.seal import make_seal, peek_stream
from muster.log.segment import Segment
from muster.log.stream import StreamName
from muster.log.sync import NOT_NOW, TELL_AGAIN
from muster.log.tree import Range
from tests.sim.machine import WALL_MS, identity_of

if TYPE_CHECKING:
    from tests.sim.machine import Machine
    from tests.sim.network import Wire
    from tests.sim.world import World

Said = Segment | messages.Message
Done = Callable[["Machine", "Machine", Said], list[Said | bytes]]

DEEDS: Final = (
    "withhold", "flip", "lie", "alter", "reword", "forge", "swap", "replay", "overtake", "equivocate",
)  # fmt: skip
# How large a share of the pairs of machines it is between.
SHARE: Final = 0.7
SPANS_MS: Final = (500, 2_000, 10_000)
KEPT_MAX: Final = 200


class Middle:
    """See the top of this file; `faults.middle` is how often it does something to a frame."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.rng = random.Random(f"middle/{world.seed}")
        self._identity = identity_of(world.seed, "middle")
        # A machine that is the middle of the links of all others.
        self.relay: Machine | None = None
        # Whether it passes on nothing that others wrote, from now on.
        self.withholds = False
        self._between: dict[frozenset[str], bool] = {}
        # Until when it withholds a stream from a machine, and tells that one another tale of it.
        self._withheld: dict[tuple[str, str], int] = {}
        self._two_faced: dict[tuple[str, str], int] = {}
        # What it heard, to say it again; and the heads of each stream as its writer showed them.
        self._kept: list[bytes] = []
        self._heads: dict[str, list[messages.Head]] = defaultdict(list)
        self._deeds: dict[str, Done] = {
            name: getattr(self, "_" + name) for name in DEEDS if name != "overtake"
        }

    def begin(self) -> None:
        """The world has its machines: one of them is the relay, where its faults say so."""
        if self.world.faults.relay:
            self.relay = self.world.founders[-1]
            self.relay.hostile = True

    def middle_of(self, one: "Machine", other: "Machine") -> "Machine | None":
        """The machine through which two others have their links."""
        return None if self.world.healed or self.relay in {one, other} else self.relay

    def is_between(self, one: "Machine", other: "Machine") -> bool:
        """Whether it has the links of two machines in its hands."""
        if not self.world.faults.middle or self.relay is not None:
            # What goes through a relay is sealed: it can tell of streams what it likes as a member.
            return self.relay in {one, other}
        pair = frozenset((one.place, other.place))
        if pair not in self._between:
            draw = random.Random(f"between/{self.world.seed}/{'/'.join(sorted(pair))}").random()
            self._between[pair] = draw < SHARE
        return self._between[pair]

    def passes_on(self, wire: "Wire", sender: "Machine", frame: bytes) -> list[bytes]:
        """The frames that go on, at once, where one was sent."""
        world, to = self.world, wire.other(sender)
        if world.healed or not self.is_between(sender, to):
            return [frame]
        if self.relay not in {None, sender}:
            return [frame]
        said = _read(frame)
        if said is None:
            return [frame]
        self._note(frame, said)
        left = self._tale(sender, to, said)
        if left is None:
            return []
        if self.rng.random() >= world.faults.middle:
            return [_bytes(left)]
        what = self.rng.choice(world.faults.middle_does or DEEDS)
        if what == "overtake":
            self._reached(what)
            late, delay_ms = _bytes(left), self.rng.choice((100, 1_000, 4_000))
            world.later(delay_ms, lambda: world.network.carry(wire, sender, late))
            return []
        done = self._deeds[what](sender, to, left)
        if done != [left]:
            self._reached(what)
        return [_bytes(each) for each in done]

    def _reached(self, what: str) -> None:
        self.world.reached["middle-" + what] += 1
        self.world.trace("middle", what)

    def _note(self, frame: bytes, said: Said) -> None:
        self._kept = [*self._kept[-KEPT_MAX:], frame]
        if isinstance(said, messages.Offer):
            for head in said.heads:
                heads = self._heads[head.stream]
                if head.seal and (not heads or heads[-1].size < head.size):
                    heads.append(head)

    def _tale(self, sender: "Machine", to: "Machine", said: Said) -> Said | None:
        """What is told to this machine at present, None where nothing is."""
        now_ms, names = self.world.ms, _streams(said)
        gone = {n for n in names if self._withheld.get((to.place, n), 0) > now_ms}
        if self.withholds:
            gone |= {name for name in names if not name.startswith(sender.id)}
        left = _without(said, gone) if gone else said
        twisted = {n for n in names if self._two_faced.get((to.place, n), 0) > now_ms}
        if left is None or not twisted:
            return left
        if isinstance(left, Segment):
            return self._resealed(sender, left)
        if isinstance(left, messages.Offer):
            # Genuine, and long over.
            heads = [
                self._heads[h.stream][0] if h.stream in twisted and self._heads[h.stream] else h
                for h in left.heads
            ]
            return msgspec.structs.replace(left, heads=heads)
        return left

    # --- what it does ------------------------------------------------------------------------

    def _withhold(self, _sender: "Machine", to: "Machine", said: Said) -> list[Said | bytes]:
        """Nothing of one stream comes to this machine for a while."""
        names = _streams(said)
        if not names:
            return []
        name = self.rng.choice(names)
        self._withheld[to.place, name] = self.world.ms + self.rng.choice(SPANS_MS)
        left = _without(said, {name})
        return [] if left is None else [left]

    def _equivocate(self, sender: "Machine", to: "Machine", said: Said) -> list[Said | bytes]:
        """This machine, and no other, hears another tale of one stream for a while."""
        names = _streams(said)
        if not names:
            return [said]
        name = self.rng.choice(names)
        self._two_faced[to.place, name] = self.world.ms + self.rng.choice(SPANS_MS)
        tale = self._tale(sender, to, said)
        return [] if tale is None else [tale]

    def _flip(self, _sender: "Machine", _to: "Machine", said: Said) -> list[Said | bytes]:
        """A bit is turned, anywhere behind the frame's head."""
        frame = bytearray(_bytes(said))
        frame[self.rng.randrange(6, len(frame))] ^= 1 << self.rng.randrange(8)
        return [bytes(frame)]

    def _lie(self, _sender: "Machine", _to: "Machine", said: Said) -> list[Said | bytes]:
        """Sizes and questions that are nobody's."""
        rng = self.rng
        number = lambda n: rng.choice((0, n - 1, n + 1, n + 1_000, NOT_NOW, TELL_AGAIN))  # noqa: E731
        change: Any = msgspec.structs.replace
        match said:
            case messages.Offer():
                heads = [
                    change(h, size=number(h.size)) if rng.random() < 0.5 else h for h in said.heads
                ]
                whole = rng.random() < 0.2
                return [change(said, heads=heads, whole=not said.whole if whole else said.whole)]
            case messages.Want():
                return [change(said, start=number(said.start))]
            case messages.Witnessed() | messages.Probe() | messages.Root():
                return [change(said, size=number(said.size))]
            case messages.Prove() | messages.Leaf():
                return [change(said, index=number(said.index))]
        return [said]

    def _alter(self, _sender: "Machine", _to: "Machine", said: Said) -> list[Said | bytes]:
        """Another entry under the genuine seal."""
        if not isinstance(said, Segment) or not said.entries:
            return [said]
        fake = self._fake(said.entries[-1])
        return [Segment(said.stream, said.start, (*said.entries[:-1], fake), said.seal, said.proof)]

    def _reword(self, _sender: "Machine", _to: "Machine", said: Said) -> list[Said | bytes]:
        """A genuine entry says something else."""
        if not isinstance(said, Segment) or not said.entries or not said.entries[-1].body:
            return [said]
        real = said.entries[-1]
        body = b'{"text":"fake"}'.ljust(len(real.body or b""))
        fake = Entry(real.raw, real.header, real.id, real.salt, body)
        return [Segment(said.stream, said.start, (*said.entries[:-1], fake), said.seal, said.proof)]

    def _forge(self, sender: "Machine", _to: "Machine", said: Said) -> list[Said | bytes]:
        """Another entry, or another head, under a seal by a key that is not the writer's."""
        if isinstance(said, Segment):
            return [self._resealed(sender, said)]
        if isinstance(said, messages.Offer) and said.heads:
            at = self.rng.randrange(len(said.heads))
            stream, size = StreamName.parse(said.heads[at].stream), said.heads[at].size + 1
            head = messages.Head(
                str(stream), size, self._seal(stream, size, self.rng.randbytes(32))
            )
            return [msgspec.structs.replace(said, heads=[*said.heads[:at], head])]
        return [said]

    def _swap(self, _sender: "Machine", _to: "Machine", said: Said) -> list[Said | bytes]:
        """A genuine seal in the place of another one: an older one, or of another stream."""
        known = [head for heads in self._heads.values() for head in heads]
        if not known:
            return [said]
        other = self.rng.choice(known)
        if isinstance(said, Segment):
            return [Segment(said.stream, said.start, said.entries, other.seal.encode(), said.proof)]
        if isinstance(said, messages.Offer) and said.heads:
            heads = [msgspec.structs.replace(h, seal=other.seal) for h in said.heads]
            return [msgspec.structs.replace(said, heads=heads)]
        return [said]

    def _replay(self, _sender: "Machine", _to: "Machine", said: Said) -> list[Said | bytes]:
        """What was said before, to anybody."""
        return [said, self.rng.choice(self._kept)]

    # --- tools -----------------------------------------------------------------------------

    def _fake(self, real: Entry) -> Entry:
        """Another entry at the place of this one; the same for all who are told of it."""
        stream, seq = StreamName.parse(real.header.stream), real.header.seq
        salt = random.Random(f"fake/{self.world.seed}/{stream}/{seq}").randbytes(16)
        stamp = Stamp(WALL_MS + seq, 7)
        return compose(stream, seq, stamp, "note.fake", "muster", (), b'{"text":"fake"}', salt)

    def _resealed(self, sender: "Machine", said: Segment) -> Segment:
        """Its last entry is another one, and all up to there under a seal of our own key."""
        core, last = sender.core, said.end - 1
        if core is None or not said.entries or core.log.size(said.stream) < last:
            return said
        tree, at = Range(), 0
        while at < last:
            for entry in core.log.slice(said.stream, at)[: last - at]:
                tree.append(entry.id)
                at += 1
        fake = self._fake(said.entries[-1])
        tree.append(fake.id)
        note = self._seal(said.stream, said.end, tree.root()).encode()
        return Segment(said.stream, said.start, (*said.entries[:-1], fake), note)

    def _seal(self, stream: StreamName, size: int, root: bytes) -> str:
        signer = self._identity.signer("seal")
        return make_seal(self.world.fleet, stream, size, root, signer).note.decode()


def _read(frame: bytes) -> Said | None:
    """What a frame says of streams; None for all else, and for what makes no sense."""
    found = frames.decode(frame)
    try:
        if found.type is Type.SEGMENT:
            return segments.decode(found.payload)
        if found.type is Type.OFFER:
            return messages.decode(found.payload)
    except MusterError:
        return None
    return None


def _bytes(said: Said | bytes) -> bytes:
    if isinstance(said, bytes):
        return said
    if isinstance(said, Segment):
        return frames.encode(Type.SEGMENT, 0, segments.encode(said))
    return frames.encode(Type.OFFER, 0, messages.encode(said))


def _streams(said: Said) -> list[str]:
    """The streams that it is about, in their order."""
    match said:
        case messages.Offer():
            return list(dict.fromkeys(head.stream for head in said.heads))
        case messages.Cosigns():
            return list(dict.fromkeys(_of(note) for note in said.notes))
        case messages.Roots() | messages.Differ():
            return []
    return [str(said.stream)]


def _of(note: str) -> str:
    try:
        return str(peek_stream(note.encode()))
    except MusterError:
        return ""


def _without(said: Said, names: set[str]) -> Said | None:
    """What is left of it without these streams."""
    match said:
        case messages.Offer():
            left = [head for head in said.heads if head.stream not in names]
            return msgspec.structs.replace(said, heads=left)
        case messages.Cosigns():
            notes = [note for note in said.notes if _of(note) not in names]
            return messages.Cosigns(notes) if notes else None
        case messages.Roots() | messages.Differ():
            return said
    return None
