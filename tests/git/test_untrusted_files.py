"""Files of others are read, and whatever they are nothing of them stays open."""

import os

from tests.promise import proves

from muster.git import untrusted_files


def open_files() -> int:
    return len(os.listdir("/dev/fd"))


@proves("git.untrusted-files-closed")
def test_what_is_no_plain_file_is_not_read_and_not_left_open(tmp_path):
    folder, pipe, link = tmp_path / "folder", tmp_path / "pipe", tmp_path / "link"
    folder.mkdir()
    os.mkfifo(pipe)
    link.symlink_to(folder)
    before = open_files()
    for path in (folder, pipe, link, tmp_path / "nothing"):
        assert [untrusted_files.read(path, 10) for _ in range(20)] == [None] * 20
    assert untrusted_files.read(link, 10, follow=True) is None
    assert open_files() == before


@proves("git.untrusted-files-closed")
def test_of_a_plain_file_the_first_bytes_are_read(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    before = open_files()
    assert untrusted_files.read(tmp_path / "file", 4) == b"0123"
    assert open_files() == before
