"""The program of an agent that speaks ACP, as our driver starts it: plainly, or inside its sandbox.

Rule 1: the driver stays outside: it has the order, and what is inside may not.
Rule 2: an order with a sandbox is never started without it (as started.py has it).
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from typing import Any, Final

from muster.agent import process_tree
from muster.agent.sandbox import enclosure
from muster.agent.sandbox.profile import profile_of
from muster.agent.started import HANDOVER, SAID_BYTES_MAX, NotStartedError
from muster.errors import Broken, NotFound

# What never began has said what it had to say; a copy of its pipe may be held by nobody.
_SAID_S_MAX: Final = 5.0


async def start(order: Mapping[str, Any]) -> asyncio.subprocess.Process:
    """The running program, with pipes. Raises: NotStartedError."""
    argv, env, cwd = order["argv"], order["env"], str(order["cwd"])
    sandbox: Mapping[str, Any] = order.get("sandbox") or {}
    try:
        if sandbox:
            return await _start_enclosed(argv, env, cwd, sandbox)
        return await _start(argv, env=env, cwd=cwd)
    except (OSError, ValueError) as error:
        raise NotStartedError(f"could not start {argv[0]}: {error}", "agent") from error


async def _start_enclosed(
    argv: list[str], env: dict[str, str], cwd: str, sandbox: Mapping[str, Any]
) -> asyncio.subprocess.Process:
    program = None
    try:
        made = enclosure.Enclosure(profile_of(cwd, sandbox), argv, env, sandbox.get(HANDOVER))
        try:
            how = {"preexec_fn": made.enter, "pass_fds": made.handles}
            program = await _start(made.argv, env=made.env, cwd="/", **how)
            # Nothing else goes on in the driver yet; it may wait here.
            made.confirm()
        finally:
            made.close()
    except (Broken, NotFound, OSError) as error:
        said = b"" if program is None else await _end(program)
        text = f"could not start {argv[0]}: {enclosure.explained(error, said)}"
        fault = "agent" if isinstance(error, NotFound) else "machine"
        raise NotStartedError(text, fault) from error
    return program


async def _start(argv: list[str], **how: Any) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        **how,
    )


def ask_to_end(program: asyncio.subprocess.Process, order: Mapping[str, Any]) -> None:
    """TERM to its group; inside a sandbox to whoever is there, for what holds it would end them."""
    # It has ended by itself, and its group with it.
    with contextlib.suppress(ProcessLookupError):
        if not order.get("sandbox"):
            os.killpg(program.pid, signal.SIGTERM)
            return
        inside = process_tree.descendants(program.pid, process_tree.procfs_table())
        process_tree.send(inside - process_tree.enclosing(inside), signal.SIGTERM)


async def _end(program: asyncio.subprocess.Process) -> bytes:
    """End what did not come to be; what it said of that. The shim ends what is left of it."""
    with contextlib.suppress(ProcessLookupError):
        program.kill()
    assert program.stderr is not None
    # A child that it left keeps its output open: then nothing is known of why.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SAID_S_MAX):
            return await program.stderr.read(SAID_BYTES_MAX)
    return b""
