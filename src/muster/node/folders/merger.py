"""Two versions of a file made one, where that is clean: the same on every machine that does it."""

import hashlib
from typing import Any, Final

from muster.context.kinds import holding
from muster.limits import CONTEXT_ASK_BYTES, CONTEXT_INLINE_BYTES_MAX
from muster.log.entry import EntryId
from muster.node.folders.outside import Outside
from muster.node.folders.reader import Change
from muster.node.services.context import Place, Wanted

# Of these both sides' new lines are wanted, wherever they stand.
_UNION_ENDS: Final = ".log.md"
_UNION_BEGINS: Final = "logs/"


class Merger:
    """What was not clean is not tried again for the same versions."""

    def __init__(self, place: Place, outside: Outside) -> None:
        self._place, self._outside = place, outside
        self._unmerged: dict[str, frozenset[EntryId]] = {}

    def merged(self, wanted: Wanted) -> Change | None:
        """The version that both become; None where that is not clean, or not yet known."""
        path = wanted.path
        if wanted.merge is None or self._unmerged.get(path) == wanted.merge_over:
            return None
        texts = []
        for where in wanted.merge:
            chunks = None
            if where.size <= CONTEXT_ASK_BYTES:
                chunks = self._outside.bytes_at(self._place, path, where)
            if chunks is None:
                return None
            texts.append(b"".join(chunks))
        union = path.endswith(_UNION_ENDS) or path.startswith(_UNION_BEGINS)
        text = self._outside.merge(*texts, union=union)
        if text is None or len(text) > CONTEXT_INLINE_BYTES_MAX:
            self._unmerged[path] = wanted.merge_over
            return None
        x = wanted.merge_x
        fields: dict[str, Any] = {**holding(text), **({"x": 1} if x else {})}
        return Change(path, None, hashlib.sha256(text).digest(), x, len(text), fields)
