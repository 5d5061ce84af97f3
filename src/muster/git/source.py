"""What a repository is made from: a person's checkout, a bundle or an address; looked at, not run.

Rule 1: nothing of a source's own configuration is honoured (checkout.py).
Rule 2: what no run could work with (no commit, no branch to start from, half a history, names that
        cannot be checked out) is refused, in one sentence that says what to do.
Rule 3: what is left out is told.
"""

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from muster import limits
from muster.errors import Malformed, NotFound, Refused
from muster.git import checkout, untrusted_files
from muster.git import command as git
from muster.git.checkout import Refs
from muster.git.fence import BRANCH_PREFIX, HEADS_PREFIX, POST_PREFIX
from muster.git.origin import check_address

_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*(?:://|::)|[^/:]{2,}:")
_BUNDLES: Final = (b"# v2 git bundle\n", b"# v3 git bundle\n")
# Ours are `muster/<run>/<phase>`: where there is a branch `muster`, git can make none of them.
_IN_THE_WAY: Final = BRANCH_PREFIX.rstrip("/")
_NAMES_MAX: Final = 8
_USUAL: Final = ("main", "master")


class Asked(NamedTuple):
    """What a source says of itself."""

    address: str
    """What git fetches from: the address, or our own view of a folder."""
    origin: str
    """The address, or the whole path of a folder or a bundle."""
    bundle: bool
    """Whether it is a file."""
    working: bool
    """Whether a person works in it: what is checked out there changes from hour to hour."""
    known: Refs


class Source(NamedTuple):
    """A source that a fleet can work with."""

    asked: Asked
    branch: str
    """The default branch, without `refs/heads/`."""
    branches: frozenset[bytes]
    """The full names of the branches that are taken."""
    left_out: tuple[str, ...]
    """The branches that cannot be taken, or are other runs' results."""


async def look(text: str, scratch: Path) -> Source:
    """Look at a source; `scratch` is an empty folder for our view of it.

    Raises NotFound, Malformed or Refused for what cannot be taken, Unreachable without the source.
    """
    asked = await ask(text, scratch)
    heads = heads_of(asked)
    left_out = {ref for ref in heads if is_ours(ref)}
    taken = {ref: id for ref, id in heads.items() if ref not in left_out}
    branch = _default(asked.known, taken)
    told = [_short(ref) for ref in sorted(left_out)[:_NAMES_MAX]]
    more = [f"{len(left_out) - _NAMES_MAX} more"] if len(left_out) > _NAMES_MAX else []
    return Source(asked, branch, frozenset(taken), (*told, *more))


async def ask(text: str, scratch: Path, timeout_ms: int = limits.GIT_TIMEOUT_MS) -> Asked:
    """Ask a source for its branches and tags, and what is checked out; as `look`."""
    folder, address = await asyncio.to_thread(_place, text)
    if folder is not None:
        known = await asyncio.to_thread(checkout.view, folder, scratch / "view")
        working = (folder / ".git").exists()
        return Asked(str(scratch / "view"), str(folder), False, working, known)
    # What an address or a bundle says of itself.
    asked = ["ls-remote", "--symref", "--end-of-options", address]
    head, tips = "", dict[bytes, str]()
    said = await git.run_async(asked, scratch, timeout_ms=timeout_ms, logins=True)
    for line in said.out.splitlines():
        what, _, ref = line.partition(b"\t")
        if what.startswith(b"ref: ") and ref == b"HEAD":
            head = what.removeprefix(b"ref: ").decode("utf-8", "surrogateescape")
        elif what and not ref.endswith(b"^{}"):
            tips[ref] = what.decode("ascii", "replace")
    known = Refs(head, tips.pop(b"HEAD", ""), tips)
    return Asked(address, address, address.startswith("/"), False, known)


def heads_of(asked: Asked) -> dict[bytes, str]:
    """The branches of a source. Raises: Refused where no run could work with them."""
    known = asked.known
    heads = {ref: id for ref, id in known.tips.items() if ref.startswith(HEADS_PREFIX.encode())}
    if any(len(id) == 64 for id in known.tips.values()):
        raise Refused(
            "The source names its objects by SHA-256, which nothing here takes yet; convert it "
            "with `git fast-export --all` into a repository of git's usual kind."
        )
    if not heads:
        raise Refused("The source has no commit on any branch yet; commit something there first.")
    return heads


def check(text: str) -> None:
    """Raises: Malformed, Refused: this is neither a whole path nor an address that may be kept."""
    if text.startswith("-") or not text.isprintable() or not text:
        raise Malformed(f"{git.clean(text)!r} is neither a folder nor an address.")
    check_address(text)
    if not (_URL.match(text) or Path(text).is_absolute()):
        raise Malformed(
            f"{git.clean(text)!r} is no whole path, and this machine stands in another folder "
            "than you; give the path from / on, or an address like ssh://host/folder."
        )


def _place(text: str) -> tuple[Path | None, str]:
    """The folder where it is one of this machine, else what git is given."""
    check(text)
    text = text.removeprefix("file://") if text.startswith("file:///") else text
    if _URL.match(text):
        return None, text
    path = Path(text).resolve()
    if path.is_dir():
        return path, ""
    if not path.exists():
        raise NotFound(f"There is no folder {path}; give a git checkout or an address.")
    if untrusted_files.read(path, len(_BUNDLES[0])) not in _BUNDLES:
        raise Malformed(f"{path} is a file; give a git checkout, a bundle or an address.")
    return None, str(path)


def is_ours(ref: bytes) -> bool:
    """Whether a branch is a run's or a mailbox, or in the way of theirs."""
    ours = (BRANCH_PREFIX.encode(), POST_PREFIX.encode())
    return ref == _IN_THE_WAY.encode() or ref.startswith(ours)


def _default(known: Refs, taken: Mapping[bytes, str]) -> str:
    """The branch that runs start from: what is checked out, or what can only be meant."""
    head = known.head.encode("utf-8", "surrogateescape")
    if is_ours(head):
        raise Refused(
            f"The source's default branch is {_short(head)!r}, a name that Muster's own branches "
            f"need; rename it there: git branch -m {_short(head)} main."
        )
    here = [ref for ref, id in taken.items() if id == known.tip]
    usual = [ref for ref in (f"{HEADS_PREFIX}{name}".encode() for name in _USUAL) if ref in here]
    if head in taken:
        likely = [head]
    else:
        likely = usual or (here if len(here) == 1 else list(taken) if len(taken) == 1 else [])
    if likely:
        try:
            return likely[0].decode().removeprefix(HEADS_PREFIX)
        except UnicodeDecodeError as error:
            raise Refused(
                f"The source's default branch {_short(likely[0])!r} is not named in UTF-8; "
                "rename it."
            ) from error
    names = ", ".join(_short(ref) for ref in sorted(taken)[:_NAMES_MAX])
    what = f"has no commit on its branch {_short(head)!r}" if head else "has no branch checked out"
    raise Refused(
        f"The source {what}, and it is not clear which of {names or 'none'} is meant; check one "
        "out there: git switch BRANCH."
    )


def _short(ref: bytes) -> str:
    return git.shown(ref.removeprefix(HEADS_PREFIX.encode()))
