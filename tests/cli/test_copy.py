"""`muster cp`, between two real homes."""

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from muster.channel import strand
from muster.cli import copies, folders
from muster.errors import Malformed, Refused
from muster.verbs.copy import Address, address
from tests.cli.test_remote import in_persons_home, journal
from tests.cli.world import environment, muster
from tests.e2e.fleet import until
from tests.promise import proves


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("muster://build/etc/hostname", ("build", "/etc/hostname")),
        ("muster://build/~/notes/a", ("build", "~/notes/a")),
        ("build:/srv/in/", ("build", "/srv/in/")),
        ("build:notes//./a", ("build", "~/notes/a")),
        ("build:~/a", ("build", "~/a")),
        ("build:", ("build", "~/")),
        ("build:~/", ("build", "~/")),
        ("muster://build/~/", ("build", "~/")),
        ("build:/", ("build", "/")),
        ("./build:a", ("", "./build:a")),
        ("a/b:c", ("", "a/b:c")),
        ("notes", ("", "notes")),
    ],
)
@proves("remote.copies-go-on")
def test_an_address_is_a_machine_and_a_path_there(text, means):
    assert address(text) == Address(*means)


@pytest.mark.parametrize("text", ["muster://", "muster://build", "b:../x", "b:/a/../b", "b:a\0"])
@proves("remote.files-stay-below")
def test_what_is_no_address_is_said(text):
    with pytest.raises(Malformed):
        address(text)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    with in_persons_home(tmp_path_factory.mktemp("copy")) as found:
        yield found


def parts(folder: Path) -> list[Path]:
    return list(folder.glob(".muster-*.part"))


def grown(folder: Path) -> bool:
    """Whether some of a file has come; its part may be placed while we look."""
    with contextlib.suppress(FileNotFoundError):
        return any(each.stat().st_size > 500_000 for each in parts(folder))
    return False


@pytest.mark.e2e
@proves("remote.copies-go-on")
def test_a_file_goes_there_and_comes_back_as_it_was(pair, tmp_path):
    raw = random.Random(3).randbytes(3_000_001)
    source, person = tmp_path / "source", pair.folder / "person"
    source.write_bytes(raw)
    source.chmod(0o750)
    done = pair.ok(pair.hub, "cp", str(source), "laptop:there")
    assert done == {
        "path": "laptop:~/there", "size": len(raw), "sha256": hashlib.sha256(raw).hexdigest(), "at": 0,
    }  # fmt: skip
    assert (person / "there").read_bytes() == raw
    assert (person / "there").stat().st_mode & 0o777 == 0o750
    pair.ok(pair.hub, "cp", f"muster://laptop{person}/there", f"{tmp_path}/back")
    assert (tmp_path / "back").read_bytes() == raw
    empty = tmp_path / "empty"
    empty.touch()
    pair.ok(pair.hub, "cp", str(empty), f"laptop:{person}/")
    assert (person / "empty").read_bytes() == b""
    for target in ("laptop:", "laptop:~/"):
        assert pair.ok(pair.hub, "cp", str(source), target)["path"] == "laptop:~/source"
    said = muster(pair.hub, "cp", "laptop:empty", str(tmp_path / "e"))
    assert said.out.startswith(f"{tmp_path}/e is there: 0 bytes")
    assert parts(person) == parts(tmp_path) == []
    plan = pair.ok(pair.hub, "cp", str(source), "laptop:x", "--plan")["plan"]
    assert plan == {"verb": "file.write", "machine": "laptop", "folder": "~", "path": "x"}
    assert not (person / "x").exists()
    for words, code in (
        (("laptop:nothing", f"{tmp_path}/n"), 5), (("laptop:a", "hub:a"), 3), (("a", "b"), 3),
        ((str(source), "laptop:no/such"), 5), (("laptop:/dev/null", f"{tmp_path}/n"), 3),
        ((f"laptop:{pair.laptop}/seed", f"{tmp_path}/n"), 4), ((str(tmp_path), "laptop:x"), 3),
        ((str(source), f"laptop:{pair.laptop}/config.toml"), 4),
        ((str(tmp_path / "none"), "laptop:x"), 5), (("laptop:", f"{tmp_path}/n"), 3),
    ):  # fmt: skip
        refused = muster(pair.hub, "cp", *words)
        assert (refused.code, refused.err.count("\n")) == (code, 1), (words, refused)
    assert not (tmp_path / "n").exists()
    assert parts(tmp_path) == parts(person) == []


