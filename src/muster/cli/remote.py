"""A command on another machine: what it says here, what is typed there, and how it ended.

Rule 1: what it writes goes to the same stream here, as it comes; its exit code is ours.
Rule 2: the first Ctrl-C goes to the command, before what it has not read; the second ends it by
leaving, also while nobody takes what it says.
At a terminal Ctrl-C is a letter like any other, and Enter ~ . leaves.
Rule 3: with --json it is one object when it is over: its code, and what it wrote as text.
"""

import contextlib
import json
import os
import select
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from muster.channel import strand
from muster.channel.ipc_client import Client
from muster.cli import show
from muster.cli.context import CommandContext
from muster.cli.strands import Strands
from muster.errors import Exhausted, Malformed, Refused, Unreachable
from muster.limits import CALL_BYTES_MAX

INTERRUPTED_EXIT: Final = 130
# What leaves a terminal whatever hangs there, as every ssh has it; Enter may be either.
_LEAVES: Final = (b"\r~.", b"\n~.")


def run(context: CommandContext) -> int:
    """Order the command, carry its streams; its exit code, 130 where it was left."""
    args = context.command.args
    to = context.ask("target", {"verb": "exec", "on": args["machine"]})
    ordered = {"argv": args["argv"], "machine": to["machine"]}
    kept = {strand.OUTPUT: bytearray(), strand.ERRORS: bytearray()} if context.json else None
    with context.stream_of("exec", ordered, to["machine"]) as (client, _):
        code = Carried(client, kept).go()
    if kept is not None:
        said = [bytes(each).decode("utf-8", "replace") for each in kept.values()]
        show.put_json({"code": code, "output": said[0], "errors": said[1]})
    return code


def login(context: CommandContext) -> int:
    """Carry this terminal to the person's shell there; its exit code, 130 where it was left."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Refused("tty needs a terminal at both ends; for a script there is `muster exec`")
    from muster.cli import remote_terminal  # noqa: PLC0415 - Windows has none of it

    to = context.ask("target", {"verb": "tty", "on": context.command.args["machine"]})
    columns, rows = os.get_terminal_size(0)
    ordered = {
        "machine": to["machine"], "rows": max(1, rows), "columns": max(1, columns),
        "term": os.environ.get("TERM", "dumb"),
    }  # fmt: skip
    with (
        context.stream_of("tty", ordered, to["machine"]) as (client, _),
        remote_terminal.raw() as own,
    ):
        return Carried(client, None, own).go()


class Carried:
    """The streams of a far command, joined to those of this program."""

    def __init__(
        self,
        client: Client,
        kept: dict[int, bytearray] | None,
        terminal: Callable[[], bytes] | None = None,
    ) -> None:
        """`terminal`: what says its size, where this program's is the far command's, too."""
        self._far, self._kept, self._terminal = Strands(client), kept, terminal
        self._typed = b"\r"
        # How many bytes of INPUT are on their way to what may not read them.
        self._on_way = 0
        # What it said and whoever reads ours has not taken, in its order.
        self._unwritten = deque[tuple[int, memoryview]]()
        self._code: int | None = None
        self._interrupts = 0

    def go(self) -> int:
        """Until the command is over; its exit code.

        Raises: Unreachable where the link broke before that, whatever the far end refused with.
        """
        far, reading = self._far, True
        sys.stdout.flush()
        with _told(signal.SIGWINCH if self._terminal else signal.SIGINT) as wakes:
            while self._unwritten or (far.is_open and self._code is None):
                # At a terminal what leaves is read also where nothing more can be sent.
                typed = reading and far.is_open and (self._room > 0 or self._terminal is not None)
                sources = [wakes, *([0] if typed else [])]
                # Nothing is heard before what was is written, and a stuck reader holds up nobody.
                sources += [] if self._unwritten else [far.fileno()]
                sinks = [self._unwritten[0][0]] if self._unwritten else []
                readable, writable, _ = select.select(sources, sinks, [])
                if wakes in readable and not all(self._woken() for _ in os.read(wakes, 64)):
                    far.flow.close()
                    return INTERRUPTED_EXIT
                if 0 in readable:
                    reading = self._read(self._room)
                    if self._terminal and any(each in self._typed for each in _LEAVES):
                        far.flow.close()
                        return INTERRUPTED_EXIT
                if writable:
                    self._write()
                elif far.fileno() in readable:
                    far.hear()
                    self._hear()
        if self._code is not None:
            # All of it is here: the far machine waits for that.
            far.flow.close()
            return self._code
        raise Unreachable(
            f"{far.flow.closed}; how the command ended is not known here, what it left is ended "
            "there"
        )

    @property
    def _room(self) -> int:
        left = strand.INPUT_BYTES_MAX - strand.HEAD_BYTES - self._on_way
        return max(0, min(self._far.room, left))

    def _read(self, room: int) -> bool:
        """Whether there may be more of our input."""
        try:
            data = os.read(0, room if room > 0 else 16)
        except OSError:
            # A terminal that is another program's now, or one that is gone.
            data = b""
        self._typed = (self._typed + data)[-max(3, len(data) + 2) :]
        if room > 0:
            self._far.put(strand.INPUT, data)
            self._on_way += strand.HEAD_BYTES + len(data)
        return bool(data)

    def _woken(self) -> bool:
        """Whether the command was told; else there is nothing but to leave."""
        if self._terminal:
            self._far.put_if_room(self._terminal())
            return True
        self._interrupts += 1
        piece = strand.pack(strand.SIGNAL, bytes([signal.SIGINT]))
        return self._interrupts == 1 and self._far.put_if_room(piece)

    def _hear(self) -> None:
        for name, piece in self._far.take():
            if name == strand.END:
                self._code = code_of(piece)
            elif name == strand.TAKEN:
                self._on_way -= strand.taken_in(piece, self._on_way)
            elif name not in (strand.OUTPUT, strand.ERRORS):
                raise Malformed("the far machine says something on a strand that is ours")
            elif self._kept is not None:
                self._kept[name] += piece
                if len(self._kept[name]) > CALL_BYTES_MAX:
                    raise Exhausted("it writes more than fits into one JSON answer; leave --json")
            elif piece:
                self._unwritten.append((name, memoryview(piece)))
        if not self._unwritten:
            self._far.flow.give_back()

    def _write(self) -> None:
        """Write as much as a pipe takes without waiting, once it takes something."""
        name, left = self._unwritten.popleft()
        if left := left[os.write(name, left[: select.PIPE_BUF]) :]:
            self._unwritten.appendleft((name, left))
        elif not self._unwritten:
            self._far.flow.give_back()


def code_of(piece: bytes) -> int:
    """The exit code in the last piece. Raises: Malformed."""
    try:
        return int(json.loads(piece)["code"]) & 0xFF
    except (ValueError, KeyError, TypeError) as error:
        raise Malformed("the far machine did not say how the command ended") from error


@contextlib.contextmanager
def _told(signum: int) -> Iterator[int]:
    """A descriptor that can be read when this signal came, which ends nothing by itself."""
    reads, writes = os.pipe()
    os.set_blocking(writes, False)

    def told(*_: Any) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(writes, b"!")

    before = signal.signal(signum, told)
    try:
        yield reads
    finally:
        signal.signal(signum, before)
        os.close(reads)
        os.close(writes)
