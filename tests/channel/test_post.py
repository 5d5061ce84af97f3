"""What `channel/base.py` promises of mailboxes, held against every one of them."""

import asyncio
import errno
import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.channel import sftp_place
from tests.channel.fellows import MACHINES, known_to
from tests.channel.git_places import QUICK, bare, git_post, litter_git, run
from tests.channel.memory_post import MemoryPost, Place
from tests.channel.nats_server import NatsServer
from tests.channel.store import Store, cloud_post, full, gone
from tests.promise import proves

from muster.channel import drop
from muster.channel.base import Post, Visitor
from muster.errors import Exhausted, Malformed, Unreachable
from muster.limits import PACKET_BYTES_MAX

# So much of one writer lies there, many times what is taken in two looks.
FLOOD, TAKEN = 200, 16


@dataclass
class Rig:
    """Four machines at one place, and what can happen to it."""

    near: Post
    far: Post
    third: Post
    # One of an older version.
    older: Post
    away: Callable[[bool], None]
    fill: Callable[[], None]
    # Leaves there for far, under so many names as there can be, what no machine of the fleet wrote.
    litter: Callable[[], None]

    def run(self, scenario: Coroutine[Any, Any, None]) -> None:
        """Run it, and let go of the place afterwards."""

        async def whole() -> None:
            try:
                await scenario
            finally:
                for post in (self.near, self.far, self.third, self.older):
                    await post.close()

        run(whole())


def unexpected(name: str, error: Exception) -> None:
    raise AssertionError(f"{name}: {error!r}")


def memory(_: Path) -> Rig:
    place, rng = Place(), random.Random(7)

    def away(is_away: bool) -> None:
        place.away = is_away

    def fill() -> None:
        place.room = 0

    def litter() -> None:
        box = place.boxes.setdefault("far", {})
        box |= {f"litter {number}": b"litter %d" % number for number in range(FLOOD)}

    return Rig(*(MemoryPost(place, name, rng.shuffle) for name in MACHINES), away, fill, litter)


def folder(tmp_path: Path) -> Rig:
    place = tmp_path / "place"
    place.mkdir()

    def away(is_away: bool) -> None:
        here, there = place, tmp_path / "elsewhere"
        (here if is_away else there).rename(there if is_away else here)

    def fill() -> None:
        names = visitor("near", place).names
        for number in range(64):
            with (place / "far" / names.name("far", f"{number:064x}")).open("wb") as file:
                file.truncate(1024 * 1024)

    def litter() -> None:
        for name, raw in littered():
            (place / "far" / name).write_bytes(raw)

    return Rig(*(post_at(place, name) for name in MACHINES), away, fill, litter)


