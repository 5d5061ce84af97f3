"""What SQLite can hold of a fold's rows.

Rule: what a fold hands over is checked here, value by value. A value SQLite cannot hold would
otherwise fail the transaction for every entry in it, for ever.
"""

import re
from collections.abc import Mapping
from typing import Final

from muster.log.fold import Affinity, Key, Row, Skip, Table

SQL_INT_MAX: Final = 2**63 - 1
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_RESERVED: Final = frozenset({"stream", "id_", "gone"})
_PYTHON_TYPE: Final[Mapping[Affinity, type]] = {"text": str, "int": int, "blob": bytes}
_NONE: Final = type(None)


class RowShape:
    """The types of a table's rows, and names that may stand in SQL."""

    def __init__(self, table: Table) -> None:
        names = [name for name, _ in (*table.key, *table.columns)]
        if len(set(names)) != len(names) or not table.key:
            raise ValueError(f"the table {table.name} needs a key and distinct columns")
        for name in (table.name, *names):
            if not _NAME.fullmatch(name) or name in _RESERVED or name.endswith("_hist"):
                raise ValueError(f"{name!r} cannot be a name in the table {table.name}")
        for index in table.indexes:
            if not set(index) <= {*names, "stream"}:
                raise ValueError(f"an index of the table {table.name} names an unknown column")
        self._nulls: Row = (None,) * len(table.columns)
        columns = (*table.key, *table.columns)
        self._key_width = len(table.key)
        self._types = tuple(_PYTHON_TYPE[kind] for _, kind in columns)
        # A row without nulls matches at once; each shape with nulls is checked once.
        self._shapes = {self._types}
        self._ints = [at for at, (_, kind) in enumerate(columns) if kind == "int"]
        self._texts = [at for at, (_, kind) in enumerate(columns) if kind == "text"]

    def check(self, key: Key, row: Row | None) -> None:
        """Refuse what SQLite could not store as declared.

        Raises: Skip: the fold handed over a row of the wrong shape.
        """
        if row is None:
            row = self._nulls
        if len(key) != self._key_width:
            raise Skip("bad-row")
        values = key + row
        shape = tuple(map(type, values))
        if shape != self._types and shape not in self._shapes:
            if len(shape) != len(self._types):
                raise Skip("bad-row")
            for at, (got, want) in enumerate(zip(shape, self._types, strict=True)):
                if got is not want and (got is not _NONE or at < self._key_width):
                    raise Skip("bad-row")
            self._shapes.add(shape)
        for at in self._ints:
            number = values[at]
            if number is not None and not -SQL_INT_MAX <= number <= SQL_INT_MAX:  # type: ignore[operator]
                raise Skip("bad-row")
        for at in self._texts:
            text = values[at]
            if text is not None and not text.isascii():  # type: ignore[union-attr]
                try:
                    text.encode()  # type: ignore[union-attr]
                except UnicodeEncodeError as error:
                    raise Skip("bad-row") from error
