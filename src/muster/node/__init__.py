"""The daemon: the only loop, clock, signals and configuration."""
