"""A stream joined to two descriptors of this program: what git, a shell or a terminal says.

Rule 1: nothing here waits for one side alone; a program that does not read keeps no other waiting.
Rule 2: what was written, not what arrived, is granted again.
"""

import os
import select
from contextlib import suppress

from muster.channel.flow import TYPES, Flow
from muster.channel.frame import decode, encode
from muster.channel.ipc_client import Client
from muster.cli.call import CHANNEL


def carry(client: Client, reader: int, writer: int) -> str:
    """Carry both ways until the far end closes; how it ended, "" for well.

    The reader's end is said there, and the far end's is said here by closing the writer.
    Raises: Unreachable when the daemon is gone, OSError when nobody reads the writer.
    """
    flow = Flow(lambda type_, payload: client.send(encode(type_, CHANNEL, payload)))
    os.set_blocking(writer, False)
    reading, writing, unsaid = True, True, memoryview(b"")
    while flow.closed is None or unsaid:
        sources = [client.fileno()] if flow.closed is None else []
        sources += [reader] if reading and flow.room else []
        readable, writable, _ = select.select(sources, [writer] if unsaid else [], [])
        if reader in readable:
            chunk = os.read(reader, flow.room)
            reading = bool(chunk)
            flow.put(chunk)
        if client.fileno() in readable:
            frame = decode(client.receive())
            if frame.channel == CHANNEL and frame.type in TYPES:
                flow.feed(frame.type, frame.payload)
        if writable:
            with suppress(BlockingIOError):
                unsaid = unsaid[os.write(writer, unsaid) :]
        if not unsaid:
            flow.give_back()
            unsaid = memoryview(flow.take())
        if flow.ended and writing and not unsaid:
            writing = False
            os.close(writer)
    return flow.closed
