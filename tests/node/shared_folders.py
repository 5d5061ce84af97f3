"""Context folders of real cores on a real disk, in one thread: nothing happens but what is called.

    world = SharedFolders(tmp_path, "hub", "studio")
    world["hub"].put("n.md", "one")
    world["hub"].look("n.md")
    assert world["studio"].text("n.md") == "one"

What a real machine hears from its watch is said by `look`; what comes from others is settled at
once. Each file that a test writes is a second older than now, so that nobody waits for it.
"""

import asyncio
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.node.cores import WALL_MS, Cores, One

from muster.context.kinds import ContextPut
from muster.errors import Refused, Unsettled
from muster.fleet import kinds
from muster.fleet.grant import Grant, sign_give
from muster.fleet.record import sign_revocation
from muster.git.text_merge import merge_texts
from muster.log.entry import EntryId
from muster.log.stream import FLEET
from muster.node import event as ev
from muster.node.attempts.blob_transfer import entry_claim
from muster.node.folders.basis import Basis
from muster.node.folders.disk import Disk
from muster.node.folders.folder import Folder
from muster.node.folders.outside import Written
from muster.node.folders.reader import Reader
from muster.node.services.context import (
    AskFiles,
    AskPaths,
    Bytes,
    Contexts,
    FilesAnswered,
    FilesChanged,
    Place,
    Unknown,
    Wanted,
    WriteFiles,
)
from muster.node.services.heads import EXEC, WRITE
from muster.store.blobs import Blobs

PLACE = Place(FLEET, "notes")


