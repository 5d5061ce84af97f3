"""The bodies of what stands in context folders: versions of files, and what disks have of them.

Rule 1: a version is one entry; its id is the entry's id. Who may know it is the stream's scope.
Rule 2: `over` names the versions that the file was made of before it was changed, never what its
        machine happens to hold: what nobody had on the disk is replaced by nobody.
Rule 3: a version has its bytes in one way: as `text`, as `b64`, as those of another version
        (`same`), as a blob, or it says that the file is `gone`.
Rule 4: what a version says is no authority. Whoever writes it to a disk asks whose it is.
"""

import base64
import binascii
import re
from typing import Final, Literal

import msgspec

from muster import limits
from muster.context.path import path_refusal
from muster.errors import Malformed
from muster.log.kind import kind

# A folder is named alike on every machine; where it lies is each machine's own.
_FOLDER: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_ID: Final = re.compile(r"[0-9a-f]{64}")
_STREAM: Final = re.compile(r"[0-9a-f]{64}/[0-9a-f]{32}")


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What both bodies share: strict, immutable, small."""


@kind("context.put")
class ContextPut(Body, frozen=True):
    """One version of a file; without any of rule 3 it is an empty one. `x`: it can be executed."""

    folder: str
    path: str
    over: list[str] = []
    text: str = ""
    b64: str = ""
    same: str = ""
    blob: str = ""
    size: int = 0
    gone: Literal[0, 1] = 0
    x: Literal[0, 1] = 0


@kind("context.at")
class ContextAt(Body, frozen=True):
    """What lies on the writer's *disk*: `root` is the SHA-256 of all of it (state.py)."""

    folder: str
    root: str


@kind("context.passed")
class ContextPassed(Body, frozen=True):
    """What the writer's disk needs no more: whatever is replaced in the first `upto` entries.

    By stream (MACHINE/INCARNATION, of this scope), how many. Of what is replaced there its files
    are made of these yet: `kept`. `ended`: it has the folder no more, and needs nothing.
    """

    folder: str
    upto: dict[str, int] = {}
    kept: list[str] = []
    ended: Literal[0, 1] = 0


class LetGo(Body, frozen=True):
    """A version that loses its bytes: their SHA-256, and whether they could be executed."""

    id: str
    sha256: str
    x: Literal[0, 1] = 0


@kind("context.replaced")
class ContextReplaced(Body, frozen=True):
    """What the writer says again of its own versions before they lose their bodies.

    `over`: versions that they were over. Else whoever gets one of these with its body, and what was
    over it without, has it back. `let_go`: themselves. Else a copy of one, on a disk that was not
    watched, would be known to nobody as what it is, and come as news.
    """

    folder: str
    path: str
    over: list[str] = []
    let_go: list[LetGo] = []


class ContextRest(Body, frozen=True):
    """What is kept of a version whose bytes were let go: all that its rows say. Never an entry."""

    folder: str
    path: str
    over: list[str]
    sha256: str
    size: int
    blob: Literal[0, 1] = 0
    x: Literal[0, 1] = 0


def check_folder(name: str) -> str:
    """The name of a folder, if it can be one. Raises: Malformed."""
    if not _FOLDER.fullmatch(name) or ".." in name:
        raise Malformed(
            f"{name[:80]!r} is no name of a folder: 1 to 64 of a-z, 0-9 and ._-, as in team-notes"
        )
    return name


def check_put(body: ContextPut) -> ContextPut:
    """The version, if it can be kept. Raises: Malformed: says what is wrong with it."""
    check_folder(body.folder)
    if refusal := path_refusal(body.path):
        raise Malformed(f"the path {body.path[:80]!r} {refusal}")
    if len(body.over) > limits.CONTEXT_OVER_MAX:
        raise Malformed(f"a version replaces at most {limits.CONTEXT_OVER_MAX}")
    _check_ids([*body.over, *([body.same] if body.same else [])])
    ways = [body.text, body.b64, body.same, body.blob, body.gone]
    if sum(map(bool, ways)) > 1:
        raise Malformed("a version has its bytes in one way")
    if body.blob and not _ID.fullmatch(body.blob):
        raise Malformed(f"{body.blob[:80]!r} is not the sha256 of a blob")
    if bool(body.blob) != bool(body.size) or not 0 <= body.size <= limits.BLOB_BYTES_MAX:
        raise Malformed(f"a file of {body.size} bytes is no blob")
    if body.gone and body.x:
        raise Malformed("what is gone cannot be executed")
    if len(held(body)) > limits.CONTEXT_INLINE_BYTES_MAX:
        raise Malformed(
            f"more than {limits.CONTEXT_INLINE_BYTES_MAX} bytes do not stand in an entry"
        )
    return body


def held(body: ContextPut) -> bytes:
    """The bytes that stand in the entry itself. Raises: Malformed."""
    if not body.b64:
        return body.text.encode()
    try:
        return base64.b64decode(body.b64, validate=True)
    except binascii.Error as error:
        raise Malformed(f"the bytes of {body.path[:80]!r} are no base64") from error


def holding(data: bytes) -> dict[str, str]:
    """The fields of a version that has these bytes in the entry itself."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = ""
    # Each control character and each quote takes more room in JSON than in the file.
    if text and len(msgspec.json.encode(text)) <= limits.CONTEXT_INLINE_BYTES_MAX * 4 // 3:
        return {"text": text}
    return {"b64": base64.b64encode(data).decode()} if data else {}


def rest_of(put: ContextPut, digest: bytes, size: int) -> ContextRest:
    """What is kept of a version with these bytes when they are let go."""
    blob: Literal[0, 1] = 1 if put.blob else 0
    return ContextRest(put.folder, put.path, put.over, digest.hex(), size, blob, put.x)


def check_passed(body: ContextPassed) -> ContextPassed:
    """What a disk needs no more, if it can be kept. Raises: Malformed."""
    check_folder(body.folder)
    if len(body.upto) > limits.CONTEXT_STREAMS_MAX or len(body.kept) > limits.CONTEXT_KEPT_MAX:
        raise Malformed(f"a disk of {body.folder} names too many")
    for stream, size in body.upto.items():
        if not _STREAM.fullmatch(stream) or not 0 <= size < limits.STREAM_SIZE_MAX:
            raise Malformed(f"{stream[:100]!r} is no stream of which {size} entries are")
    _check_ids(body.kept)
    return body


def check_replaced(body: ContextReplaced) -> ContextReplaced:
    """What is said again, if it can be kept. Raises: Malformed."""
    check_folder(body.folder)
    if refusal := path_refusal(body.path):
        raise Malformed(f"the path {body.path[:80]!r} {refusal}")
    most = max(len(body.over), len(body.let_go))
    if not 1 <= most <= limits.CONTEXT_REPLACED_MAX:
        raise Malformed(f"1 to {limits.CONTEXT_REPLACED_MAX} versions are said again at once")
    _check_ids([*body.over, *(each.id for each in body.let_go)])
    for each in body.let_go:
        if not _ID.fullmatch(each.sha256):
            raise Malformed(f"{each.sha256[:80]!r} is not the sha256 of a version's bytes")
    return body


def _check_ids(ids: list[str]) -> None:
    for each in ids:
        if not _ID.fullmatch(each):
            raise Malformed(f"{each[:80]!r} is not the id of a version")


def check_at(body: ContextAt) -> ContextAt:
    """What a disk has, if it can be kept. Raises: Malformed."""
    check_folder(body.folder)
    if not _ID.fullmatch(body.root):
        raise Malformed("the root of a folder has 64 hex digits")
    return body
