"""The high-water mark: what this machine had written, kept in another folder than the database.

Rule 1: the mark is a witness against our own database, so it never rests beside it.
Rule 2: it is written at most once a second; a mark a second old is behind, never ahead.
Rule 3: a mark that cannot be read is a doubt, not a reason to stop.

A database that was copied, restored or rolled back with its virtual machine looks perfectly
healthy from inside. What gives it away is something outside that remembers more: this file, the
id of the installation, the generation of the virtual machine. `doubts` names what does not fit;
the node then asks its peers for its own heads before it writes, or opens a new incarnation.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from muster.atomic_file import write_file
from muster.errors import Malformed, unable

# Half a second of entries is little to be in doubt about, and one fsync a second costs nothing.
WRITE_INTERVAL_MS: Final = 1_000

_WORDS: Final = ("incarnation", "machine_id", "boot_id", "generation")


@dataclass(frozen=True, slots=True)
class Mark:
    """What was true when the mark was written; `sizes` are of this machine's own streams."""

    incarnation: str
    sizes: Mapping[str, int]
    machine_id: str
    boot_id: str
    generation: str
    written_ms: int = 0


class MarkFile:
    """The file that holds the mark."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written_ms: int | None = None
        self._written: Mark | None = None

    def read(self) -> Mark | None:
        """Return the mark, None when there never was one.

        Raises: Malformed: the file is not a mark.
            Broken, Exhausted: the disk refused.
        """
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unable(f"The mark {self._path} cannot be read ({error}).", error) from error
        try:
            document = json.loads(raw)
            sizes = {str(stream): int(size) for stream, size in dict(document["sizes"]).items()}
            words = {word: document[word] for word in _WORDS}
            if not all(isinstance(word, str) for word in words.values()):
                raise ValueError("a mark holds words")
            return Mark(sizes=sizes, written_ms=int(document["written_ms"]), **words)
        except (ValueError, TypeError, KeyError) as error:
            raise Malformed(
                f"The mark {self._path} is damaged; this machine must ask its peers for its heads."
            ) from error

    def write(self, mark: Mark, now_ms: int, *, force: bool = False) -> bool:
        """Write the mark unless one was written within the last second; True when it was written.

        Force it when the daemon stops, so that a clean stop leaves an exact mark.
        """
        if mark == self._written:
            return False
        # A clock set backwards must not silence the mark, hence the absolute distance.
        recent = self._written_ms is not None and (
            abs(now_ms - self._written_ms) < WRITE_INTERVAL_MS
        )
        if recent and not force:
            return False
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if self._written_ms is None:
                # Earlier versions made it as the umask had it.
                self._path.parent.chmod(0o700)
        except OSError as error:
            what = f"The folder {self._path.parent} cannot be made ({error})."
            raise unable(what, error) from error
        document = {**asdict(mark), "sizes": dict(mark.sizes), "written_ms": now_ms}
        write_file(self._path, json.dumps(document, sort_keys=True, indent=1).encode())
        self._written_ms = now_ms
        self._written = mark
        return True


def doubts(
    mark: Mark | None, sizes: Mapping[str, int], machine_id: str, generation: str
) -> list[str]:
    """Return every sign that this database is a copy or fell back, as sentences; empty is well.

    `sizes` are of the own streams in the database. A new boot alone is no doubt. No mark with an
    empty database is a first start; no mark beside a full one is a sign.
    """
    if mark is None:
        full = any(sizes.values())
        return ["There is a log but no mark beside it: it may be a copy."] if full else []
    found = []
    if mark.machine_id != machine_id:
        found.append("The installation has another id than when the mark was written.")
    if mark.generation != generation:
        found.append("The virtual machine was cloned or restored since the mark was written.")
    for stream, size in sorted(mark.sizes.items()):
        have = sizes.get(stream, 0)
        if have < size:
            found.append(f"The stream {stream} has {have} entries, but had {size} before.")
    return found
