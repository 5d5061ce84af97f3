"""One connection to an sshd, and the programs that are run over it; or the files that are there.

Rule 1: this is the only file that imports asyncssh; its errors end here. It is imported when it is
used: that takes a fifth of a second.
Rule 2: nothing of the person's own settings is read, no agent is asked and nothing is forwarded.
Rule 3: the host is not what proves the far end: that is done inside (tunnel.py). One that shows a
certificate has to show one of ours, for the machine that is meant; any other key is taken.
Rule 4: what a login over there says before the program begins is passed over, so much and no more:
the program begins with a word of its own (`BEGIN`).
Rule 5: of files nothing is proven inside. So their host is the one that a file of the person's
known hosts names, and no other (sftp.py).
"""

import asyncio
import base64
import errno
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import asyncssh

from muster import limits
from muster.channel.base import SshKeys
from muster.errors import Broken, Denied, Forged, MusterError, Unreachable

BEGIN: Final = b"\nmuster-ssh 1\n"

_KEEPALIVE_S: Final = 5.0
_KEEPALIVES_MAX: Final = 2
_NOISE_BYTES_MAX: Final = 64 * 1024
_ERRORS_BYTES_MAX: Final = 2048
_PIECE_BYTES: Final = 64 * 1024
# What came and was not dealt with yet, above which the far end has to wait.
_WINDOW_BYTES: Final = 256 * 1024
# Longer than a handshake: the far side may have to start a daemon first.
BEGIN_S: Final = 30.0
# Within this an sshd says that what was closed is closed.
CLOSE_S: Final = 5.0

_LOG: Final = logging.getLogger("asyncssh")
_LOG.addHandler(logging.NullHandler())
_LOG.propagate = False


class Account(NamedTuple):
    """Whose account at which host."""

    user: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"


class SshPipe(asyncssh.SSHClientSession[bytes]):
    """What one program over there reads and writes: a `Pipe` (tunnel.py)."""

    def __init__(
        self, on_end: "Callable[[SshPipe], None]", on_silence: "Callable[[SshPipe], None]"
    ) -> None:
        self.moved: Callable[[], None] = lambda: None
        self.ended = False
        self.closed: str | None = None
        self.broken = False
        self._on_end, self._on_silence = on_end, on_silence
        self._patience: asyncio.TimerHandle | None = None
        self._gone = False
        self._loop = asyncio.get_running_loop()
        self._begun = self._loop.create_future()
        self._channel: Any = None
        self._noise = bytearray()
        self._errors = bytearray()
        self._waiting = bytearray()
        self._owed = 0
        self._full = self._paused = False

    # --- a pipe --------------------------------------------------------------------------

    def take(self) -> bytes:
        data, self._waiting = bytes(self._waiting), bytearray()
        self._owed += len(data)
        return data

    def give_back(self) -> None:
        self._owed = 0
        if self._paused and len(self._waiting) < _WINDOW_BYTES:
            self._paused = False
            # Not in here: what waits over there is handed to us in the same turn.
            self._loop.call_soon(self._channel.resume_reading)

    @property
    def room(self) -> int:
        return 0 if self._full or self._shut else _PIECE_BYTES

    def put(self, data: bytes) -> None:
        if not self._shut:
            self._channel.write(data)

    @property
    def _shut(self) -> bool:
        # The far end may have closed it, and what it said before is still read: `closed` comes
        # after that, and a write raises from now on.
        return self.closed is not None or self._channel.is_closing()

    def close(self) -> None:
        self._end("it was closed here")
        if self._channel is not None:
            self._channel.close()
            if self._patience is None and not self._gone:
                self._patience = self._loop.call_later(CLOSE_S, self._on_silence, self)

    # --- what asyncssh says --------------------------------------------------------------

    def connection_made(self, chan: Any) -> None:
        self._channel = chan
        chan.set_write_buffer_limits(high=limits.LINK_UNSENT_BYTES_MAX)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype is not None:
            self._errors = (self._errors + data)[-_ERRORS_BYTES_MAX:]
            return
        if not self._begun.done():
            self._noise += data
            before, found, data = bytes(self._noise).partition(BEGIN)
            if not found:
                if len(before) > _NOISE_BYTES_MAX:
                    self._end("the login there says too much before the program begins")
                    self.close()
                return
            self._noise.clear()
            self._begun.set_result(None)
        self._waiting += data
        if len(self._waiting) + self._owed >= _WINDOW_BYTES and not self._paused:
            self._paused = True
            self._channel.pause_reading()
        self.moved()

    def eof_received(self) -> bool:
        self.ended = True
        self.moved()
        return True

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self.moved()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        if self._patience is not None:
            self._patience.cancel()
        said = bytes(self._errors).decode("utf-8", "replace").strip().rpartition("\n")[2]
        self._end(str(exc) if exc else said.removeprefix("muster: ") or "the program there ended")
        self._on_end(self)

    def _end(self, why: str) -> None:
        if self.closed is None:
            self.closed = why
            if not self._begun.done():
                self._begun.set_result(None)
            self.moved()

    async def begun(self) -> None:
        """Returns when the program said its first word. Raises: Unreachable where it does not."""
        try:
            async with asyncio.timeout(BEGIN_S):
                await asyncio.shield(self._begun)
        except TimeoutError as error:
            self.close()
            raise Unreachable("sshd let this machine in, and no program of ours began") from error
        if self.closed is not None:
            raise Unreachable(f"sshd let this machine in, and then: {self.closed}")


