"""Files of one context folder, brought to what is wanted: nothing that was there is lost.

Rule 1: what replaces a file, and what is replaced, is written down before it is done: whoever
starts after a crash knows both (basis.py).
Rule 2: what was replaced is looked at, twice: at once, and when whoever had it open has had a
second. What was not expected there becomes a version, over what the file was made of; what cannot
be one (it has a key in it, it is too large) gets its place back.
Rule 3: where something is that nobody expects, nothing is written: it is looked at first.
"""

import contextlib
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from muster.context.path import TEMPORARY
from muster.errors import Broken, NotFound, Unreachable
from muster.log.entry import EntryId
from muster.node.folders.basis import Aim, Base, Basis
from muster.node.folders.disk import OF_PATH, Swapped, temporary_name, unread
from muster.node.folders.leftout import LeftOut
from muster.node.folders.onestep import ASIDE, InTheWay
from muster.node.folders.reader import Change, Reader, Soon, Unfit
from muster.node.folders.signature import Signature
from muster.node.services.context import Wanted

# So many files are made to outlast the power one by one; of more the whole disk is, once.
SYNCED_MAX: Final = 8
# How long a program that had a file open may go on writing into what was replaced.
OLD_S: Final = 1.0

_UNREAD: Final = Signature(0, 0, 0, 0)
# Writes a version of a path, over these: its id.
Late = Callable[[str, Change, frozenset[EntryId]], EntryId]


class Old(NamedTuple):
    """A replaced file that lies beside its place for a moment yet."""

    path: str
    signature: Signature
    digest: bytes
    over: frozenset[EntryId]

    @property
    def is_unread(self) -> bool:
        """Whether it is not what was expected, and nobody could read it yet."""
        return self.signature == _UNREAD


class Plan(NamedTuple):
    """What is to be done to one file: written, or without chunks taken away."""

    wanted: Wanted
    name: str
    chunks: Iterable[bytes] | None


