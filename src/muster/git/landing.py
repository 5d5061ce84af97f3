"""Results of a run on a branch: what is to land is built apart, whole, before anything moves.

Rule 1: it is built in a scratch repository, from the commit that the branch is at; the person's
folders are not touched, and a conflict changes nothing anywhere.
Rule 2: all of both sides is in it. A merge has every result as a parent; a replay ends with the
very files that the merge has, or is refused.
Rule 3: what landed says so itself, in trailers: the branch is the witness of what is on it, and no
second record can differ from it.

    Muster-Run: 1ae7…
    Muster-Result: 9f8e… test

How the branch then moves is `place.py`'s; where it moved meanwhile, all of it is done again.
"""

import re
import string
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

from muster import limits
from muster.errors import Conflict, Malformed, NotFound, Refused
from muster.git import command as git
from muster.git import commit as commits
from muster.git import merge, place, ref
from muster.git.person import Identity
from muster.git.place import Moved, Place

Mode = Literal["squash", "rebase", "merge"]

_RUN: Final = "Muster-Run"
_RESULT: Final = "Muster-Result"
_RECORDED: Final = re.compile(rf"^{_RESULT}: ([0-9a-f]{{40}})\b", re.MULTILINE)
# What somebody else's commit says of itself here is nothing that we said.
_OURS: Final = re.compile(rf"^(?:{_RUN}|{_RESULT}):.*\n?".encode(), re.MULTILINE)
_REVERTED: Final = re.compile(r"This reverts commit ([0-9a-f]{40})")
_TRAILER: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]*: .+")
# Of what the other side did to a file, the newest; whoever wants all asks `git log`.
_SHOWN_MAX: Final = 3


class Result(NamedTuple):
    """What a phase, or one task of several, ended on."""

    label: str
    commit: str
    agent: str
    """`claude@studio`"""


class Plan(NamedTuple):
    """What is to land, in order. `known` are all results of the run: they say whose a change is."""

    run: str
    results: tuple[Result, ...]
    known: tuple[Result, ...]
    mode: Mode
    message: str
    who: Identity


class Built(NamedTuple):
    """The commit that a branch is to have; where all of it is there already, the one that has it.

    `parts` are those results that were not there before.
    """

    onto: str
    commit: str
    parts: tuple[Result, ...]


class Clash(NamedTuple):
    """A file that both sides changed, and by whom it was on each."""

    path: str
    there: tuple[str, ...]
    result: tuple[str, ...]


class Unmergeable(Refused):
    """The results do not go together with the branch, or with each other; nothing was changed."""

    def __init__(self, clashes: Sequence[Clash], said: str) -> None:
        files = git.listed([each.path for each in clashes], 5)
        super().__init__(f"The results conflict in {files or said}; nothing was changed.")
        self.clashes = tuple(clashes)


async def land(
    folder: Path,
    to: Place,
    branch: str,
    plan: Plan,
    check: Callable[[Built], Awaitable[None]],
) -> Built:
    """Build in the scratch repository `folder`, check, move the branch; the same until it holds.

    What `check` raises ends it with nothing moved. Raises: as `build`; Conflict where others were
    faster each time; Refused, Unreachable as the place says.
    """
    for _ in range(limits.GIT_LAND_TRIES_MAX):
        built = await build(folder, await place.tip(folder, to, branch), plan)
        if not built.parts:
            return built
        await check(built)
        try:
            await place.move(folder, to, branch, built.onto, built.commit)
        except Moved:
            # Somebody was faster: it is built once more on what is there now, so often.
            continue
        return built
    raise Conflict(
        f"{branch} moved {limits.GIT_LAND_TRIES_MAX} times while this was being built; nothing was "
        "changed, try again."
    )


async def build(folder: Path, onto: str, plan: Plan) -> Built:
    """Make what the branch is to have in the scratch repository `folder`, which has it checked out.

    Raises: Unmergeable, Refused; NotFound where the results change nothing.
    """
    # A check of the try before may have left files.
    await git.run_async(["clean", "-ffdxq"], folder)
    there = await landed(folder, onto, plan.results)
    parts = tuple(each for each in plan.results if each.commit not in there)
    if not parts:
        return Built(onto, next(iter(there.values())), ())
    tips = await _tips(folder, onto, parts)
    tree = await _merged(folder, onto, tips, plan)
    if tree == await _tree(folder, onto):
        raise NotFound("The results change nothing that the branch does not have already.")
    results = [(_RESULT, f"{each.commit} {git.clean(each.label)}") for each in parts]
    if plan.mode == "rebase":
        commit = await _replayed(folder, onto, tips, plan, results)
    else:
        parents = [onto, *(tip.commit for tip in tips)] if plan.mode == "merge" else [onto]
        trailers = [(_RUN, plan.run), *results]
        if plan.mode == "squash":
            agents = dict.fromkeys(each.agent for each in plan.known if each.agent)
            trailers += [("Co-authored-by", commits.person(each)) for each in agents]
        message = with_trailers(plan.message, trailers)
        commit = await _write(folder, tree, parents, plan.who, message)
    if await _tree(folder, commit) != tree:
        raise Refused(
            "The results merge cleanly, but replaying their commits one by one gives other files: "
            "a merge among them has changes of its own; land with --merge or --squash."
        )
    await merge.stand_at(folder, commit)
    return Built(onto, commit, parts)


