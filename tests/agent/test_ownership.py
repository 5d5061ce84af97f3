"""Folders that root lends to another user: no link is followed, no other name's file is lent."""

import os

import pytest
from tests.promise import proves

from muster.agent.sandbox import ownership

USER = 65534

pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files to others"
)


def owners(folder):
    found = {"": os.lstat(folder).st_uid}
    for path in folder.rglob("*"):
        found[str(path.relative_to(folder))] = os.lstat(path).st_uid
    return found


@pytest.fixture
def work(tmp_path):
    folder = tmp_path / "work"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "file").write_text("x")
    (folder / "closed").mkdir(mode=0o000)
    return folder


@proves("enclosure.lent-folders")
def test_a_folder_is_lent_and_taken_back_whole(work):
    ownership.lend(str(work), USER)
    assert set(owners(work).values()) == {USER}
    ownership.take_back(str(work), USER)
    assert set(owners(work).values()) == {0}


@proves("enclosure.lent-folders")
def test_what_a_link_leads_to_stays_whose_it_is(work, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("x")
    (work / "link").symlink_to(outside)
    (work / "to-file").symlink_to(outside / "file")
    ownership.lend(str(work), USER)
    assert set(owners(outside).values()) == {0}
    os.chown(outside, USER, USER)
    ownership.take_back(str(work), USER)
    assert os.lstat(outside).st_uid == USER


@proves("enclosure.lent-folders")
def test_a_file_with_a_second_name_is_not_lent(work, tmp_path):
    shared = tmp_path / "shared"
    shared.write_text("an object of the cache")
    os.link(shared, work / "object")
    ownership.lend(str(work), USER)
    assert os.lstat(shared).st_uid == 0


@proves("enclosure.lent-folders")
def test_what_belongs_to_somebody_else_stays_theirs(work):
    (work / "theirs").write_text("x")
    os.chown(work / "theirs", 12345, 12345)
    ownership.lend(str(work), USER)
    assert os.lstat(work / "theirs").st_uid == 12345
    ownership.take_back(str(work), USER)
    assert os.lstat(work / "theirs").st_uid == 12345


@proves("enclosure.lent-folders")
def test_a_program_that_would_run_as_its_owner_does_not_become_roots(work):
    program = work / "su"
    program.write_text("x")
    os.chown(program, USER, USER)
    program.chmod(0o6755)
    ownership.take_back(str(work), USER)
    found = os.lstat(program)
    assert (found.st_uid, found.st_mode & 0o7777) == (0, 0o755)


@proves("enclosure.lent-folders")
def test_a_tree_deeper_than_there_are_descriptors_is_walked(work):
    import resource
    import subprocess

    depth = 1500
    at = os.open(work, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        ownership.lend(str(work), USER)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert os.fstat(at).st_uid == USER
    os.close(at)
    # Nobody else gets rid of paths that are this long.
    subprocess.run(["rm", "-r", work / "d"], check=True)


@proves("enclosure.lent-folders")
def test_a_folder_that_is_gone_or_a_link_is_nobodys(work, tmp_path):
    ownership.take_back(str(tmp_path / "gone"), USER)
    (tmp_path / "link").symlink_to(work)
    with pytest.raises(OSError):
        ownership.lend(str(tmp_path / "link"), USER)
    assert set(owners(work).values()) == {0}
