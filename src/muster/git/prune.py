"""What is left of runs that are over long since: their branches, attempts and fences go.

Rule 1: only refs of runs and tasks that are named go, never a branch of people's; and only from
where they were seen: what moves meanwhile keeps everything.
Rule 2: what went is written down before it goes, so that nobody takes it for lost.
Rule 3: objects go later, when git packs the repository; see `repository.maintain`.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from muster.atomic_file import write_file
from muster.errors import Conflict
from muster.git import ref
from muster.git.fence import ATTEMPT_PREFIX, BRANCH_PREFIX, FENCE_PREFIX, HEADS_PREFIX

FILE: Final = "muster-pruned.json"
# As many as ten years of a busy person's results; the oldest are forgotten first.
_KEPT_MAX: Final = 100_000


class Found(NamedTuple):
    """The refs that go, or would."""

    branches: tuple[str, ...]
    attempts: int


async def prune(
    repo: Path,
    runs: Collection[str],
    tasks: Collection[str],
    used: Collection[str],
    *,
    dry_run: bool,
) -> Found:
    """Remove what these runs and tasks left, but for the `used` commits, which live tasks start
    from. Raises: Conflict where one of the refs moved.
    """
    heads, attempts, fences = [
        {prefix + name: id for name, id in (await ref.under(repo, prefix)).items()
         if name.partition("/")[0] in known and id not in used}
        for prefix, known in ((BRANCH_PREFIX, runs), (ATTEMPT_PREFIX, tasks), (FENCE_PREFIX, tasks))
    ]  # fmt: skip
    branches = {name.removeprefix(HEADS_PREFIX): id for name, id in heads.items()}
    going = heads | attempts | fences
    if going and not dry_run:
        noted = _noted(repo)
        _note(repo, noted | branches)
        try:
            await ref.swap(repo, [(name, id, None) for name, id in sorted(going.items())])
        except Conflict:
            # All of them are there still: one that is lost later is brought back.
            _note(repo, noted)
            raise
    return Found(tuple(sorted(branches)), len(attempts))


def was_pruned(repo: Path, branch: str) -> bool:
    """Whether a branch of a run went by `prune`, as far as that is remembered."""
    return branch in _noted(repo)


def _noted(repo: Path) -> dict[str, str]:
    try:
        return msgspec.json.decode((repo / FILE).read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError):
        # What it held is not known any more; a branch that is gone is said to be gone then.
        return {}


def _note(repo: Path, branches: dict[str, str]) -> None:
    noted = list(branches.items())[-_KEPT_MAX:]
    write_file(repo / FILE, msgspec.json.encode(dict(noted)))
