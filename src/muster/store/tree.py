"""The Merkle trees of the streams, as tiles: what proofs are made from.

Rule 1: a tile holds 256 hashes, eight levels of the tree; it is written once, when complete.
Rule 2: hashes of leaves are in the tiles; only the last, incomplete tile is hashed from headers.

A tile of level 0 holds leaf hashes, one of level 1 the roots of 256 tiles of level 0, and so on
(C2SP tlog-tiles). A proof over a million entries touches six tiles.
"""

from collections import OrderedDict
from typing import Final

from muster.log.tree import leaf_hash, node_hash
from muster.store.schema import TILE_WIDTH, pack, tile_id
from muster.store.sqlite import Database, as_bytes

HASH_BYTES: Final = 32
TILE_LEVELS: Final = 8
# An expanded tile is 16 KB of hashes and some objects; 64 of them are 3 MB.
TILES_CACHED: Final = 64


class Tiles:
    """All tiles of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # A rolled back transaction may have shown it what is not true.
        self.cache: OrderedDict[int, list[list[bytes]]] = OrderedDict()

    def complete(self, stream: int, index: int, leaves: list[bytes]) -> None:
        """Keep the complete tile `index` of level 0, and every tile above that it completes."""
        level, hashes = 0, leaves
        while True:
            assert len(hashes) == TILE_WIDTH, "only complete tiles are kept"
            root = _expand(hashes)[-1][0]
            self._database.execute(
                "insert or replace into tile(id, root, data) values(?, ?, ?)",
                (tile_id(stream, level, index), root, b"".join(hashes)),
            )
            if (index + 1) % TILE_WIDTH:
                return
            index //= TILE_WIDTH
            level += 1
            hashes = self._roots(stream, level, index)

    def tile(self, stream: int, level: int, index: int) -> list[list[bytes]]:
        """Return the levels of a tile; an incomplete one has those nodes that are complete."""
        key = tile_id(stream, level, index)
        tile = self.cache.get(key)
        if tile is not None:
            self.cache.move_to_end(key)
            return tile
        found = self._database.query("select data from tile where id = ?", (key,))
        if not found:
            if level > 0:
                return _expand(self._roots(stream, level, index))
            start = index * TILE_WIDTH
            return _expand(leaf_hashes(self._database, stream, start, start + TILE_WIDTH))
        data = as_bytes(found[0][0])
        tile = _expand([data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)])
        self.cache[key] = tile
        if len(self.cache) > TILES_CACHED:
            self.cache.popitem(last=False)
        return tile

    def _roots(self, stream: int, level: int, index: int) -> list[bytes]:
        first = tile_id(stream, level - 1, index * TILE_WIDTH)
        found = self._database.query(
            "select root from tile where id >= ? and id < ? order by id",
            (first, first + TILE_WIDTH),
        )
        return [as_bytes(row[0]) for row in found]


class StreamTree:
    """One stream's complete subtrees, as the proofs of `log/tree.py` ask for them.

    It is a view of this moment: take a new one after the stream grew.
    """

    def __init__(self, tiles: Tiles, stream: int) -> None:
        self._tiles = tiles
        self._stream = stream
        # A proof asks for many nodes of the same few tiles.
        self._seen: dict[tuple[int, int], list[list[bytes]]] = {}

    def subtree(self, level: int, index: int) -> bytes:
        """Return the hash over leaves [index << level, (index + 1) << level)."""
        tile_level, within = divmod(level, TILE_LEVELS)
        width = TILE_LEVELS - within
        key = (tile_level, index >> width)
        tile = self._seen.get(key)
        if tile is None:
            tile = self._seen[key] = self._tiles.tile(self._stream, *key)
        return tile[within][index & ((1 << width) - 1)]


def leaf_hashes(database: Database, stream: int, start: int, end: int) -> list[bytes]:
    """Return the leaf hashes of the entries [start, end) of a stream, as far as they are here."""
    found = database.query(
        "select header from entry where id >= ? and id < ? order by id",
        (pack(stream, start), pack(stream, end)),
    )
    return [leaf_hash(as_bytes(header)) for (header,) in found]


def _expand(hashes: list[bytes]) -> list[list[bytes]]:
    levels = [hashes]
    while len(hashes) > 1:
        pairs = len(hashes) // 2
        hashes = [node_hash(hashes[2 * at], hashes[2 * at + 1]) for at in range(pairs)]
        levels.append(hashes)
    return levels
