"""A command at a terminal of a given size, as a person sees it."""

import codecs
import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.cli.world import environment

LIMIT_S = 60.0


class Terminal:
    """A program that runs at a terminal of `columns` by `rows`; `text` is what it showed so far."""

    def __init__(
        self, words: Sequence[str], env: Mapping[str, str], *, columns: int = 80, rows: int = 24,
        cwd: str | None = None,
    ) -> None:  # fmt: skip
        self.text = ""
        # A letter may come in two parts.
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._child = subprocess.Popen(
            words, stdin=slave, stdout=slave, stderr=slave, cwd=cwd, start_new_session=True,
            env={"TERM": "xterm-256color", **env},
            # Ctrl-C reaches whoever this terminal is the terminal of.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no lock in it
        )  # fmt: skip
        os.close(slave)

    def type(self, text: str) -> None:
        """What the person types; "\\x03" is Ctrl-C."""
        os.write(self._master, text.encode())

    def see(self, what: str, within_s: float = LIMIT_S) -> str:
        """Wait until this is shown; everything that was shown since the last time."""
        end = time.perf_counter() + within_s
        while what not in self.text:
            assert self._read(end - time.perf_counter()), f"never saw {what!r} in {self.text!r}"
        before, _, self.text = self.text.partition(what)
        return before + what

    def end(self, within_s: float = LIMIT_S) -> int:
        """Wait until the program ends; its exit code."""
        end = time.perf_counter() + within_s
        while self._read(end - time.perf_counter()):
            pass
        return self._child.wait(max(0.1, end - time.perf_counter()))

    def _read(self, within_s: float) -> bool:
        readable, _, _ = select.select([self._master], [], [], max(0.0, within_s))
        try:
            part = os.read(self._master, 65_536) if readable else b""
        except OSError:
            # How Linux says that nobody has the other end any more.
            part = b""
        self.text += self._decoder.decode(part)
        return bool(part)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._child.kill()
        self._child.wait(LIMIT_S)
        os.close(self._master)


def at_terminal(home: Path, *words: str, answer: str) -> tuple[int, str]:
    """The exit code of a command that may ask once, and all that it showed."""
    command = [sys.executable, "-m", "muster", *words]
    with Terminal(command, environment(home)) as terminal:
        terminal.type(f"{answer}\n")
        return terminal.end(), terminal.text
