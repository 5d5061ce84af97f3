"""`fleet.json`: what a machine knows of its fleet before it has heard of anything.

Rule: a file that holds something else is refused by the name of the field, and never half believed;
a field that is not known here is of a newer version, and is kept as it is.
"""

import json
from pathlib import Path
from typing import Any

import msgspec

from muster.errors import Broken


class _Facts(msgspec.Struct):
    """What stands in every home, and what may be left out."""

    fleet: str
    record: str
    ca: str
    certificate: str
    operators: list[str] = []
    machines: list[str] = []
    # By machine an address, since 0.2 one for each channel.
    dial: dict[str, str | dict[str, str]] = {}
    address: str = ""
    listen: str = ""


def read_facts(raw: bytes, path: Path, mend: str) -> dict[str, Any]:
    """What the file says, whole. Raises: Broken with what is wrong and how it is mended."""
    try:
        found = json.loads(raw)
        msgspec.convert(found, _Facts)
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise Broken(f"{path} is damaged ({error}): {mend}") from error
    assert isinstance(found, dict), "a Struct is read from an object alone"
    return found
