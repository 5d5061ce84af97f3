"""What the machines of tests share with each other, and so what their packets are called."""

import hashlib
from collections.abc import Mapping
from functools import cache
from typing import Any

MACHINES = ("near", "far", "third", "older")


@cache
def secrets_of(machine: str) -> Mapping[str, bytes]:
    """Of each other machine, what the two of them know."""
    pairs = {each: "".join(sorted((machine, each))) for each in MACHINES if each != machine}
    return {each: hashlib.sha256(pair.encode()).digest() for each, pair in pairs.items()}


def known_to(machine: str) -> dict[str, Any]:
    """What a visitor brings: one of before knows nobody who reads names."""
    return {
        "secrets": lambda: secrets_of(machine),
        "reads_names": lambda _: machine != "older",
    }
