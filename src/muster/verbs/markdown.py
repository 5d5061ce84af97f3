"""Verbs that bring what is known from a folder of Markdown, and put it into one.

Rule 1: the folder is read and written by the command, with the rights of whoever typed it. Nothing
that is no plain file is read, no link is followed, and nothing there is ever deleted.
Rule 2: a plan is what would be done, said without an order. What was refuted is listed, and not
written.
Rule 3: a file that holds a key or a token goes nowhere; what is said of it names file and line.
"""

import contextlib
import os
import stat
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

from msgspec import Struct

from muster.context.secret import find_secret
from muster.errors import Conflict, Malformed, NotFound, Refused, unable
from muster.limits import (
    IMPORT_CALL_BYTES,
    IMPORT_CALL_NOTES,
    IMPORT_DEPTH_MAX,
    IMPORT_FILE_BYTES_MAX,
    IMPORT_FILES_MAX,
)
from muster.memory.kinds import PINNED
from muster.memory.markdown import Head, Layout, Note, folder, note_of
from muster.node.verb import Column, Line
from muster.verbs.declaration import Context, Request, opt, pos, verb

_FOLDER: Final = pos("the folder", kind="place")
_LAYOUT: Final = opt("how it is laid out")
_IN: Final = opt(
    "who may know it, all of it: fleet, private (this machine alone), thread:NAME (default: what "
    "its folders of an export are called, else fleet)"
)
# Scopes that every machine has.
_EVERYWHERE: Final = ("fleet", "private")
# Notes with the paths of their files.
Batch = list[tuple[str, Note]]
_PUT: Final = frozenset({"new", "changed"})
# The hashes of what an export wrote, beside it: what is not among them somebody else wrote.
MARKS: Final = ".muster-export"
_READ_BYTES_MAX: Final = 16 * 1024 * 1024
# What programs keep beside notes.
_SKIPPED: Final = frozenset({".git", ".obsidian", ".basic-memory", "node_modules"})


# --- to a folder -------------------------------------------------------------------------------


class Export(Request, frozen=True):
    folder: Annotated[str, _FOLDER]
    layout: Annotated[Layout, _LAYOUT] = "plain"
    scope: Annotated[str, opt("only this scope; plain has all of them without")] = ""
    replace: Annotated[bool, opt("also files that say something else now")] = False


class Exported(Struct, frozen=True):
    folder: str
    files: int
    written: int
    same: int


@verb("export", auth="local", runs="client", group="Memory", on="none", harmless=True,
      says=(Line("{files} files in {folder}: {written} written, {same} as before"),))  # fmt: skip
def export(context: Context, ask: Export) -> Exported:
    """Put what counts into a folder of Markdown, for people and for other programs.

    muster export notes
    muster export notes --layout claude
    """
    place = Path(ask.folder)
    scope = ask.scope or ("" if ask.layout == "plain" else "fleet")
    notes, after = list[Note](), ""
    while True:
        page = context.ask("memory.list", {"scope": scope, "after": after})
        notes += [_note(each) for each in page["notes"]]
        after = page["next"]
        if not after:
            break
    files = folder(ask.layout, notes)
    there = {path: _there(place, path) for path in files}
    changed = [path for path, text in files.items() if there[path] != text.encode()]
    # What an export wrote and nobody touched since is replaced; what somebody wrote is not.
    ours = _marks(_there(place, MARKS))
    foreign = [
        path for path in changed if (raw := there[path]) is not None and _mark(raw) not in ours
    ]
    if foreign and not ask.replace:
        raise Refused(
            f"{place / foreign[0]} was changed since (and {len(foreign) - 1} more): import the "
            "folder first, give another one, or --replace what is there"
        )
    for path in changed:
        _write(place, path, files[path].encode())
    marks = "".join(f"{_mark(text.encode())}  {path}\n" for path, text in sorted(files.items()))
    _write(place, MARKS, marks.encode())
    return Exported(str(place), len(files), len(changed), len(files) - len(changed))


def _mark(raw: bytes) -> str:
    return sha256(raw).hexdigest()


def _marks(raw: bytes | None) -> set[str]:
    """What the export before this one wrote."""
    return {line[:64] for line in (raw or b"").decode("utf-8", "replace").splitlines()}


def _note(each: dict[str, Any]) -> Note:
    at = datetime.fromtimestamp(each["t_ms"] // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Note(each["key"], each["text"], tuple(each["tags"]), each["version"], each["scope"],
                each["state"], each["source"], each["by"], at)  # fmt: skip


