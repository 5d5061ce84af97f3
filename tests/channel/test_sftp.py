"""A folder of a far host as a mailbox, over a real sshd: who the host is, and what may lie there."""

import asyncio
import hashlib
import os
import re
import sys
from pathlib import Path

import pytest
from tests.channel import sftp_place
from tests.promise import proves

from muster.channel import drop, sftp
from muster.channel.base import Visitor
from muster.channel.sftp import SftpPost, Where
from muster.errors import Broken, Malformed, Unreachable
from muster.extra import bring
from muster.limits import PACKET_BYTES_MAX


def named(body: bytes) -> str:
    return f"{hashlib.sha256(body).hexdigest()}.mp"


@proves("channel.sftp-host-is-known")
def test_a_host_that_is_not_known_or_shows_another_key_gets_nothing(tmp_path):
    host = sftp_place.shared()
    other = tmp_path / "known"
    key = (host.folder / "key.pub").read_text()
    place = tmp_path / "place"
    place.mkdir()

    async def scenario() -> None:
        for said in ("", f"[127.0.0.1]:{host.port} {key}"):
            other.write_text(said)
            post = sftp_place.post_at(place, "near", known_hosts=str(other))
            with pytest.raises(Broken, match="is not the one that"):
                await post.put(b"x", to="far")
            await post.close()
        other.unlink()
        post = sftp_place.post_at(place, "near", known_hosts=str(other))
        with pytest.raises(Broken, match="or is not in there"):
            await post.take()
        await post.close()
        assert not list(place.iterdir())

    asyncio.run(scenario())


@proves("channel.sftp-host-is-known")
def test_a_key_that_is_not_let_in_none_and_a_missing_library_are_said_in_a_sentence(
    tmp_path, monkeypatch
):
    host = sftp_place.shared()

    async def scenario() -> None:
        for key, says in ((host.folder / "host_key", "does not let"), (tmp_path / "no", "key")):
            post = sftp_place.post_at(tmp_path, "near", key=str(key))
            with pytest.raises(Broken, match=says):
                await post.take()
            await post.close()
        monkeypatch.setitem(sys.modules, "asyncssh", None)
        for name in ("ssh_client", "far_files"):
            monkeypatch.delitem(sys.modules, f"muster.channel.{name}", raising=False)
        post = sftp_place.post_at(tmp_path, "near")
        with pytest.raises(Broken, match=re.escape(bring("ssh"))):
            await post.take()
        await post.close()

    asyncio.run(scenario())


@proves("channel.sftp-place")
def test_an_sshd_that_ends_is_away_and_used_again_when_it_is_back(tmp_path):
    sftp_place.require()
    host = sftp_place.Host()

    async def scenario() -> None:
        post = sftp_place.post_at(tmp_path, "far", host)
        await post.put(b"one", to="far")
        host.kill()
        for _ in range(2):
            with pytest.raises(Unreachable):
                await post.take()
        host.start()
        assert [each.body for each in await post.take()] == [b"one"]
        await post.close()
        with pytest.raises(Unreachable, match="closed"):
            await post.take()

    try:
        asyncio.run(scenario())
    finally:
        host.close()


@proves("channel.sftp-place")
def test_one_that_takes_connections_and_says_nothing_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(sftp, "HANGS_S", 0.3)

    async def scenario() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        place = f"sftp://me@127.0.0.1:{port}{tmp_path}"
        key, known = sftp_place.shared().credentials
        post = SftpPost(place, key, known, Visitor("far", tmp_path, sftp_place.unexpected), 1)
        with pytest.raises(Unreachable, match="does not answer"):
            await post.take()
        await post.close()
        server.close()
        await server.wait_closed()

    asyncio.run(scenario())


@proves("channel.sftp-place", "channel.drop-odd-files")
def test_what_is_no_file_is_not_followed_and_what_is_not_whole_is_not_there(tmp_path):
    sftp_place.require()
    body = b"x" * 1000

    async def scenario() -> None:
        post = sftp_place.post_at(tmp_path, "far")
        assert await post.take() == []
        box, outside = tmp_path / "far", tmp_path / "outside"
        outside.write_bytes(b"outside")
        (box / named(b"outside")).symlink_to(outside)
        os.mkfifo(box / named(b"pipe"))
        (box / named(b"folder")).mkdir()
        with (box / named(b"huge")).open("wb") as file:
            file.truncate(PACKET_BYTES_MAX + 1)
        for name in ("readme", f"{named(body)[:-3]}.sync-conflict-1.mp"):
            (box / name).write_bytes(body)
        half = box / named(body)
        half.write_bytes(body[:500])
        assert await post.take() == await post.take() == []
        # As large as it will be, in the same second: it is read again in a while.
        half.write_bytes(bytes(1000))
        assert await post.take() == []
        mark = half.stat().st_mtime_ns
        half.write_bytes(body)
        os.utime(half, ns=(mark, mark))
        looks = 0
        while not (found := await post.take()):
            looks += 1
            assert looks < 30
        assert [each.body for each in found] == [body]
        assert looks > 10
        await post.ack([half.stem, "../outside", ""])
        assert not half.exists()
        assert outside.exists()
        (tmp_path / "third").symlink_to(box)
        for use in (post.put(b"x", to="third"), sftp_place.taken(tmp_path, "third")):
            with pytest.raises(Unreachable):
                await use
        await post.close()

    asyncio.run(scenario())


