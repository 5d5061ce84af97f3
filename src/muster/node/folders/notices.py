"""What a person must see of the context folders, told once."""

from collections.abc import Callable
from typing import Final

from muster.node import event as ev
from muster.node.host import clock
from muster.node.incidents import Noticed

# So long one trouble of a folder is not told anew.
NOTICED_MS: Final = 600_000


class Notices:
    """Tells what is wrong with folders, and when it is over.

    Of what is told `rarely`, what comes and goes, or has other words each time, is one trouble.
    """

    def __init__(self, send: Callable[[ev.Event], None]) -> None:
        self._send = send
        self._titles: dict[str, str] = {}
        self._told_ms: dict[str, int] = {}

    def tell(self, folder: str, what: str, title: str, *, rarely: bool = False) -> None:
        """This is so from now on; without a title it is over."""
        key = f"context-{what}-{folder}"[:64]
        now_ms = clock.boot_ms()
        if title == self._titles.get(key, ""):
            return
        told_ms = self._told_ms.get(key, now_ms - NOTICED_MS)
        if title and rarely and now_ms - told_ms < NOTICED_MS:
            return
        if title:
            self._told_ms[key] = now_ms
        self._titles[key] = title
        self._send(Noticed(key, title))
