"""A mapped folder is taken up: only where it is the one whose files are known.

Rule: the number of an inode is told from another one's only by the device. A device may get another
number when the machine starts; then a file that is as it was says that it is the same folder.
"""

from pathlib import Path

from muster.node.folders.basis import Basis
from muster.node.folders.disk import Disk, unread
from muster.node.folders.mapping import Mapped
from muster.node.folders.onestep import InTheWay
from muster.node.folders.way import NotThisFolder


def opened_disk(basis: Basis, mapped: Mapped) -> Disk:
    """The folder on the disk, and what is known of it. Raises: NotThisFolder, Broken, OSError."""
    basis.lies_at(mapped.name, mapped.path, mapped.inode, mapped.scope)
    anywhere = Disk(Path(mapped.path), mapped.inode)
    now, before = anywhere.device, basis.device(mapped.name)
    if before not in (None, now) and not _is_known(basis, mapped.name, anywhere):
        raise NotThisFolder(
            f"{mapped.path} is on another disk than before, and none of its files is as it was: "
            f"if it is the right one, `muster context map {mapped.name} {mapped.path}` takes it"
        )
    basis.on_device(mapped.name, now)
    return Disk(Path(mapped.path), mapped.inode, now)


def _is_known(basis: Basis, folder: str, disk: Disk) -> bool:
    """Whether a file is there as it was last seen, or none was ever."""
    there = {path: base.signature for path, base in basis.bases(folder).items() if base.signature}
    for path, signature in there.items():
        try:
            if disk.signature(path) == signature:
                return True
        except InTheWay:
            # A link or folder has its place: another file may tell.
            continue
        except OSError as error:
            unread(error)
    return not there
