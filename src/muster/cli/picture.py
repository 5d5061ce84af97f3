"""A run as lines of a terminal: its head, a line for each phase, and tasks as far as there is room.

Rule 1: the same run, width and height give the same lines; none is wider than the terminal.
Rule 2: what is narrow loses columns, what is low loses lines: first those of what is over, then of
what waits; how many are not shown is said.
Rule 3: a state is a word; colour and signs beyond ASCII only repeat what is there.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from muster.cli.run_progress import RunProgress, answer, said
from muster.cli.show.task import WAITS_FOR_YOU, Slot
from muster.cli.text import clean, cut, paint, seconds, short, span, state, width_of

LABEL_COLUMNS_MAX: Final = 28
_NOTE_COLUMNS_MIN: Final = 20
_OVER: Final = frozenset({"done", "skipped", "cancelled"})
_IDLE: Final = frozenset({"waiting", "queued"})
# Of several tasks the first of these words that is true of one is true of the phase.
_ORDER: Final = (
    WAITS_FOR_YOU, "running", "checking", "fetching", "delivering", "retrying", "taken over",
    "queued", "failed", "lost", "cancelled", "done", "rejected",
)  # fmt: skip


class Row(NamedTuple):
    """A phase or one task of it."""

    label: str
    state: str
    machine: str = ""
    agent: str = ""
    time: str = ""
    heard: str = ""
    note: str = ""


class Line(NamedTuple):
    """What may become a row: how it stands, how soon it is left out, and what makes it one.

    Of ten thousand tasks a terminal shows thirty: the others are counted and nothing else.
    """

    state: str
    rank: int
    row: Callable[[], Row]


class Seen:
    """How each task and each phase stands at this moment, looked up once."""

    def __init__(self, progress: RunProgress) -> None:
        self.progress = progress
        self.words = {slot: progress.word(slot) for slot in progress.tasks}
        # The tasks of each phase, in the order of the spec.
        self.phases: dict[str, list[Slot]] = {name: [] for name in progress.head.get("phases", ())}
        for slot in progress.tasks:
            self.phases.setdefault(slot[0], []).append(slot)
        self.states = {name: self._state(name, slots) for name, slots in self.phases.items()}

    def spec(self, name: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.progress.head.get("phases", {}).get(name, {})
        return found

    def _state(self, name: str, slots: Sequence[Slot]) -> str:
        """The one word for a phase."""
        words = {self.words[slot] for slot in slots}
        if "done" in words and self.spec(name).get("many") == "race":
            return "done"
        return next((word for word in _ORDER if word in words), next(iter(words), "waiting"))


def picture(progress: RunProgress, width: int, height: int) -> list[str]:
    """The lines of this moment."""
    seen = Seen(progress)
    found = [line for name in seen.phases for line in _lines(seen, name)]
    asks = _asks(seen, width)
    chosen, hidden = _fitting(found, max(1, height - 3 - bool(progress.note) - bool(asks)))
    rows = [line.row() for line in chosen]
    lines = [cut(_head(seen), width), *_table(rows, width)]
    if hidden:
        counts = ", ".join(f"{count} {word}" for word, count in Counter(hidden).most_common())
        lines.append(cut(f"  and {len(hidden)} more: {counts}", width))
    if progress.note:
        lines.append(cut(clean(progress.note), width))
    if asks:
        # Nobody can type what is cut off: it has a line of its own.
        lines.append(paint(cut(asks, width), "bold"))
    hint = (
        f"Ctrl-C leaves it running; `muster cancel {short(progress.head.get('run', ''))}` ends it"
    )
    return [*lines, paint(cut(hint, width), "dim")] if progress.head else lines


def _asks(seen: Seen, width: int) -> str:
    """What is to be typed where a phase waits for a person, "" where none does."""
    slots = [slot for slot, word in seen.words.items() if word == WAITS_FOR_YOU]
    if not slots:
        return ""
    change, run = seen.progress.tasks[slots[0]], str(seen.progress.head.get("run", ""))
    more = f"  (and {len(slots) - 1} more: `muster tasks`)" if len(slots) > 1 else ""
    named, by_id = (f"answer: {answer(change, of)}" for of in (run, ""))
    return next((text for text in (f"{named}{more}", named) if width_of(text) <= width), by_id)


def _head(seen: Seen) -> str:
    states = Counter(seen.states.values())
    parts = [f"{states['done']} of {len(seen.phases)} phases done"]
    parts += [f"{n} {word}" for word, n in states.items() if word not in _OVER | _IDLE]
    head, elapsed = seen.progress.head, seen.progress.elapsed_ms()
    name = f"{clean(head.get('name'))}  {short(head.get('run', ''))}  " if head else ""
    return f"{name}{seconds(elapsed) + '  ' if elapsed is not None else ''}{', '.join(parts)}"


def _lines(seen: Seen, name: str) -> Iterator[Line]:
    slots, progress, word = seen.phases[name], seen.progress, seen.states[name]
    rank = _rank(word)
    if not slots or not progress.tasks[slots[0]].get("task"):
        yield Line(word, rank, partial(_taskless, seen, name))
    elif len(slots) == 1 and not slots[0][1]:
        yield Line(word, rank, partial(_row, seen, slots[0], clean(name)))
    else:
        yield Line(word, rank, partial(_folded, seen, name))
        for slot in slots:
            word = seen.words[slot]
            # Which of many are done or wait is in their phase's own line.
            rank = _rank(word) + 2 if _rank(word) else 1
            yield Line(word, rank, partial(_row, seen, slot, f"  {clean(slot[1])}"))


def _taskless(seen: Seen, name: str) -> Row:
    reasons = (clean(seen.progress.tasks[slot].get("reason"), 200) for slot in seen.phases[name])
    return Row(clean(name), seen.states[name], note=next(reasons, "") or _awaits(seen, name))


def _folded(seen: Seen, name: str) -> Row:
    """The line of a phase with several tasks."""
    slots = seen.phases[name]
    counts = Counter(seen.words[slot] for slot in slots)
    first = f"{counts.pop('done', 0)} of {len(slots)} done"
    note = ", ".join([first, *(f"{n} {word}" for word, n in counts.items())])
    return Row(clean(name), seen.states[name], note=note)


def _row(seen: Seen, slot: Slot, label: str) -> Row:
    progress = seen.progress
    change = progress.tasks[slot]
    took, heard = progress.took_ms(slot), progress.heard_ms_ago(slot)
    tries = int(change.get("tries") or 0) + int(change.get("losses") or 0)
    notes = [f"attempt {tries + 1}"] if tries and change["state"] == "leased" else []
    notes += [progress.follows(slot)]
    if change["state"] in ("leased", "queued"):
        notes += [progress.left.get(slot, ""), progress.waits.get(slot, "")]
    if change["state"] not in ("leased", "queued") or slot not in progress.left:
        notes += [said(change)]
    return Row(
        label,
        seen.words[slot],
        clean(change.get("machine")) if change["state"] != "queued" else "",
        clean(change.get("agent")) if change["state"] != "queued" else "",
        "" if took is None else span(took) if change["state"] != "leased" else seconds(took),
        "" if heard is None else f"{seconds(heard)} ago",
        "; ".join(note for note in notes if note),
    )


def _awaits(seen: Seen, name: str) -> str:
    """The phases that one waits for, without those that are done."""
    after = seen.spec(name).get("after", ())
    left = [before for before in after if seen.states.get(before) != "done"]
    return f"for {', '.join(map(clean, left))}" if left else ""


def _rank(word: str) -> int:
    return 4 if word in _OVER else 3 if word == "waiting" else 2 if word in _IDLE else 0


def _fitting(lines: Sequence[Line], most: int) -> tuple[list[Line], list[str]]:
    """Those for which there is room, in order, and the states of the others."""
    if len(lines) <= most:
        return list(lines), []
    # One line says what is not shown.
    ranked = sorted(range(len(lines)), key=lambda at: (lines[at].rank, at))
    kept = set(ranked[: max(0, most - 1)])
    shown = [line for at, line in enumerate(lines) if at in kept]
    return shown, [line.state for at, line in enumerate(lines) if at not in kept]


def _table(rows: Sequence[Row], width: int) -> Iterator[str]:
    """Columns as wide as they need to be; where there is no room for what is said of a task, the
    agent goes first, then the last sign of life, the machine, and the time.
    """
    label = min(
        max((width_of(row.label) for row in rows), default=0), LABEL_COLUMNS_MAX, width // 3
    )
    names = ["state", "machine", "agent", "time", "heard"]
    widths = {name: max((width_of(getattr(r, name)) for r in rows), default=0) for name in names}
    for name in ("agent", "heard", "machine", "time"):
        if width - _taken(label, widths) < _NOTE_COLUMNS_MIN:
            widths[name] = 0
    widths["state"] = max(1, min(widths["state"], width - label - 2))
    left = width - _taken(label, widths)
    for row in rows:
        line = _pad(cut(row.label, label), label)
        for name in names:
            if widths[name]:
                text = cut(getattr(row, name), widths[name])
                shown = state(text) if name == "state" else text
                line += f"  {shown}{' ' * (widths[name] - width_of(text))}"
        # The last column of a terminal is left free: some begin a new line there.
        note = cut(row.note, left - 3) if left > 4 else ""
        yield f"{line}  {note}".rstrip() if note else line.rstrip()


def _taken(label: int, widths: dict[str, int]) -> int:
    return label + sum(2 + each for each in widths.values() if each)


def _pad(text: str, width: int) -> str:
    return text + " " * (width - width_of(text))
