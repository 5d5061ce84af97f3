"""What an audit reads: a database, or an exported folder, as the same few raw facts.

Rule 1: nothing is believed and nothing is repaired here: bytes are handed over as they lie.
Rule 2: a database is opened read-only, in one transaction, so the daemon may go on writing.
Rule 3: rows come in batches: a million entries are read without a million queries.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from muster.errors import Broken, Malformed, NotFound
from muster.log import canon
from muster.log.stream import StreamName
from muster.log.tree import leaf_hash
from muster.store.schema import FORMAT, pack
from muster.store.sqlite import Database, as_bytes, as_int, as_text

BATCH: Final = 5_000
# One line of an export: an entry of 4 KiB, and a body of 64 KiB whose every byte is escaped.
_LINE_BYTES_MAX: Final = 1 << 20

Row = tuple[bytes, bytes, bytes | None]


class Head(NamedTuple):
    """A signed note about a stream. `upto` is the prefix that `proof` leads from to its size."""

    note: bytes
    upto: int
    proof: tuple[bytes, ...] = ()


class Stream(NamedTuple):
    """One stream as it lies there; entries from `size` on are a fork's evidence only."""

    name: StreamName
    size: int
    held: int
    number: int
    claimed: tuple[int, bytes] | None
    seals: tuple[Head, ...]
    cosigns: tuple[Head, ...]
    # What a manifest says is the root of all its entries.
    root: bytes | None = None


class Source(Protocol):
    """What can be audited."""

    def fleet(self) -> str:
        """The fleet that it says it is of, "" when it says nothing."""

    def streams(self) -> list[Stream]:
        """All streams that something is known of."""

    def rows(self, stream: Stream) -> Iterator[Row]:
        """Header, salt and body of every entry held, from 0 on."""

    def forks(self) -> list[bytes]:
        """The evidence for forks."""

    def records(self) -> list[str]:
        """Machine records that are not in an entry."""

    def revocations(self) -> list[str]:
        """Revocations that are not in an entry."""


def open_source(path: str) -> Source:
    """A database file, or the folder of an export. Raises: NotFound, Broken."""
    place = Path(path)
    if place.is_dir():
        if (place / "manifest.json").is_file():
            return FolderSource(place)
        if (place / "log.db").is_file():
            return DatabaseSource(str(place / "log.db"))
        raise NotFound(f"{path} holds neither a manifest.json nor a log.db: it is no log")
    if not place.is_file():
        raise NotFound(f"{path} is not there; name a log.db, or a folder that was exported")
    return DatabaseSource(path)


class DatabaseSource:
    """The store's file, read beside the daemon."""

    def __init__(self, path: str) -> None:
        self.database = Database(path, readonly=True)
        version = as_int(self.database.query("pragma user_version")[0][0])
        if version != FORMAT:
            raise Broken(f"{path} has format {version}, this Muster reads {FORMAT}: is it a log?")
        # Everything below is of one moment.
        self.database.execute("begin")

    def fleet(self) -> str:
        found = self.database.query("select note from seal limit 1")
        return as_bytes(found[0][0]).decode().split("/")[1] if found else ""

    def streams(self) -> list[Stream]:
        found = self.database.query("select id, name, size, held, range from stream order by id")
        return [self._stream(*row) for row in found]

    def _stream(self, number: Any, name: Any, size: Any, held: Any, packed: Any) -> Stream:
        first, last = pack(number, 0), pack(number + 1, 0) - 1
        seals = self.database.query(
            "select id, note, proof from seal where id between ? and ? order by id", (first, last)
        )
        cosigns = self.database.query("select note, size from cosign where stream = ?", (number,))
        return Stream(
            StreamName.parse(as_text(name)),
            as_int(size),
            as_int(held),
            number,
            (size, as_bytes(packed)),
            tuple(
                Head(as_bytes(note), as_int(row) - first, _hashes(as_bytes(proof)))
                for row, note, proof in seals
            ),
            tuple(Head(as_bytes(note), as_int(upto)) for note, upto in cosigns),
        )

    def rows(self, stream: Stream) -> Iterator[Row]:
        at, end = pack(stream.number, 0), pack(stream.number, stream.held)
        while at < end:
            found = self.database.query(
                "select header, salt, body, hash from entry where id >= ? and id < ? order by id",
                (at, min(at + BATCH, end)),
            )
            for header, salt, body, written in found:
                # A seal tells only that one of many entries is another: this tells which.
                if leaf_hash(header) != written:  # type: ignore[arg-type]
                    raise Malformed("its header is not the one that was written here")
                yield header, salt, body  # type: ignore[misc]
            at += BATCH

    def forks(self) -> list[bytes]:
        return [as_bytes(r[0]) for r in self.database.query("select evidence from fork")]

    def records(self) -> list[str]:
        return []

    def revocations(self) -> list[str]:
        return []


