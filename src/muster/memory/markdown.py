"""What is known as a folder of Markdown, in the layouts of four programs, and back (pure).

Rule 1: a file says of which version it is, so that what comes back is known again: an import is
over what was read, and what nobody changed is written nowhere.
Rule 2: a path is made here and never taken from a key as it is; a path that is read names a key
where the file itself names none.
Rule 3: what a file says in its head are words of somebody else: they choose names, nothing more.

    plain         <scope>/<key>.md, and MEMORY.md as the list of them
    claude        one folder of topics with `name, description, type`, and MEMORY.md as their list
    basic-memory  notes with `title, type, tags, permalink`; `- [note] text #tag` is an observation
    letta         system/*.md is what is always told (`pinned`), every other file is not
"""

import re
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Final, Literal, NamedTuple

from muster.errors import Malformed
from muster.memory.kinds import PINNED

Layout = Literal["plain", "claude", "basic-memory", "letta"]
# What a reader of front matter gives: texts, and lists of texts.
Head = Mapping[str, str | list[str]]
ReadHead = Callable[[bytes], Head]

INDEX: Final = "MEMORY.md"
# What Claude Code reads of MEMORY.md when it starts.
INDEX_LINES_MAX: Final = 200
INDEX_BYTES_MAX: Final = 25_000
_LINE_CHARS: Final = 120
_FENCE: Final = "---\n"
_PART_CHARS: Final = 120
# Names that are something else on some systems.
_DEVICES: Final = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")
_SAFE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9 ._/@+-]*[A-Za-z0-9]")
_CONSTANTS: Final = frozenset({"true", "false", "null", "yes", "no", "on", "off"})
_KEY_BAD: Final = re.compile(r"[^A-Za-z0-9._/:-]+")
_OBSERVATION: Final = re.compile(r"- \[[a-z]+\] (.+)")
_LISTED: Final = re.compile(r"\s*(?:[-*] \[[^\]]*\]\([^)]*\.md\).*|#.*|- … .*|)")
_VERSION: Final = re.compile(r"[0-9a-f]{64}")
_TAG: Final = re.compile(r"[A-Za-z0-9._/:@+#-]{1,64}")
_DEFAULT_TYPE: Final = "project"


class Note(NamedTuple):
    """A version as a file has it. `scope` is a word: fleet, private, thread:NAME."""

    key: str
    text: str
    tags: tuple[str, ...] = ()
    version: str = ""
    scope: str = ""
    state: str = ""
    source: str = ""
    by: str = ""
    at: str = ""


def folder(layout: Layout, notes: Iterable[Note]) -> dict[str, str]:
    """The files of these notes, by their paths; several notes of a key have a file each."""
    files: dict[str, str] = {}
    listed: list[tuple[bool, str, Note]] = []
    taken = {INDEX.casefold()}
    for note in sorted(notes, key=lambda each: (each.scope, each.key, each.version)):
        path = _path(layout, note)
        if path.casefold() in taken:
            path = f"{path.removesuffix('.md')}~{_short(note.version or note.key)}.md"
        taken.add(path.casefold())
        files[path] = _file(layout, note)
        listed.append((PINNED not in note.tags, path, note))
    if layout in ("plain", "claude"):
        files[INDEX] = _index(listed)
    return files


def note_of(
    layout: Layout, path: str, raw: bytes, read_head: ReadHead, *, scoped: bool = True
) -> Note | None:
    """What a file says; None where it only lists others. `scoped`: its folder may name a scope.

    Raises: Malformed: it is no such file.
    """
    try:
        text = raw.decode("utf-8").replace("\r\n", "\n").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise Malformed("it is no text in UTF-8") from error
    head, body = _split(text, read_head)
    if path == INDEX and layout in ("plain", "claude"):
        body = "\n".join(line for line in body.split("\n") if not _LISTED.fullmatch(line))
        if not body.strip():
            return None
    scope, _, rest = path.partition("/")
    names_scope = scope in ("fleet", "private") or scope.startswith("thread-")
    if layout != "plain" or not rest or not names_scope or not scoped:
        scope, rest = "", path
    tags = _tags(head)
    if layout == "letta" and path.startswith("system/"):
        tags, rest = [*tags, PINNED], path.removeprefix("system/")
    if layout == "claude" and _one(head, "type") not in ("", _DEFAULT_TYPE):
        tags.append(f"type:{_one(head, 'type')}")
    if layout == "basic-memory" and (match := _OBSERVATION.fullmatch(body.strip("\n"))):
        body = match[1].removesuffix(_words(tags))
    named = next(filter(None, (_one(head, n) for n in ("key", "permalink", "name", "title"))), "")
    version = _one(head, "version")
    return Note(
        _key(named or rest.removesuffix(".md")),
        body.strip("\n"),
        tuple(dict.fromkeys(tag for tag in tags if _TAG.fullmatch(tag))),
        version if _VERSION.fullmatch(version) else "",
        scope.replace("thread-", "thread:", 1),
        source=_one(head, "source"),
    )


# --- files ---------------------------------------------------------------------------------


