"""What tells of events, and the one thread: what fails is told once, and tried again."""

import asyncio
import contextlib
import errno
import sys
import threading
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest
import watchfiles
from tests.node.shared_folders import PLACE, SharedFolders, aged
from tests.promise import proves

from muster.context.fold import PASSED, PassedRow
from muster.context.kinds import ContextPut
from muster.errors import NotFound
from muster.git.text_merge import merge_texts
from muster.limits import CONTEXT_INLINE_BYTES_MAX
from muster.log.entry import EntryId
from muster.node import event as ev
from muster.node.attempts.blob_transfer import entry_claim, is_named
from muster.node.folders import fetches, passed, watch
from muster.node.folders import thread as threads
from muster.node.folders.basis import Basis
from muster.node.folders.folder import Folder
from muster.node.folders.mapping import Mapped
from muster.node.folders.questions import Stopped
from muster.node.folders.thread import FolderThread, Task
from muster.node.folders.writer import Writer
from muster.node.host import clock
from muster.node.incidents import Noticed
from muster.node.services.context import Bytes, Contexts, FilesAnswered, FilesChanged
from muster.store.blobs import Blobs


async def true(holds: Callable[[], Any]) -> None:
    """Wait until it holds."""
    for _ in range(4_000):
        if holds():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never holds")


class Heard:
    """What a watch told."""

    def __init__(self) -> None:
        self.paths: list[frozenset[str]] = []
        self.rescans = 0
        self.told: list[str] = []

    def rescan(self) -> None:
        self.rescans += 1


async def watched(top: Path, heard: Heard, until: Callable[[], bool]) -> None:
    work = watch.watch(top, heard.paths.append, heard.rescan, heard.told.append, deep=True)
    task = asyncio.create_task(work)
    await true(until)
    task.cancel()


def test_what_happens_in_a_folder_is_told_by_its_paths(tmp_path):
    heard = Heard()

    def until() -> bool:
        if heard.told == [""]:
            (tmp_path / "n.md").write_text("x")
            (tmp_path / ".~muster-1").write_text("ours")
        return any("n.md" in paths for paths in heard.paths)

    asyncio.run(watched(tmp_path, heard, until))
    assert heard.rescans == 2, "before it is watched, and when it is"
    assert not any(".~muster" in path for paths in heard.paths for path in paths)


@proves("context.watched-or-looked-through")
def test_no_link_to_a_folder_is_followed_and_a_folder_that_is_new_is_watched(tmp_path):
    top, outside = tmp_path / "top", tmp_path / "outside"
    (top / "sub").mkdir(parents=True)
    (outside / "far").mkdir(parents=True)
    (top / "link").symlink_to(outside)
    assert watch.watched(top, deep=True) == [top, top / "sub"]
    assert watch.watched(top, deep=False) == [top]
    heard, done = Heard(), list[str]()

    def until() -> bool:
        paths = {path for paths in heard.paths for path in paths}
        if heard.told and not done:
            (outside / "far" / "n.md").write_text("x")
            (top / "sub" / "a.md").write_text("x")
            done.append("")
        if "sub/a.md" in paths and len(done) == 1:
            (top / "sub" / "new").mkdir()
            done.append("")
        # Once for the folder that is there, and once when that is watched as well.
        if sum("sub/new" in each for each in heard.paths) > 1 and len(done) == 2:
            (top / "sub" / "new" / "b.md").write_text("x")
            done.append("")
        return "sub/new/b.md" in paths

    asyncio.run(watched(top, heard, until))
    assert not any("far" in path for paths in heard.paths for path in paths)


@proves("context.watched-or-looked-through")
def test_a_folder_that_is_moved_in_with_a_link_in_it_leads_nowhere(tmp_path):
    """All that lies below was watched by one watch, which follows the links in what comes later."""
    top, outside = tmp_path / "top", tmp_path / "outside"
    top.mkdir()
    (outside / "far").mkdir(parents=True)
    (tmp_path / "new" / "inner").mkdir(parents=True)
    (tmp_path / "new" / "link").symlink_to(outside)
    heard, done = Heard(), list[str]()

    def until() -> bool:
        if heard.told and not done:
            (tmp_path / "new").rename(top / "new")
            done.append("")
        if sum("new" in each for each in heard.paths) > 1 and len(done) == 1:
            (outside / "far" / "n.md").write_text("x")
            (outside / "n.md").write_text("x")
            (top / "new" / "inner" / "a.md").write_text("x")
            done.append("")
        return any("new/inner/a.md" in paths for paths in heard.paths)

    asyncio.run(watched(top, heard, until))
    assert not any("link/" in path for paths in heard.paths for path in paths)


