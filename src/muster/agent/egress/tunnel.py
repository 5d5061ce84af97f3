"""What a program says into a tunnel, held until it is known to be for the host that was named.

Rule 1: TLS names its server, and that is the host of the CONNECT. A network of many sites would
        else bring the connection to any other of them.
Rule 2: at a port of TLS nothing but TLS is spoken.
Rule 3: plain http names its host in the clear, and so goes through no tunnel: asked for by its
        address, it gets the Host that was allowed. Whatever else is spoken names no other host.
"""

import re
from typing import Final

from muster.agent.egress.client_hello import Opening
from muster.agent.egress.request import HTTP_PORT
from muster.agent.egress.rules import host_name
from muster.errors import Denied, Malformed

# Where only TLS is at home: https, and mail, names, files and chat over TLS.
TLS_PORTS: Final = frozenset({443, 465, 563, 636, 853, 989, 990, 993, 995, 6697, 8443})
# The end of TLS's first message as "access denied" (RFC 8446, 6): what a TLS client can show.
ALERT: Final = b"\x15\x03\x03\x00\x02\x02\x31"
_HANDSHAKE: Final = 22
# Chosen arbitrarily; a line of http that is longer is refused by most servers.
_LINE_BYTES_MAX: Final = 4 * 1024
# Some servers take every blank of ASCII for one (RFC 9112, 3).
_NO_TEXT: Final = re.compile(rb"[^\t\v\f\r -~\x80-\xff]")
_REQUEST: Final = re.compile(rb"\sHTTP/[0-9]", re.IGNORECASE)
_WITHOUT: Final = "plain http goes through no tunnel: ask the proxy for its http:// address"


class Tunnel:
    """One direction of a tunnel, from the program to the host."""

    def __init__(self, host: str, port: int) -> None:
        """Raises: Denied."""
        if port == HTTP_PORT:
            raise Denied(_WITHOUT)
        self._host = host
        self._opening = Opening(self._check) if port in TLS_PORTS else None
        self._held = bytearray()
        self._open = False

    @property
    def waits(self) -> bool:
        """Whether a hello of TLS is still to come, or to be ended: then an alert is understood."""
        return self._opening is not None and not self._opening.whole

    def feed(self, data: bytes) -> bytes:
        """What of it goes on to the host by now. Raises: Malformed, Denied."""
        if self._open:
            return data
        if self._opening is None and not self._held and data[0] == _HANDSHAKE:
            self._opening = Opening(self._check)
        if self._opening is not None:
            was_whole = self._opening.whole
            self._opening.feed(data)
            if was_whole:
                self._open = self._opening.over
                return data
            self._held += data
            return self._let() if self._opening.whole else b""
        self._held += data
        # The end of the line, or what is in none.
        decides = _NO_TEXT.search(data) and bytes(self._held).lstrip(b"\r\n")
        return self.end() if decides or len(self._held) > _LINE_BYTES_MAX else b""

    def end(self) -> bytes:
        """What is still held, where no more comes. Raises: Denied."""
        if self._opening is None and not self._open:
            if _REQUEST.search(bytes(self._held).lstrip(b"\r\n").partition(b"\n")[0]):
                raise Denied(_WITHOUT)
            self._open = True
            return self._let()
        return b""

    def _let(self) -> bytes:
        held = bytes(self._held)
        self._held.clear()
        return held

    def _check(self, name: str) -> None:
        try:
            same = host_name(name) == self._host
        except Malformed:
            same = False
        if not same:
            raise Denied(f"a tunnel to {self._host} is for TLS with that host, and no other")
