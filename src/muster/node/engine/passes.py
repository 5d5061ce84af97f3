"""What lets this machine in at the NATS server of another one: asked for over any link, and kept.

Rule 1: it is asked for now and then, for a server moves; what is kept counts until there is
another.
Rule 2: a pass is no secret and no grant: it says who is let in, and the machine's `nats` key is
proved beside it.
Rule 3: why there is none is kept in its place, for whoever asks why nothing comes by the server.
Rule 4: where the machine that is named gives none, others are asked, those first whose servers were
one with its own. What they give counts where the authority's word says that they are.
Rule 5: with an older word than is known nobody gives one: who was taken out of a cluster has one.
"""

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import msgspec

from muster import atomic_file
from muster.channel.base import PostOptions
from muster.errors import Denied, Malformed, MusterError, NotFound
from muster.fleet.nats_cluster import Servers, servers_of
from muster.log.stream import FleetId, MachineId
from muster.node.attempts import question
from muster.node.runtime import Runtime
from muster.printable import visible

NATS: Final = "nats"
# While there is none; and once there is one.
_SOON_S: Final = 5.0
_SELDOM_S: Final = 300.0
# Characters of what another machine says.
_WHY_MAX: Final = 300
# In the home, beside the pass: the word of whose servers are one, empty for a server alone.
_WORD: Final = "nats/servers.txt"
_WORD_BYTES_MAX: Final = 4096
# Machines of which nothing is known are asked so many at a time, and other ones the next time.
_OTHERS_AT_ONCE: Final = 4


class _Beside(msgspec.Struct, frozen=True):
    word: Annotated[str, msgspec.Meta(max_length=_WORD_BYTES_MAX)] = ""


def servers_known(home: Path, fleet: FleetId) -> tuple[str, ...]:
    """Whose servers are one with that of the place, as is known; none where it is alone."""
    said = _said(_word(home), fleet)
    return said.machines if said is not None else ()


def _word(home: Path) -> str | None:
    """The word that came with the last pass; None where none came yet."""
    try:
        with (home / _WORD).open("rb") as file:
            return file.read(_WORD_BYTES_MAX).decode("utf-8", "replace")
    except OSError:
        return None


def _said(word: str | None, fleet: FleetId) -> Servers | None:
    """Whose servers are one, as the authority said it; None where it did not."""
    try:
        return servers_of((word or "").encode(), fleet)
    except MusterError:
        return None


class Passes:
    """See the rules at the top of this file."""

    def __init__(self, daemon: Runtime) -> None:
        self._daemon = daemon
        self._folder = Path(daemon.home.path)
        self._round = 0

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
        """Whether somebody gave us one. Raises: MusterError where all that came is none."""
        from muster.channel.nats import REFUSED  # noqa: PLC0415 - as above

        core = self._daemon.core
        try:
            named = core.roster.find(place).machine
        except NotFound:
            return False
        if named == core.machine:
            # What serves here writes its own.
            return True
        why, odd = "", None
        for machine in (named, *self._others(named)):
            answer = await question.ask(self._daemon, machine, "engine.pass", {})
            if not answer["ok"]:
                # What is kept is what the one that is named says.
                why = why or visible(str(answer["error"]["text"]))[:_WHY_MAX]
                continue
            try:
                self._take(answer["value"], named, machine)
            except MusterError as error:
                odd = odd or error
                continue
            return True
        if why:
            self._write(REFUSED, why.encode())
        if odd is not None:
            raise odd
        return False

    def _others(self, named: MachineId) -> Iterator[MachineId]:
        """Who may serve with it, those of the last word first; some others after them."""
        core, word = self._daemon.core, _word(self._folder)
        live, link_to = core.roster.machines, core.link_to
        said = _said(word, core.roster.fleet)
        known = said.machines if said is not None else ()
        able = [m for m in live if m not in (named, core.machine) and link_to(m) is not None]
        yield from (m for m in able if m in known)
        if word == "":
            # What served alone serves with nobody.
            return
        hubs = {record.machine for record in core.roster.hubs()}
        rest = sorted((m for m in able if m not in known), key=lambda m: (m not in hubs, m))
        self._round += 1
        for number in range(min(_OTHERS_AT_ONCE, len(rest))):
            yield rest[(self._round * _OTHERS_AT_ONCE + number) % len(rest)]

    def _take(self, value: object, named: MachineId, machine: MachineId) -> None:
        """Raises: Malformed for what is no pass; Denied for one that is not for that place."""
        from muster.channel.nats import PASS, REFUSED, Pass  # noqa: PLC0415 - as above

        core = self._daemon.core
        name = core.membership.name_of
        try:
            shown, word = msgspec.convert(value, Pass), msgspec.convert(value, _Beside).word
        except msgspec.ValidationError as error:
            raise Malformed(
                f"{name(machine)} gave no pass for its NATS server ({error})"
            ) from error
        said, known = (_said(w, core.roster.fleet) for w in (word, _word(self._folder)))
        if machine != named and (said is None or not {machine, named} <= set(said.machines)):
            raise Denied(
                f"{name(machine)} gave a pass for a NATS server that is not one with that of "
                f"{name(named)}"
            )
        if said is not None and known is not None and said.is_older(known):
            raise Denied(
                f"{name(machine)} gave a pass with an older word of whose NATS servers are one "
                "than this machine knows. If the machine with the authority was set up anew, "
                f"remove `{_WORD}` of the home here"
            )
        self._write(PASS, msgspec.json.encode(shown))
        # Another of the same servers may not have heard of the newest one yet.
        if not word or (said is not None and (known is None or said.stamp >= known.stamp)):
            self._write(_WORD, word.encode())
        (self._folder / REFUSED).unlink(missing_ok=True)

    def _write(self, name: str, text: bytes) -> None:
        path = self._folder / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if not path.exists() or path.read_bytes() != text:
            atomic_file.write_file(path, text)