async def landed(repo: Path, onto: str, results: Iterable[Result]) -> Mapping[str, str]:
    """Of these results those that a commit has, and the commit that brought each there.

    What was reverted there is not there; a revert that was reverted brings it back. Commits that a
    landing merged are the work of agents, who may write anything into them: they bear no witness.

    Raises: Refused for what was merged and reverted, which git would merge no second time.
    """
    labels = {each.commit: each.label for each in results}
    wanted = labels.keys()
    merged = [each for each in wanted if await ref.descends(repo, each, onto)]
    found = {each: each for each in merged}
    log = ["log", "-z", "--topo-order", "--format=%H %P%n%B", "-F", f"--grep={_RESULT}: "]
    log.append("--grep=This reverts commit ")
    # No result can have landed before all of them began; one may have begun where another landed.
    shared = ["merge-base", "--octopus", onto, *sorted(wanted)]
    began = (await git.run_async(shared, repo, codes=(0, 1))).text
    log += [onto, *(["--not", began] if began else [])]
    undone, brought = dict[str, str](), set[str]()
    for each in (await git.run_async(log, repo)).out.decode("utf-8", "replace").split("\0"):
        ids, _, text = each.strip().partition("\n")
        commit, *parents = ids.split() or [""]
        if not commit or commit in undone:
            continue
        undone |= dict.fromkeys(_REVERTED.findall(text), commit)
        if commit in brought or not (recorded := set(_RECORDED.findall(text))):
            continue
        found |= dict.fromkeys(wanted & recorded, commit)
        if len(parents) > 1:
            walk = ["rev-list", *parents[1:], "--not", parents[0]]
            brought.update((await git.run_async(walk, repo)).text.split())
    for each in merged:
        # By a landing that still counts it is there, whatever became of another one.
        if found[each] == each and (by := await _reverted(repo, each, undone)):
            raise Refused(
                f"The result of {git.clean(labels[each])} was merged into the branch and reverted "
                f"there by {by[:12]}, so git merges it no more; `git revert {by[:12]}` on the "
                "branch brings it back; nothing was changed."
            )
    return found


async def _reverted(repo: Path, result: str, undone: Mapping[str, str]) -> str:
    """The revert that took back what brought a result to a branch, "" for none."""
    for commit, by in undone.items():
        # What is named there may be anything, or be gone.
        if not await ref.descends(repo, result, commit):
            continue
        if not await ref.descends(repo, result, f"{commit}^1"):
            return by
    return ""


def with_trailers(message: str, trailers: Sequence[tuple[str, str]]) -> str:
    """The message with these lines at its end, in the block of such lines if it has one. Pure."""
    # Not all that is blank: a message may be bytes of any encoding, and they stay what they are.
    text = message.replace("\0", "").strip(string.whitespace)
    last = text.rpartition("\n\n")[2].split("\n") if "\n\n" in text else []
    gap = "\n" if last and all(map(_TRAILER.fullmatch, last)) else "\n\n"
    return text + gap + "\n".join(f"{name}: {value}" for name, value in trailers)


async def _tips(folder: Path, onto: str, parts: Sequence[Result]) -> list[Result]:
    """Those results that no other one contains. Raises: Refused, Malformed."""
    if len(parts) > limits.GIT_BASES_MAX:
        raise Malformed(f"{len(parts)} results are more than {limits.GIT_BASES_MAX}.")
    ids = list(dict.fromkeys(each.commit for each in parts))
    alone = (await git.run_async(["merge-base", "--independent", *ids], folder)).text.split()
    tips = [next(each for each in parts if each.commit == id) for id in ids if id in alone]
    for tip in tips:
        shared = await git.run_async(["merge-base", onto, tip.commit], folder, codes=(0, 1))
        if shared.code:
            raise Refused(f"The result of {tip.label} has no history in common with the branch.")
    return tips


async def _merged(folder: Path, onto: str, tips: Sequence[Result], plan: Plan) -> str:
    """The files of the branch with all results. Raises: Unmergeable."""
    await merge.stand_at(folder, onto)
    head, tree = onto, ""
    for number, tip in enumerate(tips):
        done = await merge.into(folder, tip.commit)
        if not done.tree:
            clashes = await _clashes(folder, done.files, onto, tips[: number + 1], plan)
            raise Unmergeable(clashes, done.said)
        tree = done.tree
        # Nobody gets this commit: the next merge has to know what was merged before.
        head = await _write(folder, tree, [head, tip.commit], plan.who, "merged")
        await git.run_async(["update-ref", "--no-deref", "HEAD", head], folder)
    return tree


