"""Random histories: a branch, results of a run, and what plain git makes of both.

As a program it lands one: `python -m tests.git.histories ROOT MODE` says `begun` and goes on, so
that a test may end it in the middle.
"""

import asyncio
import contextlib
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.git.repositories import sh

from muster.errors import MusterError
from muster.git import landing, scratch
from muster.git.landing import Built, Mode, Plan, Result
from muster.git.person import Identity
from muster.git.place import Place

RUN = "c0de" * 8
ALICE = Identity("Alice <a@x> 1800000000 +0100", "Alice <a@x> 1800000000 +0100")
Files = dict[str, bytes]


class History:
    """`remote.git` with `main` and the results `muster/r1/p<n>`, and a clone that has main."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.chance = root, random.Random(seed)
        self.remote, self.clone = root / "remote.git", root / "clone"
        self.area = root / "landing"
        self._marks, self._lines = 0, list[bytes]()
        sh(root, "init", "-q", "--bare", str(self.remote))
        start = {
            f"{folder}f{n}.txt": b"".join(b"%s%d line %d\n" % (folder.encode(), n, i) for i in range(12))
            for folder in ("", "src/", "doc/") for n in range(3)
        } | {"logo.bin": self.chance.randbytes(200)}  # fmt: skip
        base = self.commit("main", "start", start, {}, [])
        tip, files = base, start
        for number in range(self.chance.randint(0, 5)):
            before, files = files, self.changed(files, "b")
            tip = self.commit("main", f"branch {number}", files, before, [tip])
        self.count = self.chance.randint(1, 3)
        for number in range(self.count):
            self.phase(number, base, start)
        sh(self.remote, "fast-import", "--quiet", stdin=b"".join(self._lines))
        sh(self.remote, "symbolic-ref", "HEAD", "refs/heads/main")
        sh(root, "clone", "-q", str(self.remote), str(self.clone))

    def phase(self, number: int, base: int, files: Files) -> None:
        """A few commits on the base, sometimes two lines that are merged."""
        ref, letter, ends = f"muster/r1/p{number}", chr(ord("p") + number), []
        for line in range(self.chance.choice([1, 1, 2])):
            at, mine = base, files
            for each in range(self.chance.randint(0, 3)):
                before, mine = mine, self.changed(mine, letter, only=line)
                at = self.commit(ref, f"p{number} line {line} commit {each}", mine, before, [at])
            ends.append((at, mine))
        (at, mine), (other, theirs) = ends[0], ends[-1]
        if other != at:
            both = dict(mine)
            for name in files.keys() | theirs.keys():
                if files.get(name) != theirs.get(name):
                    both.pop(name, None)
                    both |= {name: theirs[name]} if name in theirs else {}
            at = self.commit(ref, f"p{number} merged", both, mine, [at, other])
            mine = both
        self.commit(ref, f"p{number} result", mine, mine, [at])

    def changed(self, files: Files, letter: str, only: int = 0) -> Files:
        """One change of a kind by chance; two lines of a phase take different folders."""
        made, chance = dict(files), self.chance
        names = sorted(n for n in made if n.startswith(("src/" if only else "", "f"))) or sorted(
            made
        )
        name, kind = (
            chance.choice(names),
            chance.choice(["edit"] * 4 + ["new", "gone", "move", "bin"]),
        )
        if kind == "edit" and name.endswith(".txt") and made[name]:
            lines = made[name].splitlines(keepends=True)
            lines[chance.randrange(len(lines))] = b"%s %d\n" % (
                letter.encode(),
                chance.random() * 1e6,
            )
            made[name] = b"".join(lines)
        elif kind == "gone" and len(made) > 3:
            del made[name]
        elif kind == "move":
            made[f"{letter}/{name.rpartition('/')[2]}"] = made.pop(name)
        elif kind == "bin":
            made["logo.bin" if chance.random() < 0.3 else f"{letter}.bin"] = chance.randbytes(99)
        else:
            made[f"{letter}{chance.randrange(99)}.txt"] = b"new %d\n" % chance.randrange(9)
        return made

    def commit(
        self, ref: str, subject: str, files: Files, before: Files, parents: list[int]
    ) -> int:
        self._marks += 1
        who = f"{ref.rpartition('/')[2]} <x@studio.muster> {1_700_000_000 + self._marks} +0000"
        lines = [f"commit refs/heads/{ref}\nmark :{self._marks}\nauthor {who}\ncommitter {who}\n"
                 f"data {len(subject)}\n{subject}\n".encode()]  # fmt: skip
        lines += [b"%s :%d\n" % (b"merge" if n else b"from", p) for n, p in enumerate(parents)]
        lines += [b"D %s\n" % name.encode() for name in before.keys() - files.keys()]
        for name, raw in sorted(files.items()):
            if before.get(name) != raw:
                lines += [b"M 100644 inline %s\ndata %d\n" % (name.encode(), len(raw)), raw, b"\n"]
        self._lines += [*lines, b"\n"]
        return self._marks

    def results(self) -> tuple[Result, ...]:
        return results(self.remote)

    def push(self, number: int) -> None:
        """Somebody pushes to main, if nobody else does in the same moment."""
        other = self.root / f"other{number}"
        sh(self.root, "clone", "-q", str(self.remote), str(other))
        (other / f"other{number}.txt").write_text("other\n")
        sh(other, "add", "-A")
        sh(other, "commit", "-q", "-m", f"other {number}")
        with contextlib.suppress(AssertionError):
            sh(other, "push", "-q", "origin", "HEAD:main")

    def expected(self, tip: str) -> str:
        """The files that plain git makes of the branch and the results; "" for a conflict."""
        folder = self.root / "plain"
        if not folder.exists():
            sh(self.root, "clone", "-q", str(self.remote), str(folder))
        sh(folder, "fetch", "-q", "origin", "+refs/heads/*:refs/remotes/origin/*")
        sh(folder, "checkout", "-q", "-f", "--detach", tip)
        for each in self.results():
            try:
                sh(folder, "merge", "-q", "--no-edit", each.commit)
            except AssertionError:
                sh(folder, "merge", "--abort")
                return ""
        return sh(folder, "rev-parse", "HEAD^{tree}")


def results(remote: Path) -> tuple[Result, ...]:
    listed = sh(
        remote, "for-each-ref", "--format=%(refname:lstrip=4) %(objectname)", "refs/heads/muster"
    )
    return tuple(Result(*line.split(), "a@studio") for line in listed.splitlines())


def land(root: Path, mode: Mode, to: Place, meanwhile: Callable[[], None] = lambda: None) -> Built:
    """Land all results of the history in a folder; `meanwhile` runs before each move."""
    remote = root / "remote.git"

    async def checked(_built: Built) -> None:
        await asyncio.to_thread(meanwhile)

    async def work() -> Built:
        async with scratch.opened(root / "landing", [remote]) as folder:
            found = results(remote)
            plan = Plan(RUN, found, found, mode, "Land it", ALICE)
            return await landing.land(folder, to, "main", plan, checked)

    return asyncio.run(work())


def main() -> int:
    root, mode, where = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    to = (
        Place(str(root / "clone"), root / "clone")
        if where == "folder"
        else Place(str(root / "remote.git"))
    )
    os.write(1, b"begun\n")
    try:
        land(root, mode, to)  # type: ignore[arg-type]
    except MusterError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def child(root: Path, mode: str, where: str) -> subprocess.Popen[bytes]:
    """A process that lands, in a group of its own, as far as it gets."""
    words = [sys.executable, "-m", "tests.git.histories", str(root), mode, where]
    code = Path(__file__).parent.parent.parent
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=code, process_group=0
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    return process


if __name__ == "__main__":
    sys.exit(main())
