"""Who writes which file at the same time: sessions of this machine, and those of others.

Rule 1: two checkouts are of one repository where both were cloned from the same address, whatever
way that is written; where one of them has none that means the same elsewhere (none at all, a folder
of its machine, the fleet's own copy), where they have the same name, as presets of context folders
have it. A file is the same where its path below the root of both is.
Rule 2: another machine is told the prints of a file, which are hashes, and no path, folder or
session. Only where it has the same file of its own both say which session wrote it.
Rule 3: kept is what sessions of this machine wrote a short while ago, and who else wrote that. What
another machine says of any other file is kept nowhere.
Rule 4: a session hears of another one and a file once; and of no machine more often than so.

    laptop  ── prints ──▶  desktop     nothing, unless a session there wrote that file
            ◀── met ─────              "claude, shop-3fa9, 40 s ago", and who of yours?
            ── met ──────▶             "claude, shop-77c1, 2 s ago"
"""

import hashlib
import re
import unicodedata
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from muster.limits import (
    HOOK_FILES_KEPT,
    HOOK_TOUCHED_MS,
    SAME_FILE_PAIRS_PER_CALL,
    SAME_FILE_SAID_APART_MS,
    SAME_FILES_PER_CALL,
    SAME_FILES_TOLD_MAX,
    SAME_FILES_WAITING_MAX,
    SESSIONS_MAX,
)

PRINT_DIGITS: Final = 32
# What a kernel takes as one.
_PATH_CHARS_MAX: Final = 4096
_FLEETS_OWN: Final = "muster::"
_PORT: Final = re.compile(r":\d*$")

Where = Literal["here", "beside", "elsewhere"]
"""Whether another session wrote the same bytes of a disk, those of another checkout on this
machine, or those of another machine.
"""


class File(NamedTuple):
    """A file of a project on this machine: whichever of its worktrees it is in."""

    project: str
    path: str


class Prints(NamedTuple):
    """A file as all machines know it: by its repository's address, and by its name; "" for none."""

    address: str = ""
    name: str = ""


class Writer(NamedTuple):
    machine: str
    agent: str
    session: str


class Met(NamedTuple):
    """Another session wrote a file as well; `file` is that of whoever is told. Times are ours."""

    file: File
    writer: Writer
    at_ms: int
    where: Where


def repository_of(origin: str) -> str:
    """The repository behind the address of a clone, however it is written.

    "" for a folder of one machine and for the fleet's copy, of which there may be several.
    """
    text = origin.strip()
    if text.startswith(("/", ".", "~", "file:", _FLEETS_OWN)):
        return ""
    scheme, is_url, rest = text.partition("://")
    if is_url:
        host, _, path = rest.partition("/")
    else:
        host, _, path = scheme.partition(":")
    host = _PORT.sub("", host.rpartition("@")[2])
    path = path.strip("/").removesuffix(".git").rstrip("/")
    return f"{host}/{path}".casefold() if host and path and "/" not in host else ""


def name_of(origin: str, git: str) -> str:
    """What people call the repository of a checkout: the fleet's name of it, or its folder's."""
    is_fleets = origin.startswith(_FLEETS_OWN)
    place = origin if is_fleets else git.rstrip("/").removesuffix("/.git")
    return place.rstrip("/").rpartition("/")[2].removesuffix(".git").casefold()


def prints_of(origin: str, git: str, path: str) -> Prints:
    """How other machines know a file of a checkout, by its path below the root; without a
    repository not at all.
    """
    if not git:
        return Prints()
    # One disk composes the letters of a name, another one takes them apart.
    same = unicodedata.normalize("NFC", path)

    def hashed(what: str, repository: str) -> str:
        if not repository:
            return ""
        said = f"muster/file/v1\n{what}\n{repository}\n{same}".encode("utf-8", "surrogatepass")
        return hashlib.sha256(said).hexdigest()[:PRINT_DIGITS]

    return Prints(hashed("address", repository_of(origin)), hashed("name", name_of(origin, git)))


