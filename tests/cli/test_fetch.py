"""`muster fetch`: what a person sees, and that nothing lands where it was not asked for."""

import hashlib
from types import SimpleNamespace

import pytest
from msgspec import convert, to_builtins

from muster.cli import show
from muster.errors import Conflict, NotFound, Refused
from muster.store.blobs import Blobs
from muster.verbs.fetch import Fetch, fetch
from tests.promise import proves

TASK = "ab" * 16
DATA = b"x" * (5 * 1024 * 1024)
SHA = hashlib.sha256(DATA).hexdigest()


class CommandContext:
    """A daemon that knows one task and has its blobs."""

    def __init__(self, folder, **answer):
        self.home = SimpleNamespace(blobs=str(folder / "blobs"))
        self.answer = {"task": TASK, "phase": "make", "state": "done", **answer}
        self.said, self.brought, self.branches = [], [], []

    def ask(self, verb, args):
        if verb == "git.stands":
            return {"stands": args["branch"] in self.branches}
        assert (verb, args) == ("artefacts", {"task": "abab"})
        return self.answer

    def stream(self, verb, args):
        assert verb == "blob.bring"
        self.brought.append(args["path"])
        yield {"got": 1024 * 1024, "path": args["path"], "size": len(DATA)}
        yield {"path": args["path"], "sha256": SHA, "here": True}

    def say(self, text):
        self.said.append(text)


def some(path, shape="file"):
    return {"path": path, "shape": shape, "sha256": SHA, "size": len(DATA), "machine": "studio"}


@pytest.fixture
def context(tmp_path):
    (tmp_path / "blobs").mkdir()
    Blobs(tmp_path / "blobs").put(DATA)
    return CommandContext(tmp_path, artefacts=[some("big.bin"), some("a/tool", "program")])


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@proves("cli.fetch-places-deliverables")
def test_every_deliverable_is_placed_and_progress_is_said(context, tmp_path):
    found = fetch(context, convert({"task": "abab", "to": str(tmp_path / "to")}, Fetch))
    assert files(tmp_path / "to") == ["a/tool", "big.bin"]
    assert context.said == ["big.bin: 20 %", "a/tool: 20 %"]
    text = show.text("fetch", to_builtins(found))
    assert text.splitlines()[0] == f"{tmp_path}/to/big.bin  {len(DATA)} bytes"


@proves("cli.fetch-places-deliverables")
def test_one_path_alone_is_placed_alone(context, tmp_path):
    fetch(context, convert({"task": "abab", "path": "a/tool", "to": str(tmp_path / "to")}, Fetch))
    assert (files(tmp_path / "to"), context.brought) == (["a/tool"], ["a/tool"])


@proves("cli.fetch-places-deliverables")
def test_what_the_task_did_not_deliver_is_not_found(context, tmp_path):
    with pytest.raises(NotFound, match=r"delivered no 'none\.txt'"):
        fetch(
            context,
            convert({"task": "abab", "path": "none.txt", "to": str(tmp_path / "to")}, Fetch),
        )
    assert not (tmp_path / "to").exists()


@proves("cli.fetch-places-deliverables")
def test_with_a_repository_it_says_which_branch_and_commit(tmp_path):
    branch = "muster/run/make"
    context = CommandContext(
        tmp_path, commit="c" * 40, repo="main", branch=branch, paths=["big.bin"]
    )
    context.branches.append(branch)
    text = show.text("fetch", fetch(context, convert({"task": "abab"}, Fetch)))
    assert "at cccccccccccc:\n  muster checkout abababababab --phase make" in text
    assert context.brought == []


@proves("git.lost-branches-are-said")
def test_a_branch_that_is_gone_is_not_told_to_be_checked_out(tmp_path):
    branch = "muster/run/make"
    context = CommandContext(
        tmp_path, commit="c" * 40, repo="main", branch=branch, paths=["big.bin"]
    )
    with pytest.raises(NotFound, match=f"{branch} is gone from repository main"):
        fetch(context, convert({"task": "abab"}, Fetch))


@proves("cli.fetch-is-careful")
def test_nothing_is_fetched_when_something_would_be_replaced(context, tmp_path):
    target = tmp_path / "to"
    (target / "a").mkdir(parents=True)
    (target / "a/tool").write_text("mine")
    with pytest.raises(Conflict, match="--force"):
        fetch(context, convert({"task": "abab", "to": str(target)}, Fetch))
    assert (files(target), (target / "a/tool").read_text()) == (["a/tool"], "mine")
    assert context.brought == []
    fetch(context, convert({"task": "abab", "to": str(target), "force": True}, Fetch))
    assert (target / "a/tool").read_bytes() == DATA


@proves("cli.fetch-is-careful")
@pytest.mark.parametrize("path", ["../up", "/etc/x", ".git/hooks/post-checkout", "a/../../up"])
def test_a_path_that_leads_out_of_the_folder_is_refused(tmp_path, path):
    context = CommandContext(tmp_path, artefacts=[some(path)])
    with pytest.raises(Refused):
        fetch(context, convert({"task": "abab", "to": str(tmp_path / "to")}, Fetch))
    assert (files(tmp_path), context.brought) == ([], [])
