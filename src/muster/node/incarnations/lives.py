"""Two copies of one machine that run at once: told by what each of them signs while it runs.

Rule 1: each process says with each link which life it is (fleet/life.py), and passes on what it
hears of others, once: so the copies hear of each other wherever the two are linked.
Rule 2: who hears of another life of its own key answers it by name. An answer that names *our* life
proves that the other one runs now: nobody could know our life before this start. A life that ended,
as of a machine that was started again, never answers.
Rule 3: while another copy runs neither obeys an order, takes a task or receipts an entry of others:
each could do it twice, and none knows which of them a person means.
Rule 4: two lives that name each other are proof to everybody; whoever sees them tells a person.
Rule 5: a word counts once, also when it is shown again later. What is said too often is dropped
without blame: of each machine so many words go on in a minute, so that a member that says lives
without end does not make those who pass them on look like the flood.
"""

import hashlib
import json
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final

from muster.channel.frame import Type
from muster.fleet.life import NOBODY, Life, open_life, sign_life
from muster.limits import (
    LIFE_ANSWER_MS,
    LIFE_SILENT_MS,
    LIVES_KEPT,
    LIVES_OF_MACHINE_PER_MINUTE_MAX,
    LIVES_PER_MACHINE,
    LIVES_PER_MINUTE_MAX,
    LIVES_REMEMBERED,
)
from muster.log.stream import MachineId
from muster.node import event as ev
from muster.node.counter import DECLARED, spend
from muster.node.link import FEATURES, Link
from muster.node.part import Part

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "lives-dropped": "A word about the life of a process was not read: too many came.",
    "copies": "Another process with the key of this machine was heard.",
}

INCIDENT: Final = "clone"
MINUTE_MS: Final = 60_000


