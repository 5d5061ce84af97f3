"""A shared repository in which machines leave files for each other, each on a branch of its own.

Rule 1: `muster-post/<writer>` is one commit without a parent: `to/<reader>/<name>` for all that
its writer has lying there, and `acks`, the names that it has dealt with. So there is no history.
Rule 2: what comes from there is a stranger's. It comes with bounds into a copy of ours in which
nothing is ever checked out; of it is read what was asked for, once it was listed and measured.
Rule 3: nothing of a repository on this machine runs here: no hook, no command that it configures.
Rule 4: our copy has what we leave before the repository has: who is ended in between pushes again.
Rule 5: one git at a time works in our copy, also one that outlives who started it.
"""

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

from muster import limits
from muster.errors import Exhausted, MusterError, NotFound, Unreachable
from muster.git import bare, removal
from muster.git import command as git
from muster.git.fence import POST_PREFIX, WRITER_CHARS
from muster.git.objects import Blob, Objects

BRANCHES: Final = POST_PREFIX

_WRITER: Final = re.compile(rf"[0-9a-z-]{{1,{WRITER_CHARS}}}\Z")
_OWN: Final = "refs/own"
_ADOPTED: Final = "refs/adopted"
_COPIES: Final = "refs/post/"
_TIDY_AFTER: Final = 16
# What is sealed gets no smaller, and nothing in it is alike.
_CONFIG: Final = (
    "[core]\n\trepositoryformatversion = 0\n\tbare = true\n\tcompression = 0\n"
    f"{git.LARGE_FILES}\twindow = 0\n[fetch]\n\tunpackLimit = 1\n\tfsckObjects = true\n"
)
_FETCH: Final = (
    "fetch", "-q", "--depth=1", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head",
)  # fmt: skip
# On this machine git's server programs are ours: the repository may be another user's, who tidies.
_OURS: Final = (
    "GIT_ALLOW_PROTOCOL=none GIT_NO_LAZY_FETCH=1 git -c 'safe.directory=*' "
    "-c core.hooksPath=/dev/null -c core.alternateRefsCommand=true "
    "-c receive.denyCurrentBranch=refuse -c receive.autogc=false -c gc.auto=0 "
    "-c maintenance.auto=false "
)
_SSH: Final = "-oConnectTimeout=10 -oServerAliveInterval=5 -oServerAliveCountMax=3"
# A server that says nothing any more is noticed long before the deadline.
_SILENT: Final = (
    "-c", f"core.sshCommand=ssh -oBatchMode=yes {_SSH}", "-c", "http.lowSpeedLimit=100",
    "-c", "http.lowSpeedTime=20",
)  # fmt: skip
# In which time zone this machine is, nobody has to know.
_HERE: Final = {"TZ": "UTC0"}
_MESSAGE: Final = b"Sealed parcels of Muster, made anew by each push\n"


class Branch(NamedTuple):
    """What one machine has lying there for one reader, and which of that one's it dealt with."""

    commit: str
    files: Mapping[str, Blob]
    acks: frozenset[str]


class Own(NamedTuple):
    """What we have lying there, by reader and name, and which of others' we dealt with."""

    commit: str
    files: Mapping[tuple[str, str], Blob]
    acks: frozenset[str]


