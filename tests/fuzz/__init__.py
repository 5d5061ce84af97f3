"""Everything that reads bytes of others, fed with what others might send.

    python -m tests.fuzz SECONDS [SEED]

`mutation` changes valid messages, `doors` lists every reader with valid messages to start from and
what must hold for any bytes. `test_fuzz` is the short form for each build.
"""
