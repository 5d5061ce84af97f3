"""Results landed on a branch, with real repositories: whole or not at all, and never twice."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.git.repositories import checkout, commit, plain, refs, sh, wait
from tests.promise import proves

from muster.errors import NotFound, Refused, Unreachable
from muster.git import command as git
from muster.git import landing, person, place, scratch
from muster.git.landing import Clash, Plan, Result, Unmergeable
from muster.git.person import Identity
from muster.git.place import Moved, NoBranch, Place

RUN = "1ae7" * 8
ALICE = Identity("Alice <a@x> 1800000000 +0100", "Alice <a@x> 1800000000 +0100")


class World:
    """A person's checkout, a bare remote, and results of a run made from the remote's main."""

    def __init__(self, root: Path) -> None:
        self.root, self.area = root, root / "landing"
        self.mine = checkout(root / "mine")
        commit(self.mine, "a few files", a__txt="one\n" * 9, b__txt="two\n" * 9)
        self.remote = Path(plain(root / "remote.git", self.mine))
        self.agent = root / "agent"
        sh(root, "clone", "-q", str(self.remote), str(self.agent))
        self.start = sh(self.agent, "rev-parse", "HEAD")

    def result(self, label: str, after: str = "", **files: str) -> Result:
        """A phase's commit on `after` (else on where the run started), by an agent."""
        sh(self.agent, "checkout", "-q", "--detach", after or self.start)
        id = commit(self.agent, f"{label}: done", **files)
        sh(self.agent, "push", "-q", "origin", f"{id}:refs/heads/muster/r1/{label}")
        return Result(label, id, f"{label}@studio")

    def push(self, subject: str, **files: str) -> str:
        """Somebody's commit on the remote's main."""
        sh(self.mine, "pull", "-q", "--ff-only", str(self.remote), "main")
        id = commit(self.mine, subject, **files)
        sh(self.mine, "push", "-q", str(self.remote), "main")
        return id

    def land(self, *results: Result, mode: landing.Mode = "squash", known: tuple = (), to=None):
        return wait(self._land(results, mode, known or results, to or Place(str(self.remote))))

    async def _land(self, results, mode, known, to):
        async with scratch.opened(self.area, [self.mine / ".git"]) as folder:
            await self.fetch(folder)
            tip = await place.tip(folder, to, "main")
            plan = Plan(RUN, tuple(results), tuple(known), mode, "Fix it\n\nAs told.", ALICE)
            built = await landing.build(folder, tip, plan)
            if built.parts:
                await place.move(folder, to, "main", tip, built.commit)
            return built

    async def fetch(self, folder: Path) -> None:
        sh(folder, "fetch", "-q", str(self.remote), "refs/heads/muster/*:refs/results/*")

    def main(self, format: str = "%H", *more: str) -> str:
        return sh(self.remote, "log", f"--format={format}", *more, "main")

    def files(self) -> dict[str, str]:
        names = sh(self.remote, "ls-tree", "-r", "--name-only", "main").splitlines()
        return {name: sh(self.remote, "show", f"main:{name}") for name in names}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    left = [path.name for path in made.area.glob("*") if path.name != "held"]
    assert not left, "a scratch repository stayed"


@proves("git.land-whole")
def test_squash_is_one_commit_of_the_persons_that_names_the_run_and_its_agents(world):
    build = world.result("build", a__txt="A\n")
    test = world.result("test", build.commit, c__txt="C\n")
    moved = world.push("meanwhile", b__txt="B\n")
    done = world.land(test, known=(build, test))
    assert world.main("%H %P", "-1") == f"{done.commit} {moved}"
    assert {n: t for n, t in world.files().items() if n != "readme.md"} == {
        "a.txt": "A", "b.txt": "B", "c.txt": "C",
    }  # fmt: skip
    assert world.main("%an %cn", "-1") == "Alice Alice"
    assert world.main("%B", "-1") == (
        f"Fix it\n\nAs told.\n\nMuster-Run: {RUN}\nMuster-Result: {test.commit} test\n"
        "Co-authored-by: build@studio <build@studio.muster>\n"
        "Co-authored-by: test@studio <test@studio.muster>"
    )


