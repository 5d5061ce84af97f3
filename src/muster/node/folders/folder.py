"""One context folder, kept the same as what counts: the work of the one write thread.

Rule 1: before a file is written here, it is looked at: what changed and nobody saw becomes a
version first, over what the file was made of.
Rule 2: one version of a path at a time: the next one needs its id to be over.
Rule 3: a path that goes to and fro between two contents has two masters: it is left alone.
Rule 4: one path that cannot be read, written or recorded is told, and keeps no other one waiting;
what cannot be done now is tried again ever later.
Rule 5: where this machine may not write, what is changed here is a version all the same, and stays
until something else comes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from muster.context.ignore import IGNORE_FILE
from muster.context.state import root_of
from muster.errors import Unreachable
from muster.log.entry import EntryId
from muster.node.folders.basis import Base, Basis
from muster.node.folders.below import ASKED_MAX, files_below, freed, in_parts, to_look_below
from muster.node.folders.disk import unread
from muster.node.folders.holders import Holders
from muster.node.folders.known import as_known, is_there, known_base, stays
from muster.node.folders.leftout import LeftOut
from muster.node.folders.merger import Merger
from muster.node.folders.outside import Outside
from muster.node.folders.pauses import Flips, Pauses
from muster.node.folders.reader import FRESH_MS, Change, Reader, Soon, Unfit
from muster.node.folders.recording import Recording
from muster.node.folders.twins import Twins
from muster.node.folders.writer import Plan, Writer, plan
from muster.node.services.context import NOT_HERE, Place, Wanted

# Reasons that are kept: whoever may not write there fills nobody's memory.
LEFT_MAX: Final = 1_000
_NOBODY: Final = frozenset[EntryId]()


class Folder:
    """See the rules at the top of this file. Each public method raises: MusterError, OSError."""

    def __init__(
        self, place: Place, reader: Reader, basis: Basis, outside: Outside,
        only: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.place, self._disk, self._reader = place, reader.disk, reader
        self._basis, self._outside = basis, outside
        self.bases = basis.bases(place.folder)
        self._ignore = LeftOut(reader, only)
        self.writer = Writer(
            place.folder, reader, basis, self.bases, self._put_late, ignore=self._ignore
        )
        # What is not as others have it, and why; by path.
        self.left: dict[str, str] = {}
        self.conflicts: set[str] = set()
        self.stopped: set[str] = set()
        self._may_write = True
        # Whether the fleet leaves out what nobody here knows yet: until then nothing is recorded.
        self._list_waits = False
        self.holders = Holders(self.bases)
        self._twins = Twins(self.bases)
        self._recording = Recording(self._begin_write, self.left)
        self._merger = Merger(place, outside)
        self._flips, self._pauses = Flips(), Pauses()

    def begin(self) -> None:
        """Take up what a crash left half done, then look at everything."""
        if not self._read_ignore():
            raise Unreachable(f"{IGNORE_FILE} is being written just now: it is read again soon")
        left = self.writer.take_up()
        self.writer.remove_unfinished(self._ignore.leaves_out)
        self.rescan(everything=True)
        self.left |= left

    def look(self, hints: Iterable[str]) -> None:
        """Something may have happened at these paths; "" is the folder itself."""
        every = set(hints)
        if IGNORE_FILE in every:
            self._read_ignore()
            self.rescan(everything=True)
            return
        paths = every - {""}
        for hint in to_look_below(self._disk, every, self._ignore.leaves_out):
            paths |= self._below(hint)
        # Others have the first of them while the last ones are read.
        try:
            for part in in_parts(paths):
                self._begin_record(self._changes(part, settle=False)[0])
        finally:
            self._recording.end()

    def settle(self, paths: Iterable[str], *, adopt: bool = False) -> None:
        """Bring these files to what counts now; changes of theirs that nobody saw come first.

        With `adopt` a file that is what counts, or what was written before a crash, is no change.
        """
        every = {path for path in paths if not self._ignore.leaves_out(path)}
        parts = in_parts(every - {IGNORE_FILE})
        # What is left out holds for all that is beside it: before any of that is recorded.
        for asked in [[IGNORE_FILE], *parts] if IGNORE_FILE in every else parts:
            part = asked
            # What was merged, or met, counts a moment later.
            for _ in range(3):
                changes, quiet = self._changes(part, settle=True)
                # Others may have brought the same file by another way.
                fresh = [each for each in changes if adopt or each.path not in self.bases]
                known = [each for each in changes if each not in fresh]
                self._record(known + self._not_known(fresh))
                part = self._bring(self._ask(quiet))
                self._pauses.end(set(quiet).difference(part))
                if not part:
                    break
            else:
                self._again(part, settle=True)

    def rescan(self, *, everything: bool) -> None:
        """Look at every file; with `everything` also at what counts of each."""
        paths = self._below("") | {path for path, base in self.bases.items() if base.signature}
        if everything:
            self.left.clear()
            paths |= set(self._outside.paths(self.place)) | self.bases.keys()
            self.settle(paths, adopt=True)
        else:
            for part in in_parts(paths):
                self._record(self._not_known(self._changes(part, settle=False)[0]))

    def look_at_old(self, name: str) -> bool:
        """The second look at what was replaced; whether there is to be another one."""
        if name not in self.writer.old:
            return False
        path = self.writer.old[name].path
        if self.writer.look_at_old(name):
            self.settle([path])
            return True
        self.writer.forget_old(name)
        if waiting := freed(self._disk, path, self.left):
            self.settle(waiting)
        return False

    @property
    def doubtful(self) -> Mapping[str, str]:
        """Files that look as if they gave a password, or leave out less than was meant; where."""
        return self._reader.doubtful | self._ignore.unread

    @property
    def root(self) -> bytes:
        """What lies on this disk, but for what is left out."""
        there = {
            path: (b.digest, bool(b.signature.x) and self._disk.keeps_x)
            for path, b in self.bases.items()
            if b.signature and not self._ignore.leaves_out(path)
        }
        return root_of(there)

    # --- from the disk --------------------------------------------------------------------------

    def _read_ignore(self) -> bool:
        """Take in what is left out; False where that is to be read again, in a moment."""
        if not (is_sure := self._ignore.read()):
            self._again([IGNORE_FILE], settle=False)
        return is_sure

    def _below(self, path: str) -> set[str]:
        """The files at or below a path, on the disk and as they were."""
        if not path:
            # What it leaves out holds for all that is found beside it.
            self._read_ignore()
        found, left = files_below(self._disk, path, self._ignore.leaves_out)
        self.left |= left
        prefix = f"{path}/" if path else ""
        return found | {
            each for each, b in self.bases.items() if b.signature and each.startswith(prefix)
        }

    def _changes(self, paths: Iterable[str], *, settle: bool) -> tuple[list[Change], list[str]]:
        """What became of files, and of which of them nobody is writing."""
        changes, quiet, soon = list[Change](), list[str](), list[str]()
        if self._ignore.is_stale:
            # It was written, and nobody has told of that yet.
            self._read_ignore()
        for path, found in self._looked(paths):
            if isinstance(found, Soon):
                soon.append(path)
                continue
            if isinstance(found, Unfit):
                self.left[path] = found.why
                continue
            quiet.append(path)
            if found is not None and not self._is_twin(found):
                self.left.pop(path, None)
                changes.append(found)
        if not settle:
            self._pauses.end(quiet)
        self._again(soon, settle=settle)
        return changes, quiet

    def _looked(self, paths: Iterable[str]) -> Iterator[tuple[str, Change | Unfit | Soon | None]]:
        with self._disk.near():
            for path in paths:
                # What is left out may be one that was synced before: it is looked at no more.
                if path in self.stopped or self._ignore.leaves_out(path):
                    continue
                try:
                    yield path, self._reader.look(path, self.bases.get(path))
                except OSError as error:
                    yield path, Unfit(unread(error))

    def _again(self, paths: Iterable[str], *, settle: bool) -> None:
        """Bring these paths once more: in a moment, and ever later the more often that was."""
        for pause_ms, some in self._pauses.next(paths).items():
            if settle and pause_ms > FRESH_MS:
                for path in some:
                    self.left.setdefault(path, "somebody changes it all the time: tried again")
            self._outside.again(self.place, frozenset(some), settle=settle, after_ms=pause_ms)

    def _is_twin(self, change: Change) -> bool:
        if why := self._twins.told(change.path):
            self.left[change.path] = why
        return bool(why)

    def _not_known(self, changes: list[Change]) -> list[Change]:
        """Those of which nothing is known: the others are what they are found to be."""
        asked = {each.path: self._counting(each.path) for each in changes}
        by_path = {each.path: each for each in changes}
        fresh, saved = [], dict[str, Base | None]()
        for at in range(0, len(changes), ASKED_MAX):
            part = dict(list(asked.items())[at : at + ASKED_MAX])
            unknown = {
                path: (by_path[path].digest, by_path[path].said_x)
                for path in part
                if path not in self.bases and by_path[path].signature is not None
            }
            for wanted in self._outside.wanted(self.place, part, unknown)[0]:
                change = by_path[wanted.path]
                base = as_known(change, wanted)
                if base is None:
                    fresh.append(change)
                else:
                    saved[change.path] = base
                    if blob := change.fields.get("blob"):
                        # Whoever was killed after that version was written has no claim yet.
                        self._outside.claim(str(blob), base.holder or min(base.over))
        self._save(saved)
        return fresh

    def _record(self, changes: list[Change]) -> None:
        """Write a version of each file that changed, and keep what it is made of now."""
        self._begin_record(changes)
        self._recording.end()

    def _begin_record(self, changes: list[Change]) -> None:
        """As `_record`; the last of them are being written yet, until that ends."""
        self._recording.end()
        todo = []
        saved = dict[str, Base | None]()
        for each in changes:
            base = self.bases.get(each.path)
            if base and (base.digest, base.said_x) == (each.digest, each.said_x) and base.over:
                # It was touched, and is what it was.
                saved[each.path] = base._replace(signature=each.signature)
            elif not self._is_twin(each) and not self._flipped(each):
                todo.append(each)
        self._save(saved)
        for at in range(0, len(todo), ASKED_MAX):
            self._recording.begin(todo[at : at + ASKED_MAX])

    def _begin_write(self, changes: list[Change]) -> Callable[[], None]:
        if self._list_waits and any(each.path != IGNORE_FILE for each in changes):
            raise Unreachable(f"what the fleet leaves out ({IGNORE_FILE}): {NOT_HERE}")
        bodies = [self.holders.body(self.place, each, self._over(each.path)) for each in changes]
        answer = self._outside.begin_write(self.place, bodies)

        def written() -> None:
            ids, self._may_write = answer()
            saved = dict[str, Base | None]()
            for each, id, body in zip(changes, ids, bodies, strict=True):
                behind = None if self._may_write else self._counting(each.path)
                holder = EntryId(bytes.fromhex(body.same)) if body.same else id
                saved[each.path] = Base(
                    each.signature, each.digest, each.said_x, frozenset({id}), behind, holder
                )
            self._save(saved)

        return written

    def _flipped(self, change: Change) -> bool:
        """Whether a file got back what was replaced there, once too often (rule 3)."""
        if not self._flips.is_one(change.path, change.digest):
            return False
        self.stopped.add(change.path)
        self.left[change.path] = (
            "something else writes it, to and fro: another program syncs this folder; end that, "
            "then `muster context map` it again"
        )
        return True

    def _put_late(self, path: str, change: Change, over: frozenset[EntryId]) -> EntryId:
        """A version of what was found where nobody expected it; the file itself is another."""
        body = self.holders.body(self.place, change._replace(path=path), over)
        (id,), _ = self._outside.begin_write(self.place, [body])()
        return id

    # --- to the disk ----------------------------------------------------------------------------

    def _ask(self, paths: Iterable[str]) -> tuple[Wanted, ...]:
        if not (asked := {path: self._counting(path) for path in paths}):
            return ()
        found, self._may_write = self._outside.wanted(self.place, asked, {})
        return found

    def _bring(self, found: tuple[Wanted, ...]) -> list[str]:
        """Do what is wanted; the paths to look at once more."""
        plans, again = list[Plan](), list[str]()
        saved = dict[str, Base | None]()
        for wanted in found:
            path = wanted.path
            if wanted.why or path not in self.stopped:
                self._tell(wanted)
            if path == IGNORE_FILE:
                self._list_waits = wanted.why == NOT_HERE
            if wanted.conflict:
                if self._merge(wanted):
                    again.append(path)
                    continue
                self.conflicts.add(path)
            else:
                self.conflicts.discard(path)
            base = self.bases.get(path)
            if wanted.as_is or path in self.stopped or stays(base, wanted):
                continue
            if is_there(base, wanted, lambda: self._disk.keeps_x):
                saved[path] = known_base(base, wanted)
                continue
            chunks = None
            if wanted.content is not None:
                chunks = self._outside.bytes_at(self.place, path, wanted.content)
                if chunks is None:
                    self.left[path] = NOT_HERE
                    self._list_waits |= path == IGNORE_FILE
                    continue
            if base is not None and base.signature is not None:
                self._flips.replaces(path, base.digest)
            plans.append(plan(wanted, chunks))
        self._save(saved)
        for path, why in self.writer.carry_out(plans).items():
            if why:
                self.left[path] = why
            else:
                again.append(path)
        for each in plans:
            self._index(each.wanted.path)
            if each.chunks is None:
                again += freed(self._disk, each.wanted.path, self.left)
        if any(each.wanted.path == IGNORE_FILE for each in plans):
            self._ignore.read(ours=True)
            self._again([IGNORE_FILE], settle=False)
        return again

    def _tell(self, wanted: Wanted) -> None:
        if not wanted.why:
            self.left.pop(wanted.path, None)
        elif len(self.left) < LEFT_MAX or wanted.path in self.bases:
            self.left[wanted.path] = wanted.why

    def _merge(self, wanted: Wanted) -> bool:
        """Whether two versions were made one: it counts from now on."""
        if (made := self._merger.merged(wanted) if self._may_write else None) is not None:
            self._put_late(wanted.path, made, wanted.merge_over)
        return made is not None

    # --- what files are made of -----------------------------------------------------------------

    def _over(self, path: str) -> frozenset[EntryId]:
        return base.over if (base := self.bases.get(path)) is not None else _NOBODY

    def _counting(self, path: str) -> frozenset[EntryId]:
        return base.counting if (base := self.bases.get(path)) is not None else _NOBODY

    def _save(self, bases: Mapping[str, Base | None]) -> None:
        changed = {path: b for path, b in bases.items() if self.bases.get(path) != b}
        for path, base in changed.items():
            if base is None:
                self.bases.pop(path, None)
            else:
                self.bases[path] = base
            self._index(path)
        if changed:
            self._basis.save(self.place.folder, changed)

    def _index(self, path: str) -> None:
        self.holders.look(path)
        self._twins.look(path)
