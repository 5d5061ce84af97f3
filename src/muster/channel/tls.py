"""What TLS checks for us, and what it does not.

Rule 1: the chain is checked, the calendar and the name are not: see `http`.
Rule 2: no session is resumed, so every link is judged anew.
Rule 3: a key is never written where another user could read it, nor for longer than a load.
"""

import contextlib
import os
import ssl
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from muster.errors import USED_UP, Broken, Exhausted

# OpenSSL's X509_V_FLAG_NO_CHECK_TIME; the ssl module has no name for it.
_NO_CHECK_TIME: Final = 0x200000


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a machine shows in TLS. The fields with a key are never printed."""

    cert_pem: bytes
    key_pem: bytes = field(repr=False)
    ca_pem: bytes


def server_context(credentials: Credentials, guests: Iterable[str] = ()) -> ssl.SSLContext:
    """For a listener: a dialer may show a certificate, and a shown one must be of the fleet.

    `guests` are the authorities of other fleets whose machines may come, too, each in PEM. One that
    TLS does not take (`is_authority`) lets nobody in, and keeps nobody else out.
    """
    tls = _context(ssl.PROTOCOL_TLS_SERVER, credentials)
    for pem in guests:
        # `foreign.guests` counts each of them as `guests-unusable`.
        with contextlib.suppress(ssl.SSLError, ValueError):
            tls.load_verify_locations(cadata=pem)
    tls.verify_mode = ssl.CERT_OPTIONAL
    tls.num_tickets = 0
    return tls


def is_authority(pem: str) -> bool:
    """Whether TLS takes this as an authority."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError):
        return False
    return True


def client_context(credentials: Credentials | None) -> ssl.SSLContext:
    """For a dialer: the listener must show a certificate of the fleet.

    Who joins knows no authority yet and has no credentials; the caller's pin is the whole check.
    """
    tls = _context(ssl.PROTOCOL_TLS_CLIENT, credentials)
    tls.check_hostname = False
    tls.verify_mode = ssl.CERT_REQUIRED if credentials else ssl.CERT_NONE
    return tls


def _context(side: int, credentials: Credentials | None) -> ssl.SSLContext:
    tls = ssl.SSLContext(side)
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    tls.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
    if credentials is not None:
        try:
            tls.load_verify_locations(cadata=credentials.ca_pem.decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            what = f"the authority's certificate is unusable ({error}); join again"
            raise Broken(what) from error
        _load_pair(tls, credentials)
    return tls


def _load_pair(tls: ssl.SSLContext, credentials: Credentials) -> None:
    """Show this certificate from the next handshake on. Raises Broken."""
    secret = credentials.key_pem + b"\n" + credentials.cert_pem
    try:
        # OpenSSL reads a key only from a file: one in memory on Linux, else a private one.
        with contextlib.ExitStack() as undo:
            if sys.platform == "linux":
                descriptor = os.memfd_create("muster-tls", os.MFD_CLOEXEC)
                path = f"/proc/self/fd/{descriptor}"
            else:
                # The folder is 0700; Windows knows no modes, there it inherits this user's own.
                path = os.path.join(undo.enter_context(tempfile.TemporaryDirectory()), "pair.pem")
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            undo.callback(os.close, descriptor)
            os.write(descriptor, secret)
            tls.load_cert_chain(path)
    except OSError as error:
        if not isinstance(error, ssl.SSLError) and error.errno in USED_UP:
            raise Exhausted(f"the TLS key cannot be loaded now ({error}); try again") from error
        raise Broken(f"the TLS key or certificate is unusable ({error}); renew it") from error
