"""A command on another machine: what it says here, what is typed there, and how it ended.

Rule 1: what it writes goes to the same stream here, as it comes; its exit code is ours.
Rule 2: the first Ctrl-C goes to the command, the second ends it by leaving, and so does one for
which there is no room.
At a terminal Ctrl-C is a letter like any other, and Enter ~ . leaves.
Rule 3: with --json it is one object when it is over: its code, and what it wrote as text.
"""

import contextlib
import json
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

from muster.channel import strand
from muster.channel.flow import TYPES, Flow
from muster.channel.frame import decode, encode
from muster.channel.ipc_client import Client
from muster.cli import show
from muster.cli.call import CHANNEL
from muster.cli.context import CommandContext
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
        self._client, self._kept, self._terminal = client, kept, terminal
        self._typed = b"\r"
        self._flow = Flow(lambda type_, payload: client.send(encode(type_, CHANNEL, payload)))
        self._pieces = strand.Splitter()
        self._code: int | None = None
        self._interrupts = 0

    def go(self) -> int:
        """Until the command is over; its exit code.

        Raises: Unreachable where the link broke before that, whatever the far end refused with.
        """
        flow, client, reading = self._flow, self._client, True
        sys.stdout.flush()
        with _told(signal.SIGWINCH if self._terminal else signal.SIGINT) as wakes:
            while flow.closed is None and self._code is None:
                room = min(flow.room, strand.PIECE_BYTES_MAX) - strand.HEAD_BYTES
                # At a terminal what leaves is read also where nothing more can be sent.
                typed = reading and (room > 0 or self._terminal is not None)
                sources = [client.fileno(), wakes, *([0] if typed else [])]
                readable, _, _ = select.select(sources, [], [])
                if wakes in readable:
                    os.read(wakes, 64)
                    if not self._woken():
                        flow.close()
                        return INTERRUPTED_EXIT
                if 0 in readable:
                    reading = self._read(room)
                    if self._terminal and any(each in self._typed for each in _LEAVES):
                        flow.close()
                        return INTERRUPTED_EXIT
                if client.fileno() in readable:
                    frame = decode(client.receive())
                    if frame.channel == CHANNEL and frame.type in TYPES:
                        flow.feed(frame.type, frame.payload)
                self._hear()
        if self._code is not None:
            # All of it is here: the far machine waits for that.
            flow.close()
            return self._code
        raise Unreachable(
            f"{flow.closed}; how the command ended is not known here, what it left is ended there"
        )

    def _read(self, room: int) -> bool:
        """Whether there may be more of our input."""
        try:
            data = os.read(0, room if room > 0 else 16)
        except OSError:
            # A terminal that is another program's now, or one that is gone.
            data = b""
        self._typed = (self._typed + data)[-max(3, len(data) + 2) :]
        if room > 0:
            self._flow.put(strand.pack(strand.INPUT, data))
        return bool(data)

    def _woken(self) -> bool:
        """Whether the command was told; else there is nothing but to leave."""
        if self._terminal:
            if self._flow.room >= len(size := self._terminal()):
                self._flow.put(size)
            return True
        self._interrupts += 1
        piece = strand.pack(strand.SIGNAL, bytes([signal.SIGINT]))
        if self._interrupts > 1 or self._flow.room < len(piece):
            return False
        self._flow.put(piece)
        return True

    def _hear(self) -> None:
        for name, piece in self._pieces.feed(self._flow.take()):
            if name == strand.END:
                self._code = _code(piece)
            elif name not in (strand.OUTPUT, strand.ERRORS):
                raise Malformed("the far machine says something on a strand that is ours")
            elif self._kept is not None:
                self._kept[name] += piece
                if len(self._kept[name]) > CALL_BYTES_MAX:
                    raise Exhausted("it writes more than fits into one JSON answer; leave --json")
            else:
                left = memoryview(piece)
                while left:
                    left = left[os.write(name, left) :]
        self._flow.give_back()


def _code(piece: bytes) -> int:
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
