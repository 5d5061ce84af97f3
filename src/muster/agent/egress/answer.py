"""The head of what a server answers, told on with the one thing that is ours: here it ends.

A connection to the proxy carries one request. Whoever is not told so keeps it for the next one,
and may write that into a connection that is closed a moment later (RFC 9112, 9.3 and 9.6). Servers
that are asked to close need not repeat it, so we say it. What has no head in this form goes on as
it came: whether it is an answer at all is judged by the program that asked.
"""

import re
from typing import Final

# Longer than any server's; what is held until its end is bounded.
HEAD_BYTES_MAX: Final = 64 * 1024

_END: Final = re.compile(rb"\r?\n\r?\n")
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?![0-9])")
# With the lines that go on with it (RFC 9112, 5.2).
_HOP: Final = re.compile(
    rb"^(?:connection|keep-alive|proxy-connection)[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*",
    re.IGNORECASE | re.MULTILINE,
)


class Answer:
    """One answer, as it comes and as it is told on."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._over = False

    def feed(self, data: bytes) -> bytes:
        """What of it goes on now."""
        if self._over:
            return data
        looked = max(0, len(self._held) - 3)
        self._held += data
        sent = b""
        while not self._over:
            end = _END.search(self._held, looked)
            if end is None:
                if len(self._held) > HEAD_BYTES_MAX:
                    return sent + self.end()
                break
            head = bytes(self._held[: end.end()])
            del self._held[: end.end()]
            looked = 0
            sent += self._told(head)
        return sent + (self.end() if self._over else b"")

    def end(self) -> bytes:
        """What is held: nothing comes after it, or it is told on as it is."""
        self._over = True
        held = bytes(self._held)
        self._held.clear()
        return held

    def _told(self, head: bytes) -> bytes:
        status = _STATUS.match(head)
        # "Go on" and its like come before the answer (RFC 9110, 15.2).
        if status is not None and status[1][:1] == b"1" and status[1] != b"101":
            return head
        self._over = True
        if status is None:
            return head
        first, _, rest = head.partition(b"\n")
        return first + b"\nConnection: close\r\n" + _HOP.sub(b"", rest)