class Mailbox:
    """The repository at an address, and our copy of it in a folder. One call at a time.

    Every call raises what git meant; Unreachable and Exhausted are nobody's mistake.
    """

    def __init__(
        self, folder: Path, address: str, survived: Callable[[str, Exception], None]
    ) -> None:
        self._folder, self._address, self._survived = folder, address, survived
        place = address.removeprefix("file://")
        ours = {word: [f"--{word}={_OURS}{word}"] for word in ("upload-pack", "receive-pack")}
        self._server = ours if place.startswith("/") else {}
        self._objects = Objects(self._run)
        # Beside the copy: it tells ours from anybody's where that is lost.
        self._pushed_last = folder.with_name(f"{folder.name}.pushed")
        self._works = 0
        # Commits that cannot be taken, by their branch: they are not asked for again.
        self._passed_over: dict[str, str] = {}

    async def begin(self) -> Own:
        """Make the copy, or take away what a git that was ended left in it; what we left."""
        self._folder.mkdir(parents=True, exist_ok=True)
        bare.make(self._folder, _CONFIG)
        async with self._alone():
            bare.unlock(self._folder)
        found = (await self._refs()).get(_OWN, "")
        await self._prune()
        return await self._read_own(found) if found else Own("", {}, frozenset())

    # --- what lies there -------------------------------------------------------------

    async def heads(self, first: Iterable[str]) -> dict[str, str]:
        """The commit of each machine's branch; so many at most, and first those named."""
        asked = [*self._server.get("upload-pack", []), "--end-of-options", self._address]
        words = ("ls-remote", "--refs", *asked, f"{BRANCHES}*")
        answer = await self._ask(*words, timeout_ms=limits.GIT_POST_ASK_MS_MAX)
        found = {}
        for line in answer.out.decode("utf-8", "replace").splitlines():
            id, _, ref = line.partition("\t")
            name = ref.removeprefix(BRANCHES)
            if ref.startswith(BRANCHES) and _WRITER.match(name):
                found[name] = git.object_id(id, "A branch")
        if len(found) <= limits.GIT_POST_BRANCHES_MAX:
            return found
        self._too_much(f"there are {len(found)} branches in {self._address}, too many")
        copies = [ref.removeprefix(_COPIES) for ref in await self._refs()]
        names = [n for n in dict.fromkeys([*first, *copies, *sorted(found)]) if n in found]
        return {name: found[name] for name in names[: limits.GIT_POST_BRANCHES_MAX]}

    async def take_over(self, heads: Mapping[str, str]) -> dict[str, str]:
        """Bring the copies of others' branches up to date; the commit of each that is there."""
        refs = await self._refs()
        copies = {r.removeprefix(_COPIES): id for r, id in refs.items() if r.startswith(_COPIES)}
        moved = [
            name
            for name, id in heads.items()
            if copies.get(name) != id and self._passed_over.get(name) != id
        ]
        if gone := copies.keys() - heads.keys():
            lines = "".join(f"delete {_COPIES}{name}\n" for name in gone).encode()
            await self._run("update-ref", "--stdin", stdin=lines)
        if moved:
            await self._fetch_all(heads, moved)
            refs = await self._refs()
        there = {name: refs[_COPIES + name] for name in heads if _COPIES + name in refs}
        # What moved on to something that cannot be taken is not what it was any more.
        return {n: id for n, id in there.items() if n not in self._passed_over or id == heads[n]}

    async def adopt(self, name: str, commit: str) -> Own:
        """What lies on our branch, where that is what we pushed last and our copy is lost.

        Of anything else nobody knows who pushed it: nothing is ours then.
        """
        if commit != self._last_pushed():
            return Own("", {}, frozenset())
        await self._fetch(f"+{BRANCHES}{name}:{_ADOPTED}")
        found = await self._read_own(commit)
        await self._run("update-ref", "-d", _ADOPTED)
        return found

    async def branches(
        self, commits: Mapping[str, str], reader: str, left: Mapping[str, Collection[str]]
    ) -> dict[str, Branch]:
        """What lies for one reader in these commits; who dealt with what of that `left` for it."""
        boxes = await self._objects.boxes([f"{id}:to/{reader}" for id in commits.values()])
        asked = {name: id for name, id in commits.items() if name in left}
        names = set(chain.from_iterable(left.values()))
        acks = dict(zip(asked, await self._objects.acks(list(asked.values()), names), strict=True))
        return {
            name: Branch(commit, files, acks.get(name, frozenset()))
            for (name, commit), files in zip(commits.items(), boxes, strict=True)
        }

    async def read(self, blobs: Sequence[Blob]) -> list[bytes]:
        """What files hold; the caller bounds how much that is."""
        return await self._objects.contents([blob.id for blob in blobs])

    # --- what we leave ---------------------------------------------------------------

    async def write(
        self, files: Mapping[tuple[str, str], Blob | bytes], acks: Collection[str]
    ) -> Own:
        """Make this what we leave, in our copy; of too many acks the first."""
        blobs, lines, tree = dict[tuple[str, str], Blob](), list[bytes](), list[bytes]()
        for (reader, name), held in files.items():
            if isinstance(held, bytes):
                lines.append(b"blob\ndata %d\n%b\n" % (len(held), held))
                head = b"blob %d\0" % len(held)
                id = hashlib.sha1(head + held, usedforsecurity=False).hexdigest()
                held = Blob(id, len(held))  # noqa: PLW2901 - from here on it is known by its name
            blobs[reader, name] = held
            tree.append(f"M 100644 {held.id} to/{reader}/{name}\n".encode())
        told = list(acks)[: limits.GIT_POST_ACKS_MAX]
        listed = "".join(f"{each}\n" for each in sorted(told)).encode()
        tree.append(b"M 100644 inline acks\ndata %d\n%b\n" % (len(listed), listed))
        lines.append(b"commit %b\nmark :1\n" % _OWN.encode())
        lines.append(b"committer muster <muster@localhost> now\n")
        lines.append(b"data %d\n%b" % (len(_MESSAGE), _MESSAGE))
        script = b"".join([*lines, *tree, b"get-mark :1\ndone\n"])
        words = ("--quiet", "--force", "--done", "--date-format=now")
        answer = await self._run("fast-import", *words, stdin=script)
        return Own(git.object_id(answer.text, "What is left"), blobs, frozenset(told))

    async def push(self, name: str, commit: str, old: str) -> None:
        """Move our branch from `old` ("" for none) to a commit. Raises: Conflict."""
        ref = BRANCHES + name
        words = [
            "--no-verify",
            "--no-follow-tags",
            *self._server.get("receive-pack", []),
        ]
        words += [f"--force-with-lease={ref}:{old}", "--end-of-options", self._address]
        await self._ask("push", *words, f"{commit}:{ref}", timeout_ms=limits.GIT_POST_MS_MAX)
        self._pushed_last.write_text(commit, encoding="ascii")
        await self._worked()

    def _last_pushed(self) -> str:
        try:
            return self._pushed_last.read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            return ""

    # --- care ------------------------------------------------------------------------

    async def mend(self) -> None:
        """Put away a copy that cannot be read: the repository has what lay in it."""
        try:
            await self._run("fsck", "--connectivity-only", "--no-dangling", "--no-progress")
        except (Unreachable, Exhausted):
            # The look itself did not end: nothing is known to be wrong, and it is repeated.
            pass
        except MusterError:
            # It cannot be read: it is put away, and everything comes from the repository again.
            aside = removal.set_aside(self._folder)
            if aside is not None:
                await removal.remove(aside)

    async def _worked(self) -> None:
        """Now and then, drop what no branch has any more."""
        self._works += 1
        if self._works % _TIDY_AFTER == 0:
            await self._tidy()

    async def _tidy(self) -> None:
        await self._run("repack", "-a", "-d", "-q", "--no-write-bitmap-index")
        await self._prune()

    async def _prune(self) -> None:
        """Drop what nobody has, and what a git that was ended left of a pack."""
        await self._run("prune", "--expire=now")

    # --- one by one ------------------------------------------------------------------

    async def _fetch_all(self, heads: Mapping[str, str], moved: list[str]) -> None:
        if await self._is_too_large():
            return
        specs = {name: f"+{BRANCHES}{name}:{_COPIES}{name}" for name in moved}
        try:
            await self._fetch(*specs.values())
        except (Unreachable, Exhausted):
            raise
        except MusterError:
            # One of them is at fault, and the others are not its.
            await self._prune()
            for name, spec in specs.items():
                await self._fetch_one(name, spec, heads[name])
        else:
            for name in moved:
                self._passed_over.pop(name, None)

    async def _fetch_one(self, name: str, spec: str, id: str) -> None:
        if await self._is_too_large():
            return
        try:
            await self._fetch(spec)
        except (Unreachable, Exhausted):
            raise
        except NotFound:
            # It went meanwhile: its machine took what lay in it.
            # It went meanwhile.
            return
        except MusterError as error:
            self._survived("unread", error)
            self._passed_over[name] = id
            await self._prune()
        else:
            self._passed_over.pop(name, None)

    async def _fetch(self, *specs: str) -> None:
        words = [*_FETCH, *self._server.get("upload-pack", []), "--end-of-options", self._address]
        try:
            await self._ask(*words, *specs, timeout_ms=limits.GIT_POST_MS_MAX)
        finally:
            await self._worked()

    async def _is_too_large(self) -> bool:
        """Whether the copy is as large as it may be, also without what nobody has any more.

        Then what is in it is read all the same, and what is new waits.
        """
        if _bytes_of(self._folder) > limits.GIT_POST_COPY_BYTES_MAX:
            await self._tidy()
        if _bytes_of(self._folder) <= limits.GIT_POST_COPY_BYTES_MAX:
            return False
        self._too_much(f"what lies in {self._address} is too much for its copy here")
        return True

    def _too_much(self, why: str) -> None:
        self._survived("unread", Exhausted(f"{why}; remove what is nobody's there"))

    async def _refs(self) -> dict[str, str]:
        asked = ["--format=%(objectname) %(refname)", _OWN, _ADOPTED, _COPIES[:-1]]
        lines = (await self._run("for-each-ref", *asked)).text.splitlines()
        return {ref: id for id, _, ref in (line.partition(" ") for line in lines)}

    async def _read_own(self, commit: str) -> Own:
        return Own(commit, *await self._objects.own(commit))

    async def _ask(self, *args: str, timeout_ms: int) -> git.Answer:
        """A question to the repository itself; what it answers has bounds, in files and memory."""
        web = self._address.startswith("https:")
        words, most = [*_SILENT, *args], limits.GIT_POST_FETCH_BYTES_MAX
        return await git.run_async(
            words, self._folder, timeout_ms=timeout_ms, logins=web, file_bytes_max=most
        )

    async def _run(self, *args: str, stdin: bytes = b"") -> git.Answer:
        """Git in our copy."""
        async with self._alone() as held:
            return await git.run_async(
                args, self._folder, stdin=stdin, env=_HERE, timeout_ms=limits.GIT_POST_MS_MAX,
                inherits=(held,),
            )  # fmt: skip

    def _alone(self) -> AbstractAsyncContextManager[int]:
        return bare.alone(self._folder / "held", limits.GIT_POST_ASK_MS_MAX)


def _bytes_of(folder: Path) -> int:
    found: Iterable[Path] = (folder / "objects").glob("*/*")
    return sum(os.lstat(path).st_size for path in found)
