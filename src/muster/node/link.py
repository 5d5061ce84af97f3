"""A live link as the core sees it, and what an answer is."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Answer = Mapping[str, Any]


@dataclass(slots=True)
class Link:
    """`peer` is what the channel proved; `local` is a program of the same user."""

    id: int
    peer: str
    local: bool
    channel: str
    up_ms: int
    heard_ms: int
    skew_ms: int = 0
    version: str = ""
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
