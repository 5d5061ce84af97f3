"""What lets this machine in at the NATS server of another one: asked for over any link, and kept.

Rule 1: it is asked for now and then, for a server moves; what is kept counts until there is
another.
Rule 2: a pass is no secret and no grant: it says who is let in, and the machine's `nats` key is
proved beside it.
Rule 3: why there is none is kept in its place, for whoever asks why nothing comes by the server.
"""

import asyncio
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from muster import atomic_file
from muster.channel.base import PostOptions
from muster.errors import Malformed, NotFound
from muster.node.attempts import question
from muster.node.runtime import Runtime
from muster.printable import visible

NATS: Final = "nats"
# While there is none; and once there is one.
_SOON_S: Final = 5.0
_SELDOM_S: Final = 300.0
# Characters of what another machine says.
_WHY_MAX: Final = 300


class Passes:
    """See the rules at the top of this file."""

    def __init__(self, daemon: Runtime) -> None:
        self._daemon = daemon
        self._folder = Path(daemon.home.path)

    def begin(self) -> None:
        """Ask from now on, where the mailboxes of this machine are at the server of another one."""
        options = self._daemon.machine.config.channel.get(NATS)
        if isinstance(options, PostOptions):
            from muster.channel.nats import is_machine  # noqa: PLC0415 - it stands on an extra

            if is_machine(options.place):
                ask = partial(self._ask_for_ever, options.place)
                self._daemon.supervisor.keep("nats-pass", ask)

    async def _ask_for_ever(self, place: str) -> None:
        while True:
            found = False
            async with self._daemon.supervisor.attempt("nats-pass"):
                found = await self._ask(place)
            await asyncio.sleep(_SELDOM_S if found else _SOON_S)

    async def _ask(self, place: str) -> bool:
        """Whether the machine gave us one. Raises: Malformed for one that is none."""
        from muster.channel.nats import PASS, REFUSED, Pass  # noqa: PLC0415 - as above

        core = self._daemon.core
        try:
            machine = core.roster.find(place).machine
        except NotFound:
            return False
        if machine == core.machine:
            # What serves here writes its own.
            return True
        answer = await question.ask(self._daemon, machine, "engine.pass", {})
        if not answer["ok"]:
            why = visible(str(answer["error"]["text"]))[:_WHY_MAX]
            self._write(REFUSED, why.encode())
            return False
        try:
            shown = msgspec.convert(answer["value"], Pass)
        except msgspec.ValidationError as error:
            raise Malformed(f"{place} gave no pass for its NATS server ({error})") from error
        self._write(PASS, msgspec.json.encode(shown))
        (self._folder / REFUSED).unlink(missing_ok=True)
        return True

    def _write(self, name: str, text: bytes) -> None:
        path = self._folder / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if not path.exists() or path.read_bytes() != text:
            atomic_file.write_file(path, text)
