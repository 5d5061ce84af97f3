"""What a value of a secret may be: a text that fits a variable, and that can be hidden.

Rule: no sentence here has anything of the value in it.
"""

import sys
from typing import Final

from muster.agent.mask import PART_LENGTH_MIN
from muster.errors import Malformed

# A variable holds 128 KiB on Linux, names and all; a key is a hundredth of it. Each line of it is
# looked for in every output.
VALUE_BYTES_MAX: Final = 16 * 1024

if sys.platform != "win32":
    import resource


def leave_no_core() -> None:
    """This process has values in its memory, which no file is to have when it dies."""
    if sys.platform != "win32":
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def refusal(value: str) -> str:
    """Why a text is no value of a secret; "" where it is one. Never quotes it."""
    if "\0" in value:
        return "has a NUL, which no variable can hold"
    if len(value.strip()) < PART_LENGTH_MIN:
        return f"is shorter than {PART_LENGTH_MIN} characters, too short to be hidden in an output"
    if len(value.encode("utf-8", "surrogatepass")) > VALUE_BYTES_MAX:
        return f"is longer than {VALUE_BYTES_MAX // 1024} KiB"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "is no text"
    return ""


def plain(raw: bytes) -> str:
    """A value as it was typed or piped: the line end behind a single line is none of it.

    Of several lines the last one's end belongs to it: some keys are of no use without.
    Raises: Malformed.
    """
    if len(raw) > VALUE_BYTES_MAX:
        raise Malformed(f"the value is longer than {VALUE_BYTES_MAX // 1024} KiB")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        # What it quotes is the value.
        raise Malformed("the value is no text in UTF-8; base64 makes one of any bytes") from None
    line = text.removesuffix("\n").removesuffix("\r")
    return text if "\n" in line else line
