"""How bytes travel: one file per channel, one Protocol for all. See `base`."""
