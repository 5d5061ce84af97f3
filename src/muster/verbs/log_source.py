"""What an audit reads: a database, or an exported folder, as the same few raw facts.

Rule 1: nothing is believed and nothing is repaired here: bytes are handed over as they lie.
Rule 2: a database is opened read-only, in one transaction, so the daemon may go on writing.
Rule 3: rows come in batches: a million entries are read without a million queries.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

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


class Source(NamedTuple):
    """What can be audited: what it says beside its entries, and how these are read."""

    # The fleet that it says it is of, "" when it says nothing.
    fleet: Callable[[], str]
    # All streams that something is known of.
    streams: list[Stream]
    # Header, salt and body of every entry held of a stream, from 0 on.
    rows: Callable[[Stream], Iterator[Row]]
    # The evidence for forks.
    forks: list[bytes]
    # Signed documents that are not in an entry.
    records: Sequence[str] = ()
    revocations: Sequence[str] = ()
    is_export: bool = False


def open_source(path: str) -> Source:
    """A database file, or the folder of an export. Raises: NotFound, Broken."""
    place = Path(path)
    if place.is_dir():
        if (place / "manifest.json").is_file():
            return folder_source(place)
        if (place / "log.db").is_file():
            return database_source(str(place / "log.db"))
        raise NotFound(f"{path} holds neither a manifest.json nor a log.db: it is no log")
    if not place.is_file():
        raise NotFound(f"{path} is not there; name a log.db, or a folder that was exported")
    return database_source(path)


def database_source(path: str) -> Source:
    """The store's file, read beside the daemon. Raises: Broken."""
    database = Database(path, readonly=True)
    version = as_int(database.query("pragma user_version")[0][0])
    if version != FORMAT:
        raise Broken(f"{path} has format {version}, this Muster reads {FORMAT}: is it a log?")
    # Everything below is of one moment.
    database.execute("begin")

    def fleet() -> str:
        found = database.query("select note from seal limit 1")
        return as_bytes(found[0][0]).decode().split("/")[1] if found else ""

    def rows(stream: Stream) -> Iterator[Row]:
        at, end = pack(stream.number, 0), pack(stream.number, stream.held)
        while at < end:
            found = database.query(
                "select header, salt, body, hash from entry where id >= ? and id < ? order by id",
                (at, min(at + BATCH, end)),
            )
            for header, salt, body, written in found:
                # A seal tells only that one of many entries is another: this tells which.
                if leaf_hash(header) != written:  # type: ignore[arg-type]
                    raise Malformed("its header is not the one that was written here")
                yield header, salt, body  # type: ignore[misc]
            at += BATCH

    found = database.query("select id, name, size, held, range from stream order by id")
    evidence = database.query("select evidence from fork")
    streams = [_stream(database, row) for row in found]
    return Source(fleet, streams, rows, [as_bytes(row[0]) for row in evidence])


def _stream(database: Database, row: Any) -> Stream:
    number, name, size, held, packed = row
    first, last = pack(number, 0), pack(number + 1, 0) - 1
    seals = database.query(
        "select id, note, proof from seal where id between ? and ? order by id", (first, last)
    )
    cosigns = database.query("select note, size from cosign where stream = ?", (number,))
    heads = []
    for at, note, proof in seals:
        hashes = as_bytes(proof)
        led = tuple(hashes[i : i + 32] for i in range(0, len(hashes), 32))
        heads.append(Head(as_bytes(note), as_int(at) - first, led))
    return Stream(
        StreamName.parse(as_text(name)),
        as_int(size),
        as_int(held),
        number,
        (size, as_bytes(packed)),
        tuple(heads),
        tuple(Head(as_bytes(note), as_int(upto)) for note, upto in cosigns),
    )


def folder_source(folder: Path) -> Source:
    """An export; docs/spec/log.md, section 8. Raises: Malformed, NotFound."""

    def read(name: str) -> bytes:
        try:
            return (folder / name).read_bytes()
        except OSError as error:
            raise NotFound(f"{folder}/{name} cannot be read: {error.strerror}") from error

    raw = read("manifest.json")
    if not raw.endswith(b"\n"):
        raise Malformed(f"{folder}/manifest.json is cut")
    manifest: Any = canon.decode(raw[:-1], "manifest.json", size_max=1 << 26)
    try:
        listed = list(manifest["streams"])
        files = {str(each["stream"]): str(each["file"]) for each in listed}
    except (KeyError, TypeError) as error:
        raise Malformed(f"{folder}/manifest.json has not the fields of a manifest") from error
    # The manifest names each stream and file once, and exactly the files that are there.
    if not len(listed) == len(files) == len(set(files.values())):
        raise Malformed(f"{folder}/manifest.json names a stream or file twice")
    ends = (".jsonl", ".seals", ".cosigns")
    named = {"manifest.json", *(f"{file}{end}" for file in files.values() for end in ends)}
    for name in sorted({each.name for each in folder.iterdir()} - named):
        raise Malformed(f"the file {name!a} of {folder} is not in its manifest.json")

    def rows(stream: Stream) -> Iterator[Row]:
        with open(folder / f"{files[str(stream.name)]}.jsonl", "rb") as file:
            for seq, line in enumerate(file):
                if not line.endswith(b"\n"):
                    raise Malformed(f"stream {stream.name}: seq {seq}: its line is cut")
                yield _row(canon.decode(line[:-1], f"line {seq}", size_max=_LINE_BYTES_MAX))

    streams = []
    for each in listed:
        file, size = files[str(each["stream"])], int(each["size"])
        seals, cosigns = (tuple(_notes(read(f"{file}{end}"))) for end in ends[1:])
        stream, root = StreamName.parse(str(each["stream"])), bytes.fromhex(str(each["root"]))
        streams.append(Stream(stream, size, size, 0, None, seals, cosigns, root))
    return Source(
        lambda: str(manifest["fleet"]),
        streams,
        rows,
        [],
        [str(each) for each in manifest["records"]],
        [str(each) for each in manifest["revocations"]],
        is_export=True,
    )


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