class _Client(asyncssh.SSHClient):
    """What is believed of a host."""

    def __init__(self, authority: str) -> None:
        self._authority = base64.b64decode(authority.partition(" ")[2]) if authority else b""
        self.refusal = ""

    def validate_host_public_key(self, *_: Any) -> bool:
        return True

    def validate_host_ca_key(self, *about: Any) -> bool:
        ours = bool(about[-1].public_data == self._authority)
        if not ours:
            self.refusal = "it shows a certificate of another authority than this fleet's"
        return ours


class Connection:
    """One connection; it ends with the last program that runs over it."""

    def __init__(self, connection: asyncssh.SSHClientConnection) -> None:
        self._connection = connection
        # A program whose beginning failed may be said to have ended, too, or not: each once.
        self._pipes: set[SshPipe] = set()
        self._over = False

    @property
    def is_over(self) -> bool:
        return self._over or bool(self._connection.is_closed())

    async def run(self, command: str) -> SshPipe:
        """A program over there that said its first word. Raises: Unreachable."""
        pipe = SshPipe(self._ended, self._silent)
        self._pipes.add(pipe)
        try:
            async with asyncio.timeout(BEGIN_S):
                await self._connection.create_session(
                    lambda: pipe, command, encoding=None, window=_WINDOW_BYTES
                )
        except TimeoutError as error:
            pipe.close()
            self._silent(pipe)
            raise Unreachable("sshd let this machine in, and answers nothing more") from error
        except (asyncssh.Error, OSError) as error:
            self._ended(pipe)
            raise Unreachable(f"sshd runs nothing for this machine now: {error}") from error
        except asyncio.CancelledError:
            self._ended(pipe)
            raise
        try:
            await pipe.begun()
        except asyncio.CancelledError:
            pipe.close()
            raise
        return pipe

    def _silent(self, pipe: SshPipe) -> None:
        """What was asked of sshd was not answered: nothing more is begun over this connection."""
        self._over = True
        self._ended(pipe)

    def _ended(self, pipe: SshPipe) -> None:
        self._pipes.discard(pipe)
        if not self._pipes:
            self._over = True
            self._connection.close()


async def connect(account: Account, keys: SshKeys | None, key: str, *, machine: str) -> Connection:
    """A connection to this sshd; `machine` is whose a certificate of the host has to be.

    `keys` are those that the fleet made for this machine, `key` names a file with one of the
    person's own. Raises: Unreachable, Denied, Forged, Broken.
    """
    client = _Client(keys.authority if keys else "")
    try:
        shown = await asyncio.to_thread(_keys, keys, key)
        connection, _ = await asyncssh.create_connection(
            lambda: client,
            account.host,
            account.port,
            username=account.user,
            client_keys=shown,
            known_hosts=([], [], []),
            host_key_alias=machine or None,
            config=None,
            agent_path=None,
            gss_host=None,
            preferred_auth=("publickey",),
            compression_algs=None,
            x509_trusted_certs=None,
            keepalive_interval=_KEEPALIVE_S,
            keepalive_count_max=_KEEPALIVES_MAX,
            connect_timeout=limits.HANDSHAKE_TIMEOUT_MS / 1000,
            login_timeout=limits.HANDSHAKE_TIMEOUT_MS / 1000,
        )
    except asyncssh.PermissionDenied as error:
        raise Denied(
            f"sshd at {account} does not let this machine in: `muster ssh trust` there lets the "
            "machines of the fleet in"
        ) from error
    except asyncssh.HostKeyNotVerifiable as error:
        raise Forged(
            f"the host {account} is not the one meant: {client.refusal or error}"
        ) from error
    except (asyncssh.Error, OSError, TimeoutError) as error:
        raise Unreachable(f"no sshd lets us in at {account} ({error or 'it is silent'})") from error
    return Connection(connection)


