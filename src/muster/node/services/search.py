"""What was written here, found by its words: the index of texts kept up with the log.

Rule 1: it is brought up to date a page at a time, with each tick and in turns before each question,
and only with what was committed: whoever wrote something finds it, and no step is long for it.
Rule 2: the index finds places; what counts there is found out when it is asked (recalled.py).
Rule 3: an index that fails is made anew and counted, and fails nothing but the question that needed
it. A machine goes on without one.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from muster.errors import Broken, Exhausted
from muster.limits import INDEX_PAGE_BYTES, INDEX_PAGE_ENTRIES
from muster.node import event as ev
from muster.node.counter import DECLARED, labelled
from muster.node.guard import OURS
from muster.node.part import Part
from muster.node.services.documents import (
    ERASURE,
    KINDS,
    MEMORY,
    document,
    entombed,
    erased,
    overtaken,
    replaced,
)
from muster.node.services.erasure import BodyErased
from muster.node.verb import Turns
from muster.store.index import ABSENT, Document, Page, TextIndex
from muster.store.schema import SEQ_MASK
from muster.store.sqlite import MEMORY as IN_MEMORY

if TYPE_CHECKING:
    from muster.log.entry import Entry
    from muster.node.core import Core

DECLARED[__name__] = {
    "index-made-anew-<why>": "The index of texts was gone, damaged or another's; it was made anew.",
    "index-failed": "The index of texts could not be written; the next look tries again.",
}

T = TypeVar("T")

# Somebody who keeps damaging it keeps nobody waiting.
_MADE_ANEW_MAX: Final = 3
# A disk that refuses is asked again after so long.
_PAUSE_MS: Final = 30_000
# Rows said to be erased that are looked at with each tick.
_DOUBTED_PER_TICK: Final = 16
# A setting of this machine: it had an index once.
_HAD: Final = "index"


class Search(Part):
    """The index of this machine."""

    name = "search"
    effects = (BodyErased,)

    def __init__(self, core: "Core") -> None:
        self._core = core
        self.index = TextIndex(str(core.settings.get("index", IN_MEMORY)))
        # Up to which admission number the log is committed.
        self._committed = 0
        self._again_ms = 0
        self._doubted = -1
        core.on(ev.Committed, self._on_committed)

    def _on_committed(self, _event: ev.Committed) -> None:
        self._committed = self._core.log.admissions

    @property
    def needs_tick(self) -> bool:
        behind = self.index.cursor < self._committed
        return behind and self._core.now.boot_ms >= self._again_ms

    def tick(self) -> None:
        """Take in a page of what was committed."""
        if self._core.now.boot_ms < self._again_ms:
            return
        try:
            self.advance()
            if self.index.has_copies:
                self._core.do(BodyErased())
            if self._core.store.recall(_HAD) is None:
                self._core.store.remember(_HAD, 1)
        except (Broken, Exhausted):
            self._check_log()
            self._core.counters["index-failed"] += 1
            self._again_ms = self._core.now.boot_ms + _PAUSE_MS

    def answered(self, ask: Callable[[], Turns[T]]) -> Turns[T]:
        """What `ask` finds when all that was committed is taken in. Raises: Broken, Exhausted."""
        for left in (1, 0):
            yield from self.whole()
            try:
                return (yield from ask())
            except Broken:
                self._check_log()
                self.damaged()
                if not left:
                    raise
        raise AssertionError("the last time ends it")

    def now(self, ask: Callable[[], T], without: T) -> T:
        """What `ask` finds of what was taken in so far; `without` where the index fails it."""
        try:
            self.advance()
            return ask()
        except (Broken, Exhausted):
            self._check_log()
            self._core.counters["index-failed"] += 1
            return without

    def whole(self) -> Turns[None]:
        """Take in all that was committed, a page in each turn. Raises: Broken, Exhausted."""
        made = 0
        while True:
            anew, more = self._page()
            made += anew
            if made > _MADE_ANEW_MAX:
                raise Broken(
                    "the index of texts is damaged again and again: `muster doctor` looks at the "
                    "disk of this machine"
                )
            if not more:
                return
            yield

    def advance(self) -> bool:
        """Take in a page; whether there is more. Raises: Broken, Exhausted."""
        return self._page()[1]

    def _page(self) -> tuple[bool, bool]:
        """Take in a page: whether the index was made anew, and whether there is more."""
        why = self.index.open(self._before)
        if why and not (why == ABSENT and self._core.store.recall(_HAD) is None):
            self._core.counters[labelled("index-made-anew", why)] += 1
        try:
            if self.index.cursor < self._committed:
                self.index.put(self._read(self.index.cursor, self._committed))
            elif rows := self._gone():
                at = self.index.cursor
                self.index.put(Page(at, self._before(at - 1), gone=rows))
        except Broken:
            self._check_log()
            self.damaged()
            return True, True
        return bool(why), self.index.cursor < self._committed

    def damaged(self) -> None:
        """The index failed a reader: it is begun again. Raises: Broken, Exhausted."""
        self._core.counters[labelled("index-made-anew", "damaged")] += 1
        self.index.make_anew()

    def _check_log(self) -> None:
        """Raises: Broken where it was the log that failed, which nothing survives."""
        if self._core.store.broken is not None:
            raise Broken(self._core.store.broken)

    def _before(self, number: int) -> bytes:
        """The id of the entry that was admitted under a number, b"" for none."""
        log = self._core.log
        if not 0 <= number < log.admissions:
            return b""
        found, _ = log.admitted_since(number, number + 1, 1)
        return found[0].id if found else b""

    def _read(self, since: int, until: int) -> Page:
        """A page of what the log says from one number to before another."""
        log, core = self._core.log, self._core
        entries, cuts, end = log.admitted_of(KINDS, since, until, INDEX_PAGE_ENTRIES)
        page = _Page(core)
        size = 0
        for number, entry in entries:
            size += len(entry.body or b"")
            if size > INDEX_PAGE_BYTES and number > since:
                end = number
                break
            try:
                page.add(number, entry)
            except OURS as error:
                # One entry that we cannot read must not end the finding of all others.
                core.guard.failed("index", entry.id.hex()[:12], error)
        cut = [(log.place(stream, at), log.place(stream, SEQ_MASK)) for stream, at in cuts]
        return page.whole(end, self._before(end - 1), cut)

    def _gone(self) -> list[int]:
        """Of the rows that are said to be erased some whose words are gone by now."""
        rows = self.index.doubted(self._doubted, _DOUBTED_PER_TICK)
        self._doubted = rows[-1] if len(rows) == _DOUBTED_PER_TICK else -1
        found = [(row, self._core.log.at_place(row)) for row in rows]
        return [row for row, entry in found if entry is None or entry.body is None]


class _Page:
    """A page that is being read."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._documents: dict[int, Document] = {}
        self._versions: list[Entry] = []
        self._replaced: list[int] = []
        # Rows that are said to be erased, and whether their words are there yet.
        self._tombs: list[tuple[int, bool]] = []

    def add(self, number: int, entry: "Entry") -> None:
        core = self._core
        if entry.header.kind == ERASURE:
            target = erased(core, entry)
            if target is not None:
                place = core.log.place(target.stream, target.header.seq)
                self._tombs.append((place, target.body is not None))
        elif (made := document(core, number, entry)) is not None:
            self._documents[made.row] = made
            if made.kind == MEMORY:
                self._versions.append(entry)
                self._replaced += replaced(core, entry)

    def whole(self, end: int, before: bytes, cut: list[tuple[int, int]]) -> Page:
        for row in overtaken(self._core, self._versions):
            self._documents[row] = self._documents[row]._replace(live=False)
        documents = [*self._documents.values()]
        gone, doubted = (
            [place for place, has_words in self._tombs if has_words is wanted]
            for wanted in (False, True)
        )
        doubted += entombed(self._core, self._versions)
        return Page(end, before, documents, self._replaced, gone, doubted, cut)