@pytest.mark.e2e
@pytest.mark.parametrize("way", ["there", "back"])
@proves("remote.copies-go-on")
def test_a_copy_that_was_killed_goes_on_where_it_ended(pair, tmp_path, way):
    raw = random.Random(way).randbytes(48_000_000)
    person = pair.folder / "person"
    folder = person if way == "there" else tmp_path
    if way == "there":
        (tmp_path / "large").write_bytes(raw)
        words = ["cp", str(tmp_path / "large"), "laptop:large-there"]
    else:
        (person / "large").write_bytes(raw)
        words = ["cp", "laptop:large", str(tmp_path / "large-back")]
    child = subprocess.Popen([sys.executable, "-m", "muster", *words], env=environment(pair.hub))
    try:
        until(lambda: grown(folder) or child.poll() is not None, "it is under way")
        child.send_signal(signal.SIGKILL)
    finally:
        child.wait()

    def again():
        said = muster(pair.hub, *words, "--json")
        return said.value if said.code == 0 else None

    # The far end may not have heard yet that nobody is there.
    done = until(again, "it goes on")
    if child.returncode:
        # Else it was quicker than we are.
        assert 0 < done["at"] < len(raw)
    assert done["sha256"] == hashlib.sha256(raw).hexdigest()
    assert (folder / f"large-{way}").read_bytes() == raw
    assert parts(folder) == []


@pytest.mark.e2e
@proves("remote.copies-go-on")
def test_a_part_of_another_file_is_begun_anew_and_nothing_is_mixed(pair, tmp_path):
    person, target = pair.folder / "person", tmp_path / "t"
    (person / "s").write_bytes(b"x" * 100_000)
    place = pair.ok(pair.hub, "cp", "laptop:s", str(target), "--plan")["plan"]
    machine = {m["name"]: m["machine"] for m in pair.ok(pair.hub, "machines")}["laptop"]
    key = f"t\n{machine}:{place['folder']}\n{place['path']}"
    part = tmp_path / f".muster-{hashlib.sha256(key.encode()).hexdigest()[:24]}.part"
    part.write_bytes(b"y" * 200_000)
    assert pair.ok(pair.hub, "cp", "laptop:s", str(target))["size"] == 100_000
    part.write_bytes(b"y" * 50_000)
    mixed = muster(pair.hub, "cp", "laptop:s", str(target))
    assert (mixed.code, "was removed" in mixed.err) == (3, True)
    assert target.read_bytes() == b"x" * 100_000
    assert not part.exists()


