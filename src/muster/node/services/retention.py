"""Which versions of context files keep their bytes: what nobody needs any more is let go, here.

Rule 1: a version goes when something that counts is over it since `CONTEXT_KEPT_MS`, the newest
`CONTEXT_KEPT_NEWEST` of its file are newer, its file is in no conflict, and the disk of each
machine that has the folder said that it needs it no more (`context.passed`).
Rule 2: only the bytes go: what a version was over, and when, counts as before (`Store.let_go`).
Rule 3: what it was over, and which bytes it had, is said before by its own machine apart from it
(`context.replaced`): whoever joins gets no body of it, would take for current what it replaced, and
for news a copy of it that lies on its disk.
Rule 4: of each machine the first version of a file stays, which says since when there is that file,
and the newest one, which may count again where another machine may write no more.
Rule 5: a step looks at a bounded number, however many there are; all are looked through once a day.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from muster.context.fold import AT, PASSED, AtRow, PassedRow, VersionRow
from muster.context.kinds import ContextPassed, ContextPut, ContextReplaced, LetGo, rest_of
from muster.limits import (
    CLOCK_AHEAD_MS_MAX,
    CONTEXT_KEPT_MS,
    CONTEXT_KEPT_NEWEST,
    CONTEXT_LET_GO_IN_STEP_MAX,
    CONTEXT_LET_GO_LOOKED_MAX,
    CONTEXT_LET_GO_READ_MAX,
    CONTEXT_REPLACED_MAX,
)
from muster.log import canon
from muster.log.entry import EntryId
from muster.log.fold import body_or_none
from muster.log.stream import MachineId
from muster.node import event as ev
from muster.node.part import Part
from muster.node.services.context import FilesAnswered, Place
from muster.node.services.ended import FoldersKept, end_others, is_ended
from muster.node.services.heads import WRITE, Heads, may_in_folder
from muster.node.services.past_versions import Disk, Judgment, stamp
from muster.store.sqlite import as_int, as_text

if TYPE_CHECKING:
    from muster.node.core import Core

# A start has other things to do; and what is let go today may as well go tomorrow.
_FIRST_MS: Final = 60_000
EVERY_MS: Final = 24 * 3_600_000
# To let one go, and to ask what counts of a file, costs as much as to look at so many.
_LET_GO_COST: Final = CONTEXT_LET_GO_LOOKED_MAX // CONTEXT_LET_GO_IN_STEP_MAX
_FILE_COST: Final = CONTEXT_LET_GO_LOOKED_MAX // 4
_PLACE_COST: Final = CONTEXT_LET_GO_LOOKED_MAX // 8
_NAMES_COST: Final = CONTEXT_LET_GO_LOOKED_MAX // 16
# So many rows that are read are one that is looked at.
_READ_COST: Final = CONTEXT_LET_GO_READ_MAX // CONTEXT_LET_GO_LOOKED_MAX
_FOLDERS = "select folder from context_version where folder > ?1 order by folder limit 1"
_NAMES = """
select folded, count(*) from (
  select folded from context_version where folder = ?1 and folded > ?2 order by folded limit ?3
) group by folded order by folded
"""
# Rows in which there are several names, however many versions one has.
_NAMES_PAGE: Final = 4 * CONTEXT_KEPT_NEWEST


class AskReplaced(ev.Event, frozen=True):
    """Which of these versions something is over; and how much is here of each stream."""

    number: int
    place: Place
    ids: tuple[EntryId, ...] = ()


class WritePassed(ev.Event, frozen=True):
    """What this machine's disk needs no more of a folder (`ContextPassed`)."""

    place: Place
    upto: Mapping[str, int]
    kept: tuple[EntryId, ...] = ()
    ended: bool = False


