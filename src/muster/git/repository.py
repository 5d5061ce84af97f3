"""The bare repositories of a hub, `repos/<name>.git`, and the hooks that guard them.

Rule 1: a repository is either complete under its name, or not there. source.py says what one can be
        made from.
Rule 2: what git does in it is set by the configuration and the hooks written here; `check` refuses
        to serve a repository in which they are missing or different.
Rule 3: no object is ever pruned while it is pushed to; attempt refs are refs, so their commits stay
        until `prune.py` removes the refs of what ended long ago.

The hooks are two lines of shell that hand over to `muster.cli.git_hook` with the interpreter that
was running when they were written. A hook whose interpreter has gone fails, and a push with it:
the fence fails closed. `check` then writes them anew, since it compares them with what they
should be.
"""

import os
import shlex
import shutil
import stat
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from muster import limits
from muster.atomic_file import write_file
from muster.errors import Broken, Conflict, NotFound, Refused, unable
from muster.git import bare, removal, source
from muster.git import command as git
from muster.git import origin as origins
from muster.git.fence import BRANCH_PREFIX, POST_PREFIX, repository_name
from muster.git.origin import Origin

FOLLOWED: Final = "refs/follow/heads/"
"""The branches of the origin as they were when it was last fetched; see follow.py."""

# Unfinished repositories start like this; a name never starts with a dot.
_UNFINISHED: Final = ".new-"

# `fsync` is what makes a registered epoch survive a power cut; older versions of git ignore it.
# Reflogs keep what a ref was before, as evidence. Automatic gc would move refs in the middle of a
# push, where the hook would see it as a deletion; `maintain` does it instead.
_CONFIG: Final = f"""\
[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = true
\tlogAllRefUpdates = always
\tfsync = committed,reference
{git.LARGE_FILES}[receive]
\tautogc = false
\tdenyDeletes = true
\tfsckObjects = true
\tmaxInputSize = {limits.GIT_PUSH_BYTES_MAX}
[gc]
\tauto = 0
[fetch]
\trecurseSubmodules = false
[transfer]
\thideRefs = refs/follow
"""

_PRE_RECEIVE: Final = """\
#!/bin/sh
# Muster's fence asks the hub whether this machine may push this; no answer means no.
exec {python} -I -m muster.cli.git_hook pre-receive
"""

# Without MUSTER_PEER nobody pushes: the hub itself moves a ref, by compare-and-set.
_REFERENCE_TRANSACTION: Final = """\
#!/bin/sh
# Muster's fence compares the epoch again, when the transaction is prepared.
[ "$1" = prepared ] || exit 0
[ -n "${{MUSTER_PEER+set}}" ] || exit 0
exec {python} -I -m muster.cli.git_hook reference-transaction
"""


class Added(NamedTuple):
    """A repository that was just made: its default branch, and what of the source it has not."""

    name: str
    path: Path
    branch: str
    left_out: tuple[str, ...]
    follows: bool


def find(repos: Path, name: str) -> Path:
    """Where the repository of that name is; NotFound when this hub has none."""
    path = repos / f"{repository_name(name)}.git"
    if not (path / "HEAD").is_file():
        raise NotFound(f"There is no repository {name!r} here; `muster repo add` makes one.")
    return path


def listing(repos: Path) -> dict[str, Path]:
    """All repositories of this hub, by name."""
    found = sorted(repos.glob("*.git"))
    return {path.stem: path for path in found if not path.name.startswith(".")}


async def add(
    repos: Path, name: str, place: str, follow: bool | None = None, now_ms: int = 0
) -> Added:
    """Make a repository from a local checkout, a bundle or an address.

    It follows that from then on, a bundle only where `follow` says so: nobody expects anything of
    a copy that was made once. On return it is complete, with its hooks; on an error nothing of it
    is there.
    """
    git.check_version()
    target = repos / f"{repository_name(name)}.git"
    if target.exists():
        raise Conflict(f"There is a repository {name!r} already; choose another name.")
    unfinished = _begin(repos)
    try:
        with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=repos) as scratch:
            found = await source.look(place, Path(scratch))
            await _fill(unfinished, found)
            follows = not found.asked.bundle if follow is None else follow
            kept = Origin(found.asked.origin, follows, found.branch, now_ms)
            origins.write(unfinished, kept)
        await check_commit(unfinished)
        _finish(unfinished, target)
    finally:
        await removal.remove(unfinished)
    return Added(name, target, found.branch, found.left_out, follows)


