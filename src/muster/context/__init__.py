"""Folders that are the same on several machines: versions of files, and what counts (pure)."""
