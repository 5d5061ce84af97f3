"""Files below a folder that an order names: whatever a path, a link or another program tries."""

import errno
import hashlib
import os
import socket
from pathlib import Path

import pytest
from tests.promise import proves

from muster.errors import Conflict, Denied, Exhausted, Malformed, MusterError, NotFound, Refused
from muster.node.host import within


@pytest.fixture
def disk(tmp_path):
    """`in` is the folder of the order; `out` holds what must not be reached."""
    for name in ("in/deep", "out", "home/deep"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "in" / "a").write_bytes(b"fine")
    (tmp_path / "in" / "deep" / "b").write_bytes(b"fine")
    (tmp_path / "out" / "secret").write_bytes(b"secret")
    (tmp_path / "home" / "seed").write_bytes(b"secret")
    (tmp_path / "home" / "deep" / "seed").write_bytes(b"secret")
    return tmp_path


def read(disk: Path, path: str, root: str = "") -> bytes:
    top = root or str(disk / "in")
    shut = (str(disk / "home"),)
    with within.spot(top, path, person=str(disk), shut=shut, follow=True) as at:
        file = within.open_file(at)
        try:
            return os.read(file, 100)
        finally:
            os.close(file)


def write(disk: Path, path: str, data: bytes = b"new", root: str = "") -> None:
    top = root or str(disk / "in")
    shut = (str(disk / "home"),)
    with (
        within.spot(top, path, person=str(disk), shut=shut) as at,
        within.Part(at, "key") as part,
    ):
        part.resume(len(data))
        part.write(data[part.size :])
        part.place(0o640)


def everything(disk: Path) -> dict[str, bytes]:
    return {
        str(each.relative_to(disk)): each.read_bytes()
        for each in sorted(disk.rglob("*"))
        if each.is_file() and not each.is_symlink()
    }


@proves("remote.files-stay-below")
def test_files_below_are_read_and_replaced_whole(disk):
    (disk / "in" / "link").symlink_to("deep/b")
    (disk / "in" / "folder").symlink_to(disk / "in" / "deep")
    assert [read(disk, path) for path in ("a", "deep/b", "link", "folder/b")] == [b"fine"] * 4
    assert read(disk, "a", root="~/in") == b"fine"
    assert read(disk, str(disk / "in" / "a")[1:], root="/") == b"fine"
    write(disk, "folder/b")
    write(disk, "fresh")
    assert (disk / "in" / "deep" / "b").read_bytes() == b"new"
    assert (disk / "in" / "fresh").stat().st_mode & 0o777 == 0o640
    assert not list(disk.rglob("*.part"))


PATHS = [
    "", "/", "..", ".", "../out/secret", "deep/../../out/secret", "deep/..", "/etc/passwd", "deep//b", "a/",
    "a\0b", "\0", "./a", "deep/./b", "x" * 300, "deep/" + "y" * 256, "\udcff", "~/../x/..",
]  # fmt: skip


@proves("remote.files-stay-below")
@pytest.mark.parametrize("path", PATHS, ids=range(len(PATHS)))
def test_a_path_that_is_none_below_a_folder_is_one_sentence(disk, path):
    before = everything(disk)
    for act in (read, write):
        with pytest.raises(MusterError) as refused:
            act(disk, path)
        assert isinstance(refused.value, Malformed | NotFound | Refused)
        assert str(refused.value).isprintable()
        assert len(str(refused.value)) < 600
    assert everything(disk) == before


@proves("remote.files-stay-below")
@pytest.mark.parametrize(
    "root", ["", "in", "./in", "/../etc", "~x", "~/../out", "/in\0", "~/in/.."]
)
def test_a_root_that_is_no_whole_path_is_refused(disk, root):
    with pytest.raises(Malformed), within.spot(root, "a", person=str(disk), shut=()):
        pass


@proves("remote.files-stay-below")
def test_links_that_lead_out_are_refused_wherever_they_stand(disk):
    (disk / "in" / "file").symlink_to(disk / "out" / "secret")
    (disk / "in" / "up").symlink_to("../out")
    (disk / "in" / "deep" / "chain").symlink_to("../up/secret")
    (disk / "in" / "all").symlink_to("/")
    (disk / "in" / "loop").symlink_to("loop")
    (disk / "in" / "beside").symlink_to(f"{disk}/in-other")
    (disk / "in-other").write_bytes(b"secret")
    before = everything(disk)
    out = ("file", "up/secret", "deep/chain", f"all{disk}/out/secret", "loop", "loop/x", "beside")
    for path in out:
        for act in (read, write):
            with pytest.raises((Refused, NotFound)):
                act(disk, path)
    assert everything(disk) == before
    assert (disk / "in" / "file").is_symlink()