class Retention(Part):
    """See the rules at the top of this file."""

    name = "retention"
    effects = (FilesAnswered, ev.Again)

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._due_ms = core.now.boot_ms + _FIRST_MS
        # How far the wall clock is from that of the machine's start, and since when it is so.
        self._offset_ms, self._since_ms = core.now.wall_ms - core.now.boot_ms, core.now.boot_ms
        # Where the present looking through is; each turn takes it further.
        self._walk: Iterator[int] | None = None
        # The folders that are on our disk; None while that was not said.
        self._here: frozenset[Place] | None = None
        core.on(AskReplaced, self._asked)
        core.on(WritePassed, self._write)
        core.on(FoldersKept, self._keep)
        core.on(ev.HeadConfirmed, lambda _: end_others(core, self._here))
        core.on(ev.Turn, lambda _: self._go_on())

    # --- what the watcher asks and says -------------------------------------------------------

    def _asked(self, event: AskReplaced) -> None:
        core = self._core
        heads = Heads(core, event.place.scope, event.place.folder)
        ids = tuple(heads.replaced(event.ids))
        core.do(FilesAnswered(event.number, ids=ids, settled=core.settled, cut=heads.passed()))

    def _write(self, event: WritePassed) -> None:
        core, place = self._core, event.place
        own = core.membership.own(place.scope)
        at = core.tables.row(AT, own, place.folder)
        said = core.tables.row(PASSED, own, place.folder)
        if not core.settled or at is None:
            # Where it has the folder no more, that is said when it may be.
            return
        if not event.ended and not event.upto and (said is None or not (said.upto or said.ended)):
            # Whoever said nothing needs everything.
            return
        kept = sorted(id.hex() for id in event.kept)
        body = ContextPassed(place.folder, dict(event.upto), kept, 1 if event.ended else 0)
        if said is not None and said.at_ms > at.at_ms - event.ended:
            was = bool(said.ended), bool(said.upto), said.kept
            if was == (event.ended, bool(event.upto), " ".join(kept)):
                # Its disk is as it was: the same would be said again.
                return
        core.append_body(body, scope=place.scope)

    def _keep(self, event: FoldersKept) -> None:
        self._here = event.places
        end_others(self._core, self._here)

    # --- when ---------------------------------------------------------------------------------

    def tick(self) -> None:
        """Begin to look all of them through, once a day."""
        self._look_at_clock()
        if self._walk is None and self._core.now.boot_ms >= self._due_ms:
            self._due_ms = self._core.now.boot_ms + EVERY_MS
            self._walk = self._all()
            self._core.do(ev.Again())

    def _look_at_clock(self) -> None:
        now = self._core.now
        offset_ms = now.wall_ms - now.boot_ms
        if abs(offset_ms - self._offset_ms) > CLOCK_AHEAD_MS_MAX:
            self._offset_ms, self._since_ms = offset_ms, now.boot_ms

    def _sure_ms(self, place: Place) -> int:
        """The time that it is at least, whatever the wall clock says since less than a day.

        What is let go on the word of a clock that stands in another month is gone. So much may
        others say whose clocks are their own: none of them follows one that is far ahead.
        """
        core = self._core
        if core.now.boot_ms - self._since_ms >= EVERY_MS:
            return core.now.wall_ms
        at = [(row.stream, row.at_ms) for row in core.tables.rows(AT, folder=place.folder)]
        at += [(row.stream, row.at_ms) for row in core.tables.rows(PASSED, folder=place.folder)]
        others = [at_ms for stream, at_ms in at if stream.machine != core.machine]
        return min(core.now.wall_ms, max(others, default=0))

    def _go_on(self) -> None:
        """As much of it as a step may, once in a step."""
        core, walk = self._core, self._walk
        if walk is None or Retention in core.of_step or core.store.waits or not core.settled:
            return
        core.of_step[Retention] = None
        # What fails ends it until tomorrow: the others of today go then.
        self._walk, room = None, CONTEXT_LET_GO_LOOKED_MAX
        for cost in walk:
            room -= cost
            if room <= 0:
                self._walk = walk
                core.do(ev.Again())
                return

    # --- what goes ----------------------------------------------------------------------------

    def _all(self) -> Iterator[int]:
        """Look all of them through, and say after each bit of it what it cost."""
        core, folder = self._core, ""
        while found := core.tables.query(_FOLDERS, (folder,)):
            folder = as_text(found[0][0])
            yield 1
            # Whoever is in the scope may write of folders that nobody has.
            for scope in sorted({stream.scope for stream in core.log.streams()}):
                place = Place(scope, folder)
                is_empty = Heads(core, scope, folder).is_empty()
                yield _PLACE_COST
                if not is_empty and self._disks(place) is not None:
                    yield from self._of_place(place)

    def _of_place(self, place: Place) -> Iterator[int]:
        """What goes of the files of a folder."""
        query, name = self._core.tables.query, ""
        while found := query(_NAMES, (place.folder, name, _NAMES_PAGE)):
            counted = [(as_text(each), as_int(count)) for each, count in found]
            if len(counted) > 1 and sum(count for _, count in counted) == _NAMES_PAGE:
                # There may be more of the last one.
                counted.pop()
            name = counted[-1][0]
            yield _NAMES_COST
            for each, count in counted:
                if count > CONTEXT_KEPT_NEWEST:
                    yield from self._of_file(place, each)

    def _disks(self, place: Place) -> list[Disk] | None:
        """The disks that count; None where one of them has said nothing yet, and without any.

        One whose machine may not write is made of nothing that it could write over.
        """
        core, found = self._core, []
        own = core.membership.own(place.scope)
        every = core.tables.rows(PASSED, folder=place.folder)
        last: dict[MachineId, PassedRow] = {}
        for row in sorted(every, key=lambda row: row.at_ms):
            if row.stream.scope == place.scope:
                last[row.stream.machine] = row
        has = dict[MachineId, list[AtRow]]()
        for at in core.tables.rows(AT, folder=place.folder):
            if at.stream.scope == place.scope:
                has.setdefault(at.stream.machine, []).append(at)
        if not has:
            return None
        for machine, ats in has.items():
            if not may_in_folder(core, WRITE, machine, place.folder):
                continue
            here = machine in core.roster.machines and core.membership.may_hold(own, machine)
            said = last.get(machine)
            if said is not None and said.ended:
                # It has it again, where it said so later, and then it said nothing of it yet.
                here, said = here and not is_ended(ats, [said]), None
            if not here:
                continue
            if said is None:
                return None
            found.append(Disk(said.sizes, frozenset(said.kept.split())))
        return found

    def _of_file(self, place: Place, name: str) -> Iterator[int]:
        """What goes of the file at a path, folded."""
        streams = [s for s in self._core.log.streams() if s.scope == place.scope]
        since: tuple[int, int, EntryId] | None = None
        for stream in streams:
            after, first = -1, True
            while True:
                # Others may have done anything since the last step. Of the newest there are more.
                look = self._look(place)
                path = look.only_content(name) if look is not None else None
                since = since or (look.newest(name) if look is not None else None)
                if look is None or path is None or since is None:
                    yield _FILE_COST
                    return
                rows = [] if stream not in look.heads.streams else look.page(name, stream, after)
                go = list[VersionRow]()
                is_last = not rows or stamp(rows[-1]) >= since
                for n, row in enumerate(rows):
                    is_much = n and look.read > CONTEXT_LET_GO_READ_MAX
                    if is_much or len(go) == CONTEXT_LET_GO_IN_STEP_MAX:
                        is_last = False
                        break
                    after = row.seq
                    is_own = row.path == path and stamp(row) < since
                    # Rule 4. What counts is not past, whatever is said to be over it.
                    stays = row.seq == look.last(name, path, stream) or row.id in look.counting
                    stays, first = stays or (first and is_own), first and not is_own
                    if is_own and not stays and look.is_past(row, since):
                        go.append(row)
                self._let_go(look, place, path, go)
                looked = len(rows) + len(go) * _LET_GO_COST + look.read // _READ_COST
                yield _FILE_COST + looked
                if is_last:
                    break

    def _look(self, place: Place) -> Judgment | None:
        disks = self._disks(place)
        until_ms = self._sure_ms(place) - CONTEXT_KEPT_MS
        return Judgment(self._core, place, disks, until_ms) if disks is not None else None

    def _let_go(self, look: Judgment, place: Place, path: str, rows: list[VersionRow]) -> None:
        """Let the bytes of these versions go, of the others' where rule 3 holds."""
        core, go = self._core, list[VersionRow]()
        over, told = set[EntryId](), list[LetGo]()
        for row in rows:
            missing, is_told = look.heads.not_said_again(row), look.heads.is_told(row)
            if row.stream.machine == core.machine:
                over.update(missing)
                if not is_told:
                    told.append(LetGo(row.id.hex(), row.sha256.hex(), 1 if row.x else 0))
            elif missing or not is_told:
                continue
            go.append(row)
        every = [id.hex() for id in sorted(over)]
        for at in range(0, max(len(every), len(told)), CONTEXT_REPLACED_MAX):
            upto = at + CONTEXT_REPLACED_MAX
            said = ContextReplaced(place.folder, path, every[at:upto], told[at:upto])
            core.append_body(said, scope=place.scope)
        for row in go:
            body = body_or_none(core.log.entry(row.id), ContextPut)
            if body is not None:
                rest = canon.encode(rest_of(body, row.sha256, row.size))
                core.store.let_go(row.stream, row.seq, rest)
