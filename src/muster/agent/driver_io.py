"""A driver's own end of the shim's line format (see shim.py): commands in, events out."""

import asyncio
import json
import os
from typing import Any

from muster.agent.driver import Event


class DriverPipe:
    """The driver's own end of the shim's line format."""

    def __init__(self, commands: asyncio.StreamReader) -> None:
        self._commands = commands

    async def hear(self) -> dict[str, Any] | None:
        """The next message of the shim; None when there is none any more."""
        line = await self._commands.readline()
        message: dict[str, Any] | None = json.loads(line) if line else None
        return message

    def tell(self, events: list[Event]) -> None:
        for kind, fields in events:
            self.write({"event": [kind, fields]})

    def write(self, message: dict[str, Any]) -> None:
        # Blocking on purpose: a reader that is behind slows the agent down.
        data = json.dumps(message, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
        while data:
            data = data[os.write(1, data) :]