@proves("git.land-whole")
def test_merge_has_every_result_as_a_parent(world):
    one, two = world.result("one", a__txt="A\n"), world.result("two", b__txt="B\n")
    done = world.land(one, two, mode="merge")
    assert world.main("%P", "-1").split() == [world.start, one.commit, two.commit]
    assert world.files()["a.txt"] + world.files()["b.txt"] == "AB"
    assert "Muster-Run" in world.main("%B", "-1")
    assert done.parts == (one, two)


@proves("git.land-whole")
def test_rebase_keeps_each_commit_and_its_author_and_leaves_out_empty_ones(world):
    build = world.result("build", a__txt="A\n")
    empty = world.result("empty", build.commit)
    test = world.result("test", empty.commit, c__txt="C\n")
    moved = world.push("meanwhile", b__txt="B\n")
    world.land(test, mode="rebase")
    assert world.main("%s %an %cn", f"{moved}..main").splitlines() == [
        "test: done alice Alice", "build: done alice Alice",
    ]  # fmt: skip
    assert world.main("%(trailers:key=Muster-Result,valueonly)", "-1") == f"{test.commit} test"
    assert world.files()["a.txt"] == "A"


@proves("git.land-conflict")
@pytest.mark.parametrize("mode", ["squash", "merge", "rebase"])
def test_a_conflict_names_the_phases_and_the_commits_of_both_sides_and_changes_nothing(world, mode):
    build = world.result("build", a__txt="A\n")
    test = world.result("test", build.commit, c__txt="C\n")
    theirs = world.push("theirs", a__txt="X\n")
    before = refs(world.remote)
    with pytest.raises(Unmergeable) as caught:
        world.land(test, known=(build, test), mode=mode)
    there = f"{theirs[:7]} alice: theirs"
    assert caught.value.clashes == (Clash("a.txt", (there,), ("phase build by build@studio",)),)
    assert refs(world.remote) == before


@proves("git.land-conflict")
def test_a_conflict_of_two_results_names_both_phases(world):
    one, two = world.result("one", a__txt="A\n"), world.result("two", a__txt="B\n")
    with pytest.raises(Unmergeable) as caught:
        world.land(one, two)
    clash = Clash("a.txt", ("phase one by one@studio",), ("phase two by two@studio",))
    assert caught.value.clashes == (clash,)


@proves("git.land-once")
@pytest.mark.parametrize("mode", ["squash", "merge", "rebase"])
def test_what_landed_is_seen_on_the_branch_and_lands_no_second_time(world, mode):
    build = world.result("build", a__txt="A\n")
    test = world.result("test", build.commit, c__txt="C\n")
    first = world.land(test, mode=mode)
    world.push("later", b__txt="B\n")
    before = refs(world.remote)
    for again in ("squash", "merge", "rebase"):
        done = world.land(test, mode=again)
        assert not done.parts
        assert done.commit == first.commit
    assert refs(world.remote) == before


@proves("git.land-once")
def test_what_was_reverted_lands_again_and_a_revert_of_that_does_not(world):
    test = world.result("test", a__txt="A\n")
    world.land(test)
    sh(world.mine, "pull", "-q", str(world.remote), "main")
    sh(world.mine, "revert", "--no-edit", "HEAD")
    sh(world.mine, "push", "-q", str(world.remote), "main")
    assert world.files()["a.txt"].startswith("one")
    sh(world.mine, "branch", "reverted")
    assert world.land(test).parts == (test,)
    assert world.files()["a.txt"] == "A"
    sh(world.mine, "revert", "--no-edit", "HEAD")
    sh(world.mine, "push", "-qf", str(world.remote), "HEAD:main")
    assert not world.land(test).parts, "the revert was reverted, so it is there"


@proves("git.land-once")
@pytest.mark.parametrize("by", ["a landing", "a person"])
def test_a_merge_that_was_reverted_is_refused_with_what_brings_it_back(world, by):
    test, mine = world.result("test", a__txt="A\n"), world.mine
    if by == "a landing":
        world.land(test, mode="merge")
        sh(mine, "pull", "-q", str(world.remote), "main")
    else:
        sh(mine, "fetch", "-q", str(world.remote), test.commit)
        sh(mine, "merge", "-q", "--no-ff", "-m", "taken", test.commit)
        sh(mine, "push", "-q", str(world.remote), "HEAD:main")
    assert not world.land(test, mode="merge").parts
    sh(mine, "revert", "--no-edit", "-m1", "HEAD")
    sh(mine, "push", "-q", str(world.remote), "HEAD:main")
    revert, files = sh(mine, "rev-parse", "--short=12", "HEAD"), world.files()
    for mode in ("merge", "squash"):
        with pytest.raises(Refused, match=f"result of test was merged .*`git revert {revert}`"):
            world.land(test, mode=mode)
    assert world.files() == files
    sh(mine, "revert", "--no-edit", "HEAD")
    sh(mine, "push", "-q", str(world.remote), "HEAD:main")
    assert not world.land(test, mode="merge").parts
    assert world.files()["a.txt"] == "A"


