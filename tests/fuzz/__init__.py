"""Everything that reads bytes of others, fed with what others might send.

    python -m tests.fuzz SECONDS [SEED]
    python -m tests.fuzz siege ROUNDS [SEED]

`mutation` changes valid messages, `doors` lists every reader with valid messages to start from and
what must hold for any bytes. `shapes` writes bodies that our own readers accept, and `siege` lets a
member that knows them all besiege a working machine. `test_fuzz` and `test_siege` are the short
forms for each build.
"""
