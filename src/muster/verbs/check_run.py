"""A check of merged files: a shell line of the operator's, run in the scratch repository.

Rule 1: the line is one that the person typed, or that stands in the spec that they ordered; it runs
as themselves, on this machine, as they would run it.
Rule 2: nothing of it lives on, and of what it says the end is kept.
"""

import asyncio
import contextlib
import os
import signal
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from muster.agent.shell import SHELLS
from muster.errors import Refused, unable
from muster.git import person
from muster.limits import PHASE_TIMEOUT_MS

_OUTPUT_BYTES_MAX: Final = 4_000


class Check(NamedTuple):
    """A line, and the shell that reads it: `sh` or `bash`."""

    command: str
    shell: str = "sh"


class CheckFailed(Refused):
    """A check did not succeed, or not in time; `output` is the end of what it said."""

    def __init__(self, command: str, why: str, output: str) -> None:
        super().__init__(f"the check {command!r} {why}; nothing was changed")
        self.command, self.output = command, output


async def run(check: Check, folder: Path) -> None:
    """Run it in the folder. Raises: CheckFailed."""
    with tempfile.TemporaryFile() as out:
        try:
            process = await asyncio.create_subprocess_exec(
                *SHELLS[check.shell], check.command, cwd=folder, env=_environment(),
                stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise unable(f"the check cannot be started: {error}", error) from error
        why = ""
        try:
            async with asyncio.timeout(PHASE_TIMEOUT_MS / 1000):
                code = await process.wait()
                why = f"ended with exit code {code}" if code else ""
        except TimeoutError:
            why = f"took longer than {PHASE_TIMEOUT_MS // 60_000} minutes"
        finally:
            # Also what it left in the background, which would write into what is to go.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if why:
            size = out.seek(0, os.SEEK_END)
            out.seek(max(0, size - _OUTPUT_BYTES_MAX))
            raise CheckFailed(check.command, why, out.read().decode("utf-8", "replace"))


def _environment() -> dict[str, str]:
    """The person's, without what leads to this machine's daemon."""
    return {k: v for k, v in person.environment().items() if not k.startswith("MUSTER_")}