@proves("git.land-once")
def test_of_two_results_only_the_one_that_is_not_there_lands(world):
    one, two = world.result("one", a__txt="A\n"), world.result("two", b__txt="B\n")
    world.land(one)
    assert world.land(one, two).parts == (two,)
    assert not world.land(one, two).parts


@proves("git.land-once")
def test_a_result_that_landed_before_another_one_began_lands_no_second_time(world):
    one = world.result("one", a__txt="A\n")
    first = world.land(one)
    sh(world.agent, "fetch", "-q")
    two = world.result("two", first.commit, b__txt="B\n")
    assert world.land(one, two).parts == (two,)


@proves("git.land-whole")
def test_results_that_change_nothing_are_no_landing(world):
    with pytest.raises(NotFound, match="change nothing"):
        world.land(world.result("empty"))


@proves("git.land-whole")
def test_a_replay_that_would_lose_what_a_merge_did_itself_is_refused(world):
    one, two = world.result("one", a__txt="A\n"), world.result("two", b__txt="B\n")
    sh(world.agent, "checkout", "-q", "--detach", one.commit)
    sh(world.agent, "merge", "-q", "--no-commit", two.commit)
    (world.agent / "c.txt").write_text("only in the merge\n")
    sh(world.agent, "add", "-A")
    sh(world.agent, "commit", "-q", "-m", "merged")
    both = world.result("both", sh(world.agent, "rev-parse", "HEAD"))
    before = refs(world.remote)
    with pytest.raises(Refused, match="land with --merge or --squash"):
        world.land(both, mode="rebase")
    assert refs(world.remote) == before
    world.land(both, mode="squash")
    assert world.files()["c.txt"] == "only in the merge"


@proves("git.land-whole")
def test_a_result_of_another_history_is_refused(world):
    sh(world.agent, "checkout", "-q", "--orphan", "other")
    other = commit(world.agent, "other", a__txt="other\n")
    sh(world.agent, "push", "-q", "origin", f"{other}:refs/heads/muster/r1/other")
    with pytest.raises(Refused, match="no history in common"):
        world.land(Result("other", other, ""))


@proves("git.land-whole")
def test_a_landing_that_is_built_again_begins_with_nothing_of_the_try_before(world):
    one = world.result("one", a__txt="A\n")
    seen = []

    async def work() -> None:
        async with scratch.opened(world.area, []) as folder:
            await world.fetch(folder)
            plan = Plan(RUN, (one,), (one,), "squash", "x", ALICE)

            async def check(built: landing.Built) -> None:
                seen.append(sh(folder, "status", "--porcelain"))
                (folder / "made.txt").write_text("by the check\n")
                (folder / "a.txt").write_text("by the check\n")
                if len(seen) == 1:
                    await asyncio.to_thread(world.push, "meanwhile", b__txt="B\n")

            await landing.land(folder, Place(str(world.remote)), "main", plan, check)

    wait(work())
    assert seen == ["", ""]
    assert (world.files()["a.txt"], world.files()["b.txt"]) == ("A", "B")
    assert "made.txt" not in world.files()


@proves("git.land-random-histories")
def test_a_scratch_repository_goes_with_its_process_and_no_earlier(world):
    async def both() -> None:
        async with scratch.opened(world.area, []) as first:
            async with scratch.opened(world.area, []) as second:
                assert first.is_dir()
                assert second.is_dir()
            assert first.is_dir()
            assert not second.exists()

    world.area.mkdir(exist_ok=True)
    for left in ("new-killed", ".gone-killed"):
        (world.area / left / "tree").mkdir(parents=True)
        (world.area / left / "held").touch()
    wait(both())


