"""What was said against what arrived: pure, so that the judge itself is judged (test_verdict.py).

Rule 1: what its sender's machine accepted is in its receiver's inbox exactly once.
Rule 2: the messages of one sender to one receiver are there in the order in which they were said.
Rule 3: one is excused from being there: it was accepted by a machine that was set back to a copy
        from before, and nobody had told that it is stored at the other end. It is counted as that.
Rule 4: one is excused from being there once: its sender's machine was set back before it answered,
        and was asked again. It is out of its doubt as soon as all that is for everybody is back
        (docs/spec/sync.md), and what it had said to one machine alone that one may still hold.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass
class Message:
    """One message; the times are seconds of one clock, 0 for not (yet)."""

    sender: str
    receiver: str
    number: int
    """From 1 for each sender and receiver."""
    begun_s: float = 0.0
    accepted_s: float = 0.0
    stored_s: float = 0.0
    """When its sender was told that it is stored at the other end."""
    seen_s: float = 0.0
    """When it was first seen in the inbox."""

    @property
    def text(self) -> str:
        """What is said: no two say the same."""
        return f"{self.sender} to {self.receiver}: {self.number}"

    @property
    def arrived_s(self) -> float:
        """By when it was there; 0 where nobody knows that it is."""
        return min((t for t in (self.stored_s, self.seen_s) if t), default=0.0)


class SetBack(NamedTuple):
    """A machine got the database that it had before."""

    machine: str
    copied_s: float
    restored_s: float


def is_excusable(message: Message, set_back: Iterable[SetBack]) -> bool:
    """Whether nothing that is left knows that it was ever accepted."""
    return any(
        each.machine == message.sender
        and each.copied_s < message.accepted_s < each.restored_s
        and not 0 < message.stored_s < each.restored_s
        for each in set_back
    )


def is_asked_again(message: Message, set_back: Iterable[SetBack]) -> bool:
    """Whether its sender's machine may have forgotten it before it was asked for it again."""
    return any(
        each.machine == message.sender and message.begun_s < each.restored_s < message.accepted_s
        for each in set_back
    )


@dataclass
class Verdict:
    """What is wrong, each by its name; and how many are excused."""

    lost: list[str]
    twice: list[str]
    swapped: list[str]
    unknown: list[str]
    """What nobody said."""
    excused: int = 0
    """Not there."""
    again: int = 0
    """There twice, and asked for again of a machine that had forgotten it."""

    @property
    def problems(self) -> list[str]:
        """What is wrong, as sentences."""
        return [
            f"{what}: {', '.join(found[:5])}{' …' if len(found) > 5 else ''}"
            for what, found in (
                ("lost", self.lost), ("twice", self.twice), ("out of order", self.swapped),
                ("said by nobody", self.unknown),
            ) if found
        ]  # fmt: skip


def judge(
    said: Collection[Message],
    inboxes: Mapping[str, Sequence[str]],
    set_back: Collection[SetBack] = (),
) -> Verdict:
    """What is wrong with these inboxes: the texts in each, the oldest first."""
    verdict = Verdict([], [], [], [])
    known = {(m.receiver, m.text): m for m in said}
    for receiver, texts in inboxes.items():
        last: dict[str, int] = {}
        for text, count in Counter(texts).items():
            if (message := known.get((receiver, text))) is None:
                verdict.unknown.append(f"{text!r} at {receiver}")
                continue
            if count == 2 and is_asked_again(message, set_back):
                verdict.again += 1
            elif count > 1:
                verdict.twice.append(text)
            if message.number < last.get(message.sender, 0):
                verdict.swapped.append(text)
            last[message.sender] = max(message.number, last.get(message.sender, 0))
    there = {receiver: set(texts) for receiver, texts in inboxes.items()}
    for (receiver, text), message in known.items():
        if message.accepted_s and receiver in inboxes and text not in there[receiver]:
            if is_excusable(message, set_back):
                verdict.excused += 1
            else:
                verdict.lost.append(text)
    return verdict


def quantiles_ms(said: Iterable[Message]) -> tuple[float, float, float]:
    """The median, the 99th in a hundred and the worst time until a message had arrived."""
    took = sorted((m.arrived_s - m.begun_s) * 1000 for m in said if m.arrived_s)
    if not took:
        return 0.0, 0.0, 0.0
    return took[len(took) // 2], took[min(len(took) - 1, len(took) * 99 // 100)], took[-1]
