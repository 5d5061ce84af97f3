"""A link through the sshd of the far machine, where nothing of ours need listen.

Rule 1: sshd carries bytes and lets in; who is at the far end is what TLS inside says (tunnel.py),
        on both sides, as of every link.
Rule 2: at the far side runs `muster-ssh-serve` and nothing else, whatever is asked for; it hands
        the bytes to the daemon there.
Rule 3: one connection to each account, however many links go over it; it ends with the last one.
Rule 4: what it stands on is imported with the first dial: who is only dialled needs none of it.

docs/spec/ssh.md is the normative text.
"""

import asyncio
import getpass
import re
from importlib import import_module
from typing import TYPE_CHECKING, Final

from muster.address import check_address, split_address
from muster.channel.base import Link, LinkOptions, Listener, OnLink, Own
from muster.channel.tunnel import Tunnels
from muster.errors import Broken, Malformed
from muster.extra import bring

if TYPE_CHECKING:
    from muster.channel.ssh_client import Connection

NAME: Final = "ssh"
COMMAND: Final = 'exec "$HOME/.local/bin/muster-ssh-serve"'
PORT: Final = 22

_USER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\Z")


def split(address: str) -> tuple[str, str, int]:
    """User ("" where none is named), host and port of `[user@]host[:port]`. Raises: Malformed."""
    user, at, where = address.rpartition("@")
    if at and not _USER.match(user):
        raise Malformed(f"{address[:80]!r} names no user of sshd: write user@host or host:port")
    portless = where.endswith("]") or ":" not in where
    host, port = split_address(check_address(f"{where}:{PORT}" if portless else where))
    return user, host, port


def check_ssh_address(address: str) -> str:
    """`address` itself, when it can be dialled. Raises: Malformed."""
    split(address)
    return address


def check_listen(address: str) -> str:
    """Nobody listens for ssh but sshd. Raises: Malformed."""
    raise Malformed(f"{address[:80]!r} is of no use: sshd listens; say as `address` where it is")


class Options(LinkOptions, frozen=True, forbid_unknown_fields=True):
    """`[channel.ssh]`: addresses are `[user@]host[:port]`.

    `user` is who one is at an address that names nobody; `key` a file with a key of the person's
    own, for an sshd that does not know the fleet's.
    """

    check_listen = staticmethod(check_listen)
    check_address = staticmethod(check_ssh_address)

    user: str = ""
    key: str = ""


class SshChannel(Tunnels):
    """Dials through sshd; and opens the end that was dialled, for whoever holds its pipe."""

    name = NAME

    def __init__(self, options: Options, own: Own) -> None:
        super().__init__(own.credentials, own.identify)
        self._options = options
        self._keys = own.ssh
        self._connections: dict[tuple[str, str], Connection] = {}
        self._turns: dict[tuple[str, str], asyncio.Lock] = {}

    async def dial(self, address: str, *, peer: str = "") -> Link:
        connection = await self._connected(address, peer)
        link = self.open(await connection.run(COMMAND), serves=False)
        await link.prove(peer)
        return link

    async def listen(self, address: str, _on_link: OnLink) -> Listener:
        raise Broken(f"nothing of ours listens for ssh at {address}: sshd does")

    async def _connected(self, address: str, peer: str) -> "Connection":
        await _ready()
        from muster.channel import ssh_client  # noqa: PLC0415 - it was imported by `_ready`

        user, host, port = split(address)
        account = ssh_client.Account(user or self._options.user or getpass.getuser(), host, port)
        key = (str(account), peer)
        async with self._turns.setdefault(key, asyncio.Lock()):
            found = self._connections.get(key)
            if found is None or found.is_over:
                about = account, self._keys(), self._options.key
                found = self._connections[key] = await ssh_client.connect(*about, machine=peer)
            return found


async def _ready() -> None:
    """The file that imports asyncssh is there. Raises: Broken where that is not installed."""
    try:
        # It takes longer than a step may.
        await asyncio.to_thread(import_module, "muster.channel.ssh_client")
    except ModuleNotFoundError as error:
        raise Broken(
            f"the channel {NAME} needs more than is installed here ({error.name}): {bring('ssh')}"
        ) from error


def open_channel(options: Options, own: Own) -> SshChannel:
    """The channel of this machine."""
    return SshChannel(options, own)
