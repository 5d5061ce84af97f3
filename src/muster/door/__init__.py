"""The door: what agents reach over HTTP, in a process of its own that the daemon starts on a knock.

It knows the daemon by its Unix socket alone, and has no more authority than whoever asks through
it. docs/spec/door.md is the normative text.
"""