@pytest.mark.e2e
@proves("remote.needs-an-order", "remote.is-written-down")
def test_a_grant_is_for_one_verb_one_folder_and_one_machine(pair, tmp_path):
    person = pair.folder / "person"
    for name in ("out", "out-other"):
        (person / name).mkdir()
        (person / name / "a").write_bytes(b"contents-of-a")
    (person / "out" / "link").symlink_to(person / "out-other" / "a")
    key = muster(pair.laptop, "operator", "key").out.strip()
    (tmp_path / "mine").write_bytes(b"mine")
    try:
        refused = muster(pair.laptop, "cp", f"hub:{person}/out/a", f"{tmp_path}/a")
        assert refused.code == 4
        assert f"`muster grant KEY file.read --object hub:{person}/out`" in refused.err
        pair.ok(pair.hub, "grant", key, "file.read", "--object", f"hub:{person}/out")
        held = lambda: len(pair.ok(pair.laptop, "grants")["grants"]) == 1  # noqa: E731
        until(held, "the grant is known")
        pair.ok(pair.laptop, "cp", f"hub:{person}/out/a", f"{tmp_path}/a")
        assert (tmp_path / "a").read_bytes() == b"contents-of-a"
        for words in (
            (f"hub:{person}/out-other/a", f"{tmp_path}/b"),
            (f"hub:{person}/out/link", f"{tmp_path}/b"),
            (f"laptop:{person}/out/a", f"{tmp_path}/b"),
            (str(tmp_path / "mine"), f"hub:{person}/out/new"),
        ):
            assert muster(pair.laptop, "cp", *words).code in (3, 4), words
        assert not (tmp_path / "b").exists()
        assert not (person / "out" / "new").exists()
    finally:
        (pair.laptop / "operator.seed").unlink()
    said = [json.loads(body) for _, body in journal(pair.hub, "file.copied")]
    whole = [each for each in said if not each["why"]]
    digest = hashlib.sha256(b"contents-of-a").hexdigest()
    path = f"{person}/out/a"
    assert whole == [{"path": path, "sha256": digest, "size": 13, "way": "read", "why": ""}]
    assert any("leads out" in each["why"] for each in said)
    for file in pair.hub.glob("log.db*"):
        assert b"contents-of-a" not in file.read_bytes()


@pytest.mark.e2e
@proves("remote.folders-file-by-file")
def test_a_folder_goes_there_and_back_file_by_file_and_links_are_passed_over(pair, tmp_path):
    person, source = pair.folder / "person", tmp_path / "notes"
    (source / "a" / "b").mkdir(parents=True)
    for name, raw in {
        "one": b"1",
        "a/two": b"22",
        "a/b/three \u00e9": b"",
        ".muster-x": b".",
    }.items():
        (source / name).write_bytes(raw)
    (source / "a" / "b" / "three \u00e9").chmod(0o700)
    done = muster(pair.hub, "cp", "-r", str(source), "laptop:", "--json")
    assert (done.code, done.value["passed"]) == (1, [{"path": ".muster-x", "why": "its name"}])
    assert (done.value["files"], done.value["size"], done.value["same"]) == (3, 3, 0)
    (source / ".muster-x").unlink()
    assert (person / "notes" / "a" / "two").read_bytes() == b"22"
    assert (person / "notes" / "a" / "b" / "three \u00e9").stat().st_mode & 0o777 == 0o700
    # What is there stays; what changed is copied.
    stays = (person / "notes" / "one").stat().st_ino
    (source / "a" / "two").write_bytes(b"xx")
    done = pair.ok(pair.hub, "cp", "-r", f"{source}/", "laptop:")
    assert (done["files"], done["same"]) == (3, 1)
    assert (person / "notes" / "one").stat().st_ino == stays
    assert (person / "notes" / "a" / "two").read_bytes() == b"xx"
    # And back, with what is no plain file: nothing behind a link comes.
    (person / "secret").write_bytes(b"secret")
    (person / "notes" / "link").symlink_to(person / "secret")
    (person / "notes" / "around").symlink_to(person)
    os.mkfifo(person / "notes" / "pipe")
    (tmp_path / "back").mkdir()
    words = ("cp", "-r", "laptop:notes", f"{tmp_path}/back/")
    back = muster(pair.hub, *words)
    assert back.code == 1
    assert "not copied: link: a link\n" in back.err
    assert "not copied: pipe: a pipe, socket or device\n" in back.err
    assert "notes is there: 3 files, 3 bytes; 0 were before." in back.out
    came = tmp_path / "back" / "notes"
    found = sorted(str(each.relative_to(came)) for each in came.rglob("*"))
    assert found == ["a", "a/b", "a/b/three \u00e9", "a/two", "one"]
    assert muster(pair.hub, *words, "--json").value["same"] == 2
    assert parts(came) == []
    # Muster's own home is shut, also below a folder that is not, and the one here as well.
    mine = muster(pair.hub, "cp", "-r", str(pair.hub), "laptop:mine")
    assert (mine.code, (person / "mine").exists()) == (3, False), mine
    mine = muster(pair.hub, "cp", "-r", str(pair.hub.parent), "laptop:all", "--json")
    passed = [each["path"] for each in mine.value["passed"]]
    assert pair.hub.name in passed
    assert not (person / "all" / pair.hub.name).exists()
    assert muster(pair.hub, "cp", str(pair.hub / "seed"), "laptop:seed").code == 4
    assert not (person / "seed").exists()
    whole = muster(pair.hub, "cp", "-r", f"laptop:{pair.laptop}", f"{tmp_path}/home")
    assert whole.code in (3, 4)
    for words, code in (
        (("-r", "laptop:none", f"{tmp_path}/n"), 5), (("-r", str(tmp_path / "none"), "laptop:"), 5),
        (("-r", "laptop:secret", f"{tmp_path}/n"), 3),
    ):  # fmt: skip
        refused = muster(pair.hub, "cp", *words)
        assert (refused.code, refused.err.count("\n")) == (code, 1), (words, refused)
    plan = pair.ok(pair.hub, "cp", "-r", "laptop:notes", f"{tmp_path}/p", "--plan")["plan"]
    assert plan == {"verb": "file.read", "machine": "laptop", "folder": "~", "path": "notes"}