@proves("context.watched-or-looked-through")
def test_each_of_many_new_folders_is_watched_also_one_that_was_there_before(tmp_path):
    heard, numbers = Heard(), iter(range(1_000))
    made = [next(numbers)]

    def until() -> bool:
        paths = {path for paths in heard.paths for path in paths}
        last = f"{made[-1]}/n.md"
        if last in paths and len(made) < 12:
            (tmp_path / str(made[-1]) / "n.md").unlink()
            (tmp_path / str(made[-1])).rmdir()
            # The first one comes back, under the name that it had.
            made.append(next(numbers) if len(made) != 5 else 0)
        if heard.told:
            (tmp_path / str(made[-1])).mkdir(exist_ok=True)
            (tmp_path / str(made[-1]) / "n.md").write_text(str(len(heard.paths)))
        return len(made) == 12 and last in paths

    asyncio.run(watched(tmp_path, heard, until))
    assert len(heard.told) > 1, "it began anew, with one watch for all of them"


@proves("context.watched-or-looked-through")
@pytest.mark.parametrize("most", [watch._MORE_MAX, 0], ids=["beside", "anew"])
def test_a_folder_that_is_made_before_its_parent_is_watched_is_watched_too(
    tmp_path, monkeypatch, most
):
    heard, real, late = Heard(), watch.watched, tmp_path / "late"

    def looked_for(top: Path, *, deep: bool) -> list[Path]:
        found = real(top, deep=deep)
        late.mkdir(exist_ok=True)
        return found

    monkeypatch.setattr(watch, "watched", looked_for)
    monkeypatch.setattr(watch, "_MORE_MAX", most)

    def until() -> bool:
        heard_of = {path for paths in heard.paths for path in paths}
        if "late" in heard_of or len(heard.told) > 1:
            (late / "n.md").write_text("x")
        return "late/n.md" in heard_of

    asyncio.run(watched(tmp_path, heard, until))
    assert set(heard.told) == {""}, "the system watches it"


@proves("context.watched-or-looked-through")
def test_folders_that_are_new_are_watched_with_the_others_when_nothing_happens(
    tmp_path, monkeypatch
):
    """A watch for each of them would look for what happened all the time, and cost as much."""
    monkeypatch.setattr(watch, "_JOINED_AFTER_S", 0.3)
    heard, real = Heard(), watchfiles.awatch
    tops, ended = list[tuple[Path, ...]](), list[tuple[Path, ...]]()

    async def awatch(*given: Path, **more: Any) -> AsyncIterator[Any]:
        tops.append(given)
        try:
            async with contextlib.aclosing(real(*given, **more)) as events:
                async for each in events:
                    yield each
        finally:
            ended.append(given)

    monkeypatch.setattr(watchfiles, "awatch", awatch)

    every = (tmp_path, tmp_path / "new")

    def until() -> bool:
        if heard.told == [""]:
            (tmp_path / "new").mkdir(exist_ok=True)
        if tops[-1:] == [every]:
            (tmp_path / "new" / "n.md").write_text("x")
        told = any("new/n.md" in paths for paths in heard.paths)
        return told and len(ended) == len(tops) - 1

    asyncio.run(watched(tmp_path, heard, until))
    # What is made while it is looked for is both found and told, and watched twice for a moment.
    first, *single, last = tops
    assert (first, set(single), last) == ((tmp_path,), {(tmp_path / "new",)}, every)
    assert (heard.told, heard.rescans) == ([""], 2), "nobody looks through all for that"