class Writer:
    """See the rules at the top of this file. It changes `bases`, what the files are made of."""

    def __init__(
        self, folder: str, reader: Reader, basis: Basis, bases: dict[str, Base], late: Late,
        *, ignore: LeftOut,
    ) -> None:  # fmt: skip
        self._folder, self._disk, self._reader = folder, reader.disk, reader
        self._basis, self._bases, self._late = basis, bases, late
        self._ignore = ignore
        # What lies beside its place, by its name there; whoever drives this looks at it in `OLD_S`.
        self.old: dict[str, Old] = {}
        self.fresh_old: list[str] = []
        # New files that have no place yet, by their names.
        self._made: dict[str, Signature] = {}

    def carry_out(self, plans: list[Plan]) -> dict[str, str]:
        """Do all of these; the paths that are not done, and why: "" where to look first.

        Raises: MusterError, OSError: some are done.
        """
        left: dict[str, str] = {}
        # A file may take the place of a folder whose files go, or lie in one where a file goes.
        gone = [plan for plan in plans if plan.chunks is None]
        if gone and len(gone) < len(plans):
            left = self.carry_out(gone)
            plans = [plan for plan in plans if plan.chunks is not None]
        todo = list[Plan]()
        changed: dict[str, Base | None] = {}
        done = list[str]()
        one_by_one = len(plans) <= SYNCED_MAX
        try:
            with self._disk.near():
                for plan in plans:
                    # Also what is half there is taken away where this ends in the middle.
                    todo.append(plan)
                    if not self._prepare(plan, one_by_one, left):
                        todo.pop()
                if not one_by_one:
                    self._disk.sync()
                self._basis.aim(self._folder, [self._aim(plan) for plan in todo])
                while todo:
                    self._carry_out(todo[0], one_by_one, left, changed, done)
                    self._made.pop(todo.pop(0).name, None)
        finally:
            if changed and not one_by_one:
                self._disk.sync()
            self._basis.save(self._folder, changed)
            for plan in todo:
                self._give_up(plan, done)
            self._basis.done(self._folder, done)
        for path, base in changed.items():
            if base is None or base.signature is None:
                self._disk.tidy(path)
        return left

    def _carry_out(
        self, plan: Plan, sync: bool, left: dict[str, str], changed: dict[str, Base | None],
        done: list[str],
    ) -> None:  # fmt: skip
        path = plan.wanted.path
        try:
            swapped = self._swap(plan, sync=sync)
        except InTheWay as error:
            swapped, left[path] = Swapped(None, met=True), str(error)
        except OSError as error:
            if error.errno not in OF_PATH:
                raise
            swapped = Swapped(None, met=True)
            left[path] = f"it cannot be written ({error.strerror})"
        if swapped.met:
            left.setdefault(path, "")
            self._give_up(plan, done)
            return
        before = self._bases.get(path)
        changed[path] = self._bases_of(plan, swapped)
        if self._replaced(plan, swapped, before):
            left[path] = ""
            # What got its place back makes it again what it was.
            changed[path] = self._bases.get(path)
        elif not swapped.old:
            done.append(plan.name)

    def _give_up(self, plan: Plan, done: list[str]) -> None:
        """A file that was prepared gets no place: nobody ever saw it."""
        made = self._made.pop(plan.name, None)
        with contextlib.suppress(InTheWay, OSError):
            # Under its name may lie what it replaced already: whoever starts next looks at that.
            if made is not None and self._disk.drop(plan.wanted.path, plan.name, made):
                done.append(plan.name)

    def _prepare(self, plan: Plan, sync: bool, left: dict[str, str]) -> bool:
        """Whether the new file lies beside its place, whole."""
        if plan.chunks is None:
            return True
        path = plan.wanted.path
        try:
            made = self._disk.prepare(path, plan.name, plan.chunks, x=plan.wanted.x, sync=sync)
            if made is not None:
                self._made[plan.name] = made
        except InTheWay as error:
            left[path] = str(error)
        except (Broken, NotFound) as error:
            left[path] = f"its bytes cannot be read: {error}"
        except OSError as error:
            if error.errno not in OF_PATH:
                raise
            left[path] = f"it cannot be written ({error.strerror})"
        else:
            return True
        return False

    def _aim(self, plan: Plan) -> Aim:
        wanted, base = plan.wanted, self._bases.get(plan.wanted.path)
        digest = b"" if wanted.content is None else wanted.content.digest
        over = base.over if base is not None else frozenset[EntryId]()
        return Aim(plan.name, wanted.path, digest, wanted.said_x, wanted.made_of, over)

    def _swap(self, plan: Plan, *, sync: bool) -> Swapped:
        path, base = plan.wanted.path, self._bases.get(plan.wanted.path)
        if plan.chunks is None:
            return self._disk.take_away(path, plan.name, sync=sync)
        expected = base is not None and base.signature is not None
        return self._disk.swap(path, plan.name, expected=expected, sync=sync)

    def _bases_of(self, plan: Plan, swapped: Swapped) -> Base | None:
        """What the path is made of now, kept here already."""
        wanted = plan.wanted
        if wanted.content is not None:
            where = wanted.content
            base = Base(swapped.new, where.digest, wanted.said_x, wanted.made_of, None, where.entry)
            self._bases[wanted.path] = base
            return base
        if not wanted.made_of:
            # It has no right to its name: nothing is known of it here any more.
            self._bases.pop(wanted.path, None)
            return None
        base = Base(None, b"", said_x=False, over=wanted.made_of)
        self._bases[wanted.path] = base
        return base

    def _replaced(self, plan: Plan, swapped: Swapped, before: Base | None) -> bool:
        """Look at what was replaced; whether it was something else than was expected."""
        if not swapped.old or swapped.old_signature is None:
            return False
        path = plan.wanted.path
        over = before.over if before is not None else frozenset[EntryId]()
        digest = before.digest if before is not None else b""
        old = Old(path, swapped.old_signature, digest, over)
        self.old[plan.name] = old
        self.fresh_old.append(plan.name)
        if before is not None and before.signature == swapped.old_signature:
            return False
        # Whoever wrote it may be at it: it is read when nobody is.
        self.old[plan.name] = old._replace(signature=_UNREAD)
        return self.look_at_old(plan.name)

    def look_at_old(self, name: str) -> bool:
        """Look at what was replaced once more; whether it became a version, or will.

        Raises: MusterError, OSError.
        """
        old = self.old[name]
        at = beside(old.path, name)
        found = self._reader.look_at(
            at, Base(old.signature, old.digest, said_x=False, over=old.over)
        )
        if isinstance(found, Soon):
            return True
        if isinstance(found, Change) and found.signature is not None:
            self.old[name] = old._replace(signature=found.signature, digest=found.digest)
            if found.digest == old.digest:
                return False
        if isinstance(found, Change) and self._ignore.leaves_out(old.path):
            # Nobody records it any more, and nobody takes it away.
            found = Unfit("it is left out")
        if isinstance(found, Change) and found.signature is not None:
            id = self._late(old.path, found, old.over)
            self.old[name] = self.old[name]._replace(over=frozenset({id}))
            return True
        if isinstance(found, Unfit) and self._give_back(old.path, name, old.over, old.digest):
            del self.old[name]
            self._disk.drop(old.path, name)
            self._basis.done(self._folder, [name])
            return True
        return False

    def _give_back(self, path: str, name: str, over: frozenset[EntryId], digest: bytes) -> bool:
        """Whether what was replaced, and can be no version, has its place again."""
        base = self._bases.get(path)
        replaced_by = base.signature if base is not None else None
        try:
            if not self._disk.give_back(path, name, replaced_by):
                return False
        except InTheWay:
            return False
        # It is a change of what was there before, which is told, and stays here.
        self._keep(path, Base(_UNREAD, digest, said_x=False, over=over))
        return True

    def forget_old(self, name: str) -> None:
        """What was replaced is as it was when it was looked at: remove it."""
        old = self.old.pop(name)
        self._disk.drop(old.path, name)
        self._basis.done(self._folder, [name])
        self._disk.tidy(old.path)

    # --- after a crash ------------------------------------------------------------------------

    def take_up(self) -> dict[str, str]:
        """Find out what was being done when this machine ended; what needs a person, and why.

        Raises: MusterError, OSError.
        """
        left: dict[str, str] = {}
        for aim in self._basis.aims(self._folder):
            try:
                self._disk.mend(aim.path, aim.name)
            except InTheWay as error:
                # It lies there until somebody looked, and is told again at each start.
                left[aim.path] = str(error)
                continue
            except OSError as error:
                unread(error)
                continue
            try:
                self._take_up(aim)
            except InTheWay as error:
                left[aim.path] = str(error)
            except OSError as error:
                # It is taken up by the next one who starts.
                unread(error)
                continue
            self._basis.done(self._folder, [aim.name])
        return left

    def remove_unfinished(self, leaves_out: Callable[[str], bool]) -> None:
        """Remove files that were not whole yet when this machine ended: nobody ever saw them."""

        def ours(path: str) -> bool:
            return leaves_out(path) and TEMPORARY not in path

        for path, _ in list(self._disk.walk("", ours)):
            name = path.rpartition("/")[2]
            # What was replaced was seen, and whoever starts brings it back.
            if name.startswith(TEMPORARY) and not name.endswith(ASIDE):
                self._disk.drop(path, name)

    def _take_up(self, aim: Aim) -> None:
        before, at = self._bases.get(aim.path), beside(aim.path, aim.name)
        there = self._disk.signature(aim.path)
        if there is not None and not there.size and self._disk.digest(at) == aim.digest:
            # A name that was taken for what was prepared (`move`): it is brought once more.
            self._disk.drop(aim.path, aim.path.rpartition("/")[2], there)
            there = None
        if there is not None and self._disk.digest(aim.path) == aim.digest:
            base = Base(there, aim.digest, aim.said_x, aim.made_of)
            self._keep(aim.path, base)
        elif there is None and not aim.digest and self._disk.signature(at) is not None:
            self._keep(aim.path, Base(None, b"", said_x=False, over=aim.made_of))
        found = self._reader.look_at(at, before)
        known = {aim.digest, before.digest if before is not None else b""}
        if isinstance(found, Soon) and self._disk.digest(at) not in known:
            raise Unreachable(f"{aim.path} is being written just now: it is looked at again soon")
        if isinstance(found, Change) and (found.signature is None or found.digest in known):
            found = None
        if isinstance(found, Change) and not self._ignore.leaves_out(aim.path):
            self._late(aim.path, found, aim.over)
        elif isinstance(found, (Change, Unfit)):
            was = before.digest if before is not None else b""
            self._give_back(aim.path, aim.name, aim.over, was)
        self._disk.drop(aim.path, aim.name)

    def _keep(self, path: str, base: Base) -> None:
        self._bases[path] = base
        self._basis.save(self._folder, {path: base})


def plan(wanted: Wanted, chunks: Iterable[bytes] | None) -> Plan:
    """What is to be done for this; without chunks its file is taken away."""
    return Plan(wanted, temporary_name(), chunks)


def beside(path: str, name: str) -> str:
    """Where what replaces a file lies under this name, and then what was replaced."""
    folder, slash, _ = path.rpartition("/")
    return f"{folder}{slash}{name}"
