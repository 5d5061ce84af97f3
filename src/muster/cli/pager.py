"""What is longer than the screen goes through the person's pager, as git does it.

Rule 1: only a terminal is paged, and only what does not fit on it; who leaves the pager early, or
has none, changes no exit code.
Rule 2: `MUSTER_PAGER`, else `PAGER`, else `less`, which is told (`LESS=FRX`) to keep colours and to
leave what it showed; one that is empty, or `cat`, is none.
"""

import os
import sys

# Only where it is needed is anything imported that costs a quick command its time.
_LESS = "FRX"


def put(text: str, *, paged: bool = True) -> None:
    """Show a text, by a pager where it is longer than the terminal; it ends with a line end."""
    if not (paged and _is_long(text) and _by_pager(text)):
        sys.stdout.write(text)
        sys.stdout.flush()


def _is_long(text: str) -> bool:
    if not sys.stdout.isatty() or os.environ.get("TERM", "") in ("", "dumb", "unknown"):
        return False
    try:
        rows = os.get_terminal_size(sys.stdout.fileno()).lines
    except (OSError, ValueError):
        return False
    return 0 < rows <= text.count("\n")


def _by_pager(text: str) -> bool:
    """Whether a pager had it."""
    import contextlib  # noqa: PLC0415 - few texts are so long
    import shlex  # noqa: PLC0415 - as above
    import signal  # noqa: PLC0415 - as above
    import subprocess  # noqa: PLC0415 - as above

    named = os.environ.get("MUSTER_PAGER", os.environ.get("PAGER", "less"))
    try:
        words = shlex.split(named)
    except ValueError:
        return False
    if words in ([], ["cat"]):
        return False
    sys.stdout.flush()
    try:
        pager = subprocess.Popen(
            words, stdin=subprocess.PIPE, env={"LESS": _LESS, **os.environ},
            encoding=sys.stdout.encoding, errors="replace",
        )  # fmt: skip
    except OSError:
        return False
    # Ctrl-C is the pager's: it stops its search, and the text stays.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        # Whoever looks closed the pager before the end.
        with contextlib.suppress(BrokenPipeError):
            pager.communicate(text)
        pager.wait()
    finally:
        signal.signal(signal.SIGINT, before)
    return True