def _file(layout: Layout, note: Note) -> str:
    tags: list[str] | str = list(note.tags)
    head: dict[str, str | list[str]]
    body = note.text
    if layout == "claude":
        sort = next((t.removeprefix("type:") for t in note.tags if t.startswith("type:")), "")
        others = [tag for tag in note.tags if tag != f"type:{sort}"]
        head = {
            "name": note.key,
            "description": _first_line(note.text),
            "type": sort or _DEFAULT_TYPE,
        }
        head |= {"tags": others} if others else {}
    elif layout == "basic-memory":
        head = {"title": note.key, "type": "note", "tags": tags, "permalink": note.key}
        if "\n" not in body and body == body.strip():
            body = f"- [note] {body}{_words(note.tags)}"
    elif layout == "letta":
        others = [tag for tag in note.tags if tag != PINNED]
        head = {"description": _first_line(note.text), "key": note.key}
        head |= {"tags": others} if others else {}
    else:
        head = {"key": note.key, "state": note.state, "tags": tags, "source": note.source,
                "by": note.by, "at": note.at}  # fmt: skip
    lines = [f"{name}: {_value(each)}\n" for name, each in head.items() if each]
    version = f"version: {_value(note.version)}\n" if note.version else ""
    return f"{_FENCE}{''.join(lines)}{version}{_FENCE}{body}\n"


def _words(tags: Iterable[str]) -> str:
    """Tags as they stand behind an observation."""
    return "".join(f" #{tag}" for tag in tags)


def _index(listed: list[tuple[bool, str, Note]]) -> str:
    """The list of all files: what is always told first; it says what it left out."""
    lines, room = ["# Memory", ""], INDEX_BYTES_MAX - 200
    for number, (_, path, note) in enumerate(sorted(listed)):
        line = f"- [{note.key}]({path}) — {_first_line(note.text)}"
        room -= len(line.encode()) + 1
        if room < 0 or len(lines) >= INDEX_LINES_MAX - 1:
            lines.append(f"- … and {len(listed) - number} more: `muster recall WORDS` finds them")
            break
        lines.append(line)
    return "\n".join(lines) + "\n"


def _first_line(text: str) -> str:
    seen = "".join(c if c.isprintable() else " " for c in text.strip().partition("\n")[0])
    line = " ".join(seen.split())
    return line if len(line) <= _LINE_CHARS else line[: _LINE_CHARS - 1] + "…"


# --- heads ---------------------------------------------------------------------------------


def _split(text: str, read_head: ReadHead) -> tuple[Head, str]:
    if not text.startswith(_FENCE):
        return {}, text
    head, fence, body = text.removeprefix(_FENCE).partition("\n---\n")
    if not fence:
        # A line across a page, and no head.
        return {}, text
    return read_head(f"{head}\n".encode()), body


def _value(value: str | list[str]) -> str:
    """As YAML reads it back, and nothing of it a sign of YAML's."""
    if isinstance(value, list):
        return "[" + ", ".join(map(_quoted, value)) + "]"
    if _PLAIN.fullmatch(value) and value.casefold() not in _CONSTANTS and "  " not in value:
        return value
    return _quoted(value)


def _quoted(text: str) -> str:
    # What cannot be seen, but for the end of a line, no head holds.
    escaped = (
        "\\n" if c == "\n" else f"\\{c}" if c in '"\\' else c if c.isprintable() else " "
        for c in text
    )
    return f'"{"".join(escaped)}"'


def _one(head: Head, name: str) -> str:
    value = head.get(name, "")
    return value if isinstance(value, str) else ""


def _tags(head: Head) -> list[str]:
    value = head.get("tags", [])
    return re.split(r"[\s,]+", value.strip()) if isinstance(value, str) else list(value)


# --- paths ---------------------------------------------------------------------------------


def _path(layout: Layout, note: Note) -> str:
    if layout == "plain":
        return f"{_scope_part(note.scope)}/{_parts(note.key)}.md"
    if layout == "letta":
        path = _parts(note.key)
        if PINNED in note.tags:
            return f"system/{path}.md"
        # What lies in that folder is always told.
        return ("_" + path if path.casefold().startswith("system/") else path) + ".md"
    if layout == "claude":
        return f"{_part(note.key.replace('/', '_'))}.md"
    return f"{_parts(note.key)}.md"


def _scope_part(scope: str) -> str:
    """`thread-NAME@KEEPER`; every other scope is its own name."""
    name, at, keeper = scope.replace(":", "-", 1).partition("@")
    return f"{_part(name)}{at}{_part(keeper) if at else ''}"


def _parts(key: str) -> str:
    """A path without its end. No folder ends as a file does: one of that name may lie beside it."""
    *folders, last = key.split("/")
    return "/".join([*(_part(each, folder=True) for each in folders), _part(last)])


def _part(part: str, *, folder: bool = False) -> str:
    """A part of a key as the name of a file, or of a folder of files, on any system."""
    name = part.replace(":", "_")
    fits = _SAFE.fullmatch(name) and len(name) <= _PART_CHARS and not name.endswith(".")
    if fits and not _DEVICES.fullmatch(name) and not (folder and _is_file(name)):
        return name
    kept = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:_PART_CHARS].strip("_")
    return f"{kept or 'x'}~{_short(part)}"


def _is_file(name: str) -> bool:
    return name.casefold().endswith(".md")


def _short(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:8]


def _key(text: str) -> str:
    """A key that somebody's title or path makes. Raises: Malformed where it makes none."""
    key = _KEY_BAD.sub("-", text.strip()).strip("-/")[:200]
    if not key:
        raise Malformed("neither its name nor its head makes a key")
    return key