async def discard(repos: Path, name: str) -> None:
    """Remove a repository, at once for everybody else. Raises: NotFound."""
    path, aside = find(repos, name), _begin(repos)
    try:
        # Renamed over the empty folder: nobody ever sees a half of it.
        os.rename(path, aside)
    except OSError as error:
        raise unable(f"{path} cannot be removed: {error}.", error) from error
    finally:
        await removal.remove(aside)


def _begin(repos: Path) -> Path:
    try:
        repos.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=repos))
    except OSError as error:
        raise unable(f"A repository cannot be written under {repos}: {error}.", error) from error


def _finish(unfinished: Path, target: Path) -> None:
    try:
        # Renaming a folder onto a non-empty one fails, so of two racing calls one wins.
        unfinished.rename(target)
    except OSError as error:
        raise Conflict(f"{target.name} was made by somebody else meanwhile; use that.") from error


async def _fill(path: Path, found: source.Source) -> None:
    await git.run_async(["init", "-q", "--bare", "--template=", "."], path)
    write_guard(path)
    await git.run_async(["symbolic-ref", "HEAD", f"refs/heads/{found.branch}"], path)
    # A source may be a clone of another hub's repository; its runs are not ours. A branch whose
    # name is the beginning of ours would keep every phase from getting its branch.
    refspecs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
    refspecs.append(f"+refs/heads/*:{FOLLOWED}*")
    refspecs += [f"^{BRANCH_PREFIX}*", f"^{BRANCH_PREFIX.rstrip('/')}"]
    await fetch(path, found.asked.address, refspecs, limits.GIT_ADD_MS_MAX)
    await git.run_async(["pack-refs", "--all"], path)
    # Git leaves out a shallow clone's branches, with exit code 0.
    taken = await git.run_async(["for-each-ref", "--format=%(refname)", "refs/heads"], path)
    lost = found.branches - set(taken.out.split())
    if lost:
        raise Refused(
            f"The branch {git.shown(min(lost))} could not be taken in whole; "
            "if the source is a shallow clone, run `git fetch --unshallow` there first."
        )


async def fetch(path: Path, address: str, refspecs: Sequence[str], timeout_ms: int) -> None:
    """Take refs over from a source."""
    # Twenty thousand branches are one file that is synced, instead of as many.
    args = ["-c", "core.fsync=committed,-reference", "fetch", "-q", "--no-tags", "--stdin"]
    args += ["--no-recurse-submodules", "--no-write-fetch-head", "--end-of-options", address]
    given = "".join(f"{each}\n" for each in refspecs).encode("utf-8", "surrogateescape")
    async with bare.held(path) as held:
        await git.run_async(
            args, path, stdin=given, timeout_ms=timeout_ms, logins=True, inherits=(held,)
        )


async def check_commit(path: Path, commit: str = "HEAD") -> None:
    """Whether every machine of a fleet can check out and clone this. Raises: Refused."""
    # Names that no checkout may have, such as `.GIT/config`, are found by reading an index.
    with tempfile.TemporaryDirectory(dir=path) as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        await git.run_async(["read-tree", commit], path, env=index)
    with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=path.parent) as scratch:
        await _check_gitmodules(path, commit, Path(scratch))


async def _check_gitmodules(path: Path, commit: str, scratch: Path) -> None:
    """Refuse submodules that would run something where they are cloned, as every push would be."""
    found = await git.run_async(["ls-tree", "-z", commit, "--", ".gitmodules"], path)
    if not found.out:
        return
    await git.run_async(["init", "-q", "--bare", "--template=", "."], scratch)
    raw = await git.run_async(["cat-file", "-p", f"{commit}:.gitmodules"], path)
    await git.run_async(["hash-object", "-w", "--stdin"], scratch, stdin=raw.out)
    await git.run_async(["mktree", "-z", "--missing"], scratch, stdin=found.out)
    checked = await git.run_async(["fsck", "--strict", "--no-dangling"], scratch, codes=range(256))
    if checked.code:
        raise Refused(
            f"The source's .gitmodules is not safe to clone ({git.reason(checked.err)}); "
            "mend it and commit that first."
        )


