"""Tables of a TOML file that are Muster's, between two marks at its end (pure).

Rule 1: between the marks stands what others put there as well: programs write a new table behind
the last one, and that is ours. Only tables that are ours go.
Rule 2: what comes out is read before it counts: no table has the name of another one, and all that
is not ours says what it said before. Where that cannot be had nothing is changed.
Rule 3: where a number of ours is free again those of the others behind it move up, as the lists
that they number do: else a hook that a person trusts would be trusted no more.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from msgspec import Struct

from muster.agent.plugin.settings import check_free, read_text
from muster.errors import Malformed

_HEADER: Final = re.compile(r"[ \t]*\[[^\n]*\][ \t]*(?:#[^\n]*)?\n?")
_NUMBERED: Final = re.compile(r"(.*:)(\d+)(:\d+)")


class Tables(Struct, frozen=True, tag="tables"):
    """Tables, each by its name as TOML writes it, and its lines; `mark` tells the home.

    Those whose names begin with `numbered` stand for places in a list, `…:NUMBER:NUMBER`: whatever
    stands there is whose the place is.
    """

    path: Path
    mark: str
    tables: tuple[tuple[str, str], ...]
    numbered: str = ""


class _Part(NamedTuple):
    """The lines of a table from its header on; before the first one the header is ""."""

    header: str
    lines: str

    @property
    def name(self) -> str:
        return self.header.strip().partition("#")[0].strip()

    @property
    def said(self) -> list[str]:
        return [line.strip() for line in self.lines.splitlines() if line.strip()]


def put_tables(edit: Tables, now: bytes | None) -> bytes:
    """The file with the tables at its end. Raises: Malformed, Conflict: it is left alone."""
    text = read_text(edit.path, now)
    rest = _taken(edit, text, moves=False)
    there = _parsed(edit.path, rest)
    for name, _ in edit.tables:
        free = _at(there, _keys(name)) is None or _is_numbered(edit, name)
        check_free(edit.path, f"table [{name}]", free)
    names = {f"[{name}]" for name, _ in edit.tables if _is_numbered(edit, name)}
    # Of a place that is ours somebody said something before it was.
    rest = "".join(p.header + p.lines for p in _parts(rest) if p.name not in names)
    gap = "\n" if rest and not rest.endswith("\n") else ""
    body = "\n".join(f"[{name}]\n{lines.rstrip()}\n" for name, lines in edit.tables)
    begin, end = _marks(edit)
    wanted = f"{rest}{gap}{begin}\n{body}{end}\n"
    ours = [_keys(name) for name, _ in edit.tables]
    _check(edit.path, _dropped(there, ours), wanted, ours)
    if now is not None and begin in text and _parsed(edit.path, text) == _parsed(edit.path, wanted):
        # What says the same is left as it was written.
        return now
    return wanted.encode()


def take_tables(edit: Tables, now: bytes) -> bytes | None:
    """The file without the tables; None where nothing else is in it. Raises: Malformed."""
    text = read_text(edit.path, now)
    rest = _taken(edit, text, moves=True)
    return now if rest == text else rest.encode() or None


def _taken(edit: Tables, text: str, *, moves: bool) -> str:
    before = _parsed(edit.path, text)
    begin, end = _marks(edit)
    outside, begins, rest = text.partition(begin + "\n")
    inside, ends, after = rest.partition(end + "\n")
    if begins and not ends:
        raise Malformed(f"in {edit.path} the line {end!r} is missing; put it back first")
    exact = {(f"[{name}]", tuple(_Part("", lines).said)) for name, lines in edit.tables}
    named, said = {name for name, _ in exact}, {lines for _, lines in exact}
    gone = list[str]()

    def kept(parts: Iterator[_Part], *, marked: bool) -> str:
        found = []
        for part in parts:
            its = tuple(part.said)
            ours = (part.name, its) in exact
            if ours or (marked and part.header and (part.name in named or its in said)):
                gone.append(part.name[1:-1])
            else:
                found.append(part.header + part.lines)
        return "".join(found)

    wanted = kept(_parts(outside), marked=False) + kept(_parts(inside), marked=True)
    wanted += kept(_parts(after), marked=False)
    if wanted == text:
        return text
    _check(edit.path, _dropped(before, [_keys(name) for name in gone]), wanted, [])
    return _moved(edit, wanted, gone) if moves else wanted


def _moved(edit: Tables, text: str, gone: list[str]) -> str:
    """With those that stood behind places of ours moved up."""
    free = list[tuple[str, int]]()
    for name in gone:
        found = _NUMBERED.fullmatch(_keys(name)[-1])
        if _is_numbered(edit, name) and found:
            free.append((found[1], int(found[2])))
    parts, seen = list[str](), set[str]()
    for part in _parts(text):
        header, name = part.header, part.name[1:-1]
        found = _NUMBERED.fullmatch(_keys(name)[-1]) if _is_numbered(edit, name) else None
        if found:
            up = sum(prefix == found[1] and number < int(found[2]) for prefix, number in free)
            new = f"{found[1]}{int(found[2]) - up}{found[3]}"
            header = header.replace(found[0], new) if up else header
        if found and header.strip() in seen:
            continue
        seen.add(header.strip())
        parts.append(header + part.lines)
    return "".join(parts)


def _is_numbered(edit: Tables, name: str) -> bool:
    return bool(edit.numbered) and name.startswith(edit.numbered)


def _marks(edit: Tables) -> tuple[str, str]:
    return f"# >>> {edit.mark}: `muster uninstall` takes this out >>>", f"# <<< {edit.mark} <<<"


def _parts(text: str) -> Iterator[_Part]:
    """The lines by their tables. A line within a text of many lines may look like a header: what
    is made of the parts is read again before it counts.
    """
    header, lines = "", list[str]()
    for line in text.splitlines(keepends=True):
        if _HEADER.fullmatch(line):
            yield _Part(header, "".join(lines))
            header, lines = line, []
        else:
            lines.append(line)
    yield _Part(header, "".join(lines))


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise Malformed(f"{path} is no TOML ({error}), and nothing was changed; mend it") from error


def _keys(name: str) -> tuple[str, ...]:
    """The names that lead to a table; ("",) for what is no name of one."""
    try:
        found: Any = tomllib.loads(f"[{name}]")
    except tomllib.TOMLDecodeError:
        return ("",)
    keys = list[str]()
    while isinstance(found, dict) and found:
        key, found = next(iter(found.items()))
        keys.append(key)
    return tuple(keys) or ("",)


def _at(found: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _dropped(found: dict[str, Any], ours: list[tuple[str, ...]]) -> dict[str, Any]:
    """What is said without these tables, and without what is empty."""
    if () in ours:
        return {}
    kept = dict[str, Any]()
    for key, value in found.items():
        inner = [keys[1:] for keys in ours if keys[:1] == (key,)]
        kept[key] = _dropped(value, inner) if isinstance(value, dict) else value
    return {key: value for key, value in kept.items() if value != {}}


def _check(path: Path, before: dict[str, Any], text: str, ours: list[tuple[str, ...]]) -> None:
    """Raises: Malformed where the text does not say the same, besides of what is ours."""
    try:
        after = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        after = None
    if after is None or _dropped(after, ours) != before:
        raise Malformed(
            f"what is Muster's in {path} cannot be told from the rest, and nothing was changed; "
            "mend that file by hand, below `# >>> muster` where it has such a line"
        )