class Shared:
    """The folder of one machine."""

    def __init__(self, one: One, folder: Path, *, large: bool = False) -> None:
        self.one, self.home, self.top = one, folder, folder / "notes"
        self.top.mkdir(parents=True, exist_ok=True)
        self.blobs = Blobs(folder / "blobs")
        self.large = large
        self.waiting: dict[str, bool] = {}
        self.waits_ms: list[int] = []
        self.asked = 0
        # What was begun to be written, and nobody waited for yet.
        self.begun = 0
        # What somebody does meanwhile, once: while the thread asks what is to lie there.
        self.meanwhile: Any = None
        self.begin()

    def begin(self) -> None:
        """As a daemon that starts."""
        basis = Basis(self.home / "context.db")
        reader = Reader(Disk(self.top, self.top.stat().st_ino), self.blobs, large=self.large)
        self.folder = Folder(PLACE, reader, basis, self)
        self.folder.begin()

    # --- a person ---------------------------------------------------------------------------

    def put(self, path: str, text: str | bytes, *, x: bool = False) -> None:
        """Write a file, a second ago."""
        at = self.top / path
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_bytes(text if isinstance(text, bytes) else text.encode())
        if x:
            at.chmod(0o755)
        aged(at)

    def change(self, path: str, text: str) -> None:
        """As an editor: write a new file and rename it over."""
        self.put(path + "~new", text)
        os.rename(self.top / (path + "~new"), self.top / path)

    def text(self, path: str) -> str | None:
        try:
            return (self.top / path).read_text()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def files(self) -> dict[str, str]:
        """All files that people see."""
        return {
            str(path.relative_to(self.top)): path.read_text(errors="replace")
            for path in sorted(self.top.rglob("*"))
            if path.is_file() and ".~muster-" not in path.name
        }

    # --- the daemon -------------------------------------------------------------------------

    def look(self, *paths: str) -> None:
        """Something happened there; then what that made counts everywhere."""
        self.folder.look(paths)
        self.one.world.drain()
        self.wait()

    def wait(self) -> None:
        """Do what was put off, as the thread does."""
        for _ in range(20):
            todo, self.waiting = self.waiting, {}
            if not todo:
                return
            settled = [path for path, settle in todo.items() if settle]
            self.folder.look(path for path, settle in todo.items() if not settle)
            self.folder.settle(settled)

    def settle_news(self) -> None:
        """What others changed, as the effects say."""
        news = [each for each in self.one.effects if isinstance(each, FilesChanged)]
        self.one.effects = [each for each in self.one.effects if each not in news]
        if any(each.place is None for each in news):
            self.folder.rescan(everything=True)
        self.folder.settle(path for each in news if each.place == PLACE for path in each.paths)
        self.wait()

    def look_at_old(self) -> None:
        """A second later."""
        names, self.folder.writer.fresh_old = self.folder.writer.fresh_old, []
        for name in names:
            if name in self.folder.writer.old and self.folder.look_at_old(name):
                self.folder.writer.fresh_old.append(name)
        self.wait()

    # --- what a folder needs of the machine around it ---------------------------------------

    def _ask(self, event: ev.Event) -> FilesAnswered:
        self.asked += 1
        meanwhile, self.meanwhile = self.meanwhile, None
        self.one.step(event)
        (answer,) = [each for each in self.one.effects if isinstance(each, FilesAnswered)]
        self.one.effects.remove(answer)
        if meanwhile is not None:
            meanwhile()
        return answer

    def wanted(
        self, place: Place, made_of: Mapping[str, frozenset[EntryId]], unknown: Unknown
    ) -> tuple[tuple[Wanted, ...], bool]:
        every, left, allowed = list[Wanted](), dict(made_of), False
        while left:
            found = self._ask(AskFiles(1, place, dict(left), unknown))
            every += found.wanted
            allowed = found.allowed
            for each in found.wanted:
                del left[each.path]
        return tuple(every), allowed

    def paths(self, place: Place) -> tuple[str, ...]:
        return self._ask(AskPaths(1, place)).paths

    def write(self, place: Place, bodies: list[ContextPut]) -> tuple[tuple[EntryId, ...], bool]:
        return self.begin_write(place, bodies)()

    def begin_write(self, place: Place, bodies: list[ContextPut]) -> Written:
        found = self._ask(WriteFiles(1, place, tuple(bodies)))
        self.begun += 1

        def written() -> tuple[tuple[EntryId, ...], bool]:
            self.begun -= 1
            if not found.settled:
                raise Unsettled("not yet")
            if found.refused:
                raise Refused(found.refused)
            return found.ids, found.allowed

        return written

    def claim(self, blob: str, id: EntryId) -> None:
        self.blobs.claim(blob, entry_claim(id))

    def bytes_at(self, place: Place, path: str, where: Bytes) -> Iterable[bytes] | None:
        if where.data is not None:
            return (where.data,)
        name = where.digest.hex()
        return self.blobs.read(name) if self.blobs.has(name) else None

    def merge(self, first: bytes, base: bytes, second: bytes, *, union: bool) -> bytes | None:
        return asyncio.run(merge_texts(first, base, second, union=union))

    def again(self, place: Place, paths: frozenset[str], *, settle: bool, after_ms: int) -> None:
        for path in paths:
            self.waits_ms.append(after_ms)
            self.waiting[path] = self.waiting.get(path, False) or settle

    # --- questions --------------------------------------------------------------------------

    def history(self, path: str) -> list[str]:
        """The bytes of every version of a path, the oldest first; "-" where it is gone."""
        part = self.one.core.part(Contexts)
        found = []
        for row in part.versions(PLACE, path):
            where = part.bytes_of(row)
            data = b"-" if where is None or where.data is None else where.data
            found.append(data.decode(errors="replace"))
        return found


