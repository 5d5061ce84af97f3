"""One file per number that Muster promises, each measured beside its peer in the same run."""
