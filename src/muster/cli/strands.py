"""The near end of a stream of pieces, over the link to our own daemon."""

import select
from collections.abc import Iterator

from muster.channel import strand
from muster.channel.flow import CUT, TYPES, Flow
from muster.channel.frame import decode, encode
from muster.channel.ipc_client import Client
from muster.cli.call import CHANNEL
from muster.errors import Refused, Unreachable


class Strands:
    """See the top of this file."""

    def __init__(self, client: Client) -> None:
        self.flow = Flow(lambda kind, payload: client.send(encode(kind, CHANNEL, payload)))
        self._client, self._pieces = client, strand.Splitter()

    def fileno(self) -> int:
        return self._client.fileno()

    @property
    def is_open(self) -> bool:
        return self.flow.closed is None

    @property
    def room(self) -> int:
        """How many bytes the next piece of INPUT may have."""
        return max(0, min(self.flow.room, strand.PIECE_BYTES_MAX) - strand.HEAD_BYTES)

    def put(self, name: int, data: bytes) -> None:
        """Send a piece, for which there is room."""
        self.flow.put(strand.pack(name, data))

    def put_if_room(self, piece: bytes) -> bool:
        """Send a packed piece that is no INPUT; whether there was room."""
        fits = self.flow.room >= len(piece)
        if fits:
            self.flow.put(piece)
        return fits

    def hear(self, within_s: float | None = None) -> None:
        """Wait for a frame, and keep what is in it for `take`."""
        if select.select([self._client], [], [], within_s)[0]:
            frame = decode(self._client.receive())
            if frame.channel == CHANNEL and frame.type in TYPES:
                self.flow.feed(frame.type, frame.payload)

    def take(self) -> Iterator[tuple[int, bytes]]:
        """The pieces that came. Raises: Malformed."""
        yield from self._pieces.feed(self.flow.take())

    def to_the_end(self) -> Iterator[tuple[int, bytes]]:
        """All pieces until the far end is done. Raises: Refused with why it ended before."""
        while self.is_open:
            self.hear()
            yield from self.take()
            self.flow.give_back()
        if self.flow.closed:
            raise (Unreachable if self.flow.closed == CUT else Refused)(self.flow.closed)