class Lives(Part):
    """The lives that are known; nothing of it outlasts this process."""

    name = "lives"

    def __init__(self, core: "Core") -> None:
        self.core = core
        core.on(ev.LinkDown, lambda event: self._budget.pop(event.link, None))
        self.life = core.draw(16).hex()
        self._secret = core.draw(32)
        self._number = 0
        # What we say of ourselves with each link; always the same, so that it spreads once.
        self.word = self._sign(NOBODY, 0)
        # Of each machine the newest words, by life.
        self._words: OrderedDict[MachineId, OrderedDict[str, tuple[Life, bytes]]] = OrderedDict()
        # The number of the newest word of each life, of more lives than words are kept of.
        self._numbers: OrderedDict[MachineId, OrderedDict[str, int]] = OrderedDict()
        # The other copies of this very machine, and when each was heard last.
        self._beside: dict[str, int] = {}
        self._answered_ms: dict[str, int] = {}
        self._told: set[MachineId] = set()
        # When each link brought its words of the last minute, and when each machine was heard.
        self._budget: dict[int, deque[int]] = {}
        self._spoken: dict[MachineId, deque[int]] = {}

    @property
    def beside(self) -> str | None:
        """Another life of our own key that lives now."""
        return next(iter(self._beside), None)

    def _sign(self, beside: str, number: int) -> str:
        we = (self.core.membership.identity, self.core.membership.fleet, self.life)
        return sign_life(*we, beside=beside, number=number).decode()

    def known(self) -> list[str]:
        """The words of machines that have a link to us: who links now may not have heard them."""
        linked = {link.peer for link in self.core.links.values()}
        return [
            raw.decode()
            for machine, words in self._words.items()
            if machine in linked
            for _, raw in words.values()
        ]

    def heard(self, link: Link, raw: str) -> None:
        """A word came over a link, of its peer or of somebody else. Raises: Refused."""
        core, now_ms = self.core, self.core.now.boot_ms
        budget = self._budget.setdefault(link.id, deque())
        if not spend(budget, LIVES_PER_MINUTE_MAX, MINUTE_MS, now_ms):
            # A word costs a signature.
            core.counters["lives-dropped"] += 1
            return
        word = open_life(raw.encode(), core.membership.fleet)
        machine = MachineId(word.machine)
        numbers = self._numbers.get(machine, OrderedDict[str, int]())
        # Whether this word, or a later one of that life, was heard before.
        old = numbers.get(word.life, -1) >= word.number
        if machine not in core.roster.machines or word.life == self.life or old:
            return
        spoken = self._spoken.setdefault(machine, deque())
        most = LIVES_OF_MACHINE_PER_MINUTE_MAX
        if machine != core.machine and not spend(spoken, most, MINUTE_MS, now_ms):
            core.counters["lives-dropped"] += 1
            return
        words = self._words.setdefault(machine, OrderedDict())
        words[word.life] = (word, raw.encode())
        words.move_to_end(word.life)
        if len(words) > LIVES_PER_MACHINE:
            words.popitem(last=False)
        if len(self._words) > LIVES_KEPT:
            self._words.popitem(last=False)
        self._numbers.setdefault(machine, numbers)[word.life] = word.number
        numbers.move_to_end(word.life)
        if len(numbers) > LIVES_REMEMBERED:
            numbers.popitem(last=False)
        if len(self._numbers) > LIVES_KEPT:
            self._numbers.popitem(last=False)
        if machine == core.machine:
            if word.beside == self.life:
                first = not self._beside
                self._beside[word.life] = now_ms
                core.replication.may_receipt = False
                self._tell(machine)
                core.counters["copies"] += first
            if now_ms - self._answered_ms.get(word.life, -LIFE_ANSWER_MS) >= LIFE_ANSWER_MS:
                self._answer(word.life)
        elif word.beside in words and words[word.beside][0].beside == word.life != word.beside:
            self._tell(machine)
        self._pass_on(raw, but=link.id)

    def _answer(self, life: str) -> None:
        self._answered_ms[life] = self.core.now.boot_ms
        if len(self._answered_ms) > LIVES_KEPT:
            del self._answered_ms[next(iter(self._answered_ms))]
        self._number += 1
        self._pass_on(self._sign(life, self._number))

    def _pass_on(self, raw: str, but: int = 0) -> None:
        for number, link in self.core.links.items():
            if link.peer and number != but:
                self.core.send(number, Type.HELLO, 0, self.hello_bytes(link.peer, raw))

    def hello_bytes(self, peer: str, word: str) -> bytes:
        """What a link begins with, and what carries a word later; older ones read over the rest.

        `process` names this process to this peer alone: who speaks with us over several links knows
        them by it, and nobody else can say it.
        """
        version = str(self.core.settings.get("version", ""))
        told = {
            "features": FEATURES,
            "life": word,
            "muster": version,
            "process": hashlib.sha256(self._secret + peer.encode()).hexdigest()[:32],
            "wall_ms": self.core.now.wall_ms,
        }
        return json.dumps(told).encode()

    def _tell(self, machine: MachineId) -> None:
        if machine in self._told:
            return
        self._told.add(machine)
        core, key = self.core, f"{INCIDENT}-{machine[:16]}"
        if machine != core.machine and core.incidents.is_open(key, machine):
            # It told so itself. What others say of it may be said to keep us quiet.
            return
        title = title_of(core.membership.name_of(machine))
        core.note(title)
        core.incidents.open(key, "critical", title)

    def tick(self) -> None:
        """Answer the other copy as long as it answers; it is gone when it has not for a while."""
        now_ms = self.core.now.boot_ms
        for life, heard_ms in list(self._beside.items()):
            if now_ms - heard_ms >= LIFE_SILENT_MS:
                del self._beside[life]
            elif now_ms - self._answered_ms.get(life, 0) >= LIFE_ANSWER_MS:
                self._answer(life)
        if not self._beside and self.core.machine in self._told:
            self._told.discard(self.core.machine)
            self.core.replication.may_receipt = True
            why = "the other copy was not heard of any more"
            self.core.incidents.close(f"{INCIDENT}-{self.core.machine[:16]}", why)
            self.core.tell(ev.DoubtOver())


def title_of(name: str) -> str:
    """The incident; `node/incarnations/clone.py` finds the same by other signs."""
    return f"two copies of {name} run at once: stop one of them, or revoke it and join anew"