def littered() -> Iterator[tuple[str, bytes]]:
    """Names and contents: claims of a machine, of as many that are none, and what is something else."""
    claimed, _, _ = (
        visitor("third", Path()).names.name("far", "0" * 64).removeprefix("of-").split("-")
    )
    for number in range(FLOOD // 4):
        raw = b"litter %d" % number
        sha256 = hashlib.sha256(raw).hexdigest()
        yield f"of-{claimed}-{number:016x}-{sha256}.mp", raw
        yield f"of-{number:016x}-{number:016x}-{sha256}.mp", raw
        yield f"{sha256}.mp", raw
        yield f"{number:064x}.mp", raw


def visitor(
    machine: str, home: Path, survived: Callable[[str, Exception], None] = unexpected
) -> Visitor:
    return Visitor(machine, home, survived, **known_to(machine))


def post_at(
    place: Path, machine: str, survived: Callable[[str, Exception], None] = unexpected, **more: Any
) -> drop.DropPost:
    return drop.open_channel(
        drop.Options(place=str(place), **more), visitor(machine, place, survived)
    )


@contextmanager
def server(tmp_path: Path) -> Iterator[Rig]:
    with NatsServer(tmp_path) as server:

        def away(is_away: bool) -> None:
            if is_away:
                server.kill()
            else:
                server.start()

        async def no_more(client: Any) -> None:
            js = client.jetstream()
            config = (await js.stream_info("MUSTER_BOX_far")).config
            config.max_bytes = 1
            await js.update_stream(config)

        async def leave(client: Any) -> None:
            for number in range(FLOOD):
                await client.jetstream().publish(f"muster.box.far.{number}", b"litter %d" % number)

        posts = (nats_post(server, name) for name in MACHINES)
        full = lambda: server.as_admin(no_more)  # noqa: E731 - as the others
        yield Rig(*posts, away, full, lambda: server.as_admin(leave))


def nats_post(server: NatsServer, machine: str, **more: Any) -> Post:
    from muster.channel import nats

    options = nats.Options(place=server.url, **more)
    return nats.open_channel(options, visitor(machine, server.folder))


def repository(tmp_path: Path) -> Rig:
    place = tmp_path / "place.git"
    bare(place)

    def away(is_away: bool) -> None:
        here, there = place, tmp_path / "elsewhere"
        (here if is_away else there).rename(there if is_away else here)

    posts = [git_post(tmp_path, name, **known_to(name)) for name in MACHINES]

    def fill() -> None:
        posts[0].terms = QUICK._replace(box_bytes_max=1000)

    def litter() -> None:
        # More branches than are looked at.
        litter_git(place)

    return Rig(*posts, away, fill, litter)


@contextmanager
def bucket(tmp_path: Path) -> Iterator[Rig]:
    with Store(tmp_path) as store:

        def away(is_away: bool) -> None:
            store.gate.fault = gone if is_away else None

        def fill() -> None:
            store.gate.fault = full

        def litter() -> None:
            store.box("far").mkdir(parents=True, exist_ok=True)
            for name, raw in littered():
                (store.box("far") / name).write_bytes(raw)

        posts = (cloud_post(store, name) for name in MACHINES)
        yield Rig(*posts, away, fill, litter)


def far_folder(tmp_path: Path) -> Rig:
    there = folder(tmp_path)
    posts = (sftp_place.post_at(tmp_path / "place", name) for name in MACHINES)
    return Rig(*posts, there.away, there.fill, there.litter)


@pytest.fixture(params=["memory", "drop", "sftp", "nats", "git", "cloud"])
def rig(request, tmp_path) -> Iterator[Rig]:
    makers: Any = {
        "memory": lambda path: nullcontext(memory(path)),
        "drop": lambda path: nullcontext(folder(path)),
        "sftp": lambda path: nullcontext(far_folder(path)),
        "nats": server,
        "git": lambda path: nullcontext(repository(path)),
        "cloud": bucket,
    }
    with makers[request.param](tmp_path) as rig:
        yield rig


@proves("channel.post-nothing-lost")
def test_what_is_put_is_taken_whole_until_it_is_acknowledged_and_never_again(rig):
    async def scenario() -> None:
        sent = {bytes([n]) * 1000 for n in range(20)}
        for packet in sorted(sent):
            await rig.near.put(packet, to="far")
        for _ in range(3):
            assert {each.body for each in await rig.far.take()} == sent
        taken = await rig.far.take()
        await rig.far.ack([each.id for each in taken[:5]])
        left = {each.body for each in taken[5:]}
        assert {each.body for each in await rig.far.take()} == left
        await rig.far.ack([each.id for each in taken])
        await rig.far.ack([each.id for each in taken])
        assert await rig.far.take() == []

    rig.run(scenario())


@proves("channel.post-nothing-lost")
def test_so_many_are_taken_at_once_and_the_rest_after_them(rig):
    async def scenario() -> None:
        for number in range(10):
            await rig.near.put(bytes([number]), to="far")
        seen = set()
        while taken := await rig.far.take(3):
            assert len(taken) <= 3
            seen |= {each.body for each in taken}
            await rig.far.ack([each.id for each in taken])
        assert len(seen) == 10

    rig.run(scenario())


async def within_two_looks(post: Post, body: bytes) -> None:
    """It comes in the first or the second of them, of which all that comes is dealt with."""
    for _ in range(2):
        taken = await post.take(TAKEN)
        assert len(taken) <= TAKEN
        await post.ack([each.id for each in taken])
        if body in {each.body for each in taken}:
            return
    raise AssertionError("it waits behind what others left")


async def left_by(post: Post, bodies: Iterable[bytes]) -> None:
    await asyncio.gather(*(post.put(each, to="far") for each in bodies))


async def all_of(post: Post) -> set[bytes]:
    """Everything that lies there, until nothing does."""
    found = set()
    empty = 0
    # A look may end before it saw all.
    while empty < 3:
        taken = await post.take()
        await post.ack([each.id for each in taken])
        found |= {each.body for each in taken}
        empty = 0 if taken else empty + 1
    return found


@proves("channel.post-fair")
@pytest.mark.timeout(180)
@pytest.mark.parametrize("writer", ["near", "older"])
def test_a_flood_of_one_writer_keeps_no_packet_of_another_waiting(rig, writer):
    flooding, other = (rig.near, rig.older) if writer == "near" else (rig.older, rig.near)
    flood = {b"flood %d" % number for number in range(FLOOD)}

    async def scenario() -> None:
        assert await rig.far.take() == []
        await left_by(flooding, flood)
        await rig.third.put(b"of a third", to="far")
        await within_two_looks(rig.far, b"of a third")
        await other.put(b"of the other", to="far")
        await within_two_looks(rig.far, b"of the other")
        # Nor is anything of the flood lost.
        assert await all_of(rig.far) <= flood | {b"of the other"}
        assert await rig.far.take() == []

    rig.run(scenario())


@proves("channel.post-fair")
@pytest.mark.timeout(180)
def test_what_is_of_no_machine_of_the_fleet_keeps_no_packet_waiting(rig):
    async def scenario() -> None:
        assert await rig.far.take() == []
        rig.litter()
        await rig.third.put(b"of a third", to="far")
        await within_two_looks(rig.far, b"of a third")
        rig.litter()
        await rig.older.put(b"of one of before", to="far")
        await within_two_looks(rig.far, b"of one of before")

    rig.run(scenario())


@proves("channel.post-for-one")
def test_nobody_takes_or_acknowledges_what_is_for_another(rig):
    async def scenario() -> None:
        await rig.near.put(b"for far", to="far")
        assert await rig.third.take() == await rig.near.take() == []
        (waiting,) = await rig.far.take()
        await rig.third.ack([waiting.id, "no such packet"])
        assert [each.body for each in await rig.far.take()] == [b"for far"]

    rig.run(scenario())


@proves("channel.post-says-so")
def test_a_place_that_is_away_or_full_and_a_packet_that_is_too_large_are_said(rig):
    async def scenario() -> None:
        with pytest.raises(Malformed):
            await rig.near.put(b"x" * (PACKET_BYTES_MAX + 1), to="far")
        await rig.near.put(b"x" * 1000, to="far")
        rig.away(True)
        with pytest.raises(Unreachable):
            await rig.near.put(b"x", to="far")
        with pytest.raises(Unreachable):
            await rig.far.take()
        with pytest.raises(Unreachable):
            await rig.far.ack([hashlib.sha256(b"x" * 1000).hexdigest()])
        rig.away(False)
        assert [each.body for each in await rig.far.take()] == [b"x" * 1000]
        rig.fill()
        with pytest.raises(Exhausted):
            await rig.near.put(b"y", to="far")
        assert len(await rig.far.take()) == 1

    rig.run(scenario())


@proves("channel.post-news")
def test_whoever_waits_for_news_is_woken_by_what_is_left_and_by_the_end(rig):
    async def scenario() -> None:
        async with asyncio.timeout(30):
            assert await rig.far.take() == []
            waiting = asyncio.create_task(rig.far.news(urgent=False))
            await asyncio.sleep(0)
            await rig.near.put(b"one", to="far")
            await waiting
            while not await rig.far.take():
                await rig.far.news(urgent=False)
            waiting = asyncio.create_task(rig.third.news(urgent=False))
            await asyncio.sleep(0)
            await rig.third.close()
            await rig.third.close()
            await waiting
            await rig.third.news(urgent=False)
            await rig.near.close()
            await rig.far.close()

    rig.run(scenario())


def packet_name(body: bytes) -> str:
    return f"{hashlib.sha256(body).hexdigest()}.mp"


@proves("channel.drop-whole-or-not")
def test_a_file_counts_once_its_content_is_what_its_name_says(tmp_path):
    body = random.Random(1).randbytes(1000)

    async def scenario() -> None:
        post = post_at(tmp_path, "far")
        assert await post.take() == []
        file = tmp_path / "far" / packet_name(body)
        file.write_bytes(body[:500])
        assert await post.take() == await post.take() == []
        # A tool that makes it as large as it will be, and then writes it.
        os.truncate(file, 1000)
        assert await post.take() == []
        file.write_bytes(body)
        assert [each.body for each in await post.take()] == [body]
        # Written under another name it is a conflict of the tool, or its own.
        for name in (f"{file.stem}.sync-conflict-1.mp", f".syncthing.{file.name}.tmp", "readme"):
            (tmp_path / "far" / name).write_bytes(body)
        assert len(await post.take()) == 1
        await post.ack([file.stem, "../../../etc/passwd", ""])
        assert await post.take() == []
        assert len(list((tmp_path / "far").iterdir())) == 3

    run(scenario())


@proves("channel.drop-odd-files")
def test_what_is_no_file_is_neither_followed_nor_waited_for_and_nothing_is_read_twice(
    tmp_path, monkeypatch
):
    async def scenario() -> None:
        post = post_at(tmp_path, "far")
        await post.take()
        box, outside = tmp_path / "far", tmp_path / "outside"
        outside.write_bytes(b"outside")
        (box / packet_name(b"outside")).symlink_to(outside)
        os.mkfifo(box / packet_name(b"pipe"))
        (box / packet_name(b"folder")).mkdir()
        with (box / packet_name(b"huge")).open("wb") as file:
            file.truncate(PACKET_BYTES_MAX + 1)
        for number in range(300):
            (box / packet_name(str(number).encode())).write_bytes(b"something else")
        good = box / packet_name(b"good")
        good.write_bytes(b"good")
        os.utime(good, ns=(2**62, 2**62))
        reads: list[int] = []
        sha256 = hashlib.sha256
        monkeypatch.setattr(drop.hashlib, "sha256", lambda raw: reads.append(1) or sha256(raw))
        found = []
        for _ in range(3):
            found += await post.take()
        assert [each.body for each in found] == [b"good"] * 3
        assert len(reads) == 300 + 3

    run(scenario())


@proves("channel.drop-odd-files")
def test_a_link_in_the_place_of_a_mailbox_is_no_mailbox(tmp_path):
    async def scenario() -> None:
        place, outside = tmp_path / "place", tmp_path / "outside"
        place.mkdir()
        outside.mkdir()
        (place / "far").symlink_to(outside)
        with pytest.raises(Unreachable):
            await post_at(place, "near").put(b"x", to="far")
        with pytest.raises(Unreachable):
            await post_at(place, "far").take()
        assert list(outside.iterdir()) == []

    run(scenario())


@proves("channel.drop-bounded")
def test_what_is_put_twice_lies_there_once_and_as_the_place_is_meant(tmp_path):
    async def scenario() -> None:
        tmp_path.chmod(0o770)
        post = post_at(tmp_path, "near")
        await post.put(b"x", to="far")
        await post.put(b"x", to="far")
        (file,) = (tmp_path / "far").iterdir()
        assert file.stat().st_mode & 0o777 == 0o660
        assert file.parent.stat().st_mode & 0o777 == 0o770

    run(scenario())


@proves("channel.post-news")
def test_a_folder_that_cannot_tell_is_looked_at_after_its_deadline(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "watchfiles", None)

    async def scenario() -> None:
        async with asyncio.timeout(30):
            post = post_at(tmp_path, "far", deadline_s=1)
            await post.take()
            await post.news(urgent=True)
            await post.close()

    run(scenario())


@proves("channel.drop-place")
@pytest.mark.parametrize("text", ["", "shared", "./x", "~alice/x", "a\0b"])
def test_a_place_is_named_from_the_root_on(text: str):
    with pytest.raises(Malformed):
        drop.Options().check_place(text)
    assert drop.Options().check_place("~/Shared folder") == "~/Shared folder"


@proves("channel.drop-odd-files")
def test_a_file_that_cannot_be_read_or_removed_costs_the_others_nothing_and_is_counted(
    tmp_path, monkeypatch
):
    bad, good = (drop.hashlib.sha256(raw).hexdigest() for raw in (b"bad", b"good"))
    counted: list[str] = []

    async def main() -> None:
        place = tmp_path / "place"
        place.mkdir()
        writer = post_at(place, "older")
        post = post_at(place, "far", lambda name, error: counted.append(f"{name} {error.errno}"))
        for raw in (b"bad", b"good"):
            await writer.put(raw, to="far")
        plain_open, plain_unlink = os.open, os.unlink

        def opened(path: Any, *args: Any, **more: Any) -> int:
            if path == f"{bad}.mp":
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return plain_open(path, *args, **more)

        def unlinked(path: Any, **more: Any) -> None:
            if path == f"{bad}.mp":
                raise OSError(errno.EPERM, os.strerror(errno.EPERM))
            plain_unlink(path, **more)

        with monkeypatch.context() as broken:
            broken.setattr(drop.os, "open", opened)
            assert [each.body for each in await post.take()] == [b"good"]
        assert counted == [f"unread {errno.EIO}"]
        with monkeypatch.context() as kept:
            kept.setattr(drop.os, "unlink", unlinked)
            await post.ack([bad, good])
        assert counted[1:] == [f"unremoved {errno.EPERM}"]
        assert await post.take() == [], "what was dealt with and stays is not dealt with again"

    run(main())


@proves("channel.drop-odd-files")
def test_any_number_of_odd_files_only_delays_what_is_a_packet(tmp_path, monkeypatch):
    monkeypatch.setattr(drop, "_READ_MAX", 8)
    monkeypatch.setattr(drop, "_PASSED_OVER_MAX", 16)
    monkeypatch.setattr(drop, "GO_ON_S", 0.01)

    async def main() -> None:
        post = post_at(tmp_path, "far", deadline_s=86_400)
        await post.take()
        for number in range(60):
            odd = tmp_path / "far" / packet_name(str(number).encode())
            odd.write_bytes(b"something else")
            os.utime(odd, ns=(number, number))
        await post_at(tmp_path, "near").put(b"good", to="far")
        looks = 1
        async with asyncio.timeout(60):
            while not (found := await post.take()):
                # Nobody tells of anything: a look that was not all goes on by itself.
                await post.news(urgent=False)
                looks += 1
        assert [each.body for each in found] == [b"good"]
        assert looks <= 61 // 8 + 1
        await post.close()

    run(main())


@proves("channel.drop-bounded")
def test_what_is_no_packet_leaves_room_and_what_a_killed_writer_left_is_swept(tmp_path):
    async def main() -> None:
        post = post_at(tmp_path, "older")
        await post.put(b"first", to="far")
        box = tmp_path / "far"
        with (box / "holiday.iso").open("wb") as file:
            file.truncate(1 << 40)
        for number in range(70):
            left = box / f".tmp-{number:08}"
            left.write_bytes(b"")
            os.truncate(left, PACKET_BYTES_MAX)
            if number:
                os.utime(left, (1, 1))
        for name in (".tmp-of-somebody-else", "notes"):
            (box / name).write_bytes(b"")
            os.utime(box / name, (1, 1))
        await post.put(b"second", to="far")
        assert {each.name for each in box.iterdir()} == {
            packet_name(b"first"), packet_name(b"second"), "holiday.iso", ".tmp-00000000",
            ".tmp-of-somebody-else", "notes",
        }  # fmt: skip

    run(main())


@proves("channel.drop-whole-or-not")
def test_what_lies_under_the_name_of_a_packet_by_half_is_written_again(tmp_path):
    async def main() -> None:
        near, far = post_at(tmp_path, "near"), post_at(tmp_path, "far")
        assert await far.take() == []
        (tmp_path / "far" / packet_name(b"whole")).write_bytes(b"wh")
        await near.put(b"whole", to="far")
        assert [each.body for each in await far.take()] == [b"whole"]

    run(main())


@proves("channel.drop-odd-files")
def test_a_link_that_comes_while_a_mailbox_is_made_or_emptied_is_not_followed(
    tmp_path, monkeypatch
):
    async def main() -> None:
        place, outside = tmp_path / "place", tmp_path / "outside"
        for each in (place, outside):
            each.mkdir()
        place.chmod(0o777)
        outside.chmod(0o700)
        (outside / packet_name(b"mine")).write_bytes(b"mine")
        mkdir = os.mkdir

        def swapped(name: str, **more: Any) -> None:
            mkdir(name, **more)
            (place / name).rmdir()
            (place / name).symlink_to(outside)

        with monkeypatch.context() as race:
            race.setattr(drop.os, "mkdir", swapped)
            with pytest.raises(Unreachable):
                await post_at(place, "near").put(b"x", to="far")
        with pytest.raises(Unreachable):
            await post_at(place, "far").ack([packet_name(b"mine")[:-3]])
        assert [each.name for each in outside.iterdir()] == [packet_name(b"mine")]
        assert outside.stat().st_mode & 0o777 == 0o700

    run(main())


# A process of its own: what a hung thread keeps from ending can only be seen from outside.
HANGS = """
import asyncio, sys, threading, time
from pathlib import Path
from muster.channel import drop, hand
from muster.channel.base import Visitor
from muster.errors import Silent

hand.HANGS_S = 1.0
forever, plain = threading.Event(), drop._files

def files(box):
    if threading.current_thread() in hung:
        forever.wait()
    return plain(box)

hung = set()
start = threading.Thread.start
drop._files = files

async def main():
    here, there = Path(sys.argv[1]), Path(sys.argv[2])
    posts = [drop.DropPost(p, Visitor("far", p, print), 1) for p in (here, there)]
    for post in posts:
        await post.take()
    (hung_thread,) = [t for t in threading.enumerate() if t.name == "muster-drop"][:1]
    hung.add(hung_thread)
    waiting = [asyncio.ensure_future(posts[0].put(b"x", to=f"m{n}")) for n in range(40)]
    await asyncio.sleep(0)
    # Neither another place nor the threads of the process are kept.
    await posts[1].put(b"y", to="far")
    assert [each.body for each in await posts[1].take()] == [b"y"]
    await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80)
    await asyncio.to_thread(print, "others go on")
    came = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(each) for each in came} == {Silent}, came
    print(came[0])
    if sys.argv[3] == "back":
        hung.clear()
        forever.set()
        while True:
            try:
                await posts[0].put(b"z", to="far")
                break
            except Silent:
                await asyncio.sleep(0.05)
        print("it came back:", len(await posts[0].take()))
    for post in posts:
        await post.close()

asyncio.run(main())
print("ended")
"""


@proves("channel.place-hangs")
@pytest.mark.parametrize("end", ["never", "back"])
def test_a_place_that_hangs_keeps_nobody_else_and_not_the_end_of_the_process(tmp_path, end):
    places = [tmp_path / "here", tmp_path / "there"]
    for place in places:
        place.mkdir()
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", HANGS, *map(str, places), end],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert f"the folder {places[0]} has not answered within 1 s: it hangs" in ended.stdout
    assert ("it came back: 1" in ended.stdout) is (end == "back")
    assert ended.stdout.endswith("ended\n")
    assert not ended.stderr


@proves("channel.post-news")
def test_where_no_watch_can_stand_the_folder_is_looked_at_now_and_then(tmp_path, monkeypatch):
    begun: list[str] = []
    counted: list[str] = []

    def no_watch(*args: Any, **more: Any) -> Any:
        begun.append("one")
        raise OSError(errno.ENOSPC, "the system has no more watches")

    async def main() -> None:
        place = tmp_path / "place"
        place.mkdir()
        post = post_at(place, "far", lambda name, _: counted.append(name), deadline_s=1)
        await post.take()
        loop = asyncio.get_running_loop()
        before_s = loop.time()
        for _ in range(2):
            await post.news(urgent=False)
        assert loop.time() - before_s >= 2
        assert begun == ["one"]
        await post.take()
        assert counted == ["unwatched"]
        await post.close()

    monkeypatch.setattr("watchfiles.watch", no_watch)
    run(main())


@proves("channel.drop-bounded")
def test_a_place_of_a_group_gives_its_mailboxes_to_that_group(tmp_path):
    async def main() -> None:
        place = tmp_path / "place"
        place.mkdir()
        place.chmod(0o2770)
        await post_at(place, "near").put(b"one", to="far")
        assert (place / "far").stat().st_mode & 0o7777 == 0o2770
        place.chmod(0o1777)
        await post_at(place, "near").put(b"x", to="third")
        assert (place / "third").stat().st_mode & 0o7777 == 0o777

    run(main())
