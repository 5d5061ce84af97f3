"""The way to a model's server: by name and TLS, through the machine's own proxy where it has one.

Rule 1: a certificate is checked against what this machine trusts (SSL_CERT_FILE counts), and the
name in it against the address; nothing turns that off.
Rule 2: what a failure says names the server, never what was sent to it.
"""

import asyncio
import base64
import re
import socket
import ssl
from collections.abc import Mapping
from typing import Final

from muster.agent.gateway.address import Address, address_of, proxy_of
from muster.agent.gateway.http11 import Outbound
from muster.errors import Unreachable

_PROXY_HEAD_BYTES_MAX: Final = 16 * 1024


class Upstream:
    """One server of a model."""

    def __init__(
        self, url: str, env: Mapping[str, str], context: ssl.SSLContext | None = None
    ) -> None:
        self.address = address_of(url)
        self._proxy = proxy_of(self.address, env)
        self._context = context

    def target(self, path: str) -> str:
        """What is asked for: all of the address, where a proxy is to find it."""
        whole = f"{self.address.path}{path}"
        if self._proxy is None or self.address.tls:
            return whole
        return f"http://{self.address.authority}{whole}"

    @property
    def headers(self) -> list[tuple[str, str]]:
        """What goes with each request for the sake of the way."""
        if self._proxy is None or self.address.tls or not self._proxy.user:
            return []
        return [("proxy-authorization", _basic(self._proxy.user))]

    async def open(self) -> Outbound:
        """A new connection. Raises: Unreachable."""
        at, proxy = self.address, self._proxy
        try:
            if at.tls and self._context is None:
                # It reads some hundred certificates.
                self._context = await asyncio.to_thread(ssl.create_default_context)
            context = self._context if at.tls else None
            if proxy is None or not at.tls:
                to = proxy or at
                streams = await asyncio.open_connection(to.host, to.port, ssl=context)
            else:
                tunnel = await _tunnel(proxy, at)
                streams = await asyncio.open_connection(
                    sock=tunnel, ssl=context, server_hostname=at.host
                )
        except ssl.SSLCertVerificationError as error:
            why = error.verify_message or "it does not hold"
            raise Unreachable(f"{at.authority} shows a certificate: {why}") from error
        except (OSError, UnicodeError) as error:
            way = f" (by the proxy {proxy.authority})" if proxy else ""
            raise Unreachable(f"{at.authority} is not reached{way}: {_said(error)}") from error
        return Outbound(*streams)


async def _tunnel(proxy: Address, to: Address) -> socket.socket:
    """A socket that a proxy has joined to a server; TLS begins on it."""
    loop = asyncio.get_running_loop()
    made = await _connected(proxy)
    host = f"[{to.host}]" if ":" in to.host else to.host
    user = f"Proxy-Authorization: {_basic(proxy.user)}\r\n" if proxy.user else ""
    head, joined = b"", False
    try:
        asked = f"CONNECT {host}:{to.port} HTTP/1.1\r\nHost: {host}:{to.port}\r\n{user}\r\n"
        await loop.sock_sendall(made, asked.encode("latin-1"))
        # One by one: what comes behind it is of TLS.
        while not head.endswith(b"\r\n\r\n") and len(head) < _PROXY_HEAD_BYTES_MAX:
            byte = await loop.sock_recv(made, 1)
            if not byte:
                break
            head += byte
        joined = re.match(rb"HTTP/1\.[01] 2\d\d[ \r]", head) is not None
        if not joined:
            raise ConnectionError("it makes no way to the model")
    finally:
        if not joined:
            made.close()
    return made


async def _connected(to: Address) -> socket.socket:
    """A socket to the first of its addresses that answers."""
    loop = asyncio.get_running_loop()
    failed: OSError = ConnectionError("it has no address")
    for family, kind, protocol, _, where in await loop.getaddrinfo(
        to.host, to.port, type=socket.SOCK_STREAM
    ):
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        try:
            await loop.sock_connect(made, where)
            return made
        except OSError as error:
            made.close()
            failed = error
        except asyncio.CancelledError:
            made.close()
            raise
    raise failed


def _basic(user: str) -> str:
    return f"Basic {base64.b64encode(user.encode()).decode()}"


def _said(error: Exception) -> str:
    return getattr(error, "strerror", "") or str(error) or type(error).__name__
