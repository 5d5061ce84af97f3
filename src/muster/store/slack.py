"""What of a database file holds no data, and may hold copies of what was erased.

Rule 1: SQLite overwrites what is deleted where it lies, and only there. When a page is divided,
copies of the rows that moved stay in the part of it that is unused from then on (measured: of 1,000
bodies that were erased with `secure_delete`, 48 could still be read in the file).
Rule 2: what is unused follows from the file format (sqlite.org/fileformat2.html), which is promised
for ever. A page that is not as it says is left alone, and nothing but unused bytes is ever given.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

# Reads so many bytes of the file from an offset on.
Read = Callable[[int, int], bytes]

_FILE_HEADER: Final = 100
# The sizes of the headers of the four kinds of pages of a tree, by the byte that they begin with.
_HEADERS: Final = {2: 12, 5: 12, 10: 8, 13: 8}
_TABLE_INTERIOR: Final = 5
_INDEX_INTERIOR: Final = 2
_TABLE_LEAF: Final = 13
# From this page on the number of a page that follows can begin like the header of a tree's page.
PAGES_MAX: Final = min(_HEADERS) << 24


class Span(NamedTuple):
    """Unused bytes of a file: from an offset to before another."""

    start: int
    end: int


class Slack:
    """The unused bytes of one database file, by its pages, which are numbered from 1."""

    def __init__(self, read: Read) -> None:
        self._read = read
        head = read(_FILE_HEADER, 0)
        self._page: int = struct.unpack_from(">H", head, 16)[0]
        # 1 stands for the one size that two bytes do not hold.
        self._page = 65_536 if self._page == 1 else self._page
        self._usable = self._page - head[20]
        self.pages: int = struct.unpack_from(">I", head, 28)[0]
        self._free, self._trunks = self._freed(struct.unpack_from(">I", head, 32)[0])

    def of(self, number: int) -> Iterator[Span]:
        """The unused bytes of a page, and those behind the rows that begin on it and go on."""
        at = (number - 1) * self._page
        if number in self._free:
            yield Span(at, at + self._page)
        elif number in self._trunks:
            yield Span(at + 8 + 4 * self._trunks[number], at + self._usable)
        elif self.pages < PAGES_MAX:
            page = self._read(self._page, at)
            first = _FILE_HEADER if number == 1 else 0
            for start, end in unused(page, self._usable, first):
                yield Span(at + start, at + end)
            for next_page, left in overflowing(page, self._usable, first):
                yield from self._behind(next_page, left)

    def _behind(self, number: int, left: int) -> Iterator[Span]:
        """What follows the last of the `left` bytes of a row, in the last of its further pages."""
        room = self._usable - 4
        for _ in range((left - 1) // room):
            if not 1 < number <= self.pages:
                return
            number = struct.unpack(">I", self._read(4, (number - 1) * self._page))[0]
        if 1 < number <= self.pages:
            at = (number - 1) * self._page
            yield Span(at + 4 + (left - 1) % room + 1, at + self._usable)

    def _freed(self, trunk: int) -> tuple[set[int], dict[int, int]]:
        """The free pages, and the pages that list them with how many each of them lists."""
        free: set[int] = set()
        trunks: dict[int, int] = {}
        while 1 < trunk <= self.pages and trunk not in trunks:
            page = self._read(self._page, (trunk - 1) * self._page)
            following, count = struct.unpack_from(">II", page)
            if count > self._usable // 4 - 2:
                break
            trunks[trunk] = count
            free.update(struct.unpack_from(f">{count}I", page, 8))
            trunk = following
        return free, trunks


def unused(page: bytes, usable: int, first: int) -> list[tuple[int, int]]:
    """The bytes of a tree's page that no row has; of any other page none. `first`: its header."""
    width = _HEADERS.get(page[first])
    if width is None:
        return []
    block, cells, content = struct.unpack_from(">HHH", page, first + 1)
    content = content or 65_536
    gap = first + width + 2 * cells
    if not gap <= content <= usable:
        return []
    found = [(gap, content)]
    before = content
    while block:
        if not before <= block <= usable - 4:
            return []
        following, size = struct.unpack_from(">HH", page, block)
        before = block + size
        if size < 4 or before > usable:
            return []
        found.append((block + 4, before))
        block = following
    return found


def overflowing(page: bytes, usable: int, first: int) -> Iterator[tuple[int, int]]:
    """The rows that go on in further pages: the first of these, and how many bytes are there."""
    kind = page[first]
    width = _HEADERS.get(kind)
    if width is None or kind == _TABLE_INTERIOR:
        return
    most = usable - 35 if kind == _TABLE_LEAF else (usable - 12) * 64 // 255 - 23
    least = (usable - 12) * 32 // 255 - 23
    (cells,) = struct.unpack_from(">H", page, first + 3)
    if first + width + 2 * cells > usable:
        return
    for at in struct.unpack_from(f">{cells}H", page, first + width):
        payload, start = _number(page, at + 4 * (kind == _INDEX_INTERIOR))
        if payload <= most:
            continue
        if kind == _TABLE_LEAF:
            _, start = _number(page, start)
        local = least + (payload - least) % (usable - 4)
        end = start + (local if local <= most else least)
        if end + 4 <= usable:
            yield struct.unpack_from(">I", page, end)[0], payload - (end - start)


def _number(page: bytes, at: int) -> tuple[int, int]:
    """A number of up to nine bytes, and what is behind it. Beyond the page it is 0."""
    value = 0
    for byte in page[at : at + 8]:
        value, at = value << 7 | byte & 0x7F, at + 1
        if byte < 0x80:
            return value, at
    if at >= len(page):
        return 0, at
    return value << 8 | page[at], at + 1
