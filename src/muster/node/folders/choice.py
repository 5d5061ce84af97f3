"""Whether a folder can be a context folder: two who sync one folder undo each other's work.

Each refusal says what is there, and what to do instead.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from muster.context.ignore import PROGRAMS, locked_part
from muster.errors import Conflict, NotFound, Refused
from muster.git import command as git
from muster.node.folders.mapping import Mapped, overlap_told, overlapping
from muster.node.host.home import Home

# What other programs leave in the folders that they sync, and their names.
_SYNCED: Final[Mapping[str, str]] = {
    ".stfolder": "Syncthing", ".stignore": "Syncthing", ".dropbox": "Dropbox",
    ".dropbox.cache": "Dropbox", ".sync": "Resilio Sync", ".unison": "Unison",
    ".owncloudsync.log": "ownCloud", ".nextcloudsync.log": "Nextcloud",
    ".tmp.drivedownload": "Google Drive", ".tmp.driveupload": "Google Drive",
    ".mutagen-sync": "Mutagen", ".obsidian-livesync": "LiveSync",
}  # fmt: skip
_CLOUDS: Final = (
    "onedrive",
    "dropbox",
    "google drive",
    "mobile documents",
    "nextcloud",
    "syncthing",
)
_SHOWN: Final = 3


async def check_folder_fit(
    path: Path, home: Home, others: Mapping[str, Mapped], name: str, only: tuple[str, ...] = ()
) -> Path:
    """The folder without links in its path; `only` are the names of it that are synced.

    Raises: NotFound, Refused, Conflict, Unreachable.
    """
    top, refusal = await asyncio.to_thread(_look, path, home, dict(others), name)
    refusal = refusal or _obeyed(top, whole=not only)
    if refusal:
        raise Conflict(refusal)
    where, below = await asyncio.to_thread(_work_folder, top)
    if where is not None:
        listed = await git.run_async(["ls-files", "-z", "--", below or "."], where, codes=(0, 128))
        tracked = [each.decode(errors="replace") for each in listed.out.split(b"\0") if each]
        if tracked:
            some = ", ".join(tracked[:_SHOWN]) + (", …" if len(tracked) > _SHOWN else "")
            raise Refused(
                f"git tracks files in {top} ({some}): each commit and checkout would be synced "
                "as edits; share them by a repository of the fleet (`muster repo add`), or take "
                "them out of git (`git rm -r --cached`)"
            )
    return top


def _look(path: Path, home: Home, others: dict[str, Mapped], name: str) -> tuple[Path, str]:
    top = path.resolve()
    if not top.is_dir():
        raise NotFound(f"{path} is no folder: make it first, mkdir -p {path}")
    if top == Path.home().resolve() or len(top.parts) <= 2 or not top.name:
        return top, f"{top} has more than one person wants on every machine: name a folder in it"
    if top.is_mount():
        return top, (
            f"another disk is mounted at {top}: while it is not, its files would look deleted; "
            "name a folder on it"
        )
    own = home.path.resolve()
    if top == own or own in top.parents or top in own.parents:
        return top, f"{top} has this machine's home ({own}): its keys and its log stay here"
    if other := overlapping(top, others, name):
        return top, overlap_told(top, others[other])
    for above in (top, *top.parents):
        for marker, program in _SYNCED.items():
            if (above / marker).exists() and above != Path.home():
                return top, (
                    f"{program} syncs {above} ({marker} is there): two who sync one folder undo "
                    "each other's work; end that there, and remove the marker"
                )
        if any(above.name.lower().startswith(cloud) for cloud in _CLOUDS):
            return top, (
                f"{above} looks as if a cloud syncs it: two who sync one folder undo each other's "
                "work; put the folder elsewhere, or name it otherwise"
            )
    return top, ""


def _obeyed(top: Path, *, whole: bool) -> str:
    """Why nobody syncs what a machine obeys."""
    if locked := locked_part(top.parts):
        return (
            f"{top} is where a machine finds what it obeys, or what lets somebody in ({locked}): "
            "that stays here, and is never synced"
        )
    if whole and top.name.casefold() in PROGRAMS:
        return (
            f"{top} holds a program's settings beside what people write: name a folder in it, such "
            "as skills, or use --preset agents"
        )
    return ""


def _work_folder(top: Path) -> tuple[Path | None, str]:
    """The git work folder that a folder lies in, and the way there from its top."""
    for above in (top, *top.parents):
        if (above / ".git").exists():
            return above, str(top.relative_to(above)) if above != top else ""
    return None, ""