def test_to_begin_to_watch_keeps_nobody_waiting(tmp_path, monkeypatch):
    begins, goes_on = threading.Event(), threading.Event()
    found = watch.watched

    def slow(top: Path, *, deep: bool) -> Any:
        begins.set()
        assert goes_on.wait(20)
        return found(top, deep=deep)

    monkeypatch.setattr(watch, "watched", slow)
    heard = Heard()

    def until() -> bool:
        if begins.is_set() and heard.rescans == 1:
            # The loop goes on meanwhile, and all was looked through.
            goes_on.set()
        return bool(heard.told)

    asyncio.run(watched(tmp_path, heard, until))
    assert heard.told == [""]


@proves("context.watched-or-looked-through")
@pytest.mark.parametrize("error", [OSError("OS file watch limit reached"), RuntimeError("inotify")])
def test_where_the_system_does_not_watch_the_folder_is_looked_through(tmp_path, monkeypatch, error):
    async def events(_top: Path, *, deep: bool) -> AsyncIterator[Any]:
        assert deep
        await asyncio.sleep(0)
        raise error
        yield

    monkeypatch.setattr(watch, "_events", events)
    monkeypatch.setattr(watch, "RESCAN_S", 0.01)
    heard = Heard()
    asyncio.run(watched(tmp_path, heard, lambda: heard.rescans > 4))
    assert any("every 30 s" in each and str(error) in each for each in heard.told)


@proves("context.watched-or-looked-through")
def test_without_watchfiles_it_is_looked_through_and_said_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    monkeypatch.setattr(watch, "RESCAN_S", 0.01)
    heard = Heard()
    asyncio.run(watched(tmp_path, heard, lambda: heard.rescans > 3))
    assert any("muster[context]" in each for each in heard.told)


@proves("context.watched-or-looked-through")
def test_after_the_machine_slept_and_now_and_then_everything_is_looked_through(monkeypatch):
    boot_ms = [0]
    monkeypatch.setattr(watch.clock, "boot_ms", lambda: boot_ms[0])
    monkeypatch.setattr(watch, "_SLEEP_LOOK_S", 0.001)
    found = []

    async def play() -> None:
        task = asyncio.create_task(watch.rescans(lambda: found.append(1)))
        for _ in range(20):
            await asyncio.sleep(0.002)
        assert found == []
        boot_ms[0] += 60_000
        await true(lambda: found)
        task.cancel()

    asyncio.run(play())


class Desk:
    """A daemon as the thread sees it: a real core, and what it is told."""

    def __init__(self, folder: Path) -> None:
        self.world = SharedFolders(folder, "hub", "studio")
        self.one = self.world["hub"].one
        self.core, self.home = self.one.core, SimpleNamespace(context_basis=folder / "b.db")
        self.machine = SimpleNamespace(blobs=Blobs(folder / "more-blobs"))
        self.noticed: list[Noticed] = []
        self.top = folder / "top"
        self.top.mkdir()
        self.thread: FolderThread

    def post(self, event: ev.Event) -> None:
        if isinstance(event, Noticed):
            self.noticed.append(event)
            return
        self.one.step(event)
        effects, self.one.effects = self.one.effects, []
        for each in effects:
            if isinstance(each, FilesAnswered):
                self.thread.answered(each)
            elif isinstance(each, FilesChanged) and each.place == PLACE:
                self.thread.tell(Task("notes", settles=frozenset(each.paths)))

    async def fetch(self, _path: str, _where: Bytes) -> None:
        raise AssertionError

    def play(self, work: Callable[["Desk"], Any]) -> None:
        """Let the thread run while this goes on."""

        async def playing() -> None:
            self.thread = FolderThread(self, self.fetch, merge_texts)  # type: ignore[arg-type]
            self.map(self.top)
            task = asyncio.create_task(self.thread.run())
            try:
                await work(self)
            finally:
                self.thread.end()
                await task

        asyncio.run(playing())

    def map(self, top: Path, **more: Any) -> None:
        self.thread.mapped["notes"] = Mapped("notes", str(top), top.stat().st_ino, **more)
        self.thread.tell(Task("notes", rescan=True))

    def put(self, path: str, text: str) -> None:
        (self.top / path).write_text(text)
        aged(self.top / path)
        self.thread.tell(Task("notes", looks=frozenset({path})))

    @property
    def texts(self) -> list[str]:
        return self.world["hub"].history("n.md")


