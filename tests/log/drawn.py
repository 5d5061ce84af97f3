"""Streams, branches and conversations as drawings.

A drawing of branches names a history a line; equal letters at equal places are one entry:

    ours    0 1 2 3 4
    theirs  0 1 a b

A drawing of a conversation has a deed a line and, behind `|`, what studio says because of it:

    build links
    studio 5             | build: studio[0:5]     the entries 0 to 4 of studio's stream
    wait RETRY           | build: studio=5        it is offered, as far as 5
    build holds studio 5                          its receipt came
    build offers build 9 | build: build?0         asked for from 0 on; `build!` is: not now
"""

from tests.log.material import (
    BUILD,
    FLEET_ID,
    SEAL,
    STREAM,
    STUDIO,
    entries,
    entry,
    nodes,
    root,
    stream,
)

from muster.log import segment as segments
from muster.log import sync, tree, wire
from muster.log.entry import Entry
from muster.log.keys import Signer
from muster.log.seal import Cosign, make_seal
from muster.log.segment import Segment
from muster.log.stream import FLEET, MachineId, StreamName, scope_to
from muster.log.sync import NOT_NOW, Sync


def branches(drawing: str) -> dict[str, list[Entry]]:
    """The histories of a drawing, by name."""
    lines = [line.split() for line in drawing.strip().splitlines()]
    return {
        name: [entry(seq, b'{"text":"%s"}' % each.encode()) for seq, each in enumerate(letters)]
        for name, *letters in lines
    }


ATTIC = MachineId(Signer(b"attic".ljust(32)).public.hex())
THEIRS = stream(FLEET, BUILD)
OTHERS = stream(FLEET, ATTIC)
SECRET = stream(scope_to(BUILD))


def head(name, size):
    return wire.Head(str(name), size)


class Held:
    """A replica that holds the first so many entries of its streams."""

    def __init__(self, **sizes: int) -> None:
        self.sizes: dict[StreamName, int] = {}

    def streams(self):
        return list(self.sizes)

    def knows(self, name):
        return name in self.sizes

    def has_place(self, name):
        return name in self.sizes or len(self.sizes) < 100

    def size(self, name):
        return self.sizes.get(name, 0)

    def seal_of(self, name):
        items = entries(self.size(name), name)
        return make_seal(FLEET_ID, name, len(items), root(items), SEAL) if items else None

    latest_seal = seal_of

    def root_at(self, name, size):
        return root(entries(size, name))

    def consistency(self, name, old, new):
        return tree.consistency_proof(nodes(entries(new, name)), old, new)

    def segment(self, name, start, bytes_max, bodies_from):
        items = entries(self.size(name), name)
        if start >= len(items):
            return None
        return Segment(name, start, tuple(items[start:]), self.seal_of(name), ())

    def cosigned(self):
        return ()


class Talk:
    """Studio's sync, and what it said on each link since it was last asked."""

    def __init__(self, **sizes: int) -> None:
        self.held = Held()
        self.now = 0
        self.sync = Sync(STUDIO, self.held, self.may_hold)

    def may_hold(self, name, machine):
        target = name.scope.removeprefix("to.")
        return machine == name.machine or name.scope == FLEET or machine == target

    def said(self, link=1):
        found = [
            segments.decode(out.raw) if out.bulk else wire.decode(out.raw)
            for out in self.sync.outbox
            if out.link == link
        ]
        self.sync.outbox.clear()
        return found

    def greet(self, link=1, peer=BUILD, through=""):
        self.sync.open(link, peer, self.now, through)
        self.offer(link, [], whole=True)
        self.said(link)

    def offer(self, link, heads, *, whole=False):
        return self.sync.on_offer(link, wire.Offer(heads, whole=whole), self.now)

    def grow(self, name=STREAM, size=5):
        self.held.sizes[name] = size
        self.sync.grew(name)
        self.sync.after_commit(self.now)

    def wait(self, ms):
        self.now += ms
        self.sync.tick(self.now)

    def play(self, drawing: str) -> None:
        """Each deed in turn, and what is said because of it: all of that, in this order."""
        for line in drawing.strip().splitlines():
            deed, _, expected = line.partition("|")
            self._do(*deed.split())
            said = self._drawn()
            assert said == expected.split(), line.strip()

    def _do(self, who: str, deed: str, *rest: str) -> None:
        pairs = zip(rest[::2], rest[1::2], strict=False)
        named = [
            (STREAMS[n], NOT_NOW if s == "never" else int(s)) for n, s in pairs if n in STREAMS
        ]
        stream, size = named[0] if named else (STREAMS.get(who, STREAM), 0)
        link, machine = LINKS.get(who, (0, STUDIO))
        match deed:
            case "links":
                self.greet(link, machine, LINKS[rest[1]][1] if rest else "")
            case "leaves":
                self.sync.close(link, self.now)
            case "offers":
                self.offer(link, [head(*each) for each in named])
            case "wants":
                self.sync.on_want(link, wire.Want(str(stream), size), self.now)
            case "holds" | "sees":
                strength = {"holds": "held", "sees": "seen"}[deed]
                self.sync.heard_cosign(
                    link, Cosign(machine, strength, stream, size, b"", 0, b""), self.now
                )
            case "gives":
                self.held.sizes[stream] = size
                self.sync.took(link, stream, size)
            case "repeats":
                self.sync.again(link, STREAMS[rest[0]])
            case _ if who == "wait":
                self.wait(sum(_ms(each) for each in deed.split("+")))
            case _:
                self.grow(stream, int(deed))

    def _drawn(self) -> list[str]:
        """What was said since it was last asked, in the words of a drawing."""
        told: list[str] = []
        for name, (link, _) in LINKS.items():
            said = [out for out in self.sync.outbox if out.link == link]
            words = [word for out in said for word in _words(out)]
            told += [f"{name}:", *words] if words else []
        self.sync.outbox.clear()
        return told


LINKS = {"build": (1, BUILD), "attic": (2, ATTIC)}
STREAMS = {"studio": STREAM, "build": THEIRS, "attic": OTHERS, "secret": SECRET}
WORDS = {str(stream): word for word, stream in STREAMS.items()}


def _ms(text: str) -> int:
    """`3000`, or `RETRY`, which is RETRY_MS, or a little less: `RETRY-1`."""
    name, _, less = text.partition("-")
    return (int(name) if name.isdigit() else getattr(sync, f"{name}_MS")) - int(less or 0)


def _words(out) -> list[str]:
    if out.bulk:
        sent = segments.decode(out.raw)
        return [f"{WORDS[str(sent.stream)]}[{sent.start}:{sent.end}]"]
    said = wire.decode(out.raw)
    if isinstance(said, wire.Want):
        return [f"{WORDS[said.stream]}" + ("!" if said.start == NOT_NOW else f"?{said.start}")]
    return [f"{WORDS[each.stream]}={each.size}" for each in said.heads]