def _keys(keys: SshKeys | None, key: str) -> list[Any]:
    """What is shown to sshd, the fleet's own first. Raises: Broken, Unreachable without any."""
    found: list[Any] = []
    try:
        if keys is not None:
            pair = asyncssh.import_private_key(keys.key), asyncssh.import_certificate(keys.shown)
            found.append(pair)
        if key:
            found.append(asyncssh.read_private_key(Path(key).expanduser()))
    except (asyncssh.KeyImportError, OSError) as error:
        raise Broken(
            f"an SSH key cannot be used ({error}): check the `key` of the channel"
        ) from error
    if not found:
        raise no_keys()
    return found


# --- files -------------------------------------------------------------------------------------


@contextmanager
def as_here() -> Iterator[None]:
    """Errors as of files of this machine. Raises: OSError."""
    try:
        yield
    except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath) as error:
        raise FileNotFoundError(errno.ENOENT, error.reason) from error
    except (asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPQuotaExceeded) as error:
        raise OSError(errno.ENOSPC, error.reason) from error
    except (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection) as error:
        raise ConnectionError(errno.ECONNRESET, error.reason) from error
    except asyncssh.SFTPOpUnsupported as error:
        raise OSError(errno.ENOTSUP, error.reason) from error
    except asyncssh.SFTPError as error:
        raise OSError(errno.EIO, error.reason) from error
    except asyncssh.Error as error:
        raise ConnectionError(errno.ECONNRESET, str(error)) from error


async def files_of(account: Account, key: str, known_hosts: str) -> tuple[Any, Any]:
    """A connection and its client of sftp (far_files.py). Raises: Unreachable; Broken where a
    person has to do something first.
    """
    known = await asyncio.to_thread(_known, known_hosts)
    try:
        connection = await asyncssh.connect(
            account.host, account.port, username=account.user,
            client_keys=await asyncio.to_thread(_keys, None, key),
            known_hosts=known,
            config=None, agent_path=None, gss_host=None, preferred_auth=("publickey",),
            x509_trusted_certs=None, keepalive_interval=_KEEPALIVE_S,
            keepalive_count_max=_KEEPALIVES_MAX,
            connect_timeout=limits.HANDSHAKE_TIMEOUT_MS / 1000,
            login_timeout=limits.HANDSHAKE_TIMEOUT_MS / 1000,
        )  # fmt: skip
    except asyncssh.PermissionDenied as error:
        raise Broken(f"sshd at {account} does not let the key {key} in") from error
    except asyncssh.HostKeyNotVerifiable as error:
        raise Broken(
            f"the host {account.host} is not the one that {known_hosts} knows, or is not in there: "
            f"`ssh -p {account.port} {account.user}@{account.host}` shows its key and asks"
        ) from error
    except (asyncssh.Error, OSError, TimeoutError) as error:
        raise Unreachable(f"no sshd lets us in at {account} ({error or 'it is silent'})") from error
    except ValueError as error:
        raise Broken(f"{known_hosts} is no file of known hosts ({error})") from error
    try:
        # Others put files there by any name.
        return connection, await connection.start_sftp_client(path_errors="surrogateescape")
    except (asyncssh.Error, OSError) as error:
        connection.close()
        raise Broken(f"the sshd at {account} has no sftp ({error})") from error
    except asyncio.CancelledError:
        # Whoever gave it up has nothing to close.
        connection.abort()
        raise


def _known(known_hosts: str) -> Any:
    path = Path(known_hosts).expanduser()
    # Without such a file nobody is known.
    return str(path) if path.is_file() else ([], [], [])


def no_keys() -> MusterError:
    return Unreachable(
        "no hub gave this machine an SSH certificate yet: it asks as soon as it reaches one; or "
        "name a key of yours as `channel.ssh.key`"
    )
