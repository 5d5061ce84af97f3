"""Which queued task goes to which machine next. Cost per task does not depend on the depth.

Rule 1: order is priority, then age; a task that comes back keeps its age.
Rule 2: tasks that want the same are one group; each machine is judged once per group, not per task.
Rule 3: a machine that is put last for a group gets nothing of it while another machine fits,
however busy that one is.
Rule 4: a machine never holds more attempts of a pool than it has slots there.

HOW IT STAYS FLAT. A slot is (machine, pool). Each slot has a heap of the groups that it could
serve, by the rank of the group's first task. A group's rank only changes when its first task does,
and an old rank in a heap is corrected when it comes up: so a queued task costs one push into its
group, whether ten or ten thousand wait before it. Removed tasks are dropped when they come up.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from muster import limits
from muster.task.route import (
    NOTHING,
    ROUTED_BY,
    Asked,
    Machine,
    Verdict,
    Wants,
    judge,
    pool_of,
    score,
    slots_of,
    wants_of,
)
from muster.task.secret import wanted_of
from muster.task.trust import Standing

# (-priority, age, number): the smallest goes first; the number makes it unique.
Rank = tuple[int, int, int]
Candidate = tuple[str, bool, int, str]

_encode = msgspec.json.Encoder(order="sorted").encode


class Choice(NamedTuple):
    """The next task, the machine for it, and every candidate with the reason why it won or lost."""

    task: str
    verdict: Verdict
    candidates: list[Candidate]


@dataclass(slots=True, eq=False)
class _Group:
    """Queued tasks that want the same."""

    key: bytes
    wants: Wants
    heap: list[tuple[Rank, str]] = field(default_factory=list)
    fits: dict[str, Verdict] = field(default_factory=dict)
    misfits: dict[str, Verdict] = field(default_factory=dict)
    # How many of those that fit are not put last.
    sound: int = 0

    def drop(self, machine: str) -> None:
        known = self.fits.pop(machine, None)
        self.misfits.pop(machine, None)
        self.sound -= known is not None and not known.last

    def takes(self, verdict: Verdict | None) -> bool:
        """Whether a machine of this verdict may have a task of the group now."""
        return verdict is not None and (not verdict.last or not self.sound)


@dataclass(slots=True, eq=False)
class _Slot:
    """The slots of one pool on one machine, and the groups that could use them."""

    size: int
    used: int = 0
    heap: list[tuple[Rank, int]] = field(default_factory=list)
    listed: dict[int, Rank] = field(default_factory=dict)


class Queue:
    """Queued tasks, machines that are up, and their slots."""

    def __init__(self, standing: Callable[[str, str], Standing]) -> None:
        self._standing = standing
        self._numbers: dict[bytes, int] = {}
        self._groups: dict[int, _Group] = {}
        self._where: dict[str, int] = {}
        # Those that take work, as they are known.
        self.machines: dict[str, Machine] = {}
        self._slots: dict[tuple[str, str], _Slot] = {}
        self._next_number = 0

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, task: str) -> bool:
        return task in self._where

    def group(
        self,
        template: Mapping[str, Any],
        repo: str,
        avoid: Iterable[str] = (),
        tried: Iterable[str] = (),
        asked: Asked = NOTHING,
    ) -> int:
        """The group of tasks that want this; valid until the next `tidy`.

        Raises:
            Malformed: the template's needs cannot be read.

        """
        wanted = [template.get(key) for key in ROUTED_BY]
        wanted += wanted_of(template)
        key = _encode((wanted, repo, sorted(avoid), sorted(tried), asked))
        number = self._numbers.get(key)
        if number is None:
            wants = wants_of(template, repo, avoid, tried, asked)
            number = self._numbers[key] = self._next_number
            self._next_number += 1
            group = self._groups[number] = _Group(key, wants)
            for machine in self.machines.values():
                self._judge(number, group, machine)
        return number

    def add(self, task: str, number: int, rank: Rank) -> None:
        """Queue a task in a group."""
        group = self._groups[number]
        self._where[task] = number
        heapq.heappush(group.heap, (rank, task))
        if group.heap[0][0] == rank:
            self._list(number, group)

    def remove(self, task: str) -> None:
        """Take a task out; nothing happens when it is not queued."""
        self._where.pop(task, None)

    def machine_up(self, machine: Machine) -> None:
        """A machine takes work, or its facts changed. Costs one look at each group."""
        if self.machines.get(machine.id) == machine:
            return
        self.machines[machine.id] = machine
        pools = {"", *machine.slots, *(pool_of(agent) for agent in machine.facts.agents)}
        for pool in pools | {p for m, p in self._slots if m == machine.id}:
            slot = self._slots.setdefault((machine.id, pool), _Slot(0))
            slot.size = slots_of(machine, pool) if pool in pools else 0
            slot.heap, slot.listed = [], {}
        for number, group in self._groups.items():
            self._judge(number, group, machine)

    def machine_down(self, machine: str) -> Machine | None:
        """A machine takes no more work; what it holds keeps its slots. Returns what it was."""
        known = self.machines.pop(machine, None)
        for number, group in self._groups.items():
            before = group.sound
            group.drop(machine)
            if before and not group.sound:
                self._list(number, group)
        for (name, _), slot in self._slots.items():
            if name == machine:
                slot.heap, slot.listed = [], {}
        return known

    def take(self, machine: str, pool: str) -> None:
        """One slot is in use (also of a machine that is not up: its lease was restored)."""
        self._slots.setdefault((machine, pool), _Slot(0)).used += 1

    def release(self, machine: str, pool: str) -> None:
        """One slot is free again."""
        slot = self._slots[machine, pool]
        # More releases than takes would let a machine be overbooked forever.
        assert slot.used > 0
        slot.used -= 1

    def next(self) -> Choice | None:
        """Take the first task that a free slot fits out of the queue, with the best machine."""
        best: tuple[Rank, int] | None = None
        for (machine, _), slot in self._slots.items():
            if slot.used < slot.size and slot.heap:
                top = self._top(slot, machine)
                if top is not None and (best is None or top < best):
                    best = top
        if best is None:
            return None
        group = self._groups[best[1]]
        task = heapq.heappop(group.heap)[1]
        del self._where[task]
        verdict, candidates = self._choose(group)
        return Choice(task, verdict, candidates)

    def candidates(self, number: int) -> list[Verdict]:
        """Every machine's verdict on a task of this group, for `why`; best first."""
        wants = self._groups[number].wants
        verdicts = [judge(wants, machine) for machine in self.machines.values()]
        return sorted(verdicts, key=lambda v: (not v.fits, -v.score, v.machine))

    def has_room(self, verdict: Verdict) -> bool:
        """Whether a machine of this verdict has a slot free for it."""
        slot = self._slots.get((verdict.machine, verdict.pool))
        return verdict.fits and slot is not None and slot.used < slot.size

    def tidy(self) -> None:
        """Drop groups without tasks, when there are many: rare needs may never come again."""
        if len(self._groups) <= 2 * len(self._where) + 64:
            return
        for number, group in list(self._groups.items()):
            if self._first(group, number) is None:
                del self._groups[number], self._numbers[group.key]

    def _judge(self, number: int, group: _Group, machine: Machine) -> None:
        group.drop(machine.id)
        verdict = judge(group.wants, machine)
        (group.fits if verdict.fits else group.misfits)[machine.id] = verdict
        group.sound += verdict.fits and not verdict.last
        self._list(number, group)

    def _list(self, number: int, group: _Group) -> None:
        """Offer the group to every slot that may take of it; what is offered already stays."""
        first = self._first(group, number)
        if first is None:
            return
        for verdict in group.fits.values():
            if group.takes(verdict):
                slot = self._slots[verdict.machine, verdict.pool]
                listed = slot.listed.get(number)
                if listed is None or first < listed:
                    slot.listed[number] = first
                    heapq.heappush(slot.heap, (first, number))

    def _first(self, group: _Group, number: int) -> Rank | None:
        """The rank of the group's first task that is still queued there."""
        heap = group.heap
        while heap and self._where.get(heap[0][1]) != number:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def _top(self, slot: _Slot, machine: str) -> tuple[Rank, int] | None:
        """The best group of a slot, after correcting what its heap remembers."""
        while slot.heap:
            rank, number = slot.heap[0]
            group, first = self._groups.get(number), None
            current = slot.listed.get(number) == rank
            # Where the machine is put last, the group is offered again when nobody else is left.
            if current and group is not None and group.takes(group.fits.get(machine)):
                first = self._first(group, number)
            if first == rank:
                return rank, number
            heapq.heappop(slot.heap)
            if current:
                del slot.listed[number]
            if first is not None:
                slot.listed[number] = first
                heapq.heappush(slot.heap, (first, number))
        return None

    def _choose(self, group: _Group) -> tuple[Verdict, list[Candidate]]:
        scored: list[tuple[int, str, Verdict]] = []
        full: list[Candidate] = []
        for verdict in group.fits.values():
            slot = self._slots[verdict.machine, verdict.pool]
            if not group.takes(verdict):
                last = f"put last: {verdict.last}"[: limits.REASON_CHARS_MAX]
                full.append((verdict.machine, True, verdict.score, last))
            elif slot.used < slot.size:
                standing = self._standing(verdict.machine, verdict.agent)
                value = score(verdict, slot.used, slot.size, standing.success)
                said = (*verdict.reasons, *([str(standing)] if str(standing) else []))
                scored.append((-value, verdict.machine, verdict._replace(reasons=said)))
            else:
                full.append((verdict.machine, True, verdict.score, "no free slot"))
        # A group reaches a slot's heap only through a verdict that fits, and that slot is free.
        assert scored
        scored.sort(key=lambda s: s[:2])
        room, rows = limits.CANDIDATES_MAX, list[Candidate]()
        for place, (value, machine, verdict) in enumerate(scored[:room]):
            reason = "chosen" if place == 0 else "lower score"
            parts = ", ".join(verdict.reasons)
            text = f"{reason}: {parts}" if parts else reason
            rows.append((machine, True, -value, text[: limits.REASON_CHARS_MAX]))
        rows += full[: room - len(rows)]
        for verdict in list(group.misfits.values())[: room - len(rows)]:
            reason = "; ".join(verdict.reasons)
            rows.append((verdict.machine, False, 0, reason[: limits.REASON_CHARS_MAX]))
        return scored[0][2], rows
