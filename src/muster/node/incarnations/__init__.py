"""Lives of a machine: processes, restored backups, clones, and what it doubts of its own past."""