class SharedFolders:
    """Several machines with one folder; all may write there unless `writers` are named."""

    def __init__(
        self, folder: Path, *names: str, writers: Iterable[str] | None = None, large: bool = False
    ) -> None:
        self.cores = Cores(*names)
        self.machines: dict[str, Shared] = {}
        self._nonces = iter(range(256))
        self.cores.pass_ms(3_000)
        for name in self.cores.machines:
            if writers is None or name in writers:
                self.grant(name, WRITE, EXEC)
        for name, one in self.cores.machines.items():
            self.machines[name] = Shared(one, folder / name, large=large)
        self.connect()

    def __getitem__(self, name: str) -> Shared:
        return self.machines[name]

    def grant(self, name: str, *verbs: str, until_ms: int = WALL_MS * 2) -> None:
        """An operator lets a machine do these with the folder."""
        giver = next(iter(self.cores.machines.values()))
        for verb in verbs:
            grant = Grant(PLACE.folder, self.cores[name].id, until_ms, verb)
            nonce = bytes([next(self._nonces)]) * 16
            raw = sign_give(
                self.cores.operator.statement, self.cores.fleet, grant, nonce=nonce,
                issued_ms=WALL_MS + self.cores.ms,
            )  # fmt: skip
            with giver.core.store.transaction():
                giver.core.append_body(kinds.GrantGive(grant, raw.decode()))
                giver.core.store.seal_dirty(giver.core.membership.signer("seal"))
                giver.core.membership.stale()
        giver.step(ev.Tick())
        self.cores.drain()

    def revoke(self, name: str, cuts: Mapping[str, int]) -> None:
        """The authority shuts a machine out; of its streams so much counts."""
        self.cut()
        first = next(iter(self.cores.machines.values()))
        raw = sign_revocation(
            self.cores.authority, of="machine", key=self.cores[name].id, name=name, cuts=cuts,
            reason="lost", issued_ms=WALL_MS + self.cores.ms,
        )  # fmt: skip
        with first.core.store.transaction():
            first.core.append_body(kinds.MachineRevoke(raw.decode()))
            first.core.store.seal_dirty(first.core.membership.signer("seal"))
            first.core.membership.stale()
        first.step(ev.Tick())

    def connect(self) -> None:
        """Every machine has a link to every other one; what each missed comes."""
        names = list(self.cores.machines)
        for n, one in enumerate(names):
            for other in names[n + 1 :]:
                self.cores.link(one, other)
        self.settle()

    def cut(self) -> None:
        """No machine has a link any more."""
        for name in self.cores.machines:
            self.cores.cut(name)

    def settle(self) -> None:
        """Until nothing new comes of what was said."""
        for _ in range(12):
            self.cores.drain()
            for each in self.machines.values():
                each.settle_news()
            self.cores.drain()
            busy = [each for m in self.machines.values() for each in m.one.effects]
            if not any(isinstance(each, FilesChanged) for each in busy):
                return
        raise AssertionError("the folders never settle")

    def second_later(self) -> None:
        """What was replaced is looked at once more, until nothing is left of it."""
        for _ in range(6):
            for each in self.machines.values():
                each.look_at_old()
            self.settle()
        assert not [m.folder.writer.old for m in self.machines.values() if m.folder.writer.old]

    def edit(self, name: str, path: str, text: str, *, settle: bool = True) -> None:
        """A person changes a file, its machine sees that, and the others hear of it."""
        self[name].put(path, text)
        self[name].look(path)
        if settle:
            self.settle()

    def texts(self, path: str) -> list[str | None]:
        return [each.text(path) for each in self.machines.values()]

    def histories(self, path: str) -> set[str]:
        return {text for each in self.machines.values() for text in each.history(path)}


_seconds = iter(range(2, 1_000_000))


def aged(path: Path) -> None:
    """As if it had been written some seconds ago, each file in another one."""
    at_ns = time.time_ns() - next(_seconds) * 1_000_000_000
    os.utime(path, ns=(at_ns, at_ns))


def write(world: SharedFolders, name: str, *bodies: ContextPut) -> list[EntryId]:
    """A machine writes versions, whatever lies on its disk, and checks nothing."""
    core = world.cores[name].core
    with core.store.transaction():
        ids = [core.append_body(body).id for body in bodies]
        core.store.seal_dirty(core.membership.signer("seal"))
    core.sync.grew(core.membership.own(PLACE.scope))
    world.cores.drain()
    world.cores.pass_ms(200)
    return ids
