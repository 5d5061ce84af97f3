"""This machine's hand at the registers of schedules: it reads, moves, and tells the core.

Rule: whatever is asked ends as exactly one `RegisterSaid`; what is no answer says so, and nobody
takes it for a slot that nobody has.
"""

import json
from pathlib import Path

from muster.errors import MISTAKE, Malformed, MusterError
from muster.git import register
from muster.git.cache import Origin
from muster.log import canon
from muster.node.runtime import AttemptTools
from muster.node.services.schedules import AskRegister, MoveRegister, RegisterSaid
from muster.task.schedule import REPO
from muster.task.slot_keeper import Value, value_of


class Registers:
    """Reads and moves, by where a schedule says that its register is."""

    def __init__(self, effects: AttemptTools) -> None:
        self._effects = effects

    async def ask(self, effect: AskRegister) -> RegisterSaid:
        """What it holds."""
        try:
            found = await register.read(*await self._place(effect.fence), effect.schedule)
            return RegisterSaid(effect.schedule, found.revision, _value(found.raw))
        except MusterError as error:
            return RegisterSaid(effect.schedule, reason=str(error))

    async def move(self, effect: MoveRegister) -> RegisterSaid:
        """What it holds after somebody moved it, perhaps this machine."""
        raw = canon.encode(effect.value._asdict())
        try:
            place = await self._place(effect.fence)
            found = await register.move(*place, effect.schedule, effect.revision, raw)
            return RegisterSaid(effect.schedule, found.revision, _value(found.raw), moved=True)
        except MusterError as error:
            return RegisterSaid(effect.schedule, reason=str(error))

    @staticmethod
    def failed(effect: AskRegister | MoveRegister) -> RegisterSaid:
        """This machine failed at it: no answer."""
        return RegisterSaid(effect.schedule, reason=MISTAKE)

    async def _place(self, fence: str) -> tuple[Path, str]:
        repo = fence.removeprefix(REPO)
        if repo == fence:
            raise Malformed(f"the fence {fence[:40]} is none that this Muster knows")
        path, url = self._effects.place_of(repo)
        return path or await self._effects.worktrees.refresh(Origin(repo, url)), url


def _value(raw: bytes) -> Value:
    """Raises: Malformed for what no keeper wrote."""
    if not raw:
        return Value()
    try:
        said = json.loads(raw)
        return value_of(said if isinstance(said, dict) else {"slot": said})
    except (ValueError, RecursionError) as error:
        raise Malformed(f"the register of a schedule cannot be read: {error}") from error
