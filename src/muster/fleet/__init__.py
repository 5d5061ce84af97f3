"""Who: machines, their keys and certificates, operators, grants, groups.

Nothing here reads a clock, a file, a socket or a source of randomness: times, seeds, tokens
and nonces are arguments. What is decided here depends on bytes and those arguments alone.
"""
