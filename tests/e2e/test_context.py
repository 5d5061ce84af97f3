"""Context folders between real daemons, typed as people type it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.fleet import until
from tests.e2e.folders import FolderFleet, has, read
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


@pytest.fixture
def two(tmp_path: Path) -> Iterator[FolderFleet]:
    with FolderFleet(tmp_path, "hub", "studio") as fleet:
        yield fleet


@proves("context.same-on-every-disk")
def test_two_machines_have_one_folder_from_the_first_command_on(two: FolderFleet) -> None:
    hub, studio = two.notes("hub"), two.notes("studio")
    (hub / "plan.md").write_text("one\n")
    added = two.hub("context", "add", str(hub), "--writers", "all")
    assert "notes is" in added.out
    two.hub("context", "map", "notes", str(studio), "--on", "studio")
    has(studio / "plan.md", "one\n")
    (studio / "plan.md").write_text("two\n")
    has(hub / "plan.md", "two\n")
    (hub / "sub" / "deep").mkdir(parents=True)
    (hub / "sub" / "deep" / "n.md").write_text("deep\n")
    has(studio / "sub" / "deep" / "n.md", "deep\n")
    (studio / "sub" / "deep" / "n.md").unlink()
    has(hub / "sub" / "deep" / "n.md", None)
    big = os.urandom(200_000)
    (hub / "big.bin").write_bytes(big)
    until((studio / "big.bin").is_file, "a file that is a blob arrives")
    assert (studio / "big.bin").read_bytes() == big
    (folder,) = until(
        lambda: (
            found := two.hub("context", "status", "--json").value,
            found if found[0]["machines"] == ["studio: same"] else None,
        )[1],
        lambda: two.hub("context", "status").out,
    )
    assert (folder["state"], folder["files"]) == ("same", 2)
    assert "studio: same" in two.hub("context", "status").out


@proves("context.conflicts-are-kept-and-shown")
def test_a_conflict_is_shown_and_ended_and_what_was_can_be_had(two: FolderFleet) -> None:
    hub, studio = two.notes("hub"), two.notes("studio")
    (hub / "plan.md").write_text("one\n")
    two.share("hub", "studio")
    has(studio / "plan.md", "one\n")
    two.at("studio", "down")
    (hub / "plan.md").write_text("hub's\n")
    (studio / "plan.md").write_text("studio's\n")
    until(lambda: len(two.hub("context", "log", "notes/plan.md", "--json").value) == 2, "two")
    two.up("studio")
    found = until(lambda: two.hub("context", "conflicts", "--json").value, "the conflict is shown")
    assert found[0]["path"] == "plan.md"
    beside = next(v for v in found[0]["versions"] if v["state"] == "beside")
    assert read(hub / "plan.md") in ("hub's\n", "studio's\n")
    assert "resolve notes/plan.md" in two.hub("context", "conflicts").out
    assert "2 files" not in two.hub("incidents").out
    assert "changed in two ways" in two.hub("incidents").out
    two.hub("context", "resolve", "notes/plan.md", "--take", beside["version"][:12])
    wanted = {"hub": "hub's\n", "studio": "studio's\n"}[beside["machine"]]
    has(hub / "plan.md", wanted)
    has(studio / "plan.md", wanted)
    until(lambda: two.hub("context", "conflicts", "--json").value == [], "it is over")
    assert two.hub("context", "get", "notes/plan.md").out.strip() == wanted.strip()
    log = two.hub("context", "log", str(hub / "plan.md"), "--json").value
    assert [each["state"] for each in log].count("replaced") == 3


def test_what_cannot_be_shared_is_refused_with_the_way_out(two: FolderFleet) -> None:
    hub = two.notes("hub")
    os.system(f"cd {hub} && git init -q && echo x > a && git add a")
    said = two.hub("context", "add", str(hub), code=3)
    assert "git tracks files" in said.err
    os.system(f"rm -rf {hub}/.git")
    (hub / ".stfolder").mkdir()
    assert "Syncthing syncs" in two.hub("context", "add", str(hub), code=6).err
    (hub / ".stfolder").rmdir()
    assert "this machine's home" in two.hub("context", "add", str(two.home("hub")), code=6).err
    two.hub("context", "add", str(hub))
    assert (
        "cannot be in two of them" in two.hub("context", "add", str(hub), "--name", "b", code=6).err
    )
    other = two.notes("studio")
    (other / "a").write_text("mine\n")
    until(lambda: two.hub("context", "status", "--json").value[0]["files"], "the file is known")
    until(lambda: len(two.hub("context", "log", "notes/a", "--json").value) == 1, "it is known")
    said = two.hub("context", "map", "notes", str(other), "--on", "studio", code=6)
    assert "--both" in said.err
    two.hub("context", "remove", "notes")
    assert two.hub("context", "status", "--json").value == []
    assert read(hub / "a") == "x\n"