class FolderSource:
    """An export; docs/spec/log.md, section 8."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        raw = self._read("manifest.json")
        if not raw.endswith(b"\n"):
            raise Malformed(f"{folder}/manifest.json is cut")
        self._manifest = canon.decode(raw[:-1], "manifest.json", size_max=1 << 26)
        try:
            self._files = {str(each["stream"]): str(each["file"]) for each in self._listed()}
        except (KeyError, TypeError) as error:
            raise Malformed(f"{folder}/manifest.json has not the fields of a manifest") from error
        self._check_files()

    def _check_files(self) -> None:
        """The manifest names each stream and file once, and exactly the files that are there."""
        files = set(self._files.values())
        if not len(self._listed()) == len(self._files) == len(files):
            raise Malformed(f"{self._folder}/manifest.json names a stream or file twice")
        named = {f"{file}{end}" for file in files for end in (".jsonl", ".seals", ".cosigns")}
        for name in sorted({each.name for each in self._folder.iterdir()} - named):
            if name != "manifest.json":
                raise Malformed(f"the file {name!a} of {self._folder} is not in its manifest.json")

    def _listed(self) -> list[Any]:
        return list(self._manifest["streams"])

    def _read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except OSError as error:
            raise NotFound(f"{self._folder}/{name} cannot be read: {error.strerror}") from error

    def fleet(self) -> str:
        return str(self._manifest["fleet"])

    def streams(self) -> list[Stream]:
        found = []
        for each in self._listed():
            size, name = int(each["size"]), StreamName.parse(str(each["stream"]))
            file = self._files[str(each["stream"])]
            seals = tuple(_notes(self._read(f"{file}.seals")))
            cosigns = tuple(_notes(self._read(f"{file}.cosigns")))
            root = bytes.fromhex(str(each["root"]))
            found.append(Stream(name, size, size, 0, None, seals, cosigns, root))
        return found

    def rows(self, stream: Stream) -> Iterator[Row]:
        with open(self._folder / f"{self._files[str(stream.name)]}.jsonl", "rb") as file:
            for seq, line in enumerate(file):
                if not line.endswith(b"\n"):
                    raise Malformed(f"stream {stream.name}: seq {seq}: its line is cut")
                yield _row(canon.decode(line[:-1], f"line {seq}", size_max=_LINE_BYTES_MAX))

    def forks(self) -> list[bytes]:
        return []

    def records(self) -> list[str]:
        return [str(each) for each in self._manifest["records"]]

    def revocations(self) -> list[str]:
        return [str(each) for each in self._manifest["revocations"]]


def _row(line: Mapping[str, Any]) -> Row:
    try:
        body, salt = line["body"], line["salt"]
        header = str(line["header"]).encode()
        if body is None:
            return header, b"" if salt is None else bytes.fromhex(salt), None
        raw = bytes.fromhex(body["hex"]) if isinstance(body, dict) else str(body).encode()
        return header, bytes.fromhex(salt), raw
    except (KeyError, TypeError, ValueError) as error:
        raise Malformed("a line has not the fields of an entry") from error


def _notes(raw: bytes) -> Iterator[Head]:
    lines = raw.split(b"\n")
    if lines.pop() != b"" or len(lines) % 5:
        raise Malformed("a file of seals or cosigns is cut or has extra lines")
    for at in range(0, len(lines), 5):
        note = b"\n".join(lines[at : at + 5]) + b"\n"
        try:
            yield Head(note, int(lines[at + 1]))
        except ValueError as error:
            raise Malformed("a seal or cosign has no size on its second line") from error


def _hashes(packed: bytes) -> tuple[bytes, ...]:
    return tuple(packed[at : at + 32] for at in range(0, len(packed), 32))
