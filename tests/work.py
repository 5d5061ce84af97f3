"""How much work something is, as a number that no other load of the machine changes.

Tests assert this and never a time: what a step costs in seconds is measured in bench/.
"""

import sys
import threading
from collections.abc import Callable
from typing import Any


def calls(deed: Callable[[], Any]) -> int:
    """How many functions are called until it is done, those written in C too, and those in threads that it starts."""
    count, before = 0, sys.getprofile()

    def note(_frame: Any, event: str, _arg: Any) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        deed()
    finally:
        sys.setprofile(before)
        threading.setprofile(before)
    return count
