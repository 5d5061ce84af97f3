"""Where bytes rest: the database with its streams and tables, the blobs, the high-water mark."""

from muster.store.replica import Skipped
from muster.store.store import MEMORY, Draft, Store

__all__ = ["MEMORY", "Draft", "Skipped", "Store"]
