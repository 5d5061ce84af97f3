"""Who asks: the live session of an agent program whose token a request bears.

Rule 1: before anything of a request is parsed its token is looked up, by the daemon, each time: one
whose session ended is refused at once.
Rule 2: the token is an identity and no authority: what the session asks goes to the daemon with it,
as the capability of any agent does, and is judged there.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from muster.door.daemon import Daemon
from muster.errors import Denied

_BEARER: Final = re.compile(rb"[Bb]earer +([\x21-\x7e]{16,512}) *")


class Session(NamedTuple):
    """One session: its token, its name (`shop-3fa9`), and the agent program whose it is."""

    token: str
    name: str
    agent: str

    @property
    def reader(self) -> str:
        """Whose messages are its own: `claude#shop-3fa9`."""
        return f"{self.agent}#{self.name}"


async def whose(daemon: Daemon, authorization: Iterable[bytes]) -> Session:
    """The session that asks. Raises: Denied where none does, Unreachable without a daemon."""
    found = [_BEARER.fullmatch(value) for value in authorization]
    if len(found) != 1 or found[0] is None:
        raise Denied("a request needs the token of its session, as `Authorization: Bearer …`")
    token = found[0].group(1).decode("ascii")
    who = await daemon.ask("session.who", {"token": token})
    return Session(token, str(who["session"]), str(who["agent"]))
