"""What `channel/base.py` promises of mailboxes, held against every one of them."""

import asyncio
import errno
import hashlib
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.channel.memory_post import MemoryPost, Place
from tests.channel.rigs import run
from tests.promise import proves

from muster.channel import drop
from muster.channel.base import Own, Post
from muster.errors import Exhausted, Malformed, Unreachable
from muster.limits import PACKET_BYTES_MAX


@dataclass
class Rig:
    """Three machines at one place, and what can happen to it."""

    near: Post
    far: Post
    third: Post
    away: Callable[[bool], None]
    fill: Callable[[], None]


def memory(_: Path) -> Rig:
    place, rng = Place(), random.Random(7)

    def away(is_away: bool) -> None:
        place.away = is_away

    def fill() -> None:
        place.room = 0

    near, far, third = (MemoryPost(place, name, rng.shuffle) for name in ("near", "far", "third"))
    return Rig(near, far, third, away, fill)


def folder(tmp_path: Path) -> Rig:
    place = tmp_path / "place"
    place.mkdir()

    def away(is_away: bool) -> None:
        here, there = place, tmp_path / "elsewhere"
        (here if is_away else there).rename(there if is_away else here)

    def fill() -> None:
        for number in range(64):
            with (place / "far" / f"{number}.mp").open("wb") as file:
                file.truncate(1024 * 1024)

    return Rig(*(post_at(place, name) for name in ("near", "far", "third")), away, fill)


def post_at(place: Path, machine: str, **more: Any) -> drop.DropPost:
    nobody: Any = None
    return drop.open_channel(drop.Options(place=str(place), **more), Own(machine, nobody, nobody))


@pytest.fixture(params=[memory, folder], ids=["memory", "drop"])
def rig(request, tmp_path) -> Rig:
    return request.param(tmp_path)


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

    run(scenario())


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

    run(scenario())


@proves("channel.post-for-one")
def test_nobody_takes_or_acknowledges_what_is_for_another(rig):
    async def scenario() -> None:
        await rig.near.put(b"for far", to="far")
        assert await rig.third.take() == await rig.near.take() == []
        (waiting,) = await rig.far.take()
        await rig.third.ack([waiting.id, "no such packet"])
        assert [each.body for each in await rig.far.take()] == [b"for far"]

    run(scenario())


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
            await rig.far.ack(["1"])
        rig.away(False)
        assert [each.body for each in await rig.far.take()] == [b"x" * 1000]
        rig.fill()
        with pytest.raises(Exhausted):
            await rig.near.put(b"y", to="far")
        assert len(await rig.far.take()) == 1

    run(scenario())


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

    run(scenario())


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
        assert [each.body for each in found] == [b"good", b"good"]
        assert len(reads) == 300 + 2

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
def test_a_file_that_cannot_be_read_or_removed_costs_the_others_nothing(tmp_path, monkeypatch):
    bad, good = (drop.hashlib.sha256(raw).hexdigest() for raw in (b"bad", b"good"))

    async def main() -> None:
        place = tmp_path / "place"
        place.mkdir()
        writer, post = post_at(place, "near"), post_at(place, "far")
        for raw in (b"bad", b"good"):
            await writer.put(raw, to="far")
        plain_open, plain_unlink = os.open, Path.unlink

        def opened(path: Any, *args: Any, **more: Any) -> int:
            if Path(path).name == f"{bad}.mp":
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return plain_open(path, *args, **more)

        def unlinked(path: Path, **more: Any) -> None:
            if path.name == f"{bad}.mp":
                raise OSError(errno.EPERM, os.strerror(errno.EPERM))
            plain_unlink(path, **more)

        with monkeypatch.context() as broken:
            broken.setattr(drop.os, "open", opened)
            assert [each.body for each in await post.take()] == [b"good"]
        with monkeypatch.context() as kept:
            kept.setattr(drop.Path, "unlink", unlinked)
            await post.ack([bad, good])
        assert await post.take() == [], "what was dealt with and stays is not dealt with again"

    run(main())


@proves("channel.post-news")
def test_where_no_watch_can_stand_the_folder_is_looked_at_now_and_then(tmp_path, monkeypatch):
    begun: list[str] = []

    def no_watch(*args: Any, **more: Any) -> Any:
        begun.append("one")
        raise OSError(errno.ENOSPC, "the system has no more watches")

    async def main() -> None:
        place = tmp_path / "place"
        place.mkdir()
        post = post_at(place, "far", deadline_s=1)
        await post.take()
        loop = asyncio.get_running_loop()
        before_s = loop.time()
        for _ in range(2):
            await post.news(urgent=False)
        assert loop.time() - before_s >= 2
        assert begun == ["one"]
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

    run(main())
