"""The process of a NATS server: begun, waited for until it listens, and ended."""

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from msgspec.json import decode

from muster import child_process
from muster.agent.process_tree import bind
from muster.errors import Broken

# Chosen arbitrarily: it writes where it listens within milliseconds, also on a busy machine.
_BEGINS_S: Final = 20.0
_LOOK_S: Final = 0.05
_ENDS_S: Final = 5.0


@contextlib.asynccontextmanager
async def running(
    program: str, configuration: Path, log: Path
) -> AsyncIterator[tuple[child_process.ChildProcess, int]]:
    """A server and its port; the folder of its configuration is where it says that. It ends after.

    Raises: Broken, and OSError where the program cannot be run.
    """
    # What it says before it has read where its log is goes there, too.
    _set_aside(log)
    with log.open("ab") as said:
        child = await child_process.start(
            program, "-c", str(configuration), stdin=asyncio.subprocess.DEVNULL, stdout=said,
            stderr=said, preexec_fn=lambda: bind(None),
        )  # fmt: skip
    try:
        yield child, await _begun(child, configuration.parent, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ENDS_S):
                await child.wait()
        await child.end()


def _set_aside(log: Path) -> None:
    """What one before it said is no reason of this one's end."""
    # None has run here before.
    with contextlib.suppress(FileNotFoundError):
        log.replace(log.with_name("server.log.before"))


def last_words(log: Path) -> str:
    """What a server said last, an error where there is one."""
    # It has no file of its own, or one that is gone: it said nothing.
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
        whole = file.read().decode("utf-8", "replace").splitlines()
        lines = [line for line in whole if line.strip()]
        said = [line for line in lines if re.search(r"\[(ERR|FTL)\]", line)] or lines
        if said:
            return said[-1][:300]
    return "it said nothing"


async def _begun(child: child_process.ChildProcess, folder: Path, log: Path) -> int:
    """Where it listens, once it says so. Raises: Broken."""
    ports = folder / f"nats-server_{child.pid}.ports"
    try:
        for _ in range(int(_BEGINS_S / _LOOK_S)):
            if found := _listens(ports):
                return found
            if child.returncode is not None:
                break
            await asyncio.sleep(_LOOK_S)
    finally:
        ports.unlink(missing_ok=True)
    raise Broken(f"nats-server did not begin ({child.returncode}): {last_words(log)}")


def _listens(ports: Path) -> int:
    """The port in the file that the server writes; 0 while it is not there, or by half."""
    try:
        found = decode(ports.read_bytes(), type=dict[str, list[str]])
        return int(found["nats"][0].rpartition(":")[2])
    except (OSError, ValueError, LookupError):
        return 0