@proves("git.land-whole")
@pytest.mark.parametrize("how", ["whole", "--depth=1", "--filter=blob:none"])
def test_a_clone_that_lacks_objects_is_not_borrowed_from(world, how):
    """Git would take what it lacks for what is there."""
    sh(world.remote, "config", "uploadpack.allowFilter", "true")
    clone, more = world.root / "clone", [] if how == "whole" else [how]
    sh(world.root, "clone", "-q", *more, f"file://{world.remote}", str(clone))

    async def lent() -> str:
        async with scratch.opened(world.area, [clone / ".git"]) as folder:
            return (folder / ".git" / "objects" / "info" / "alternates").read_text()

    assert wait(lent()) == (f"{clone / '.git' / 'objects'}\n" if how == "whole" else "")


# --- where it lands -----------------------------------------------------------------------------


@proves("git.land-compare-and-set")
def test_a_branch_that_moved_meanwhile_is_not_moved(world):
    one = world.result("one", a__txt="A\n")

    async def late() -> None:
        async with scratch.opened(world.area, []) as folder:
            await world.fetch(folder)
            to = Place(str(world.remote))
            tip = await place.tip(folder, to, "main")
            plan = Plan(RUN, (one,), (one,), "squash", "x", ALICE)
            built = await landing.build(folder, tip, plan)
            moved = await asyncio.to_thread(world.push, "first", b__txt="B\n")
            with pytest.raises(Moved):
                await place.move(folder, to, "main", tip, built.commit)
            assert world.main("%H", "-1") == moved

    wait(late())


@proves("git.land-compare-and-set")
def test_a_remote_that_refuses_says_why_and_nothing_moved(world):
    hook = world.remote / "hooks" / "update"
    hook.write_text("#!/bin/sh\necho main is protected >&2\n[ $1 != refs/heads/main ]\n")
    hook.chmod(0o755)
    one = world.result("one", a__txt="A\n")
    before = refs(world.remote)
    with pytest.raises(Refused, match="hook declined"):
        world.land(one)
    assert refs(world.remote) == before


@proves("git.land-compare-and-set")
def test_an_answer_that_was_lost_after_the_branch_moved_is_no_failure(world, monkeypatch):
    run = person.run

    async def lost(args, cwd, **more):
        done = await run(args, cwd, **more)
        if args[0] == "push":
            raise Unreachable("the line is gone")
        return done

    monkeypatch.setattr(person, "run", lost)
    done = world.land(world.result("one", a__txt="A\n"))
    assert world.main("%H", "-1") == done.commit


@proves("git.land-compare-and-set", "git.bounded-run")
def test_a_place_that_never_answers_is_given_up_and_nothing_moved(world, monkeypatch):
    one = world.result("one", a__txt="A\n")
    before = refs(world.remote)
    hook = world.remote / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\nsleep 3\nexit 1\n")
    hook.chmod(0o755)
    monkeypatch.setattr("muster.limits.GIT_TIMEOUT_MS", 1_500)
    with pytest.raises(Unreachable, match="gave no result in 1 s"):
        world.land(one)
    assert refs(world.remote) == before


@proves("git.land-compare-and-set")
def test_a_branch_that_is_not_there_is_not_made(world):
    one = world.result("one", a__txt="A\n")
    plan = Plan(RUN, (one,), (one,), "squash", "x", ALICE)
    assert plan.results

    async def typo() -> None:
        async with scratch.opened(world.area, []) as folder:
            await place.tip(folder, Place(str(world.remote)), "mian")

    with pytest.raises(NotFound, match='did you mean "main"'):
        wait(typo())


@proves("git.land-in-a-folder")
def test_a_folder_with_the_branch_checked_out_gets_the_commit_and_the_files(world):
    to = Place(str(world.mine), world.mine)
    (world.mine / "untracked.txt").write_text("mine\n")
    done = world.land(world.result("one", a__txt="A\n"), to=to)
    assert sh(world.mine, "rev-parse", "HEAD", "main") == f"{done.commit}\n{done.commit}"
    assert (world.mine / "a.txt").read_text() == "A\n"
    assert sh(world.mine, "status", "--porcelain") == "?? untracked.txt"


@proves("git.land-in-a-folder")
def test_a_folder_with_changes_is_refused_and_stays_as_it_is(world):
    (world.mine / "b.txt").write_text("not committed\n")
    before = refs(world.mine)
    with pytest.raises(Refused, match="changes that are not committed"):
        world.land(world.result("one", a__txt="A\n"), to=Place(str(world.mine), world.mine))
    assert refs(world.mine) == before
    assert (world.mine / "b.txt").read_text() == "not committed\n"
    assert (world.mine / "a.txt").read_text() == "one\n" * 9