def test_the_thread_keeps_a_folder_and_says_how_it_is(tmp_path):
    async def work(desk: Desk) -> None:
        desk.put("n.md", "one")
        await true(lambda: desk.texts == ["one"])
        await true(lambda: desk.one.entries("context.at"))
        await true(lambda: desk.thread.states["notes"].files == 1)
        desk.put("n.md", "two")
        await true(lambda: desk.texts == ["one", "two"])

    Desk(tmp_path).play(work)


@proves("context.no-way-out")
def test_a_folder_that_is_gone_is_told_once_and_taken_up_when_it_is_back(tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "AGAIN_S", 0.05)

    async def work(desk: Desk) -> None:
        desk.put("n.md", "one")
        await true(lambda: desk.texts == ["one"])
        desk.top.rename(tmp_path / "away")
        desk.thread.tell(Task("notes", rescan=True))
        await true(lambda: desk.noticed)
        for _ in range(20):
            await asyncio.sleep(0.01)
        (tmp_path / "away").rename(desk.top)
        await true(lambda: desk.noticed[-1].title == "")
        assert [bool(each.title) for each in desk.noticed] == [True, False]
        assert "is gone" in desk.noticed[0].title
        assert desk.texts == ["one"]

    Desk(tmp_path).play(work)


@proves("context.no-way-out")
def test_a_folder_that_is_taken_away_and_one_that_gets_its_name_delete_nothing(tmp_path):
    async def work(desk: Desk) -> None:
        desk.put("n.md", "one")
        await true(lambda: desk.texts == ["one"])
        other = tmp_path / "other"
        other.mkdir()
        desk.map(other)
        # Not before the round has ended that took it up.
        await true(lambda: (other / "n.md").exists() and "notes" in desk.thread.states)
        assert desk.texts == ["one"]
        del desk.thread.mapped["notes"]
        desk.thread.tell(Task("notes"))
        await true(lambda: "notes" not in desk.thread.states)
        (other / "n.md").unlink()
        desk.map(other)
        await true((other / "n.md").exists)
        assert desk.texts == ["one"]

    Desk(tmp_path).play(work)


@proves("context.let-go-when-nobody-needs-it")
def test_a_disk_says_what_it_needs_no_more_and_that_it_has_the_folder_no_more(tmp_path):
    async def work(desk: Desk) -> None:
        desk.put("n.md", "one")
        await true(lambda: said(desk))
        desk.put("n.md", "two")
        await true(lambda: desk.texts == ["one", "two"])
        assert [row.ended for row in said(desk)] == [0], "once a day"
        # What was to be said of the disk of before waits for a day.
        await true(lambda: len(desk.one.entries("context.at")) > 1)
        for _ in range(2):
            del desk.thread.mapped["notes"]
            desk.thread.tell(Task("notes"))
            await true(lambda: [row.ended for row in said(desk)] == [1])
            desk.map(desk.top)
            await true(lambda: [row.ended for row in said(desk)] == [0])
        (other := tmp_path / "other").mkdir()
        words = len(desk.one.entries("context.passed"))
        desk.map(other)
        await true(lambda: "n.md" in {each.name for each in other.iterdir()})
        await true(lambda: len(desk.one.entries("context.passed")) > words)

    def said(desk: Desk) -> list[PassedRow]:
        return desk.core.tables.rows(PASSED)

    Desk(tmp_path).play(work)


@proves("context.let-go-when-nobody-needs-it")
def test_what_is_to_be_said_is_said_though_its_round_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "AGAIN_S", 0.05)
    monkeypatch.setattr(passed, "EVERY_MS", 200)
    tried: list[int] = []

    def words(desk: Desk) -> int:
        return len(desk.one.entries("context.passed"))

    async def work(desk: Desk) -> None:
        desk.put("n.md", "one")
        await true(lambda: words(desk) == 1)
        found = passed.made_of

        def fails(folder: Folder) -> frozenset[EntryId]:
            tried.append(1)
            if len(tried) < 3:
                raise OSError(errno.EIO, "the disk")
            return found(folder)

        monkeypatch.setattr(passed, "made_of", fails)
        desk.put("n.md", "two")
        await true(lambda: words(desk) > 1)
        assert len(tried) > 2

    Desk(tmp_path).play(work)


