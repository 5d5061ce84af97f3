"""What one call of a model used, in tokens of five kinds.

Each token of a prompt is of one kind: new input, read from a cache, or written into one. Thoughts
are output.
"""

from typing import Any, Final

import msgspec

# More tokens than any call has: a number above it is a mistake, or a lie.
TOKENS_MAX: Final = 2**40


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one call, or the sum of many."""

    input: int = 0
    """Of the prompt, what no cache had and none was given."""
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    """Written for minutes."""
    cache_write_hour: int = 0
    """Written for an hour, which costs more."""

    @property
    def prompt(self) -> int:
        return self.input + self.cache_read + self.cache_write + self.cache_write_hour

    @property
    def tokens(self) -> int:
        return self.prompt + self.output

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input=self.input + other.input,
            output=self.output + other.output,
            cache_read=self.cache_read + other.cache_read,
            cache_write=self.cache_write + other.cache_write,
            cache_write_hour=self.cache_write_hour + other.cache_write_hour,
        )


def count(value: Any) -> int:
    """A number of tokens as somebody else wrote it; 0 where it is none."""
    if isinstance(value, bool) or not isinstance(value, int):
        return 0
    return value if 0 <= value <= TOKENS_MAX else 0


def part(value: Any, name: str) -> Any:
    """What stands under a name of an object; an empty object where there is no such."""
    found = value.get(name) if isinstance(value, dict) else None
    return {} if found is None else found


def named(value: Any, name: str) -> str:
    """A short text under a name, such as an id or a model; "" where there is none."""
    found = part(value, name)
    return found if isinstance(found, str) and len(found) <= 200 and found.isprintable() else ""