@proves("git.land-in-a-folder")
def test_an_untracked_file_in_the_way_is_refused_and_kept(world):
    (world.mine / "new.txt").write_text("mine\n")
    before = refs(world.mine)
    with pytest.raises(Refused, match="would be overwritten"):
        world.land(world.result("one", new__txt="theirs\n"), to=Place(str(world.mine), world.mine))
    assert refs(world.mine) == before
    assert (world.mine / "new.txt").read_text() == "mine\n"


@proves("git.land-in-a-folder")
def test_another_branch_of_a_folder_moves_and_its_files_stay(world):
    sh(world.mine, "switch", "-q", "-c", "topic")
    (world.mine / "b.txt").write_text("not committed\n")
    done = world.land(world.result("one", a__txt="A\n"), to=Place(str(world.mine), world.mine))
    assert sh(world.mine, "rev-parse", "main") == done.commit
    assert (world.mine / "a.txt").read_text() == "one\n" * 9
    assert (world.mine / "b.txt").read_text() == "not committed\n"


@proves("git.land-in-a-folder", "git.land-compare-and-set")
def test_another_branch_of_a_folder_that_moved_meanwhile_is_built_upon_again(world):
    one = world.result("one", a__txt="A\n")
    sh(world.mine, "switch", "-q", "-c", "topic")
    moved = []

    async def work() -> None:
        async with scratch.opened(world.area, []) as folder:
            await world.fetch(folder)
            plan = Plan(RUN, (one,), (one,), "squash", "x", ALICE)

            async def check(built: landing.Built) -> None:
                if not moved:
                    moved.append(await asyncio.to_thread(commit, world.mine, "first", b__txt="B\n"))
                    sh(world.mine, "branch", "-f", "main", "topic")

            to = Place(str(world.mine), world.mine)
            await landing.land(folder, to, "main", plan, check)

    wait(work())
    assert sh(world.mine, "rev-parse", "main^") == moved[0]
    assert sh(world.mine, "show", "main:a.txt", "main:b.txt") == "A\nB"


@proves("git.land-in-a-folder")
def test_a_branch_that_a_linked_folder_has_checked_out_moves_there(world):
    sh(world.mine, "switch", "-q", "-c", "topic")
    linked = world.root / "linked"
    sh(world.mine, "worktree", "add", "-q", str(linked), "main")
    done = world.land(world.result("one", a__txt="A\n"), to=Place(str(world.mine), world.mine))
    assert sh(linked, "rev-parse", "HEAD") == done.commit
    assert (linked / "a.txt").read_text() == "A\n"


def test_trailers_join_those_that_are_there():
    said = landing.with_trailers("Fix\n\nwords\n\nSigned-off-by: a <a@x>", [("A-B", "c")])
    assert said == "Fix\n\nwords\n\nSigned-off-by: a <a@x>\nA-B: c"
    assert landing.with_trailers("fix: it", [("A-B", "c")]) == "fix: it\n\nA-B: c"


@proves("git.land-in-a-folder")
def test_a_branch_of_a_bare_repository_that_a_linked_folder_has_checked_out_moves_there(world):
    linked = world.root / "linked"
    sh(world.remote, "worktree", "add", "-q", str(linked), "main")
    done = world.land(world.result("one", a__txt="A\n"), to=Place(str(world.remote), world.remote))
    assert world.main("%H", "-1") == sh(linked, "rev-parse", "HEAD") == done.commit
    assert (linked / "a.txt").read_text() == "A\n"
    before = refs(world.remote)
    shutil.rmtree(linked)
    with pytest.raises(Refused, match="is gone: `git worktree prune`"):
        world.land(world.result("two", b__txt="B\n"), to=Place(str(world.remote), world.remote))
    assert refs(world.remote) == {
        **before, "refs/heads/muster/r1/two": refs(world.remote)["refs/heads/muster/r1/two"]
    }  # fmt: skip
    sh(world.remote, "worktree", "prune")
    done = world.land(
        world.result("three", b__txt="C\n"), to=Place(str(world.remote), world.remote)
    )
    assert world.main("%H", "-1") == done.commit


