"""Verbs about what is true, and what is kept; the rules are those of `node/verb.py`."""

from typing import Final

from muster.verbs.verb import Verb

TRUTH: Final = (
    Verb(
        "schema", "print the JSON Schema of specs, for editors", "local", "client",
        "muster.verbs.plan:schema",
    ),
)  # fmt: skip
