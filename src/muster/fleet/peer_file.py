"""A file that a machine of one fleet leaves with one of another: the document that says which.

Rule 1: it is signed by the machine that sends it, for one fleet and the machine that is to have it,
which takes nothing of it that is not what stands here: name, size and digest.
Rule 2: a name is a path below a folder that the receiving fleet's grant names. Nothing in it leads
anywhere else, and no part of it is hidden.
"""

import re
from typing import Annotated, Final, Literal

from msgspec import Meta

from muster.errors import Malformed
from muster.fleet.document import Form
from muster.fleet.letter import Said, sender_of
from muster.fleet.name import Hex32, Size
from muster.fleet.record import MachineRecord
from muster.log.keys import Signer

PATH_CHARS_MAX: Final = 400
_CONTROL: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\u200e\u200f\u061c\u2028-\u202e\u2066-\u2069]"
)


class File(Said, frozen=True):
    """`door` is the machine that is to have it, under this path."""

    path: Annotated[str, Meta(min_length=1, max_length=PATH_CHARS_MAX)]
    sha256: Hex32
    size: Size
    v: Literal[1] = 1


_FORM: Final = Form("muster/peer-file/v1", File, "The file's document")


def check_path(path: str) -> None:
    """Raises: Malformed for what is no plain name below a folder."""
    parts = path.split("/")
    # What cannot be encoded is among the control characters, so those come first.
    odd = len(parts) > 8 or "\\" in path or _CONTROL.search(path)
    if odd or any(not part or part[0] == "." or len(part.encode()) > 200 for part in parts):
        raise Malformed(
            "a file for another fleet has a plain name, in folders or not: no `..`, nothing "
            "hidden, no `/` in front, no control character"
        )


def sign_file(signer: Signer, file: File) -> bytes:
    """The document, signed by the `statement` key of who sends it. Raises: Malformed."""
    check_path(file.path)
    raw = _FORM.write(file, signer)
    _FORM.read(raw, file.fleet)
    return raw


def open_file(raw: bytes, record: bytes, fleet: str) -> tuple[File, MachineRecord]:
    """A file for `fleet` and the machine that sends it. Raises: Forged, Malformed."""
    document = _FORM.read(raw, fleet)
    sender = sender_of(document, record, fleet)
    check_path(document.value.path)
    return document.value, sender
