"""The sandbox of an agent's program on Linux; docs/spec/sandbox.md says what it sees inside.

What a machine can enclose is found out by `muster.agent.sandbox.probe`.

Only the standard library, because the shim imports this package on the start of every attempt.
"""
