"""What Muster puts into files of an agent program, and takes out of them again (pure).

Rule 1: to put in twice is to put in once, and what was put in by an older version goes first.
Rule 2: to take out leaves everything else as it is: byte for byte where nobody changed the file
since, and where somebody did, all that is not ours.
Rule 3: a file that cannot be read as what it should be is refused and not touched.

    whole     a file that is ours alone
    members   of a JSON object: values set by name, and items added to lists
    block     lines between two marks, at the end of a text
"""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Final, NamedTuple

from muster.errors import Conflict, Malformed

_BEGIN: Final = "# >>> muster: `muster uninstall` takes this out >>>"
_END: Final = "# <<< muster <<<"
# A settings file of a person is some kilobytes.
SETTINGS_BYTES_MAX: Final = 4 * 1024 * 1024
Names = tuple[str, ...]


class Whole(NamedTuple):
    """A file that is ours alone; `secret` ones are for their owner's eyes."""

    path: Path
    text: str


class Members(NamedTuple):
    """What is set in a JSON object by the names that lead to it, and what is added to lists there.

    An item is known as ours by `mark`, which stands somewhere in it.
    """

    path: Path
    mark: str
    sets: Mapping[Names, Any] = {}
    adds: Mapping[Names, Any] = {}


class Block(NamedTuple):
    """Lines at the end of a text whose comments begin with #."""

    path: Path
    text: str


Edit = Whole | Members | Block


def put(edit: Edit, now: bytes | None) -> bytes:
    """The file with what is ours in it. Raises: Malformed, Conflict: it is left alone."""
    if isinstance(edit, Whole):
        return edit.text.encode()
    if isinstance(edit, Block):
        before = _text(edit.path, take(edit, now)) if now is not None else ""
        gap = "\n" if before and not before.endswith("\n") else ""
        return f"{before}{gap}{_BEGIN}\n{edit.text.rstrip()}\n{_END}\n".encode()
    found = _object(edit, now)
    wanted = deepcopy(found)
    _drop(edit, wanted)
    for names, value in edit.sets.items():
        place = _place(edit, wanted, names[:-1])
        if (
            names[-1] in place
            and place[names[-1]] != value
            and not _is_ours(edit, place[names[-1]])
        ):
            where = ".".join(names)
            raise Conflict(
                f"{edit.path} has a {where} of its own, which is not Muster's; rename it"
            )
        place[names[-1]] = value
    for names, item in edit.adds.items():
        there = _place(edit, wanted, names[:-1]).setdefault(names[-1], [])
        if not isinstance(there, list):
            raise Malformed(f"{'.'.join(names)} in {edit.path} is no list; mend it first")
        there.append(item)
    # What says the same is left as it was written.
    return now if now is not None and wanted == found else _json(wanted, now)


def take(edit: Edit, now: bytes | None) -> bytes | None:
    """The file without what is ours; None where nothing else is in it. Raises: Malformed."""
    if now is None or isinstance(edit, Whole):
        return None
    if isinstance(edit, Block):
        text = _text(edit.path, now)
        before, begins, rest = text.partition(_BEGIN + "\n")
        _, ends, after = rest.partition(_END + "\n")
        if begins and not ends:
            raise Malformed(f"in {edit.path} the line {_END!r} is missing; put it back first")
        return (before + after).encode() or None
    found = _object(edit, now)
    wanted = deepcopy(found)
    _drop(edit, wanted)
    if wanted == found:
        return now
    return _json(wanted, now) if wanted else None


def _drop(edit: Members, found: dict[str, Any]) -> None:
    """Take out what is ours, and what is empty without it."""
    for names, value in edit.sets.items():
        place = _reached(found, names[:-1])
        if place is not None and names[-1] in place:
            there = place[names[-1]]
            if there == value or _is_ours(edit, there):
                del place[names[-1]]
                _clear(found, names[:-1])
    for names in edit.adds:
        place = _reached(found, names[:-1])
        items = place.get(names[-1]) if place is not None else None
        if place is not None and isinstance(items, list):
            kept = [each for each in items if not _is_ours(edit, each)]
            if len(kept) < len(items):
                place[names[-1]] = kept
                if not kept:
                    del place[names[-1]]
                    _clear(found, names[:-1])


def _is_ours(edit: Members, value: Any) -> bool:
    return edit.mark in json.dumps(value, ensure_ascii=False)


def _clear(found: dict[str, Any], names: Sequence[str]) -> None:
    """Take out objects that are empty now, from the inner ones on."""
    for size in range(len(names), 0, -1):
        place = _reached(found, names[: size - 1])
        if place is not None and place.get(names[size - 1]) == {}:
            del place[names[size - 1]]


def _reached(found: dict[str, Any], names: Sequence[str]) -> dict[str, Any] | None:
    place: Any = found
    for name in names:
        place = place.get(name) if isinstance(place, dict) else None
    return place if isinstance(place, dict) else None


def _place(edit: Members, found: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    place = found
    for name in names:
        inner = place.setdefault(name, {})
        if not isinstance(inner, dict):
            raise Malformed(f"{'.'.join(names)} in {edit.path} is no object; mend it first")
        place = inner
    return place


def _object(edit: Members, now: bytes | None) -> dict[str, Any]:
    text = _text(edit.path, now)
    if not text.strip():
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed(
            f"{edit.path} is no plain JSON ({error}), and nothing was changed; take its comments "
            "out, or mend it"
        ) from error
    if not isinstance(found, dict):
        raise Malformed(f"{edit.path} holds no JSON object; nothing was changed")
    return found


def _text(path: Path, now: bytes | None) -> str:
    if now is None:
        return ""
    if len(now) > SETTINGS_BYTES_MAX:
        raise Malformed(f"{path} is larger than any settings are; nothing was changed")
    try:
        return now.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"{path} is no UTF-8 text; nothing was changed") from error


def _json(value: Any, now: bytes | None) -> bytes:
    """As it was written before: with its indent."""
    second = next((line for line in (now or b"").decode().splitlines()[1:] if line.strip()), "")
    blanks = len(second) - len(second.lstrip())
    indent: int | str = "\t" if second.startswith("\t") else blanks or 2
    return (json.dumps(value, indent=indent, ensure_ascii=False) + "\n").encode()