@proves("channel.sftp-place")
def test_a_look_that_is_given_up_leaves_no_connection(tmp_path, monkeypatch):
    asyncssh = pytest.importorskip("asyncssh")
    sftp_place.shared()

    async def scenario() -> None:
        begun = asyncio.get_running_loop().create_future()

        async def never(connection, **_) -> None:
            begun.set_result(connection)
            await asyncio.Event().wait()

        monkeypatch.setattr(asyncssh.SSHClientConnection, "start_sftp_client", never)
        post = sftp_place.post_at(tmp_path, "far")
        look = asyncio.create_task(post.take())
        connection = await begun
        look.cancel()
        await asyncio.wait([look])
        async with asyncio.timeout(20):
            await connection.wait_closed()
        await post.close()

    asyncio.run(scenario())


@proves("channel.sftp-place")
@pytest.mark.parametrize("bound", ["LOOK_S", "LOOK_BYTES"])
def test_a_look_over_a_slow_line_ends_with_what_it_has_and_the_next_goes_on_there(
    tmp_path, monkeypatch, bound
):
    sftp_place.require()
    monkeypatch.setattr(sftp, bound, 0)
    ends: list[float] = []

    async def scenario() -> None:
        post = sftp_place.post_at(tmp_path, "far")
        from muster.channel import far_files

        read = far_files.Files.read

        async def noted(files, path: str, most: int) -> bytes:
            ends.append(post._within.when())
            return await read(files, path, most)

        monkeypatch.setattr(far_files.Files, "read", noted)
        for body in (b"one", b"two", b"three"):
            await post.put(body, to="far")
        found = []
        for _ in range(3):
            packets = await post.take()
            assert len(packets) == 1
            # It is looked at again soon.
            async with asyncio.timeout(20):
                await post.news(urgent=False)
            found.append(packets[0].body)
        assert sorted(found) == [b"one", b"three", b"two"]
        monkeypatch.undo()
        monkeypatch.setattr(far_files.Files, "read", noted)
        assert len(await post.take()) == 3
        # Each answer shows that it does not hang.
        assert ends[-3:] == sorted(set(ends[-3:]))
        await post.close()

    asyncio.run(scenario())


@proves("channel.sftp-place", "channel.drop-odd-files")
@pytest.mark.skipif(sys.platform == "darwin", reason="there every name is UTF-8")
def test_a_file_with_a_name_that_is_no_text_stops_nobody(tmp_path):
    sftp_place.require()
    (tmp_path / "far").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "far") + b"/\xff")).touch()

    async def scenario() -> None:
        post = sftp_place.post_at(tmp_path, "far")
        await post.put(b"one", to="far")
        assert [each.body for each in await post.take()] == [b"one"]
        await post.put(b"two", to="far")
        await post.close()

    asyncio.run(scenario())


@proves("channel.sftp-place")
def test_a_box_in_a_place_of_a_group_is_of_that_group_too(tmp_path):
    sftp_place.require()
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(0o3770)

    async def scenario() -> None:
        post = sftp_place.post_at(place, "near")
        await post.put(b"one", to="far")
        assert (place / "far").stat().st_mode & 0o7777 == 0o2770
        await post.close()

    asyncio.run(scenario())


@proves("channel.sftp-host-is-known")
def test_known_hosts_that_are_no_text_are_said_in_a_sentence(tmp_path):
    sftp_place.require()
    (tmp_path / "known").write_bytes(b"\xff\xfe\n")

    async def scenario() -> None:
        post = sftp_place.post_at(tmp_path, "near", known_hosts=str(tmp_path / "known"))
        with pytest.raises(Broken, match="is no file of known hosts"):
            await post.take()
        await post.close()

    asyncio.run(scenario())


@proves("channel.sftp-place")
def test_what_killed_writers_left_goes_and_what_is_written_now_stays(tmp_path):
    sftp_place.require()

    async def scenario() -> None:
        post = sftp_place.post_at(tmp_path, "older")
        await post.put(b"one", to="far")
        box = tmp_path / "far"
        for name, age_s in ((".tmp-0123456789abcdef", 4_000), (".tmp-1123456789abcdef", 10)):
            (box / name).write_bytes(b"half")
            then = (box / named(b"one")).stat().st_mtime - age_s
            os.utime(box / name, (then, then))
        (box / ".tmp-of-others").write_bytes(b"")
        os.utime(box / ".tmp-of-others", (1, 1))
        await post.put(b"two", to="far")
        left = {each.name for each in box.iterdir()}
        assert left == {named(b"one"), named(b"two"), ".tmp-1123456789abcdef", ".tmp-of-others"}
        assert box.stat().st_mode & 0o777 == tmp_path.stat().st_mode & 0o777
        await post.close()

    asyncio.run(scenario())


@proves("channel.sftp-place")
@pytest.mark.parametrize(
    ("place", "means"),
    [
        ("sftp://me@nas/srv/box", ("me", "nas", 22, "/srv/box")),
        ("sftp://nas:2222/~/box", ("", "nas", 2222, "box")),
        ("sftp://a.b@[::1]:22/x", ("a.b", "::1", 22, "/x")),
    ],
)
def test_a_place_names_who_where_and_which_folder(place, means):
    assert sftp.split(place) == Where(*means)
    assert drop.check_place(place) == place


@proves("channel.sftp-place")
@pytest.mark.parametrize(
    "place",
    ["sftp://", "sftp://nas", "sftp://nas/", "sftp://a b@nas/x", "sftp://-o@nas/x", "sftp://nas:0/x", "sftp:///x", "sftp://nas/a\0"],
)  # fmt: skip
def test_what_is_no_place_is_refused_where_it_is_said(place):
    with pytest.raises(Malformed):
        drop.Options.check_place(place)


def test_a_folder_of_this_machine_is_still_one():
    assert drop.check_place("/srv/box") == "/srv/box"
    assert isinstance(
        drop.open_channel(
            drop.Options(place="/srv/box"), Visitor("x", Path("/"), sftp_place.unexpected)
        ),
        drop.DropPost,
    )