def are_same(one: Prints, other: Prints) -> bool:
    """See rule 1."""
    if one.address and other.address:
        return one.address == other.address
    return bool(one.name) and one.name == other.name


@dataclass(slots=True)
class _Write:
    root: str
    prints: Prints
    at_ms: int
    # When other machines were told last; None where they are to be told.
    said_ms: int | None = None


@dataclass(slots=True)
class _Session:
    """What one session is to hear, and has heard."""

    waiting: dict[tuple[File, Writer], Met] = field(default_factory=dict)
    told: dict[tuple[File, Writer], None] = field(default_factory=dict)
    # When it was last told of sessions of each machine.
    of_machine: dict[str, deque[int]] = field(default_factory=dict)


class Writes:
    """See the rules at the top of this file. All times are of one clock, which never goes back."""

    def __init__(self, machine: str) -> None:
        self._machine = machine
        # The newest write of each session and file, the oldest first.
        self._writes: dict[tuple[File, Writer], _Write] = {}
        # The same by file and by each of its prints, in the same order: who asks for a few files
        # looks at no others.
        self._near: dict[File | str, dict[tuple[File, Writer], None]] = {}
        self._sessions: dict[Writer, _Session] = {}
        self._unsaid: dict[tuple[File, Writer], None] = {}

    # --- what happens here ----------------------------------------------------------------

    def wrote(self, who: Writer, file: File, root: str, prints: Prints, now_ms: int) -> None:
        """A session here wrote a file of the checkout at `root`: who else did hears of it, and it
        hears of those.
        """
        if len(file.path) > _PATH_CHARS_MAX:
            return
        self._forget(now_ms)
        near = {**self._near.get(file, {}), **self._near.get(prints.address, {})}
        for other_file, other in near:
            if other == who:
                continue
            write = self._writes[other_file, other]
            where: Where = "here" if write.root == root else "beside"
            self._tell(who, Met(file, other, write.at_ms, where), now_ms)
            self._tell(other, Met(other_file, who, now_ms, where), now_ms)
        key = (file, who)
        before = self._writes.get(key)
        if before is not None:
            self._out(key, before)
        said_ms = before.said_ms if before is not None and before.prints == prints else None
        self._writes[key] = write = _Write(root, prints, now_ms, said_ms)
        for each in _names(file, prints):
            self._near.setdefault(each, {})[key] = None
        if said_ms is None or now_ms - said_ms >= SAME_FILE_SAID_APART_MS:
            write.said_ms = None
            if any(prints):
                self._unsaid[key] = None
        if len(self._writes) > HOOK_FILES_KEPT:
            self._drop(next(iter(self._writes)))

    def ended(self, who: Writer) -> None:
        """The session is over: nobody is to be told. What it wrote was written still."""
        self._sessions.pop(who, None)

    # --- what a session is told -----------------------------------------------------------

    def due(self, who: Writer) -> list[Met]:
        """What this session was not told yet, the first first."""
        return list(self._of(who).waiting.values())

    def told(self, who: Writer, met: Met) -> None:
        """It was told of this; that happens once."""
        session, key = self._of(who), (met.file, met.writer)
        session.waiting.pop(key, None)
        session.told[key] = None
        if len(session.told) > HOOK_FILES_KEPT:
            del session.told[next(iter(session.told))]

    def again(self, who: Writer, met: Met) -> None:
        """Nobody printed what it was to be told."""
        session, key = self._of(who), (met.file, met.writer)
        session.told.pop(key, None)
        session.waiting.setdefault(key, met)

    # --- what other machines are told, and say ---------------------------------------------

    @property
    def is_unsaid(self) -> bool:
        """Whether other machines are to be told of something."""
        return bool(self._unsaid)

    def say(self, now_ms: int) -> list[Prints]:
        """What other machines are told now; more of it comes with the next call."""
        self._forget(now_ms)
        said = list(self._unsaid)[:SAME_FILES_PER_CALL]
        for key in said:
            del self._unsaid[key]
            self._writes[key].said_ms = now_ms
        return list(dict.fromkeys(self._writes[key].prints for key in said))

    def recent(self, now_ms: int) -> list[Prints]:
        """What a machine that was away is told: the files that were written last."""
        self._forget(now_ms)
        newest = (write.prints for write in reversed(self._writes.values()) if any(write.prints))
        return list(dict.fromkeys(newest))[:SAME_FILES_PER_CALL]

    def shared(
        self, prints: Iterable[Prints], now_ms: int
    ) -> list[tuple[Prints, list[tuple[Writer, int]]]]:
        """Those that sessions here wrote as well: who, and when."""
        found = self._own(prints, now_ms)
        return [
            (each, [(who, self._writes[file, who].at_ms) for file, who in keys])
            for each, keys in found
            if keys
        ]

    def met(
        self, machine: str, files: Mapping[Prints, Sequence[tuple[str, str, int]]], now_ms: int
    ) -> None:
        """Another machine says which agents and sessions of it wrote these files, and when. Whoever
        wrote the same here hears of it; where nobody did it is nothing.

        What is too much for one call is left out: it comes with a later write.
        """
        pairs = 0
        for prints, keys in self._own(files, now_ms):
            others = [(Writer(machine, agent, own), at_ms) for agent, own, at_ms in files[prints]]
            for file, who in keys:
                pairs += len(others)
                if pairs > SAME_FILE_PAIRS_PER_CALL:
                    return
                for other, at_ms in others:
                    self._tell(who, Met(file, other, at_ms, "elsewhere"), now_ms)

    # --- -----------------------------------------------------------------------------------

    def _own(
        self, prints: Iterable[Prints], now_ms: int
    ) -> Iterator[tuple[Prints, list[tuple[File, Writer]]]]:
        """For each of these, once, the writes of sessions here."""
        self._forget(now_ms)
        for asked in dict.fromkeys(prints):
            near = {**self._near.get(asked.address, {}), **self._near.get(asked.name, {})}
            yield asked, [key for key in near if are_same(self._writes[key].prints, asked)]

    def _of(self, who: Writer) -> _Session:
        session = self._sessions.pop(who, None) or _Session()
        self._sessions[who] = session
        if len(self._sessions) > SESSIONS_MAX:
            del self._sessions[next(iter(self._sessions))]
        return session

    def _tell(self, who: Writer, met: Met, now_ms: int) -> None:
        session, key = self._of(who), (met.file, met.writer)
        if key in session.told:
            return
        if key not in session.waiting and not self._has_room(session, met.writer.machine, now_ms):
            return
        session.waiting[key] = met
        if len(session.waiting) > SAME_FILES_WAITING_MAX:
            del session.waiting[next(iter(session.waiting))]

    def _has_room(self, session: _Session, machine: str, now_ms: int) -> bool:
        """Whether one more of a machine is told; of our own all are."""
        if machine == self._machine:
            return True
        times = session.of_machine.setdefault(machine, deque())
        while times and now_ms - times[0] >= HOOK_TOUCHED_MS:
            times.popleft()
        if len(times) >= SAME_FILES_TOLD_MAX:
            return False
        times.append(now_ms)
        return True

    def _forget(self, now_ms: int) -> None:
        """What was written longer ago is not written at the same time."""
        while self._writes:
            key, write = next(iter(self._writes.items()))
            if now_ms - write.at_ms < HOOK_TOUCHED_MS:
                return
            self._drop(key)

    def _drop(self, key: tuple[File, Writer]) -> None:
        self._out(key, self._writes[key])
        self._unsaid.pop(key, None)

    def _out(self, key: tuple[File, Writer], write: _Write) -> None:
        del self._writes[key]
        for each in _names(key[0], write.prints):
            del self._near[each][key]
            if not self._near[each]:
                del self._near[each]


def _names(file: File, prints: Prints) -> list[File | str]:
    """Under what a write is found."""
    return [file, *(each for each in prints if each)]