@proves("git.land-whole")
@pytest.mark.parametrize("said", ["voilà", "Ångström, è in Å", "fix\n\nSigned-off-by: à"])
def test_a_message_that_ends_on_any_letter_is_kept_whole(world, said):
    sh(world.agent, "checkout", "-q", "--detach", world.start)
    id = commit(world.agent, said, a__txt="A\n")
    sh(world.agent, "push", "-q", "origin", f"{id}:refs/heads/muster/r1/one")
    world.land(Result("one", id, "one@studio"), mode="rebase")
    assert world.main("%B", "-1").startswith(said + "\n")


@proves("git.land-once")
@pytest.mark.parametrize("mode", ["squash", "rebase", "merge"])
def test_what_an_agent_writes_of_landings_is_not_believed(world, mode):
    two = world.result("two", b__txt="B\n")
    sh(world.agent, "checkout", "-q", "--detach", world.start)
    lie = f"mine\n\nMuster-Run: {RUN}\nMuster-Result: {two.commit} two"
    one = commit(world.agent, lie, a__txt="A\n")
    sh(world.agent, "push", "-q", "origin", f"{one}:refs/heads/muster/r1/one")
    world.land(Result("one", one, "one@studio"), mode=mode)
    assert [each.label for each in world.land(two, mode=mode).parts] == ["two"]
    assert world.files()["b.txt"] == "B"
    # And both are seen from then on.
    assert not world.land(Result("one", one, "one@studio"), two).parts


@proves("git.land-says-why-not")
@pytest.mark.parametrize(
    "name", ["", "*", "a b", "main~1", "main^{}", "a..b", "main:refs/heads/x", "x\n+main:y"]
)
def test_what_no_branch_can_be_called_is_said_before_git_is_asked(world, name):
    async def ask() -> None:
        async with scratch.opened(world.area, []) as folder:
            await place.tip(folder, Place(str(world.remote)), name)

    with pytest.raises(NoBranch, match="is no name that a branch can have"):
        wait(ask())


@proves("git.land-whole")
def test_a_message_in_any_letters_is_taken(world):
    async def work() -> None:
        async with scratch.opened(world.area, []) as folder:
            await world.fetch(folder)
            plan = Plan(RUN, (one,), (one,), "squash", "Gr\udcfc\udcdfe", ALICE)
            built = await landing.build(folder, world.start, plan)
            raw = await git.run_async(["cat-file", "commit", built.commit], folder)
            assert b"Gr\xfc\xdfe\n" in raw.out

    one = world.result("one", a__txt="A\n")
    wait(work())


@proves("git.land-attributes")
@pytest.mark.parametrize("mode", ["squash", "rebase", "merge"])
@pytest.mark.parametrize("asked", ["text", "eol=lf", "text eol=crlf", "ident", "filter=lfs"])
def test_attributes_that_ask_for_other_bytes_than_are_committed_are_no_change(world, asked, mode):
    before = "".join(f"{number} $Id: x$\r\n" for number in range(20))

    def put(repo: Path, text: str) -> str:
        raw = subprocess.run(
            ["git", "hash-object", "-w", "--stdin", "--no-filters"],
            cwd=repo, input=text.encode(), capture_output=True, check=True,
        ).stdout.decode().strip()  # fmt: skip
        sh(repo, "update-index", "--add", "--cacheinfo", f"100644,{raw},c.txt")
        sh(repo, "commit", "-q", "-m", "bytes")
        return sh(repo, "rev-parse", "HEAD")

    commit(world.mine, "rules", __gitattributes=f"*.txt {asked}\n")
    put(world.mine, before)
    sh(world.mine, "push", "-q", str(world.remote), "main")
    sh(world.agent, "fetch", "-q", "origin")
    sh(world.agent, "reset", "-q", "--soft", "origin/main")
    sh(world.agent, "read-tree", "HEAD")
    one = put(world.agent, before.replace("0 ", "null ", 1))
    sh(world.agent, "push", "-q", "origin", f"{one}:refs/heads/muster/r1/one")
    put(world.mine, before.replace("19 ", "last "))
    sh(world.mine, "push", "-q", str(world.remote), "main")
    world.land(Result("one", one, "one@studio"), mode=mode)
    merged = subprocess.run(
        ["git", "cat-file", "blob", "main:c.txt"], cwd=world.remote, capture_output=True, check=True
    )
    assert merged.stdout.decode() == before.replace("0 ", "null ", 1).replace("19 ", "last ")
