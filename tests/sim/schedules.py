"""Keepers of one schedule under crash, sleep, partition, loss, wrong clocks and restored backups.

The keepers are the product's (`task/slot_keeper.py`); the register, the network and the disks are
here. A removal takes one safeguard away; a violation is what it was for.
"""

import argparse
import copy
import heapq
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from muster.task.occurrences import Times, following, slots
from muster.task.slot_keeper import FIRE, MISS, Keeper, Plan, Seen, Value

MINUTE = 60_000
STEP = 10 * MINUTE
STORM = 3 * 60 * MINUTE
TAIL = 40 * MINUTE
TIMES = Times(every_ms=STEP)
SAFEGUARDS = ("no-fence", "cas", "incarnation", "durable-claim", "replaced")


class Violation(AssertionError):
    pass


class _AnyLife(Keeper):
    """Whatever bears its name is its own, of whichever life."""

    def moved(self, value: Value) -> Value | None:
        same = value._replace(incarnation=self.incarnation) if value.by == self.me else value
        if value.by == self.me and value.nonce in self.claims:
            same = self.claims[value.nonce]
            self.incarnation = same.incarnation
        return super().moved(same)


class World:
    def __init__(self, seed: int, removed: str = "", catch_up: str = "latest") -> None:
        self.rng, self.removed, self.catch_up = random.Random(seed), removed, catch_up
        self.now, self._queue, self._number = 0, list[Any](), 0
        self.names = ["m0", "m1", "m2"]
        self.disk: dict[str, dict[str, Any]] = {
            m: {"life": 1, "claims": {}, "known": 0, "entries": []} for m in self.names
        }
        self.images: dict[str, list[Any]] = defaultdict(list)
        self.up: dict[str, Keeper | None] = {}
        self.boots = Counter[str]()
        self.lives = dict.fromkeys(self.names, 1)
        self.asleep = dict.fromkeys(self.names, 0)
        self.offset = {
            m: self.rng.choice((0, 0, self.rng.randint(-90_000, 90_000))) for m in self.names
        }
        self.cut: set[frozenset[str]] = set()
        self.register = (0, Value())
        self.healed = False
        # What the fleet ever saw: entries are witnessed, whatever is restored.
        self.entries: list[tuple[str, str, Value]] = []
        self.moves: list[Value] = []
        self.counts = Counter[str]()
        for m in self.names:
            self.boot(m)

    def at(self, ms: int, do: Callable[[], object]) -> None:
        self._number += 1
        heapq.heappush(self._queue, (ms, self._number, do))

    def clock(self, m: str) -> int:
        return max(0, self.now + self.offset[m])

    # --- machines -------------------------------------------------------------------------------

    def boot(self, m: str) -> None:
        disk = self.disk[m]
        plan = Plan(
            self.names.index(m), lambda a, b: slots(TIMES, a, b),
            lambda a: following(TIMES, a, 1)[0], 0, STORM * 2, 25 * MINUTE,
            self.catch_up, prompt_ms=6 * MINUTE,
        )  # fmt: skip
        make = _AnyLife if self.removed == "incarnation" else Keeper
        keeper = make(m, str(disk["life"]), plan, disk["known"])
        mine = disk["claims"].values()
        rule = self.removed != "incarnation"
        keeper.claims = {
            c.nonce: c for c in mine if not rule or c.incarnation == keeper.incarnation
        }
        self.up[m] = keeper
        self.boots[m] += 1
        boot = self.boots[m]
        self.at(self.now + self.rng.randint(0, 500), lambda: self.tick(m, boot))

    def crash(self, m: str) -> None:
        if self.up[m] is not None:
            self.up[m] = None
            self.counts["crashes"] += 1
            pause = 200 if self.healed else self.rng.choice((500, 5_000, 5 * MINUTE))
            self.at(self.now + pause, lambda: self.up[m] is None and self.boot(m))

    def crashes(self, m: str) -> bool:
        if not self.healed and self.rng.random() < 0.05:
            self.crash(m)
            return True
        return False

    def tick(self, m: str, boot: int) -> None:
        keeper = self.up[m]
        if keeper is None or self.boots[m] != boot:
            return
        self.at(self.now + (2_000 if self.healed else 5_000), lambda: self.tick(m, boot))
        if self.asleep[m] > self.now:
            return
        now = self.clock(m)
        for value in self.moves if self.healed and self.removed != "replaced" else ():
            # Entries of the others came: they say what they replaced.
            own = keeper.replaced(value.before)
            if own is not None:
                self.carry_out(m, own._replace(what=MISS))
        if self.removed == "no-fence":
            for slot in keeper.due(now)[-1:]:
                keeper.known = slot
                self.carry_out(m, Value(slot, m, keeper.incarnation, "", FIRE, since=0))
        elif keeper.wants(now, self.now, Seen()):
            self.ask(m, keeper)

    # --- the register ----------------------------------------------------------------------------

    def send(self, a: str, b: str, do: Callable[[], object]) -> None:
        if frozenset((a, b)) in self.cut or (not self.healed and self.rng.random() < 0.08):
            return
        for _ in range(2 if not self.healed and self.rng.random() < 0.05 else 1):
            slow = not self.healed and self.rng.random() < 0.05
            late = self.rng.randint(1_000, 3 * MINUTE) if slow else self.rng.choice((20, 50, 200))
            self.at(self.now + late, do)

    def ask(self, m: str, keeper: Keeper) -> None:
        keeper.ask(self.now)
        turn = object()
        turns: list[object] = [turn]

        def here() -> bool:
            return self.up[m] is keeper and self.asleep[m] <= self.now and bool(turns)

        def gave_up() -> None:
            if self.up[m] is keeper and turns:
                turns.clear()
                keeper.silent(self.now)

        def came(revision: int, value: Value) -> None:
            if not here() or turns != [turn]:
                return
            turns[:] = ["moving"]
            self.learn(m, keeper, value)
            nonce = f"{self.rng.getrandbits(64):x}"
            claim = keeper.claim(self.clock(m), Seen(), nonce)
            if claim is None:
                turns.clear()
                return
            if self.removed != "durable-claim":
                self.disk[m]["claims"][claim.nonce] = claim
            if self.crashes(m):
                return
            keeper.ask(self.now)
            self.send(m, "g", lambda: moves(revision, claim))

        def moves(revision: int, claim: Value) -> None:
            fits = self.register[0] == revision or self.removed == "cas"
            if fits:
                assert claim.slot > self.register[1].slot or self.removed
                self.register = (self.register[0] + 1, claim)
                self.moves.append(claim)
            # As a server that does not compare answers: yes.
            value = claim if fits else self.register[1]
            self.send("g", m, lambda: done(value))

        def done(value: Value) -> None:
            if here():
                turns.clear()
                if not self.crashes(m):
                    self.learn(m, keeper, value)

        def reads() -> None:
            held = self.register
            self.send("g", m, lambda: came(*held))

        self.at(self.now + 10_000, gave_up)
        self.send(m, "g", reads)

    def learn(self, m: str, keeper: Keeper, value: Value) -> None:
        """One transaction: what is known, and the entry that carries out."""
        own = keeper.moved(value)
        gone = keeper.replaced(value.before)
        if gone is not None and self.removed != "replaced":
            self.carry_out(m, gone._replace(what=MISS))
        self.disk[m]["known"] = keeper.known
        if own is not None:
            self.carry_out(m, own)

    def carry_out(self, m: str, value: Value) -> None:
        if value.what == FIRE and self.clock(m) - value.slot > 25 * MINUTE + 10 * MINUTE:
            value = value._replace(what=MISS)
        self.disk[m]["entries"].append(value)
        self.disk[m]["claims"].pop(value.nonce, None)
        self.entries.append((m, value.what, value))
        self.counts[value.what] += 1
        fired = [e for e in self.entries if e[1] == FIRE and e[2].slot == value.slot]
        if len(fired) > 1:
            raise Violation(f"slot {value.slot // MINUTE} was fired by {[e[0] for e in fired]}")

    # --- faults ----------------------------------------------------------------------------------

    def fault(self) -> None:
        if self.healed:
            return
        self.at(self.now + self.rng.randint(20_000, 6 * MINUTE), self.fault)
        m, chance = self.rng.choice(self.names), self.rng.random()
        if chance < 0.2:
            self.crash(m)
        elif chance < 0.4:
            self.asleep[m] = self.now + self.rng.choice((2, 15, 90)) * MINUTE
        elif chance < 0.65:
            every = [*self.names, "g"]
            side = set(self.rng.sample(every, self.rng.randint(1, 3)))
            self.cut = {frozenset((a, b)) for a in side for b in every if b not in side}
            self.at(self.now + self.rng.randint(MINUTE, 30 * MINUTE), self.cut.clear)
        elif chance < 0.75:
            moved = self.offset[m] + self.rng.randint(-4, 4) * MINUTE
            self.offset[m] = max(-5 * MINUTE, min(5 * MINUTE, moved))
        elif chance < 0.88:
            self.images[m].append(copy.deepcopy(self.disk[m]))
        elif self.images[m]:
            self.restore(m, copy.deepcopy(self.rng.choice(self.images[m])))

    def restore(self, m: str, image: dict[str, Any]) -> None:
        self.counts["restores"] += 1
        self.lives[m] += 1
        if self.removed != "incarnation":
            image["life"] = self.lives[m]
        self.up[m], self.disk[m] = None, image
        self.boot(m)

    # --- the end ----------------------------------------------------------------------------------

    def run(self) -> Counter[str]:
        self.at(1_000, self.fault)
        self._until(STORM)
        self.healed, self.now = True, STORM
        self.cut.clear()
        for m in self.names:
            self.asleep[m], self.offset[m] = 0, self.rng.randint(-1_000, 1_000)
            if self.up[m] is None:
                self.boot(m)
        self._until(STORM + TAIL)
        self._judge()
        return self.counts

    def _until(self, end: int) -> None:
        while self._queue and self._queue[0][0] <= end:
            self.now, _, do = heapq.heappop(self._queue)
            do()

    def _judge(self) -> None:
        due = slots(TIMES, 0, STORM + TAIL - STEP)
        said = {value.nonce for _, _, value in self.entries}
        # Claims of a life that a backup ended: carried out by nobody, a person is asked.
        ended = [v for v in self.moves if v.incarnation != str(self.disk[v.by]["life"])]
        told = [value for _, _, value in self.entries] + [v for v in ended if v.nonce not in said]
        covered = {s for value in told for s in due if value.since < s <= value.slot}
        missing = [s // MINUTE for s in due if s not in covered]
        if missing:
            raise Violation(f"no entry says what became of {missing}")
        fired = {v.slot for _, what, v in self.entries if what == FIRE}
        tail = [s // MINUTE for s in due if s > STORM + 6 * MINUTE and s not in fired]
        if tail:
            raise Violation(f"a whole fleet missed {tail}")


def play(seed: int, removed: str = "", catch_up: str = "latest") -> str:
    """What went wrong, "" for nothing."""
    try:
        World(seed, removed, catch_up).run()
    except Violation as violation:
        return str(violation)
    return ""


def caught(removed: str, seeds: int = 200) -> int | None:
    """How many worlds it took until a removal was missed."""
    return next((seed + 1 for seed in range(seeds) if play(seed, removed)), None)


def main() -> int:
    """Every seed by both ways of catching up; what was wrong, with its seed, and what happened."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.schedules", description=main.__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    chosen = parser.parse_args()
    counts, wrong = Counter[str](), 0
    for seed in range(chosen.start, chosen.start + chosen.seeds):
        for catch_up in ("latest", "all"):
            try:
                counts += World(seed, catch_up=catch_up).run()
            except Violation as violation:
                wrong += 1
                print(f"seed {seed}, catch_up {catch_up}: {violation}", flush=True)
    told = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
    print(f"schedules: {chosen.seeds} seeds, {wrong} wrong; {told}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
