"""Reads along what a model answers, while it goes through: events of a stream, or one whole value.

Rule 1: nothing is held back, and nothing that is read changes what goes through.
Rule 2: what is kept is bounded: of an event or an answer that is longer, usage is not read.
Rule 3: where usage was not said to the end it is estimated, and never as nothing.
"""

from typing import Any, Final

import msgspec

from muster.agent.gateway.api import Answer, Api
from muster.agent.gateway.usage import Usage

# The last event of a long answer has all of it once more.
KEPT_BYTES_MAX: Final = 8 * 1024 * 1024
# Of a prompt, and of an answer in one piece: a token has some four letters.
_BYTES_PER_TOKEN: Final = 4
# Of a stream, whose events say some tokens in a hundred bytes.
_STREAMED_BYTES_PER_TOKEN: Final = 16
# What tells of usage, of a model or of an id names one of these; the rest is never parsed.
_TELLING: Final = (b'"usage', b'"message_start"', b'"response.created"')


class Reading:
    """What is read of one answer."""

    def __init__(self, api: Api, content_type: str) -> None:
        self._api = api
        self._streams = content_type.partition(";")[0].strip().lower() == "text/event-stream"
        self._kept = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._lost = False
        self._skipped = False
        """Whether something of this line was lost: then it is no empty one."""
        self.answer = Answer()
        self.got_bytes = 0
        self.unread = 0
        """Events, or answers, of which nothing could be read."""

    def feed(self, piece: bytes) -> None:
        self.got_bytes += len(piece)
        if not self._streams:
            self._keep(piece)
            return
        first, *more = piece.split(b"\n")
        self._keep(first)
        for line in more:
            self._line()
            self._keep(line)

    def end(self) -> None:
        """All has been fed."""
        if self._streams:
            self._line()
            self._event()
        elif self._lost:
            self.unread += 1
        elif self._kept:
            self._hear(bytes(self._kept))

    def usage(self, prompt_bytes: int) -> tuple[Usage, bool]:
        """What the call used, and whether that is an estimate."""
        said = self.answer.usage
        if self.answer.final and said.tokens:
            return said, False
        per = _STREAMED_BYTES_PER_TOKEN if self._streams else _BYTES_PER_TOKEN
        output = max(said.output, self.got_bytes // per)
        missing = 0 if said.prompt else max(1, prompt_bytes // _BYTES_PER_TOKEN)
        return said + Usage(input=missing, output=output - said.output), True

    def _keep(self, piece: bytes) -> None:
        if len(self._kept) + self._data_bytes + len(piece) > KEPT_BYTES_MAX:
            self._lost = True
            self._kept.clear()
            self._data.clear()
            self._data_bytes = 0
        if not self._lost:
            self._kept += piece
        elif piece.strip(b"\r"):
            self._skipped = True

    def _line(self) -> None:
        line = bytes(self._kept).rstrip(b"\r")
        self._kept.clear()
        if line.startswith(b"data:"):
            data = line[5:].strip()
            self._data.append(data)
            self._data_bytes += len(data)
        elif not (line or self._skipped):
            self._event()
        self._skipped = False

    def _event(self) -> None:
        data = b"\n".join(self._data)
        self._data.clear()
        self._data_bytes = 0
        if self._lost:
            self._lost = False
            self.unread += 1
        elif any(each in data for each in _TELLING):
            self._hear(data)

    def _hear(self, raw: bytes) -> None:
        try:
            said: Any = msgspec.json.decode(raw)
        except (msgspec.MsgspecError, RecursionError, ValueError):
            # The answer itself went on unchanged; how much of it had no meaning is told at its end.
            self.unread += 1
            return
        self._api.hear(self.answer, said)
