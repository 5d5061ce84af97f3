"""A hostile place: it withholds parcels, changes them, makes some up, and tells each something else.

`Faults.place` is how often it does something, with each parcel that is left and each look at what
lies there. When the world heals it gives all that it ever held back, and does what it is told; a
crooked one (`Faults.crooked`) never does, and then all goes over another way.
"""

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from tests.sim.places import Place

if TYPE_CHECKING:
    from tests.sim.machine import Machine
    from tests.sim.world import World

KEPT_MAX: Final = 200
HELD_MS: Final = (2_000, 8_000, 1_000_000)
# What may be done to a parcel that is left there, and to a machine that looks.
MISDEEDS: Final = (
    "withhold", "hold", "mutate", "cut", "rewrite", "sign", "splice", "double", "replay", "astray",
    "away",
)  # fmt: skip
LOOKS: Final = ("some", "old", "foreign", "nothing")
_NUMBERS: Final = re.compile(rb'"(number|heard_number|sent_ms)":([0-9]+)')
_NAMES: Final = re.compile(rb'"(life|heard_life|machine|to)":"([0-9a-f]+)"')


class Shelf(Place):
    """See the top of this file."""

    name = "place"

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        # By receiver and the parcel's name there: from when on it is shown, and the parcel.
        self._lying: dict[str, dict[str, tuple[int, bytes]]] = {}
        # Some of what was ever left here, and for whom; and what was dealt with long ago.
        self._kept: list[tuple[str, bytes]] = []
        self._old: dict[str, list[bytes]] = {}
        self._number = 0
        self._misdeeds: dict[str, Callable[[str, bytes], None]] = {
            name: getattr(self, "_" + name) for name in MISDEEDS
        }

    @property
    def honest(self) -> bool:
        return self.world.healed and not self.world.faults.crooked

    def _does(self) -> bool:
        return not self.honest and self.rng.random() < self.world.faults.place

    # --- what is left ------------------------------------------------------------------------

    def keep(self, peer: str, raw: bytes) -> None:
        if self._does():
            what = self.rng.choice(MISDEEDS)
            self.did(what)
            self._misdeeds[what](peer, raw)
        else:
            self._lie(peer, raw)
        self._kept = [*self._kept[-KEPT_MAX:], (peer, raw)]
        if self.world.faults.loses and not self.honest:
            self._lose()

    def _lie(self, peer: str, raw: bytes, after_ms: int = 0) -> None:
        self._number += 1
        lying = self._lying.setdefault(peer, {})
        lying[str(self._number)] = self.world.ms + after_ms, raw

    def _lose(self) -> None:
        """What lies here is gone, and nobody is told."""
        if self.rng.random() >= self.world.faults.loses:
            return
        what = self.rng.choice(("tail", "middle", "all"))
        self.did("loses-" + what)
        for lying in self._lying.values():
            for name in lost(sorted(lying, key=int), what):
                del lying[name]

    def _withhold(self, peer: str, raw: bytes) -> None:
        """It says that it lies there."""

    def _hold(self, peer: str, raw: bytes) -> None:
        self._lie(peer, raw, self.rng.choice(HELD_MS))

    def _mutate(self, peer: str, raw: bytes) -> None:
        at = self.rng.randrange(len(raw))
        self._lie(peer, raw[:at] + bytes([raw[at] ^ 1 << self.rng.randrange(8)]) + raw[at + 1 :])

    def _cut(self, peer: str, raw: bytes) -> None:
        size = self.rng.randrange(len(raw))
        self._lie(peer, raw[:size] if self.rng.random() < 0.7 else raw + raw[size:])

    def _rewrite(self, peer: str, raw: bytes) -> None:
        """Its head says something else, in the same form and under the same signature."""
        head, *rest = raw.split(b"\n", 2)
        number = re.compile(rb'"number":[0-9]+')
        document = self._other_document(rest[0])
        if self.rng.random() < 0.3:
            # Whoever believed it would take nothing that this process says after it for new.
            document = number.sub(b'"number":%d' % (1 << 40), rest[0], count=1)
        self._lie(peer, b"\n".join((head, document, rest[1])))

    def _other_document(self, document: bytes) -> bytes:
        found = [*_NUMBERS.finditer(document), *_NAMES.finditer(document)]
        field = self.rng.choice(found)
        key, value = field.group(1), field.group(2)
        if value.isdigit() and key in {b"number", b"heard_number", b"sent_ms"}:
            other = b'"%s":%d' % (key, int(value) + self.rng.randint(1, 100))
        else:
            others = [m.id.encode() for m in self.world.machines.values()]
            other = self.rng.choice(others) if len(value) == 64 else self._other_life(value)
            other = b'"%s":"%s"' % (key, other)
        return document[: field.start()] + other + document[field.end() :]

    def _other_life(self, life: bytes) -> bytes:
        lives = [raw.partition(b'"life":"')[2][: len(life)] for _, raw in self._kept]
        return self.rng.choice([life[::-1], *lives])

    def _sign(self, peer: str, raw: bytes) -> None:
        """Somebody else's key is under it, which is no less genuine: the place knows a member."""
        head, document, rest = raw.split(b"\n", 2)
        body = rest.partition(b"\n")[2]
        member = self.rng.choice(self.world.founders).identity
        if b'"machine":"%s"' % member.machine.encode() in document:
            self._lie(peer, raw)
            return
        message = head + b"\n" + document
        signature = member.root.sign(message).hex().encode()
        self._lie(peer, b"\n".join((message, signature, body)))

    def _splice(self, peer: str, raw: bytes) -> None:
        """The head of one, the contents of another."""
        self._lie(peer, raw)
        if self._kept:
            other = self.rng.choice(self._kept)[1].split(b"\n", 3)[3]
            spliced = b"\n".join((*raw.split(b"\n", 3)[:3], other))
            if spliced != raw:
                self._lie(peer, spliced)

    def _double(self, peer: str, raw: bytes) -> None:
        self._lie(peer, raw)
        self._lie(peer, raw)

    def _replay(self, peer: str, raw: bytes) -> None:
        self._lie(peer, raw)
        if self._kept:
            self._lie(*self.rng.choice(self._kept))

    def _astray(self, peer: str, raw: bytes) -> None:
        """Somebody else gets it, its writer perhaps; and whom it is for, every other time."""
        others = [m.id for m in self.world.founders if m.id != peer]
        self._lie(self.rng.choice(others), raw)
        if self.rng.random() < 0.5:
            self._lie(peer, raw)

    def _away(self, peer: str, raw: bytes) -> None:
        self._lie(peer, raw)
        self.goes_away()

    # --- who looks ---------------------------------------------------------------------------

    def shows(self, machine: "Machine") -> Iterable[tuple[str, bytes]]:
        lying = self._lying.setdefault(machine.id, {})
        if self._does():
            what = self.rng.choice(LOOKS)
            self.did("shows-" + what)
            if what == "nothing":
                return []
            if what == "old" and self._old.get(machine.id):
                self._lie(machine.id, self.rng.choice(self._old[machine.id]))
            if what == "foreign":
                others = [raw for to, raw in self._kept if to != machine.id]
                for raw in self.rng.sample(others, min(3, len(others))):
                    self._lie(machine.id, raw)
            if what == "some":
                names = self._shown(lying)
                return [(name, lying[name][1]) for name in names[: len(names) // 2]]
        return [(name, lying[name][1]) for name in self._shown(lying)]

    def _shown(self, lying: dict[str, tuple[int, bytes]]) -> list[str]:
        now_ms, names = self.world.ms, sorted(lying)
        names = [name for name in names if self.honest or lying[name][0] <= now_ms]
        self.rng.shuffle(names)
        return names

    def forget(self, machine: "Machine", name: str) -> None:
        _, raw = self._lying.get(machine.id, {}).pop(name, (0, b""))
        if raw:
            self._old[machine.id] = [*self._old.get(machine.id, [])[-KEPT_MAX:], raw]


def lost(names: list[str], what: str) -> list[str]:
    """Which of these, in order, are gone."""
    half = len(names) // 2
    return {"tail": names[half:], "middle": names[half : half + 1], "all": names}[what]