async def _replayed(
    folder: Path,
    onto: str,
    tips: Sequence[Result],
    plan: Plan,
    results: list[tuple[str, str]],
) -> str:
    """The commits of the results one after the other, as their authors made them.

    Merges are left out, and so is what changes nothing (any more).
    """
    walk = ["rev-list", "--reverse", "--topo-order", "--no-merges"]
    ids = [tip.commit for tip in tips]
    made = (await git.run_async([*walk, *ids, "--not", onto], folder)).text.split()
    if len(made) > limits.GIT_REPLAYED_MAX:
        raise Refused(
            f"{len(made)} commits are more than {limits.GIT_REPLAYED_MAX} to replay; land with "
            "--merge or --squash."
        )
    await merge.stand_at(folder, onto)
    head, tree, last = onto, await _tree(folder, onto), b""
    run = [(_RUN, plan.run)]
    for each in made:
        done = await merge.pick(folder, each)
        if not done.tree:
            raise Refused(
                f"The results merge cleanly, but their commit {each[:12]} cannot be replayed "
                f"({git.listed(done.files, 5) or done.said}); land with --merge or --squash."
            )
        if done.tree == tree:
            continue
        tree = done.tree
        raw = (await git.run_async(["cat-file", "commit", each], folder)).out
        begin = f"tree {tree}\nparent {head}\n".encode()
        last = begin + _again(raw, plan.who, [*run, *results])
        head = await _store(folder, begin + _again(raw, plan.who, run))
        await git.run_async(["update-ref", "--no-deref", "HEAD", head], folder)
    # Only the last one can say that all of it is there.
    return await _store(folder, last) if last else onto


def _again(raw: bytes, who: Identity, trailers: Sequence[tuple[str, str]]) -> bytes:
    """What a commit says, after its tree and parents: its author's words, the person's name."""
    head, _, message = raw.partition(b"\n\n")
    message = _OURS.sub(b"", message)
    lines = head.split(b"\n")
    author = next(line for line in lines if line.startswith(b"author "))
    encoding = [line for line in lines if line.startswith(b"encoding ")]
    # Whatever letters they are, byte for byte: line ends are the same in all of them.
    said = [(name, value.encode().decode("latin-1")) for name, value in trailers]
    text = with_trailers(message.decode("latin-1"), said).encode("latin-1")
    kept = [author, b"committer " + who.committer.encode(), *encoding, b"", text, b""]
    return b"\n".join(kept)


async def _write(
    folder: Path, tree: str, parents: Sequence[str], who: Identity, message: str
) -> str:
    lines = [f"tree {tree}", *(f"parent {each}" for each in parents)]
    lines += [f"author {who.author}", f"committer {who.committer}", "", message, ""]
    # What was typed in other letters than ours stays the bytes that it was.
    return await _store(folder, "\n".join(lines).encode("utf-8", "surrogateescape"))


async def _store(folder: Path, raw: bytes) -> str:
    asked = ["hash-object", "-t", "commit", "-w", "--stdin"]
    return git.object_id((await git.run_async(asked, folder, stdin=raw)).text, "The new commit")


async def _tree(folder: Path, commit: str) -> str:
    return (await git.run_async(["rev-parse", f"{commit}^{{tree}}"], folder)).text


# --- whose a conflict is ------------------------------------------------------------------------


async def _clashes(
    folder: Path, files: Sequence[bytes], onto: str, tips: Sequence[Result], plan: Plan
) -> list[Clash]:
    """Who changed each file: the last one of `tips` against the branch and the tips before it."""
    *before, tip = tips
    phases = await _phases(folder, onto, plan.known)
    clashes = []
    for raw in files:
        ours = await _touched(folder, raw, [tip.commit], [onto])
        theirs = await _touched(folder, raw, [e.commit for e in before], [onto, tip.commit])
        since = await _touched(folder, raw, [onto], [each.commit for each in tips])
        told = [phases[id] for id in theirs if id in phases] + list(since.values())[:_SHOWN_MAX]
        made = [phases[id] for id in ours if id in phases] or [_told(tip)]
        others = told or [_told(each) for each in before] or ["the branch"]
        names = (tuple(dict.fromkeys(others)), tuple(dict.fromkeys(made)))
        clashes.append(Clash(git.shown(raw), *names))
    return clashes


async def _phases(folder: Path, onto: str, known: Iterable[Result]) -> dict[str, str]:
    """Every commit of the run, and the phase that made it: the first that has it."""
    found = dict[str, str]()
    for each in known:
        walk = ["rev-list", each.commit, "--not", onto]
        # A phase that nothing was fetched of made nothing that lands.
        listed = await git.run_async(walk, folder, codes=(0, 128))
        for id in listed.text.split():
            found.setdefault(id, _told(each))
    return found


def _told(result: Result) -> str:
    return f"phase {result.label}" + (f" by {result.agent}" if result.agent else "")


async def _touched(
    folder: Path, file: bytes, of: Sequence[str], without: Sequence[str]
) -> dict[str, str]:
    """The commits that changed a file, the newest first: id, author and subject."""
    if not of:
        return {}
    path = file.decode("utf-8", "surrogateescape")
    log = ["log", "-z", "--no-merges", "--format=%H %h %an: %s", *of, "--not", *without]
    out = (await git.run_async([*log, "--", path], folder)).out.decode("utf-8", "replace")
    pairs = (each.strip().partition(" ") for each in out.split("\0"))
    return {id: git.clean(text) for id, _, text in pairs if id}