class Saved:
    """A file that somebody has open while it is replaced, and then writes into."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def __aenter__(self) -> Self:
        desk = self._desk
        desk.put("n.md", "one")
        await true(lambda: desk.texts == ["one"])
        self._file = (desk.top / "n.md").open("r+")
        (row,) = desk.core.part(Contexts).versions(PLACE, "n.md")
        body = ContextPut("notes", "n.md", [row.id.hex()], "theirs")
        desk.world["studio"].write(PLACE, [body])
        desk.world.cores.drain()
        desk.world.cores.pass_ms(200)
        desk.thread.tell(Task("notes", settles=frozenset({"n.md"})))
        await true(lambda: (desk.top / "n.md").read_text() == "theirs")
        return self

    def save(self) -> None:
        self._file.write("mine")
        self._file.flush()
        aged(Path(f"/proc/self/fd/{self._file.fileno()}"))

    async def __aexit__(self, *_: object) -> None:
        self._file.close()


@proves("context.nothing-is-lost")
def test_what_a_second_look_could_not_see_is_looked_at_again(tmp_path, monkeypatch):
    """It stayed beside its place, hidden, until the machine started anew."""
    monkeypatch.setattr(threads, "AGAIN_S", 0.05)
    failed = list[str]()
    look_at_old = Folder.look_at_old

    def fails(self: Folder, name: str) -> bool:
        if len(failed) < 2:
            failed.append(name)
            raise OSError(errno.EIO, "error")
        return look_at_old(self, name)

    async def work(desk: Desk) -> None:
        monkeypatch.setattr(Folder, "look_at_old", fails)
        async with Saved(desk) as saved:
            saved.save()
            await true(lambda: "mine" in desk.texts)
            await true(lambda: not list(desk.top.glob(".~muster-*")))

    Desk(tmp_path).play(work)
    assert len(failed) == 2


@proves("context.nothing-is-lost")
@pytest.mark.parametrize("what", ["removed", "mapped anew"])
def test_what_is_saved_in_the_second_in_which_a_folder_is_taken_away_is_a_version(tmp_path, what):
    async def work(desk: Desk) -> None:
        async with Saved(desk) as saved:
            saved.save()
            if what == "removed":
                del desk.thread.mapped["notes"]
                desk.thread.tell(Task("notes"))
            else:
                (tmp_path / "other").mkdir()
                desk.map(tmp_path / "other")
            await true(lambda: "mine" in desk.texts)
            await true(lambda: not list(desk.top.glob(".~muster-*")))
            assert (desk.top / "n.md").read_text() == "theirs"

    Desk(tmp_path).play(work)


def test_what_cannot_be_looked_at_when_a_folder_is_taken_away_is_told_with_its_place(
    tmp_path, monkeypatch
):
    def fails(*_given: object) -> None:
        raise OSError(errno.EIO, "error")

    async def work(desk: Desk) -> None:
        async with Saved(desk):
            monkeypatch.setattr(Writer, "look_at_old", fails)
            del desk.thread.mapped["notes"]
            desk.thread.tell(Task("notes"))
            await true(lambda: any("by hand" in each.title for each in desk.noticed))
            (stayed,) = desk.top.glob(".~muster-*")
            assert stayed.name in desk.noticed[-1].title

    Desk(tmp_path).play(work)


def test_blobs_are_fetched_a_few_at_a_time_and_what_nobody_has_keeps_no_other_waiting(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(fetches, "AGAIN_S", 0.05)
    desk = Desk(tmp_path)
    blobs = {f"{n}.md": f"{n}".encode() * 50_000 for n in range(40)}
    names = {path: sha256(data).hexdigest() for path, data in blobs.items()}
    under_way, most, tried = list[str](), list[int](), set[str]()

    async def fetch(path: str, where: Bytes) -> None:
        under_way.append(path)
        most.append(len(under_way))
        await asyncio.sleep(0.002)
        under_way.remove(path)
        if path not in tried and int(path.removesuffix(".md")) < 10:
            tried.add(path)
            raise NotFound("nobody has it now")
        desk.machine.blobs.put(blobs[path])
        desk.machine.blobs.claim(where.digest.hex(), entry_claim(where.entry))

    async def work(desk: Desk) -> None:
        await true(lambda: len(list(desk.top.iterdir())) == len(blobs))

    desk.fetch = fetch  # type: ignore[method-assign]
    bodies = [
        ContextPut("notes", path, blob=names[path], size=len(data)) for path, data in blobs.items()
    ]
    desk.world["studio"].write(PLACE, bodies)
    desk.world.cores.drain()
    desk.play(work)
    assert max(most) <= fetches.FETCHES_MAX


def test_a_folder_that_fails_is_tried_once_in_a_while_and_told_once(tmp_path, monkeypatch):
    """Each task of a folder that failed made one more that failed later."""
    monkeypatch.setattr(threads, "AGAIN_S", 0.1)
    tried: list[int] = []

    async def work(desk: Desk) -> None:
        desk.put("n.md", "one")
        await true(lambda: desk.texts == ["one"])

        def fails(*_given: Any, **_more: Any) -> None:
            tried.append(1)
            raise OSError(errno.EIO, f"error {len(tried)}")

        with monkeypatch.context() as patch:
            for name in ("look", "rescan", "settle"):
                patch.setattr(Folder, name, fails)
            for n in range(200):
                desk.thread.tell(Task("notes", looks=frozenset({f"{n}.md"})))
                await asyncio.sleep(0.001)
            await true(lambda: len(tried) > 3)
            assert len(desk.thread._later) <= 2
        await true(lambda: desk.noticed[-1].title == "")
        assert len(desk.noticed) == 2, "each time it failed with other words"
        desk.put("n.md", "two")
        await true(lambda: desk.texts == ["one", "two"])

    began_ms = clock.boot_ms()
    Desk(tmp_path).play(work)
    assert len(tried) <= (clock.boot_ms() - began_ms) / 1000 / threads.AGAIN_S + 2


def test_a_machine_that_starts_records_as_soon_as_it_may_write(tmp_path, monkeypatch):
    """What was changed while it was down waited for half a minute."""
    monkeypatch.setattr(threads, "AGAIN_S", 1_000_000.0)

    async def work(desk: Desk) -> None:
        desk.core.settled = False
        (desk.top / "n.md").write_text("one")
        aged(desk.top / "n.md")
        desk.thread.tell(Task("notes", rescan=True))
        await true(lambda: "notes" in desk.thread._failing)
        desk.core.settled = True
        await true(lambda: desk.texts == ["one"])

    Desk(tmp_path).play(work)


def test_what_files_are_made_of_is_read_anew_where_it_is_damaged_while_we_run(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(threads, "AGAIN_S", 0.05)

    async def work(desk: Desk) -> None:
        desk.put("n.md", "one")
        await true(lambda: desk.texts == ["one"])
        save = Basis.save

        def fails(self: Basis, *given: Any) -> None:
            self._database.broken = "as after an fsync that failed"
            save(self, *given)

        with monkeypatch.context() as patch:
            patch.setattr(Basis, "save", fails)
            desk.put("n.md", "two")
            await true(lambda: any("failed" in each.key for each in desk.noticed))
        await true(lambda: desk.noticed[-1].title == "")
        desk.put("n.md", "three")
        await true(lambda: desk.texts[-1] == "three")
        assert sorted(set(desk.texts)) == sorted(desk.texts), "no version twice"

    Desk(tmp_path).play(work)


def test_whoever_is_killed_before_it_claims_its_blob_claims_it_at_the_next_start(
    tmp_path, monkeypatch
):
    desk, data = Desk(tmp_path), "y" * (CONTEXT_INLINE_BYTES_MAX + 1)
    blobs, core = desk.machine.blobs, desk.core
    versions = core.part(Contexts).versions

    def killed(*_given: object) -> None:
        raise Stopped

    async def write(desk: Desk) -> None:
        desk.put("n.md", data)
        await true(lambda: versions(PLACE, "n.md"))

    async def start(desk: Desk) -> None:
        await true(lambda: "notes" in desk.thread.states)

    with monkeypatch.context() as patch:
        patch.setattr(Blobs, "claim", killed)
        desk.play(write)
    for _ in range(2):
        blobs.sweep(lambda name, claim: is_named(core, name, claim))
        desk.play(start)
    assert len(versions(PLACE, "n.md")) == 1
    assert [blobs.get(name).decode() for name in blobs] == [data]