@proves("remote.folders-file-by-file")
def test_a_size_that_is_none_is_said_as_what_cannot_be_read(monkeypatch):
    line = b'{"path": "a", "size": Infinity, "passed": ""}\n'
    far = SimpleNamespace(to_the_end=lambda: [(strand.OUTPUT, line)])
    monkeypatch.setattr(folders, "Strands", lambda _: far)
    context: Any = SimpleNamespace(stream_of=lambda *_: contextlib.nullcontext((None, None)))
    with pytest.raises(Malformed):
        folders._there(context, "laptop", {})


@proves("remote.folders-file-by-file")
def test_a_link_that_is_put_there_after_the_listing_is_not_followed(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").symlink_to(tmp_path / "secret")
    (tmp_path / "in" / "b").symlink_to(tmp_path)
    context: Any = SimpleNamespace(home=SimpleNamespace(path=tmp_path / "home"))
    for name in ("a", "b/secret"):
        with pytest.raises(Refused):
            folders._brought(context, "laptop", {}, str(tmp_path / "in"), name)


@pytest.mark.e2e
@proves("remote.folders-file-by-file", "remote.needs-an-order")
def test_a_grant_of_a_folder_is_one_for_all_that_is_in_it(pair, tmp_path):
    folder = pair.folder / "person" / "given"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "a").write_bytes(b"a")
    key = muster(pair.laptop, "operator", "key").out.strip()
    try:
        pair.ok(pair.hub, "grant", key, "file.read", "--object", f"hub:{folder}")
        copied = lambda: muster(pair.laptop, "cp", "-r", f"hub:{folder}", f"{tmp_path}/g").code == 0  # noqa: E731
        until(copied, "the grant is known")
        assert (tmp_path / "g" / "in" / "a").read_bytes() == b"a"
        assert muster(pair.laptop, "cp", "-r", f"hub:{folder.parent}", f"{tmp_path}/h").code == 4
    finally:
        (pair.laptop / "operator.seed").unlink()


@proves("remote.copies-go-on")
def test_a_person_at_a_terminal_is_told_now_and_then_how_far_it_is(monkeypatch):
    said: list[str] = []
    context: Any = SimpleNamespace(note=said.append)
    now_ms = iter((0, 1_000, 2_500, 3_000, 4_600))
    monkeypatch.setattr(copies, "clock", SimpleNamespace(boot_ms=lambda: next(now_ms)))
    progress = copies.Progress(context, "a\x1bb", 200)
    for at in (1, 50, 100, 200):
        progress.reached(at)
    assert said == ["a b: 25 %", "a b: 100 %"]
