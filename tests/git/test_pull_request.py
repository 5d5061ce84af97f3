"""A pull request, with scripted `gh` and `glab` and a real bare repository as the forge's."""

import asyncio
import json
import shutil
import sys
import time
from pathlib import Path

import pytest
from tests.git.repositories import checkout, commit, plain, refs, sh, wait
from tests.promise import proves

from muster.errors import Conflict, NotFound, Refused, Unreachable
from muster.git import pull_request

PROGRAM = """\
#!{python}
import json, os, sys
with open({notes!r}, "a") as notes:
    notes.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
mode = os.environ.get("FORGE", "")
if sys.argv[1:3] == ["auth", "status"]:
    sys.exit(mode == "nobody" or mode == os.path.basename(sys.argv[0]))
if mode == "broken":
    print("GraphQL: No commits between main and x", file=sys.stderr)
    sys.exit(1)
print("Creating pull request")
print("https://github.com/alice/site/pull/7")
"""
MESSAGE = "fix: `whoami` $(id)\n\n- one: --body 'x'\n"


class Forge:
    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root, self.mine = root, checkout(root / "mine")
        self.remote = Path(plain(root / "alice" / "site.git", self.mine))
        self.notes, self.bin = root / "notes", root / "bin"
        self.bin.mkdir()
        sites = ("https://github.com/", "git@gitlab.example.com:", "https://code.example.com/")
        lines = [f'[url "{root}/"]\n' + "".join(f"\tinsteadOf = {site}\n" for site in sites)]
        (root / ".gitconfig").write_text("".join(lines))
        (self.bin / "git").symlink_to(shutil.which("git") or "")
        patch.setenv("HOME", str(root))
        patch.setenv("PATH", str(self.bin))
        patch.delenv("GIT_CONFIG_GLOBAL", raising=False)
        self.commit = commit(self.mine, "the work", a__txt="a\n")

    def install(self, *names: str) -> None:
        for name in names:
            text = PROGRAM.format(python=sys.executable, notes=str(self.notes))
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)

    def asked(self) -> list[list[str]]:
        return [json.loads(line) for line in self.notes.read_text().splitlines()]

    def open(self, address: str) -> str:
        async def work() -> str:
            request = await pull_request.of(address, "fix-1ae7c03d")
            return await request.open(self.mine, address, "main", self.commit, MESSAGE)

        return wait(work())


@pytest.fixture
def forge(tmp_path, monkeypatch) -> Forge:
    return Forge(tmp_path, monkeypatch)


@proves("git.land-asks")
def test_gh_opens_a_request_from_a_short_branch_and_every_text_is_an_argument(forge):
    forge.install("gh", "glab")
    assert forge.open("https://github.com/alice/site.git") == "https://github.com/alice/site/pull/7"
    assert refs(forge.remote)["refs/heads/fix-1ae7c03d"] == forge.commit
    assert forge.asked() == [
        ["gh", "auth", "status", "--hostname", "github.com"],
        [
            "gh", "pr", "create", "--repo", "https://github.com/alice/site",
            "--head", "fix-1ae7c03d", "--base", "main", "--title", "fix: `whoami` $(id)",
            "--body", "- one: --body 'x'",
        ],
    ]  # fmt: skip


@proves("git.land-asks")
def test_glab_opens_one_at_gitlab_from_an_ssh_address(forge):
    forge.install("gh", "glab")
    forge.open("git@gitlab.example.com:alice/site.git")
    assert forge.asked()[-1] == [
        "glab", "mr", "create", "--yes", "--repo", "https://gitlab.example.com/alice/site",
        "--source-branch", "fix-1ae7c03d", "--target-branch", "main",
        "--title", "fix: `whoami` $(id)", "--description", "- one: --body 'x'",
    ]  # fmt: skip


@proves("git.land-asks")
def test_where_the_name_says_nothing_whichever_is_logged_in_opens_it(forge, monkeypatch):
    forge.install("gh", "glab")
    monkeypatch.setenv("FORGE", "gh")
    forge.open("https://code.example.com/alice/site.git")
    assert [words[:2] for words in forge.asked()] == [
        ["gh", "auth"],
        ["glab", "auth"],
        ["glab", "mr"],
    ]


@proves("git.land-asks")
@pytest.mark.parametrize(
    ("installed", "address", "mode", "error", "says"),
    [
        ((), "https://github.com/alice/site.git", "", NotFound, r"gh \(https.*not installed"),
        (
            ("gh",),
            "https://github.com/alice/site.git",
            "nobody",
            Refused,
            "gh auth login --hostname",
        ),
        (("gh",), "/srv/site.git", "", Refused, "no address of a forge"),
        (("gh",), "muster::hub/site", "", Refused, "no address of a forge"),
        (("gh",), "file:///srv/site.git", "", Refused, "no address of a forge"),
    ],
)
def test_where_none_can_be_opened_nothing_is_pushed(
    forge, monkeypatch, installed, address, mode, error, says
):  # fmt: skip
    forge.install(*installed)
    monkeypatch.setenv("FORGE", mode)
    before = refs(forge.remote)
    with pytest.raises(error, match=says):
        forge.open(address)
    assert refs(forge.remote) == before


@proves("git.land-asks")
def test_a_branch_that_is_there_already_is_left_as_it_is(forge):
    forge.install("gh")
    sh(forge.mine, "push", "-q", str(forge.remote), "HEAD~1:refs/heads/fix-1ae7c03d")
    before = refs(forge.remote)
    with pytest.raises(Conflict, match="gh pr view fix-1ae7c03d"):
        forge.open("https://github.com/alice/site.git")
    assert refs(forge.remote) == before


@proves("git.land-asks")
def test_what_the_program_says_against_it_is_told(forge, monkeypatch):
    forge.install("gh")
    monkeypatch.setenv("FORGE", "broken")
    with pytest.raises(Refused, match="No commits between main and x"):
        forge.open("https://github.com/alice/site.git")


def lives(process: str) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


@proves("git.land-asks")
def test_a_program_that_gives_no_answer_is_ended_with_what_it_started(forge, monkeypatch):
    ids = forge.root / "ids"
    (forge.bin / "gh").write_text(
        f"#!/bin/sh\n/bin/sleep 600 &\necho $$ $! > {ids}.new\n/bin/mv {ids}.new {ids}\nwait\n"
    )
    (forge.bin / "gh").chmod(0o755)
    monkeypatch.setattr(pull_request, "GIT_TIMEOUT_MS", 1000)

    async def work() -> None:
        # Nobody waits for what it started.
        async with asyncio.timeout(30):
            await pull_request.of("https://github.com/alice/site.git", "x")

    with pytest.raises(Unreachable, match="gh gave no answer in 1 s and was ended; try again"):
        wait(work())
    for each in ids.read_text().split():
        # It was sent the signal, and dies as soon as it has its turn; nobody may wait for it.
        for _ in range(2000):
            if not lives(each):
                break
            time.sleep(0.01)
        assert not lives(each)
