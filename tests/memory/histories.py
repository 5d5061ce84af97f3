"""Any history of what machines remember, drawn by a seed, and what has to hold of it.

`python -m tests.memory.histories --histories 10000` is the long form (memory.md, check 1): three
machines that write, refute, erase and hear of each other in pieces; one of them may be restored
from a backup, so that what it wrote since is cut back, or revoked with a cut; another joins late
and gets what was erased without its body. `--removals` says which seed notices that a rule is gone.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from tests.memory.world import Stream, proof_of

from muster.log.entry import EntryId
from muster.log.fold import NO_ENTRY
from muster.log.stream import FLEET, MachineId
from muster.memory import state
from muster.memory.fold import ERASED, OVER, VERSION
from muster.memory.kinds import PERSON
from muster.memory.state import Claim, Record, RecordName, Version, records, versions

View = Callable[[Iterable[Version]], Mapping[RecordName, Record]]
TEXTS: Final = ("use pnpm", "use npm", "tests in tests/", "the port is 7447")
KEYS: Final = ("a", "b", "c")
MACHINES: Final = 3
# What many histories must have met.
REACHED: Final = ("restored", "revoked", "erased", "conflict", "disputed", "refuted", "stale")


class History:
    """Three machines that write, refute, erase and hear of each other, drawn by a seed.

    `reads`: a writer replaces what it had read; without it, what its machine holds at that moment.
    """

    def __init__(self, seed: int, *, reads: bool = True) -> None:
        self.draw, self._reads = random.Random(seed), reads
        self.streams = [Stream(MachineId(each * 64)) for each in "abc"]
        # Which stream each machine writes now; None once it is revoked.
        self._own: list[int | None] = [*range(MACHINES)]
        # How much of each stream each machine holds, and how much of one counts where it was cut.
        self._held = [[0] * MACHINES for _ in range(MACHINES)]
        self._cut: dict[int, int] = {}
        # What whoever works on a machine was shown last of a key, and what each version's writer had
        # read of its key.
        self._shown: dict[tuple[int, str], list[EntryId]] = {}
        self.read: dict[EntryId, set[EntryId]] = {}
        self.reached = Counter[str]()
        skews = [self.draw.randint(0, 5_000) for _ in range(MACHINES)]
        for step in range(self.draw.randint(10, 60)):
            me = self.draw.randrange(MACHINES)
            self._act(me, 10_000 + skews[me] + step * 10)
            if (own := self._own[me]) is not None:
                self._held[me][own] = len(self.streams[own].entries)
        self.all = self.counting()

    def counting(self, since: int = 0) -> list[Version]:
        """The versions that count when everybody has heard of everything: what was cut does not.

        `since`: as whoever joined then knows it, who got nothing that was older.
        """
        whole = len(self.streams)
        sizes = [self._cut.get(n, 1 << 40) for n in range(whole)]
        return self._of([since] * whole, sizes)

    def erased(self) -> set[EntryId]:
        """What is erased by one that counts: not by another machine's agent, nor beyond a cut."""
        tombs = [
            row
            for n, stream in enumerate(self.streams)
            for row in stream.rows.every(ERASED)
            if row.seq < self._cut.get(n, row.seq + 1)
        ]
        return {
            version.id
            for stream in self.streams
            for version in stream.versions()
            for tomb in tombs
            if tomb.target == version.id
            and state.may_erase(tomb, stream.name, ordered=bool(tomb.order != NO_ENTRY))
        }

    def _view(self, me: int) -> list[Version]:
        sizes = [min(held, self._cut.get(n, held)) for n, held in enumerate(self._held[me])]
        return self._of([0] * len(sizes), sizes)

    def _of(self, starts: list[int], ends: list[int]) -> list[Version]:
        kept: dict[Any, list[Any]] = {VERSION: [], OVER: [], ERASED: []}
        for stream, start, end in zip(self.streams, starts, ends, strict=True):
            for table, rows in kept.items():
                rows += [row for row in stream.rows.every(table) if start <= row.seq < end]
        return versions(kept[VERSION], kept[OVER], kept[ERASED], proof_of)

    # --- what happens ---------------------------------------------------------------------------

    def _act(self, me: int, at_ms: int) -> None:
        chance, own = self.draw.random(), self._own[me]
        if chance < 0.45 and own is not None:
            self._write(me, self.streams[own], at_ms)
        elif chance < 0.53:
            key = self.draw.choice(KEYS)
            self._shown[me, key] = [head.id for head in self._heads(me, key)]
        elif chance < 0.56 and own is not None and len(self.streams) < 2 * MACHINES:
            self._lose(me, own)
        else:
            other = self.draw.randrange(len(self.streams))
            ahead = self._held[me][other] + self.draw.randint(1, 4)
            size = min(len(self.streams[other].entries), self._cut.get(other, ahead))
            self._held[me][other] = min(size, ahead)

    def _heads(self, me: int, key: str) -> tuple[Version, ...]:
        record = records(self._view(me)).get(RecordName(FLEET, key))
        return record.heads if record else ()

    def _write(self, me: int, stream: Stream, at_ms: int) -> None:
        """By the write rule: over what was shown, also where something came meanwhile."""
        who = self.draw.choice(("agent", "agent", "agent", "person", "outside"))
        key, chance = self.draw.choice(KEYS), self.draw.random()
        held = self._heads(me, key)
        if self.draw.random() < 0.6:
            self._shown[me, key] = [head.id for head in held]
        read = self._shown.get((me, key), [])
        over = read if self._reads else [head.id for head in held]
        self.reached["stale"] += over != [head.id for head in held]
        if chance < 0.66:
            text = self.draw.choice((*TEXTS, f"n{at_ms}"))
            over = self.draw.choice((over, over, over, [], over[:1]))
            id = stream.put(key, text, over, who=who, at_ms=at_ms)
        elif chance < 0.9 and over:
            id = stream.refute(key, over, "person" if who == "person" else "agent", at_ms)
        elif held:
            self.reached["erased"] += 1
            stream.erase(self.draw.choice(held), who=self.draw.choice(("person", "agent")))
            return
        else:
            return
        self.read[id] = {*read}

    def _lose(self, me: int, own: int) -> None:
        """A machine is restored from a backup, or revoked: what it wrote beyond the cut is gone."""
        written = len(self.streams[own].entries)
        self._cut[own] = self.draw.randint(written // 2, written)
        if sum(each is None for each in self._own) < MACHINES - 2 and self.draw.random() < 0.3:
            self._own[me] = None
            self.reached["revoked"] += 1
            return
        self.reached["restored"] += 1
        self._own[me] = len(self.streams)
        self.streams.append(Stream(self.streams[own].name.machine, life=len(self.streams)))
        for held in self._held:
            held.append(0)


def broken(history: History, view: View = records) -> str:
    """What does not hold of a history; "" where all does."""
    every = history.all
    found = view(every)
    shuffled = list(every)
    history.draw.shuffle(shuffled)
    if view(shuffled) != found:
        return "another order gives another state"
    late = history.counting(since=3)
    if view(late) != view(late[::-1]):
        return "who joined late sees what the order of arrival says"
    for record in found.values():
        history.reached[record.state] += 1
    by_id = {v.id: v for v in every}
    shown = {h.id for record in found.values() for h in record.heads}
    said = {v.id: v.claims or (Claim(v.rank, PERSON, v.state, v.print, v.over),) for v in every}
    named = {
        target
        for v in every
        for claim in said[v.id]
        for target in claim.over
        if target in by_id and claim.rank >= by_id[target].rank
    }
    # A print that an erasure restates bans with the word of whoever erased, and no more.
    wrong = {
        (was.print, min(claim.rank, was.word), v.id)
        for v in every
        if v.state == "refuted" and v.id not in named
        for claim in said[v.id]
        if claim.state == "refuted"
        for target in claim.over
        if target in by_id
        for was in said[target]
        if was.print
    }
    for v in every:
        if v.over - history.read.get(v.id, v.over):
            return "what its writer had not read is replaced"
        banned = any(v.print == p and r >= v.rank and i not in v.over for p, r, i in wrong)
        if v.state == "active" and v.id not in named and not banned and v.id not in shown:
            return "what nobody had read is lost"
        if v.state == "active" and banned and found[RecordName(FLEET, v.key)].state != "refuted":
            record = found[RecordName(FLEET, v.key)]
            if v in record.heads:
                return "a refuted text is shown"
        by_person = any(v.id in w.over and w.rank == PERSON for w in every)
        ruled = v.rank == PERSON and v.state == "active" and not banned
        if ruled and v.id not in shown and not by_person:
            return "a person's word was replaced by no person"
    return ""


def revived(seed: int, **forgotten: Any) -> str:
    """What comes back once some of a history is erased, or is otherwise without the bodies; ""."""
    history = History(seed)
    before = live(records(history.all))
    targets = [v for v in history.all if v.state != "erased"]
    writer = history.streams[-1]
    for target in history.draw.sample(targets, min(3, len(targets))):
        writer.erase(target, **forgotten)
    there = records(history.counting())
    gone = history.erased()
    for stream in history.streams:
        for row in stream.versions():
            if row.id in gone:
                stream.lose_body(row.seq)
    away = records(history.counting())
    if not live(away) <= before:
        return "what did not count does so"
    return "" if there == away else "it is another one without the bodies"


def live(found: Mapping[RecordName, Record]) -> set[EntryId]:
    """What is shown as true."""
    over = ("refuted", "erased")
    return {head.id for each in found.values() if each.state not in over for head in each.heads}


# --- what notices that a rule is gone ----------------------------------------------------------


def without_ranks(every: Iterable[Version]) -> Mapping[RecordName, Record]:
    every = list(every)
    ranks = {each.id: each.rank for each in every}
    found = records([each._replace(rank=1) for each in every])
    return {
        name: Record(each.state, tuple(h._replace(rank=ranks[h.id]) for h in each.heads))
        for name, each in found.items()
    }


def without_bans(every: Iterable[Version]) -> Mapping[RecordName, Record]:
    kept, state._is_banned = state._is_banned, lambda _version, _bans: False
    try:
        return records(every)
    finally:
        state._is_banned = kept


def last_writer_wins(every: Iterable[Version]) -> Mapping[RecordName, Record]:
    found: dict[RecordName, Version] = {}
    for each in sorted(every, key=lambda each: (each.stamp, each.id)):
        if each.key:
            found[RecordName(each.stream.scope, each.key)] = each
    return {name: Record(each.state, (each,)) for name, each in found.items()}


VIEWS: Final[Mapping[str, View]] = {
    "ranks": without_ranks, "bans": without_bans, "last writer wins": last_writer_wins,
}  # fmt: skip
FORGOTTEN: Final[list[dict[str, Any]]] = [{"over": []}, {"print": ""}, {"rank": PERSON}]


def removals(most: int) -> int:
    """Take away each rule; print the seed that noticed."""
    tried: dict[str, Callable[[int], object]] = {
        f"view: {name}": lambda seed, view=view: broken(History(seed), view)
        for name, view in VIEWS.items()
    }
    tried["over what was read"] = lambda seed: broken(History(seed, reads=False))
    for each in FORGOTTEN:
        tried[f"an erasure restates {next(iter(each))}"] = lambda seed, each=each: revived(
            seed, **each
        )
    missed = 0
    for name, notices in tried.items():
        found = next((seed for seed in range(most) if notices(seed)), None)
        missed += found is None
        print(f"{name:32s} {'NOT CAUGHT' if found is None else f'caught by seed {found}'}")
    return 1 if missed else 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.memory.histories", description=__doc__)
    parser.add_argument("--histories", type=int, default=1_000, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    parser.add_argument("--removals", action="store_true", help="which seed notices a missing rule")
    asked = parser.parse_args()
    if asked.removals:
        return removals(200)
    started, failed = time.perf_counter(), 0
    reached, sizes = Counter[str](), Counter[str]()
    for seed in range(asked.start, asked.start + asked.histories):
        history = History(seed)
        found = broken(history) or revived(seed)
        if found:
            failed += 1
            print(f"FAILED history {seed}: {found}")
        reached.update({name: 1 for name, times in history.reached.items() if times})
        sizes["versions"] += len(history.all)
        lost = last_writer_wins(history.all)
        sizes["last writer wins loses"] += bool(broken(history, lambda _, lost=lost: lost))
    print(f"{asked.histories} histories in {time.perf_counter() - started:.0f} s, {failed} broken")
    print(", ".join(f"{name} in {count}" for name, count in sorted(reached.items())))
    print(", ".join(f"{name}: {count}" for name, count in sizes.items()))
    never = [name for name in REACHED if not reached[name]]
    if never:
        print(f"NEVER REACHED: {', '.join(never)}")
    return 1 if failed or never else 0


if __name__ == "__main__":
    sys.exit(main())
