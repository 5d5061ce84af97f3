"""What a commit holds is read in bounds, whoever wrote it."""

import os

import pytest
from tests.git.repositories import checkout, commit, sh, wait
from tests.promise import proves

from muster import limits
from muster.git import tree


@pytest.fixture
def source(tmp_path):
    return checkout(tmp_path / "source")


@proves("scaffold.reads-little")
def test_names_are_told_and_only_the_texts_that_are_wanted(source):
    (source / "sub").mkdir()
    (source / "sub" / "a b\nc").write_text("x")
    head = commit(source, "more", Makefile="test:\n", other="secret")
    found = wait(tree.texts(source, head, lambda name: name == "Makefile"))
    assert found == {"Makefile": "test:\n", "other": "", "readme.md": "", "sub/a b\nc": ""}


@proves("scaffold.reads-little")
def test_links_large_files_and_what_is_no_text_are_not_read(source, monkeypatch):
    monkeypatch.setattr(limits, "PROJECT_FILE_BYTES_MAX", 8)
    os.symlink("/etc", source / "Makefile")
    (source / "raw").write_bytes(b"\xff\xfe")
    head = commit(source, "more", large="123456789", small="12345678")
    found = wait(tree.texts(source, head, lambda name: True))
    assert (found["Makefile"], found["large"], found["small"]) == ("", "", "12345678")
    assert found["raw"] == "\ufffd\ufffd"


@proves("scaffold.reads-little")
def test_of_very_many_files_so_many_are_named_and_read(source, monkeypatch):
    monkeypatch.setattr(limits, "PROJECT_FILES_MAX", 5)
    monkeypatch.setattr(limits, "PROJECT_READ_MAX", 2)
    head = commit(source, "more", **{f"f{n}": "x" for n in range(9)})
    found = wait(tree.texts(source, head, lambda name: True))
    assert (len(found), list(found.values()).count("x")) == (5, 2)
    assert sh(source, "ls-tree", "--name-only", head).count("\n") == 9