def _there(place: Path, path: str) -> bytes | None:
    """What a file holds; None where there is none. Raises: Refused: no plain file."""
    where = place / path
    _check_parents(place, path)
    try:
        handle = os.open(where, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refused(f"{where} is no plain file ({error.strerror}): move it away") from error
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise Refused(f"{where} is no plain file: move it away")
        return file.read(_READ_BYTES_MAX)


def _check_parents(place: Path, path: str) -> None:
    """Raises: Refused where a folder on the way is a link: it would lead elsewhere."""
    here = place
    for part in path.split("/")[:-1]:
        here /= part
        # It is not there yet: it will be made as a folder.
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISDIR(here.lstat().st_mode):
                raise Refused(f"{here} is no folder of its own: move it away")


def _write(place: Path, path: str, raw: bytes) -> None:
    where = place / path
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        _check_parents(place, path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(where, flags, 0o600), "wb") as file:
            file.write(raw)
    except OSError as error:
        raise unable(f"{where} cannot be written: {error.strerror}", error) from error


# --- from a folder ---------------------------------------------------------------------


class Import(Request, frozen=True):
    folder: Annotated[str, _FOLDER]
    layout: Annotated[Layout, _LAYOUT] = "plain"
    scope: Annotated[str, _IN] = ""
    plan: Annotated[bool, opt("say what would be done, and do nothing")] = False
    mine: Annotated[bool, opt("it counts as your own word: each note is an order of its own")] = (
        False
    )


class Brought(Struct, frozen=True):
    """What became, or would become, of a file."""

    file: str
    key: str
    fate: str
    why: str = ""
    version: str = ""


class Imported(Struct, frozen=True):
    """What became of a folder: so many of each, and each file with which something was done."""

    planned: bool
    files: int
    new: int
    changed: int
    same: int
    refuted: int
    left: int
    notes: list[Brought]


@verb("import", auth="local", runs="client", group="Memory", on="none", rows="notes", names="file",
      columns=(Column("file", form="bold", least=12), Column("fate", form="state"),
               Column("key", rank=1), Column("why", rank=1, least=16)),
      nothing="Nothing in this folder says anything new.")  # fmt: skip
def import_(context: Context, ask: Import) -> Imported:
    """Write down what a folder of Markdown knows, as far as it is new here.

    muster import notes --plan
    muster import notes --layout claude --scope private
    """
    read, bad = _read(Path(ask.folder), ask.layout, scoped=not ask.scope)
    done = [*bad]
    for scope, batch in _batches(read, ask.scope):
        judged = _judged(context, ask, scope, batch)
        done += [
            Brought(file, note.key, each["fate"], each["why"], each["version"])
            for (file, note), each in zip(batch, judged, strict=True)
        ]
        context.note(f"{len(done)} of {len(read) + len(bad)} files")
    count = Counter(each.fate for each in done)
    told = [each for each in done if each.fate != "same"]
    context.say(_counted(count, planned=ask.plan))
    left = len(done) - sum(count[fate] for fate in ("new", "changed", "same", "refuted"))
    return Imported(ask.plan, len(done), count["new"], count["changed"], count["same"],
                    count["refuted"], left, told)  # fmt: skip


def _judged(
    context: Context, ask: Import, scope: str, batch: Batch
) -> list[dict[str, Any]]:  # fmt: skip
    """What became, or would become, of these notes in one scope."""
    args = {"notes": [_item(note) for _, note in batch], "scope": scope}
    judging = "memory.plan" if ask.plan or ask.mine else "memory.import"
    try:
        judged: list[dict[str, Any]] = context.ask(judging, args)
    except (NotFound, Refused) as error:
        if ask.scope or scope in _EVERYWHERE:
            raise
        # A folder that is called as a thread which is not here says nothing about the others.
        unfit = {"fate": "unfit", "why": str(error), "version": ""}
        return [unfit] * len(batch)
    if not ask.mine or ask.plan:
        return judged
    both = zip(batch, judged, strict=True)
    return [_remember(context, note, each, scope) for (_, note), each in both]


def _counted(count: Counter[str], *, planned: bool) -> str:
    some = ", ".join(f"{number} {fate}" for fate, number in count.most_common())
    return f"{'it would be: ' if planned else ''}{some or 'no files'}"


def _remember(context: Context, note: Note, judged: dict[str, Any], scope: str) -> dict[str, Any]:
    """A note as the order of a person, where it says something new."""
    if judged["fate"] not in _PUT:
        return judged
    args: dict[str, Any] = {"key": note.key, "text": [note.text]}
    args |= {"over": judged["over"]} if judged["over"] else {}
    tags = [tag for tag in note.tags if tag != PINNED]
    args |= {"tag": tags} if tags else {}
    args |= {"pin": True} if PINNED in note.tags else {}
    args |= {"scope": scope} if scope != "fleet" else {}
    try:
        return {**judged, "version": context.ask("remember", args)["version"]}
    except (Refused, NotFound, Conflict) as error:
        return {**judged, "fate": "unfit", "why": str(error)}


def _item(note: Note) -> dict[str, Any]:
    item = {"key": note.key, "text": note.text, "tags": list(note.tags), "version": note.version,
            "source": note.source}  # fmt: skip
    return {name: value for name, value in item.items() if value or name in ("key", "text")}


def _batches(read: Batch, scope: str) -> Iterator[tuple[str, Batch]]:
    """Notes of one scope each, a few at a time: that of their folder, where none is given."""
    by_scope: dict[str, Batch] = {}
    for each in read:
        by_scope.setdefault(scope or each[1].scope or "fleet", []).append(each)
    for name, notes in by_scope.items():
        batch, size = Batch(), 0
        for each in notes:
            if batch and (len(batch) == IMPORT_CALL_NOTES or size > IMPORT_CALL_BYTES):
                yield name, batch
                batch, size = [], 0
            batch.append(each)
            size += len(each[1].text.encode())
        yield name, batch


# --- its files -------------------------------------------------------------------------------


class _File(NamedTuple):
    """A file, by its path in the folder, or why it is not read."""

    path: str
    raw: bytes
    why: str = ""


def _read(place: Path, layout: Layout, *, scoped: bool) -> tuple[Batch, list[Brought]]:
    """What the files of a folder say, and those that say nothing that can be kept."""
    notes = Batch()
    bad: list[Brought] = []
    for file in _files(place):
        try:
            if file.why:
                raise Malformed(file.why)
            note = note_of(layout, file.path, file.raw, _head, scoped=scoped)
            if note is None:
                continue
            if found := find_secret(f"{note.key}\n{file.raw.decode()}"):
                line = max(1, found.line - 1)
                raise Refused(f"line {line} holds {found.sort}: take it out first")
            if not note.text.strip():
                raise Malformed("it has no text")
            notes.append((file.path, note))
        except Refused as error:
            bad.append(Brought(file.path, "", "unfit", str(error)))
    return notes, bad


def _files(place: Path) -> Iterator[_File]:
    """Every Markdown file below, in the order of their paths."""
    if not place.is_dir():
        raise NotFound(f"{place} is no folder: name the one that holds the notes")
    left = IMPORT_FILES_MAX
    todo = [("", place, 0)]
    while todo:
        prefix, here, depth = todo.pop()
        try:
            entries = sorted(os.scandir(here), key=lambda each: each.name)
        except OSError as error:
            yield _File(prefix or ".", b"", f"it cannot be read: {error.strerror}")
            continue
        for each in reversed(entries):
            if each.is_dir(follow_symlinks=False) and each.name not in _SKIPPED:
                if depth >= IMPORT_DEPTH_MAX:
                    yield _File(f"{prefix}{each.name}", b"", "it lies too deep")
                    continue
                todo.append((f"{prefix}{each.name}/", Path(each.path), depth + 1))
        for each in entries:
            if each.is_dir(follow_symlinks=False) or not each.name.endswith(".md"):
                continue
            left -= 1
            if left < 0:
                raise Refused(
                    f"{place} has more than {IMPORT_FILES_MAX} files: import its folders one by one"
                )
            yield _file(f"{prefix}{each.name}", each.path)


def _file(path: str, where: str) -> _File:
    """One plain file, whole. What is no such file is not opened for longer than to see that."""
    shown = path.encode("utf-8", "replace").decode()
    try:
        handle = os.open(where, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        why = "it is a link" if os.path.islink(where) else f"it cannot be read: {error.strerror}"
        return _File(shown, b"", why)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return _File(shown, b"", "it is no plain file")
        raw = file.read(IMPORT_FILE_BYTES_MAX + 1)
    if len(raw) > IMPORT_FILE_BYTES_MAX:
        return _File(shown, b"", f"it has more than {IMPORT_FILE_BYTES_MAX} bytes: no note does")
    return _File(shown, raw)


def _head(raw: bytes) -> Head:
    """The front matter of a file, by the reader of specs. Raises: Malformed."""
    from muster.task import yaml  # noqa: PLC0415 - the other commands of this file need none

    node = yaml.read(raw)
    if not isinstance(node, yaml.Mapping):
        raise Malformed("its front matter is no list of names and values")
    found: dict[str, str | list[str]] = {}
    for name, value in node.values.items():
        if isinstance(value, yaml.Scalar):
            found[name] = value.text
        elif isinstance(value, yaml.Sequence):
            found[name] = [each.text for each in value.items if isinstance(each, yaml.Scalar)]
    return found
