"""What two replicas made of their logs, to be compared."""

import hashlib
from collections.abc import Collection
from operator import itemgetter

from muster.log.stream import StreamName
from muster.store.store import Store


def tables_digest(store: Store, streams: Collection[StreamName] | None = None) -> dict[str, str]:
    """A hash per table, equal where replicas hold the same entries.

    Replicas hold different scopes: name the streams to compare.
    """
    names = {head.id: str(head.name) for head in store._streams.heads.values()}
    only = None if streams is None else {str(stream) for stream in streams}
    digests = {}
    for name, table in sorted(store._folding.tables.items()):
        rows = [(names[stream], *row) for stream, *row in store.tables.query(table.every)]
        if only is not None:
            rows = [row for row in rows if row[0] in only]
        # Rows of one stream differ in their key, so nulls in later columns are never compared.
        rows.sort(key=itemgetter(slice(table.width)))
        digests[name] = hashlib.sha256(repr(rows).encode()).hexdigest()
    return digests