@proves("remote.files-stay-below")
def test_a_link_that_is_put_there_between_the_look_and_the_opening_is_refused(disk, monkeypatch):
    """What was resolved is believed of nobody: the way is walked by descriptors."""
    plain = os.path.realpath

    def late(path, **more):
        found = plain(path, **more)
        if str(path).endswith("/in/deep"):
            (disk / "in" / "deep" / "b").unlink(missing_ok=True)
            (disk / "in" / "deep").rmdir()
            (disk / "in" / "deep").symlink_to(disk / "out")
        return found

    monkeypatch.setattr(os.path, "realpath", late)
    with pytest.raises(Refused):
        read(disk, "deep/secret")
    monkeypatch.undo()
    assert (disk / "out" / "secret").read_bytes() == b"secret"


@proves("remote.files-stay-below")
def test_what_is_no_plain_file_is_neither_read_nor_replaced(disk, monkeypatch):
    os.mkfifo(disk / "in" / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        # The name of a socket is short.
        monkeypatch.chdir(disk / "in")
        listener.bind("sock")
        for path in ("pipe", "sock", "deep"):
            for act in (read, write):
                with pytest.raises((Refused, Conflict)):
                    act(disk, path)
    for path in ("null", "zero", "stdin"):
        for act in (read, write):
            with pytest.raises((Refused, NotFound, Conflict)):
                act(disk, path, root="/dev")
    assert not list((disk / "in").glob("*.part"))


@proves("remote.files-stay-below")
def test_nothing_of_musters_own_home_is_copied_by_whatever_way(disk):
    (disk / "in" / "link").symlink_to(disk / "home")
    (disk / "alias").symlink_to(disk / "home")
    before = everything(disk)
    ways = [
        ("home/seed", str(disk)), ("seed", str(disk / "home")), ("deep/seed", str(disk / "home")),
        ("seed", str(disk / "home" / "deep")), ("alias/seed", str(disk)), ("seed", str(disk / "alias")),
        ("home/seed", "~"), (f"{str(disk)[1:]}/home/seed", "/"),
    ]  # fmt: skip
    for path, root in ways:
        for act in (read, write):
            with pytest.raises(Denied, match="own home"):
                act(disk, path, root=root)
    with pytest.raises(Refused):
        read(disk, "link/seed")
    assert everything(disk) == before


@proves("remote.files-stay-below")
def test_a_part_that_somebody_else_put_there_is_not_written_into(disk):
    name = f".muster-{hashlib.sha256(b'a' + chr(10).encode() + b'key').hexdigest()[:24]}.part"
    part = disk / "in" / name
    part.symlink_to(disk / "out" / "secret")
    with pytest.raises(Refused):
        write(disk, "a")
    part.unlink()
    os.link(disk / "out" / "secret", part)
    with pytest.raises(Refused, match="not ours"):
        write(disk, "a")
    part.unlink()
    os.mkfifo(part)
    with pytest.raises(Refused):
        write(disk, "a")
    part.unlink()
    assert (disk / "out" / "secret").read_bytes() == b"secret"
    assert (disk / "in" / "a").read_bytes() == b"fine"


@proves("remote.copies-go-on")
def test_a_part_goes_on_where_it_ended_and_counts_when_it_is_whole(disk):
    def part(size: int) -> tuple[int, str]:
        with (
            within.spot(str(disk / "in"), "a", person="/", shut=()) as at,
            within.Part(at, "key") as found,
        ):
            had = found.resume(size)
            found.write(b"123")
            return had, found.digest

    assert part(6) == (0, hashlib.sha256(b"123").hexdigest())
    assert (disk / "in" / "a").read_bytes() == b"fine"
    assert part(6) == (3, hashlib.sha256(b"123123").hexdigest())
    # It is longer than what comes: it is of something else.
    assert part(5) == (0, hashlib.sha256(b"123").hexdigest())
    write(disk, "a", b"123456")
    assert (disk / "in" / "a").read_bytes() == b"123456"


@proves("remote.copies-go-on")
def test_two_that_copy_one_file_are_not_mixed(disk):
    with within.spot(str(disk / "in"), "a", person="/", shut=()) as at:
        with within.Part(at, "key") as first:
            first.write(b"1")
            with pytest.raises(Conflict, match="another command"):
                within.Part(at, "key")
            with within.Part(at, "another"):
                pass
        with within.Part(at, "key") as second:
            assert second.resume(9) == 1
            second.discard()
    assert not list((disk / "in").glob(".muster*"))


@proves("remote.copies-go-on")
def test_a_full_disk_is_said_so_and_leaves_the_old_file(disk, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(Exhausted, match="No space left"):
        write(disk, "a")
    monkeypatch.undo()
    assert (disk / "in" / "a").read_bytes() == b"fine"
