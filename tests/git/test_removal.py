"""A folder goes away whatever is in it, and what cannot go is told."""

import os
import subprocess
from pathlib import Path

import pytest
from tests.git.repositories import wait
from tests.promise import proves
from tests.work import calls

from muster.git import removal

IMMUTABLE = os.geteuid() == 0


def gone(path: Path) -> str:
    return wait(removal.remove(path))


@proves("git.no-debris")
@pytest.mark.parametrize("depth", [3, 1_500])
def test_a_folder_of_any_depth_goes(tmp_path: Path, depth: int) -> None:
    top = tmp_path / "x"
    top.mkdir()
    at = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("a-longer-name", dir_fd=at)
        below = os.open("a-longer-name", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    assert gone(top) == ""
    assert not top.exists()


@proves("git.no-debris")
def test_read_only_folders_odd_names_pipes_and_links_go(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("stays")
    top = tmp_path / "x"
    for name in ("-rf", "line\nbreak", " ", "caf\udce9", "\x01\x02"):
        (top / name).mkdir(parents=True)
        (top / name / name).write_text("x")
        (top / name).chmod(0o500)
    os.mkfifo(top / "pipe")
    (top / "link").symlink_to(kept)
    for number in range(600):
        (top / f"f{number}").touch()
    assert gone(top) == ""
    assert not top.exists()
    assert (kept / "file").read_text() == "stays"


@proves("node.slow-files-outside-the-loop")
def test_the_loop_goes_on_while_many_files_are_removed(tmp_path: Path) -> None:
    top = tmp_path / "x"
    for folder in range(100):
        (top / str(folder)).mkdir(parents=True)
        for number in range(100):
            (top / str(folder) / str(number)).touch()

    # Another program removes them: also a thread of ours would hold the interpreter.
    assert calls(lambda: gone(top)) < 5_000
    assert not top.exists()


@proves("git.remains-are-told")
@pytest.mark.skipif(not IMMUTABLE, reason="only root may make a file unchangeable")
def test_what_cannot_be_removed_is_told_with_the_reason(tmp_path: Path) -> None:
    top = tmp_path / "x"
    top.mkdir()
    (top / "file").touch()
    if subprocess.run(["chattr", "+i", top / "file"], check=False, capture_output=True).returncode:
        pytest.skip("this disk knows no unchangeable files")
    try:
        why = gone(top)
        assert "file" in why
        assert "not permitted" in why
    finally:
        subprocess.run(["chattr", "-i", top / "file"], check=True)
    assert gone(top) == ""


@proves("git.remains-are-told")
def test_nothing_is_removed_through_a_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = tmp_path / "a b"
    (top / "inner").mkdir(parents=True)
    (top / "inner" / "precious").touch()
    text = f"36 35 98:0 / {top}/inner rw - ext4 /dev/x rw\n".replace("a b", "a\\040b")
    real = Path.read_bytes
    monkeypatch.setattr(
        Path,
        "read_bytes",
        lambda p: text.encode() if str(p) == "/proc/self/mountinfo" else real(p),
    )
    assert gone(top) == "inner is mounted in it"
    assert (top / "inner" / "precious").exists()


@proves("git.no-debris")
def test_a_folder_whose_mode_forbids_it_to_be_moved_is_moved(tmp_path: Path) -> None:
    closed = tmp_path / "work" / "x"
    closed.mkdir(parents=True)
    closed.chmod(0)
    aside = removal.set_aside(closed)
    assert aside is not None
    assert aside.name.startswith(removal.ASIDE_PREFIX)
    assert gone(aside) == ""
    assert list((tmp_path / "work").glob("*")) == []


@proves("git.remains-are-told")
def test_what_cannot_even_be_moved_leaves_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "x"
    closed.mkdir()

    def denied(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "rename", denied)
    assert removal.set_aside(closed) == closed
    assert list(tmp_path.glob("*")) == [closed]


@proves("git.no-debris")
def test_what_is_not_there_is_gone(tmp_path: Path) -> None:
    assert gone(tmp_path / "never") == ""
    assert removal.set_aside(tmp_path / "never") is None
