"""What a machine did of itself for a person elsewhere: the entries of its journal about it.

Rule: digests and sizes, never what went: not the words of a command, nor the bytes of a file.
"""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from muster.fleet.name import Hex32, Size
from muster.limits import ARGUMENT_WORDS_MAX
from muster.log.kind import kind

EXEC_BEGIN: Final = "exec.begin"
EXEC_END: Final = "exec.end"
FILE_COPIED: Final = "file.copied"

Code = Annotated[int, Meta(ge=0, le=255)]
Way = Literal["read", "written"]
Told = Annotated[str, Meta(max_length=200)]


class Went(Struct, frozen=True, forbid_unknown_fields=True):
    """So many bytes, and their hash."""

    sha256: Hex32
    size: Size


@kind(EXEC_BEGIN)
class ExecBegin(Struct, frozen=True, forbid_unknown_fields=True):
    """A command begins: its program, and the hash of all its words as canonical JSON.

    `terminal`: it is the person's shell, at a terminal.
    """

    program: Told
    sha256: Hex32
    words: Annotated[int, Meta(ge=1, le=ARGUMENT_WORDS_MAX)]
    terminal: bool = False


@kind(EXEC_END)
class ExecEnd(Struct, frozen=True, forbid_unknown_fields=True):
    """It is over, with what went in and came out; `why` where it did not end by itself."""

    code: Code
    errors: Went
    input: Went
    output: Went
    why: Told = ""


@kind(FILE_COPIED)
class FileCopied(Struct, frozen=True, forbid_unknown_fields=True):
    """A file was read or written, with its size and digest; `why` where not all of it was."""

    path: Annotated[str, Meta(max_length=1000)]
    sha256: Hex32
    size: Size
    way: Way
    why: Told = ""
