"""A thread that rings when something happens in a folder, where the system tells of that."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

_DEBOUNCE_MS: Final = 50
_STEP_MS: Final = 50
# A watch looks this often whether it still watches the folder that has its name.
_SAME_MS: Final = 2_000


class Watch:
    """See the top of this file; `ended` once it cannot tell. Names that hold `but` are no news."""

    def __init__(
        self,
        folder: Path,
        but: str,
        ring: Callable[[], None],
        fails: Callable[[str, Exception], None],
    ) -> None:
        self._stop = threading.Event()
        self.ended = False
        self._folder, self._but, self._ring, self._fails = folder, but, ring, fails
        threading.Thread(target=self._run, name="muster-drop", daemon=True).start()

    def end(self) -> None:
        self.ended = True
        self._stop.set()

    def _run(self) -> None:
        stood = False
        try:
            from watchfiles import watch  # noqa: PLC0415 - an extra

            watched = _same(self._folder)
            for changes in watch(
                self._folder, watch_filter=lambda _, path: self._but not in path,
                debounce=_DEBOUNCE_MS, step=_STEP_MS, rust_timeout=_SAME_MS, yield_on_timeout=True,
                stop_event=self._stop, recursive=False, raise_interrupt=False,
            ):  # fmt: skip
                # What came before the watch stood is told by nobody.
                if changes or not stood:
                    self._ring()
                stood = True
                if _same(self._folder) != watched:
                    break
        except (ImportError, OSError, RuntimeError) as error:
            # The folder may be gone, or on a system without watches: it is looked at all the same.
            self._fails("unwatched", error)
        self.ended = True
        if stood:
            self._ring()


def _same(folder: Path) -> tuple[int, int]:
    about = folder.stat()
    return (about.st_dev, about.st_ino)
