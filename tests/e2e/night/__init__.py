"""One night of a fleet that nobody looks at: see story.py. `make night` runs it."""
