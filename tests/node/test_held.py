"""What a folder holds, for who copies all of it."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.promise import proves

from muster.errors import Exhausted, NotFound, Refused
from muster.node.host import held as folder
from muster.node.host import within
from muster.node.host.held import Held


def held(disk: Path, name: str, *shut: Path) -> list[Held]:
    with within.spot(str(disk), name, person="/", shut=(), itself=True) as at:
        return list(folder.held(at, [str(each) for each in shut]))


@proves("remote.folders-file-by-file")
def test_plain_files_are_named_and_all_else_is_passed_over(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "seed").write_bytes(b"key")
    (tmp_path / "in" / "deep" / "a").write_bytes(b"aa")
    (tmp_path / "in" / "to").symlink_to(tmp_path / "home")
    os.mkfifo(tmp_path / "in" / "pipe")
    found = held(tmp_path, "in", tmp_path / "home")
    assert [(each.path, each.size, bool(each.passed)) for each in found] == [
        ("deep/a", 2, False), ("pipe", 0, True), ("to", 0, True),
    ]  # fmt: skip
    assert "in/deep/a" in [each.path for each in held(tmp_path, ".", tmp_path / "home")]
    assert Held("home", passed="Muster's own home") in held(tmp_path, ".", tmp_path / "home")
    for name, error in (("none", NotFound), ("in/deep/a", Refused), ("home", Refused)):
        with pytest.raises(error):
            held(tmp_path, name, tmp_path / "home")


@proves("remote.folders-file-by-file")
def test_a_folder_of_another_file_system_is_named_and_not_opened(tmp_path, monkeypatch):
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted" / "a").touch()
    (tmp_path / "plain").touch()
    stat, opened = os.stat, os.open

    def seen(name: Any, **how: Any) -> Any:
        found = stat(name, **how)
        if name != "mounted":
            return found
        return SimpleNamespace(st_mode=found.st_mode, st_size=0, st_dev=found.st_dev + 1)

    def opens(name: Any, *how: Any, **more: Any) -> int:
        assert name != "mounted", "it may hang"
        return opened(name, *how, **more)

    monkeypatch.setattr(os, "stat", seen)
    monkeypatch.setattr(os, "open", opens)
    found = held(tmp_path, ".")
    assert found == [Held("mounted", passed="another file system"), Held("plain")]


@proves("remote.folders-file-by-file")
def test_more_than_a_listing_may_hold_is_refused_and_never_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "ENTRIES_MAX", 2)
    monkeypatch.setattr(folder, "DEPTH_MAX", 2)
    (tmp_path / "1" / "2" / "3").mkdir(parents=True)
    (tmp_path / "1" / "2" / "3" / "a").touch()
    assert [each.path for each in held(tmp_path, ".")] == ["1/2"]
    for name in "abc":
        (tmp_path / name).touch()
    with pytest.raises(Exhausted):
        held(tmp_path, ".")
