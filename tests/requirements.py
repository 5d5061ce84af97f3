"""Every promise Muster makes, as a sentence. A test names the promise it proves with `@proves(id)`.

`test_requirements.py` checks both ways: a promise without a test fails the build, and so
does a test that names an unknown promise.
"""

from typing import Final

PROMISES: Final[dict[str, str]] = {
    # --- log
    # --- store
    # --- fleet
    # --- task
    # --- spec
    # --- message
    # --- channel
    # --- agent
    # --- git
    # --- node
    # --- cli
    # --- sim
    # --- tidy
    "tidy.layers-hold": "Imports point down and the mind does no input or output.",
    "tidy.nothing-of-a-machine-is-committed": (
        "No committed file names a package registry host or a path of one machine."
    ),
    "tidy.errors-are-not-swallowed": "Only the one supervisor catches every exception.",
    "tidy.no-dead-files": "Every module is imported by another or is a program of its own.",
    "tidy.names-are-nouns": "No file is named for a drawer such as utils or helpers.",
    "tidy.functions-stay-short": "No function is longer than 70 lines.",
    "tidy.files-stay-small": "No file has more than 1,000 lines, and few have more than 400.",
    "tidy.promises-are-sentences": "A promise is one sentence of its own.",
    "tidy.promises-are-proved": "Every promise has a test and every test names a known promise.",
}
