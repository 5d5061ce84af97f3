"""Where bytes rest: the database with its streams and tables, the blobs, the high-water mark."""
