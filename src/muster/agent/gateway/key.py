"""A key of a model's API, which nothing shows by accident."""

from typing import Final

from muster.errors import Broken

# What is shorter stands in ordinary words, and is put out of none.
_HIDDEN_CHARS_MIN: Final = 8


class Key:
    """The value, and the header that takes it; "" is the one that the API takes by custom."""

    __slots__ = ("_header", "_value")

    def __init__(self, value: str, header: str = "") -> None:
        if not value or not value.isascii() or not value.isprintable() or " " in value:
            raise Broken("a key has letters that no header may have; copy it once more")
        self._value = value
        self._header = header

    def __repr__(self) -> str:
        return "Key(…)"

    def line(self, custom: str) -> tuple[str, str]:
        """The header and its value."""
        name = self._header or custom
        return name, f"Bearer {self._value}" if name == "authorization" else self._value

    def hide(self, text: str) -> str:
        """The text without the key."""
        return text.replace(self._value, "[key]") if len(self._value) >= _HIDDEN_CHARS_MIN else text

    def is_in(self, text: str) -> bool:
        """Whether whoever reads this has the key."""
        long = len(self._value) >= _HIDDEN_CHARS_MIN
        return self._value in text if long else self._value == text