async def default_branch(path: Path) -> str:
    """The branch that runs start from, whether or not anything is on it."""
    named = await git.run_async(["symbolic-ref", "--short", "HEAD"], path)
    return named.text


async def head(path: Path) -> str:
    """The commit of the default branch; NotFound while the repository is empty."""
    answer = await git.run_async(
        ["rev-parse", "--verify", "-q", "HEAD^{commit}"], path, codes=(0, 1, 128)
    )
    if answer.code:
        raise NotFound(f"Repository {path.stem!r} has no commit on its default branch; push one.")
    return git.object_id(answer.text, "HEAD")


def hooks(python: str = sys.executable) -> dict[str, str]:
    """Every hook's name and text."""
    quoted = shlex.quote(str(Path(python).absolute()))
    return {
        "pre-receive": _PRE_RECEIVE.format(python=quoted),
        "reference-transaction": _REFERENCE_TRANSACTION.format(python=quoted),
    }


def write_guard(path: Path, python: str = sys.executable) -> None:
    """Write the configuration and the hooks; each file is replaced as a whole."""
    try:
        (path / "hooks").mkdir(exist_ok=True)
    except OSError as error:
        raise unable(f"The fence of {path} cannot be written: {error}.", error) from error
    write_file(path / "config", _CONFIG.encode())
    for name, text in hooks(python).items():
        write_file(path / "hooks" / name, text.encode(), runs=True)


def check(path: Path, python: str = sys.executable) -> None:
    """Make sure that the fence stands, as it must before anything is served.

    A guard that was lost or changed (an update moved the interpreter, somebody edited the
    configuration) is written anew; Broken when that is impossible.
    """
    if not guarded(path, python):
        write_guard(path, python)
        if not guarded(path, python):
            raise Broken(f"The fence of {path} does not stand; look at its hooks folder.")


def guarded(path: Path, python: str = sys.executable) -> bool:
    """True when configuration and hooks are exactly ours."""
    try:
        if (path / "config").read_text(encoding="utf-8") != _CONFIG:
            return False
        for name, text in hooks(python).items():
            hook = path / "hooks" / name
            if hook.read_text(encoding="utf-8") != text:
                return False
            if not stat.S_IMODE(hook.stat().st_mode) & stat.S_IXUSR:
                return False
    except (OSError, UnicodeDecodeError):
        return False
    return True


def is_fenced(path: Path) -> bool:
    """Whether the fence stands, by whichever interpreter wrote it, and that one is there."""
    try:
        text = (path / "hooks" / "pre-receive").read_text(encoding="utf-8")
        python = shlex.split(text.splitlines()[-1])[1]
    except (OSError, ValueError, IndexError):
        return False
    return os.path.exists(python) and guarded(path, python)


async def maintain(path: Path) -> None:
    """Pack a repository or a cache, where so much is loose that it is worth it.

    What no ref, attempt or reflog names is dropped after two weeks.
    """
    worth = ["-c", "gc.auto=6700", "-c", "gc.autoDetach=false", "-c", "gc.pruneExpire=2.weeks.ago"]
    # What a branch of parcels was before is evidence of nothing.
    for each in ("reflogExpire", "reflogExpireUnreachable"):
        worth += ["-c", f"gc.{POST_PREFIX}*.{each}=now"]
    await git.run_async([*worth, "gc", "--auto", "-q"], path)


def sweep(repos: Path, now_s: float) -> int:
    """Remove what a crash left: half-made repositories, locks and pushes nobody finishes.

    `now_s` is the wall clock. Anything younger than the longest a push may hold it stays, and what
    is copied for as long as a first copy may take, so this may run at any time. The number of
    things removed.
    """
    if not repos.is_dir():
        return 0
    left = [*repos.glob("*.git/objects/tmp_objdir-incoming-*"), *repos.glob("*.git/*.lock")]
    left += repos.glob("*.git/refs/**/*.lock")
    oldest_s = now_s - limits.GIT_LOCK_AGE_MS_MAX / 1000
    old = [path for path in left if path.lstat().st_mtime < oldest_s]
    # What fills one changes nothing of the folder itself.
    begun_s = oldest_s - limits.GIT_ADD_MS_MAX / 1000
    old += [path for path in repos.glob(f"{_UNFINISHED}*") if path.lstat().st_mtime < begun_s]
    for path in old:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(old)
